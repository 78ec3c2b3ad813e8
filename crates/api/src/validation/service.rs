//! Services: what one may say by itself. Addresses and ports are checked against the cluster where they are
//! given out.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;
use apimachinery::{Object, Value};

use super::endpoints::non_special_ip;
use super::pod::port_num_or_name;
use super::value::{
    field, flag, go_struct, has, int, invalid, list, number, one_of, optional, showing, strings, supported,
    text,
};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const DAY: i64 = 86400;

/// What old values excuse in an update, in lists that predate strict rules.
#[derive(Default)]
pub(super) struct Excused {
    pub cluster_ips: Vec<String>,
    pub external_ips: Vec<String>,
    pub source_ranges: Vec<String>,
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
    let none = Value::Null;
    let spec = service.get(&["spec"]).unwrap_or(&none);
    let path = Path::new("spec");
    let (kind, headless) = (text(spec, "type"), is_headless(spec));
    let ports = list(spec, "ports");
    let mut errors: ErrorList = topology_annotations(service).into_iter().collect();
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.push(Error::required(&path.child("ports"), ""));
    }
    errors.extend(by_type(spec, kind, headless, &path));
    errors.extend(port_list(ports, &path.child("ports")));
    if let Some(Value::Object(selector)) = spec.get("selector") {
        errors.extend(names::validate_labels(selector, &path.child("selector")));
    }
    errors.extend(affinity(spec, &path));
    errors.extend(cluster_ips_with(spec, &excused.cluster_ips));
    let old: Vec<&str> = excused.external_ips.iter().map(String::as_str).collect();
    for (index, ip) in strings(spec, "externalIPs").iter().enumerate() {
        let at = path.child("externalIPs").index(index);
        let wrong = names::is_valid_ip_for_legacy_field(&at, ip, &old);
        let fine = wrong.is_empty();
        errors.extend(wrong);
        if fine {
            errors.extend(non_special_ip(ip, &at));
        }
    }
    errors.extend(one_of(kind, &TYPES, &path.child("type")));
    errors.extend(numbers(ports, kind, &path.child("ports")));
    errors.extend(load_balancer(service, spec, kind, excused, &path));
    errors.extend(load_balancer_class(spec, &path));
    errors.extend(traffic(spec, kind, &path));
    errors
}

fn topology_annotations(service: &Object) -> Option<Error> {
    let (mode, hints) = (service.annotation(TOPOLOGY_MODE)?, service.annotation(TOPOLOGY_HINTS)?);
    let at = Path::new("metadata").child("annotations").key(TOPOLOGY_MODE);
    let why = format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified");
    (mode != hints).then(|| Error::invalid(&at, mode, why))
}

fn by_type(spec: &Value, kind: &str, headless: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let why = format!("may not be set to 'None' for {kind} services");
            errors.push(Error::invalid(&path.child("clusterIPs").index(0), "None", why));
        }
        "ExternalName" => {
            for key in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                let set = if key == "ipFamilyPolicy" { has(spec, key) } else { !list(spec, key).is_empty() };
                if set {
                    let why = "may not be set for ExternalName services";
                    errors.push(Error::forbidden(&path.child(key), why));
                }
            }
            let at = path.child("externalName");
            let name = text(spec, "externalName");
            match name.strip_suffix('.').unwrap_or(name) {
                "" => errors.push(Error::required(&at, "")),
                name => errors.extend(invalid(&at, name, names::is_dns1123_subdomain(name))),
            }
        }
        _ => {}
    }
    errors
}

fn port_list(ports: &[Value], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let at = path.index(index);
        let name = text(port, "name");
        if name.is_empty() {
            if ports.len() > 1 {
                errors.push(Error::required(&at.child("name"), ""));
            }
        } else {
            errors.extend(invalid(&at.child("name"), name, names::is_dns1123_label(name)));
            if seen.contains(&name) {
                errors.push(Error::duplicate(&at.child("name"), name));
            }
            seen.push(name);
        }
        let number = number(port, "port");
        errors.extend(invalid(&at.child("port"), number, names::is_valid_port_num(number)));
        errors.extend(one_of(text(port, "protocol"), &["SCTP", "TCP", "UDP"], &at.child("protocol")));
        errors.extend(port_num_or_name(port.get("targetPort"), &at.child("targetPort")));
        if let Some(protocol) = optional(port, "appProtocol") {
            errors.extend(invalid(&at.child("appProtocol"), protocol, names::is_qualified_name(protocol)));
        }
    }
    errors
}

/// Node ports where there are none, and numbers that two ports share.
fn numbers(ports: &[Value], kind: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let node_port = |port: &Value| number(port, "nodePort");
    if kind == "ClusterIP" {
        for (index, _) in ports.iter().enumerate().filter(|(_, port)| node_port(port) != 0) {
            let why = "may not be used when `type` is 'ClusterIP'";
            errors.push(Error::forbidden(&path.index(index).child("nodePort"), why));
        }
    }
    for (index, port) in ports.iter().enumerate().filter(|(_, port)| node_port(port) != 0) {
        let same = |other: &Value| {
            node_port(other) == node_port(port) && text(other, "protocol") == text(port, "protocol")
        };
        if ports[..index].iter().any(same) {
            errors.push(Error::duplicate(&path.index(index).child("nodePort"), node_port(port)));
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let (own, protocol) = (number(port, "port"), text(port, "protocol"));
        if ports[..index].iter().any(|o| number(o, "port") == own && text(o, "protocol") == protocol) {
            // shown as a port that has nothing but what is the same
            let shown = go_struct(&[
                ("Name", "".into()),
                ("Protocol", protocol.into()),
                ("AppProtocol", Value::Null),
                ("Port", own.into()),
                ("TargetPort", 0.into()),
                ("NodePort", 0.into()),
            ]);
            errors.push(showing(Error::duplicate(&path.index(index), Value::Null), shown));
        }
    }
    errors
}

fn affinity(spec: &Value, path: &Path) -> ErrorList {
    let kind = text(spec, "sessionAffinity");
    let at = path.child("sessionAffinityConfig");
    let mut errors = one_of(kind, &["ClientIP", "None"], &path.child("sessionAffinity"));
    let config = field(spec, "sessionAffinityConfig");
    match kind {
        "None" if config.is_some() => {
            errors.push(Error::forbidden(&at, "must not be set when session affinity is None"));
        }
        "ClientIP" => {
            const MISSING: &str = "when session affinity type is ClientIP";
            let client = config.and_then(|config| field(config, "clientIP"));
            let (client_at, seconds) = (at.child("clientIP"), client.and_then(|c| int(c, "timeoutSeconds")));
            let seconds_at = client_at.child("timeoutSeconds");
            match (config, client, seconds) {
                (None, ..) => errors.push(Error::required(&at, MISSING)),
                (_, None, _) => errors.push(Error::required(&client_at, MISSING)),
                (.., None) => errors.push(Error::required(&seconds_at, MISSING)),
                (.., Some(seconds)) if !(1..=DAY).contains(&seconds) => {
                    let why = format!("must be greater than 0 and less than {DAY}");
                    errors.push(Error::invalid(&seconds_at, seconds, why));
                }
                _ => {}
            }
        }
        _ => {}
    }
    errors
}

fn is_ipv6(ip: &str) -> bool {
    names::parse_ip_sloppy(ip).is_some_and(|ip| ip.is_ipv6())
}

/// Addresses, families and policy, as far as they have to fit each other. Also asked before addresses are
/// given out.
pub fn cluster_ips(service: &Object) -> ErrorList {
    cluster_ips_with(service.get(&["spec"]).unwrap_or(&Value::Null), &[])
}

fn cluster_ips_with(spec: &Value, excused: &[String]) -> ErrorList {
    let mut errors = ErrorList::new();
    if text(spec, "type") == "ExternalName" {
        return errors;
    }
    let path = Path::new("spec");
    let (at, families_at) = (path.child("clusterIPs"), path.child("ipFamilies"));
    let (ips, families) = (strings(spec, "clusterIPs"), strings(spec, "ipFamilies"));
    let shown = || list(spec, "clusterIPs").to_vec();
    match (text(spec, "clusterIP"), ips.first()) {
        ("", None) => {}
        ("", Some(_)) => {
            errors.push(Error::invalid(&at, shown(), "must be empty when `clusterIP` is not specified"));
        }
        (_, None) => errors.push(Error::required(&at, "")),
        (first, Some(listed)) if first != *listed => {
            errors.push(Error::invalid(&at, shown(), "first value must match `clusterIP`"));
        }
        _ => {}
    }
    for (index, family) in families.iter().enumerate() {
        let at = families_at.index(index);
        errors.extend(supported(family, &["IPv4", "IPv6"], &at));
        if families[..index].contains(family) {
            errors.push(Error::duplicate(&at, *family));
        }
    }
    if let Some(policy) = optional(spec, "ipFamilyPolicy") {
        let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
        errors.extend(supported(policy, &policies, &path.child("ipFamilyPolicy")));
    }
    let old: Vec<&str> = excused.iter().map(String::as_str).collect();
    let before = errors.len();
    for (index, ip) in ips.iter().enumerate() {
        if index == 0 && *ip == "None" {
            if ips.len() > 1 {
                errors.push(Error::invalid(&at, shown(), "'None' must be the first and only value"));
            }
            continue;
        }
        errors.extend(names::is_valid_ip_for_legacy_field(&at.index(index), ip, &old));
    }
    let any_wrong = errors.len() > before;
    if ips.len() > 2 {
        errors.push(Error::invalid(&at, shown(), "may only hold up to 2 values"));
    }
    if any_wrong {
        return errors;
    }
    if ips.len() > 1 {
        let v6 = ips.iter().filter(|ip| is_ipv6(ip)).count();
        if v6 == 0 || v6 == ips.len() {
            errors.push(Error::invalid(&at, shown(), "may specify no more than one IP for each IP family"));
        }
    }
    if !is_headless(spec) {
        for (index, (ip, family)) in ips.iter().zip(&families).enumerate() {
            if matches!((*family, is_ipv6(ip)), ("IPv4", true) | ("IPv6", false)) {
                let why = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
                errors.push(Error::invalid(&at.index(index), *ip, why));
            }
        }
    }
    errors
}

fn load_balancer(service: &Object, spec: &Value, kind: &str, excused: &Excused, path: &Path) -> ErrorList {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    let is_one = kind == "LoadBalancer";
    let mut errors = ErrorList::new();
    let old: Vec<&str> = excused.source_ranges.iter().map(String::as_str).collect();
    let ranges = strings(spec, "loadBalancerSourceRanges");
    if !ranges.is_empty() {
        let at = path.child("LoadBalancerSourceRanges");
        if !is_one {
            errors.push(Error::forbidden(&at, ONLY));
        }
        for (index, range) in ranges.iter().enumerate() {
            // space around a range was let in when these moved here from an annotation
            errors.extend(names::is_valid_cidr_for_legacy_field(&at.index(index), range.trim(), &old));
        }
    } else if let Some(ranges) = service.annotation(SOURCE_RANGES) {
        let at = Path::new("metadata").child("annotations").key(SOURCE_RANGES);
        if !is_one {
            errors.push(Error::forbidden(&at, ONLY));
        }
        if !ranges.trim().is_empty() {
            for range in ranges.trim().split(',') {
                errors.extend(names::is_valid_cidr_for_legacy_field(&at, range.trim(), &old));
            }
        }
    }
    match (has(spec, "allocateLoadBalancerNodePorts"), is_one) {
        (true, false) => errors.push(Error::forbidden(&path.child("allocateLoadBalancerNodePorts"), ONLY)),
        (false, true) => errors.push(Error::required(&Path::new("allocateLoadBalancerNodePorts"), "")),
        _ => {}
    }
    errors
}

pub(super) fn load_balancer_class(spec: &Value, path: &Path) -> ErrorList {
    let at = path.child("loadBalancerClass");
    match (optional(spec, "loadBalancerClass"), text(spec, "type")) {
        (Some(class), "LoadBalancer") => invalid(&at, class, names::is_qualified_name(class)),
        (Some(_), _) => {
            vec![Error::forbidden(&at, "may only be used when `type` is 'LoadBalancer'")]
        }
        (None, _) => ErrorList::new(),
    }
}

fn traffic(spec: &Value, kind: &str, path: &Path) -> ErrorList {
    const POLICIES: [&str; 2] = ["Cluster", "Local"];
    let mut errors = ErrorList::new();
    let external = text(spec, "externalTrafficPolicy");
    let at = path.child("externalTrafficPolicy");
    if is_externally_accessible(spec) {
        errors.extend(one_of(external, &POLICIES, &at));
    } else if !external.is_empty() {
        let why = "may only be set for externally-accessible services";
        errors.push(Error::invalid(&at, external, why));
    }
    let at = path.child("healthCheckNodePort");
    match (needs_health_check(spec), number(spec, "healthCheckNodePort")) {
        (false, 0) => {}
        (false, port) => {
            let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(Error::invalid(&at, port, why));
        }
        (true, 0) => errors.push(Error::required(&at, "")),
        (true, port) => errors.extend(invalid(&at, port, names::is_valid_port_num(port))),
    }
    let at = path.child("internalTrafficPolicy");
    match optional(spec, "internalTrafficPolicy") {
        Some(policy) => errors.extend(supported(policy, &POLICIES, &at)),
        None if matches!(kind, "NodePort" | "LoadBalancer" | "ClusterIP") => {
            errors.push(Error::required(&at, ""));
        }
        None => {}
    }
    if let Some(distribution) = optional(spec, "trafficDistribution") {
        let valid = ["PreferClose", "PreferSameZone", "PreferSameNode"];
        errors.extend(supported(distribution, &valid, &path.child("trafficDistribution")));
    }
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
