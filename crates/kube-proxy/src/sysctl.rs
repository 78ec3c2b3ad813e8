//! Kernel settings that Services need. Where they may not be set the reader is told what will not work.

use std::path::PathBuf;

use crate::iptables::run;

/// A setting that is not as it must be, and could not be made so.
#[derive(Debug, thiserror::Error)]
#[error("{name} is {found} and cannot be set to 1 ({source}): {consequence}; set it as root of the machine")]
pub struct NotPermitted {
    name: &'static str,
    found: String,
    source: std::io::Error,
    consequence: &'static str,
}

const FORWARDING: (&str, &str) = ("net/ipv4/ip_forward", "pods reach nothing beyond their node");
const BRIDGE: (&str, &str) = (
    "net/bridge/bridge-nf-call-iptables",
    "pods do not reach Services whose endpoint is on their own bridge",
);
const LOCALNET: (&str, &str) =
    ("net/ipv4/conf/all/route_localnet", "node ports do not answer on loopback addresses");

fn path(name: &str) -> PathBuf {
    ["/proc/sys", name].iter().collect()
}

fn read(name: &str) -> std::io::Result<String> {
    Ok(std::fs::read_to_string(path(name))?.trim().to_owned())
}

fn ensure((name, consequence): (&'static str, &'static str)) -> Result<(), NotPermitted> {
    let found = read(name).unwrap_or_else(|_| "not there".to_owned());
    if found == "1" {
        return Ok(());
    }
    std::fs::write(path(name), "1").map_err(|source| NotPermitted { name, found, source, consequence })
}

/// Makes the settings, and says whether node ports can answer on loopback addresses.
pub async fn prepare(localhost_node_ports: bool) -> bool {
    if !path(BRIDGE.0).exists()
        && let Err(error) = run("modprobe", &["br_netfilter"], None).await
    {
        tracing::debug!(%error, "bridges do not pass packets to iptables yet");
    }
    for setting in [FORWARDING, BRIDGE] {
        if let Err(error) = ensure(setting) {
            tracing::warn!("{error}");
        }
    }
    if !localhost_node_ports {
        return false;
    }
    match ensure(LOCALNET) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!("{error}");
            false
        }
    }
}

/// Whether the kernel lets packets outside of the window pass.
pub fn conntrack_liberal() -> bool {
    read("net/netfilter/nf_conntrack_tcp_be_liberal").is_ok_and(|value| value != "0")
}
