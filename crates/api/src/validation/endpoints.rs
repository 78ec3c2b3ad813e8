//! Endpoints of Services, and addresses that no endpoint may have.

use std::net::IpAddr;

use apimachinery::Object;
use apimachinery::field::ErrorList;
use apimachinery::validation as names;

use super::at::At;

/// Addresses, ready or not, and the ports they serve.
pub fn endpoints(endpoints: &Object) -> ErrorList {
    let mut errors = ErrorList::new();
    for subset in At::root(endpoints).each("subsets") {
        let addresses = ["addresses", "notReadyAddresses"].map(|key| subset.child(key));
        if addresses.iter().all(At::is_empty) {
            errors.push(subset.required("must specify `addresses` or `notReadyAddresses`"));
        }
        for one in addresses.iter().flat_map(At::items) {
            errors.extend(address(&one));
        }
        let ports = subset.child("ports");
        errors.extend(ports.items().flat_map(|one| port(&one, ports.len() > 1)));
    }
    errors
}

fn address(address: &At<'_>) -> ErrorList {
    let (ip, hostname) = (address.child("ip"), address.child("hostname"));
    let mut errors = ip.ip(&[]);
    if !hostname.is_empty() {
        errors.extend(hostname.dns_label());
    }
    if let Some(node) = address.field("nodeName") {
        errors.extend(node.subdomain());
    }
    errors.extend(non_special_ip(&ip));
    errors
}

/// Addresses that lead nowhere, or to the node itself.
pub(crate) fn non_special_ip(ip: &At<'_>) -> ErrorList {
    let Some(parsed) = names::parse_ip_sloppy(ip.str()) else {
        return vec![ip.invalid_text("must be a valid IP address")];
    };
    let (link_local, link_local_multicast) = match parsed {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    let checks = [
        (parsed.is_unspecified(), format!("may not be unspecified ({})", ip.str())),
        (parsed.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)".into()),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)".into()),
        (
            link_local_multicast,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".into(),
        ),
    ];
    checks.into_iter().filter(|(wrong, _)| *wrong).map(|(_, why)| ip.invalid(why)).collect()
}

fn port(port: &At<'_>, needs_name: bool) -> ErrorList {
    let name = port.child("name");
    let mut errors = match name.str() {
        "" if needs_name => name.must_be_set(),
        "" => ErrorList::new(),
        _ => name.dns_label(),
    };
    errors.extend(port.child("port").port_number());
    errors.extend(port.child("protocol").one_of(&["SCTP", "TCP", "UDP"]));
    if let Some(protocol) = port.field("appProtocol") {
        errors.extend(protocol.qualified_name());
    }
    errors
}
