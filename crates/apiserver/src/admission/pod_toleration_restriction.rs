//! PodTolerationRestriction: pods get the tolerations that their namespace, or the cluster, has for them, and may have
//! no others than those it lets them.

use apimachinery::{Object, Reason, Status, Value};
use component_helpers::qos::{QosClass, pod_qos};
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::json;

use super::{Attributes, Operation, tolerations};
use crate::registry::Registry;

const DEFAULTS: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const ALLOWED: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";

/// What holds in namespaces that say nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodTolerationRestriction {
    pub default: Vec<Value>,
    pub allowed: Vec<Value>,
}

impl PodTolerationRestriction {
    pub fn admit(&self, registry: &Registry, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let Some(namespace) = namespace(registry, attributes)? else { return Ok(()) };
        let mut defaults = Vec::new();
        if attributes.operation == Operation::Create {
            defaults = of(&namespace, DEFAULTS)?.unwrap_or_else(|| self.default.clone());
        }
        let Some(pod) = &mut attributes.object else { return Ok(()) };
        let merged = merged(pod, &defaults)?;
        if !merged.is_empty() {
            pod.set(&["spec", "tolerations"], merged);
        }
        self.check(&namespace, attributes)
    }

    pub fn validate(&self, registry: &Registry, attributes: &Attributes<'_>) -> Result<(), Status> {
        match namespace(registry, attributes)? {
            Some(namespace) => self.check(&namespace, attributes),
            None => Ok(()),
        }
    }

    fn check(&self, namespace: &Object, attributes: &Attributes<'_>) -> Result<(), Status> {
        let Some(pod) = &attributes.object else { return Ok(()) };
        let (allowed, scope) = match of(namespace, ALLOWED)? {
            Some(allowed) => (allowed, "namespace"),
            None => (self.allowed.clone(), "cluster"),
        };
        let own = pod.get_array(&["spec", "tolerations"]);
        let fits = |own: &Value| allowed.iter().any(|allowed| tolerations::includes(allowed, own));
        if allowed.is_empty() || own.iter().all(fits) {
            return Ok(());
        }
        let why = format!(
            "pod tolerations (possibly merged with namespace default tolerations) conflict with its {scope} whitelist"
        );
        Err(Status::new(500, Reason::Unknown, why))
    }
}

/// The namespace of a pod that is made or changed; nothing for writes that are no concern of the plugin.
fn namespace(registry: &Registry, attributes: &Attributes<'_>) -> Result<Option<Object>, Status> {
    if !attributes.is("pods", "") || attributes.operation == Operation::Delete {
        return Ok(None);
    }
    let namespaces = registry.core("namespaces");
    let missing = || Status::not_found(&namespaces.resource.group_resource(), &attributes.namespace);
    registry.peek(namespaces, "", &attributes.namespace).ok_or_else(missing).map(Some)
}

/// Tolerations that an annotation names; `None` where it does not stand.
fn of(namespace: &Object, annotation: &str) -> Result<Option<Vec<Value>>, Status> {
    let Some(text) = namespace.annotation(annotation) else { return Ok(None) };
    if text.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let parsed: Result<Vec<Value>, _> = serde_json::from_str(text);
    parsed.map(Some).map_err(|error| Status::new(500, Reason::Unknown, error.to_string()))
}

/// What a pod tolerates, with what it gets by default, and with what every pod gets that is promised resources.
fn merged(pod: &Object, defaults: &[Value]) -> Result<Vec<Value>, Status> {
    let own = pod.get_array(&["spec", "tolerations"]);
    let mut out = if defaults.is_empty() { own.to_vec() } else { tolerations::merge(defaults, own) };
    let typed = Pod::deserialize(pod.as_value()).map_err(Status::internal)?;
    if pod_qos(&typed) != QosClass::BestEffort {
        let pressure = json!({"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"});
        out = tolerations::merge(&out, &[pressure]);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_get_what_is_meant_for_them() {
        let own = json!({"key": "a", "operator": "Exists"});
        let more = json!({"key": "b", "operator": "Exists"});
        let pressure = json!({"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"});
        let pod = |tolerations: &[&Value], resources: Value| {
            Object::from(json!({"spec": {"tolerations": tolerations,
                "containers": [{"name": "c", "resources": resources}]}}))
        };
        let asks = || json!({"requests": {"cpu": "1"}});
        for (pod, defaults, wanted) in [
            (pod(&[&own], json!({})), vec![], vec![&own]),
            (pod(&[&own], json!({})), vec![&more], vec![&more, &own]),
            (pod(&[&own], json!({})), vec![&own], vec![&own]),
            (pod(&[], asks()), vec![], vec![&pressure]),
            (pod(&[&own], asks()), vec![&more], vec![&more, &own, &pressure]),
        ] {
            let defaults: Vec<Value> = defaults.into_iter().cloned().collect();
            let merged = merged(&pod, &defaults).unwrap();
            assert_eq!(merged.iter().collect::<Vec<_>>(), wanted);
        }
    }

    #[test]
    fn annotations_are_lists_of_tolerations() {
        let namespace = |text: &str| Object::from(json!({"metadata": {"annotations": {ALLOWED: text}}}));
        assert_eq!(of(&Object::default(), ALLOWED).unwrap(), None);
        assert_eq!(of(&namespace(""), ALLOWED).unwrap(), Some(vec![]));
        assert_eq!(of(&namespace("[{\"key\":\"a\"}]"), ALLOWED).unwrap(), Some(vec![json!({"key": "a"})]));
        assert_eq!(of(&namespace("x"), ALLOWED).unwrap_err().code, 500);
    }
}
