//! `networking.k8s.io/v1`: ingresses, network policies, ranges of Service addresses and the addresses in use.

mod address;
mod ingress;
mod ingress_class;
mod network_policy;

use crate::catalogue::{Resource, Selectable, Subresource};

const GROUP: Resource = Resource {
    namespaced: false,
    ..Resource::in_group("networking.k8s.io", "v1", "k8s.io.api.networking.v1")
};

pub const RESOURCES: &[Resource] = &[
    Resource {
        kind: "IngressClass",
        plural: "ingressclasses",
        singular: "ingressclass",
        prefix: "ingressclasses",
        columns: ingress_class::COLUMNS,
        strategy: &ingress_class::IngressClasses,
        ..GROUP
    },
    Resource {
        kind: "Ingress",
        plural: "ingresses",
        singular: "ingress",
        namespaced: true,
        short_names: &["ing"],
        prefix: "ingress",
        subresources: &[Subresource::status("Ingress")],
        columns: ingress::COLUMNS,
        strategy: &ingress::Ingresses,
        ..GROUP
    },
    Resource {
        kind: "IPAddress",
        plural: "ipaddresses",
        singular: "ipaddress",
        short_names: &["ip"],
        prefix: "ipaddresses",
        selectable: &[Selectable {
            name: "spec.parentRef.resource",
            read: |ip| ip.get_str(&["spec", "parentRef", "resource"]).to_owned(),
        }],
        columns: address::ADDRESS_COLUMNS,
        strategy: &address::IpAddresses,
        ..GROUP
    },
    Resource {
        kind: "NetworkPolicy",
        plural: "networkpolicies",
        singular: "networkpolicy",
        namespaced: true,
        short_names: &["netpol"],
        prefix: "networkpolicies",
        columns: network_policy::COLUMNS,
        strategy: &network_policy::NetworkPolicies,
        ..GROUP
    },
    Resource {
        kind: "ServiceCIDR",
        plural: "servicecidrs",
        singular: "servicecidr",
        prefix: "servicecidrs",
        subresources: &[Subresource::status("ServiceCIDR")],
        columns: address::RANGE_COLUMNS,
        strategy: &address::ServiceCidrs,
        ..GROUP
    },
];
