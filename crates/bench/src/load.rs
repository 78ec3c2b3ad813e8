//! How load is made: closed loop, where each worker waits for its answer, and open loop, where requests arrive by the
//! clock whether or not the server keeps up, and wait in the measured time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::future::join_all;

use crate::progress::Progress;
use crate::record::{Record, Samples};
use crate::stop::Stop;
use crate::target::{Connection, Protocol, Target};

/// Connections by which what is measured is made.
const MAKERS: usize = 32;

/// How hard and how long.
#[derive(Clone, Debug)]
pub struct Load {
    /// What it is, for who waits.
    pub what: String,
    /// Requests at once.
    pub concurrency: usize,
    /// Connections that HTTP/2 requests share; with HTTP/1.1 each request at once has its own.
    pub connections: usize,
    pub protocol: Protocol,
    /// Arrivals a second; closed loop without.
    pub rate: Option<f64>,
    pub time: Duration,
    /// No more requests than this.
    pub most: u64,
}

impl Load {
    /// Connections, one for each worker.
    pub async fn connect(&self, target: &Target) -> anyhow::Result<Vec<Connection>> {
        let own = match self.protocol {
            Protocol::Http1 => self.concurrency,
            Protocol::Http2 => self.connections.clamp(1, self.concurrency),
        };
        let mut out: Vec<Connection> = Vec::with_capacity(self.concurrency);
        for index in 0..self.concurrency {
            let connection = match index < own {
                true => target.connect(self.protocol).await?,
                false => out[index % own].share().context("HTTP/1.1 connections are not shared")?,
            };
            out.push(connection);
        }
        Ok(out)
    }
}

/// Does something for each number, over several connections. The first failure is the outcome.
pub async fn make<F>(what: &str, target: &Target, count: u64, stop: &Stop, one: F) -> anyhow::Result<()>
where
    F: AsyncFn(&mut Connection, u64) -> anyhow::Result<()>,
{
    let load = Load {
        what: what.to_owned(),
        concurrency: MAKERS.min(usize::try_from(count).unwrap_or(MAKERS)),
        connections: 1,
        protocol: Protocol::Http1,
        rate: None,
        time: Duration::MAX,
        most: count,
    };
    let record = Arc::new(Record::default());
    let connections = load.connect(target).await?;
    drive(&load, target, connections, &record, stop, async |connection, number| {
        one(connection, number).await.map(|()| 0)
    })
    .await?;
    match record.failures() {
        (failures, Some(why)) => bail!("{what}: {failures} requests failed: {why}"),
        _ => Ok(()),
    }
}

/// Runs `request` with the numbers 0, 1, 2, … until the time is over, the number is reached or somebody stops it. It
/// gives back how many bytes came. Connections come back for the next measurement; one that broke is opened anew.
pub async fn drive<F>(
    load: &Load,
    target: &Target,
    connections: Vec<Connection>,
    record: &Arc<Record>,
    stop: &Stop,
    request: F,
) -> anyhow::Result<(Vec<Connection>, Duration)>
where
    F: AsyncFn(&mut Connection, u64) -> anyhow::Result<usize>,
{
    let next = AtomicU64::new(0);
    let progress = Progress::begin(load.what.as_str(), (load.most < u64::MAX).then_some(load.most));
    let begun = Instant::now();
    let workers = connections.into_iter().map(|mut connection| {
        let (next, request, progress) = (&next, &request, &progress);
        async move {
            let mut samples = Samples::default();
            while !stop.is_set() && begun.elapsed() < load.time {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= load.most {
                    break;
                }
                let due = match load.rate {
                    None => Instant::now(),
                    Some(rate) => {
                        let due = begun + Duration::from_secs_f64(number as f64 / rate);
                        if due > begun + load.time {
                            break;
                        }
                        tokio::time::sleep_until(due.into()).await;
                        due
                    }
                };
                match request(&mut connection, number).await {
                    Ok(bytes) => {
                        samples.push(due.elapsed(), bytes);
                        progress.add(1);
                    }
                    Err(error) => {
                        record.fail(format!("{error:#}"));
                        match target.connect(load.protocol).await {
                            Ok(fresh) => connection = fresh,
                            // it may come back
                            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                        }
                    }
                }
                if samples.is_full() {
                    record.add(&mut samples);
                }
            }
            record.add(&mut samples);
            connection
        }
    });
    let connections = join_all(workers).await;
    Ok((connections, begun.elapsed()))
}
