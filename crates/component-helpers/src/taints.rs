//! Taints of nodes and the tolerations of pods.

use k8s_openapi::api::core::v1::{Taint, Toleration};

pub const NO_SCHEDULE: &str = "NoSchedule";
pub const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";
pub const NO_EXECUTE: &str = "NoExecute";

pub const NODE_NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const NODE_UNREACHABLE: &str = "node.kubernetes.io/unreachable";
pub const NODE_UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
pub const NODE_MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";
pub const NODE_DISK_PRESSURE: &str = "node.kubernetes.io/disk-pressure";
pub const NODE_PID_PRESSURE: &str = "node.kubernetes.io/pid-pressure";
pub const NODE_NETWORK_UNAVAILABLE: &str = "node.kubernetes.io/network-unavailable";
pub const NODE_OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Whether a toleration tolerates a taint. `Lt` and `Gt` count only where `comparison_operators` (the gate
/// `TaintTolerationComparisonOperators`) is on.
pub fn tolerates(toleration: &Toleration, taint: &Taint, comparison_operators: bool) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    let key = toleration.key.as_deref().unwrap_or_default();
    if !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => text(&toleration.value) == text(&taint.value),
        "Exists" => true,
        operator @ ("Lt" | "Gt") if comparison_operators => {
            match (decimal(&text(&toleration.value)), decimal(&text(&taint.value))) {
                (Some(wanted), Some(actual)) if operator == "Lt" => actual < wanted,
                (Some(wanted), Some(actual)) => actual > wanted,
                _ => false,
            }
        }
        _ => false,
    }
}

/// A whole number without sign tricks or leading zeros.
fn decimal(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if plain && text != "-0" { text.parse().ok() } else { None }
}

pub fn any_tolerates(tolerations: &[Toleration], taint: &Taint, comparison_operators: bool) -> bool {
    tolerations.iter().any(|toleration| tolerates(toleration, taint, comparison_operators))
}

/// The first taint that `counts` and that no toleration tolerates.
pub fn find_untolerated<'a>(
    taints: &'a [Taint],
    tolerations: &[Toleration],
    comparison_operators: bool,
    counts: impl Fn(&Taint) -> bool,
) -> Option<&'a Taint> {
    taints.iter().filter(|t| counts(t)).find(|taint| !any_tolerates(tolerations, taint, comparison_operators))
}

/// Taints that keep new pods away.
pub fn keeps_pods_away(taint: &Taint) -> bool {
    matches!(taint.effect.as_str(), NO_SCHEDULE | NO_EXECUTE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(toleration: Value, taint: Value, want: bool) {
        let parsed: Toleration = serde_json::from_value(toleration.clone()).expect("a toleration");
        let target: Taint = serde_json::from_value(taint.clone()).expect("a taint");
        assert_eq!(tolerates(&parsed, &target, true), want, "{toleration} {taint}");
    }

    #[test]
    fn tolerations_match_taints() {
        let taint = json!({"key": "k", "value": "v", "effect": "NoSchedule"});
        check(json!({"key": "k", "value": "v", "effect": "NoSchedule"}), taint.clone(), true);
        check(json!({"key": "k", "operator": "Equal", "value": "v"}), taint.clone(), true);
        check(json!({"key": "k", "operator": "Equal", "value": "w"}), taint.clone(), false);
        check(json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), taint.clone(), false);
        check(json!({"operator": "Exists"}), taint.clone(), true);
        check(json!({"key": "other", "operator": "Exists"}), taint.clone(), false);
        check(json!({"key": "k", "operator": "Weird", "value": "v"}), taint, false);
        let numeric = json!({"key": "k", "value": "10", "effect": "NoSchedule"});
        check(json!({"key": "k", "operator": "Gt", "value": "9"}), numeric.clone(), true);
        check(json!({"key": "k", "operator": "Lt", "value": "9"}), numeric.clone(), false);
        check(json!({"key": "k", "operator": "Gt", "value": "09"}), numeric.clone(), false);
        check(json!({"key": "k", "operator": "Gt", "value": "x"}), numeric.clone(), false);
        let gated: Toleration = serde_json::from_value(json!({"key": "k", "operator": "Gt", "value": "9"}))
            .expect("a toleration");
        let target: Taint = serde_json::from_value(numeric).expect("a taint");
        assert!(!tolerates(&gated, &target, false));
    }

    #[test]
    fn the_first_taint_that_counts_is_found() {
        let taints: Vec<Taint> = serde_json::from_value(json!([
            {"key": "soft", "effect": "PreferNoSchedule"},
            {"key": "a", "effect": "NoSchedule"},
            {"key": "b", "effect": "NoExecute"},
        ]))
        .expect("taints");
        let tolerations: Vec<Toleration> =
            serde_json::from_value(json!([{"key": "a", "operator": "Exists"}])).expect("tolerations");
        let found = find_untolerated(&taints, &tolerations, false, keeps_pods_away);
        assert_eq!(found.map(|t| t.key.as_str()), Some("b"));
    }
}
