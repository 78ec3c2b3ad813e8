//! Endpoints.

use std::collections::BTreeMap;

use apimachinery::field::{ErrorList, Path};
use apimachinery::{Object, Value};
use serde_json::json;

use crate::catalogue::Column;
use crate::core::defaults::{each, set};
use crate::core::warnings;
use crate::printers::{AGE, NAME, column};
use crate::strategy::Strategy;
use crate::validation;
use crate::validation::value::{list, text};

pub const COLUMNS: &[Column] = &[
    NAME,
    column("Endpoints", "string", "Addresses and ports, the first three.", |e, _| json!(format(e))),
    AGE,
];

fn format(endpoints: &Object) -> String {
    const SHOWN: usize = 3;
    let mut all: Vec<String> = Vec::new();
    for subset in endpoints.get_array(&["subsets"]) {
        let list =
            |key: &str| subset.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let ips = list("addresses").iter().filter_map(|a| a.get("ip")?.as_str());
        if list("ports").is_empty() {
            all.extend(ips.map(str::to_owned));
            continue;
        }
        let ips: Vec<&str> = ips.collect();
        for port in list("ports") {
            let number = port.get("port").and_then(Value::as_i64).unwrap_or_default();
            all.extend(ips.iter().map(|ip| match ip.contains(':') {
                true => format!("[{ip}]:{number}"),
                false => format!("{ip}:{number}"),
            }));
        }
    }
    match all.len() {
        0 => "<none>".into(),
        n if n > SHOWN => format!("{} + {} more...", all[..SHOWN].join(","), n - SHOWN),
        _ => all.join(","),
    }
}

/// An address as it is known by, the address itself, and whether it is ready.
type Reachable = BTreeMap<(String, String), (Value, bool)>;

/// Brings subsets into one form: each port once, with those that the same addresses serve, in order. An address that
/// is not ready in one of them is ready in none.
fn repack(subsets: &[Value]) -> Vec<Value> {
    let mut by_port: Vec<(Option<&Value>, Reachable)> = Vec::new();
    for subset in subsets {
        let ports = list(subset, "ports");
        let ports: Vec<Option<&Value>> =
            if ports.is_empty() { vec![None] } else { ports.iter().map(Some).collect() };
        for port in ports {
            let index = by_port.iter().position(|(known, _)| *known == port).unwrap_or_else(|| {
                by_port.push((port, Reachable::new()));
                by_port.len() - 1
            });
            for (key, ready) in [("addresses", true), ("notReadyAddresses", false)] {
                for address in list(subset, key) {
                    let uid = address.get("targetRef").map(|target| text(target, "uid")).unwrap_or_default();
                    let known = by_port[index].1.entry((text(address, "ip").to_owned(), uid.to_owned()));
                    let entry = known.or_insert_with(|| (address.clone(), ready));
                    entry.1 &= ready;
                }
            }
        }
    }
    let mut packed: Vec<(Vec<&Value>, Reachable)> = Vec::new();
    for (port, addresses) in by_port {
        let state = |addresses: &Reachable| -> Vec<_> {
            addresses.iter().map(|(key, (_, ready))| (key.clone(), *ready)).collect()
        };
        match packed.iter_mut().find(|(_, known)| state(known) == state(&addresses)) {
            Some((ports, _)) => ports.extend(port),
            None => packed.push((port.into_iter().collect(), addresses)),
        }
    }
    let with_state = |addresses: &Reachable, wanted: bool| -> Vec<Value> {
        let all = addresses.values().filter(|(_, ready)| *ready == wanted);
        all.map(|(address, _)| address.clone()).collect()
    };
    let to_subset = |(mut ports, addresses): (Vec<&Value>, Reachable)| {
        ports.sort_by_key(|port| (text(port, "name"), text(port, "protocol"), port["port"].as_i64()));
        let mut subset = json!({});
        for (key, list) in [
            ("addresses", with_state(&addresses, true)),
            ("notReadyAddresses", with_state(&addresses, false)),
        ] {
            if !list.is_empty() {
                subset[key] = list.into();
            }
        }
        if !ports.is_empty() {
            subset["ports"] = ports.into_iter().cloned().collect();
        }
        subset
    };
    packed.into_iter().map(to_subset).collect()
}

pub struct EndpointsStrategy;

impl Strategy for EndpointsStrategy {
    fn default(&self, endpoints: &mut Object) {
        for subset in each(endpoints.as_map_mut(), "subsets") {
            for port in each(subset, "ports") {
                set(port, "protocol", "TCP");
            }
        }
    }

    fn prepare_for_create(&self, _endpoints: &mut Object) {}

    fn prepare_for_update(&self, _endpoints: &mut Object, _old: &Object) {}

    fn validate(&self, endpoints: &Object) -> ErrorList {
        validation::endpoints(endpoints)
    }

    fn warnings_on_create(&self, endpoints: &Object) -> Vec<String> {
        let mut out = Vec::new();
        for (index, subset) in endpoints.get_array(&["subsets"]).iter().enumerate() {
            let at = Path::new("subsets").index(index);
            for key in ["addresses", "notReadyAddresses"] {
                for (index, address) in list(subset, key).iter().enumerate() {
                    out.extend(warnings::ip(text(address, "ip"), &at.child(key).index(index).child("ip")));
                }
            }
        }
        out
    }

    /// Ports with the same addresses stand together.
    fn canonicalize(&self, endpoints: &mut Object) {
        let packed = repack(endpoints.get_array(&["subsets"]));
        if !packed.is_empty() {
            endpoints.set(&["subsets"], packed);
        }
    }

    fn deprecation(&self) -> Option<&'static str> {
        Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsets_have_one_form() {
        let (a, b) = (json!({"ip": "10.0.0.1"}), json!({"ip": "10.0.0.2"}));
        let (p, q) =
            (json!({"port": 80, "protocol": "TCP"}), json!({"name": "q", "port": 90, "protocol": "TCP"}));
        for (subsets, expected) in [
            (
                json!([{"addresses": [b, a], "ports": [q, p]}]),
                json!([{"addresses": [a, b], "ports": [p, q]}]),
            ),
            (
                json!([{"addresses": [b], "ports": [p]}, {"addresses": [a], "ports": [p]}]),
                json!([{"addresses": [a, b], "ports": [p]}]),
            ),
            (
                json!([{"addresses": [a], "ports": [p]}, {"addresses": [a], "ports": [q]}]),
                json!([{"addresses": [a], "ports": [p, q]}]),
            ),
            (
                json!([{"addresses": [a], "ports": [p]}, {"notReadyAddresses": [a], "ports": [p]}]),
                json!([{"notReadyAddresses": [a], "ports": [p]}]),
            ),
            (json!([{"addresses": [a]}, {"addresses": [b]}]), json!([{"addresses": [a, b]}])),
            (
                json!([{"addresses": [a], "ports": [p]}, {"addresses": [a], "ports": [p]}]),
                json!([{"addresses": [a], "ports": [p]}]),
            ),
        ] {
            let mut endpoints = Object::from(json!({"subsets": subsets}));
            EndpointsStrategy.canonicalize(&mut endpoints);
            assert_eq!(endpoints.get(&["subsets"]), Some(&expected), "{subsets}");
            let again = endpoints.clone();
            EndpointsStrategy.canonicalize(&mut endpoints);
            assert_eq!(endpoints, again);
        }
    }
}
