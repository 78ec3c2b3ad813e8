//! The quality-of-service class of a pod.

use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};

use crate::resource::{CPU, MEMORY, ResourceList};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosClass {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// The class that the status already holds, or the one that follows from the spec.
pub fn pod_qos(pod: &Pod) -> QosClass {
    match pod.status.as_ref().and_then(|s| s.qos_class.as_deref()) {
        Some("Guaranteed") => QosClass::Guaranteed,
        Some("Burstable") => QosClass::Burstable,
        Some("BestEffort") => QosClass::BestEffort,
        _ => compute_pod_qos(pod),
    }
}

/// The class that follows from requests and limits of cpu and memory: `Guaranteed` when every container limits
/// both and asks for exactly that, `BestEffort` when no container says anything, else `Burstable`. Pod-level
/// resources, where set, decide alone.
pub fn compute_pod_qos(pod: &Pod) -> QosClass {
    let Some(spec) = &pod.spec else { return QosClass::BestEffort };
    let pod_level = spec.resources.as_ref().filter(|r| !compute(&[Some(r)]).is_best_effort());
    if pod_level.is_some() {
        return compute(&[pod_level]).class();
    }
    let all: Vec<Option<&ResourceRequirements>> = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .map(|container| container.resources.as_ref())
        .collect();
    compute(&all).class()
}

struct Totals {
    requests: ResourceList,
    limits: ResourceList,
    every_container_limits_both: bool,
}

impl Totals {
    fn is_best_effort(&self) -> bool {
        self.requests.is_empty() && self.limits.is_empty()
    }

    fn class(&self) -> QosClass {
        if self.is_best_effort() {
            return QosClass::BestEffort;
        }
        let requests_are_limits =
            self.requests.iter().all(|(name, amount)| self.limits.get(name) == Some(amount));
        let as_many = self.requests.iter().count() == self.limits.iter().count();
        if self.every_container_limits_both && requests_are_limits && as_many {
            QosClass::Guaranteed
        } else {
            QosClass::Burstable
        }
    }
}

fn compute(all: &[Option<&ResourceRequirements>]) -> Totals {
    let mut totals = Totals {
        requests: ResourceList::default(),
        limits: ResourceList::default(),
        every_container_limits_both: true,
    };
    // Only what is more than zero counts: a request of 0 says nothing.
    let relevant = |quantities| -> ResourceList {
        let list = ResourceList::from_quantities(quantities);
        list.iter().filter(|(name, amount)| matches!(*name, CPU | MEMORY) && !amount.is_zero()).collect()
    };
    for resources in all {
        totals.requests.add(&relevant(resources.and_then(|r| r.requests.as_ref())));
        let limits = relevant(resources.and_then(|r| r.limits.as_ref()));
        totals.every_container_limits_both &= limits.get(CPU).is_some() && limits.get(MEMORY).is_some();
        totals.limits.add(&limits);
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn classes_follow_requests_and_limits() {
        let full = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1000m", "memory": "1024Mi"}});
        let cases: Vec<(Value, QosClass)> = vec![
            (json!({"containers": [{"name": "a"}]}), QosClass::BestEffort),
            (
                json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "0"}}}]}),
                QosClass::BestEffort,
            ),
            (
                json!({"containers": [{"name": "a", "resources": {"requests": {"example.com/gpu": "1"}}}]}),
                QosClass::BestEffort,
            ),
            (json!({"containers": [{"name": "a", "resources": full}]}), QosClass::Guaranteed),
            (json!({"containers": [{"name": "a", "resources": full}, {"name": "b"}]}), QosClass::Burstable),
            (
                json!({"containers": [{"name": "a", "resources": full}], "initContainers": [{"name": "i"}]}),
                QosClass::Burstable,
            ),
            (
                json!({"containers": [{"name": "a", "resources": {"limits": {"cpu": "1"}}}]}),
                QosClass::Burstable,
            ),
            (
                json!({"containers": [{"name": "a", "resources": {
                    "requests": {"cpu": "1"}, "limits": {"cpu": "1", "memory": "1"}}}]}),
                QosClass::Burstable,
            ),
            (json!({"resources": full, "containers": [{"name": "a"}]}), QosClass::Guaranteed),
            (
                json!({"resources": {"requests": {"cpu": "1"}}, "containers": [{"name": "a", "resources": full}]}),
                QosClass::Burstable,
            ),
        ];
        for (spec, want) in cases {
            let pod: Pod = serde_json::from_value(json!({"spec": spec})).expect("a pod");
            assert_eq!(compute_pod_qos(&pod), want, "{spec}");
        }
    }

    #[test]
    fn the_status_has_the_last_word() {
        let pod: Pod = serde_json::from_value(json!({
            "spec": {"containers": [{"name": "a"}]}, "status": {"qosClass": "Guaranteed"},
        }))
        .expect("a pod");
        assert_eq!(pod_qos(&pod), QosClass::Guaranteed);
    }
}
