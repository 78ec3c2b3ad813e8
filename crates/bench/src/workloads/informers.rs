//! Many clients that start at once and each read everything: by lists, or by watches that begin with all objects.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::ValueEnum;
use futures::future::{join_all, try_join_all};
use http::Method;
use http_body_util::BodyExt;
use serde_json::json;

use crate::load::make;
use crate::objects::{config_map, encode, pod};
use crate::process;
use crate::progress::Progress;
use crate::record::{Record, Samples};
use crate::report::Report;
use crate::sandbox::Sandbox;
use crate::stop::Stop;
use crate::target::{Connection, Format, Protocol, Request, Target, refusal};

/// How long a server has to give back memory that it no longer needs.
const SETTLE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// How many clients start at once.
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub clients: usize,
    /// How many objects there are.
    #[arg(long, default_value_t = 5000, value_name = "N")]
    pub objects: u64,
    #[arg(long, value_enum, default_value_t = Kind::ConfigMaps, help = "What the objects are")]
    pub kind: Kind,
    /// How many bytes of data a config map has.
    #[arg(long, default_value_t = 1000, value_name = "BYTES")]
    pub size: usize,
    #[arg(long, value_enum, default_value_t = Way::List, help = "How the objects are read")]
    pub way: Way,
    #[arg(long, value_enum, default_value_t = Format::Json, help = "The format that is asked for")]
    pub format: Format,
    /// The process id of the server, to tell how much memory it takes.
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub enum Kind {
    ConfigMaps,
    /// Pods that no scheduler is asked to place.
    Pods,
}

impl Kind {
    fn object(self, args: &Args, number: u64) -> anyhow::Result<Bytes> {
        match self {
            Self::ConfigMaps => {
                let object = config_map(&format!("map-{number}"), number, number, args.size);
                encode(Format::Protobuf, "ConfigMap", object)
            }
            Self::Pods => {
                let object = pod(&format!("pod-{number}"), number, json!({"schedulerName": "nobody"}));
                encode(Format::Protobuf, "Pod", object)
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// One list with everything, from the server's memory (resourceVersion=0).
    List,
    /// A watch with sendInitialEvents, until its bookmark.
    WatchList,
}

pub async fn run(args: &Args, target: &Target, report: &Report, stop: &Stop) -> anyhow::Result<()> {
    if args.clients == 0 {
        bail!("--clients 0 reads nothing");
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
    let kind = args.kind.to_possible_value();
    let kind = kind.as_ref().map_or("", |value| value.get_name());
    let path = sandbox.path(kind);
    let resident = || args.server_pid.and_then(process::resident_kb);
    let empty = resident();
    eprintln!("making {} {kind} …", args.objects);
    make(kind, target, args.objects, stop, async |connection, number| {
        let body = args.kind.object(args, number)?;
        let request = Request::new(Method::POST, &path, body).content(Format::Protobuf.media_type());
        connection.success(request).await.map(drop)
    })
    .await?;
    if stop.is_set() {
        return Ok(());
    }

    eprintln!("{} clients read them at once …", args.clients);
    let connections = try_join_all((0..args.clients).map(|_| target.connect(Protocol::Http1))).await?;
    if args.server_pid.is_some() {
        // what the writes took besides goes
        tokio::time::sleep(SETTLE).await;
    }
    let before = resident();
    let record = Record::default();
    let begun = Instant::now();
    let progress = Progress::begin("clients that have read all", Some(args.clients as u64));
    let reads = connections.into_iter().map(|mut connection| {
        let (record, path, progress) = (&record, &path, &progress);
        async move {
            let mut outcome = read(args, &mut connection, path).await;
            while outcome.is_err() && target.is_killed() && !stop.is_set() {
                // it begins anew, as a client does whose server went away
                connection = target.connect(Protocol::Http1).await?;
                outcome = read(args, &mut connection, path).await;
            }
            progress.add(1);
            match outcome {
                Ok(bytes) => {
                    let mut samples = Samples::default();
                    samples.push(begun.elapsed(), bytes);
                    record.add(&mut samples);
                }
                Err(error) => record.fail(format!("{error:#}")),
            }
            anyhow::Ok(())
        }
    });
    tokio::select! {
        _ = join_all(reads) => {}
        () = stop.wait() => {}
    }
    drop(progress);
    let mut line = record.summary(begun.elapsed());
    line.insert("kind".into(), json!(kind));
    line.insert("objects".into(), json!(args.objects));
    line.insert("format".into(), json!(format!("{:?}", args.format).to_lowercase()));
    line.insert("clients".into(), json!(args.clients));
    if target.throttled() > 0 {
        line.insert("throttled".into(), json!(target.throttled()));
    }
    line.insert("way".into(), json!(format!("{:?}", args.way).to_lowercase()));
    if let (Some(before), Some(peak)) = (before, args.server_pid.and_then(process::peak_kb)) {
        let taken = before.saturating_sub(empty.unwrap_or(before)) * 1024;
        line.insert("server_bytes_per_object".into(), json!(taken / args.objects.max(1)));
        line.insert("server_kb_before".into(), json!(before));
        line.insert("server_kb_peak".into(), json!(peak));
    }
    report.line("read", line);
    report.curve("read", &record);
    match record.failures() {
        (failures, Some(why)) => bail!("{failures} clients failed: {why}"),
        _ => Ok(()),
    }
}

/// Reads everything once; gives back how many bytes came.
async fn read(args: &Args, connection: &mut Connection, path: &str) -> anyhow::Result<usize> {
    let path = match args.way {
        Way::List => format!("{path}?resourceVersion=0"),
        Way::WatchList => format!(
            "{path}?watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
        ),
    };
    let mut request = Request::get(&path).accept(args.format);
    if args.way == Way::WatchList && args.format == Format::Protobuf {
        request.accept = "application/vnd.kubernetes.protobuf;stream=watch";
    }
    let answer = connection.begin_in_turn(request).await?;
    let status = answer.status();
    let mut body = answer.into_body();
    let (mut total, mut tail) = (0, Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if !status.is_success() {
            bail!("{}", refusal(status, &data));
        }
        total += data.len();
        if args.way == Way::WatchList {
            // the mark may lie across two pieces
            tail.extend_from_slice(&data[data.len().saturating_sub(KEPT)..]);
            if contains(&tail, b"k8s.io/initial-events-end") || contains(&data, b"k8s.io/initial-events-end")
            {
                return Ok(total);
            }
            tail.drain(..tail.len().saturating_sub(KEPT));
        }
    }
    match args.way {
        Way::List => Ok(total),
        Way::WatchList => Err(anyhow::anyhow!("it ended before its bookmark")).context("a watch"),
    }
}

/// How much of the end of a piece is looked at together with the next.
const KEPT: usize = 64;

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
