//! From requests and limits to what the kernel takes.

use component_helpers::qos::{QosClass, pod_qos};
use component_helpers::resource::{self, Options, container_limits, container_requests, is_restartable_init};
use k8s_cri::v1::{HugepageLimit, LinuxContainerResources};
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::pod::spec;

pub const PERIOD: i64 = 100_000;
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
const MIN_QUOTA: i64 = 1000;
const GUARANTEED_OOM: i64 = -997;
const BEST_EFFORT_OOM: i64 = 1000;
/// Pods of this priority and above are critical to the node.
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// Limits of a cgroup; what is `None` is left as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub shares: Option<i64>,
    /// Microseconds of each period of 100 ms.
    pub quota: Option<i64>,
    pub memory: Option<i64>,
}

impl Limits {
    pub(super) fn unified(&self) -> Vec<(&'static str, String)> {
        let mut files = Vec::new();
        if let Some(shares) = self.shares {
            files.push(("cpu.weight", weight(shares).to_string()));
        }
        if let Some(quota) = self.quota {
            files.push(("cpu.max", format!("{quota} {PERIOD}")));
        }
        if let Some(memory) = self.memory {
            files.push(("memory.max", memory.to_string()));
        }
        files
    }

    pub(super) fn per_controller(&self, controller: &str) -> Vec<(&'static str, String)> {
        let mut files = Vec::new();
        match controller {
            "cpu" => {
                files.extend(self.shares.map(|shares| ("cpu.shares", shares.to_string())));
                if let Some(quota) = self.quota {
                    files.push(("cpu.cfs_period_us", PERIOD.to_string()));
                    files.push(("cpu.cfs_quota_us", quota.to_string()));
                }
            }
            "memory" => {
                files.extend(self.memory.map(|memory| ("memory.limit_in_bytes", memory.to_string())));
            }
            _ => {}
        }
        files
    }
}

/// cgroup v1's shares for an amount of cpu.
pub fn shares(milli_cpu: i64) -> i64 {
    if milli_cpu == 0 { MIN_SHARES } else { (milli_cpu * 1024 / 1000).clamp(MIN_SHARES, MAX_SHARES) }
}

/// cgroup v2's weight (1 to 10,000) for shares (2 to 262,144).
fn weight(shares: i64) -> i64 {
    1 + (shares.clamp(MIN_SHARES, MAX_SHARES) - MIN_SHARES) * 9999 / (MAX_SHARES - MIN_SHARES)
}

fn quota(milli_cpu: i64) -> i64 {
    if milli_cpu == 0 { 0 } else { (milli_cpu * PERIOD / 1000).max(MIN_QUOTA) }
}

/// The limits of a pod's own cgroup.
pub fn pod_limits(pod: &Pod) -> Limits {
    let options = Options::default();
    let requests = resource::pod_requests(pod, &options);
    let limits = resource::pod_limits(pod, &options);
    let pod_spec = spec::spec(pod);
    let pod_level = pod_spec.resources.as_ref().and_then(|r| r.limits.as_ref());
    // one container without a limit lets the whole pod use what there is
    let all_limit = |name: &str| {
        pod_level.is_some_and(|limits| limits.contains_key(name))
            || pod_spec
                .containers
                .iter()
                .chain(spec::init_containers(pod_spec).iter().filter(|c| is_restartable_init(c)))
                .all(|c| container_limits(c).get(name).is_some_and(|amount| !amount.is_zero()))
    };
    match pod_qos(pod) {
        QosClass::BestEffort => Limits { shares: Some(MIN_SHARES), ..Limits::default() },
        QosClass::Guaranteed => Limits {
            shares: Some(shares(requests.milli_cpu())),
            quota: Some(quota(limits.milli_cpu())),
            memory: Some(limits.memory()),
        },
        QosClass::Burstable => Limits {
            shares: Some(shares(requests.milli_cpu())),
            quota: Some(quota(limits.milli_cpu())).filter(|q| *q > 0 && all_limit(resource::CPU)),
            memory: Some(limits.memory()).filter(|m| *m > 0 && all_limit(resource::MEMORY)),
        },
    }
}

/// Whether anything in the pod can run out of the memory that it is given.
pub fn limits_memory(pod: &Pod) -> bool {
    resource::pod_limits(pod, &Options::default()).memory() > 0
}

/// The resources of a container, as the runtime takes them.
pub fn container_resources(
    pod: &Pod,
    container: &Container,
    memory_capacity: i64,
) -> LinuxContainerResources {
    let requests = container_requests(container);
    let limits = container_limits(container);
    let cpu_request = requests.get(resource::CPU).map(|a| a.milli_value());
    let cpu_limit = limits.milli_cpu();
    // a limit without a request asks for as much
    let for_shares = cpu_request.unwrap_or(cpu_limit);
    let hugepage_limits = limits
        .iter()
        .filter_map(|(name, amount)| {
            let size = name.strip_prefix(resource::HUGEPAGES_PREFIX)?;
            let page_size = size.replace("Ki", "KB").replace("Mi", "MB").replace("Gi", "GB");
            Some(HugepageLimit { page_size, limit: u64::try_from(amount.value()).unwrap_or_default() })
        })
        .collect();
    LinuxContainerResources {
        cpu_period: PERIOD,
        cpu_quota: quota(cpu_limit),
        cpu_shares: shares(for_shares),
        memory_limit_in_bytes: limits.memory(),
        oom_score_adj: oom_score_adjust(pod, container, memory_capacity),
        hugepage_limits,
        ..LinuxContainerResources::default()
    }
}

/// Who is killed first when memory runs out: best effort, then the burstable that ask for least.
pub fn oom_score_adjust(pod: &Pod, container: &Container, memory_capacity: i64) -> i64 {
    if component_helpers::pod::priority(pod) >= CRITICAL_PRIORITY {
        return GUARANTEED_OOM;
    }
    match pod_qos(pod) {
        QosClass::Guaranteed => GUARANTEED_OOM,
        QosClass::BestEffort => BEST_EFFORT_OOM,
        QosClass::Burstable => {
            let own = burstable_score(container_requests(container).memory(), memory_capacity);
            let pod_spec = spec::spec(pod);
            let sidecar = spec::init_containers(pod_spec).iter().any(|c| c.name == container.name)
                && is_restartable_init(container);
            if !sidecar {
                return own;
            }
            // a sidecar is not to go before the containers it serves
            let least = pod_spec
                .containers
                .iter()
                .map(|c| burstable_score(container_requests(c).memory(), memory_capacity))
                .min();
            least.map_or(own, |least| own.min(least))
        }
    }
}

fn burstable_score(memory_request: i64, capacity: i64) -> i64 {
    let score =
        1000 - i64::try_from(1000 * i128::from(memory_request) / i128::from(capacity.max(1))).unwrap_or(1000);
    score.clamp(1000 + GUARANTEED_OOM, BEST_EFFORT_OOM - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"spec": spec})).expect("a pod")
    }

    #[test]
    fn a_pods_limits_follow_its_class() {
        let full =
            json!({"requests": {"cpu": "500m", "memory": "1Mi"}, "limits": {"cpu": "500m", "memory": "1Mi"}});
        let some = json!({"requests": {"cpu": "250m"}, "limits": {"cpu": "1"}});
        let cases = [
            (json!({"containers": [{"name": "a"}]}), (Some(2), None, None)),
            (
                json!({"containers": [{"name": "a", "resources": full}]}),
                (Some(512), Some(50_000), Some(1 << 20)),
            ),
            (json!({"containers": [{"name": "a", "resources": some}]}), (Some(256), Some(100_000), None)),
            (
                json!({"containers": [{"name": "a", "resources": some}, {"name": "b"}]}),
                (Some(256), None, None),
            ),
        ];
        for (spec, (shares, quota, memory)) in cases {
            assert_eq!(pod_limits(&pod(spec.clone())), Limits { shares, quota, memory }, "{spec}");
        }
    }

    #[test]
    fn a_containers_resources_are_upstreams() {
        let spec = json!({"containers": [{"name": "a", "resources": {
            "limits": {"cpu": "100m", "memory": "128Mi", "hugepages-2Mi": "4Mi"}}}]});
        let pod = pod(spec);
        let resources = container_resources(&pod, &pod.spec.as_ref().expect("a spec").containers[0], 1 << 30);
        assert_eq!((resources.cpu_shares, resources.cpu_quota, resources.cpu_period), (102, 10_000, 100_000));
        assert_eq!(resources.memory_limit_in_bytes, 128 << 20);
        assert_eq!(resources.hugepage_limits[0].page_size, "2MB");
        assert_eq!(shares(0), 2);
        assert_eq!(quota(1), 1000);
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 39, 10_000));
    }

    #[test]
    fn oom_scores_rank_the_classes() {
        let guaranteed =
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}});
        let cases = [
            (json!({}), 0, 1000),
            (guaranteed, 0, -997),
            (json!({"requests": {"memory": "512Mi"}}), 0, 500),
            (json!({"requests": {"memory": "1"}}), 0, 999),
            (json!({"requests": {"memory": "2Gi"}}), 0, 3),
            (json!({}), CRITICAL_PRIORITY, -997),
        ];
        for (resources, priority, want) in cases {
            let pod =
                pod(json!({"priority": priority, "containers": [{"name": "a", "resources": resources}]}));
            let container = &pod.spec.as_ref().expect("a spec").containers[0];
            assert_eq!(oom_score_adjust(&pod, container, 1 << 30), want, "{resources}");
        }
    }
}
