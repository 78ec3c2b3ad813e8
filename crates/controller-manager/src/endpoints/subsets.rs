//! Subsets of `Endpoints`, packed: each port once, together with those that the very same addresses serve, in upstream's
//! order.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset};

use super::order;

type PortKey = Option<(Option<String>, Option<String>, i32, Option<String>)>;
/// What an address is known by: where it leads, and to whom.
type AddressKey = (String, Option<String>);
type Reached = BTreeMap<AddressKey, bool>;

#[derive(Default)]
pub struct Subsets {
    addresses: BTreeMap<AddressKey, EndpointAddress>,
    by_port: BTreeMap<PortKey, Reached>,
}

impl Subsets {
    /// Adds that an address serves a port, or no port in particular. Who is not ready once is not ready.
    pub fn add(&mut self, address: &EndpointAddress, ready: bool, port: Option<EndpointPort>) {
        let uid = address.target_ref.as_ref().and_then(|target| target.uid.clone());
        let key = (address.ip.clone(), uid);
        self.addresses.entry(key.clone()).or_insert_with(|| address.clone());
        let port = port.map(|port| (port.name, port.protocol, port.port, port.app_protocol));
        *self.by_port.entry(port).or_default().entry(key).or_insert(true) &= ready;
    }

    pub fn pack(self) -> Vec<EndpointSubset> {
        let mut packed: Vec<(Reached, Vec<EndpointPort>)> = Vec::new();
        for (port, reached) in self.by_port {
            let port = port.map(|(name, protocol, port, app_protocol)| EndpointPort {
                name,
                port,
                protocol,
                app_protocol,
            });
            match packed.iter_mut().find(|(known, _)| *known == reached) {
                Some((_, ports)) => ports.extend(port),
                None => packed.push((reached, port.into_iter().collect())),
            }
        }
        let some = |list: Vec<EndpointAddress>| (!list.is_empty()).then_some(list);
        let addresses = |reached: &Reached, wanted: bool| {
            let keys = reached.iter().filter(|(_, ready)| **ready == wanted).map(|(key, _)| key);
            some(keys.filter_map(|key| self.addresses.get(key).cloned()).collect())
        };
        let subset = |(reached, mut ports): (Reached, Vec<EndpointPort>)| {
            order::sort_ports(&mut ports);
            EndpointSubset {
                addresses: addresses(&reached, true),
                not_ready_addresses: addresses(&reached, false),
                ports: (!ports.is_empty()).then_some(ports),
            }
        };
        let mut subsets: Vec<EndpointSubset> = packed.into_iter().map(subset).collect();
        order::sort_subsets(&mut subsets);
        subsets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Subsets as `ports: ready / not ready`.
    fn packed(all: &[(&str, bool, Option<i32>)]) -> Vec<String> {
        let mut subsets = Subsets::default();
        for (ip, ready, port) in all {
            let address = EndpointAddress { ip: (*ip).into(), ..EndpointAddress::default() };
            let port = port.map(|port| EndpointPort { port, ..EndpointPort::default() });
            subsets.add(&address, *ready, port);
        }
        let ips = |list: Option<Vec<EndpointAddress>>| -> String {
            list.into_iter().flatten().map(|address| address.ip).collect::<Vec<_>>().join(",")
        };
        let text = |subset: EndpointSubset| {
            let ports: Vec<String> =
                subset.ports.into_iter().flatten().map(|port| port.port.to_string()).collect();
            format!("{}: {} / {}", ports.join(","), ips(subset.addresses), ips(subset.not_ready_addresses))
        };
        subsets.pack().into_iter().map(text).collect()
    }

    #[test]
    fn ports_with_the_same_addresses_stand_together() {
        let cases: [(&[_], &[&str]); 6] = [
            (&[], &[]),
            (&[("b", true, None), ("a", false, None)], &[": b / a"]),
            (
                &[("b", true, Some(2)), ("b", true, Some(1)), ("a", true, Some(1)), ("a", true, Some(2))],
                &["2,1: a,b / "],
            ),
            (&[("a", true, Some(1)), ("b", false, Some(1)), ("b", false, Some(2))], &["1: a / b", "2:  / b"]),
            (
                &[("a", true, Some(1)), ("a", true, Some(9)), ("b", true, Some(2)), ("b", true, Some(9))],
                &["2: b / ", "1: a / ", "9: a,b / "],
            ),
            (&[("a", true, Some(1)), ("a", false, Some(1))], &["1:  / a"]),
        ];
        for (all, expected) in cases {
            assert_eq!(packed(all), expected);
        }
    }
}
