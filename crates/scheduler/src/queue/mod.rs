//! Pods that wait for a node: ready ones in the order of the `QueueSort` plugin, failed ones for the end of their
//! back-off, and those that no node can take for a change in the cluster that may help them.
//!
//! No clock: callers say what time it is.

mod heap;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::framework::{ClusterEvent, Framework};
use crate::pod_info::{PodInfo, Uid};

use heap::Heap;

/// Upstream's defaults.
pub const POD_INITIAL_BACKOFF: Duration = Duration::from_secs(1);
pub const POD_MAX_BACKOFF: Duration = Duration::from_secs(10);
/// After this a pod that nothing seems to help is tried anyway.
const MAX_IN_UNSCHEDULABLE: Duration = Duration::from_secs(5 * 60);
/// How often it is looked for such pods.
const FLUSH_PERIOD: Duration = Duration::from_secs(30);
/// Back-offs that end within the same second are as if they ended together: priority decides.
const ORDERING_WINDOW: Duration = Duration::from_secs(1);

/// A pod with its history in the queue.
#[derive(Clone, Debug)]
pub struct QueuedPod {
    pub info: Arc<PodInfo>,
    /// When it was last put in.
    pub timestamp: Instant,
    /// Grows with every pod, so that equals come out in the order in which they went in.
    pub sequence: u64,
    pub attempts: u32,
    pub unschedulable_count: u32,
    pub consecutive_errors: u32,
    pub backoff_expiration: Instant,
    /// Which plugins turned it away; empty after an error.
    pub unschedulable_plugins: BTreeSet<&'static str>,
    /// A `PreEnqueue` plugin keeps it from being tried.
    pub gated: bool,
}

impl QueuedPod {
    pub fn new(info: Arc<PodInfo>, now: Instant, sequence: u64) -> Self {
        Self {
            info,
            timestamp: now,
            sequence,
            attempts: 0,
            unschedulable_count: 0,
            consecutive_errors: 0,
            backoff_expiration: now,
            unschedulable_plugins: BTreeSet::new(),
            gated: false,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    pub initial: Duration,
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: POD_INITIAL_BACKOFF, max: POD_MAX_BACKOFF }
    }
}

impl Backoff {
    /// Doubles with each failure. Errors in a row count alone while there are any.
    fn duration(self, pod: &QueuedPod) -> Duration {
        let count = if pod.consecutive_errors > 0 { pod.consecutive_errors } else { pod.unschedulable_count };
        match count {
            0 => Duration::ZERO,
            count => {
                self.initial.saturating_mul(1_u32.checked_shl(count - 1).unwrap_or(u32::MAX)).min(self.max)
            }
        }
    }
}

pub struct SchedulingQueue {
    framework: Arc<Framework>,
    backoff: Backoff,
    active: Heap,
    /// Pods worth another try after their back-off, or sooner when nothing else is to be done.
    backing_off: Heap,
    /// Pods whose last try broke off with an error: always after their back-off.
    backing_off_errors: Heap,
    unschedulable: HashMap<Uid, QueuedPod>,
    next_flush: Option<Instant>,
    sequence: u64,
}

impl SchedulingQueue {
    pub fn new(framework: Arc<Framework>, backoff: Backoff, now: Instant) -> Self {
        let by_expiration = |framework: &Arc<Framework>| {
            let framework = framework.clone();
            let window = move |pod: &QueuedPod| {
                pod.backoff_expiration.saturating_duration_since(now).as_secs() / ORDERING_WINDOW.as_secs()
            };
            Heap::new(move |a, b| {
                let (first, second) = (window(a), window(b));
                first < second || (first == second && framework.less(a, b))
            })
        };
        let sort = framework.clone();
        Self {
            backoff,
            active: Heap::new(move |a, b| sort.less(a, b)),
            backing_off: by_expiration(&framework),
            backing_off_errors: by_expiration(&framework),
            unschedulable: HashMap::new(),
            next_flush: None,
            sequence: 0,
            framework,
        }
    }

    /// How many pods are ready, backing off and unschedulable.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.active.len(), self.backing_off.len() + self.backing_off_errors.len(), self.unschedulable.len())
    }

    pub fn contains(&self, uid: &Uid) -> bool {
        self.active.contains(uid)
            || self.backing_off.contains(uid)
            || self.backing_off_errors.contains(uid)
            || self.unschedulable.contains_key(uid)
    }

    /// A pod that has appeared.
    pub fn add(&mut self, info: Arc<PodInfo>, now: Instant) {
        self.sequence += 1;
        let pod = QueuedPod::new(info, now, self.sequence);
        self.activate(pod, now);
    }

    /// A pod has changed. It keeps its place, unless the change may make it fit.
    pub fn update(&mut self, old: &PodInfo, new: Arc<PodInfo>, now: Instant) {
        let uid = &new.uid;
        for heap in [&mut self.active, &mut self.backing_off, &mut self.backing_off_errors] {
            if let Some(mut pod) = heap.remove(uid) {
                pod.info = new;
                heap.push(pod);
                return;
            }
        }
        let Some(pod) = self.unschedulable.get_mut(uid) else { return self.add(new, now) };
        pod.info = new.clone();
        let event = ClusterEvent::target_pod(old, &new);
        if self.framework.is_worth_requeuing(&new, &pod.unschedulable_plugins, &event)
            && let Some(pod) = self.unschedulable.remove(&new.uid)
        {
            self.requeue(pod, now);
        }
    }

    pub fn delete(&mut self, uid: &Uid) {
        let _ = self.active.remove(uid).is_some()
            || self.backing_off.remove(uid).is_some()
            || self.backing_off_errors.remove(uid).is_some()
            || self.unschedulable.remove(uid).is_some();
    }

    /// The next pod to try. When no pod is ready, one that is backing off goes early: waiting helps nobody then.
    pub fn pop(&mut self, now: Instant) -> Option<QueuedPod> {
        self.flush(now);
        let mut pod = self.active.pop().or_else(|| self.backing_off.pop())?;
        pod.attempts += 1;
        pod.unschedulable_plugins.clear();
        Some(pod)
    }

    /// Puts back a pod whose try failed: with the plugins that turned it away, or with none after an error.
    pub fn add_unschedulable(&mut self, mut pod: QueuedPod, now: Instant) {
        if self.contains(&pod.info.uid) {
            return;
        }
        pod.timestamp = now;
        if pod.unschedulable_plugins.is_empty() {
            pod.consecutive_errors = pod.consecutive_errors.saturating_add(1);
            pod.backoff_expiration = now + self.backoff.duration(&pod);
            self.backing_off_errors.push(pod);
        } else {
            pod.consecutive_errors = 0;
            pod.unschedulable_count = pod.unschedulable_count.saturating_add(1);
            pod.backoff_expiration = now + self.backoff.duration(&pod);
            self.park(pod, now);
        }
    }

    /// Puts back a pod that was turned away while it waited to be bound. What happened since it was popped was not
    /// watched for it, so that it is tried again after its back-off whatever that was.
    pub fn add_rejected_while_binding(&mut self, mut pod: QueuedPod, now: Instant) {
        if self.contains(&pod.info.uid) {
            return;
        }
        pod.timestamp = now;
        pod.consecutive_errors = 0;
        pod.unschedulable_count = pod.unschedulable_count.saturating_add(1);
        pod.backoff_expiration = now + self.backoff.duration(&pod);
        self.backing_off_errors.push(pod);
    }

    /// Something has changed: pods that it may help are tried again.
    pub fn move_all(&mut self, event: &ClusterEvent<'_>, now: Instant) {
        if self.unschedulable.is_empty()
            || event.actions().is_empty()
            || !self.framework.is_of_interest(event)
        {
            return;
        }
        let helped: Vec<Uid> = self
            .unschedulable
            .values()
            .filter(|pod| self.framework.is_worth_requeuing(&pod.info, &pod.unschedulable_plugins, event))
            .map(|pod| pod.info.uid.clone())
            .collect();
        for uid in helped {
            if let Some(pod) = self.unschedulable.remove(&uid) {
                self.requeue(pod, now);
            }
        }
    }

    /// When [`SchedulingQueue::pop`] has something to give although nothing happens until then.
    pub fn next_wakeup(&self) -> Option<Instant> {
        let error = self.backing_off_errors.peek().map(|pod| pod.backoff_expiration);
        [error, self.next_flush].into_iter().flatten().min()
    }

    fn requeue(&mut self, pod: QueuedPod, now: Instant) {
        if now < pod.backoff_expiration {
            if let Some(pod) = self.gate(pod, now) {
                self.backing_off.push(pod);
            }
        } else {
            self.activate(pod, now);
        }
    }

    fn activate(&mut self, pod: QueuedPod, now: Instant) {
        if let Some(pod) = self.gate(pod, now) {
            self.active.push(pod);
        }
    }

    /// Lets a pod through that no `PreEnqueue` plugin holds back; others wait for a change.
    fn gate(&mut self, mut pod: QueuedPod, now: Instant) -> Option<QueuedPod> {
        match self.framework.run_pre_enqueue(&pod.info) {
            Ok(()) => {
                pod.gated = false;
                Some(pod)
            }
            Err(status) => {
                pod.gated = true;
                pod.unschedulable_plugins.insert(status.plugin);
                self.park(pod, now);
                None
            }
        }
    }

    fn park(&mut self, pod: QueuedPod, now: Instant) {
        self.next_flush.get_or_insert(now + FLUSH_PERIOD);
        self.unschedulable.insert(pod.info.uid.clone(), pod);
    }

    fn flush(&mut self, now: Instant) {
        for errors in [true, false] {
            let heap = if errors { &mut self.backing_off_errors } else { &mut self.backing_off };
            while let Some(first) = heap.peek()
                && first.backoff_expiration <= now
                && let Some(pod) = heap.pop()
            {
                self.active.push(pod);
            }
        }
        if self.next_flush.is_some_and(|at| at <= now) {
            let stale: Vec<Uid> = self
                .unschedulable
                .values()
                .filter(|pod| now.saturating_duration_since(pod.timestamp) > MAX_IN_UNSCHEDULABLE)
                .map(|pod| pod.info.uid.clone())
                .collect();
            for uid in stale {
                if let Some(pod) = self.unschedulable.remove(&uid) {
                    self.requeue(pod, now);
                }
            }
            self.next_flush = (!self.unschedulable.is_empty()).then(|| now + FLUSH_PERIOD);
        }
    }
}
