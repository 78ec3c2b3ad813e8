//! What an update of a pod's status may say.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;
use apimachinery::{Object, Value};

use super::Options;
use super::update::annotations_update;
use crate::validation::value::{
    field, go_struct, has, immutable, int, invalid, is_set, list, optional, showing, supported, text,
};

const MAX_ID: i64 = i32::MAX as i64;
const STATUSES: [(&str, &str); 3] = [
    ("containerStatuses", "containers"),
    ("initContainerStatuses", "initContainers"),
    ("ephemeralContainerStatuses", ""),
];

pub fn pod_status_update(new: &Object, old: &Object) -> ErrorList {
    let options = Options::after(old, true);
    let none = Value::Null;
    let spec = old.get(&["spec"]).unwrap_or(&none);
    let status = new.get(&["status"]).unwrap_or(&none);
    let path = Path::new("status");
    let mut errors = annotations_update(new, old, &options);
    errors.extend(conditions(status));
    if new.get_str(&["spec", "nodeName"]) != old.get_str(&["spec", "nodeName"]) {
        errors.push(Error::forbidden(&path.child("nodeName"), "may not be changed directly"));
    }
    let nominated = text(status, "nominatedNodeName");
    if !nominated.is_empty() && nominated != old.get_str(&["status", "nominatedNodeName"]) {
        let messages = names::name_is_dns_subdomain(nominated, false);
        errors.extend(invalid(&path.child("nominatedNodeName"), nominated, messages));
    }
    errors.extend(immutable(&path.child("qosClass"), new, old, &["status", "qosClass"]));
    for (key, containers) in STATUSES {
        let before = old.get_array(&["status", key]);
        let policy = if containers.is_empty() { "Never" } else { text(spec, "restartPolicy") };
        let own = list(spec, containers);
        errors.extend(transitions(list(status, key), before, own, policy, spec, &path.child(key)));
    }
    errors.extend(claim_statuses(status, list(spec, "resourceClaims"), &path.child("resourceClaimStatuses")));
    errors.extend(pod_ips(status, &path.child("podIPs")));
    errors.extend(host_ips(status, &path.child("hostIPs")));
    let windows = spec.pointer("/os/name").and_then(Value::as_str) == Some("windows");
    for (key, _) in STATUSES {
        errors.extend(users(list(status, key), windows, &path.child(key)));
    }
    for (key, containers) in STATUSES {
        let at = path.child(key);
        for (index, one) in list(status, key).iter().enumerate() {
            let at = at.index(index).child("allocatedResourcesStatus");
            if containers.is_empty() {
                if is_set(one, "allocatedResourcesStatus") {
                    errors.push(Error::forbidden(&at, "must not be specified in container status"));
                }
                continue;
            }
            errors.extend(allocated(one, list(spec, containers), &at));
        }
    }
    errors
}

fn conditions(status: &Value) -> ErrorList {
    let path = Path::new("metadata").child("conditions");
    let mut errors = ErrorList::new();
    for (index, condition) in list(status, "conditions").iter().enumerate() {
        let kind = text(condition, "type");
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            errors.extend(invalid(&path.index(index).child("Type"), kind, names::is_qualified_name(kind)));
        }
    }
    errors
}

/// A container that has ended and does not start again stays ended.
fn transitions(
    new: &[Value],
    old: &[Value],
    containers: &[Value],
    policy: &str,
    spec: &Value,
    path: &Path,
) -> ErrorList {
    let mut errors = ErrorList::new();
    if policy == "Always" || restarts_all(spec) {
        return errors;
    }
    for (index, before) in old.iter().enumerate() {
        let Some(ended) = before.get("state").and_then(|state| field(state, "terminated")) else { continue };
        let name = text(before, "name");
        let code = int(ended, "exitCode").unwrap_or_default();
        let container = containers.iter().find(|container| text(container, "name") == name);
        if may_restart(container, policy, code) {
            continue;
        }
        let revived = |after: &&Value| {
            text(after, "name") == name && !after.get("state").is_some_and(|state| has(state, "terminated"))
        };
        for _ in new.iter().filter(revived) {
            let why = "may not be transitioned to non-terminated state";
            errors.push(Error::forbidden(&path.index(index).child("state"), why));
        }
    }
    errors
}

/// Whether a rule of some container restarts all of the pod.
fn restarts_all(spec: &Value) -> bool {
    ["containers", "initContainers"]
        .iter()
        .flat_map(|key| list(spec, key))
        .flat_map(|container| list(container, "restartPolicyRules"))
        .any(|rule| text(rule, "action") == "RestartAllContainers")
}

/// Whether a container starts again after it ended with `code`: by its own rules and policy, else by the pod's.
fn may_restart(container: Option<&Value>, pod_policy: &str, code: i64) -> bool {
    let by = |policy: &str| policy == "Always" || (policy == "OnFailure" && code != 0);
    let Some(container) = container else { return by(pod_policy) };
    for rule in list(container, "restartPolicyRules") {
        let codes = &rule["exitCodes"];
        let among = list(codes, "values").iter().any(|value| value.as_i64() == Some(code));
        let matches = match text(codes, "operator") {
            "In" => among,
            "NotIn" => !among,
            _ => false,
        };
        if matches {
            return text(rule, "action") == "Restart";
        }
    }
    by(optional(container, "restartPolicy").unwrap_or(pod_policy))
}

fn claim_statuses(status: &Value, claims: &[Value], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for (index, one) in list(status, "resourceClaimStatuses").iter().enumerate() {
        let at = path.index(index).child("name");
        let name = text(one, "name");
        if !claims.iter().any(|claim| text(claim, "name") == name) {
            let why = "must match the name of an entry in `spec.resourceClaims`";
            errors.push(Error::invalid(&at, name, why));
        }
        if seen.contains(&name) {
            errors.push(Error::duplicate(&at, name));
        }
        seen.push(name);
        if let Some(claim) = optional(one, "resourceClaimName") {
            errors.extend(invalid(&at, claim, names::name_is_dns_subdomain(claim, false)));
        }
    }
    errors
}

/// At most one address of each family.
fn one_per_family(ips: &[&str]) -> bool {
    let mut families: Vec<bool> =
        ips.iter().filter_map(|ip| Some(names::parse_ip_sloppy(ip)?.is_ipv4())).collect();
    families.sort_unstable();
    ips.len() == 2 && families == [false, true]
}

fn unique(entries: &[Value], path: &Path) -> ErrorList {
    let repeated = |(index, entry): &(usize, &Value)| {
        entries[..*index].iter().any(|o| text(o, "ip") == text(entry, "ip"))
    };
    entries
        .iter()
        .enumerate()
        .filter(repeated)
        .map(|(index, entry)| showing(Error::duplicate(&path.index(index), Value::Null), ip(entry)))
        .collect()
}

fn ip(entry: &Value) -> String {
    go_struct(&[("IP", text(entry, "ip").into())])
}

fn too_many(entries: &[Value], path: &Path) -> Error {
    let why = "may specify no more than one IP for each IP family";
    let all: Vec<String> = entries.iter().map(ip).collect();
    showing(Error::invalid(path, Value::Null, why), format!("[{}]", all.join(",")))
}

fn pod_ips(status: &Value, path: &Path) -> ErrorList {
    let entries = list(status, "podIPs");
    let ips: Vec<&str> = entries.iter().map(|entry| text(entry, "ip")).collect();
    let mut errors = valid_ips(&ips, path);
    if ips.len() > 1 {
        if !one_per_family(&ips) {
            errors.push(too_many(entries, path));
        }
        errors.extend(unique(entries, path));
    }
    errors
}

fn valid_ips(ips: &[&str], path: &Path) -> ErrorList {
    let check =
        |(index, ip): (usize, &&str)| names::is_valid_ip_for_legacy_field(&path.index(index), ip, &[]);
    ips.iter().enumerate().flat_map(check).collect()
}

fn host_ips(status: &Value, path: &Path) -> ErrorList {
    let entries = list(status, "hostIPs");
    let ips: Vec<&str> = entries.iter().map(|entry| text(entry, "ip")).collect();
    let Some(first) = ips.first() else { return ErrorList::new() };
    let mut errors = ErrorList::new();
    if text(status, "hostIP") != *first {
        errors.push(Error::invalid(&path.index(0).child("ip"), *first, "must be equal to `hostIP`"));
    }
    errors.extend(valid_ips(&ips, path));
    if ips.len() > 1 {
        errors.extend(unique(entries, path));
        if !one_per_family(&ips) {
            errors.push(too_many(entries, path));
        }
    }
    errors
}

fn users(statuses: &[Value], windows: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let id = |value: i64, at: &Path| invalid(at, value, names::is_in_range(value, 0, MAX_ID));
    for (index, status) in statuses.iter().enumerate() {
        let Some(linux) = status.get("user").and_then(|user| field(user, "linux")) else { continue };
        let at = path.index(index).child("linux");
        if windows {
            errors.push(Error::forbidden(&at, "cannot be set for a windows pod"));
            continue;
        }
        for key in ["uid", "gid"] {
            errors.extend(id(int(linux, key).unwrap_or_default(), &at.child(key)));
        }
        for (index, group) in list(linux, "supplementalGroups").iter().enumerate() {
            let group = group.as_i64().unwrap_or_default();
            errors.extend(id(group, &at.child("supplementalGroups").index(index)));
        }
    }
    errors
}

/// How the devices of a container fare: of resources it asked for, each device once.
fn allocated(status: &Value, containers: &[Value], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let container = containers.iter().find(|container| text(container, "name") == text(status, "name"));
    for (index, resource) in list(status, "allocatedResourcesStatus").iter().enumerate() {
        let at = path.index(index);
        let name = text(resource, "name");
        if let Some(container) = container {
            let resources = &container["resources"];
            let (found, why) = match name.strip_prefix("claim:") {
                Some(claim) => (
                    list(resources, "claims").iter().any(|one| match text(one, "request") {
                        "" => claim == text(one, "name"),
                        request => claim == format!("{}/{request}", text(one, "name")),
                    }),
                    "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty",
                ),
                None => (
                    resources.get("requests").is_some_and(|requests| requests.get(name).is_some()),
                    "must match one of the container's resource requests",
                ),
            };
            if !found {
                errors.push(Error::invalid(&at.child("name"), name, why));
            }
        }
        let mut seen: Vec<&str> = Vec::new();
        for (index, device) in list(resource, "resources").iter().enumerate() {
            let at = at.child("resources").index(index);
            let healths = ["Healthy", "Unhealthy", "Unknown"];
            errors.extend(supported(text(device, "health"), &healths, &at.child("health")));
            let id = text(device, "resourceID");
            if seen.contains(&id) {
                errors.push(Error::duplicate(&at.child("resourceID"), id));
            }
            seen.push(id);
        }
    }
    errors
}
