//! What is sent to a webhook, and what its answer says: `admission.k8s.io/v1` `AdmissionReview`. Pure.

use apimachinery::status::{Cause, Details};
use apimachinery::{Object, Reason, Status, Value};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use super::hooks::Sort;
use crate::admission::{Attributes, Operation};
use crate::context::Context;
use crate::kinds::Kind;

const API_VERSION: &str = "admission.k8s.io/v1";

/// The question. `kind` is the form that the webhook asked to see the object in.
pub fn request(
    ctx: &Context,
    attributes: &Attributes<'_>,
    kind: &Kind,
    uid: &str,
    object: Option<&Object>,
    old: Option<&Object>,
) -> Value {
    let shown = object.or(old);
    let gvk = |kind: &Kind| {
        // subresources may have objects of a kind of their own
        let own = kind.resource.gvk();
        match shown {
            Some(object) if !attributes.subresource.is_empty() && !object.kind().is_empty() => {
                let version = object.api_version();
                let (group, version) = version.split_once('/').unwrap_or(("", version));
                json!({"group": group, "version": version, "kind": object.kind()})
            }
            _ => json!({"group": own.group, "version": own.version, "kind": own.kind}),
        }
    };
    let gvr = |kind: &Kind| {
        let resource = kind.resource;
        json!({"group": resource.group, "version": resource.version, "resource": resource.plural})
    };
    let mut request = json!({
        "uid": uid,
        "kind": gvk(kind),
        "resource": gvr(kind),
        "requestKind": gvk(attributes.kind),
        "requestResource": gvr(attributes.kind),
        "operation": attributes.operation.name(),
        "userInfo": ctx.user.to_value(),
        "object": object.map(Object::as_value),
        "oldObject": old.map(Object::as_value),
        "dryRun": attributes.dry_run,
        "options": options(ctx, attributes),
    });
    let namespace = namespace(attributes);
    for (key, text) in [
        ("name", attributes.name.as_str()),
        ("namespace", namespace),
        ("subResource", attributes.subresource),
        ("requestSubResource", attributes.subresource),
    ] {
        if !text.is_empty() {
            request[key] = text.into();
        }
    }
    json!({"kind": "AdmissionReview", "apiVersion": API_VERSION, "request": request})
}

/// The namespace that a write is in; that of a namespace is the namespace itself.
pub fn namespace<'a>(attributes: &'a Attributes<'_>) -> &'a str {
    let resource = attributes.kind.resource;
    match (resource.group, resource.plural) {
        ("", "namespaces") => &attributes.name,
        _ => &attributes.namespace,
    }
}

fn options(ctx: &Context, attributes: &Attributes<'_>) -> Value {
    let kind = match attributes.operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => return Value::Null,
    };
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    for key in ["fieldManager", "fieldValidation"] {
        if let (Some(text), true) = (ctx.query.get(key), attributes.operation != Operation::Delete) {
            options[key] = text.into();
        }
    }
    if attributes.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    options
}

/// An answer that is one.
#[derive(Debug, PartialEq)]
pub struct Response {
    pub allowed: bool,
    pub result: Value,
    /// A JSON patch as it came.
    pub patch: Vec<u8>,
    pub patch_type: String,
    pub annotations: Vec<(String, String)>,
    pub warnings: Vec<String>,
}

/// Reads an answer; the error says what is wrong with it.
pub fn response(body: &[u8], uid: &str, sort: Sort) -> Result<Response, String> {
    let review: Value = serde_json::from_slice(body).map_err(|error| {
        format!("failed to call webhook: couldn't get version/kind; json parse error: {error}")
    })?;
    let invalid = |why: String| format!("received invalid webhook response: {why}");
    let text = |of: &Value, key: &str| of.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let response = review.get("response").filter(|response| response.is_object());
    let response = response.ok_or_else(|| invalid("webhook response was absent".into()))?;
    let answered = text(response, "uid");
    if answered != uid {
        return Err(invalid(format!("expected response.uid={uid:?}, got {answered:?}")));
    }
    let (version, kind) = (text(&review, "apiVersion"), text(&review, "kind"));
    if (version.as_str(), kind.as_str()) != (API_VERSION, "AdmissionReview") {
        let got = if version.contains('/') { version } else { format!("/{version}") };
        let expected = format!("{API_VERSION}, Kind=AdmissionReview");
        return Err(invalid(format!("expected webhook response of {expected}, got {got}, Kind={kind}")));
    }
    let patch = BASE64_STANDARD
        .decode(text(response, "patch"))
        .map_err(|error| format!("failed to call webhook: illegal base64 data in response.patch: {error}"))?;
    let patch_type = response.get("patchType").and_then(Value::as_str);
    match (sort, patch.is_empty(), patch_type) {
        (Sort::Validating, false, _) => {
            return Err(invalid("validating webhook may not return response.patch".into()));
        }
        (Sort::Validating, true, Some(_)) => {
            return Err(invalid("validating webhook may not return response.patchType".into()));
        }
        (Sort::Mutating, false, None) => {
            return Err(invalid("webhook returned response.patch but not response.patchType".into()));
        }
        (Sort::Mutating, true, Some(_)) => {
            return Err(invalid("webhook returned response.patchType but not response.patch".into()));
        }
        (Sort::Mutating, false, Some("")) => {
            return Err(invalid("webhook returned invalid response.patchType of \"\"".into()));
        }
        _ => {}
    }
    let annotations = response.get("auditAnnotations").and_then(Value::as_object).into_iter().flatten();
    let warnings = response.get("warnings").and_then(Value::as_array).into_iter().flatten();
    Ok(Response {
        allowed: response.get("allowed").and_then(Value::as_bool).unwrap_or_default(),
        // said `status` on the wire
        result: response.get("status").cloned().unwrap_or_default(),
        patch,
        patch_type: patch_type.unwrap_or_default().to_owned(),
        annotations: annotations
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect(),
        warnings: warnings.filter_map(Value::as_str).map(str::to_owned).collect(),
    })
}

/// The refusal of a webhook as its client sees it.
pub fn denial(hook: &str, result: &Value) -> Status {
    let text = |of: &Value, key: &str| of.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let denied = format!("admission webhook {hook:?} denied the request");
    let (message, reason) = (text(result, "message"), text(result, "reason"));
    let message = match (message.as_str(), reason.as_str()) {
        ("", "") => format!("{denied} without explanation"),
        ("", why) | (why, _) => format!("{denied}: {why}"),
    };
    let code = result.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
    let code = code.filter(|code| (400..1000).contains(code)).unwrap_or(400);
    let mut status = Status::new(code, Reason::parse(&reason), message);
    if let Some(details) = result.get("details").filter(|details| details.is_object()) {
        let causes = details.get("causes").and_then(Value::as_array).into_iter().flatten();
        let seconds = details.get("retryAfterSeconds").and_then(Value::as_u64).unwrap_or_default();
        status.details = Some(Box::new(Details {
            name: text(details, "name"),
            group: text(details, "group"),
            kind: text(details, "kind"),
            uid: text(details, "uid"),
            causes: causes
                .map(|cause| Cause {
                    reason: text(cause, "reason"),
                    message: text(cause, "message"),
                    field: text(cause, "field"),
                })
                .collect(),
            retry_after_seconds: u32::try_from(seconds).unwrap_or_default(),
        }));
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denials_say_who_and_why() {
        let cases = [
            (json!(null), 400, "", "admission webhook \"h\" denied the request without explanation"),
            (
                json!({"code": 200, "message": "no"}),
                400,
                "",
                "admission webhook \"h\" denied the request: no",
            ),
            (
                json!({"code": 403, "reason": "Forbidden"}),
                403,
                "Forbidden",
                "admission webhook \"h\" denied the request: Forbidden",
            ),
            (
                json!({"code": 99999, "message": "x", "reason": "Gone"}),
                400,
                "Gone",
                "admission webhook \"h\" denied the request: x",
            ),
        ];
        for (result, code, reason, message) in cases {
            let status = denial("h", &result);
            assert_eq!(
                (status.code, status.reason.as_str(), status.message.as_str()),
                (code, reason, message)
            );
        }
    }

    #[test]
    fn answers_that_are_none_are_refused() {
        let review = |response: Value| {
            json!({"kind": "AdmissionReview", "apiVersion": API_VERSION, "response": response}).to_string()
        };
        let cases = [
            (
                "garbage".to_owned(),
                Sort::Mutating,
                "failed to call webhook: couldn't get version/kind; json parse error",
            ),
            (
                "{}".to_owned(),
                Sort::Mutating,
                "received invalid webhook response: webhook response was absent",
            ),
            (review(json!({"uid": "v"})), Sort::Mutating, "expected response.uid=\"u\", got \"v\""),
            (
                json!({"kind": "X", "apiVersion": "v1", "response": {"uid": "u"}}).to_string(),
                Sort::Mutating,
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /v1, Kind=X",
            ),
            (
                review(json!({"uid": "u", "patch": "e30="})),
                Sort::Mutating,
                "response.patch but not response.patchType",
            ),
            (
                review(json!({"uid": "u", "patchType": "JSONPatch"})),
                Sort::Mutating,
                "response.patchType but not response.patch",
            ),
            (
                review(json!({"uid": "u", "patch": "e30="})),
                Sort::Validating,
                "validating webhook may not return response.patch",
            ),
            (review(json!({"uid": "u", "patch": "%"})), Sort::Mutating, "illegal base64"),
        ];
        for (body, sort, part) in cases {
            let error = response(body.as_bytes(), "u", sort).unwrap_err();
            assert!(error.contains(part), "{body}: {error}");
        }
        let good = response(
            review(json!({"uid": "u", "allowed": true, "warnings": ["w"]})).as_bytes(),
            "u",
            Sort::Validating,
        );
        assert_eq!(
            good.map(|response| (response.allowed, response.warnings)),
            Ok((true, vec!["w".to_owned()]))
        );
    }
}
