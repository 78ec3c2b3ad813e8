//! The plugins, one file each, and the default profile: which run, in which order, with which weight.

mod default_binder;
mod dynamic_resources;
mod image_locality;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_balanced_allocation;
mod node_resources_fit;
mod node_unschedulable;
mod priority_sort;
mod scheduling_gates;
mod taint_toleration;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::framework::{Framework, FrameworkBuilder};
use crate::port::Port;

use default_binder::DefaultBinder;
use dynamic_resources::DynamicResources;
use image_locality::ImageLocality;
use node_affinity::NodeAffinity;
use node_name::NodeName;
use node_ports::NodePorts;
use node_resources_balanced_allocation::BalancedAllocation;
use node_resources_fit::Fit;
use node_unschedulable::NodeUnschedulable;
use priority_sort::PrioritySort;
use scheduling_gates::SchedulingGates;
use taint_toleration::TaintToleration;

/// Upstream's default profile, in its order.
pub fn default_framework(port: Arc<dyn Port>) -> Framework {
    FrameworkBuilder::new(Arc::new(PrioritySort))
        .pre_enqueue(Arc::new(SchedulingGates))
        .pre_enqueue(Arc::new(DynamicResources))
        .pre_filter(Arc::new(NodeAffinity))
        .pre_filter(Arc::new(NodePorts))
        .filter(Arc::new(NodeUnschedulable))
        .filter(Arc::new(NodeName))
        .filter(Arc::new(TaintToleration))
        .filter(Arc::new(NodeAffinity))
        .filter(Arc::new(NodePorts))
        .filter(Arc::new(Fit))
        .post_filter(Arc::new(DynamicResources))
        .pre_score(Arc::new(TaintToleration))
        .pre_score(Arc::new(NodeAffinity))
        .pre_score(Arc::new(BalancedAllocation))
        .pre_score(Arc::new(ImageLocality))
        .score(Arc::new(TaintToleration), 3)
        .score(Arc::new(NodeAffinity), 2)
        .score(Arc::new(Fit), 1)
        .score(Arc::new(BalancedAllocation), 1)
        .score(Arc::new(ImageLocality), 1)
        .bind(Arc::new(DefaultBinder::new(port)))
        .enqueue_extensions(Arc::new(SchedulingGates))
        .enqueue_extensions(Arc::new(DynamicResources))
        .enqueue_extensions(Arc::new(NodeUnschedulable))
        .enqueue_extensions(Arc::new(NodeName))
        .enqueue_extensions(Arc::new(TaintToleration))
        .enqueue_extensions(Arc::new(NodeAffinity))
        .enqueue_extensions(Arc::new(NodePorts))
        .enqueue_extensions(Arc::new(Fit))
        .build()
}
