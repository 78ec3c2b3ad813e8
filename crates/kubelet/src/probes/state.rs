//! The probes of a pod's running containers: one task per probe, and what they found.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::events::Recorder;
use k8s_openapi::api::core::v1::{ObjectReference, Probe};
use parking_lot::Mutex;

use super::check::{Outcome, Target, run_once};
use crate::pod::plan::ProbeView;
use crate::pod::status::ProbeStatus;
use crate::runtime::Runtime;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// What is known of one run of a container. `None`: the probe exists and has not answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerProbes {
    startup: Option<Option<bool>>,
    liveness: Option<Option<bool>>,
    readiness: Option<Option<bool>>,
}

impl ContainerProbes {
    fn slot(&mut self, kind: Kind) -> &mut Option<Option<bool>> {
        match kind {
            Kind::Startup => &mut self.startup,
            Kind::Liveness => &mut self.liveness,
            Kind::Readiness => &mut self.readiness,
        }
    }
}

/// Called when a result changed.
pub type Notify = Arc<dyn Fn() + Send + Sync>;

type Results = Arc<Mutex<HashMap<String, ContainerProbes>>>;

/// All probes of one pod. Owned by the pod's worker; the tasks only write results.
pub struct Probes {
    runtime: Arc<dyn Runtime>,
    recorder: Recorder,
    notify: Notify,
    results: Results,
    tasks: HashMap<String, Vec<(Kind, tokio::task::JoinHandle<()>)>>,
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Probes {
    pub fn new(runtime: Arc<dyn Runtime>, recorder: Recorder, notify: Notify) -> Self {
        Self { runtime, recorder, notify, results: Results::default(), tasks: HashMap::new() }
    }

    /// Starts the probes of a container that runs. `adopted`: it ran before this kubelet, with this readiness.
    pub fn start(&mut self, target: &Target, about: &ObjectReference, adopted: Option<bool>) {
        if self.tasks.contains_key(&target.container_id) {
            return;
        }
        let container = &target.container;
        let probes = [
            (Kind::Startup, &container.startup_probe),
            (Kind::Liveness, &container.liveness_probe),
            (Kind::Readiness, &container.readiness_probe),
        ];
        let mut known = ContainerProbes::default();
        for (kind, _) in probes.iter().filter(|(_, probe)| probe.is_some()) {
            *known.slot(*kind) = Some(match (kind, adopted) {
                // a container that was ready stays so until a probe says otherwise
                (Kind::Startup, Some(_)) => Some(true),
                (Kind::Readiness, Some(ready)) => Some(ready),
                _ => None,
            });
        }
        self.results.lock().insert(target.container_id.clone(), known);
        let mut tasks = Vec::new();
        for (kind, probe) in probes {
            let Some(probe) = probe else { continue };
            let run = Run {
                kind,
                probe: probe.clone(),
                target: target.clone(),
                runtime: self.runtime.clone(),
                recorder: self.recorder.clone(),
                about: about.clone(),
                results: self.results.clone(),
                notify: self.notify.clone(),
                delay: if adopted.is_some() {
                    Duration::ZERO
                } else {
                    seconds(probe.initial_delay_seconds, 0)
                },
            };
            tasks.push((kind, tokio::spawn(run.run())));
        }
        self.tasks.insert(target.container_id.clone(), tasks);
    }

    /// Ends the probes of containers that no longer run; their last results go, too.
    pub fn keep(&mut self, running: &[&str]) {
        let mut results = self.results.lock();
        self.tasks.retain(|id, tasks| {
            let keep = running.contains(&id.as_str());
            if !keep {
                results.remove(id);
                tasks.iter().for_each(|(_, task)| task.abort());
            }
            keep
        });
    }

    /// The pod is ending: only readiness still matters.
    pub fn stop_liveness_and_startup(&mut self) {
        for (_, task) in self.tasks.values().flatten().filter(|(kind, _)| *kind != Kind::Readiness) {
            task.abort();
        }
    }

    pub fn stop(&mut self) {
        self.tasks.values().flatten().for_each(|(_, task)| task.abort());
        self.tasks.clear();
    }

    fn result(&self, id: &str) -> ContainerProbes {
        self.results.lock().get(id).copied().unwrap_or_default()
    }
}

impl ProbeView for Probes {
    fn liveness(&self, id: &str) -> Option<bool> {
        self.result(id).liveness.flatten()
    }

    fn startup(&self, id: &str) -> Option<bool> {
        self.result(id).startup.flatten()
    }
}

impl ProbeStatus for Probes {
    fn started(&self, id: &str) -> Option<bool> {
        self.result(id).startup.map(|result| result == Some(true))
    }

    fn ready(&self, id: &str) -> Option<bool> {
        self.result(id).readiness.map(|result| result == Some(true))
    }
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default))
}

/// Counts results until they say something: so many successes or failures in a row.
#[derive(Debug)]
struct Threshold {
    success: u32,
    failure: u32,
    last: Option<bool>,
    run: u32,
}

impl Threshold {
    fn new(probe: &Probe) -> Self {
        let at_least_one = |value: Option<i32>, default| {
            value.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default)
        };
        Self {
            success: at_least_one(probe.success_threshold, 1),
            failure: at_least_one(probe.failure_threshold, 3),
            last: None,
            run: 0,
        }
    }

    /// The verdict that a result completes.
    fn count(&mut self, success: bool) -> Option<bool> {
        if self.last == Some(success) {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = Some(success);
            self.run = 1;
        }
        let needed = if success { self.success } else { self.failure };
        (self.run >= needed).then_some(success)
    }
}

/// One probe of one run of a container.
struct Run {
    kind: Kind,
    probe: Probe,
    target: Target,
    runtime: Arc<dyn Runtime>,
    recorder: Recorder,
    about: ObjectReference,
    results: Results,
    notify: Notify,
    delay: Duration,
}

impl Run {
    async fn run(self) {
        tokio::time::sleep(self.delay).await;
        let period = seconds(self.probe.period_seconds, 10);
        let mut threshold = Threshold::new(&self.probe);
        // liveness and readiness wait for the startup probe
        while self.kind != Kind::Startup && self.waits_for_startup() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let outcome = run_once(&self.probe, &self.target, self.runtime.as_ref()).await;
            self.tell(&outcome);
            let success = match outcome {
                Outcome::Success | Outcome::Warning(_) => true,
                Outcome::Failure(_) => false,
                // nothing was learned
                Outcome::Unknown(_) => continue,
            };
            let Some(verdict) = threshold.count(success) else { continue };
            self.publish(verdict);
            // after these the container is killed, or its startup is over
            let over = match self.kind {
                Kind::Startup => true,
                Kind::Liveness => !verdict,
                Kind::Readiness => false,
            };
            if over {
                return;
            }
        }
    }

    fn waits_for_startup(&self) -> bool {
        let results = self.results.lock();
        let own = results.get(&self.target.container_id);
        own.is_some_and(|probes| matches!(probes.startup, Some(None | Some(false))))
    }

    fn publish(&self, verdict: bool) {
        let mut results = self.results.lock();
        let Some(probes) = results.get_mut(&self.target.container_id) else { return };
        let slot = probes.slot(self.kind);
        if *slot != Some(Some(verdict)) {
            *slot = Some(Some(verdict));
            drop(results);
            (self.notify)();
        }
    }

    fn tell(&self, outcome: &Outcome) {
        let kind = self.kind.name();
        match outcome {
            Outcome::Success => {}
            Outcome::Warning(message) => {
                self.recorder.warning(
                    &self.about,
                    "ProbeWarning",
                    format!("{kind} probe warning: {message}"),
                );
            }
            Outcome::Failure(message) => {
                self.recorder.warning(&self.about, "Unhealthy", format!("{kind} probe failed: {message}"));
            }
            Outcome::Unknown(message) => {
                self.recorder.warning(
                    &self.about,
                    "Unhealthy",
                    format!("{kind} probe errored and resulted in unknown state: {message}"),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_need_their_thresholds() {
        let probe = Probe { success_threshold: Some(2), failure_threshold: Some(3), ..Probe::default() };
        let mut threshold = Threshold::new(&probe);
        let results = [false, false, true, false, false, false, false, true, true, true];
        let verdicts: Vec<Option<bool>> = results.into_iter().map(|result| threshold.count(result)).collect();
        let (no, yes) = (Some(false), Some(true));
        assert_eq!(verdicts, [None, None, None, None, None, no, no, None, yes, yes]);
    }
}
