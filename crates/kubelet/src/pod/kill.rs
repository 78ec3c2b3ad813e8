//! Ends containers: pre-stop hook, the turn of each where order matters, then the stop within the grace period.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use component_helpers::resource::is_restartable_init;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio_util::sync::CancellationToken;

use crate::pod::plan::{Kill, KillReason};
use crate::pod::{hooks, spec};
use crate::runtime::{ContainerState, PodState, Result};
use crate::shared::Shared;

/// Even a container that is given no time gets this much, to spare it a SIGKILL.
const MINIMUM_GRACE: Duration = Duration::from_secs(2);
const DEFAULT_GRACE: i64 = 30;

fn seconds(value: i64) -> Duration {
    Duration::from_secs(u64::try_from(value).unwrap_or_default())
}

/// The time that a container has from the first signal to the last.
pub fn grace_period(pod: &Pod, container: Option<&Container>, reason: KillReason) -> Duration {
    if let Some(grace) = pod.metadata.deletion_grace_period_seconds {
        return seconds(grace);
    }
    let of_probe = match reason {
        KillReason::StartupProbe => container.and_then(|c| c.startup_probe.as_ref()),
        KillReason::LivenessProbe => container.and_then(|c| c.liveness_probe.as_ref()),
        _ => None,
    };
    let own = of_probe.and_then(|probe| probe.termination_grace_period_seconds);
    seconds(own.or(spec::spec(pod).termination_grace_period_seconds).unwrap_or(DEFAULT_GRACE))
}

/// Ends one container.
pub async fn kill_container(shared: &Shared, pod: &Pod, kill: &Kill, pod_ip: &str) -> Result<()> {
    let container = spec::find_container(spec::spec(pod), &kill.name);
    let grace = grace_period(pod, container.as_ref(), kill.reason);
    let order = Order::none();
    stop(shared, pod, container.as_ref(), &kill.id, &kill.name, &kill.message, grace, pod_ip, &order).await
}

/// Ends all containers of a pod and its sandboxes. `grace` overrides what the pod says.
pub async fn kill_pod(shared: &Shared, pod: &Pod, state: &PodState, grace: Option<Duration>) -> Result<()> {
    let pod_spec = spec::spec(pod);
    let pod_ip = state.ips().first().cloned().unwrap_or_default();
    let alive: Vec<_> = state
        .containers
        .iter()
        .filter(|c| matches!(c.state, ContainerState::Running | ContainerState::Unknown))
        .collect();
    let order = Order::new(pod, alive.iter().map(|c| c.name.as_str()));
    let stops = alive.iter().map(|run| {
        let (order, pod_ip) = (&order, &pod_ip);
        async move {
            let container = spec::find_container(pod_spec, &run.name);
            let grace = grace.unwrap_or_else(|| grace_period(pod, container.as_ref(), KillReason::Other));
            stop(shared, pod, container.as_ref(), &run.id, &run.name, "", grace, pod_ip, order).await
        }
    });
    join_all(stops).await.into_iter().collect::<Result<Vec<()>>>()?;
    for sandbox in &state.sandboxes {
        match shared.runtime.stop_sandbox(&sandbox.id).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

async fn stop(
    shared: &Shared,
    pod: &Pod,
    container: Option<&Container>,
    id: &str,
    name: &str,
    message: &str,
    grace: Duration,
    pod_ip: &str,
    order: &Order,
) -> Result<()> {
    let about = shared.about_container(pod, name);
    let message = if message.is_empty() { format!("Stopping container {name}") } else { message.to_owned() };
    shared.recorder.normal(&about, "Killing", message);
    let deadline = Instant::now() + grace;
    let left = || deadline.saturating_duration_since(Instant::now());
    let pre_stop = container.and_then(|c| Some((c, c.lifecycle.as_ref()?.pre_stop.as_ref()?)));
    if let Some((container, hook)) = pre_stop.filter(|_| !grace.is_zero()) {
        let run = hooks::run(hook, pod, container, id, pod_ip, shared.runtime.as_ref(), grace);
        match tokio::time::timeout(grace, run).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(pod = spec::format(pod), container = name, %error, "the preStop hook failed");
                shared.recorder.warning(&about, "FailedPreStopHook", "PreStopHook failed");
            }
            Err(_) => {
                tracing::info!(
                    pod = spec::format(pod),
                    container = name,
                    "the preStop hook took all of the grace period"
                );
            }
        }
    }
    order.wait_for_turn(name, left()).await;
    let result = shared.runtime.stop_container(id, left().max(MINIMUM_GRACE)).await;
    order.ended(name);
    match result {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// The order in which containers end: main containers first, then sidecars, the last started first (KEP-753).
struct Order {
    ended: HashMap<String, CancellationToken>,
    /// For each sidecar, whom it waits for.
    before: HashMap<String, Vec<CancellationToken>>,
}

impl Order {
    fn none() -> Self {
        Self { ended: HashMap::new(), before: HashMap::new() }
    }

    fn new<'a>(pod: &Pod, alive: impl Iterator<Item = &'a str>) -> Self {
        let pod_spec = spec::spec(pod);
        let ended: HashMap<String, CancellationToken> =
            alive.map(|name| (name.to_owned(), CancellationToken::new())).collect();
        let mut before = HashMap::new();
        let mut earlier: Vec<CancellationToken> =
            pod_spec.containers.iter().filter_map(|c| ended.get(&c.name).cloned()).collect();
        for sidecar in spec::init_containers(pod_spec).iter().rev().filter(|c| is_restartable_init(c)) {
            before.insert(sidecar.name.clone(), earlier.clone());
            earlier.extend(ended.get(&sidecar.name).cloned());
        }
        Self { ended, before }
    }

    async fn wait_for_turn(&self, name: &str, at_most: Duration) {
        let Some(before) = self.before.get(name) else { return };
        let all = join_all(before.iter().map(CancellationToken::cancelled));
        // out of time: it ends with the others
        let _ = tokio::time::timeout(at_most, all).await;
    }

    fn ended(&self, name: &str) {
        if let Some(token) = self.ended.get(name) {
            token.cancel();
        }
    }
}

/// Removes what a pod has left in the runtime: containers, then sandboxes.
pub async fn remove_from_runtime(shared: &Arc<Shared>, state: &PodState) -> Result<()> {
    let gone = |result: Result<()>| match result {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    };
    for container in &state.containers {
        gone(shared.runtime.remove_container(&container.id).await)?;
    }
    for sandbox in &state.sandboxes {
        gone(shared.runtime.stop_sandbox(&sandbox.id).await)?;
        gone(shared.runtime.remove_sandbox(&sandbox.id).await)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(metadata: Value, spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a pod")
    }

    #[test]
    fn grace_comes_from_the_deletion_the_probe_or_the_pod() {
        let spec = json!({"terminationGracePeriodSeconds": 20, "containers": [
            {"name": "c", "livenessProbe": {"terminationGracePeriodSeconds": 7}}]});
        let grace = |metadata: Value, reason| {
            let pod = pod(metadata, spec.clone());
            grace_period(&pod, Some(&spec::spec(&pod).containers[0]), reason).as_secs()
        };
        assert_eq!(grace(json!({}), KillReason::Other), 20);
        assert_eq!(grace(json!({}), KillReason::LivenessProbe), 7);
        assert_eq!(grace(json!({}), KillReason::StartupProbe), 20);
        assert_eq!(grace(json!({"deletionGracePeriodSeconds": 3}), KillReason::LivenessProbe), 3);
    }

    #[tokio::test]
    async fn sidecars_end_last_and_in_reverse() {
        let pod = pod(
            json!({}),
            json!({"containers": [{"name": "a"}], "initContainers": [
            {"name": "s", "restartPolicy": "Always"}, {"name": "t", "restartPolicy": "Always"}]}),
        );
        let order = Order::new(&pod, ["a", "s", "t"].into_iter());
        let log = parking_lot::Mutex::new(Vec::new());
        let end = async |name: &'static str, took: u64| {
            order.wait_for_turn(name, Duration::from_secs(60)).await;
            tokio::time::sleep(Duration::from_millis(10 * took)).await;
            log.lock().push(name);
            order.ended(name);
        };
        tokio::join!(end("s", 0), end("t", 1), end("a", 5));
        assert_eq!(*log.lock(), ["a", "t", "s"]);
        let late = Order::new(&pod, ["a", "s"].into_iter());
        let started = Instant::now();
        late.wait_for_turn("s", Duration::from_millis(30)).await;
        assert!(started.elapsed() >= Duration::from_millis(30));
    }
}
