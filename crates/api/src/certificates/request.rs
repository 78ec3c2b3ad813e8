//! Certificate signing requests: who asks is noted by the server, who decides comes by `approval`, who signs by `status`.

use apimachinery::field::ErrorList;
use apimachinery::{Object, Value};
use serde_json::json;

use super::rules::{self, Door};
use crate::catalogue::Column;
use crate::printers::{AGE, NAME, column, human_duration, or_none};
use crate::strategy::{Requester, Strategy, restore};

pub const COLUMNS: &[Column] = &[
    NAME,
    AGE,
    column("SignerName", "string", "Who is asked to sign.", |r, _| {
        or_none(r.get_str(&["spec", "signerName"]))
    }),
    column("Requestor", "string", "Who asks.", |r, _| json!(r.get_str(&["spec", "username"]))),
    column("RequestedDuration", "string", "For how long.", |r, _| {
        match r.get_i64(&["spec", "expirationSeconds"]) {
            Some(seconds) => json!(human_duration(seconds)),
            None => json!("<none>"),
        }
    }),
    column("Condition", "string", "What has become of it.", |r, _| json!(state(r))),
];

fn state(request: &Object) -> String {
    let has = |kind: &str| !rules::of_type(request, kind).is_empty();
    let mut state = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !request.get_str(&["status", "certificate"]).is_empty() {
        state.push_str(",Issued");
    }
    state
}

pub struct CertificateSigningRequests;

impl Strategy for CertificateSigningRequests {
    /// Any name will do.
    fn validate_name(&self, _name: &str, _prefix: bool) -> Vec<String> {
        Vec::new()
    }

    fn note_requester(&self, request: &mut Object, old: Option<&Object>, requester: &Requester) {
        if let Some(old) = old {
            fill_times(request, old, &requester.time);
            return;
        }
        for key in ["username", "uid", "groups", "extra"] {
            request.remove(&["spec", key]);
        }
        let mut note = |key: &str, value: Value, empty: bool| {
            if !empty {
                request.set(&["spec", key], value);
            }
        };
        note("username", json!(requester.name), requester.name.is_empty());
        note("uid", json!(requester.uid), requester.uid.is_empty());
        note("groups", json!(requester.groups), requester.groups.is_empty());
        let extra: serde_json::Map<String, Value> =
            requester.extra.iter().map(|(key, values)| (key.clone(), json!(values))).collect();
        note("extra", Value::Object(extra), requester.extra.is_empty());
    }

    fn prepare_for_create(&self, request: &mut Object) {
        request.remove(&["status"]);
    }

    fn validate(&self, request: &Object) -> ErrorList {
        rules::validate(request)
    }

    fn prepare_for_update(&self, request: &mut Object, old: &Object) {
        restore(request, old, "spec");
        restore(request, old, "status");
    }

    fn validate_update(&self, request: &Object, old: &Object) -> ErrorList {
        rules::validate_update(request, old, Door::Main)
    }

    /// Decisions are not the signer's to make.
    fn prepare_for_status_update(&self, request: &mut Object, old: &Object) {
        restore(request, old, "spec");
        for kind in ["Approved", "Denied"] {
            keep_instances(request, old, kind);
        }
    }

    fn validate_status_update(&self, request: &Object, old: &Object) -> ErrorList {
        rules::validate_update(request, old, Door::Status)
    }

    /// `approval` changes conditions and nothing else.
    fn prepare_for_subresource(&self, _subresource: &str, request: &mut Object, old: &Object) {
        restore(request, old, "spec");
        let conditions = request.get(&["status", "conditions"]).cloned();
        restore(request, old, "status");
        match conditions {
            Some(conditions) => request.set(&["status", "conditions"], conditions),
            None => {
                request.remove(&["status", "conditions"]);
            }
        }
    }

    fn validate_subresource(&self, _subresource: &str, request: &Object, old: &Object) -> ErrorList {
        rules::validate_update(request, old, Door::Approval)
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        match subresource {
            "status" => &[&["spec"], &["status", "conditions"]],
            "approval" => &[&["spec"], &["status", "certificate"]],
            _ => &[&["spec"], &["status"]],
        }
    }
}

/// Puts back conditions of a type when there are as many as before; more or fewer are for validation to refuse.
fn keep_instances(request: &mut Object, old: &Object, kind: &str) {
    let before: Vec<Value> = rules::of_type(old, kind).into_iter().cloned().collect();
    if before.len() != rules::of_type(request, kind).len() {
        return;
    }
    let status = request.as_map_mut().get_mut("status").and_then(|status| status.get_mut("conditions"));
    let Some(conditions) = status.and_then(Value::as_array_mut) else { return };
    let of_type = conditions.iter_mut().filter(|condition| condition["type"] == kind);
    for (condition, before) in of_type.zip(before) {
        *condition = before;
    }
}

/// Conditions say when they were written and when they last changed.
fn fill_times(request: &mut Object, old: &Object, now: &str) {
    let before = old.get_array(&["status", "conditions"]).to_vec();
    let status = request.as_map_mut().get_mut("status").and_then(|status| status.get_mut("conditions"));
    let Some(conditions) = status.and_then(Value::as_array_mut) else { return };
    for condition in conditions.iter_mut().filter_map(Value::as_object_mut) {
        // a time that nobody gave is null
        let is_set = |time: Option<&Value>| time.is_some_and(|time| !time.is_null());
        if !is_set(condition.get("lastUpdateTime")) {
            condition.insert("lastUpdateTime".into(), json!(now));
        }
        if is_set(condition.get("lastTransitionTime")) {
            continue;
        }
        let is_same = |old: &&Value| ["type", "status"].iter().all(|key| old.get(key) == condition.get(*key));
        let mut times = before.iter().filter(is_same).filter_map(|old| old.get("lastTransitionTime"));
        let time = times.find(|time| !time.is_null()).cloned();
        condition.insert("lastTransitionTime".into(), time.unwrap_or_else(|| json!(now)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::forms::check;

    /// A request of an ECDSA key for `CN=test, O=team`.
    const REQUEST: &str = include_str!("testdata/request.pem");

    fn request() -> Object {
        use base64::Engine;
        let body = base64::engine::general_purpose::STANDARD.encode(REQUEST);
        Object::from(json!({"metadata": {"name": "r"}, "spec": {
            "request": body, "signerName": "example.com/signer", "usages": ["client auth"], "username": "me",
        }}))
    }

    #[test]
    fn the_server_says_who_asks() {
        let mut object = request();
        let requester = Requester { name: "ann".into(), groups: vec!["g".into()], ..Requester::default() };
        CertificateSigningRequests.note_requester(&mut object, None, &requester);
        CertificateSigningRequests.prepare_for_create(&mut object);
        assert_eq!(object.get_str(&["spec", "username"]), "ann");
        assert_eq!(object.get(&["spec", "groups"]), Some(&json!(["g"])));
        check(CertificateSigningRequests.validate(&object), &[]);
        assert_eq!(super::super::request_subject(REQUEST.as_bytes()), Ok(vec!["team".to_owned()]));
    }

    #[test]
    fn what_is_wrong_with_a_request() {
        let mut object = request();
        object.set(&["spec", "request"], "AAAA");
        object.set(&["spec", "usages"], json!(["client auth", "client auth", "odd"]));
        object.set(&["spec", "signerName"], "signer");
        object.set(&["spec", "expirationSeconds"], 5);
        let errors = CertificateSigningRequests.validate(&object);
        let short: Vec<(&str, &str)> = errors
            .iter()
            .map(|e| (e.field.as_str(), e.detail.split(':').next().unwrap_or_default()))
            .collect();
        assert_eq!(
            short,
            [
                ("spec.request", "PEM block type must be CERTIFICATE REQUEST"),
                ("spec.usages[2]", "supported values"),
                ("spec.usages[1]", ""),
                (
                    "spec.signerName",
                    "must be a fully qualified domain and path of the form 'example.com/signer-name'"
                ),
                ("spec.expirationSeconds", "may not specify a duration less than 600 seconds (10 minutes)"),
            ]
        );
        let names =
            [("a/b", 1), ("a.b/C", 1), ("A.b/c", 1), ("kubernetes.io/legacy-unknown", 1), ("a.b/c", 0)];
        for (name, wrong) in names {
            let mut object = request();
            object.set(&["spec", "signerName"], name);
            assert_eq!(CertificateSigningRequests.validate(&object).len(), wrong, "{name}");
        }
    }

    #[test]
    fn decisions_come_by_approval_and_certificates_by_status() {
        let strategy = CertificateSigningRequests;
        let old = request();
        let mut approved = old.clone();
        approved.set(
            &["status", "conditions"],
            json!([{"type": "Approved", "status": "True", "reason": "Fine",
                "lastUpdateTime": null, "lastTransitionTime": null}]),
        );
        let requester = Requester { time: "2024-01-01T00:00:00Z".into(), ..Requester::default() };
        strategy.note_requester(&mut approved, Some(&old), &requester);
        strategy.prepare_for_subresource("approval", &mut approved, &old);
        check(strategy.validate_subresource("approval", &approved, &old), &[]);
        for time in ["lastUpdateTime", "lastTransitionTime"] {
            let time = &approved.get_array(&["status", "conditions"])[0][time];
            assert_eq!(*time, json!("2024-01-01T00:00:00Z"));
        }
        check(
            strategy.validate_status_update(&approved, &old),
            &["status.conditions: Forbidden: updates may not add a condition of type \"Approved\""],
        );
        let mut signed = approved.clone();
        signed.set(&["status", "certificate"], "AAAA");
        check(
            strategy.validate_subresource("approval", &signed, &approved),
            &[
                "status.certificate: Invalid value: \"<certificate data>\": must contain at least one CERTIFICATE PEM block",
                "status.certificate: Forbidden: updates may not set certificate content",
            ],
        );
        let mut denied = approved.clone();
        denied.set(&["status", "conditions"], json!([{"type": "Denied", "status": "True"}]));
        check(
            strategy.validate_subresource("approval", &denied, &approved),
            &["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""],
        );
        assert_eq!(state(&denied), "Denied");
    }

    #[test]
    fn a_request_is_approved_or_denied() {
        let conditions = |kinds: &[&str]| -> Object {
            let all: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
            let mut object = request();
            object.set(&["status", "conditions"], all);
            object
        };
        let strategy = CertificateSigningRequests;
        let both = conditions(&["Approved", "Denied"]);
        check(
            strategy.validate_subresource("approval", &both, &conditions(&["Approved"])),
            &[
                "status.conditions[1].type: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive",
            ],
        );
        check(strategy.validate_subresource("approval", &both, &both), &[]);
        check(
            strategy.validate_subresource("approval", &conditions(&["Odd", "Odd"]), &conditions(&[])),
            &["status.conditions[1].type: Duplicate value: \"Odd\""],
        );
    }

    #[test]
    fn a_condition_keeps_the_time_of_its_change() {
        let mut old = request();
        let condition = |time: Value| json!({"type": "Failed", "status": "True", "lastTransitionTime": time});
        old.set(
            &["status", "conditions"],
            json!([condition(Value::Null), condition(json!("2024-01-01T00:00:00Z"))]),
        );
        let mut new = request();
        new.set(&["status", "conditions"], json!([condition(Value::Null)]));
        fill_times(&mut new, &old, "2025-01-01T00:00:00Z");
        let written = &new.get_array(&["status", "conditions"])[0];
        assert_eq!(written["lastTransitionTime"], "2024-01-01T00:00:00Z");
        assert_eq!(written["lastUpdateTime"], "2025-01-01T00:00:00Z");
    }
}
