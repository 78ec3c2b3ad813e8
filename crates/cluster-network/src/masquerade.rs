//! Packets of pods to the outside carry their node's address, since nobody there has a route to pods.

use ipnet::Ipv4Net;
use kube_proxy::{Error, Iptables};

const TABLE: &str = "nat";
const CHAIN: &str = "XEBEC-MASQUERADE";
const FROM: &str = "POSTROUTING";
/// Of the portmap plugin, which leaves them when the last host port has gone.
const HOST_PORTS: &str = "CNI-HOSTPORT-";

/// Writes the rules, whether they are there or not.
pub async fn ensure(iptables: &Iptables, pods: Ipv4Net, cluster: Ipv4Net) -> Result<(), Error> {
    let jump = format!(" -j {CHAIN}");
    let is_there = iptables.list(TABLE, FROM).await?.iter().any(|rule| rule.ends_with(&jump));
    iptables.restore(&input(pods, cluster, iptables.has_random_fully(), !is_there)).await
}

fn input(pods: Ipv4Net, cluster: Ipv4Net, random_fully: bool, with_jump: bool) -> String {
    let random = if random_fully { " --random-fully" } else { "" };
    let jump = match with_jump {
        true => format!("-A {FROM} -m comment --comment \"pods to the outside of the cluster\" -j {CHAIN}\n"),
        false => String::new(),
    };
    // pods see each other's addresses, wherever they are
    format!(
        "*{TABLE}\n:{CHAIN} - [0:0]\n\
         -A {CHAIN} ! -s {pods} -j RETURN\n\
         -A {CHAIN} -d {cluster} -j RETURN\n\
         -A {CHAIN} -d 224.0.0.0/4 -j RETURN\n\
         -A {CHAIN} -j MASQUERADE{random}\n\
         {jump}COMMIT\n"
    )
}

/// Takes the rules out again, and what the portmap plugin left when it has no host port any more.
pub async fn cleanup() -> Result<(), Error> {
    let iptables = Iptables::open().await?;
    match removal(&iptables.save(TABLE).await?) {
        nothing if nothing.is_empty() => Ok(()),
        input => iptables.restore(&input).await,
    }
}

/// The input that removes what is ours of a table, as `iptables-save` lists it.
fn removal(saved: &[String]) -> String {
    let has_host_ports = saved.iter().any(|line| line.starts_with("-A CNI-HOSTPORT-DNAT "));
    let goes = |chain: &str| chain == CHAIN || (!has_host_ports && chain.starts_with(HOST_PORTS));
    let (mut chains, mut jumps, mut removals) = (String::new(), String::new(), String::new());
    for line in saved {
        if let Some(rule) = line.strip_prefix("-A ") {
            let own = rule.split(' ').next().unwrap_or_default();
            let target = rule.rsplit_once(" -j ").map(|(_, target)| target).unwrap_or_default();
            if goes(target) && !goes(own) {
                jumps += &format!("-D {rule}\n");
            }
        } else if let Some(chain) = line.strip_prefix(':').and_then(|rest| rest.split(' ').next())
            && goes(chain)
        {
            chains += &format!(":{chain} - [0:0]\n");
            removals += &format!("-X {chain}\n");
        }
    }
    match chains.is_empty() {
        true => String::new(),
        false => format!("*{TABLE}\n{chains}{jumps}{removals}COMMIT\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_leaves_the_cluster_is_masqueraded() {
        let (pods, cluster) = ("10.244.1.0/24".parse().unwrap(), "10.244.0.0/16".parse().unwrap());
        let first = input(pods, cluster, true, true);
        insta::assert_snapshot!(first);
        let again = input(pods, cluster, true, false);
        assert_eq!(first.lines().filter(|line| !again.contains(line)).count(), 1, "the jump is written once");
    }

    #[test]
    fn what_others_wrote_stays() {
        let lines = |text: &str| -> Vec<String> { text.lines().map(str::to_owned).collect() };
        let ours = "\
:POSTROUTING ACCEPT [1:2]
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-HOSTPORT-MASQ - [0:0]
:XEBEC-MASQUERADE - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A POSTROUTING -s 192.0.2.0/24 -j MASQUERADE
-A POSTROUTING -m comment --comment \"pods to the outside of the cluster\" -j XEBEC-MASQUERADE
-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
-A XEBEC-MASQUERADE -j MASQUERADE
";
        insta::assert_snapshot!(removal(&lines(ours)));
        // another node's pods on this machine may have host ports
        let used = format!("{ours}-A CNI-HOSTPORT-DNAT -p tcp -j CNI-DN-1\n");
        assert!(!removal(&lines(&used)).contains("CNI-"));
        assert_eq!(removal(&lines(":POSTROUTING ACCEPT [1:2]\n-A POSTROUTING -j MASQUERADE\n")), "");
    }
}
