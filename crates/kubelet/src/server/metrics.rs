//! Figures: the kubelet's own, and what node, pods and containers use.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use jiff::Timestamp;
use k8s_cri::v1::ContainerStats;
use serde_json::{Value, json};

use super::Server;
use crate::runtime::{Listed, labels};

pub const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Clock ticks of /proc/stat per second; fixed on Linux for user space.
const TICKS: f64 = 100.0;

/// What one container uses.
#[derive(Clone, Debug, Default, PartialEq)]
struct Usage {
    cpu_seconds: f64,
    cpu_nano_cores: u64,
    memory: u64,
    rss: u64,
    disk: u64,
}

struct Container {
    name: String,
    pod: String,
    namespace: String,
    uid: String,
    usage: Usage,
}

fn value(value: Option<k8s_cri::v1::UInt64Value>) -> u64 {
    value.map(|v| v.value).unwrap_or_default()
}

fn container(stats: ContainerStats) -> Option<Container> {
    let attributes = stats.attributes?;
    let label = |key: &str| attributes.labels.get(key).cloned().unwrap_or_default();
    let (cpu, memory) = (stats.cpu.unwrap_or_default(), stats.memory.unwrap_or_default());
    Some(Container {
        name: label(labels::CONTAINER_NAME),
        pod: label(labels::POD_NAME),
        namespace: label(labels::POD_NAMESPACE),
        uid: label(labels::POD_UID),
        usage: Usage {
            cpu_seconds: value(cpu.usage_core_nano_seconds) as f64 / 1e9,
            cpu_nano_cores: value(cpu.usage_nano_cores),
            memory: value(memory.working_set_bytes),
            rss: value(memory.rss_bytes),
            disk: value(stats.writable_layer.and_then(|layer| layer.used_bytes)),
        },
    })
}

async fn containers(server: &Server) -> Vec<Container> {
    let stats = server.shared.runtime.container_stats().await.unwrap_or_default();
    stats.into_iter().filter_map(container).filter(|c| !c.uid.is_empty()).collect()
}

/// Seconds that all processors have worked.
fn node_cpu_seconds(stat: &str) -> f64 {
    let numbers: Vec<f64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|n| n.parse().ok())
        .collect();
    // user, nice, system, then idle and iowait, which are not work
    let work: f64 =
        numbers.iter().enumerate().filter(|(i, _)| !matches!(i, 3 | 4)).take(6).map(|(_, n)| n).sum();
    work / TICKS
}

fn memory_in_use(meminfo: &str) -> (u64, u64) {
    let find = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() << 10
    };
    let (total, available) = (find("MemTotal"), find("MemAvailable"));
    (total.saturating_sub(available), available)
}

fn node_usage() -> (f64, u64, u64) {
    let cpu = node_cpu_seconds(&fs::read_to_string("/proc/stat").unwrap_or_default());
    let (used, available) = memory_in_use(&fs::read_to_string("/proc/meminfo").unwrap_or_default());
    (cpu, used, available)
}

fn describe(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}");
}

/// The kubelet's own figures.
pub async fn own(server: &Server) -> String {
    let listed = server.shared.runtime.list().await.unwrap_or_default();
    let count = |sandbox: bool| {
        let is = |item: &&Listed| item.running && item.container_name.is_empty() == sandbox;
        listed.iter().filter(is).count()
    };
    let mut out = String::new();
    describe(&mut out, "kubelet_node_name", "gauge", "The node's name. The count is always 1.");
    let _ = writeln!(out, "kubelet_node_name{{node=\"{}\"}} 1", server.shared.config.node_name);
    describe(&mut out, "kubelet_running_pods", "gauge", "Number of pods that have a running pod sandbox");
    let _ = writeln!(out, "kubelet_running_pods {}", count(true));
    describe(&mut out, "kubelet_running_containers", "gauge", "Number of containers currently running");
    let _ = writeln!(out, "kubelet_running_containers{{container_state=\"running\"}} {}", count(false));
    let rss = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = rss.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or_default();
    describe(&mut out, "process_resident_memory_bytes", "gauge", "Resident memory size in bytes.");
    let _ = writeln!(out, "process_resident_memory_bytes {}", pages * 4096);
    out
}

fn totals(containers: &[Container]) -> BTreeMap<(&str, &str), Usage> {
    let mut pods: BTreeMap<(&str, &str), Usage> = BTreeMap::new();
    for c in containers {
        let total = pods.entry((&c.namespace, &c.pod)).or_default();
        total.cpu_seconds += c.usage.cpu_seconds;
        total.cpu_nano_cores += c.usage.cpu_nano_cores;
        total.memory += c.usage.memory;
        total.rss += c.usage.rss;
        total.disk += c.usage.disk;
    }
    pods
}

fn render_resource(containers: &[Container], node: (f64, u64, u64)) -> String {
    let mut out = String::new();
    let pods = totals(containers);
    describe(
        &mut out,
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the container in core-seconds",
    );
    for c in containers {
        let _ = writeln!(
            out,
            "container_cpu_usage_seconds_total{{container=\"{}\",namespace=\"{}\",pod=\"{}\"}} {}",
            c.name, c.namespace, c.pod, c.usage.cpu_seconds
        );
    }
    describe(
        &mut out,
        "container_memory_working_set_bytes",
        "gauge",
        "Current working set of the container in bytes",
    );
    for c in containers {
        let _ = writeln!(
            out,
            "container_memory_working_set_bytes{{container=\"{}\",namespace=\"{}\",pod=\"{}\"}} {}",
            c.name, c.namespace, c.pod, c.usage.memory
        );
    }
    describe(
        &mut out,
        "node_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the node in core-seconds",
    );
    let _ = writeln!(out, "node_cpu_usage_seconds_total {}", node.0);
    describe(&mut out, "node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes");
    let _ = writeln!(out, "node_memory_working_set_bytes {}", node.1);
    describe(
        &mut out,
        "pod_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the pod in core-seconds",
    );
    for ((namespace, pod), usage) in &pods {
        let _ = writeln!(
            out,
            "pod_cpu_usage_seconds_total{{namespace=\"{namespace}\",pod=\"{pod}\"}} {}",
            usage.cpu_seconds
        );
    }
    describe(&mut out, "pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes");
    for ((namespace, pod), usage) in &pods {
        let _ = writeln!(
            out,
            "pod_memory_working_set_bytes{{namespace=\"{namespace}\",pod=\"{pod}\"}} {}",
            usage.memory
        );
    }
    describe(
        &mut out,
        "resource_scrape_error",
        "gauge",
        "1 if there was an error while getting container metrics, 0 otherwise",
    );
    out.push_str("resource_scrape_error 0\n");
    out
}

/// What the metrics server reads.
pub async fn resource(server: &Server) -> String {
    render_resource(&containers(server).await, node_usage())
}

/// `/stats/summary`
pub async fn summary(server: &Server) -> Value {
    let containers = containers(server).await;
    let now = Timestamp::now().to_string();
    let (cpu, memory, available) = node_usage();
    let usage = |u: &Usage| {
        json!({
            "cpu": {"time": now, "usageNanoCores": u.cpu_nano_cores, "usageCoreNanoSeconds": (u.cpu_seconds * 1e9) as u64},
            "memory": {"time": now, "workingSetBytes": u.memory, "rssBytes": u.rss},
        })
    };
    let pods: Vec<Value> = totals(&containers)
        .iter()
        .map(|((namespace, pod), total)| {
            let own: Vec<&Container> =
                containers.iter().filter(|c| c.namespace == *namespace && c.pod == *pod).collect();
            let mut value = usage(total);
            value["podRef"] =
                json!({"name": pod, "namespace": namespace, "uid": own.first().map(|c| &c.uid)});
            value["containers"] = own
                .iter()
                .map(|c| {
                    let mut value = usage(&c.usage);
                    value["name"] = c.name.clone().into();
                    value["rootfs"] = json!({"time": now, "usedBytes": c.usage.disk});
                    value
                })
                .collect();
            value
        })
        .collect();
    json!({
        "node": {
            "nodeName": server.shared.config.node_name,
            "cpu": {"time": now, "usageCoreNanoSeconds": (cpu * 1e9) as u64},
            "memory": {"time": now, "workingSetBytes": memory, "availableBytes": available},
        },
        "pods": pods,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_figures_are_read() {
        assert_eq!(node_cpu_seconds("cpu  100 20 30 9999 888 5 5 0 0 0\ncpu0 1 2 3\n"), 1.6);
        assert_eq!(memory_in_use("MemTotal: 100 kB\nMemAvailable: 40 kB\n"), (60 << 10, 40 << 10));
    }

    #[test]
    fn metrics_are_written_in_prometheus_format() {
        let one = |name: &str| Container {
            name: name.into(),
            pod: "p".into(),
            namespace: "ns".into(),
            uid: "u".into(),
            usage: Usage { cpu_seconds: 1.5, memory: 10, ..Usage::default() },
        };
        insta::assert_snapshot!(render_resource(&[one("a"), one("b")], (2.5, 100, 50)));
    }
}
