//! `flowcontrol.apiserver.k8s.io/v1`: flow schemas and priority levels.

pub mod bootstrap;
mod flow_schema;
mod priority_level;

use crate::catalogue::{Access, Resource, Subresource};
use crate::printers;
use crate::strategy::Plain;

const GROUP: Resource = Resource {
    group: "flowcontrol.apiserver.k8s.io",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    namespaced: false,
    short_names: &[],
    categories: &[],
    access: Access::Stored,
    package: "k8s.io.api.flowcontrol.v1",
    prefix: "",
    stored_as: None,
    subresources: &[],
    returns_deleted: false,
    selectable: &[],
    columns: printers::DEFAULT,
    strategy: &Plain,
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
