//! Environment variables and where their values come from.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::quantity;
use apimachinery::validation as names;

use crate::validation::sources;
use crate::validation::value::{field, has, invalid, list, shown, text};

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

pub fn env(variables: &[Value], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, variable) in variables.iter().enumerate() {
        let at = path.index(index);
        match text(variable, "name") {
            "" => errors.push(Error::required(&at.child("name"), "")),
            name => errors.extend(invalid(&at.child("name"), name, names::is_relaxed_env_var_name(name))),
        }
        if let Some(source) = field(variable, "valueFrom") {
            errors.extend(value_from(source, text(variable, "value"), &at.child("valueFrom")));
        }
    }
    errors
}

fn value_from(source: &Value, value: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut sources = 0;
    let mut one = |key: &str, check: &dyn Fn(&Value, &Path) -> ErrorList| {
        if let Some(reference) = field(source, key) {
            sources += 1;
            errors.extend(check(reference, &path.child(key)));
        }
    };
    one("fieldRef", &|reference, at| field_ref(reference, &FIELDS, at));
    one("resourceFieldRef", &|reference, at| resource_field_ref(reference, false, at));
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
    errors.push(Error::invalid(path, "", why));
    errors
}

/// A path with a key in it, as `metadata.labels['a']`: the path and the key.
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['").filter(|(path, _)| !path.is_empty())
}

/// A field of the pod; `allowed` are those that may be named without a key.
pub fn field_ref(reference: &Value, allowed: &[&str], path: &Path) -> ErrorList {
    for key in ["apiVersion", "fieldPath"] {
        if text(reference, key).is_empty() {
            return vec![Error::required(&path.child(key), "")];
        }
    }
    let (version, asked) = (text(reference, "apiVersion"), text(reference, "fieldPath"));
    let at = path.child("fieldPath");
    let refuse = |why: String| vec![Error::invalid(&at, asked, format!("error converting fieldPath: {why}"))];
    if version != "v1" {
        return refuse(format!("unsupported pod version: {version}"));
    }
    if let Some((field, key)) = subscript(asked) {
        return match field {
            "metadata.annotations" => {
                invalid(path, key.to_lowercase(), names::is_qualified_name(&key.to_lowercase()))
            }
            "metadata.labels" => invalid(path, key, names::is_qualified_name(key)),
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
        false => vec![Error::not_supported(&at, name, allowed)],
    }
}

/// A resource of a container; volumes have to say of which.
pub fn resource_field_ref(reference: &Value, volume: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let resource = text(reference, "resource");
    let huge_pages = ["requests.hugepages-", "limits.hugepages-"].iter().any(|p| resource.starts_with(p));
    if volume && text(reference, "containerName").is_empty() {
        errors.push(Error::required(&path.child("containerName"), ""));
    } else if resource.is_empty() {
        errors.push(Error::required(&path.child("resource"), ""));
    } else if !RESOURCES.contains(&resource) && !huge_pages {
        errors.push(Error::not_supported(&path.child("resource"), resource, &RESOURCES));
    }
    let divisor = reference.get("divisor").map(shown).unwrap_or_default();
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
        errors.push(Error::invalid(&path.child("divisor"), resource, why));
    }
    errors
}

/// A key of a ConfigMap or of a Secret.
fn key_ref(reference: &Value, path: &Path) -> ErrorList {
    let (name, key) = (text(reference, "name"), text(reference, "key"));
    let mut errors = invalid(&path.child("name"), name, names::name_is_dns_subdomain(name, false));
    match key {
        "" => errors.push(Error::required(&path.child("key"), "")),
        key => errors.extend(invalid(&path.child("key"), key, names::is_config_map_key(key))),
    }
    errors
}

/// A key of a file on a volume.
fn file_key_ref(reference: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let (volume, file, key) =
        (text(reference, "volumeName"), text(reference, "path"), text(reference, "key"));
    match key {
        "" => errors.push(Error::required(&path.child("key"), "")),
        key => errors.extend(invalid(&path.child("key"), key, names::is_relaxed_env_var_name(key))),
    }
    match volume {
        "" => errors.push(Error::required(&path.child("volumeName"), "")),
        volume => errors.extend(invalid(&path.child("volumeName"), volume, names::is_dns1123_label(volume))),
    }
    match file {
        "" => errors.push(Error::required(&path.child("path"), "")),
        file => errors.extend(sources::local_non_reserved_path(file, &path.child("path"))),
    }
    errors
}

pub fn env_from(sources: &[Value], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, source) in sources.iter().enumerate() {
        let at = path.index(index);
        let prefix = text(source, "prefix");
        if !prefix.is_empty() {
            errors.extend(invalid(&at.child("prefix"), prefix, names::is_relaxed_env_var_name(prefix)));
        }
        for key in ["configMapRef", "secretRef"] {
            let Some(reference) = field(source, key) else { continue };
            let at = at.child(key).child("name");
            match text(reference, "name") {
                "" => errors.push(Error::required(&at, "")),
                name => errors.extend(invalid(&at, name, names::name_is_dns_subdomain(name, true))),
            }
        }
        // the whole list is named, not the entry
        match (has(source, "configMapRef"), has(source, "secretRef")) {
            (false, false) => {
                let why = "must specify one of: `configMapRef` or `secretRef`";
                errors.push(Error::invalid(path, "", why));
            }
            (true, true) => {
                let why = "may not have more than one field specified at a time";
                errors.push(Error::invalid(path, "", why));
            }
            _ => {}
        }
    }
    errors
}

/// Files that variables are read from lie on `emptyDir` volumes of the pod.
pub fn file_volumes(spec: &Value, volumes: &[(&str, &Value)], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    super::visit_containers(spec, path, &mut |container, at| {
        for (index, variable) in list(container, "env").iter().enumerate() {
            let Some(reference) = variable.pointer("/valueFrom/fileKeyRef") else { continue };
            let name = text(reference, "volumeName");
            let at = at.child("env").index(index).child("valueFrom").child("fileKeyRef").child("volumeName");
            match volumes.iter().find(|(volume, _)| *volume == name) {
                None => errors.push(Error::not_found(&at, name)),
                Some((_, volume)) if !has(volume, "emptyDir") => {
                    errors.push(Error::invalid(&at, name, "referenced volume must be of type emptyDir"));
                }
                Some(_) => {}
            }
        }
    });
    errors
}
