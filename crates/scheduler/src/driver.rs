//! Runs the scheduler: brings changes in, carries decisions out, and waits when there is nothing to do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use component_helpers::conditions::{POD_SCHEDULED, pod_condition, set_pod_condition};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::framework::{Framework, Status};
use crate::inbox::{Inbox, Item, Pair};
use crate::pod_info::PodInfo;
use crate::port::{EventType, Port, StatusChange};
use crate::scheduler::{Binding, Decision, Rejection, Scheduler};

/// How many calls of the API may be under way; no more pods are tried meanwhile.
const CALLS: usize = 512;
/// How long pods are tried in a row before other tasks have their turn.
const TURN: Duration = Duration::from_millis(1);
/// How long calls under way may take to end once all is to stop.
const GRACE: Duration = Duration::from_secs(5);
/// The longest message that an event may carry.
const NOTE_LENGTH_LIMIT: usize = 1024;

type Failed = (Box<Binding>, Status);

struct Calls {
    framework: Arc<Framework>,
    port: Arc<dyn Port>,
    limit: Arc<Semaphore>,
    failed: mpsc::Sender<Failed>,
    tasks: TaskTracker,
}

/// Schedules until cancelled.
pub async fn run(
    mut scheduler: Scheduler,
    inbox: Arc<Inbox>,
    port: Arc<dyn Port>,
    cancel: CancellationToken,
) {
    let (sender, mut failures) = mpsc::channel::<Failed>(CALLS);
    let calls = Calls {
        framework: scheduler.framework().clone(),
        port,
        limit: Arc::new(Semaphore::new(CALLS)),
        failed: sender,
        tasks: TaskTracker::new(),
    };
    let mut turn_began = Instant::now();
    while !cancel.is_cancelled() {
        let now = Instant::now();
        for item in inbox.take() {
            match item {
                Item::Node(Pair { old, new }) => scheduler.on_node(old.as_ref(), new.as_ref(), now),
                Item::Pod(Pair { old, new }) => scheduler.on_pod(old.as_ref(), new.as_ref(), now),
            }
        }
        while let Ok((binding, status)) = failures.try_recv() {
            binding_failed(&mut scheduler, &calls, *binding, status, now);
        }
        let permit = calls.limit.clone().try_acquire_owned().ok();
        let busy = permit.is_none();
        let decision = permit.and_then(|permit| Some((permit, scheduler.schedule_one(now)?)));
        if let Some((permit, decision)) = decision {
            calls.carry_out(decision, permit);
            if turn_began.elapsed() > TURN {
                tokio::task::yield_now().await;
                turn_began = Instant::now();
            }
            continue;
        }
        let wakeup = scheduler.next_wakeup().map(tokio::time::Instant::from_std);
        tokio::select! {
            () = cancel.cancelled() => {}
            () = inbox.changed() => {}
            Some((binding, status)) = failures.recv() => {
                binding_failed(&mut scheduler, &calls, *binding, status, Instant::now());
            }
            // given back at once: the next round takes one
            _ = calls.limit.acquire(), if busy => {}
            () = sleep_until(wakeup), if !busy && wakeup.is_some() => {}
        }
        turn_began = Instant::now();
    }
    calls.tasks.close();
    if tokio::time::timeout(GRACE, calls.tasks.wait()).await.is_err() {
        tracing::warn!("stopped while pods were still being bound");
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn binding_failed(scheduler: &mut Scheduler, calls: &Calls, binding: Binding, status: Status, now: Instant) {
    let pod = &binding.queued.info;
    tracing::debug!(pod = %pod.name(), node = %binding.node, status = status.message(), "a pod was not bound");
    if let Some(rejection) = scheduler.binding_failed(binding, status, now) {
        // without a permit: a report of a failure must not wait for what it reports
        calls.report(rejection, None);
    }
}

impl Calls {
    fn carry_out(&self, decision: Decision, permit: OwnedSemaphorePermit) {
        match decision {
            Decision::Bind(binding) => {
                let (framework, port) = (self.framework.clone(), self.port.clone());
                let (limit, failed) = (self.limit.clone(), self.failed.clone());
                self.tasks.spawn(async move {
                    let mut binding = binding;
                    if let Err(status) = bind(&framework, &port, &mut binding, permit, limit).await
                        && failed.send((binding, status)).await.is_err()
                    {
                        tracing::debug!("a pod was not bound while all stopped");
                    }
                });
            }
            Decision::Reject(rejection) => self.report(*rejection, Some(permit)),
            Decision::Skip(pod) => {
                let message = format!("skip schedule deleting pod: {}/{}", pod.namespace(), pod.name());
                self.port.event(&pod.pod, EventType::Warning, "FailedScheduling", message);
            }
        }
    }

    /// Tells users why a pod waits: an event, and the condition where that changes anything.
    fn report(&self, rejection: Rejection, permit: Option<OwnedSemaphorePermit>) {
        let pod = rejection.pod.clone();
        self.port.event(&pod.pod, EventType::Warning, "FailedScheduling", truncated(&rejection.message));
        let Some(change) = status_change(&pod.pod, &rejection, Timestamp::now()) else { return };
        let port = self.port.clone();
        self.tasks.spawn(async move {
            let _permit = permit;
            if let Err(error) = port.change_status(&pod.pod, &change).await {
                tracing::debug!(pod = %pod.name(), %error, "the condition of a pod could not be written");
            }
        });
    }
}

/// The binding cycle of one pod.
async fn bind(
    framework: &Framework,
    port: &Arc<dyn Port>,
    binding: &mut Binding,
    mut permit: OwnedSemaphorePermit,
    limit: Arc<Semaphore>,
) -> Result<(), Status> {
    let pod: &PodInfo = &binding.queued.info;
    if let Some(waiting) = binding.waiting.take() {
        drop(permit);
        waiting.answer().await?;
        permit = limit.acquire_owned().await.map_err(|_| Status::error("the scheduler has stopped"))?;
    }
    framework.run_pre_bind(&binding.state, pod, &binding.node).await?;
    framework.run_bind(&binding.state, pod, &binding.node).await?;
    drop(permit);
    let message = format!("Successfully assigned {}/{} to {}", pod.namespace(), pod.name(), binding.node);
    port.event(&pod.pod, EventType::Normal, "Scheduled", message);
    framework.run_post_bind(&binding.state, pod, &binding.node);
    Ok(())
}

fn truncated(message: &str) -> String {
    const MARK: &str = " ...";
    if message.len() <= NOTE_LENGTH_LIMIT {
        return message.to_owned();
    }
    format!("{}{MARK}", &message[..message.floor_char_boundary(NOTE_LENGTH_LIMIT - MARK.len())])
}

/// What is to be written into a pod's status, if that changes anything.
fn status_change(pod: &Pod, rejection: &Rejection, now: Timestamp) -> Option<StatusChange> {
    let condition = PodCondition {
        type_: POD_SCHEDULED.to_owned(),
        status: "False".to_owned(),
        reason: Some(rejection.reason.to_owned()),
        message: Some(rejection.message.clone()),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    };
    let mut conditions: Vec<PodCondition> = pod_condition(pod, POD_SCHEDULED).cloned().into_iter().collect();
    let conditions_change = set_pod_condition(&mut conditions, condition, now);
    let nominated = pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref());
    let nominated_node =
        rejection.nominated_node.clone().filter(|node| nominated.unwrap_or_default() != node.as_str());
    let condition = conditions.pop()?;
    (conditions_change || nominated_node.is_some()).then_some(StatusChange { condition, nominated_node })
}
