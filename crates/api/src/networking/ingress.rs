//! Ingresses.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;
use apimachinery::{Object, Value};
use serde_json::json;

use super::ingress_class::local_reference;
use crate::catalogue::Column;
use crate::core::warnings;
use crate::printers::{AGE, NAME, column, or_none};
use crate::strategy::{Strategy, bump_generation, keep_status, reset_status_for_create};
use crate::validation::at::At;

pub const COLUMNS: &[Column] = &[
    NAME,
    column("Class", "string", "The class that says who takes care.", |i, _| {
        or_none(i.get_str(&["spec", "ingressClassName"]))
    }),
    column("Hosts", "string", "Host names of the rules, the first three.", |i, _| json!(hosts(i))),
    column("Address", "string", "Where the ingress is reached.", |i, _| json!(addresses(i))),
    column("Ports", "string", "Open ports.", |i, _| {
        json!(if i.get_array(&["spec", "tls"]).is_empty() { "80" } else { "80, 443" })
    }),
    AGE,
];

const SHOWN: usize = 3;

/// The first hosts, and how many rules there are beyond as many, whether or not these have hosts.
fn hosts(ingress: &Object) -> String {
    let rules = ingress.get_array(&["spec", "rules"]);
    let mut hosts: Vec<&str> = Vec::new();
    for rule in rules {
        if hosts.len() == SHOWN {
            return format!("{} + {} more...", hosts.join(","), rules.len() - SHOWN);
        }
        hosts.extend(rule.get("host").and_then(Value::as_str).filter(|host| !host.is_empty()));
    }
    if hosts.is_empty() { "*".to_owned() } else { hosts.join(",") }
}

fn addresses(ingress: &Object) -> String {
    let mut all: Vec<&str> = ingress
        .get_array(&["status", "loadBalancer", "ingress"])
        .iter()
        .filter_map(|entry| {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
            text("ip").or_else(|| text("hostname"))
        })
        .collect();
    all.sort_unstable();
    all.dedup();
    all.join(",")
}

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];

pub struct Ingresses;

/// What an update lets pass since it was there before.
#[derive(Clone, Copy, Default)]
struct Lenient {
    secret_names: bool,
    wildcard_rules: bool,
}

impl Strategy for Ingresses {
    fn prepare_for_create(&self, ingress: &mut Object) {
        reset_status_for_create(ingress);
        ingress.set_generation(1);
    }

    fn prepare_for_update(&self, ingress: &mut Object, old: &Object) {
        keep_status(ingress, old);
        bump_generation(ingress, old);
    }

    fn validate(&self, ingress: &Object) -> ErrorList {
        let mut errors = validate(&At::root(ingress).child("spec"), Lenient::default());
        let class = ingress.get(&["spec", "ingressClassName"]).and_then(Value::as_str);
        if let (Some(annotation), Some(class)) = (ingress.annotation(CLASS_ANNOTATION), class)
            && annotation != class
        {
            let path = Path::new("annotations").child(CLASS_ANNOTATION);
            let why = "must match `ingressClassName` when both are specified";
            errors.push(Error::invalid(&path, annotation, why));
        }
        errors
    }

    fn validate_update(&self, ingress: &Object, old: &Object) -> ErrorList {
        validate(&At::root(ingress).child("spec"), lenient(&At::root(old).child("spec")))
    }

    fn validate_status_update(&self, ingress: &Object, old: &Object) -> ErrorList {
        let known: Vec<&str> = old
            .get_array(&["status", "loadBalancer", "ingress"])
            .iter()
            .filter_map(|entry| entry.get("ip")?.as_str())
            .collect();
        let balancer = At::root(ingress).child("status").child("loadBalancer");
        let mut errors = ErrorList::new();
        for entry in balancer.each("ingress") {
            let (ip, host) = (entry.child("ip"), entry.child("hostname"));
            if !ip.is_empty() {
                errors.extend(ip.ip(&known));
            }
            if !host.is_empty() {
                errors.extend(host.subdomain());
                if names::parse_ip_sloppy(host.str()).is_some() {
                    errors.push(host.invalid("must be a DNS name, not an IP address"));
                }
            }
        }
        errors
    }

    fn warnings_on_create(&self, ingress: &Object) -> Vec<String> {
        let annotated = ingress.annotation(CLASS_ANNOTATION).is_some();
        if annotated && ingress.get(&["spec", "ingressClassName"]).is_none() {
            return vec![format!(
                "annotation \"{CLASS_ANNOTATION}\" is deprecated, please use 'spec.ingressClassName' instead"
            )];
        }
        Vec::new()
    }

    fn warnings_on_update(&self, _ingress: &Object, _old: &Object) -> Vec<String> {
        Vec::new()
    }

    fn warnings_on_status_update(&self, ingress: &Object, _old: &Object) -> Vec<String> {
        let balancer = At::of(ingress, &["status", "loadBalancer"]);
        let addresses = balancer.each("ingress").map(|entry| entry.child("ip"));
        addresses.filter_map(|ip| warnings::ip(ip.str(), &ip.path)).collect()
    }
}

fn lenient(old: &At<'_>) -> Lenient {
    let secret_names = old.each("tls").any(|tls| !secret_name(&tls.child("secretName")).is_empty());
    let wildcard_rules =
        old.each("rules").any(|rule| rule.text("host").contains('*') && !rule_value(&rule).is_empty());
    Lenient { secret_names, wildcard_rules }
}

fn validate(spec: &At<'_>, lenient: Lenient) -> ErrorList {
    let mut errors = ErrorList::new();
    let (rules, backend) = (spec.child("rules"), spec.child("defaultBackend"));
    if rules.is_empty() && !backend.is_set() {
        let why = "either `defaultBackend` or `rules` must be specified";
        errors.push(Error::invalid(&spec.path, rules.value.clone(), why));
    }
    if backend.is_set() {
        errors.extend(self::backend(&backend));
    }
    for rule in rules.items() {
        errors.extend(self::rule(&rule, lenient));
    }
    for tls in spec.each("tls") {
        for host in tls.each("hosts") {
            errors.extend(host_name(&host));
        }
        if !lenient.secret_names {
            errors.extend(secret_name(&tls.child("secretName")));
        }
    }
    let class = spec.child("ingressClassName");
    if class.is_set() {
        errors.extend(class.subdomain());
    }
    errors
}

fn host_name(host: &At<'_>) -> ErrorList {
    if host.str().contains('*') {
        return host.wrong(names::is_wildcard_dns1123_subdomain(host.str()));
    }
    host.subdomain()
}

fn secret_name(name: &At<'_>) -> ErrorList {
    if name.is_empty() { ErrorList::new() } else { name.subdomain() }
}

fn rule(rule: &At<'_>, lenient: Lenient) -> ErrorList {
    let host = rule.child("host");
    let mut errors = ErrorList::new();
    if !host.is_empty() {
        if names::parse_ip_sloppy(host.str()).is_some() {
            errors.push(host.invalid("must be a DNS name, not an IP address"));
        }
        errors.extend(host_name(&host));
    }
    if !(host.str().contains('*') && lenient.wildcard_rules) {
        errors.extend(rule_value(rule));
    }
    errors
}

fn rule_value(rule: &At<'_>) -> ErrorList {
    let http = rule.child("http");
    if !http.is_set() {
        return ErrorList::new();
    }
    let paths = http.child("paths");
    let mut errors = ErrorList::new();
    if paths.is_empty() {
        errors.push(paths.required(""));
    }
    for path in paths.items() {
        errors.extend(http_path(&path));
    }
    errors
}

fn http_path(entry: &At<'_>) -> ErrorList {
    let (path, kind) = (entry.child("path"), entry.child("pathType"));
    if !kind.is_set() {
        return vec![kind.required("pathType must be specified")];
    }
    let path = if path.is_set() { path } else { At::new(&EMPTY, path.path) };
    let mut errors = ErrorList::new();
    let absolute = path.str().starts_with('/');
    match kind.str() {
        "Exact" | "Prefix" => {
            if !absolute {
                errors.push(path.invalid("must be an absolute path"));
            }
            for bad in ["//", "/./", "/../", "%2f", "%2F"] {
                if path.str().contains(bad) {
                    errors.push(path.invalid(format!("must not contain '{bad}'")));
                }
            }
            for bad in ["/..", "/."] {
                if path.str().ends_with(bad) {
                    errors.push(path.invalid(format!("cannot end with '{bad}'")));
                }
            }
        }
        "ImplementationSpecific" => {
            if !path.is_empty() && !absolute {
                errors.push(path.invalid("must be an absolute path"));
            }
        }
        _ => errors.push(kind.not_supported(&PATH_TYPES)),
    }
    errors.extend(backend(&entry.child("backend")));
    errors
}

static EMPTY: Value = Value::String(String::new());

fn backend(backend: &At<'_>) -> ErrorList {
    let (resource, service) = (backend.child("resource"), backend.child("service"));
    let refuse = |why: &str| Error::invalid(&backend.path, "", why);
    match (resource.is_set(), service.is_set()) {
        (true, true) => return vec![refuse("cannot set both resource and service backends")],
        (true, false) => return local_reference(&resource),
        (false, false) => return vec![refuse("resource or service backend is required")],
        (false, true) => {}
    }
    let mut errors = ErrorList::new();
    let name = service.child("name");
    if name.is_empty() {
        errors.push(name.required(""));
    } else {
        errors.extend(name.dns_label());
    }
    let port = service.child("port");
    let (port_name, number) = (port.child("name"), port.child("number"));
    match (!port_name.is_empty(), !number.is_empty()) {
        (true, true) => errors.push(refuse("cannot set both port name & port number")),
        (true, false) => errors.extend(port_name.wrong(names::is_valid_port_name(port_name.str()))),
        (false, true) => {
            errors.extend(number.wrong(names::is_valid_port_num(number.int().unwrap_or_default())));
        }
        (false, false) => errors.push(backend.required("port name or number is required")),
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::forms::check;

    fn backend() -> Value {
        json!({"service": {"name": "web", "port": {"number": 80}}})
    }

    #[test]
    fn what_is_wrong_with_an_ingress() {
        let path = |path: Value| json!({"rules": [{"http": {"paths": [path]}}]});
        let cases: Vec<(Value, Vec<&str>)> = vec![
            (json!({"defaultBackend": backend()}), vec![]),
            (path(json!({"path": "/a", "pathType": "Prefix", "backend": backend()})), vec![]),
            (
                json!({}),
                vec!["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"],
            ),
            (
                path(json!({"path": "/a", "backend": backend()})),
                vec!["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"],
            ),
            (
                path(json!({"path": "a//b/..", "pathType": "Exact", "backend": {}})),
                vec![
                    "spec.rules[0].http.paths[0].path: Invalid value: \"a//b/..\": must be an absolute path",
                    "spec.rules[0].http.paths[0].path: Invalid value: \"a//b/..\": must not contain '//'",
                    "spec.rules[0].http.paths[0].path: Invalid value: \"a//b/..\": cannot end with '/..'",
                    "spec.rules[0].http.paths[0].backend: Invalid value: \"\": resource or service backend is required",
                ],
            ),
            (
                path(
                    json!({"pathType": "Odd", "backend": {"service": {"name": "1A", "port": {"name": "x", "number": 1}}}}),
                ),
                vec![
                    "spec.rules[0].http.paths[0].pathType: Unsupported value: \"Odd\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\"",
                    "spec.rules[0].http.paths[0].backend.service.name: Invalid value: \"1A\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
                    "spec.rules[0].http.paths[0].backend: Invalid value: \"\": cannot set both port name & port number",
                ],
            ),
            (
                json!({"rules": [{"host": "10.0.0.1"}], "tls": [{"hosts": ["*.a.b"], "secretName": "A"}]}),
                vec![
                    "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
                    "spec.tls[0].secretName: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                ],
            ),
        ];
        for (spec, expected) in cases {
            check(Ingresses.validate(&Object::from(json!({"spec": spec}))), &expected);
        }
    }

    #[test]
    fn what_was_there_passes() {
        let old = Object::from(json!({"spec": {"defaultBackend": backend(), "tls": [{"secretName": "A"}]}}));
        assert_eq!(Ingresses.validate(&old).len(), 1);
        check(Ingresses.validate_update(&old, &old), &[]);
    }

    #[test]
    fn three_hosts_are_shown() {
        let shown = |names: &[&str]| {
            let rules: Vec<Value> = names.iter().map(|host| json!({"host": host})).collect();
            hosts(&Object::from(json!({"spec": {"rules": rules}})))
        };
        assert_eq!(shown(&[]), "*");
        assert_eq!(shown(&["", "a", "b"]), "a,b");
        assert_eq!(shown(&["a", "b", "c"]), "a,b,c");
        assert_eq!(shown(&["a", "b", "c", "d", "e"]), "a,b,c + 2 more...");
        assert_eq!(shown(&["", "a", "b", "c", ""]), "a,b,c + 2 more...");
    }

    #[test]
    fn addresses_of_a_status_are_canonical() {
        let ingress = |ip: &str| Object::from(json!({"status": {"loadBalancer": {"ingress": [{"ip": ip}]}}}));
        let (old, new) = (ingress("10.0.0.010"), ingress("10.0.0.011"));
        check(Ingresses.validate_status_update(&old, &old), &[]);
        check(
            Ingresses.validate_status_update(&new, &old),
            &["status.loadBalancer.ingress[0].ip: Invalid value: \"10.0.0.011\": must not have leading 0s"],
        );
        assert_eq!(
            Ingresses.warnings_on_status_update(&old, &old),
            [
                "status.loadBalancer.ingress[0].ip: non-standard IP address \"10.0.0.010\" is invalid: use \"10.0.0.10\""
            ]
        );
    }

    #[test]
    fn annotations_and_class_agree() {
        let mut ingress = Object::from(json!({
            "metadata": {"annotations": {CLASS_ANNOTATION: "a"}},
            "spec": {"defaultBackend": backend(), "ingressClassName": "b"},
        }));
        check(
            Ingresses.validate(&ingress),
            &[
                "annotations.kubernetes.io/ingress.class: Invalid value: \"a\": must match `ingressClassName` when both are specified",
            ],
        );
        ingress.remove(&["spec", "ingressClassName"]);
        assert_eq!(Ingresses.warnings_on_create(&ingress).len(), 1);
    }
}
