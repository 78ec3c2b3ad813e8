//! `flowcontrol.apiserver.k8s.io/v1`: flow schemas and priority levels.

pub mod bootstrap;
mod flow_schema;
mod priority_level;

use crate::catalogue::{Resource, Subresource};

const GROUP: Resource = Resource {
    namespaced: false,
    ..Resource::in_group("flowcontrol.apiserver.k8s.io", "v1", "k8s.io.api.flowcontrol.v1")
};

pub const RESOURCES: &[Resource] = &[
    Resource {
        kind: "FlowSchema",
        plural: "flowschemas",
        singular: "flowschema",
        prefix: "flowschemas",
        subresources: &[Subresource::status("FlowSchema")],
        columns: flow_schema::COLUMNS,
        strategy: &flow_schema::FlowSchemas,
        ..GROUP
    },
    Resource {
        kind: "PriorityLevelConfiguration",
        plural: "prioritylevelconfigurations",
        singular: "prioritylevelconfiguration",
        prefix: "prioritylevelconfigurations",
        subresources: &[Subresource::status("PriorityLevelConfiguration")],
        columns: priority_level::COLUMNS,
        strategy: &priority_level::PriorityLevels,
        ..GROUP
    },
];
