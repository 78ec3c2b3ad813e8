//! The plugins of a profile, by extension point, and how each point is run.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::{
    Applies, Bind, Bound, ClusterEvent, CycleState, Diagnosis, EnqueueExtensions, Filter, Permit,
    PermitResult, PostBind, PostFilter, PostFilterResult, PreBind, PreEnqueue, PreFilter, PreScore,
    QueueSort, QueueingHint, Reserve, Score, Status, Waiting, WaitingPods,
};
use crate::cache::Snapshot;
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::queue::QueuedPod;

/// Which plugins have no say in this cycle.
#[derive(Default)]
pub struct Skipped(BTreeSet<&'static str>);

pub struct Framework {
    queue_sort: Arc<dyn QueueSort>,
    enqueue_extensions: HashMap<&'static str, Arc<dyn EnqueueExtensions>>,
    pre_enqueue: Vec<Arc<dyn PreEnqueue>>,
    pre_filter: Vec<Arc<dyn PreFilter>>,
    filter: Vec<Arc<dyn Filter>>,
    post_filter: Vec<Arc<dyn PostFilter>>,
    pre_score: Vec<Arc<dyn PreScore>>,
    score: Vec<(Arc<dyn Score>, i64)>,
    reserve: Vec<Arc<dyn Reserve>>,
    permit: Vec<Arc<dyn Permit>>,
    pre_bind: Vec<Arc<dyn PreBind>>,
    bind: Vec<Arc<dyn Bind>>,
    post_bind: Vec<Arc<dyn PostBind>>,
    waiting: Arc<WaitingPods>,
}

/// Puts a profile together. Plugins run in the order in which they are added.
pub struct FrameworkBuilder(Framework);

impl FrameworkBuilder {
    pub fn new(queue_sort: Arc<dyn QueueSort>) -> Self {
        Self(Framework {
            queue_sort,
            enqueue_extensions: HashMap::new(),
            pre_enqueue: Vec::new(),
            pre_filter: Vec::new(),
            filter: Vec::new(),
            post_filter: Vec::new(),
            pre_score: Vec::new(),
            score: Vec::new(),
            reserve: Vec::new(),
            permit: Vec::new(),
            pre_bind: Vec::new(),
            bind: Vec::new(),
            post_bind: Vec::new(),
            waiting: Arc::default(),
        })
    }

    pub fn enqueue_extensions(mut self, plugin: Arc<dyn EnqueueExtensions>) -> Self {
        self.0.enqueue_extensions.insert(plugin.name(), plugin);
        self
    }

    pub fn pre_enqueue(mut self, plugin: Arc<dyn PreEnqueue>) -> Self {
        self.0.pre_enqueue.push(plugin);
        self
    }

    pub fn pre_filter(mut self, plugin: Arc<dyn PreFilter>) -> Self {
        self.0.pre_filter.push(plugin);
        self
    }

    pub fn filter(mut self, plugin: Arc<dyn Filter>) -> Self {
        self.0.filter.push(plugin);
        self
    }

    pub fn post_filter(mut self, plugin: Arc<dyn PostFilter>) -> Self {
        self.0.post_filter.push(plugin);
        self
    }

    pub fn pre_score(mut self, plugin: Arc<dyn PreScore>) -> Self {
        self.0.pre_score.push(plugin);
        self
    }

    pub fn score(mut self, plugin: Arc<dyn Score>, weight: i64) -> Self {
        self.0.score.push((plugin, weight));
        self
    }

    pub fn reserve(mut self, plugin: Arc<dyn Reserve>) -> Self {
        self.0.reserve.push(plugin);
        self
    }

    pub fn permit(mut self, plugin: Arc<dyn Permit>) -> Self {
        self.0.permit.push(plugin);
        self
    }

    pub fn pre_bind(mut self, plugin: Arc<dyn PreBind>) -> Self {
        self.0.pre_bind.push(plugin);
        self
    }

    pub fn bind(mut self, plugin: Arc<dyn Bind>) -> Self {
        self.0.bind.push(plugin);
        self
    }

    pub fn post_bind(mut self, plugin: Arc<dyn PostBind>) -> Self {
        self.0.post_bind.push(plugin);
        self
    }

    /// What plugins use to let pods go that they hold back.
    pub fn waiting_pods(&self) -> &Arc<WaitingPods> {
        &self.0.waiting
    }

    pub fn build(self) -> Framework {
        self.0
    }
}

impl Framework {
    pub fn less(&self, a: &QueuedPod, b: &QueuedPod) -> bool {
        self.queue_sort.less(a, b)
    }

    pub fn waiting_pods(&self) -> &Arc<WaitingPods> {
        &self.waiting
    }

    pub fn run_pre_enqueue(&self, pod: &PodInfo) -> Result<(), Status> {
        for plugin in &self.pre_enqueue {
            plugin.pre_enqueue(pod).map_err(|status| status.with_plugin(plugin.name()))?;
        }
        Ok(())
    }

    /// Whether any plugin wants to hear of an event.
    pub fn is_of_interest(&self, event: &ClusterEvent<'_>) -> bool {
        self.enqueue_extensions
            .values()
            .any(|plugin| plugin.events().iter().any(|wanted| event.is_of(*wanted)))
    }

    /// Whether an event may help a pod that these plugins turned away. A plugin that does not say which events
    /// matter to it is helped by all.
    pub fn is_worth_requeuing(
        &self,
        pod: &PodInfo,
        rejectors: &BTreeSet<&'static str>,
        event: &ClusterEvent<'_>,
    ) -> bool {
        rejectors.iter().any(|name| match self.enqueue_extensions.get(name) {
            None => true,
            Some(plugin) => {
                plugin.events().iter().any(|wanted| event.is_of(*wanted))
                    && plugin.is_schedulable_after(pod, event) == QueueingHint::Queue
            }
        })
    }

    /// Runs `PreFilter`; the nodes to which it narrows the search, if it does, and which plugins did so.
    pub fn run_pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<(Skipped, Option<BTreeSet<String>>, BTreeSet<&'static str>), Status> {
        let mut skipped = Skipped::default();
        let mut nodes: Option<BTreeSet<String>> = None;
        let mut narrowed_by = BTreeSet::new();
        for plugin in &self.pre_filter {
            let name = plugin.name();
            match plugin.pre_filter(state, pod, snapshot).map_err(|status| status.with_plugin(name))? {
                Applies::Everywhere => {}
                Applies::Skip => {
                    skipped.0.insert(name);
                }
                Applies::Nodes(allowed) => {
                    narrowed_by.insert(name);
                    let left = match nodes {
                        Some(nodes) => nodes.intersection(&allowed).cloned().collect(),
                        None => allowed,
                    };
                    if left.is_empty() {
                        let names: Vec<_> = narrowed_by.iter().copied().collect();
                        let message = match names.as_slice() {
                            [one] => format!("node(s) didn't satisfy plugin {one}"),
                            more => {
                                format!(
                                    "node(s) didn't satisfy plugin(s) [{}] simultaneously",
                                    more.join(" ")
                                )
                            }
                        };
                        return Err(Status::unresolvable(message).with_plugin(name));
                    }
                    nodes = Some(left);
                }
            }
        }
        Ok((skipped, nodes, narrowed_by))
    }

    /// The filters that have a say in this cycle.
    pub fn filters(&self, skipped: &Skipped) -> Vec<&dyn Filter> {
        self.filter.iter().map(AsRef::as_ref).filter(|plugin| !skipped.0.contains(plugin.name())).collect()
    }

    /// Tries each `PostFilter` plugin until one helps; what they say when none does.
    pub fn run_post_filter(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        diagnosis: &Diagnosis,
    ) -> Result<PostFilterResult, Status> {
        let mut said: Option<Status> = None;
        for plugin in &self.post_filter {
            let result = plugin.post_filter(state, pod, snapshot, diagnosis);
            match result.map_err(|status| status.with_plugin(plugin.name()))? {
                resolved @ PostFilterResult::Resolved { .. } => return Ok(resolved),
                PostFilterResult::Unresolved(status) => match &mut said {
                    Some(said) => said.reasons.extend(status.reasons),
                    None => said = Some(status.with_plugin(plugin.name())),
                },
            }
        }
        let none = Status { reasons: smallvec::SmallVec::new(), ..Status::unschedulable("") };
        Ok(PostFilterResult::Unresolved(said.unwrap_or(none)))
    }

    pub fn has_post_filter(&self) -> bool {
        !self.post_filter.is_empty()
    }

    pub fn has_score(&self) -> bool {
        !self.score.is_empty()
    }

    /// The weighted sum of all scores for each node.
    pub fn run_score(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        nodes: &[&NodeInfo],
        snapshot: &Snapshot,
    ) -> Result<Vec<i64>, Status> {
        let mut skipped = Skipped::default();
        for plugin in &self.pre_score {
            let applies = plugin.pre_score(state, pod, nodes, snapshot);
            if applies.map_err(|status| status.with_plugin(plugin.name()))? == Applies::Skip {
                skipped.0.insert(plugin.name());
            }
        }
        let mut totals = vec![0; nodes.len()];
        let mut scores = vec![0; nodes.len()];
        for (plugin, weight) in &self.score {
            if skipped.0.contains(plugin.name()) {
                continue;
            }
            scores.fill(0);
            plugin
                .score(state, pod, nodes, &mut scores)
                .map_err(|status| status.with_plugin(plugin.name()))?;
            plugin.normalize_score(&mut scores);
            for (total, score) in totals.iter_mut().zip(&scores) {
                *total += score * weight;
            }
        }
        Ok(totals)
    }

    /// Runs `Reserve`; takes everything back when one plugin cannot.
    pub fn run_reserve(&self, state: &mut CycleState, pod: &PodInfo, node: &str) -> Result<(), Status> {
        for plugin in &self.reserve {
            if let Err(status) = plugin.reserve(state, pod, node) {
                self.run_unreserve(state, pod, node);
                return Err(status.with_plugin(plugin.name()));
            }
        }
        Ok(())
    }

    pub fn run_unreserve(&self, state: &mut CycleState, pod: &PodInfo, node: &str) {
        for plugin in self.reserve.iter().rev() {
            plugin.unreserve(state, pod, node);
        }
    }

    /// Runs `Permit`; `Some` when plugins hold the pod back.
    pub fn run_permit(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        node: &str,
    ) -> Result<Option<Waiting>, Status> {
        let mut waits = Vec::new();
        for plugin in &self.permit {
            let result = plugin.permit(state, pod, node);
            match result.map_err(|status| status.with_plugin(plugin.name()))? {
                PermitResult::Allow => {}
                PermitResult::Wait(patience) => waits.push((plugin.name(), patience)),
            }
        }
        Ok((!waits.is_empty()).then(|| self.waiting.add(pod.uid.clone(), &waits)))
    }

    pub async fn run_pre_bind(&self, state: &CycleState, pod: &PodInfo, node: &str) -> Result<(), Status> {
        for plugin in &self.pre_bind {
            let done = plugin.pre_bind(state, pod, node).await;
            done.map_err(|status| failed_while("PreBind", plugin.name(), status))?;
        }
        Ok(())
    }

    pub async fn run_bind(&self, state: &CycleState, pod: &PodInfo, node: &str) -> Result<(), Status> {
        for plugin in &self.bind {
            let bound = plugin.bind(state, pod, node).await;
            match bound.map_err(|status| failed_while("Bind", plugin.name(), status))? {
                Bound::Yes => return Ok(()),
                Bound::Skip => {}
            }
        }
        Err(Status::error("no bind plugin bound the pod"))
    }

    pub fn run_post_bind(&self, state: &CycleState, pod: &PodInfo, node: &str) {
        for plugin in &self.post_bind {
            plugin.post_bind(state, pod, node);
        }
    }
}

/// Says in an error which plugin it came from; a refusal stays as it is.
fn failed_while(point: &str, plugin: &'static str, status: Status) -> Status {
    if status.is_rejected() {
        return status.with_plugin(plugin);
    }
    Status::error(format!("running {point} plugin {plugin:?}: {}", status.message())).with_plugin(plugin)
}
