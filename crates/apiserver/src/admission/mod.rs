//! Admission: what a write must pass after its sender is known and allowed. Plugins run in upstream's order; one
//! that changes objects runs before one that only judges them.

mod default_toleration_seconds;
mod namespace_lifecycle;
mod node_restriction;
mod priority;
mod service_account;
mod taint_nodes_by_condition;
mod webhook;

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

impl Operation {
    /// As webhooks and policies name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
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
    webhooks: webhook::Webhooks,
}

impl Admission {
    /// Lets plugins and webhooks change the object. When a webhook did, the others get to see what it did, once.
    pub async fn admit(
        &self,
        registry: &Registry,
        ctx: &Context,
        attributes: &mut Attributes<'_>,
    ) -> Result<(), Status> {
        let mut round = webhook::Reinvocation::default();
        self.admit_by_plugins(registry, ctx, attributes).await?;
        self.webhooks.admit(registry, ctx, attributes, &mut round).await?;
        if round.begin_second() {
            self.admit_by_plugins(registry, ctx, attributes).await?;
            self.webhooks.admit(registry, ctx, attributes, &mut round).await?;
        }
        Ok(())
    }

    /// Lets a delete pass the webhooks that could change an object, of which there is none to change.
    pub async fn admit_delete(
        &self,
        registry: &Registry,
        ctx: &Context,
        attributes: &mut Attributes<'_>,
    ) -> Result<(), Status> {
        self.webhooks.admit(registry, ctx, attributes, &mut webhook::Reinvocation::default()).await
    }

    /// Lets plugins change the object, in upstream's order.
    async fn admit_by_plugins(
        &self,
        registry: &Registry,
        ctx: &Context,
        attributes: &mut Attributes<'_>,
    ) -> Result<(), Status> {
        self.namespaces.check(registry, attributes).await?;
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
        service_account::validate(registry, attributes)?;
        priority::validate(registry, attributes)?;
        self.webhooks.validate(registry, ctx, attributes).await
    }
}
