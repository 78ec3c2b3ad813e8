//! What a write or read knows about the request that caused it.

use std::sync::Arc;
use std::time::Instant;

use apimachinery::Status;
use apimachinery::field::{self, Path};
use chrono::{DateTime, SecondsFormat, Utc};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::audit::Trail;
use crate::authentication::{API_SERVER, SYSTEM_PRIVILEGED_GROUP, UserInfo};
use crate::http::limits::Place;
use crate::http::request_info::{Query, RequestInfo};

/// How unknown and duplicate fields are treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// One request on its way through the registry.
pub struct Context {
    pub user: Arc<UserInfo>,
    pub info: Arc<RequestInfo>,
    pub query: Query,
    pub user_agent: String,
    pub now: DateTime<Utc>,
    pub deadline: Option<Instant>,
    /// Cancelled when nobody waits for the answer any more: a write that has not asked all it has to stops asking.
    pub left: CancellationToken,
    /// What the request holds while it is answered.
    pub place: Place,
    /// The record of the request, where one is kept.
    pub audit: Option<Arc<Trail>>,
    /// Lines for `Warning` headers, in order, each once.
    pub warnings: Mutex<Vec<String>>,
}

impl Context {
    /// A request of the server itself, as a member of `system:masters`.
    pub fn internal() -> Self {
        let user = UserInfo::new(API_SERVER, &[SYSTEM_PRIVILEGED_GROUP]);
        Self {
            user: Arc::new(user),
            info: Arc::default(),
            query: Query::default(),
            user_agent: "xebec-apiserver".into(),
            now: Utc::now(),
            deadline: None,
            left: CancellationToken::new(),
            place: Place::default(),
            audit: None,
            warnings: Mutex::default(),
        }
    }

    /// Adds an annotation to the record of the request.
    pub fn annotate(&self, key: &str, value: &str) {
        if let Some(trail) = &self.audit {
            trail.annotate(key, value);
        }
    }

    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut warnings = self.warnings.lock();
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// Who asks, for kinds that keep that.
    pub fn requester(&self) -> api::Requester {
        api::Requester {
            name: self.user.name.clone(),
            uid: self.user.uid.clone(),
            groups: self.user.groups.clone(),
            extra: self.user.extra.clone().into_iter().collect(),
            time: self.timestamp(),
        }
    }

    /// The moment of the request, for managedFields.
    pub fn now_time(&self) -> apimachinery::time::Time {
        apimachinery::time::from_unix(self.now.timestamp(), 0).unwrap_or_default()
    }

    /// The moment of the request as metadata shows it.
    pub fn timestamp(&self) -> String {
        self.now.to_rfc3339_opts(SecondsFormat::Secs, true)
    }

    /// Who writes, for managedFields: `fieldManager`, or the client's name.
    pub fn field_manager(&self) -> String {
        match self.query.text("fieldManager") {
            "" => {
                let agent = self.user_agent.split('/').next().unwrap_or_default();
                let printable: String = agent.chars().filter(|c| !c.is_control()).take(128).collect();
                if printable.is_empty() { "unknown".into() } else { printable }
            }
            manager => manager.to_owned(),
        }
    }

    /// Refuses options of a write that make no sense: `dryRun`, `fieldManager`, `fieldValidation`.
    pub fn write_options(&self, options_kind: &str) -> Result<WriteOptions, Status> {
        let said: Vec<&str> = self.query.all("dryRun").collect();
        let mut errors = dry_run_errors(&said);
        let (manager, path) = (self.query.text("fieldManager"), Path::new("fieldManager"));
        if manager.len() > 128 {
            errors.push(field::Error::too_long(&path, 128));
        }
        for (at, c) in manager.char_indices().filter(|(_, c)| !is_printable(*c)) {
            let why = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
            errors.push(field::Error::invalid(&path, manager, why));
        }
        let field_validation = match self.query.text("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                let valid = ["", "Ignore", "Strict", "Warn"];
                errors.push(field::Error::not_supported(&Path::new("fieldValidation"), other, &valid));
                FieldValidation::Warn
            }
        };
        if !errors.is_empty() {
            let kind = apimachinery::GroupKind::new("meta.k8s.io", options_kind);
            return Err(Status::invalid(&kind, "", &errors));
        }
        Ok(WriteOptions { dry_run: !said.is_empty(), field_validation, force: self.query.flag("force") })
    }
}

/// What is wrong with the values of `dryRun`.
pub fn dry_run_errors<S: AsRef<str>>(said: &[S]) -> Vec<field::Error> {
    if said.iter().all(|value| value.as_ref() == "All") {
        return Vec::new();
    }
    let said: Vec<&str> = said.iter().map(AsRef::as_ref).collect();
    vec![field::Error::not_supported(&Path::new("dryRun"), said, &["All"])]
}

/// Whether Go would print a character as it is.
fn is_printable(c: char) -> bool {
    matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1
}

/// Options that all writes share.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_validation: FieldValidation,
    /// Apply only: take fields over from other managers.
    pub force: bool,
}
