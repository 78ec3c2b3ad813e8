//! Who decides about requests, and in which order: `AuthorizationConfiguration`, or the modes of the flags.
//!
//! The privileged group comes before all of them, and there is no authorizer that allows everything.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::field::{Error, ErrorList, Path, aggregate};
use apimachinery::time;
use apimachinery::validation::is_dns1123_subdomain;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::webhook::WebhookAuthorizer;
use super::{Attributes, Authorizer, PrivilegedGroups, Union, UserRules, Verdict};
use crate::authentication::UserInfo;
use crate::configuration::FileKind;
use crate::outgoing::retry::Backoff;
use crate::reload;

const FILE: FileKind = FileKind {
    kind: "AuthorizationConfiguration",
    versions: &["v1", "v1beta1", "v1alpha1"],
    messages: &[
        "AuthorizationConfiguration: authorizers [AuthorizerConfiguration]",
        "AuthorizerConfiguration: type string, name string, webhook WebhookConfiguration",
        "WebhookConfiguration: authorizedTTL duration, cacheAuthorizedRequests bool, unauthorizedTTL duration, \
         cacheUnauthorizedRequests bool, timeout duration, subjectAccessReviewVersion string, \
         matchConditionSubjectAccessReviewVersion string, failurePolicy string, \
         connectionInfo WebhookConnectionInfo, matchConditions [WebhookMatchCondition]",
        "WebhookConnectionInfo: type string, kubeConfigFile string",
        "WebhookMatchCondition: expression string",
    ],
};

/// What upstream knows, for its messages.
const TYPES: [&str; 6] = ["ABAC", "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];

const MAX_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_MATCH_CONDITIONS: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AuthorizationConfiguration {
    pub authorizers: Vec<AuthorizerConfig>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AuthorizerConfig {
    #[serde(rename = "type")]
    pub kind: String,
    pub name: String,
    pub webhook: Option<Webhook>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Webhook {
    #[serde(rename = "authorizedTTL")]
    pub authorized_ttl: String,
    pub cache_authorized_requests: bool,
    #[serde(rename = "unauthorizedTTL")]
    pub unauthorized_ttl: String,
    pub cache_unauthorized_requests: bool,
    pub timeout: String,
    pub subject_access_review_version: String,
    pub match_condition_subject_access_review_version: String,
    pub failure_policy: String,
    pub connection_info: ConnectionInfo,
    pub match_conditions: Vec<MatchCondition>,
}

impl Default for Webhook {
    fn default() -> Self {
        Self {
            authorized_ttl: "5m0s".into(),
            cache_authorized_requests: true,
            unauthorized_ttl: "30s".into(),
            cache_unauthorized_requests: true,
            timeout: String::new(),
            subject_access_review_version: String::new(),
            match_condition_subject_access_review_version: String::new(),
            failure_policy: String::new(),
            connection_info: ConnectionInfo::default(),
            match_conditions: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConnectionInfo {
    #[serde(rename = "type")]
    pub kind: String,
    pub kube_config_file: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct MatchCondition {
    pub expression: String,
}

/// What a webhook that cannot be asked has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailurePolicy {
    NoOpinion,
    Deny,
}

impl Webhook {
    pub(super) fn timeout(&self) -> Duration {
        duration(&self.timeout)
    }

    pub(super) fn authorized_ttl(&self) -> Duration {
        duration(&self.authorized_ttl)
    }

    pub(super) fn unauthorized_ttl(&self) -> Duration {
        duration(&self.unauthorized_ttl)
    }

    pub(super) fn failure_policy(&self) -> FailurePolicy {
        match self.failure_policy.as_str() {
            "NoOpinion" => FailurePolicy::NoOpinion,
            _ => FailurePolicy::Deny,
        }
    }
}

/// A duration that was checked.
fn duration(text: &str) -> Duration {
    Duration::from_nanos(
        time::parse_duration(text).ok().and_then(|nanos| u64::try_from(nanos).ok()).unwrap_or(0),
    )
}

impl AuthorizationConfiguration {
    /// Reads and checks a file.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let config: Self = FILE.decode(bytes)?;
        config.check()?;
        Ok(config)
    }

    /// Those of these modes, in this order, without webhooks.
    pub fn of_modes(modes: &[&str]) -> Self {
        let of = |mode: &&str| AuthorizerConfig {
            kind: (*mode).to_owned(),
            name: mode.to_lowercase(),
            webhook: None,
        };
        Self { authorizers: modes.iter().map(of).collect() }
    }

    /// All that is wrong with it, in one line.
    pub fn check(&self) -> Result<(), String> {
        let errors = self.validate();
        if errors.is_empty() { Ok(()) } else { Err(aggregate(&errors)) }
    }

    fn validate(&self) -> ErrorList {
        let root = Path::new("authorizers");
        let mut errors = ErrorList::new();
        if self.authorizers.is_empty() {
            errors.push(Error::required(&root, "at least one authorization mode must be defined"));
        }
        let (mut kinds, mut names): (Vec<&str>, Vec<&str>) = Default::default();
        for (index, one) in self.authorizers.iter().enumerate() {
            let at = root.index(index);
            let (kind_at, name_at) = (at.child("type"), at.child("name"));
            match one.kind.as_str() {
                "" => {
                    errors.push(Error::required(&kind_at, ""));
                    continue;
                }
                "AlwaysAllow" | "ABAC" => {
                    errors.push(Error::forbidden(&kind_at, refused(&one.kind)));
                    continue;
                }
                kind if !TYPES.contains(&kind) => {
                    errors.push(Error::not_supported(&kind_at, kind, &TYPES));
                    continue;
                }
                kind if kind != "Webhook" && kinds.contains(&kind) => {
                    errors.push(Error::duplicate(&kind_at, kind));
                    continue;
                }
                kind => kinds.push(kind),
            }
            let name = one.name.as_str();
            let wrong = is_dns1123_subdomain(name);
            if name.is_empty() {
                errors.push(Error::required(&name_at, ""));
            } else if names.contains(&name) {
                errors.push(Error::duplicate(&name_at, name));
            } else if !wrong.is_empty() {
                let why = format!("authorizer name is invalid: {}", wrong.join(", "));
                errors.push(Error::invalid(&name_at, name, why));
            }
            names.push(name);
            match (one.kind.as_str(), &one.webhook) {
                ("Webhook", Some(webhook)) => webhook.validate(&at, &mut errors),
                ("Webhook", None) => {
                    errors.push(Error::required(&at.child("webhook"), "required when type=Webhook"));
                }
                (_, Some(_)) => {
                    let why = "may only be specified when type=Webhook";
                    errors.push(Error::invalid(&at.child("webhook"), "non-null", why));
                }
                (_, None) => {}
            }
        }
        errors
    }
}

/// Why some of upstream's modes are not offered.
pub fn refused(mode: &str) -> &'static str {
    match mode {
        "AlwaysAllow" => "AlwaysAllow is not offered: authorization is always on",
        _ => "ABAC is not offered; use RBAC",
    }
}

impl Webhook {
    fn validate(&self, at: &Path, errors: &mut ErrorList) {
        let mut times = |name: &str, text: &str, max: Option<Duration>, why: &str| {
            let nanos = match time::parse_duration(if text.is_empty() { "0" } else { text }) {
                Ok(nanos) => nanos,
                Err(error) => {
                    errors.push(Error::invalid(&at.child(name), text, error.to_string()));
                    return;
                }
            };
            let max = max.map_or(i64::MAX, |max| i64::try_from(max.as_nanos()).unwrap_or(i64::MAX));
            if nanos == 0 {
                errors.push(Error::required(&at.child(name), ""));
            } else if nanos < 0 || nanos > max {
                errors.push(Error::invalid(&at.child(name), time::format_duration(nanos), why));
            }
        };
        times("timeout", &self.timeout, Some(MAX_TIMEOUT), "must be > 0s and <= 30s");
        times("authorizedTTL", &self.authorized_ttl, None, "must be > 0s");
        times("unauthorizedTTL", &self.unauthorized_ttl, None, "must be > 0s");
        let mut one_of = |name: &str, text: &str, required: Option<&str>, valid: &[&str]| match text {
            "" => {
                if let Some(why) = required {
                    errors.push(Error::required(&at.child(name), why));
                }
            }
            text if !valid.contains(&text) => {
                errors.push(Error::not_supported(&at.child(name), text, valid));
            }
            _ => {}
        };
        let review = self.subject_access_review_version.as_str();
        one_of("subjectAccessReviewVersion", review, Some(""), &["v1", "v1beta1"]);
        let needed = "required if match conditions are specified";
        let needed = (!self.match_conditions.is_empty()).then_some(needed);
        let conditions = self.match_condition_subject_access_review_version.as_str();
        one_of("matchConditionSubjectAccessReviewVersion", conditions, needed, &["v1"]);
        one_of("failurePolicy", &self.failure_policy, Some(""), &["NoOpinion", "Deny"]);
        self.connection_info.validate(&at.child("connectionInfo"), errors);
        self.validate_conditions(&at.child("matchConditions"), errors);
    }

    /// Conditions are expressions, which cannot be evaluated yet: to call a webhook for requests that it is not meant
    /// for would be as wrong as not to call it, so that no server starts with one.
    fn validate_conditions(&self, path: &Path, errors: &mut ErrorList) {
        if self.match_conditions.len() > MAX_MATCH_CONDITIONS {
            errors.push(Error::too_many(path, self.match_conditions.len(), MAX_MATCH_CONDITIONS));
            return;
        }
        let mut seen: Vec<&str> = Vec::new();
        for (index, condition) in self.match_conditions.iter().enumerate() {
            let at = path.index(index).child("expression");
            let expression = condition.expression.as_str();
            if expression.trim().is_empty() {
                errors.push(Error::required(&at, ""));
            } else if seen.contains(&expression) {
                errors.push(Error::duplicate(&at, expression));
            } else {
                seen.push(expression);
                errors.push(Error::invalid(&at, expression, "CEL expressions are not supported yet"));
            }
        }
    }
}

impl ConnectionInfo {
    fn validate(&self, at: &Path, errors: &mut ErrorList) {
        let (kind_at, file_at) = (at.child("type"), at.child("kubeConfigFile"));
        match (self.kind.as_str(), self.kube_config_file.as_deref()) {
            ("", _) => errors.push(Error::required(&kind_at, "")),
            ("InClusterConfig", file) => {
                if let Some(file) = file {
                    let why = "can only be set when type=KubeConfigFile";
                    errors.push(Error::invalid(&file_at, file, why));
                }
                let why = "unable to load in-cluster configuration: this server does not run in a pod";
                errors.push(Error::invalid(&kind_at, "InClusterConfig", why));
            }
            ("KubeConfigFile", None | Some("")) => errors.push(Error::required(&file_at, "")),
            ("KubeConfigFile", Some(file)) => {
                let why = match std::fs::metadata(file) {
                    _ if !FilePath::new(file).is_absolute() => "must be an absolute path".to_owned(),
                    Err(error) => format!("error loading file: stat {file}: {}", go_io(&error)),
                    Ok(found) if !found.is_file() => "must be a regular file".to_owned(),
                    Ok(_) => return,
                };
                errors.push(Error::invalid(&file_at, file, why));
            }
            (kind, _) => {
                errors.push(Error::not_supported(&kind_at, kind, &["InClusterConfig", "KubeConfigFile"]));
            }
        }
    }
}

fn go_io(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

/// Who decides.
#[derive(Clone, Debug)]
pub struct Options {
    pub config: AuthorizationConfiguration,
    pub backoff: Backoff,
    /// The file that the configuration is from, to be looked at again, with what it held.
    pub file: Option<(PathBuf, Vec<u8>)>,
}

impl Default for Options {
    fn default() -> Self {
        let config = AuthorizationConfiguration::of_modes(&["Node", "RBAC"]);
        Self { config, backoff: Backoff::default(), file: None }
    }
}

/// The authorizers of this server itself, which are there whether they are asked or not.
#[derive(Clone)]
pub struct Own {
    pub node: Arc<dyn Authorizer>,
    pub rbac: Arc<dyn Authorizer>,
}

/// Forbids everything.
struct AlwaysDeny;

#[async_trait]
impl Authorizer for AlwaysDeny {
    async fn authorize(&self, _attributes: &Attributes<'_>) -> Verdict {
        Verdict::no_opinion("Everything is forbidden.")
    }

    async fn rules_for(&self, _user: &UserInfo, _namespace: &str) -> UserRules {
        UserRules::default()
    }
}

/// The chain that is in use now.
pub struct Reloadable {
    current: ArcSwap<Union>,
    own: Own,
    backoff: Backoff,
}

impl Reloadable {
    /// Puts the chain together, and follows the file if there is one.
    pub fn start(options: &Options, own: Own, cancel: &CancellationToken) -> Result<Arc<Self>, String> {
        let first = chain(&options.config, &own, options.backoff)?;
        let started = Arc::new(Self { current: ArcSwap::from_pointee(first), own, backoff: options.backoff });
        if let Some((path, bytes)) = options.file.clone() {
            let (following, cancel) = (started.clone(), cancel.clone());
            tokio::spawn(reload::follow("--authorization-config", path, bytes, cancel, async move |bytes| {
                following.replace(bytes)
            }));
        }
        Ok(started)
    }

    fn replace(&self, bytes: &[u8]) -> Result<(), String> {
        let config = AuthorizationConfiguration::parse(bytes)?;
        self.current.store(Arc::new(chain(&config, &self.own, self.backoff)?));
        Ok(())
    }
}

fn chain(config: &AuthorizationConfiguration, own: &Own, backoff: Backoff) -> Result<Union, String> {
    config.check()?;
    let mut authorizers: Vec<Arc<dyn Authorizer>> = vec![Arc::new(PrivilegedGroups)];
    for one in &config.authorizers {
        authorizers.push(match (one.kind.as_str(), &one.webhook) {
            ("Node", _) => own.node.clone(),
            ("RBAC", _) => own.rbac.clone(),
            ("Webhook", Some(webhook)) => {
                let file = webhook.connection_info.kube_config_file.as_deref().unwrap_or_default();
                let built = WebhookAuthorizer::new(webhook, FilePath::new(file), backoff);
                Arc::new(built.map_err(|error| format!("authorizer {}: {error}", one.name))?)
            }
            _ => Arc::new(AlwaysDeny),
        });
    }
    Ok(Union::new(authorizers))
}

#[async_trait]
impl Authorizer for Reloadable {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Verdict {
        let current = self.current.load_full();
        current.authorize(attributes).await
    }

    async fn rules_for(&self, user: &UserInfo, namespace: &str) -> UserRules {
        let current = self.current.load_full();
        current.rules_for(user, namespace).await
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
