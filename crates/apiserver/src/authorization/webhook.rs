//! Requests that somebody else is asked about: a `SubjectAccessReview` posted to a webhook.

use std::path::Path;
use std::time::Duration;

use apimachinery::selectors::{FieldRequirement, Operator, Requirement};
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::config::{FailurePolicy, Webhook};
use super::{Attributes, Authorizer, Decision, UserRules, Verdict};
use crate::authentication::UserInfo;
use crate::outgoing::HttpsClient;
use crate::outgoing::retry::{Backoff, post_review};
use crate::outgoing::ttl_cache::{TtlCache, key};

/// Requests with more than this in what the caller chooses are not remembered.
const MAX_CACHED: usize = 10_000;

/// Asks a webhook, and believes it for a while.
pub struct WebhookAuthorizer {
    client: HttpsClient,
    url: String,
    version: String,
    timeout: Duration,
    authorized_ttl: Duration,
    unauthorized_ttl: Duration,
    failure_policy: FailurePolicy,
    backoff: Backoff,
    known: TtlCache<Status>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Review {
    status: Status,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Status {
    allowed: bool,
    denied: bool,
    reason: String,
}

impl WebhookAuthorizer {
    /// As a checked configuration describes it.
    pub fn new(config: &Webhook, kubeconfig: &Path, backoff: Backoff) -> Result<Self, String> {
        let (client, url) = HttpsClient::from_kubeconfig(kubeconfig)?;
        let cached = |on: bool, ttl: Duration| if on { ttl } else { Duration::ZERO };
        Ok(Self {
            client,
            url,
            version: config.subject_access_review_version.clone(),
            timeout: config.timeout(),
            authorized_ttl: cached(config.cache_authorized_requests, config.authorized_ttl()),
            unauthorized_ttl: cached(config.cache_unauthorized_requests, config.unauthorized_ttl()),
            failure_policy: config.failure_policy(),
            backoff,
            known: TtlCache::default(),
        })
    }

    async fn ask(&self, spec: &Value) -> Result<Status, String> {
        let review = json!({
            "kind": "SubjectAccessReview",
            "apiVersion": format!("authorization.k8s.io/{}", self.version),
            "metadata": {"creationTimestamp": null},
            "spec": spec,
            "status": {"allowed": false},
        });
        let answer = post_review(&self.client, &self.url, &review, self.timeout, self.backoff).await?;
        let review: Review = serde_json::from_value(answer).map_err(|error| error.to_string())?;
        Ok(review.status)
    }

    fn spec(&self, attributes: &Attributes<'_>) -> Value {
        let user = attributes.user;
        let texts = |pairs: &[(&str, &str)]| {
            let given = pairs.iter().filter(|(_, text)| !text.is_empty());
            given.map(|(key, text)| ((*key).to_owned(), json!(text))).collect::<Map<String, Value>>()
        };
        let mut spec = texts(&[("user", &user.name), ("uid", &user.uid)]);
        if !user.groups.is_empty() {
            // the name of the field changed when the version became stable
            let name = if self.version == "v1beta1" { "group" } else { "groups" };
            spec.insert(name.into(), json!(user.groups));
        }
        if !user.extra.is_empty() {
            spec.insert("extra".into(), json!(user.extra));
        }
        if !attributes.is_resource {
            let about = texts(&[("path", attributes.path), ("verb", attributes.verb)]);
            spec.insert("nonResourceAttributes".into(), Value::Object(about));
            return Value::Object(spec);
        }
        let mut about = texts(&[
            ("namespace", attributes.namespace),
            ("verb", attributes.verb),
            ("group", attributes.api_group),
            ("version", attributes.api_version),
            ("resource", attributes.resource),
            ("subresource", attributes.subresource),
            ("name", attributes.name),
        ]);
        let fields: Vec<Value> = attributes.field_selector.iter().map(field_requirement).collect();
        let labels: Vec<Value> = attributes.label_selector.iter().filter_map(label_requirement).collect();
        for (selector, requirements) in [("fieldSelector", fields), ("labelSelector", labels)] {
            if !requirements.is_empty() {
                about.insert(selector.into(), json!({"requirements": requirements}));
            }
        }
        spec.insert("resourceAttributes".into(), Value::Object(about));
        Value::Object(spec)
    }
}

fn field_requirement(requirement: &FieldRequirement) -> Value {
    let operator = if requirement.equals { "In" } else { "NotIn" };
    json!({"key": requirement.field, "operator": operator, "values": [requirement.value]})
}

/// Operators that a review cannot say are left out, which asks for more.
fn label_requirement(requirement: &Requirement) -> Option<Value> {
    let operator = match requirement.operator() {
        Operator::Equals | Operator::DoubleEquals | Operator::In => "In",
        Operator::NotEquals | Operator::NotIn => "NotIn",
        Operator::Exists => "Exists",
        Operator::DoesNotExist => "DoesNotExist",
        Operator::GreaterThan | Operator::LessThan => return None,
    };
    let mut out = json!({"key": requirement.key(), "operator": operator});
    if !requirement.values().is_empty() {
        out["values"] = json!(requirement.values());
    }
    Some(out)
}

fn chosen_by_caller(attributes: &Attributes<'_>) -> usize {
    let Attributes { namespace, verb, api_group, api_version, resource, subresource, name, path, .. } =
        attributes;
    let parts = [namespace, verb, api_group, api_version, resource, subresource, name, path];
    parts.iter().map(|text| text.len()).sum()
}

#[async_trait]
impl Authorizer for WebhookAuthorizer {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Verdict {
        let spec = self.spec(attributes);
        let key = key([spec.to_string().as_str()]);
        let status = match self.known.get(&key) {
            Some(status) => status,
            None => match self.ask(&spec).await {
                Ok(status) => {
                    if chosen_by_caller(attributes) < MAX_CACHED {
                        let ttl = if status.allowed { self.authorized_ttl } else { self.unauthorized_ttl };
                        self.known.insert(key, status.clone(), ttl);
                    }
                    status
                }
                Err(error) => {
                    tracing::error!(%error, "Failed to make webhook authorizer request");
                    let decision = match self.failure_policy {
                        FailurePolicy::NoOpinion => Decision::NoOpinion,
                        FailurePolicy::Deny => Decision::Deny,
                    };
                    return Verdict { decision, reason: String::new(), errors: vec![error] };
                }
            },
        };
        match (status.denied, status.allowed) {
            (true, true) => Verdict {
                errors: vec!["webhook subject access review returned both allow and deny response".into()],
                ..Verdict::deny(status.reason)
            },
            (true, false) => Verdict::deny(status.reason),
            (false, true) => Verdict::allow(status.reason),
            (false, false) => Verdict::no_opinion(status.reason),
        }
    }

    async fn rules_for(&self, _user: &UserInfo, _namespace: &str) -> UserRules {
        UserRules {
            incomplete: true,
            errors: vec!["webhook authorizer does not support user rule resolution".into()],
            ..UserRules::default()
        }
    }
}
