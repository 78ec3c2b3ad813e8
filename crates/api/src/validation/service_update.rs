//! What an update of a Service may change, and what its status may say.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;
use apimachinery::{Object, Value};

use super::service::{Excused, is_headless, load_balancer_class, needs_health_check, service_with};
use super::value::{field, invalid, list, number, optional, strings, supported, text};

pub fn service_update(new: &Object, old: &Object) -> ErrorList {
    let none = Value::Null;
    let (after, before) = (new.get(&["spec"]).unwrap_or(&none), old.get(&["spec"]).unwrap_or(&none));
    let mut errors = cluster_ips(after, before);
    errors.extend(families(after, before));
    let path = Path::new("spec");
    let both = |kind: &str| text(after, "type") == kind && text(before, "type") == kind;
    let class = "loadBalancerClass";
    if both("LoadBalancer") && after.get(class) != before.get(class) {
        let shown = after.get(class).cloned().unwrap_or_default();
        errors.push(Error::invalid(&path.child(class), shown, "may not change once set"));
    }
    errors.extend(load_balancer_class(after, &path));
    let health = "healthCheckNodePort";
    if needs_health_check(after)
        && needs_health_check(before)
        && number(after, health) != number(before, health)
    {
        errors.push(Error::forbidden(&path.child(health), "field is immutable"));
    }
    let owned = |key: &str| strings(before, key).into_iter().map(str::to_owned).collect();
    let excused = Excused {
        cluster_ips: owned("clusterIPs"),
        external_ips: owned("externalIPs"),
        source_ranges: strings(before, "loadBalancerSourceRanges")
            .into_iter()
            .map(|range| range.trim().to_owned())
            .collect(),
    };
    errors.extend(service_with(new, &excused));
    errors
}

fn is_external_name(spec: &Value) -> bool {
    text(spec, "type") == "ExternalName"
}

/// A Service keeps its first address; a second one may come and go with the policy.
fn cluster_ips(new: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    if is_external_name(new) || is_external_name(old) || (is_headless(new) && is_headless(old)) {
        return errors;
    }
    let at = Path::new("spec").child("clusterIPs");
    let (after, before) = (strings(new, "clusterIPs"), strings(old, "clusterIPs"));
    let shown = || list(new, "clusterIPs").to_vec();
    let first_moved =
        matches!((after.first(), before.first()), (Some(after), Some(before)) if after != before);
    if after.len() == before.len() {
        for (index, _) in before.iter().zip(&after).enumerate().filter(|(_, (b, a))| b != a) {
            errors.push(Error::invalid(&at.index(index), shown(), "may not change once set"));
        }
        return errors;
    }
    if after.is_empty() {
        errors.push(Error::invalid(&at.index(0), shown(), "primary clusterIP can not be unset"));
    }
    if first_moved {
        errors.push(Error::invalid(&at.index(0), shown(), "may not change once set"));
    }
    if before.len() > after.len() && after.len() == 1 {
        errors
            .extend(single_stack(new, "must be set to 'SingleStack' when releasing the secondary clusterIP"));
    }
    errors
}

fn single_stack(spec: &Value, why: &str) -> Option<Error> {
    if optional(spec, "ipFamilyPolicy") == Some("SingleStack") {
        return None;
    }
    let at = Path::new("spec").child("ipFamilyPolicy");
    Some(Error::invalid(&at, spec.get("ipFamilyPolicy").cloned().unwrap_or_default(), why))
}

fn families(new: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    if is_external_name(new) || is_external_name(old) || is_headless(new) || is_headless(old) {
        return errors;
    }
    let at = Path::new("spec").child("ipFamilies").index(0);
    let (after, before) = (strings(new, "ipFamilies"), strings(old, "ipFamilies"));
    if after.len() == before.len() {
        for _ in before.iter().zip(&after).filter(|(before, after)| before != after) {
            errors.push(Error::invalid(&at, list(new, "ipFamilies").to_vec(), "may not change once set"));
        }
        return errors;
    }
    let fewer = before.len() > after.len();
    if fewer && list(new, "clusterIPs").is_empty() {
        let why = "primary ipFamily can not be unset";
        errors.push(Error::invalid(&at, list(new, "ipFamilies").to_vec(), why));
    }
    if matches!((after.first(), before.first()), (Some(after), Some(before)) if after != before) {
        errors.push(Error::invalid(&at, list(new, "clusterIPs").to_vec(), "may not change once set"));
    }
    if fewer && after.len() == 1 {
        errors
            .extend(single_stack(new, "must be set to 'SingleStack' when releasing the secondary ipFamily"));
    }
    errors
}

pub fn service_status_update(service: &Object, old: &Object) -> ErrorList {
    let none = Value::Null;
    let status = service.get(&["status", "loadBalancer"]).unwrap_or(&none);
    let before = old.get(&["status", "loadBalancer"]).unwrap_or(&none);
    let path = Path::new("status").child("loadBalancer");
    let known: Vec<&str> = list(before, "ingress").iter().map(|ingress| text(ingress, "ip")).collect();
    load_balancer_status(status, service.get_str(&["spec", "type"]), &known, &path)
}

/// What stands before a Service or an Ingress. `kind` is the Service's type; `known` are addresses that were
/// there before.
pub fn load_balancer_status(status: &Value, kind: &str, known: &[&str], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let at = path.child("ingress");
    let ingress = list(status, "ingress");
    if kind != "LoadBalancer" && !ingress.is_empty() {
        return vec![Error::forbidden(&at, "may only be used when `spec.type` is 'LoadBalancer'")];
    }
    for (index, one) in ingress.iter().enumerate() {
        let at = at.index(index);
        let (ip, hostname) = (text(one, "ip"), text(one, "hostname"));
        if !ip.is_empty() {
            errors.extend(names::is_valid_ip_for_legacy_field(&at.child("ip"), ip, known));
        }
        let mode_at = at.child("ipMode");
        match (field(one, "ipMode").and_then(Value::as_str), ip.is_empty()) {
            (None, false) => {
                errors.push(Error::required(&mode_at, "must be specified when `ip` is set"));
            }
            (None, true) => {}
            (Some(_), true) => {
                errors.push(Error::forbidden(&mode_at, "may not be specified when `ip` is not set"));
            }
            (Some(mode), false) => errors.extend(supported(mode, &["Proxy", "VIP"], &mode_at)),
        }
        if !hostname.is_empty() {
            let at = at.child("hostname");
            errors.extend(invalid(&at, hostname, names::is_dns1123_subdomain(hostname)));
            if names::parse_ip_sloppy(hostname).is_some() {
                let why = "must be a DNS name, not an IP address";
                errors.push(Error::invalid(&at, hostname, why));
            }
        }
    }
    errors
}
