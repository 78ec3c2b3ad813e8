//! Containers of all three kinds: what they share, and what only some of them may have.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;

use super::{Options, env, mounts, probes, security, volumes};
use crate::validation::resources;
use crate::validation::value::{
    field, has, int, invalid, is_set, list, number, one_of, optional, require, supported, text,
};

const RESTART_POLICIES: [&str; 3] = ["Always", "Never", "OnFailure"];
const MAX_RESTART_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;

/// What the containers of a pod need to know of it.
pub struct Pod<'a> {
    pub volumes: &'a [(&'a str, &'a Value)],
    pub claims: &'a [&'a str],
    pub grace: Option<i64>,
    pub restart_policy: &'a str,
    pub host_users: bool,
    pub options: &'a Options,
}

fn names_of(containers: &[Value]) -> Vec<&str> {
    containers.iter().map(|container| text(container, "name")).collect()
}

pub fn containers(containers: &[Value], pod: &Pod<'_>, path: &Path) -> ErrorList {
    if containers.is_empty() {
        return vec![Error::required(path, "")];
    }
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        let at = path.index(index);
        errors.extend(common(container, pod, &at));
        let name = text(container, "name");
        if seen.contains(&name) {
            errors.push(Error::duplicate(&at.child("name"), name));
        } else {
            seen.push(name);
        }
        if let Some(lifecycle) = field(container, "lifecycle") {
            errors.extend(probes::lifecycle(lifecycle, pod.grace, &at.child("lifecycle")));
        }
        errors.extend(probes::probes(container, pod.grace, &at));
        errors.extend(restart_policy(container, &at));
    }
    errors.extend(host_ports(containers, path));
    errors
}

pub fn init_containers(containers: &[Value], regular: &[Value], pod: &Pod<'_>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen = names_of(regular);
    for (index, container) in containers.iter().enumerate() {
        let at = path.index(index);
        errors.extend(common(container, pod, &at));
        errors.extend(restart_policy(container, &at));
        let name = text(container, "name");
        if seen.contains(&name) {
            errors.push(Error::duplicate(&at.child("name"), name));
        } else if !name.is_empty() {
            seen.push(name);
        }
        // they run one by one, so that only ports of one can be in each other's way
        errors.extend(host_ports(std::slice::from_ref(container), path));
        if text(container, "restartPolicy") == "Always" {
            if let Some(lifecycle) = field(container, "lifecycle") {
                errors.extend(probes::lifecycle(lifecycle, pod.grace, &at.child("lifecycle")));
            }
            errors.extend(probes::probes(container, pod.grace, &at));
            continue;
        }
        for key in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if has(container, key) {
                let why = "may not be set for init containers without restartPolicy=Always";
                errors.push(Error::forbidden(&at.child(key), why));
            }
        }
    }
    errors
}

/// Ephemeral containers join a pod that runs; what others rely on is not for them.
pub fn ephemeral_containers(
    containers: &[Value],
    regular: &[Value],
    init: &[Value],
    pod: &Pod<'_>,
    path: &Path,
) -> ErrorList {
    const WHY: &str = "cannot be set for an Ephemeral Container";
    const NOT_ALLOWED: [&str; 9] = [
        "ports",
        "resources",
        "resizePolicy",
        "restartPolicy",
        "restartPolicyRules",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle",
    ];
    let mut errors = ErrorList::new();
    let mut others = names_of(regular);
    others.extend(names_of(init));
    let mut all = others.clone();
    for (index, container) in containers.iter().enumerate() {
        let at = path.index(index);
        errors.extend(common(container, pod, &at));
        errors.extend(padded_image(container, &at));
        let name = text(container, "name");
        if all.contains(&name) {
            errors.push(Error::duplicate(&at.child("name"), name));
        } else {
            all.push(name);
        }
        let target = text(container, "targetContainerName");
        if !target.is_empty() && !others.contains(&target) {
            errors.push(Error::not_found(&at.child("targetContainerName"), target));
        }
        for key in NOT_ALLOWED {
            let there = match key {
                "ports" | "resources" | "resizePolicy" | "restartPolicyRules" => is_set(container, key),
                key => has(container, key),
            };
            if there {
                errors.push(Error::forbidden(&at.child(key), WHY));
            }
        }
        for (index, mount) in list(container, "volumeMounts").iter().enumerate() {
            for key in ["subPath", "subPathExpr"] {
                if !text(mount, key).is_empty() {
                    let at = at.child("volumeMounts").index(index).child(key);
                    errors.push(Error::forbidden(&at, WHY));
                }
            }
        }
    }
    errors
}

fn common(container: &Value, pod: &Pod<'_>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    match text(container, "name") {
        "" => errors.push(Error::required(&path.child("name"), "")),
        name => errors.extend(invalid(&path.child("name"), name, names::is_dns1123_label(name))),
    }
    errors.extend(require(container, "image", path));
    let policy = text(container, "terminationMessagePolicy");
    let at = path.child("terminationMessagePolicy");
    errors.extend(one_of(policy, &["File", "FallbackToLogsOnError"], &at));
    errors.extend(ports(list(container, "ports"), &path.child("ports")));
    errors.extend(env::env(list(container, "env"), &path.child("env")));
    errors.extend(env::env_from(list(container, "envFrom"), &path.child("envFrom")));
    errors.extend(mounts::mounts_and_devices(container, pod.volumes, path));
    let pull = text(container, "imagePullPolicy");
    errors.extend(volumes::pull_policy(pull, &path.child("imagePullPolicy")));
    errors.extend(resources::requirements(
        &container["resources"],
        resources::container_resource_name,
        pod.claims,
        &path.child("resources"),
        pod.options.allow_indivisible_huge_pages,
    ));
    errors.extend(resize_policy(container, pod.restart_policy, &path.child("resizePolicy")));
    if let Some(context) = field(container, "securityContext") {
        errors.extend(security::container(context, pod.host_users, &path.child("securityContext")));
    }
    errors
}

/// An image whose name is padded: templates keep such names, since some give them a meaning.
pub fn padded_image(container: &Value, path: &Path) -> ErrorList {
    let image = text(container, "image");
    if image == image.trim() {
        return ErrorList::new();
    }
    vec![Error::invalid(&path.child("image"), image, "must not have leading or trailing whitespace")]
}

fn ports(ports: &[Value], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let at = path.index(index);
        let name = text(port, "name");
        let messages = if name.is_empty() { Vec::new() } else { names::is_valid_port_name(name) };
        if !messages.is_empty() {
            errors.extend(invalid(&at.child("name"), name, messages));
        } else if !name.is_empty() && seen.contains(&name) {
            errors.push(Error::duplicate(&at.child("name"), name));
        } else {
            seen.push(name);
        }
        match number(port, "containerPort") {
            0 => errors.push(Error::required(&at.child("containerPort"), "")),
            number => {
                errors.extend(invalid(&at.child("containerPort"), number, names::is_valid_port_num(number)));
            }
        }
        let host = number(port, "hostPort");
        if host != 0 {
            errors.extend(invalid(&at.child("hostPort"), host, names::is_valid_port_num(host)));
        }
        errors.extend(one_of(text(port, "protocol"), &["SCTP", "TCP", "UDP"], &at.child("protocol")));
    }
    errors
}

/// No two containers may ask for one port of the host.
fn host_ports(containers: &[Value], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: Vec<String> = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        for (port_index, port) in list(container, "ports").iter().enumerate() {
            let number = number(port, "hostPort");
            if number == 0 {
                continue;
            }
            let key = format!("{}/{}/{number}", text(port, "protocol"), text(port, "hostIP"));
            if seen.contains(&key) {
                let at = path.index(index).child("ports").index(port_index).child("hostPort");
                errors.push(Error::duplicate(&at, key));
            } else {
                seen.push(key);
            }
        }
    }
    errors
}

fn resize_policy(container: &Value, pod_restarts: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for (index, policy) in list(container, "resizePolicy").iter().enumerate() {
        let (resource, restart) = (text(policy, "resourceName"), text(policy, "restartPolicy"));
        if seen.contains(&resource) {
            errors.push(Error::duplicate(&path.index(index), resource));
        }
        seen.push(resource);
        errors.extend(one_of(resource, &["cpu", "memory"], path));
        errors.extend(one_of(restart, &["NotRequired", "RestartContainer"], path));
        if pod_restarts == "Never" && restart != "NotRequired" {
            let why = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.push(Error::invalid(path, restart, why));
        }
    }
    errors
}

/// A restart policy of the container's own, and rules by exit code, which need one.
fn restart_policy(container: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let rules = list(container, "restartPolicyRules");
    let at = path.child("restartPolicy");
    match optional(container, "restartPolicy") {
        Some(policy) => errors.extend(supported(policy, &RESTART_POLICIES, &at)),
        None if !rules.is_empty() => {
            errors.push(Error::required(&at, "must specify restartPolicy when restart rules are used"));
        }
        None => {}
    }
    let path = path.child("restartPolicyRules");
    if rules.len() > MAX_RESTART_RULES {
        errors.push(Error::too_many(&path, rules.len(), MAX_RESTART_RULES));
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = path.index(index);
        let actions = ["Restart", "RestartAllContainers"];
        errors.extend(supported(text(rule, "action"), &actions, &path.child("action")));
        let at = path.child("exitCodes");
        let Some(codes) = field(rule, "exitCodes") else {
            errors.push(Error::required(&at, "must be specified"));
            continue;
        };
        errors.extend(supported(text(codes, "operator"), &["In", "NotIn"], &at.child("operator")));
        let values = list(codes, "values").len();
        if values > MAX_EXIT_CODES {
            errors.push(Error::too_many(&at.child("values"), values, MAX_EXIT_CODES));
        }
    }
    errors
}

/// Where the pod shares the host's network, a container's port is the host's.
pub fn host_network(spec: &Value, is_pod: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, container) in list(spec, "containers").iter().enumerate() {
        for (port_index, port) in list(container, "ports").iter().enumerate() {
            let (host, own) = (number(port, "hostPort"), int(port, "containerPort").unwrap_or_default());
            if (is_pod || host != 0) && host != own {
                let at = path.index(index).child("ports").index(port_index).child("hostPort");
                let why = "must match `containerPort` when `hostNetwork` is true";
                errors.push(Error::invalid(&at, host, why));
            }
        }
    }
    errors
}
