//! Reviews: who am I, who is that, and may they? Answered at once, never stored.

mod access;

use apimachinery::{GroupVersionKind, Object, Status, Value};
use http::StatusCode;
use serde_json::{Map, json};

use super::{Call, decode};
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
