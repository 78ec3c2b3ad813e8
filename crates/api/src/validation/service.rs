//! Services: what one may say by itself. Addresses and ports are checked against the cluster where they are
//! given out.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;
use apimachinery::{Object, Value};

use super::at::At;
use super::endpoints::non_special_ip;
use super::pod::port_num_or_name;
use super::value::{flag, go_struct, has, list, number, text};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
pub(super) const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const DAY: i64 = 86400;

/// What old values excuse in an update, in lists that predate strict rules.
#[derive(Default)]
pub(super) struct Excused {
    pub cluster_ips: Vec<String>,
    pub external_ips: Vec<String>,
    pub source_ranges: Vec<String>,
    /// Ranges in the annotation that was there before the field.
    pub annotated_ranges: Option<String>,
}

pub fn service(service: &Object) -> ErrorList {
    service_with(service, &Excused::default())
}

/// A Service without an address of its own.
pub fn is_headless(spec: &Value) -> bool {
    matches!(list(spec, "clusterIPs"), [only] if only == "None")
}

/// Whether anything outside the cluster can get to a Service.
pub fn is_externally_accessible(spec: &Value) -> bool {
    match text(spec, "type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !list(spec, "externalIPs").is_empty(),
        _ => false,
    }
}

/// Whether load balancers have to ask nodes whether they have endpoints.
pub fn needs_health_check(spec: &Value) -> bool {
    text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

pub(super) fn service_with(service: &Object, excused: &Excused) -> ErrorList {
    let spec = At::of(service, &["spec"]);
    let (kind, ports) = (spec.child("type"), spec.child("ports"));
    let mut errors: ErrorList = topology_annotations(service).into_iter().collect();
    if ports.is_empty() && !is_headless(spec.value) && kind.str() != "ExternalName" {
        errors.push(ports.required(""));
    }
    errors.extend(by_type(&spec, kind.str()));
    errors.extend(port_list(&ports));
    let selector = spec.child("selector");
    if let Value::Object(labels) = selector.value {
        errors.extend(names::validate_labels(labels, &selector.path));
    }
    errors.extend(affinity(&spec));
    let old: Vec<&str> = excused.cluster_ips.iter().map(String::as_str).collect();
    errors.extend(cluster_ips_with(&spec, &old));
    let old: Vec<&str> = excused.external_ips.iter().map(String::as_str).collect();
    for ip in spec.each("externalIPs") {
        let wrong = ip.ip(&old);
        errors.extend(if wrong.is_empty() { non_special_ip(&ip) } else { wrong });
    }
    errors.extend(kind.one_of(&TYPES));
    errors.extend(numbers(&ports, kind.str()));
    errors.extend(load_balancer(service, &spec, excused));
    errors.extend(load_balancer_class(&spec));
    errors.extend(traffic(&spec));
    errors
}

fn topology_annotations(service: &Object) -> Option<Error> {
    let (mode, hints) = (service.annotation(TOPOLOGY_MODE)?, service.annotation(TOPOLOGY_HINTS)?);
    let at = Path::new("metadata").child("annotations").key(TOPOLOGY_MODE);
    let why = format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified");
    (mode != hints).then(|| Error::invalid(&at, mode, why))
}

fn by_type(spec: &At<'_>, kind: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(spec.value) => {
            let why = format!("may not be set to 'None' for {kind} services");
            errors.push(Error::invalid(&spec.child("clusterIPs").path.index(0), "None", why));
        }
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"].map(|key| spec.child(key)) {
                if field.value.is_string() || !field.is_empty() {
                    errors.push(field.forbidden("may not be set for ExternalName services"));
                }
            }
            let name = spec.child("externalName");
            let text = Value::from(name.str().strip_suffix('.').unwrap_or(name.str()));
            let name = At::new(&text, name.path);
            errors.extend(if name.is_empty() { name.must_be_set() } else { name.subdomain() });
        }
        _ => {}
    }
    errors
}

fn port_list(ports: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for port in ports.items() {
        let name = port.child("name");
        if name.is_empty() {
            if ports.len() > 1 {
                errors.push(name.required(""));
            }
        } else {
            errors.extend(name.dns_label());
            if seen.contains(&name.str()) {
                errors.push(name.duplicate());
            }
            seen.push(name.str());
        }
        errors.extend(port.child("port").port_number());
        errors.extend(port.child("protocol").one_of(&["SCTP", "TCP", "UDP"]));
        errors.extend(port_num_or_name(&port.child("targetPort")));
        if let Some(protocol) = port.field("appProtocol") {
            errors.extend(protocol.qualified_name());
        }
    }
    errors
}

/// Node ports where there are none, and numbers that two ports share.
fn numbers(ports: &At<'_>, kind: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    let with_node_port = || ports.items().enumerate().filter(|(_, port)| port.says("nodePort"));
    if kind == "ClusterIP" {
        let why = "may not be used when `type` is 'ClusterIP'";
        errors.extend(with_node_port().map(|(_, port)| port.child("nodePort").forbidden(why)));
    }
    // whether an earlier port has the same protocol and the same number of a sort
    let repeats = |index: usize, port: &At<'_>, key: &str| {
        ports.list()[..index].iter().any(|other| {
            number(other, key) == port.number_or_zero(key) && text(other, "protocol") == port.text("protocol")
        })
    };
    for (index, port) in with_node_port() {
        if repeats(index, &port, "nodePort") {
            errors.push(port.child("nodePort").duplicate());
        }
    }
    for (index, port) in ports.items().enumerate() {
        if repeats(index, &port, "port") {
            // shown as a port that has nothing but what is the same
            let shown = go_struct(&[
                ("Name", "".into()),
                ("Protocol", port.text("protocol").into()),
                ("AppProtocol", Value::Null),
                ("Port", port.number_or_zero("port").into()),
                ("TargetPort", 0.into()),
                ("NodePort", 0.into()),
            ]);
            errors.push(port.duplicate().showing(shown));
        }
    }
    errors
}

fn affinity(spec: &At<'_>) -> ErrorList {
    const MISSING: &str = "when session affinity type is ClientIP";
    let (kind, config) = (spec.child("sessionAffinity"), spec.child("sessionAffinityConfig"));
    let mut errors = kind.one_of(&["ClientIP", "None"]);
    if kind.str() == "None" && config.is_set() {
        errors.push(config.forbidden("must not be set when session affinity is None"));
    }
    if kind.str() == "ClientIP" {
        let client = config.child("clientIP");
        let seconds = client.child("timeoutSeconds");
        if let Some(missing) = [&config, &client, &seconds].into_iter().find(|at| !at.is_set()) {
            errors.push(missing.required(MISSING));
        } else if !(1..=DAY).contains(&seconds.int_or_zero()) {
            errors.push(seconds.invalid(format!("must be greater than 0 and less than {DAY}")));
        }
    }
    errors
}

fn is_ipv6(ip: &str) -> bool {
    names::parse_ip_sloppy(ip).is_some_and(|ip| ip.is_ipv6())
}

/// Addresses, families and policy, as far as they have to fit each other. Also asked before addresses are
/// given out.
pub fn cluster_ips(service: &Object, old: Option<&Object>) -> ErrorList {
    let before = old.map(|old| At::of(old, &["spec"]).strings("clusterIPs")).unwrap_or_default();
    cluster_ips_with(&At::of(service, &["spec"]), &before)
}

fn cluster_ips_with(spec: &At<'_>, excused: &[&str]) -> ErrorList {
    let mut errors = ErrorList::new();
    if spec.text("type") == "ExternalName" {
        return errors;
    }
    let (ips, families) = (spec.child("clusterIPs"), spec.child("ipFamilies"));
    let refuse = |why: &str| Error::invalid(&ips.path, ips.list().to_vec(), why);
    match (spec.text("clusterIP"), ips.items().next()) {
        ("", None) => {}
        ("", Some(_)) => errors.push(refuse("must be empty when `clusterIP` is not specified")),
        (_, None) => errors.push(ips.required("")),
        (first, Some(listed)) if first != listed.str() => {
            errors.push(refuse("first value must match `clusterIP`"));
        }
        _ => {}
    }
    for (index, family) in families.items().enumerate() {
        errors.extend(family.among(&["IPv4", "IPv6"]));
        if families.list()[..index].contains(family.value) {
            errors.push(family.duplicate());
        }
    }
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    errors.extend(spec.child("ipFamilyPolicy").supported(&policies));
    let before = errors.len();
    for (index, ip) in ips.items().enumerate() {
        if index == 0 && ip.str() == "None" {
            if ips.len() > 1 {
                errors.push(refuse("'None' must be the first and only value"));
            }
            continue;
        }
        errors.extend(ip.ip(excused));
    }
    let any_wrong = errors.len() > before;
    if ips.len() > 2 {
        errors.push(refuse("may only hold up to 2 values"));
    }
    if any_wrong {
        return errors;
    }
    if ips.len() > 1 {
        let v6 = ips.items().filter(|ip| is_ipv6(ip.str())).count();
        if v6 == 0 || v6 == ips.len() {
            errors.push(refuse("may specify no more than one IP for each IP family"));
        }
    }
    if !is_headless(spec.value) {
        for (index, (ip, family)) in ips.items().zip(families.items()).enumerate() {
            let family = family.str();
            if matches!((family, is_ipv6(ip.str())), ("IPv4", true) | ("IPv6", false)) {
                let why = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
                errors.push(ip.invalid(why));
            }
        }
    }
    errors
}

fn load_balancer(service: &Object, spec: &At<'_>, excused: &Excused) -> ErrorList {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    let is_one = spec.text("type") == "LoadBalancer";
    let mut errors = ErrorList::new();
    let old: Vec<&str> = excused.source_ranges.iter().map(String::as_str).collect();
    // space around a range was let in when these moved here from an annotation
    let range = |text: &str, path: &Path| names::is_valid_cidr_for_legacy_field(path, text.trim(), &old);
    let ranges = spec.child("loadBalancerSourceRanges");
    if !ranges.is_empty() {
        let ranges = At::new(ranges.value, spec.path.child("LoadBalancerSourceRanges"));
        if !is_one {
            errors.push(ranges.forbidden(ONLY));
        }
        errors.extend(ranges.items().flat_map(|one| range(one.str(), &one.path)));
    } else if let Some(ranges) = service.annotation(SOURCE_RANGES) {
        let path = Path::new("metadata").child("annotations").key(SOURCE_RANGES);
        if !is_one {
            errors.push(Error::forbidden(&path, ONLY));
        }
        if excused.annotated_ranges.as_deref() != Some(ranges) && !ranges.trim().is_empty() {
            errors.extend(ranges.trim().split(',').flat_map(|one| range(one, &path)));
        }
    }
    let allocate = spec.child("allocateLoadBalancerNodePorts");
    match (allocate.is_set(), is_one) {
        (true, false) => errors.push(allocate.forbidden(ONLY)),
        (false, true) => errors.push(Error::required(&Path::new("allocateLoadBalancerNodePorts"), "")),
        _ => {}
    }
    errors
}

pub(super) fn load_balancer_class(spec: &At<'_>) -> ErrorList {
    let Some(class) = spec.field("loadBalancerClass") else { return ErrorList::new() };
    match spec.text("type") {
        "LoadBalancer" => class.qualified_name(),
        _ => vec![class.forbidden("may only be used when `type` is 'LoadBalancer'")],
    }
}

fn traffic(spec: &At<'_>) -> ErrorList {
    const POLICIES: [&str; 2] = ["Cluster", "Local"];
    let mut errors = ErrorList::new();
    let external = spec.child("externalTrafficPolicy");
    if is_externally_accessible(spec.value) {
        errors.extend(external.one_of(&POLICIES));
    } else if !external.is_empty() {
        errors.push(external.invalid("may only be set for externally-accessible services"));
    }
    let health = spec.child("healthCheckNodePort");
    match (needs_health_check(spec.value), health.int_or_zero()) {
        (false, 0) => {}
        (false, _) => {
            let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(health.invalid(why));
        }
        (true, 0) => errors.push(health.required("")),
        (true, _) => errors.extend(health.port_number()),
    }
    let internal = spec.child("internalTrafficPolicy");
    if !internal.is_set() && matches!(spec.text("type"), "NodePort" | "LoadBalancer" | "ClusterIP") {
        errors.push(internal.required(""));
    }
    errors.extend(internal.supported(&POLICIES));
    let distributions = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    errors.extend(spec.child("trafficDistribution").supported(&distributions));
    errors
}

/// Whether a Service gets node ports without asking for each.
pub fn allocates_node_ports(spec: &Value) -> bool {
    match text(spec, "type") {
        "NodePort" => true,
        "LoadBalancer" => {
            !has(spec, "allocateLoadBalancerNodePorts") || flag(spec, "allocateLoadBalancerNodePorts")
        }
        _ => false,
    }
}
