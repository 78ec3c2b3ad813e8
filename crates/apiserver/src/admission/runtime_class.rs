//! RuntimeClass: pods get the overhead and the scheduling of their class, and no other overhead.

use apimachinery::{Object, Status, Value};
use component_helpers::amount::Amount;
use serde_json::{Map, json};

use super::{Attributes, Operation, tolerations};
use crate::registry::Registry;

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

async fn class_of(registry: &Registry, attributes: &Attributes<'_>) -> Result<Option<Object>, Status> {
    let Some(pod) = &attributes.object else { return Ok(None) };
    let Some(name) = pod.get(&["spec", "runtimeClassName"]).and_then(Value::as_str) else { return Ok(None) };
    let Some(kind) = registry.kind("node.k8s.io", "v1", "runtimeclasses") else { return Ok(None) };
    if let Some(class) = registry.peek(kind, "", name) {
        return Ok(Some(class));
    }
    registry.cache.wait_for_latest().await?;
    let found = registry.peek(kind, "", name);
    match found {
        Some(class) => Ok(Some(class)),
        None => Err(attributes.forbidden(format_args!("pod rejected: RuntimeClass {name:?} not found"))),
    }
}

fn concerns(attributes: &Attributes<'_>) -> bool {
    attributes.is("pods", "") && attributes.operation == Operation::Create
}

pub async fn admit(registry: &Registry, attributes: &mut Attributes<'_>) -> Result<(), Status> {
    if !concerns(attributes) {
        return Ok(());
    }
    let Some(class) = class_of(registry, attributes).await? else { return Ok(()) };
    let outcome = attributes.object.as_mut().map(|pod| apply(pod, &class));
    outcome.unwrap_or(Ok(())).map_err(|why| attributes.forbidden(why))
}

pub async fn validate(registry: &Registry, attributes: &Attributes<'_>) -> Result<(), Status> {
    if !concerns(attributes) {
        return Ok(());
    }
    let class = class_of(registry, attributes).await?;
    let Some(pod) = &attributes.object else { return Ok(()) };
    judge(pod, class.as_ref()).map_err(|why| attributes.forbidden(why))
}

fn overhead(of: Option<&Value>) -> Option<&Map<String, Value>> {
    of.and_then(Value::as_object)
}

fn same(a: Option<&Map<String, Value>>, b: Option<&Map<String, Value>>) -> bool {
    let amounts = |list: Option<&Map<String, Value>>| -> Vec<(String, Option<Amount>)> {
        let entries = list.into_iter().flatten();
        entries.map(|(name, value)| (name.clone(), value.as_str().and_then(Amount::parse))).collect()
    };
    let (mut a, mut b) = (amounts(a), amounts(b));
    a.sort();
    b.sort();
    a == b
}

fn apply(pod: &mut Object, class: &Object) -> Result<(), String> {
    if class.get(&["overhead"]).is_some() {
        let fixed = overhead(class.get(&["overhead", "podFixed"]));
        let set = overhead(pod.get(&["spec", "overhead"]));
        if set.is_some() && !same(set, fixed) {
            return Err(MISMATCH.into());
        }
        if let Some(fixed) = fixed.cloned() {
            pod.set(&["spec", "overhead"], fixed);
        }
    }
    for (key, value) in
        class.get(&["scheduling", "nodeSelector"]).and_then(Value::as_object).into_iter().flatten()
    {
        let path = ["spec", "nodeSelector", key.as_str()];
        let (wanted, own) = (value.as_str().unwrap_or_default(), pod.get(&path).and_then(Value::as_str));
        if let Some(own) = own.filter(|own| *own != wanted) {
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {own}"
            ));
        }
        pod.set(&path, wanted);
    }
    let more = class.get_array(&["scheduling", "tolerations"]);
    if !more.is_empty() {
        let merged = tolerations::merge(pod.get_array(&["spec", "tolerations"]), more);
        pod.set(&["spec", "tolerations"], json!(merged));
    }
    Ok(())
}

fn judge(pod: &Object, class: Option<&Object>) -> Result<(), &'static str> {
    let set = overhead(pod.get(&["spec", "overhead"]));
    match class.filter(|class| class.get(&["overhead"]).is_some()) {
        Some(class) if !same(set, overhead(class.get(&["overhead", "podFixed"]))) => Err(MISMATCH),
        None if set.is_some() => {
            Err("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_get_what_their_class_says() {
        let class = Object::from(json!({"overhead": {"podFixed": {"cpu": "250m"}}, "scheduling": {
            "nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]}}));
        let cases = [
            (json!({}), Ok(())),
            (json!({"overhead": {"cpu": "0.25"}}), Ok(())),
            (json!({"overhead": {"cpu": "1"}}), Err(MISMATCH)),
            (
                json!({"nodeSelector": {"vm": "no"}}),
                Err(
                    "conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no",
                ),
            ),
        ];
        for (spec, wanted) in cases {
            let mut pod = Object::from(json!({"spec": spec}));
            let outcome = apply(&mut pod, &class);
            assert_eq!(outcome.as_ref().err().map(String::as_str), wanted.err(), "{spec}");
            if outcome.is_ok() {
                assert_eq!(pod.get_str(&["spec", "overhead", "cpu"]), "250m");
                assert_eq!(pod.get_str(&["spec", "nodeSelector", "vm"]), "yes");
                assert_eq!(pod.get_array(&["spec", "tolerations"]).len(), 1);
                assert_eq!(judge(&pod, Some(&class)), Ok(()));
                assert!(judge(&pod, None).is_err(), "an overhead without a class");
            }
        }
        assert_eq!(judge(&Object::from(json!({"spec": {}})), Some(&class)), Err(MISMATCH));
        assert_eq!(judge(&Object::from(json!({"spec": {}})), None), Ok(()));
    }
}
