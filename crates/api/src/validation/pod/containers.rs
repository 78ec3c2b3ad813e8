//! Containers of all three kinds: what they share, and what only some of them may have.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};
use apimachinery::validation as names;

use super::{Options, env, mounts, probes, security, volumes};
use crate::validation::at::At;
use crate::validation::resources;

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

fn names_of<'a>(containers: &At<'a>) -> Vec<&'a str> {
    containers.items().map(|container| container.text("name")).collect()
}

pub fn containers(containers: &At<'_>, pod: &Pod<'_>) -> ErrorList {
    if containers.is_empty() {
        return vec![containers.required("")];
    }
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for container in containers.items() {
        errors.extend(common(&container, pod));
        let name = container.child("name");
        if seen.contains(&name.str()) {
            errors.push(name.duplicate());
        } else {
            seen.push(name.str());
        }
        if let Some(lifecycle) = container.field("lifecycle") {
            errors.extend(probes::lifecycle(&lifecycle, pod.grace));
        }
        errors.extend(probes::probes(&container, pod.grace));
        errors.extend(restart_policy(&container));
    }
    errors.extend(host_ports(containers.items()));
    errors
}

pub fn init_containers(containers: &At<'_>, regular: &At<'_>, pod: &Pod<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen = names_of(regular);
    for container in containers.items() {
        errors.extend(common(&container, pod));
        errors.extend(restart_policy(&container));
        let name = container.child("name");
        if seen.contains(&name.str()) {
            errors.push(name.duplicate());
        } else if !name.is_empty() {
            seen.push(name.str());
        }
        // they run one by one, so that only ports of one can be in each other's way
        let first = At::new(container.value, containers.path.index(0));
        errors.extend(host_ports(std::iter::once(first)));
        if container.text("restartPolicy") == "Always" {
            if let Some(lifecycle) = container.field("lifecycle") {
                errors.extend(probes::lifecycle(&lifecycle, pod.grace));
            }
            errors.extend(probes::probes(&container, pod.grace));
            continue;
        }
        for key in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if let Some(field) = container.field(key) {
                let why = "may not be set for init containers without restartPolicy=Always";
                errors.push(field.forbidden(why));
            }
        }
        if !pod.options.allow_restart_of_init_containers {
            let why = "must not be set to 'RestartContainer' for non-sidecar initContainers";
            errors.extend(restarts_once_run(&container).map(|policy| policy.invalid(why)));
        }
    }
    errors
}

/// Where an init container that runs once asks to be restarted by a resize.
pub fn restarts_once_run<'a>(container: &At<'a>) -> impl Iterator<Item = At<'a>> + use<'a> {
    let runs_once = container.text("restartPolicy") != "Always";
    let policies = container.each("resizePolicy").map(|policy| policy.child("restartPolicy"));
    policies.filter(move |policy| runs_once && policy.str() == "RestartContainer")
}

/// Ephemeral containers join a pod that runs; what others rely on is not for them.
pub fn ephemeral_containers(
    containers: &At<'_>,
    regular: &At<'_>,
    init: &At<'_>,
    pod: &Pod<'_>,
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
    for container in containers.items() {
        errors.extend(common(&container, pod));
        errors.extend(padded_image(&container));
        let name = container.child("name");
        if all.contains(&name.str()) {
            errors.push(name.duplicate());
        } else {
            all.push(name.str());
        }
        let target = container.child("targetContainerName");
        if !target.is_empty() && !others.contains(&target.str()) {
            errors.push(target.not_found());
        }
        for key in NOT_ALLOWED {
            let there = match key {
                "ports" | "resources" | "resizePolicy" | "restartPolicyRules" => container.says(key),
                key => container.has(key),
            };
            if there {
                errors.push(container.child(key).forbidden(WHY));
            }
        }
        for mount in container.each("volumeMounts") {
            for key in ["subPath", "subPathExpr"] {
                if mount.says(key) {
                    errors.push(mount.child(key).forbidden(WHY));
                }
            }
        }
    }
    errors
}

fn common(container: &At<'_>, pod: &Pod<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let name = container.child("name");
    if name.is_empty() {
        errors.push(name.required(""));
    } else {
        errors.extend(name.dns_label());
    }
    errors.extend(container.child("image").must_be_set());
    errors.extend(container.child("terminationMessagePolicy").one_of(&["File", "FallbackToLogsOnError"]));
    errors.extend(ports(&container.child("ports")));
    errors.extend(env::env(&container.child("env")));
    errors.extend(env::env_from(&container.child("envFrom")));
    errors.extend(mounts::mounts_and_devices(container, pod.volumes));
    errors.extend(volumes::pull_policy(&container.child("imagePullPolicy")));
    errors.extend(resources::requirements(
        &container.child("resources"),
        resources::container_resource_name,
        pod.claims,
        pod.options.allow_indivisible_huge_pages,
    ));
    errors.extend(resize_policy(&container.child("resizePolicy"), pod.restart_policy));
    if let Some(context) = container.field("securityContext") {
        errors.extend(security::container(&context, pod.host_users));
    }
    errors
}

/// An image whose name is padded: templates keep such names, since some give them a meaning.
pub fn padded_image(container: &At<'_>) -> Option<Error> {
    let image = container.child("image");
    (image.str() != image.str().trim()).then(|| image.invalid("must not have leading or trailing whitespace"))
}

fn ports(ports: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for port in ports.items() {
        let name = port.child("name");
        let wrong = if name.is_empty() { ErrorList::new() } else { name.follows(names::is_valid_port_name) };
        if !wrong.is_empty() {
            errors.extend(wrong);
        } else if !name.is_empty() && seen.contains(&name.str()) {
            errors.push(name.duplicate());
        } else {
            seen.push(name.str());
        }
        let own = port.child("containerPort");
        errors.extend(if own.is_empty() { own.must_be_set() } else { own.port_number() });
        let host = port.child("hostPort");
        if !host.is_empty() {
            errors.extend(host.port_number());
        }
        errors.extend(port.child("protocol").one_of(&["SCTP", "TCP", "UDP"]));
    }
    errors
}

/// No two containers may ask for one port of the host.
fn host_ports<'a>(containers: impl Iterator<Item = At<'a>>) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: Vec<String> = Vec::new();
    for port in containers.flat_map(|container| container.each("ports")) {
        let number = port.number_or_zero("hostPort");
        if number == 0 {
            continue;
        }
        let key = format!("{}/{}/{number}", port.text("protocol"), port.text("hostIP"));
        if seen.contains(&key) {
            errors.push(Error::duplicate(&port.child("hostPort").path, key));
        } else {
            seen.push(key);
        }
    }
    errors
}

/// Errors of the policies stand at the list.
fn resize_policy(policies: &At<'_>, pod_restarts: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for policy in policies.items() {
        let [resource, restart] = ["resourceName", "restartPolicy"]
            .map(|key| At::new(policy.child(key).value, policies.path.clone()));
        if seen.contains(&resource.str()) {
            errors.push(Error::duplicate(&policy.path, resource.str()));
        }
        seen.push(resource.str());
        errors.extend(resource.one_of(&["cpu", "memory"]));
        errors.extend(restart.one_of(&["NotRequired", "RestartContainer"]));
        if pod_restarts == "Never" && restart.str() != "NotRequired" {
            errors.push(restart.invalid_text("must be 'NotRequired' when pod `restartPolicy` is 'Never'"));
        }
    }
    errors
}

/// A restart policy of the container's own, and rules by exit code, which need one.
fn restart_policy(container: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let (policy, rules) = (container.child("restartPolicy"), container.child("restartPolicyRules"));
    if !policy.is_set() && !rules.is_empty() {
        errors.push(policy.required("must specify restartPolicy when restart rules are used"));
    }
    errors.extend(policy.supported(&RESTART_POLICIES));
    if rules.len() > MAX_RESTART_RULES {
        errors.push(rules.too_many(MAX_RESTART_RULES));
    }
    for rule in rules.items() {
        errors.extend(rule.child("action").among(&["Restart", "RestartAllContainers"]));
        let codes = rule.child("exitCodes");
        if !codes.is_set() {
            errors.push(codes.required("must be specified"));
            continue;
        }
        errors.extend(codes.child("operator").among(&["In", "NotIn"]));
        let values = codes.child("values");
        if values.len() > MAX_EXIT_CODES {
            errors.push(values.too_many(MAX_EXIT_CODES));
        }
    }
    errors
}

/// Where the pod shares the host's network, a container's port is the host's.
pub fn host_network(containers: &At<'_>, is_pod: bool) -> ErrorList {
    let ports = containers.items().flat_map(|container| container.each("ports"));
    let wrong = ports.filter_map(|port| {
        let host = port.child("hostPort");
        let differs = host.int_or_zero() != port.number_or_zero("containerPort");
        ((is_pod || !host.is_empty()) && differs)
            .then(|| host.invalid_number("must match `containerPort` when `hostNetwork` is true"))
    });
    wrong.collect()
}
