//! `kill -9` at random moments under load: every acknowledged write must be there afterwards, and a watch that resumes
//! where it broke off must be complete.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::command::Server;
use crate::objects::{config_map, encode, sequence};
use crate::report::Report;
use crate::sandbox::Sandbox;
use crate::stop::Stop;
use crate::target::{Format, Protocol, Request, Target, refusal};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The command that serves the kubeconfig's cluster; it is started, killed and started again.
    #[arg(long, value_name = "COMMAND")]
    pub command: String,
    /// How many kills.
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub kills: usize,
    /// The longest time between a start and the kill, in seconds.
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    pub within: f64,
    /// Writers at once, each with an object of its own.
    #[arg(long, default_value_t = 16, value_name = "N")]
    pub writers: u64,
    /// Where the server's output goes.
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
}

const START: Duration = Duration::from_secs(120);
const RETRY: Duration = Duration::from_millis(10);

/// What writers and the watcher share.
struct Shared {
    target: Target,
    path: String,
    over: AtomicBool,
    /// By writer: the sequence number that was acknowledged last, and the one that was sent last.
    written: Vec<[AtomicU64; 2]>,
    acknowledged: AtomicU64,
    /// What the watcher saw of each writer, in order.
    seen: Mutex<HashMap<u64, Vec<u64>>>,
    relists: AtomicU64,
}

pub async fn run(args: &Args, kubeconfig: &Path, report: &Report, stop: &Stop) -> anyhow::Result<()> {
    if args.writers == 0 {
        bail!("--writers 0 writes nothing");
    }
    let mut server = Some(Server::start(&args.command, args.log.as_deref())?);
    let target = ready(kubeconfig, server.as_mut().context("just started")?).await?;
    let outcome = Sandbox::with(&target, async |sandbox| {
        let shared = Arc::new(Shared {
            target: target.clone(),
            path: sandbox.path("configmaps"),
            over: AtomicBool::new(false),
            written: (0..args.writers).map(|_| Default::default()).collect(),
            acknowledged: AtomicU64::new(0),
            seen: Mutex::default(),
            relists: AtomicU64::new(0),
        });
        let mut tasks = tokio::task::JoinSet::new();
        let list = target.once(Request::get(&format!("{}?limit=1", shared.path))).await?;
        let list: Value = serde_json::from_slice(&list)?;
        let from = list["metadata"]["resourceVersion"].as_str().context("no resourceVersion")?.to_owned();
        let watcher = tokio::spawn(watch(shared.clone(), from));
        for writer in 0..args.writers {
            tasks.spawn(write(shared.clone(), writer));
        }
        for kills in 0..args.kills {
            let moment = Duration::from_secs_f64(rand::random::<f64>() * args.within.max(0.0));
            tokio::select! {
                () = tokio::time::sleep(moment) => {}
                () = stop.wait() => break,
            }
            eprintln!(
                "kill {} of {}, {} writes so far …",
                kills + 1,
                args.kills,
                count(&shared.acknowledged)
            );
            server.take().context("a server")?.kill()?;
            server = Some(Server::start(&args.command, args.log.as_deref())?);
            ready(kubeconfig, server.as_mut().context("just started")?).await?;
        }
        shared.over.store(true, Ordering::Relaxed);
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        let found = verify(&shared).await;
        watcher.abort();
        let (lost, missed) = found?;
        report.line(
            "kill -9",
            Map::from_iter([
                ("count".to_owned(), json!(args.kills)),
                ("acknowledged_writes".to_owned(), json!(count(&shared.acknowledged))),
                ("lost_writes".to_owned(), json!(lost.len())),
                ("missed_events".to_owned(), json!(missed.len())),
                ("watch_relists".to_owned(), json!(count(&shared.relists))),
            ]),
        );
        match (lost.first(), missed.first()) {
            (Some(lost), _) => bail!("an acknowledged write was lost: {lost}"),
            (_, Some(missed)) => bail!("a watch was not complete: {missed}"),
            _ => Ok(()),
        }
    })
    .await;
    if let Some(server) = server {
        server.stop().await?;
    }
    outcome
}

fn count(of: &AtomicU64) -> u64 {
    of.load(Ordering::Relaxed)
}

async fn ready(kubeconfig: &Path, server: &mut Server) -> anyhow::Result<Target> {
    let begun = Instant::now();
    loop {
        let attempt = async {
            let target = Target::from_kubeconfig(kubeconfig).await?;
            target.once(Request::get("/readyz")).await.map(|_| target)
        };
        let error = match attempt.await {
            Ok(target) => return Ok(target),
            Err(error) => error,
        };
        server.check()?;
        if begun.elapsed() > START {
            return Err(error).context("the server does not get ready");
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn name(writer: u64) -> String {
    format!("writer-{writer}")
}

/// Writes ever higher numbers into one object. A write without an answer may have happened or not.
async fn write(shared: Arc<Shared>, writer: u64) -> anyhow::Result<()> {
    let item = format!("{}/{}", shared.path, name(writer));
    let index = usize::try_from(writer)?;
    let mut number = 0;
    while !shared.over.load(Ordering::Relaxed) {
        let Ok(mut connection) = shared.target.connect(Protocol::Http1).await else {
            tokio::time::sleep(RETRY).await;
            continue;
        };
        while !shared.over.load(Ordering::Relaxed) {
            number += 1;
            let body = encode(Format::Json, "ConfigMap", config_map(&name(writer), writer, number, 100))?;
            shared.written[index][1].store(number, Ordering::Relaxed);
            let exists = number > 1;
            let mut sent = match exists {
                true => connection.send(Request::new(Method::PUT, &item, body.clone())).await,
                false => connection.send(Request::new(Method::POST, &shared.path, body.clone())).await,
            };
            if let Ok((StatusCode::NOT_FOUND, _)) = sent {
                // the create before had no answer and did not happen
                sent = connection.send(Request::new(Method::POST, &shared.path, body)).await;
            }
            match sent {
                Ok((status, _)) if status.is_success() => {
                    shared.written[index][0].store(number, Ordering::Relaxed);
                    shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Ok((status, body)) if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                    bail!("a write was refused: {}", refusal(status, &body))
                }
                // the server is going, gone or coming
                _ => break,
            }
        }
        tokio::time::sleep(RETRY).await;
    }
    Ok(())
}

/// Follows all writers, and after each break goes on from the last version it saw.
async fn watch(shared: Arc<Shared>, mut version: String) {
    loop {
        let _ = follow(&shared, &mut version).await;
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow(shared: &Shared, version: &mut String) -> anyhow::Result<()> {
    let mut connection = shared.target.connect(Protocol::Http1).await?;
    let path = format!("{}?watch=1&resourceVersion={version}", shared.path);
    let answer = connection.begin(Request::get(&path)).await?;
    if answer.status() == StatusCode::GONE {
        shared.relists.fetch_add(1, Ordering::Relaxed);
    }
    let mut body = answer.into_body();
    let mut rest: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        rest.extend_from_slice(&data);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line)?;
            let object = &event["object"];
            if event["type"] == "ERROR" {
                shared.relists.fetch_add(u64::from(object["code"] == 410), Ordering::Relaxed);
                bail!("{}", object["message"]);
            }
            if let Some(at) = object["metadata"]["resourceVersion"].as_str() {
                *version = at.to_owned();
            }
            let writer = object["metadata"]["name"].as_str().and_then(|name| name.strip_prefix("writer-"));
            if let (Some(writer), Some(number)) = (writer.and_then(|w| w.parse().ok()), sequence(&line)) {
                shared.seen.lock().entry(writer).or_default().push(number);
            }
        }
    }
    Ok(())
}

/// Compares what was acknowledged with what is there and with what the watcher saw.
async fn verify(shared: &Shared) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let mut lost = Vec::new();
    let mut last = HashMap::new();
    for (writer, [acknowledged, sent]) in (0_u64..).zip(&shared.written) {
        let (acknowledged, sent) = (count(acknowledged), count(sent));
        if acknowledged == 0 {
            continue;
        }
        let body = shared.target.once(Request::get(&format!("{}/{}", shared.path, name(writer)))).await?;
        let stored = sequence(&body).context("an object without its number")?;
        if !(acknowledged..=sent).contains(&stored) {
            lost.push(format!("{}: {acknowledged} was acknowledged, {stored} is there", name(writer)));
        }
        last.insert(writer, stored);
    }
    // the watcher gets to the end of what is there
    let begun = Instant::now();
    let caught_up = |seen: &HashMap<u64, Vec<u64>>| {
        last.iter().all(|(writer, stored)| seen.get(writer).and_then(|all| all.last()) == Some(stored))
    };
    while !caught_up(&shared.seen.lock()) && begun.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(RETRY).await;
    }
    let seen = shared.seen.lock();
    let mut missed = Vec::new();
    for (writer, stored) in &last {
        let all = seen.get(writer).map(Vec::as_slice).unwrap_or_default();
        if all.last() != Some(stored) {
            missed.push(format!("{}: {stored} is there, the watch saw {:?} last", name(*writer), all.last()));
        }
        if let Some(pair) = all.windows(2).find(|pair| pair[0] >= pair[1]) {
            missed.push(format!("{}: {} came after {}", name(*writer), pair[1], pair[0]));
        }
    }
    drop(seen);
    Ok((lost, missed))
}
