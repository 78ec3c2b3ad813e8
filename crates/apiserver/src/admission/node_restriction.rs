//! NodeRestriction: what RBAC cannot say of a kubelet: it writes its own node, its own pods, its own lease.

use apimachinery::{Object, Status};

use super::{Attributes, Operation};
use crate::context::Context;
use crate::registry::Registry;

const MIRROR: &str = "kubernetes.io/config.mirror";
const LEASES: &str = "kube-node-lease";

/// Labels below `kubernetes.io` and `k8s.io` that a kubelet may put on its node.
const KUBELET_LABELS: [&str; 12] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "node.kubernetes.io/windows-build",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];
const KUBELET_LABEL_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// The node of a kubelet's identity; `None` for everybody else.
fn node_of(ctx: &Context) -> Option<Result<&str, ()>> {
    let user = &ctx.user;
    if !user.groups.iter().any(|group| group == "system:nodes") {
        return None;
    }
    Some(user.name.strip_prefix("system:node:").filter(|name| !name.is_empty()).ok_or(()))
}

pub fn check(registry: &Registry, ctx: &Context, attributes: &Attributes<'_>) -> Result<(), Status> {
    let node = match node_of(ctx) {
        None => return Ok(()),
        Some(Ok(node)) => node,
        Some(Err(())) => {
            let why = format!("could not determine node from user {:?}", ctx.user.name);
            return Err(attributes.forbidden(why));
        }
    };
    let resource = attributes.kind.resource;
    match (resource.group, resource.plural, attributes.subresource) {
        ("", "pods", "") => pod(node, attributes),
        ("", "pods", "status") => {
            let own = attributes.old.as_ref().is_some_and(|pod| on(pod, node));
            if !own {
                return Err(attributes.forbidden(format_args!(
                    "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
                )));
            }
            status_keeps_labels(node, attributes)
        }
        ("", "pods", "eviction") => {
            let pod = registry.peek(registry.core("pods"), &attributes.namespace, &attributes.name);
            match pod.is_some_and(|pod| on(&pod, node)) {
                true => Ok(()),
                false => Err(attributes.forbidden(format_args!(
                    "node {node} can only evict pods with spec.nodeName set to itself"
                ))),
            }
        }
        ("", "nodes", _) => self_only(node, attributes),
        ("", "serviceaccounts", "token") => token(registry, node, attributes),
        ("coordination.k8s.io", "leases", _) => lease(node, attributes),
        _ => Ok(()),
    }
}

fn on(pod: &Object, node: &str) -> bool {
    pod.get_str(&["spec", "nodeName"]) == node
}

fn pod(node: &str, attributes: &Attributes<'_>) -> Result<(), Status> {
    match attributes.operation {
        Operation::Create => {
            let Some(pod) = &attributes.object else { return Ok(()) };
            if pod.annotation(MIRROR).is_none() {
                return Err(attributes.forbidden(format_args!(
                    "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
                )));
            }
            if !on(pod, node) {
                return Err(attributes.forbidden(format_args!(
                    "node {node:?} can only create pods with spec.nodeName set to itself"
                )));
            }
            Ok(())
        }
        Operation::Delete => match attributes.old.as_ref().is_some_and(|pod| on(pod, node)) {
            true => Ok(()),
            false => Err(attributes.forbidden(format_args!(
                "node {node:?} can only delete pods with spec.nodeName set to itself"
            ))),
        },
        Operation::Update => Err(attributes.forbidden(format_args!(
            "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
        ))),
        Operation::Connect => Ok(()),
    }
}

fn status_keeps_labels(node: &str, attributes: &Attributes<'_>) -> Result<(), Status> {
    let (Some(new), Some(old)) = (&attributes.object, &attributes.old) else { return Ok(()) };
    if new.labels() == old.labels() {
        return Ok(());
    }
    Err(attributes.forbidden(format_args!("node {node:?} cannot update labels through pod status")))
}

fn self_only(node: &str, attributes: &Attributes<'_>) -> Result<(), Status> {
    let name = match (&attributes.object, attributes.operation) {
        (Some(object), Operation::Create) => object.name(),
        _ => &attributes.name,
    };
    if name != node {
        return Err(
            attributes.forbidden(format_args!("node {node:?} is not allowed to modify node {name:?}"))
        );
    }
    let Some(new) = &attributes.object else { return Ok(()) };
    let forbidden = modified_labels(new, attributes.old.as_ref());
    if !forbidden.is_empty() {
        let verb = if attributes.operation == Operation::Create { "set" } else { "modify" };
        return Err(attributes.forbidden(format_args!(
            "node {node:?} is not allowed to {verb} the following labels: {}",
            forbidden.join(", ")
        )));
    }
    if let Some(old) = &attributes.old {
        if new.get(&["spec", "taints"]) != old.get(&["spec", "taints"]) {
            return Err(attributes.forbidden(format_args!("node {node:?} is not allowed to modify taints")));
        }
        if new.owner_references() != old.owner_references() {
            return Err(
                attributes.forbidden(format_args!("node {node:?} is not allowed to modify ownerReferences"))
            );
        }
    }
    Ok(())
}

/// Labels that a kubelet touched and may not.
fn modified_labels(new: &Object, old: Option<&Object>) -> Vec<String> {
    let before = |key: &str| old.and_then(|old| old.label(key));
    let mut keys: Vec<&String> = Vec::new();
    for (key, value) in new.labels().into_iter().flatten() {
        if before(key) != value.as_str() {
            keys.push(key);
        }
    }
    for (key, _) in old.and_then(Object::labels).into_iter().flatten() {
        if new.label(key).is_none() {
            keys.push(key);
        }
    }
    keys.sort();
    keys.into_iter().filter(|key| is_restricted(key)).cloned().collect()
}

fn is_restricted(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else { return false };
    let below = |parent: &str| domain == parent || domain.ends_with(&format!(".{parent}"));
    if below("node-restriction.kubernetes.io") {
        return true;
    }
    if !below("kubernetes.io") && !below("k8s.io") {
        return false;
    }
    !KUBELET_LABELS.contains(&key) && !KUBELET_LABEL_DOMAINS.iter().any(|allowed| below(allowed))
}

fn token(registry: &Registry, node: &str, attributes: &Attributes<'_>) -> Result<(), Status> {
    let Some(request) = &attributes.object else { return Ok(()) };
    let bound = |key: &str| request.get_str(&["spec", "boundObjectRef", key]);
    if bound("kind") != "Pod" || bound("apiVersion") != "v1" || bound("name").is_empty() {
        return Err(attributes.forbidden("node requested token not bound to a pod"));
    }
    if bound("uid").is_empty() {
        return Err(attributes.forbidden("node requested token with a pod binding without a uid"));
    }
    let pod = registry
        .peek(registry.core("pods"), &attributes.namespace, bound("name"))
        .ok_or_else(|| attributes.forbidden(format_args!("pod {:?} not found", bound("name"))))?;
    if pod.uid() != bound("uid") {
        return Err(attributes.forbidden(format_args!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            bound("uid")
        )));
    }
    if !on(&pod, node) {
        return Err(attributes.forbidden("node requested token bound to a pod scheduled on a different node"));
    }
    Ok(())
}

fn lease(node: &str, attributes: &Attributes<'_>) -> Result<(), Status> {
    if attributes.namespace != LEASES {
        return Err(
            attributes.forbidden(format_args!("can only access leases in the {LEASES:?} system namespace"))
        );
    }
    let name = attributes.object.as_ref().map_or(attributes.name.as_str(), |lease| lease.name());
    if name != node {
        return Err(
            attributes.forbidden("can only access node lease with the same name as the requesting node")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_the_system_are_not_the_kubelets_to_set() {
        let cases = [
            ("a", false),
            ("example.com/a", false),
            ("kubernetes.io/hostname", false),
            ("topology.kubernetes.io/zone", false),
            ("node.kubernetes.io/anything", false),
            ("node-role.kubernetes.io/control-plane", true),
            ("node-restriction.kubernetes.io/a", true),
            ("a.node-restriction.kubernetes.io/a", true),
            ("k8s.io/a", true),
        ];
        for (key, restricted) in cases {
            assert_eq!(is_restricted(key), restricted, "{key}");
        }
    }
}
