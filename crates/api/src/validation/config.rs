//! ConfigMaps, Secrets, leases, priority classes.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;
use apimachinery::{Object, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::invalid;

/// 1 MiB of values.
const MAX_DATA: usize = 1024 * 1024;

/// Keys of one map of a ConfigMap or Secret, and the size of its values.
fn data(object: &Object, key: &str, encoded: bool, errors: &mut ErrorList) -> usize {
    let path = Path::new(key);
    let mut size = 0;
    for (name, value) in object.get(&[key]).and_then(Value::as_object).into_iter().flatten() {
        errors.extend(invalid(&path.key(name), name.as_str(), names::is_config_map_key(name)));
        let text = value.as_str().unwrap_or_default();
        size += if encoded { text.trim_end_matches('=').len() * 3 / 4 } else { text.len() };
    }
    size
}

pub fn config_map(map: &Object) -> ErrorList {
    let mut errors = ErrorList::new();
    let size = data(map, "data", false, &mut errors) + data(map, "binaryData", true, &mut errors);
    for key in map.get(&["data"]).and_then(Value::as_object).into_iter().flatten().map(|(key, _)| key) {
        if map.get(&["binaryData", key]).is_some() {
            let path = Path::new("data").key(key);
            errors.push(Error::invalid(&path, key.as_str(), "duplicate of key present in binaryData"));
        }
    }
    if size > MAX_DATA {
        // an error of the whole object, as upstream writes its path
        errors.push(Error::too_long(&Path::new("[]"), MAX_DATA));
    }
    errors
}

/// What both kinds refuse once they are marked immutable.
fn frozen(new: &Object, old: &Object, fields: &[&str]) -> ErrorList {
    let mut errors = ErrorList::new();
    if !old.get_bool(&["immutable"]) {
        return errors;
    }
    if !new.get_bool(&["immutable"]) {
        errors.push(Error::forbidden(&Path::new("immutable"), "field is immutable when `immutable` is set"));
    }
    for field in fields {
        if new.get(&[field]) != old.get(&[field]) {
            errors.push(Error::forbidden(&Path::new(*field), "field is immutable when `immutable` is set"));
        }
    }
    errors
}

pub fn config_map_update(map: &Object, old: &Object) -> ErrorList {
    let mut errors = frozen(map, old, &["data", "binaryData"]);
    errors.extend(config_map(map));
    errors
}

pub fn secret(secret: &Object) -> ErrorList {
    let mut errors = ErrorList::new();
    let size = data(secret, "data", true, &mut errors);
    if size > MAX_DATA {
        errors.push(Error::too_long(&Path::new("data"), MAX_DATA));
    }
    let data = Path::new("data");
    let has = |key: &str| secret.get(&["data", key]).is_some();
    let mut require = |key: &str| {
        if !has(key) {
            errors.push(Error::required(&data.key(key), ""));
        }
    };
    match secret.get_str(&["type"]) {
        "kubernetes.io/service-account-token"
            if secret.annotation("kubernetes.io/service-account.name").unwrap_or_default().is_empty() =>
        {
            let path = Path::new("metadata").child("annotations");
            errors.push(Error::required(&path.key("kubernetes.io/service-account.name"), ""));
        }
        "kubernetes.io/dockercfg" => docker_config(secret, ".dockercfg", &mut errors),
        "kubernetes.io/dockerconfigjson" => docker_config(secret, ".dockerconfigjson", &mut errors),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            errors.push(Error::required(&data.key("username"), ""));
            errors.push(Error::required(&data.key("password"), ""));
        }
        "kubernetes.io/ssh-auth" if secret.get_str(&["data", "ssh-privatekey"]).is_empty() => {
            errors.push(Error::required(&data.key("ssh-privatekey"), ""));
        }
        "kubernetes.io/tls" => {
            require("tls.crt");
            require("tls.key");
        }
        _ => {}
    }
    errors
}

fn docker_config(secret: &Object, key: &str, errors: &mut ErrorList) {
    let path = Path::new("data").key(key);
    let Some(text) = secret.get(&["data", key]).and_then(Value::as_str) else {
        errors.push(Error::required(&path, ""));
        return;
    };
    let parsed =
        BASE64.decode(text).map(|bytes| serde_json::from_slice::<Value>(&bytes).map_err(|e| (e, bytes)));
    let why = match parsed {
        Ok(Ok(Value::Object(_) | Value::Null)) => return,
        Ok(Ok(other)) => format!(
            "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            kind_of(&other)
        ),
        Ok(Err((error, bytes))) if !error.is_eof() => {
            let line = bytes.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1));
            let byte = line.and_then(|line| line.get(error.column().saturating_sub(1))).copied();
            let shown = char::from(byte.unwrap_or(b' '));
            format!("invalid character '{shown}' looking for beginning of value")
        }
        _ => "unexpected end of JSON input".to_owned(),
    };
    errors.push(Error::invalid(&path, "<secret contents redacted>", why));
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Object(_) | Value::Null => "object",
    }
}

pub fn secret_update(new: &Object, old: &Object) -> ErrorList {
    let mut errors = super::immutable(&Path::new("type"), new, old, &["type"]);
    errors.extend(frozen(new, old, &["data"]));
    errors.extend(secret(new));
    errors
}

pub fn lease(lease: &Object) -> ErrorList {
    let spec = Path::new("spec");
    let mut errors = ErrorList::new();
    if let Some(seconds) = lease.get_i64(&["spec", "leaseDurationSeconds"]).filter(|seconds| *seconds <= 0) {
        errors.push(Error::invalid(&spec.child("leaseDurationSeconds"), seconds, "must be greater than 0"));
    }
    let transitions = lease.get_i64(&["spec", "leaseTransitions"]);
    errors.extend(super::non_negative(&spec.child("leaseTransitions"), transitions));
    errors
}

const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;
const SYSTEM_CLASSES: [(&str, i64); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

pub fn priority_class(class: &Object) -> ErrorList {
    let mut errors = ErrorList::new();
    let name = class.name();
    let value = class.get_i64(&["value"]).unwrap_or_default();
    if name.starts_with("system-") {
        let known = SYSTEM_CLASSES.iter().any(|(known, number)| *known == name && *number == value);
        if !known {
            let why = "priority class names with 'system-' prefix are reserved for system use only. error: ";
            let detail = match SYSTEM_CLASSES.iter().find(|(known, _)| *known == name) {
                Some((_, number)) => format!("{why}value of {name} PriorityClass must be {number}"),
                None => format!("{why}{name} is not a known system priority class"),
            };
            errors.push(Error::forbidden(&Path::new("metadata").child("name"), detail));
        }
    } else if value > HIGHEST_USER_PRIORITY {
        let why = format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}");
        errors.push(Error::forbidden(&Path::new("value"), why));
    }
    let policy = class.get_str(&["preemptionPolicy"]);
    if !matches!(policy, "" | "Never" | "PreemptLowerPriority") {
        let valid = ["Never", "PreemptLowerPriority"];
        errors.push(Error::not_supported(&Path::new("preemptionPolicy"), policy, &valid));
    }
    errors
}

pub fn priority_class_update(class: &Object, old: &Object) -> ErrorList {
    let mut errors = ErrorList::new();
    if class.get_i64(&["value"]) != old.get_i64(&["value"]) {
        errors.push(Error::forbidden(&Path::new("value"), "may not be changed in an update."));
    }
    errors.extend(super::immutable(&Path::new("preemptionPolicy"), class, old, &["preemptionPolicy"]));
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(errors: ErrorList, expected: &[&str]) {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts, expected);
    }

    #[test]
    fn a_tls_secret_needs_both_halves() {
        let object = Object::from(json!({"type": "kubernetes.io/tls", "data": {"tls.crt": "AA=="}}));
        check(secret(&object), &["data[tls.key]: Required value"]);
    }

    #[test]
    fn an_immutable_map_stays() {
        let old = Object::from(json!({"immutable": true, "data": {"a": "1"}}));
        let new = Object::from(json!({"immutable": true, "data": {"a": "2"}}));
        check(
            config_map_update(&new, &old),
            &["data: Forbidden: field is immutable when `immutable` is set"],
        );
        check(config_map_update(&old, &old), &[]);
    }

    #[test]
    fn system_priorities_are_the_systems() {
        let class = |name: &str, value: i64| {
            let mut class = Object::default();
            class.set_name(name);
            class.set(&["value"], value);
            priority_class(&class).len()
        };
        let cases = [
            ("high", 1_000_000_000, 0),
            ("high", 1_000_000_001, 1),
            ("system-x", 1, 1),
            ("system-node-critical", 2_000_001_000, 0),
        ];
        for (name, value, errors) in cases {
            assert_eq!(class(name, value), errors, "{name} {value}");
        }
    }
}
