//! What an update of a Service may change, and what its status may say.

use apimachinery::Object;
use apimachinery::field::{Error, ErrorList};
use apimachinery::validation as names;

use super::at::At;
use super::service::{
    Excused, SOURCE_RANGES, is_headless, load_balancer_class, needs_health_check, service_with,
};

const ONCE_SET: &str = "may not change once set";

pub fn service_update(new: &Object, old: &Object) -> ErrorList {
    let (after, before) = (At::of(new, &["spec"]), At::of(old, &["spec"]));
    let mut errors = cluster_ips(&after, &before);
    errors.extend(families(&after, &before));
    let both = |kind: &str| after.text("type") == kind && before.text("type") == kind;
    let class = after.child("loadBalancerClass");
    if both("LoadBalancer") && class.value != before.child("loadBalancerClass").value {
        errors.push(class.invalid(ONCE_SET));
    }
    errors.extend(load_balancer_class(&after));
    let health = "healthCheckNodePort";
    if needs_health_check(after.value)
        && needs_health_check(before.value)
        && after.number_or_zero(health) != before.number_or_zero(health)
    {
        errors.push(after.child(health).forbidden("field is immutable"));
    }
    let owned = |key: &str| before.strings(key).into_iter().map(|text| text.trim().to_owned()).collect();
    let excused = Excused {
        cluster_ips: owned("clusterIPs"),
        external_ips: owned("externalIPs"),
        source_ranges: owned("loadBalancerSourceRanges"),
        annotated_ranges: old.annotation(SOURCE_RANGES).map(str::to_owned),
    };
    errors.extend(service_with(new, &excused));
    errors
}

fn is_external_name(spec: &At<'_>) -> bool {
    spec.text("type") == "ExternalName"
}

/// A Service keeps its first address; a second one may come and go with the policy.
fn cluster_ips(new: &At<'_>, old: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let headless = is_headless(new.value) && is_headless(old.value);
    if is_external_name(new) || is_external_name(old) || headless {
        return errors;
    }
    let (after, before) = (new.child("clusterIPs"), old.child("clusterIPs"));
    let at = |index| At::new(after.value, after.path.index(index));
    let pairs = || after.list().iter().zip(before.list());
    if after.len() == before.len() {
        let changed = pairs().enumerate().filter(|(_, (after, before))| after != before);
        return changed.map(|(index, _)| at(index).invalid(ONCE_SET)).collect();
    }
    if after.is_empty() {
        errors.push(Error::invalid(&at(0).path, after.list().to_vec(), "primary clusterIP can not be unset"));
    }
    if pairs().next().is_some_and(|(after, before)| after != before) {
        errors.push(at(0).invalid(ONCE_SET));
    }
    if before.len() > after.len() && after.len() == 1 {
        let why = "must be set to 'SingleStack' when releasing the secondary clusterIP";
        errors.extend(single_stack(new, why));
    }
    errors
}

fn single_stack(spec: &At<'_>, why: &str) -> Option<Error> {
    let policy = spec.child("ipFamilyPolicy");
    (policy.str() != "SingleStack").then(|| policy.invalid(why))
}

fn families(new: &At<'_>, old: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let headless = is_headless(new.value) || is_headless(old.value);
    if is_external_name(new) || is_external_name(old) || headless {
        return errors;
    }
    let (after, before) = (new.child("ipFamilies"), old.child("ipFamilies"));
    let first = after.path.index(0);
    let pairs = || after.list().iter().zip(before.list());
    if after.len() == before.len() {
        let changed = pairs().filter(|(after, before)| after != before);
        return changed.map(|_| At::new(after.value, first.clone()).invalid(ONCE_SET)).collect();
    }
    let fewer = before.len() > after.len();
    let ips = new.child("clusterIPs");
    if fewer && ips.is_empty() {
        errors.push(Error::invalid(&first, after.list().to_vec(), "primary ipFamily can not be unset"));
    }
    if pairs().next().is_some_and(|(after, before)| after != before) {
        // the addresses are shown, not the families
        errors.push(Error::invalid(&first, ips.list().to_vec(), ONCE_SET));
    }
    if fewer && after.len() == 1 {
        let why = "must be set to 'SingleStack' when releasing the secondary ipFamily";
        errors.extend(single_stack(new, why));
    }
    errors
}

pub fn service_status_update(service: &Object, old: &Object) -> ErrorList {
    let keys = &["status", "loadBalancer"];
    let (status, before) = (At::of(service, keys), At::of(old, keys));
    let known: Vec<&str> = before.each("ingress").map(|ingress| ingress.text("ip")).collect();
    load_balancer_status(&status, service.get_str(&["spec", "type"]), &known)
}

/// What stands before a Service. `kind` is the Service's type; `known` are addresses that were
/// there before.
fn load_balancer_status(status: &At<'_>, kind: &str, known: &[&str]) -> ErrorList {
    let mut errors = ErrorList::new();
    let ingress = status.child("ingress");
    if kind != "LoadBalancer" && !ingress.is_empty() {
        return vec![ingress.forbidden("may only be used when `spec.type` is 'LoadBalancer'")];
    }
    for one in ingress.items() {
        let (ip, hostname, mode) = (one.child("ip"), one.child("hostname"), one.child("ipMode"));
        if !ip.is_empty() {
            errors.extend(ip.ip(known));
        }
        match (mode.is_set(), ip.is_empty()) {
            (false, false) => errors.push(mode.required("must be specified when `ip` is set")),
            (false, true) => {}
            (true, true) => errors.push(mode.forbidden("may not be specified when `ip` is not set")),
            (true, false) => errors.extend(mode.supported(&["Proxy", "VIP"])),
        }
        if !hostname.is_empty() {
            errors.extend(hostname.subdomain());
            if names::parse_ip_sloppy(hostname.str()).is_some() {
                errors.push(hostname.invalid("must be a DNS name, not an IP address"));
            }
        }
    }
    errors
}
