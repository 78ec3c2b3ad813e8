//! The status of a pod for the API, from what the runtime shows and what was said before.

use std::collections::HashMap;
use std::net::IpAddr;

use component_helpers::qos::pod_qos;
use component_helpers::resource::is_restartable_init;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, ContainerUser, HostIP, LinuxContainerUser, Pod, PodIP, PodStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pod::conditions::conditions;
use crate::pod::phase::phase;
use crate::pod::plan::any_main_created;
use crate::pod::restart::should_be_restarted;
use crate::pod::spec;
use crate::runtime::{self, PodState};

/// Why the last attempt to start a container failed: reason and message of its waiting state.
pub type StartFailures = HashMap<String, (String, String)>;

/// What probes say about runs of containers.
pub trait ProbeStatus {
    /// `None`: there is no startup probe.
    fn started(&self, container_id: &str) -> Option<bool>;
    /// `None`: there is no readiness probe.
    fn ready(&self, container_id: &str) -> Option<bool>;
}

/// Everything that a status is made from.
pub struct Inputs<'a> {
    pub pod: &'a Pod,
    /// What was last said about the pod, here or by the API.
    pub old: &'a PodStatus,
    pub state: &'a PodState,
    pub failures: &'a StartFailures,
    pub probes: &'a dyn ProbeStatus,
    /// The containers are over and will not come back.
    pub terminal: bool,
    pub node_ip: IpAddr,
    /// `containerd`, which container ids are prefixed with.
    pub runtime_name: &'a str,
}

/// The status as of now. Times of conditions and the start time are settled by [`settle`].
pub fn generate(inputs: &Inputs<'_>) -> PodStatus {
    let Inputs { pod, old, state, .. } = inputs;
    let pod_spec = spec::spec(pod);
    let init = spec::init_containers(pod_spec);
    let none = Vec::new();
    let mut container_statuses =
        Convert::new(inputs, &pod_spec.containers, old.container_statuses.as_ref().unwrap_or(&none), false)
            .run();
    let mut init_statuses =
        Convert::new(inputs, init, old.init_container_statuses.as_ref().unwrap_or(&none), true).run();
    let ephemeral = spec::ephemeral_containers(pod_spec);
    let ephemeral_statuses =
        Convert::new(inputs, &ephemeral, old.ephemeral_container_statuses.as_ref().unwrap_or(&none), false)
            .run();
    container_statuses.sort_by(|a, b| a.name.cmp(&b.name));

    let started = any_main_started_in_sandbox(pod, state);
    // the phase does not depend on readiness, but on whether sidecars have started
    apply_probes(inputs, &mut container_statuses, &mut init_statuses);
    let both: Vec<ContainerStatus> = container_statuses.iter().chain(&init_statuses).cloned().collect();
    let api = pod.status.as_ref();
    let api_phase = spec::phase(pod);
    let mut now = phase(pod, &both, inputs.terminal, started);
    let old_phase = old.phase.as_deref().unwrap_or_default();
    // A pod that was over stays over.
    for before in [old_phase, api_phase] {
        match before {
            "Failed" => now = "Failed",
            "Succeeded" => now = "Succeeded",
            _ => {}
        }
    }
    let mut status = PodStatus {
        phase: Some(now.to_owned()),
        observed_generation: pod.metadata.generation,
        qos_class: Some(pod_qos(pod).as_str().to_owned()),
        container_statuses: Some(container_statuses),
        init_container_statuses: Some(init_statuses).filter(|s| !s.is_empty()),
        ephemeral_container_statuses: Some(ephemeral_statuses).filter(|s| !s.is_empty()),
        start_time: old.start_time.clone(),
        nominated_node_name: api.and_then(|s| s.nominated_node_name.clone()),
        resource_claim_statuses: api.and_then(|s| s.resource_claim_statuses.clone()),
        ..PodStatus::default()
    };
    if now == old_phase {
        let kept = |ours: &Option<String>, theirs: Option<&Option<String>>| {
            ours.clone().or_else(|| theirs.cloned().flatten())
        };
        status.reason = kept(&old.reason, api.map(|s| &s.reason));
        status.message = kept(&old.message, api.map(|s| &s.message));
    }
    let both: Vec<ContainerStatus> = status
        .init_container_statuses
        .iter()
        .flatten()
        .chain(status.container_statuses.iter().flatten())
        .cloned()
        .collect();
    status.conditions = Some(conditions(pod, state, &both, now));
    set_addresses(inputs, &mut status);
    status
}

fn set_addresses(inputs: &Inputs<'_>, status: &mut PodStatus) {
    let host = inputs.node_ip.to_string();
    status.host_ip = Some(host.clone());
    status.host_ips = Some(vec![HostIP { ip: host.clone() }]);
    let mut ips = sort_ips(&inputs.state.ips(), inputs.node_ip);
    if spec::host_network(spec::spec(inputs.pod)) {
        ips = vec![host];
    }
    if ips.is_empty() {
        // a pod whose sandbox has ended keeps the address that it had
        if !inputs.state.sandboxes.is_empty() {
            status.pod_ip = inputs.old.pod_ip.clone();
            status.pod_ips = inputs.old.pod_ips.clone();
        }
        return;
    }
    status.pod_ip = Some(ips[0].clone());
    status.pod_ips = Some(ips.into_iter().map(|ip| PodIP { ip }).collect());
}

/// One address of each family, that of the node's family first.
pub fn sort_ips(ips: &[String], node: IpAddr) -> Vec<String> {
    let parsed: Vec<IpAddr> = ips.iter().filter_map(|ip| ip.parse().ok()).collect();
    let first = parsed.iter().find(|ip| ip.is_ipv4() == node.is_ipv4());
    let second = parsed.iter().find(|ip| ip.is_ipv4() != node.is_ipv4());
    first.into_iter().chain(second).map(ToString::to_string).collect()
}

/// Whether a main container has been started in the sandbox that is there now.
fn any_main_started_in_sandbox(pod: &Pod, state: &PodState) -> bool {
    let Some(sandbox) = state.sandboxes.first() else { return false };
    spec::spec(pod).containers.iter().any(|c| {
        state.container(&c.name).is_some_and(|run| {
            run.sandbox_id == sandbox.id
                && matches!(run.state, runtime::ContainerState::Running | runtime::ContainerState::Exited)
        })
    })
}

fn apply_probes(inputs: &Inputs<'_>, main: &mut [ContainerStatus], init: &mut [ContainerStatus]) {
    let pod_spec = spec::spec(inputs.pod);
    let judge = |status: &mut ContainerStatus| {
        let running = status.state.as_ref().is_some_and(|s| s.running.is_some());
        let id = status.container_id.as_deref().and_then(|id| id.split_once("://")).map_or("", |(_, id)| id);
        let started = running && inputs.probes.started(id).unwrap_or(true);
        status.started = Some(started);
        status.ready = started && inputs.probes.ready(id).unwrap_or(true);
    };
    main.iter_mut().for_each(judge);
    for status in init {
        let sidecar =
            spec::init_containers(pod_spec).iter().any(|c| c.name == status.name && is_restartable_init(c));
        judge(status);
        if !sidecar {
            let done =
                status.state.as_ref().and_then(|s| s.terminated.as_ref()).is_some_and(|t| t.exit_code == 0);
            status.ready = done;
        }
    }
}

/// Makes the statuses of one list of containers.
struct Convert<'a> {
    inputs: &'a Inputs<'a>,
    containers: &'a [Container],
    old: HashMap<&'a str, &'a ContainerStatus>,
    init: bool,
    has_init: bool,
}

impl<'a> Convert<'a> {
    fn new(
        inputs: &'a Inputs<'a>,
        containers: &'a [Container],
        old: &'a [ContainerStatus],
        init: bool,
    ) -> Self {
        let old = old.iter().map(|status| (status.name.as_str(), status)).collect();
        let has_init = !spec::init_containers(spec::spec(inputs.pod)).is_empty();
        Self { inputs, containers, old, init, has_init }
    }

    fn run(&self) -> Vec<ContainerStatus> {
        self.containers.iter().map(|container| self.convert(container)).collect()
    }

    fn convert(&self, container: &Container) -> ContainerStatus {
        let runs: Vec<&runtime::Container> =
            self.inputs.state.containers.iter().filter(|run| run.name == container.name).take(2).collect();
        let mut status = match runs.first() {
            Some(run) => self.of_run(container, run),
            None => self.without_run(container),
        };
        if let Some(previous) = runs.get(1) {
            status.last_state = self.of_run(container, previous).state;
        }
        if status.last_state.is_none() {
            status.last_state = Some(ContainerState::default());
        }
        self.apply_failure(container, &mut status);
        status
    }

    fn waiting_reason(&self) -> &'static str {
        if self.has_init { "PodInitializing" } else { "ContainerCreating" }
    }

    fn bare(&self, container: &Container) -> ContainerStatus {
        let mounts: Vec<VolumeMountStatus> =
            container.volume_mounts.iter().flatten().map(mount_status).collect();
        ContainerStatus {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            state: Some(waiting(self.waiting_reason(), "")),
            volume_mounts: Some(mounts).filter(|m| !m.is_empty()),
            ..ContainerStatus::default()
        }
    }

    /// The container was never made, or the runtime has forgotten it.
    fn without_run(&self, container: &Container) -> ContainerStatus {
        let mut status = self.bare(container);
        let Some(old) = self.old.get(container.name.as_str()) else { return status };
        let old_state = old.state.clone().unwrap_or_default();
        if old_state.terminated.is_some() {
            return (*old).clone();
        }
        status.restart_count = old.restart_count;
        status.last_state = old.last_state.clone();
        let known_end = status.last_state.as_ref().is_some_and(|last| last.terminated.is_some());
        if old_state.running.is_some() && !known_end {
            // It ran, and nobody saw its end. Without one the pod would fall back to Pending.
            status.last_state = Some(ContainerState {
                terminated: Some(ContainerStateTerminated {
                    reason: Some("ContainerStatusUnknown".into()),
                    message: Some(
                        "The container could not be located when the pod was deleted.  The container used to be Running"
                            .into(),
                    ),
                    exit_code: 137,
                    ..ContainerStateTerminated::default()
                }),
                ..ContainerState::default()
            });
            if !spec::is_being_deleted(self.inputs.pod) {
                status.restart_count += 1;
            }
        }
        status
    }

    fn of_run(&self, container: &Container, run: &runtime::Container) -> ContainerStatus {
        let id = format!("{}://{}", self.inputs.runtime_name, run.id);
        let mut status = ContainerStatus {
            restart_count: i32::try_from(run.restart_count).unwrap_or(i32::MAX),
            image: run.image.clone(),
            image_id: run.image_ref.clone(),
            container_id: Some(id.clone()),
            allocated_resources: container.resources.as_ref().and_then(|r| r.requests.clone()),
            resources: container.resources.clone().or_else(|| Some(Default::default())),
            user: run.user.as_ref().map(user),
            stop_signal: run.stop_signal.clone(),
            ..self.bare(container)
        };
        let old = self.old.get(container.name.as_str());
        let was_running =
            old.is_some_and(|old| old.state.as_ref().is_some_and(|state| state.running.is_some()));
        status.state = Some(match run.state {
            runtime::ContainerState::Running => ContainerState {
                running: Some(ContainerStateRunning { started_at: run.started_at.map(seconds) }),
                ..ContainerState::default()
            },
            runtime::ContainerState::Exited => ContainerState {
                terminated: Some(ContainerStateTerminated {
                    exit_code: run.exit_code,
                    reason: text(&run.reason),
                    message: text(&run.message),
                    started_at: run.started_at.map(seconds),
                    finished_at: run.finished_at.map(seconds),
                    container_id: Some(id),
                    ..ContainerStateTerminated::default()
                }),
                ..ContainerState::default()
            },
            runtime::ContainerState::Unknown if was_running => {
                status.restart_count = old.map_or(0, |old| old.restart_count) + 1;
                ContainerState {
                    terminated: Some(ContainerStateTerminated {
                        reason: Some("ContainerStatusUnknown".into()),
                        message: Some(
                            "The container could not be located when the pod was terminated".into(),
                        ),
                        exit_code: 137,
                        ..ContainerStateTerminated::default()
                    }),
                    ..ContainerState::default()
                }
            }
            _ => waiting("", ""),
        });
        status
    }

    /// A container that should be started and could not shows why.
    fn apply_failure(&self, container: &Container, status: &mut ContainerStatus) {
        let Inputs { pod, state, .. } = self.inputs;
        let run = state.container(&container.name);
        if self.init {
            if run.is_some_and(|r| r.state == runtime::ContainerState::Exited && r.exit_code == 0) {
                return;
            }
            let waits = status.state.as_ref().is_some_and(|s| s.waiting.is_some());
            if run.is_none() && waits && !is_restartable_init(container) && any_main_created(pod, state) {
                status.state = Some(ContainerState {
                    terminated: Some(ContainerStateTerminated {
                        reason: Some("Completed".into()),
                        message: Some(
                            "Unable to get init container status from container runtime and pod has been \
                             initialized, treat it as exited normally"
                                .into(),
                        ),
                        exit_code: 0,
                        ..ContainerStateTerminated::default()
                    }),
                    ..ContainerState::default()
                });
                return;
            }
        }
        if self.inputs.terminal || !should_be_restarted(container, pod, state) {
            return;
        }
        let Some((reason, message)) = self.inputs.failures.get(&container.name) else { return };
        if let Some(ended) = status.state.take().filter(|s| s.terminated.is_some()) {
            status.last_state = Some(ended);
        }
        status.state = Some(waiting(reason, message));
    }
}

fn mount_status(mount: &k8s_openapi::api::core::v1::VolumeMount) -> VolumeMountStatus {
    let read_only = mount.read_only.unwrap_or_default();
    VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: Some(read_only).filter(|r| *r),
        recursive_read_only: Some("Disabled".to_owned()).filter(|_| read_only),
        ..VolumeMountStatus::default()
    }
}

fn text(text: &str) -> Option<String> {
    if text.is_empty() { None } else { Some(text.to_owned()) }
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: text(reason), message: text(message) }),
        ..ContainerState::default()
    }
}

/// The API keeps whole seconds; a finer time would look like a change each time it comes back.
fn seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

fn user(user: &runtime::User) -> ContainerUser {
    ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: user.uid,
            gid: user.gid,
            supplemental_groups: Some(user.supplemental_groups.clone()),
        }),
    }
}

/// Whether all init containers have done their work, as far as a status shows.
fn has_initialized(pod: &Pod, status: &PodStatus) -> bool {
    let init = spec::init_containers(spec::spec(pod));
    let Some(last) = init.last() else { return true };
    let ended = |state: &Option<ContainerState>| {
        state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code)
    };
    let ran = |s: &ContainerStatus| {
        ended(&s.last_state).is_some() || s.state.as_ref().is_some_and(|state| state.waiting.is_none())
    };
    let last_init = status.init_container_statuses.iter().flatten().find(|s| s.name == last.name);
    status.container_statuses.iter().flatten().any(ran)
        || last_init.is_some_and(|s| ended(&s.state) == Some(0) || ended(&s.last_state) == Some(0))
}

/// The last status of a pod whose containers are gone: what never showed an end gets one, and the phase is final.
pub fn terminate(pod: &Pod, status: &mut PodStatus) {
    let lost = |statuses: &mut [ContainerStatus]| {
        for status in statuses {
            if status.state.as_ref().is_some_and(|state| state.terminated.is_some()) {
                continue;
            }
            status.state = Some(ContainerState {
                terminated: Some(ContainerStateTerminated {
                    reason: Some("ContainerStatusUnknown".into()),
                    message: Some("The container could not be located when the pod was terminated".into()),
                    exit_code: 137,
                    ..ContainerStateTerminated::default()
                }),
                ..ContainerState::default()
            });
        }
    };
    if has_initialized(pod, status) {
        lost(status.container_statuses.as_deref_mut().unwrap_or_default());
    }
    // init containers up to the last that ran; those after it never began
    let init = status.init_container_statuses.as_deref_mut().unwrap_or_default();
    let began = init.iter().rposition(|s| {
        let moved = s.state.as_ref().is_some_and(|state| state.waiting.is_none());
        moved || s.last_state.as_ref().is_some_and(|last| last.terminated.is_some())
    });
    lost(&mut init[..began.map_or(0, |at| at + 1)]);
    let over = status.phase.as_deref().is_some_and(spec::is_terminal_phase);
    if !over && !component_helpers::pod::is_static(pod) {
        status.phase = Some("Failed".to_owned());
    }
}

/// Carries times over from the last status: a condition's transition time moves with its status only, and the
/// start time is set once.
pub fn settle(status: &mut PodStatus, old: &PodStatus, now: Timestamp) {
    let now = seconds(now);
    for condition in status.conditions.iter_mut().flatten() {
        let before = old.conditions.iter().flatten().find(|c| c.type_ == condition.type_);
        condition.last_transition_time = match before {
            Some(before) if before.status == condition.status => {
                before.last_transition_time.clone().or_else(|| Some(now.clone()))
            }
            _ => Some(now.clone()),
        };
    }
    status.start_time = old.start_time.clone().or(Some(now));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{ContainerState as State, Sandbox};
    use serde_json::{Value, json};

    struct NoProbes;

    impl ProbeStatus for NoProbes {
        fn started(&self, _: &str) -> Option<bool> {
            None
        }
        fn ready(&self, _: &str) -> Option<bool> {
            None
        }
    }

    struct Unready;

    impl ProbeStatus for Unready {
        fn started(&self, _: &str) -> Option<bool> {
            None
        }
        fn ready(&self, _: &str) -> Option<bool> {
            Some(false)
        }
    }

    fn pod(spec: Value) -> Pod {
        let meta = json!({"name": "p", "namespace": "ns", "uid": "u", "generation": 1});
        serde_json::from_value(json!({"metadata": meta, "spec": spec})).expect("a pod")
    }

    fn run(name: &str, state: State, exit_code: i32, restarts: u32) -> runtime::Container {
        runtime::Container {
            id: format!("{name}{restarts}"),
            name: name.into(),
            sandbox_id: "s".into(),
            restart_count: restarts,
            state,
            exit_code,
            reason: if exit_code == 0 { "Completed" } else { "Error" }.into(),
            started_at: Timestamp::from_second(100).ok(),
            finished_at: Timestamp::from_second(200).ok(),
            image: "img:1".into(),
            image_ref: "sha256:1".into(),
            ..runtime::Container::default()
        }
    }

    fn state(runs: Vec<runtime::Container>) -> PodState {
        let sandbox =
            Sandbox { id: "s".into(), ready: true, ips: vec!["10.1.0.2".into()], ..Sandbox::default() };
        PodState { sandboxes: vec![sandbox], containers: runs }
    }

    struct Case {
        pod: Pod,
        old: PodStatus,
        state: PodState,
        failures: StartFailures,
        terminal: bool,
    }

    impl Case {
        fn new(spec: Value, runs: Vec<runtime::Container>) -> Self {
            Self {
                pod: pod(spec),
                old: PodStatus::default(),
                state: state(runs),
                failures: StartFailures::new(),
                terminal: false,
            }
        }

        fn generate(&self, probes: &dyn ProbeStatus) -> PodStatus {
            generate(&Inputs {
                pod: &self.pod,
                old: &self.old,
                state: &self.state,
                failures: &self.failures,
                probes,
                terminal: self.terminal,
                node_ip: [10, 0, 0, 1].into(),
                runtime_name: "containerd",
            })
        }
    }

    fn one() -> Value {
        json!({"containers": [{"name": "c", "image": "img"}], "restartPolicy": "Always"})
    }

    #[test]
    fn a_running_pod() {
        let case = Case::new(one(), vec![run("c", State::Running, 0, 0)]);
        let mut status = case.generate(&NoProbes);
        settle(&mut status, &PodStatus::default(), Timestamp::from_second(300).expect("a time"));
        insta::assert_json_snapshot!(status);
    }

    #[test]
    fn a_new_pod_waits() {
        let mut case = Case::new(one(), vec![]);
        case.state = PodState::default();
        let status = case.generate(&NoProbes);
        assert_eq!(status.phase.as_deref(), Some("Pending"));
        let shown = serde_json::to_value(&status.container_statuses).expect("JSON");
        assert_eq!(shown[0]["state"], json!({"waiting": {"reason": "ContainerCreating"}}));
        assert_eq!((status.pod_ip, status.host_ip.as_deref()), (None, Some("10.0.0.1")));
    }

    #[test]
    fn a_crash_loop_shows_its_back_off_and_its_last_end() {
        let mut case = Case::new(one(), vec![run("c", State::Exited, 1, 1), run("c", State::Exited, 2, 0)]);
        let ended = serde_json::to_value(case.generate(&NoProbes).container_statuses).expect("JSON");
        assert_eq!(ended[0]["state"]["terminated"]["exitCode"], 1);
        assert_eq!(ended[0]["lastState"]["terminated"]["exitCode"], 2);
        case.failures.insert("c".into(), ("CrashLoopBackOff".into(), "back-off 10s".into()));
        let status = case.generate(&NoProbes);
        assert_eq!(status.phase.as_deref(), Some("Running"));
        let shown = serde_json::to_value(status.container_statuses).expect("JSON");
        assert_eq!(shown[0]["state"]["waiting"]["reason"], "CrashLoopBackOff");
        assert_eq!(shown[0]["lastState"]["terminated"]["exitCode"], 1);
        assert_eq!(shown[0]["restartCount"], 1);
    }

    #[test]
    fn readiness_waits_for_its_probe() {
        let case = Case::new(one(), vec![run("c", State::Running, 0, 0)]);
        let status = case.generate(&Unready);
        let shown = serde_json::to_value(&status.container_statuses).expect("JSON");
        assert_eq!((&shown[0]["ready"], &shown[0]["started"]), (&json!(false), &json!(true)));
        assert_eq!(status.phase.as_deref(), Some("Running"));
    }

    #[test]
    fn a_lost_container_counts_as_ended() {
        let mut case = Case::new(one(), vec![]);
        case.old = Case::new(one(), vec![run("c", State::Running, 0, 0)]).generate(&NoProbes);
        let shown = serde_json::to_value(case.generate(&NoProbes).container_statuses).expect("JSON");
        assert_eq!(shown[0]["lastState"]["terminated"]["reason"], "ContainerStatusUnknown");
        assert_eq!(shown[0]["restartCount"], 1);
    }

    #[test]
    fn a_pod_that_was_over_stays_over() {
        let mut case = Case::new(one(), vec![run("c", State::Exited, 0, 0)]);
        case.terminal = true;
        assert_eq!(case.generate(&NoProbes).phase.as_deref(), Some("Succeeded"));
        case.old.phase = Some("Failed".into());
        case.old.reason = Some("DeadlineExceeded".into());
        let status = case.generate(&NoProbes);
        assert_eq!(
            (status.phase.as_deref(), status.reason.as_deref()),
            (Some("Failed"), Some("DeadlineExceeded"))
        );
    }

    #[test]
    fn a_pod_that_never_ran_ends_too() {
        let mut case = Case::new(one(), vec![]);
        case.terminal = true;
        let mut status = case.generate(&NoProbes);
        terminate(&case.pod, &mut status);
        assert_eq!(status.phase.as_deref(), Some("Failed"));
        let shown = serde_json::to_value(status.container_statuses).expect("JSON");
        assert_eq!(shown[0]["state"]["terminated"]["reason"], "ContainerStatusUnknown");
        let init = json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
        let mut case = Case::new(init, vec![run("i", State::Exited, 0, 0)]);
        case.terminal = true;
        let mut status = case.generate(&NoProbes);
        terminate(&case.pod, &mut status);
        let shown = serde_json::to_value(&status).expect("JSON");
        assert!(shown["containerStatuses"][0]["state"]["waiting"].is_object());
        assert_eq!(shown["initContainerStatuses"][0]["state"]["terminated"]["exitCode"], 0);
        assert!(shown["initContainerStatuses"][1]["state"]["waiting"].is_object());
    }

    #[test]
    fn addresses_follow_the_nodes_family() {
        let ips: Vec<String> = ["fd00::1", "10.1.0.2", "10.1.0.3"].map(str::to_owned).to_vec();
        assert_eq!(sort_ips(&ips, [10, 0, 0, 1].into()), ["10.1.0.2", "fd00::1"]);
        assert_eq!(sort_ips(&ips, "fd00::9".parse().expect("an address")), ["fd00::1", "10.1.0.2"]);
    }

    #[test]
    fn an_ended_pod_keeps_its_address() {
        let mut case = Case::new(one(), vec![run("c", State::Running, 0, 0)]);
        case.old = case.generate(&NoProbes);
        case.state.sandboxes[0].ready = false;
        assert_eq!(case.generate(&NoProbes).pod_ip.as_deref(), Some("10.1.0.2"));
        case.state.sandboxes.clear();
        assert_eq!(case.generate(&NoProbes).pod_ip, None);
    }

    #[test]
    fn only_a_change_moves_a_transition_time() {
        let case = Case::new(one(), vec![run("c", State::Running, 0, 0)]);
        let at = |s| Timestamp::from_second(s).expect("a time");
        let mut first = case.generate(&NoProbes);
        settle(&mut first, &PodStatus::default(), at(1));
        let mut second = case.generate(&NoProbes);
        settle(&mut second, &first, at(2));
        assert_eq!(first, second);
        let mut third = case.generate(&Unready);
        settle(&mut third, &second, at(3));
        let time = |status: &PodStatus, kind: &str| {
            let found = status.conditions.iter().flatten().find(|c| c.type_ == kind);
            found.and_then(|c| c.last_transition_time.clone())
        };
        assert_eq!(time(&third, "Ready"), Some(Time(at(3))));
        assert_eq!(time(&third, "Initialized"), Some(Time(at(1))));
    }
}
