//! `networking.k8s.io/v1`: ranges of Service addresses and the addresses in use.

use apimachinery::field::ErrorList;
use apimachinery::{Object, Value};
use serde_json::json;

use crate::catalogue::{Access, Resource, Selectable, Subresource};
use crate::printers::{self, AGE, NAME, column};
use crate::strategy::{Plain, Strategy};
use crate::validation;

const GROUP: Resource = Resource {
    group: "networking.k8s.io",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    namespaced: false,
    short_names: &[],
    categories: &[],
    access: Access::Stored,
    package: "k8s.io.api.networking.v1",
    prefix: "",
    subresources: &[],
    returns_deleted: false,
    selectable: &[],
    columns: printers::DEFAULT,
    strategy: &Plain,
};

pub const RESOURCES: &[Resource] = &[
    Resource {
        kind: "IPAddress",
        plural: "ipaddresses",
        singular: "ipaddress",
        short_names: &["ip"],
        prefix: "ipaddresses",
        selectable: &[Selectable { name: "spec.parentRef.resource", read: |ip| parent(ip, "resource") }],
        columns: &[
            NAME,
            column("ParentRef", "string", "What the address belongs to.", |ip, _| {
                let (resource, group) = (parent(ip, "resource"), parent(ip, "group"));
                let resource = if group.is_empty() { resource } else { format!("{resource}.{group}") };
                let place = [parent(ip, "namespace"), parent(ip, "name")];
                let place: Vec<&str> = place.iter().map(String::as_str).filter(|s| !s.is_empty()).collect();
                json!(format!("{resource}/{}", place.join("/")))
            }),
        ],
        strategy: &IpAddresses,
        ..GROUP
    },
    Resource {
        kind: "ServiceCIDR",
        plural: "servicecidrs",
        singular: "servicecidr",
        prefix: "servicecidrs",
        subresources: &[Subresource::status("ServiceCIDR")],
        columns: &[
            NAME,
            column("CIDRs", "string", "The ranges.", |range, _| {
                let all: Vec<&str> =
                    range.get_array(&["spec", "cidrs"]).iter().filter_map(Value::as_str).collect();
                json!(all.join(","))
            }),
            AGE,
        ],
        strategy: &ServiceCidrs,
        ..GROUP
    },
];

fn parent(ip: &Object, key: &str) -> String {
    ip.get_str(&["spec", "parentRef", key]).to_owned()
}

struct IpAddresses;

impl Strategy for IpAddresses {
    fn validate_name(&self, name: &str, _prefix: bool) -> Vec<String> {
        validation::ip_address_name(name)
    }

    fn validate(&self, ip: &Object) -> ErrorList {
        validation::ip_address(ip)
    }

    fn validate_update(&self, ip: &Object, old: &Object) -> ErrorList {
        validation::ip_address_update(ip, old)
    }
}

struct ServiceCidrs;

impl Strategy for ServiceCidrs {
    fn validate(&self, range: &Object) -> ErrorList {
        validation::service_cidr(range)
    }

    fn validate_update(&self, range: &Object, old: &Object) -> ErrorList {
        validation::service_cidr_update(range, old)
    }
}
