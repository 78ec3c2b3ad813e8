//! The table of checks: which there are at each level, since which minor version of Kubernetes 1, and what they
//! have in common.

use std::collections::BTreeSet;

use apimachinery::Value;
use serde_json::Map;

use super::policy::{Level, LevelVersion};
use super::{baseline, restricted};

/// A pod, or the template of one.
pub struct Subject<'a> {
    pub annotations: Option<&'a Map<String, Value>>,
    pub spec: &'a Value,
    /// Init containers, containers, ephemeral containers.
    pub containers: Vec<&'a Value>,
}

/// What a check has against a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub reason: &'static str,
    pub detail: String,
}

type Check = fn(&Subject<'_>) -> Option<Finding>;

struct Row {
    /// Findings come in the order of these names, those of `baseline` first.
    id: &'static str,
    /// The first minor version of each form of the check.
    forms: &'static [(u32, Check)],
    /// The check of `baseline` that this one makes needless.
    replaces: &'static str,
}

const BASELINE: [Row; 12] = [
    row("appArmorProfile", &[(0, baseline::app_armor_profile)], ""),
    row("capabilities_baseline", &[(0, baseline::capabilities)], ""),
    row("hostNamespaces", &[(0, baseline::host_namespaces)], ""),
    row("hostPathVolumes", &[(0, baseline::host_path_volumes)], ""),
    row("hostPorts", &[(0, baseline::host_ports)], ""),
    row("hostProbesAndHostLifecycle", &[(34, baseline::host_probes)], ""),
    row("privileged", &[(0, baseline::privileged)], ""),
    row("procMount", &[(0, baseline::proc_mount), (35, baseline::proc_mount_but_in_user_namespaces)], ""),
    row("seLinuxOptions", &[(0, baseline::se_linux), (31, baseline::se_linux_31)], ""),
    row("seccompProfile_baseline", &[(0, baseline::seccomp_annotations), (19, baseline::seccomp)], ""),
    row(
        "sysctls",
        &[
            (0, baseline::sysctls::<0>),
            (27, baseline::sysctls::<27>),
            (29, baseline::sysctls::<29>),
            (32, baseline::sysctls::<32>),
        ],
        "",
    ),
    row("windowsHostProcess", &[(0, baseline::windows_host_process)], ""),
];

const RESTRICTED: [Row; 7] = [
    row(
        "allowPrivilegeEscalation",
        &[(8, restricted::allow_privilege_escalation), (25, restricted::allow_privilege_escalation_25)],
        "",
    ),
    row(
        "capabilities_restricted",
        &[(22, restricted::capabilities), (25, restricted::capabilities_25)],
        "capabilities_baseline",
    ),
    row("procMount_restricted", &[(35, baseline::proc_mount)], "procMount"),
    row("restrictedVolumes", &[(0, restricted::volumes)], "hostPathVolumes"),
    row("runAsNonRoot", &[(0, restricted::run_as_non_root), (35, restricted::run_as_non_root_35)], ""),
    row("runAsUser", &[(23, restricted::run_as_user), (35, restricted::run_as_user_35)], ""),
    row(
        "seccompProfile_restricted",
        &[(19, restricted::seccomp), (25, restricted::seccomp_25)],
        "seccompProfile_baseline",
    ),
];

const fn row(id: &'static str, forms: &'static [(u32, Check)], replaces: &'static str) -> Row {
    Row { id, forms, replaces }
}

impl Row {
    fn form(&self, minor: u32) -> Option<Check> {
        self.forms.iter().rev().find(|(since, _)| *since <= minor).map(|(_, check)| *check)
    }
}

/// Everything that is wrong with a pod at a level.
pub fn evaluate(policy: LevelVersion, subject: &Subject<'_>) -> Vec<Finding> {
    let minor = policy.version.minor().unwrap_or(u32::MAX);
    let restricted: Vec<(&Row, Check)> = match policy.level {
        Level::Privileged => return Vec::new(),
        Level::Baseline => Vec::new(),
        Level::Restricted => RESTRICTED.iter().filter_map(|row| Some((row, row.form(minor)?))).collect(),
    };
    let needless = |row: &Row| restricted.iter().any(|(other, _)| other.replaces == row.id);
    let baseline = BASELINE.iter().filter(|row| !needless(row)).filter_map(|row| row.form(minor));
    baseline.chain(restricted.iter().map(|(_, check)| *check)).filter_map(|check| check(subject)).collect()
}

/// The findings in one line.
pub fn details(findings: &[Finding]) -> String {
    let shown = findings.iter().map(|finding| match finding.detail.as_str() {
        "" => finding.reason.to_owned(),
        detail => format!("{} ({detail})", finding.reason),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// The kinds of findings in one line.
pub fn reasons(findings: &[Finding]) -> String {
    findings.iter().map(|finding| finding.reason).collect::<Vec<_>>().join(", ")
}

impl Finding {
    pub fn new(reason: &'static str, detail: String) -> Option<Self> {
        Some(Self { reason, detail })
    }

    pub fn when(found: bool, reason: &'static str, detail: impl FnOnce() -> String) -> Option<Self> {
        if found { Self::new(reason, detail()) } else { None }
    }
}

impl<'a> Subject<'a> {
    pub fn new(metadata: Option<&'a Value>, spec: &'a Value) -> Self {
        let containers = ["initContainers", "containers", "ephemeralContainers"]
            .iter()
            .flat_map(|key| spec.get(key).and_then(Value::as_array).into_iter().flatten())
            .collect();
        let annotations = metadata.and_then(|metadata| metadata.get("annotations")?.as_object());
        Self { annotations, spec, containers }
    }

    pub fn volumes(&self) -> impl Iterator<Item = &'a Value> {
        self.spec.get("volumes").and_then(Value::as_array).into_iter().flatten()
    }

    /// The names of the containers that are so.
    pub fn named(&self, is: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.containers.iter().filter(|one| is(one)).map(|one| text(one, "/name")).collect()
    }

    /// Who sets a field of the security context to a bad value, and the values.
    pub fn with_bad(&self, path: &str, bad: impl Fn(&str) -> bool) -> (Vec<String>, Vec<String>) {
        let value = |at: &Value| {
            at.pointer(path).and_then(Value::as_str).filter(|value| bad(value)).map(str::to_owned)
        };
        let who = setters(value(self.spec).is_some(), &self.named(|one| value(one).is_some()));
        let all = std::iter::once(self.spec).chain(self.containers.iter().copied());
        let values: BTreeSet<String> = all.filter_map(value).collect();
        (who, values.into_iter().collect())
    }

    /// The containers that add capabilities which are not allowed, and these.
    pub fn added_capabilities(&self, allowed: impl Fn(&str) -> bool) -> (Vec<&'a str>, BTreeSet<String>) {
        let added = |one: &Value| -> Vec<String> {
            let list = one.pointer("/securityContext/capabilities/add").and_then(Value::as_array);
            let names = list.into_iter().flatten().filter_map(Value::as_str);
            names.filter(|name| !allowed(name)).map(str::to_owned).collect()
        };
        let names = self.containers.iter().flat_map(|one| added(one)).collect();
        (self.named(|one| !added(one).is_empty()), names)
    }
}

/// Whether the pod's users are not the node's.
pub fn user_namespace(subject: &Subject<'_>) -> bool {
    flag(subject.spec, "/hostUsers") == Some(false)
}

pub fn flag(at: &Value, path: &str) -> Option<bool> {
    at.pointer(path).and_then(Value::as_bool)
}

pub fn number(at: &Value, path: &str) -> Option<i64> {
    at.pointer(path).and_then(Value::as_i64)
}

pub fn text<'a>(at: &'a Value, path: &str) -> &'a str {
    at.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

pub fn quoted<T: AsRef<str>>(items: &[T]) -> String {
    items.iter().map(|item| format!("\"{}\"", item.as_ref())).collect::<Vec<_>>().join(", ")
}

pub fn joined(items: &BTreeSet<String>) -> String {
    quoted(&items.iter().collect::<Vec<_>>())
}

/// `container "a"`, `containers "a", "b"`.
pub fn of(noun: &str, names: &[&str]) -> String {
    let plural = if names.len() == 1 { "" } else { "s" };
    format!("{noun}{plural} {}", quoted(names))
}

/// The pod itself and those of its containers that set something.
pub fn setters(pod: bool, containers: &[&str]) -> Vec<String> {
    let mut who: Vec<String> = if pod { vec!["pod".into()] } else { Vec::new() };
    if !containers.is_empty() {
        who.push(of("container", containers));
    }
    who
}
