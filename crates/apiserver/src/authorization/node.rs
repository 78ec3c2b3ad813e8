//! The node authorizer: a kubelet reads what its own pods need and writes what is its own.
//!
//! Requests of others get no opinion. What the node may do to the content of its objects is for the
//! NodeRestriction admission plugin.

use apimachinery::Object;
use apimachinery::selectors::FieldRequirement;
use async_trait::async_trait;
use parking_lot::RwLock;

use super::node_graph::{Graph, Referent};
use super::{Attributes, Authorizer, UserRules, Verdict, bootstrap};
use crate::authentication::UserInfo;

const NODE_LEASE_NAMESPACE: &str = "kube-node-lease";

/// The kinds that the authorizer has to know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Pod,
    PersistentVolume,
    VolumeAttachment,
    ResourceSlice,
}

impl Kind {
    pub fn parse(group: &str, kind: &str) -> Option<Self> {
        match (group, kind) {
            ("", "Pod") => Some(Self::Pod),
            ("", "PersistentVolume") => Some(Self::PersistentVolume),
            ("storage.k8s.io", "VolumeAttachment") => Some(Self::VolumeAttachment),
            ("resource.k8s.io", "ResourceSlice") => Some(Self::ResourceSlice),
            _ => None,
        }
    }
}

/// Fed object by object. Kubelets read, and each change of a pod writes briefly: one lock.
#[derive(Default)]
pub struct NodeAuthorizer(RwLock<Graph>);

impl NodeAuthorizer {
    pub fn upsert(&self, kind: Kind, object: &Object) {
        let mut graph = self.0.write();
        match kind {
            Kind::Pod => graph.upsert_pod(object),
            Kind::PersistentVolume => graph.upsert_volume(object),
            Kind::VolumeAttachment => graph.upsert_attachment(object),
            Kind::ResourceSlice => graph.upsert_slice(object),
        }
    }

    pub fn remove(&self, kind: Kind, namespace: &str, name: &str) {
        let mut graph = self.0.write();
        match kind {
            Kind::Pod => graph.remove_pod(namespace, name),
            Kind::PersistentVolume => graph.remove_volume(name),
            Kind::VolumeAttachment => graph.remove_attachment(name),
            Kind::ResourceSlice => graph.remove_slice(name),
        }
    }

    pub fn decide(&self, request: &Attributes<'_>) -> Verdict {
        let Some(node) = request.user.node_name() else { return Verdict::no_opinion("") };
        if node.is_empty() {
            return Verdict::no_opinion(format!("unknown node for user {:?}", request.user.name));
        }
        let decided = if request.is_resource { self.resource(node, request) } else { None };
        match decided {
            Some(Ok(())) => Verdict::allow(""),
            Some(Err(reason)) => Verdict::no_opinion(reason),
            None if bootstrap::node_rules().iter().any(|rule| rule.allows(request)) => Verdict::allow(""),
            None => Verdict::no_opinion(""),
        }
    }

    /// The answer for resources to which nodes do not all have the same access.
    fn resource(&self, node: &str, request: &Attributes<'_>) -> Option<Answer> {
        Some(match (request.api_group, request.resource) {
            ("", "secrets") => self.read(node, Referent::Secret, request),
            ("", "configmaps") => self.read(node, Referent::ConfigMap, request),
            ("", "persistentvolumeclaims") if request.subresource == "status" => match request.verb {
                "update" | "patch" => self.related(node, request, |graph| {
                    let claim = Referent::PersistentVolumeClaim;
                    graph.refers(node, claim, request.namespace, request.name)
                }),
                _ => no("can only get/update/patch this type"),
            },
            ("", "persistentvolumeclaims") => self.get(node, request, |graph| {
                graph.refers(node, Referent::PersistentVolumeClaim, request.namespace, request.name)
            }),
            ("", "persistentvolumes") => {
                self.get(node, request, |graph| graph.uses_volume(node, request.name))
            }
            ("resource.k8s.io", "resourceclaims") => self.get(node, request, |graph| {
                graph.refers(node, Referent::ResourceClaim, request.namespace, request.name)
            }),
            ("storage.k8s.io", "volumeattachments") => {
                self.get(node, request, |graph| graph.has_attachment(node, request.name))
            }
            ("", "serviceaccounts") => self.service_account(node, request),
            ("coordination.k8s.io", "leases") => lease(node, request),
            ("storage.k8s.io", "csinodes") => csi_node(node, request),
            ("resource.k8s.io", "resourceslices") => self.slice(node, request),
            ("", "nodes") => own_node(node, request),
            ("", "pods") => self.pod(node, request),
            _ => return None,
        })
    }

    fn related(
        &self,
        node: &str,
        request: &Attributes<'_>,
        is_related: impl FnOnce(&Graph) -> bool,
    ) -> Answer {
        if request.name.is_empty() {
            no("No Object name found")
        } else if is_related(&self.0.read()) {
            Ok(())
        } else {
            Err(format!("no relationship found between node '{node}' and this object"))
        }
    }

    fn get(&self, node: &str, request: &Attributes<'_>, is_related: impl FnOnce(&Graph) -> bool) -> Answer {
        match (request.verb, request.subresource) {
            ("get", "") => self.related(node, request, is_related),
            ("get", _) => no("cannot get subresource"),
            _ => no("can only get individual resources of this type"),
        }
    }

    fn read(&self, node: &str, kind: Referent, request: &Attributes<'_>) -> Answer {
        if !matches!(request.verb, "get" | "list" | "watch") {
            no("can only read resources of this type")
        } else if !request.subresource.is_empty() {
            no("cannot read subresource")
        } else if request.namespace.is_empty() {
            no("can only read namespaced object of this type")
        } else {
            self.related(node, request, |graph| graph.refers(node, kind, request.namespace, request.name))
        }
    }

    fn service_account(&self, node: &str, request: &Attributes<'_>) -> Answer {
        let is_used =
            |graph: &Graph| graph.refers(node, Referent::ServiceAccount, request.namespace, request.name);
        // For image credential providers that ask for tokens of a pod's service account.
        if request.verb == "get" && request.subresource.is_empty() {
            return self.related(node, request, is_used);
        }
        if request.verb != "create" || request.name.is_empty() {
            no("can only create tokens for individual service accounts")
        } else if request.subresource != "token" {
            no("can only create token subresource of serviceaccount")
        } else {
            self.related(node, request, is_used)
        }
    }

    fn slice(&self, node: &str, request: &Attributes<'_>) -> Answer {
        if !request.subresource.is_empty() {
            return no("cannot authorize ResourceSlice subresources");
        }
        match request.verb {
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => {
                self.related(node, request, |graph| graph.has_slice(node, request.name))
            }
            "watch" | "list" | "deletecollection" if selects(request, "nodeName", node) => Ok(()),
            "watch" | "list" | "deletecollection" => {
                no("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => no("only the following verbs are allowed for a ResourceSlice: get, watch, list, create, \
                     update, patch, delete, deletecollection"),
        }
    }

    fn pod(&self, node: &str, request: &Attributes<'_>) -> Answer {
        let is_own = |graph: &Graph| graph.runs(node, request.namespace, request.name);
        match (request.subresource, request.verb) {
            ("", "get") => self.get(node, request, is_own),
            ("", "list" | "watch") if selects(request, "spec.nodeName", node) => Ok(()),
            ("", "list" | "watch") if !request.name.is_empty() => self.related(node, request, is_own),
            ("", "list" | "watch") => no("can only list/watch pods with spec.nodeName field selector"),
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => no(""),
        }
    }
}

/// Allowed, or why not.
type Answer = Result<(), String>;

fn no(reason: &str) -> Answer {
    Err(reason.to_owned())
}

fn selects(request: &Attributes<'_>, field: &str, node: &str) -> bool {
    let narrows = |one: &FieldRequirement| one.equals && one.field == field && one.value == node;
    request.field_selector.iter().any(narrows)
}

fn lease(node: &str, request: &Attributes<'_>) -> Answer {
    if !matches!(request.verb, "get" | "create" | "update" | "patch" | "delete") {
        no("can only get, create, update, patch, or delete a node lease")
    } else if request.namespace != NODE_LEASE_NAMESPACE {
        no(&format!("can only access leases in the {NODE_LEASE_NAMESPACE:?} system namespace"))
    } else if request.verb != "create" && request.name != node {
        no("can only access node lease with the same name as the requesting node")
    } else {
        Ok(())
    }
}

fn csi_node(node: &str, request: &Attributes<'_>) -> Answer {
    if !matches!(request.verb, "get" | "create" | "update" | "patch" | "delete") {
        no("can only get, create, update, patch, or delete a CSINode")
    } else if !request.subresource.is_empty() {
        no("cannot authorize CSINode subresources")
    } else if request.verb != "create" && request.name != node {
        no("can only access CSINode with the same name as the requesting node")
    } else {
        Ok(())
    }
}

fn own_node(node: &str, request: &Attributes<'_>) -> Answer {
    match (request.subresource, request.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        // By name, not by what is known of the node: a kubelet looks for its node before it makes it.
        ("", "get" | "list" | "watch") => match request.name {
            name if name == node => Ok(()),
            "" => Err(format!("node '{node}' cannot read all nodes, only its own Node object")),
            other => Err(format!("node '{node}' cannot read '{other}', only its own Node object")),
        },
        _ => no(""),
    }
}

#[async_trait]
impl Authorizer for NodeAuthorizer {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Verdict {
        self.decide(attributes)
    }

    async fn rules_for(&self, user: &UserInfo, _namespace: &str) -> UserRules {
        let mut rules = UserRules::default();
        if user.node_name().is_some() {
            rules.incomplete = true;
            rules.errors.push("node authorizer does not support user rule resolution".into());
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::selectors::FieldSelector;
    use serde_json::{Value, json};

    use super::*;
    use crate::authentication::{NODES_GROUP, node_username};

    fn node(name: &str) -> UserInfo {
        UserInfo::new(node_username(name), &[NODES_GROUP])
    }

    fn pod(name: &str, node: &str, spec: Value) -> Object {
        let mut pod = Object::from(json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec}));
        pod.set(&["spec", "nodeName"], node);
        pod
    }

    fn graph() -> NodeAuthorizer {
        let authorizer = NodeAuthorizer::default();
        let spec = json!({
            "serviceAccountName": "bot",
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{
                "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "env", "key": "a"}}}],
                "envFrom": [{"configMapRef": {"name": "envfrom"}}],
            }],
            "volumes": [
                {"name": "a", "secret": {"secretName": "volume"}},
                {"name": "b", "projected": {"sources": [{"configMap": {"name": "projected"}}]}},
                {"name": "c", "persistentVolumeClaim": {"claimName": "claim"}},
                {"name": "d", "ephemeral": {}},
            ],
            "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t"}],
        });
        let mut full = pod("full", "n1", spec);
        full.set(
            &["status", "resourceClaimStatuses"],
            json!([{"name": "gpu", "resourceClaimName": "full-gpu"}]),
        );
        authorizer.upsert(Kind::Pod, &full);
        authorizer.upsert(
            Kind::PersistentVolume,
            &Object::from(json!({
                "metadata": {"name": "pv"},
                "spec": {
                    "claimRef": {"namespace": "ns", "name": "claim"},
                    "csi": {
                        "nodeStageSecretRef": {"namespace": "vault", "name": "stage"},
                        "controllerPublishSecretRef": {"namespace": "vault", "name": "controller"},
                    },
                },
            })),
        );
        let attachment = json!({"metadata": {"name": "va"}, "spec": {"nodeName": "n1"}});
        authorizer.upsert(Kind::VolumeAttachment, &Object::from(attachment));
        let slice = json!({"metadata": {"name": "slice"}, "spec": {"nodeName": "n1"}});
        authorizer.upsert(Kind::ResourceSlice, &Object::from(slice));
        authorizer
    }

    /// `verb group/resource[/subresource] namespace/name`, as a request of the node.
    fn ask(
        authorizer: &NodeAuthorizer,
        of: &str,
        verb: &str,
        resource: &str,
        object: &str,
    ) -> Result<(), String> {
        let user = node(of);
        let mut parts = resource.split('/');
        let mut next = || parts.next().unwrap_or_default();
        let (group, resource, subresource) = (next(), next(), next());
        let (namespace, name) = object.split_once('/').unwrap_or(("", object));
        let request =
            Attributes { namespace, name, subresource, ..Attributes::resource(&user, verb, group, resource) };
        let verdict = authorizer.decide(&request);
        if verdict.is_allowed() { Ok(()) } else { Err(verdict.reason) }
    }

    #[test]
    fn nodes_reach_what_their_pods_need() {
        let authorizer = graph();
        let reachable = [
            ("get", "/secrets", "ns/pull"),
            ("list", "/secrets", "ns/env"),
            ("watch", "/secrets", "ns/volume"),
            ("get", "/secrets", "vault/stage"),
            ("get", "/configmaps", "ns/envfrom"),
            ("watch", "/configmaps", "ns/projected"),
            ("get", "/persistentvolumeclaims", "ns/claim"),
            ("patch", "/persistentvolumeclaims/status", "ns/claim"),
            ("get", "/persistentvolumeclaims", "ns/full-d"),
            ("get", "/persistentvolumes", "pv"),
            ("get", "resource.k8s.io/resourceclaims", "ns/full-gpu"),
            ("get", "storage.k8s.io/volumeattachments", "va"),
            ("create", "/serviceaccounts/token", "ns/bot"),
            ("get", "/serviceaccounts", "ns/bot"),
            ("get", "/pods", "ns/full"),
            ("watch", "/pods", "ns/full"),
            ("update", "resource.k8s.io/resourceslices", "slice"),
        ];
        for (verb, resource, object) in reachable {
            assert_eq!(ask(&authorizer, "n1", verb, resource, object), Ok(()), "{verb} {resource} {object}");
            assert_eq!(
                ask(&authorizer, "n2", verb, resource, object),
                Err("no relationship found between node 'n2' and this object".into()),
                "{verb} {resource} {object} by another node"
            );
        }
        authorizer.remove(Kind::Pod, "ns", "full");
        authorizer.remove(Kind::VolumeAttachment, "", "va");
        authorizer.remove(Kind::ResourceSlice, "", "slice");
        for (verb, resource, object) in reachable {
            assert!(ask(&authorizer, "n1", verb, resource, object).is_err(), "{verb} {resource} {object}");
        }
        authorizer.remove(Kind::PersistentVolume, "", "pv");
        let graph = authorizer.0.read();
        assert!(!graph.refers("n1", Referent::Secret, "vault", "stage"));
    }

    #[test]
    fn nodes_are_told_why_not() {
        let authorizer = graph();
        let unrelated = "no relationship found between node 'n1' and this object";
        let cases = [
            ("get", "/secrets", "vault/controller", unrelated),
            ("get", "/secrets", "other/env", unrelated),
            ("list", "/secrets", "ns/", "No Object name found"),
            ("list", "/secrets", "", "can only read namespaced object of this type"),
            ("create", "/secrets", "ns/env", "can only read resources of this type"),
            ("list", "/persistentvolumes", "pv", "can only get individual resources of this type"),
            ("get", "/persistentvolumes/status", "pv", "cannot get subresource"),
            ("get", "/persistentvolumeclaims/status", "ns/claim", "can only get/update/patch this type"),
            (
                "create",
                "/serviceaccounts/token",
                "ns/",
                "can only create tokens for individual service accounts",
            ),
            ("create", "/serviceaccounts", "ns/bot", "can only create token subresource of serviceaccount"),
            (
                "list",
                "coordination.k8s.io/leases",
                "kube-node-lease/n1",
                "can only get, create, update, patch, or delete a node lease",
            ),
            (
                "get",
                "coordination.k8s.io/leases",
                "kube-system/n1",
                "can only access leases in the \"kube-node-lease\" system namespace",
            ),
            (
                "get",
                "coordination.k8s.io/leases",
                "kube-node-lease/n2",
                "can only access node lease with the same name as the requesting node",
            ),
            (
                "get",
                "storage.k8s.io/csinodes",
                "n2",
                "can only access CSINode with the same name as the requesting node",
            ),
            (
                "list",
                "storage.k8s.io/csinodes",
                "n1",
                "can only get, create, update, patch, or delete a CSINode",
            ),
            ("list", "/nodes", "", "node 'n1' cannot read all nodes, only its own Node object"),
            ("get", "/nodes", "n2", "node 'n1' cannot read 'n2', only its own Node object"),
            ("delete", "/nodes", "n1", ""),
            ("list", "/pods", "", "can only list/watch pods with spec.nodeName field selector"),
            ("update", "/pods", "ns/full", ""),
            (
                "list",
                "resource.k8s.io/resourceslices",
                "",
                "can only list/watch/deletecollection resourceslices with nodeName field selector",
            ),
            ("get", "apps/deployments", "ns/web", ""),
        ];
        for (verb, resource, object, reason) in cases {
            assert_eq!(
                ask(&authorizer, "n1", verb, resource, object),
                Err(reason.into()),
                "{verb} {resource} {object}"
            );
        }
    }

    #[test]
    fn nodes_do_what_all_nodes_do() {
        let authorizer = graph();
        for (verb, resource, object) in [
            ("create", "/nodes", ""),
            ("get", "/nodes", "n1"),
            ("watch", "/nodes", "n1"),
            ("patch", "/nodes/status", "n1"),
            ("create", "/pods", "ns/"),
            ("patch", "/pods/status", "ns/other"),
            ("create", "/pods/eviction", "ns/other"),
            ("create", "coordination.k8s.io/leases", "kube-node-lease/"),
            ("update", "coordination.k8s.io/leases", "kube-node-lease/n1"),
            ("create", "storage.k8s.io/csinodes", ""),
            ("create", "events.k8s.io/events", "ns/"),
            ("list", "/services", ""),
            ("watch", "node.k8s.io/runtimeclasses", ""),
            ("create", "authentication.k8s.io/tokenreviews", ""),
            ("create", "resource.k8s.io/resourceslices", ""),
        ] {
            assert_eq!(ask(&authorizer, "n1", verb, resource, object), Ok(()), "{verb} {resource} {object}");
        }
        let user = node("n1");
        let cases = [
            ("pods", "spec.nodeName=n1", true),
            ("pods", "spec.nodeName=n1,status.phase!=Failed", true),
            ("pods", "spec.nodeName=n2", false),
            ("pods", "spec.nodeName!=n1", false),
            ("pods", "nodeName=n1", false),
            ("resourceslices", "nodeName=n1", true),
            ("resourceslices", "spec.nodeName=n1", false),
        ];
        for (resource, selector, allowed) in cases {
            let group = if resource == "pods" { "" } else { "resource.k8s.io" };
            let selector = FieldSelector::parse(selector).expect("a selector");
            for verb in ["list", "watch"] {
                let request = Attributes {
                    field_selector: selector.requirements(),
                    ..Attributes::resource(&user, verb, group, resource)
                };
                assert_eq!(authorizer.decide(&request).is_allowed(), allowed, "{verb} {resource} {selector}");
            }
        }
    }

    #[test]
    fn others_get_no_opinion() {
        let authorizer = graph();
        for user in [UserInfo::new("system:node:n1", &[]), UserInfo::new("jane", &[NODES_GROUP])] {
            let request = Attributes { name: "n1", ..Attributes::resource(&user, "get", "", "nodes") };
            assert_eq!(authorizer.decide(&request), Verdict::no_opinion(""));
        }
        let unnamed = node("");
        let request = Attributes::resource(&unnamed, "get", "", "nodes");
        assert_eq!(
            authorizer.decide(&request),
            Verdict::no_opinion("unknown node for user \"system:node:\"")
        );
    }

    #[test]
    fn mirror_pods_open_nothing() {
        let authorizer = NodeAuthorizer::default();
        let spec = json!({"volumes": [{"name": "a", "secret": {"secretName": "loot"}}]});
        let mut mirror = pod("static-n1", "n1", spec);
        mirror.set(&["metadata", "annotations", "kubernetes.io/config.mirror"], "x");
        authorizer.upsert(Kind::Pod, &mirror);
        assert!(ask(&authorizer, "n1", "get", "/secrets", "ns/loot").is_err());
        assert_eq!(ask(&authorizer, "n1", "get", "/pods", "ns/static-n1"), Ok(()));
    }

    #[test]
    fn two_pods_hold_a_secret_until_both_are_gone() {
        let authorizer = NodeAuthorizer::default();
        let spec = json!({"volumes": [{"name": "a", "secret": {"secretName": "shared"}}]});
        for name in ["one", "two"] {
            authorizer.upsert(Kind::Pod, &pod(name, "n1", spec.clone()));
            authorizer.upsert(Kind::Pod, &pod(name, "n1", spec.clone()));
        }
        authorizer.remove(Kind::Pod, "ns", "one");
        assert_eq!(ask(&authorizer, "n1", "get", "/secrets", "ns/shared"), Ok(()));
        authorizer.remove(Kind::Pod, "ns", "two");
        assert!(ask(&authorizer, "n1", "get", "/secrets", "ns/shared").is_err());
    }
}
