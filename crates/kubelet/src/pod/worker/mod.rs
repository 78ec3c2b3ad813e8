//! One task per pod: looks at what runs, asks the plan what is next, and does it, until the pod is gone.
//!
//! A pod lives (containers are kept as the spec says), terminates (containers end within their grace period), is
//! cleaned up (volumes and cgroup go), and stays until its object leaves the API.

mod ending;
mod volumes;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use component_helpers::backoff::Backoff;
use component_helpers::qos::pod_qos;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Api;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::cgroups;
use crate::images::puller::go_duration;
use crate::pod::config::sandbox_config;
use crate::pod::kill::{kill_container, kill_pod};
use crate::pod::plan::{Plan, plan};
use crate::pod::spec;
use crate::pod::start::{Start, StartError};
use crate::pod::status::{Inputs, StartFailures, generate};
use crate::probes::{Probes, Target};
use crate::runtime::{ContainerState, PodState};
use crate::shared::Shared;
use crate::volumes::Mounted;

const FIRST_BACK_OFF: Duration = Duration::from_secs(10);
const LAST_BACK_OFF: Duration = Duration::from_secs(300);
/// A pod that nothing happens to is looked at this often.
const RESYNC: Duration = Duration::from_secs(60);
/// After an error that nothing will announce the end of.
const RETRY: Duration = Duration::from_secs(10);
/// The first retry of a sandbox, which most often fails since the runtime still undoes what a killed kubelet had begun;
/// each further one takes twice as long, up to [`RETRY`].
const SANDBOX_RETRY: Duration = Duration::from_millis(500);
/// The runtime is away; it is asked again soon.
const RUNTIME_RETRY: Duration = Duration::from_millis(500);
/// The runtime's own view follows its exit event after a moment.
const EXIT_LAG: Duration = Duration::from_millis(500);
/// The runtime learns of a lack of memory apart from the end of the process, and sometimes after it.
const OUT_OF_MEMORY_LAG: Duration = Duration::from_secs(2);
/// Rounds without a pause before something must be wrong.
const MAX_ROUNDS: u32 = 50;

/// What the API says about a pod.
#[derive(Clone, Debug)]
pub struct Desired {
    pub pod: Arc<Pod>,
    /// The object is no longer there.
    pub removed: bool,
}

impl Desired {
    fn ends(&self) -> bool {
        self.removed || spec::is_being_deleted(&self.pod) || spec::is_terminal_phase(spec::phase(&self.pod))
    }
}

/// How a worker is told that something happened.
#[derive(Debug, Default)]
pub struct Wake {
    notify: Notify,
    exits: Mutex<HashSet<String>>,
    volumes: AtomicBool,
}

impl Wake {
    /// Anything may have changed.
    pub fn wake(&self) {
        self.notify.notify_one();
    }

    /// The process of a container or sandbox ended.
    pub fn exited(&self, id: &str) {
        self.exits.lock().insert(id.to_owned());
        self.notify.notify_one();
    }

    /// A config map or secret of the pod changed.
    pub fn objects_changed(&self) {
        self.volumes.store(true, Ordering::Relaxed);
        self.notify.notify_one();
    }
}

/// Why a pod was not let in: reason and message of its failed status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reason: String,
    pub message: String,
}

enum Next {
    /// Look again at once.
    Again,
    /// All containers are done.
    Finished,
    Wait(Duration),
}

pub struct Worker {
    shared: Arc<Shared>,
    desired: watch::Receiver<Desired>,
    wake: Arc<Wake>,
    pod: Arc<Pod>,
    probes: Probes,
    failures: StartFailures,
    back_off: Backoff<String>,
    /// The volumes as containers get them, for this version of the pod.
    volumes: Option<HashMap<String, Mounted>>,
    volumes_of: Option<String>,
    volume_failures: u32,
    tokens_refresh: Option<Timestamp>,
    prepared: bool,
    adopted: bool,
    /// How often its sandbox could not be made, one time after the other.
    sandbox_failures: u32,
    /// Containers whose lack of memory the kernel told of.
    lacked_memory: Mutex<HashSet<String>>,
}

/// Whether a container's process ended by SIGKILL, for no reason that the runtime knows.
fn was_killed(container: &crate::runtime::Container) -> bool {
    const KILLED: i32 = 128 + 9;
    container.exit_code == KILLED && container.reason == "Error"
}

fn just_ended(container: &crate::runtime::Container) -> bool {
    let ended = container.finished_at.map(|at| Timestamp::now().duration_since(at));
    ended.is_some_and(|since| since.as_secs_f64() < OUT_OF_MEMORY_LAG.as_secs_f64())
}

impl Worker {
    pub fn new(shared: Arc<Shared>, desired: watch::Receiver<Desired>, wake: Arc<Wake>) -> Self {
        let pod = desired.borrow().pod.clone();
        let notify = wake.clone();
        let probes =
            Probes::new(shared.runtime.clone(), shared.recorder.clone(), Arc::new(move || notify.wake()));
        Self {
            shared,
            desired,
            wake,
            pod,
            probes,
            failures: StartFailures::new(),
            back_off: Backoff::new(FIRST_BACK_OFF, LAST_BACK_OFF),
            volumes: None,
            volumes_of: None,
            volume_failures: 0,
            tokens_refresh: None,
            prepared: false,
            adopted: false,
            sandbox_failures: 0,
            lacked_memory: Mutex::default(),
        }
    }

    fn uid(&self) -> String {
        spec::uid(&self.pod).to_owned()
    }

    /// Runs the pod to its end. A rejected pod only waits for its deletion.
    pub async fn run(mut self, rejection: Option<Rejection>) {
        match rejection {
            Some(rejection) => self.reject(&rejection),
            None => {
                self.live().await;
                self.terminate().await;
            }
        }
        self.clean_up().await;
        self.shared.statuses.finish(&self.pod);
        loop {
            let desired = self.desired.borrow_and_update().clone();
            self.pod = desired.pod;
            self.shared.statuses.observe(&self.pod);
            if desired.removed || self.desired.changed().await.is_err() {
                break;
            }
        }
        self.remove().await;
    }

    fn reject(&self, rejection: &Rejection) {
        let about = self.shared.about(&self.pod);
        self.shared.recorder.warning(&about, &rejection.reason, rejection.message.clone());
        let status = PodStatus {
            phase: Some("Failed".to_owned()),
            reason: Some(rejection.reason.clone()),
            message: Some(format!("Pod was rejected: {}", rejection.message)),
            observed_generation: self.pod.metadata.generation,
            qos_class: Some(pod_qos(&self.pod).as_str().to_owned()),
            conditions: self.pod.status.as_ref().and_then(|s| s.conditions.clone()),
            ..PodStatus::default()
        };
        self.shared.statuses.set(&self.pod, status);
    }

    async fn live(&mut self) {
        let mut rounds = 0;
        let mut network = self.shared.network.clone();
        loop {
            let desired = self.desired.borrow_and_update().clone();
            self.pod = desired.pod.clone();
            if desired.ends() {
                return;
            }
            let mut ending = self.desired.clone();
            let next = tokio::select! {
                biased;
                _ = ending.wait_for(Desired::ends) => continue,
                next = self.sync() => next,
            };
            let pause = match next {
                Next::Finished => return,
                Next::Again if rounds < MAX_ROUNDS => {
                    rounds += 1;
                    continue;
                }
                Next::Again => RETRY,
                Next::Wait(pause) => pause,
            };
            rounds = 0;
            tokio::select! {
                () = self.wake.notify.notified() => {}
                _ = self.desired.changed() => {}
                Ok(()) = network.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// What the runtime has of this pod, not older than the exits that have been announced.
    async fn observe(&self) -> crate::runtime::Result<PodState> {
        let exits: HashSet<String> = std::mem::take(&mut *self.wake.exits.lock());
        let begun = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            let mut state = self.shared.runtime.pod_state(&self.uid()).await?;
            self.ask_kernel_for_lack_of_memory(&mut state);
            let lagging = state.running().any(|c| exits.contains(&c.id))
                || state.sandboxes.iter().any(|s| s.ready && exits.contains(&s.id));
            let lagging = lagging && begun.elapsed() < EXIT_LAG
                || self.may_lack_memory(&state) && begun.elapsed() < OUT_OF_MEMORY_LAG;
            if !lagging {
                self.shared.index.set(&self.uid(), &state);
                return Ok(state);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Whether a container was killed just now, not by us, and for all that is known could have been for its memory.
    fn may_lack_memory(&self, state: &PodState) -> bool {
        !self.desired.borrow().ends()
            && cgroups::limits_memory(&self.pod)
            && state.containers.iter().any(|container| was_killed(container) && just_ended(container))
    }

    /// The runtime may miss that a container lacked memory, when it cleans up faster than it listens.
    fn ask_kernel_for_lack_of_memory(&self, state: &mut PodState) {
        let pod_spec = spec::spec(&self.pod);
        let alone = pod_spec.containers.len() == 1 && spec::init_containers(pod_spec).is_empty();
        let limit = cgroups::pod_limits(&self.pod).memory;
        let (Some(limit), true) = (limit, alone) else { return };
        let cgroup = self.shared.cgroups.pod(pod_qos(&self.pod), spec::uid(&self.pod));
        let mut judged = self.lacked_memory.lock();
        for container in state.containers.iter_mut().filter(|container| was_killed(container)) {
            let lacked = judged.contains(&container.id)
                || just_ended(container) && self.shared.cgroups.lacked_memory(&cgroup, limit);
            if lacked {
                judged.insert(container.id.clone());
                container.reason = "OOMKilled".to_owned();
            }
        }
    }

    fn generate(&self, state: &PodState, terminal: bool) -> PodStatus {
        let old = self.shared.statuses.get(&self.uid());
        let old = old.unwrap_or_else(|| self.pod.status.clone().unwrap_or_default());
        generate(&Inputs {
            pod: &self.pod,
            old: &old,
            state,
            failures: &self.failures,
            probes: &self.probes,
            terminal,
            node_ip: self.shared.config.node_ip,
            runtime_name: &self.shared.runtime_name,
        })
    }

    /// One round: look, tell, and do the next step.
    async fn sync(&mut self) -> Next {
        let state = match self.observe().await {
            Ok(state) => state,
            Err(error) => {
                tracing::debug!(pod = spec::format(&self.pod), %error, "the runtime does not answer");
                return Next::Wait(RUNTIME_RETRY);
            }
        };
        self.update_probes(&state);
        let mut status = self.generate(&state, false);
        let deadline = self.active_deadline(&status);
        if deadline.is_some_and(|left| left.is_zero()) {
            let message = "Pod was active on the node longer than the specified deadline";
            self.shared.recorder.normal(&self.shared.about(&self.pod), "DeadlineExceeded", message);
            status.phase = Some("Failed".to_owned());
            status.reason = Some("DeadlineExceeded".to_owned());
            status.message = Some(message.to_owned());
            self.shared.statuses.set(&self.pod, status);
            return Next::Finished;
        }
        let over = spec::is_terminal_phase(status.phase.as_deref().unwrap_or_default());
        self.shared.statuses.set(&self.pod, status);
        if over {
            return Next::Finished;
        }
        match self.act(state).await {
            Next::Wait(pause) => Next::Wait(deadline.map_or(pause, |left| left.min(pause))),
            other => other,
        }
    }

    fn active_deadline(&self, status: &PodStatus) -> Option<Duration> {
        let seconds = spec::spec(&self.pod).active_deadline_seconds?;
        let started = status.start_time.as_ref()?.0;
        let left = seconds - Timestamp::now().duration_since(started).as_secs();
        Some(Duration::from_secs(u64::try_from(left).unwrap_or_default()))
    }

    async fn act(&mut self, state: PodState) -> Next {
        let plan = plan(&self.pod, &state, &self.probes);
        if plan.create_sandbox && !spec::host_network(spec::spec(&self.pod)) {
            let problem = self.shared.network.borrow().clone();
            if let Some(problem) = problem {
                let message = format!("network is not ready: container runtime network not ready: {problem}");
                self.shared.recorder.warning(&self.shared.about(&self.pod), "NetworkNotReady", message);
                return Next::Wait(RETRY);
            }
        }
        if let Err(error) = self.prepare() {
            tracing::warn!(pod = spec::format(&self.pod), error, "cannot prepare the pod");
            let about = self.shared.about(&self.pod);
            self.shared.recorder.warning(&about, "FailedCreatePodContainer", error);
            return Next::Wait(RETRY);
        }
        if let Err(next) = self.set_up_volumes(&state).await {
            return next;
        }
        if plan.is_empty() {
            return Next::Wait(self.until_refresh());
        }
        self.execute(plan, state).await
    }

    /// Folders and the pod's cgroup.
    fn prepare(&mut self) -> Result<(), String> {
        if self.prepared {
            return Ok(());
        }
        let (pod, paths) = (&self.pod, &self.shared.paths);
        let logs = paths.pod_logs(spec::namespace(pod), spec::name(pod), spec::uid(pod));
        for folder in [paths.pod_volumes(spec::uid(pod)), logs] {
            fs::create_dir_all(&folder)
                .map_err(|error| format!("unable to make pod data directories for pod: {error}"))?;
        }
        let cgroup = self.shared.cgroups.pod(pod_qos(pod), spec::uid(pod));
        self.shared
            .cgroups
            .ensure(&cgroup, &cgroups::pod_limits(pod))
            .map_err(|error| format!("unable to ensure pod container exists: {error}"))?;
        self.prepared = true;
        Ok(())
    }

    async fn execute(&mut self, plan: Plan, mut state: PodState) -> Next {
        let (shared, pod) = (self.shared.clone(), self.pod.clone());
        let about = shared.about(&pod);
        if plan.kill_pod {
            if plan.create_sandbox && plan.sandbox_id.is_some() {
                let message = "Pod sandbox changed, it will be killed and re-created.";
                shared.recorder.normal(&about, "SandboxChanged", message);
            }
            if let Err(error) = kill_pod(&shared, &pod, &state, None).await {
                shared.recorder.warning(&about, "FailedKillPod", format!("error killing pod: {error}"));
                return Next::Wait(RETRY);
            }
            if !plan.create_sandbox {
                // with nothing left running the next look ends the pod
                let was_alive = state.running().next().is_some();
                return if was_alive { Next::Again } else { Next::Wait(RETRY) };
            }
            self.purge_init_containers(&state).await;
        }
        if !plan.kill.is_empty() {
            let ip = state.ips().first().cloned().unwrap_or_default();
            for kill in &plan.kill {
                if let Err(error) = kill_container(&shared, &pod, kill, &ip).await {
                    tracing::warn!(pod = spec::format(&pod), container = kill.name, %error, "cannot kill a container");
                    return Next::Wait(RETRY);
                }
            }
            state = match self.observe().await {
                Ok(state) => state,
                Err(_) => return Next::Wait(RUNTIME_RETRY),
            };
        }
        let config = sandbox_config(&pod, plan.attempt, &shared.config, &shared.cgroups, &shared.host_dns);
        let sandbox_id = if plan.create_sandbox {
            let begun = Instant::now();
            let made = match self.runtime_handler().await {
                Ok(handler) => {
                    let made = shared.runtime.run_sandbox(config.clone(), &handler).await;
                    made.map_err(|error| error.to_string())
                }
                Err(error) => Err(error),
            };
            match made {
                Ok(id) => {
                    tracing::debug!(pod = spec::format(&pod), sandbox = id, took = ?begun.elapsed(), "made a sandbox");
                    self.sandbox_failures = 0;
                    shared.index.add(&id, spec::uid(&pod));
                    state = match self.observe().await {
                        Ok(state) => state,
                        Err(_) => return Next::Wait(RUNTIME_RETRY),
                    };
                    id
                }
                Err(error) => {
                    let message = format!("Failed to create pod sandbox: {error}");
                    shared.recorder.warning(&about, "FailedCreatePodSandBox", message);
                    let retry = SANDBOX_RETRY.saturating_mul(1 << self.sandbox_failures.min(10));
                    self.sandbox_failures += 1;
                    return Next::Wait(retry.min(RETRY));
                }
            }
        } else {
            plan.sandbox_id.clone().unwrap_or_default()
        };
        let pod_spec = spec::spec(&pod);
        let pod_ips =
            if spec::host_network(pod_spec) { vec![shared.config.node_ip.to_string()] } else { state.ips() };
        let volumes = self.volumes.clone().unwrap_or_default();
        let start = Start {
            shared: &shared,
            pod: &pod,
            state: &state,
            sandbox_id: &sandbox_id,
            sandbox_config: &config,
            pod_ips: &pod_ips,
            volumes: &volumes,
        };
        self.start_all(&plan, &start).await
    }

    /// The runtime's handler that the pod's RuntimeClass names; empty for the default.
    async fn runtime_handler(&self) -> Result<String, String> {
        let class = spec::spec(&self.pod).runtime_class_name.as_deref().filter(|name| !name.is_empty());
        let Some(name) = class else { return Ok(String::new()) };
        let api: Api<RuntimeClass> = Api::all(self.shared.client.clone());
        match api.get_opt(name).await {
            Ok(Some(class)) => Ok(class.handler),
            Ok(None) => Err(format!("RuntimeClass {name:?} not found")),
            Err(error) => Err(format!("failed to look up RuntimeClass {name:?}: {error}")),
        }
    }

    async fn start_all(&mut self, plan: &Plan, start: &Start<'_>) -> Next {
        let pod_spec = spec::spec(start.pod);
        let mut pause = None;
        let mut started = false;
        for index in &plan.start_ephemeral {
            let Some(ephemeral) = pod_spec.ephemeral_containers.as_ref().and_then(|list| list.get(*index))
            else {
                continue;
            };
            let container = spec::as_container(ephemeral);
            let result = start.run(&container, Some(ephemeral)).await;
            started |= self.note(&container, result, &mut pause);
        }
        let init = plan.start_init.iter().filter_map(|index| spec::init_containers(pod_spec).get(*index));
        for container in init {
            let result = self.start_one(container, start).await;
            let came_up = self.note(container, result, &mut pause);
            started |= came_up;
            if !came_up && !component_helpers::resource::is_restartable_init(container) {
                return if started { Next::Again } else { Next::Wait(pause.unwrap_or(RETRY)) };
            }
        }
        for container in plan.start.iter().filter_map(|index| pod_spec.containers.get(*index)) {
            let result = self.start_one(container, start).await;
            self.note(container, result, &mut pause);
        }
        match pause {
            // told at once, waited for after the next look
            None => Next::Again,
            Some(pause) => {
                let state = self.observe().await;
                if let Ok(state) = state {
                    self.update_probes(&state);
                    self.shared.statuses.set(&self.pod, self.generate(&state, false));
                }
                Next::Wait(pause)
            }
        }
    }

    async fn start_one(&mut self, container: &Container, start: &Start<'_>) -> Result<String, StartError> {
        if let Some(error) = self.crash_back_off(container, start.state) {
            return Err(error);
        }
        start.run(container, None).await
    }

    /// Remembers how a start went; returns whether it went well.
    fn note(
        &mut self,
        container: &Container,
        result: Result<String, StartError>,
        pause: &mut Option<Duration>,
    ) -> bool {
        match result {
            Ok(_) => {
                self.failures.remove(&container.name);
                true
            }
            Err(error) => {
                let retry = error.retry_after.unwrap_or(RETRY);
                *pause = Some(pause.map_or(retry, |pause| pause.min(retry)));
                self.failures.insert(container.name.clone(), (error.reason.to_owned(), error.message));
                false
            }
        }
    }

    /// A container that ended is started again at once, then after 10 s, 20 s, up to 5 min; ten good minutes clear it.
    fn crash_back_off(&mut self, container: &Container, state: &PodState) -> Option<StartError> {
        let last = state
            .containers
            .iter()
            .find(|c| c.name == container.name && c.state == ContainerState::Exited)?;
        let now = Instant::now();
        let age = last.finished_at.map_or(Duration::ZERO, |at| {
            Timestamp::now().duration_since(at).try_into().unwrap_or(Duration::ZERO)
        });
        let ended = now.checked_sub(age).unwrap_or(now);
        let key = format!("{}_{}", container.name, spec::hash(container));
        let left = self.back_off.remaining_since(&key, ended, now);
        if left.is_zero() {
            self.back_off.next(key, ended);
            return None;
        }
        let about = self.shared.about_container(&self.pod, &container.name);
        let whose = spec::format(&self.pod);
        self.shared.recorder.warning(
            &about,
            "BackOff",
            format!("Back-off restarting failed container {} in pod {whose}", container.name),
        );
        let delay = go_duration(self.back_off.delay(&key));
        Some(StartError {
            reason: "CrashLoopBackOff",
            message: format!("back-off {delay} restarting failed container={} pod={whose}", container.name),
            retry_after: Some(left),
        })
    }

    /// A new sandbox starts from the first init container; the records of earlier runs would say otherwise.
    async fn purge_init_containers(&self, state: &PodState) {
        let init = spec::init_containers(spec::spec(&self.pod));
        for run in state.containers.iter().filter(|run| init.iter().any(|c| c.name == run.name)) {
            if let Err(error) = self.shared.runtime.remove_container(&run.id).await {
                tracing::debug!(container = run.name, %error, "an old init container stays");
            }
        }
    }

    fn update_probes(&mut self, state: &PodState) {
        let running: Vec<&str> = state.running().map(|c| c.id.as_str()).collect();
        self.probes.keep(&running);
        let pod_ip = if spec::host_network(spec::spec(&self.pod)) {
            self.shared.config.node_ip.to_string()
        } else {
            state.ips().first().cloned().unwrap_or_default()
        };
        let first_look = !self.adopted;
        self.adopted = true;
        for run in state.running() {
            let ordinary = component_helpers::pod::all_containers(spec::spec(&self.pod));
            let Some(container) = ordinary.into_iter().find(|c| c.name == run.name) else { continue };
            let target = Target {
                pod: self.pod.clone(),
                container: Arc::new(container.clone()),
                container_id: run.id.clone(),
                pod_ip: pod_ip.clone(),
            };
            let about = self.shared.about_container(&self.pod, &run.name);
            let adopted = if first_look { self.readiness_before(&run.id) } else { None };
            self.probes.start(&target, &about, adopted);
        }
    }

    /// Of a container that ran before this kubelet: whether the API knows it as started, and then as ready.
    fn readiness_before(&self, id: &str) -> Option<bool> {
        let status = self.pod.status.as_ref()?;
        let mut all =
            status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
        let known = all.find(|s| s.container_id.as_deref().is_some_and(|known| known.ends_with(id)))?;
        known.started.unwrap_or_default().then_some(known.ready)
    }
}
