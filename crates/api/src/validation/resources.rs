//! Names and amounts of resources: what containers, pods, quotas and limit ranges may ask for.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::quantity::Quantity;
use apimachinery::validation as names;

use super::at::At;
use super::value::{entries, is_whole, list, quantity, shown, text};

const HUGE_PAGES: &str = "hugepages-";
const REQUESTS_HUGE_PAGES: &str = "requests.hugepages-";
const REQUESTS: &str = "requests.";

const STANDARD_QUOTA: [&str; 19] = [
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];

const COUNTED: [&str; 9] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];

/// What may be asked for on the level of a pod; huge pages of any size go under their prefix.
const POD_LEVEL: [&str; 3] = ["cpu", HUGE_PAGES, "memory"];

/// A rule of resource names: errors at the path of the entry.
pub(crate) type NameRule = fn(&str, &Path) -> ErrorList;

pub fn is_huge_pages(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

/// Whether a name lies in Kubernetes' own domain, in so many words or by having none.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

pub fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with(REQUESTS)
        && names::is_qualified_name(&format!("{REQUESTS}{name}")).is_empty()
}

pub fn allows_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

pub fn is_standard_quota(name: &str) -> bool {
    STANDARD_QUOTA.contains(&name) || is_huge_pages(name) || name.starts_with(REQUESTS_HUGE_PAGES)
}

pub fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_huge_pages(name)
}

/// The name of any compute resource.
pub fn resource_name(name: &str, path: &Path) -> ErrorList {
    let errors = names::validate_label_name(name, path);
    if errors.is_empty() && !name.contains('/') && !(is_standard_quota(name) || name == "storage") {
        return vec![Error::invalid(path, name, "must be a standard resource type or fully qualified")];
    }
    errors
}

/// The name of what a container may ask for.
pub fn container_resource_name(name: &str, path: &Path) -> ErrorList {
    let mut errors = resource_name(name, path);
    if !name.contains('/') {
        if !(matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_huge_pages(name)) {
            errors.push(Error::invalid(path, name, "must be a standard resource for containers"));
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.push(Error::invalid(path, name, "doesn't follow extended resource name standard"));
    }
    errors
}

/// The name of what a pod may ask for as a whole.
pub fn pod_resource_name(name: &str, path: &Path) -> ErrorList {
    let errors = resource_name(name, path);
    if errors.is_empty() && !is_pod_level(name) {
        return vec![Error::not_supported(path, name, &POD_LEVEL)];
    }
    errors
}

/// The name of what a quota may count.
pub fn quota_resource_name(name: &str, path: &Path) -> ErrorList {
    let mut errors = resource_name(name, path);
    if !name.contains('/') && !is_standard_quota(name) {
        errors.push(Error::invalid(path, name, "must be a standard resource for quota"));
    }
    errors
}

/// An amount of what a name stands for: not negative, and whole where things are counted.
pub(crate) fn quantity_value(name: &str, amount: &At<'_>) -> ErrorList {
    let mut errors = amount.non_negative_quantity();
    let counted = COUNTED.contains(&name) || is_extended(name);
    if counted && amount.quantity().is_some_and(|amount| !is_whole(&amount)) {
        errors.push(amount.invalid_quantity("must be an integer"));
    }
    errors
}

/// An amount that only has to be one.
pub(crate) fn basic(amount: &At<'_>) -> ErrorList {
    match amount.quantity().map(|amount| amount.value()) {
        Some(whole) if whole < 0 => {
            vec![Error::invalid(&amount.path, whole, "must be a valid resource quantity")]
        }
        _ => ErrorList::new(),
    }
}

/// Whether an amount of huge pages is a whole number of pages.
pub fn is_divisible(name: &str, amount: &Quantity) -> bool {
    let Some(size) = name.strip_prefix(HUGE_PAGES).and_then(|size| Quantity::parse(size).ok()) else {
        return true;
    };
    size.signum() > 0 && is_whole(&size) && amount.value().checked_rem(size.value()) == Some(0)
}

fn huge_pages(name: &str, at: &At<'_>, tolerant: bool) -> Option<Error> {
    let amount = at.quantity().filter(|_| !tolerant && is_huge_pages(name))?;
    let why = format!("{} is not positive integer multiple of {name}", shown(at.value));
    (!is_divisible(name, &amount)).then(|| at.invalid_quantity(why))
}

/// Requests and limits: names, amounts, and that no request goes beyond its limit. `claims` are the names of
/// the pod's resource claims; `tolerant` lets pass fractions of huge pages that were there before.
pub(crate) fn requirements(
    requirements: &At<'_>,
    rule: NameRule,
    claims: &[&str],
    tolerant: bool,
) -> ErrorList {
    let mut errors = ErrorList::new();
    let (limits, requests) = (requirements.child("limits"), requirements.child("requests"));
    for (name, amount) in limits.entries() {
        errors.extend(rule(name, &amount.path));
        errors.extend(quantity_value(name, &amount));
        errors.extend(huge_pages(name, &amount, tolerant));
    }
    for (name, request) in requests.entries() {
        errors.extend(rule(name, &request.path));
        errors.extend(quantity_value(name, &request));
        let limit = limits.child(name);
        match (request.quantity(), limit.quantity()) {
            (Some(amount), Some(most)) => {
                let wrong = if amount != most && !allows_overcommit(name) {
                    Some("equal to")
                } else if amount > most {
                    Some("less than or equal to")
                } else {
                    None
                };
                if let Some(relation) = wrong {
                    let why = format!("must be {relation} {name} limit of {}", shown(limit.value));
                    errors.push(At::new(request.value, requests.path.clone()).invalid_quantity(why));
                }
            }
            _ if !limit.is_set() && !allows_overcommit(name) => {
                errors.push(limits.required("Limit must be set for non overcommitable resources"));
            }
            _ => {}
        }
        errors.extend(huge_pages(name, &request, tolerant));
    }
    let any =
        |test: fn(&str) -> bool| [&limits, &requests].iter().any(|part| part.entries().any(|(n, _)| test(n)));
    if any(is_huge_pages) && !any(|name| matches!(name, "cpu" | "memory")) {
        errors.push(requirements.forbidden("HugePages require cpu or memory"));
    }
    errors.extend(claim_names(&requirements.child("claims"), claims));
    errors
}

/// The claims of the pod that a container uses, whole or by request; none twice.
fn claim_names(used: &At<'_>, claims: &[&str]) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: Vec<String> = Vec::new();
    for claim in used.items() {
        let (name, request) = (claim.text("name"), claim.child("request"));
        if name.is_empty() {
            errors.push(claim.required(""));
            continue;
        }
        let has = |seen: &[String], key: &str| seen.iter().any(|one| one == key);
        if has(&seen, name) {
            errors.push(Error::duplicate(&claim.path, name));
        } else {
            let mut key = name.to_owned();
            if !request.is_empty() {
                errors.extend(request.dns_label());
                key = format!("{name}/{}", request.str());
            }
            if has(&seen, &key) {
                errors.push(Error::duplicate(&claim.path, key.as_str()));
            } else if request.is_empty() {
                let parts = seen.iter().filter(|one| one.split_once('/').is_some_and(|(c, _)| c == name));
                errors.extend(parts.map(|_| Error::duplicate(&claim.path, name)));
            }
            seen.push(key);
        }
        if !claims.contains(&name) {
            let mut error = Error::not_found(&claim.path, name);
            error.detail = "must be one of the names in pod.spec.resourceClaims".into();
            match claims {
                [] => error.detail.push_str(" which is empty"),
                _ => {
                    let mut sorted = claims.to_vec();
                    sorted.sort_unstable();
                    error.detail.push_str(&format!(": {}", sorted.join(", ")));
                }
            }
            errors.push(error);
        }
    }
    errors
}

/// Sums over a pod's containers, by resource: containers and sidecars run side by side, other init containers
/// one after the other beside the sidecars that started before them. `part` is `requests` or `limits`.
pub fn aggregate(spec: &Value, part: &str) -> Vec<(String, Quantity)> {
    let mut total: Vec<(String, Quantity)> = Vec::new();
    for container in list(spec, "containers") {
        add(&mut total, &container["resources"], part);
    }
    let mut sidecars: Vec<(String, Quantity)> = Vec::new();
    let mut most: Vec<(String, Quantity)> = Vec::new();
    for container in list(spec, "initContainers") {
        let mut during = Vec::new();
        if text(container, "restartPolicy") == "Always" {
            add(&mut total, &container["resources"], part);
            add(&mut sidecars, &container["resources"], part);
        } else {
            add(&mut during, &container["resources"], part);
        }
        for (name, amount) in &sidecars {
            plus(&mut during, name, *amount);
        }
        for (name, amount) in during {
            at_least(&mut most, &name, amount);
        }
    }
    for (name, amount) in most {
        at_least(&mut total, &name, amount);
    }
    total.sort_by(|a, b| a.0.cmp(&b.0));
    total
}

fn add(sums: &mut Vec<(String, Quantity)>, resources: &Value, part: &str) {
    for (name, value) in entries(resources, part) {
        if let Some(amount) = quantity(value) {
            plus(sums, name, amount);
        }
    }
}

fn plus(sums: &mut Vec<(String, Quantity)>, name: &str, amount: Quantity) {
    match sums.iter_mut().find(|(known, _)| known == name) {
        Some((_, sum)) => *sum += amount,
        None => sums.push((name.to_owned(), amount)),
    }
}

fn at_least(sums: &mut Vec<(String, Quantity)>, name: &str, amount: Quantity) {
    match sums.iter_mut().find(|(known, _)| known == name) {
        Some((_, sum)) => *sum = (*sum).max(amount),
        None => sums.push((name.to_owned(), amount)),
    }
}

/// The resources of a pod as a whole: names, amounts, and that its containers fit in.
pub(crate) fn pod_level(spec: &At<'_>, claims: &[&str], tolerant: bool) -> ErrorList {
    let Some(resources) = spec.field("resources") else { return ErrorList::new() };
    if spec.child("os").text("name") == "windows" {
        return vec![resources.forbidden("may not be set for a windows pod")];
    }
    let mut errors = ErrorList::new();
    if let Some(claims) = resources.field("claims") {
        errors.push(claims.forbidden("claims may not be set for Resources at pod-level"));
    }
    errors.extend(requirements(&resources, pod_resource_name, claims, tolerant));
    let of = |part: &str, name: &str| {
        let part = resources.child(part);
        At::new(part.child(name).value, part.path.key(name))
    };
    for (name, sum) in aggregate(spec.value, "requests") {
        let whole = of("requests", &name);
        if whole.quantity().is_some_and(|amount| sum > amount) {
            let why = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.push(whole.invalid_quantity(why));
        }
    }
    for (name, sum) in aggregate(spec.value, "limits") {
        let whole = of("limits", &name);
        if is_huge_pages(&name) && whole.quantity().is_some_and(|amount| sum > amount) {
            let why = format!("must be greater than or equal to aggregate container limits of {sum}");
            errors.push(whole.invalid_quantity(why));
        }
    }
    for (index, container) in list(spec.value, "containers").iter().enumerate() {
        for (name, value) in entries(&container["resources"], "limits") {
            let whole = of("limits", name);
            if let (Some(limit), Some(amount)) = (quantity(value), whole.quantity())
                && limit > amount
            {
                // the container is looked for in the pod's own resources
                let at = resources.path.child("containers").index(index).key(name).child("limits");
                let why = format!("must be less than or equal to pod limits of {}", shown(whole.value));
                errors.push(Error::invalid(&at, shown(value), why));
            }
        }
    }
    errors
}
