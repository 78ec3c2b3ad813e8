//! Volume sources: what each kind of storage needs to know, in pods and in persistent volumes.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;

use super::at::At;

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Several required fields of one source.
fn required(source: &At<'_>, keys: &[&str]) -> ErrorList {
    keys.iter().flat_map(|key| source.child(key).must_be_set()).collect()
}

/// The permissions of a file, where they are given.
pub fn mode(mode: &At<'_>) -> ErrorList {
    match mode.int() {
        Some(number) if !(0..=0o777).contains(&number) => vec![mode.invalid(FILE_MODE)],
        _ => ErrorList::new(),
    }
}

/// No path goes up.
pub fn no_backsteps(target: &At<'_>) -> ErrorList {
    match target.str().split('/').any(|part| part == "..") {
        true => vec![target.invalid("must not contain '..'")],
        false => ErrorList::new(),
    }
}

/// A path that stays below where it starts.
pub fn local_path(target: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    if target.str().starts_with('/') {
        errors.push(target.invalid("must be a relative path"));
    }
    errors.extend(no_backsteps(target));
    errors
}

/// As [`local_path`], and not of a name that the kubelet keeps for itself.
pub fn local_non_reserved_path(target: &At<'_>) -> ErrorList {
    let mut errors = local_path(target);
    if target.str().starts_with("..") && !target.str().starts_with("../") {
        errors.push(target.invalid("must not start with '..'"));
    }
    errors
}

pub fn host_path(source: &At<'_>) -> ErrorList {
    const TYPES: [&str; 8] =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    let target = source.child("path");
    if target.is_empty() {
        return vec![target.required("")];
    }
    let mut errors = no_backsteps(&target);
    errors.extend(source.child("type").supported(&TYPES));
    errors
}

pub fn git_repo(source: &At<'_>) -> ErrorList {
    let mut errors = required(source, &["repository"]);
    errors.extend(local_path(&source.child("directory")));
    errors
}

fn partition(source: &At<'_>) -> ErrorList {
    let wrong = source.child("partition").in_range(0, 255);
    // the range that is named is not the one that is checked
    wrong.into_iter().map(|error| Error { detail: names::inclusive_range_error(1, 255), ..error }).collect()
}

pub fn gce_persistent_disk(source: &At<'_>) -> ErrorList {
    let mut errors = required(source, &["pdName"]);
    errors.extend(partition(source));
    errors
}

pub fn aws_elastic_block_store(source: &At<'_>) -> ErrorList {
    let mut errors = required(source, &["volumeID"]);
    errors.extend(partition(source));
    errors
}

pub fn nfs(source: &At<'_>) -> ErrorList {
    let mut errors = required(source, &["server", "path"]);
    let target = source.child("path");
    if !target.str().starts_with('/') {
        errors.push(target.invalid_text("must be an absolute path"));
    }
    errors
}

/// Whether a name of an initiator has the form that its beginning announces; `None` for an unknown beginning.
fn initiator_is_well_formed(name: &str) -> Option<bool> {
    let alphanumeric =
        |text: &str, length: usize| text.len() == length && text.bytes().all(|b| b.is_ascii_alphanumeric());
    let one_char_then = |rest: &str, length: usize| {
        let mut chars = rest.chars();
        chars.next().is_some_and(|c| c != '\n') && alphanumeric(chars.as_str(), length)
    };
    if name.starts_with("iqn") {
        return Some(name.match_indices("iqn.").any(|(at, _)| is_iqn(&name[at + 4..])));
    }
    if let Some(rest) = name.strip_prefix("eui") {
        return Some(one_char_then(rest, 16));
    }
    name.strip_prefix("naa").map(|rest| one_char_then(rest, 32))
}

/// What follows `iqn.`: year and month, a domain, and a colon with an identifier.
fn is_iqn(rest: &str) -> bool {
    let Some((date, rest)) = rest.split_at_checked(8) else { return false };
    let date_fits = date.bytes().zip("0000-00.".bytes()).all(|(b, form)| match form {
        b'0' => b.is_ascii_digit(),
        form => b == form,
    });
    let Some((domain, id)) = rest.split_once(':') else { return false };
    date_fits
        && !domain.is_empty()
        && domain.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
        && !id.is_empty()
        && !id.contains(|c: char| ",;*&$|".contains(c) || matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c'))
}

/// What iSCSI needs in a pod (`in_pod`) or in a persistent volume; `volume` is the volume's name.
pub fn iscsi(source: &At<'_>, volume: &str, in_pod: bool) -> ErrorList {
    const TOO_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
    const BEGINNING: &str = "must be valid format starting with iqn, eui, or naa";
    let mut errors = required(source, &["targetPortal"]);
    let portal = source.text("targetPortal");
    let too_long = source.has("initiatorName") && volume.len() + 1 + portal.len() > 64;
    if !in_pod && too_long {
        errors.push(Error::invalid(&source.path.child("targetportal"), portal, TOO_LONG));
    }
    let beginning = if in_pod { BEGINNING } else { "must be valid format" };
    let well_formed = |name: &At<'_>| match initiator_is_well_formed(name.str()) {
        None => Some(name.invalid(beginning)),
        Some(false) => Some(name.invalid("must be valid format")),
        Some(true) => None,
    };
    let iqn = source.child("iqn");
    errors.extend(if iqn.is_empty() { Some(iqn.required("")) } else { well_formed(&iqn) });
    errors.extend(source.child("lun").in_range(0, 255));
    let secret = source.child("secretRef");
    if (source.is_true("chapAuthDiscovery") || source.is_true("chapAuthSession")) && !secret.is_set() {
        errors.push(secret.required(""));
    }
    if secret.is_set() && !in_pod {
        errors.extend(secret.child("name").must_be_set());
    }
    if let Some(name) = source.field("initiatorName") {
        errors.extend(well_formed(&At::new(name.value, source.path.child("initiatorname"))));
    }
    if in_pod && too_long {
        // the error stands beside the source, at the volume's name
        let path = source.path.as_str();
        let parent = path.strip_suffix(".iscsi").unwrap_or(path);
        errors.push(Error::invalid(&Path::new(parent).child("name"), volume, TOO_LONG));
    }
    errors
}

pub fn fc(source: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let (targets, wwids) = (source.child("targetWWNs"), source.child("wwids"));
    if targets.is_empty() && wwids.is_empty() {
        errors.push(targets.required("must specify either targetWWNs or wwids, but not both"));
    }
    if !targets.is_empty() && !wwids.is_empty() {
        errors.push(targets.invalid("targetWWNs and wwids can not be specified simultaneously"));
    }
    if !targets.is_empty() {
        let lun = source.child("lun");
        match lun.is_set() {
            false => errors.push(lun.required("lun is required if targetWWNs is specified")),
            true => errors.extend(lun.in_range(0, 255)),
        }
    }
    errors
}

pub fn quobyte(source: &At<'_>) -> ErrorList {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let mut errors = ErrorList::new();
    let (registry, tenant) = (source.child("registry"), source.child("tenant"));
    if registry.is_empty() {
        errors.push(registry.required(PAIRS));
    } else if tenant.len() >= 65 {
        errors.push(tenant.required("must be a UUID and may not exceed a length of 64 characters"));
    } else {
        let wrong = registry.str().split(',').filter(|pair| !is_host_port(pair));
        errors.extend(wrong.map(|_| registry.invalid(PAIRS)));
    }
    errors.extend(required(source, &["volume"]));
    errors
}

/// Whether a text is what Go's `net.SplitHostPort` takes.
fn is_host_port(pair: &str) -> bool {
    let Some((host, _)) = pair.rsplit_once(':') else { return false };
    match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').is_some_and(|inner| !inner.contains(['[', ']'])),
        None => !host.contains([':', '[', ']']),
    }
}

pub fn glusterfs(source: &At<'_>) -> ErrorList {
    required(source, &["endpoints", "path"])
}

pub fn glusterfs_persistent(source: &At<'_>) -> ErrorList {
    let mut errors = glusterfs(source);
    if let Some(namespace) = source.field("endpointsNamespace") {
        if namespace.is_empty() {
            let why = "if the endpointnamespace is set, it must be a valid namespace name";
            errors.push(namespace.invalid(why));
        } else {
            errors.extend(namespace.dns_label());
        }
    }
    errors
}

pub fn flocker(source: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let (name, uuid) = (source.child("datasetName"), source.child("datasetUUID"));
    if name.is_empty() && uuid.is_empty() {
        errors.push(source.required("one of datasetName and datasetUUID is required"));
    }
    if !name.is_empty() && !uuid.is_empty() {
        let why = "datasetName and datasetUUID can not be specified simultaneously";
        errors.push(Error::invalid(&source.path, "resource", why));
    }
    if name.str().contains('/') {
        errors.push(name.invalid("must not contain '/'"));
    }
    errors
}

pub fn rbd(source: &At<'_>) -> ErrorList {
    required(source, &["monitors", "image"])
}

pub fn ceph_fs(source: &At<'_>) -> ErrorList {
    required(source, &["monitors"])
}

/// The secret a source names: a name alone in pods, name and namespace in persistent volumes.
fn secret_ref(source: &At<'_>, keys: &[&str]) -> ErrorList {
    source.field("secretRef").map(|secret| required(&secret, keys)).unwrap_or_default()
}

pub fn cinder(source: &At<'_>) -> ErrorList {
    let mut errors = required(source, &["volumeID"]);
    errors.extend(secret_ref(source, &["name"]));
    errors
}

pub fn cinder_persistent(source: &At<'_>) -> ErrorList {
    let mut errors = required(source, &["volumeID"]);
    errors.extend(secret_ref(source, &["name", "namespace"]));
    errors
}

pub fn flex_volume(source: &At<'_>) -> ErrorList {
    let mut errors = required(source, &["driver"]);
    for (key, option) in source.child("options").entries() {
        let namespace = key.split_once('/').map_or(key, |(namespace, _)| namespace);
        let normalized = format!(".{}", namespace.to_lowercase());
        if normalized.ends_with(".kubernetes.io") || normalized.ends_with(".k8s.io") {
            let why = "kubernetes.io and k8s.io namespaces are reserved";
            errors.push(Error::invalid(&option.path, key, why));
        }
    }
    errors
}

pub fn azure_file(source: &At<'_>) -> ErrorList {
    required(source, &["secretName", "shareName"])
}

pub fn azure_file_persistent(source: &At<'_>) -> ErrorList {
    let mut errors = azure_file(source);
    if let Some(namespace) = source.field("secretNamespace") {
        errors.extend(namespace.must_be_set());
    }
    errors
}

pub fn azure_disk(source: &At<'_>) -> ErrorList {
    const MANAGED: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    let mut errors = required(source, &["diskName", "diskURI"]);
    errors.extend(source.child("cachingMode").supported(&["None", "ReadOnly", "ReadWrite"]));
    let uri = source.child("diskURI");
    if let Some(kind) = source.field("kind") {
        errors.extend(kind.supported(&["Dedicated", "Managed", "Shared"]));
        let (beginning, form) =
            if kind.str() == "Managed" { ("/subscriptions/", MANAGED) } else { ("https://", BLOB) };
        if !uri.str().starts_with(beginning) {
            errors.push(Error::not_supported(&uri.path, uri.str(), &[form]));
        }
    }
    errors
}

pub fn vsphere_volume(source: &At<'_>) -> ErrorList {
    required(source, &["volumePath"])
}

pub fn photon_persistent_disk(source: &At<'_>) -> ErrorList {
    required(source, &["pdID"])
}

pub fn portworx_volume(source: &At<'_>) -> ErrorList {
    required(source, &["volumeID"])
}

pub fn scale_io(source: &At<'_>) -> ErrorList {
    required(source, &["gateway", "system", "volumeName"])
}

pub fn local(source: &At<'_>) -> ErrorList {
    let target = source.child("path");
    if target.is_empty() { target.must_be_set() } else { no_backsteps(&target) }
}

fn storage_os_with(source: &At<'_>, secret: &[&str]) -> ErrorList {
    let (name, namespace) = (source.child("volumeName"), source.child("volumeNamespace"));
    let mut errors = if name.is_empty() { name.must_be_set() } else { name.dns_label() };
    if !namespace.is_empty() {
        errors.extend(namespace.dns_label());
    }
    errors.extend(secret_ref(source, secret));
    errors
}

pub fn storage_os(source: &At<'_>) -> ErrorList {
    storage_os_with(source, &["name"])
}

pub fn storage_os_persistent(source: &At<'_>) -> ErrorList {
    storage_os_with(source, &["name", "namespace"])
}

/// The name of a CSI driver. A missing one is wrong in two ways.
fn csi_driver_name(driver: &At<'_>) -> ErrorList {
    const MAX: usize = 63;
    let mut errors = driver.must_be_set();
    if driver.len() > MAX {
        errors.push(driver.too_long(MAX));
    }
    errors.extend(driver.follows(|name| names::is_dns1123_subdomain(&name.to_lowercase())));
    errors
}

pub fn csi(source: &At<'_>) -> ErrorList {
    let mut errors = csi_driver_name(&source.child("driver"));
    if let Some(secret) = source.field("nodePublishSecretRef") {
        let name = secret.child("name");
        // a name that is no name is said to be the source's
        let at = At::new(name.value, source.path.child("name"));
        errors.extend(if name.is_empty() { name.must_be_set() } else { at.subdomain() });
    }
    errors
}

pub fn csi_persistent(source: &At<'_>) -> ErrorList {
    const SECRETS: [&str; 4] = [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ];
    let mut errors = csi_driver_name(&source.child("driver"));
    errors.extend(required(source, &["volumeHandle"]));
    for secret in SECRETS.iter().filter_map(|key| source.field(key)) {
        let (name, namespace) = (secret.child("name"), secret.child("namespace"));
        errors.extend(if name.is_empty() { name.must_be_set() } else { name.subdomain() });
        errors.extend(if namespace.is_empty() { namespace.must_be_set() } else { namespace.dns_label() });
    }
    errors
}

/// Keys and the files they become.
pub fn key_to_path(item: &At<'_>) -> ErrorList {
    let mut errors = required(item, &["key", "path"]);
    errors.extend(local_non_reserved_path(&item.child("path")));
    errors.extend(mode(&item.child("mode")));
    errors
}

fn keyed(source: &At<'_>, name: &str) -> ErrorList {
    let mut errors = required(source, &[name]);
    errors.extend(mode(&source.child("defaultMode")));
    errors.extend(source.each("items").flat_map(|item| key_to_path(&item)));
    errors
}

pub fn secret(source: &At<'_>) -> ErrorList {
    keyed(source, "secretName")
}

pub fn config_map(source: &At<'_>) -> ErrorList {
    keyed(source, "name")
}

pub fn persistent_volume_claim(source: &At<'_>) -> ErrorList {
    required(source, &["claimName"])
}

pub const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
pub const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];

/// The access modes of a volume or a claim, once there are some. What is wrong with one stands at the list.
pub fn access_modes(modes: &At<'_>) -> ErrorList {
    let each = modes.items().map(|mode| At::new(mode.value, modes.path.clone()));
    let mut errors: ErrorList = each.flat_map(|mode| mode.among(&ACCESS_MODES)).collect();
    let has = |mode: &str| modes.list().iter().any(|one| one == mode);
    let other = ACCESS_MODES.iter().any(|mode| *mode != "ReadWriteOncePod" && has(mode));
    if has("ReadWriteOncePod") && other {
        errors.push(modes.forbidden("may not use ReadWriteOncePod with other access modes"));
    }
    errors
}
