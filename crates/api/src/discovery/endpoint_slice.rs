//! What an endpoint slice may hold.

use apimachinery::field::{Error, ErrorList};
use apimachinery::validation as names;
use apimachinery::{Object, Value};

use crate::core::defaults::{each, set};
use crate::core::warnings;
use crate::strategy::Strategy;
use crate::validation::at::At;
use crate::validation::forms::unchanged;
use crate::validation::non_special_ip;

const MAX_TOPOLOGY_LABELS: usize = 16;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_ENDPOINTS: usize = 1000;
const MAX_HINTS: usize = 8;
const ADDRESS_TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
/// What stored slices may also have.
const OLD_ADDRESS_TYPES: [&str; 4] = ["FQDN", "IP", "IPv4", "IPv6"];

pub struct EndpointSlices;

impl Strategy for EndpointSlices {
    fn default(&self, slice: &mut Object) {
        for port in each(slice.as_map_mut(), "ports") {
            set(port, "name", "");
            set(port, "protocol", "TCP");
        }
    }

    fn prepare_for_create(&self, slice: &mut Object) {
        slice.set_generation(1);
        drop_topology(slice, None);
    }

    /// Everything but the metadata counts as a change, and so do labels.
    fn prepare_for_update(&self, slice: &mut Object, old: &Object) {
        let moved =
            ["addressType", "endpoints", "ports"].iter().any(|key| slice.get(&[key]) != old.get(&[key]))
                || slice.labels() != old.labels();
        slice.set_generation(old.generation() + i64::from(moved));
        if slice.get(&["endpoints"]) != old.get(&["endpoints"]) {
            drop_topology(slice, Some(old));
        }
    }

    fn validate(&self, slice: &Object) -> ErrorList {
        let mut errors = validate(slice, &ADDRESS_TYPES);
        errors.extend(endpoints(&At::root(slice)));
        errors
    }

    fn validate_update(&self, slice: &Object, old: &Object) -> ErrorList {
        let mut errors = validate(slice, &OLD_ADDRESS_TYPES);
        // what is stored may be older than today's rules
        if slice.get(&["endpoints"]) != old.get(&["endpoints"]) {
            errors.extend(endpoints(&At::root(slice)));
        }
        errors.extend(unchanged(&At::root(slice).child("addressType"), &At::root(old).child("addressType")));
        errors
    }

    fn warnings_on_create(&self, slice: &Object) -> Vec<String> {
        let mut out = Vec::new();
        if slice.get_str(&["addressType"]) == "FQDN" {
            out.push("spec.addressType: FQDN endpoints are deprecated".into());
        }
        out.extend(address_warnings(slice));
        out
    }

    fn warnings_on_update(&self, slice: &Object, _old: &Object) -> Vec<String> {
        address_warnings(slice)
    }

    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }
}

/// Addresses that are not written as they should be. Controllers mend them, so what is theirs is not looked at.
fn address_warnings(slice: &Object) -> Vec<String> {
    const CONTROLLERS: [&str; 2] =
        ["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];
    if slice.label("endpointslice.kubernetes.io/managed-by").is_some_and(|by| CONTROLLERS.contains(&by)) {
        return Vec::new();
    }
    let addresses = At::root(slice).each("endpoints").flat_map(|endpoint| endpoint.each("addresses"));
    addresses.filter_map(|address| warnings::ip(address.str(), &address.path)).collect()
}

/// Topology is what an older version had instead of zone and node name. A node that an old slice knows by it alone
/// stays known.
fn drop_topology(slice: &mut Object, old: Option<&Object>) {
    const HOST: &str = "kubernetes.io/hostname";
    let host = |endpoint: &Value| endpoint["deprecatedTopology"][HOST].as_str().map(str::to_owned);
    let known: Vec<String> =
        old.into_iter().flat_map(|old| old.get_array(&["endpoints"])).filter_map(host).collect();
    for endpoint in each(slice.as_map_mut(), "endpoints") {
        let topology = endpoint.remove("deprecatedTopology").unwrap_or_default();
        let Some(node) = topology[HOST].as_str() else { continue };
        let is_known = known.iter().any(|known| known == node);
        if is_known && names::is_dns1123_subdomain(node).is_empty() {
            set(endpoint, "nodeName", node);
        }
    }
}

fn validate(slice: &Object, types: &[&str]) -> ErrorList {
    let root = At::root(slice);
    let mut errors = root.child("addressType").one_of(types);
    errors.extend(ports(&root.child("ports")));
    errors
}

fn endpoints(slice: &At<'_>) -> ErrorList {
    let (endpoints, kind) = (slice.child("endpoints"), slice.text("addressType"));
    if endpoints.len() > MAX_ENDPOINTS {
        return vec![endpoints.too_many(MAX_ENDPOINTS)];
    }
    endpoints.items().flat_map(|endpoint| self::endpoint(&endpoint, kind)).collect()
}

fn endpoint(endpoint: &At<'_>, kind: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    let addresses = endpoint.child("addresses");
    if addresses.is_empty() {
        errors.push(addresses.required("must contain at least 1 address"));
    } else if addresses.len() > MAX_ADDRESSES {
        errors.push(addresses.too_many(MAX_ADDRESSES));
    }
    for address in addresses.items() {
        errors.extend(self::address(&address, kind));
    }
    let topology = endpoint.child("deprecatedTopology");
    if topology.len() > MAX_TOPOLOGY_LABELS {
        errors.push(topology.too_many(MAX_TOPOLOGY_LABELS));
    }
    if let Some(labels) = topology.value.as_object() {
        errors.extend(names::validate_labels(labels, &topology.path));
    }
    let (hostname, node) = (endpoint.child("hostname"), endpoint.child("nodeName"));
    if hostname.is_set() {
        errors.extend(hostname.dns_label());
    }
    if node.is_set() {
        errors.extend(node.subdomain());
    }
    let zone = endpoint.child("zone");
    if zone.is_set() {
        errors.extend(zone.wrong(names::is_valid_label_value(zone.str())));
    }
    let hints = endpoint.child("hints");
    errors.extend(self::hints(&hints.child("forZones"), |zone| {
        zone.wrong(names::is_valid_label_value(zone.str()))
    }));
    errors.extend(self::hints(&hints.child("forNodes"), |node| node.subdomain()));
    errors
}

fn hints(hints: &At<'_>, form: impl Fn(&At<'_>) -> ErrorList) -> ErrorList {
    if hints.len() > MAX_HINTS {
        return vec![hints.too_many(MAX_HINTS)];
    }
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for hint in hints.items() {
        let name = hint.child("name");
        if seen.contains(&name.str()) {
            errors.push(Error::duplicate(&name.path, name.str()));
        }
        seen.push(name.str());
        errors.extend(form(&name));
    }
    errors
}

fn address(address: &At<'_>, kind: &str) -> ErrorList {
    let of_family = |is_ipv6: bool, why: &str| {
        let wrong = address.ip(&[]);
        if !wrong.is_empty() {
            return wrong;
        }
        let mut errors = ErrorList::new();
        if names::parse_ip_sloppy(address.str()).is_some_and(|ip| ip.is_ipv6() != is_ipv6) {
            errors.push(address.invalid(why));
        }
        errors.extend(non_special_ip(address));
        errors
    };
    match kind {
        "IPv4" => of_family(false, "must be an IPv4 address"),
        "IPv6" => of_family(true, "must be an IPv6 address"),
        "FQDN" => domain(address),
        _ => ErrorList::new(),
    }
}

/// A domain of two segments or more; a dot may end it.
fn domain(address: &At<'_>) -> ErrorList {
    let text = address.str();
    if text.is_empty() {
        return vec![address.required("")];
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let wrong = names::is_dns1123_subdomain(name);
    if !wrong.is_empty() {
        return vec![Error::invalid(&address.path, name, wrong.join(","))];
    }
    if !name.contains('.') {
        let why = "should be a domain with at least two segments separated by dots";
        return vec![Error::invalid(&address.path, name, why)];
    }
    let label = |label: &str| (label.to_owned(), names::is_dns1123_label(label));
    name.split('.')
        .map(label)
        .find(|(_, wrong)| !wrong.is_empty())
        .map(|(label, wrong)| Error::invalid(&address.path, label, wrong.join(",")))
        .into_iter()
        .collect()
}

fn ports(ports: &At<'_>) -> ErrorList {
    if ports.len() > MAX_PORTS {
        return vec![ports.too_many(MAX_PORTS)];
    }
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for port in ports.items() {
        let name = port.child("name");
        if !name.is_empty() {
            errors.extend(name.dns_label());
        }
        if seen.contains(&name.str()) {
            errors.push(Error::duplicate(&name.path, name.str()));
        } else {
            seen.push(name.str());
        }
        errors.extend(port.child("protocol").one_of(&["SCTP", "TCP", "UDP"]));
        let protocol = port.child("appProtocol");
        if protocol.is_set() {
            errors.extend(protocol.qualified_name());
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::forms::check;

    #[test]
    fn what_is_wrong_with_a_slice() {
        let cases: Vec<(Value, Vec<&str>)> = vec![
            (
                json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.2.3"]}], "ports": [{"port": 80}]}),
                vec![],
            ),
            (json!({}), vec!["addressType: Required value"]),
            (
                json!({"addressType": "IPv4", "endpoints": [
                    {"addresses": []}, {"addresses": ["127.0.0.1", "::1"], "hostname": "A", "hints": {"forZones": [{"name": "a"}, {"name": "a"}]}},
                ]}),
                vec![
                    "endpoints[0].addresses: Required value: must contain at least 1 address",
                    "endpoints[1].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                    "endpoints[1].addresses[1]: Invalid value: \"::1\": must be an IPv4 address",
                    "endpoints[1].addresses[1]: Invalid value: \"::1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                    "endpoints[1].hostname: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
                    "endpoints[1].hints.forZones[1].name: Duplicate value: \"a\"",
                ],
            ),
            (
                json!({"addressType": "FQDN", "endpoints": [{"addresses": ["a", "a.b."]}], "ports": [
                    {"name": "x"}, {"name": "x", "protocol": "ICMP", "appProtocol": "a/b/c"},
                ]}),
                vec![
                    "ports[1].name: Duplicate value: \"x\"",
                    "ports[1].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                    "ports[1].appProtocol: Invalid value: \"a/b/c\": a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                    "endpoints[0].addresses[0]: Invalid value: \"a\": should be a domain with at least two segments separated by dots",
                ],
            ),
        ];
        for (slice, expected) in cases {
            let mut slice = Object::from(slice);
            EndpointSlices.default(&mut slice);
            check(EndpointSlices.validate(&slice), &expected);
        }
    }

    #[test]
    fn warnings_of_addresses_but_not_to_controllers() {
        let mut slice = Object::from(json!({"addressType": "FQDN", "endpoints": [
            {"addresses": ["10.0.0.1"]}, {"addresses": ["example.com", "fd00::0001"]},
        ]}));
        let of_type = "spec.addressType: FQDN endpoints are deprecated";
        let of_address = "endpoints[1].addresses[1]: IPv6 address \"fd00::0001\" should be in RFC 5952 canonical format (\"fd00::1\")";
        assert_eq!(EndpointSlices.warnings_on_create(&slice), [of_type, of_address]);
        assert_eq!(EndpointSlices.warnings_on_update(&slice, &slice), [of_address]);
        slice.set(
            &["metadata", "labels"],
            json!({"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}),
        );
        assert_eq!(EndpointSlices.warnings_on_create(&slice), [of_type]);
    }

    #[test]
    fn the_node_of_an_old_topology_stays() {
        let topology = |node: &str| json!({"addresses": ["10.0.0.1"], "deprecatedTopology": {"kubernetes.io/hostname": node}});
        let old = Object::from(json!({"endpoints": [topology("a")]}));
        let mut new = Object::from(json!({"endpoints": [topology("a"), topology("b")]}));
        EndpointSlices.prepare_for_update(&mut new, &old);
        assert_eq!(
            new.get(&["endpoints"]),
            Some(&json!([{"addresses": ["10.0.0.1"], "nodeName": "a"}, {"addresses": ["10.0.0.1"]}]))
        );
    }

    #[test]
    fn labels_count_as_a_change_and_annotations_do_not() {
        let mut old = Object::from(json!({"addressType": "IPv4"}));
        EndpointSlices.prepare_for_create(&mut old);
        let mut new = old.clone();
        new.set(&["metadata", "annotations"], json!({"a": "b"}));
        EndpointSlices.prepare_for_update(&mut new, &old);
        assert_eq!(new.generation(), 1);
        new.set(&["metadata", "labels"], json!({"a": "b"}));
        EndpointSlices.prepare_for_update(&mut new, &old);
        assert_eq!(new.generation(), 2);
    }
}
