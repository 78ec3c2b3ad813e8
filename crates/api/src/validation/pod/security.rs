//! Security contexts of pods and of containers, and the operating system they are for.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;

use super::{visit_containers, windows};
use crate::validation::sources::local_path;
use crate::validation::value::{
    field, flag, has, int, invalid, is_set, list, optional, strings, supported, text,
};

const MAX_ID: i64 = i32::MAX as i64;
const SYSCTL_SEGMENT: &str = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
const MAX_SYSCTL: usize = 253;
const MAX_PROFILE: usize = 4095;
const IPC_SYSCTLS: [&str; 10] = [
    "kernel.msg",
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];

/// A user's or a group's number.
fn id(value: i64, path: &Path) -> ErrorList {
    invalid(path, value, names::is_in_range(value, 0, MAX_ID))
}

fn ids(context: &Value, keys: &[&str], path: &Path) -> ErrorList {
    keys.iter().filter_map(|key| Some(id(int(context, key)?, &path.child(key)))).flatten().collect()
}

/// The security context of a pod.
pub fn pod(spec: &Value, allow_host_sysctls: bool, path: &Path) -> ErrorList {
    let Some(context) = field(spec, "securityContext") else { return ErrorList::new() };
    let path = path.child("securityContext");
    let mut errors = ids(context, &["fsGroup", "runAsUser", "runAsGroup"], &path);
    for (index, group) in list(context, "supplementalGroups").iter().enumerate() {
        let at = path.child("supplementalGroups").index(index);
        errors.extend(id(group.as_i64().unwrap_or_default(), &at));
    }
    if flag(spec, "shareProcessNamespace") && flag(spec, "hostPID") {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(Error::invalid(&path.child("shareProcessNamespace"), true, why));
    }
    errors.extend(sysctls(spec, context, allow_host_sysctls, &path.child("sysctls")));
    if let Some(policy) = optional(context, "fsGroupChangePolicy") {
        errors.extend(supported(policy, &["Always", "OnRootMismatch"], &path.child("fsGroupChangePolicy")));
    }
    errors.extend(profiles(context, &path));
    for (key, valid) in [
        ("supplementalGroupsPolicy", ["Merge", "Strict"]),
        ("seLinuxChangePolicy", ["MountOption", "Recursive"]),
    ] {
        if let Some(policy) = optional(context, key) {
            errors.extend(supported(policy, &valid, &path.child(key)));
        }
    }
    errors
}

/// What pods and containers have alike: seccomp, Windows, AppArmor.
fn profiles(context: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(profile) = field(context, "seccompProfile") {
        errors.extend(seccomp_profile(profile, &path.child("seccompProfile")));
    }
    if let Some(options) = field(context, "windowsOptions") {
        errors.extend(windows::options(options, &path.child("windowsOptions")));
    }
    if let Some(profile) = field(context, "appArmorProfile") {
        errors.extend(app_armor_profile(profile, &path.child("appArmorProfile")));
    }
    errors
}

pub fn container(context: &Value, host_users: bool, path: &Path) -> ErrorList {
    let mut errors = ids(context, &["runAsUser", "runAsGroup"], path);
    if let Some(mount) = optional(context, "procMount") {
        let at = path.child("procMount");
        errors.extend(supported(mount, &["Default", "Unmasked"], &at));
        if host_users && mount == "Unmasked" {
            errors.push(Error::invalid(&at, mount, "`hostUsers` must be false to use `Unmasked`"));
        }
    }
    if let Some(profile) = field(context, "seccompProfile") {
        errors.extend(seccomp_profile(profile, &path.child("seccompProfile")));
    }
    if has(context, "allowPrivilegeEscalation") && !flag(context, "allowPrivilegeEscalation") {
        if flag(context, "privileged") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(Error::invalid(path, context.clone(), why));
        }
        let added = context.get("capabilities").map(|both| strings(both, "add")).unwrap_or_default();
        for _ in added.iter().filter(|capability| **capability == "CAP_SYS_ADMIN") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(Error::invalid(path, context.clone(), why));
        }
    }
    if let Some(options) = field(context, "windowsOptions") {
        errors.extend(windows::options(options, &path.child("windowsOptions")));
    }
    if let Some(profile) = field(context, "appArmorProfile") {
        errors.extend(app_armor_profile(profile, &path.child("appArmorProfile")));
    }
    errors
}

const PROFILE_TYPES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];

fn seccomp_profile(profile: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let (kind, file) = (text(profile, "type"), optional(profile, "localhostProfile"));
    let at = path.child("type");
    match kind {
        "" => errors.push(Error::required(&at, "type is required when seccompProfile is set")),
        kind => errors.extend(supported(kind, &PROFILE_TYPES, &at)),
    }
    let at = path.child("localhostProfile");
    match (kind, file) {
        ("Localhost", None) => {
            errors.push(Error::required(&at, "must be set when seccomp type is Localhost"));
        }
        ("Localhost", Some(file)) => errors.extend(local_path(file, &at)),
        (_, Some(_)) => {
            let why = "can only be set when seccomp type is Localhost";
            errors.push(Error::invalid(&at, profile.clone(), why));
        }
        (_, None) => {}
    }
    errors
}

/// What is wrong with an AppArmor profile.
pub fn app_armor_profile(profile: &Value, path: &Path) -> ErrorList {
    const MISSING: &str = "must be set when AppArmor type is Localhost";
    let mut errors = ErrorList::new();
    let name = optional(profile, "localhostProfile");
    let at = path.child("localhostProfile");
    match (text(profile, "type"), name) {
        ("Localhost", None) => errors.push(Error::required(&at, MISSING)),
        ("Localhost", Some(name)) => {
            if name.trim() != name {
                errors.push(Error::invalid(&at, name, "must not be padded with whitespace"));
            } else if name.is_empty() {
                errors.push(Error::required(&at, MISSING));
            }
            if name.len() > MAX_PROFILE {
                errors.push(Error::too_long(&at, MAX_PROFILE));
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            let why = "can only be set when AppArmor type is Localhost";
            errors.push(Error::invalid(&at, name, why));
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => {
            let why = "type is required when appArmorProfile is set";
            errors.push(Error::required(&path.child("type"), why));
        }
        (other, _) => errors.extend(supported(other, &PROFILE_TYPES, &path.child("type"))),
    }
    errors
}

fn is_sysctl_name(name: &str) -> bool {
    let segment = |segment: &str| {
        let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = segment.as_bytes();
        bytes.first().is_some_and(|b| alphanumeric(*b))
            && bytes.last().is_some_and(|b| alphanumeric(*b))
            && bytes.iter().all(|b| alphanumeric(*b) || matches!(b, b'-' | b'_'))
    };
    name.len() <= MAX_SYSCTL && name.split(['.', '/']).all(segment)
}

fn sysctls(spec: &Value, context: &Value, allow_host: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for (index, sysctl) in list(context, "sysctls").iter().enumerate() {
        let at = path.index(index).child("name");
        let name = text(sysctl, "name");
        if name.is_empty() {
            errors.push(Error::required(&at, ""));
        } else if !is_sysctl_name(name) {
            let regex = format!("^({SYSCTL_SEGMENT}[\\./])*{SYSCTL_SEGMENT}$");
            let why = format!("must have at most {MAX_SYSCTL} characters and match regex {regex}");
            errors.push(Error::invalid(&at, name, why));
        } else if seen.contains(&name) {
            errors.push(Error::duplicate(&at, name));
        }
        seen.push(name);
        if allow_host {
            continue;
        }
        // slashes and dots both part a name; up to a wildcard it says which namespace it belongs to
        let dotted = match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
            Some(b'/') => name
                .chars()
                .map(|c| {
                    if c == '/' {
                        '.'
                    } else if c == '.' {
                        '/'
                    } else {
                        c
                    }
                })
                .collect(),
            _ => name.to_owned(),
        };
        let known = dotted.split('*').next().unwrap_or_default();
        if flag(spec, "hostNetwork") && known.starts_with("net.") {
            errors.push(Error::invalid(&at, name, "may not be specified when 'hostNetwork' is true"));
        }
        if flag(spec, "hostIPC") && (IPC_SYSCTLS.contains(&known) || known.starts_with("fs.mqueue.")) {
            errors.push(Error::invalid(&at, name, "may not be specified when 'hostIPC' is true"));
        }
    }
    errors
}

/// A pod with users of its own shares none of the host's namespaces.
pub fn host_users(spec: &Value, path: &Path) -> ErrorList {
    if !has(spec, "hostUsers") || flag(spec, "hostUsers") {
        return ErrorList::new();
    }
    [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")]
        .into_iter()
        .filter(|(key, _)| flag(spec, key))
        .map(|(_, shown)| Error::forbidden(&path.child(shown), "when `pod.Spec.HostUsers` is false"))
        .collect()
}

/// What the named operating system does not have.
pub fn os(spec: &Value, path: &Path) -> ErrorList {
    let Some(os) = field(spec, "os") else { return ErrorList::new() };
    let at = path.child("os");
    match text(os, "name") {
        "" => vec![Error::required(&at.child("name"), "cannot be empty")],
        "linux" => linux(spec, path),
        "windows" => on_windows(spec, path),
        other => supported(other, &["linux", "windows"], &at),
    }
}

fn linux(spec: &Value, path: &Path) -> ErrorList {
    const WHY: &str = "windows options cannot be set for a linux pod";
    let mut errors = ErrorList::new();
    let mut check = |owner: &Value, path: &Path| {
        if owner.get("securityContext").is_some_and(|context| has(context, "windowsOptions")) {
            let at = path.child("securityContext").child("windowsOptions");
            errors.push(Error::forbidden(&at, WHY));
        }
    };
    check(spec, path);
    visit_containers(spec, path, &mut check);
    errors
}

fn on_windows(spec: &Value, path: &Path) -> ErrorList {
    const WHY: &str = "cannot be set for a windows pod";
    /// Where a field stands, its name, and whether its zero value counts as unset.
    const OF_POD: [(&str, &str, bool); 15] = [
        ("securityContext", "appArmorProfile", false),
        ("securityContext", "seLinuxOptions", false),
        ("", "hostUsers", false),
        ("", "hostPID", true),
        ("", "hostIPC", true),
        ("securityContext", "seccompProfile", false),
        ("securityContext", "fsGroup", false),
        ("securityContext", "fsGroupChangePolicy", false),
        ("securityContext", "sysctls", true),
        ("", "shareProcessNamespace", false),
        ("securityContext", "runAsUser", false),
        ("securityContext", "runAsGroup", false),
        ("securityContext", "supplementalGroups", false),
        ("securityContext", "supplementalGroupsPolicy", false),
        ("securityContext", "seLinuxChangePolicy", false),
    ];
    const OF_CONTAINER: [&str; 10] = [
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "capabilities",
        "readOnlyRootFilesystem",
        "privileged",
        "allowPrivilegeEscalation",
        "procMount",
        "runAsUser",
        "runAsGroup",
    ];
    let mut errors = ErrorList::new();
    for (parent, key, zero_is_unset) in OF_POD {
        let (owner, at) = match parent {
            "" => (Some(spec), path.child(key)),
            parent => (spec.get(parent), path.child(parent).child(key)),
        };
        let there =
            owner.is_some_and(|owner| if zero_is_unset { is_set(owner, key) } else { has(owner, key) });
        if there {
            errors.push(Error::forbidden(&at, WHY));
        }
    }
    visit_containers(spec, path, &mut |container, path| {
        let Some(context) = container.get("securityContext") else { return };
        for key in OF_CONTAINER.iter().filter(|key| has(context, key)) {
            errors.push(Error::forbidden(&path.child("securityContext").child(key), WHY));
        }
    });
    errors
}
