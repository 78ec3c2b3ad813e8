//! The conditions that the kubelet keeps on a pod.

use component_helpers::conditions::{
    CONTAINERS_READY, POD_INITIALIZED, POD_READY, POD_READY_TO_START_CONTAINERS, POD_SCHEDULED,
};
use component_helpers::resource::is_restartable_init;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodCondition};

use crate::pod::plan::sandbox_changed;
use crate::pod::spec;
use crate::runtime::PodState;

/// Conditions that nobody else writes.
pub fn is_kubelets(kind: &str) -> bool {
    matches!(
        kind,
        POD_SCHEDULED
            | POD_READY
            | CONTAINERS_READY
            | POD_INITIALIZED
            | POD_READY_TO_START_CONTAINERS
            | "PodResizePending"
            | "PodResizeInProgress"
            | "AllContainersRestarting"
    )
}

fn condition(pod: &Pod, kind: &str, status: bool, reason: &str, message: &str) -> PodCondition {
    let text = |text: &str| if text.is_empty() { None } else { Some(text.to_owned()) };
    PodCondition {
        type_: kind.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: text(reason),
        message: text(message),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    }
}

fn find<'a>(statuses: &'a [ContainerStatus], container: &Container) -> Option<&'a ContainerStatus> {
    statuses.iter().find(|s| s.name == container.name)
}

/// Names as Go prints a slice: `[a b]`.
fn names(list: &[&str]) -> String {
    format!("[{}]", list.join(" "))
}

fn unready_message(unknown: &[&str], other: &[&str], word: &str) -> String {
    let mut parts = Vec::new();
    if !unknown.is_empty() {
        parts.push(format!("containers with unknown status: {}", names(unknown)));
    }
    if !other.is_empty() {
        parts.push(format!("containers with {word} status: {}", names(other)));
    }
    parts.join(", ")
}

fn containers_ready(pod: &Pod, statuses: &[ContainerStatus], phase: &str) -> PodCondition {
    let pod_spec = spec::spec(pod);
    let sidecars = spec::init_containers(pod_spec).iter().filter(|c| is_restartable_init(c));
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    for container in sidecars.chain(&pod_spec.containers) {
        match find(statuses, container) {
            None => unknown.push(container.name.as_str()),
            Some(status) if !status.ready => unready.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return condition(pod, CONTAINERS_READY, false, "PodCompleted", "");
    }
    if phase == "Failed" {
        return condition(pod, CONTAINERS_READY, false, "PodFailed", "");
    }
    let message = unready_message(&unknown, &unready, "unready");
    if message.is_empty() {
        condition(pod, CONTAINERS_READY, true, "", "")
    } else {
        condition(pod, CONTAINERS_READY, false, "ContainersNotReady", &message)
    }
}

fn ready(pod: &Pod, containers: &PodCondition, present: &[PodCondition]) -> PodCondition {
    if containers.status != "True" {
        return PodCondition { type_: POD_READY.to_owned(), ..containers.clone() };
    }
    let mut messages = Vec::new();
    for gate in spec::spec(pod).readiness_gates.iter().flatten() {
        let kind = &gate.condition_type;
        match present.iter().find(|c| c.type_ == *kind) {
            None => messages
                .push(format!("corresponding condition of pod readiness gate {kind:?} does not exist.")),
            Some(c) if c.status != "True" => messages
                .push(format!("the status of pod readiness gate {kind:?} is not \"True\", but {}", c.status)),
            Some(_) => {}
        }
    }
    if messages.is_empty() {
        condition(pod, POD_READY, true, "", "")
    } else {
        condition(pod, POD_READY, false, "ReadinessGatesNotReady", &messages.join(", "))
    }
}

fn initialized(pod: &Pod, statuses: &[ContainerStatus], phase: &str) -> PodCondition {
    let pod_spec = spec::spec(pod);
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for container in spec::init_containers(pod_spec) {
        match find(statuses, container) {
            None => unknown.push(container.name.as_str()),
            Some(status) => {
                let done = if is_restartable_init(container) {
                    status.started.unwrap_or_default()
                } else {
                    status.ready
                };
                if !done {
                    incomplete.push(container.name.as_str());
                }
            }
        }
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return condition(pod, POD_INITIALIZED, true, "PodCompleted", "");
    }
    // Sidecars may be restarting in a pod that has been initialized.
    let main_started = pod_spec.containers.iter().filter_map(|c| find(statuses, c)).any(|status| {
        let now = status.state.as_ref().is_some_and(|s| s.running.is_some() || s.terminated.is_some());
        let before = status.last_state.as_ref().is_some_and(|s| s.terminated.is_some());
        now || before
    });
    let message = unready_message(&unknown, &incomplete, "incomplete");
    if message.is_empty() || main_started {
        condition(pod, POD_INITIALIZED, true, "", "")
    } else {
        condition(pod, POD_INITIALIZED, false, "ContainersNotInitialized", &message)
    }
}

/// All conditions of a pod: those of others as they are, then the kubelet's own. `statuses` are those of init and
/// main containers together.
pub fn conditions(
    pod: &Pod,
    state: &PodState,
    statuses: &[ContainerStatus],
    phase: &str,
) -> Vec<PodCondition> {
    let old = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let mut all: Vec<PodCondition> = old.filter(|c| !is_kubelets(&c.type_)).cloned().collect();
    let (new_sandbox_needed, _, _) = sandbox_changed(pod, state);
    let containers = containers_ready(pod, statuses, phase);
    let ready = ready(pod, &containers, &all);
    all.push(condition(pod, POD_READY_TO_START_CONTAINERS, !new_sandbox_needed, "", ""));
    all.push(initialized(pod, statuses, phase));
    all.push(ready);
    all.push(containers);
    all.push(condition(pod, POD_SCHEDULED, true, "", ""));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Sandbox;
    use serde_json::{Value, json};

    fn shown(spec: Value, statuses: Value, phase: &str) -> Vec<String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"generation": 3}, "spec": spec,
            "status": {"conditions": [{"type": "example.com/gate", "status": "False"}]},
        }))
        .expect("a pod");
        let statuses: Vec<ContainerStatus> = serde_json::from_value(statuses).expect("statuses");
        let sandbox = Sandbox { ready: true, ips: vec!["10.0.0.1".into()], ..Sandbox::default() };
        let state = PodState { sandboxes: vec![sandbox], ..PodState::default() };
        conditions(&pod, &state, &statuses, phase)
            .into_iter()
            .map(|c| {
                let told = [c.reason, c.message].into_iter().flatten().collect::<Vec<_>>().join(": ");
                format!("{}={} {told}", c.type_, c.status).trim_end().to_owned()
            })
            .collect()
    }

    fn status(name: &str, ready: bool) -> Value {
        json!({"name": name, "image": "", "imageID": "", "ready": ready, "restartCount": 0, "state": {"waiting": {}}})
    }

    #[test]
    fn conditions_are_worded_as_upstreams() {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]});
        assert_eq!(
            shown(spec.clone(), json!([status("a", false), status("i", false)]), "Pending"),
            [
                "example.com/gate=False",
                "PodReadyToStartContainers=True",
                "Initialized=False ContainersNotInitialized: containers with incomplete status: [i]",
                "Ready=False ContainersNotReady: containers with unknown status: [b], containers with unready status: [a]",
                "ContainersReady=False ContainersNotReady: containers with unknown status: [b], containers with unready status: [a]",
                "PodScheduled=True",
            ]
        );
        let all = json!([status("a", true), status("b", true), status("i", true)]);
        assert_eq!(
            shown(spec.clone(), all.clone(), "Running")[2..],
            ["Initialized=True", "Ready=True", "ContainersReady=True", "PodScheduled=True"]
        );
        assert_eq!(
            shown(spec.clone(), all.clone(), "Succeeded")[2..5],
            [
                "Initialized=True PodCompleted",
                "Ready=False PodCompleted",
                "ContainersReady=False PodCompleted"
            ]
        );
        assert_eq!(
            shown(spec, all, "Failed")[3..5],
            ["Ready=False PodFailed", "ContainersReady=False PodFailed"]
        );
        let gated = json!({"containers": [], "readinessGates": [
            {"conditionType": "example.com/gate"}, {"conditionType": "none"}]});
        assert_eq!(
            shown(gated, json!([]), "Running")[3],
            "Ready=False ReadinessGatesNotReady: the status of pod readiness gate \"example.com/gate\" is not \
             \"True\", but False, corresponding condition of pod readiness gate \"none\" does not exist."
        );
    }
}
