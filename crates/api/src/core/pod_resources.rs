//! Resources of a pod as a whole: what is defaulted from its containers, and the class of service they make.

use apimachinery::quantity::Quantity;
use apimachinery::{Object, Value};
use serde_json::{Map, json};

use super::defaults::{child, each};
use crate::validation::resources::{aggregate, allows_overcommit, is_huge_pages, is_pod_level};
use crate::validation::value::{entries, field, list, quantity};

type Tree = Map<String, Value>;

fn part<'a>(spec: &'a Tree, name: &str) -> Option<&'a Tree> {
    spec.get("resources")?.get(name)?.as_object().filter(|part| !part.is_empty())
}

fn set(spec: &mut Tree, name: &str, values: Vec<(String, Value)>) {
    if values.is_empty() {
        return;
    }
    let Some(resources) = child(spec, "resources") else { return };
    let part = resources.entry(name).or_insert_with(|| json!({}));
    if let Some(part) = part.as_object_mut() {
        for (name, value) in values {
            part.entry(name).or_insert(value);
        }
    }
}

/// Sums of the containers that the pod itself does not name yet.
fn missing(spec: &Tree, name: &str, take: fn(&str) -> bool) -> Vec<(String, Value)> {
    let own = part(spec, name);
    aggregate(&Value::Object(spec.clone()), name)
        .into_iter()
        .filter(|(resource, _)| take(resource) && own.is_none_or(|own| !own.contains_key(resource)))
        .map(|(resource, amount): (String, Quantity)| (resource, json!(amount.to_string())))
        .collect()
}

/// Completes the resources of a pod that names some of its own.
pub fn default_pod_level(spec: &mut Tree) {
    if part(spec, "requests").is_none() && part(spec, "limits").is_none() {
        return;
    }
    let pages = missing(spec, "limits", is_huge_pages);
    set(spec, "limits", pages);
    if let Some(limits) = part(spec, "limits").cloned() {
        let sums = missing(spec, "requests", |name| is_pod_level(name) && allows_overcommit(name));
        set(spec, "requests", sums);
        set(spec, "requests", limits.into_iter().filter(|(name, _)| is_pod_level(name)).collect());
    } else {
        let tree = Value::Object(spec.clone());
        let everywhere = |name: &str| {
            ["containers", "initContainers"].iter().all(|key| {
                list(&tree, key).iter().all(|container| {
                    container.pointer("/resources/limits").is_some_and(|limits| limits.get(name).is_some())
                })
            })
        };
        let sums = missing(spec, "limits", |name| is_pod_level(name) && allows_overcommit(name));
        set(spec, "limits", sums.into_iter().filter(|(name, _)| everywhere(name)).collect());
    }
}

/// Amounts below a thousandth are rounded up to one.
pub fn round_amounts(spec: &mut Tree) {
    for key in ["containers", "initContainers", "ephemeralContainers"] {
        for container in each(spec, key) {
            if let Some(resources) = child(container, "resources") {
                for part in ["limits", "requests"] {
                    if let Some(amounts) = child(resources, part) {
                        round(amounts);
                    }
                }
            }
        }
    }
    if let Some(overhead) = child(spec, "overhead") {
        round(overhead);
    }
}

/// Rounds the amounts of a list of resources.
pub fn round(amounts: &mut Tree) {
    for value in amounts.values_mut() {
        let Some(amount) = quantity(value) else { continue };
        let milli = amount.milli_value();
        let rounded = Quantity::milli(milli, amount.format());
        // beyond what an integer holds there is nothing to round
        if milli.unsigned_abs() < i64::MAX as u64 && rounded != amount {
            *value = json!(rounded.to_string());
        }
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`, from the cpu and memory of a pod or of its containers.
pub fn qos_class(pod: &Object) -> &'static str {
    let none = Value::Null;
    let spec = pod.get(&["spec"]).unwrap_or(&none);
    let all: Vec<&Value> = match field(spec, "resources") {
        Some(resources) => vec![resources],
        None => ["initContainers", "containers"]
            .into_iter()
            .flat_map(|key| list(spec, key))
            .map(|container| container.get("resources").unwrap_or(&none))
            .collect(),
    };
    let mut any = false;
    let mut guaranteed = true;
    for resources in all {
        let amount = |part: &str, name: &str| {
            let found = entries(resources, part).find(|(key, _)| *key == name)?.1;
            quantity(found).filter(|amount| amount.signum() > 0)
        };
        for name in ["cpu", "memory"] {
            let (request, limit) = (amount("requests", name), amount("limits", name));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request == limit;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_completes_what_it_begins() {
        let container = |resources: Value| json!([{"name": "c", "resources": resources}]);
        let cases = [
            (
                json!({"limits": {"cpu": "4"}}),
                container(json!({"requests": {"cpu": "1", "memory": "1Gi"}})),
                json!({"limits": {"cpu": "4"}, "requests": {"cpu": "1", "memory": "1Gi"}}),
            ),
            (
                json!({"limits": {"cpu": "4"}}),
                container(json!({})),
                json!({"limits": {"cpu": "4"}, "requests": {"cpu": "4"}}),
            ),
            (
                json!({"requests": {"cpu": "1"}}),
                container(json!({"limits": {"cpu": "2"}})),
                json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}),
            ),
            (json!({}), container(json!({"requests": {"cpu": "1"}})), json!({})),
        ];
        for (pod, containers, expected) in cases {
            let mut spec = json!({"resources": pod, "containers": containers});
            default_pod_level(spec.as_object_mut().unwrap());
            assert_eq!(spec["resources"], expected);
        }
    }

    #[test]
    fn classes_of_service() {
        let of = |resources: Value| {
            qos_class(&Object::from(json!({"spec": {"containers": [{"resources": resources}]}})))
        };
        assert_eq!(of(json!({})), "BestEffort");
        assert_eq!(of(json!({"requests": {"cpu": "0"}})), "BestEffort");
        assert_eq!(of(json!({"requests": {"cpu": "1"}})), "Burstable");
        let full = json!({"cpu": "1", "memory": "1Gi"});
        let same = json!({"cpu": "1000m", "memory": "1024Mi"});
        assert_eq!(of(json!({"requests": full, "limits": same})), "Guaranteed");
        assert_eq!(of(json!({"limits": full})), "Burstable");
    }

    #[test]
    fn amounts_are_rounded_up() {
        let mut amounts = json!({"cpu": "100u", "memory": "1Gi", "x": "1500"});
        round(amounts.as_object_mut().unwrap());
        assert_eq!(amounts, json!({"cpu": "1m", "memory": "1Gi", "x": "1500"}));
    }
}
