//! Validation: what is wrong with an object, all of it at once, in upstream's words and at upstream's paths.

pub(crate) mod at;
pub mod claim;
mod config;
mod disruption;
mod endpoints;
mod event;
pub(crate) mod forms;
pub(crate) mod internal;
mod namespace;
mod node;
pub mod pod;
mod quota;
mod replication;
pub mod resources;
mod service;
#[cfg(test)]
mod service_tests;
mod service_update;
mod sources;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
pub mod url;
pub mod value;
mod volume;

pub use claim::{claim, claim_status_update, claim_update};
pub use config::{config_map, config_map_update, secret, secret_update};
pub use disruption::{pod_disruption_budget, pod_disruption_budget_status_update};
pub use endpoints::endpoints;
pub(crate) use endpoints::non_special_ip;
pub use event::{event, strict_event, strict_event_update};
pub use forms::domain_prefixed_path;
pub use namespace::{finalizer_names, namespace, namespace_finalize, namespace_status_update};
pub use node::{node, node_update};
pub use pod::{pod, pod_update};
pub use quota::{limit_range, resource_quota, resource_quota_status_update, resource_quota_update};
pub use replication::{
    pod_template, pod_template_update, replication_controller, replication_controller_status_update,
    replication_controller_update,
};
pub use service::{
    allocates_node_ports, cluster_ips, is_externally_accessible, is_headless, needs_health_check, service,
};
pub use service_update::{service_status_update, service_update};
pub(crate) use volume::inline_volume_spec;
pub use volume::{volume, volume_update};
