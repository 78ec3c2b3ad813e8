//! Services. Addresses and node ports are allocated by the API server; here stand the rules without IO.

use apimachinery::field::ErrorList;
use apimachinery::{Object, Value};
use serde_json::json;

use crate::catalogue::{Column, Selectable};
use crate::core::defaults::{each, set};
use crate::printers::{AGE, NAME, column, labels, wide};
use crate::strategy::Strategy;
use crate::validation;

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
        apimachinery::validation::name_is_dns1035_label(name, prefix)
    }

    fn default(&self, service: &mut Object) {
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
    }

    fn validate(&self, service: &Object) -> ErrorList {
        validation::service(service)
    }

    fn validate_update(&self, service: &Object, old: &Object) -> ErrorList {
        validation::service_update(service, old)
    }

    fn prepare_for_status_update(&self, service: &mut Object, old: &Object) {
        crate::strategy::keep_spec(service, old);
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

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        crate::strategy::reset_the_other(subresource)
    }

    fn prepare_for_update(&self, service: &mut Object, old: &Object) {
        crate::strategy::keep_status(service, old);
        patch_allocated(service, old);
        drop_type_dependent(service, old);
    }
}

/// An update that leaves out what was allocated keeps it, as long as the type still needs it.
fn patch_allocated(service: &mut Object, old: &Object) {
    let needs_ip = |s: &Object| s.get_str(&["spec", "type"]) != "ExternalName";
    if needs_ip(service) && needs_ip(old) {
        if service.get_str(&["spec", "clusterIP"]).is_empty()
            && let Some(ip) = old.get(&["spec", "clusterIP"])
        {
            service.set(&["spec", "clusterIP"], ip.clone());
        }
        if service.get_array(&["spec", "clusterIPs"]).is_empty()
            && service.get_str(&["spec", "clusterIP"]) == old.get_str(&["spec", "clusterIP"])
            && let Some(ips) = old.get(&["spec", "clusterIPs"])
        {
            service.set(&["spec", "clusterIPs"], ips.clone());
        }
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            if service.get(&["spec", key]).is_none()
                && let Some(value) = old.get(&["spec", key])
            {
                service.set(&["spec", key], value.clone());
            }
        }
    }
    let needs_node_port = |s: &Object| matches!(s.get_str(&["spec", "type"]), "NodePort" | "LoadBalancer");
    if needs_node_port(service) && needs_node_port(old) {
        let before: Vec<(Value, Value, Value)> = old
            .get_array(&["spec", "ports"])
            .iter()
            .filter(|port| port.get("nodePort").is_some())
            .map(|port| (port["port"].clone(), port["protocol"].clone(), port["nodePort"].clone()))
            .collect();
        if let Some(ports) = service.as_value_mut().pointer_mut("/spec/ports").and_then(Value::as_array_mut) {
            for port in ports.iter_mut().filter_map(Value::as_object_mut) {
                if port.get("nodePort").and_then(Value::as_i64).unwrap_or_default() != 0 {
                    continue;
                }
                let same = before.iter().find(|(number, protocol, _)| {
                    port.get("port") == Some(number) && port.get("protocol") == Some(protocol)
                });
                if let Some((_, _, node_port)) = same {
                    port.insert("nodePort".into(), node_port.clone());
                }
            }
        }
    }
}

/// Fields that only made sense for the old type go with it, unless the client changed them.
fn drop_type_dependent(service: &mut Object, old: &Object) {
    let (before, after) =
        (old.get_str(&["spec", "type"]).to_owned(), service.get_str(&["spec", "type"]).to_owned());
    if before == after {
        return;
    }
    let same = |service: &Object, key: &str| service.get(&["spec", key]) == old.get(&["spec", key]);
    if after == "ExternalName" {
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            if same(service, key) {
                service.remove(&["spec", key]);
            }
        }
    }
    if before == "ExternalName" && same(service, "externalName") {
        service.remove(&["spec", "externalName"]);
    }
    let has_node_ports = |kind: &str| matches!(kind, "NodePort" | "LoadBalancer");
    if has_node_ports(&before) && !has_node_ports(&after) {
        let old_ports = old.get_array(&["spec", "ports"]).to_vec();
        if let Some(ports) = service.as_value_mut().pointer_mut("/spec/ports").and_then(Value::as_array_mut) {
            for port in ports.iter_mut().filter_map(Value::as_object_mut) {
                let kept = old_ports.iter().any(|o| o.get("nodePort") == port.get("nodePort"));
                if kept {
                    port.remove("nodePort");
                }
            }
        }
        if same(service, "externalTrafficPolicy") {
            service.remove(&["spec", "externalTrafficPolicy"]);
        }
        if same(service, "healthCheckNodePort") {
            service.remove(&["spec", "healthCheckNodePort"]);
        }
    }
    if before == "LoadBalancer" && after != "LoadBalancer" {
        for key in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if same(service, key) {
                service.remove(&["spec", key]);
            }
        }
    }
}
