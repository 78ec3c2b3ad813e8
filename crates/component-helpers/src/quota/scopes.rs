//! Scopes: which objects a quota is about, beyond their kind.

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, PodAffinityTerm, ResourceQuota, ScopedResourceSelectorRequirement,
};

use crate::qos::{QosClass, pod_qos};

/// What scopes ask of an object. Objects without scopes match no quota that has any.
#[derive(Clone, Debug, Default)]
pub struct Scopes {
    /// Scopes that hold or not, by name.
    plain: Vec<(&'static str, bool)>,
    /// Scopes with values of the object, by name; an operator selects among them.
    valued: Option<(&'static str, Vec<String>)>,
}

impl Scopes {
    pub fn of_pod(pod: &Pod) -> Self {
        let spec = pod.spec.as_ref();
        let terminating =
            spec.and_then(|spec| spec.active_deadline_seconds).is_some_and(|seconds| seconds >= 0);
        let best_effort = pod_qos(pod) == QosClass::BestEffort;
        let class = spec.and_then(|spec| spec.priority_class_name.clone()).filter(|name| !name.is_empty());
        Self {
            plain: vec![
                ("Terminating", terminating),
                ("NotTerminating", !terminating),
                ("BestEffort", best_effort),
                ("NotBestEffort", !best_effort),
                ("CrossNamespacePodAffinity", crosses_namespaces(pod)),
            ],
            valued: Some(("PriorityClass", class.into_iter().collect())),
        }
    }

    /// All classes of attributes that a claim has, had or is to have.
    pub fn of_claim(claim: &PersistentVolumeClaim) -> Self {
        let status = claim.status.as_ref();
        let names = [
            claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.clone()),
            status.and_then(|status| status.current_volume_attributes_class_name.clone()),
            status.and_then(|status| {
                status.modify_volume_status.as_ref()?.target_volume_attributes_class_name.clone()
            }),
        ];
        let mut names: Vec<String> = names.into_iter().flatten().filter(|name| !name.is_empty()).collect();
        names.sort();
        names.dedup();
        Self { plain: Vec::new(), valued: Some(("VolumeAttributesClass", names)) }
    }

    pub fn lies_in(&self, one: &ScopedResourceSelectorRequirement) -> bool {
        self.matches(&one.scope_name, &one.operator, one.values.as_deref().unwrap_or_default())
    }

    fn matches(&self, scope: &str, operator: &str, values: &[String]) -> bool {
        if let Some((_, holds)) = self.plain.iter().find(|(name, _)| *name == scope) {
            return *holds;
        }
        let Some((_, own)) = self.valued.as_ref().filter(|(name, _)| *name == scope) else { return false };
        match operator {
            "Exists" => !own.is_empty(),
            "DoesNotExist" => own.is_empty(),
            "In" => own.iter().any(|name| values.contains(name)),
            // an object without any class is not in the list either
            "NotIn" => own.is_empty() || own.iter().any(|name| !values.contains(name)),
            _ => false,
        }
    }
}

/// What a quota asks of the objects that it is about.
pub fn scope_requirements(quota: &ResourceQuota) -> Vec<ScopedResourceSelectorRequirement> {
    let Some(spec) = &quota.spec else { return Vec::new() };
    let plain = spec.scopes.iter().flatten().map(|scope| ScopedResourceSelectorRequirement {
        scope_name: scope.clone(),
        operator: "Exists".into(),
        values: None,
    });
    let selector =
        spec.scope_selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten());
    plain.chain(selector.cloned()).collect()
}

/// Whether an object lies in all scopes of a quota.
pub fn matches_scopes(quota: &ResourceQuota, scopes: &Scopes) -> bool {
    scope_requirements(quota).iter().all(|one| scopes.lies_in(one))
}

fn crosses_namespaces(pod: &Pod) -> bool {
    let Some(affinity) = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()) else { return false };
    let crosses = |term: &PodAffinityTerm| {
        term.namespaces.as_ref().is_some_and(|names| !names.is_empty()) || term.namespace_selector.is_some()
    };
    let (with, against) = (affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
    let required = [
        with.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
        against.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
    ];
    let preferred = [
        with.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
        against.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
    ];
    required.into_iter().flatten().flatten().any(crosses)
        || preferred.into_iter().flatten().flatten().any(|term| crosses(&term.pod_affinity_term))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn quota(spec: Value) -> ResourceQuota {
        serde_json::from_value(json!({"spec": spec})).expect("a quota")
    }

    fn expressions(scope: &str, operator: &str, values: &[&str]) -> Value {
        json!({"scopeSelector": {"matchExpressions": [
            {"scopeName": scope, "operator": operator, "values": values}]}})
    }

    #[test]
    fn pods_lie_in_scopes() {
        let plain = json!({"containers": [{"name": "a"}]});
        let asking = json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]});
        let ending = json!({"containers": [], "activeDeadlineSeconds": 0});
        let high = json!({"containers": [], "priorityClassName": "high"});
        let term = json!({"topologyKey": "zone", "namespaceSelector": {}});
        let afar = json!({"containers": [], "affinity": {"podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": term}]}}});
        let cases = [
            (&plain, json!({}), true),
            (&plain, json!({"scopes": ["BestEffort"]}), true),
            (&plain, json!({"scopes": ["NotBestEffort"]}), false),
            (&plain, json!({"scopes": ["BestEffort", "NotTerminating"]}), true),
            (&plain, json!({"scopes": ["BestEffort", "Terminating"]}), false),
            (&asking, json!({"scopes": ["NotBestEffort"]}), true),
            (&ending, json!({"scopes": ["Terminating"]}), true),
            (&ending, json!({"scopes": ["NotTerminating"]}), false),
            (&plain, json!({"scopes": ["PriorityClass"]}), false),
            (&high, json!({"scopes": ["PriorityClass"]}), true),
            (&high, expressions("PriorityClass", "In", &["high"]), true),
            (&high, expressions("PriorityClass", "In", &["low"]), false),
            (&high, expressions("PriorityClass", "NotIn", &["high"]), false),
            (&plain, expressions("PriorityClass", "NotIn", &["high"]), true),
            (&plain, expressions("PriorityClass", "DoesNotExist", &[]), true),
            (&afar, json!({"scopes": ["CrossNamespacePodAffinity"]}), true),
            (&plain, json!({"scopes": ["CrossNamespacePodAffinity"]}), false),
            (&plain, json!({"scopes": ["VolumeAttributesClass"]}), false),
        ];
        for (spec, scopes, wanted) in cases {
            let pod: Pod = serde_json::from_value(json!({"spec": spec})).expect("a pod");
            assert_eq!(
                matches_scopes(&quota(scopes.clone()), &Scopes::of_pod(&pod)),
                wanted,
                "{spec} {scopes}"
            );
        }
    }

    #[test]
    fn claims_lie_in_scopes_of_their_classes() {
        let gold = json!({"spec": {"volumeAttributesClassName": "gold"}});
        let moving = json!({"spec": {"volumeAttributesClassName": "gold"},
            "status": {"currentVolumeAttributesClassName": "silver"}});
        let none = json!({"spec": {}});
        let cases = [
            (&gold, expressions("VolumeAttributesClass", "In", &["gold"]), true),
            (&moving, expressions("VolumeAttributesClass", "In", &["silver"]), true),
            (&none, expressions("VolumeAttributesClass", "In", &["gold"]), false),
            (&none, expressions("VolumeAttributesClass", "NotIn", &["gold"]), true),
            (&none, json!({"scopes": ["VolumeAttributesClass"]}), false),
            (&gold, json!({"scopes": ["BestEffort"]}), false),
        ];
        for (claim, scopes, wanted) in cases {
            let claim = serde_json::from_value(claim.clone()).expect("a claim");
            assert_eq!(matches_scopes(&quota(scopes.clone()), &Scopes::of_claim(&claim)), wanted, "{scopes}");
        }
        assert!(!matches_scopes(&quota(json!({"scopes": ["BestEffort"]})), &Scopes::default()));
        assert!(matches_scopes(&quota(json!({})), &Scopes::default()));
    }
}
