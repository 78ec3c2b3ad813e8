//! The volumes of a pod: one source each, and what a projection puts together.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;

use super::Options;
use super::env::{field_ref, resource_field_ref};
use crate::validation::claim;
use crate::validation::sources;
use crate::validation::value::{field, has, int, invalid, list, one_of, optional, quantity, require, text};

/// What the check of one source may look at.
struct Volume<'a> {
    name: &'a str,
    pod: &'a str,
    options: &'a Options,
}

type Check = fn(&Value, &Path, &Volume<'_>) -> ErrorList;

/// The sources in the order in which they are looked at: key, the path of the refusal of a second source where
/// it is not the key, the path of the source itself where it is not the key, and the rules.
const SOURCES: [(&str, &str, &str, Check); 29] = [
    ("hostPath", "", "", |s, p, _| sources::host_path(s, p)),
    ("gitRepo", "", "", |s, p, _| sources::git_repo(s, p)),
    ("gcePersistentDisk", "", "persistentDisk", |s, p, _| sources::gce_persistent_disk(s, p)),
    ("awsElasticBlockStore", "", "", |s, p, _| sources::aws_elastic_block_store(s, p)),
    ("secret", "", "", |s, p, _| sources::secret(s, p)),
    ("nfs", "", "", |s, p, _| sources::nfs(s, p)),
    ("iscsi", "", "", |s, p, volume| sources::iscsi(s, volume.name, true, p)),
    ("glusterfs", "", "", |s, p, _| sources::glusterfs(s, p)),
    ("flocker", "", "", |s, p, _| sources::flocker(s, p)),
    ("persistentVolumeClaim", "", "", |s, p, _| sources::persistent_volume_claim(s, p)),
    ("rbd", "", "", |s, p, _| sources::rbd(s, p)),
    ("cinder", "", "", |s, p, _| sources::cinder(s, p)),
    ("cephfs", "cephFS", "", |s, p, _| sources::ceph_fs(s, p)),
    ("quobyte", "", "", |s, p, _| sources::quobyte(s, p)),
    ("downwardAPI", "downwarAPI", "", |s, p, _| downward_api(s, p)),
    ("fc", "", "", |s, p, _| sources::fc(s, p)),
    ("flexVolume", "", "", |s, p, _| sources::flex_volume(s, p)),
    ("configMap", "", "", |s, p, _| sources::config_map(s, p)),
    ("azureFile", "", "", |s, p, _| sources::azure_file(s, p)),
    ("vsphereVolume", "", "", |s, p, _| sources::vsphere_volume(s, p)),
    ("photonPersistentDisk", "", "", |s, p, _| sources::photon_persistent_disk(s, p)),
    ("portworxVolume", "", "", |s, p, _| sources::portworx_volume(s, p)),
    ("azureDisk", "", "", |s, p, _| sources::azure_disk(s, p)),
    ("storageos", "", "", |s, p, _| sources::storage_os(s, p)),
    ("projected", "", "", |s, p, volume| projected(s, p, volume.options)),
    ("scaleIO", "", "", |s, p, _| sources::scale_io(s, p)),
    ("csi", "", "", |s, p, _| sources::csi(s, p)),
    ("ephemeral", "", "", ephemeral),
    ("image", "", "", |s, p, volume| image(s, p, volume.options)),
];

/// Checks volumes and gives back those that are well-formed, by name. `pod` is empty for templates.
pub fn volumes<'a>(
    volumes: &'a [Value],
    pod: &str,
    path: &Path,
    options: &Options,
    errors: &mut ErrorList,
) -> Vec<(&'a str, &'a Value)> {
    let mut known: Vec<(&str, &Value)> = Vec::new();
    let made_for_pod = |claim: &str| {
        !pod.is_empty()
            && volumes
                .iter()
                .any(|volume| has(volume, "ephemeral") && claim == format!("{pod}-{}", text(volume, "name")))
    };
    for (index, volume) in volumes.iter().enumerate() {
        let at = path.index(index);
        let name = text(volume, "name");
        let mut wrong = source(volume, &at, &Volume { name, pod, options });
        if name.is_empty() {
            wrong.push(Error::required(&at.child("name"), ""));
        } else {
            wrong.extend(invalid(&at.child("name"), name, names::is_dns1123_label(name)));
        }
        if known.iter().any(|(other, _)| *other == name) {
            wrong.push(Error::duplicate(&at.child("name"), name));
        }
        if wrong.is_empty() {
            known.push((name, volume));
        }
        errors.extend(wrong);
        let claim = volume.pointer("/persistentVolumeClaim/claimName").and_then(Value::as_str);
        if let Some(claim) = claim.filter(|claim| made_for_pod(claim)) {
            let at = at.child("persistentVolumeClaim").child("claimName");
            let why = "must not reference a PVC that gets created for an ephemeral volume";
            errors.push(Error::invalid(&at, claim, why));
        }
    }
    known
}

fn source(volume: &Value, path: &Path, context: &Volume<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut found = false;
    if let Some(empty) = field(volume, "emptyDir") {
        found = true;
        if empty.get("sizeLimit").and_then(quantity).is_some_and(|limit| limit.signum() < 0) {
            let at = path.child("emptyDir").child("sizeLimit");
            errors.push(Error::forbidden(&at, "SizeLimit field must be a valid resource quantity"));
        }
    }
    for (key, second, own, check) in SOURCES {
        let Some(source) = field(volume, key) else { continue };
        let or = |other: &str| path.child(if other.is_empty() { key } else { other });
        if found {
            errors.push(Error::forbidden(&or(second), "may not specify more than 1 volume type"));
        } else {
            errors.extend(check(source, &or(own), context));
        }
        found = true;
    }
    if !found {
        errors.push(Error::required(path, "must specify a volume type"));
    }
    errors
}

fn downward_api(source: &Value, path: &Path) -> ErrorList {
    let mut errors = sources::mode(source, "defaultMode", path);
    errors.extend(list(source, "items").iter().flat_map(|file| downward_api_file(file, path)));
    errors
}

fn downward_api_file(file: &Value, path: &Path) -> ErrorList {
    const FIELDS: [&str; 5] =
        ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
    let mut errors = require(file, "path", path);
    errors.extend(sources::local_non_reserved_path(text(file, "path"), &path.child("path")));
    match (field(file, "fieldRef"), field(file, "resourceFieldRef")) {
        (Some(reference), other) => {
            errors.extend(field_ref(reference, &FIELDS, &path.child("fieldRef")));
            if other.is_some() {
                let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(Error::invalid(path, "resource", why));
            }
        }
        (None, Some(reference)) => {
            errors.extend(resource_field_ref(reference, true, &path.child("resourceFieldRef")));
        }
        (None, None) => {
            errors.push(Error::required(path, "one of fieldRef and resourceFieldRef is required"));
        }
    }
    errors.extend(sources::mode(file, "mode", path));
    errors
}

fn projected(source: &Value, path: &Path, options: &Options) -> ErrorList {
    let mut errors = sources::mode(source, "defaultMode", path);
    let mut files: Vec<&str> = Vec::new();
    for (index, source) in list(source, "sources").iter().enumerate() {
        let at = path.child("sources").index(index);
        for key in ["secret", "configMap"] {
            let Some(one) = field(source, key) else { continue };
            let at = at.child(key);
            errors.extend(require(one, "name", &at));
            for (index, item) in list(one, "items").iter().enumerate() {
                errors.extend(sources::key_to_path(item, &at.child("items").index(index)));
                if !text(item, "path").is_empty() {
                    errors.extend(take(text(item, "path"), text(one, "name"), path, &mut files));
                }
            }
        }
        if let Some(one) = field(source, "downwardAPI") {
            for file in list(one, "items") {
                errors.extend(downward_api_file(file, &at.child("downwardAPI")));
                let target = text(file, "path");
                if !target.is_empty() {
                    errors.extend(take(target, target, path, &mut files));
                }
            }
        }
        if let Some(token) = field(source, "serviceAccountToken") {
            errors.extend(service_account_token(token, &at.child("serviceAccountToken"), path, options));
        }
        let count = ["secret", "configMap", "downwardAPI", "serviceAccountToken"]
            .iter()
            .filter(|key| has(source, key))
            .count();
        if count > 1 {
            errors.push(Error::forbidden(&at, "may not specify more than 1 volume type per source"));
        }
    }
    errors
}

/// Notes that a projection makes a file; an error, showing `shown`, if another one makes it already.
fn take<'a>(file: &'a str, shown: &str, path: &Path, files: &mut Vec<&'a str>) -> Option<Error> {
    if files.contains(&file) {
        return Some(Error::invalid(path, shown, "conflicting duplicate paths"));
    }
    files.push(file);
    None
}

fn service_account_token(token: &Value, path: &Path, projected: &Path, options: &Options) -> ErrorList {
    let mut errors = ErrorList::new();
    let seconds = int(token, "expirationSeconds").unwrap_or_default();
    let at = path.child("expirationSeconds");
    if seconds < 10 * 60 {
        errors.push(Error::invalid(&at, seconds, "may not specify a duration less than 10 minutes"));
    }
    if seconds > 1 << 32 {
        errors.push(Error::invalid(&at, seconds, "may not specify a duration larger than 2^32 seconds"));
    }
    let at = projected.child("path");
    match text(token, "path") {
        "" => errors.push(Error::required(&at, "")),
        _ if options.allow_non_local_token_path => {}
        target => errors.extend(sources::local_non_reserved_path(target, &at)),
    }
    errors
}

fn ephemeral(source: &Value, path: &Path, volume: &Volume<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let at = path.child("volumeClaimTemplate");
    match field(source, "volumeClaimTemplate") {
        None => errors.push(Error::required(&at, "")),
        Some(template) => errors.extend(claim::template(template, &at)),
    }
    if !volume.pod.is_empty() && !volume.name.is_empty() {
        let claim = format!("{}-{}", volume.pod, volume.name);
        for message in names::name_is_dns_subdomain(&claim, false) {
            let parent = path.as_str().strip_suffix(".ephemeral").unwrap_or(path.as_str());
            let why = format!("PVC name {claim:?}: {message}");
            errors.push(Error::invalid(&Path::new(parent).child("name"), volume.name, why));
        }
    }
    errors
}

fn image(source: &Value, path: &Path, options: &Options) -> ErrorList {
    let mut errors = ErrorList::new();
    if options.is_pod {
        errors.extend(require(source, "reference", path));
    }
    errors.extend(pull_policy(optional(source, "pullPolicy").unwrap_or_default(), &path.child("pullPolicy")));
    errors
}

pub fn pull_policy(policy: &str, path: &Path) -> ErrorList {
    one_of(policy, &["Always", "IfNotPresent", "Never"], path)
}
