//! List: consistent pages over snapshots of the cache.

use std::sync::Arc;

use apimachinery::field::{self, Path};
use apimachinery::selectors::{FieldSelector, LabelSelector};
use apimachinery::{GroupKind, Status};
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use base64::{DecodeError, Engine, alphabet};
use serde::{Deserialize, Serialize};
use storage::{Range, Revision};

use super::Registry;
use crate::cache::{Entry, Filter, Snapshot, storage_failed};
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
                    return Err(Status::bad_request(format!("field label not supported: {name}")));
                }
            }
        }
        if fields.is_none() && !info.name.is_empty() {
            fields = Some(FieldSelector::equals("metadata.name", &info.name));
        }
        let number = |key: &str| -> Result<Option<i64>, Status> {
            match query.text(key) {
                "" => Ok(None),
                text => text.parse().map(Some).map_err(|_| {
                    Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
                }),
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

#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    rv: Revision,
    start: String,
    /// How many objects there were from `start` on, so that they are counted once and not for every page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    n: Option<usize>,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

/// Without padding, and with whatever bits the last letter has left over.
const TOKEN_TEXT: GeneralPurpose =
    GeneralPurpose::new(&alphabet::URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

pub fn parse_version(version: &str) -> Result<Revision, Status> {
    version.parse().map_err(|_| {
        let path = Path::new("resourceVersion");
        let detail = format!("strconv.ParseUint: parsing {version:?}: invalid syntax");
        let error = field::Error::invalid(&path, version, detail);
        Status::invalid(&GroupKind::new("", "resourceVersion"), "", &[error])
    })
}

fn parse_token(text: &str) -> Result<Token, Status> {
    let refuse = |why: String| Status::bad_request(format!("continue key is not valid: {why}"));
    let bytes = TOKEN_TEXT.decode(text).map_err(|error| {
        let at = match error {
            DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
            DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => text.len().saturating_sub(1),
        };
        refuse(format!("illegal base64 data at input byte {at}"))
    })?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|e| refuse(e.to_string()))?;
    if token.v != TOKEN_VERSION {
        return Err(refuse(format!("server does not recognize this encoded version {:?}", token.v)));
    }
    if token.start.is_empty() || token.start.split('/').any(|part| part == "..") {
        return Err(refuse("incorrect encoded start resourceVersion".into()));
    }
    Ok(token)
}

impl Registry {
    pub async fn list(&self, kind: &Kind, namespace: &str, options: &ListOptions) -> Result<Page, Status> {
        let prefix = kind.key(namespace, "");
        let root = kind.key("", "");
        let mut left = None;
        let (snapshot, start) = if options.r#continue.is_empty() {
            (self.snapshot_for(kind, options).await?, None)
        } else {
            if !options.resource_version.is_empty() && options.resource_version != "0" {
                return Err(Status::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            let token = parse_token(&options.r#continue)?;
            left = token.n;
            let start = format!("{root}{}", token.start);
            (self.snapshot_at(kind, &prefix, token.rv, &start).await?, Some(start))
        };
        let filter = options.filter(namespace);
        let limit = if options.limit == 0 { usize::MAX } else { options.limit };
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
                let (start, rv) = (format!("{next}\0"), snapshot.revision);
                if unselected {
                    page.remaining = Some(match left.and_then(|left| left.checked_sub(seen)) {
                        Some(left) => left,
                        None => rest.count(),
                    });
                }
                let token = Token { v: TOKEN_VERSION.into(), rv, start, n: page.remaining };
                let json = serde_json::to_vec(&token).map_err(Status::internal)?;
                page.r#continue = TOKEN_TEXT.encode(json);
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
            "" => {
                let latest = self.cache.wait_for_latest().await?;
                Ok(cache.snapshot().at_least(latest))
            }
            "0" => Ok(cache.snapshot().at_least(self.cache.revision())),
            version => {
                let revision = parse_version(version)?;
                self.cache.wait_for(revision).await?;
                if options.resource_version_match == "Exact" {
                    return self.snapshot_at(kind, &kind.key("", ""), revision, "").await;
                }
                Ok(cache.snapshot().at_least(revision))
            }
        }
    }

    /// The objects as they were at a revision: from memory, else from the store's log.
    async fn snapshot_at(
        &self,
        kind: &Kind,
        prefix: &str,
        revision: Revision,
        start: &str,
    ) -> Result<Snapshot, Status> {
        let cache = self.cache_of(kind)?;
        if let Some(snapshot) = cache.page(revision, prefix, start) {
            return Ok(snapshot);
        }
        let mut range = Range::prefix(prefix);
        if !start.is_empty() {
            range.start = start.to_owned();
        }
        range.revision = Some(revision);
        let page = match self.storage.range(range).await {
            Ok(page) => page,
            Err(storage::Error::Compacted { .. }) => return Err(expired()),
            Err(error) => return Err(storage_failed(error)),
        };
        let mut entries = Vec::with_capacity(page.kvs.len());
        for kv in page.kvs {
            let entry = Entry::from_store(cache.kind(), &kv.key, kv.value, kv.mod_revision, None);
            entries.push(entry.map_err(Status::internal)?);
        }
        let snapshot = Snapshot::part(revision, prefix, start, entries);
        cache.keep_page(&snapshot);
        Ok(snapshot)
    }
}

fn expired() -> Status {
    Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.",
    )
}
