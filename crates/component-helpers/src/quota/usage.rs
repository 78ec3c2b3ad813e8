//! Usage of one object, by the names that quotas use.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{Counted, DEVICES_OF_CLASS, STORAGE_CLASS};
use crate::amount::Amount;
use crate::pod::all_containers;
use crate::resource::{self, Options, ResourceList, container_limits, container_requests};

/// What must be set on every container once a quota limits it. No other resource is like that.
const MUST_BE_SET: [&str; 6] =
    ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

fn one() -> Amount {
    Amount::from_units(1)
}

pub(super) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Objects that are only counted.
pub fn object_usage(counted: Counted<'_>) -> ResourceList {
    let mut usage = ResourceList::default();
    usage.set(&counted.count_name(), one());
    if let Some(name) = counted.legacy_name() {
        usage.set(name, one());
    }
    usage
}

/// Whether a pod takes room: not one that has ended, nor one whose time to end is over (its node may be lost).
fn is_charged(pod: &Pod, now: Timestamp) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Failed" | "Succeeded")) {
        return false;
    }
    match (&pod.metadata.deletion_timestamp, pod.metadata.deletion_grace_period_seconds) {
        (Some(at), Some(grace)) => {
            at.0.checked_add(SignedDuration::from_secs(grace)).map_or(true, |end| now <= end)
        }
        _ => true,
    }
}

pub fn pod_usage(pod: &Pod, now: Timestamp) -> ResourceList {
    let mut usage = object_usage(Counted { group: "", plural: "pods" });
    if is_charged(pod, now) {
        let options = Options { use_status: true, ..Options::default() };
        usage.add(&compute(&resource::pod_requests(pod, &options), &resource::pod_limits(pod, &options)));
    }
    usage
}

fn compute(requests: &ResourceList, limits: &ResourceList) -> ResourceList {
    let mut usage = ResourceList::default();
    usage.set("pods", one());
    for (name, amount) in requests.iter() {
        let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage");
        let pages = name.starts_with(resource::HUGEPAGES_PREFIX);
        if standard || pages {
            usage.set(name, amount);
        }
        if standard || pages || !is_native(name) {
            usage.set(&format!("requests.{name}"), amount);
        }
    }
    for (name, amount) in limits.iter() {
        if matches!(name, "cpu" | "memory" | "ephemeral-storage") {
            usage.set(&format!("limits.{name}"), amount);
        }
    }
    usage
}

/// What containers of a pod do not say though quotas on `required` want them to, as upstream's message; pods with
/// resources of their own need not.
pub fn unmet_constraints(pod: &Pod, required: &[&str]) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let own = |list: Option<&std::collections::BTreeMap<String, _>>| {
        list.is_some_and(|list| list.keys().any(|name| resource::is_supported_pod_level_resource(name)))
    };
    if spec.resources.as_ref().is_some_and(|all| own(all.requests.as_ref()) || own(all.limits.as_ref())) {
        return None;
    }
    let parts: Vec<String> = MUST_BE_SET
        .into_iter()
        .filter(|name| required.contains(name))
        .filter_map(|name| {
            let mut missing: Vec<&str> = all_containers(spec)
                .filter(|container| !says(container, name))
                .map(|container| container.name.as_str())
                .collect();
            missing.sort_unstable();
            missing.dedup();
            (!missing.is_empty()).then(|| format!("{name} for: {}", missing.join(",")))
        })
        .collect();
    (!parts.is_empty()).then(|| format!("must specify {}", parts.join("; ")))
}

fn says(container: &Container, name: &str) -> bool {
    compute(&container_requests(container), &container_limits(container)).get(name).is_some()
}

pub fn service_usage(service: &Service) -> ResourceList {
    let mut usage = object_usage(Counted { group: "", plural: "services" });
    let spec = service.spec.as_ref();
    let ports = || spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let amount = |count: usize| Amount::from_units(i64::try_from(count).unwrap_or(i64::MAX));
    let (node_ports, balancers) = match spec.and_then(|spec| spec.type_.as_deref()) {
        Some("NodePort") => (ports().count(), 0),
        // ports are charged before they are given, so the intent counts
        Some("LoadBalancer") => match spec.and_then(|spec| spec.allocate_load_balancer_node_ports) {
            Some(false) => (ports().filter(|port| port.node_port.unwrap_or_default() != 0).count(), 1),
            _ => (ports().count(), 1),
        },
        _ => (0, 0),
    };
    usage.set("services", one());
    usage.set("services.nodeports", amount(node_ports));
    usage.set("services.loadbalancers", amount(balancers));
    usage
}

pub fn claim_usage(claim: &PersistentVolumeClaim) -> ResourceList {
    let mut usage = object_usage(Counted { group: "", plural: "persistentvolumeclaims" });
    usage.set("persistentvolumeclaims", one());
    let spec = claim.spec.as_ref();
    let annotation = claim.metadata.annotations.as_ref();
    let class = annotation
        .and_then(|all| all.get("volume.beta.kubernetes.io/storage-class"))
        .or_else(|| spec?.storage_class_name.as_ref())
        .filter(|class| !class.is_empty());
    if let Some(class) = class {
        usage.set(&format!("{class}{STORAGE_CLASS}persistentvolumeclaims"), one());
    }
    let requests = spec.and_then(|spec| spec.resources.as_ref()).and_then(|all| all.requests.as_ref());
    let Some(asked) = ResourceList::from_quantities(requests).get("storage") else { return usage };
    let allocated = claim.status.as_ref().and_then(|status| status.allocated_resources.as_ref());
    // while a volume grows, the larger of wish and grant is taken
    let taken = ResourceList::from_quantities(allocated).get("storage").map_or(asked, |got| got.max(asked));
    // whole bytes, as quotas are validated
    let taken =
        if taken == Amount::from_units(taken.value()) { taken } else { Amount::from_units(taken.value()) };
    usage.set("requests.storage", taken);
    if let Some(class) = class {
        usage.set(&format!("{class}{STORAGE_CLASS}requests.storage"), taken);
    }
    usage
}

/// How many devices a claim may come to, by class: of alternatives, the most that each class may have to give.
pub fn resource_claim_usage(claim: &ResourceClaim) -> ResourceList {
    /// What an allocation may hold at most.
    const ALL: i64 = 32;
    let devices = |mode: Option<&str>, count: Option<i64>| match mode {
        Some("All") => ALL,
        _ => count.unwrap_or(1),
    };
    let mut usage = object_usage(Counted { group: "resource.k8s.io", plural: "resourceclaims" });
    let requests = claim.spec.devices.as_ref().and_then(|devices| devices.requests.as_ref());
    for request in requests.into_iter().flatten() {
        let exactly = request
            .exactly
            .iter()
            .map(|one| (one.device_class_name.as_str(), devices(one.allocation_mode.as_deref(), one.count)));
        let alternatives =
            request.first_available.iter().flatten().map(|one| {
                (one.device_class_name.as_str(), devices(one.allocation_mode.as_deref(), one.count))
            });
        let mut most: BTreeMap<&str, i64> = BTreeMap::new();
        for (class, count) in exactly.chain(alternatives) {
            let most = most.entry(class).or_default();
            *most = count.max(*most);
        }
        for (class, count) in most {
            let name = format!("{class}{DEVICES_OF_CLASS}");
            let before = usage.get(&name).unwrap_or_default();
            usage.set(&name, before + Amount::from_units(count));
        }
    }
    usage
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn shown(usage: &ResourceList) -> String {
        usage.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
    }

    fn pod(value: Value) -> Pod {
        serde_json::from_value(value).expect("a pod")
    }

    #[test]
    fn pods_use_what_they_ask_for_until_they_end() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().expect("a time");
        let spec = json!({"containers": [{"name": "a", "resources": {
            "requests": {"cpu": "100m", "memory": "1Gi", "example.com/gpu": "1", "hugepages-2Mi": "4Mi"},
            "limits": {"cpu": "1", "example.com/gpu": "1"}}}]});
        let full = "count/pods=1,cpu=100m,hugepages-2Mi=4Mi,limits.cpu=1,memory=1Gi,pods=1,requests.cpu=100m,\
                    requests.example.com/gpu=1,requests.hugepages-2Mi=4Mi,requests.memory=1Gi";
        let deleted = |grace: i64| json!({"deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": grace});
        let cases = [
            (json!({"spec": spec}), full),
            (json!({"spec": spec, "status": {"phase": "Running"}}), full),
            (json!({"spec": spec, "status": {"phase": "Failed"}}), "count/pods=1"),
            (json!({"spec": spec, "status": {"phase": "Succeeded"}}), "count/pods=1"),
            (json!({"spec": spec, "metadata": deleted(30)}), full),
            (json!({"spec": spec, "metadata": deleted(29)}), "count/pods=1"),
        ];
        for (object, wanted) in cases {
            assert_eq!(shown(&pod_usage(&pod(object.clone()), now)), wanted, "{object}");
        }
    }

    #[test]
    fn limited_containers_must_say_what_they_use() {
        let plain = json!({"spec": {"initContainers": [{"name": "i"}], "containers": [
            {"name": "b"}, {"name": "a", "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1"}}}]}});
        let mut own = plain.clone();
        own["spec"]["resources"] = json!({"requests": {"cpu": "1"}});
        let cases: [(&Value, &[&str], Option<&str>); 4] = [
            (&plain, &["pods", "ephemeral-storage"], None),
            (&plain, &["requests.cpu"], Some("must specify requests.cpu for: b,i")),
            (
                &plain,
                &["limits.cpu", "cpu", "pods"],
                Some("must specify cpu for: b,i; limits.cpu for: a,b,i"),
            ),
            (&own, &["cpu"], None),
        ];
        for (object, required, wanted) in cases {
            assert_eq!(unmet_constraints(&pod(object.clone()), required).as_deref(), wanted, "{required:?}");
        }
    }

    #[test]
    fn services_use_node_ports_and_balancers() {
        let cases = [
            (json!({"type": "ClusterIP", "ports": [{"port": 1}]}), "0", "0"),
            (json!({"type": "NodePort", "ports": [{"port": 1}, {"port": 2}]}), "2", "0"),
            (json!({"type": "LoadBalancer", "ports": [{"port": 1}]}), "1", "1"),
            (
                json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
                       "ports": [{"port": 1}, {"port": 2, "nodePort": 30000}]}),
                "1",
                "1",
            ),
        ];
        for (spec, ports, balancers) in cases {
            let service: Service = serde_json::from_value(json!({"spec": spec})).expect("a service");
            let wanted = format!(
                "count/services=1,services=1,services.loadbalancers={balancers},services.nodeports={ports}"
            );
            assert_eq!(shown(&service_usage(&service)), wanted, "{spec}");
        }
    }

    #[test]
    fn resource_claims_use_devices_of_their_classes() {
        let exactly = |class: &str, more: Value| {
            let mut exactly = json!({"deviceClassName": class});
            exactly.as_object_mut().expect("a map").extend(more.as_object().cloned().unwrap_or_default());
            json!({"name": "r", "exactly": exactly})
        };
        let either = json!({"name": "r", "firstAvailable": [
            {"name": "a", "deviceClassName": "gpu", "count": 2},
            {"name": "b", "deviceClassName": "gpu", "count": 3},
            {"name": "c", "deviceClassName": "fpga"}]});
        for (requests, wanted) in [
            (vec![], ""),
            (vec![exactly("gpu", json!({}))], ",gpu.deviceclass.resource.k8s.io/devices=1"),
            (vec![exactly("gpu", json!({"count": 5}))], ",gpu.deviceclass.resource.k8s.io/devices=5"),
            (
                vec![exactly("gpu", json!({"allocationMode": "All"}))],
                ",gpu.deviceclass.resource.k8s.io/devices=32",
            ),
            (
                vec![exactly("gpu", json!({})), either],
                ",fpga.deviceclass.resource.k8s.io/devices=1,gpu.deviceclass.resource.k8s.io/devices=4",
            ),
        ] {
            let claim = json!({"spec": {"devices": {"requests": requests}}});
            let claim = serde_json::from_value(claim).expect("a claim");
            let wanted = format!("count/resourceclaims.resource.k8s.io=1{wanted}");
            assert_eq!(shown(&resource_claim_usage(&claim)), wanted);
        }
    }

    #[test]
    fn claims_use_storage_of_their_class() {
        let cases = [
            (
                json!({"spec": {"resources": {"requests": {"storage": "1Gi"}}}}),
                "count/persistentvolumeclaims=1,persistentvolumeclaims=1,requests.storage=1Gi",
            ),
            (
                json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1500m"}}}}),
                "count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
                 gold.storageclass.storage.k8s.io/requests.storage=2,persistentvolumeclaims=1,requests.storage=2",
            ),
            (
                json!({"spec": {"resources": {"requests": {"storage": "1Gi"}}},
                       "status": {"allocatedResources": {"storage": "2Gi"}}}),
                "count/persistentvolumeclaims=1,persistentvolumeclaims=1,requests.storage=2Gi",
            ),
        ];
        for (object, wanted) in cases {
            let claim = serde_json::from_value(object.clone()).expect("a claim");
            assert_eq!(shown(&claim_usage(&claim)), wanted, "{object}");
        }
        assert_eq!(
            shown(&object_usage(Counted { group: "", plural: "secrets" })),
            "count/secrets=1,secrets=1"
        );
    }
}
