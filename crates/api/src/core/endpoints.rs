//! Endpoints.

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

    /// Subsets that stay as they are were good once.
    fn validate_update(&self, endpoints: &Object, old: &Object) -> ErrorList {
        if endpoints.get(&["subsets"]) == old.get(&["subsets"]) {
            return ErrorList::new();
        }
        validation::endpoints(endpoints)
    }

    /// Whoever writes an address in a form of its own is told, except the controller that copies them from pods.
    fn warnings_on_create(&self, endpoints: &Object) -> Vec<String> {
        const MANAGER: &[&str] = &["metadata", "labels", "endpoints.kubernetes.io/managed-by"];
        if endpoints.get_str(MANAGER) == "endpoint-controller" {
            return Vec::new();
        }
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
    use crate::validation::forms::check;

    fn endpoints(ip: &str) -> Object {
        Object::from(json!({"metadata": {"name": "e"}, "subsets": [{"addresses": [{"ip": ip}]}]}))
    }

    #[test]
    fn subsets_that_stay_are_not_judged_again() {
        let mut labelled = endpoints("127.0.0.1");
        labelled.set(&["metadata", "labels"], json!({"a": "b"}));
        check(EndpointsStrategy.validate_update(&labelled, &endpoints("127.0.0.1")), &[]);
        check(
            EndpointsStrategy.validate_update(&labelled, &endpoints("10.0.0.1")),
            &[
                "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ],
        );
    }

    #[test]
    fn the_controller_is_not_warned_of_addresses() {
        let mut odd = endpoints("010.0.0.1");
        assert_eq!(EndpointsStrategy.warnings_on_create(&odd).len(), 1);
        odd.set(
            &["metadata", "labels"],
            json!({"endpoints.kubernetes.io/managed-by": "endpoint-controller"}),
        );
        assert!(EndpointsStrategy.warnings_on_create(&odd).is_empty());
    }
}
