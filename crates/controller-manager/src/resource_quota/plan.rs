//! What a quota's status should say, from what its namespace holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use component_helpers::quota::{self, Counted, Scopes};
use component_helpers::resource::ResourceList;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaStatus, Service};
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::jiff::Timestamp;

pub const PODS: Counted<'_> = Counted { group: "", plural: "pods" };
pub const SERVICES: Counted<'_> = Counted { group: "", plural: "services" };
pub const CLAIMS: Counted<'_> = Counted { group: "", plural: "persistentvolumeclaims" };
pub const RESOURCE_CLAIMS: Counted<'_> = Counted { group: "resource.k8s.io", plural: "resourceclaims" };
/// Those whose objects are looked at.
const MEASURED: [Counted<'_>; 4] = [PODS, SERVICES, CLAIMS, RESOURCE_CLAIMS];
const LEGACY: [&str; 4] = ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];

/// Group and plural of a resource whose objects are only counted.
pub type Countable = (String, String);

/// What a namespace holds, as far as quotas ask.
#[derive(Default)]
pub struct Held {
    pub pods: Vec<Arc<Pod>>,
    pub services: Vec<Arc<Service>>,
    pub claims: Vec<Arc<PersistentVolumeClaim>>,
    pub resource_claims: Vec<Arc<ResourceClaim>>,
    /// How many objects there are of resources that are only counted; absent where nobody serves the resource.
    pub counts: BTreeMap<Countable, i64>,
}

/// The resources that a quota wants counted, beyond those whose objects are looked at.
pub fn countables(quota: &ResourceQuota) -> Vec<Countable> {
    let hard = quota.spec.iter().flat_map(|spec| spec.hard.iter().flatten());
    let mut out: Vec<Countable> = hard
        .filter_map(|(name, _)| {
            let legacy = LEGACY.into_iter().find(|legacy| legacy == name);
            let counted = quota::counted_by(name)
                .or_else(|| legacy.map(|plural| Counted { group: "", plural }))
                .filter(|counted| !MEASURED.contains(counted) && !counted.is_ignored())?;
            Some((counted.group.to_owned(), counted.plural.to_owned()))
        })
        .collect();
    out.sort();
    out.dedup();
    out
}

/// The status that a quota should have; `None` when it has it.
pub fn plan(quota: &ResourceQuota, held: &Held, now: Timestamp) -> Option<ResourceQuotaStatus> {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
    let mut sums = ResourceList::default();
    for (counted, usage) in usages(quota, held, now) {
        for name in hard.keys().filter(|name| counted.answers_to(name)) {
            let sum = sums.get(name).unwrap_or_default();
            sums.set(name, sum + usage.get(name).unwrap_or_default());
        }
    }
    // what nobody can count keeps the number it has
    let mut used: BTreeMap<String, Quantity> = BTreeMap::new();
    let before = quota::status_used(quota);
    for name in hard.keys() {
        if let Some(amount) = sums.get(name).or_else(|| before.get(name)) {
            used.insert(name.clone(), Quantity(amount.to_string()));
        }
    }
    let same = quota::status_hard(quota) == ResourceList::from_quantities(Some(&hard))
        && before == ResourceList::from_quantities(Some(&used))
        && quota.status.as_ref().is_some_and(|status| status.used.is_some() || used.is_empty());
    (!same).then_some(ResourceQuotaStatus { hard: Some(hard), used: Some(used) })
}

/// The usage of every object that the quota is about. Each resource comes once with nothing at least, so that its
/// names start at zero.
fn usages<'a>(quota: &ResourceQuota, held: &'a Held, now: Timestamp) -> Vec<(Counted<'a>, ResourceList)> {
    let mut out: Vec<(Counted<'a>, ResourceList)> =
        MEASURED.map(|counted| (counted, ResourceList::default())).into();
    for pod in &held.pods {
        if quota::matches_scopes(quota, &Scopes::of_pod(pod)) {
            out.push((PODS, quota::pod_usage(pod, now)));
        }
    }
    for claim in &held.claims {
        if quota::matches_scopes(quota, &Scopes::of_claim(claim)) {
            out.push((CLAIMS, quota::claim_usage(claim)));
        }
    }
    let without_scopes = quota::matches_scopes(quota, &Scopes::default());
    for service in held.services.iter().filter(|_| without_scopes) {
        out.push((SERVICES, quota::service_usage(service)));
    }
    for claim in held.resource_claims.iter().filter(|_| without_scopes) {
        out.push((RESOURCE_CLAIMS, quota::resource_claim_usage(claim)));
    }
    for ((group, plural), count) in &held.counts {
        let counted = Counted { group, plural };
        let mut usage = ResourceList::default();
        if without_scopes {
            let count = component_helpers::amount::Amount::from_units(*count);
            quota::object_usage(counted).names().for_each(|name| usage.set(name, count));
        }
        out.push((counted, usage));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn quota(spec: Value, status: Value) -> ResourceQuota {
        serde_json::from_value(json!({"spec": spec, "status": status})).expect("a quota")
    }

    fn held() -> Held {
        let pod = |phase: &str, resources: Value| {
            let pod = json!({"spec": {"containers": [{"name": "a", "resources": resources}]},
                "status": {"phase": phase}});
            Arc::new(serde_json::from_value(pod).expect("a pod"))
        };
        let service = json!({"spec": {"type": "NodePort", "ports": [{"port": 1}, {"port": 2}]}});
        let claim = json!({"spec": {"resources": {"requests": {"storage": "1Gi"}}}});
        let devices = json!({"spec": {"devices": {"requests": [
            {"name": "r", "exactly": {"deviceClassName": "gpu", "count": 2}}]}}});
        let counts = [("", "configmaps", 3), ("apps", "deployments", 2)];
        Held {
            pods: vec![
                pod("Running", json!({"requests": {"cpu": "300m", "memory": "1Gi"}})),
                pod("Pending", json!({"requests": {"cpu": "700m", "memory": "512Mi"}})),
                pod("Succeeded", json!({"requests": {"cpu": "5"}})),
                pod("Running", json!({})),
            ],
            services: vec![Arc::new(serde_json::from_value(service).expect("a service"))],
            claims: vec![Arc::new(serde_json::from_value(claim).expect("a claim"))],
            resource_claims: vec![Arc::new(serde_json::from_value(devices).expect("a claim"))],
            counts: counts.map(|(g, p, count)| ((g.to_owned(), p.to_owned()), count)).into(),
        }
    }

    #[test]
    fn statuses_follow_what_is_held() {
        let cases = [
            (json!({"hard": {"pods": "5", "count/pods": "9"}}), json!({"pods": "3", "count/pods": "4"})),
            (
                json!({"hard": {"requests.cpu": "2", "memory": "2Gi", "limits.cpu": "1"}}),
                json!({"requests.cpu": "1", "memory": "1536Mi", "limits.cpu": "0"}),
            ),
            (json!({"hard": {"pods": "5"}, "scopes": ["BestEffort"]}), json!({"pods": "1"})),
            (json!({"hard": {"configmaps": "5"}, "scopes": ["BestEffort"]}), json!({"configmaps": "0"})),
            (
                json!({"hard": {"configmaps": "5", "count/deployments.apps": "5", "services.nodeports": "3"}}),
                json!({"configmaps": "3", "count/deployments.apps": "2", "services.nodeports": "2"}),
            ),
            (json!({"hard": {"requests.storage": "5Gi"}}), json!({"requests.storage": "1Gi"})),
            (
                json!({"hard": {"gpu.deviceclass.resource.k8s.io/devices": "5",
                    "count/resourceclaims.resource.k8s.io": "5"}}),
                json!({"gpu.deviceclass.resource.k8s.io/devices": "2",
                    "count/resourceclaims.resource.k8s.io": "1"}),
            ),
            (json!({"hard": {"count/things.example.com": "5"}}), json!({})),
        ];
        for (spec, used) in cases {
            let status = plan(&quota(spec.clone(), json!({})), &held(), Timestamp::now()).expect("a change");
            assert_eq!(serde_json::to_value(&status.used).expect("json"), used, "{spec}");
            assert_eq!(serde_json::to_value(&status.hard).expect("json"), spec["hard"]);
            let settled = quota(spec.clone(), serde_json::to_value(&status).expect("json"));
            assert_eq!(plan(&settled, &held(), Timestamp::now()), None, "{spec}");
        }
    }

    #[test]
    fn names_that_are_taken_away_go() {
        let spec = json!({"hard": {"pods": "5"}});
        let status = json!({"hard": {"pods": "5", "services": "1"}, "used": {"pods": "3", "services": "1"}});
        let status = plan(&quota(spec, status), &held(), Timestamp::now()).expect("a change");
        assert_eq!(serde_json::to_value(&status.used).expect("json"), json!({"pods": "3"}));
    }

    #[test]
    fn quotas_say_what_is_counted() {
        let spec = json!({"hard": {"pods": "1", "count/pods": "1", "secrets": "1", "count/secrets": "1",
            "count/deployments.apps": "1", "count/events": "1"}});
        let wanted = [("", "secrets"), ("apps", "deployments")];
        assert_eq!(countables(&quota(spec, json!({}))), wanted.map(|(g, p)| (g.to_owned(), p.to_owned())));
    }
}
