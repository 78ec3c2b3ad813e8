//! Whether a pod may run on this node: the last check, after the scheduler's, against what runs here.

use std::collections::BTreeMap;

use component_helpers::node_affinity::{NodeView, matches_required};
use component_helpers::pod::host_ports;
use component_helpers::resource::{self, Options, ResourceList};
use component_helpers::taints::{NO_EXECUTE, find_untolerated};
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::pod::spec;
use crate::pod::worker::Rejection;

const CRITICAL_PRIORITY: i32 = 2_000_000_000;

fn rejection(reason: &str, message: impl Into<String>) -> Rejection {
    Rejection { reason: reason.to_owned(), message: message.into() }
}

/// The node's name for a resource in reasons: `OutOfcpu`, `OutOfmemory`, `OutOfpods`.
fn out_of(name: &str, requested: i64, used: i64, capacity: i64) -> Rejection {
    let message = format!(
        "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
    );
    rejection(&format!("OutOf{name}"), message)
}

/// Judges a pod against the node and the pods that are active on it.
pub fn admit<'a>(
    pod: &Pod,
    active: impl Iterator<Item = &'a Pod>,
    allocatable: &ResourceList,
    node: Option<&Node>,
) -> Result<(), Rejection> {
    let options = Options { use_status: true, ..Options::default() };
    let requests = resource::pod_requests(pod, &options);
    let mut used = ResourceList::default();
    let mut count = 0;
    let mut ports = Vec::new();
    for other in active {
        used.add(&resource::pod_requests(other, &options));
        ports.extend(host_ports(other));
        count += 1;
    }
    let critical = component_helpers::pod::priority(pod) >= CRITICAL_PRIORITY;
    if !critical {
        if let Some(room) = allocatable.get(resource::PODS).map(|a| a.value())
            && count + 1 > room
        {
            return Err(out_of(resource::PODS, 1, count, room));
        }
        for (name, amount) in requests.iter().filter(|(_, amount)| !amount.is_zero()) {
            // cpu is counted in thousandths
            let number = |a: component_helpers::amount::Amount| {
                if name == resource::CPU { a.milli_value() } else { a.value() }
            };
            let room = allocatable.get(name).map(number).unwrap_or_default();
            let taken = used.get(name).map(number).unwrap_or_default();
            if number(amount) + taken > room {
                return Err(out_of(name, number(amount), taken, room));
            }
        }
    }
    let wanted = host_ports(pod);
    if wanted.iter().any(|port| ports.iter().any(|taken| port.conflicts(taken))) {
        return Err(rejection(
            "NodePorts",
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        ));
    }
    let Some(node) = node else { return Ok(()) };
    let empty = BTreeMap::new();
    let view = NodeView {
        name: node.metadata.name.as_deref().unwrap_or_default(),
        labels: node.metadata.labels.as_ref().unwrap_or(&empty),
    };
    if matches_required(pod, view) != Ok(true) {
        return Err(rejection(
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        ));
    }
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    let tolerations = spec::spec(pod).tolerations.as_deref().unwrap_or_default();
    if find_untolerated(taints, tolerations, false, |taint| taint.effect == NO_EXECUTE).is_some() {
        return Err(rejection(
            "TaintToleration",
            "Predicate TaintToleration failed: node(s) had untolerated taint(s)",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use component_helpers::amount::Amount;
    use serde_json::{Value, json};

    fn pod(cpu: &str, more: Value) -> Pod {
        let mut spec = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}},
            "ports": [{"containerPort": 80, "hostPort": 80}]}]});
        spec.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        serde_json::from_value(json!({"spec": spec})).expect("a pod")
    }

    fn without_port(mut pod: Pod) -> Pod {
        if let Some(spec) = &mut pod.spec {
            spec.containers[0].ports = None;
        }
        pod
    }

    #[test]
    fn pods_are_let_in_while_there_is_room() {
        let room: ResourceList =
            [(resource::CPU, Amount::from_units(1)), (resource::PODS, Amount::from_units(2))]
                .into_iter()
                .collect();
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n", "labels": {"zone": "a"}},
            "spec": {"taints": [{"key": "k", "effect": "NoExecute"}, {"key": "s", "effect": "NoSchedule"}]},
        }))
        .expect("a node");
        let tolerant = json!({"tolerations": [{"key": "k", "operator": "Exists"}]});
        let other = pod("500m", json!({}));
        let check =
            |pod: &Pod, others: &[Pod]| admit(pod, others.iter(), &room, Some(&node)).map_err(|r| r.reason);
        let plain = without_port(pod("500m", tolerant.clone()));
        assert_eq!(check(&plain, std::slice::from_ref(&other)), Ok(()));
        let big = without_port(pod("501m", tolerant.clone()));
        let refused = admit(&big, [&other].into_iter(), &room, None).expect_err("no room");
        assert_eq!(refused.reason, "OutOfcpu");
        assert_eq!(
            refused.message,
            "Node didn't have enough resource: cpu, requested: 501, used: 500, capacity: 1000"
        );
        let small = without_port(pod("0", tolerant.clone()));
        assert_eq!(check(&small, &[small.clone(), small.clone()]), Err("OutOfpods".into()));
        assert_eq!(check(&pod("1m", tolerant), &[other]), Err("NodePorts".into()));
        assert_eq!(check(&without_port(pod("1m", json!({}))), &[]), Err("TaintToleration".into()));
        let elsewhere = json!({"tolerations": [{"operator": "Exists"}], "nodeSelector": {"zone": "b"}});
        assert_eq!(check(&without_port(pod("1m", elsewhere)), &[]), Err("NodeAffinity".into()));
    }
}
