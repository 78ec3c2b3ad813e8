//! Volume sources: what each kind of storage needs to know, in pods and in persistent volumes.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;

use super::value::{
    entries, field, flag, has, int, invalid, list, number, optional, require, strings, supported, text,
};

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Several required fields of one source.
fn required(source: &Value, path: &Path, keys: &[&str]) -> ErrorList {
    keys.iter().flat_map(|key| require(source, key, path)).collect()
}

pub fn mode(source: &Value, key: &str, path: &Path) -> ErrorList {
    match int(source, key) {
        Some(mode) if !(0..=0o777).contains(&mode) => {
            vec![Error::invalid(&path.child(key), mode, FILE_MODE)]
        }
        _ => ErrorList::new(),
    }
}

/// No path goes up.
pub fn no_backsteps(target: &str, path: &Path) -> ErrorList {
    match target.split('/').any(|part| part == "..") {
        true => vec![Error::invalid(path, target, "must not contain '..'")],
        false => ErrorList::new(),
    }
}

/// A path that stays below where it starts.
pub fn local_path(target: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if target.starts_with('/') {
        errors.push(Error::invalid(path, target, "must be a relative path"));
    }
    errors.extend(no_backsteps(target, path));
    errors
}

/// As [`local_path`], and not of a name that the kubelet keeps for itself.
pub fn local_non_reserved_path(target: &str, path: &Path) -> ErrorList {
    let mut errors = local_path(target, path);
    if target.starts_with("..") && !target.starts_with("../") {
        errors.push(Error::invalid(path, target, "must not start with '..'"));
    }
    errors
}

pub fn host_path(source: &Value, path: &Path) -> ErrorList {
    const TYPES: [&str; 8] =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    if text(source, "path").is_empty() {
        return vec![Error::required(&path.child("path"), "")];
    }
    let mut errors = no_backsteps(text(source, "path"), &path.child("path"));
    if let Some(kind) = optional(source, "type") {
        errors.extend(supported(kind, &TYPES, &path.child("type")));
    }
    errors
}

pub fn git_repo(source: &Value, path: &Path) -> ErrorList {
    let mut errors = required(source, path, &["repository"]);
    errors.extend(local_path(text(source, "directory"), &path.child("directory")));
    errors
}

fn partition(source: &Value, path: &Path) -> ErrorList {
    invalid(
        &path.child("partition"),
        number(source, "partition"),
        names::is_in_range(number(source, "partition"), 0, 255),
    )
    .into_iter()
    // the range that is named is not the one that is checked
    .map(|error| Error { detail: names::inclusive_range_error(1, 255), ..error })
    .collect()
}

pub fn gce_persistent_disk(source: &Value, path: &Path) -> ErrorList {
    let mut errors = required(source, path, &["pdName"]);
    errors.extend(partition(source, path));
    errors
}

pub fn aws_elastic_block_store(source: &Value, path: &Path) -> ErrorList {
    let mut errors = required(source, path, &["volumeID"]);
    errors.extend(partition(source, path));
    errors
}

pub fn nfs(source: &Value, path: &Path) -> ErrorList {
    let mut errors = required(source, path, &["server", "path"]);
    if !text(source, "path").starts_with('/') {
        errors.push(Error::invalid(&path.child("path"), text(source, "path"), "must be an absolute path"));
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
pub fn iscsi(source: &Value, volume: &str, in_pod: bool, path: &Path) -> ErrorList {
    const TOO_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
    const BEGINNING: &str = "must be valid format starting with iqn, eui, or naa";
    let mut errors = required(source, path, &["targetPortal"]);
    let portal = text(source, "targetPortal");
    if !in_pod && has(source, "initiatorName") && volume.len() + 1 + portal.len() > 64 {
        errors.push(Error::invalid(&path.child("targetportal"), portal, TOO_LONG));
    }
    let beginning = if in_pod { BEGINNING } else { "must be valid format" };
    let well_formed = |name: &str, at: &Path| match initiator_is_well_formed(name) {
        None => vec![Error::invalid(at, name, beginning)],
        Some(false) => vec![Error::invalid(at, name, "must be valid format")],
        Some(true) => ErrorList::new(),
    };
    match text(source, "iqn") {
        "" => errors.push(Error::required(&path.child("iqn"), "")),
        iqn => errors.extend(well_formed(iqn, &path.child("iqn"))),
    }
    let lun = number(source, "lun");
    errors.extend(invalid(&path.child("lun"), lun, names::is_in_range(lun, 0, 255)));
    let secret = field(source, "secretRef");
    if (flag(source, "chapAuthDiscovery") || flag(source, "chapAuthSession")) && secret.is_none() {
        errors.push(Error::required(&path.child("secretRef"), ""));
    }
    if let Some(secret) = secret.filter(|_| !in_pod) {
        errors.extend(require(secret, "name", &path.child("secretRef")));
    }
    if let Some(name) = optional(source, "initiatorName") {
        errors.extend(well_formed(name, &path.child("initiatorname")));
    }
    if in_pod && has(source, "initiatorName") && volume.len() + 1 + portal.len() > 64 {
        // the error stands beside the source, at the volume's name
        let parent = path.as_str().strip_suffix(".iscsi").unwrap_or(path.as_str());
        errors.push(Error::invalid(&Path::new(parent).child("name"), volume, TOO_LONG));
    }
    errors
}

pub fn fc(source: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let (targets, wwids) = (list(source, "targetWWNs"), list(source, "wwids"));
    let at = path.child("targetWWNs");
    if targets.is_empty() && wwids.is_empty() {
        errors.push(Error::required(&at, "must specify either targetWWNs or wwids, but not both"));
    }
    if !targets.is_empty() && !wwids.is_empty() {
        let why = "targetWWNs and wwids can not be specified simultaneously";
        errors.push(Error::invalid(&at, targets.to_vec(), why));
    }
    if !targets.is_empty() {
        let at = path.child("lun");
        match int(source, "lun") {
            None => errors.push(Error::required(&at, "lun is required if targetWWNs is specified")),
            Some(lun) => errors.extend(invalid(&at, lun, names::is_in_range(lun, 0, 255))),
        }
    }
    errors
}

pub fn quobyte(source: &Value, path: &Path) -> ErrorList {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let mut errors = ErrorList::new();
    let registry = text(source, "registry");
    if registry.is_empty() {
        errors.push(Error::required(&path.child("registry"), PAIRS));
    } else if text(source, "tenant").len() >= 65 {
        let why = "must be a UUID and may not exceed a length of 64 characters";
        errors.push(Error::required(&path.child("tenant"), why));
    } else {
        let wrong = registry.split(',').filter(|pair| !is_host_port(pair));
        errors.extend(wrong.map(|_| Error::invalid(&path.child("registry"), registry, PAIRS)));
    }
    errors.extend(required(source, path, &["volume"]));
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

pub fn glusterfs(source: &Value, path: &Path) -> ErrorList {
    required(source, path, &["endpoints", "path"])
}

pub fn glusterfs_persistent(source: &Value, path: &Path) -> ErrorList {
    let mut errors = glusterfs(source, path);
    let at = path.child("endpointsNamespace");
    match optional(source, "endpointsNamespace") {
        None => {}
        Some("") => {
            let why = "if the endpointnamespace is set, it must be a valid namespace name";
            errors.push(Error::invalid(&at, "", why));
        }
        Some(namespace) => {
            errors.extend(invalid(&at, namespace, names::name_is_dns_label(namespace, false)));
        }
    }
    errors
}

pub fn flocker(source: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let (name, uuid) = (text(source, "datasetName"), text(source, "datasetUUID"));
    if name.is_empty() && uuid.is_empty() {
        errors.push(Error::required(path, "one of datasetName and datasetUUID is required"));
    }
    if !name.is_empty() && !uuid.is_empty() {
        let why = "datasetName and datasetUUID can not be specified simultaneously";
        errors.push(Error::invalid(path, "resource", why));
    }
    if name.contains('/') {
        errors.push(Error::invalid(&path.child("datasetName"), name, "must not contain '/'"));
    }
    errors
}

pub fn rbd(source: &Value, path: &Path) -> ErrorList {
    required(source, path, &["monitors", "image"])
}

pub fn ceph_fs(source: &Value, path: &Path) -> ErrorList {
    required(source, path, &["monitors"])
}

/// The secret a source names: a name alone in pods, name and namespace in persistent volumes.
fn secret_ref(source: &Value, path: &Path, keys: &[&str]) -> ErrorList {
    match field(source, "secretRef") {
        Some(secret) => required(secret, &path.child("secretRef"), keys),
        None => ErrorList::new(),
    }
}

pub fn cinder(source: &Value, path: &Path) -> ErrorList {
    let mut errors = required(source, path, &["volumeID"]);
    errors.extend(secret_ref(source, path, &["name"]));
    errors
}

pub fn cinder_persistent(source: &Value, path: &Path) -> ErrorList {
    let mut errors = required(source, path, &["volumeID"]);
    errors.extend(secret_ref(source, path, &["name", "namespace"]));
    errors
}

pub fn flex_volume(source: &Value, path: &Path) -> ErrorList {
    let mut errors = required(source, path, &["driver"]);
    for (key, _) in entries(source, "options") {
        let namespace = key.split_once('/').map_or(key, |(namespace, _)| namespace);
        let normalized = format!(".{}", namespace.to_lowercase());
        if normalized.ends_with(".kubernetes.io") || normalized.ends_with(".k8s.io") {
            let why = "kubernetes.io and k8s.io namespaces are reserved";
            errors.push(Error::invalid(&path.child("options").key(key), key, why));
        }
    }
    errors
}

pub fn azure_file(source: &Value, path: &Path) -> ErrorList {
    required(source, path, &["secretName", "shareName"])
}

pub fn azure_file_persistent(source: &Value, path: &Path) -> ErrorList {
    let mut errors = azure_file(source, path);
    if optional(source, "secretNamespace") == Some("") {
        errors.push(Error::required(&path.child("secretNamespace"), ""));
    }
    errors
}

pub fn azure_disk(source: &Value, path: &Path) -> ErrorList {
    const MANAGED: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    let mut errors = required(source, path, &["diskName", "diskURI"]);
    if let Some(mode) = optional(source, "cachingMode") {
        errors.extend(supported(mode, &["None", "ReadOnly", "ReadWrite"], &path.child("cachingMode")));
    }
    let uri = text(source, "diskURI");
    if let Some(kind) = optional(source, "kind") {
        errors.extend(supported(kind, &["Dedicated", "Managed", "Shared"], &path.child("kind")));
        let (beginning, form) =
            if kind == "Managed" { ("/subscriptions/", MANAGED) } else { ("https://", BLOB) };
        if !uri.starts_with(beginning) {
            errors.push(Error::not_supported(&path.child("diskURI"), uri, &[form]));
        }
    }
    errors
}

pub fn vsphere_volume(source: &Value, path: &Path) -> ErrorList {
    required(source, path, &["volumePath"])
}

pub fn photon_persistent_disk(source: &Value, path: &Path) -> ErrorList {
    required(source, path, &["pdID"])
}

pub fn portworx_volume(source: &Value, path: &Path) -> ErrorList {
    required(source, path, &["volumeID"])
}

pub fn scale_io(source: &Value, path: &Path) -> ErrorList {
    required(source, path, &["gateway", "system", "volumeName"])
}

pub fn local(source: &Value, path: &Path) -> ErrorList {
    match text(source, "path") {
        "" => vec![Error::required(&path.child("path"), "")],
        target => no_backsteps(target, &path.child("path")),
    }
}

fn storage_os_with(source: &Value, path: &Path, secret: &[&str]) -> ErrorList {
    let mut errors = ErrorList::new();
    let (name, namespace) = (text(source, "volumeName"), text(source, "volumeNamespace"));
    match name {
        "" => errors.push(Error::required(&path.child("volumeName"), "")),
        name => errors.extend(invalid(&path.child("volumeName"), name, names::is_dns1123_label(name))),
    }
    if !namespace.is_empty() {
        let at = path.child("volumeNamespace");
        errors.extend(invalid(&at, namespace, names::is_dns1123_label(namespace)));
    }
    errors.extend(secret_ref(source, path, secret));
    errors
}

pub fn storage_os(source: &Value, path: &Path) -> ErrorList {
    storage_os_with(source, path, &["name"])
}

pub fn storage_os_persistent(source: &Value, path: &Path) -> ErrorList {
    storage_os_with(source, path, &["name", "namespace"])
}

pub fn csi_driver_name(driver: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if driver.is_empty() {
        errors.push(Error::required(path, ""));
    }
    if driver.len() > 63 {
        errors.push(Error::too_long(path, 63));
    }
    errors.extend(invalid(path, driver, names::is_dns1123_subdomain(&driver.to_lowercase())));
    errors
}

pub fn csi(source: &Value, path: &Path) -> ErrorList {
    let mut errors = csi_driver_name(text(source, "driver"), &path.child("driver"));
    if let Some(secret) = field(source, "nodePublishSecretRef") {
        match text(secret, "name") {
            "" => errors.push(Error::required(&path.child("nodePublishSecretRef").child("name"), "")),
            name => {
                let messages = names::name_is_dns_subdomain(name, false);
                errors.extend(invalid(&path.child("name"), name, messages));
            }
        }
    }
    errors
}

pub fn csi_persistent(source: &Value, path: &Path) -> ErrorList {
    const SECRETS: [&str; 4] = [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ];
    let mut errors = csi_driver_name(text(source, "driver"), &path.child("driver"));
    errors.extend(required(source, path, &["volumeHandle"]));
    for key in SECRETS {
        let Some(secret) = field(source, key) else { continue };
        let at = path.child(key);
        let (name, namespace) = (text(secret, "name"), text(secret, "namespace"));
        match name {
            "" => errors.push(Error::required(&at.child("name"), "")),
            name => errors.extend(invalid(&at.child("name"), name, names::is_dns1123_subdomain(name))),
        }
        match namespace {
            "" => errors.push(Error::required(&at.child("namespace"), "")),
            ns => errors.extend(invalid(&at.child("namespace"), ns, names::is_dns1123_label(ns))),
        }
    }
    errors
}

/// Keys and the files they become.
pub fn key_to_path(item: &Value, path: &Path) -> ErrorList {
    let mut errors = required(item, path, &["key", "path"]);
    errors.extend(local_non_reserved_path(text(item, "path"), &path.child("path")));
    errors.extend(mode(item, "mode", path));
    errors
}

fn keyed(source: &Value, name: &str, path: &Path) -> ErrorList {
    let mut errors = required(source, path, &[name]);
    errors.extend(mode(source, "defaultMode", path));
    for (index, item) in list(source, "items").iter().enumerate() {
        errors.extend(key_to_path(item, &path.child("items").index(index)));
    }
    errors
}

pub fn secret(source: &Value, path: &Path) -> ErrorList {
    keyed(source, "secretName", path)
}

pub fn config_map(source: &Value, path: &Path) -> ErrorList {
    keyed(source, "name", path)
}

pub fn persistent_volume_claim(source: &Value, path: &Path) -> ErrorList {
    required(source, path, &["claimName"])
}

pub const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
pub const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];

/// The access modes of a volume or a claim, once there are some.
pub fn access_modes(spec: &Value, path: &Path) -> ErrorList {
    let at = path.child("accessModes");
    let modes = strings(spec, "accessModes");
    let mut errors: ErrorList = modes.iter().flat_map(|mode| supported(mode, &ACCESS_MODES, &at)).collect();
    let single = modes.contains(&"ReadWriteOncePod");
    let other = modes.iter().any(|mode| *mode != "ReadWriteOncePod" && ACCESS_MODES.contains(mode));
    if single && other {
        errors.push(Error::forbidden(&at, "may not use ReadWriteOncePod with other access modes"));
    }
    errors
}
