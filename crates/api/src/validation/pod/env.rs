//! Environment variables and where their values come from.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};
use apimachinery::quantity;
use apimachinery::validation as names;

use crate::validation::at::At;
use crate::validation::sources;
use crate::validation::value::shown;

/// What an environment variable may hold of its pod.
const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// What the downward API knows of a pod at all.
const LABELS: [&str; 14] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];

const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

const BYTE_DIVISORS: [&str; 13] =
    ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

pub fn env(variables: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    for variable in variables.items() {
        errors.extend(variable_name(&variable.child("name")));
        if let Some(source) = variable.field("valueFrom") {
            errors.extend(value_from(&source, variable.text("value")));
        }
    }
    errors
}

/// A name or a key of a variable, which may not be missing.
fn variable_name(name: &At<'_>) -> ErrorList {
    if name.is_empty() { vec![name.required("")] } else { name.follows(names::is_relaxed_env_var_name) }
}

fn value_from(source: &At<'_>, value: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut sources = 0;
    let mut one = |key: &str, check: &dyn Fn(&At<'_>) -> ErrorList| {
        if let Some(reference) = source.field(key) {
            sources += 1;
            errors.extend(check(&reference));
        }
    };
    one("fieldRef", &|reference| field_ref(reference, &FIELDS));
    one("resourceFieldRef", &|reference| resource_field_ref(reference, false));
    one("configMapKeyRef", &key_ref);
    one("secretKeyRef", &key_ref);
    one("fileKeyRef", &file_key_ref);
    let why = match sources {
        0 => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        }
        _ if !value.is_empty() => "may not be specified when `value` is not empty",
        1 => return errors,
        _ => "may not have more than one field specified at a time",
    };
    errors.push(Error::invalid(&source.path, "", why));
    errors
}

/// A path with a key in it, as `metadata.labels['a']`: the path and the key.
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['").filter(|(path, _)| !path.is_empty())
}

/// A field of the pod; `allowed` are those that may be named without a key.
pub fn field_ref(reference: &At<'_>, allowed: &[&str]) -> ErrorList {
    for key in ["apiVersion", "fieldPath"] {
        if !reference.says(key) {
            return reference.child(key).must_be_set();
        }
    }
    let (version, at) = (reference.text("apiVersion"), reference.child("fieldPath"));
    let asked = at.str();
    let refuse = |why: String| vec![at.invalid(format!("error converting fieldPath: {why}"))];
    if version != "v1" {
        return refuse(format!("unsupported pod version: {version}"));
    }
    if let Some((field, key)) = subscript(asked) {
        let named = |key: &str| At::new(&Value::from(key), reference.path.clone()).qualified_name();
        return match field {
            "metadata.annotations" => named(&key.to_lowercase()),
            "metadata.labels" => named(key),
            _ => refuse(format!("field label does not support subscript: {asked}")),
        };
    }
    // an old name
    let name = if asked == "spec.host" { "spec.nodeName" } else { asked };
    if !LABELS.contains(&name) {
        return refuse(format!("field label not supported: {asked}"));
    }
    match allowed.contains(&name) {
        true => ErrorList::new(),
        false => vec![Error::not_supported(&at.path, name, allowed)],
    }
}

/// A resource of a container; volumes have to say of which.
pub fn resource_field_ref(reference: &At<'_>, volume: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let at = reference.child("resource");
    let resource = at.str();
    let huge_pages = ["requests.hugepages-", "limits.hugepages-"].iter().any(|p| resource.starts_with(p));
    if volume && !reference.says("containerName") {
        errors.push(reference.child("containerName").required(""));
    } else if resource.is_empty() {
        errors.push(at.required(""));
    } else if !RESOURCES.contains(&resource) && !huge_pages {
        errors.push(at.not_supported(&RESOURCES));
    }
    let divisor = reference.value.get("divisor").map(shown).unwrap_or_default();
    let divisor = quantity::canonical(&divisor).map(|text| text.into_owned()).unwrap_or_default();
    if matches!(divisor.as_str(), "" | "0") {
        return errors;
    }
    let kind = match resource.split_once('.').map_or("", |(_, name)| name) {
        "cpu" => "cpu",
        "memory" => "memory",
        "ephemeral-storage" => "local ephemeral storage",
        _ if huge_pages => "hugepages",
        _ => return errors,
    };
    let fine = match kind {
        "cpu" => matches!(divisor.as_str(), "1" | "1m"),
        _ => BYTE_DIVISORS.contains(&divisor.as_str()),
    };
    if !fine {
        let values = if kind == "cpu" { "1m and 1".to_owned() } else { BYTE_DIVISORS.join(", ") };
        let why = format!("only divisor's values {values} are supported with the {kind} resource");
        errors.push(Error::invalid(&reference.child("divisor").path, resource, why));
    }
    errors
}

/// A key of a ConfigMap or of a Secret.
fn key_ref(reference: &At<'_>) -> ErrorList {
    let mut errors = reference.child("name").subdomain();
    let key = reference.child("key");
    errors.extend(if key.is_empty() { key.must_be_set() } else { key.follows(names::is_config_map_key) });
    errors
}

/// A key of a file on a volume.
fn file_key_ref(reference: &At<'_>) -> ErrorList {
    let mut errors = variable_name(&reference.child("key"));
    let volume = reference.child("volumeName");
    errors.extend(if volume.is_empty() { volume.must_be_set() } else { volume.dns_label() });
    let file = reference.child("path");
    errors.extend(if file.is_empty() { file.must_be_set() } else { sources::no_backsteps(&file) });
    errors
}

pub fn env_from(list: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    for source in list.items() {
        let prefix = source.child("prefix");
        if !prefix.is_empty() {
            errors.extend(prefix.follows(names::is_relaxed_env_var_name));
        }
        for reference in ["configMapRef", "secretRef"].iter().filter_map(|key| source.field(key)) {
            let name = reference.child("name");
            if name.is_empty() {
                errors.push(name.required(""));
            } else {
                errors.extend(name.follows(|name| names::name_is_dns_subdomain(name, true)));
            }
        }
        // the whole list is named, not the entry
        let why = match (source.has("configMapRef"), source.has("secretRef")) {
            (false, false) => "must specify one of: `configMapRef` or `secretRef`",
            (true, true) => "may not have more than one field specified at a time",
            _ => continue,
        };
        errors.push(Error::invalid(&list.path, "", why));
    }
    errors
}

/// Files that variables are read from lie on `emptyDir` volumes of the pod.
pub fn file_volumes(spec: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    super::visit_containers(spec, &mut |container| {
        for variable in container.each("env") {
            let Some(reference) = variable.child("valueFrom").field("fileKeyRef") else { continue };
            let name = reference.child("volumeName");
            match spec.each("volumes").find(|volume| volume.text("name") == name.str()) {
                None => errors.push(name.not_found()),
                Some(volume) if !volume.has("emptyDir") => {
                    errors.push(name.invalid_text("referenced volume must be of type emptyDir"));
                }
                Some(_) => {}
            }
        }
    });
    errors
}
