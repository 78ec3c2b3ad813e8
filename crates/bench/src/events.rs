//! A watch as a stream of decoded events, for workloads that look into objects.

use anyhow::{Context, bail};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use crate::target::{Connection, Protocol, Request, Target, refusal};

pub struct Events {
    /// Keeps the connection open.
    _connection: Connection,
    body: Incoming,
    rest: Vec<u8>,
}

impl Events {
    /// Watches a collection from its present state on.
    pub async fn open(target: &Target, path: &str, selector: &str) -> anyhow::Result<Self> {
        let mut connection = target.connect(Protocol::Http1).await?;
        let list = format!("{path}?limit=1&{selector}");
        let (status, body) = connection.send(Request::get(&list)).await?;
        if !status.is_success() {
            bail!("{}", refusal(status, &body));
        }
        let list: Value = serde_json::from_slice(&body)?;
        let version =
            list["metadata"]["resourceVersion"].as_str().context("a list without resourceVersion")?;
        let watch = format!("{path}?watch=1&resourceVersion={version}&{selector}");
        let answer = connection.begin(Request::get(&watch)).await?;
        let status = answer.status();
        let mut body = answer.into_body();
        if !status.is_success() {
            let said = body.frame().await.and_then(Result::ok).and_then(|frame| frame.into_data().ok());
            bail!("{}", refusal(status, &said.unwrap_or_default()));
        }
        Ok(Self { _connection: connection, body, rest: Vec::new() })
    }

    /// The next events, at least one. An error when the watch ends.
    pub async fn next(&mut self) -> anyhow::Result<Vec<(String, Value)>> {
        loop {
            let frame = self.body.frame().await.context("the server ended the watch")??;
            let Ok(data) = frame.into_data() else { continue };
            self.rest.extend_from_slice(&data);
            let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { continue };
            let whole: Vec<u8> = self.rest.drain(..=end).collect();
            let mut out = Vec::new();
            for line in whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let mut event: Value = serde_json::from_slice(line)?;
                let kind = event["type"].as_str().unwrap_or_default().to_owned();
                if kind == "ERROR" {
                    bail!("the watch ended: {}", event["object"]["message"]);
                }
                out.push((kind, event["object"].take()));
            }
            return Ok(out);
        }
    }
}
