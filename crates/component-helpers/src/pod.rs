//! Small questions about a pod.

use std::fmt;

use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod, PodSpec};

pub const CONFIG_MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
pub const CONFIG_SOURCE_ANNOTATION: &str = "kubernetes.io/config.source";
pub const CONFIG_HASH_ANNOTATION: &str = "kubernetes.io/config.hash";

pub fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|s| s.priority).unwrap_or_default()
}

/// `namespace/name`, the key that queues and logs use.
pub fn key(pod: &Pod) -> String {
    let metadata = &pod.metadata;
    format!(
        "{}/{}",
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default()
    )
}

/// Whether this is the API server's picture of a static pod.
pub fn is_mirror(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(CONFIG_MIRROR_ANNOTATION))
}

/// Whether the pod was given to the kubelet by a file, not by the API.
pub fn is_static(pod: &Pod) -> bool {
    let source = pod.metadata.annotations.as_ref().and_then(|a| a.get(CONFIG_SOURCE_ANNOTATION));
    source.is_some_and(|source| source != "api")
}

/// All containers of a spec, init containers first, as they start.
pub fn all_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

/// A port of the node that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    pub ip: String,
    pub protocol: String,
    pub port: u16,
}

impl HostPort {
    fn of(port: &ContainerPort) -> Option<Self> {
        let number = u16::try_from(port.host_port?).ok().filter(|p| *p > 0)?;
        let ip = port.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0");
        Some(Self {
            ip: ip.to_owned(),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
            port: number,
        })
    }

    /// Whether both cannot be taken at once: the wildcard address meets every other.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.port == other.port
            && (self.ip == other.ip || self.ip == "0.0.0.0" || other.ip == "0.0.0.0")
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.ip, self.port, self.protocol)
    }
}

/// The host ports of a pod: of its containers and of its sidecars (other init containers end before they matter).
pub fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars = spec.init_containers.iter().flatten().filter(|c| crate::resource::is_restartable_init(c));
    sidecars.chain(&spec.containers).flat_map(|c| c.ports.iter().flatten()).filter_map(HostPort::of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn host_ports_conflict_over_the_wildcard() {
        let port =
            |ip: &str, protocol: &str, port| HostPort { ip: ip.into(), protocol: protocol.into(), port };
        let cases = [
            (port("0.0.0.0", "TCP", 80), port("10.0.0.1", "TCP", 80), true),
            (port("10.0.0.2", "TCP", 80), port("10.0.0.1", "TCP", 80), false),
            (port("10.0.0.1", "TCP", 80), port("10.0.0.1", "UDP", 80), false),
            (port("10.0.0.1", "TCP", 80), port("10.0.0.1", "TCP", 81), false),
            (port("10.0.0.1", "TCP", 80), port("10.0.0.1", "TCP", 80), true),
        ];
        for (a, b, want) in cases {
            assert_eq!(a.conflicts(&b), want, "{a} {b}");
            assert_eq!(b.conflicts(&a), want, "{b} {a}");
        }
    }

    #[test]
    fn host_ports_of_sidecars_count() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "containers": [{"name": "a", "ports": [{"containerPort": 1, "hostPort": 80}, {"containerPort": 2}]}],
            "initContainers": [
                {"name": "i", "ports": [{"containerPort": 1, "hostPort": 81}]},
                {"name": "s", "restartPolicy": "Always",
                 "ports": [{"containerPort": 1, "hostPort": 82, "hostIP": "10.0.0.1", "protocol": "UDP"}]}],
        }}))
        .expect("a pod");
        let shown: Vec<String> = host_ports(&pod).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["10.0.0.1:82/UDP", "0.0.0.0:80/TCP"]);
    }
}
