//! Pods: what a client may set, what changes, how long one takes to go.

use apimachinery::field::{ErrorList, Path};
use apimachinery::{Object, Value};
use serde_json::{Map, json};

use super::{defaults, gates, pod_create, warnings};
use crate::catalogue::Selectable;
use crate::strategy::{Grace, Strategy, bump_generation, keep_spec, keep_status, restore};
use crate::validation;
use crate::validation::value::{list, number, text};

pub use super::pod_resources::qos_class;

pub const SELECTABLE: &[Selectable] = &[
    Selectable { name: "spec.nodeName", read: |o| o.get_str(&["spec", "nodeName"]).to_owned() },
    Selectable { name: "spec.restartPolicy", read: |o| o.get_str(&["spec", "restartPolicy"]).to_owned() },
    Selectable { name: "spec.schedulerName", read: |o| o.get_str(&["spec", "schedulerName"]).to_owned() },
    Selectable {
        name: "spec.serviceAccountName",
        read: |o| o.get_str(&["spec", "serviceAccountName"]).to_owned(),
    },
    Selectable { name: "spec.hostNetwork", read: |o| o.get_bool(&["spec", "hostNetwork"]).to_string() },
    Selectable { name: "status.phase", read: |o| o.get_str(&["status", "phase"]).to_owned() },
    Selectable { name: "status.podIP", read: |o| o.get_str(&["status", "podIP"]).to_owned() },
    Selectable {
        name: "status.nominatedNodeName",
        read: |o| o.get_str(&["status", "nominatedNodeName"]).to_owned(),
    },
];

pub struct Pods;

impl Strategy for Pods {
    fn default(&self, pod: &mut Object) {
        if let Some(spec) = pod.as_map_mut().get_mut("spec").and_then(|spec| spec.as_object_mut()) {
            defaults::pod(spec);
        }
        mirror_pod_ip(pod);
    }

    fn warnings_before_create(&self, pod: &Object) -> Vec<String> {
        pod_create::app_armor_warnings(pod)
    }

    fn prepare_for_create(&self, pod: &mut Object) {
        pod.set_generation(1);
        let qos = qos_class(pod);
        pod.set(&["status"], json!({"phase": "Pending", "qosClass": qos}));
        gates::pod_spec_at(pod, None, &["spec"]);
        if !pod.get_array(&["spec", "schedulingGates"]).is_empty() {
            let gated = json!([{
                "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }]);
            pod.set(&["status", "conditions"], gated);
        }
        pod_create::merge_label_keys(pod);
        pod_create::sync_app_armor(pod);
    }

    fn validate(&self, pod: &Object) -> ErrorList {
        validation::pod(pod)
    }

    fn validate_update(&self, pod: &Object, old: &Object) -> ErrorList {
        validation::pod_update(pod, old)
    }

    fn prepare_for_update(&self, pod: &mut Object, old: &Object) {
        keep_status(pod, old);
        gates::pod_spec_at(pod, Some(old), &["spec"]);
        bump_generation(pod, old);
    }

    fn prepare_for_status_update(&self, pod: &mut Object, old: &Object) {
        keep_spec(pod, old);
        // some kubelets spoil owners, which are none of their business
        match old.get(&["metadata", "ownerReferences"]) {
            Some(owners) => pod.set(&["metadata", "ownerReferences"], owners.clone()),
            None => drop(pod.remove(&["metadata", "ownerReferences"])),
        }
        if pod.get_str(&["status", "qosClass"]).is_empty() {
            let qos = old.get_str(&["status", "qosClass"]).to_owned();
            if !qos.is_empty() {
                pod.set(&["status", "qosClass"], qos);
            }
        }
        keep_observed_generations(pod, old);
        gates::pod_status(pod, Some(old));
        mirror_pod_ip(pod);
    }

    fn validate_status_update(&self, pod: &Object, old: &Object) -> ErrorList {
        validation::pod::pod_status_update(pod, old)
    }

    fn prepare_for_subresource(&self, subresource: &str, pod: &mut Object, old: &Object) {
        match subresource {
            "ephemeralcontainers" => {
                let containers = pod.get(&["spec", "ephemeralContainers"]).cloned();
                keep_all(pod, old);
                match containers {
                    Some(containers) => pod.set(&["spec", "ephemeralContainers"], containers),
                    None => drop(pod.remove(&["spec", "ephemeralContainers"])),
                }
            }
            // containers that come or go are for validation to refuse
            "resize" if same_containers(pod, old) => {
                let asked = pod.clone();
                keep_all(pod, old);
                take_resources(pod, &asked);
            }
            "resize" => {}
            _ => return,
        }
        gates::pod_spec_at(pod, Some(old), &["spec"]);
        bump_generation(pod, old);
    }

    fn validate_subresource(&self, subresource: &str, pod: &Object, old: &Object) -> ErrorList {
        match subresource {
            "ephemeralcontainers" => validation::pod::pod_ephemeral_containers_update(pod, old),
            "resize" => validation::pod::pod_resize(pod, old),
            _ => ErrorList::new(),
        }
    }

    fn warnings_on_create(&self, pod: &Object) -> Vec<String> {
        warnings::pod(pod)
    }

    fn warnings_on_update(&self, _pod: &Object, _old: &Object) -> Vec<String> {
        Vec::new()
    }

    fn warnings_on_status_update(&self, pod: &Object, _old: &Object) -> Vec<String> {
        let path = Path::new("status");
        let mut out = Vec::new();
        for key in ["podIPs", "hostIPs"] {
            for (index, ip) in pod.get_array(&["status", key]).iter().enumerate() {
                out.extend(warnings::ip(text(ip, "ip"), &path.child(key).index(index).child("ip")));
            }
        }
        out
    }

    fn grace(&self, pod: &Object, asked: Option<i64>) -> Grace {
        let period =
            asked.or_else(|| pod.get_i64(&["spec", "terminationGracePeriodSeconds"])).unwrap_or_default();
        // a pod that no kubelet looks after, or that has ended, has nobody to wait for
        let unscheduled = pod.get_str(&["spec", "nodeName"]).is_empty();
        let ended = matches!(pod.get_str(&["status", "phase"]), "Failed" | "Succeeded");
        // a negative period, which old pods may have, stands for the shortest one there is
        let period = if period < 0 { 1 } else { period };
        Grace::Seconds(if unscheduled || ended { 0 } else { period })
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        match subresource {
            "status" => &[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]],
            _ => &[&["status"]],
        }
    }

    fn only_fields(&self, subresource: &str) -> Option<&'static [&'static [&'static str]]> {
        match subresource {
            "ephemeralcontainers" => Some(&[&["spec", "ephemeralContainers"]]),
            "resize" => Some(&[
                &["spec", "resources"],
                &["spec", "containers", "*", "resources"],
                &["spec", "containers", "*", "resizePolicy"],
                &["spec", "initContainers", "*", "resources"],
                &["spec", "initContainers", "*", "resizePolicy"],
            ]),
            _ => None,
        }
    }
}

/// Takes everything from the old pod but who manages which field.
fn keep_all(pod: &mut Object, old: &Object) {
    let managed = pod.get(&["metadata", "managedFields"]).cloned();
    for key in ["metadata", "spec", "status"] {
        restore(pod, old, key);
    }
    if let Some(managed) = managed {
        pod.set(&["metadata", "managedFields"], managed);
    }
}

const CONTAINERS: [&str; 2] = ["containers", "initContainers"];

/// Whether two pods have as many containers of each kind.
fn same_containers(pod: &Object, old: &Object) -> bool {
    let counts = |pod: &Object| CONTAINERS.map(|key| pod.get_array(&["spec", key]).len());
    counts(pod) == counts(old)
}

/// Takes from a pod as a resize asks for it what a resize may change. Containers under other names are taken as they
/// are, for validation to refuse.
fn take_resources(pod: &mut Object, asked: &Object) {
    let none = Value::Null;
    let asked = asked.get(&["spec"]).unwrap_or(&none);
    let Some(spec) = defaults::child(pod.as_map_mut(), "spec") else { return };
    let take = |into: &mut Map<String, Value>, from: &Value, key: &str| match from.get(key) {
        Some(value) => drop(into.insert(key.to_owned(), value.clone())),
        None => drop(into.remove(key)),
    };
    take(spec, asked, "resources");
    for key in CONTAINERS {
        let wanted = list(asked, key);
        let names =
            |list: &[Value]| -> Vec<String> { list.iter().map(|one| text(one, "name").to_owned()).collect() };
        if names(wanted)
            != names(spec.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default())
        {
            spec.insert(key.to_owned(), wanted.into());
            continue;
        }
        for (container, from) in defaults::each(spec, key).zip(wanted) {
            take(container, from, "resources");
            take(container, from, "resizePolicy");
        }
    }
}

/// Clients that know nothing of observed generations do not clear them.
fn keep_observed_generations(pod: &mut Object, old: &Object) {
    const KEY: &str = "observedGeneration";
    let none = Value::Null;
    let before = old.get(&["status"]).unwrap_or(&none);
    let Some(status) = defaults::child(pod.as_map_mut(), "status") else { return };
    let keep = |of: &mut Map<String, Value>, before: i64| {
        let unset = of.get(KEY).and_then(Value::as_i64).unwrap_or_default() == 0;
        if unset && before != 0 {
            of.insert(KEY.into(), json!(before));
        }
    };
    keep(status, number(before, KEY));
    for condition in defaults::each(status, "conditions") {
        let kind = condition.get("type").and_then(Value::as_str).unwrap_or_default();
        let same = list(before, "conditions").iter().find(|one| text(one, "type") == kind);
        keep(condition, same.map_or(0, |one| number(one, KEY)));
    }
}

/// `podIP` is the first of `podIPs`, and each fills in the other.
fn mirror_pod_ip(pod: &mut Object) {
    let ip = pod.get_str(&["status", "podIP"]).to_owned();
    let first = pod
        .get_array(&["status", "podIPs"])
        .first()
        .and_then(|entry| entry.get("ip")?.as_str())
        .map(str::to_owned);
    match (ip.is_empty(), first) {
        (false, None) => pod.set(&["status", "podIPs"], json!([{"ip": ip}])),
        (true, Some(first)) => pod.set(&["status", "podIP"], first),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resize_changes_resources_and_hides_no_other_container() {
        let pod = |containers: Value| {
            Object::from(json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers}}))
        };
        let old = pod(json!([{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]));
        let resized = |asked: Value| {
            let mut asked = pod(asked);
            asked.set(&["metadata", "labels"], json!({}));
            Pods.prepare_for_subresource("resize", &mut asked, &old);
            (
                asked.get_array(&["spec", "containers"]).to_vec(),
                asked.labels().is_some_and(|labels| labels.is_empty()),
            )
        };
        let cpu = json!({"requests": {"cpu": "1"}});
        let (containers, labels_moved) =
            resized(json!([{"name": "a", "image": "other", "resources": cpu}, {"name": "b", "image": "i"}]));
        assert_eq!(containers[0], json!({"name": "a", "image": "i", "resources": cpu}));
        assert!(!labels_moved);
        let swapped = json!([{"name": "b", "image": "x"}, {"name": "a", "image": "i"}]);
        assert_eq!(resized(swapped.clone()), (swapped.as_array().cloned().unwrap_or_default(), false));
        let fewer = json!([{"name": "a", "image": "x"}]);
        assert_eq!(resized(fewer.clone()), (fewer.as_array().cloned().unwrap_or_default(), true));
    }
}
