//! Kernel settings that Services need. Where they may not be set the reader is told what will not work.

use std::path::PathBuf;

/// A setting that is not as it must be, and could not be made so.
#[derive(Debug, thiserror::Error)]
#[error("{name} is {found} and cannot be set to 1 ({source}): {consequence}; set it as root of the machine")]
pub struct NotPermitted {
    name: &'static str,
    found: String,
    source: std::io::Error,
    consequence: &'static str,
}

pub const ROUTE_LOCALNET: &str = "net/ipv4/conf/all/route_localnet";

const FORWARDING: (&str, &str) = ("net/ipv4/ip_forward", "pods reach nothing beyond their node");
const BRIDGE: (&str, &str) = (
    "net/bridge/bridge-nf-call-iptables",
    "pods do not reach Services whose endpoint is on their own bridge",
);
const LOCALNET: (&str, &str) = (ROUTE_LOCALNET, "node ports do not answer on loopback addresses");

fn read(name: &str) -> std::io::Result<String> {
    let path: PathBuf = ["/proc/sys", name].iter().collect();
    Ok(std::fs::read_to_string(path)?.trim().to_owned())
}

fn ensure((name, consequence): (&'static str, &'static str)) -> Result<(), NotPermitted> {
    // a setting that is not there belongs to a module that is not loaded, and then nothing needs it
    let Ok(found) = read(name) else { return Ok(()) };
    if found == "1" {
        return Ok(());
    }
    let path: PathBuf = ["/proc/sys", name].iter().collect();
    std::fs::write(path, "1").map_err(|source| NotPermitted { name, found, source, consequence })
}

/// Makes the settings, and says whether node ports can answer on loopback addresses.
pub fn prepare(localhost_node_ports: bool) -> bool {
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
