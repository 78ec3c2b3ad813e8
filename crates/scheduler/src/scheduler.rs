//! The scheduler itself: cache, queue and algorithm in one hand, no IO and no clock. Changes of the cluster go in,
//! decisions come out; whoever runs it carries them out and reports what failed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use component_helpers::conditions::is_pod_terminal;
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::algorithm::{Algorithm, Failure};
use crate::cache::Cache;
use crate::framework::{ClusterEvent, CycleState, FitError, Framework, PostFilterResult, Status, Waiting};
use crate::pod_info::{PodInfo, Uid, node_name};
use crate::queue::{Backoff, QueuedPod, SchedulingQueue};

/// Stands for the plugin that turned a pod away when there is no node at all: any event may change that.
const NO_NODES: &str = "NoNodes";
const NO_NODES_MESSAGE: &str = "no nodes available to schedule pods";

/// A pod on its way to a node.
pub struct Binding {
    pub queued: QueuedPod,
    pub node: Arc<str>,
    pub state: CycleState,
    /// Plugins hold the pod back.
    pub waiting: Option<Waiting>,
}

/// A pod that found no node, and what its status is to say.
#[derive(Clone, Debug)]
pub struct Rejection {
    pub pod: Arc<PodInfo>,
    /// `Unschedulable` or `SchedulerError`.
    pub reason: &'static str,
    pub message: String,
    pub nominated_node: Option<String>,
}

/// What came of one cycle.
pub enum Decision {
    Bind(Box<Binding>),
    Reject(Box<Rejection>),
    /// The pod is being deleted.
    Skip(Arc<PodInfo>),
}

pub struct Scheduler {
    scheduler_name: String,
    framework: Arc<Framework>,
    cache: Cache,
    queue: SchedulingQueue,
    algorithm: Algorithm,
    /// Pods being bound that the API still shows without a node, as it last showed them.
    binding: HashMap<Uid, Arc<PodInfo>>,
}

impl Scheduler {
    pub fn new(
        scheduler_name: &str,
        framework: Arc<Framework>,
        algorithm: Algorithm,
        backoff: Backoff,
        now: Instant,
    ) -> Self {
        Self {
            scheduler_name: scheduler_name.to_owned(),
            queue: SchedulingQueue::new(framework.clone(), backoff, now),
            framework,
            cache: Cache::default(),
            algorithm,
            binding: HashMap::new(),
        }
    }

    pub fn framework(&self) -> &Arc<Framework> {
        &self.framework
    }

    pub fn queue(&self) -> &SchedulingQueue {
        &self.queue
    }

    pub fn cache(&mut self) -> &mut Cache {
        &mut self.cache
    }

    /// A node has appeared, changed or gone.
    pub fn on_node(&mut self, old: Option<&Arc<Node>>, new: Option<&Arc<Node>>, now: Instant) {
        match (old, new) {
            (_, Some(node)) => self.cache.set_node(node.clone()),
            (Some(node), None) => self.cache.remove_node(node.metadata.name.as_deref().unwrap_or_default()),
            (None, None) => return,
        }
        let event = ClusterEvent::node(old.map(AsRef::as_ref), new.map(AsRef::as_ref));
        self.queue.move_all(&event, now);
    }

    /// A pod has appeared, changed or gone. One that has come to its end is as good as gone.
    pub fn on_pod(&mut self, old: Option<&Arc<Pod>>, new: Option<&Arc<Pod>>, now: Instant) {
        let new = new.filter(|pod| !is_pod_terminal(pod));
        if let (Some(before), Some(after)) = (old, new)
            && before.metadata.uid != after.metadata.uid
        {
            self.pod_gone(before, now);
            return self.on_pod(None, Some(after), now);
        }
        match (old, new) {
            (_, Some(pod)) if node_name(pod).is_some() => self.pod_assigned(PodInfo::new(pod.clone()), now),
            (old, Some(pod)) if self.is_responsible_for(pod) => {
                self.pod_waiting(old, PodInfo::new(pod.clone()), now);
            }
            (Some(pod), None) => self.pod_gone(pod, now),
            _ => {}
        }
    }

    fn is_responsible_for(&self, pod: &Pod) -> bool {
        let name = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref());
        name.unwrap_or_default() == self.scheduler_name
    }

    fn pod_assigned(&mut self, pod: Arc<PodInfo>, now: Instant) {
        self.queue.delete(&pod.uid);
        self.binding.remove(&pod.uid);
        // for those that wait, an assumption come true is new
        let known = (!self.cache.is_assumed(&pod.uid)).then(|| self.cache.pod(&pod.uid).cloned()).flatten();
        self.cache.set_pod(pod.clone());
        self.queue.move_all(&ClusterEvent::assigned_pod(known.as_deref(), Some(&pod)), now);
    }

    fn pod_waiting(&mut self, old: Option<&Arc<Pod>>, pod: Arc<PodInfo>, now: Instant) {
        if let Some(latest) = self.binding.get_mut(&pod.uid) {
            let deletion_begins = pod.is_being_deleted() && !latest.is_being_deleted();
            *latest = pod.clone();
            if deletion_begins {
                self.forget_assumed(&pod.uid, now);
            }
            return;
        }
        match old {
            None => self.queue.add(pod, now),
            Some(old) => self.queue.update(&PodInfo::new(old.clone()), pod, now),
        }
    }

    fn pod_gone(&mut self, pod: &Pod, now: Instant) {
        let uid: Uid = pod.metadata.uid.as_deref().unwrap_or_default().into();
        self.queue.delete(&uid);
        if self.binding.remove(&uid).is_some() {
            self.forget_assumed(&uid, now);
        } else if let Some(gone) = self.cache.remove_pod(&uid) {
            self.queue.move_all(&ClusterEvent::assigned_pod(Some(&gone), None), now);
        }
    }

    /// Gives back at once what a pod that is being bound was to take. Its binding will fail.
    fn forget_assumed(&mut self, uid: &Uid, now: Instant) {
        self.framework.waiting_pods().reject(uid, Status::unschedulable("the pod is being deleted"));
        if let Some(gone) = self.cache.forget(uid) {
            self.queue.move_all(&ClusterEvent::assigned_pod(Some(&gone), None), now);
        }
    }

    /// When [`Scheduler::schedule_one`] has something to do although nothing happens until then.
    pub fn next_wakeup(&self) -> Option<Instant> {
        self.queue.next_wakeup()
    }

    /// Takes the next pod and decides. `None` when no pod is to be tried now.
    pub fn schedule_one(&mut self, now: Instant) -> Option<Decision> {
        let queued = self.queue.pop(now)?;
        if queued.info.is_being_deleted() {
            return Some(Decision::Skip(queued.info));
        }
        let mut state = CycleState::default();
        let snapshot = self.cache.snapshot();
        let pod = queued.info.clone();
        let found = self.algorithm.schedule(&self.framework, &mut state, &pod, snapshot);
        let rejection = match found {
            Ok(node) => match self.assume(&mut state, &queued.info, node) {
                Ok((node, waiting)) => {
                    self.binding.insert(queued.info.uid.clone(), queued.info.clone());
                    return Some(Decision::Bind(Box::new(Binding { queued, node, state, waiting })));
                }
                Err(failure) => self.reject(queued, failure, None, now),
            },
            Err(Failure::Fit(mut error)) => {
                let nominated = match self.post_filter(&state, &pod, &mut error) {
                    Ok(nominated) => nominated,
                    Err(status) => return Some(self.reject(queued, Failure::Error(status), None, now)),
                };
                self.reject(queued, Failure::Fit(error), nominated, now)
            }
            Err(failure) => self.reject(queued, failure, None, now),
        };
        Some(rejection)
    }

    /// Counts the pod in on its node and asks `Reserve` and `Permit`; takes all back when one says no.
    fn assume(
        &mut self,
        state: &mut CycleState,
        pod: &Arc<PodInfo>,
        node: usize,
    ) -> Result<(Arc<str>, Option<Waiting>), Failure> {
        let name = self.cache.snapshot().node(node).name.clone();
        self.cache.assume(pod.clone(), node);
        let permitted = match self.framework.run_reserve(state, pod, &name) {
            Ok(()) => self.framework.run_permit(state, pod, &name).inspect_err(|_| {
                self.framework.run_unreserve(state, pod, &name);
            }),
            Err(status) => Err(status),
        };
        permitted.map(|waiting| (name, waiting)).map_err(|status| {
            self.cache.forget(&pod.uid);
            rejected_at(node, status)
        })
    }

    /// Lets plugins make room. `Some` names the node where they did, or says with an empty name that none did.
    fn post_filter(
        &mut self,
        state: &CycleState,
        pod: &PodInfo,
        error: &mut FitError,
    ) -> Result<Option<String>, Status> {
        if !self.framework.has_post_filter() {
            return Ok(None);
        }
        let snapshot = self.cache.snapshot();
        match self.framework.run_post_filter(state, pod, snapshot, &error.diagnosis)? {
            PostFilterResult::Resolved { nominated_node } => Ok(nominated_node),
            PostFilterResult::Unresolved(status) => {
                error.diagnosis.post_filter_message = status.message();
                Ok(None)
            }
        }
    }

    fn reject(
        &mut self,
        mut queued: QueuedPod,
        failure: Failure,
        nominated_node: Option<String>,
        now: Instant,
    ) -> Decision {
        let pod = queued.info.clone();
        let (reason, message) = match failure {
            Failure::NoNodes => {
                queued.unschedulable_plugins.insert(NO_NODES);
                ("Unschedulable", NO_NODES_MESSAGE.to_owned())
            }
            Failure::Fit(error) => {
                let message = error.to_string();
                queued.unschedulable_plugins = error.diagnosis.unschedulable_plugins;
                ("Unschedulable", message)
            }
            Failure::Error(status) => ("SchedulerError", status.message()),
        };
        self.queue.add_unschedulable(queued, now);
        Decision::Reject(Box::new(Rejection { pod, reason, message, nominated_node }))
    }

    /// Takes back a decision that could not be carried out. `None` when the pod has gone or has got a node.
    pub fn binding_failed(&mut self, binding: Binding, status: Status, now: Instant) -> Option<Rejection> {
        let Binding { mut queued, node, mut state, .. } = binding;
        let uid = queued.info.uid.clone();
        self.framework.run_unreserve(&mut state, &queued.info, &node);
        if let Some(freed) = self.cache.forget(&uid) {
            self.queue.move_all(&ClusterEvent::assigned_pod(Some(&freed), None), now);
        }
        let pod = self.binding.remove(&uid)?;
        queued.info = pod.clone();
        let (reason, message) = if status.is_rejected() {
            let mut error = FitError { all_nodes: 1, diagnosis: Default::default() };
            error.diagnosis.add(0, status);
            self.queue.add_rejected_while_binding(queued, now);
            ("Unschedulable", error.to_string())
        } else {
            self.queue.add_unschedulable(queued, now);
            ("SchedulerError", status.message())
        };
        Some(Rejection { pod, reason, message, nominated_node: None })
    }
}

/// A refusal at the chosen node reads as if that were the only node; an error stays an error.
fn rejected_at(node: usize, status: Status) -> Failure {
    if !status.is_rejected() {
        return Failure::Error(status);
    }
    let mut error = FitError { all_nodes: 1, diagnosis: Default::default() };
    error.diagnosis.add(node, status);
    Failure::Fit(Box::new(error))
}
