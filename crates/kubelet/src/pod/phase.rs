//! The phase of a pod, from the statuses of its containers.

use component_helpers::pod::is_static;
use component_helpers::resource::is_restartable_init;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec};

use crate::pod::restart::restarts_after;
use crate::pod::spec;

/// What the status of a container amounts to.
enum Seen {
    Nothing,
    Waiting,
    Running {
        started: bool,
    },
    /// It ended; a container that waits for its restart counts by its last end.
    Ended {
        exit_code: i32,
    },
}

fn see(container: &Container, statuses: &[ContainerStatus]) -> Seen {
    let Some(status) = statuses.iter().find(|s| s.name == container.name) else { return Seen::Nothing };
    let Some(state) = &status.state else { return Seen::Nothing };
    if state.running.is_some() {
        return Seen::Running { started: status.started.unwrap_or_default() };
    }
    if let Some(terminated) = &state.terminated {
        return Seen::Ended { exit_code: terminated.exit_code };
    }
    if state.waiting.is_some() {
        let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
        return last.map_or(Seen::Waiting, |last| Seen::Ended { exit_code: last.exit_code });
    }
    Seen::Nothing
}

#[derive(Default)]
struct Counts {
    unknown: usize,
    waiting: usize,
    running: usize,
    stopped: usize,
    stopped_for_good: usize,
    succeeded: usize,
    pending_init: usize,
    failed_init_for_good: usize,
    pending_sidecars: usize,
}

fn count(spec: &PodSpec, statuses: &[ContainerStatus]) -> Counts {
    let mut n = Counts::default();
    for container in spec::init_containers(spec) {
        let seen = see(container, statuses);
        if !is_restartable_init(container) {
            match seen {
                Seen::Ended { exit_code } => {
                    if exit_code != 0 && !restarts_after(container, spec, exit_code) {
                        n.failed_init_for_good += 1;
                    }
                }
                _ => n.pending_init += 1,
            }
            continue;
        }
        match seen {
            Seen::Nothing => {
                n.unknown += 1;
                if statuses.iter().any(|s| s.name == container.name) {
                    n.pending_sidecars += 1;
                }
            }
            Seen::Waiting => {
                n.pending_sidecars += 1;
                n.waiting += 1;
            }
            Seen::Running { started } => {
                n.running += 1;
                n.pending_sidecars += usize::from(!started);
            }
            // a sidecar that ended says nothing about the pod
            Seen::Ended { .. } => {}
        }
    }
    for container in &spec.containers {
        match see(container, statuses) {
            Seen::Nothing => n.unknown += 1,
            Seen::Waiting => n.waiting += 1,
            Seen::Running { .. } => n.running += 1,
            Seen::Ended { exit_code } => {
                n.stopped += 1;
                let terminated = statuses
                    .iter()
                    .find(|s| s.name == container.name)
                    .and_then(|s| s.state.as_ref())
                    .is_some_and(|s| s.terminated.is_some());
                n.succeeded += usize::from(exit_code == 0 && terminated);
                n.stopped_for_good += usize::from(!restarts_after(container, spec, exit_code));
            }
        }
    }
    n
}

/// The phase. `terminal`: the containers are over, whatever the restart policy says. `initialized`: a main
/// container has been started in the present sandbox.
pub fn phase(pod: &Pod, statuses: &[ContainerStatus], terminal: bool, initialized: bool) -> &'static str {
    let n = count(spec::spec(pod), statuses);
    if n.failed_init_for_good > 0 {
        return "Failed";
    }
    if n.pending_init > 0 || (n.pending_sidecars > 0 && !initialized) || n.waiting > 0 {
        return "Pending";
    }
    if n.running > 0 && n.unknown == 0 {
        return "Running";
    }
    if n.running == 0 && n.stopped > 0 && n.unknown == 0 {
        if terminal && !is_static(pod) {
            return if n.stopped == n.succeeded { "Succeeded" } else { "Failed" };
        }
        if n.stopped != n.stopped_for_good {
            // at least one comes back
            return "Running";
        }
        return if n.stopped == n.succeeded { "Succeeded" } else { "Failed" };
    }
    "Pending"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// `name=state`: `run`, `run!` (not started yet), `wait`, `back:CODE` (waits after an end), `end:CODE`.
    fn status(text: &str) -> ContainerStatus {
        let (name, state) = text.split_once('=').expect("name=state");
        let (kind, code) = state.split_once(':').unwrap_or((state, "0"));
        let code: i32 = code.parse().expect("a code");
        let (state, last, started): (Value, Value, bool) = match kind {
            "run" => (json!({"running": {}}), json!({}), true),
            "run!" => (json!({"running": {}}), json!({}), false),
            "wait" => (json!({"waiting": {}}), json!({}), false),
            "back" => (json!({"waiting": {}}), json!({"terminated": {"exitCode": code}}), false),
            _ => (json!({"terminated": {"exitCode": code}}), json!({}), false),
        };
        serde_json::from_value(json!({
            "name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": state, "lastState": last, "started": started,
        }))
        .expect("a status")
    }

    fn check(policy: &str, init: &[&str], main: &[&str], statuses: &[&str], want: &str) {
        let named = |names: &[&str]| -> Value {
            names
                .iter()
                .map(|n| match n.strip_suffix('*') {
                    Some(sidecar) => json!({"name": sidecar, "restartPolicy": "Always"}),
                    None => json!({"name": n}),
                })
                .collect()
        };
        let pod: Pod = serde_json::from_value(json!({
            "spec": {"restartPolicy": policy, "initContainers": named(init), "containers": named(main)},
        }))
        .expect("a pod");
        let all: Vec<ContainerStatus> = statuses.iter().map(|s| status(s)).collect();
        let initialized = all.iter().any(|s| main.contains(&s.name.as_str()));
        assert_eq!(phase(&pod, &all, false, initialized), want, "{policy} {init:?} {main:?} {statuses:?}");
    }

    #[test]
    fn phases_follow_the_containers() {
        check("Always", &[], &["a"], &[], "Pending");
        check("Always", &[], &["a"], &["a=wait"], "Pending");
        check("Always", &[], &["a"], &["a=run"], "Running");
        check("Always", &[], &["a", "b"], &["a=run", "b=wait"], "Pending");
        check("Always", &[], &["a", "b"], &["a=run", "b=back:1"], "Running");
        check("Always", &[], &["a"], &["a=end:0"], "Running");
        check("Always", &[], &["a"], &["a=back:1"], "Running");
        check("OnFailure", &[], &["a"], &["a=end:0"], "Succeeded");
        check("OnFailure", &[], &["a"], &["a=end:1"], "Running");
        check("Never", &[], &["a", "b"], &["a=end:0", "b=end:0"], "Succeeded");
        check("Never", &[], &["a", "b"], &["a=end:0", "b=end:1"], "Failed");
        check("Never", &[], &["a", "b"], &["a=run", "b=end:1"], "Running");
    }

    #[test]
    fn init_containers_keep_a_pod_pending_or_fail_it() {
        check("Always", &["i"], &["a"], &["i=run"], "Pending");
        check("Always", &["i"], &["a"], &["i=end:0"], "Pending");
        check("Always", &["i"], &["a"], &["i=end:1"], "Pending");
        check("Never", &["i"], &["a"], &["i=end:1"], "Failed");
        check("Always", &["i"], &["a"], &["i=end:0", "a=run"], "Running");
        check("Always", &["s*"], &["a"], &["s=run!"], "Pending");
        check("Always", &["s*"], &["a"], &["s=run!", "a=run"], "Running");
        check("Never", &["s*"], &["a"], &["s=end:1", "a=end:0"], "Succeeded");
        check("Never", &["s*"], &["a"], &["s=run", "a=end:0"], "Running");
    }

    #[test]
    fn a_terminal_pod_has_an_end() {
        let pod: Pod = serde_json::from_value(
            json!({"spec": {"restartPolicy": "Always", "containers": [{"name": "a"}]}}),
        )
        .expect("a pod");
        assert_eq!(phase(&pod, &[status("a=end:0")], true, true), "Succeeded");
        assert_eq!(phase(&pod, &[status("a=end:137")], true, true), "Failed");
    }
}
