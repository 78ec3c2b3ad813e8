//! Pod disruption budgets.

use apimachinery::Object;
use apimachinery::field::ErrorList;

use super::at::At;
use super::value::go_struct;

const POLICIES: [&str; 2] = ["AlwaysAllow", "IfHealthyBudget"];

pub fn pod_disruption_budget(budget: &Object) -> ErrorList {
    let spec = At::of(budget, &["spec"]);
    let both = ["minAvailable", "maxUnavailable"].map(|key| spec.child(key));
    let mut errors = ErrorList::new();
    if both.iter().all(At::is_set) {
        let of = |key: &str| spec.child(key).value.clone();
        let shown = go_struct(&[
            ("MinAvailable", of("minAvailable")),
            ("Selector", of("selector")),
            ("MaxUnavailable", of("maxUnavailable")),
            ("UnhealthyPodEvictionPolicy", of("unhealthyPodEvictionPolicy")),
        ]);
        errors.push(spec.invalid("minAvailable and maxUnavailable cannot be both set").showing(shown));
    }
    for amount in both.iter().filter(|amount| amount.is_set()) {
        errors.extend(amount.int_or_percent());
        errors.extend(amount.not_more_than_100_percent());
    }
    if let Some(selector) = spec.field("selector") {
        errors.extend(selector.label_selector());
    }
    errors.extend(spec.child("unhealthyPodEvictionPolicy").supported(&POLICIES));
    errors
}

pub fn pod_disruption_budget_status_update(budget: &Object) -> ErrorList {
    let status = At::of(budget, &["status"]);
    let mut errors = status.child("conditions").conditions();
    for key in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        errors.extend(status.child(key).non_negative());
    }
    errors
}
