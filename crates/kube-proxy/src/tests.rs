//! Objects in, rules out: golden texts, and that changes lead where writing everything leads.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use crate::endpoints::{self, Place, choose};
use crate::restore::{self, JUMPS};
use crate::rules::{Block, Settings};
use crate::service;

fn settings() -> Settings {
    Settings {
        node_ip: Ipv4Addr::new(192, 168, 0, 2),
        cluster_cidr: Some("10.244.0.0/16".parse().unwrap()),
        service_cidr: Some("10.96.0.0/16".parse().unwrap()),
        masquerade_all: false,
        masquerade_mark: 1 << 14,
        random_fully: true,
        localhost_node_ports: true,
        conntrack_liberal: false,
    }
}

fn place() -> Place {
    Place {
        node: "here".into(),
        labels: BTreeMap::from([("topology.kubernetes.io/zone".to_owned(), "a".to_owned())]),
    }
}

fn service(spec: Value, status: Value) -> Service {
    let mut whole = json!({
        "clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20"], "type": "ClusterIP",
        "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
    });
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    let object = json!({"metadata": {"namespace": "ns", "name": "web"}, "spec": whole, "status": status});
    serde_json::from_value(object).unwrap()
}

/// Endpoints written as `address node flags`; flags: `r`eady, `s`erving, `t`erminating, then hints `zone=` `node=`.
fn slice(endpoints: &[&str]) -> Arc<EndpointSlice> {
    let endpoint = |text: &&str| {
        let mut words = text.split(' ');
        let (address, node) = (words.next().unwrap(), words.next().unwrap());
        let flags = words.next().unwrap_or("rs");
        let mut hints = json!({});
        for hint in words {
            let (kind, name) = hint.split_once('=').unwrap();
            let kind = if kind == "zone" { "forZones" } else { "forNodes" };
            hints[kind] = json!([{"name": name}]);
        }
        json!({
            "addresses": [address], "nodeName": node, "hints": hints,
            "conditions": {
                "ready": flags.contains('r'), "serving": flags.contains('s'),
                "terminating": flags.contains('t'),
            },
        })
    };
    let object = json!({
        "metadata": {"namespace": "ns", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}],
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    });
    Arc::new(serde_json::from_value(object).unwrap())
}

fn blocks(service: &Service, endpoints: &[&str], settings: &Settings) -> Vec<Block> {
    let slices = [slice(endpoints)];
    let block = |port: service::ServicePort| {
        let endpoints = endpoints::of_port(&port.name, &slices, "here");
        Block::of(&port, &endpoints, &place(), settings)
    };
    service::ports(service).into_iter().map(block).collect()
}

const TWO: &[&str] = &["10.244.0.5 here", "10.244.1.7 there"];
const THERE: &[&str] = &["10.244.1.7 there"];

/// Every shape of Service that makes rules of its own kind.
fn cases() -> Vec<(&'static str, Service, &'static [&'static str])> {
    let balancer = |spec: Value| {
        let mut whole = json!({"type": "LoadBalancer", "ports": [
            {"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080},
        ]});
        for (key, value) in spec.as_object().unwrap() {
            whole[key] = value.clone();
        }
        let ingress = json!([{"ip": "203.0.113.9"}, {"ip": "203.0.113.10", "ipMode": "Proxy"}]);
        service(whole, json!({"loadBalancer": {"ingress": ingress}}))
    };
    let local = json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 31000});
    vec![
        ("cluster_ip", service(json!({}), json!({})), TWO),
        ("no_endpoints", service(json!({"externalIPs": ["198.51.100.1"]}), json!({})), &[]),
        (
            "affinity",
            service(
                json!({"sessionAffinity": "ClientIP",
                       "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}}),
                json!({}),
            ),
            TWO,
        ),
        ("internal_local", service(json!({"internalTrafficPolicy": "Local"}), json!({})), TWO),
        ("internal_local_elsewhere", service(json!({"internalTrafficPolicy": "Local"}), json!({})), THERE),
        (
            "node_port_two_ports",
            service(
                json!({"type": "NodePort", "ports": [
                    {"name": "http", "port": 80, "nodePort": 30080},
                    {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053},
                ]}),
                json!({}),
            ),
            THERE,
        ),
        ("balancer", balancer(json!({"externalIPs": ["198.51.100.1"]})), TWO),
        (
            "balancer_ranges",
            balancer(json!({"loadBalancerSourceRanges": ["192.168.0.0/24", "172.16.0.0/12"]})),
            TWO,
        ),
        ("balancer_local", balancer(local.clone()), TWO),
        ("balancer_local_elsewhere", balancer(local), THERE),
        ("headless", service(json!({"clusterIP": "None", "clusterIPs": ["None"]}), json!({})), TWO),
    ]
}

#[test]
fn rules_of_every_kind_of_service() {
    for (name, service, endpoints) in cases() {
        let mut text = String::new();
        for block in blocks(&service, endpoints, &settings()) {
            for (shared, rule) in &block.shared {
                let table = if shared.is_nat() { "nat" } else { "filter" };
                text += &format!("{table} {} {rule}\n", shared.name());
            }
            for (chain, rule) in
                block.own.iter().flat_map(|(chain, rules)| rules.iter().map(move |rule| (chain, rule)))
            {
                text += &format!("{chain} {rule}\n");
            }
        }
        insta::assert_snapshot!(name, text);
    }
}

#[test]
fn everything_at_once() {
    let (_, service, endpoints) = cases().swap_remove(0);
    let blocks = blocks(&service, endpoints, &settings());
    let inputs = restore::full(blocks.iter(), &settings(), &JUMPS);
    assert_eq!(inputs.len(), 1);
    insta::assert_snapshot!("full", inputs[0]);
}

#[test]
fn a_lost_endpoint_changes_two_chains() {
    let service = service(json!({}), json!({}));
    let (old, new) = (blocks(&service, TWO, &settings()), blocks(&service, THERE, &settings()));
    let change = restore::change(&[(old.first(), new.first())]).unwrap();
    insta::assert_snapshot!("change", change);
    assert_eq!(restore::change(&[(new.first(), new.first())]), None);
}

#[test]
fn endpoints_are_chosen_as_policies_conditions_and_hints_say() {
    let cluster = json!({});
    let internal = json!({"internalTrafficPolicy": "Local"});
    let external = json!({"type": "NodePort", "externalTrafficPolicy": "Local",
                          "ports": [{"name": "http", "port": 80, "nodePort": 30080}]});
    // spec, endpoints, cluster, local, any
    let table: &[(&Value, &[&str], &str, &str, bool)] = &[
        (&cluster, &["1.0.0.1 here", "1.0.0.2 there -"], "1", "", true),
        (&cluster, &["1.0.0.1 here st", "1.0.0.2 there rs"], "2", "", true),
        (&cluster, &["1.0.0.1 here st", "1.0.0.2 there t"], "1", "", true),
        (&cluster, &["1.0.0.1 here t"], "", "", false),
        (&cluster, &["1.0.0.1 here rs zone=b", "1.0.0.2 there rs zone=a"], "2", "", true),
        (&cluster, &["1.0.0.1 here rs", "1.0.0.2 there rs zone=a"], "12", "", true),
        (&cluster, &["1.0.0.1 here rs zone=b", "1.0.0.2 there rs zone=b"], "12", "", true),
        (&cluster, &["1.0.0.1 x rs zone=a node=x", "1.0.0.2 y rs zone=a node=here"], "2", "", true),
        (&cluster, &["1.0.0.1 x rs zone=a node=x", "1.0.0.2 y rs zone=b node=y"], "1", "", true),
        (&internal, &["1.0.0.1 here", "1.0.0.2 there"], "", "1", true),
        (&internal, &["1.0.0.2 there"], "", "", true),
        (&internal, &["1.0.0.1 here st", "1.0.0.2 there"], "", "1", true),
        (&external, &["1.0.0.1 here", "1.0.0.2 there"], "12", "1", true),
        (&external, &["1.0.0.1 here st", "1.0.0.2 there"], "2", "1", true),
        (&external, &["1.0.0.1 here t"], "", "", false),
    ];
    for (spec, endpoints, cluster, local, any) in table {
        let port = service::ports(&service((*spec).clone(), json!({}))).swap_remove(0);
        let endpoints = endpoints::of_port(&port.name, &[slice(endpoints)], "here");
        let choice = choose(&port, &endpoints, &place());
        let shown = |chosen: &[&endpoints::Endpoint]| {
            chosen.iter().map(|endpoint| endpoint.ip.octets()[3].to_string()).collect::<String>()
        };
        let found = (shown(&choice.cluster), shown(&choice.local), choice.any);
        assert_eq!(found, ((*cluster).to_owned(), (*local).to_owned(), *any), "{spec} {endpoints:?}");
        let both: BTreeSet<_> = cluster.chars().chain(local.chars()).collect();
        assert_eq!(shown(&choice.reachable).chars().collect::<BTreeSet<_>>(), both);
    }
}

#[test]
fn an_endpoint_in_two_slices_counts_once_and_ports_are_told_apart() {
    let port = service::ports(&service(json!({}), json!({}))).swap_remove(0);
    let slices = [slice(TWO), slice(TWO)];
    let found = endpoints::of_port(&port.name, &slices, "here");
    let shown: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.244.0.5:8080", "10.244.1.7:8080"]);
}

/// What iptables makes of inputs: tables of chains of rules.
#[derive(Default, Debug, PartialEq)]
struct Kernel(BTreeMap<String, BTreeMap<String, Vec<String>>>);

impl Kernel {
    fn restore(&mut self, input: &str) {
        let mut table = String::new();
        for line in input.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name.to_owned();
                continue;
            }
            let chains = self.0.entry(table.clone()).or_default();
            if let Some(rest) = line.strip_prefix(':') {
                chains.insert(rest.split(' ').next().unwrap().to_owned(), Vec::new());
                continue;
            }
            let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
            let (chain, rule) = rest.split_once(' ').unwrap_or((rest, ""));
            let target = rule.rsplit_once("-j ").map(|(_, target)| target.split(' ').next().unwrap());
            if verb != "-D" && target.is_some_and(|target| target.starts_with("KUBE-")) {
                assert!(chains.contains_key(target.unwrap()), "{line}: no such target");
            }
            let builtin = !chain.starts_with("KUBE-");
            if builtin {
                chains.entry(chain.to_owned()).or_default();
            }
            match verb {
                "-A" => chains.get_mut(chain).expect(line).push(rule.to_owned()),
                "-I" => chains.get_mut(chain).expect(line).insert(0, rule.to_owned()),
                "-D" => {
                    let rules = chains.get_mut(chain).expect(line);
                    let at = rules.iter().position(|found| found == rule).expect(line);
                    rules.remove(at);
                }
                "-X" => {
                    assert!(chains.get(chain).expect(line).is_empty(), "{line}: not empty");
                    let refers = |rule: &String| rule.ends_with(&format!("-j {chain}"));
                    assert!(!chains.values().flatten().any(refers), "{line}: still in use");
                    chains.remove(chain);
                }
                "COMMIT" => {}
                _ => panic!("{line}"),
            }
        }
    }

    /// Where the order of rules matters it is kept: own chains whole, in shared ones the last rule.
    fn comparable(mut self) -> Self {
        for (chain, rules) in self.0.values_mut().flat_map(BTreeMap::iter_mut) {
            let mut from_last = rules.iter().skip_while(|rule| !rule.contains("must be the last"));
            assert!(from_last.all(|rule| rule.contains("must be the last")), "{chain}");
            if ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES"].contains(&chain.as_str()) {
                rules.sort();
            }
        }
        self
    }

    /// As `iptables-save` lists a table.
    fn save(&self) -> BTreeMap<&'static str, Vec<String>> {
        let table = |name: &str| {
            let chains = self.0.get(name).into_iter().flatten();
            let (mut lines, mut rules) = (Vec::new(), Vec::new());
            for (chain, all) in chains {
                lines.push(format!(":{chain} - [0:0]"));
                rules.extend(all.iter().map(|rule| format!("-A {chain} {rule}")));
            }
            lines.extend(rules);
            lines
        };
        ["filter", "mangle", "nat"].map(|name| (name, table(name))).into()
    }
}

#[test]
fn a_change_leads_where_writing_everything_leads() {
    let settings = settings();
    let all = cases();
    for (from, old, old_endpoints) in &all {
        for (to, new, new_endpoints) in &all {
            let old = blocks(old, old_endpoints, &settings);
            let new = blocks(new, new_endpoints, &settings);
            let mut changed = Kernel::default();
            for input in restore::full(old.iter(), &settings, &JUMPS) {
                changed.restore(&input);
            }
            let count = old.len().max(new.len());
            let pairs: Vec<_> = (0..count).map(|at| (old.get(at), new.get(at))).collect();
            if let Some(input) = restore::change(&pairs) {
                changed.restore(&input);
            }
            let mut whole = Kernel::default();
            for input in restore::full(new.iter(), &settings, &JUMPS) {
                whole.restore(&input);
            }
            assert_eq!(changed.comparable(), whole.comparable(), "{from} -> {to}");
        }
    }
}

#[test]
fn many_services_go_in_several_inputs_that_each_stand_alone() {
    let settings = settings();
    let many: Vec<Block> = (0..1500)
        .flat_map(|number| {
            let mut service = service(json!({"clusterIP": "10.96.7.7", "clusterIPs": null}), json!({}));
            service.metadata.name = Some(format!("web-{number}"));
            blocks(&service, TWO, &settings)
        })
        .collect();
    let inputs = restore::full(many.iter(), &settings, &JUMPS);
    assert_eq!(inputs.len(), 3);
    let mut kernel = Kernel::default();
    inputs.iter().for_each(|input| kernel.restore(input));
    assert_eq!(kernel.0["nat"]["KUBE-SERVICES"].len(), 1501);
}

#[test]
fn cleanup_takes_out_what_was_put_in_and_nothing_else() {
    let mut kernel = Kernel::default();
    let foreign = "*filter\n:DOCKER - [0:0]\n-A INPUT -j DOCKER\nCOMMIT\n*nat\n-A OUTPUT -j ACCEPT\nCOMMIT\n";
    kernel.restore(foreign);
    for (_, service, endpoints) in cases().iter().take(1) {
        for input in restore::full(blocks(service, endpoints, &settings()).iter(), &settings(), &JUMPS) {
            kernel.restore(&input);
        }
    }
    let input = restore::cleanup(&kernel.save(), false);
    kernel.restore(&input);
    let left: Vec<String> = kernel.save().into_values().flatten().collect();
    let ours = |line: &&String| line.contains("KUBE-") && !line.contains("KUBE-FIREWALL");
    assert_eq!(left.iter().filter(ours).collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(
        left.contains(&"-A INPUT -j DOCKER".to_owned()) && left.contains(&"-A OUTPUT -j ACCEPT".to_owned())
    );
    assert!(left.iter().any(|line| line.starts_with("-A KUBE-FIREWALL")), "the kubelet's rule stays");
    assert_eq!(restore::cleanup(&kernel.save(), false), "");
    let input = restore::cleanup(&kernel.save(), true);
    kernel.restore(&input);
    let left: Vec<String> = kernel.save().into_values().flatten().collect();
    assert!(!left.iter().any(|line| line.contains("KUBE-")), "{left:?}");
}
