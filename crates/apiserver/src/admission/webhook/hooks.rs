//! Webhooks as the API server works with them: read from their configurations, in the order of names.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::selectors::LabelSelector;
use apimachinery::{Object, Value};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use parking_lot::Mutex;

use super::client::Target;
use super::matching::Rule;
use crate::registry::Registry;

const GROUP: &str = "admissionregistration.k8s.io";

/// Whether a webhook changes objects or only judges them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Mutating,
    Validating,
}

impl Sort {
    fn plural(self) -> &'static str {
        match self {
            Self::Mutating => "mutatingwebhookconfigurations",
            Self::Validating => "validatingwebhookconfigurations",
        }
    }
}

/// One webhook of one configuration.
#[derive(Debug)]
pub struct Hook {
    /// Unique even where names are not.
    pub uid: String,
    pub configuration: String,
    pub name: String,
    pub rules: Vec<Rule>,
    pub matches_equivalent: bool,
    /// A failed call does not fail the request.
    pub ignores_failures: bool,
    pub timeout: Duration,
    pub has_side_effects: bool,
    /// Asked again when something changed after it.
    pub reinvocable: bool,
    pub speaks_v1: bool,
    pub has_conditions: bool,
    pub namespaces: Result<LabelSelector, String>,
    pub objects: Result<LabelSelector, String>,
    pub target: Result<Target, String>,
}

impl Hook {
    fn parse(configuration: &str, index: usize, hook: &Value) -> Self {
        let text = |key: &str| hook.get(key).and_then(Value::as_str).unwrap_or_default();
        let list = |key: &str| hook.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let selector = |key: &str| match hook.get(key) {
            None | Some(Value::Null) => Ok(LabelSelector::everything()),
            Some(selector) => LabelSelector::from_label_selector(selector).map_err(|status| status.message),
        };
        let seconds = hook.get("timeoutSeconds").and_then(Value::as_u64).unwrap_or(10);
        Self {
            uid: format!("{configuration}/{}/{index}", text("name")),
            configuration: configuration.to_owned(),
            name: text("name").to_owned(),
            rules: list("rules").iter().map(Rule::parse).collect(),
            matches_equivalent: text("matchPolicy") != "Exact",
            ignores_failures: text("failurePolicy") == "Ignore",
            timeout: Duration::from_secs(seconds),
            has_side_effects: !matches!(text("sideEffects"), "None" | "NoneOnDryRun"),
            reinvocable: text("reinvocationPolicy") == "IfNeeded",
            speaks_v1: list("admissionReviewVersions").iter().any(|version| version == "v1"),
            has_conditions: !list("matchConditions").is_empty(),
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
            target: target(hook.get("clientConfig").unwrap_or(&Value::Null)),
        }
    }
}

/// Where a webhook is called; the error is what a call fails with.
fn target(config: &Value) -> Result<Target, String> {
    let ca = config.get("caBundle").and_then(Value::as_str).unwrap_or_default();
    let ca_pem =
        BASE64_STANDARD.decode(ca).map_err(|error| format!("the caBundle cannot be decoded: {error}"))?;
    if let Some(service) = config.get("service").filter(|service| service.is_object()) {
        let text = |key: &str| service.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let port = service.get("port").and_then(Value::as_u64).unwrap_or(443);
        let port = u16::try_from(port).map_err(|_| format!("invalid port {port}"))?;
        return Ok(Target::service(text("namespace"), text("name"), port, &text("path"), ca_pem));
    }
    match config.get("url").and_then(Value::as_str) {
        Some(url) => Target::url(url, ca_pem),
        None => Err("webhook configuration must have either service or URL".into()),
    }
}

/// The webhooks of one sort, read again when a configuration changes.
#[derive(Default)]
pub struct Hooks {
    read: Mutex<Read>,
}

#[derive(Default)]
struct Read {
    /// Of every configuration, its name and revision.
    of: Vec<(String, u64)>,
    hooks: Arc<Vec<Hook>>,
}

impl Hooks {
    /// All webhooks of a sort: configurations by name, then as they are listed there.
    pub fn get(&self, registry: &Registry, sort: Sort) -> Arc<Vec<Hook>> {
        let cache = registry.kind(GROUP, "v1", sort.plural()).and_then(|kind| registry.cache.resource(kind));
        let Some(cache) = cache else { return Arc::default() };
        let snapshot = cache.snapshot();
        if snapshot.is_empty() {
            return Arc::default();
        }
        let mut entries: Vec<_> = snapshot.iter().cloned().collect();
        entries.sort_by(|a, b| a.name().cmp(b.name()));
        let of: Vec<_> = entries.iter().map(|entry| (entry.name().to_owned(), entry.revision())).collect();
        let mut read = self.read.lock();
        if read.of != of {
            let mut hooks = Vec::new();
            for entry in &entries {
                match entry.object() {
                    Ok(object) => hooks.extend(parse(&object)),
                    Err(error) => {
                        tracing::error!(key = %entry.key(), %error, "a stored object cannot be read")
                    }
                }
            }
            *read = Read { of, hooks: Arc::new(hooks) };
        }
        read.hooks.clone()
    }
}

fn parse(configuration: &Object) -> Vec<Hook> {
    let hooks = configuration.get_array(&["webhooks"]);
    hooks.iter().enumerate().map(|(index, hook)| Hook::parse(configuration.name(), index, hook)).collect()
}
