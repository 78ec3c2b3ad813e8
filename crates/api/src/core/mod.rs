//! The core group, `v1`.

mod component_status;
pub mod config;
pub mod defaults;
mod endpoints;
pub mod event;
pub mod gates;
pub mod namespace;
pub mod node;
pub mod pod;
mod pod_create;
mod pod_printer;
pub mod pod_resources;
mod quota;
mod replication;
#[cfg(test)]
mod robustness;
pub mod service;
mod service_account;
mod service_warnings;
mod volume;
pub mod warnings;

use crate::catalogue::{Access, Resource, Selectable, Subresource};

const GROUP: Resource = Resource::in_group("", "v1", "k8s.io.api.core.v1");

const fn own(name: &'static str, kind: &'static str, verbs: &'static [&'static str]) -> Subresource {
    Subresource { name, kind, group_version: None, verbs }
}

const fn of(
    name: &'static str,
    kind: &'static str,
    group_version: (&'static str, &'static str),
    verbs: &'static [&'static str],
) -> Subresource {
    Subresource { name, kind, group_version: Some(group_version), verbs }
}

const CONNECT: &[&str] = &["create", "get"];
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];

pub const RESOURCES: &[Resource] = &[
    Resource {
        kind: "Binding",
        plural: "bindings",
        singular: "binding",
        access: Access::CreateOnly,
        ..GROUP
    },
    Resource {
        kind: "ComponentStatus",
        plural: "componentstatuses",
        singular: "componentstatus",
        namespaced: false,
        short_names: &["cs"],
        access: Access::ReadOnly,
        columns: component_status::COLUMNS,
        strategy: &component_status::ComponentStatuses,
        ..GROUP
    },
    Resource {
        kind: "ConfigMap",
        plural: "configmaps",
        singular: "configmap",
        short_names: &["cm"],
        prefix: "configmaps",
        columns: config::CONFIG_MAP_COLUMNS,
        strategy: &config::ConfigMaps,
        ..GROUP
    },
    Resource {
        kind: "Endpoints",
        plural: "endpoints",
        singular: "endpoints",
        short_names: &["ep"],
        prefix: "services/endpoints",
        columns: endpoints::COLUMNS,
        strategy: &endpoints::EndpointsStrategy,
        ..GROUP
    },
    Resource {
        kind: "Event",
        plural: "events",
        singular: "event",
        short_names: &["ev"],
        prefix: "events",
        selectable: event::SELECTABLE,
        columns: event::COLUMNS,
        strategy: &event::Events,
        ..GROUP
    },
    Resource {
        kind: "LimitRange",
        plural: "limitranges",
        singular: "limitrange",
        short_names: &["limits"],
        prefix: "limitranges",
        strategy: &quota::LimitRanges,
        ..GROUP
    },
    Resource {
        kind: "Namespace",
        plural: "namespaces",
        singular: "namespace",
        namespaced: false,
        short_names: &["ns"],
        prefix: "namespaces",
        subresources: &[own("finalize", "Namespace", &["update"]), Subresource::status("Namespace")],
        selectable: &[Selectable {
            name: "status.phase",
            read: |object| object.get_str(&["status", "phase"]).to_owned(),
        }],
        columns: namespace::COLUMNS,
        strategy: &namespace::Namespaces,
        ..GROUP
    },
    Resource {
        kind: "Node",
        plural: "nodes",
        singular: "node",
        namespaced: false,
        short_names: &["no"],
        prefix: "minions",
        subresources: &[own("proxy", "NodeProxyOptions", PROXY), Subresource::status("Node")],
        selectable: &[Selectable {
            name: "spec.unschedulable",
            read: |object| object.get_bool(&["spec", "unschedulable"]).to_string(),
        }],
        columns: node::COLUMNS,
        strategy: &node::Nodes,
        ..GROUP
    },
    Resource {
        kind: "PersistentVolumeClaim",
        plural: "persistentvolumeclaims",
        singular: "persistentvolumeclaim",
        short_names: &["pvc"],
        prefix: "persistentvolumeclaims",
        subresources: &[Subresource::status("PersistentVolumeClaim")],
        returns_deleted: true,
        selectable: volume::SELECTABLE,
        columns: volume::CLAIM_COLUMNS,
        strategy: &volume::Claims,
        ..GROUP
    },
    Resource {
        kind: "PersistentVolume",
        plural: "persistentvolumes",
        singular: "persistentvolume",
        namespaced: false,
        short_names: &["pv"],
        prefix: "persistentvolumes",
        subresources: &[Subresource::status("PersistentVolume")],
        returns_deleted: true,
        selectable: volume::SELECTABLE,
        columns: volume::VOLUME_COLUMNS,
        strategy: &volume::Volumes,
        ..GROUP
    },
    Resource {
        kind: "Pod",
        plural: "pods",
        singular: "pod",
        short_names: &["po"],
        categories: &["all"],
        prefix: "pods",
        subresources: &[
            own("attach", "PodAttachOptions", CONNECT),
            own("binding", "Binding", &["create"]),
            own("ephemeralcontainers", "Pod", &["get", "patch", "update"]),
            of("eviction", "Eviction", ("policy", "v1"), &["create"]),
            own("exec", "PodExecOptions", CONNECT),
            own("log", "Pod", &["get"]),
            own("portforward", "PodPortForwardOptions", CONNECT),
            own("proxy", "PodProxyOptions", PROXY),
            own("resize", "Pod", &["get", "patch", "update"]),
            Subresource::status("Pod"),
        ],
        returns_deleted: true,
        selectable: pod::SELECTABLE,
        columns: pod_printer::COLUMNS,
        strategy: &pod::Pods,
        ..GROUP
    },
    Resource {
        kind: "PodTemplate",
        plural: "podtemplates",
        singular: "podtemplate",
        prefix: "podtemplates",
        returns_deleted: true,
        columns: replication::TEMPLATE_COLUMNS,
        strategy: &replication::Templates,
        ..GROUP
    },
    Resource {
        kind: "ReplicationController",
        plural: "replicationcontrollers",
        singular: "replicationcontroller",
        short_names: &["rc"],
        categories: &["all"],
        prefix: "controllers",
        subresources: &[Subresource::scale(), Subresource::status("ReplicationController")],
        selectable: replication::CONTROLLER_SELECTABLE,
        columns: replication::CONTROLLER_COLUMNS,
        strategy: &replication::Controllers,
        ..GROUP
    },
    Resource {
        kind: "ResourceQuota",
        plural: "resourcequotas",
        singular: "resourcequota",
        short_names: &["quota"],
        prefix: "resourcequotas",
        subresources: &[Subresource::status("ResourceQuota")],
        returns_deleted: true,
        columns: quota::QUOTA_COLUMNS,
        strategy: &quota::Quotas,
        ..GROUP
    },
    Resource {
        kind: "Secret",
        plural: "secrets",
        singular: "secret",
        prefix: "secrets",
        selectable: &[Selectable { name: "type", read: |object| object.get_str(&["type"]).to_owned() }],
        columns: config::SECRET_COLUMNS,
        strategy: &config::Secrets,
        ..GROUP
    },
    Resource {
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        singular: "serviceaccount",
        short_names: &["sa"],
        prefix: "serviceaccounts",
        subresources: &[of("token", "TokenRequest", ("authentication.k8s.io", "v1"), &["create"])],
        returns_deleted: true,
        columns: service_account::COLUMNS,
        strategy: &service_account::ServiceAccounts,
        ..GROUP
    },
    Resource {
        kind: "Service",
        plural: "services",
        singular: "service",
        short_names: &["svc"],
        categories: &["all"],
        prefix: "services/specs",
        subresources: &[own("proxy", "ServiceProxyOptions", PROXY), Subresource::status("Service")],
        selectable: service::SELECTABLE,
        returns_deleted: true,
        columns: service::COLUMNS,
        strategy: &service::Services,
        ..GROUP
    },
];
