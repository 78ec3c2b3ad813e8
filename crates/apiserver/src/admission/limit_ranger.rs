//! LimitRanger: what containers, pods and claims of a namespace get where they say nothing, and how little or much
//! they may say.

use apimachinery::quantity::Quantity;
use apimachinery::{Object, Status, Value};
use component_helpers::amount::Amount;
use component_helpers::resource::{
    Options, ResourceList, container_limits, container_requests, pod_limits, pod_requests,
};
use k8s_openapi::api::core::v1::{Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod};
use serde::Deserialize;
use serde_json::json;

use super::{Attributes, Operation};
use crate::registry::Registry;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

fn concerns(attributes: &Attributes<'_>) -> bool {
    match attributes.operation {
        Operation::Create => attributes.is("pods", "") || attributes.is("persistentvolumeclaims", ""),
        Operation::Update => attributes.is("pods", "resize") || attributes.is("persistentvolumeclaims", ""),
        Operation::Delete | Operation::Connect => false,
    }
}

/// The limit ranges of the namespace, where the write is one that they are about.
fn ranges(registry: &Registry, attributes: &Attributes<'_>) -> Result<Vec<LimitRange>, Status> {
    // what is on its way out only loses finalizers
    let leaving = attributes.operation == Operation::Update
        && attributes.object.as_ref().is_some_and(|object| object.deletion_timestamp().is_some());
    if !concerns(attributes) || leaving {
        return Ok(Vec::new());
    }
    let kind = registry.core("limitranges");
    let Some(cache) = registry.cache.resource(kind) else { return Ok(Vec::new()) };
    let (snapshot, prefix) = (cache.snapshot(), kind.key(&attributes.namespace, ""));
    snapshot
        .range(&prefix, None)
        .map(|entry| {
            let object = entry.object().map_err(Status::internal)?;
            LimitRange::deserialize(object.as_value()).map_err(Status::internal)
        })
        .collect()
}

fn items(range: &LimitRange) -> impl Iterator<Item = &LimitRangeItem> {
    range.spec.iter().flat_map(|spec| &spec.limits)
}

pub fn admit(registry: &Registry, attributes: &mut Attributes<'_>) -> Result<(), Status> {
    if !attributes.is("pods", attributes.subresource) {
        return Ok(());
    }
    for range in ranges(registry, attributes)? {
        if let Some(pod) = &mut attributes.object {
            set_defaults(pod, &range);
        }
    }
    Ok(())
}

pub fn validate(registry: &Registry, attributes: &Attributes<'_>) -> Result<(), Status> {
    let ranges = ranges(registry, attributes)?;
    let Some(object) = attributes.object.as_ref().filter(|_| !ranges.is_empty()) else { return Ok(()) };
    for range in &ranges {
        let errors = if attributes.is("pods", attributes.subresource) {
            let pod = Pod::deserialize(object.as_value()).map_err(Status::internal)?;
            items(range).flat_map(|item| judge_pod(item, &pod)).collect()
        } else {
            let claim = PersistentVolumeClaim::deserialize(object.as_value()).map_err(Status::internal)?;
            items(range).flat_map(|item| judge_claim(item, &claim)).collect::<Vec<_>>()
        };
        if let Some(why) = aggregate(errors) {
            return Err(attributes.forbidden(why));
        }
    }
    Ok(())
}

/// Several errors as Go shows them: each once, in brackets.
fn aggregate(mut errors: Vec<String>) -> Option<String> {
    let mut seen = std::collections::BTreeSet::new();
    errors.retain(|error| seen.insert(error.clone()));
    match errors.len() {
        0 | 1 => errors.pop(),
        _ => Some(format!("[{}]", errors.join(", "))),
    }
}

/// Fills in what containers do not say, and notes what that was.
fn set_defaults(pod: &mut Object, range: &LimitRange) {
    let mut requests: Vec<(&String, &str)> = Vec::new();
    let mut limits: Vec<(&String, &str)> = Vec::new();
    for item in items(range).filter(|item| item.type_ == "Container") {
        requests.extend(item.default_request.iter().flatten().map(|(name, q)| (name, q.0.as_str())));
        limits.extend(item.default.iter().flatten().map(|(name, q)| (name, q.0.as_str())));
    }
    // of several defaults for one resource, the last holds
    for list in [&mut requests, &mut limits] {
        list.reverse();
        list.sort_by_key(|(name, _)| *name);
        list.dedup_by_key(|(name, _)| *name);
    }
    let mut notes = Vec::new();
    for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = pod.as_value_mut().pointer_mut(&format!("/spec/{list}"));
        for container in containers.and_then(Value::as_array_mut).into_iter().flatten() {
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            for (part, defaults, noun) in [("requests", &requests, "request"), ("limits", &limits, "limit")] {
                let set = fill(container, part, defaults);
                if !set.is_empty() {
                    notes.push(format!("{} {noun} for {what} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        let note = format!("LimitRanger plugin set: {}", notes.join("; "));
        pod.set(&["metadata", "annotations", ANNOTATION], note);
    }
}

/// Sets what is missing in a container's requests or limits; gives back the names.
fn fill<'a>(container: &mut Value, part: &str, defaults: &[(&'a String, &str)]) -> Vec<&'a str> {
    let given = |container: &Value, name: &str| {
        container.get("resources").and_then(|r| r.get(part)).is_some_and(|list| list.get(name).is_some())
    };
    let missing: Vec<_> = defaults.iter().filter(|(name, _)| !given(container, name)).collect();
    let Some(container) = container.as_object_mut().filter(|_| !missing.is_empty()) else {
        return Vec::new();
    };
    let resources = container.entry("resources").or_insert_with(|| json!({}));
    let list = resources.as_object_mut().map(|resources| resources.entry(part).or_insert_with(|| json!({})));
    let Some(list) = list.and_then(Value::as_object_mut) else { return Vec::new() };
    for (name, amount) in &missing {
        list.insert((*name).clone(), json!(amount));
    }
    missing.into_iter().map(|(name, _)| name.as_str()).collect()
}

fn judge_pod(item: &LimitRangeItem, pod: &Pod) -> Vec<String> {
    match item.type_.as_str() {
        "Container" => {
            let containers = |list: Option<&Vec<Container>>| list.cloned().unwrap_or_default();
            let spec = pod.spec.as_ref();
            let mut all = containers(spec.map(|spec| &spec.containers));
            all.extend(containers(spec.and_then(|spec| spec.init_containers.as_ref())));
            all.iter().flat_map(|one| judge(item, &container_requests(one), &container_limits(one))).collect()
        }
        "Pod" => {
            let options = Options { exclude_overhead: true, ..Options::default() };
            judge(item, &pod_requests(pod, &options), &pod_limits(pod, &options))
        }
        _ => Vec::new(),
    }
}

fn judge_claim(item: &LimitRangeItem, claim: &PersistentVolumeClaim) -> Vec<String> {
    if item.type_ != "PersistentVolumeClaim" {
        return Vec::new();
    }
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let requests = ResourceList::from_quantities(resources.and_then(|all| all.requests.as_ref()));
    let mut errors = Vec::new();
    for (name, least) in ResourceList::from_quantities(item.min.as_ref()).iter() {
        errors.extend(minimum(&item.type_, name, least, requests.get(name), None));
    }
    for (name, most) in ResourceList::from_quantities(item.max.as_ref()).iter() {
        let about = format!("maximum {name} usage per {} is {most}", item.type_);
        match requests.get(name) {
            None => errors.push(format!("{about}.  No request is specified")),
            Some(asked) if asked > most => errors.push(format!("{about}, but request is {asked}")),
            Some(_) => {}
        }
    }
    errors
}

fn judge(item: &LimitRangeItem, requests: &ResourceList, limits: &ResourceList) -> Vec<String> {
    let kind = &item.type_;
    let mut errors = Vec::new();
    for (name, least) in ResourceList::from_quantities(item.min.as_ref()).iter() {
        errors.extend(minimum(kind, name, least, requests.get(name), limits.get(name)));
    }
    for (name, most) in ResourceList::from_quantities(item.max.as_ref()).iter() {
        let about = format!("maximum {name} usage per {kind} is {most}");
        match (limits.get(name), requests.get(name)) {
            (None, _) => errors.push(format!("{about}.  No limit is specified")),
            (Some(limit), _) if limit > most => errors.push(format!("{about}, but limit is {limit}")),
            (_, Some(asked)) if asked > most => errors.push(format!("{about}, but request is {asked}")),
            _ => {}
        }
    }
    for (name, ratio) in item.max_limit_request_ratio.iter().flatten() {
        let about = format!("{name} max limit to request ratio per {kind} is {}", ratio.0);
        let given = |list: &ResourceList| list.get(name).filter(|amount| !amount.is_zero());
        match (given(requests), given(limits)) {
            (None, _) => errors.push(format!("{about}, but no request is specified or request is 0")),
            (_, None) => errors.push(format!("{about}, but no limit is specified or limit is 0")),
            (Some(asked), Some(limit)) => {
                let observed = limit.milli_value() as f64 / asked.milli_value() as f64;
                if observed > Quantity::parse(&ratio.0).map_or(f64::MAX, |ratio| ratio.as_f64()) {
                    errors.push(format!("{about}, but provided ratio is {observed:.6}"));
                }
            }
        }
    }
    errors
}

fn minimum(
    kind: &str,
    name: &str,
    least: Amount,
    asked: Option<Amount>,
    limit: Option<Amount>,
) -> Option<String> {
    let about = format!("minimum {name} usage per {kind} is {least}");
    match (asked, limit) {
        (None, _) => Some(format!("{about}.  No request is specified")),
        (Some(asked), _) if asked < least => Some(format!("{about}, but request is {asked}")),
        (_, Some(limit)) if limit < least => Some(format!("{about}, but limit is {limit}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(value: Value) -> LimitRangeItem {
        serde_json::from_value(value).expect("an item")
    }

    fn pod(resources: Value) -> Value {
        json!({"spec": {"containers": [{"name": "a", "resources": resources}]}})
    }

    #[test]
    fn defaults_are_set_and_noted() {
        let range: LimitRange = serde_json::from_value(json!({"spec": {"limits": [
            {"type": "Pod", "max": {"cpu": "9"}},
            {"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}}]}}))
        .expect("a range");
        let mut object = Object::from(json!({"spec": {
            "containers": [{"name": "a"}, {"name": "b", "resources": {"limits": {"cpu": "2", "memory": "2Gi"},
                "requests": {"cpu": "1"}}}],
            "initContainers": [{"name": "i", "resources": {"limits": {"memory": "2Gi"}}}]}}));
        set_defaults(&mut object, &range);
        let wanted = "LimitRanger plugin set: cpu request for container a; cpu, memory limit for container a; \
                      cpu request for init container i; cpu limit for init container i";
        assert_eq!(object.annotation(ANNOTATION), Some(wanted));
        let first = &object.get_array(&["spec", "containers"])[0]["resources"];
        assert_eq!(*first, json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "1", "memory": "1Gi"}}));
        let mut settled = object.clone();
        set_defaults(&mut settled, &range);
        assert_eq!(settled, object, "what is set is not set again");
    }

    #[test]
    fn pods_and_claims_stay_within_limits() {
        let cases: Vec<(Value, Value, &[&str])> = vec![
            (
                json!({"type": "Container", "min": {"cpu": "100m"}}),
                pod(json!({"requests": {"cpu": "100m"}})),
                &[],
            ),
            (
                json!({"type": "Container", "min": {"cpu": "100m"}}),
                pod(json!({})),
                &["minimum cpu usage per Container is 100m.  No request is specified"],
            ),
            (
                json!({"type": "Container", "min": {"cpu": "100m"}}),
                pod(json!({"requests": {"cpu": "50m"}})),
                &["minimum cpu usage per Container is 100m, but request is 50m"],
            ),
            (
                json!({"type": "Container", "min": {"cpu": "100m"}}),
                pod(json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "99m"}})),
                &["minimum cpu usage per Container is 100m, but limit is 99m"],
            ),
            (
                json!({"type": "Container", "max": {"memory": "1Gi"}}),
                pod(json!({"requests": {"memory": "1Gi"}})),
                &["maximum memory usage per Container is 1Gi.  No limit is specified"],
            ),
            (
                json!({"type": "Container", "max": {"memory": "1Gi"}}),
                pod(json!({"limits": {"memory": "1025Mi"}})),
                &["maximum memory usage per Container is 1Gi, but limit is 1025Mi"],
            ),
            (
                json!({"type": "Pod", "max": {"cpu": "1"}}),
                json!({"spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": "600m"}}},
                                            {"name": "b", "resources": {"limits": {"cpu": "600m"}}}]}}),
                &["maximum cpu usage per Pod is 1, but limit is 1200m"],
            ),
            (
                json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}),
                pod(json!({"requests": {"cpu": "1"}, "limits": {"cpu": "3"}})),
                &["cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000"],
            ),
            (
                json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}),
                pod(json!({"requests": {"cpu": "0"}, "limits": {"cpu": "3"}})),
                &[
                    "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
                ],
            ),
            (
                json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}),
                pod(json!({"requests": {"cpu": "1"}})),
                &[
                    "cpu max limit to request ratio per Container is 2, but no limit is specified or limit is 0",
                ],
            ),
            (
                json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}),
                pod(json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}})),
                &[],
            ),
        ];
        for (limit, object, wanted) in cases {
            let pod = serde_json::from_value(object.clone()).expect("a pod");
            assert_eq!(judge_pod(&item(limit.clone()), &pod), wanted, "{limit} {object}");
        }
        let limit = item(
            json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}),
        );
        for (asked, wanted) in [
            ("1Gi", None),
            ("3Gi", Some("maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi")),
            ("1Mi", Some("minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi")),
        ] {
            let claim = json!({"spec": {"resources": {"requests": {"storage": asked}}}});
            let claim = serde_json::from_value(claim).expect("a claim");
            assert_eq!(aggregate(judge_claim(&limit, &claim)).as_deref(), wanted, "{asked}");
        }
        assert_eq!(aggregate(vec!["a".into(), "b".into(), "a".into()]).as_deref(), Some("[a, b]"));
    }
}
