//! WATCH: events as they happen, framed for the format that was asked for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::codec;
use apimachinery::{Object, Status};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use rand::Rng;
use serde_json::json;
use streams::upgrade;
use streams::websocket::Message;
use streams::websocket::handshake::from_origin;
use tokio::time::Instant;

use super::Call;
use crate::cache::{Entry, Seen};
use crate::context::Context;
use crate::http::body::{BoxError, Request, Response};
use crate::http::limits::Begins;
use crate::http::negotiate::{Accepted, As, Format};
use crate::http::respond;
use crate::kinds::Kind;
use crate::registry::list::ListOptions;
use crate::registry::watch::Watch;
use crate::stream_translator;

/// How long a watch lives when the client does not say: this, up to twice.
const MIN_TIMEOUT: u64 = 1800;

/// How often a watcher that wants bookmarks gets one.
const BOOKMARKS: Duration = Duration::from_secs(60);

/// How many bytes of events are written at once when many are waiting.
const CHUNK: usize = 64 * 1024;

impl Call<'_> {
    pub async fn watch(&self, mut request: Request) -> Result<Response, Status> {
        let options = ListOptions::parse(self.kind, &self.ctx.info, &self.ctx.query)?;
        if options.send_initial_events == Some(true) && !options.allow_bookmarks {
            let path = apimachinery::field::Path::new("sendInitialEvents");
            let error = apimachinery::field::Error::forbidden(
                &path,
                "sendInitialEvents requires setting allowWatchBookmarks to true",
            );
            let kind = apimachinery::GroupKind::new("meta.k8s.io", "ListOptions");
            return Err(Status::invalid(&kind, "", &[error]));
        }
        let registry = &self.server.registry;
        let kind = registry
            .kind(self.kind.resource.group, self.kind.resource.version, self.kind.resource.plural)
            .ok_or_else(Status::no_such_path)?
            .clone();
        if self.accepted.r#as == As::Table {
            respond::check_include(self.ctx)?;
        }
        let watch = registry.watch(&kind, &self.ctx.info.namespace, &options).await?;
        let timeout = options
            .timeout_seconds
            .filter(|seconds| *seconds > 0)
            .unwrap_or_else(|| rand::rng().random_range(MIN_TIMEOUT..2 * MIN_TIMEOUT));
        let ctx = Context {
            user: self.ctx.user.clone(),
            info: self.ctx.info.clone(),
            query: self.ctx.query.clone(),
            user_agent: String::new(),
            now: self.ctx.now,
            deadline: None,
            left: Default::default(),
            place: Default::default(),
            audit: self.ctx.audit.clone(),
            warnings: Default::default(),
        };
        let feed = Feed {
            initial: watch.initial.clone().into(),
            begins: self.ctx.place.take_watch(),
            end_of_initial: watch.marks_end_of_initial.then_some(watch.revision),
            seen: watch.revision,
            watch,
            frames: Frames { kind, accepted: self.accepted, ctx, columns_sent: false },
            bookmarks: options.allow_bookmarks,
            next_bookmark: Instant::now() + BOOKMARKS,
            deadline: Instant::now() + Duration::from_secs(timeout),
            cache: registry.cache.clone(),
        };
        let stream = stream::unfold(Some(feed), |feed| async move {
            let mut feed = feed?;
            match feed.next().await {
                Some(Ok(bytes)) => Some((bytes, Some(feed))),
                Some(Err(status)) => Some((feed.frames.error(&status), None)),
                None => None,
            }
        });
        if upgrade::is_websocket(request.headers()) {
            let accepted = match from_origin(request.method(), request.headers()) {
                Ok(accepted) => accepted,
                Err(refused) => return Ok(stream_translator::refused(refused)),
            };
            let client = stream_translator::client(&mut request)?;
            let format = self.accepted.format;
            let messages = stream.flat_map(move |chunk| stream::iter(messages(format, chunk)));
            return Ok(stream_translator::feed(&accepted, client, messages));
        }
        let stream = stream.map(|chunk| Ok::<_, BoxError>(Frame::data(chunk)));
        let mut response = Response::new(StreamBody::new(stream).boxed_unsync());
        *response.status_mut() = StatusCode::OK;
        let media_type = match self.accepted.format {
            Format::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
            _ => "application/json",
        };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        Ok(response)
    }
}

/// One watch on its way to one client.
struct Feed {
    initial: VecDeque<Arc<Entry>>,
    /// What the watch holds on to; its seat goes when what was there has been shown.
    begins: Option<Begins>,
    end_of_initial: Option<u64>,
    watch: Watch,
    frames: Frames,
    bookmarks: bool,
    seen: u64,
    next_bookmark: Instant,
    deadline: Instant,
    cache: Arc<crate::cache::Cache>,
}

impl Feed {
    /// The next bytes for the client; `None` when the watch is over.
    async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        let mut out = Vec::new();
        while let Some(entry) = self.initial.pop_front() {
            if let Err(status) = self.frames.event("ADDED", &entry, &mut out) {
                return Some(Err(status));
            }
            if out.len() >= CHUNK {
                return Some(Ok(out.into()));
            }
        }
        if let Some(revision) = self.end_of_initial.take() {
            self.frames.bookmark(revision, true, &mut out);
        }
        if let Some(begins) = &mut self.begins {
            begins.done();
        }
        if !out.is_empty() {
            return Some(Ok(out.into()));
        }
        loop {
            let change = tokio::select! {
                biased;
                change = self.watch.watcher.next() => change.ok()?,
                () = tokio::time::sleep_until(self.deadline) => return None,
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = Instant::now() + BOOKMARKS;
                    // read first, then drained: every event up to this revision is out before the bookmark
                    let revision = self.cache.revision();
                    if let Some(change) = self.watch.watcher.try_next() {
                        if let Err(status) = self.write(&change, &mut out) {
                            return Some(Err(status));
                        }
                        if out.is_empty() {
                            continue;
                        }
                        return Some(Ok(out.into()));
                    }
                    if revision > 0 {
                        self.frames.bookmark(revision, false, &mut out);
                        return Some(Ok(out.into()));
                    }
                    continue;
                }
            };
            if let Err(status) = self.write(&change, &mut out) {
                return Some(Err(status));
            }
            while out.len() < CHUNK {
                let Some(change) = self.watch.watcher.try_next() else { break };
                if let Err(status) = self.write(&change, &mut out) {
                    return Some(Err(status));
                }
            }
            if !out.is_empty() {
                return Some(Ok(out.into()));
            }
        }
    }

    fn write(&mut self, change: &crate::cache::Change, out: &mut Vec<u8>) -> Result<(), Status> {
        self.seen = change.revision;
        match change.seen_by(&self.watch.watcher.filter) {
            Some(Seen::Added(entry)) => self.frames.event("ADDED", &entry, out),
            Some(Seen::Modified(entry)) => self.frames.event("MODIFIED", &entry, out),
            Some(Seen::Deleted(entry)) => self.frames.event("DELETED", &entry, out),
            None => Ok(()),
        }
    }
}

/// Writes events in the format and shape of one watch.
struct Frames {
    kind: Arc<Kind>,
    accepted: Accepted,
    ctx: Context,
    columns_sent: bool,
}

impl Frames {
    fn event(&mut self, r#type: &str, entry: &Entry, out: &mut Vec<u8>) -> Result<(), Status> {
        if self.accepted.r#as == As::Itself && !self.kind.converts() {
            match self.accepted.format {
                Format::Protobuf => {
                    framed(out, |out| entry.protobuf().append_watch_event(r#type, entry.revision(), out));
                }
                _ => {
                    let json = entry.json().map_err(Status::internal)?;
                    json_event(r#type, out, |out| json.append(entry.revision(), out));
                }
            }
            return Ok(());
        }
        let object = match self.accepted.r#as {
            As::PartialObjectMetadata | As::PartialObjectMetadataList => {
                let made = entry.made_json().filter(|_| !self.kind.converts());
                if let (Format::Json, Some(json)) = (self.accepted.format, made) {
                    json_event(r#type, out, |out| json.append_metadata(entry.revision(), out));
                    return Ok(());
                }
                respond::metadata(&self.kind, entry)?
            }
            As::Itself | As::Table => {
                let mut object = entry.object().map_err(Status::internal)?;
                self.kind.convert_from_stored(&mut object);
                object
            }
        };
        self.shaped(r#type, object, out)
    }

    /// Writes an object in whatever shape the client asked for.
    fn shaped(&mut self, r#type: &str, object: Object, out: &mut Vec<u8>) -> Result<(), Status> {
        let columns = self.kind.resource.columns;
        let (object, schema) = match self.accepted.r#as {
            As::Itself => (object, Some(self.kind.schema.clone())),
            As::Table => {
                let rows = vec![respond::row(columns, &object, &self.ctx)];
                let meta = respond::list_meta(object.resource_version(), "", None);
                let table = respond::table(columns, rows, meta, !self.columns_sent);
                self.columns_sent = true;
                (Object::from(table), None)
            }
            As::PartialObjectMetadata | As::PartialObjectMetadataList => (
                respond::into_metadata(object),
                apimachinery::schema::Schema::builtin(
                    "k8s.io.apimachinery.pkg.apis.meta.v1",
                    "PartialObjectMetadata",
                ),
            ),
        };
        let mut encoded = Vec::new();
        match (self.accepted.format, schema) {
            (Format::Protobuf, Some(schema)) => {
                codec::encode_protobuf(&object, &schema, &mut encoded);
                framed(out, |out| codec::encode_protobuf_watch_event(r#type, &encoded, out));
            }
            (_, Some(schema)) => {
                codec::encode_json(&object, &schema, &mut encoded);
                json_event(r#type, out, |out| out.extend_from_slice(&encoded));
            }
            (_, None) => {
                let text = object.as_value().to_string();
                json_event(r#type, out, |out| out.extend_from_slice(text.as_bytes()));
            }
        }
        Ok(())
    }

    fn bookmark(&mut self, revision: u64, end_of_initial: bool, out: &mut Vec<u8>) {
        let mut object = Object::default();
        object.set_type(&self.kind.resource.gvk());
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if end_of_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        object.set(&["metadata"], metadata);
        if self.accepted.r#as == As::Table {
            let meta = respond::list_meta(&revision.to_string(), "", None);
            let row = json!({"cells": [], "object": respond::metadata_of(&object).as_value()});
            let table = respond::table(self.kind.resource.columns, vec![row], meta, !self.columns_sent);
            self.columns_sent = true;
            let text = table.to_string();
            json_event("BOOKMARK", out, |out| out.extend_from_slice(text.as_bytes()));
            return;
        }
        if let Err(error) = codec::normalize(&mut object, &self.kind.schema) {
            tracing::error!(%error, "a bookmark is not well-formed");
        }
        if let Err(status) = self.shaped("BOOKMARK", object, out) {
            tracing::error!(%status, "a bookmark could not be written");
        }
    }

    fn error(&self, status: &Status) -> Bytes {
        let mut out = Vec::new();
        let object = Object::from(status.to_value());
        let schema = apimachinery::schema::Schema::builtin("k8s.io.apimachinery.pkg.apis.meta.v1", "Status");
        match (self.accepted.format, schema) {
            (Format::Protobuf, Some(schema)) => {
                let mut encoded = Vec::new();
                codec::encode_protobuf(&object, &schema, &mut encoded);
                framed(&mut out, |out| codec::encode_protobuf_watch_event("ERROR", &encoded, out));
            }
            _ => {
                let text = object.as_value().to_string();
                json_event("ERROR", &mut out, |out| out.extend_from_slice(text.as_bytes()));
            }
        }
        out.into()
    }
}

/// The events of a chunk, each a message of its own: JSON as text, protobuf as bytes without its length.
fn messages(format: Format, mut chunk: Bytes) -> Vec<Message> {
    let mut out = Vec::new();
    while !chunk.is_empty() {
        match format {
            Format::Protobuf => {
                let Some(length) = chunk.first_chunk::<LENGTH>().map(|length| u32::from_be_bytes(*length))
                else {
                    return out;
                };
                chunk = chunk.slice(LENGTH..);
                let length = usize::try_from(length).unwrap_or(usize::MAX).min(chunk.len());
                out.push(Message::Binary(chunk.split_to(length)));
            }
            _ => {
                let end = chunk.iter().position(|byte| *byte == b'\n').map_or(chunk.len(), |at| at + 1);
                out.push(Message::text(String::from_utf8_lossy(&chunk.split_to(end)).into_owned()));
            }
        }
    }
    out
}

fn json_event(r#type: &str, out: &mut Vec<u8>, object: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(r#type.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    object(out);
    out.extend_from_slice(b"}\n");
}

/// Frames of a protobuf watch begin with their length.
const LENGTH: usize = 4;

fn framed(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH]);
    write(out);
    let length = u32::try_from(out.len() - start - LENGTH).unwrap_or(u32::MAX);
    out[start..start + LENGTH].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_a_message() {
        let mut chunk = Vec::new();
        json_event("ADDED", &mut chunk, |out| out.extend_from_slice(br#"{"a":"\n"}"#));
        json_event("DELETED", &mut chunk, |out| out.extend_from_slice(b"{}"));
        let text = |text: &str| Message::text(text.to_owned());
        let want =
            ["{\"type\":\"ADDED\",\"object\":{\"a\":\"\\n\"}}\n", "{\"type\":\"DELETED\",\"object\":{}}\n"];
        assert_eq!(messages(Format::Json, chunk.into()), want.map(text));

        let mut chunk = Vec::new();
        framed(&mut chunk, |out| out.extend_from_slice(b"one\n"));
        framed(&mut chunk, |out| out.extend_from_slice(b""));
        framed(&mut chunk, |out| out.extend_from_slice(b"three"));
        let want = ["one\n", "", "three"].map(|data| Message::binary(data.as_bytes().to_vec()));
        assert_eq!(messages(Format::Protobuf, chunk.into()), want);
        assert_eq!(messages(Format::Protobuf, Bytes::from_static(b"\0")), []);
    }
}
