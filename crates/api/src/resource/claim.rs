//! Claims for devices: what is asked for.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Object, Value};
use serde_json::json;

use super::forms::{
    MAX_CONFIG, MAX_REQUESTS, MAX_SELECTORS, RequestNames, bounded, configuration, full_attribute_name,
    selector, set, set_of, tolerations,
};
use super::{rights, status};
use crate::catalogue::Column;
use crate::printers::{AGE, NAME, column};
use crate::strategy::{
    NamespaceLabel, Requester, Right, Strategy, keep_metadata, keep_spec, keep_status, reset_metadata_too,
};
use crate::validation::at::At;
use crate::validation::forms::unchanged;

const MAX_ALTERNATIVES: usize = 8;
const MAX_CONSTRAINTS: usize = 32;
const MODES: [&str; 2] = ["All", "ExactCount"];

pub const COLUMNS: &[Column] =
    &[NAME, column("State", "string", "How far the claim has come.", |claim, _| json!(state(claim))), AGE];

fn state(claim: &Object) -> String {
    let mut states = Vec::new();
    if claim.deletion_timestamp().is_some() {
        states.push("deleted");
    }
    if claim.get(&["status", "allocation"]).is_some_and(|it| !it.is_null()) {
        states.push("allocated");
    } else if claim.deletion_timestamp().is_none() {
        states.push("pending");
    }
    if !claim.get_array(&["status", "reservedFor"]).is_empty() {
        states.push("reserved");
    }
    states.join(",")
}

pub struct ResourceClaims;

impl Strategy for ResourceClaims {
    fn default(&self, claim: &mut Object) {
        if let Some(spec) = claim.as_value_mut().get_mut("spec") {
            default_spec(spec);
        }
        let results = claim.as_value_mut().pointer_mut("/status/allocation/devices/results");
        for result in results.and_then(Value::as_array_mut).into_iter().flatten() {
            default_tolerations(result);
        }
    }

    fn prepare_for_create(&self, claim: &mut Object) {
        claim.remove(&["status"]);
    }

    fn prepare_for_update(&self, claim: &mut Object, old: &Object) {
        keep_status(claim, old);
    }

    fn validate(&self, claim: &Object) -> ErrorList {
        validate_spec(&At::root(claim).child("spec"))
    }

    fn validate_update(&self, claim: &Object, old: &Object) -> ErrorList {
        unchanged(&At::root(claim).child("spec"), &At::root(old).child("spec"))
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        reset_metadata_too(subresource)
    }

    fn prepare_for_status_update(&self, claim: &mut Object, old: &Object) {
        keep_spec(claim, old);
        keep_metadata(claim, old);
        status::drop_what_is_not_allocated(claim, old);
    }

    fn validate_status_update(&self, claim: &Object, old: &Object) -> ErrorList {
        status::validate(claim, old)
    }

    fn rights_for_status_update(
        &self,
        claim: &Object,
        old: &Object,
        verb: &str,
        requester: &Requester,
    ) -> Vec<Right> {
        rights::needed(claim, old, verb, requester)
    }

    fn needs_namespace_label(&self, claim: &Object, old: Option<&Object>) -> Option<NamespaceLabel> {
        match old {
            None => admin_access(&At::root(claim).child("spec")),
            Some(old) => status::admin_access(claim, old),
        }
    }
}

/// Defaults of a claim's spec: one device of every request.
pub fn default_spec(spec: &mut Value) {
    let requests = spec.pointer_mut("/devices/requests").and_then(Value::as_array_mut);
    for request in requests.into_iter().flatten() {
        if let Some(exactly) = request.get_mut("exactly").filter(|it| it.is_object()) {
            default_request(exactly);
        }
        let alternatives = request.get_mut("firstAvailable").and_then(Value::as_array_mut);
        alternatives.into_iter().flatten().filter(|it| it.is_object()).for_each(default_request);
    }
}

fn default_request(request: &mut Value) {
    let empty = |value: &Value| value.is_null() || value == "" || value == 0;
    if empty(&request["allocationMode"]) {
        request["allocationMode"] = json!("ExactCount");
    }
    if request["allocationMode"] == "ExactCount" && request.get("count").is_none_or(empty) {
        request["count"] = json!(1);
    }
    default_tolerations(request);
}

fn default_tolerations(at: &mut Value) {
    let tolerations = at.get_mut("tolerations").and_then(Value::as_array_mut);
    for toleration in tolerations.into_iter().flatten().filter(|it| it.is_object()) {
        if toleration.get("operator").is_none_or(|it| it.is_null() || it == "") {
            toleration["operator"] = json!("Equal");
        }
    }
}

/// What is wrong with a claim's spec, here or in a template.
/// Whoever asks for devices that others use asks it in a namespace that allows it.
pub fn admin_access(spec: &At<'_>) -> Option<NamespaceLabel> {
    let mut requests = spec.child("devices").each("requests").enumerate();
    let (index, _) = requests.find(|(_, request)| request.child("exactly").is_true("adminAccess"))?;
    // a template's path is said to be a claim's
    Some(admin_namespace(&Path::new("spec").child("devices").child("requests").index(index)))
}

pub(super) fn admin_namespace(request: &Path) -> NamespaceLabel {
    const LABEL: &str = "resource.kubernetes.io/admin-access";
    let why =
        format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace");
    NamespaceLabel { label: LABEL, error: Error::forbidden(&request.child("adminAccess"), why) }
}

pub fn validate_spec(spec: &At<'_>) -> ErrorList {
    let devices = spec.child("devices");
    let names = RequestNames::of(&devices);
    let name = |item: &Value| item["name"].clone();
    let mut errors = set_of(&devices.child("requests"), MAX_REQUESTS, name, request);
    errors.extend(bounded(&devices.child("constraints"), MAX_CONSTRAINTS, |item| constraint(item, &names)));
    errors.extend(bounded(&devices.child("config"), MAX_CONFIG, |config| {
        let mut errors = set(&config.child("requests"), MAX_REQUESTS, |name| names.reference(name));
        errors.extend(configuration(config));
        errors
    }));
    errors
}

fn request(request: &At<'_>) -> ErrorList {
    let (exactly, alternatives) = (request.child("exactly"), request.child("firstAvailable"));
    let mut errors = request.child("name").dns_label();
    match (exactly.is_set(), !alternatives.is_empty()) {
        (false, false) => {
            errors.push(request.required("exactly one of `exactly` or `firstAvailable` is required"));
        }
        (true, true) => {
            let why = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.push(Error::invalid(&request.path, Value::Null, why));
        }
        (true, false) => errors.extend(asked(&exactly)),
        (false, true) => {
            let name = |item: &Value| item["name"].clone();
            errors.extend(set_of(&alternatives, MAX_ALTERNATIVES, name, |alternative| {
                let mut errors = alternative.child("name").dns_label();
                errors.extend(asked(alternative));
                errors
            }));
        }
    }
    errors
}

/// What a request or an alternative of one asks for.
fn asked(request: &At<'_>) -> ErrorList {
    let class = request.child("deviceClassName");
    let mut errors = if class.is_empty() { vec![class.required("")] } else { class.subdomain() };
    errors.extend(bounded(&request.child("selectors"), MAX_SELECTORS, selector));
    let count = request.child("count");
    match request.text("allocationMode") {
        "All" if !count.is_empty() => {
            errors.push(count.invalid("must not be specified when allocationMode is 'All'"));
        }
        "All" => {}
        "ExactCount" => errors.extend(count.positive()),
        mode => {
            errors.push(Error::not_supported(&request.path.child("allocationMode"), mode, &MODES));
        }
    }
    errors.extend(tolerations(&request.child("tolerations")));
    errors
}

fn constraint(constraint: &At<'_>, names: &RequestNames<'_>) -> ErrorList {
    let mut errors = set(&constraint.child("requests"), MAX_REQUESTS, |name| names.reference(name));
    let (same, different) = (constraint.child("matchAttribute"), constraint.child("distinctAttribute"));
    if same.is_set() {
        errors.extend(full_attribute_name(&same));
    } else if different.is_set() {
        errors.extend(full_attribute_name(&different));
    } else {
        errors.push(constraint.required(
            r#"exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set"#,
        ));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::forms::check;

    fn claim(devices: Value) -> Object {
        let mut claim = Object::from(json!({"metadata": {"name": "c"}, "spec": {"devices": devices}}));
        ResourceClaims.default(&mut claim);
        claim
    }

    #[test]
    fn one_device_unless_said() {
        let claim = claim(json!({"requests": [
            {"name": "a", "exactly": {"deviceClassName": "gpu", "tolerations": [{"key": "k"}]}},
            {"name": "b", "firstAvailable": [{"name": "x", "deviceClassName": "gpu", "allocationMode": "All"}]},
        ]}));
        let requests = claim.get_array(&["spec", "devices", "requests"]);
        assert_eq!(requests[0]["exactly"]["count"], 1);
        assert_eq!(requests[0]["exactly"]["tolerations"][0]["operator"], "Equal");
        assert!(requests[1]["firstAvailable"][0].get("count").is_none());
        check(ResourceClaims.validate(&claim), &[]);
        assert_eq!(state(&claim), "pending");
    }

    #[test]
    fn admin_access_needs_a_namespace_that_allows_it() {
        let asked = |claim: &Object, old: Option<&Object>| {
            let needed = ResourceClaims.needs_namespace_label(claim, old)?;
            assert_eq!(needed.label, "resource.kubernetes.io/admin-access");
            Some(needed.error.to_string())
        };
        let plain = claim(json!({"requests": [{"name": "a", "exactly": {"deviceClassName": "gpu"}}]}));
        assert_eq!(asked(&plain, None), None);
        let admin = claim(json!({"requests": [
            {"name": "a", "exactly": {"deviceClassName": "gpu"}},
            {"name": "b", "exactly": {"deviceClassName": "gpu", "adminAccess": true}},
        ]}));
        const WHY: &str = "Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace";
        assert_eq!(asked(&admin, None), Some(format!("spec.devices.requests[1].adminAccess: {WHY}")));
        let mut granted = admin.clone();
        granted.set(&["status", "allocation", "devices", "results"], json!([{"adminAccess": true}]));
        let path = "status.allocation.devices.results[0].adminAccess";
        assert_eq!(asked(&granted, Some(&admin)), Some(format!("{path}: {WHY}")));
        assert_eq!(asked(&granted, Some(&granted)), None);
    }

    #[test]
    fn what_is_wrong_with_a_claim() {
        let cases: Vec<(Value, Vec<&str>)> = vec![
            (json!({}), vec![]),
            (
                json!({"requests": [{"name": "a"}, {"name": "a", "exactly": {"deviceClassName": ""}}]}),
                vec![
                    "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
                    "spec.devices.requests[1].exactly.deviceClassName: Required value",
                    "spec.devices.requests[1]: Duplicate value: \"a\"",
                ],
            ),
            (
                json!({"requests": [{"name": "a", "exactly": {"deviceClassName": "c", "allocationMode": "Some",
                    "selectors": [{}], "tolerations": [{"operator": "Exists", "value": "v", "effect": "Bad"}]}}]}),
                vec![
                    "spec.devices.requests[0].exactly.selectors[0].cel: Required value",
                    "spec.devices.requests[0].exactly.allocationMode: Unsupported value: \"Some\": supported values: \"All\", \"ExactCount\"",
                    "spec.devices.requests[0].exactly.tolerations[0].value: Invalid value: \"v\": must be empty for operator `Exists`",
                    "spec.devices.requests[0].exactly.tolerations[0].effect: Unsupported value: \"Bad\": supported values: \"NoExecute\", \"NoSchedule\", \"None\"",
                ],
            ),
            (
                json!({"requests": [{"name": "a", "exactly": {"deviceClassName": "c", "allocationMode": "All", "count": 2}}],
                    "constraints": [{"requests": ["b", "a/x/y"], "matchAttribute": "bare"}, {}],
                    "config": [{"requests": ["a", "a"]}]}),
                vec![
                    "spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
                    "spec.devices.constraints[0].requests[0]: Invalid value: \"b\": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'",
                    "spec.devices.constraints[0].requests[1]: Invalid value: \"a/x/y\": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'",
                    "spec.devices.constraints[0].matchAttribute: Invalid value: \"bare\": a fully qualified name must be a domain and a name separated by a slash",
                    "spec.devices.constraints[1]: Required value: exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
                    "spec.devices.config[0].requests[1]: Duplicate value: \"a\"",
                    "spec.devices.config[0].opaque: Required value",
                ],
            ),
        ];
        for (devices, expected) in cases {
            check(ResourceClaims.validate(&claim(devices)), &expected);
        }
    }
}
