//! Watch fan-out: many watchers of few objects, how long an event takes to each, and whether any is missed or repeated.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::future::join_all;
use http::Method;
use parking_lot::RwLock;
use serde_json::json;

use crate::events::Lines;
use crate::load::{Load, drive};
use crate::objects::{config_map, encode, sequence};
use crate::record::{Record, Samples};
use crate::report::Report;
use crate::sandbox::Sandbox;
use crate::stop::Stop;
use crate::target::{Connection, Format, Protocol, Request, Target, refusal};

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
    Sandbox::with(target, async |sandbox| measure(args, target, report, stop, sandbox).await).await
}

/// When each change was sent, by its sequence number, which starts at 1.
type Sent = RwLock<Vec<Instant>>;

/// What watchers have in common.
struct Watching {
    record: Arc<Record>,
    sent: Sent,
    objects: u64,
    /// No more changes come after this one.
    last: AtomicU64,
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
    let path = sandbox.path("configmaps");
    for number in 0..args.objects {
        let body = encode(Format::Json, "ConfigMap", config_map(&name(number), number, 0, args.size))?;
        target.once(Request::new(Method::POST, &path, body)).await.context("making an object")?;
    }
    let version = target.current_version(&path).await?.to_string();

    eprintln!("opening {} watches …", args.watchers);
    let watching = Arc::new(Watching {
        record: Arc::new(Record::default()),
        sent: RwLock::default(),
        objects: args.objects,
        last: AtomicU64::new(u64::MAX),
        done: AtomicBool::new(false),
        received: AtomicU64::new(0),
        missed: AtomicU64::new(0),
        repeated: AtomicU64::new(0),
    });
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
    for connection in load.connect(target).await? {
        let (path, version) = (path.clone(), version.clone());
        watchers.push(tokio::spawn(follow(watching.clone(), target.clone(), connection, path, version)));
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
    watching.last.store(sent, Ordering::Relaxed);
    let drain = async {
        while watching.received.load(Ordering::Relaxed) < sent * args.watchers as u64 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let complete = tokio::time::timeout(DRAIN, drain).await.is_ok();
    watching.done.store(true, Ordering::Relaxed);
    watchers.iter().for_each(tokio::task::JoinHandle::abort);
    let broken = join_all(watchers).await.into_iter().filter_map(Result::ok).filter_map(Result::err).next();

    let mut line = watching.record.summary(elapsed);
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    let outstanding = (sent * args.watchers as u64).saturating_sub(count(&watching.received));
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
    let body = encode(Format::Json, "ConfigMap", config_map(&name(object), object, sequence, args.size))?;
    watching.sent.write()[usize::try_from(sequence - 1)?] = Instant::now();
    let item = format!("{path}/{}", name(object));
    let (status, body) = connection.send(Request::new(Method::PUT, &item, body)).await?;
    if !status.is_success() {
        bail!("{}", refusal(status, &body));
    }
    Ok(body.len())
}

/// One watcher.
async fn follow(
    watching: Arc<Watching>,
    target: Target,
    connection: Connection,
    path: String,
    version: String,
) -> anyhow::Result<()> {
    let mut lines = Lines::over(&target, connection, &path, "", &version).await?;
    let mut seen = vec![0_u64; usize::try_from(watching.objects)?];
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

fn event(watching: &Watching, line: &[u8], seen: &mut [u64], samples: &mut Samples) {
    let Some(sequence) = sequence(line).filter(|sequence| *sequence > 0) else { return };
    let Some(last) = seen.get_mut(usize::try_from(sequence % watching.objects).unwrap_or(usize::MAX)) else {
        return;
    };
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
            last: AtomicU64::new(u64::MAX),
            done: AtomicBool::new(false),
            received: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
        };
        let (mut seen, mut samples) = (vec![0; 2], Samples::default());
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
