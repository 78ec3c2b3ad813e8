//! A watch as lines, or as a stream of decoded events for workloads that look into objects.

use std::collections::HashSet;
use std::time::Instant;

use anyhow::{Context, bail};
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use crate::journal::Gone;
use crate::target::{COME_BACK, Connection, Protocol, RETRY, Request, Target, is_final, refusal};

/// The lines of a watch. Where the server is killed on purpose, it goes on from the last version it showed.
pub struct Lines {
    target: Target,
    /// Path and query, but for the version.
    url: String,
    connection: Connection,
    body: Option<Incoming>,
    rest: Vec<u8>,
    /// Where it began.
    version: String,
    /// The last event that was given out, which tells where to go on.
    last: Vec<u8>,
}

impl Lines {
    pub async fn open(target: &Target, path: &str, selector: &str, version: &str) -> anyhow::Result<Self> {
        Self::over(target, target.connect(Protocol::Http1).await?, path, selector, version).await
    }

    /// Over a connection that is there.
    pub async fn over(
        target: &Target,
        connection: Connection,
        path: &str,
        selector: &str,
        version: &str,
    ) -> anyhow::Result<Self> {
        let mut lines = Self {
            target: target.clone(),
            url: format!("{path}?watch=1&{selector}"),
            connection,
            body: None,
            rest: Vec::new(),
            version: version.to_owned(),
            last: Vec::new(),
        };
        lines.begin().await?;
        Ok(lines)
    }

    async fn begin(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let waits = self.target.is_killed() && begun.elapsed() < COME_BACK;
            let path = format!("{}&resourceVersion={}", self.url, self.version);
            let answer = match self.connection.begin(Request::get(&path)).await {
                Ok(answer) => answer,
                Err(_) if waits => {
                    tokio::time::sleep(RETRY).await;
                    self.connection = self.target.connect(self.connection.protocol()).await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let status = answer.status();
            let mut body = answer.into_body();
            if status.is_success() {
                self.body = Some(body);
                return Ok(());
            }
            let said = body.frame().await.and_then(Result::ok).and_then(|frame| frame.into_data().ok());
            match status {
                StatusCode::GONE => return Err(Gone(self.version.clone()).into()),
                // it is going or coming
                _ if waits && !is_final(status) => {
                    tokio::time::sleep(RETRY).await;
                    self.connection = self.target.connect(self.connection.protocol()).await?;
                }
                _ => bail!("{}", refusal(status, &said.unwrap_or_default())),
            }
        }
    }

    /// Whole lines, at least one. An error when the watch ends for good.
    pub async fn next(&mut self) -> anyhow::Result<Vec<u8>> {
        loop {
            let body = self.body.as_mut().context("the watch is over")?;
            let data = match body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(_) => continue,
                },
                ended if !self.target.is_killed() => {
                    ended.transpose()?;
                    bail!("the server ended the watch");
                }
                _ => {
                    self.rest.clear();
                    if !self.last.is_empty() {
                        let event: Value = serde_json::from_slice(&self.last)?;
                        let version = event["object"]["metadata"]["resourceVersion"].as_str();
                        self.version = version.context("an event without resourceVersion")?.to_owned();
                    }
                    self.connection = self.target.connect(self.connection.protocol()).await?;
                    self.begin().await?;
                    continue;
                }
            };
            self.rest.extend_from_slice(&data);
            let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { continue };
            let whole: Vec<u8> = self.rest.drain(..=end).collect();
            if self.target.is_killed() {
                let last = whole[..end].rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
                self.last.clear();
                self.last.extend_from_slice(last);
            }
            return Ok(whole);
        }
    }
}

pub struct Events {
    target: Target,
    path: String,
    selector: String,
    lines: Lines,
    /// Names that were shown and have not gone, where a list may have to stand for a watch.
    there: HashSet<String>,
}

impl Events {
    /// Watches a collection from its present state on.
    pub async fn open(target: &Target, path: &str, selector: &str) -> anyhow::Result<Self> {
        let version = target.current_version(path).await?.to_string();
        let lines = Lines::open(target, path, selector, &version).await?;
        Ok(Self {
            target: target.clone(),
            path: path.to_owned(),
            selector: selector.to_owned(),
            lines,
            there: HashSet::new(),
        })
    }

    /// The next events, at least one. An error when the watch ends.
    pub async fn next(&mut self) -> anyhow::Result<Vec<(String, Value)>> {
        let whole = match self.lines.next().await {
            Err(error) if error.downcast_ref::<Gone>().is_some() => return self.relist().await,
            whole => whole?,
        };
        let mut out = Vec::new();
        for line in whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let mut event: Value = serde_json::from_slice(line)?;
            let kind = event["type"].as_str().unwrap_or_default().to_owned();
            if kind == "ERROR" && event["object"]["code"] == 410 && self.target.is_killed() {
                return self.relist().await;
            }
            if kind == "ERROR" {
                bail!("the watch ended: {}", event["object"]["message"]);
            }
            let object = event["object"].take();
            if self.target.is_killed() {
                let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                match kind.as_str() {
                    "DELETED" => self.there.remove(&name),
                    _ => self.there.insert(name),
                };
            }
            out.push((kind, object));
        }
        Ok(out)
    }

    /// What a list tells instead of the events that the server has no more.
    async fn relist(&mut self) -> anyhow::Result<Vec<(String, Value)>> {
        self.target.relisted();
        let body = self.target.once(Request::get(&format!("{}?{}", self.path, self.selector))).await?;
        let mut list: Value = serde_json::from_slice(&body)?;
        let version = list["metadata"]["resourceVersion"].as_str().context("no resourceVersion")?.to_owned();
        self.lines = Lines::open(&self.target, &self.path, &self.selector, &version).await?;
        let items = list["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
        let name = |item: &Value| item["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let names: HashSet<String> = items.iter().map(name).collect();
        let gone = self
            .there
            .difference(&names)
            .map(|name| ("DELETED".to_owned(), serde_json::json!({"metadata": {"name": name}})));
        let out = gone.chain(items.into_iter().map(|item| ("MODIFIED".to_owned(), item))).collect();
        self.there = names;
        Ok(out)
    }
}
