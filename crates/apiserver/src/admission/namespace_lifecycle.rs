//! NamespaceLifecycle: nothing is created where there is no namespace or one that goes, and the system's own
//! namespaces stay.

use apimachinery::Status;

use super::{Attributes, Operation};
use crate::registry::Registry;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

#[derive(Default)]
pub struct NamespaceLifecycle {}

impl NamespaceLifecycle {
    pub async fn check(&self, registry: &Registry, attributes: &Attributes<'_>) -> Result<(), Status> {
        let resource = attributes.kind.resource;
        let is_namespace = attributes.is("namespaces", attributes.subresource);
        if attributes.operation == Operation::Delete && is_namespace && IMMORTAL.contains(&&*attributes.name)
        {
            return Err(attributes.forbidden("this namespace may not be deleted"));
        }
        if !resource.namespaced || is_namespace || attributes.operation == Operation::Delete {
            return Ok(());
        }
        if attributes.operation == Operation::Update && !attributes.subresource.is_empty() {
            return Ok(());
        }
        let namespaces = registry.core("namespaces");
        // the cache may not have seen a namespace that was made a moment ago
        let namespace = match registry.glance(namespaces, "", &attributes.namespace) {
            Some(namespace) => namespace,
            None => {
                registry.cache.wait_for_latest().await?;
                registry.glance(namespaces, "", &attributes.namespace).ok_or_else(|| {
                    Status::not_found(&namespaces.resource.group_resource(), &attributes.namespace)
                })?
            }
        };
        if attributes.operation == Operation::Create && namespace.field("status.phase") == Some("Terminating")
        {
            let mut status = attributes.forbidden(format_args!(
                "unable to create new content in namespace {} because it is being terminated",
                attributes.namespace
            ));
            if let Some(details) = &mut status.details {
                details.causes.push(apimachinery::status::Cause {
                    reason: "NamespaceTerminating".into(),
                    message: format!("namespace {} is being terminated", attributes.namespace),
                    field: "metadata.namespace".into(),
                });
            }
            return Err(status);
        }
        Ok(())
    }
}
