//! Watch fan-out: many watchers of few objects, how long an event takes to each, and whether any is missed or repeated.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use bytes::Bytes;
use futures::future::join_all;
use http::Method;
use parking_lot::RwLock;
use serde_json::json;

use crate::events::Lines;
use crate::fleet::Fleet;
use crate::load::{Load, drive, make};
use crate::objects::{config_map, encode, pod, sequence};
use crate::record::{Record, Samples};
use crate::report::Report;
use crate::sandbox::Sandbox;
use crate::stop::Stop;
use crate::target::{Connection, Format, Protocol, Request, Target};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// How many watches are open at once.
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub watchers: usize,
    /// Connections that the watches share by HTTP/2; 0 gives each a connection of its own by HTTP/1.1.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub connections: usize,
    /// How many objects are changed each second.
    #[arg(long, default_value_t = 100.0, value_name = "PER SECOND")]
    pub changes: f64,
    /// How many objects are changed in turn.
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub objects: u64,
    /// For how long, in seconds.
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    pub seconds: f64,
    /// How many bytes of data an object has.
    #[arg(long, default_value_t = 256, value_name = "BYTES")]
    pub size: usize,
    /// The objects are pods, and each watcher sees those of one node, as kubelets do.
    #[arg(long)]
    pub by_node: bool,
    /// The process id of the server, to tell how much memory it takes.
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
}

/// How long the last events may take to come.
const DRAIN: Duration = Duration::from_secs(10);
/// Writers that take turns so that a change need not wait for the one before.
const WRITERS: usize = 8;

pub async fn run(args: &Args, target: &Target, report: &Report, stop: &Stop) -> anyhow::Result<()> {
    if args.objects == 0 || args.watchers == 0 || args.changes.is_nan() || args.changes <= 0.0 {
        bail!("--objects, --watchers and --changes must be more than 0");
    }
    Sandbox::with(target, async |sandbox| {
        if !args.by_node {
            return measure(args, target, report, stop, sandbox).await;
        }
        sandbox.wait_for_account().await?;
        let (prefix, nodes) = (sandbox.namespace.clone(), args.watchers as u64);
        let fleet = Fleet { target: target.clone(), prefix, nodes, cpu: "32" };
        fleet.with(stop, async || measure(args, target, report, stop, sandbox).await).await
    })
    .await
}

/// When each change was sent, by its sequence number, which starts at 1.
type Sent = RwLock<Vec<Instant>>;

/// What watchers have in common.
struct Watching {
    record: Arc<Record>,
    sent: Sent,
    objects: u64,
    done: AtomicBool,
    received: AtomicU64,
    missed: AtomicU64,
    repeated: AtomicU64,
}

async fn measure(
    args: &Args,
    target: &Target,
    report: &Report,
    stop: &Stop,
    sandbox: &Sandbox,
) -> anyhow::Result<()> {
    let kind = Objects { args, namespace: &sandbox.namespace };
    let path = sandbox.path(if args.by_node { "pods" } else { "configmaps" });
    eprintln!("making {} objects …", args.objects);
    make("objects", target, args.objects, stop, async |connection, number| {
        connection.success(Request::new(Method::POST, &path, kind.made(number)?)).await.map(drop)
    })
    .await?;
    if stop.is_set() {
        return Ok(());
    }
    let version = target.current_version(&path).await?.to_string();

    eprintln!("opening {} watches …", args.watchers);
    let watching = Arc::new(Watching {
        record: Arc::new(Record::default()),
        sent: RwLock::default(),
        objects: args.objects,
        done: AtomicBool::new(false),
        received: AtomicU64::new(0),
        missed: AtomicU64::new(0),
        repeated: AtomicU64::new(0),
    });
    // how many watchers see each change
    let fan_out = if args.by_node { 1 } else { args.watchers as u64 };
    let load = Load {
        what: "watches".to_owned(),
        concurrency: args.watchers,
        connections: args.connections.max(1),
        protocol: if args.connections == 0 { Protocol::Http1 } else { Protocol::Http2 },
        rate: None,
        time: Duration::MAX,
        most: u64::MAX,
    };
    let mut watchers = Vec::new();
    for (index, connection) in load.connect(target).await?.into_iter().enumerate() {
        let selector = if args.by_node { kind.selector(index as u64) } else { String::new() };
        let lines = Lines::over(target, connection, &path, &selector, &version).await?;
        watchers.push(tokio::spawn(follow(watching.clone(), lines)));
    }
    let resident = |pid: Option<u32>| pid.and_then(crate::process::resident_kb);
    let before = resident(args.server_pid);

    eprintln!("{} changes a second for {} s …", args.changes, args.seconds);
    let writes = Arc::new(Record::default());
    let load = Load {
        what: "changes".to_owned(),
        concurrency: WRITERS.min(usize::try_from(args.objects)?),
        connections: 1,
        protocol: Protocol::Http1,
        rate: Some(args.changes),
        time: Duration::from_secs_f64(args.seconds),
        most: u64::MAX,
    };
    let connections = load.connect(target).await?;
    // one object is changed by one writer at a time, or its events would come in another order than they were sent
    let turns: Vec<tokio::sync::Mutex<()>> = (0..args.objects).map(|_| Default::default()).collect();
    let (_, elapsed) = drive(&load, target, connections, &writes, stop, async |connection, _| {
        write(args, &watching, &turns, connection, &path).await
    })
    .await?;
    let sent = watching.sent.read().len() as u64;
    let drain = async {
        while watching.received.load(Ordering::Relaxed) < sent * fan_out {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let complete = tokio::time::timeout(DRAIN, drain).await.is_ok();
    watching.done.store(true, Ordering::Relaxed);
    watchers.iter().for_each(tokio::task::JoinHandle::abort);
    let broken = join_all(watchers).await.into_iter().filter_map(Result::ok).filter_map(Result::err).next();

    let mut line = watching.record.summary(elapsed);
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    let outstanding = (sent * fan_out).saturating_sub(count(&watching.received));
    line.insert("watchers".into(), json!(args.watchers));
    line.insert("changes".into(), json!(sent));
    line.insert("missed".into(), json!(count(&watching.missed) + outstanding));
    line.insert("repeated".into(), json!(count(&watching.repeated)));
    if let (Some(before), Some(after)) = (before, resident(args.server_pid)) {
        line.insert("server_kb_before".into(), json!(before));
        line.insert("server_kb_after".into(), json!(after));
    }
    report.line("deliver", line);
    report.curve("deliver", &watching.record);
    report.line("write", writes.summary(elapsed));
    if let Some(error) = broken {
        return Err(error.context("a watch ended"));
    }
    if !complete || count(&watching.missed) + count(&watching.repeated) > 0 {
        bail!(
            "{} events were missed and {} repeated",
            count(&watching.missed) + outstanding,
            count(&watching.repeated)
        );
    }
    Ok(())
}

fn name(number: u64) -> String {
    format!("map-{number}")
}

/// What is watched: ConfigMaps, or pods of nodes.
struct Objects<'a> {
    args: &'a Args,
    namespace: &'a str,
}

impl Objects<'_> {
    fn node_name(&self, number: u64) -> String {
        format!("{}-{number}", self.namespace)
    }

    fn selector(&self, watcher: u64) -> String {
        format!("fieldSelector=spec.nodeName%3D{}", self.node_name(watcher))
    }

    fn made(&self, number: u64) -> anyhow::Result<Bytes> {
        if !self.args.by_node {
            return encode(Format::Json, "ConfigMap", config_map(&name(number), number, 0, self.args.size));
        }
        let node = self.node_name(number % self.args.watchers as u64);
        let pod = pod(&name(number), number, json!({"nodeName": node}));
        Ok(pod.to_string().into())
    }

    /// What brings an object to a sequence number.
    fn changed<'b>(args: &Args, item: &'b str, object: u64, sequence: u64) -> anyhow::Result<Request<'b>> {
        if args.by_node {
            let patch = json!({"metadata": {"annotations": {"sequence": format!("<{sequence}>")}}});
            let request = Request::new(Method::PATCH, item, patch.to_string());
            return Ok(request.content("application/merge-patch+json"));
        }
        let body = config_map(&name(object), object, sequence, args.size);
        Ok(Request::new(Method::PUT, item, encode(Format::Json, "ConfigMap", body)?))
    }
}

/// Changes the object whose turn it is. Sequence numbers go round the objects, so that a watcher knows from one event
/// of an object which the next must be.
async fn write(
    args: &Args,
    watching: &Watching,
    turns: &[tokio::sync::Mutex<()>],
    connection: &mut Connection,
    path: &str,
) -> anyhow::Result<usize> {
    let sequence = {
        let mut sent = watching.sent.write();
        sent.push(Instant::now());
        sent.len() as u64
    };
    let object = sequence % args.objects;
    let _turn = turns[usize::try_from(object)?].lock().await;
    let item = format!("{path}/{}", name(object));
    let request = Objects::changed(args, &item, object, sequence)?;
    watching.sent.write()[usize::try_from(sequence - 1)?] = Instant::now();
    connection.success(request).await.map(|body| body.len())
}

/// One watcher.
async fn follow(watching: Arc<Watching>, mut lines: Lines) -> anyhow::Result<()> {
    let mut seen = HashMap::new();
    let mut samples = Samples::default();
    loop {
        let whole = match lines.next().await {
            Err(_) if watching.done.load(Ordering::Relaxed) => return Ok(()),
            whole => whole?,
        };
        for line in whole.split(|byte| *byte == b'\n') {
            event(&watching, line, &mut seen, &mut samples);
        }
        watching.record.add(&mut samples);
    }
}

/// `seen` has the last sequence number of each object.
fn event(watching: &Watching, line: &[u8], seen: &mut HashMap<u64, u64>, samples: &mut Samples) {
    let Some(sequence) = sequence(line).filter(|sequence| *sequence > 0) else { return };
    let last = seen.entry(sequence % watching.objects).or_default();
    let expected = if *last == 0 { first_of(sequence, watching.objects) } else { *last + watching.objects };
    if sequence < expected {
        watching.repeated.fetch_add(1, Ordering::Relaxed);
        return;
    }
    watching.missed.fetch_add((sequence - expected) / watching.objects, Ordering::Relaxed);
    *last = sequence;
    let sent = usize::try_from(sequence - 1).ok().and_then(|index| watching.sent.read().get(index).copied());
    if let Some(sent) = sent {
        samples.push(sent.elapsed(), line.len());
    }
    watching.received.fetch_add(1, Ordering::Relaxed);
}

/// The first sequence number of the object that a number belongs to.
fn first_of(sequence: u64, objects: u64) -> u64 {
    match sequence % objects {
        0 => objects,
        object => object,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_repeats_are_seen() {
        let watching = Watching {
            record: Arc::default(),
            sent: RwLock::new(vec![Instant::now(); 20]),
            objects: 2,
            done: AtomicBool::new(false),
            received: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
        };
        let (mut seen, mut samples) = (HashMap::new(), Samples::default());
        for sequence in [1, 2, 3, 3, 4, 9, 0] {
            event(&watching, format!("{{\"s\":\"<{sequence}>\"}}").as_bytes(), &mut seen, &mut samples);
        }
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        // 5 and 7 of the odd object never came
        assert_eq!(
            (count(&watching.received), count(&watching.missed), count(&watching.repeated)),
            (5, 2, 1)
        );
    }

    #[test]
    fn numbers_go_round_the_objects() {
        assert_eq!([1, 2, 3, 4, 10, 11].map(|n| first_of(n, 10)), [1, 2, 3, 4, 10, 1]);
    }
}
