//! The API's verbs over ConfigMaps.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::ValueEnum;
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::load::{Load, drive};
use crate::objects::{config_map, encode};
use crate::record::Record;
use crate::report::Report;
use crate::sandbox::Sandbox;
use crate::stop::Stop;
use crate::target::{Connection, Format, Protocol, Request, Target};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Requests at once.
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub concurrency: usize,
    /// Connections that HTTP/2 requests share; with HTTP/1.1 each request at once has its own.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub connections: usize,
    #[arg(long, value_enum, default_value_t = Protocol::Http1, help = "The protocol of the connections")]
    pub protocol: Protocol,
    #[arg(long, value_enum, default_value_t = Format::Json, help = "The format of bodies and answers")]
    pub format: Format,
    /// How long each verb is measured, in seconds.
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    pub seconds: f64,
    /// Open loop: so many requests arrive each second, kept up with or not [default: closed loop].
    #[arg(long, value_name = "PER SECOND")]
    pub rate: Option<f64>,
    /// No more requests of a verb than this.
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true, value_name = "N")]
    pub most: u64,
    /// How many bytes of data an object has.
    #[arg(long, default_value_t = 256, value_name = "BYTES")]
    pub size: usize,
    /// How many objects a page of a paged list has.
    #[arg(long, default_value_t = 500, value_name = "N")]
    pub page: u64,
    /// Which verbs, in this order; create comes first, since the others need objects.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Verb::ALL, value_name = "VERBS")]
    pub verbs: Vec<Verb>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Verb {
    Create,
    Get,
    Update,
    Patch,
    Apply,
    /// The whole list in one answer.
    List,
    /// The whole list page by page.
    ListPaged,
    /// A tenth of the list, chosen by a label.
    ListLabel,
    Delete,
}

impl Verb {
    const ALL: [Self; 9] = [
        Self::Create,
        Self::Get,
        Self::Update,
        Self::Patch,
        Self::Apply,
        Self::List,
        Self::ListPaged,
        Self::ListLabel,
        Self::Delete,
    ];
}

impl std::fmt::Display for Verb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

pub async fn run(args: &Args, target: &Target, report: &Report, stop: &Stop) -> anyhow::Result<()> {
    if args.concurrency == 0 {
        bail!("--concurrency 0 makes no load");
    }
    if args.rate.is_some_and(|rate| rate.is_nan() || rate <= 0.0) {
        bail!("--rate must be more than 0");
    }
    Sandbox::with(target, async |sandbox| Run { args, target, report, stop, sandbox }.all().await).await
}

struct Run<'a> {
    args: &'a Args,
    target: &'a Target,
    report: &'a Report,
    stop: &'a Stop,
    sandbox: &'a Sandbox,
}

impl Run<'_> {
    async fn all(&self) -> anyhow::Result<()> {
        let load = Load {
            what: String::new(),
            concurrency: self.args.concurrency,
            connections: self.args.connections,
            protocol: self.args.protocol,
            rate: self.args.rate,
            time: Duration::from_secs_f64(self.args.seconds),
            most: self.args.most,
        };
        let path = self.sandbox.path("configmaps");
        // what was refused is not there to be read
        let made: Mutex<Vec<u64>> = Mutex::default();
        let mut connections = load.connect(self.target).await?;
        let mut verbs = self.args.verbs.clone();
        if verbs.first() != Some(&Verb::Create) {
            bail!("--verbs must begin with create, since the others need objects");
        }
        verbs.dedup();
        for verb in verbs {
            if self.stop.is_set() {
                break;
            }
            eprintln!("{verb} …");
            let there = made.lock().clone();
            if verb != Verb::Create && there.is_empty() {
                bail!("no object could be made, so that there is nothing to {verb}");
            }
            let mut load = Load { what: verb.to_string(), ..load.clone() };
            if verb == Verb::Delete {
                load.most = load.most.min(there.len() as u64);
            }
            let record = Arc::new(Record::default());
            let throttled = self.target.throttled();
            let (back, elapsed) =
                drive(&load, self.target, connections, &record, self.stop, async |connection, number| {
                    let bytes = self.request(verb, connection, &path, number, &there).await?;
                    if verb == Verb::Create {
                        made.lock().push(number);
                    }
                    Ok(bytes)
                })
                .await?;
            connections = back;
            let objects = made.lock().len() as u64;
            self.tell(verb, &record, elapsed, objects, self.target.throttled() - throttled)?;
        }
        Ok(())
    }

    fn tell(
        &self,
        verb: Verb,
        record: &Record,
        elapsed: Duration,
        objects: u64,
        throttled: u64,
    ) -> anyhow::Result<()> {
        let mut line = record.summary(elapsed);
        if throttled > 0 {
            line.insert("throttled".into(), json!(throttled));
        }
        line.insert("concurrency".into(), json!(self.args.concurrency));
        line.insert("protocol".into(), json!(format!("{:?}", self.args.protocol).to_lowercase()));
        line.insert("format".into(), json!(format!("{:?}", self.args.format).to_lowercase()));
        line.insert("objects".into(), json!(objects));
        if let Some(rate) = self.args.rate {
            line.insert("rate".into(), json!(rate));
        }
        self.report.line(&verb.to_string(), line);
        self.report.curve(&verb.to_string(), record);
        match record.failures() {
            (failures, Some(why)) if record.count() == 0 => {
                bail!("{verb} failed {failures} times and never worked: {why}")
            }
            _ => Ok(()),
        }
    }

    async fn request(
        &self,
        verb: Verb,
        connection: &mut Connection,
        path: &str,
        number: u64,
        there: &[u64],
    ) -> anyhow::Result<usize> {
        let format = self.args.format;
        let name = |number: u64| format!("map-{number}");
        // verbs that take turns over what there is
        let turn = match there.len() as u64 {
            0 => number,
            count => there[usize::try_from(number % count)?],
        };
        let item = format!("{path}/{}", name(turn));
        let object = |number: u64, sequence: u64| -> anyhow::Result<Bytes> {
            encode(format, "ConfigMap", config_map(&name(number), number, sequence, self.args.size))
        };
        let sent = |method: Method, path, body: Bytes| {
            Request::new(method, path, body).content(format.media_type()).accept(format)
        };
        let json = |method: Method, path, body: &Value, media_type| {
            Request::new(method, path, body.to_string()).content(media_type).accept(format)
        };
        match verb {
            Verb::Create => ok(connection, sent(Method::POST, path, object(number, 0)?)).await,
            Verb::Get => ok(connection, Request::get(&item).accept(format)).await,
            Verb::Update => ok(connection, sent(Method::PUT, &item, object(turn, number + 1)?)).await,
            Verb::Patch => {
                let body = json!({"data": {"sequence": format!("<{number}>")}});
                ok(connection, json(Method::PATCH, &item, &body, "application/merge-patch+json")).await
            }
            Verb::Apply => {
                let body = json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name(turn)},
                    "data": {"applied": number.to_string()},
                });
                let item = format!("{item}?fieldManager=xebec-bench&force=true");
                ok(connection, json(Method::PATCH, &item, &body, "application/apply-patch+yaml")).await
            }
            Verb::List => ok(connection, Request::get(path).accept(format)).await,
            Verb::ListPaged => self.pages(connection, path).await,
            Verb::ListLabel => {
                let path = format!("{path}?labelSelector=group%3Dg{}", number % crate::objects::GROUPS);
                ok(connection, Request::get(&path).accept(format)).await
            }
            Verb::Delete => ok(connection, sent(Method::DELETE, &item, Bytes::new())).await,
        }
    }

    /// All pages; in JSON, since the token of the next page has to be read.
    async fn pages(&self, connection: &mut Connection, path: &str) -> anyhow::Result<usize> {
        let (mut total, mut token) = (0, String::new());
        loop {
            let page = format!("{path}?limit={}&continue={token}", self.args.page);
            let body = connection.success(Request::get(&page)).await?;
            total += body.len();
            match next_page(&body).context("a list without metadata")? {
                next if next.is_empty() => return Ok(total),
                next => token = next,
            }
        }
    }
}

/// The token of the next page, found without decoding the items.
fn next_page(body: &[u8]) -> Option<String> {
    const KEY: &[u8] = b"\"continue\":\"";
    // the list's metadata comes before its items, or after them
    let items = body.windows(9).position(|window| window == b"\"items\":[")?;
    let head = &body[..items];
    let tail = &body[body.len().saturating_sub(2048)..];
    for part in [head, tail] {
        if let Some(at) = part.windows(KEY.len()).position(|window| window == KEY) {
            let rest = &part[at + KEY.len()..];
            let end = rest.iter().position(|byte| *byte == b'"')?;
            return std::str::from_utf8(&rest[..end]).ok().map(str::to_owned);
        }
    }
    Some(String::new())
}

/// Sends a request that must succeed; gives back how many bytes came.
async fn ok(connection: &mut Connection, request: Request<'_>) -> anyhow::Result<usize> {
    connection.success(request).await.map(|body| body.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found() {
        let page = br#"{"kind":"L","metadata":{"resourceVersion":"1","continue":"abc"},"items":[{}]}"#;
        assert_eq!(next_page(page).as_deref(), Some("abc"));
        assert_eq!(next_page(br#"{"metadata":{},"items":[]}"#).as_deref(), Some(""));
        assert_eq!(next_page(br#"{"items":[],"metadata":{"continue":"x"}}"#).as_deref(), Some("x"));
        assert_eq!(next_page(b"no list"), None);
    }
}
