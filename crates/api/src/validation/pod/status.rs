//! What an update of a pod's status may say.

use apimachinery::Object;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;

use super::Options;
use super::update::annotations_update;
use crate::validation::at::At;
use crate::validation::forms::unchanged;
use crate::validation::value::{go_struct, text};

const MAX_ID: i64 = i32::MAX as i64;
const STATUSES: [(&str, &str); 3] = [
    ("containerStatuses", "containers"),
    ("initContainerStatuses", "initContainers"),
    ("ephemeralContainerStatuses", ""),
];

pub fn pod_status_update(new: &Object, old: &Object) -> ErrorList {
    let options = Options::after(old, true);
    let (spec, status, before) = (At::of(old, &["spec"]), At::of(new, &["status"]), At::of(old, &["status"]));
    let mut errors = annotations_update(new, old, &options);
    errors.extend(conditions(&status));
    if new.get_str(&["spec", "nodeName"]) != spec.text("nodeName") {
        errors.push(status.child("nodeName").forbidden("may not be changed directly"));
    }
    let nominated = status.child("nominatedNodeName");
    if !nominated.is_empty() && nominated.str() != before.text("nominatedNodeName") {
        errors.extend(nominated.subdomain());
    }
    errors.extend(unchanged(&status.child("qosClass"), &before.child("qosClass")));
    for (key, containers) in STATUSES {
        let policy = if containers.is_empty() { "Never" } else { spec.text("restartPolicy") };
        errors.extend(transitions(&status.child(key), &before.child(key), containers, policy, &spec));
    }
    errors.extend(claim_statuses(&status.child("resourceClaimStatuses"), &spec.child("resourceClaims")));
    errors.extend(pod_ips(&status.child("podIPs")));
    errors.extend(host_ips(&status));
    let windows = spec.child("os").text("name") == "windows";
    for (key, _) in STATUSES {
        errors.extend(users(&status.child(key), windows));
    }
    for (key, containers) in STATUSES {
        for one in status.each(key) {
            let allocated = one.child("allocatedResourcesStatus");
            if !containers.is_empty() {
                errors.extend(self::allocated(&allocated, one.text("name"), &spec.child(containers)));
            } else if !allocated.is_empty() {
                errors.push(allocated.forbidden("must not be specified in container status"));
            }
        }
    }
    errors
}

/// Upstream names them as if they stood in the metadata.
fn conditions(status: &At<'_>) -> ErrorList {
    let path = Path::new("metadata").child("conditions");
    let mut errors = ErrorList::new();
    for (index, condition) in status.each("conditions").enumerate() {
        let kind = At::new(condition.child("type").value, path.index(index).child("Type"));
        if !matches!(kind.str(), "PodScheduled" | "Ready" | "Initialized") {
            errors.extend(kind.qualified_name());
        }
    }
    errors
}

/// A container that has ended and does not start again stays ended. `containers` names those of the spec.
fn transitions(new: &At<'_>, old: &At<'_>, containers: &str, policy: &str, spec: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    if policy == "Always" || restarts_all(spec) {
        return errors;
    }
    for before in old.items() {
        let Some(ended) = before.child("state").field("terminated") else { continue };
        let name = before.text("name");
        let container = spec.each(containers).find(|container| container.text("name") == name);
        if may_restart(container.as_ref(), policy, ended.number_or_zero("exitCode")) {
            continue;
        }
        let revived = |after: &At<'_>| after.text("name") == name && !after.child("state").has("terminated");
        let why = "may not be transitioned to non-terminated state";
        errors.extend(new.items().filter(revived).map(|_| before.child("state").forbidden(why)));
    }
    errors
}

/// Whether a rule of some container restarts all of the pod.
fn restarts_all(spec: &At<'_>) -> bool {
    ["containers", "initContainers"]
        .iter()
        .flat_map(|key| spec.each(key))
        .flat_map(|container| container.each("restartPolicyRules"))
        .any(|rule| rule.text("action") == "RestartAllContainers")
}

/// Whether a container starts again after it ended with `code`: by its own rules and policy, else by the pod's.
fn may_restart(container: Option<&At<'_>>, pod_policy: &str, code: i64) -> bool {
    let by = |policy: &str| policy == "Always" || (policy == "OnFailure" && code != 0);
    let Some(container) = container else { return by(pod_policy) };
    for rule in container.each("restartPolicyRules") {
        let codes = rule.child("exitCodes");
        let among = codes.child("values").list().iter().any(|value| value.as_i64() == Some(code));
        let matches = match codes.text("operator") {
            "In" => among,
            "NotIn" => !among,
            _ => false,
        };
        if matches {
            return rule.text("action") == "Restart";
        }
    }
    by(container.optional("restartPolicy").unwrap_or(pod_policy))
}

fn claim_statuses(statuses: &At<'_>, claims: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for status in statuses.items() {
        let name = status.child("name");
        if !claims.list().iter().any(|claim| text(claim, "name") == name.str()) {
            errors.push(name.invalid_text("must match the name of an entry in `spec.resourceClaims`"));
        }
        if seen.contains(&name.str()) {
            errors.push(name.duplicate());
        }
        seen.push(name.str());
        if let Some(claim) = status.field("resourceClaimName") {
            errors.extend(At::new(claim.value, name.path).subdomain());
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

fn unique(addresses: &At<'_>) -> ErrorList {
    let repeated = |(index, address): &(usize, At<'_>)| {
        addresses.list()[..*index].iter().any(|other| text(other, "ip") == address.text("ip"))
    };
    let all = addresses.items().enumerate().filter(repeated);
    all.map(|(_, address)| address.duplicate().showing(shown(&address))).collect()
}

fn shown(address: &At<'_>) -> String {
    go_struct(&[("IP", address.text("ip").into())])
}

fn too_many(addresses: &At<'_>) -> Error {
    let all: Vec<String> = addresses.items().map(|address| shown(&address)).collect();
    let error = addresses.invalid("may specify no more than one IP for each IP family");
    error.showing(format!("[{}]", all.join(",")))
}

fn texts<'a>(addresses: &At<'a>) -> Vec<&'a str> {
    addresses.items().map(|address| address.text("ip")).collect()
}

/// The errors stand at the entries, not at their addresses.
fn valid_ips(addresses: &At<'_>) -> ErrorList {
    addresses.items().flat_map(|address| At::new(address.child("ip").value, address.path).ip(&[])).collect()
}

fn pod_ips(addresses: &At<'_>) -> ErrorList {
    let mut errors = valid_ips(addresses);
    if addresses.len() > 1 {
        if !one_per_family(&texts(addresses)) {
            errors.push(too_many(addresses));
        }
        errors.extend(unique(addresses));
    }
    errors
}

fn host_ips(status: &At<'_>) -> ErrorList {
    let addresses = status.child("hostIPs");
    let Some(first) = addresses.items().next() else { return ErrorList::new() };
    let mut errors = ErrorList::new();
    if status.text("hostIP") != first.text("ip") {
        errors.push(first.child("ip").invalid_text("must be equal to `hostIP`"));
    }
    errors.extend(valid_ips(&addresses));
    if addresses.len() > 1 {
        errors.extend(unique(&addresses));
        if !one_per_family(&texts(&addresses)) {
            errors.push(too_many(&addresses));
        }
    }
    errors
}

/// The errors stand beside `user`, which upstream leaves out of the path.
fn users(statuses: &At<'_>, windows: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    for status in statuses.items() {
        let Some(linux) = status.child("user").field("linux") else { continue };
        let linux = At::new(linux.value, status.path.child("linux"));
        if windows {
            errors.push(linux.forbidden("cannot be set for a windows pod"));
            continue;
        }
        for key in ["uid", "gid"] {
            errors.extend(linux.child(key).in_range(0, MAX_ID));
        }
        errors.extend(linux.each("supplementalGroups").flat_map(|group| group.in_range(0, MAX_ID)));
    }
    errors
}

/// How the devices of the container of a name fare: of resources it asked for, each device once.
fn allocated(statuses: &At<'_>, container: &str, containers: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let container = containers.items().find(|one| one.text("name") == container);
    for resource in statuses.items() {
        let name = resource.child("name");
        if let Some(container) = &container {
            let resources = container.child("resources");
            let (found, why) = match name.str().strip_prefix("claim:") {
                Some(claim) => (
                    resources.each("claims").any(|one| match one.text("request") {
                        "" => claim == one.text("name"),
                        request => claim == format!("{}/{request}", one.text("name")),
                    }),
                    "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty",
                ),
                None => (
                    resources.child("requests").has(name.str()),
                    "must match one of the container's resource requests",
                ),
            };
            if !found {
                errors.push(name.invalid_text(why));
            }
        }
        let mut seen: Vec<&str> = Vec::new();
        for device in resource.each("resources") {
            errors.extend(device.child("health").among(&["Healthy", "Unhealthy", "Unknown"]));
            let id = device.child("resourceID");
            if seen.contains(&id.str()) {
                errors.push(id.duplicate());
            }
            seen.push(id.str());
        }
    }
    errors
}
