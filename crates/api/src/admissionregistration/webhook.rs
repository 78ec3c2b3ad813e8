//! Webhook configurations, mutating and validating.

use apimachinery::field::{Error, ErrorList};
use apimachinery::validation as names;
use apimachinery::{Object, Value};

use super::matching::{self, FAILURE_POLICIES, MATCH_POLICIES};
use crate::core::defaults::{child, each, set};
use crate::strategy::Strategy;
use crate::validation::at::At;
use crate::validation::url::parse;

/// Versions of the review that some server before this one understood.
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const NO_SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const SELECTORS: [&str; 2] = ["namespaceSelector", "objectSelector"];
const SIDE_EFFECTS: [&str; 4] = ["None", "NoneOnDryRun", "Some", "Unknown"];

pub struct Webhooks {
    pub mutating: bool,
}

/// What an update lets pass because all of what was stored was like that.
#[derive(Clone, Copy, Default)]
struct Lenient {
    side_effects: bool,
    review_versions: bool,
    names: bool,
    conditions: bool,
    selector_values: bool,
}

impl Strategy for Webhooks {
    fn default(&self, object: &mut Object) {
        for hook in each(object.as_map_mut(), "webhooks") {
            set(hook, "failurePolicy", "Fail");
            matching::default_match(hook);
            set(hook, "timeoutSeconds", 10);
            if self.mutating {
                set(hook, "reinvocationPolicy", "Never");
            }
            matching::default_rules(hook, "rules");
            if let Some(service) = child(hook, "clientConfig").and_then(|config| child(config, "service")) {
                set(service, "port", 443);
            }
        }
    }

    fn prepare_for_create(&self, object: &mut Object) {
        object.set_generation(1);
    }

    fn prepare_for_update(&self, object: &mut Object, old: &Object) {
        let moved = object.get(&["webhooks"]) != old.get(&["webhooks"]);
        object.set_generation(old.generation() + i64::from(moved));
    }

    fn validate(&self, object: &Object) -> ErrorList {
        validate(&At::root(object).child("webhooks"), self.mutating, Lenient::default())
    }

    fn validate_update(&self, object: &Object, old: &Object) -> ErrorList {
        let new = At::root(object).child("webhooks");
        let root = At::root(old);
        let before: Vec<At<'_>> = root.each("webhooks").collect();
        let effects = |hook: &At<'_>| NO_SIDE_EFFECTS.contains(&hook.text("sideEffects"));
        let understood = |hook: &At<'_>| {
            let versions = hook.child("admissionReviewVersions");
            versions.is_empty() || versions.list().iter().any(is_known_review)
        };
        let names: Vec<&str> = before.iter().map(|hook| hook.text("name")).collect();
        let conditions = |hooks: &At<'_>| -> Vec<Value> {
            hooks.items().map(|hook| hook.child("matchConditions").value.clone()).collect()
        };
        let refused =
            |hook: &At<'_>| SELECTORS.iter().any(|key| !hook.child(key).label_selector().is_empty());
        let lenient = Lenient {
            side_effects: !before.iter().all(effects),
            review_versions: !before.iter().all(understood),
            names: names.iter().enumerate().any(|(index, name)| names[..index].contains(name)),
            conditions: conditions(&new) == conditions(&root.child("webhooks")),
            selector_values: before.iter().any(refused),
        };
        validate(&new, self.mutating, lenient)
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }
}

fn is_known_review(version: &Value) -> bool {
    REVIEW_VERSIONS.iter().any(|known| version == known)
}

fn validate(hooks: &At<'_>, mutating: bool, lenient: Lenient) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for hook in hooks.items() {
        errors.extend(self::hook(&hook, mutating, lenient));
        errors.extend(review_versions(&hook.child("admissionReviewVersions"), lenient));
        let name = hook.child("name");
        if !lenient.names && !name.is_empty() {
            if seen.contains(&name.str()) {
                errors.push(name.duplicate());
            }
            seen.push(name.str());
        }
    }
    errors
}

fn review_versions(versions: &At<'_>, lenient: Lenient) -> ErrorList {
    let known = REVIEW_VERSIONS.join(", ");
    if versions.is_empty() {
        return vec![versions.required(format!("must specify one of {known}"))];
    }
    let mut errors = ErrorList::new();
    for (index, version) in versions.items().enumerate() {
        if versions.list()[..index].contains(version.value) {
            errors.push(version.invalid("duplicate version"));
            continue;
        }
        errors.extend(version.wrong(names::is_dns1035_label(version.str())));
    }
    if !lenient.review_versions && !versions.list().iter().any(is_known_review) {
        errors.push(versions.invalid(format!("must include at least one of {known}")));
    }
    errors
}

fn hook(hook: &At<'_>, mutating: bool, lenient: Lenient) -> ErrorList {
    let mut errors = hook.child("name").fully_qualified_name();
    for rule in hook.each("rules") {
        errors.extend(matching::rule(&rule));
    }
    errors.extend(hook.child("failurePolicy").supported(&FAILURE_POLICIES));
    errors.extend(hook.child("matchPolicy").supported(&MATCH_POLICIES));
    let effects = hook.child("sideEffects");
    let allowed: &[&str] = if lenient.side_effects { &SIDE_EFFECTS } else { &NO_SIDE_EFFECTS };
    if effects.is_set() {
        errors.extend(effects.supported(allowed));
    } else {
        errors.push(effects.required(format!("must specify one of {}", allowed.join(", "))));
    }
    let timeout = hook.child("timeoutSeconds");
    if timeout.int().is_some_and(|seconds| !(1..=30).contains(&seconds)) {
        errors.push(timeout.invalid("the timeout value must be between 1 and 30 seconds"));
    }
    for key in SELECTORS {
        errors.extend(hook.child(key).label_selector_with(lenient.selector_values));
    }
    if mutating {
        errors.extend(hook.child("reinvocationPolicy").supported(&["IfNeeded", "Never"]));
    }
    errors.extend(client_config(&hook.child("clientConfig")));
    if !lenient.conditions {
        errors.extend(matching::match_conditions(&hook.child("matchConditions")));
    }
    errors
}

/// Where a webhook is reached: a URL or a Service.
pub fn client_config(config: &At<'_>) -> ErrorList {
    let (url, service) = (config.child("url"), config.child("service"));
    if url.is_set() == service.is_set() {
        return vec![config.required("exactly one of url or service is required")];
    }
    if url.is_set() { self::url(&url) } else { self::service(&service) }
}

fn url(at: &At<'_>) -> ErrorList {
    const FORM: &str = "; desired format: https://host[/path]";
    let url = match parse(at.str()) {
        Ok(url) => url,
        Err(why) => return vec![at.required(format!("url must be a valid URL: {why}{FORM}"))],
    };
    let mut errors = ErrorList::new();
    let mut refuse = |value: &str, why: String| errors.push(Error::invalid(&at.path, value, why));
    if url.scheme != "https" {
        refuse(&url.scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if url.host.is_empty() {
        refuse(url.host, format!("host must be specified{FORM}"));
    }
    if let Some(user) = url.user {
        refuse(user, "user information is not permitted in the URL".into());
    }
    if !url.fragment.is_empty() {
        refuse(url.fragment, "fragments are not permitted in the URL".into());
    }
    if !url.query.is_empty() {
        refuse(url.query, "query parameters are not permitted in the URL".into());
    }
    errors
}

/// Upstream takes the one for the other: a service without namespace lacks a name, and one without name a namespace.
fn service(service: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    for (key, shown) in [("namespace", "name"), ("name", "namespace")] {
        if service.child(key).is_empty() {
            errors.push(Error::required(&service.path.child(shown), ""));
        }
    }
    let port = service.child("port");
    let wrong = names::is_valid_port_num(port.int().unwrap_or_default());
    if !wrong.is_empty() {
        let number = port.int().unwrap_or_default();
        let why = format!("port is not valid: {}", wrong.join(", "));
        errors.push(Error::invalid(&port.path, number, why));
    }
    errors.extend(service_path(&service.child("path")));
    errors
}

fn service_path(path: &At<'_>) -> ErrorList {
    let text = path.str();
    if text.is_empty() || text == "/" {
        return ErrorList::new();
    }
    if text == "//" {
        return vec![path.invalid("segment[0] may not be empty")];
    }
    let mut errors = ErrorList::new();
    if !text.starts_with('/') {
        errors.push(path.invalid("must start with a '/'"));
    }
    let mut chars = text.chars();
    chars.next();
    let rest = chars.as_str();
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    for (index, step) in rest.split('/').enumerate() {
        if step.is_empty() {
            errors.push(path.invalid(format!("segment[{index}] may not be empty")));
            continue;
        }
        let wrong = names::is_dns1123_subdomain(step);
        errors.extend(wrong.into_iter().map(|why| path.invalid(format!("segment[{index}]: {why}"))));
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::forms::check;

    const HOOKS: Webhooks = Webhooks { mutating: true };

    fn configuration(hook: Value) -> Object {
        let mut whole = json!({
            "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"namespace": "n", "name": "s"}},
        });
        for (key, value) in hook.as_object().into_iter().flatten() {
            whole[key] = value.clone();
        }
        let mut object = Object::from(json!({"webhooks": [whole]}));
        HOOKS.default(&mut object);
        object
    }

    #[test]
    fn what_is_wrong_with_a_webhook() {
        let cases: Vec<(Value, Vec<&str>)> = vec![
            (json!({}), vec![]),
            (
                json!({"name": "a.b", "failurePolicy": "Odd", "timeoutSeconds": 31, "reinvocationPolicy": "Odd"}),
                vec![
                    "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
                    "webhooks[0].failurePolicy: Unsupported value: \"Odd\": supported values: \"Fail\", \"Ignore\"",
                    "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
                    "webhooks[0].reinvocationPolicy: Unsupported value: \"Odd\": supported values: \"IfNeeded\", \"Never\"",
                ],
            ),
            (
                json!({"sideEffects": "Some", "admissionReviewVersions": ["v2", "v2"]}),
                vec![
                    "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
                    "webhooks[0].admissionReviewVersions[1]: Invalid value: \"v2\": duplicate version",
                    "webhooks[0].admissionReviewVersions: Invalid value: [\"v2\",\"v2\"]: must include at least one of v1, v1beta1",
                ],
            ),
            (
                json!({"clientConfig": {}}),
                vec!["webhooks[0].clientConfig: Required value: exactly one of url or service is required"],
            ),
            (
                json!({"clientConfig": {"url": "http://me@host?q#f"}}),
                vec![
                    "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
                    "webhooks[0].clientConfig.url: Invalid value: \"me\": user information is not permitted in the URL",
                    "webhooks[0].clientConfig.url: Invalid value: \"f\": fragments are not permitted in the URL",
                    "webhooks[0].clientConfig.url: Invalid value: \"q\": query parameters are not permitted in the URL",
                ],
            ),
            (
                json!({"clientConfig": {"url": "https://host:port"}}),
                vec![
                    "webhooks[0].clientConfig.url: Required value: url must be a valid URL: parse \"https://host:port\": invalid port \":port\" after host; desired format: https://host[/path]",
                ],
            ),
            (
                json!({"clientConfig": {"service": {"name": "s"}}}),
                vec!["webhooks[0].clientConfig.service.name: Required value"],
            ),
            (
                json!({"clientConfig": {"service": {"namespace": "n", "name": "s", "path": "a//b", "port": 70000}}}),
                vec![
                    "webhooks[0].clientConfig.service.port: Invalid value: 70000: port is not valid: must be between 1 and 65535, inclusive",
                    "webhooks[0].clientConfig.service.path: Invalid value: \"a//b\": must start with a '/'",
                    "webhooks[0].clientConfig.service.path: Invalid value: \"a//b\": segment[0] may not be empty",
                    "webhooks[0].clientConfig.service.path: Invalid value: \"a//b\": segment[1] may not be empty",
                ],
            ),
        ];
        for (hook, expected) in cases {
            check(HOOKS.validate(&configuration(hook)), &expected);
        }
    }

    #[test]
    fn what_was_stored_passes() {
        let selector =
            json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["not a value"]}]});
        let old = configuration(
            json!({"sideEffects": "Unknown", "admissionReviewVersions": ["v2"], "objectSelector": selector}),
        );
        assert_eq!(HOOKS.validate(&old).len(), 3);
        check(HOOKS.validate_update(&old, &old), &[]);
        let mut new = old.clone();
        new.set(&["metadata", "labels"], json!({"a": "b"}));
        new.set_generation(3);
        HOOKS.prepare_for_update(&mut new, &old);
        assert_eq!(new.generation(), old.generation());
    }
}
