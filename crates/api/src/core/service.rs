//! Services. Addresses and node ports are allocated by the API server; here stand the rules without IO.

use apimachinery::field::ErrorList;
use apimachinery::{Object, Value};
use serde_json::{Map, json};

use crate::catalogue::{Column, Selectable};
use crate::core::defaults::{each, set};
use crate::printers::{AGE, NAME, column, labels, wide};
use crate::strategy::Strategy;
use crate::validation;
use crate::validation::value::{number, text};

pub const SELECTABLE: &[Selectable] = &[
    Selectable { name: "spec.clusterIP", read: |o| o.get_str(&["spec", "clusterIP"]).to_owned() },
    Selectable { name: "spec.type", read: |o| o.get_str(&["spec", "type"]).to_owned() },
];

pub const COLUMNS: &[Column] = &[
    NAME,
    column("Type", "string", "How the service is exposed.", |s, _| json!(s.get_str(&["spec", "type"]))),
    column("Cluster-IP", "string", "The first cluster address.", |service, _| {
        let ip = service
            .get_array(&["spec", "clusterIPs"])
            .first()
            .and_then(Value::as_str)
            .unwrap_or_else(|| service.get_str(&["spec", "clusterIP"]));
        crate::printers::or_none(ip)
    }),
    column("External-IP", "string", "Addresses outside the cluster.", |s, _| json!(external_ip(s))),
    column("Port(s)", "string", "Ports, node ports and protocols.", |service, _| {
        let ports: Vec<String> = service
            .get_array(&["spec", "ports"])
            .iter()
            .map(|port| {
                let number = |key: &str| port.get(key).and_then(Value::as_i64).unwrap_or_default();
                let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or_default();
                match number("nodePort") {
                    0 => format!("{}/{protocol}", number("port")),
                    node => format!("{}:{node}/{protocol}", number("port")),
                }
            })
            .collect();
        json!(if ports.is_empty() { "<none>".to_owned() } else { ports.join(",") })
    }),
    AGE,
    wide("Selector", "string", "Which pods the service routes to.", |service, _| {
        json!(labels(service, &["spec", "selector"]))
    }),
];

fn external_ip(service: &Object) -> String {
    let strings = |values: &[Value]| -> Vec<String> {
        values.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut out = match service.get_str(&["spec", "type"]) {
        "ExternalName" => return service.get_str(&["spec", "externalName"]).to_owned(),
        "LoadBalancer" => {
            let mut ingress: Vec<String> = service
                .get_array(&["status", "loadBalancer", "ingress"])
                .iter()
                .filter_map(|entry| entry.get("ip").or_else(|| entry.get("hostname"))?.as_str())
                .map(str::to_owned)
                .collect();
            ingress.extend(strings(service.get_array(&["spec", "externalIPs"])));
            if ingress.is_empty() {
                return "<pending>".into();
            }
            ingress
        }
        _ => strings(service.get_array(&["spec", "externalIPs"])),
    };
    out.dedup();
    if out.is_empty() { "<none>".into() } else { out.join(",") }
}

pub struct Services;

impl Strategy for Services {
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        apimachinery::validation::name_is_dns_label(name, prefix)
    }

    fn default(&self, service: &mut Object) {
        default_ingress(service);
        if service.get(&["spec"]).is_none() {
            return;
        }
        let affinity = service.get_str(&["spec", "sessionAffinity"]).to_owned();
        let kind = match service.get_str(&["spec", "type"]) {
            "" => "ClusterIP".to_owned(),
            kind => kind.to_owned(),
        };
        let client_ip_timeout =
            service.get_i64(&["spec", "sessionAffinityConfig", "clientIP", "timeoutSeconds"]);
        if affinity == "ClientIP" && client_ip_timeout.is_none() {
            service.set(&["spec", "sessionAffinityConfig", "clientIP", "timeoutSeconds"], 10800);
        }
        let Some(spec) = service.as_map_mut().get_mut("spec").and_then(Value::as_object_mut) else { return };
        set(spec, "sessionAffinity", "None");
        if affinity.is_empty() || affinity == "None" {
            spec.remove("sessionAffinityConfig");
        }
        set(spec, "type", kind.as_str());
        for port in each(spec, "ports") {
            set(port, "protocol", "TCP");
            let number = port.get("port").cloned().unwrap_or(json!(0));
            let target = port.get("targetPort");
            if target.is_none_or(|target| target == &json!(0) || target == &json!("")) {
                port.insert("targetPort".into(), number);
            }
        }
        let has_external_ips =
            spec.get("externalIPs").and_then(Value::as_array).is_some_and(|v| !v.is_empty());
        if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && has_external_ips) {
            set(spec, "externalTrafficPolicy", "Cluster");
        }
        if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
            set(spec, "internalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" {
            set(spec, "allocateLoadBalancerNodePorts", true);
        }
    }

    fn prepare_for_create(&self, service: &mut Object) {
        service.remove(&["status"]);
        drop_internal_policy(service);
    }

    fn validate(&self, service: &Object) -> ErrorList {
        validation::service(service)
    }

    fn validate_update(&self, service: &Object, old: &Object) -> ErrorList {
        validation::service_update(service, old)
    }

    fn validate_status_update(&self, service: &Object, old: &Object) -> ErrorList {
        validation::service_status_update(service, old)
    }

    fn warnings_on_create(&self, service: &Object) -> Vec<String> {
        crate::core::service_warnings::service(service)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn prepare_for_update(&self, service: &mut Object, old: &Object) {
        crate::strategy::keep_status(service, old);
        patch_allocated(service, old);
        align_cluster_ips(service, Some(old));
        drop_type_dependent(service, old);
        drop_internal_policy(service);
    }
}

type Test = fn(&Object) -> bool;

fn kind(service: &Object) -> &str {
    service.get_str(&["spec", "type"])
}

fn spec(service: &Object) -> &Value {
    service.get(&["spec"]).unwrap_or(&Value::Null)
}

fn has_cluster_ip(service: &Object) -> bool {
    matches!(kind(service), "ClusterIP" | "NodePort" | "LoadBalancer")
}

fn has_node_ports(service: &Object) -> bool {
    validation::allocates_node_ports(spec(service))
}

fn has_health_check(service: &Object) -> bool {
    validation::needs_health_check(spec(service))
}

fn is_load_balancer(service: &Object) -> bool {
    kind(service) == "LoadBalancer"
}

fn is_external_name(service: &Object) -> bool {
    kind(service) == "ExternalName"
}

fn is_external(service: &Object) -> bool {
    validation::is_externally_accessible(spec(service))
}

fn field(service: &Object, key: &str) -> Option<Value> {
    service.get(&["spec", key]).cloned()
}

fn ports_of(service: &mut Object) -> impl Iterator<Item = &mut Map<String, Value>> {
    let ports = service.as_value_mut().pointer_mut("/spec/ports").and_then(Value::as_array_mut);
    ports.into_iter().flatten().filter_map(Value::as_object_mut)
}

fn node_ports(service: &Object) -> Vec<i64> {
    service.get_array(&["spec", "ports"]).iter().map(|port| number(port, "nodePort")).collect()
}

/// An update that leaves out what was allocated keeps it, as long as the type still needs it.
fn patch_allocated(service: &mut Object, old: &Object) {
    let both = |service: &Object, needs: Test| needs(service) && needs(old);
    if both(service, has_cluster_ip) {
        if service.get_str(&["spec", "clusterIP"]).is_empty()
            && let Some(ip) = field(old, "clusterIP")
        {
            service.set(&["spec", "clusterIP"], ip);
        }
        if service.get_array(&["spec", "clusterIPs"]).is_empty()
            && service.get_str(&["spec", "clusterIP"]) == old.get_str(&["spec", "clusterIP"])
            && let Some(ips) = field(old, "clusterIPs")
        {
            service.set(&["spec", "clusterIPs"], ips);
        }
    }
    if both(service, has_node_ports) {
        let new_ports = node_ports(service);
        let mut used: Vec<i64> =
            node_ports(old).into_iter().filter(|port| new_ports.contains(port)).collect();
        // ports are known by their names; whatever else of them may have changed
        for port in
            ports_of(service).filter(|port| port.get("nodePort").and_then(Value::as_i64).unwrap_or(0) == 0)
        {
            let name = port.get("name").and_then(Value::as_str).unwrap_or_default();
            let before =
                old.get_array(&["spec", "ports"]).iter().rev().find(|before| text(before, "name") == name);
            let node_port = before.map_or(0, |before| number(before, "nodePort"));
            if node_port != 0 && !used.contains(&node_port) {
                used.push(node_port);
                port.insert("nodePort".into(), json!(node_port));
            }
        }
    }
    if both(service, has_health_check)
        && number(spec(service), "healthCheckNodePort") == 0
        && let Some(port) = field(old, "healthCheckNodePort")
    {
        service.set(&["spec", "healthCheckNodePort"], port);
    }
}

/// `clusterIP` and `clusterIPs` say the same, whichever of the two a client knows.
pub fn align_cluster_ips(service: &mut Object, old: Option<&Object>) {
    let ip = service.get_str(&["spec", "clusterIP"]).to_owned();
    let Some(old) = old else {
        if !ip.is_empty() && service.get_array(&["spec", "clusterIPs"]).is_empty() {
            service.set(&["spec", "clusterIPs"], json!([ip]));
        }
        return;
    };
    if ip == old.get_str(&["spec", "clusterIP"]) || field(service, "clusterIPs") != field(old, "clusterIPs") {
        return;
    }
    if ip.is_empty() {
        service.remove(&["spec", "clusterIPs"]);
    } else {
        service.set(&["spec", "clusterIPs"], json!([ip]));
    }
}

/// Upstream stores what is said of traffic that never is, but shows it to nobody.
fn drop_internal_policy(service: &mut Object) {
    if is_external_name(service) {
        service.remove(&["spec", "internalTrafficPolicy"]);
    }
}

/// Fields that only made sense for the old type go with it, unless the client changed them.
fn drop_type_dependent(service: &mut Object, old: &Object) {
    const FIELDS: [(Test, &[&str]); 6] = [
        (has_health_check, &["healthCheckNodePort"]),
        (is_load_balancer, &["allocateLoadBalancerNodePorts"]),
        (is_load_balancer, &["loadBalancerClass"]),
        (is_external_name, &["externalName"]),
        (is_external, &["externalTrafficPolicy"]),
        (has_cluster_ip, &["ipFamilies"]),
    ];
    if has_cluster_ip(old) && !has_cluster_ip(service) {
        let same = |key: &str, service: &Object| field(service, key) == field(old, key);
        if same("clusterIP", service) && same("clusterIPs", service) {
            service.remove(&["spec", "clusterIP"]);
            service.remove(&["spec", "clusterIPs"]);
        }
        if same("ipFamilyPolicy", service) {
            service.remove(&["spec", "ipFamilyPolicy"]);
        }
    }
    let drops_node_ports = !matches!(kind(service), "NodePort" | "LoadBalancer");
    if has_node_ports(old) && drops_node_ports && node_ports(service) == node_ports(old) {
        for port in ports_of(service) {
            port.remove("nodePort");
        }
    }
    for (needs, keys) in FIELDS {
        for key in keys.iter().filter(|_| needs(old)) {
            if !needs(service) && field(service, key) == field(old, key) {
                service.remove(&["spec", key]);
            }
        }
    }
}

/// A load balancer's addresses are reached as they stand, unless it says otherwise.
fn default_ingress(service: &mut Object) {
    if !is_load_balancer(service) {
        return;
    }
    let list =
        service.as_value_mut().pointer_mut("/status/loadBalancer/ingress").and_then(Value::as_array_mut);
    for ingress in list.into_iter().flatten().filter_map(Value::as_object_mut) {
        if ingress.get("ip").and_then(Value::as_str).is_some_and(|ip| !ip.is_empty()) {
            set(ingress, "ipMode", "VIP");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value) -> Object {
        Object::from(json!({"spec": spec}))
    }

    #[test]
    fn an_update_keeps_what_it_leaves_out() {
        let old = service(json!({"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "ports": [{"name": "a", "port": 1, "nodePort": 30001}, {"name": "b", "port": 2, "nodePort": 30002}]}));
        let mut new = service(json!({"type": "NodePort",
            "ports": [{"name": "b", "port": 3}, {"name": "c", "port": 1, "nodePort": 30001}]}));
        patch_allocated(&mut new, &old);
        assert_eq!(new.get(&["spec", "clusterIPs"]), Some(&json!(["10.0.0.1"])));
        assert_eq!(node_ports(&new), [30002, 30001]);
    }

    #[test]
    fn what_a_type_does_not_have_goes_with_the_old_type() {
        let old =
            service(json!({"type": "LoadBalancer", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 30009, "allocateLoadBalancerNodePorts": true, "loadBalancerClass": "a/b",
            "ports": [{"port": 1, "nodePort": 30001}]}));
        let mut inner = old.clone();
        inner.set(&["spec", "type"], "ClusterIP");
        drop_type_dependent(&mut inner, &old);
        assert_eq!(
            inner,
            service(json!({"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "ports": [{"port": 1}]}))
        );
        let mut name = inner.clone();
        name.set(&["spec", "type"], "ExternalName");
        drop_type_dependent(&mut name, &inner);
        assert_eq!(name, service(json!({"type": "ExternalName", "ports": [{"port": 1}]})));
        let mut changed = old.clone();
        changed.set(&["spec", "type"], "ClusterIP");
        changed.set(&["spec", "healthCheckNodePort"], 30010);
        drop_type_dependent(&mut changed, &old);
        assert_eq!(
            changed.get_i64(&["spec", "healthCheckNodePort"]),
            Some(30010),
            "a change is for validation"
        );
    }

    #[test]
    fn both_address_fields_say_the_same() {
        let mut new = service(json!({"clusterIP": "10.0.0.1"}));
        align_cluster_ips(&mut new, None);
        assert_eq!(field(&new, "clusterIPs"), Some(json!(["10.0.0.1"])));
        let old = service(json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]}));
        let mut moved = old.clone();
        moved.set(&["spec", "clusterIP"], "10.0.0.2");
        align_cluster_ips(&mut moved, Some(&old));
        assert_eq!(field(&moved, "clusterIPs"), Some(json!(["10.0.0.2"])));
    }
}
