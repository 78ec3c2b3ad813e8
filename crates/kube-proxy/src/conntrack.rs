//! UDP has no connections that end, so the kernel goes on sending where it sent before. Flows to endpoints that no
//! longer serve are forgotten here.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;

use crate::endpoints::Endpoint;
use crate::iptables::{Error, run};
use crate::service::ServicePort;

/// One flow as the kernel tracks it: where it was sent, and who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flow {
    to: Ipv4Addr,
    port: u16,
    answered_by: Ipv4Addr,
}

/// Forgets the flows to Service addresses that none of the Service's endpoints answers. A failure is logged: the
/// flows end by themselves in half a minute of silence.
pub async fn clean<'a>(ports: impl Iterator<Item = (&'a ServicePort, &'a [Endpoint])>) {
    let serving = Serving::of(ports);
    if serving.is_empty() {
        return;
    }
    let listed = match run("conntrack", &["-L", "-p", "udp"], None).await {
        Ok(listed) => listed,
        Err(error @ Error::NotFound { .. }) => {
            tracing::warn!(%error, "UDP clients may go on sending to endpoints that are gone");
            return;
        }
        Err(error) => {
            tracing::warn!(%error, "UDP flows could not be listed");
            return;
        }
    };
    for flow in serving.stale(&listed) {
        let (to, port, answered_by) =
            (flow.to.to_string(), flow.port.to_string(), flow.answered_by.to_string());
        let arguments =
            ["-D", "-p", "udp", "--orig-dst", &to, "--orig-port-dst", &port, "--reply-src", &answered_by];
        match run("conntrack", &arguments, None).await {
            Ok(_) => tracing::debug!(?flow, "forgot UDP flows"),
            // it is so also when they ended meanwhile
            Err(error) => tracing::debug!(%error, ?flow, "UDP flows could not be forgotten"),
        }
    }
}

/// Who serves what over UDP. Services without a serving endpoint are left out: their flows may wait for one.
struct Serving {
    addresses: HashMap<(Ipv4Addr, u16), HashSet<Ipv4Addr>>,
    node_ports: HashMap<u16, HashSet<Ipv4Addr>>,
}

impl Serving {
    fn of<'a>(ports: impl Iterator<Item = (&'a ServicePort, &'a [Endpoint])>) -> Self {
        let (mut addresses, mut node_ports) = (HashMap::new(), HashMap::new());
        for (port, endpoints) in ports {
            let serving = endpoints.iter().filter(|endpoint| endpoint.serving);
            let serving: HashSet<_> = serving.map(|endpoint| endpoint.ip).collect();
            if serving.is_empty() {
                continue;
            }
            let external = port.load_balancer_ips.iter().chain(&port.external_ips);
            for ip in external.chain([&port.cluster_ip]) {
                addresses.insert((*ip, port.port), serving.clone());
            }
            if port.node_port != 0 {
                node_ports.insert(port.node_port, serving);
            }
        }
        Self { addresses, node_ports }
    }

    fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    fn stale(&self, listed: &str) -> BTreeSet<Flow> {
        let flows = listed.lines().filter_map(parse);
        flows
            .filter(|flow| {
                let by_address = self.addresses.get(&(flow.to, flow.port));
                let serving = by_address.or_else(|| self.node_ports.get(&flow.port));
                serving.is_some_and(|serving| !serving.contains(&flow.answered_by))
            })
            .collect()
    }
}

/// A line of `conntrack -L`: each key is there twice, for the way out and for the way back.
fn parse(line: &str) -> Option<Flow> {
    let values = |key: &str| {
        let mut found =
            line.split_ascii_whitespace().filter_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        (found.next(), found.next())
    };
    Some(Flow {
        to: values("dst").0?.parse().ok()?,
        port: values("dport").0?.parse().ok()?,
        answered_by: values("src").1?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use client::ObjectKey;

    use super::*;
    use crate::service::{PortName, Protocol};

    #[test]
    fn flows_that_no_endpoint_answers_are_stale() {
        let name =
            PortName { service: ObjectKey::new("ns", "dns"), port: "dns".into(), protocol: Protocol::Udp };
        let port = ServicePort {
            name,
            cluster_ip: [10, 96, 0, 10].into(),
            port: 53,
            node_port: 30053,
            external_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            source_ranges: Vec::new(),
            affinity: None,
            internal_local: false,
            external_local: false,
            health_check_node_port: 0,
        };
        let endpoint = Endpoint {
            ip: [10, 244, 0, 2].into(),
            port: 53,
            ready: false,
            serving: true,
            terminating: true,
            local: true,
            zone_hints: Vec::new(),
            node_hints: Vec::new(),
        };
        let line = |dst: &str, port: u16, by: &str| {
            format!(
                "udp      17 29 src=10.244.0.9 dst={dst} sport=4242 dport={port} [UNREPLIED] src={by} \
                 dst=10.244.0.9 sport=53 dport=4242 mark=0 use=1\n"
            )
        };
        let listed = [
            line("10.96.0.10", 53, "10.244.0.2"),
            line("10.96.0.10", 53, "10.244.0.3"),
            line("10.96.0.10", 53, "10.96.0.10"),
            line("192.168.1.1", 30053, "10.244.0.3"),
            line("8.8.8.8", 53, "8.8.8.8"),
            "tcp 6 86400 ESTABLISHED src=1.1.1.1".into(),
        ]
        .concat();
        let flow = |to: [u8; 4], port, by: [u8; 4]| Flow { to: to.into(), port, answered_by: by.into() };
        let stale = Serving::of([(&port, std::slice::from_ref(&endpoint))].into_iter()).stale(&listed);
        let expected = BTreeSet::from([
            flow([10, 96, 0, 10], 53, [10, 244, 0, 3]),
            flow([10, 96, 0, 10], 53, [10, 96, 0, 10]),
            flow([192, 168, 1, 1], 30053, [10, 244, 0, 3]),
        ]);
        assert_eq!(stale, expected);
        assert!(Serving::of([(&port, [].as_slice())].into_iter()).stale(&listed).is_empty());
    }
}
