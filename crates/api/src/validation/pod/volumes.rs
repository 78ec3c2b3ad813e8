//! The volumes of a pod: one source each, and what a projection puts together.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;

use super::Options;
use super::env::{field_ref, resource_field_ref};
use crate::validation::at::At;
use crate::validation::claim;
use crate::validation::sources;

/// What the check of one source may look at.
struct Volume<'a> {
    name: &'a str,
    pod: &'a str,
    options: &'a Options,
}

type Check = fn(&At<'_>, &Volume<'_>) -> ErrorList;

/// The sources in the order in which they are looked at: key, the path of the refusal of a second source where
/// it is not the key, the path of the source itself where it is not the key, and the rules.
const SOURCES: [(&str, &str, &str, Check); 29] = [
    ("hostPath", "", "", |s, _| sources::host_path(s)),
    ("gitRepo", "", "", |s, _| sources::git_repo(s)),
    ("gcePersistentDisk", "", "persistentDisk", |s, _| sources::gce_persistent_disk(s)),
    ("awsElasticBlockStore", "", "", |s, _| sources::aws_elastic_block_store(s)),
    ("secret", "", "", |s, _| sources::secret(s)),
    ("nfs", "", "", |s, _| sources::nfs(s)),
    ("iscsi", "", "", |s, volume| sources::iscsi(s, volume.name, true)),
    ("glusterfs", "", "", |s, _| sources::glusterfs(s)),
    ("flocker", "", "", |s, _| sources::flocker(s)),
    ("persistentVolumeClaim", "", "", |s, _| sources::persistent_volume_claim(s)),
    ("rbd", "", "", |s, _| sources::rbd(s)),
    ("cinder", "", "", |s, _| sources::cinder(s)),
    ("cephfs", "cephFS", "", |s, _| sources::ceph_fs(s)),
    ("quobyte", "", "", |s, _| sources::quobyte(s)),
    ("downwardAPI", "downwarAPI", "", |s, _| downward_api(s)),
    ("fc", "", "", |s, _| sources::fc(s)),
    ("flexVolume", "", "", |s, _| sources::flex_volume(s)),
    ("configMap", "", "", |s, _| sources::config_map(s)),
    ("azureFile", "", "", |s, _| sources::azure_file(s)),
    ("vsphereVolume", "", "", |s, _| sources::vsphere_volume(s)),
    ("photonPersistentDisk", "", "", |s, _| sources::photon_persistent_disk(s)),
    ("portworxVolume", "", "", |s, _| sources::portworx_volume(s)),
    ("azureDisk", "", "", |s, _| sources::azure_disk(s)),
    ("storageos", "", "", |s, _| sources::storage_os(s)),
    ("projected", "", "", |s, volume| projected(s, volume.options)),
    ("scaleIO", "", "", |s, _| sources::scale_io(s)),
    ("csi", "", "", |s, _| sources::csi(s)),
    ("ephemeral", "", "", ephemeral),
    ("image", "", "", |s, volume| image(s, volume.options)),
];

/// Checks volumes and gives back those that are well-formed, by name. `pod` is empty for templates.
pub fn volumes<'a>(
    volumes: &At<'a>,
    pod: &str,
    options: &Options,
    errors: &mut ErrorList,
) -> Vec<(&'a str, &'a Value)> {
    let mut known: Vec<(&str, &Value)> = Vec::new();
    let made_for_pod = |claim: &str| {
        !pod.is_empty()
            && volumes
                .items()
                .any(|volume| volume.has("ephemeral") && claim == format!("{pod}-{}", volume.text("name")))
    };
    for volume in volumes.items() {
        let name = volume.child("name");
        let mut wrong = source(&volume, &Volume { name: name.str(), pod, options });
        wrong.extend(if name.is_empty() { name.must_be_set() } else { name.dns_label() });
        if known.iter().any(|(other, _)| *other == name.str()) {
            wrong.push(name.duplicate());
        }
        if wrong.is_empty() {
            known.push((name.str(), volume.value));
        }
        errors.extend(wrong);
        let claim = volume.child("persistentVolumeClaim").child("claimName");
        if claim.is_set() && made_for_pod(claim.str()) {
            errors.push(claim.invalid("must not reference a PVC that gets created for an ephemeral volume"));
        }
    }
    known
}

fn source(volume: &At<'_>, context: &Volume<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut found = false;
    if let Some(empty) = volume.field("emptyDir") {
        found = true;
        let limit = empty.child("sizeLimit");
        if limit.quantity().is_some_and(|limit| limit.signum() < 0) {
            errors.push(limit.forbidden("SizeLimit field must be a valid resource quantity"));
        }
    }
    for (key, second, own, check) in SOURCES {
        let Some(source) = volume.field(key) else { continue };
        let or = |other: &str| volume.path.child(if other.is_empty() { key } else { other });
        if found {
            errors.push(Error::forbidden(&or(second), "may not specify more than 1 volume type"));
        } else {
            errors.extend(check(&At::new(source.value, or(own)), context));
        }
        found = true;
    }
    if !found {
        errors.push(volume.required("must specify a volume type"));
    }
    errors
}

fn downward_api(source: &At<'_>) -> ErrorList {
    let mut errors = sources::mode(&source.child("defaultMode"));
    // a file has no path of its own
    let files = source.each("items").map(|file| At::new(file.value, source.path.clone()));
    errors.extend(files.flat_map(|file| downward_api_file(&file)));
    errors
}

fn downward_api_file(file: &At<'_>) -> ErrorList {
    const FIELDS: [&str; 5] =
        ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
    let mut errors = file.child("path").must_be_set();
    errors.extend(sources::local_non_reserved_path(&file.child("path")));
    match (file.field("fieldRef"), file.field("resourceFieldRef")) {
        (Some(reference), other) => {
            errors.extend(field_ref(&reference, &FIELDS));
            if other.is_some() {
                let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(Error::invalid(&file.path, "resource", why));
            }
        }
        (None, Some(reference)) => errors.extend(resource_field_ref(&reference, true)),
        (None, None) => errors.push(file.required("one of fieldRef and resourceFieldRef is required")),
    }
    errors.extend(sources::mode(&file.child("mode")));
    errors
}

fn projected(projection: &At<'_>, options: &Options) -> ErrorList {
    let mut errors = sources::mode(&projection.child("defaultMode"));
    let mut files: Vec<&str> = Vec::new();
    for source in projection.each("sources") {
        for one in ["secret", "configMap"].iter().filter_map(|key| source.field(key)) {
            errors.extend(one.child("name").must_be_set());
            for item in one.each("items") {
                errors.extend(sources::key_to_path(&item));
                errors.extend(take(item.text("path"), one.text("name"), &projection.path, &mut files));
            }
        }
        if let Some(one) = source.field("downwardAPI") {
            for file in one.each("items") {
                errors.extend(downward_api_file(&At::new(file.value, one.path.clone())));
                let target = file.text("path");
                errors.extend(take(target, target, &projection.path, &mut files));
            }
        }
        if let Some(token) = source.field("serviceAccountToken") {
            errors.extend(service_account_token(&token, &projection.path, options));
        }
        let kinds = ["secret", "configMap", "downwardAPI", "serviceAccountToken"];
        if kinds.iter().filter(|key| source.has(key)).count() > 1 {
            errors.push(source.forbidden("may not specify more than 1 volume type per source"));
        }
    }
    errors
}

/// Notes that a projection makes a file; an error, showing `shown`, if another one makes it already.
fn take<'a>(file: &'a str, shown: &str, path: &Path, files: &mut Vec<&'a str>) -> Option<Error> {
    if files.contains(&file) {
        return Some(Error::invalid(path, shown, "conflicting duplicate paths"));
    }
    if !file.is_empty() {
        files.push(file);
    }
    None
}

fn service_account_token(token: &At<'_>, projected: &Path, options: &Options) -> ErrorList {
    let mut errors = ErrorList::new();
    let seconds = token.child("expirationSeconds");
    if seconds.int_or_zero() < 10 * 60 {
        errors.push(seconds.invalid_number("may not specify a duration less than 10 minutes"));
    }
    if seconds.int_or_zero() > 1 << 32 {
        errors.push(seconds.invalid_number("may not specify a duration larger than 2^32 seconds"));
    }
    let target = At::new(token.child("path").value, projected.child("path"));
    if target.is_empty() {
        errors.push(target.required(""));
    } else if !options.allow_non_local_token_path {
        errors.extend(sources::local_non_reserved_path(&target));
    }
    errors
}

fn ephemeral(source: &At<'_>, volume: &Volume<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let template = source.child("volumeClaimTemplate");
    if template.is_set() {
        errors.extend(claim::template(&template));
    } else {
        errors.push(template.required(""));
    }
    if !volume.pod.is_empty() && !volume.name.is_empty() {
        let claim = format!("{}-{}", volume.pod, volume.name);
        for message in names::name_is_dns_subdomain(&claim, false) {
            let path = source.path.as_str();
            let parent = path.strip_suffix(".ephemeral").unwrap_or(path);
            let why = format!("PVC name {claim:?}: {message}");
            errors.push(Error::invalid(&Path::new(parent).child("name"), volume.name, why));
        }
    }
    errors
}

fn image(source: &At<'_>, options: &Options) -> ErrorList {
    let mut errors = ErrorList::new();
    if options.is_pod {
        errors.extend(source.child("reference").must_be_set());
    }
    errors.extend(pull_policy(&source.child("pullPolicy")));
    errors
}

pub fn pull_policy(policy: &At<'_>) -> ErrorList {
    policy.one_of(&["Always", "IfNotPresent", "Never"])
}
