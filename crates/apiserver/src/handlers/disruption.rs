//! What a disruption budget says about an eviction: pure rules, and the books that an allowed one leaves.

use apimachinery::status::Cause;
use apimachinery::{GroupResource, Object, Status, Value};
use serde_json::json;

/// More evictions than this that nobody has confirmed are a sign that the books are no longer kept.
const MAX_DISRUPTED: usize = 2000;

const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

fn condition<'a>(conditions: &'a [Value], kind: &str) -> Option<&'a Value> {
    conditions.iter().find(|condition| condition["type"] == kind)
}

pub fn is_ready(pod: &Object) -> bool {
    condition(pod.get_array(&["status", "conditions"]), "Ready")
        .is_some_and(|condition| condition["status"] == "True")
}

fn has_ended(pod: &Object) -> bool {
    matches!(pod.get_str(&["status", "phase"]), "Succeeded" | "Failed") || pod.deletion_timestamp().is_some()
}

/// Whether a pod disrupts nothing by going: it has ended, is going already, or never began.
pub fn needs_no_budget(pod: &Object) -> bool {
    has_ended(pod) || pod.get_str(&["status", "phase"]) == "Pending"
}

/// Whether a pod that needs no budget may come to need one before it is gone.
pub fn may_still_start(pod: &Object) -> bool {
    !has_ended(pod)
}

/// Whether a budget lets a pod go that is not ready, without counting it.
pub fn lets_unready_go(budget: &Object) -> bool {
    if budget.get_str(&["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow" {
        return true;
    }
    let number = |key: &str| budget.get_i64(&["status", key]).unwrap_or_default();
    let desired = number("desiredHealthy");
    desired > 0 && number("currentHealthy") >= desired
}

/// Whether a budget covers a pod. One that selects nothing in particular covers none.
pub fn covers(budget: &Object, pod: &Object) -> bool {
    let Some(labels) = pod.labels().filter(|labels| !labels.is_empty()) else { return false };
    let selector = budget.get(&["spec", "selector"]).unwrap_or(&Value::Null);
    let empty = ["matchLabels", "matchExpressions"].iter().all(|key| match selector.get(key) {
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        _ => true,
    });
    !empty
        && apimachinery::selectors::LabelSelector::from_label_selector(selector)
            .is_ok_and(|selector| selector.matches(labels))
}

fn refused(retry_after: u32, why: String) -> Status {
    let mut status = Status::too_many_requests(REFUSED, retry_after);
    let cause = Cause { reason: "DisruptionBudget".into(), message: why, field: String::new() };
    status.details.get_or_insert_default().causes.push(cause);
    status
}

/// The answer where the budget has to be looked at again.
pub fn still_processed(budget: &str) -> Status {
    refused(10, format!("The disruption budget {budget} is still being processed by the server."))
}

/// The answer where nobody can say which of several budgets would have to count.
pub fn more_than_one() -> Status {
    const WHY: &str =
        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
    Status::new(500, apimachinery::Reason::Unknown, WHY)
}

/// Takes one disruption off a budget; the error is what a client sees. A dry run leaves no note of the pod.
pub fn decrement(budget: &Object, pod: &str, now: &str, dry_run: bool) -> Result<Object, Status> {
    let name = budget.name();
    let number = |key: &str| budget.get_i64(&["status", key]).unwrap_or_default();
    let resource = GroupResource::new("policy", "poddisruptionbudget");
    if number("observedGeneration") < budget.generation() {
        return Err(still_processed(name));
    }
    let allowed = number("disruptionsAllowed");
    if allowed < 0 {
        return Err(Status::forbidden(&resource, name, "pdb disruptions allowed is negative"));
    }
    let disrupted = budget.get(&["status", "disruptedPods"]).and_then(Value::as_object);
    if disrupted.is_some_and(|pods| pods.len() > MAX_DISRUPTED) {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden(&resource, name, why));
    }
    if allowed == 0 {
        return Err(refused(0, exhausted(budget)));
    }
    let mut new = budget.clone();
    new.set(&["status", "disruptionsAllowed"], allowed - 1);
    if allowed == 1 {
        no_more(&mut new, now);
    }
    if !dry_run {
        new.set(&["status", "disruptedPods", pod], now);
    }
    Ok(new)
}

fn exhausted(budget: &Object) -> String {
    let name = budget.name();
    let number = |key: &str| budget.get_i64(&["status", key]).unwrap_or_default();
    let (desired, current) = (number("desiredHealthy"), number("currentHealthy"));
    match condition(budget.get_array(&["status", "conditions"]), "DisruptionAllowed") {
        Some(failed) if failed["status"] == "False" && failed["reason"] == "SyncFailed" => format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {}",
            failed["message"].as_str().unwrap_or_default()
        ),
        _ if current <= desired => {
            format!("The disruption budget {name} needs {desired} healthy pods and has {current} currently")
        }
        _ => format!("The disruption budget {name} does not allow evicting pods currently"),
    }
}

/// Says that the last disruption there was has been taken.
fn no_more(budget: &mut Object, now: &str) {
    let mut conditions = budget.get_array(&["status", "conditions"]).to_vec();
    let mut new = json!({
        "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
        "lastTransitionTime": now, "observedGeneration": budget.get_i64(&["status", "observedGeneration"]),
    });
    match conditions.iter_mut().find(|condition| condition["type"] == "DisruptionAllowed") {
        Some(old) => {
            if old["status"] == "False" {
                new["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
    budget.set(&["status", "conditions"], conditions);
}

/// Notes on a pod that it goes because somebody asked for its eviction.
pub fn mark_evicted(pod: &mut Object, now: &str) {
    let mut conditions = pod.get_array(&["status", "conditions"]).to_vec();
    let mut new = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": now,
    });
    if pod.generation() > 0 {
        new["observedGeneration"] = json!(pod.generation());
    }
    match conditions.iter_mut().find(|condition| condition["type"] == "DisruptionTarget") {
        Some(old) => {
            if old["status"] == "True" {
                new["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
    pod.set(&["status", "conditions"], conditions);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(status: Value) -> Object {
        Object::from(json!({"metadata": {"name": "b", "generation": 2}, "status": status}))
    }

    #[test]
    fn a_budget_answers_in_upstreams_words() {
        let cases = [
            (
                json!({"observedGeneration": 1}),
                429,
                10,
                "The disruption budget b is still being processed by the server.",
            ),
            (
                json!({"observedGeneration": 2, "disruptionsAllowed": 0, "desiredHealthy": 3, "currentHealthy": 3}),
                429,
                0,
                "The disruption budget b needs 3 healthy pods and has 3 currently",
            ),
            (
                json!({"observedGeneration": 2, "desiredHealthy": 1, "currentHealthy": 3}),
                429,
                0,
                "The disruption budget b does not allow evicting pods currently",
            ),
            (
                json!({"observedGeneration": 2, "conditions": [
                    {"type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": "no"}]}),
                429,
                0,
                "The disruption budget b does not allow evicting pods currently because it failed sync: no",
            ),
        ];
        for (status, code, retry, cause) in cases {
            let refused = decrement(&budget(status), "p", "now", false).unwrap_err();
            let details = refused.details.clone().unwrap();
            assert_eq!((refused.code, refused.message.as_str()), (code, REFUSED));
            assert_eq!((details.retry_after_seconds, details.causes[0].message.as_str()), (retry, cause));
            assert_eq!(details.causes[0].reason, "DisruptionBudget");
        }
        let negative = budget(json!({"observedGeneration": 2, "disruptionsAllowed": -1}));
        let refused = decrement(&negative, "p", "now", false).unwrap_err();
        assert_eq!(refused.code, 403);
        assert_eq!(
            refused.message,
            "poddisruptionbudget.policy \"b\" is forbidden: pdb disruptions allowed is negative"
        );
    }

    #[test]
    fn an_allowed_eviction_is_noted() {
        let old = budget(json!({"observedGeneration": 2, "disruptionsAllowed": 1}));
        let new = decrement(&old, "p", "now", false).unwrap();
        assert_eq!(new.get_i64(&["status", "disruptionsAllowed"]), Some(0));
        assert_eq!(new.get_str(&["status", "disruptedPods", "p"]), "now");
        assert_eq!(new.get_array(&["status", "conditions"])[0]["reason"], "InsufficientPods");
        let dry = decrement(&old, "p", "now", true).unwrap();
        assert!(dry.get(&["status", "disruptedPods"]).is_none());
    }

    #[test]
    fn unready_pods_go_by_policy() {
        let of = |policy: Value, current: i64, desired: i64| {
            let mut spec = json!({});
            if !policy.is_null() {
                spec["unhealthyPodEvictionPolicy"] = policy;
            }
            lets_unready_go(&Object::from(json!({"spec": spec,
                "status": {"currentHealthy": current, "desiredHealthy": desired}})))
        };
        assert!(of(json!("AlwaysAllow"), 0, 3));
        assert!(of(Value::Null, 3, 3));
        assert!(!of(json!("IfHealthyBudget"), 2, 3));
        assert!(!of(Value::Null, 0, 0));
    }

    #[test]
    fn who_is_covered() {
        let pod = Object::from(json!({"metadata": {"labels": {"a": "b"}}}));
        let of = |selector: Value| covers(&Object::from(json!({"spec": {"selector": selector}})), &pod);
        assert!(of(json!({"matchLabels": {"a": "b"}})));
        assert!(!of(json!({"matchLabels": {"a": "c"}})));
        assert!(!of(json!({})) && !of(Value::Null));
        let bare = Object::from(json!({"metadata": {}}));
        assert!(!covers(&Object::from(json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}})), &bare));
    }
}
