//! Services.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;
use apimachinery::{Object, Value};
use serde_json::Map;

use super::{immutable, invalid, list, text};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const DAY: i64 = 86400;

pub fn service(service: &Object) -> ErrorList {
    let spec_path = Path::new("spec");
    let empty = Value::Object(Map::new());
    let spec = service.get(&["spec"]).unwrap_or(&empty);
    let kind = text(spec, "type");
    let headless = text(spec, "clusterIP") == "None";
    let ports = list(spec, "ports");
    let mut errors = ErrorList::new();
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.push(Error::required(&spec_path.child("ports"), ""));
    }
    match kind {
        "" => errors.push(Error::required(&spec_path.child("type"), "")),
        kind if !TYPES.contains(&kind) => {
            errors.push(Error::not_supported(&spec_path.child("type"), kind, &TYPES));
        }
        "ExternalName" => {
            if !text(spec, "clusterIP").is_empty() {
                let why = "may not be set for ExternalName services";
                errors.push(Error::forbidden(&spec_path.child("clusterIP"), why));
            }
            let name = text(spec, "externalName").trim_end_matches('.');
            let path = spec_path.child("externalName");
            if name.is_empty() {
                errors.push(Error::required(&path, ""));
            } else {
                errors.extend(invalid(&path, name, names::is_dns1123_subdomain(name)));
            }
        }
        "LoadBalancer" if headless => {
            let why = "may not be set to 'None' for LoadBalancer services";
            errors.push(Error::invalid(&spec_path.child("clusterIPs").index(0), "None", why));
        }
        "NodePort" if headless => {
            let why = "may not be set to 'None' for NodePort services";
            errors.push(Error::invalid(&spec_path.child("clusterIPs").index(0), "None", why));
        }
        _ => {}
    }
    errors.extend(service_ports(ports, kind, &spec_path.child("ports")));
    if let Some(Value::Object(selector)) = spec.get("selector") {
        errors.extend(names::validate_labels(selector, &spec_path.child("selector")));
    }
    errors.extend(affinity(spec, &spec_path));
    for (index, ip) in list(spec, "externalIPs").iter().enumerate() {
        let path = spec_path.child("externalIPs").index(index);
        errors.extend(names::is_valid_ip_for_legacy_field(&path, ip.as_str().unwrap_or_default(), &[]));
    }
    for (key, valid) in
        [("externalTrafficPolicy", ["Cluster", "Local"]), ("internalTrafficPolicy", ["Cluster", "Local"])]
    {
        let value = text(spec, key);
        if !value.is_empty() && !valid.contains(&value) {
            errors.push(Error::not_supported(&spec_path.child(key), value, &valid));
        }
    }
    errors
}

fn affinity(spec: &Value, spec_path: &Path) -> ErrorList {
    let path = spec_path.child("sessionAffinity");
    match text(spec, "sessionAffinity") {
        "" => vec![Error::required(&path, "")],
        "None" if spec.get("sessionAffinityConfig").is_some() => {
            let why = "must not be set when session affinity is None";
            vec![Error::forbidden(&spec_path.child("sessionAffinityConfig"), why)]
        }
        "None" => ErrorList::new(),
        "ClientIP" => {
            let seconds =
                spec.pointer("/sessionAffinityConfig/clientIP/timeoutSeconds").and_then(Value::as_i64);
            match seconds {
                Some(seconds) if !(1..=DAY).contains(&seconds) => {
                    let path =
                        spec_path.child("sessionAffinityConfig").child("clientIP").child("timeoutSeconds");
                    let why = format!("must be greater than 0 and less than {DAY}");
                    vec![Error::invalid(&path, seconds, why)]
                }
                _ => ErrorList::new(),
            }
        }
        other => vec![Error::not_supported(&path, other, &["ClientIP", "None"])],
    }
}

fn service_ports(ports: &[Value], kind: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen_names: Vec<&str> = Vec::new();
    let mut seen_ports: Vec<(i64, &str)> = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = text(port, "name");
        if name.is_empty() {
            if ports.len() > 1 {
                errors.push(Error::required(&path.child("name"), ""));
            }
        } else {
            errors.extend(invalid(&path.child("name"), name, names::is_dns1123_label(name)));
            if seen_names.contains(&name) {
                errors.push(Error::duplicate(&path.child("name"), name));
            }
            seen_names.push(name);
        }
        let number = port.get("port").and_then(Value::as_i64).unwrap_or_default();
        errors.extend(invalid(&path.child("port"), number, names::is_valid_port_num(number)));
        let protocol = text(port, "protocol");
        match protocol {
            "" => errors.push(Error::required(&path.child("protocol"), "")),
            "TCP" | "UDP" | "SCTP" => {}
            other => {
                errors.push(Error::not_supported(&path.child("protocol"), other, &["SCTP", "TCP", "UDP"]))
            }
        }
        if seen_ports.contains(&(number, protocol)) {
            errors.push(Error::duplicate(&path, port.clone()));
        }
        seen_ports.push((number, protocol));
        let target_path = path.child("targetPort");
        match port.get("targetPort") {
            Some(Value::String(target)) => {
                errors.extend(invalid(&target_path, target.as_str(), names::is_valid_port_name(target)));
            }
            Some(target) => {
                let number = target.as_i64().unwrap_or_default();
                errors.extend(invalid(&target_path, number, names::is_valid_port_num(number)));
            }
            None => {}
        }
        let node_port = port.get("nodePort").and_then(Value::as_i64).unwrap_or_default();
        if node_port != 0 && matches!(kind, "ClusterIP" | "ExternalName") {
            let why = format!("may not be used when `type` is '{kind}'");
            errors.push(Error::forbidden(&path.child("nodePort"), why));
        }
    }
    errors
}

pub fn service_update(new: &Object, old: &Object) -> ErrorList {
    let mut errors = service(new);
    let addressed = |service: &Object| service.get_str(&["spec", "type"]) != "ExternalName";
    if addressed(new) && addressed(old) && !old.get_str(&["spec", "clusterIP"]).is_empty() {
        let path = Path::new("spec").child("clusterIPs").index(0);
        let ip = |service: &Object| service.get_str(&["spec", "clusterIP"]).to_owned();
        if ip(new) != ip(old) {
            let value = service_ips(new);
            errors.push(Error::invalid(&path, value, "may not change once set"));
        }
    }
    let class = &["spec", "loadBalancerClass"];
    if old.get(class).is_some() && new.get_str(&["spec", "type"]) == "LoadBalancer" {
        errors.extend(immutable(&Path::new("spec").child("loadBalancerClass"), new, old, class));
    }
    errors
}

fn service_ips(service: &Object) -> Value {
    service.get(&["spec", "clusterIPs"]).cloned().unwrap_or_else(|| Value::Array(Vec::new()))
}
