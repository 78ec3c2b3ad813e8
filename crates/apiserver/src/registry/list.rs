//! List: consistent pages over snapshots of the cache.

use std::num::{IntErrorKind, ParseIntError};
use std::sync::Arc;

use apimachinery::field::{self, Path};
use apimachinery::selectors::{FieldSelector, LabelSelector};
use apimachinery::{GroupKind, Status, codec};
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use base64::{DecodeError, Engine, alphabet};
use serde::{Deserialize, Serialize};
use storage::{Range, Revision};

use super::Registry;
use crate::cache::{Entry, Filter, Snapshot, storage_failed, too_large};
use crate::http::request_info::{Query, RequestInfo};
use crate::kinds::Kind;

/// The query of a list or watch.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub labels: Option<LabelSelector>,
    pub fields: Option<FieldSelector>,
    pub resource_version: String,
    pub resource_version_match: String,
    pub limit: usize,
    pub r#continue: String,
    pub timeout_seconds: Option<u64>,
    pub allow_bookmarks: bool,
    pub send_initial_events: Option<bool>,
}

impl ListOptions {
    pub fn parse(kind: &Kind, info: &RequestInfo, query: &Query) -> Result<Self, Status> {
        let labels = match query.text("labelSelector") {
            "" => None,
            text => Some(LabelSelector::parse(text)?),
        };
        let mut fields = match query.text("fieldSelector") {
            "" => None,
            text => Some(FieldSelector::parse(text)?),
        };
        if let Some(selector) = &fields {
            for name in selector.requirements().iter().map(|r| r.field.as_str()) {
                if !kind.resource.may_select(name) {
                    return Err(Status::bad_request(kind.resource.unknown_field(name)));
                }
            }
        }
        if fields.is_none() && !info.name.is_empty() {
            fields = Some(FieldSelector::equals("metadata.name", &info.name));
        }
        let number = |key: &str| -> Result<Option<i64>, Status> {
            match query.text(key) {
                "" => Ok(None),
                text => parse_i64(text).map(Some),
            }
        };
        let options = Self {
            labels,
            fields,
            resource_version: query.text("resourceVersion").to_owned(),
            resource_version_match: query.text("resourceVersionMatch").to_owned(),
            limit: usize::try_from(number("limit")?.unwrap_or_default()).unwrap_or_default(),
            r#continue: query.text("continue").to_owned(),
            timeout_seconds: number("timeoutSeconds")?.and_then(|seconds| u64::try_from(seconds).ok()),
            allow_bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents")),
        };
        options.validate(info.verb == "watch")?;
        Ok(options)
    }

    /// Combinations that upstream refuses, in its words.
    fn validate(&self, watch: bool) -> Result<(), Status> {
        let mut errors = Vec::new();
        let version_match = self.resource_version_match.as_str();
        let match_path = Path::new("resourceVersionMatch");
        let initial_path = Path::new("sendInitialEvents");
        if watch {
            if !version_match.is_empty() && self.send_initial_events.is_none() {
                errors.push(field::Error::forbidden(
                    &match_path,
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ));
            }
            if self.send_initial_events.is_some() && version_match != "NotOlderThan" {
                errors.push(field::Error::forbidden(
                    &match_path,
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ));
            }
            if !self.r#continue.is_empty() && self.send_initial_events.is_some() {
                errors.push(field::Error::forbidden(
                    &initial_path,
                    "sendInitialEvents is forbidden with continue",
                ));
            }
        } else if self.send_initial_events.is_some() {
            errors.push(field::Error::forbidden(&initial_path, "sendInitialEvents is forbidden for list"));
        } else if !version_match.is_empty() {
            if self.resource_version.is_empty() {
                errors.push(field::Error::forbidden(
                    &match_path,
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                ));
            }
            if !self.r#continue.is_empty() {
                errors.push(field::Error::forbidden(
                    &match_path,
                    "resourceVersionMatch is forbidden when continue is provided",
                ));
            }
            if !matches!(version_match, "Exact" | "NotOlderThan") {
                errors.push(field::Error::not_supported(
                    &match_path,
                    version_match,
                    &["Exact", "NotOlderThan"],
                ));
            }
            if version_match == "Exact" && self.resource_version == "0" {
                errors.push(field::Error::forbidden(
                    &match_path,
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                ));
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        Err(Status::invalid(&GroupKind::new("meta.k8s.io", "ListOptions"), "", &errors))
    }

    pub fn filter(&self, namespace: &str) -> Filter {
        Filter {
            namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
            labels: self.labels.clone(),
            fields: self.fields.clone(),
        }
    }
}

/// One page.
pub struct Page {
    pub entries: Vec<Arc<Entry>>,
    pub revision: Revision,
    pub r#continue: String,
    pub remaining: Option<usize>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Token {
    v: String,
    /// Below zero: whatever is newest.
    rv: i64,
    start: String,
    /// How many objects there were from `start` on, so that they are counted once and not for every page.
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<usize>,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

/// Without padding, and with whatever bits the last letter has left over.
const TOKEN_TEXT: GeneralPurpose =
    GeneralPurpose::new(&alphabet::URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

/// What Go says of text that is no number.
fn not_a_number(text: &str, error: &ParseIntError) -> String {
    let why = match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    };
    format!("parsing {text:?}: {why}")
}

/// A number of the query.
pub fn parse_i64(text: &str) -> Result<i64, Status> {
    text.parse()
        .map_err(|error| Status::bad_request(format!("strconv.ParseInt: {}", not_a_number(text, &error))))
}

/// A resourceVersion that was asked for.
pub fn parse_version(version: &str) -> Result<Revision, field::Error> {
    parse_u64(version).map_err(|why| field::Error::invalid(&Path::new("resourceVersion"), version, why))
}

/// What Go's `ParseUint` makes of decimal digits. A sign is none.
pub fn parse_u64(text: &str) -> Result<u64, String> {
    if text.starts_with('+') {
        return Err(format!("strconv.ParseUint: parsing {text:?}: invalid syntax"));
    }
    text.parse().map_err(|error| format!("strconv.ParseUint: {}", not_a_number(text, &error)))
}

impl Token {
    fn parse(text: &str) -> Result<Self, Status> {
        let refuse = |why: String| {
            Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"))
        };
        let bytes = TOKEN_TEXT.decode(text).map_err(|error| {
            let at = match error {
                DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
                DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => text.len().saturating_sub(1),
            };
            refuse(format!("illegal base64 data at input byte {at}"))
        })?;
        let value = codec::parse_json(&bytes).map_err(|error| refuse(error.to_string()))?;
        let token: Self = serde_json::from_value(value).map_err(|error| refuse(error.to_string()))?;
        if token.v != TOKEN_VERSION {
            return Err(refuse(format!("server does not recognize this encoded version {}", token.v)));
        }
        if token.rv == 0 {
            return Err(refuse(format!("incorrect encoded start resourceVersion (version {TOKEN_VERSION})")));
        }
        if token.start.is_empty() {
            return Err(refuse(format!("encoded start key empty (version {TOKEN_VERSION})")));
        }
        // nothing may lead out of the resource
        let mut parts = token.start.trim_start_matches('/').split('/');
        if parts.any(|part| matches!(part, "" | "." | "..")) {
            return Err(refuse(token.start));
        }
        Ok(token)
    }

    fn encode(&self) -> Result<String, Status> {
        serde_json::to_vec(self).map(|json| TOKEN_TEXT.encode(json)).map_err(Status::internal)
    }
}

impl Registry {
    pub async fn list(&self, kind: &Kind, namespace: &str, options: &ListOptions) -> Result<Page, Status> {
        let prefix = kind.key(namespace, "");
        let root = kind.key("", "");
        let mut left = None;
        let (snapshot, start) = if options.r#continue.is_empty() {
            (self.snapshot_for(kind, options).await?, None)
        } else {
            let token = Token::parse(&options.r#continue)?;
            if !options.resource_version.is_empty() && options.resource_version != "0" {
                return Err(Status::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            left = token.n;
            let start = format!("{root}{}", token.start.trim_start_matches('/'));
            let snapshot = match Revision::try_from(token.rv) {
                Ok(revision) => self.snapshot_at(kind, &prefix, revision, Some(&start)).await?,
                Err(_) => self.newest(kind).await?,
            };
            (snapshot, Some(start))
        };
        let filter = options.filter(namespace);
        let limit = match options.limit {
            // what upstream has at hand it gives at once, and it has all but events
            0 => usize::MAX,
            _ if start.is_none() && options.resource_version == "0" && kind.resource.plural != "events" => {
                usize::MAX
            }
            limit => limit,
        };
        let mut entries = Vec::new();
        let mut page = Page {
            entries: Vec::new(),
            revision: snapshot.revision,
            r#continue: String::new(),
            remaining: None,
        };
        let unselected = options.labels.is_none() && options.fields.is_none();
        snapshot.check(&prefix)?;
        let mut rest = snapshot.range(&prefix, start.as_deref()).peekable();
        let mut seen = 0;
        while let Some(entry) = rest.next() {
            seen += 1;
            if filter.matches(entry) {
                entries.push(entry.clone());
            }
            if entries.len() == limit && rest.peek().is_some() {
                let next = entry.key().strip_prefix(root.as_str()).unwrap_or_default();
                let start = format!("{next}\0");
                let rv = i64::try_from(snapshot.revision).map_err(Status::internal)?;
                if unselected {
                    page.remaining = Some(match left.and_then(|left| left.checked_sub(seen)) {
                        Some(left) => left,
                        None => rest.count(),
                    });
                }
                let token = Token { v: TOKEN_VERSION.into(), rv, start, n: page.remaining };
                page.r#continue = token.encode()?;
                self.cache_of(kind)?.keep_page(&snapshot);
                break;
            }
        }
        page.entries = entries;
        Ok(page)
    }

    /// The snapshot that a list without a continue token reads.
    async fn snapshot_for(&self, kind: &Kind, options: &ListOptions) -> Result<Snapshot, Status> {
        let cache = self.cache_of(kind)?;
        match options.resource_version.as_str() {
            "" => self.newest(kind).await,
            "0" => Ok(cache.snapshot().at_least(self.cache.revision())),
            version => {
                let revision = parse_version(version)
                    .map_err(|error| Status::bad_request(format!("invalid resource version: {error}")))?;
                self.cache.wait_for(revision).await?;
                let exact = match options.resource_version_match.as_str() {
                    // a page of a version was exact before anybody could ask for a match
                    "" => options.limit > 0 && revision > 0,
                    wanted => wanted == "Exact",
                };
                if exact {
                    return self.snapshot_at(kind, &kind.key("", ""), revision, None).await;
                }
                Ok(cache.snapshot().at_least(revision))
            }
        }
    }

    async fn newest(&self, kind: &Kind) -> Result<Snapshot, Status> {
        let latest = self.cache.wait_for_latest().await?;
        Ok(self.cache_of(kind)?.snapshot().at_least(latest))
    }

    /// The objects as they were at a revision: from memory, else from the store's log. `start` is where a page begins
    /// that follows another.
    async fn snapshot_at(
        &self,
        kind: &Kind,
        prefix: &str,
        revision: Revision,
        start: Option<&str>,
    ) -> Result<Snapshot, Status> {
        let cache = self.cache_of(kind)?;
        let from = start.unwrap_or_default();
        if let Some(snapshot) = cache.page(revision, prefix, from) {
            return Ok(snapshot);
        }
        let mut range = Range::prefix(prefix);
        if let Some(start) = start {
            range.start = start.to_owned();
        }
        range.revision = Some(revision);
        let page = match self.storage.range(range).await {
            Ok(page) => page,
            Err(storage::Error::Compacted { .. }) => return Err(expired(kind, start)),
            Err(storage::Error::FutureRevision { current, .. }) => {
                return Err(too_large(revision, current, 0));
            }
            Err(error) => return Err(storage_failed(error)),
        };
        let mut entries = Vec::with_capacity(page.kvs.len());
        for kv in page.kvs {
            let entry = Entry::from_store(cache.kind(), &kv.key, kv.value, kv.mod_revision, None);
            entries.push(entry.map_err(Status::internal)?);
        }
        let snapshot = Snapshot::part(revision, prefix, from, entries);
        cache.keep_page(&snapshot);
        Ok(snapshot)
    }
}

/// What becomes of a list of a revision that is gone. One that had begun may go on with what there is now.
fn expired(kind: &Kind, start: Option<&str>) -> Status {
    let Some(start) = start else {
        return Status::expired("The resourceVersion for the provided list is too old.");
    };
    let start = start.strip_prefix(&kind.key("", "")).unwrap_or(start).to_owned();
    match (Token { v: TOKEN_VERSION.into(), rv: -1, start, n: None }).encode() {
        Ok(token) => Status { r#continue: Some(token.into()), ..Status::expired(INCONSISTENT) },
        Err(status) => status,
    }
}

const INCONSISTENT: &str = "The provided continue parameter is too old to display a consistent list result. You can \
     start a new list without the continue parameter, or use the continue token in this response to retrieve the \
     remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were \
     created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";
