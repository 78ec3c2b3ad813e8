//! The order of ports and subsets in `Endpoints` and slices: upstream sorts them by a hash of how Go's `spew` prints them.
//! It means nothing, but clients see it, and whoever compares with what another controller wrote does not find a change.

use std::fmt::Write;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset};
use k8s_openapi::api::discovery::v1;

pub fn sort_ports(ports: &mut [EndpointPort]) {
    ports.sort_by_cached_key(|port| {
        let mut text = String::from("(v1.EndpointPort)");
        print_port(port, &mut text);
        hash(&text)
    });
}

/// Sorts subsets whose addresses and ports are sorted.
pub fn sort_subsets(subsets: &mut [EndpointSubset]) {
    subsets.sort_by_cached_key(|subset| hash(&print_subset(subset)));
}

/// Sorts the ports of a slice, whose type has another shape.
pub fn sort_slice_ports(ports: &mut [v1::EndpointPort]) {
    ports.sort_by_cached_key(|port| {
        let or_nil = |text: &Option<String>| text.clone().unwrap_or_else(|| "<nil>".to_owned());
        hash(&format!(
            "(v1.EndpointPort){{Name:(*string){} Protocol:(*v1.Protocol){} Port:(*int32){} AppProtocol:(*string){}}}",
            or_nil(&port.name),
            or_nil(&port.protocol),
            port.port.map_or_else(|| "<nil>".to_owned(), |number| number.to_string()),
            or_nil(&port.app_protocol),
        ))
    });
}

/// FNV-1a of 128 bits.
fn hash(text: &str) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    text.bytes().fold(OFFSET, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

fn print_subset(subset: &EndpointSubset) -> String {
    let mut out = String::from("(v1.EndpointSubset){Addresses:([]v1.EndpointAddress)");
    print_list(subset.addresses.as_deref(), &mut out, print_address);
    out.push_str(" NotReadyAddresses:([]v1.EndpointAddress)");
    print_list(subset.not_ready_addresses.as_deref(), &mut out, print_address);
    out.push_str(" Ports:([]v1.EndpointPort)");
    print_list(subset.ports.as_deref(), &mut out, print_port);
    out.push('}');
    out
}

/// A slice; the types of its elements are not said again.
fn print_list<T>(list: Option<&[T]>, out: &mut String, print: fn(&T, &mut String)) {
    let Some(list) = list else { return out.push_str("<nil>") };
    out.push('[');
    for (index, item) in list.iter().enumerate() {
        if index > 0 {
            out.push(' ');
        }
        print(item, out);
    }
    out.push(']');
}

fn print_port(port: &EndpointPort, out: &mut String) {
    let (name, protocol) = (text(port.name.as_deref()), text(port.protocol.as_deref()));
    let application = port.app_protocol.as_deref().unwrap_or("<nil>");
    let _ = write!(
        out,
        "{{Name:(string){name} Port:(int32){} Protocol:(v1.Protocol){protocol} AppProtocol:(*string){application}}}",
        port.port
    );
}

fn print_address(address: &EndpointAddress, out: &mut String) {
    let (hostname, node) =
        (text(address.hostname.as_deref()), address.node_name.as_deref().unwrap_or("<nil>"));
    let _ = write!(
        out,
        "{{IP:(string){} Hostname:(string){hostname} NodeName:(*string){node} TargetRef:",
        address.ip
    );
    out.push_str("(*v1.ObjectReference)");
    let Some(target) = &address.target_ref else { return out.push_str("<nil>}") };
    let fields = [
        ("Kind:(string)", &target.kind),
        (" Namespace:(string)", &target.namespace),
        (" Name:(string)", &target.name),
        (" UID:(types.UID)", &target.uid),
        (" APIVersion:(string)", &target.api_version),
        (" ResourceVersion:(string)", &target.resource_version),
        (" FieldPath:(string)", &target.field_path),
    ];
    out.push('{');
    for (name, value) in fields {
        out.push_str(name);
        out.push_str(text(value.as_deref()));
    }
    out.push_str("}}");
}

fn text(value: Option<&str>) -> &str {
    value.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ObjectReference;

    use super::*;

    fn port(name: &str, number: i32, protocol: &str, application: Option<&str>) -> EndpointPort {
        EndpointPort {
            name: Some(name.into()),
            port: number,
            protocol: Some(protocol.into()),
            app_protocol: application.map(Into::into),
        }
    }

    /// What Go makes of `dns`.
    #[test]
    fn texts_are_hashed_as_in_go() {
        let mut text = String::from("(v1.EndpointPort)");
        print_port(&port("dns", 53, "UDP", None), &mut text);
        assert_eq!(hash(&text), 0xcf68_4d8c_2a0d_ef1b_a31f_6460_0b90_51ae);
        assert_eq!(hash(""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
    }

    #[test]
    fn ports_stand_as_upstream_sorts_them() {
        let dns = || {
            vec![
                port("dns", 53, "UDP", None),
                port("dns-tcp", 53, "TCP", None),
                port("metrics", 9153, "TCP", None),
            ]
        };
        let web = || vec![port("http", 80, "TCP", Some("http")), port("https", 443, "TCP", Some("https"))];
        for (mut ports, in_endpoints, in_slices) in [
            (dns(), vec!["metrics", "dns-tcp", "dns"], vec!["dns", "dns-tcp", "metrics"]),
            (web(), vec!["https", "http"], vec!["https", "http"]),
        ] {
            let of_slice = |port: &EndpointPort| v1::EndpointPort {
                name: port.name.clone(),
                port: Some(port.port),
                protocol: port.protocol.clone(),
                app_protocol: port.app_protocol.clone(),
            };
            let mut of_slices: Vec<v1::EndpointPort> = ports.iter().map(of_slice).collect();
            sort_ports(&mut ports);
            let names: Vec<&str> = ports.iter().filter_map(|port| port.name.as_deref()).collect();
            assert_eq!(names, in_endpoints);
            sort_slice_ports(&mut of_slices);
            let names: Vec<&str> = of_slices.iter().filter_map(|port| port.name.as_deref()).collect();
            assert_eq!(names, in_slices);
        }
    }

    #[test]
    fn subsets_are_printed_as_go_prints_them() {
        let address = |ip: &str, name: Option<&str>| EndpointAddress {
            ip: ip.into(),
            node_name: name.map(|_| "n".into()),
            target_ref: name.map(|name| ObjectReference {
                kind: Some("Pod".into()),
                namespace: Some("ns".into()),
                name: Some(name.into()),
                uid: Some("u".into()),
                ..ObjectReference::default()
            }),
            ..EndpointAddress::default()
        };
        let subset = EndpointSubset {
            addresses: Some(vec![address("1.1.1.1", Some("p")), address("1.1.1.2", None)]),
            not_ready_addresses: None,
            ports: Some(vec![port("", 80, "TCP", Some("http")), port("b", 81, "UDP", None)]),
        };
        let expected = "(v1.EndpointSubset){Addresses:([]v1.EndpointAddress)[\
            {IP:(string)1.1.1.1 Hostname:(string) NodeName:(*string)n TargetRef:(*v1.ObjectReference)\
            {Kind:(string)Pod Namespace:(string)ns Name:(string)p UID:(types.UID)u APIVersion:(string) \
            ResourceVersion:(string) FieldPath:(string)}} \
            {IP:(string)1.1.1.2 Hostname:(string) NodeName:(*string)<nil> TargetRef:(*v1.ObjectReference)<nil>}] \
            NotReadyAddresses:([]v1.EndpointAddress)<nil> Ports:([]v1.EndpointPort)[\
            {Name:(string) Port:(int32)80 Protocol:(v1.Protocol)TCP AppProtocol:(*string)http} \
            {Name:(string)b Port:(int32)81 Protocol:(v1.Protocol)UDP AppProtocol:(*string)<nil>}]}";
        assert_eq!(print_subset(&subset), expected);
    }
}
