//! Pods: what a client may set, what changes, how long one takes to go.

use apimachinery::Object;
use apimachinery::field::ErrorList;
use serde_json::json;

use crate::catalogue::Selectable;
use crate::core::defaults;
use crate::strategy::{Grace, Strategy, keep_status};
use crate::validation;

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

    fn prepare_for_create(&self, pod: &mut Object) {
        pod.set_generation(1);
        let qos = qos_class(pod);
        pod.set(&["status"], json!({"phase": "Pending", "qosClass": qos}));
        if !pod.get_array(&["spec", "schedulingGates"]).is_empty() {
            let gated = json!([{
                "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }]);
            pod.set(&["status", "conditions"], gated);
        }
    }

    fn validate(&self, pod: &Object) -> ErrorList {
        validation::pod(pod)
    }

    fn validate_update(&self, pod: &Object, old: &Object) -> ErrorList {
        validation::pod_update(pod, old)
    }

    fn prepare_for_update(&self, pod: &mut Object, old: &Object) {
        keep_status(pod, old);
        crate::strategy::bump_generation(pod, old);
    }

    fn prepare_for_status_update(&self, pod: &mut Object, old: &Object) {
        crate::strategy::keep_all_but_status(pod, old);
        // labels and annotations follow an update through status; owners and deletion do not
        if pod.get_str(&["status", "qosClass"]).is_empty() {
            let qos = old.get_str(&["status", "qosClass"]).to_owned();
            if !qos.is_empty() {
                pod.set(&["status", "qosClass"], qos);
            }
        }
        mirror_pod_ip(pod);
    }

    fn grace(&self, pod: &Object, asked: Option<i64>) -> Grace {
        let period =
            asked.or_else(|| pod.get_i64(&["spec", "terminationGracePeriodSeconds"])).unwrap_or_default();
        // a pod that no kubelet looks after, or that has ended, has nobody to wait for
        let unscheduled = pod.get_str(&["spec", "nodeName"]).is_empty();
        let ended = matches!(pod.get_str(&["status", "phase"]), "Failed" | "Succeeded");
        Grace::Seconds(if unscheduled || ended { 0 } else { period.max(0) })
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        match subresource {
            "status" => &[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]],
            _ => &[&["status"]],
        }
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

/// `Guaranteed`, `Burstable` or `BestEffort`, from the cpu and memory of a pod and of its containers.
pub fn qos_class(pod: &Object) -> &'static str {
    let zero = |value: &serde_json::Value| {
        value.as_str().is_some_and(|text| text.trim_start_matches(['0', '.']).is_empty())
            || value.as_i64() == Some(0)
    };
    let mut any = false;
    let mut guaranteed = true;
    let pod_level = pod.get(&["spec", "resources"]);
    let of_containers = || {
        ["initContainers", "containers"]
            .into_iter()
            .flat_map(|key| pod.get_array(&["spec", key]))
            .map(|container| container.get("resources"))
    };
    let all: Vec<Option<&serde_json::Value>> = match pod_level {
        Some(_) => vec![pod_level],
        None => of_containers().collect(),
    };
    for resources in all {
        let amount = |part: &str, name: &str| {
            resources.and_then(|r| r.get(part)?.get(name)).filter(|value| !zero(value))
        };
        for name in ["cpu", "memory"] {
            let (request, limit) = (amount("requests", name), amount("limits", name));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
