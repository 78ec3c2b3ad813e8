//! What a pod asks of a node: requests and limits over its containers, init containers, sidecars and overhead.
//!
//! The sum is part of the API (KEP-753 for sidecars, KEP-2837 for pod-level resources, KEP-1287 for resize): a
//! scheduler and a kubelet that disagree on it bounce pods off each other.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::amount::Amount;

pub const CPU: &str = "cpu";
pub const MEMORY: &str = "memory";
pub const EPHEMERAL_STORAGE: &str = "ephemeral-storage";
pub const PODS: &str = "pods";
pub const HUGEPAGES_PREFIX: &str = "hugepages-";

/// Amounts by resource name. An absent name is "not asked for", which is not the same as zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceList(BTreeMap<String, Amount>);

impl ResourceList {
    pub fn from_quantities(quantities: Option<&BTreeMap<String, Quantity>>) -> Self {
        Self(quantities.into_iter().flatten().map(|(name, q)| (name.clone(), Amount::of(q))).collect())
    }

    pub fn get(&self, name: &str) -> Option<Amount> {
        self.0.get(name).copied()
    }

    pub fn set(&mut self, name: &str, amount: Amount) {
        match self.0.get_mut(name) {
            Some(at) => *at = amount,
            None => {
                self.0.insert(name.to_owned(), amount);
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, Amount)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The amounts whose names pass.
    #[must_use]
    pub fn only(&self, pass: impl Fn(&str) -> bool) -> Self {
        Self(
            self.0
                .iter()
                .filter(|(name, _)| pass(name))
                .map(|(name, amount)| (name.clone(), *amount))
                .collect(),
        )
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn milli_cpu(&self) -> i64 {
        self.get(CPU).unwrap_or_default().milli_value()
    }

    pub fn memory(&self) -> i64 {
        self.get(MEMORY).unwrap_or_default().value()
    }

    pub fn add(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            self.set(name, self.get(name).unwrap_or_default() + amount);
        }
    }

    /// Raises every amount to the larger of the two.
    pub fn max(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            if self.get(name).is_none_or(|at| amount > at) {
                self.set(name, amount);
            }
        }
    }
}

impl<'a> FromIterator<(&'a str, Amount)> for ResourceList {
    fn from_iter<I: IntoIterator<Item = (&'a str, Amount)>>(iter: I) -> Self {
        Self(iter.into_iter().map(|(name, amount)| (name.to_owned(), amount)).collect())
    }
}

/// How [`pod_requests`] and [`pod_limits`] count. The default counts what the spec says, overhead included.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Also count what the status says is allocated and actuated: while a resize is under way, the larger of
    /// desired and actual holds the room.
    pub use_status: bool,
    pub exclude_overhead: bool,
    pub skip_pod_level: bool,
    /// What a container that asks for nothing is taken to ask for (the scheduler's scoring does so).
    pub non_missing_requests: ResourceList,
}

#[derive(Clone, Copy)]
enum Side {
    Requests,
    Limits,
}

/// The resources that a pod asks for as a whole.
pub fn pod_requests(pod: &Pod, options: &Options) -> ResourceList {
    let mut total = aggregate(pod, options, Side::Requests);
    if !options.skip_pod_level {
        pod_level(pod, options, Side::Requests, &mut total);
    }
    if !options.exclude_overhead {
        total.add(&overhead(pod));
    }
    total
}

/// The limits of a pod as a whole; a resource that no container limits has no entry.
pub fn pod_limits(pod: &Pod, options: &Options) -> ResourceList {
    let mut total = aggregate(pod, options, Side::Limits);
    if !options.skip_pod_level {
        pod_level(pod, options, Side::Limits, &mut total);
    }
    if !options.exclude_overhead {
        for (name, amount) in overhead(pod).iter() {
            if let Some(limit) = total.get(name).filter(|limit| !limit.is_zero()) {
                total.set(name, limit + amount);
            }
        }
    }
    total
}

pub fn container_requests(container: &Container) -> ResourceList {
    ResourceList::from_quantities(container.resources.as_ref().and_then(|r| r.requests.as_ref()))
}

pub fn container_limits(container: &Container) -> ResourceList {
    ResourceList::from_quantities(container.resources.as_ref().and_then(|r| r.limits.as_ref()))
}

/// Whether pod-level resources (KEP-2837) can be set for a resource.
pub fn is_supported_pod_level_resource(name: &str) -> bool {
    name == CPU || name == MEMORY || name.starts_with(HUGEPAGES_PREFIX)
}

/// Whether an init container goes on running beside the main containers (a sidecar, KEP-753).
pub fn is_restartable_init(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Whether the kubelet has said that a resize can never fit its node.
pub fn is_resize_infeasible(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions
        .into_iter()
        .find(|c| c.type_ == "PodResizePending")
        .is_some_and(|c| c.reason.as_deref() == Some("Infeasible"))
}

fn overhead(pod: &Pod) -> ResourceList {
    ResourceList::from_quantities(pod.spec.as_ref().and_then(|s| s.overhead.as_ref()))
}

fn pod_level(pod: &Pod, options: &Options, side: Side, total: &mut ResourceList) {
    let Some(resources) = pod.spec.as_ref().and_then(|s| s.resources.as_ref()) else { return };
    let spec = match side {
        Side::Requests => ResourceList::from_quantities(resources.requests.as_ref()),
        Side::Limits => ResourceList::from_quantities(resources.limits.as_ref()),
    };
    let mut effective = None;
    if options.use_status
        && let Some(status) = &pod.status
        && let Some(actuated) = &status.resources
    {
        let mut state = match side {
            Side::Requests => ResourceList::from_quantities(actuated.requests.as_ref()),
            Side::Limits => ResourceList::from_quantities(actuated.limits.as_ref()),
        };
        if matches!(side, Side::Requests) {
            state.max(&ResourceList::from_quantities(status.allocated_resources.as_ref()));
        }
        if !is_resize_infeasible(pod) {
            state.max(&spec);
        }
        effective = Some(state);
    }
    for (name, amount) in spec.iter().filter(|(name, _)| is_supported_pod_level_resource(name)) {
        let amount = effective.as_ref().map_or(amount, |e| e.get(name).unwrap_or_default());
        total.set(name, amount);
    }
}

fn aggregate(pod: &Pod, options: &Options, side: Side) -> ResourceList {
    let mut total = ResourceList::default();
    let Some(spec) = &pod.spec else { return total };
    let statuses = Statuses::of(pod, options);
    for container in &spec.containers {
        total.add(&effective(pod, container, options, side, statuses.find(&container.name)));
    }
    // While the n-th init container runs, all sidecars before it run too.
    let mut sidecars = ResourceList::default();
    let mut initializing = ResourceList::default();
    for container in spec.init_containers.iter().flatten() {
        let restartable = is_restartable_init(container);
        let status = if restartable { statuses.find(&container.name) } else { None };
        let own = effective(pod, container, options, side, status);
        if restartable {
            total.add(&own);
            sidecars.add(&own);
            initializing.max(&sidecars);
        } else {
            let mut during = own;
            during.add(&sidecars);
            initializing.max(&during);
        }
    }
    total.max(&initializing);
    total
}

/// The container statuses of a pod, when they are to be counted.
struct Statuses<'a>(Vec<&'a ContainerStatus>);

impl<'a> Statuses<'a> {
    fn of(pod: &'a Pod, options: &Options) -> Self {
        let Some(status) = pod.status.as_ref().filter(|_| options.use_status) else {
            return Self(Vec::new());
        };
        let main = status.container_statuses.iter().flatten();
        Self(main.chain(status.init_container_statuses.iter().flatten()).collect())
    }

    fn find(&self, name: &str) -> Option<&'a ContainerStatus> {
        self.0.iter().copied().find(|s| s.name == name)
    }
}

fn effective(
    pod: &Pod,
    container: &Container,
    options: &Options,
    side: Side,
    status: Option<&ContainerStatus>,
) -> ResourceList {
    let mut own = match side {
        Side::Requests => container_requests(container),
        Side::Limits => container_limits(container),
    };
    if let Some(status) = status
        && let Some(actuated) = &status.resources
    {
        let mut state = match side {
            Side::Requests => ResourceList::from_quantities(actuated.requests.as_ref()),
            Side::Limits => ResourceList::from_quantities(actuated.limits.as_ref()),
        };
        if matches!(side, Side::Requests) {
            state.max(&ResourceList::from_quantities(status.allocated_resources.as_ref()));
        }
        if !is_resize_infeasible(pod) {
            state.max(&own);
        }
        own = state;
    }
    if matches!(side, Side::Requests) {
        for (name, amount) in options.non_missing_requests.iter() {
            if own.get(name).is_none() {
                own.set(name, amount);
            }
        }
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(value: Value) -> Pod {
        serde_json::from_value(value).expect("a pod")
    }

    fn container(name: &str, cpu: &str, restartable: bool) -> Value {
        let mut c = json!({"name": name, "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}});
        if restartable {
            c["restartPolicy"] = "Always".into();
        }
        c
    }

    #[test]
    fn init_containers_and_sidecars_share_the_room() {
        // (containers, init containers as (cpu, sidecar), expected milli cpu)
        let cases: &[(&[&str], &[(&str, bool)], i64)] = &[
            (&["1", "500m"], &[], 1500),
            (&["1"], &[("3", false)], 3000),
            (&["1"], &[("3", true)], 4000),
            (&["1"], &[("1", true), ("5", false)], 6000),
            (&["1"], &[("5", false), ("1", true)], 5000),
            (&["1"], &[("1", true), ("2", false), ("2", true)], 4000),
        ];
        for (main, init, want) in cases {
            let containers: Vec<Value> = main.iter().map(|c| container("c", c, false)).collect();
            let inits: Vec<Value> = init.iter().map(|(c, s)| container("i", c, *s)).collect();
            let pod = pod(json!({"spec": {"containers": containers, "initContainers": inits}}));
            assert_eq!(pod_requests(&pod, &Options::default()).milli_cpu(), *want, "{main:?} {init:?}");
            assert_eq!(pod_limits(&pod, &Options::default()).milli_cpu(), *want, "{main:?} {init:?}");
        }
    }

    #[test]
    fn overhead_is_added_to_requests_always_and_to_limits_that_exist() {
        let pod = pod(json!({"spec": {
            "overhead": {"cpu": "100m", "memory": "10"},
            "containers": [{"name": "a", "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}}],
        }}));
        let requests = pod_requests(&pod, &Options::default());
        assert_eq!((requests.milli_cpu(), requests.memory()), (1100, 10));
        let limits = pod_limits(&pod, &Options::default());
        assert_eq!((limits.milli_cpu(), limits.get(MEMORY)), (1100, None));
        let bare = Options { exclude_overhead: true, ..Options::default() };
        assert_eq!(pod_requests(&pod, &bare).milli_cpu(), 1000);
    }

    #[test]
    fn pod_level_resources_replace_the_sum() {
        let pod = pod(json!({"spec": {
            "resources": {"requests": {"cpu": "3", "example.com/gpu": "1"}, "limits": {"memory": "1Gi"}},
            "containers": [container("a", "1", false)],
        }}));
        let requests = pod_requests(&pod, &Options::default());
        assert_eq!((requests.milli_cpu(), requests.get("example.com/gpu")), (3000, None));
        assert_eq!(pod_limits(&pod, &Options::default()).memory(), 1 << 30);
        let skip = Options { skip_pod_level: true, ..Options::default() };
        assert_eq!(pod_requests(&pod, &skip).milli_cpu(), 1000);
    }

    #[test]
    fn a_resize_under_way_holds_the_larger_amount() {
        let resized = |condition: Value| {
            pod(json!({
                "spec": {"containers": [container("a", "1", false)]},
                "status": {"conditions": condition, "containerStatuses": [{
                    "name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                    "allocatedResources": {"cpu": "500m"}, "resources": {"requests": {"cpu": "400m"}},
                }]},
            }))
        };
        let status = Options { use_status: true, ..Options::default() };
        assert_eq!(pod_requests(&resized(json!([])), &status).milli_cpu(), 1000);
        let infeasible = json!([{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]);
        assert_eq!(pod_requests(&resized(infeasible), &status).milli_cpu(), 500);
    }

    #[test]
    fn missing_requests_take_the_given_ones() {
        let pod = pod(json!({"spec": {"containers": [
            {"name": "a"}, {"name": "b", "resources": {"requests": {"cpu": "0"}}},
        ]}}));
        let options = Options {
            non_missing_requests: [(CPU, Amount::from_millis(100))].into_iter().collect(),
            ..Options::default()
        };
        assert_eq!(pod_requests(&pod, &options).milli_cpu(), 100);
    }
}
