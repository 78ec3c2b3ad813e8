//! ConfigMaps and Secrets.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;
use apimachinery::{Object, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::at::At;
use super::forms::unchanged;

/// 1 MiB of values.
const MAX_DATA: usize = 1024 * 1024;

/// Keys of one map of a ConfigMap or Secret, and the size of its values.
fn data(object: &Object, key: &str, encoded: bool, errors: &mut ErrorList) -> usize {
    let mut size = 0;
    for (name, entry) in At::of(object, &[key]).entries() {
        let wrong = names::is_config_map_key(name);
        errors.extend(wrong.into_iter().map(|why| Error::invalid(&entry.path, name, why)));
        let text = entry.str();
        size += if encoded { text.trim_end_matches('=').len() * 3 / 4 } else { text.len() };
    }
    size
}

pub fn config_map(map: &Object) -> ErrorList {
    let mut errors = ErrorList::new();
    let size = data(map, "data", false, &mut errors) + data(map, "binaryData", true, &mut errors);
    for (key, entry) in At::of(map, &["data"]).entries() {
        if map.get(&["binaryData", key]).is_some() {
            errors.push(Error::invalid(&entry.path, key, "duplicate of key present in binaryData"));
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
    let mut errors = unchanged(&At::of(new, &["type"]), &At::of(old, &["type"]));
    errors.extend(frozen(new, old, &["data"]));
    errors.extend(secret(new));
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
}
