//! PodNodeSelector: the pods of a namespace go where the namespace's annotation says.

use std::collections::BTreeMap;

use apimachinery::{Object, Status, Value};

use super::{Attributes, Operation};
use crate::registry::Registry;

const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";
const NOT_ALLOWED: &str = "pod node label selector labels conflict with its namespace whitelist";
const CONFLICT: &str = "pod node label selector conflicts with its namespace node label selector";

/// Where pods go whose namespace says nothing, and where those of some namespaces may go at all; selectors as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodNodeSelector {
    cluster_default: String,
    /// By namespace.
    allowed: BTreeMap<String, String>,
}

impl PodNodeSelector {
    /// Reads what stands under `podNodeSelectorPluginConfig`: a selector for each namespace, and a default.
    pub fn configured(mut selectors: BTreeMap<String, String>) -> Self {
        let cluster_default = selectors.remove("clusterDefaultNodeSelector").unwrap_or_default();
        Self { cluster_default, allowed: selectors }
    }

    fn selector(
        &self,
        registry: &Registry,
        attributes: &Attributes<'_>,
    ) -> Result<BTreeMap<String, String>, Status> {
        if !attributes.is("pods", "") || attributes.operation != Operation::Create {
            return Ok(BTreeMap::new());
        }
        let namespaces = registry.core("namespaces");
        let missing = || Status::internal(format_args!("namespace {} does not exist", attributes.namespace));
        let namespace = registry.peek(namespaces, "", &attributes.namespace).ok_or_else(missing)?;
        parse(namespace.annotation(ANNOTATION).unwrap_or(&self.cluster_default)).map_err(Status::internal)
    }

    pub fn admit(&self, registry: &Registry, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let wanted = self.selector(registry, attributes)?;
        check(attributes, &wanted)?;
        if let Some(pod) = &mut attributes.object {
            for (key, value) in &wanted {
                pod.set(&["spec", "nodeSelector", key], value.as_str());
            }
        }
        self.check_allowed(attributes)
    }

    pub fn validate(&self, registry: &Registry, attributes: &Attributes<'_>) -> Result<(), Status> {
        check(attributes, &self.selector(registry, attributes)?)?;
        self.check_allowed(attributes)
    }

    /// Where the cluster says what the pods of a namespace may ask for, they ask for nothing else.
    fn check_allowed(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        if !attributes.is("pods", "") || attributes.operation != Operation::Create {
            return Ok(());
        }
        let allowed = self.allowed.get(&attributes.namespace).map(String::as_str).unwrap_or_default();
        let allowed = parse(allowed).map_err(Status::internal)?;
        let asked =
            attributes.object.as_ref().and_then(|pod| pod.get(&["spec", "nodeSelector"])?.as_object());
        let wrong = |(key, value): (&String, &Value)| allowed.get(key).map(String::as_str) != value.as_str();
        match !allowed.is_empty() && asked.into_iter().flatten().any(wrong) {
            true => Err(attributes.forbidden(NOT_ALLOWED)),
            false => Ok(()),
        }
    }
}

/// Reads `a=b,c=d`.
fn parse(text: &str) -> Result<BTreeMap<String, String>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("invalid selector: {part}"))?;
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        })
        .collect()
}

fn check(attributes: &Attributes<'_>, wanted: &BTreeMap<String, String>) -> Result<(), Status> {
    match attributes.object.as_ref().is_some_and(|pod| conflicts(pod, wanted)) {
        true => Err(attributes.forbidden(CONFLICT)),
        false => Ok(()),
    }
}

fn conflicts(pod: &Object, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().any(|(key, value)| {
        let own = pod.get(&["spec", "nodeSelector", key]).and_then(Value::as_str);
        own.is_some_and(|own| own != value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_are_read_and_compared() {
        let wanted = parse("a=b, c=").expect("a selector");
        assert_eq!(wanted, [("a".to_owned(), "b".to_owned()), ("c".to_owned(), String::new())].into());
        assert!(parse("").expect("nothing").is_empty() && parse("a").is_err());
        let cases = [(json!({}), false), (json!({"a": "b", "x": "y"}), false), (json!({"a": "z"}), true)];
        for (own, wrong) in cases {
            let pod = Object::from(json!({"spec": {"nodeSelector": own}}));
            assert_eq!(conflicts(&pod, &wanted), wrong, "{own}");
        }
    }
}
