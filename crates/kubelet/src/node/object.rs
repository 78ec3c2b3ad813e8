//! The Node object and its status, as upstream's kubelet words them.

use std::collections::BTreeMap;

use component_helpers::resource::{CPU, EPHEMERAL_STORAGE, MEMORY, ResourceList};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
    NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus, NodeSwapStatus, NodeSystemInfo,
    Taint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::machine::Machine;
use crate::config::Config;
use crate::runtime::{self, Handler, Image};

/// Images listed in the status at most.
const MAX_IMAGES: usize = 50;
/// Names listed per image at most.
const MAX_NAMES: usize = 5;

/// What the status of a node is made from.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub runtime: runtime::Version,
    pub images: Vec<Image>,
    pub handlers: Vec<Handler>,
    /// Why the node is not ready; empty when it is.
    pub problems: Vec<String>,
}

fn labels(config: &Config, machine: &Machine) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> = config.node_labels.iter().cloned().collect();
    for (key, value) in [
        ("kubernetes.io/hostname", config.node_name.to_lowercase()),
        ("kubernetes.io/os", "linux".to_owned()),
        ("kubernetes.io/arch", machine.architecture.clone()),
        ("beta.kubernetes.io/os", "linux".to_owned()),
        ("beta.kubernetes.io/arch", machine.architecture.clone()),
    ] {
        labels.insert(key.to_owned(), value);
    }
    labels
}

/// `key=value:Effect` or `key:Effect`
fn taint(text: &str) -> Option<Taint> {
    let (rest, effect) = text.rsplit_once(':')?;
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    Some(Taint {
        key: key.to_owned(),
        value: Some(value.to_owned()).filter(|v| !v.is_empty()),
        effect: effect.to_owned(),
        time_added: None,
    })
}

/// The object that a node registers with.
pub fn node(config: &Config, machine: &Machine, status: NodeStatus) -> Node {
    let taints: Vec<Taint> = config.register_with_taints.iter().filter_map(|text| taint(text)).collect();
    Node {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: Some(labels(config, machine)),
            annotations: Some(BTreeMap::from([(
                "volumes.kubernetes.io/controller-managed-attach-detach".to_owned(),
                "true".to_owned(),
            )])),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec { taints: Some(taints).filter(|t| !t.is_empty()), ..NodeSpec::default() }),
        status: Some(status),
    }
}

fn quantities(list: &ResourceList) -> BTreeMap<String, Quantity> {
    let text = |name: &str, amount: component_helpers::amount::Amount| match name {
        CPU if amount.milli_value() % 1000 != 0 => format!("{}m", amount.milli_value()),
        MEMORY if amount.value() % 1024 == 0 => format!("{}Ki", amount.value() / 1024),
        EPHEMERAL_STORAGE if amount.value() % 1024 == 0 => format!("{}Ki", amount.value() / 1024),
        _ => amount.value().to_string(),
    };
    list.iter().map(|(name, amount)| (name.to_owned(), Quantity(text(name, amount)))).collect()
}

fn images(images: &[Image]) -> Vec<ContainerImage> {
    let mut sorted: Vec<&Image> = images.iter().collect();
    sorted.sort_by_key(|image| std::cmp::Reverse(image.size));
    let listed = sorted.into_iter().take(MAX_IMAGES).map(|image| {
        let names: Vec<String> = image.digests.iter().chain(&image.tags).take(MAX_NAMES).cloned().collect();
        ContainerImage { names: Some(names), size_bytes: i64::try_from(image.size).ok() }
    });
    listed.collect()
}

fn condition(kind: &str, status: bool, reason: &str, message: &str, now: Timestamp) -> NodeCondition {
    NodeCondition {
        type_: kind.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// The conditions, with the times of those that did not change.
pub fn conditions(observed: &Observed, old: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
    let ready = match observed.problems.as_slice() {
        [] => condition("Ready", true, "KubeletReady", "kubelet is posting ready status", now),
        [one] => condition("Ready", false, "KubeletNotReady", one, now),
        several => condition("Ready", false, "KubeletNotReady", &format!("[{}]", several.join(", ")), now),
    };
    let mut all = vec![
        condition(
            "MemoryPressure",
            false,
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
            now,
        ),
        condition("DiskPressure", false, "KubeletHasNoDiskPressure", "kubelet has no disk pressure", now),
        condition(
            "PIDPressure",
            false,
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available",
            now,
        ),
        ready,
    ];
    for condition in &mut all {
        if let Some(before) = old.iter().find(|c| c.type_ == condition.type_ && c.status == condition.status)
        {
            condition.last_transition_time = before.last_transition_time.clone();
        }
    }
    all
}

pub fn status(
    config: &Config,
    machine: &Machine,
    observed: &Observed,
    port: u16,
    old: &[NodeCondition],
    now: Timestamp,
) -> NodeStatus {
    let runtime = &observed.runtime;
    let handlers: Vec<NodeRuntimeHandler> = observed
        .handlers
        .iter()
        .map(|handler| NodeRuntimeHandler {
            name: Some(handler.name.clone()),
            features: Some(NodeRuntimeHandlerFeatures {
                recursive_read_only_mounts: Some(handler.recursive_read_only_mounts),
                user_namespaces: Some(handler.user_namespaces),
            }),
        })
        .collect();
    NodeStatus {
        addresses: Some(vec![
            NodeAddress { type_: "InternalIP".to_owned(), address: config.node_ip.to_string() },
            NodeAddress { type_: "Hostname".to_owned(), address: config.node_name.clone() },
        ]),
        capacity: Some(quantities(&machine.capacity(config.max_pods))),
        allocatable: Some(quantities(&machine.allocatable(config.max_pods))),
        conditions: Some(conditions(observed, old, now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(port) }),
        }),
        images: Some(images(&observed.images)),
        node_info: Some(NodeSystemInfo {
            architecture: machine.architecture.clone(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: format!("{}://{}", runtime.name, runtime.version),
            kernel_version: machine.kernel.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: config.version.clone(),
            machine_id: machine.machine_id.clone(),
            operating_system: "linux".to_owned(),
            os_image: machine.os_image.clone(),
            system_uuid: machine.system_uuid.clone(),
            swap: Some(NodeSwapStatus { capacity: Some(machine.swap).filter(|s| *s > 0) }),
        }),
        runtime_handlers: Some(handlers).filter(|h| !h.is_empty()),
        features: Some(NodeFeatures { supplemental_groups_policy: Some(false) }),
        ..NodeStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let mut config = Config::new("N1", [10, 0, 0, 1].into(), "/data");
        config.register_with_taints = vec!["k=v:NoSchedule".into(), "only:NoExecute".into(), "bad".into()];
        config
    }

    #[test]
    fn a_node_describes_itself() {
        let machine = Machine {
            cpus: 2,
            memory: 24_551_356 << 10,
            disk: 270_000_000_000,
            architecture: "amd64".into(),
            kernel: "6.18".into(),
            os_image: "Debian".into(),
            ..Machine::default()
        };
        let observed = Observed {
            runtime: runtime::Version { name: "containerd".into(), version: "1.6.20".into() },
            images: vec![Image { tags: vec!["a:1".into()], size: 5, ..Image::default() }],
            ..Observed::default()
        };
        let status = status(&config(), &machine, &observed, 10250, &[], Timestamp::UNIX_EPOCH);
        insta::assert_json_snapshot!(node(&config(), &machine, status));
    }

    #[test]
    fn readiness_says_why_not() {
        let mut observed = Observed::default();
        let at = |s| Timestamp::from_second(s).expect("a time");
        let first = conditions(&observed, &[], at(1));
        observed.problems = vec!["one".into(), "two".into()];
        let second = conditions(&observed, &first, at(2));
        let ready = second.iter().find(|c| c.type_ == "Ready").expect("a condition");
        assert_eq!((ready.status.as_str(), ready.message.as_deref()), ("False", Some("[one, two]")));
        assert_eq!(ready.last_transition_time, Some(Time(at(2))));
        let memory = second.iter().find(|c| c.type_ == "MemoryPressure").expect("a condition");
        assert_eq!(memory.last_transition_time, Some(Time(at(1))));
        assert_eq!(memory.last_heartbeat_time, Some(Time(at(2))));
    }
}
