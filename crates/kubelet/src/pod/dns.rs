//! A pod's `resolv.conf`, which the runtime writes from what is said here.

use std::net::IpAddr;

use k8s_cri::v1::DnsConfig;
use k8s_openapi::api::core::v1::{Pod, PodDNSConfig};

use crate::pod::spec;

const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARACTERS: usize = 2048;
const NDOTS: &str = "ndots:5";

/// What the node's own `resolv.conf` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostDns {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

impl HostDns {
    pub fn parse(text: &str) -> Self {
        let mut dns = Self::default();
        for line in text.lines() {
            let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
            match words.next() {
                Some("nameserver") => dns.servers.extend(words.next().map(str::to_owned)),
                // the last one counts; the root domain is written without a name
                Some("search") => {
                    dns.searches = words
                        .map(|w| if w == "." { w } else { w.trim_end_matches('.') }.to_owned())
                        .collect();
                }
                Some("options") => dns.options = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        dns
    }

    /// Reads the file that names real servers: systemd-resolved's stub on loopback is of no use in a pod.
    pub fn read() -> Self {
        let read = |path| std::fs::read_to_string(path).map(|text| Self::parse(&text)).unwrap_or_default();
        let own = read("/etc/resolv.conf");
        if own.servers == ["127.0.0.53"] { read("/run/systemd/resolve/resolv.conf") } else { own }
    }
}

fn push_unique(list: &mut Vec<String>, items: impl IntoIterator<Item = String>) {
    for item in items {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

fn option_name(option: &str) -> &str {
    option.split(':').next().unwrap_or(option)
}

fn merge_custom(dns: &mut DnsConfig, custom: &PodDNSConfig) {
    push_unique(&mut dns.servers, custom.nameservers.iter().flatten().cloned());
    push_unique(&mut dns.searches, custom.searches.iter().flatten().cloned());
    for option in custom.options.iter().flatten() {
        let Some(name) = &option.name else { continue };
        let text = match &option.value {
            Some(value) if !value.is_empty() => format!("{name}:{value}"),
            _ => name.clone(),
        };
        match dns.options.iter_mut().find(|old| option_name(old) == name) {
            Some(old) => *old = text,
            None => dns.options.push(text),
        }
    }
}

/// The DNS configuration of a pod. `cluster` are the addresses of the cluster's DNS.
pub fn dns_config(pod: &Pod, cluster: &[IpAddr], domain: &str, host: &HostDns) -> DnsConfig {
    let pod_spec = spec::spec(pod);
    let policy = pod_spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let of_cluster = match policy {
        "ClusterFirst" => !spec::host_network(pod_spec),
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let mut dns = if policy == "None" {
        DnsConfig::default()
    } else if of_cluster && !cluster.is_empty() {
        let namespace = spec::namespace(pod);
        let mut searches =
            vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
        push_unique(&mut searches, host.searches.iter().cloned());
        DnsConfig {
            servers: cluster.iter().map(ToString::to_string).collect(),
            searches,
            options: vec![NDOTS.to_owned()],
        }
    } else {
        DnsConfig {
            servers: host.servers.clone(),
            searches: host.searches.clone(),
            options: host.options.clone(),
        }
    };
    if let Some(custom) = &pod_spec.dns_config {
        merge_custom(&mut dns, custom);
    }
    dns.servers.truncate(MAX_SERVERS);
    dns.searches.truncate(MAX_SEARCHES);
    while dns.searches.iter().map(|s| s.len() + 1).sum::<usize>() > MAX_SEARCH_CHARACTERS + 1 {
        dns.searches.pop();
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(spec: Value, want: &str) {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec}))
                .expect("a pod");
        let host = HostDns::parse(
            "# x\nnameserver 1.1.1.1\nnameserver 9.9.9.9\nsearch old\nsearch corp. .\noptions rotate\n",
        );
        let dns = dns_config(&pod, &[[10, 96, 0, 10].into()], "cluster.local", &host);
        let shown =
            format!("{} | {} | {}", dns.servers.join(" "), dns.searches.join(" "), dns.options.join(" "));
        assert_eq!(shown, want, "{spec}");
    }

    #[test]
    fn policies_choose_the_servers() {
        let cluster = "10.96.0.10 | ns.svc.cluster.local svc.cluster.local cluster.local corp . | ndots:5";
        let node = "1.1.1.1 9.9.9.9 | corp . | rotate";
        check(json!({"containers": []}), cluster);
        check(json!({"containers": [], "dnsPolicy": "ClusterFirst", "hostNetwork": true}), node);
        check(
            json!({"containers": [], "dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}),
            cluster,
        );
        check(json!({"containers": [], "dnsPolicy": "Default"}), node);
        check(
            json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["8.8.8.8"]}}),
            "8.8.8.8 |  | ",
        );
        check(
            json!({"containers": [], "dnsPolicy": "Default", "dnsConfig": {
                "nameservers": ["1.1.1.1", "2.2.2.2", "3.3.3.3"], "searches": ["mine"],
                "options": [{"name": "rotate"}, {"name": "ndots", "value": "2"}]}}),
            "1.1.1.1 9.9.9.9 2.2.2.2 | corp . mine | rotate ndots:2",
        );
        check(
            json!({"containers": [], "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}}),
            "10.96.0.10 | ns.svc.cluster.local svc.cluster.local cluster.local corp . | ndots:1",
        );
    }
}
