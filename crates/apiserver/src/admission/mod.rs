//! Admission: what a write must pass after its sender is known and allowed. Plugins run in upstream's order; one
//! that changes objects runs before one that only judges them.

mod default_toleration_seconds;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod pod_security;
mod priority;
mod resource_quota;
mod service_account;
mod taint_nodes_by_condition;

use apimachinery::{Object, Status};

use crate::context::Context;
use crate::kinds::Kind;
use crate::registry::Registry;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
}

/// The write under judgement.
pub struct Attributes<'a> {
    pub operation: Operation,
    pub kind: &'a Kind,
    pub subresource: &'a str,
    pub namespace: String,
    pub name: String,
    /// Absent for a delete.
    pub object: Option<Object>,
    /// Absent for a create.
    pub old: Option<Object>,
    pub dry_run: bool,
}

impl Attributes<'_> {
    /// Whether the write is about a resource of the core group, or one of its subresources.
    pub fn is(&self, plural: &str, subresource: &str) -> bool {
        self.is_in("", plural, subresource)
    }

    pub fn is_in(&self, group: &str, plural: &str, subresource: &str) -> bool {
        let resource = self.kind.resource;
        resource.group == group && resource.plural == plural && self.subresource == subresource
    }

    /// The refusal of a plugin.
    pub fn forbidden(&self, why: impl std::fmt::Display) -> Status {
        let name = match (self.name.is_empty(), &self.object) {
            (true, Some(object)) => object.generate_name(),
            _ => &self.name,
        };
        Status::forbidden(
            &self.kind.resource.group_resource(),
            if name.is_empty() { "Unknown" } else { name },
            why,
        )
    }
}

/// The chain. The plugins are few and known, so the chain is a list of calls.
#[derive(Default)]
pub struct Admission {
    namespaces: namespace_lifecycle::NamespaceLifecycle,
    pod_security: pod_security::PodSecurity,
    /// Last of all: it charges what everybody else has let pass.
    pub quotas: resource_quota::ResourceQuotas,
}

impl Admission {
    /// Lets plugins change the object, in upstream's order.
    pub async fn admit(
        &self,
        registry: &Registry,
        ctx: &Context,
        attributes: &mut Attributes<'_>,
    ) -> Result<(), Status> {
        self.namespaces.check(registry, attributes).await?;
        limit_ranger::admit(registry, attributes)?;
        service_account::admit(registry, attributes).await?;
        node_restriction::check(registry, ctx, attributes)?;
        taint_nodes_by_condition::admit(attributes);
        priority::admit(registry, attributes)?;
        default_toleration_seconds::admit(attributes);
        Ok(())
    }

    /// Judges the object as it would be stored.
    pub async fn validate(
        &self,
        registry: &Registry,
        ctx: &Context,
        attributes: &Attributes<'_>,
    ) -> Result<(), Status> {
        if attributes.operation == Operation::Delete {
            self.namespaces.check(registry, attributes).await?;
            node_restriction::check(registry, ctx, attributes)?;
        }
        limit_ranger::validate(registry, attributes)?;
        service_account::validate(registry, attributes)?;
        self.pod_security.validate(registry, ctx, attributes)?;
        priority::validate(registry, attributes)
    }
}
