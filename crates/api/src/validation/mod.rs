//! Validation: what is wrong with an object, all of it at once, in upstream's words and at upstream's paths.

pub mod claim;
mod config;
mod disruption;
mod endpoints;
mod event;
mod namespace;
mod network;
mod node;
pub mod pod;
mod quota;
mod rbac;
mod replication;
pub mod resources;
mod service;
mod service_update;
mod sources;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
pub mod value;
mod volume;
mod workload;

pub use claim::{claim, claim_status_update, claim_update};
pub use config::{
    config_map, config_map_update, lease, priority_class, priority_class_update, secret, secret_update,
};
pub use disruption::{conditions, pod_disruption_budget, pod_disruption_budget_status_update};
pub use endpoints::{endpoints, non_special_ip};
pub use event::{event, strict_event, strict_event_update};
pub use namespace::{finalizer_names, namespace, namespace_finalize, namespace_status_update};
pub use network::{
    endpoint_slice, endpoint_slice_update, ip_address, ip_address_name, ip_address_update, service_cidr,
    service_cidr_update,
};
pub use node::{node, node_update};
pub use pod::{pod, pod_update};
pub use quota::{limit_range, resource_quota, resource_quota_status_update, resource_quota_update};
pub use rbac::{path_segment_name, role, role_binding, role_binding_update};
pub use replication::{
    pod_template, pod_template_update, replication_controller, replication_controller_status_update,
    replication_controller_update,
};
pub use service::{
    allocates_node_ports, cluster_ips, is_externally_accessible, is_headless, needs_health_check, service,
};
pub use service_update::{load_balancer_status, service_status_update, service_update};
pub use volume::{inline_volume_spec, volume, volume_update};
pub use workload::{deployment, deployment_update, replica_set, replica_set_update};

use value::{immutable, invalid, list, non_negative, text};
