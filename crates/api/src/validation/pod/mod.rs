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

use super::at::At;
use super::resources;
use super::value::{entries, go_struct};

pub use annotations::{APP_ARMOR, MIRROR, SECCOMP_CONTAINER, SECCOMP_POD, annotation};
pub(crate) use probes::port as port_num_or_name;
pub use resize::pod_resize;
pub(crate) use scheduling::{node_selector, taint_effect, tolerations};
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
    /// Block devices in a pod with users of its own: they never worked.
    pub allow_devices_with_own_users: bool,
    /// A policy for SELinux labels other than the one that is left while `SELinuxMount` is off.
    pub allow_se_linux_mount: bool,
    /// Init containers that run once and ask to be restarted by a resize.
    pub allow_restart_of_init_containers: bool,
}

impl Options {
    /// The options of something new.
    pub fn new(is_pod: bool) -> Self {
        Self { is_pod, ..Self::default() }
    }

    /// The options of an update: what the old object says wrongly, the new one may go on saying.
    pub fn after(old: &Object, is_pod: bool) -> Self {
        let spec = At::of(old, &["spec"]);
        let spread = |tolerant| {
            let constraints = spec.child("topologySpreadConstraints");
            scheduling::topology_spread(&constraints, is_pod, tolerant).len()
        };
        Self {
            is_pod,
            allow_indivisible_huge_pages: uses_indivisible_huge_pages(&spec),
            allow_invalid_deletion_cost: !annotations::deletion_cost_is_valid(
                At::of(old, &["metadata"]).value,
            ),
            allow_invalid_selector_values: scheduling::has_invalid_selector_values(&spec),
            allow_invalid_affinity_values: scheduling::has_invalid_affinity_values(spec.value),
            allow_invalid_spread_selector: spread(true) != spread(false),
            allow_non_local_token_path: has_non_local_token_path(&spec),
            allow_host_sysctls: !spec.child("securityContext").child("sysctls").is_empty()
                && security::allows_host_sysctls_only(&spec),
            allow_devices_with_own_users: security::has_own_users(&spec) && uses_devices(&spec),
            allow_se_linux_mount: spec.child("securityContext").has("seLinuxChangePolicy"),
            allow_restart_of_init_containers: spec
                .each("initContainers")
                .any(|container| containers::restarts_once_run(&container).next().is_some()),
        }
    }
}

fn uses_indivisible_huge_pages(spec: &At<'_>) -> bool {
    let mut found = false;
    visit_containers(spec, &mut |container| {
        for part in ["limits", "requests"] {
            found |= entries(container.child("resources").value, part).any(|(name, value)| {
                resources::is_huge_pages(name)
                    && super::value::quantity(value)
                        .is_some_and(|amount| !resources::is_divisible(name, &amount))
            });
        }
    });
    found
}

fn uses_devices(spec: &At<'_>) -> bool {
    let mut found = false;
    visit_containers(spec, &mut |container| found |= container.says("volumeDevices"));
    found
}

fn has_non_local_token_path(spec: &At<'_>) -> bool {
    spec.each("volumes")
        .flat_map(|volume| volume.child("projected").each("sources"))
        .filter_map(|source| source.field("serviceAccountToken"))
        .any(|token| !super::sources::local_non_reserved_path(&token.child("path")).is_empty())
}

/// Calls `visit` with each container of a spec: init containers, containers, ephemeral ones.
pub(crate) fn visit_containers<'a>(spec: &At<'a>, visit: &mut dyn FnMut(At<'a>)) {
    for key in ["initContainers", "containers", "ephemeralContainers"] {
        spec.each(key).for_each(&mut *visit);
    }
}

/// What is wrong with a new pod.
pub fn pod(pod: &Object) -> ErrorList {
    let mut errors = metadata_and_spec(pod, &Options::new(true));
    let spec = At::of(pod, &["spec"]);
    let ephemeral = spec.child("ephemeralContainers");
    if !ephemeral.is_empty() {
        errors.push(ephemeral.forbidden("cannot be set on create"));
    }
    if spec.says("nodeName") && spec.says("schedulingGates") {
        let why = "cannot be set until all schedulingGates have been cleared";
        errors.push(spec.child("nodeName").forbidden(why));
    }
    errors.extend(annotations::match_fields(At::of(pod, &["metadata"]).value, &spec));
    errors
}

/// The rules that hold for a pod at any time.
fn metadata_and_spec(pod: &Object, options: &Options) -> ErrorList {
    let (spec, meta) = (At::of(pod, &["spec"]), At::of(pod, &["metadata"]));
    let annotations_path = meta.path.child("annotations");
    let tolerant = options.allow_invalid_deletion_cost;
    let mut errors = annotations::rules(meta.value, &spec, tolerant, &annotations_path);
    errors.extend(pod_spec(&spec, pod.name(), pod.annotation(MIRROR).is_some(), options));
    if !spec.says("serviceAccountName") {
        let sources = spec.each("volumes").flat_map(|volume| volume.child("projected").each("sources"));
        let tokens = sources.filter_map(|source| source.field("serviceAccountToken"));
        let why = "must not be specified when serviceAccountName is not set";
        errors.extend(tokens.map(|token| token.forbidden(why)));
    }
    for key in ["containers", "initContainers"] {
        errors.extend(spec.each(key).filter_map(|container| containers::padded_image(&container)));
    }
    errors
}

/// What is wrong with a template that is new.
pub(crate) fn template(template: &At<'_>) -> ErrorList {
    template_with(template, &Options::new(false))
}

/// What is wrong with a template that takes the place of another one.
pub(crate) fn template_update(template: &At<'_>, old: &Value) -> ErrorList {
    template_with(template, &Options::after(&Object::from(old.clone()), false))
}

/// What is wrong with the metadata of a template, which may take the place of another one.
pub(crate) fn template_metadata(template: &At<'_>, old: Option<&Value>) -> ErrorList {
    let old = old.map(|old| Options::after(&Object::from(old.clone()), false));
    metadata_with(template, &old.unwrap_or_else(|| Options::new(false)))
}

/// Labels and annotations of a template, named without `metadata`, as upstream names them.
fn metadata_with(template: &At<'_>, options: &Options) -> ErrorList {
    let (spec, meta) = (template.child("spec"), template.child("metadata"));
    let annotations_path = template.path.child("annotations");
    let mut errors = ErrorList::new();
    if let Some(labels) = meta.child("labels").value.as_object() {
        errors.extend(names::validate_labels(labels, &template.path.child("labels")));
    }
    if let Some(annotations) = meta.child("annotations").value.as_object() {
        errors.extend(names::validate_annotations(annotations, &annotations_path));
    }
    let tolerant = options.allow_invalid_deletion_cost;
    errors.extend(annotations::rules(meta.value, &spec, tolerant, &annotations_path));
    errors
}

fn template_with(template: &At<'_>, options: &Options) -> ErrorList {
    let (spec, meta) = (template.child("spec"), template.child("metadata"));
    let mut errors = metadata_with(template, options);
    errors.extend(pod_spec(&spec, "", false, options));
    errors.extend(annotations::match_fields(meta.value, &spec));
    let ephemeral = spec.child("ephemeralContainers");
    if !ephemeral.is_empty() {
        errors.push(ephemeral.forbidden("ephemeral containers not allowed in pod template"));
    }
    errors
}

/// What is wrong with a pod's spec; `pod` is the pod's name, empty for templates. A static pod is there as a mirror.
fn pod_spec(spec: &At<'_>, pod: &str, is_static: bool, options: &Options) -> ErrorList {
    let mut errors = ErrorList::new();
    let grace = spec.child("terminationGracePeriodSeconds");
    if !grace.is_set() {
        errors.push(grace.required(""));
    }
    let volumes = volumes::volumes(&spec.child("volumes"), pod, options, &mut errors);
    errors.extend(resource_claims(&spec.child("resourceClaims"), is_static));
    let claims: Vec<&str> =
        spec.each("resourceClaims").map(|claim| claim.text("name")).filter(|name| !name.is_empty()).collect();
    let of = containers::Pod {
        volumes: &volumes,
        claims: &claims,
        grace: grace.int(),
        restart_policy: spec.text("restartPolicy"),
        host_users: !spec.has("hostUsers") || spec.is_true("hostUsers"),
        options,
    };
    let (regular, init) = (spec.child("containers"), spec.child("initContainers"));
    errors.extend(containers::containers(&regular, &of));
    errors.extend(containers::init_containers(&init, &regular, &of));
    let ephemeral = spec.child("ephemeralContainers");
    errors.extend(containers::ephemeral_containers(&ephemeral, &regular, &init, &of));
    errors.extend(resources::pod_level(spec, &claims, options.allow_indivisible_huge_pages));
    if spec.is_true("hostNetwork") {
        errors.extend(containers::host_network(&regular, options.is_pod));
    }
    errors.extend(spec.child("restartPolicy").one_of(&["Always", "OnFailure", "Never"]));
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    errors.extend(spec.child("dnsPolicy").one_of(&policies));
    let selector = spec.child("nodeSelector");
    if let Value::Object(labels) = selector.value {
        errors.extend(names::validate_labels(labels, &selector.path));
    }
    errors.extend(security::pod(spec, options));
    errors.extend(placement(spec, options));
    errors.extend(windows::host_process(spec));
    errors.extend(security::host_users(spec, options.allow_devices_with_own_users));
    errors.extend(hostname_override(spec));
    errors.extend(identity(spec));
    errors.extend(security::os(spec));
    errors.extend(env::file_volumes(spec));
    errors
}

/// Pull secrets, affinity, DNS, gates and spread: what stands between the security context and the names.
fn placement(spec: &At<'_>, options: &Options) -> ErrorList {
    let mut errors = scheduling::affinity(&spec.child("affinity"), options);
    errors.extend(dns_config(spec));
    errors.extend(scheduling::readiness_gates(&spec.child("readinessGates")));
    errors.extend(scheduling::scheduling_gates(&spec.child("schedulingGates")));
    errors.extend(scheduling::topology_spread(
        &spec.child("topologySpreadConstraints"),
        options.is_pod,
        options.allow_invalid_spread_selector,
    ));
    errors
}

/// Names that a spec gives or refers to, deadlines, tolerations, aliases, overhead.
fn identity(spec: &At<'_>) -> ErrorList {
    let said = |key: &str| Some(spec.child(key)).filter(|at| !at.is_empty());
    let mut errors = ErrorList::new();
    for name in ["serviceAccountName", "nodeName"].into_iter().filter_map(said) {
        errors.extend(name.subdomain());
    }
    if let Some(seconds) = spec.field("activeDeadlineSeconds") {
        errors.extend(seconds.in_range(1, i64::from(i32::MAX)));
    }
    for label in ["hostname", "subdomain"].into_iter().filter_map(said) {
        errors.extend(label.dns_label());
    }
    errors.extend(tolerations(&spec.child("tolerations")));
    errors.extend(host_aliases(&spec.child("hostAliases")));
    for name in [said("priorityClassName"), spec.field("runtimeClassName")].into_iter().flatten() {
        errors.extend(name.subdomain());
    }
    if let Some(policy) = spec.field("preemptionPolicy") {
        errors.extend(policy.one_of(&["PreemptLowerPriority", "Never"]));
    }
    if let Some(overhead) = spec.field("overhead") {
        let limits = serde_json::json!({"limits": overhead.value});
        let rule = resources::container_resource_name;
        errors.extend(resources::requirements(&At::new(&limits, overhead.path), rule, &[], false));
    }
    errors
}

/// A host name of the pod's own choosing, which neither the host's network nor its FQDN can give it.
fn hostname_override(spec: &At<'_>) -> ErrorList {
    const MAX: usize = 64;
    let Some(name) = spec.field("hostnameOverride") else { return ErrorList::new() };
    let mut errors = ErrorList::new();
    for key in ["setHostnameAsFQDN", "hostNetwork"] {
        if spec.is_true(key) {
            errors.push(name.forbidden(format!("may not be specified when {key} is true")));
        }
    }
    if name.len() > MAX {
        errors.push(name.too_long(MAX));
    }
    errors.extend(name.subdomain());
    errors
}

fn resource_claims(claims: &At<'_>, is_static: bool) -> ErrorList {
    if is_static {
        let refuse = |_| Error::forbidden(&Path::new("[]"), "static pods do not support resource claims");
        return claims.items().map(refuse).collect();
    }
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for claim in claims.items() {
        let name = claim.child("name");
        if name.is_empty() {
            errors.push(name.required(""));
        } else if seen.contains(&name.str()) {
            errors.push(name.duplicate());
        } else {
            errors.extend(name.dns_label());
            seen.push(name.str());
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"].map(|key| claim.child(key));
        let why = match sources.iter().filter(|source| source.is_set()).count() {
            0 => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            1 => "",
            _ => "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
        };
        if !why.is_empty() {
            let shown = go_struct(&[
                ("Name", name.str().into()),
                ("ResourceClaimName", sources[0].value.clone()),
                ("ResourceClaimTemplateName", sources[1].value.clone()),
            ]);
            errors.push(claim.invalid(why).showing(shown));
        }
        errors.extend(sources.iter().filter(|source| source.is_set()).flat_map(At::subdomain));
    }
    errors
}

fn dns_config(spec: &At<'_>) -> ErrorList {
    const MAX_SERVERS: usize = 3;
    const MAX_SEARCHES: usize = 32;
    const MAX_SEARCH_CHARS: usize = 2048;
    let config = spec.child("dnsConfig");
    let (servers, searches) = (config.child("nameservers"), config.child("searches"));
    if spec.text("dnsPolicy") == "None" {
        if !config.is_set() {
            return vec![config.required("must provide `dnsConfig` when `dnsPolicy` is None")];
        }
        if servers.is_empty() {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return vec![servers.required(why)];
        }
    }
    let mut errors = ErrorList::new();
    if servers.len() > MAX_SERVERS {
        errors.push(servers.invalid(format!("must not have more than {MAX_SERVERS} nameservers")));
    }
    errors.extend(servers.items().flat_map(|server| server.ip(&[])));
    if searches.len() > MAX_SEARCHES {
        errors.push(searches.invalid(format!("must not have more than {MAX_SEARCHES} search paths")));
    }
    if config.strings("searches").join(" ").len() > MAX_SEARCH_CHARS {
        errors.push(searches.invalid(format!(
            "must not have more than {MAX_SEARCH_CHARS} characters (including spaces) in the search list"
        )));
    }
    for search in searches.items().filter(|search| search.str() != ".") {
        let name = Value::from(search.str().strip_suffix('.').unwrap_or(search.str()));
        let name = At::new(&name, search.path);
        errors.extend(name.follows(names::is_dns1123_subdomain_with_underscore));
    }
    for option in config.each("options").filter(|option| !option.says("name")) {
        errors.push(option.required("must not be empty"));
    }
    errors
}

fn host_aliases(aliases: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    for alias in aliases.items() {
        errors.extend(alias.child("ip").ip(&[]));
        errors.extend(alias.each("hostnames").flat_map(|name| name.subdomain()));
    }
    errors
}
