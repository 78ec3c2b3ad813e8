//! The checks of the level `baseline`: what gives a container power over its node.

use std::collections::BTreeSet;

use apimachinery::Value;

use super::checks::{Finding, Subject, flag, joined, number, of, quoted, setters, text, user_namespace};

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Harmless kernel parameters, each with the minor version that first allowed it.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

pub fn app_armor_profile(subject: &Subject<'_>) -> Option<Finding> {
    let path = "/securityContext/appArmorProfile/type";
    let (mut who, mut values) =
        subject.with_bad(path, |kind| !matches!(kind, "RuntimeDefault" | "Localhost"));
    let mut annotations: Vec<String> = subject
        .annotations
        .into_iter()
        .flatten()
        .filter(|(key, _)| key.starts_with(APP_ARMOR))
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(_, value)| {
            !(value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/"))
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    annotations.sort();
    if !annotations.is_empty() {
        who.push(if annotations.len() == 1 { "annotation" } else { "annotations" }.into());
        values.append(&mut annotations);
    }
    if who.is_empty() {
        return None;
    }
    let reason = if values.len() == 1 { "forbidden AppArmor profile" } else { "forbidden AppArmor profiles" };
    Finding::new(
        reason,
        format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(&values)),
    )
}

pub fn capabilities(subject: &Subject<'_>) -> Option<Finding> {
    let (bad, added) = subject.added_capabilities(|name| CAPABILITIES.contains(&name));
    let detail = || {
        format!(
            "{} must not include {} in securityContext.capabilities.add",
            of("container", &bad),
            joined(&added)
        )
    };
    Finding::when(!bad.is_empty(), "non-default capabilities", detail)
}

pub fn host_namespaces(subject: &Subject<'_>) -> Option<Finding> {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|key| flag(subject.spec, &format!("/{key}")) == Some(true))
        .map(|key| format!("{key}=true"))
        .collect();
    Finding::when(!shared.is_empty(), "host namespaces", || shared.join(", "))
}

pub fn host_path_volumes(subject: &Subject<'_>) -> Option<Finding> {
    let bad: Vec<&str> = subject
        .volumes()
        .filter(|volume| volume.get("hostPath").is_some())
        .map(|volume| text(volume, "/name"))
        .collect();
    Finding::when(!bad.is_empty(), "hostPath volumes", || of("volume", &bad))
}

pub fn host_ports(subject: &Subject<'_>) -> Option<Finding> {
    let mut ports = BTreeSet::new();
    let mut bad = Vec::new();
    for container in &subject.containers {
        let taken: Vec<i64> = container["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|port| number(port, "/hostPort").filter(|port| *port != 0))
            .collect();
        if !taken.is_empty() {
            bad.push(text(container, "/name"));
        }
        ports.extend(taken.into_iter().map(|port| port.to_string()));
    }
    let detail = || {
        let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
        let verb = if bad.len() == 1 { "uses" } else { "use" };
        let noun = if ports.len() == 1 { "hostPort" } else { "hostPorts" };
        format!("{} {verb} {noun} {}", of("container", &bad), ports.join(", "))
    };
    Finding::when(!bad.is_empty(), "hostPort", detail)
}

pub fn host_probes(subject: &Subject<'_>) -> Option<Finding> {
    const HANDLERS: [&str; 5] =
        ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle/postStart", "lifecycle/preStop"];
    let (mut bad, mut hosts) = (BTreeSet::new(), BTreeSet::new());
    for container in &subject.containers {
        for handler in HANDLERS {
            for action in ["httpGet", "tcpSocket"] {
                let host = text(container, &format!("/{handler}/{action}/host"));
                if !host.is_empty() {
                    bad.insert(text(container, "/name"));
                    hosts.insert(host.to_owned());
                }
            }
        }
    }
    let detail = || {
        let bad: Vec<&str> = bad.iter().copied().collect();
        let verb = if bad.len() == 1 { "uses" } else { "use" };
        let noun = if hosts.len() == 1 { "probe or lifecycle host" } else { "probe or lifecycle hosts" };
        format!("{} {verb} {noun} {}", of("container", &bad), joined(&hosts))
    };
    Finding::when(!bad.is_empty(), "probe or lifecycle host", detail)
}

pub fn privileged(subject: &Subject<'_>) -> Option<Finding> {
    let bad = subject.named(|container| flag(container, "/securityContext/privileged") == Some(true));
    Finding::when(!bad.is_empty(), "privileged", || {
        format!("{} must not set securityContext.privileged=true", of("container", &bad))
    })
}

pub fn proc_mount(subject: &Subject<'_>) -> Option<Finding> {
    fn kind(container: &Value) -> &str {
        text(container, "/securityContext/procMount")
    }
    let wrong = |container: &Value| !matches!(kind(container), "" | "Default");
    let bad = subject.named(wrong);
    let kinds: BTreeSet<String> =
        subject.containers.iter().filter(|one| wrong(one)).map(|one| kind(one).to_owned()).collect();
    Finding::when(!bad.is_empty(), "procMount", || {
        format!("{} must not set securityContext.procMount to {}", of("container", &bad), joined(&kinds))
    })
}

pub fn proc_mount_but_in_user_namespaces(subject: &Subject<'_>) -> Option<Finding> {
    if user_namespace(subject) { None } else { proc_mount(subject) }
}

pub fn se_linux(subject: &Subject<'_>) -> Option<Finding> {
    se_linux_of(subject, &["container_t", "container_init_t", "container_kvm_t"])
}

pub fn se_linux_31(subject: &Subject<'_>) -> Option<Finding> {
    se_linux_of(subject, &["container_t", "container_init_t", "container_kvm_t", "container_engine_t"])
}

fn se_linux_of(subject: &Subject<'_>, types: &[&str]) -> Option<Finding> {
    let option =
        |at: &Value, key: &str| text(at, &format!("/securityContext/seLinuxOptions/{key}")).to_owned();
    let bad_type = |at: &Value| Some(option(at, "type")).filter(|t| !t.is_empty() && !types.contains(&&**t));
    let wrong = |at: &Value| {
        bad_type(at).is_some() || !option(at, "user").is_empty() || !option(at, "role").is_empty()
    };
    let who = setters(wrong(subject.spec), &subject.named(wrong));
    let all: Vec<&Value> = std::iter::once(subject.spec).chain(subject.containers.iter().copied()).collect();
    let bad_types: BTreeSet<String> = all.iter().filter_map(|at| bad_type(at)).collect();
    let mut what = Vec::new();
    if !bad_types.is_empty() {
        what.push(format!("{} {}", if bad_types.len() == 1 { "type" } else { "types" }, joined(&bad_types)));
    }
    for key in ["user", "role"] {
        if all.iter().any(|at| !option(at, key).is_empty()) {
            what.push(format!("{key} may not be set"));
        }
    }
    Finding::when(!who.is_empty(), "seLinuxOptions", || {
        format!("{} set forbidden securityContext.seLinuxOptions: {}", who.join(" and "), what.join("; "))
    })
}

/// By annotations, as before 1.19.
pub fn seccomp_annotations(subject: &Subject<'_>) -> Option<Finding> {
    let keys = std::iter::once(SECCOMP_POD.to_owned())
        .chain(subject.containers.iter().map(|one| format!("{SECCOMP_CONTAINER}{}", text(one, "/name"))));
    let bad: BTreeSet<String> = keys
        .filter_map(|key| {
            let value = subject.annotations?.get(&key)?.as_str()?;
            let good =
                matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
            (!good).then(|| format!("{key}={value:?}"))
        })
        .collect();
    Finding::when(!bad.is_empty(), "seccompProfile", || {
        let noun = if bad.len() == 1 { "annotation" } else { "annotations" };
        format!("forbidden {noun} {}", bad.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
    })
}

pub fn seccomp(subject: &Subject<'_>) -> Option<Finding> {
    let path = "/securityContext/seccompProfile/type";
    let (who, values) = subject.with_bad(path, |kind| !matches!(kind, "RuntimeDefault" | "Localhost"));
    Finding::when(!who.is_empty(), "seccompProfile", || {
        format!(
            "{} must not set securityContext.seccompProfile.type to {}",
            who.join(" and "),
            quoted(&values)
        )
    })
}

pub fn sysctls<const MINOR: u32>(subject: &Subject<'_>) -> Option<Finding> {
    let allowed = |name: &str| SYSCTLS.iter().any(|(one, since)| *one == name && *since <= MINOR);
    let set = subject.spec.pointer("/securityContext/sysctls").and_then(Value::as_array);
    let bad: Vec<&str> =
        set.into_iter().flatten().map(|one| text(one, "/name")).filter(|name| !allowed(name)).collect();
    Finding::when(!bad.is_empty(), "forbidden sysctls", || bad.join(", "))
}

pub fn windows_host_process(subject: &Subject<'_>) -> Option<Finding> {
    let wrong = |at: &Value| flag(at, "/securityContext/windowsOptions/hostProcess") == Some(true);
    let who = setters(wrong(subject.spec), &subject.named(wrong));
    Finding::when(!who.is_empty(), "hostProcess", || {
        format!("{} must not set securityContext.windowsOptions.hostProcess=true", who.join(" and "))
    })
}
