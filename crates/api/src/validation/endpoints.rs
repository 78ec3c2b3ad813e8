//! Endpoints of Services, and addresses that no endpoint may have.

use std::net::IpAddr;

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;
use apimachinery::{Object, Value};

use super::value::{invalid, list, number, one_of, optional, require, text};

/// Addresses, ready or not, and the ports they serve.
pub fn endpoints(endpoints: &Object) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, subset) in endpoints.get_array(&["subsets"]).iter().enumerate() {
        let at = Path::new("subsets").index(index);
        let kinds = ["addresses", "notReadyAddresses"];
        if kinds.iter().all(|key| list(subset, key).is_empty()) {
            errors.push(Error::required(&at, "must specify `addresses` or `notReadyAddresses`"));
        }
        for key in kinds {
            for (index, one) in list(subset, key).iter().enumerate() {
                errors.extend(address(one, &at.child(key).index(index)));
            }
        }
        let ports = list(subset, "ports");
        for (index, one) in ports.iter().enumerate() {
            errors.extend(port(one, ports.len() > 1, &at.child("ports").index(index)));
        }
    }
    errors
}

fn address(address: &Value, path: &Path) -> ErrorList {
    let (ip, at) = (text(address, "ip"), path.child("ip"));
    let mut errors = names::is_valid_ip_for_legacy_field(&at, ip, &[]);
    let hostname = text(address, "hostname");
    if !hostname.is_empty() {
        errors.extend(invalid(&path.child("hostname"), hostname, names::is_dns1123_label(hostname)));
    }
    if let Some(node) = optional(address, "nodeName") {
        errors.extend(invalid(&path.child("nodeName"), node, names::name_is_dns_subdomain(node, false)));
    }
    errors.extend(non_special_ip(ip, &at));
    errors
}

/// Addresses that lead nowhere, or to the node itself.
pub fn non_special_ip(ip: &str, path: &Path) -> ErrorList {
    let Some(parsed) = names::parse_ip_sloppy(ip) else {
        return vec![Error::invalid(path, ip, "must be a valid IP address")];
    };
    let (link_local, link_local_multicast) = match parsed {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    let checks = [
        (parsed.is_unspecified(), format!("may not be unspecified ({ip})")),
        (parsed.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)".into()),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)".into()),
        (
            link_local_multicast,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".into(),
        ),
    ];
    checks.into_iter().filter(|(wrong, _)| *wrong).map(|(_, why)| Error::invalid(path, ip, why)).collect()
}

fn port(port: &Value, needs_name: bool, path: &Path) -> ErrorList {
    let mut errors = match text(port, "name") {
        "" if needs_name => require(port, "name", path),
        "" => ErrorList::new(),
        name => invalid(&path.child("name"), name, names::is_dns1123_label(name)),
    };
    let number = number(port, "port");
    errors.extend(invalid(&path.child("port"), number, names::is_valid_port_num(number)));
    errors.extend(one_of(text(port, "protocol"), &["SCTP", "TCP", "UDP"], &path.child("protocol")));
    if let Some(protocol) = optional(port, "appProtocol") {
        errors.extend(invalid(&path.child("appProtocol"), protocol, names::is_qualified_name(protocol)));
    }
    errors
}
