//! The input of iptables-restore: everything when the proxy starts or the tables were flushed, else the smallest
//! change. Pure text.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::chains;
use crate::rules::{Block, Settings, Shared, refusal};
use crate::service::Protocol;

/// So many chains of Services go into one input. iptables-restore of 1.8 takes time with the square of the chains
/// in its input; what does not fit goes ahead in inputs of its own, since nothing refers to it yet.
const CHAINS_PER_INPUT: usize = 2000;

/// A rule in a chain of the kernel that leads to one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jump {
    pub table: &'static str,
    pub from: &'static str,
    pub to: &'static str,
    pub comment: &'static str,
    pub only_new: bool,
    /// Shared with the kubelet, and so left at clean-up.
    pub kubelets: bool,
}

const fn jump(table: &'static str, from: &'static str, to: &'static str, comment: &'static str) -> Jump {
    let only_new = matches!(table.as_bytes(), b"filter");
    Jump { table, from, to, comment, only_new, kubelets: false }
}

const EXTERNAL_PORTALS: &str = "kubernetes externally-visible service portals";
const PORTALS: &str = "kubernetes service portals";
const BALANCER: &str = "kubernetes load balancer firewall";

/// In the order in which they are put to the front of their chains.
pub const JUMPS: [Jump; 14] = [
    jump("filter", "INPUT", chains::EXTERNAL_SERVICES, EXTERNAL_PORTALS),
    jump("filter", "FORWARD", chains::EXTERNAL_SERVICES, EXTERNAL_PORTALS),
    Jump {
        only_new: false,
        ..jump("filter", "INPUT", chains::NODE_PORTS, "kubernetes health check service ports")
    },
    jump("filter", "FORWARD", chains::SERVICES, PORTALS),
    jump("filter", "OUTPUT", chains::SERVICES, PORTALS),
    Jump { only_new: false, ..jump("filter", "FORWARD", chains::FORWARD, "kubernetes forwarding rules") },
    jump("filter", "INPUT", chains::PROXY_FIREWALL, BALANCER),
    jump("filter", "OUTPUT", chains::PROXY_FIREWALL, BALANCER),
    jump("filter", "FORWARD", chains::PROXY_FIREWALL, BALANCER),
    jump("nat", "OUTPUT", chains::SERVICES, PORTALS),
    jump("nat", "PREROUTING", chains::SERVICES, PORTALS),
    jump("nat", "POSTROUTING", chains::POSTROUTING, "kubernetes postrouting rules"),
    Jump { only_new: false, kubelets: true, ..jump("filter", "INPUT", chains::KUBELET_FIREWALL, "") },
    Jump { only_new: false, kubelets: true, ..jump("filter", "OUTPUT", chains::KUBELET_FIREWALL, "") },
];

impl Jump {
    fn rule(&self) -> String {
        let mut rule = String::new();
        if self.only_new {
            rule.push_str("-m conntrack --ctstate NEW ");
        }
        if !self.comment.is_empty() {
            let _ = write!(rule, "-m comment --comment \"{}\" ", self.comment);
        }
        let _ = write!(rule, "-j {}", self.to);
        rule
    }

    /// Whether a rule that iptables lists is this jump.
    pub fn is(&self, listed: &str) -> bool {
        listed.strip_prefix("-A ").and_then(|rest| rest.strip_prefix(self.from)).is_some_and(|rest| {
            rest.starts_with(' ')
                && rest.ends_with(&format!(" -j {}", self.to))
                && (self.comment.is_empty() || rest.contains(&format!("\"{}\"", self.comment)))
        })
    }
}

/// One input, table by table.
#[derive(Default)]
struct Input {
    filter: Table,
    nat: Table,
    mangle: Table,
}

#[derive(Default)]
struct Table {
    /// Lines that make or flush chains.
    chains: String,
    rules: String,
    /// Chains go last, when nothing refers to them any more.
    removals: String,
}

impl Table {
    fn chain(&mut self, name: &str) {
        let _ = writeln!(self.chains, ":{name} - [0:0]");
    }

    fn append(&mut self, chain: &str, rule: &str) {
        let _ = writeln!(self.rules, "-A {chain} {rule}");
    }

    fn insert(&mut self, chain: &str, rule: &str) {
        let _ = writeln!(self.rules, "-I {chain} {rule}");
    }

    fn delete(&mut self, chain: &str, rule: &str) {
        let _ = writeln!(self.rules, "-D {chain} {rule}");
    }

    fn own(&mut self, name: &str, rules: &[String]) {
        self.chain(name);
        for rule in rules {
            self.append(name, rule);
        }
    }

    fn remove(&mut self, name: &str) {
        self.chain(name);
        let _ = writeln!(self.removals, "-X {name}");
    }

    fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.rules.is_empty()
    }
}

impl Input {
    fn table(&mut self, shared: Shared) -> &mut Table {
        if shared.is_nat() { &mut self.nat } else { &mut self.filter }
    }

    fn finish(self) -> String {
        let mut text = String::new();
        // iptables commits table by table: a Service that loses its last endpoint is refused before it is no
        // longer translated, so that its address is never looked for outside
        for (name, table) in [("mangle", self.mangle), ("filter", self.filter), ("nat", self.nat)] {
            if !table.is_empty() {
                let _ = write!(text, "*{name}\n{}{}{}COMMIT\n", table.chains, table.rules, table.removals);
            }
        }
        text
    }
}

/// The inputs that bring the tables to what `blocks` say, whatever Services had there before. `missing` are the
/// jumps that are not there yet.
pub fn full<'a>(
    blocks: impl Iterator<Item = &'a Block> + Clone,
    settings: &Settings,
    missing: &[Jump],
) -> Vec<String> {
    let mut inputs = Vec::new();
    let mut input = Input::default();
    fixed(&mut input, settings);
    let mut chains = 0;
    for (name, rules) in blocks.clone().flat_map(|block| &block.own) {
        if chains == CHAINS_PER_INPUT {
            inputs.push(std::mem::take(&mut input).finish());
            chains = 0;
        }
        input.nat.own(name, rules);
        chains += 1;
    }
    for shared in Shared::ALL {
        input.table(shared).chain(shared.name());
    }
    for (shared, rule) in blocks.flat_map(|block| &block.shared) {
        input.table(*shared).append(shared.name(), rule);
    }
    last_rules(&mut input, settings);
    // the kubelet's chain is there only with its rule
    for jump in missing.iter().filter(|jump| !jump.kubelets || settings.localhost_node_ports) {
        let table = if jump.table == "nat" { &mut input.nat } else { &mut input.filter };
        table.insert(jump.from, &jump.rule());
    }
    inputs.push(input.finish());
    inputs
}

/// The input that turns some blocks into others; `None` when nothing differs.
pub fn change(changes: &[(Option<&Block>, Option<&Block>)]) -> Option<String> {
    let mut input = Input::default();
    let (nothing, none) = (Block::default(), Vec::new());
    for (old, new) in changes {
        let (old, new) = (old.unwrap_or(&nothing), new.unwrap_or(&nothing));
        for (name, rules) in &new.own {
            if old.own.get(name).unwrap_or(&none) != rules {
                input.nat.own(name, rules);
            }
        }
        for (shared, rule) in new.shared.iter().filter(|entry| !old.shared.contains(entry)) {
            // to the front: the last rules of these chains must stay the last
            input.table(*shared).insert(shared.name(), rule);
        }
        for (shared, rule) in old.shared.iter().filter(|entry| !new.shared.contains(entry)) {
            input.table(*shared).delete(shared.name(), rule);
        }
        for name in old.own.keys().filter(|name| !new.own.contains_key(*name)) {
            input.nat.remove(name);
        }
    }
    Some(input.finish()).filter(|text| !text.is_empty())
}

/// The input that removes chains of Services which nothing refers to any more.
pub fn remove(stale: &[String]) -> String {
    let mut input = Input::default();
    stale.iter().for_each(|name| input.nat.remove(name));
    input.finish()
}

/// The input that takes everything of the proxy out again. `found` maps tables to the rules and chains in them, as
/// `iptables-save` lists them.
pub fn cleanup(found: &BTreeMap<&'static str, Vec<String>>, with_kubelets: bool) -> String {
    let mut text = String::new();
    for (table, lines) in found {
        let mut out = Table::default();
        let ours: &[&str] = match *table {
            "nat" => &[chains::SERVICES, chains::NODE_PORTS, chains::POSTROUTING, chains::CANARY],
            "mangle" => &[chains::CANARY],
            _ => &[
                chains::SERVICES,
                chains::EXTERNAL_SERVICES,
                chains::FORWARD,
                chains::NODE_PORTS,
                chains::PROXY_FIREWALL,
                chains::CANARY,
            ],
        };
        for line in lines {
            let goes = |jump: &&Jump| jump.table == *table && (with_kubelets || !jump.kubelets);
            if JUMPS.iter().filter(goes).any(|jump| jump.is(line)) {
                let _ = writeln!(out.rules, "-D {}", line.trim_start_matches("-A "));
            }
            let Some(chain) = line.strip_prefix(':').and_then(|rest| rest.split(' ').next()) else {
                continue;
            };
            // the mark chain is left where others, like the kubelet of old or portmap, may lead into it
            let unused_mark = chain == chains::MARK_MASQ && *table == "nat" && !marked_by_others(lines);
            let kubelets = with_kubelets && *table == "filter" && chain == chains::KUBELET_FIREWALL;
            if ours.contains(&chain)
                || kubelets
                || unused_mark
                || (*table == "nat" && chains::is_of_service(chain))
            {
                out.remove(chain);
            }
        }
        if !out.is_empty() {
            let _ = write!(text, "*{table}\n{}{}{}COMMIT\n", out.chains, out.rules, out.removals);
        }
    }
    text
}

fn marked_by_others(lines: &[String]) -> bool {
    let to_mark = format!("-j {}", chains::MARK_MASQ);
    lines.iter().filter(|line| line.contains(&to_mark)).any(|line| {
        let chain = line.trim_start_matches("-A ").split(' ').next().unwrap_or_default();
        !chains::is_of_service(chain)
    })
}

/// The chains whose rules depend on settings alone.
fn fixed(input: &mut Input, settings: &Settings) {
    let mark = format!("{:#010x}", settings.masquerade_mark);
    for table in [&mut input.mangle, &mut input.filter, &mut input.nat] {
        table.chain(chains::CANARY);
    }
    let random = if settings.random_fully { " --random-fully" } else { "" };
    let postrouting = [
        format!("-m mark ! --mark {mark}/{mark} -j RETURN"),
        // without its mark a packet that passes again is not masqueraded again
        format!("-j MARK --xor-mark {mark}"),
        format!("-m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE{random}"),
    ];
    input.nat.own(chains::POSTROUTING, &postrouting);
    input.nat.own(chains::MARK_MASQ, &[format!("-j MARK --or-mark {mark}")]);

    let mut forward = Vec::new();
    if !settings.conntrack_liberal {
        // an answer out of its window would reach the client with the pod's address, and be reset
        forward.push("-m conntrack --ctstate INVALID -j DROP".to_owned());
    }
    let comment = "-m comment --comment \"kubernetes forwarding";
    forward.push(format!("{comment} rules\" -m mark --mark {mark}/{mark} -j ACCEPT"));
    forward.push(format!("{comment} conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"));
    input.filter.own(chains::FORWARD, &forward);

    // what answers on loopback must not answer to neighbours who route loopback addresses here; the kubelet
    // writes the same rule
    if settings.localhost_node_ports {
        let martians = "-m comment --comment \"block incoming localnet connections\" -d 127.0.0.0/8 \
                        ! -s 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP";
        input.filter.own(chains::KUBELET_FIREWALL, &[martians.to_owned()]);
    }
}

/// The rules that come after those of all Services.
fn last_rules(input: &mut Input, settings: &Settings) {
    let loopback = if settings.localhost_node_ports { "" } else { " ! -d 127.0.0.0/8" };
    let node_ports = format!(
        "-m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this \
         chain\" -m addrtype --dst-type LOCAL{loopback} -j {}",
        chains::NODE_PORTS
    );
    input.nat.append(chains::SERVICES, &node_ports);
    if let Some(services) = settings.service_cidr {
        let comment = "-m comment --comment \"no service has this address and port; NOTE: these must be the last \
                       rules in this chain\"";
        let tcp = format!("{comment} -d {services} -p tcp -j {}", refusal(Protocol::Tcp));
        input.filter.append(chains::SERVICES, &tcp);
        input.filter.append(chains::SERVICES, &format!("{comment} -d {services} -j REJECT"));
    }
}
