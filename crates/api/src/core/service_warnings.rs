//! Warnings about Services.

use apimachinery::field::Path;
use apimachinery::{Object, Value};

use super::warnings::{cidr, ip};
use crate::validation::is_headless;
use crate::validation::value::{is_set, list, strings, text};

pub fn service(service: &Object) -> Vec<String> {
    let none = Value::Null;
    let spec = service.get(&["spec"]).unwrap_or(&none);
    let path = Path::new("spec");
    let mut out = Vec::new();
    if service.annotation("service.kubernetes.io/topology-aware-hints").is_some() {
        out.push("annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode instead".to_owned());
    }
    let headless = is_headless(spec);
    if !headless && text(spec, "type") != "ExternalName" {
        for (index, address) in strings(spec, "clusterIPs").iter().enumerate() {
            out.extend(ip(address, &path.child("clusterIPs").index(index)));
        }
    }
    let external = !list(spec, "externalIPs").is_empty();
    if headless {
        if is_set(spec, "loadBalancerIP") {
            out.push("spec.loadBalancerIP is ignored for headless services".into());
        }
        if external {
            out.push("spec.externalIPs is ignored for headless services".into());
        }
        if text(spec, "sessionAffinity") != "None" {
            out.push("spec.SessionAffinity is ignored for headless services".into());
        }
    }
    if external {
        out.push("spec.externalIPs is deprecated and may no longer be implemented in some clusters".into());
    }
    for (index, address) in strings(spec, "externalIPs").iter().enumerate() {
        out.extend(ip(address, &path.child("externalIPs").index(index)));
    }
    if is_set(spec, "loadBalancerIP") {
        out.extend(ip(text(spec, "loadBalancerIP"), &path.child("loadBalancerIP")));
    }
    for (index, range) in strings(spec, "loadBalancerSourceRanges").iter().enumerate() {
        out.extend(cidr(range, &path.child("loadBalancerSourceRanges").index(index)));
    }
    if text(spec, "type") == "ExternalName" && external {
        out.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".into());
    }
    if text(spec, "trafficDistribution") == "PreferClose" {
        out.push("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".into());
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_ignored_or_written_oddly_is_said() {
        let of = |spec: Value| service(&Object::from(json!({"spec": spec})));
        assert_eq!(
            of(json!({"type": "ClusterIP", "clusterIPs": ["10.0.0.1"], "sessionAffinity": "None"})),
            Vec::<String>::new()
        );
        assert_eq!(
            of(
                json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"], "sessionAffinity": "ClientIP",
                "loadBalancerIP": "1.2.3.4"})
            ),
            [
                "spec.loadBalancerIP is ignored for headless services",
                "spec.SessionAffinity is ignored for headless services"
            ]
        );
        assert_eq!(
            of(json!({"type": "ClusterIP", "clusterIPs": ["2001:DB8::1"], "sessionAffinity": "None",
                "loadBalancerSourceRanges": ["10.0.0.1/8"], "trafficDistribution": "PreferClose"})),
            [
                "spec.clusterIPs[0]: IPv6 address \"2001:DB8::1\" should be in RFC 5952 canonical format (\"2001:db8::1\")",
                "spec.loadBalancerSourceRanges[0]: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)",
                "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
            ]
        );
    }
}
