//! NodeRestriction: what RBAC cannot say of a kubelet: it writes its own node, its own pods, its own lease.

use apimachinery::{Object, Status, Value};
use serde_json::Map;

use super::{Attributes, Operation, certificate_subject};
use crate::authorization::node_graph::{Referent, references};
use crate::authorization::{self, Authorizer};
use crate::context::Context;
use crate::registry::Registry;

const MIRROR: &str = "kubernetes.io/config.mirror";
const LEASES: &str = "kube-node-lease";
/// Whose certificates name the node.
const SIGNERS: [&str; 2] = ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];

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

pub async fn check(
    registry: &Registry,
    authorizer: Option<&dyn Authorizer>,
    ctx: &Context,
    attributes: &Attributes<'_>,
) -> Result<(), Status> {
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
        _ if attributes.operation == Operation::Connect => Ok(()),
        ("", "pods", "") => pod(registry, node, attributes),
        ("", "pods", "status") => pod_status(node, attributes),
        ("", "pods", "eviction") => {
            let pod = seen(registry, attributes, &attributes.name)?;
            match on(&pod, node) {
                true => Ok(()),
                false => Err(attributes.forbidden(format_args!(
                    "node {node} can only evict pods with spec.nodeName set to itself"
                ))),
            }
        }
        ("", "pods", other) => Err(attributes.forbidden(format_args!(
            "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
        ))),
        ("", "nodes", _) => self_only(node, attributes),
        ("", "persistentvolumeclaims", "status") => claim_status(node, attributes),
        ("", "persistentvolumeclaims", _) => Err(attributes.forbidden("may only update PVC status")),
        ("", "serviceaccounts", "token") => {
            let Some(request) = &attributes.object else { return Ok(()) };
            let pod = bound_pod(registry, node, request, attributes)?;
            audience(registry, authorizer, ctx, request, &pod, attributes).await
        }
        ("coordination.k8s.io", "leases", _) => lease(node, attributes),
        ("storage.k8s.io", "csinodes", _) if named(attributes) != node => {
            Err(attributes.forbidden("can only access CSINode with the same name as the requesting node"))
        }
        ("resource.k8s.io", "resourceslices", _) => slice(node, attributes),
        ("certificates.k8s.io", "certificatesigningrequests", _) => certificate(node, attributes),
        _ => Ok(()),
    }
}

/// The name of what is asked about; of what is new it is in the object.
fn named<'a>(attributes: &'a Attributes<'_>) -> &'a str {
    match (&attributes.object, attributes.operation) {
        (Some(object), Operation::Create) => object.name(),
        _ => &attributes.name,
    }
}

/// A pod in the namespace of the request.
fn seen(registry: &Registry, attributes: &Attributes<'_>, name: &str) -> Result<Object, Status> {
    let pods = registry.core("pods");
    registry
        .peek(pods, &attributes.namespace, name)
        .ok_or_else(|| Status::not_found(&pods.resource.group_resource(), name))
}

fn on(pod: &Object, node: &str) -> bool {
    pod.get_str(&["spec", "nodeName"]) == node
}

fn pod(registry: &Registry, node: &str, attributes: &Attributes<'_>) -> Result<(), Status> {
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
            is_owner(registry, node, pod, attributes)?;
            match referred(pod) {
                None => Ok(()),
                Some(what) => Err(attributes
                    .forbidden(format_args!("node {node:?} can not create pods that reference {what}"))),
            }
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

/// A pod that a node makes is the node's own.
fn is_owner(
    registry: &Registry,
    node: &str,
    pod: &Object,
    attributes: &Attributes<'_>,
) -> Result<(), Status> {
    let refuse = |why: &str| Err(attributes.forbidden(format_args!("node {node:?} {why}")));
    let owner = match pod.owner_references() {
        [] => return refuse("can only create pods with an owner reference set to itself"),
        [owner] => owner,
        _ => return refuse("can only create pods with a single owner reference set to itself"),
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return refuse("can only create pods with an owner reference set to itself");
    }
    if owner["controller"] != true {
        return refuse("can only create pods with a controller owner reference set to itself");
    }
    if owner["blockOwnerDeletion"] == true {
        return refuse("must not set blockOwnerDeletion on an owner reference");
    }
    let nodes = registry.core("nodes");
    let known = registry
        .peek(nodes, "", node)
        .ok_or_else(|| Status::not_found(&nodes.resource.group_resource(), node))?;
    let uid = owner["uid"].as_str().unwrap_or_default();
    if uid != known.uid() {
        let known = known.uid();
        return Err(
            attributes.forbidden(format_args!("node {node} UID mismatch: expected {uid} got {known}"))
        );
    }
    Ok(())
}

/// What of the API a pod refers to, in the order in which upstream looks for it.
fn referred(pod: &Object) -> Option<&'static str> {
    let found = references(pod);
    let has = |wanted: Referent| found.iter().any(|(kind, _)| *kind == wanted);
    let volumes = pod.get_array(&["spec", "volumes"]);
    let is_projected = |volume: &Value, source: &str| {
        let sources = volume["projected"]["sources"].as_array();
        sources.is_some_and(|sources| sources.iter().any(|one| one.get(source).is_some()))
    };
    [
        (has(Referent::ServiceAccount), "a service account"),
        (has(Referent::Secret), "secrets"),
        (has(Referent::ConfigMap), "configmaps"),
        (volumes.iter().any(|volume| is_projected(volume, "clusterTrustBundle")), "clustertrustbundles"),
        (
            volumes.iter().any(|volume| volume.get("persistentVolumeClaim").is_some()),
            "persistentvolumeclaims",
        ),
        (!pod.get_array(&["spec", "resourceClaims"]).is_empty(), "resourceclaims"),
    ]
    .into_iter()
    .find_map(|(is_there, what)| is_there.then_some(what))
}

fn pod_status(node: &str, attributes: &Attributes<'_>) -> Result<(), Status> {
    let refuse = |why: &str| Err(attributes.forbidden(format_args!("node {node:?} {why}")));
    let (Some(new), Some(old)) = (&attributes.object, &attributes.old) else { return Ok(()) };
    if !on(old, node) {
        return refuse("can only update pod status for pods with spec.nodeName set to itself");
    }
    let none = Map::new();
    if new.labels().unwrap_or(&none) != old.labels().unwrap_or(&none) {
        return refuse("cannot update labels through pod status");
    }
    let claims = |pod: &Object| -> Vec<(Value, Value)> {
        let statuses = pod.get_array(&["status", "resourceClaimStatuses"]).iter();
        statuses.map(|status| (status["name"].clone(), status["resourceClaimName"].clone())).collect()
    };
    if claims(new) != claims(old) {
        return refuse("cannot update resource claim statues");
    }
    Ok(())
}

/// Of a claim a node may say how large it is and what becomes of that, and no more.
fn claim_status(node: &str, attributes: &Attributes<'_>) -> Result<(), Status> {
    let (Some(new), Some(old)) = (&attributes.object, &attributes.old) else { return Ok(()) };
    let rest = |claim: &Object| {
        let mut claim = claim.clone();
        for key in ["resourceVersion", "managedFields"] {
            claim.remove(&["metadata", key]);
        }
        for key in ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"] {
            claim.remove(&["status", key]);
        }
        // what is empty is not there
        if claim.get(&["status"]).and_then(Value::as_object).is_some_and(Map::is_empty) {
            claim.remove(&["status"]);
        }
        claim
    };
    if rest(new) == rest(old) {
        return Ok(());
    }
    Err(attributes.forbidden(format_args!(
        "node {node:?} is not allowed to update fields other than status.quantity and status.conditions"
    )))
}

/// What the authorizer cannot see: what is new, and each of those that go together.
fn slice(node: &str, attributes: &Attributes<'_>) -> Result<(), Status> {
    let (slice, verb) = match attributes.operation {
        Operation::Create => (&attributes.object, "create"),
        Operation::Delete => (&attributes.old, "delete"),
        _ => return Ok(()),
    };
    match slice {
        Some(slice) if slice.get_str(&["spec", "nodeName"]) != node => Err(attributes.forbidden(
            format_args!("can only {verb} ResourceSlice with the same NodeName as the requesting node"),
        )),
        _ => Ok(()),
    }
}

/// A node asks for certificates of its own name only.
fn certificate(node: &str, attributes: &Attributes<'_>) -> Result<(), Status> {
    let Some(request) = attributes.object.as_ref().filter(|_| attributes.operation == Operation::Create)
    else {
        return Ok(());
    };
    if !SIGNERS.contains(&request.get_str(&["spec", "signerName"])) {
        return Ok(());
    }
    match certificate_subject::common_name(request) {
        Err(why) => Err(attributes.forbidden(format_args!("unable to parse csr: {why}"))),
        Ok(name) if name == format!("system:node:{node}") => Ok(()),
        Ok(_) => {
            Err(attributes.forbidden(format_args!("can only create a node CSR with CN=system:node:{node}")))
        }
    }
}

fn self_only(node: &str, attributes: &Attributes<'_>) -> Result<(), Status> {
    let name = named(attributes);
    if name != node {
        return Err(
            attributes.forbidden(format_args!("node {node:?} is not allowed to modify node {name:?}"))
        );
    }
    let Some(new) = &attributes.object else { return Ok(()) };
    let source = new.get(&["spec", "configSource"]).filter(|source| !source.is_null());
    let labels = modified_labels(new, attributes.old.as_ref());
    let Some(old) = &attributes.old else {
        if source.is_some() {
            return Err(attributes.forbidden(format_args!(
                "node {node:?} is not allowed to create pods with a non-nil configSource"
            )));
        }
        if labels.is_empty() {
            return Ok(());
        }
        let labels = labels.join(", ");
        return Err(attributes
            .forbidden(format_args!("node {node:?} is not allowed to set the following labels: {labels}")));
    };
    if source.is_some() && source != old.get(&["spec", "configSource"]) {
        return Err(attributes.forbidden(format_args!(
            "node {node:?} is not allowed to update configSource to a new non-nil configSource"
        )));
    }
    if new.get_array(&["spec", "taints"]) != old.get_array(&["spec", "taints"]) {
        return Err(attributes.forbidden(format_args!("node {node:?} is not allowed to modify taints")));
    }
    if !labels.is_empty() {
        let labels = labels.join(", ");
        return Err(attributes.forbidden(format_args!("is not allowed to modify labels: {labels}")));
    }
    if new.owner_references() != old.owner_references() {
        return Err(
            attributes.forbidden(format_args!("node {node:?} is not allowed to modify ownerReferences"))
        );
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

/// The pod that a token is for, which runs on the node.
fn bound_pod(
    registry: &Registry,
    node: &str,
    request: &Object,
    attributes: &Attributes<'_>,
) -> Result<Object, Status> {
    let bound = |key: &str| request.get_str(&["spec", "boundObjectRef", key]);
    if bound("kind") != "Pod" || bound("apiVersion") != "v1" || bound("name").is_empty() {
        return Err(attributes.forbidden("node requested token not bound to a pod"));
    }
    if bound("uid").is_empty() {
        return Err(attributes.forbidden("node requested token with a pod binding without a uid"));
    }
    let pod = seen(registry, attributes, bound("name"))?;
    if pod.uid() != bound("uid") {
        return Err(attributes.forbidden(format_args!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            bound("uid")
        )));
    }
    if !on(&pod, node) {
        return Err(attributes.forbidden("node requested token bound to a pod scheduled on a different node"));
    }
    Ok(pod)
}

/// A token is for whom a volume of the pod names, or for whom the node may ask tokens for anyhow.
async fn audience(
    registry: &Registry,
    authorizer: Option<&dyn Authorizer>,
    ctx: &Context,
    request: &Object,
    pod: &Object,
    attributes: &Attributes<'_>,
) -> Result<(), Status> {
    let audience = match request.get_array(&["spec", "audiences"]) {
        [] => "",
        [audience] => audience.as_str().unwrap_or_default(),
        _ => return Err(attributes.forbidden("node may only request 0 or 1 audiences")),
    };
    if names_audience(registry, pod, audience) {
        return Ok(());
    }
    let asked = authorization::Attributes {
        namespace: &attributes.namespace,
        name: &attributes.name,
        api_version: "v1",
        ..authorization::Attributes::resource(
            &ctx.user,
            "request-serviceaccounts-token-audience",
            "",
            audience,
        )
    };
    if let Some(authorizer) = authorizer
        && authorizer.authorize(&asked).await.is_allowed()
    {
        return Ok(());
    }
    let user = &ctx.user.name;
    Err(attributes.forbidden(format_args!(
        "audience {audience:?} not found in pod spec volume, {user} is not authorized to request tokens for this audience"
    )))
}

/// Whether a volume of a pod is given tokens for an audience, itself or by the driver behind it.
fn names_audience(registry: &Registry, pod: &Object, audience: &str) -> bool {
    let text = |value: &Value, path: [&str; 2]| value[path[0]][path[1]].as_str().map(str::to_owned);
    let driver_of = |claim: &str| -> Option<String> {
        let claim = registry.peek(registry.core("persistentvolumeclaims"), pod.namespace(), claim)?;
        let volume =
            registry.peek(registry.core("persistentvolumes"), "", claim.get_str(&["spec", "volumeName"]))?;
        Some(volume.get_str(&["spec", "csi", "driver"]).to_owned())
    };
    let gives = |driver: String| -> bool {
        let kind = registry.kind("storage.k8s.io", "v1", "csidrivers");
        let driver = kind.and_then(|kind| registry.peek(kind, "", &driver));
        driver.is_some_and(|driver| {
            let mut tokens = driver.get_array(&["spec", "tokenRequests"]).iter();
            tokens.any(|token| token["audience"].as_str().unwrap_or_default() == audience)
        })
    };
    pod.get_array(&["spec", "volumes"]).iter().any(|volume| {
        let mut sources = volume["projected"]["sources"].as_array().into_iter().flatten();
        if sources.any(|source| {
            source.get("serviceAccountToken").is_some()
                && text(source, ["serviceAccountToken", "audience"]).unwrap_or_default() == audience
        }) {
            return true;
        }
        let claim = match volume.get("ephemeral") {
            Some(_) => volume["name"].as_str().map(|name| format!("{}-{name}", pod.name())),
            None => text(volume, ["persistentVolumeClaim", "claimName"]),
        };
        let driver = claim.and_then(|claim| driver_of(&claim)).or_else(|| text(volume, ["csi", "driver"]));
        driver.is_some_and(gives)
    })
}

fn lease(node: &str, attributes: &Attributes<'_>) -> Result<(), Status> {
    if attributes.namespace != LEASES {
        return Err(
            attributes.forbidden(format_args!("can only access leases in the {LEASES:?} system namespace"))
        );
    }
    if named(attributes) != node {
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
