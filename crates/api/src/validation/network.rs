//! Endpoint slices, Service ranges and addresses.

use std::net::IpAddr;

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;
use apimachinery::{Object, Value};

use super::{immutable, invalid, list, text};

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20000;
const ADDRESS_TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];

pub fn endpoint_slice(slice: &Object) -> ErrorList {
    let mut errors = ErrorList::new();
    let kind = slice.get_str(&["addressType"]);
    match kind {
        "" => errors.push(Error::required(&Path::new("addressType"), "")),
        kind if !ADDRESS_TYPES.contains(&kind) => {
            errors.push(Error::not_supported(&Path::new("addressType"), kind, &ADDRESS_TYPES));
        }
        _ => {}
    }
    let endpoints = slice.get_array(&["endpoints"]);
    if endpoints.len() > MAX_ENDPOINTS {
        errors.push(Error::too_many(&Path::new("endpoints"), endpoints.len(), MAX_ENDPOINTS));
        return errors;
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let path = Path::new("endpoints").index(index).child("addresses");
        let addresses = list(endpoint, "addresses");
        if addresses.is_empty() {
            errors.push(Error::required(&path, "must contain at least 1 address"));
        }
        if addresses.len() > MAX_ADDRESSES {
            errors.push(Error::too_many(&path, addresses.len(), MAX_ADDRESSES));
        }
        for (index, address) in addresses.iter().enumerate() {
            let address = address.as_str().unwrap_or_default();
            let path = path.index(index);
            match (kind, address.parse::<IpAddr>()) {
                ("IPv4", Ok(ip)) if ip.is_ipv4() => errors.extend(special(&path, ip)),
                ("IPv6", Ok(ip)) if ip.is_ipv6() => errors.extend(special(&path, ip)),
                ("IPv4", _) => errors.push(Error::invalid(&path, address, "must be a valid IPv4 address")),
                ("IPv6", _) => errors.push(Error::invalid(&path, address, "must be a valid IPv6 address")),
                ("FQDN", _) => {
                    errors.extend(invalid(&path, address, names::is_dns1123_subdomain(address)));
                }
                _ => {}
            }
        }
    }
    errors.extend(ports(slice));
    errors
}

/// Addresses that no endpoint may have.
fn special(path: &Path, ip: IpAddr) -> ErrorList {
    let why = if ip.is_unspecified() {
        "may not be unspecified (0.0.0.0 or ::)"
    } else if ip.is_loopback() {
        "may not be in the loopback range (127.0.0.0/8, ::1/128)"
    } else if ip.is_multicast() {
        "may not be in the multicast range"
    } else {
        return ErrorList::new();
    };
    vec![Error::invalid(path, ip.to_string(), why)]
}

fn ports(slice: &Object) -> ErrorList {
    let mut errors = ErrorList::new();
    let ports = slice.get_array(&["ports"]);
    let root = Path::new("ports");
    if ports.len() > MAX_PORTS {
        errors.push(Error::too_many(&root, ports.len(), MAX_PORTS));
        return errors;
    }
    let mut seen: Vec<&str> = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let path = root.index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            errors.extend(invalid(&path.child("name"), name, names::is_dns1123_label(name)));
        }
        if seen.contains(&name) {
            errors.push(Error::duplicate(&path.child("name"), name));
        }
        seen.push(name);
        match text(port, "protocol") {
            "" => errors.push(Error::required(&path.child("protocol"), "")),
            protocol if !matches!(protocol, "TCP" | "UDP" | "SCTP") => {
                errors.push(Error::not_supported(&path.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]));
            }
            _ => {}
        }
    }
    errors
}

pub fn endpoint_slice_update(slice: &Object, old: &Object) -> ErrorList {
    let mut errors = endpoint_slice(slice);
    errors.extend(immutable(&Path::new("addressType"), slice, old, &["addressType"]));
    errors
}

pub fn ip_address_name(name: &str) -> Vec<String> {
    match name.parse::<IpAddr>() {
        Ok(ip) if ip.to_string() == name => Vec::new(),
        _ => vec!["must be a valid IP address in canonical form".into()],
    }
}

pub fn ip_address(ip: &Object) -> ErrorList {
    let path = Path::new("spec").child("parentRef");
    let Some(parent) = ip.get(&["spec", "parentRef"]).filter(|parent| parent.is_object()) else {
        return vec![Error::required(&path, "")];
    };
    let mut errors = ErrorList::new();
    for key in ["resource", "name"] {
        let value = text(parent, key);
        if value.is_empty() {
            errors.push(Error::required(&path.child(key), ""));
        } else {
            errors.extend(invalid(&path.child(key), value, names::is_path_segment_name(value)));
        }
    }
    errors
}

pub fn ip_address_update(ip: &Object, old: &Object) -> ErrorList {
    let path = Path::new("spec").child("parentRef");
    immutable(&path, ip, old, &["spec", "parentRef"])
}

pub fn service_cidr(range: &Object) -> ErrorList {
    let path = Path::new("spec").child("cidrs");
    let cidrs = range.get_array(&["spec", "cidrs"]);
    match cidrs.len() {
        0 => return vec![Error::required(&path, "at least one CIDR required")],
        1 | 2 => {}
        _ => {
            let why = "may only hold up to 2 values";
            return vec![Error::invalid(&path, Value::Array(cidrs.to_vec()), why)];
        }
    }
    let mut errors = ErrorList::new();
    for (index, cidr) in cidrs.iter().enumerate() {
        errors.extend(names::is_valid_cidr(&path.index(index), cidr.as_str().unwrap_or_default()));
    }
    errors
}

pub fn service_cidr_update(range: &Object, old: &Object) -> ErrorList {
    immutable(&Path::new("spec").child("cidrs"), range, old, &["spec", "cidrs"])
}
