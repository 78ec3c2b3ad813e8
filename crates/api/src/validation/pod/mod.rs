//! Pods and pod templates: what a spec may say, and what of it may change.

mod annotations;
mod containers;
mod env;
mod mounts;
mod probes;
mod resize;
mod scheduling;
mod security;
mod status;
#[cfg(test)]
mod tests;
mod update;
mod volumes;
mod windows;

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;
use apimachinery::{Object, Value};

use super::resources;
use super::value::{
    entries, field, flag, go_struct, has, int, invalid, is_set, list, one_of, optional, showing, strings,
    text,
};

pub use annotations::{APP_ARMOR, MIRROR, SECCOMP_CONTAINER, SECCOMP_POD, annotation};
pub use probes::port as port_num_or_name;
pub use resize::pod_resize;
pub use scheduling::{node_selector, taint_effect, tolerations};
pub use security::app_armor_profile;
pub use status::pod_status_update;
pub use update::{pod_ephemeral_containers_update, pod_update};

/// What is let pass because it was there before a rule came, and what only pods have to heed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The spec is that of a pod, not of a template.
    pub is_pod: bool,
    pub allow_indivisible_huge_pages: bool,
    pub allow_invalid_deletion_cost: bool,
    pub allow_invalid_selector_values: bool,
    pub allow_invalid_affinity_values: bool,
    pub allow_invalid_spread_selector: bool,
    pub allow_non_local_token_path: bool,
    pub allow_host_sysctls: bool,
}

impl Options {
    /// The options of something new.
    pub fn new(is_pod: bool) -> Self {
        Self { is_pod, ..Self::default() }
    }

    /// The options of an update: what the old object says wrongly, the new one may go on saying.
    pub fn after(old: &Object, is_pod: bool) -> Self {
        let none = Value::Null;
        let spec = old.get(&["spec"]).unwrap_or(&none);
        let meta = old.get(&["metadata"]).unwrap_or(&none);
        let root = Path::root();
        let spread = |tolerant| {
            let constraints = list(spec, "topologySpreadConstraints");
            scheduling::topology_spread(constraints, is_pod, tolerant, &root).len()
        };
        Self {
            is_pod,
            allow_indivisible_huge_pages: uses_indivisible_huge_pages(spec),
            allow_invalid_deletion_cost: !annotations::deletion_cost_is_valid(meta),
            allow_invalid_selector_values: scheduling::has_invalid_selector_values(spec),
            allow_invalid_affinity_values: scheduling::has_invalid_affinity_values(spec),
            allow_invalid_spread_selector: spread(true) != spread(false),
            allow_non_local_token_path: has_non_local_token_path(spec),
            allow_host_sysctls: !list(&spec["securityContext"], "sysctls").is_empty()
                && security::pod(spec, false, &root).len() != security::pod(spec, true, &root).len(),
        }
    }
}

fn uses_indivisible_huge_pages(spec: &Value) -> bool {
    let mut found = false;
    visit_containers(spec, &Path::root(), &mut |container, _| {
        for part in ["limits", "requests"] {
            found |= entries(&container["resources"], part).any(|(name, value)| {
                resources::is_huge_pages(name)
                    && super::value::quantity(value)
                        .is_some_and(|amount| !resources::is_divisible(name, &amount))
            });
        }
    });
    found
}

fn has_non_local_token_path(spec: &Value) -> bool {
    list(spec, "volumes")
        .iter()
        .filter_map(|volume| volume.get("projected"))
        .flat_map(|projected| list(projected, "sources"))
        .filter_map(|source| source.get("serviceAccountToken"))
        .any(|token| !super::sources::local_non_reserved_path(text(token, "path"), &Path::root()).is_empty())
}

/// Calls `visit` with each container of a spec and its path: init containers, containers, ephemeral ones.
pub fn visit_containers<'a>(spec: &'a Value, path: &Path, visit: &mut dyn FnMut(&'a Value, &Path)) {
    for key in ["initContainers", "containers", "ephemeralContainers"] {
        for (index, container) in list(spec, key).iter().enumerate() {
            visit(container, &path.child(key).index(index));
        }
    }
}

/// What is wrong with a new pod.
pub fn pod(pod: &Object) -> ErrorList {
    let mut errors = metadata_and_spec(pod, &Options::new(true));
    let none = Value::Null;
    let (spec, meta) = (pod.get(&["spec"]).unwrap_or(&none), pod.get(&["metadata"]).unwrap_or(&none));
    let path = Path::new("spec");
    if !list(spec, "ephemeralContainers").is_empty() {
        errors.push(Error::forbidden(&path.child("ephemeralContainers"), "cannot be set on create"));
    }
    if !text(spec, "nodeName").is_empty() && !list(spec, "schedulingGates").is_empty() {
        let why = "cannot be set until all schedulingGates have been cleared";
        errors.push(Error::forbidden(&path.child("nodeName"), why));
    }
    errors.extend(annotations::match_fields(meta, spec, &path));
    errors
}

/// The rules that hold for a pod at any time.
fn metadata_and_spec(pod: &Object, options: &Options) -> ErrorList {
    let none = Value::Null;
    let (spec, meta) = (pod.get(&["spec"]).unwrap_or(&none), pod.get(&["metadata"]).unwrap_or(&none));
    let path = Path::new("spec");
    let annotations_path = Path::new("metadata").child("annotations");
    let mut errors = annotations::rules(meta, spec, options.allow_invalid_deletion_cost, &annotations_path);
    errors.extend(pod_spec(spec, pod.name(), options, &path));
    if text(spec, "serviceAccountName").is_empty() {
        for (index, volume) in list(spec, "volumes").iter().enumerate() {
            let at = path.child("volumes").index(index).child("projected").child("sources");
            for (index, source) in list(&volume["projected"], "sources").iter().enumerate() {
                if has(source, "serviceAccountToken") {
                    let why = "must not be specified when serviceAccountName is not set";
                    errors.push(Error::forbidden(&at.index(index).child("serviceAccountToken"), why));
                }
            }
        }
    }
    for key in ["containers", "initContainers"] {
        for (index, container) in list(spec, key).iter().enumerate() {
            errors.extend(containers::padded_image(container, &path.child(key).index(index)));
        }
    }
    errors
}

/// What is wrong with a template that is new.
pub fn template(template: &Object, path: &Path) -> ErrorList {
    template_with(template, &Options::new(false), path)
}

/// What is wrong with a template that takes the place of another one.
pub fn template_update(template: &Object, old: &Object, path: &Path) -> ErrorList {
    template_with(template, &Options::after(old, false), path)
}

/// What a template may say. Its labels and annotations are named without `metadata`, as upstream names them.
fn template_with(template: &Object, options: &Options, path: &Path) -> ErrorList {
    let none = Value::Null;
    let spec = template.get(&["spec"]).unwrap_or(&none);
    let meta = template.get(&["metadata"]).unwrap_or(&none);
    let (spec_path, annotations_path) = (path.child("spec"), path.child("annotations"));
    let mut errors = ErrorList::new();
    if let Some(labels) = template.labels() {
        errors.extend(names::validate_labels(labels, &path.child("labels")));
    }
    if let Some(annotations) = template.annotations() {
        errors.extend(names::validate_annotations(annotations, &annotations_path));
    }
    errors.extend(annotations::rules(meta, spec, options.allow_invalid_deletion_cost, &annotations_path));
    errors.extend(pod_spec(spec, "", options, &spec_path));
    errors.extend(annotations::match_fields(meta, spec, &spec_path));
    if !list(spec, "ephemeralContainers").is_empty() {
        let why = "ephemeral containers not allowed in pod template";
        errors.push(Error::forbidden(&spec_path.child("ephemeralContainers"), why));
    }
    errors
}

/// What is wrong with a pod's spec; `pod` is the pod's name, empty for templates.
fn pod_spec(spec: &Value, pod: &str, options: &Options, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let at = |key: &str| path.child(key);
    let grace = int(spec, "terminationGracePeriodSeconds");
    if grace.is_none() {
        errors.push(Error::required(&at("terminationGracePeriodSeconds"), ""));
    }
    let volumes = volumes::volumes(list(spec, "volumes"), pod, &at("volumes"), options, &mut errors);
    errors.extend(resource_claims(list(spec, "resourceClaims"), &at("resourceClaims")));
    let claims: Vec<&str> = list(spec, "resourceClaims")
        .iter()
        .map(|claim| text(claim, "name"))
        .filter(|name| !name.is_empty())
        .collect();
    let restart_policy = text(spec, "restartPolicy");
    let of = containers::Pod {
        volumes: &volumes,
        claims: &claims,
        grace,
        restart_policy,
        host_users: !has(spec, "hostUsers") || flag(spec, "hostUsers"),
        options,
    };
    let (regular, init) = (list(spec, "containers"), list(spec, "initContainers"));
    let ephemeral = list(spec, "ephemeralContainers");
    errors.extend(containers::containers(regular, &of, &at("containers")));
    errors.extend(containers::init_containers(init, regular, &of, &at("initContainers")));
    errors.extend(containers::ephemeral_containers(
        ephemeral,
        regular,
        init,
        &of,
        &at("ephemeralContainers"),
    ));
    errors.extend(env::file_volumes(spec, &volumes, path));
    let tolerant = options.allow_indivisible_huge_pages;
    errors.extend(resources::pod_level(spec, &claims, &at("resources"), tolerant));
    if flag(spec, "hostNetwork") {
        errors.extend(containers::host_network(spec, options.is_pod, &at("containers")));
    }
    let policies = ["Always", "OnFailure", "Never"];
    errors.extend(one_of(restart_policy, &policies, &at("restartPolicy")));
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    errors.extend(one_of(text(spec, "dnsPolicy"), &policies, &at("dnsPolicy")));
    if let Some(Value::Object(selector)) = spec.get("nodeSelector") {
        errors.extend(names::validate_labels(selector, &at("nodeSelector")));
    }
    errors.extend(security::pod(spec, options.allow_host_sysctls, path));
    errors.extend(placement(spec, options, path));
    errors.extend(windows::host_process(spec, path));
    errors.extend(security::host_users(spec, path));
    errors.extend(identity(spec, path));
    errors.extend(security::os(spec, path));
    errors
}

/// Pull secrets, affinity, DNS, gates and spread: what stands between the security context and the names.
fn placement(spec: &Value, options: &Options, path: &Path) -> ErrorList {
    let at = |key: &str| path.child(key);
    let mut errors = ErrorList::new();
    if let Some(affinity) = field(spec, "affinity") {
        errors.extend(scheduling::affinity(affinity, options, &at("affinity")));
    }
    errors.extend(dns_config(spec, &at("dnsConfig")));
    errors.extend(scheduling::readiness_gates(list(spec, "readinessGates"), &at("readinessGates")));
    errors.extend(scheduling::scheduling_gates(list(spec, "schedulingGates"), &at("schedulingGates")));
    errors.extend(scheduling::topology_spread(
        list(spec, "topologySpreadConstraints"),
        options.is_pod,
        options.allow_invalid_spread_selector,
        &at("topologySpreadConstraints"),
    ));
    errors
}

/// Names that a spec gives or refers to, deadlines, tolerations, aliases, overhead.
fn identity(spec: &Value, path: &Path) -> ErrorList {
    let at = |key: &str| path.child(key);
    let mut errors = ErrorList::new();
    let mut subdomain = |key: &str, value: &str| {
        errors.extend(invalid(&at(key), value, names::name_is_dns_subdomain(value, false)));
    };
    for key in ["serviceAccountName", "nodeName"] {
        if !text(spec, key).is_empty() {
            subdomain(key, text(spec, key));
        }
    }
    if let Some(seconds) = int(spec, "activeDeadlineSeconds") {
        let messages = names::is_in_range(seconds, 1, i64::from(i32::MAX));
        errors.extend(invalid(&at("activeDeadlineSeconds"), seconds, messages));
    }
    for key in ["hostname", "subdomain"] {
        let value = text(spec, key);
        if !value.is_empty() {
            errors.extend(invalid(&at(key), value, names::is_dns1123_label(value)));
        }
    }
    errors.extend(hostname_override(spec, path));
    errors.extend(tolerations(list(spec, "tolerations"), &at("tolerations")));
    errors.extend(host_aliases(list(spec, "hostAliases"), &at("hostAliases")));
    for (key, there) in [
        ("priorityClassName", is_set(spec, "priorityClassName")),
        ("runtimeClassName", has(spec, "runtimeClassName")),
    ] {
        if there {
            let value = text(spec, key);
            errors.extend(invalid(&at(key), value, names::name_is_dns_subdomain(value, false)));
        }
    }
    if let Some(policy) = optional(spec, "preemptionPolicy") {
        let policies = ["PreemptLowerPriority", "Never"];
        errors.extend(one_of(policy, &policies, &at("preemptionPolicy")));
    }
    if let Some(overhead) = field(spec, "overhead") {
        let limits = serde_json::json!({"limits": overhead});
        let rule = resources::container_resource_name;
        errors.extend(resources::requirements(&limits, rule, &[], &at("overhead"), false));
    }
    errors
}

/// A host name of the pod's own choosing, which neither the host's network nor its FQDN can give it.
fn hostname_override(spec: &Value, path: &Path) -> ErrorList {
    const MAX: usize = 64;
    let at = path.child("hostnameOverride");
    let Some(name) = optional(spec, "hostnameOverride") else { return ErrorList::new() };
    let mut errors = invalid(&at, name, names::is_dns1123_subdomain(name));
    if name.len() > MAX {
        errors.push(Error::invalid(&at, name, names::max_len_error(MAX)));
    }
    if flag(spec, "setHostnameAsFQDN") {
        let why = "may not be set when setHostnameAsFQDN is true";
        errors.push(Error::forbidden(&at, why));
    }
    if flag(spec, "hostNetwork") {
        errors.push(Error::forbidden(&at, "may not be set when hostNetwork is true"));
    }
    errors
}

fn resource_claims(claims: &[Value], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for (index, claim) in claims.iter().enumerate() {
        let at = path.index(index);
        let name = text(claim, "name");
        if name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        } else if seen.contains(&name) {
            errors.push(Error::duplicate(&at.child("name"), name));
        } else {
            errors.extend(invalid(&at.child("name"), name, names::is_dns1123_label(name)));
            seen.push(name);
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"];
        let why = match sources.iter().filter(|key| has(claim, key)).count() {
            0 => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            1 => "",
            _ => "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
        };
        if !why.is_empty() {
            let name_of = |key: &str| claim.get(key).cloned().unwrap_or_default();
            let shown = go_struct(&[
                ("Name", name.into()),
                ("ResourceClaimName", name_of("resourceClaimName")),
                ("ResourceClaimTemplateName", name_of("resourceClaimTemplateName")),
            ]);
            errors.push(showing(Error::invalid(&at, Value::Null, why), shown));
        }
        for key in sources {
            if let Some(name) = optional(claim, key) {
                errors.extend(invalid(&at.child(key), name, names::name_is_dns_subdomain(name, false)));
            }
        }
    }
    errors
}

fn dns_config(spec: &Value, path: &Path) -> ErrorList {
    const MAX_SERVERS: usize = 3;
    const MAX_SEARCHES: usize = 32;
    const MAX_SEARCH_CHARS: usize = 2048;
    let config = field(spec, "dnsConfig");
    let servers = config.map(|config| strings(config, "nameservers")).unwrap_or_default();
    let at = path.child("nameservers");
    if text(spec, "dnsPolicy") == "None" {
        if config.is_none() {
            return vec![Error::required(path, "must provide `dnsConfig` when `dnsPolicy` is None")];
        }
        if servers.is_empty() {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return vec![Error::required(&at, why)];
        }
    }
    let Some(config) = config else { return ErrorList::new() };
    let mut errors = ErrorList::new();
    if servers.len() > MAX_SERVERS {
        let why = format!("must not have more than {MAX_SERVERS} nameservers");
        errors.push(Error::invalid(&at, list(config, "nameservers").to_vec(), why));
    }
    for (index, server) in servers.iter().enumerate() {
        errors.extend(names::is_valid_ip_for_legacy_field(&at.index(index), server, &[]));
    }
    let at = path.child("searches");
    let searches = strings(config, "searches");
    if searches.len() > MAX_SEARCHES {
        let why = format!("must not have more than {MAX_SEARCHES} search paths");
        errors.push(Error::invalid(&at, list(config, "searches").to_vec(), why));
    }
    if searches.join(" ").len() > MAX_SEARCH_CHARS {
        let why = format!(
            "must not have more than {MAX_SEARCH_CHARS} characters (including spaces) in the search list"
        );
        errors.push(Error::invalid(&at, list(config, "searches").to_vec(), why));
    }
    for (index, search) in searches.iter().enumerate().filter(|(_, search)| **search != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        let messages = names::is_dns1123_subdomain_with_underscore(search);
        errors.extend(invalid(&at.index(index), search, messages));
    }
    for (index, option) in list(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            errors.push(Error::required(&path.child("options").index(index), "must not be empty"));
        }
    }
    errors
}

fn host_aliases(aliases: &[Value], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, alias) in aliases.iter().enumerate() {
        let at = path.index(index);
        errors.extend(names::is_valid_ip_for_legacy_field(&at.child("ip"), text(alias, "ip"), &[]));
        for (index, name) in strings(alias, "hostnames").iter().enumerate() {
            let at = at.child("hostnames").index(index);
            errors.extend(invalid(&at, *name, names::is_dns1123_subdomain(name)));
        }
    }
    errors
}
