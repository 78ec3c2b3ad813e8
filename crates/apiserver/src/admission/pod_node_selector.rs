//! PodNodeSelector: the pods of a namespace go where the namespace's annotation says.

use std::collections::BTreeMap;

use apimachinery::{Object, Status, Value};

use super::{Attributes, Operation};
use crate::registry::Registry;

const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";
const CONFLICT: &str = "pod node label selector conflicts with its namespace node label selector";

fn selector(registry: &Registry, attributes: &Attributes<'_>) -> Result<BTreeMap<String, String>, Status> {
    if !attributes.is("pods", "") || attributes.operation != Operation::Create {
        return Ok(BTreeMap::new());
    }
    let namespaces = registry.core("namespaces");
    let namespace = registry
        .peek(namespaces, "", &attributes.namespace)
        .ok_or_else(|| Status::internal(format_args!("namespace {} does not exist", attributes.namespace)))?;
    parse(namespace.annotation(ANNOTATION).unwrap_or_default()).map_err(Status::internal)
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

pub fn admit(registry: &Registry, attributes: &mut Attributes<'_>) -> Result<(), Status> {
    let wanted = selector(registry, attributes)?;
    check(attributes, &wanted)?;
    if let Some(pod) = &mut attributes.object {
        for (key, value) in &wanted {
            pod.set(&["spec", "nodeSelector", key], value.as_str());
        }
    }
    Ok(())
}

pub fn validate(registry: &Registry, attributes: &Attributes<'_>) -> Result<(), Status> {
    check(attributes, &selector(registry, attributes)?)
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
