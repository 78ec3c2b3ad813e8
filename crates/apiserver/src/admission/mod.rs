//! Admission: what a write must pass after its sender is known and allowed. Plugins run in upstream's order; one
//! that changes objects runs before one that only judges them.

mod certificate_signers;
mod certificate_subject;
mod config;
mod default_class;
mod default_toleration_seconds;
mod event_rate_limit;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod optional;
mod owner_references;
mod plugins;
mod pod_node_selector;
mod pod_security;
mod pod_toleration_restriction;
mod pod_topology_labels;
mod priority;
mod resource_quota;
mod runtime_class;
mod service_account;
mod storage_objects;
mod taint_nodes_by_condition;
#[cfg(test)]
mod tests;
mod tolerations;
mod webhook;

use std::sync::{Arc, OnceLock};

use apimachinery::{Object, Status};

pub use config::Options;
use plugins::{Plugin, Plugins};

use crate::authorization::Authorizer;
use crate::context::Context;
use crate::kinds::Kind;
use crate::registry::Registry;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// A stream to what an object stands for, or a request that is passed on to it.
    Connect,
}

impl Operation {
    /// As webhooks and policies name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
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
pub struct Admission {
    plugins: Plugins,
    /// Who may sign for whom; set once, by the server that owns the registry.
    authorizer: OnceLock<Arc<dyn Authorizer>>,
    namespaces: namespace_lifecycle::NamespaceLifecycle,
    pod_security: pod_security::PodSecurity,
    pod_node_selector: pod_node_selector::PodNodeSelector,
    pod_tolerations: pod_toleration_restriction::PodTolerationRestriction,
    event_rates: event_rate_limit::EventRateLimit,
    quotas: resource_quota::ResourceQuotas,
    webhooks: webhook::Webhooks,
}

impl Admission {
    pub fn new(options: Options) -> Self {
        Self {
            plugins: options.plugins,
            authorizer: OnceLock::new(),
            namespaces: Default::default(),
            pod_security: options.pod_security,
            pod_node_selector: options.pod_node_selector,
            pod_tolerations: options.pod_tolerations,
            event_rates: event_rate_limit::EventRateLimit::new(&options.event_limits),
            quotas: resource_quota::ResourceQuotas::new(options.limited_resources),
            webhooks: webhook::Webhooks::new(options.mutating_credentials, options.validating_credentials),
        }
    }

    /// Gives the plugins that ask about rights somebody to ask.
    pub fn set_authorizer(&self, authorizer: Arc<dyn Authorizer>) {
        // a second one changes nothing: rights are asked about in one place
        let _ = self.authorizer.set(authorizer);
    }

    /// Lets plugins and webhooks change the object. When a webhook did, the others get to see what it did, once.
    pub async fn admit(
        &self,
        registry: &Registry,
        ctx: &Context,
        attributes: &mut Attributes<'_>,
    ) -> Result<(), Status> {
        let mut round = webhook::Reinvocation::default();
        self.admit_by_plugins(registry, ctx, attributes).await?;
        if !self.plugins.has(Plugin::MutatingAdmissionWebhook) {
            return Ok(());
        }
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
        if !self.plugins.has(Plugin::MutatingAdmissionWebhook) {
            return Ok(());
        }
        self.webhooks.admit(registry, ctx, attributes, &mut webhook::Reinvocation::default()).await
    }

    /// Judges a connection, in which only webhooks have a say; the object is what the client asks for.
    pub async fn connect(
        &self,
        registry: &Registry,
        ctx: &Context,
        attributes: &mut Attributes<'_>,
    ) -> Result<(), Status> {
        if self.plugins.has(Plugin::MutatingAdmissionWebhook) {
            self.webhooks.admit(registry, ctx, attributes, &mut webhook::Reinvocation::default()).await?;
        }
        if self.plugins.has(Plugin::ValidatingAdmissionWebhook) {
            self.webhooks.validate(registry, ctx, attributes).await?;
        }
        Ok(())
    }

    /// Lets plugins change the object, in upstream's order.
    async fn admit_by_plugins(
        &self,
        registry: &Registry,
        ctx: &Context,
        attributes: &mut Attributes<'_>,
    ) -> Result<(), Status> {
        let on = |plugin| self.plugins.has(plugin);
        if on(Plugin::NamespaceLifecycle) {
            self.namespaces.check(registry, attributes).await?;
        }
        if on(Plugin::LimitRanger) {
            limit_ranger::admit(registry, attributes)?;
        }
        if on(Plugin::ServiceAccount) {
            service_account::admit(registry, attributes).await?;
        }
        if on(Plugin::NodeRestriction) {
            node_restriction::check(registry, ctx, attributes)?;
        }
        if on(Plugin::TaintNodesByCondition) {
            taint_nodes_by_condition::admit(attributes);
        }
        if on(Plugin::AlwaysPullImages) {
            optional::always_pull_images(attributes);
        }
        if on(Plugin::PodNodeSelector) {
            self.pod_node_selector.admit(registry, attributes)?;
        }
        if on(Plugin::Priority) {
            priority::admit(registry, attributes)?;
        }
        if on(Plugin::DefaultTolerationSeconds) {
            default_toleration_seconds::admit(attributes);
        }
        if on(Plugin::PodTolerationRestriction) {
            self.pod_tolerations.admit(registry, attributes)?;
        }
        if on(Plugin::ExtendedResourceToleration) {
            optional::extended_resource_toleration(attributes);
        }
        if on(Plugin::DefaultStorageClass) {
            default_class::storage(registry, attributes);
        }
        if on(Plugin::StorageObjectInUseProtection) {
            storage_objects::protect(attributes);
        }
        if on(Plugin::RuntimeClass) {
            runtime_class::admit(registry, attributes).await?;
        }
        if on(Plugin::DefaultIngressClass) {
            default_class::ingress(registry, attributes);
        }
        if on(Plugin::PodTopologyLabels) {
            pod_topology_labels::admit(registry, attributes);
        }
        Ok(())
    }

    /// Judges the object as it would be stored.
    pub async fn validate(
        &self,
        registry: &Registry,
        ctx: &Context,
        attributes: &Attributes<'_>,
    ) -> Result<(), Status> {
        let on = |plugin| self.plugins.has(plugin);
        if attributes.operation == Operation::Delete {
            if on(Plugin::NamespaceLifecycle) {
                self.namespaces.check(registry, attributes).await?;
            }
            if on(Plugin::NodeRestriction) {
                node_restriction::check(registry, ctx, attributes)?;
            }
        }
        if on(Plugin::LimitPodHardAntiAffinityTopology) {
            optional::limit_anti_affinity(attributes)?;
        }
        if on(Plugin::LimitRanger) {
            limit_ranger::validate(registry, attributes)?;
        }
        if on(Plugin::ServiceAccount) {
            service_account::validate(registry, attributes)?;
        }
        if on(Plugin::AlwaysPullImages) {
            optional::validate_pull_images(attributes)?;
        }
        if on(Plugin::PodSecurity) {
            self.pod_security.validate(registry, ctx, attributes)?;
        }
        if on(Plugin::PodNodeSelector) {
            self.pod_node_selector.validate(registry, attributes)?;
        }
        if on(Plugin::Priority) {
            priority::validate(registry, attributes)?;
        }
        if on(Plugin::PodTolerationRestriction) {
            self.pod_tolerations.validate(registry, attributes)?;
        }
        if on(Plugin::EventRateLimit) {
            self.event_rates.validate(&ctx.user, attributes)?;
        }
        if let Some(authorizer) =
            self.authorizer.get().filter(|_| on(Plugin::OwnerReferencesPermissionEnforcement))
        {
            owner_references::validate(authorizer.as_ref(), registry, ctx, attributes).await?;
        }
        if on(Plugin::PersistentVolumeClaimResize) {
            storage_objects::resize(registry, attributes)?;
        }
        if on(Plugin::RuntimeClass) {
            runtime_class::validate(registry, attributes).await?;
        }
        if let Some(authorizer) = self.authorizer.get() {
            certificate_signers::validate(authorizer.as_ref(), ctx, attributes, on).await?;
        }
        if on(Plugin::CertificateSubjectRestriction) {
            certificate_subject::validate(attributes)?;
        }
        if on(Plugin::DenyServiceExternalIPs) {
            optional::deny_external_ips(attributes)?;
        }
        if on(Plugin::ValidatingAdmissionWebhook) {
            self.webhooks.validate(registry, ctx, attributes).await?;
        }
        Ok(())
    }

    /// Charges quotas for what everybody else has let pass; last of all.
    pub async fn charge(
        &self,
        registry: &Registry,
        attributes: &Attributes<'_>,
    ) -> Result<resource_quota::Charge, Status> {
        match self.plugins.has(Plugin::ResourceQuota) {
            true => self.quotas.charge(registry, attributes).await,
            false => Ok(Default::default()),
        }
    }

    /// Takes a charge back whose write did not happen.
    pub async fn release(&self, registry: &Registry, charge: resource_quota::Charge) {
        self.quotas.release(registry, charge).await;
    }
}
