//! Reviews: who am I, who is that, and may they? Answered at once, never stored.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{GroupVersionKind, Object, Status, Value};
use http::StatusCode;
use serde_json::{Map, json};

use super::{Call, decode};
use crate::authentication::UserInfo;
use crate::authorization::{Attributes, Decision};
use crate::http::body::{self, Request, Response};
use crate::http::{negotiate, respond};

impl Call<'_> {
    /// Answers a review of whatever kind.
    pub async fn review(&self, request: Request) -> Result<Response, Status> {
        let options = self.ctx.write_options("CreateOptions")?;
        let format = negotiate::content(request.headers())?;
        let bytes = body::read(request.into_body()).await?;
        let gvk: GroupVersionKind = self.kind.resource.gvk();
        let schema = &self.kind.schema;
        let mut review = decode::decode(self.ctx, &bytes, format, schema, &gvk, options.field_validation)?;
        match gvk.kind.as_str() {
            "TokenReview" => self.review_token(&mut review).await?,
            "SelfSubjectReview" => {
                review.set(&["metadata", "creationTimestamp"], self.ctx.timestamp());
                review.set(&["status", "userInfo"], self.ctx.user.to_value());
            }
            "SelfSubjectRulesReview" => self.review_rules(&mut review).await?,
            _ => self.review_access(&mut review).await?,
        }
        apimachinery::codec::normalize(&mut review, schema).map_err(Status::internal)?;
        Ok(respond::object(self.accepted, StatusCode::CREATED, self.ctx, self.kind, &review))
    }

    fn invalid(&self, errors: ErrorList) -> Status {
        Status::invalid(&self.kind.resource.group_kind(), "", &errors)
    }

    async fn review_token(&self, review: &mut Object) -> Result<(), Status> {
        let token = review.get_str(&["spec", "token"]).to_owned();
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let audiences: Vec<String> = review
            .get_array(&["spec", "audiences"])
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        let status = match self.server.access.authenticator.authenticate_token(&token, &audiences).await {
            Ok(Some(found)) => {
                let mut status = json!({"authenticated": true, "user": found.user.to_value()});
                if !found.audiences.is_empty() {
                    status["audiences"] = json!(found.audiences);
                }
                status
            }
            Ok(None) => json!({"error": "invalid bearer token"}),
            Err(error) => json!({"error": error}),
        };
        review.set(&["status"], status);
        Ok(())
    }

    /// The three reviews that ask whether somebody may do something.
    async fn review_access(&self, review: &mut Object) -> Result<(), Status> {
        let spec = Path::new("spec");
        let mut errors = ErrorList::new();
        let resource = review.get(&["spec", "resourceAttributes"]).cloned();
        let path = review.get(&["spec", "nonResourceAttributes"]).cloned();
        match (&resource, &path) {
            (Some(_), Some(_)) => {
                let why = "cannot be specified in combination with resourceAttributes";
                errors.push(Error::invalid(&spec.child("nonResourceAttributes"), path.clone(), why));
            }
            (None, None) => {
                let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
                errors.push(Error::invalid(&spec.child("resourceAttributes"), Value::Null, why));
            }
            _ => {}
        }
        let user = if review.kind() == "SelfSubjectAccessReview" {
            self.ctx.user.as_ref().clone()
        } else {
            let user = subject(review);
            if user.name.is_empty() && user.groups.is_empty() {
                let why = "at least one of user or group must be specified";
                errors.push(Error::invalid(&spec.child("user"), "", why));
            }
            user
        };
        if review.kind() == "LocalSubjectAccessReview" {
            let namespace = review.get_str(&["spec", "resourceAttributes", "namespace"]);
            if namespace != self.ctx.info.namespace {
                let at = spec.child("resourceAttributes").child("namespace");
                let why = "must match metadata.namespace";
                errors.push(Error::invalid(&at, namespace, why));
            }
            if path.is_some() {
                let why = "disallowed on this kind of request";
                errors.push(Error::invalid(&spec.child("nonResourceAttributes"), path.clone(), why));
            }
        }
        if !errors.is_empty() {
            return Err(self.invalid(errors));
        }
        let verdict = match (&resource, &path) {
            (Some(resource), _) => {
                let text = |key: &str| resource.get(key).and_then(Value::as_str).unwrap_or_default();
                let attributes = Attributes {
                    verb: text("verb"),
                    namespace: text("namespace"),
                    api_version: text("version"),
                    subresource: text("subresource"),
                    name: text("name"),
                    ..Attributes::resource(&user, text("verb"), text("group"), text("resource"))
                };
                self.server.access.authorizer.authorize(&attributes).await
            }
            (None, path) => {
                let text =
                    |key: &str| path.as_ref().and_then(|path| path.get(key)?.as_str()).unwrap_or_default();
                self.server
                    .access
                    .authorizer
                    .authorize(&Attributes::path(&user, text("verb"), text("path")))
                    .await
            }
        };
        let mut status = json!({"allowed": verdict.decision == Decision::Allow});
        if verdict.decision == Decision::Deny {
            status["denied"] = json!(true);
        }
        if !verdict.reason.is_empty() {
            status["reason"] = json!(verdict.reason);
        }
        if let Some(error) = verdict.error() {
            status["evaluationError"] = json!(error);
        }
        review.set(&["status"], status);
        Ok(())
    }

    async fn review_rules(&self, review: &mut Object) -> Result<(), Status> {
        let namespace = review.get_str(&["spec", "namespace"]).to_owned();
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        let rules = self.server.access.authorizer.rules_for(&self.ctx.user, &namespace).await;
        let some = |pairs: &[(&str, &Vec<String>)]| {
            let kept = pairs.iter().filter(|(_, values)| !values.is_empty());
            Value::Object(kept.map(|(key, values)| ((*key).to_owned(), json!(values))).collect::<Map<_, _>>())
        };
        let resource: Vec<Value> = rules
            .resource
            .iter()
            .map(|rule| {
                some(&[
                    ("verbs", &rule.verbs),
                    ("apiGroups", &rule.api_groups),
                    ("resources", &rule.resources),
                    ("resourceNames", &rule.resource_names),
                ])
            })
            .collect();
        let non_resource: Vec<Value> = rules
            .non_resource
            .iter()
            .map(|rule| some(&[("verbs", &rule.verbs), ("nonResourceURLs", &rule.non_resource_urls)]))
            .collect();
        let mut status = json!({
            "resourceRules": resource, "nonResourceRules": non_resource, "incomplete": rules.incomplete,
        });
        if !rules.errors.is_empty() {
            status["evaluationError"] = json!(rules.errors.join(", "));
        }
        review.set(&["status"], status);
        Ok(())
    }
}

/// Whom a SubjectAccessReview asks about.
fn subject(review: &Object) -> UserInfo {
    let strings = |values: &[Value]| -> Vec<String> {
        values.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let extra = review.get(&["spec", "extra"]).and_then(Value::as_object).into_iter().flatten();
    UserInfo {
        name: review.get_str(&["spec", "user"]).to_owned(),
        uid: review.get_str(&["spec", "uid"]).to_owned(),
        groups: strings(review.get_array(&["spec", "groups"])),
        extra: extra
            .map(|(key, values)| {
                (key.clone(), strings(values.as_array().map(Vec::as_slice).unwrap_or_default()))
            })
            .collect(),
    }
}
