//! `discovery.k8s.io/v1`: endpoint slices.

mod endpoint_slice;

use apimachinery::{Object, Value};
use serde_json::json;

use crate::catalogue::Resource;
use crate::printers::{AGE, NAME, column};

const GROUP: Resource = Resource::in_group("discovery.k8s.io", "v1", "k8s.io.api.discovery.v1");

pub const RESOURCES: &[Resource] = &[Resource {
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    prefix: "endpointslices",
    columns: &[
        NAME,
        column("AddressType", "string", "Kind of the addresses.", |slice, _| {
            json!(slice.get_str(&["addressType"]))
        }),
        column("Ports", "string", "Ports, the first three.", |slice, _| json!(ports(slice))),
        column("Endpoints", "string", "Addresses, the first three.", |slice, _| json!(endpoints(slice))),
        AGE,
    ],
    strategy: &endpoint_slice::EndpointSlices,
    ..GROUP
}];

const SHOWN: usize = 3;

fn shorten(all: Vec<String>, none: &str) -> String {
    match all.len() {
        0 => none.to_owned(),
        n if n > SHOWN => format!("{} + {} more...", all[..SHOWN].join(","), n - SHOWN),
        _ => all.join(","),
    }
}

fn ports(slice: &Object) -> String {
    let all = slice
        .get_array(&["ports"])
        .iter()
        .map(|port| match port.get("port").and_then(Value::as_i64) {
            Some(number) => number.to_string(),
            None => "*".to_owned(),
        })
        .collect();
    shorten(all, "<unset>")
}

fn endpoints(slice: &Object) -> String {
    let all = slice
        .get_array(&["endpoints"])
        .iter()
        .flat_map(|endpoint| endpoint.get("addresses").and_then(Value::as_array).into_iter().flatten())
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    shorten(all, "<unset>")
}
