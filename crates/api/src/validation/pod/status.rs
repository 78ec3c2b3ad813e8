//! What an update of a pod's status may say.

use apimachinery::field::{Error, ErrorList};
use apimachinery::validation as names;
use apimachinery::{Object, Value};

use super::Options;
use super::update::annotations_update;
use crate::validation::at::At;
use crate::validation::forms::unchanged;
use crate::validation::resources::is_native;
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
    errors.extend(conditions(&status.child("conditions")));
    if new.get_str(&["spec", "nodeName"]) != spec.text("nodeName") {
        errors.push(status.child("nodeName").forbidden("may not be changed directly"));
    }
    let nominated = status.child("nominatedNodeName");
    if !nominated.is_empty() && nominated.str() != before.text("nominatedNodeName") {
        errors.extend(nominated.subdomain());
        if spec.says("nodeName") {
            errors.push(nominated.forbidden("may not be set on pods that are already bound to a node"));
        }
    }
    errors.extend(observed_generation(&status));
    errors.extend(unchanged(&status.child("qosClass"), &before.child("qosClass")));
    for (key, containers) in STATUSES {
        let policy = if containers.is_empty() { "Never" } else { spec.text("restartPolicy") };
        errors.extend(transitions(&status.child(key), &before.child(key), containers, policy, &spec));
    }
    errors.extend(claim_statuses(&status.child("resourceClaimStatuses"), &spec.child("resourceClaims")));
    let now = At::of(new, &["spec"]);
    errors.extend(extended_resource_claim(&status.child("extendedResourceClaimStatus"), &now));
    errors.extend(node_allocatable_claims(&status, &now));
    errors.extend(addresses(&status.child("podIPs"), &before.child("podIPs")));
    errors.extend(host_ips(&status, &before));
    let windows = now.child("os").text("name") == "windows";
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

/// Of the status or of one of its conditions.
fn observed_generation(owner: &At<'_>) -> Option<Error> {
    let generation = owner.child("observedGeneration");
    (generation.int_or_zero() < 0).then(|| generation.invalid("must be a non-negative integer"))
}

fn conditions(conditions: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    for condition in conditions.items() {
        errors.extend(observed_generation(&condition));
        let kind = At::new(condition.child("type").value, condition.path.child("Type"));
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
            errors.extend(claim.subdomain());
        }
    }
    errors
}

/// The claim that stands for extended resources, and which request of it each container's resource became.
fn extended_resource_claim(status: &At<'_>, spec: &At<'_>) -> ErrorList {
    if !status.is_set() {
        return ErrorList::new();
    }
    let mut errors = ErrorList::new();
    let mappings = status.child("requestMappings");
    if mappings.is_empty() {
        errors.push(mappings.required("at least one request mapping is required"));
    }
    const KEYS: [&str; 3] = ["containerName", "resourceName", "requestName"];
    for (index, mapping) in mappings.items().enumerate() {
        let [container, resource, request] = KEYS.map(|key| mapping.child(key));
        let mut containers = spec.each("containers").chain(spec.each("initContainers"));
        match containers.find(|one| one.text("name") == container.str()) {
            None => errors.push(container.invalid_text(
                "must match the name of an entry in spec.initContainers.name or spec.containers.name",
            )),
            Some(one) if !one.child("resources").child("requests").has(resource.str()) => {
                errors.push(resource.invalid_text(
                    "must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests",
                ));
            }
            Some(_) => {}
        }
        // the name is said to be the claim's
        errors.extend(At::new(request.value, status.path.child("requestName")).dns_label());
        let same = |other: &Value| KEYS.iter().all(|key| text(other, key) == mapping.text(key));
        if mappings.list()[..index].iter().any(same) {
            errors.extend([container, resource, request].iter().map(At::duplicate));
        }
    }
    let claim = status.child("resourceClaimName");
    errors.extend(if claim.is_empty() { claim.must_be_set() } else { claim.subdomain() });
    errors
}

/// What claims take of a node's own resources, each of a claim that the pod refers to.
fn node_allocatable_claims(status: &At<'_>, spec: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    for one in status.each("nodeAllocatableResourceClaimStatuses") {
        let claim = one.child("resourceClaimName");
        if claim.is_empty() {
            errors.push(claim.required("must not be empty"));
        }
        let mut references = spec.each("resourceClaims").chain(status.each("resourceClaimStatuses"));
        if !references.any(|reference| reference.optional("resourceClaimName") == Some(claim.str())) {
            errors.push(claim.invalid_text("no mapping found in pod reference"));
        }
        for list in ["containers", "resources"].map(|key| one.child(key)) {
            if list.is_empty() {
                errors.push(list.required("must not be empty"));
            }
        }
        for (name, amount) in one.child("resources").entries() {
            if !is_native(name) {
                errors.push(Error::invalid(&amount.path, name, "must be a node allocatable resource name"));
            }
            if amount.quantity().is_some_and(|amount| amount.signum() < 0) {
                errors.push(amount.invalid_quantity("must be non-negative"));
            }
        }
    }
    errors
}

/// At most one address of each family.
fn one_per_family(ips: &[String]) -> bool {
    let mut families: Vec<bool> =
        ips.iter().filter_map(|ip| Some(names::parse_ip_sloppy(ip)?.is_ipv4())).collect();
    families.sort_unstable();
    ips.len() == 2 && families == [false, true]
}

/// The address in an entry, whose errors stand at the entry.
fn address<'a>(entry: &At<'a>) -> At<'a> {
    At::new(entry.child("ip").value, entry.path.clone())
}

/// New addresses are well formed, and there is at most one of each family.
fn addresses(all: &At<'_>, before: &At<'_>) -> ErrorList {
    let texts =
        |list: &At<'_>| -> Vec<String> { list.items().map(|entry| entry.text("ip").to_owned()).collect() };
    let (now, known) = (texts(all), texts(before));
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let mut errors: ErrorList = all.items().flat_map(|entry| address(&entry).ip(&known)).collect();
    if now.len() > 1 && !one_per_family(&now) {
        let shown: Vec<String> = now.iter().map(|ip| go_struct(&[("IP", ip.as_str().into())])).collect();
        let error = all.invalid("may specify no more than one IP for each IP family");
        errors.push(error.showing(format!("[{}]", shown.join(","))));
    }
    errors
}

fn host_ips(status: &At<'_>, before: &At<'_>) -> ErrorList {
    let all = status.child("hostIPs");
    let Some(first) = all.items().next() else { return ErrorList::new() };
    let mut errors = ErrorList::new();
    if status.text("hostIP") != first.text("ip") {
        errors.push(first.child("ip").invalid_text("must be equal to `hostIP`"));
    }
    errors.extend(addresses(&all, &before.child("hostIPs")));
    errors
}

fn users(statuses: &At<'_>, windows: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    for status in statuses.items() {
        let Some(linux) = status.child("user").field("linux") else { continue };
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
