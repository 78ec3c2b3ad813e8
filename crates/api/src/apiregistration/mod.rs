//! `apiregistration.k8s.io/v1`: who serves which group and version.

use apimachinery::Object;
use apimachinery::field::{Error, ErrorList};
use apimachinery::validation as names;
use serde_json::json;

use crate::catalogue::{self, Encoding, Resource, Subresource};
use crate::printers::{AGE, NAME, column};
use crate::strategy::{Requester, Strategy, keep_metadata, keep_spec, keep_status, reset_metadata_too};
use crate::validation::at::At;

const GROUP: Resource = Resource {
    namespaced: false,
    categories: &["api-extensions"],
    ..Resource::in_group("apiregistration.k8s.io", "v1", "k8s.io.kube_aggregator.pkg.apis.apiregistration.v1")
};

pub const RESOURCES: &[Resource] = &[Resource {
    kind: "APIService",
    plural: "apiservices",
    singular: "apiservice",
    prefix: "apiregistration.k8s.io/apiservices",
    encoding: Encoding::Json,
    subresources: &[Subresource::status("APIService")],
    columns: &[
        NAME,
        column("Service", "string", "Who serves the API.", |s, _| match s.get(&["spec", "service"]) {
            None => json!("Local"),
            Some(service) => {
                let text = |key: &str| service[key].as_str().unwrap_or_default();
                json!(format!("{}/{}", text("namespace"), text("name")))
            }
        }),
        column("Available", "string", "Whether the API answers.", |s, _| json!(available(s))),
        AGE,
    ],
    strategy: &ApiServices,
    ..GROUP
}];

fn available(service: &Object) -> String {
    let conditions = service.get_array(&["status", "conditions"]);
    let Some(condition) = conditions.iter().find(|condition| condition["type"] == "Available") else {
        return "Unknown".into();
    };
    let text = |key: &str| condition[key].as_str().unwrap_or_default();
    match (text("status"), text("reason")) {
        ("True", _) => "True".into(),
        (status, "") => status.to_owned(),
        (status, reason) => format!("{status} ({reason})"),
    }
}

/// The object that says that this server serves a built-in group and version itself.
pub fn local(group: &str, version: &str) -> Option<Object> {
    let mut service = Object::from(json!({
        "metadata": {
            "name": format!("{version}.{group}"),
            "labels": {"kube-aggregator.kubernetes.io/automanaged": "onstart"},
        },
        "spec": {
            "version": version,
            "groupPriorityMinimum": catalogue::group_priority(group)?,
            "versionPriority": catalogue::version_priority(group, version),
        },
    }));
    if !group.is_empty() {
        service.set(&["spec", "group"], group);
    }
    Some(service)
}

struct ApiServices;

impl Strategy for ApiServices {
    fn default(&self, service: &mut Object) {
        if service.get(&["spec", "service"]).is_some() && service.get(&["spec", "service", "port"]).is_none()
        {
            service.set(&["spec", "service", "port"], 443);
        }
    }

    /// The name goes with the spec, see [`Strategy::validate`].
    fn validate_name(&self, name: &str, _prefix: bool) -> Vec<String> {
        names::is_path_segment_name(name)
    }

    /// What this server serves itself is available from the start.
    fn note_requester(&self, service: &mut Object, old: Option<&Object>, requester: &Requester) {
        if old.is_some() {
            return;
        }
        service.remove(&["status"]);
        if service.get(&["spec", "service"]).is_none() {
            service.set(
                &["status", "conditions"],
                json!([{
                    "type": "Available", "status": "True", "reason": "Local",
                    "message": "Local APIServices are always available",
                    "lastTransitionTime": requester.time,
                }]),
            );
        }
    }

    fn prepare_for_create(&self, _service: &mut Object) {}

    fn prepare_for_update(&self, service: &mut Object, old: &Object) {
        keep_status(service, old);
    }

    fn validate(&self, service: &Object) -> ErrorList {
        let root = At::root(service);
        let spec = root.child("spec");
        let wanted = format!("{}.{}", spec.text("version"), spec.text("group"));
        let mut errors = ErrorList::new();
        if names::is_path_segment_name(service.name()).is_empty() && service.name() != wanted {
            let why = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
            errors.push(root.child("metadata").child("name").invalid(why));
        }
        errors.extend(validate(&spec));
        errors
    }

    fn prepare_for_status_update(&self, service: &mut Object, old: &Object) {
        keep_spec(service, old);
        keep_metadata(service, old);
    }

    fn validate_status_update(&self, service: &Object, _old: &Object) -> ErrorList {
        let conditions = At::of(service, &["status", "conditions"]);
        conditions.items().flat_map(|one| one.child("status").among(&["True", "False", "Unknown"])).collect()
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        reset_metadata_too(subresource)
    }
}

fn validate(spec: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let (group, version) = (spec.child("group"), spec.child("version"));
    if group.is_empty() && version.str() != "v1" {
        errors.push(group.required("only v1 may have an empty group and it better be legacy kube"));
    }
    if !group.is_empty() {
        errors.extend(group.subdomain());
    }
    let text = version.str();
    errors.extend(
        names::is_dns1035_label(text).into_iter().map(|why| Error::invalid(&version.path, text, why)),
    );
    for (key, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let priority = spec.number(key).unwrap_or_default();
        if priority <= 0 || priority > max {
            let why = format!("must be positive and less than {max}");
            errors.push(Error::invalid(&spec.path.child(key), priority, why));
        }
    }
    let (service, bundle) = (spec.child("service"), spec.child("caBundle"));
    let insecure = spec.child("insecureSkipTLSVerify");
    if !service.is_set() {
        if !bundle.is_empty() {
            let shown = format!("{} bytes", decoded_len(bundle.str()));
            errors.push(Error::invalid(&bundle.path, shown, "local APIServices may not have a caBundle"));
        }
        if insecure.flag() {
            errors.push(insecure.invalid("local APIServices may not have insecureSkipTLSVerify"));
        }
        return errors;
    }
    for key in ["namespace", "name"] {
        let part = service.child(key);
        if part.is_empty() {
            errors.push(part.required(""));
        }
    }
    let port = service.child("port");
    let wrong = names::is_valid_port_num(port.int().unwrap_or_default());
    if !wrong.is_empty() {
        errors.push(port.invalid(format!("port is not valid: {}", wrong.join(", "))));
    }
    if insecure.flag() && !bundle.is_empty() {
        errors.push(insecure.invalid("may not be true if caBundle is present"));
    }
    errors
}

/// How many bytes a text of base64 stands for.
fn decoded_len(base64: &str) -> usize {
    base64.len() / 4 * 3 - base64.bytes().rev().take_while(|b| *b == b'=').count()
}

#[cfg(test)]
mod tests {
    use apimachinery::Value;

    use super::*;
    use crate::validation::forms::check;

    #[test]
    fn local_services_are_valid_and_available() {
        for gv in catalogue::catalogue().group_versions() {
            let Some(mut service) = local(&gv.group, &gv.version) else {
                assert_eq!(gv.group, "apiregistration.k8s.io");
                continue;
            };
            ApiServices.note_requester(&mut service, None, &Requester::default());
            check(ApiServices.validate(&service), &[]);
            assert_eq!(available(&service), "True");
        }
    }

    #[test]
    fn conditions_are_true_false_or_unknown() {
        let of = |status: &str| {
            Object::from(json!({"status": {"conditions": [{"type": "Available", "status": status}]}}))
        };
        check(ApiServices.validate_status_update(&of("False"), &of("True")), &[]);
        check(
            ApiServices.validate_status_update(&of("Maybe"), &of("True")),
            &[
                "status.conditions[0].status: Unsupported value: \"Maybe\": supported values: \"True\", \"False\", \"Unknown\"",
            ],
        );
    }

    #[test]
    fn what_is_wrong_with_a_service() {
        let cases: Vec<(Value, Vec<&str>)> = vec![
            (
                json!({"group": "a.b", "version": "v1", "groupPriorityMinimum": 0, "versionPriority": 2000, "caBundle": "AAAAAA=="}),
                vec![
                    "metadata.name: Invalid value: \"x\": must be `spec.version+\".\"+spec.group`: \"v1.a.b\"",
                    "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000",
                    "spec.versionPriority: Invalid value: 2000: must be positive and less than 1000",
                    "spec.caBundle: Invalid value: \"4 bytes\": local APIServices may not have a caBundle",
                ],
            ),
            (
                json!({"version": "v2", "groupPriorityMinimum": 1, "versionPriority": 1, "service": {"name": "s", "port": 0}}),
                vec![
                    "metadata.name: Invalid value: \"x\": must be `spec.version+\".\"+spec.group`: \"v2.\"",
                    "spec.group: Required value: only v1 may have an empty group and it better be legacy kube",
                    "spec.service.namespace: Required value",
                    "spec.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
                ],
            ),
        ];
        for (spec, expected) in cases {
            check(
                ApiServices.validate(&Object::from(json!({"metadata": {"name": "x"}, "spec": spec}))),
                &expected,
            );
        }
    }
}
