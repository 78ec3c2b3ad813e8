//! What is to be done next for a pod, from what it should be and what the runtime shows. No clock, no IO.
//!
//! The rules are those of upstream's `computePodActions`: a pod without a usable sandbox gets a new one and starts
//! from its first init container; init containers run one after the other; sidecars stay; containers come back
//! as their restart policy says.

use component_helpers::resource::is_restartable_init;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::pod::restart::{any_restarts_on_failure, restarts_after, should_be_restarted};
use crate::pod::spec;
use crate::runtime::{self, ContainerState, PodState};

/// Why a container is killed; it decides which grace period counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    StartupProbe,
    LivenessProbe,
    FailedPostStartHook,
    Other,
}

/// A container that has to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    pub id: String,
    pub name: String,
    pub message: String,
    pub reason: KillReason,
}

/// What is to be done, in this order: kill, create the sandbox, start ephemeral, init and main containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// End all containers and the sandbox.
    pub kill_pod: bool,
    pub create_sandbox: bool,
    /// The sandbox to work in, or the one that is replaced.
    pub sandbox_id: Option<String>,
    pub attempt: u32,
    pub kill: Vec<Kill>,
    /// Indices into the spec's lists.
    pub start_ephemeral: Vec<usize>,
    pub start_init: Vec<usize>,
    pub start: Vec<usize>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        let starts = self.start_ephemeral.len() + self.start_init.len() + self.start.len();
        !self.kill_pod && !self.create_sandbox && self.kill.is_empty() && starts == 0
    }
}

/// What the probes found out about a run of a container; `None` before the first answer.
pub trait ProbeView {
    fn liveness(&self, container_id: &str) -> Option<bool>;
    fn startup(&self, container_id: &str) -> Option<bool>;
}

/// Whether a pod needs a new sandbox, with the attempt it would be and the sandbox that counts.
pub fn sandbox_changed(pod: &Pod, state: &PodState) -> (bool, u32, Option<String>) {
    let Some(newest) = state.sandboxes.first() else { return (true, 0, None) };
    let ready = state.sandboxes.iter().filter(|s| s.ready).count();
    let host_network = spec::host_network(spec::spec(pod));
    let id = Some(newest.id.clone());
    if ready > 1 || !newest.ready {
        return (true, newest.attempt + 1, id);
    }
    if newest.host_network != host_network {
        return (true, newest.attempt + 1, None);
    }
    if !host_network && newest.ips.is_empty() {
        return (true, newest.attempt + 1, id);
    }
    (false, newest.attempt, id)
}

pub fn plan(pod: &Pod, state: &PodState, probes: &dyn ProbeView) -> Plan {
    let pod_spec = spec::spec(pod);
    let (create, attempt, sandbox_id) = sandbox_changed(pod, state);
    let mut plan = Plan { kill_pod: create, create_sandbox: create, sandbox_id, attempt, ..Plan::default() };
    if create {
        plan_new_sandbox(pod, state, &mut plan);
        return plan;
    }
    for (index, container) in pod_spec.ephemeral_containers.iter().flatten().enumerate() {
        if state.container(&container.name).is_none() {
            plan.start_ephemeral.push(index);
        }
    }
    let initialized = plan_init(pod, state, probes, &mut plan);
    if plan.kill_pod || !initialized {
        return plan;
    }
    plan_main(pod, state, probes, &mut plan);
    plan
}

fn plan_new_sandbox(pod: &Pod, state: &PodState, plan: &mut Plan) {
    let pod_spec = spec::spec(pod);
    // A pod that may not restart and has run already is over.
    if !any_restarts_on_failure(pod_spec) && plan.attempt != 0 && !state.containers.is_empty() {
        plan.create_sandbox = false;
        return;
    }
    let start: Vec<usize> = (0..pod_spec.containers.len())
        .filter(|index| {
            let container = &pod_spec.containers[*index];
            match state.container(&container.name) {
                Some(run) if run.state == ContainerState::Exited => {
                    restarts_after(container, pod_spec, run.exit_code)
                }
                _ => true,
            }
        })
        .collect();
    if start.is_empty() && any_main_created(pod, state) {
        plan.create_sandbox = false;
        return;
    }
    if spec::init_containers(pod_spec).is_empty() {
        plan.start = start;
    } else {
        plan.start_init = vec![0];
    }
}

/// Whether a main container was ever made: then all init containers have done their work.
pub fn any_main_created(pod: &Pod, state: &PodState) -> bool {
    let mut containers = spec::spec(pod).containers.iter();
    containers.any(|c| state.container(&c.name).is_some_and(|run| run.state != ContainerState::Unknown))
}

fn unknown_kill(kind: &str, run: &runtime::Container) -> Kill {
    Kill {
        id: run.id.clone(),
        name: run.name.clone(),
        message: format!("{kind} is in {:?} state, try killing it before restart", run.state.as_str()),
        reason: KillReason::Other,
    }
}

/// Plans init containers and sidecars; returns whether main containers may run.
fn plan_init(pod: &Pod, state: &PodState, probes: &dyn ProbeView, plan: &mut Plan) -> bool {
    let pod_spec = spec::spec(pod);
    let init = spec::init_containers(pod_spec);
    if init.is_empty() {
        return true;
    }
    let mut initialized = pod_spec.containers.iter().any(|c| {
        let state = state.container(&c.name).map(|run| run.state);
        matches!(state, Some(ContainerState::Created | ContainerState::Running))
    });
    // From the last one back: records of earlier ones may be gone, the last one that ran decides.
    let mut later_ran = initialized;
    for (index, container) in init.iter().enumerate().rev() {
        let sidecar = is_restartable_init(container);
        let last = index == init.len() - 1;
        let Some(run) = state.container(&container.name) else {
            if later_ran && sidecar {
                plan.start_init.push(index);
            }
            continue;
        };
        if later_ran && !sidecar {
            continue;
        }
        match run.state {
            ContainerState::Created => plan.start_init.push(index),
            ContainerState::Running if sidecar => {
                plan_running_sidecar(container, run, index, last, later_ran, probes, plan, &mut initialized);
            }
            ContainerState::Running => {}
            ContainerState::Exited if sidecar => plan.start_init.push(index),
            ContainerState::Exited if run.exit_code == 0 => {
                if last {
                    initialized = true;
                } else {
                    plan.start_init.push(index + 1);
                }
            }
            ContainerState::Exited => {
                if !should_be_restarted(container, pod, state) {
                    plan.kill_pod = true;
                    plan.start_init.clear();
                    return false;
                }
                plan.start_init.push(index);
            }
            ContainerState::Unknown => {
                let policy = container.restart_policy.as_deref().unwrap_or(spec::restart_policy(pod_spec));
                if !sidecar && policy == "Never" {
                    plan.kill_pod = true;
                    plan.start_init.clear();
                    return false;
                }
                plan.kill.push(unknown_kill("Init container", run));
                plan.start_init.push(index);
            }
        }
        later_ran = true;
    }
    if !later_ran {
        plan.start_init.push(0);
    }
    plan.start_init.reverse();
    initialized
}

fn plan_running_sidecar(
    container: &Container,
    run: &runtime::Container,
    index: usize,
    last: bool,
    later_ran: bool,
    probes: &dyn ProbeView,
    plan: &mut Plan,
    initialized: &mut bool,
) {
    let mut kill = |message: String, reason| {
        plan.kill.push(Kill { id: run.id.clone(), name: run.name.clone(), message, reason });
    };
    if container.startup_probe.is_some() {
        match probes.startup(&run.id) {
            None => return,
            Some(false) => {
                kill(
                    format!("Init container {} failed startup probe", container.name),
                    KillReason::StartupProbe,
                );
                plan.start_init.push(index);
                return;
            }
            Some(true) => {}
        }
    }
    let next = if last {
        *initialized = true;
        None
    } else if later_ran {
        None
    } else {
        Some(index + 1)
    };
    if run.hash != spec::hash(container) {
        kill(format!("Init container {} definition changed", container.name), KillReason::Other);
        plan.start_init.extend(next);
        plan.start_init.push(index);
    } else if container.liveness_probe.is_some() && probes.liveness(&run.id) == Some(false) {
        kill(format!("Init container {} failed liveness probe", container.name), KillReason::LivenessProbe);
        plan.start_init.extend(next);
        plan.start_init.push(index);
    } else {
        plan.start_init.extend(next);
    }
}

fn plan_main(pod: &Pod, state: &PodState, probes: &dyn ProbeView, plan: &mut Plan) {
    let pod_spec = spec::spec(pod);
    let mut kept = 0;
    for (index, container) in pod_spec.containers.iter().enumerate() {
        let run = state.container(&container.name);
        let Some(run) = run.filter(|run| run.state == ContainerState::Running) else {
            if should_be_restarted(container, pod, state) {
                plan.start.push(index);
                if let Some(run) = run.filter(|run| run.state == ContainerState::Unknown) {
                    plan.kill.push(unknown_kill("Container", run));
                }
            }
            continue;
        };
        let mut restart = container
            .restart_policy
            .as_deref()
            .map_or(spec::restart_policy(pod_spec) != "Never", |policy| policy != "Never");
        let (mut message, reason) = if run.hash != spec::hash(container) {
            // another definition is another container, whatever the restart policy
            restart = true;
            (format!("Container {} definition changed", container.name), KillReason::Other)
        } else if probes.liveness(&run.id) == Some(false) {
            (format!("Container {} failed liveness probe", container.name), KillReason::LivenessProbe)
        } else if probes.startup(&run.id) == Some(false) {
            (format!("Container {} failed startup probe", container.name), KillReason::StartupProbe)
        } else {
            kept += 1;
            continue;
        };
        if restart {
            message.push_str(", will be restarted");
            plan.start.push(index);
        }
        plan.kill.push(Kill { id: run.id.clone(), name: run.name.clone(), message, reason });
    }
    if kept == 0 && plan.start.is_empty() {
        plan.kill_pod = true;
        // sidecars must not keep a finished pod alive
        plan.start_init.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::runtime::Sandbox;
    use serde_json::{Value, json};

    #[derive(Default)]
    struct Probes {
        liveness: HashMap<String, bool>,
        startup: HashMap<String, bool>,
    }

    impl ProbeView for Probes {
        fn liveness(&self, id: &str) -> Option<bool> {
            self.liveness.get(id).copied()
        }
        fn startup(&self, id: &str) -> Option<bool> {
            self.startup.get(id).copied()
        }
    }

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}, "spec": spec})).expect("a pod")
    }

    /// `name:state[:code]`, newest first; the id of a container is its name.
    fn state(sandbox: Option<bool>, runs: &[&str]) -> PodState {
        let sandboxes = sandbox.map(|ready| Sandbox {
            id: "s".into(),
            ready,
            ips: vec!["10.0.0.1".into()],
            ..Sandbox::default()
        });
        let containers = runs.iter().map(|text| {
            let mut parts = text.split(':');
            let name = parts.next().unwrap_or_default();
            let state = match parts.next().unwrap_or_default() {
                "running" => ContainerState::Running,
                "exited" => ContainerState::Exited,
                "created" => ContainerState::Created,
                _ => ContainerState::Unknown,
            };
            let exit_code = parts.next().map_or(0, |code| code.parse().expect("a code"));
            let image = if name.starts_with("old") { "other" } else { "img" };
            let container =
                Container { name: name.into(), image: Some(image.into()), ..Container::default() };
            runtime::Container {
                id: name.into(),
                name: name.into(),
                state,
                exit_code,
                hash: spec::hash(&container),
                ..runtime::Container::default()
            }
        });
        PodState { sandboxes: sandboxes.into_iter().collect(), containers: containers.collect() }
    }

    fn containers(names: &[&str]) -> Value {
        names.iter().map(|n| json!({"name": n, "image": "img"})).collect()
    }

    /// `kill_pod create init=[..] start=[..] kill=[..]` in short.
    fn show(plan: &Plan) -> String {
        let mut out = Vec::new();
        if plan.kill_pod {
            out.push("kill-pod".to_owned());
        }
        if plan.create_sandbox {
            out.push(format!("sandbox#{}", plan.attempt));
        }
        for kill in &plan.kill {
            out.push(format!("kill {} ({})", kill.name, kill.message));
        }
        for (what, list) in
            [("ephemeral", &plan.start_ephemeral), ("init", &plan.start_init), ("start", &plan.start)]
        {
            if !list.is_empty() {
                out.push(format!("{what} {list:?}"));
            }
        }
        out.join("; ")
    }

    fn check(spec: &Value, state: &PodState, want: &str) {
        let plan = plan(&pod(spec.clone()), state, &Probes::default());
        assert_eq!(show(&plan), want, "{spec}\n{state:#?}");
    }

    #[test]
    fn main_containers() {
        let always = json!({"containers": containers(&["a", "b"])});
        let never = json!({"containers": containers(&["a", "b"]), "restartPolicy": "Never"});
        let on_failure = json!({"containers": containers(&["a", "b"]), "restartPolicy": "OnFailure"});
        check(&always, &state(None, &[]), "kill-pod; sandbox#0; start [0, 1]");
        check(&always, &state(Some(true), &[]), "start [0, 1]");
        check(&always, &state(Some(true), &["a:running", "b:running"]), "");
        check(&always, &state(Some(true), &["a:running", "b:exited:0"]), "start [1]");
        check(&on_failure, &state(Some(true), &["a:running", "b:exited:0"]), "");
        check(&on_failure, &state(Some(true), &["a:exited:1", "b:exited:0"]), "start [0]");
        check(&never, &state(Some(true), &["a:exited:1", "b:exited:0"]), "kill-pod");
        check(&never, &state(Some(true), &["a:running", "b:exited:1"]), "");
        check(&always, &state(Some(true), &["a:created", "b:running"]), "start [0]");
        check(
            &always,
            &state(Some(true), &["a:unknown", "b:running"]),
            "kill a (Container is in \"unknown\" state, try killing it before restart); start [0]",
        );
        // the newest run counts
        check(&always, &state(Some(true), &["a:running", "a:exited:1", "b:running"]), "");
    }

    #[test]
    fn lost_sandboxes() {
        let always = json!({"containers": containers(&["a"])});
        let never = json!({"containers": containers(&["a"]), "restartPolicy": "Never"});
        let on_failure = json!({"containers": containers(&["a"]), "restartPolicy": "OnFailure"});
        check(&always, &state(Some(false), &["a:exited:137"]), "kill-pod; sandbox#1; start [0]");
        check(&never, &state(Some(false), &["a:exited:137"]), "kill-pod");
        check(&never, &state(Some(false), &[]), "kill-pod; sandbox#1; start [0]");
        check(&on_failure, &state(Some(false), &["a:exited:0"]), "kill-pod");
        check(&on_failure, &state(Some(false), &["a:exited:2"]), "kill-pod; sandbox#1; start [0]");
        let with_init = json!({"containers": containers(&["a"]), "initContainers": containers(&["i"])});
        check(
            &with_init,
            &state(Some(false), &["a:exited:1", "i:exited:0"]),
            "kill-pod; sandbox#1; init [0]",
        );
        let mut no_ip = state(Some(true), &["a:running"]);
        no_ip.sandboxes[0].ips.clear();
        check(&always, &no_ip, "kill-pod; sandbox#1; start [0]");
        let host = json!({"containers": containers(&["a"]), "hostNetwork": true});
        no_ip.sandboxes[0].host_network = true;
        check(&host, &no_ip, "");
    }

    #[test]
    fn init_containers_run_one_after_the_other() {
        let spec = json!({"containers": containers(&["a"]), "initContainers": containers(&["i", "j"])});
        check(&spec, &state(None, &[]), "kill-pod; sandbox#0; init [0]");
        check(&spec, &state(Some(true), &[]), "init [0]");
        check(&spec, &state(Some(true), &["i:running"]), "");
        check(&spec, &state(Some(true), &["i:exited:0"]), "init [1]");
        check(&spec, &state(Some(true), &["i:exited:1"]), "init [0]");
        check(&spec, &state(Some(true), &["j:running", "i:exited:0"]), "");
        check(&spec, &state(Some(true), &["j:exited:0", "i:exited:0"]), "start [0]");
        // records of earlier ones may be gone
        check(&spec, &state(Some(true), &["j:exited:0"]), "start [0]");
        check(&spec, &state(Some(true), &["a:running"]), "");
        let never = json!({
            "containers": containers(&["a"]), "initContainers": containers(&["i"]), "restartPolicy": "Never",
        });
        check(&never, &state(Some(true), &["i:exited:1"]), "kill-pod");
    }

    #[test]
    fn sidecars_start_in_order_and_stay() {
        let spec = json!({"containers": containers(&["a"]), "initContainers": [
            {"name": "s", "image": "img", "restartPolicy": "Always"}, {"name": "i", "image": "img"},
            {"name": "t", "image": "img", "restartPolicy": "Always"}]});
        check(&spec, &state(Some(true), &[]), "init [0]");
        check(&spec, &state(Some(true), &["s:running"]), "init [1]");
        check(&spec, &state(Some(true), &["i:running", "s:running"]), "");
        check(&spec, &state(Some(true), &["i:exited:0", "s:running"]), "init [2]");
        check(&spec, &state(Some(true), &["t:running", "i:exited:0", "s:running"]), "start [0]");
        check(&spec, &state(Some(true), &["a:running", "t:running", "i:exited:0", "s:exited:1"]), "init [0]");
        check(&spec, &state(Some(true), &["a:running", "t:running", "i:exited:0"]), "init [0]");
        let never = json!({"restartPolicy": "Never", "containers": containers(&["a"]), "initContainers": [
            {"name": "s", "image": "img", "restartPolicy": "Always"}]});
        check(&never, &state(Some(true), &["a:exited:0", "s:running"]), "kill-pod");
    }

    #[test]
    fn probes_and_changed_definitions_kill() {
        let spec = json!({"containers": containers(&["a", "old"])});
        check(
            &spec,
            &state(Some(true), &["a:running", "old:running"]),
            "kill old (Container old definition changed, will be restarted); start [1]",
        );
        let mut probes = Probes::default();
        probes.liveness.insert("a".into(), false);
        probes.startup.insert("b".into(), false);
        let running = state(Some(true), &["a:running", "b:running"]);
        let always = pod(json!({"containers": containers(&["a", "b"])}));
        assert_eq!(
            show(&plan(&always, &running, &probes)),
            "kill a (Container a failed liveness probe, will be restarted); \
             kill b (Container b failed startup probe, will be restarted); start [0, 1]"
        );
        let never = pod(json!({"containers": containers(&["a", "b"]), "restartPolicy": "Never"}));
        let killed = plan(&never, &running, &probes);
        assert_eq!(killed.kill[0].reason, KillReason::LivenessProbe);
        assert!(killed.kill_pod && killed.start.is_empty());
        let sidecar = pod(json!({"containers": containers(&["b"]), "initContainers": [
            {"name": "a", "image": "img", "restartPolicy": "Always", "livenessProbe": {}}]}));
        probes.startup.clear();
        assert_eq!(
            show(&plan(&sidecar, &running, &probes)),
            "kill a (Init container a failed liveness probe); init [0]"
        );
    }

    #[test]
    fn ephemeral_containers_start_once() {
        let spec = json!({"containers": containers(&["a"]), "ephemeralContainers": containers(&["e"])});
        check(&spec, &state(Some(true), &["a:running"]), "ephemeral [0]");
        check(&spec, &state(Some(true), &["a:running", "e:exited:1"]), "");
    }
}
