//! Security contexts of pods and of containers, and the operating system they are for.

use apimachinery::field::{Error, ErrorList};

use super::{Options, visit_containers, windows};
use crate::validation::at::At;
use crate::validation::sources::local_path;

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

/// Users' and groups' numbers, where they are set.
fn ids(context: &At<'_>, keys: &[&str]) -> ErrorList {
    keys.iter().filter_map(|key| context.field(key)).flat_map(|id| id.in_range(0, MAX_ID)).collect()
}

/// The security context of a pod.
pub fn pod(spec: &At<'_>, options: &Options) -> ErrorList {
    let Some(context) = spec.field("securityContext") else { return ErrorList::new() };
    let mut errors = ids(&context, &["fsGroup", "runAsUser", "runAsGroup"]);
    errors.extend(context.each("supplementalGroups").flat_map(|group| group.in_range(0, MAX_ID)));
    if spec.is_true("shareProcessNamespace") && spec.is_true("hostPID") {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(Error::invalid(&context.path.child("shareProcessNamespace"), true, why));
    }
    errors.extend(sysctls(spec, &context, options.allow_host_sysctls));
    errors.extend(context.child("fsGroupChangePolicy").supported(&["Always", "OnRootMismatch"]));
    errors.extend(profiles(&context));
    errors.extend(context.child("supplementalGroupsPolicy").supported(&["Merge", "Strict"]));
    let policies: &[&str] =
        if options.allow_se_linux_mount { &["MountOption", "Recursive"] } else { &["Recursive"] };
    errors.extend(context.child("seLinuxChangePolicy").supported(policies));
    errors
}

/// What pods and containers have alike: seccomp, Windows, AppArmor.
fn profiles(context: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(profile) = context.field("seccompProfile") {
        errors.extend(seccomp_profile(&profile));
    }
    errors.extend(windows_and_app_armor(context));
    errors
}

fn windows_and_app_armor(context: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(options) = context.field("windowsOptions") {
        errors.extend(windows::options(&options));
    }
    if let Some(profile) = context.field("appArmorProfile") {
        errors.extend(app_armor_profile(&profile));
    }
    errors
}

pub fn container(context: &At<'_>, host_users: bool) -> ErrorList {
    let mut errors = ids(context, &["runAsUser", "runAsGroup"]);
    if let Some(mount) = context.field("procMount") {
        errors.extend(mount.supported(&["Default", "Unmasked"]));
        if host_users && mount.str() == "Unmasked" {
            errors.push(mount.invalid("`hostUsers` must be false to use `Unmasked`"));
        }
    }
    if let Some(profile) = context.field("seccompProfile") {
        errors.extend(seccomp_profile(&profile));
    }
    if context.has("allowPrivilegeEscalation") && !context.is_true("allowPrivilegeEscalation") {
        if context.is_true("privileged") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(context.invalid(why));
        }
        let added = context.child("capabilities").strings("add");
        for _ in added.iter().filter(|capability| **capability == "CAP_SYS_ADMIN") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(context.invalid(why));
        }
    }
    errors.extend(windows_and_app_armor(context));
    errors
}

const PROFILE_TYPES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];

fn seccomp_profile(profile: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let (kind, file) = (profile.child("type"), profile.child("localhostProfile"));
    if kind.is_empty() {
        errors.push(kind.required("type is required when seccompProfile is set"));
    } else {
        errors.extend(kind.among(&PROFILE_TYPES));
    }
    match (kind.str(), file.is_set()) {
        ("Localhost", false) => errors.push(file.required("must be set when seccomp type is Localhost")),
        ("Localhost", true) => errors.extend(local_path(&file)),
        (_, true) => {
            // the whole profile is shown
            let why = "can only be set when seccomp type is Localhost";
            errors.push(Error::invalid(&file.path, profile.value.clone(), why));
        }
        (_, false) => {}
    }
    errors
}

/// What is wrong with an AppArmor profile.
fn app_armor_profile(profile: &At<'_>) -> ErrorList {
    const MISSING: &str = "must be set when AppArmor type is Localhost";
    let (kind, name) = (profile.child("type"), profile.child("localhostProfile"));
    let mut errors = ErrorList::new();
    match kind.str() {
        "Localhost" => {
            if name.str().trim() != name.str() {
                errors.push(name.invalid("must not be padded with whitespace"));
            } else if name.is_empty() {
                errors.push(name.required(MISSING));
            }
            if name.len() > MAX_PROFILE {
                errors.push(name.too_long(MAX_PROFILE));
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if name.is_set() {
                errors.push(name.invalid("can only be set when AppArmor type is Localhost"));
            }
        }
        "" => errors.push(kind.required("type is required when appArmorProfile is set")),
        _ => errors.extend(kind.among(&PROFILE_TYPES)),
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

/// A name with its parts set apart by dots, where a first slash says that slashes part it and dots do not.
fn dotted(name: &str) -> String {
    let slashes = name.find(['.', '/']).is_some_and(|at| name[at..].starts_with('/'));
    let turned = |c: char| match c {
        '/' => '.',
        '.' => '/',
        c => c,
    };
    if slashes { name.chars().map(turned).collect() } else { name.to_owned() }
}

fn sysctls(spec: &At<'_>, context: &At<'_>, allow_host: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for sysctl in context.each("sysctls") {
        let name = sysctl.child("name");
        if name.is_empty() {
            errors.push(name.required(""));
        } else if !is_sysctl_name(name.str()) {
            let regex = format!("^({SYSCTL_SEGMENT}[\\./])*{SYSCTL_SEGMENT}$");
            let why = format!("must have at most {MAX_SYSCTL} characters and match regex {regex}");
            errors.push(name.invalid(why));
        } else if seen.contains(&name.str()) {
            errors.push(name.duplicate());
        }
        seen.push(name.str());
        if allow_host {
            continue;
        }
        // up to a wildcard a name says which namespace it belongs to
        let dotted = dotted(name.str());
        let known = dotted.split('*').next().unwrap_or_default();
        if spec.is_true("hostNetwork") && known.starts_with("net.") {
            errors.push(name.invalid_text("may not be specified when 'hostNetwork' is true"));
        }
        if spec.is_true("hostIPC") && (IPC_SYSCTLS.contains(&known) || known.starts_with("fs.mqueue.")) {
            errors.push(name.invalid_text("may not be specified when 'hostIPC' is true"));
        }
    }
    errors
}

/// Whether sysctls of a pod are those of namespaces that it shares with the host.
pub fn allows_host_sysctls_only(spec: &At<'_>) -> bool {
    let context = spec.child("securityContext");
    sysctls(spec, &context, false).len() != sysctls(spec, &context, true).len()
}

/// Whether a pod's users are not the host's.
pub fn has_own_users(spec: &At<'_>) -> bool {
    spec.has("hostUsers") && !spec.is_true("hostUsers")
}

/// A pod with users of its own shares none of the host's namespaces, and its block devices would not be its own.
pub fn host_users(spec: &At<'_>, allow_devices: bool) -> ErrorList {
    const WHY: &str = "when `hostUsers` is false";
    if !has_own_users(spec) {
        return ErrorList::new();
    }
    let mut errors: ErrorList =
        [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")]
            .into_iter()
            .filter(|(key, _)| spec.is_true(key))
            .map(|(_, shown)| spec.child(shown).forbidden(WHY))
            .collect();
    visit_containers(spec, &mut |container| {
        if !allow_devices && container.says("volumeDevices") {
            errors.push(container.child("volumeDevices").forbidden(WHY));
        }
    });
    errors
}

/// What the named operating system does not have.
pub fn os(spec: &At<'_>) -> ErrorList {
    let Some(os) = spec.field("os") else { return ErrorList::new() };
    match os.text("name") {
        "" => os.child("name").must_be_set(),
        "linux" => linux(spec),
        "windows" => on_windows(spec),
        other => vec![Error::not_supported(&os.path, other, &["linux", "windows"])],
    }
}

fn linux(spec: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut check = |owner: At<'_>| {
        if let Some(options) = owner.child("securityContext").field("windowsOptions") {
            errors.push(options.forbidden("windows options cannot be set for a linux pod"));
        }
    };
    check(spec.clone());
    visit_containers(spec, &mut check);
    errors
}

fn on_windows(spec: &At<'_>) -> ErrorList {
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
        let field = if parent.is_empty() { spec.child(key) } else { spec.child(parent).child(key) };
        let there = if zero_is_unset { !field.is_empty() } else { field.is_set() };
        if there {
            errors.push(field.forbidden(WHY));
        }
    }
    visit_containers(spec, &mut |container| {
        let context = container.child("securityContext");
        let said = OF_CONTAINER.iter().filter_map(|key| context.field(key));
        errors.extend(said.map(|field| field.forbidden(WHY)));
    });
    errors
}
