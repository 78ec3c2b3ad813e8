//! Pods: how long each takes from its create until it is scheduled, runs, is ready, and is gone again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::future::try_join_all;
use http::Method;
use serde_json::{Value, json};

use crate::events::Events;
use crate::record::{Record, Samples};
use crate::report::Report;
use crate::sandbox::{LABEL, Sandbox};
use crate::stop::Stop;
use crate::target::{Request, Target};

const PATIENCE: Duration = Duration::from_secs(180);

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// How many pods are made at once.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub at_once: usize,
    /// How often.
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub rounds: usize,
    /// The image of their one container; it should be on the node already.
    #[arg(long, default_value = "registry.k8s.io/pause:3.10", value_name = "IMAGE")]
    pub image: String,
    /// The container's command [default: the image's].
    #[arg(long, value_delimiter = ' ', value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// What a pod goes through, in this order.
const STEPS: [&str; 4] = ["scheduled", "running", "ready", "deleted"];

pub async fn run(args: &Args, target: &Target, report: &Report, stop: &Stop) -> anyhow::Result<()> {
    if args.at_once == 0 {
        bail!("--at-once 0 makes no pods");
    }
    Sandbox::with(target, async |sandbox| measure(args, target, report, stop, sandbox).await).await
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
    let mut events = Events::open(target, &path, "").await?;
    let records: HashMap<&str, Arc<Record>> =
        STEPS.iter().map(|step| (*step, Arc::new(Record::default()))).collect();
    let all = Record::default();
    let begun = Instant::now();
    for round in 0..args.rounds {
        if stop.is_set() {
            break;
        }
        eprintln!("round {} of {} …", round + 1, args.rounds);
        let mut pods = Round::new(&records);
        let creates = (0..args.at_once).map(|index| {
            let name = format!("pod-{round}-{index}");
            let body = pod(&name, args).to_string();
            let path = &path;
            async move {
                let sent = Instant::now();
                target.once(Request::new(Method::POST, path, body)).await.context("making a pod")?;
                anyhow::Ok((name, sent))
            }
        });
        let together = Instant::now();
        let made = try_join_all(creates).await?;
        pods.begin("ready", made);
        pods.follow(&mut events, stop).await?;
        let mut samples = Samples::default();
        samples.push(together.elapsed(), 0);
        all.add(&mut samples);
        let deletes = pods.names().into_iter().map(|name| {
            let item = format!("{path}/{name}");
            async move {
                let sent = Instant::now();
                target.once(Request::new(Method::DELETE, &item, "")).await.context("deleting a pod")?;
                anyhow::Ok((name, sent))
            }
        });
        let deleted = try_join_all(deletes).await?;
        pods.begin("deleted", deleted);
        pods.follow(&mut events, stop).await?;
    }
    for step in STEPS {
        let mut line = records[step].summary(begun.elapsed());
        line.remove("per_second");
        line.insert("at_once".into(), json!(args.at_once));
        report.line(step, line);
        report.curve(step, &records[step]);
    }
    if args.at_once > 1 {
        let mut line = all.summary(begun.elapsed());
        line.remove("per_second");
        line.insert("at_once".into(), json!(args.at_once));
        report.line("all ready", line);
    }
    Ok(())
}

fn pod(name: &str, args: &Args) -> Value {
    let mut container = json!({"name": "c", "image": args.image, "imagePullPolicy": "IfNotPresent"});
    if !args.command.is_empty() {
        container["command"] = json!(args.command);
    }
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {LABEL.0: LABEL.1}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    })
}

/// The pods of one round on their way to a step.
struct Round<'a> {
    records: &'a HashMap<&'static str, Arc<Record>>,
    /// When each was created or deleted.
    since: HashMap<String, Instant>,
    /// What each still has before it.
    before: HashMap<String, Vec<&'static str>>,
}

impl<'a> Round<'a> {
    fn new(records: &'a HashMap<&'static str, Arc<Record>>) -> Self {
        Self { records, since: HashMap::new(), before: HashMap::new() }
    }

    fn names(&self) -> Vec<String> {
        self.since.keys().cloned().collect()
    }

    /// From now on, until the step is reached.
    fn begin(&mut self, until: &'static str, pods: Vec<(String, Instant)>) {
        let steps: &[&str] = if until == "deleted" { &STEPS[3..] } else { &STEPS[..3] };
        self.before = pods.iter().map(|(name, _)| (name.clone(), steps.to_vec())).collect();
        self.since = pods.into_iter().collect();
    }

    /// Follows events until all pods have nothing before them.
    async fn follow(&mut self, events: &mut Events, stop: &Stop) -> anyhow::Result<()> {
        let following = async {
            while !self.before.is_empty() {
                for (kind, object) in events.next().await? {
                    self.see(&kind, &object)?;
                }
            }
            anyhow::Ok(())
        };
        tokio::select! {
            outcome = tokio::time::timeout(PATIENCE, following) => {
                outcome.with_context(|| format!("pods took more than {PATIENCE:?}"))?
            }
            () = stop.wait() => bail!("interrupted in the middle of a round"),
        }
    }

    fn see(&mut self, kind: &str, pod: &Value) -> anyhow::Result<()> {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let Some(before) = self.before.get_mut(name) else { return Ok(()) };
        let status = &pod["status"];
        if status["phase"] == "Failed" {
            bail!("the pod {name} failed: {} {}", status["reason"], status["message"]);
        }
        let condition = |name: &str| {
            status["conditions"]
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one["type"] == name && one["status"] == "True"))
        };
        let waited = self.since.get(name).map(Instant::elapsed).unwrap_or_default();
        before.retain(|step| {
            let reached = match *step {
                "scheduled" => condition("PodScheduled"),
                "running" => status["phase"] == "Running",
                "ready" => condition("Ready"),
                _ => kind == "DELETED",
            };
            if reached {
                let mut samples = Samples::default();
                samples.push(waited, 0);
                self.records[step].add(&mut samples);
            }
            !reached
        });
        if before.is_empty() {
            self.before.remove(name);
        }
        Ok(())
    }
}
