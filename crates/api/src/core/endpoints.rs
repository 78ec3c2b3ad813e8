//! Endpoints.

use apimachinery::{Object, Value};
use serde_json::json;

use crate::catalogue::Column;
use crate::core::defaults::{each, set};
use crate::printers::{AGE, NAME, column};
use crate::strategy::Strategy;

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

    fn allow_create_on_update(&self) -> bool {
        true
    }
}
