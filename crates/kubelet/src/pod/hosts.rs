//! `/etc/hosts` of a pod, and its host name.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{HostAlias, Pod};

use crate::pod::spec;

const MAX_HOSTNAME: usize = 63;

/// The host name of a pod, and the domain it stands in (empty without a subdomain).
pub fn hostname(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let pod_spec = spec::spec(pod);
    if let Some(name) = pod_spec.hostname_override.as_deref() {
        return (truncate(name), String::new());
    }
    let own = pod_spec.hostname.as_deref().filter(|name| !name.is_empty());
    let domain = match pod_spec.subdomain.as_deref().filter(|name| !name.is_empty()) {
        Some(subdomain) => format!("{subdomain}.{}.svc.{cluster_domain}", spec::namespace(pod)),
        None => String::new(),
    };
    (truncate(own.unwrap_or_else(|| spec::name(pod))), domain)
}

fn truncate(name: &str) -> String {
    let end = name.char_indices().map(|(at, _)| at).nth(MAX_HOSTNAME).unwrap_or(name.len());
    name[..end].trim_end_matches(if end < name.len() { ['-', '.'].as_slice() } else { &[] }).to_owned()
}

fn aliases(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let mut out = String::from("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default();
        let _ = writeln!(out, "{}\t{}", alias.ip, names.join("\t"));
    }
    out
}

/// The file of a pod with addresses of its own.
pub fn managed(pod: &Pod, ips: &[String], cluster_domain: &str) -> String {
    let (name, domain) = hostname(pod, cluster_domain);
    let mut out = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    for ip in ips {
        let _ = if domain.is_empty() {
            writeln!(out, "{ip}\t{name}")
        } else {
            writeln!(out, "{ip}\t{name}.{domain}\t{name}")
        };
    }
    out + &aliases(spec::spec(pod).host_aliases.as_deref().unwrap_or_default())
}

/// The file of a pod in the node's network: the node's own, with the pod's aliases.
pub fn of_node(pod: &Pod, node: &str) -> String {
    let own = aliases(spec::spec(pod).host_aliases.as_deref().unwrap_or_default());
    format!("# Kubernetes-managed hosts file (host network).\n{node}{own}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "ns"}, "spec": spec}))
            .expect("a pod")
    }

    #[test]
    fn the_file_names_the_pod() {
        let spec = json!({"containers": [], "hostname": "h", "subdomain": "sub",
            "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]});
        let ips = ["10.1.0.2".to_owned(), "fd00::2".to_owned()];
        insta::assert_snapshot!(managed(&pod("p", spec.clone()), &ips, "cluster.local"));
        assert!(
            managed(&pod("p", json!({"containers": []})), &ips, "x").ends_with("10.1.0.2\tp\nfd00::2\tp\n")
        );
        assert_eq!(
            of_node(&pod("p", spec), "127.0.0.1 me\n"),
            "# Kubernetes-managed hosts file (host network).\n127.0.0.1 me\n\n\
             # Entries added by HostAliases.\n1.2.3.4\ta\tb\n"
        );
    }

    #[test]
    fn long_names_are_cut() {
        let long = format!("{}-{}", "a".repeat(62), "b".repeat(10));
        assert_eq!(hostname(&pod(&long, json!({"containers": []})), "x").0, "a".repeat(62));
        assert_eq!(hostname(&pod("p", json!({"containers": [], "hostnameOverride": "q.r"})), "x").0, "q.r");
    }
}
