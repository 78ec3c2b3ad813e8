//! Whether a container that ended is started again.

use component_helpers::resource::is_restartable_init;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use crate::pod::spec;
use crate::runtime::{ContainerState, PodState};

/// What the restart policy says after an exit: the container's own rules (KEP-5307), its own policy, the pod's.
pub fn restarts_after(container: &Container, pod_spec: &PodSpec, exit_code: i32) -> bool {
    let policy = match container.restart_policy.as_deref() {
        Some(policy) => {
            if rule_matches(container, exit_code) {
                return true;
            }
            policy
        }
        None => spec::restart_policy(pod_spec),
    };
    match policy {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

fn rule_matches(container: &Container, exit_code: i32) -> bool {
    let rules = container.restart_policy_rules.iter().flatten();
    rules.filter_map(|rule| rule.exit_codes.as_ref()).any(|codes| {
        let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
        match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    })
}

/// Whether any container of a pod would come back after a failure.
pub fn any_restarts_on_failure(pod_spec: &PodSpec) -> bool {
    spec::restart_policy(pod_spec) != "Never"
        || component_helpers::pod::all_containers(pod_spec).filter(|c| !is_restartable_init(c)).any(|c| {
            c.restart_policy.as_deref().is_some_and(|policy| policy != "Never")
                || c.restart_policy_rules.as_ref().is_some_and(|rules| !rules.is_empty())
        })
}

/// Whether the next step for a container is a start: it was never there, or its policy lets it come back.
pub fn should_be_restarted(container: &Container, pod: &Pod, state: &PodState) -> bool {
    if spec::is_being_deleted(pod) {
        return false;
    }
    match state.container(&container.name) {
        None => true,
        Some(run) => match run.state {
            ContainerState::Running => false,
            // it may have been started or not, so it is made anew
            ContainerState::Unknown | ContainerState::Created => true,
            ContainerState::Exited => restarts_after(container, spec::spec(pod), run.exit_code),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_come_before_policies() {
        let rules = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
        let cases = [
            (json!({"name": "c"}), "Always", 0, true),
            (json!({"name": "c"}), "OnFailure", 0, false),
            (json!({"name": "c"}), "OnFailure", 1, true),
            (json!({"name": "c"}), "Never", 1, false),
            (json!({"name": "c", "restartPolicy": "Always"}), "Never", 0, true),
            (json!({"name": "c", "restartPolicy": "Never"}), "Always", 1, false),
            (json!({"name": "c", "restartPolicy": "Never", "restartPolicyRules": rules}), "Always", 42, true),
            (json!({"name": "c", "restartPolicy": "Never", "restartPolicyRules": rules}), "Always", 1, false),
        ];
        for (container, policy, code, want) in cases {
            let parsed: Container = serde_json::from_value(container.clone()).expect("a container");
            let pod_spec = PodSpec { restart_policy: Some(policy.into()), ..PodSpec::default() };
            assert_eq!(restarts_after(&parsed, &pod_spec, code), want, "{container} {policy} {code}");
        }
    }
}
