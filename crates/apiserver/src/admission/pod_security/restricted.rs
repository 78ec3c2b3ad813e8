//! The checks of the level `restricted`: what a hardened pod has to say.

use std::collections::BTreeSet;

use apimachinery::Value;

use super::baseline;
use super::checks::{Finding, Subject, flag, joined, number, of, setters, text, user_namespace};

const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// Sources that volumes must not have, as findings name them.
const FORBIDDEN_VOLUMES: [&str; 21] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];

fn is_windows(subject: &Subject<'_>) -> bool {
    text(subject.spec, "/os/name") == "windows"
}

/// A check that Windows pods are spared, since they cannot say what it wants.
macro_rules! but_on_windows {
    ($name:ident, $check:ident) => {
        pub fn $name(subject: &Subject<'_>) -> Option<Finding> {
            if is_windows(subject) { None } else { $check(subject) }
        }
    };
}

but_on_windows!(allow_privilege_escalation_25, allow_privilege_escalation);
but_on_windows!(capabilities_25, capabilities);
but_on_windows!(seccomp_25, seccomp);

pub fn allow_privilege_escalation(subject: &Subject<'_>) -> Option<Finding> {
    let bad = subject.named(|one| flag(one, "/securityContext/allowPrivilegeEscalation") != Some(false));
    Finding::when(!bad.is_empty(), "allowPrivilegeEscalation != false", || {
        format!("{} must set securityContext.allowPrivilegeEscalation=false", of("container", &bad))
    })
}

pub fn capabilities(subject: &Subject<'_>) -> Option<Finding> {
    let dropped = |one: &Value| {
        let list = one.pointer("/securityContext/capabilities/drop").and_then(Value::as_array);
        list.into_iter().flatten().any(|name| name == "ALL")
    };
    let keeping = subject.named(|one| !dropped(one));
    let (adding, added) = subject.added_capabilities(|name| name == "NET_BIND_SERVICE");
    let mut details = Vec::new();
    if !keeping.is_empty() {
        let who = of("container", &keeping);
        details.push(format!("{who} must set securityContext.capabilities.drop=[\"ALL\"]"));
    }
    if !adding.is_empty() {
        let who = of("container", &adding);
        details
            .push(format!("{who} must not include {} in securityContext.capabilities.add", joined(&added)));
    }
    Finding::when(!details.is_empty(), "unrestricted capabilities", || details.join("; "))
}

pub fn volumes(subject: &Subject<'_>) -> Option<Finding> {
    let (mut bad, mut types) = (Vec::new(), BTreeSet::new());
    for volume in subject.volumes() {
        if VOLUMES.iter().any(|source| volume.get(source).is_some()) {
            continue;
        }
        bad.push(text(volume, "/name"));
        let found = FORBIDDEN_VOLUMES.into_iter().find(|source| volume.get(source).is_some());
        types.insert(found.unwrap_or("unknown").to_owned());
    }
    Finding::when(!bad.is_empty(), "restricted volume types", || {
        let verb = if bad.len() == 1 { "uses" } else { "use" };
        let noun = if types.len() == 1 { "restricted volume type" } else { "restricted volume types" };
        format!("{} {verb} {noun} {}", of("volume", &bad), joined(&types))
    })
}

pub fn run_as_non_root(subject: &Subject<'_>) -> Option<Finding> {
    let says = |at: &Value| flag(at, "/securityContext/runAsNonRoot");
    let pod = says(subject.spec);
    let who = setters(pod == Some(false), &subject.named(|one| says(one) == Some(false)));
    let silent = subject.named(|one| says(one).is_none() && pod != Some(true));
    if !who.is_empty() {
        let detail = format!("{} must not set securityContext.runAsNonRoot=false", who.join(" and "));
        return Finding::new("runAsNonRoot != true", detail);
    }
    Finding::when(!silent.is_empty(), "runAsNonRoot != true", || {
        format!("pod or {} must set securityContext.runAsNonRoot=true", of("container", &silent))
    })
}

pub fn run_as_non_root_35(subject: &Subject<'_>) -> Option<Finding> {
    if user_namespace(subject) { None } else { run_as_non_root(subject) }
}

pub fn run_as_user(subject: &Subject<'_>) -> Option<Finding> {
    let root = |at: &Value| number(at, "/securityContext/runAsUser") == Some(0);
    let who = setters(root(subject.spec), &subject.named(root));
    Finding::when(!who.is_empty(), "runAsUser=0", || {
        format!("{} must not set runAsUser=0", who.join(" and "))
    })
}

pub fn run_as_user_35(subject: &Subject<'_>) -> Option<Finding> {
    if user_namespace(subject) { None } else { run_as_user(subject) }
}

pub fn seccomp(subject: &Subject<'_>) -> Option<Finding> {
    if let Some(finding) = baseline::seccomp(subject) {
        return Some(finding);
    }
    let says = |at: &Value| at.pointer("/securityContext/seccompProfile").is_some();
    let silent = subject.named(|one| !says(one) && !says(subject.spec));
    Finding::when(!silent.is_empty(), "seccompProfile", || {
        format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            of("container", &silent)
        )
    })
}
