//! Annotations of pods that mean something: mirror pods, deletion cost, and the forerunners of seccomp and
//! AppArmor fields.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::{scheduling, visit_containers};
use crate::validation::at::At;
use crate::validation::sources::local_path;

pub const MIRROR: &str = "kubernetes.io/config.mirror";
pub const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
pub const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
pub const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const TOLERATIONS: &str = "scheduler.alpha.kubernetes.io/tolerations";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// All annotations with their values.
fn annotations(meta: &Value) -> impl Iterator<Item = (&str, &str)> {
    let map = meta.get("annotations").and_then(Value::as_object);
    map.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
}

pub fn annotation<'a>(meta: &'a Value, key: &str) -> Option<&'a str> {
    meta.get("annotations")?.get(key)?.as_str()
}

/// Whether a pod says nothing that is no cost of its deletion.
pub fn deletion_cost_is_valid(meta: &Value) -> bool {
    let Some(cost) = annotation(meta, DELETION_COST) else { return true };
    let first = cost.as_bytes().first();
    let begins = match first {
        Some(b'-' | b'1'..=b'9') => true,
        Some(b'0') => cost == "0",
        _ => false,
    };
    begins && cost.parse::<i32>().is_ok()
}

/// The rules of a pod's annotations and of a template's, whose errors stand at `path`.
pub fn rules(meta: &Value, spec: &At<'_>, allow_invalid_deletion_cost: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(value) = annotation(meta, MIRROR)
        && !spec.says("nodeName")
    {
        let why = "must set spec.nodeName if mirror pod annotation is set";
        errors.push(Error::invalid(&path.key(MIRROR), value, why));
    }
    if let Some(tolerations) = annotation(meta, TOLERATIONS).filter(|text| !text.is_empty()) {
        match serde_json::from_str::<Vec<Value>>(tolerations) {
            Ok(list) => {
                let list = Value::Array(list);
                errors.extend(scheduling::tolerations(&At::new(&list, path.child(TOLERATIONS))));
            }
            Err(error) => errors.push(Error::invalid(path, TOLERATIONS, error.to_string())),
        }
    }
    if !allow_invalid_deletion_cost && !deletion_cost_is_valid(meta) {
        let cost = annotation(meta, DELETION_COST).unwrap_or_default();
        errors.push(Error::invalid(&path.key(DELETION_COST), cost, "must be a 32bit integer"));
    }
    if let Some(profile) = annotation(meta, SECCOMP_POD) {
        errors.extend(seccomp(profile, path.child(SECCOMP_POD)));
    }
    for (key, profile) in annotations(meta).filter(|(key, _)| key.starts_with(SECCOMP_CONTAINER)) {
        errors.extend(seccomp(profile, path.child(key)));
    }
    for (key, profile) in annotations(meta) {
        let Some(container) = key.strip_prefix(APP_ARMOR) else { continue };
        let mut known = false;
        visit_containers(spec, &mut |one| known |= one.text("name") == container);
        if !known {
            errors.push(Error::invalid(&path.key(key), container, "container not found"));
        }
        let fine = matches!(profile, "" | "runtime/default" | "unconfined");
        if !fine && !profile.starts_with("localhost/") {
            let why = format!("invalid AppArmor profile name: {profile:?}");
            errors.push(Error::invalid(&path.key(key), profile, why));
        }
    }
    errors
}

fn seccomp(profile: &str, path: Path) -> ErrorList {
    if matches!(profile, "runtime/default" | "docker/default" | "unconfined") {
        return ErrorList::new();
    }
    match profile.strip_prefix("localhost/") {
        Some(file) => local_path(&At::new(&Value::from(file), path)),
        None => vec![Error::invalid(&path, profile, "must be a valid seccomp profile")],
    }
}

/// What an update may not do to annotations.
pub fn update_rules(new: &Value, old: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (key, value) in annotations(old) {
        if annotation(new, key) == Some(value) {
            continue;
        }
        if key.starts_with(APP_ARMOR) {
            errors.push(Error::forbidden(&path.key(key), "may not remove or update AppArmor annotations"));
        }
        if key == MIRROR {
            let why = "may not remove or update mirror pod annotation";
            errors.push(Error::forbidden(&path.key(key), why));
        }
    }
    for (key, _) in annotations(new).filter(|(key, _)| annotation(old, key).is_none()) {
        if key.starts_with(APP_ARMOR) {
            errors.push(Error::forbidden(&path.key(key), "may not add AppArmor annotations"));
        }
        if key == MIRROR {
            errors.push(Error::forbidden(&path.key(key), "may not add mirror pod annotation"));
        }
    }
    errors
}

/// Where both the annotation and the field say something, they say the same.
pub fn match_fields(meta: &Value, spec: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    errors.extend(differ(&profile(spec, "seccompProfile"), annotation(meta, SECCOMP_POD), "seccomp"));
    visit_containers(spec, &mut |container| {
        let said = annotation(meta, &format!("{SECCOMP_CONTAINER}{}", container.text("name")));
        errors.extend(differ(&profile(&container, "seccompProfile"), said, "seccomp"));
    });
    if spec.child("os").text("name") == "windows" {
        return errors;
    }
    let of_pod = profile(spec, "appArmorProfile");
    visit_containers(spec, &mut |container| {
        let own = profile(&container, "appArmorProfile");
        let value = if own.is_set() { own.value } else { of_pod.value };
        let said = annotation(meta, &format!("{APP_ARMOR}{}", container.text("name")));
        errors.extend(differ(&At::new(value, own.path), said, "apparmor"));
    });
    errors
}

/// A profile in the security context of a pod or a container.
fn profile<'a>(owner: &At<'a>, key: &str) -> At<'a> {
    owner.child("securityContext").child(key)
}

fn differ(profile: &At<'_>, said: Option<&str>, what: &str) -> Option<Error> {
    let said = said.filter(|_| profile.is_set())?;
    let same = match profile.text("type") {
        "Unconfined" => said == "unconfined",
        "RuntimeDefault" => said == "runtime/default" || (what == "seccomp" && said == "docker/default"),
        "Localhost" => match said.strip_prefix("localhost/") {
            None => false,
            Some(file) if profile.optional("localhostProfile") == Some(file) => true,
            Some(_) => {
                let why = format!("{what} profile in annotation and field must match");
                return Some(profile.child("localhostProfile").forbidden(why));
            }
        },
        _ => true,
    };
    let why = format!("{what} type in annotation and field must match");
    (!same).then(|| profile.child("type").forbidden(why))
}
