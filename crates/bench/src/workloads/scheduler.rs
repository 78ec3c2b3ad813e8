//! The scheduler under load, with the workloads of upstream's scheduler_perf: fake nodes and pending pods made through
//! the API, and how many pods a second get a node. Nothing runs the pods.

use std::time::{Duration, Instant};

use anyhow::bail;
use clap::ValueEnum;
use http::Method;
use serde_json::{Map, Value, json};

use crate::events::Events;
use crate::fleet::Fleet;
use crate::load::make;
use crate::progress::Progress;
use crate::record::Record;
use crate::report::Report;
use crate::sandbox::{LABEL, Sandbox};
use crate::stop::Stop;
use crate::target::{Connection, Request, Target};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// How many fake nodes there are.
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub nodes: u64,
    /// How many pods have nodes before the measurement begins.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub init_pods: u64,
    /// How many pods are measured.
    #[arg(long, default_value_t = 500, value_name = "N")]
    pub pods: u64,
    #[arg(long, value_enum, default_value_t = Case::Basic, help = "What the pods ask for")]
    pub case: Case,
    /// How long pods may take to get their nodes, in seconds.
    #[arg(long, default_value_t = 300.0, value_name = "SECONDS")]
    pub patience: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Case {
    Basic,
    /// Pods of one zone stay in it.
    PodAffinity,
    /// One pod of a color on each node.
    PodAntiAffinity,
    PreferredPodAffinity,
    PreferredPodAntiAffinity,
    /// Spread over zones, at most one apart.
    TopologySpreading,
    PreferredTopologySpreading,
    NodeAffinity,
    /// Pods that only fit when pods of lower priority go.
    Preemption,
    /// As basic, while pods that fit nowhere come and go.
    UnschedulableChurn,
}

const CLASSES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";
const CLASS: &str = "xebec-bench-high";

pub async fn run(args: &Args, target: &Target, report: &Report, stop: &Stop) -> anyhow::Result<()> {
    if args.nodes == 0 || args.pods == 0 {
        bail!("--nodes and --pods must be more than 0");
    }
    let fleet = Fleet {
        target: target.clone(),
        prefix: format!("xebec-bench-{:06x}", rand::random::<u32>() & 0xff_ffff),
        nodes: args.nodes,
        // for preemption, room for four pods of the first kind
        cpu: if args.case == Case::Preemption { "4" } else { "32" },
    };
    if args.case == Case::Preemption {
        let class = json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 1000,
            "metadata": {"name": CLASS, "labels": {LABEL.0: LABEL.1}},
        });
        target.once(Request::new(Method::POST, CLASSES, class.to_string())).await?;
    }
    let outcome = fleet
        .with(stop, async || {
            Sandbox::with(target, async |sandbox| measure(args, target, report, stop, sandbox).await).await
        })
        .await;
    if args.case == Case::Preemption {
        target.once(Request::new(Method::DELETE, &format!("{CLASSES}/{CLASS}"), "")).await?;
    }
    outcome
}

async fn measure(
    args: &Args,
    target: &Target,
    report: &Report,
    stop: &Stop,
    sandbox: &Sandbox,
) -> anyhow::Result<()> {
    sandbox.wait_for_account().await?;
    let path = sandbox.path("pods");
    if args.init_pods > 0 {
        eprintln!("{} pods get nodes first …", args.init_pods);
        schedule(args, target, stop, &path, "init", args.init_pods, &Record::default()).await?;
    }
    eprintln!("{} pods of the case {:?} …", args.pods, args.case);
    let record = Record::default();
    let outcome = schedule(args, target, stop, &path, "pod", args.pods, &record).await?;
    let mut line = Map::from_iter([
        ("nodes".to_owned(), json!(args.nodes)),
        ("init_pods".to_owned(), json!(args.init_pods)),
        ("count".to_owned(), json!(outcome.scheduled)),
        ("per_second".to_owned(), json!(outcome.average.round())),
    ]);
    for (name, part) in
        [("pods_per_second_p50", 0.5), ("pods_per_second_p10", 0.1), ("pods_per_second_max", 1.0)]
    {
        line.insert(name.to_owned(), json!(outcome.quantile(part)));
    }
    let case = args.case.to_possible_value();
    report.line(case.as_ref().map_or("", |value| value.get_name()), line);
    report.curve("scheduled", &record);
    if outcome.scheduled < args.pods && !stop.is_set() {
        bail!("{} of {} pods got no node in time", args.pods - outcome.scheduled, args.pods);
    }
    Ok(())
}

/// Makes pods and watches until all have nodes.
async fn schedule(
    args: &Args,
    target: &Target,
    stop: &Stop,
    path: &str,
    kind: &str,
    count: u64,
    record: &Record,
) -> anyhow::Result<Throughput> {
    let selector = format!("labelSelector=kind%3D{kind}");
    let mut events = Events::open(target, path, &selector).await?;
    let making = make("making pods", target, count, stop, async |connection, number| {
        let pod = pod(args.case, kind, number).to_string();
        connection.success(Request::new(Method::POST, path, pod)).await?;
        if args.case == Case::UnschedulableChurn && kind == "pod" && number % 10 == 0 {
            churn(connection, path, number).await?;
        }
        Ok(())
    });
    let progress = Progress::begin("pods with a node", Some(count));
    let begun = Instant::now();
    let mut named = std::collections::HashSet::new();
    let mut throughput = Throughput::default();
    let watching = async {
        while (named.len() as u64) < count {
            for (_, object) in events.next().await? {
                let bound = object["spec"]["nodeName"].as_str().is_some_and(|name| !name.is_empty());
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                if bound && named.insert(name.to_owned()) {
                    throughput.add(begun.elapsed());
                    progress.add(1);
                    let mut samples = crate::record::Samples::default();
                    samples.push(begun.elapsed(), 0);
                    record.add(&mut samples);
                }
            }
        }
        anyhow::Ok(())
    };
    let both = async { tokio::try_join!(watching, making) };
    tokio::select! {
        outcome = tokio::time::timeout(Duration::from_secs_f64(args.patience), both) => {
            // those that got no node are counted by the caller
            if let Ok(outcome) = outcome {
                outcome?;
            }
        }
        () = stop.wait() => {}
    }
    throughput.scheduled = named.len() as u64;
    throughput.average = named.len() as f64 / begun.elapsed().as_secs_f64();
    Ok(throughput)
}

/// Pods a second, sampled each second, as upstream's benchmarks do.
#[derive(Default)]
struct Throughput {
    scheduled: u64,
    average: f64,
    seconds: Vec<u64>,
}

impl Throughput {
    fn add(&mut self, at: Duration) {
        let second = usize::try_from(at.as_secs()).unwrap_or_default();
        if self.seconds.len() <= second {
            self.seconds.resize(second + 1, 0);
        }
        self.seconds[second] += 1;
    }

    fn quantile(&self, part: f64) -> u64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_unstable();
        let index = ((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
        sorted.get(index).copied().unwrap_or_default()
    }
}

/// A pod that fits nowhere, made and deleted.
async fn churn(connection: &mut Connection, path: &str, number: u64) -> anyhow::Result<()> {
    let mut pod = pod(Case::Basic, "churn", number);
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("100000");
    connection.success(Request::new(Method::POST, path, pod.to_string())).await?;
    if number >= 100 {
        let old = format!("{path}/churn-{}?gracePeriodSeconds=0", number - 100);
        connection.success(Request::new(Method::DELETE, &old, "")).await?;
    }
    Ok(())
}

fn pod(case: Case, kind: &str, number: u64) -> Value {
    let preempts = case == Case::Preemption && kind == "pod";
    let cpu = match case {
        Case::Preemption if preempts => "3",
        Case::Preemption => "900m",
        _ => "100m",
    };
    let color = json!({"matchLabels": {"color": "blue"}});
    let term = |key: &str| json!({"topologyKey": key, "labelSelector": color});
    let preferred = |key: &str| json!([{"weight": 1, "podAffinityTerm": term(key)}]);
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let wished = "preferredDuringSchedulingIgnoredDuringExecution";
    const ZONE: &str = "topology.kubernetes.io/zone";
    const HOST: &str = "kubernetes.io/hostname";
    let spread = |when: &str| json!([{"maxSkew": 5, "topologyKey": ZONE, "whenUnsatisfiable": when, "labelSelector": color}]);
    let mut spec = json!({
        "containers": [{"name": "c", "image": "registry.k8s.io/pause:3.10", "resources": {"requests": {"cpu": cpu, "memory": "50Mi"}}}],
        "terminationGracePeriodSeconds": 0,
    });
    match case {
        Case::Basic | Case::UnschedulableChurn => {}
        Case::PodAffinity => spec["affinity"] = json!({"podAffinity": {required: [term(ZONE)]}}),
        Case::PodAntiAffinity => spec["affinity"] = json!({"podAntiAffinity": {required: [term(HOST)]}}),
        Case::PreferredPodAffinity => spec["affinity"] = json!({"podAffinity": {wished: preferred(HOST)}}),
        Case::PreferredPodAntiAffinity => {
            spec["affinity"] = json!({"podAntiAffinity": {wished: preferred(HOST)}})
        }
        Case::TopologySpreading => spec["topologySpreadConstraints"] = spread("DoNotSchedule"),
        Case::PreferredTopologySpreading => spec["topologySpreadConstraints"] = spread("ScheduleAnyway"),
        Case::NodeAffinity => {
            let zones = json!([{"matchExpressions": [{"key": ZONE, "operator": "In", "values": ["zone-0", "zone-1"]}]}]);
            spec["affinity"] = json!({"nodeAffinity": {required: {"nodeSelectorTerms": zones}}});
        }
        Case::Preemption if preempts => spec["priorityClassName"] = json!(CLASS),
        Case::Preemption => {}
    }
    json!({
        "apiVersion": "v1", "kind": "Pod", "spec": spec,
        "metadata": {"name": format!("{kind}-{number}"), "labels": {"kind": kind, "color": "blue", LABEL.0: LABEL.1}},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_is_sampled_by_the_second() {
        let mut throughput = Throughput::default();
        for (second, count) in [(0, 10), (1, 30), (3, 20)] {
            (0..count).for_each(|_| throughput.add(Duration::from_millis(second * 1000 + 5)));
        }
        assert_eq!(throughput.seconds, [10, 30, 0, 20]);
        assert_eq!([0.1, 0.5, 1.0].map(|part| throughput.quantile(part)), [0, 10, 30]);
        assert_eq!(Throughput::default().quantile(0.5), 0);
    }

    #[test]
    fn each_case_asks_for_what_its_name_says() {
        let spec = |case| pod(case, "pod", 1)["spec"].clone();
        assert!(spec(Case::Basic).get("affinity").is_none());
        assert_eq!(spec(Case::Preemption)["priorityClassName"], CLASS);
        assert!(pod(Case::Preemption, "init", 1)["spec"].get("priorityClassName").is_none());
        assert_eq!(
            spec(Case::TopologySpreading)["topologySpreadConstraints"][0]["whenUnsatisfiable"],
            "DoNotSchedule"
        );
        for case in [Case::PodAffinity, Case::PodAntiAffinity, Case::PreferredPodAffinity, Case::NodeAffinity]
        {
            assert!(spec(case).get("affinity").is_some(), "{case:?}");
        }
    }
}
