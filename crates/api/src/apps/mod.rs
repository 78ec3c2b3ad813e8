//! The apps group, `apps/v1`.

mod controller_revision;
mod daemon_set;
mod deployment;
mod replica_set;
mod stateful_set;
pub(crate) mod template;

use crate::catalogue::{Resource, Selectable, Subresource};

const GROUP: Resource =
    Resource { categories: &["all"], ..Resource::in_group("apps", "v1", "k8s.io.api.apps.v1") };

pub const RESOURCES: &[Resource] = &[
    Resource {
        kind: "ControllerRevision",
        plural: "controllerrevisions",
        singular: "controllerrevision",
        categories: &[],
        prefix: "controllerrevisions",
        columns: controller_revision::COLUMNS,
        strategy: &controller_revision::ControllerRevisions,
        ..GROUP
    },
    Resource {
        kind: "DaemonSet",
        plural: "daemonsets",
        singular: "daemonset",
        short_names: &["ds"],
        prefix: "daemonsets",
        subresources: &[Subresource::status("DaemonSet")],
        columns: daemon_set::COLUMNS,
        strategy: &daemon_set::DaemonSets,
        ..GROUP
    },
    Resource {
        kind: "Deployment",
        plural: "deployments",
        singular: "deployment",
        short_names: &["deploy"],
        prefix: "deployments",
        subresources: &[Subresource::scale(), Subresource::status("Deployment")],
        columns: deployment::COLUMNS,
        strategy: &deployment::Deployments,
        ..GROUP
    },
    Resource {
        kind: "ReplicaSet",
        plural: "replicasets",
        singular: "replicaset",
        short_names: &["rs"],
        prefix: "replicasets",
        subresources: &[Subresource::scale(), Subresource::status("ReplicaSet")],
        selectable: &[Selectable {
            name: "status.replicas",
            read: |set| set.get_i64(&["status", "replicas"]).unwrap_or_default().to_string(),
        }],
        columns: replica_set::COLUMNS,
        strategy: &replica_set::ReplicaSets,
        ..GROUP
    },
    Resource {
        kind: "StatefulSet",
        plural: "statefulsets",
        singular: "statefulset",
        short_names: &["sts"],
        prefix: "statefulsets",
        subresources: &[Subresource::scale(), Subresource::status("StatefulSet")],
        columns: stateful_set::COLUMNS,
        strategy: &stateful_set::StatefulSets,
        ..GROUP
    },
];
