//! The rules of one Service port, as text. Pure: what comes in as Service and endpoints goes out as chains of its
//! own and rules in chains that all Services share.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::chains::{self, PortChains};
use crate::endpoints::{Choice, Endpoint, Place, choose};
use crate::service::{Protocol, ServicePort};

/// What holds for all rules of a proxy.
#[derive(Clone, Debug)]
pub struct Settings {
    pub node_ip: Ipv4Addr,
    /// Traffic from outside the pods' range is masqueraded; without a range nobody is known to be a pod.
    pub cluster_cidr: Option<Ipv4Net>,
    /// Addresses of this range that belong to no Service are refused.
    pub service_cidr: Option<Ipv4Net>,
    pub masquerade_all: bool,
    /// The bit of the packet mark that asks for masquerading.
    pub masquerade_mark: u32,
    pub random_fully: bool,
    /// Whether node ports answer on loopback addresses.
    pub localhost_node_ports: bool,
    /// The kernel lets packets outside the window pass, so they need not be dropped.
    pub conntrack_liberal: bool,
}

/// The chains into which every Service writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shared {
    FilterServices,
    FilterExternalServices,
    FilterNodePorts,
    FilterFirewall,
    NatServices,
    NatNodePorts,
}

impl Shared {
    pub const ALL: [Self; 6] = [
        Self::FilterServices,
        Self::FilterExternalServices,
        Self::FilterNodePorts,
        Self::FilterFirewall,
        Self::NatServices,
        Self::NatNodePorts,
    ];

    pub fn is_nat(self) -> bool {
        matches!(self, Self::NatServices | Self::NatNodePorts)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::FilterServices | Self::NatServices => chains::SERVICES,
            Self::FilterExternalServices => chains::EXTERNAL_SERVICES,
            Self::FilterNodePorts | Self::NatNodePorts => chains::NODE_PORTS,
            Self::FilterFirewall => chains::PROXY_FIREWALL,
        }
    }
}

/// All rules of one port. `own` maps the chains of its own, all in the nat table, to their rules; rules carry no
/// chain, so that they can be appended, inserted and deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    pub shared: Vec<(Shared, String)>,
    pub own: BTreeMap<String, Vec<String>>,
}

impl Block {
    pub fn of(port: &ServicePort, endpoints: &[Endpoint], place: &Place, settings: &Settings) -> Self {
        let choice = choose(port, endpoints, place);
        let writer = Writer { port, choice: &choice, settings, chains: PortChains::of(&port.name) };
        writer.write()
    }
}

/// How packets are refused. The kernel limits the ICMP messages that it sends to one client, six and then one a
/// second, so that a client that tries more often would wait; it sends as many resets as there are attempts.
pub fn refusal(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "REJECT --reject-with tcp-reset",
        Protocol::Udp | Protocol::Sctp => "REJECT",
    }
}

struct Writer<'a> {
    port: &'a ServicePort,
    choice: &'a Choice<'a>,
    settings: &'a Settings,
    chains: PortChains,
}

impl Writer<'_> {
    fn write(&self) -> Block {
        let mut block = Block::default();
        self.capture(&mut block.shared);
        if self.has_internal() {
            let chain = if self.port.internal_local { &self.chains.local } else { &self.chains.cluster };
            block.own.insert(chain.clone(), self.masquerade_off_cluster());
        }
        if self.uses_external() {
            block.own.insert(self.chains.external.clone(), self.external_rules());
        }
        if self.uses_firewall() {
            block.own.insert(self.chains.firewall.clone(), self.firewall_rules());
        }
        if self.port.uses_cluster_endpoints() && !self.choice.cluster.is_empty() {
            let rules = block.own.entry(self.chains.cluster.clone()).or_default();
            self.spread(&self.choice.cluster, rules);
        }
        if self.port.uses_local_endpoints() && !self.choice.local.is_empty() {
            let rules = block.own.entry(self.chains.local.clone()).or_default();
            self.spread(&self.choice.local, rules);
        }
        for endpoint in &self.choice.reachable {
            block.own.insert(chains::endpoint(&self.port.name, endpoint), self.endpoint_rules(endpoint));
        }
        block
    }

    fn has_internal(&self) -> bool {
        self.choice.any && !(self.port.internal_local && self.choice.local.is_empty())
    }

    fn has_external(&self) -> bool {
        self.choice.any && !(self.port.external_local && self.choice.local.is_empty())
    }

    /// Also without an endpoint for strangers: pods and the node itself still reach the others.
    fn uses_external(&self) -> bool {
        self.choice.any && self.port.externally_accessible()
    }

    fn uses_firewall(&self) -> bool {
        self.choice.any && !self.port.load_balancer_ips.is_empty() && !self.port.source_ranges.is_empty()
    }

    /// Rules that pick the port's traffic out, in the chains all Services share.
    fn capture(&self, rules: &mut Vec<(Shared, String)>) {
        let (name, port) = (&self.port.name, self.port.port);
        let any = self.choice.any;
        // no endpoint anywhere is refused; endpoints only elsewhere are dropped, another node may answer
        let missing = match any {
            false => (format!("\"{name} has no endpoints\""), refusal(name.protocol)),
            true => (format!("\"{name} has no local endpoints\""), "DROP"),
        };
        let refuse = |matched: &str| format!("-m comment --comment {} {matched} -j {}", missing.0, missing.1);
        let to = |ip: Ipv4Addr| self.addressed(Some(ip), port);

        if self.has_internal() {
            let target = if self.port.internal_local { &self.chains.local } else { &self.chains.cluster };
            let rule = format!("{} -j {target}", self.to_cluster_ip());
            rules.push((Shared::NatServices, rule));
        } else {
            rules.push((Shared::FilterServices, refuse(&to(self.port.cluster_ip))));
        }
        let external = |kind: &str, ip: Ipv4Addr, target: &str| {
            format!("-m comment --comment \"{name} {kind}\" {} -j {target}", to(ip))
        };
        for ip in &self.port.external_ips {
            if any {
                let rule = external("external IP", *ip, &self.chains.external);
                rules.push((Shared::NatServices, rule));
            }
            if !self.has_external() {
                rules.push((Shared::FilterExternalServices, refuse(&to(*ip))));
            }
        }
        for ip in &self.port.load_balancer_ips {
            if any {
                let firewall = self.uses_firewall();
                let target = if firewall { &self.chains.firewall } else { &self.chains.external };
                rules.push((Shared::NatServices, external("loadbalancer IP", *ip, target)));
            }
            if self.uses_firewall() {
                let kind = format!("traffic not accepted by {}", self.chains.firewall);
                rules.push((Shared::FilterFirewall, external(&kind, *ip, "DROP")));
            }
            if !self.has_external() {
                rules.push((Shared::FilterExternalServices, refuse(&to(*ip))));
            }
        }
        if self.port.node_port != 0 {
            let matched = self.addressed(None, self.port.node_port);
            if any {
                let rule = format!("-m comment --comment {name} {matched} -j {}", self.chains.external);
                rules.push((Shared::NatNodePorts, rule));
            }
            if !self.has_external() {
                let local = format!("-m addrtype --dst-type LOCAL {matched}");
                rules.push((Shared::FilterExternalServices, refuse(&local)));
            }
        }
        if self.port.health_check_node_port != 0 {
            let rule = format!(
                "-m comment --comment \"{name} health check node port\" -m tcp -p tcp --dport {} -j ACCEPT",
                self.port.health_check_node_port
            );
            rules.push((Shared::FilterNodePorts, rule));
        }
    }

    fn addressed(&self, ip: Option<Ipv4Addr>, port: u16) -> String {
        let protocol = self.port.name.protocol;
        let mut matched = format!("-m {protocol} -p {protocol} ");
        if let Some(ip) = ip {
            let _ = write!(matched, "-d {ip} ");
        }
        let _ = write!(matched, "--dport {port}");
        matched
    }

    fn to_cluster_ip(&self) -> String {
        let matched = self.addressed(Some(self.port.cluster_ip), self.port.port);
        format!("-m comment --comment \"{} cluster IP\" {matched}", self.port.name)
    }

    /// A route for the Service range may lead strangers to any node; their answers must come back through it.
    fn masquerade_off_cluster(&self) -> Vec<String> {
        let from = match (self.settings.masquerade_all, self.settings.cluster_cidr) {
            (true, _) => String::new(),
            (false, Some(pods)) => format!(" ! -s {pods}"),
            (false, None) => return Vec::new(),
        };
        vec![format!("{}{from} -j {}", self.to_cluster_ip(), chains::MARK_MASQ)]
    }

    fn external_rules(&self) -> Vec<String> {
        let name = &self.port.name;
        let comment =
            |what: &str| format!("-m comment --comment \"{what} traffic for {name} external destinations\"");
        let mut rules = Vec::new();
        if self.port.external_local {
            // the source address is kept, but for those who could never get a direct answer
            let cluster = &self.chains.cluster;
            if let Some(pods) = self.settings.cluster_cidr {
                rules.push(format!("{} -s {pods} -j {cluster}", comment("pod")));
            }
            let local = "-m addrtype --src-type LOCAL";
            rules.push(format!("{} {local} -j {}", comment("masquerade LOCAL"), chains::MARK_MASQ));
            rules.push(format!("{} {local} -j {cluster}", comment("route LOCAL")));
        } else {
            rules.push(format!("{} -j {}", comment("masquerade"), chains::MARK_MASQ));
        }
        if self.has_external() {
            let policy = if self.port.external_local { &self.chains.local } else { &self.chains.cluster };
            rules.push(format!("-j {policy}"));
        }
        rules
    }

    fn firewall_rules(&self) -> Vec<String> {
        let name = &self.port.name;
        let accept = |from: &dyn std::fmt::Display| {
            let comment = format!("-m comment --comment \"{name} loadbalancer IP\"");
            format!("{comment} -s {from} -j {}", self.chains.external)
        };
        let mut rules: Vec<_> = self.port.source_ranges.iter().map(|range| accept(range)).collect();
        // a balancer's address may be one of this node's own; then the node's requests carry it as their source
        if self.port.source_ranges.iter().any(|range| range.contains(&self.settings.node_ip)) {
            rules.extend(self.port.load_balancer_ips.iter().map(|ip| accept(ip)));
        }
        let rest = format!("other traffic to {name} will be dropped by {}", chains::PROXY_FIREWALL);
        rules.push(format!("-m comment --comment \"{rest}\""));
        rules
    }

    /// Spreads evenly: the n-th of k endpoints takes one in k-n of what comes to it.
    fn spread(&self, endpoints: &[&Endpoint], rules: &mut Vec<String>) {
        let name = &self.port.name;
        if let Some(seconds) = self.port.affinity {
            for endpoint in endpoints {
                let chain = chains::endpoint(name, endpoint);
                rules.push(format!(
                    "-m comment --comment \"{name} -> {endpoint}\" -m recent --name {chain} --rcheck \
                     --seconds {seconds} --reap -j {chain}"
                ));
            }
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            let mut rule = format!("-m comment --comment \"{name} -> {endpoint}\"");
            let left = endpoints.len() - index;
            if left > 1 {
                let probability = 1.0 / left as f64;
                let _ = write!(rule, " -m statistic --mode random --probability {probability:.10}");
            }
            let _ = write!(rule, " -j {}", chains::endpoint(name, endpoint));
            rules.push(rule);
        }
    }

    fn endpoint_rules(&self, endpoint: &Endpoint) -> Vec<String> {
        let (name, protocol) = (&self.port.name, self.port.name.protocol);
        let comment = format!("-m comment --comment {name}");
        let recent = match self.port.affinity {
            Some(_) => format!(" -m recent --name {} --set", chains::endpoint(name, endpoint)),
            None => String::new(),
        };
        vec![
            // a pod that reaches itself through its Service would see its own address as the source
            format!("{comment} -s {} -j {}", endpoint.ip, chains::MARK_MASQ),
            format!("{comment}{recent} -m {protocol} -p {protocol} -j DNAT --to-destination {endpoint}"),
        ]
    }
}
