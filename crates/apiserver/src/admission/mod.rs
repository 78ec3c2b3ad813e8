//! Admission: what a write must pass after its sender is known and allowed. Plugins run in upstream's order; one
//! that changes objects runs before one that only judges them.

mod certificate_signers;
mod certificate_subject;
mod config;
mod default_class;
mod default_toleration_seconds;
mod event_rate_limit;
mod limit_ranger;
pub mod metrics;
mod namespace_lifecycle;
mod node_restriction;
mod optional;
mod owner_references;
mod parameters;
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
use std::time::Instant;

use apimachinery::{Object, Status, field};

pub use config::Options;
use metrics::{AdmissionMetrics, Step};
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
    pub const COUNT: usize = 4;

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

/// Runs a plugin that is on, and notes how long it took.
macro_rules! run {
    // one that has nothing to refuse
    ($admission:ident, $laps:ident, $plugin:ident, always $change:expr) => {
        run!($admission, $laps, $plugin, {
            $change;
            Ok(())
        })
    };
    ($admission:ident, $laps:ident, $plugin:ident, $outcome:expr) => {
        if $admission.plugins.has(Plugin::$plugin) {
            let outcome: Result<(), Status> = $outcome;
            $laps.ended(Plugin::$plugin, outcome.is_err());
            outcome?;
        }
    };
}

/// The chain. The plugins are few and known, so the chain is a list of calls.
pub struct Admission {
    plugins: Plugins,
    pub metrics: AdmissionMetrics,
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
        let metrics = AdmissionMetrics::default();
        Self {
            webhooks: webhook::Webhooks::new(
                options.mutating_credentials,
                options.validating_credentials,
                metrics.clone(),
            ),
            metrics,
            plugins: options.plugins,
            authorizer: OnceLock::new(),
            namespaces: Default::default(),
            pod_security: options.pod_security,
            pod_node_selector: options.pod_node_selector,
            pod_tolerations: options.pod_tolerations,
            event_rates: event_rate_limit::EventRateLimit::new(&options.event_limits),
            quotas: resource_quota::ResourceQuotas::new(options.limited_resources),
        }
    }

    /// Who decides what users may do, once the server runs.
    pub fn authorizer(&self) -> Option<&dyn Authorizer> {
        self.authorizer.get().map(AsRef::as_ref)
    }

    /// Gives those that ask about rights somebody to ask.
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
        let begun = Instant::now();
        let outcome = self.admit_by_all(registry, ctx, attributes).await;
        self.metrics.step(Step::Admit, attributes.operation, outcome.is_err(), begun.elapsed());
        outcome
    }

    async fn admit_by_all(
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
        let mut laps = self.metrics.laps(Step::Admit, attributes.operation);
        run!(self, laps, NamespaceLifecycle, self.namespaces.check(registry, attributes).await);
        run!(self, laps, LimitRanger, limit_ranger::admit(registry, attributes));
        run!(self, laps, ServiceAccount, service_account::admit(registry, attributes).await);
        run!(
            self,
            laps,
            NodeRestriction,
            node_restriction::check(registry, self.authorizer(), ctx, attributes).await
        );
        run!(self, laps, TaintNodesByCondition, always taint_nodes_by_condition::admit(attributes));
        run!(self, laps, AlwaysPullImages, always optional::always_pull_images(attributes));
        run!(self, laps, PodNodeSelector, self.pod_node_selector.admit(registry, attributes));
        run!(self, laps, Priority, priority::admit(registry, attributes));
        run!(self, laps, DefaultTolerationSeconds, always default_toleration_seconds::admit(attributes));
        run!(self, laps, PodTolerationRestriction, self.pod_tolerations.admit(registry, attributes));
        run!(self, laps, ExtendedResourceToleration, always optional::extended_resource_toleration(attributes));
        run!(self, laps, DefaultStorageClass, always default_class::storage(registry, attributes));
        run!(self, laps, StorageObjectInUseProtection, always storage_objects::protect(attributes));
        run!(self, laps, RuntimeClass, runtime_class::admit(registry, attributes).await);
        run!(self, laps, DefaultIngressClass, always default_class::ingress(registry, attributes));
        run!(self, laps, PodTopologyLabels, always pod_topology_labels::admit(registry, attributes));
        Ok(())
    }

    /// Judges the object as it would be stored.
    pub async fn validate(
        &self,
        registry: &Registry,
        ctx: &Context,
        attributes: &Attributes<'_>,
    ) -> Result<(), Status> {
        let begun = Instant::now();
        let outcome = self.validate_by_all(registry, ctx, attributes).await;
        self.metrics.step(Step::Validate, attributes.operation, outcome.is_err(), begun.elapsed());
        outcome
    }

    async fn validate_by_all(
        &self,
        registry: &Registry,
        ctx: &Context,
        attributes: &Attributes<'_>,
    ) -> Result<(), Status> {
        let on = |plugin| self.plugins.has(plugin);
        let mut laps = self.metrics.laps(Step::Validate, attributes.operation);
        if attributes.operation == Operation::Delete {
            run!(self, laps, NamespaceLifecycle, self.namespaces.check(registry, attributes).await);
            run!(
                self,
                laps,
                NodeRestriction,
                node_restriction::check(registry, self.authorizer(), ctx, attributes).await
            );
        }
        run!(self, laps, LimitPodHardAntiAffinityTopology, optional::limit_anti_affinity(attributes));
        run!(self, laps, LimitRanger, limit_ranger::validate(registry, attributes));
        run!(self, laps, ServiceAccount, service_account::validate(registry, attributes));
        run!(self, laps, AlwaysPullImages, optional::validate_pull_images(attributes));
        run!(self, laps, PodSecurity, self.pod_security.validate(registry, ctx, attributes));
        run!(self, laps, PodNodeSelector, self.pod_node_selector.validate(registry, attributes));
        run!(self, laps, Priority, priority::validate(registry, attributes));
        run!(self, laps, PodTolerationRestriction, self.pod_tolerations.validate(registry, attributes));
        run!(self, laps, EventRateLimit, self.event_rates.validate(&ctx.user, attributes));
        if let Some(authorizer) = self.authorizer.get() {
            run!(
                self,
                laps,
                OwnerReferencesPermissionEnforcement,
                owner_references::validate(authorizer.as_ref(), registry, ctx, attributes).await
            );
        }
        run!(self, laps, PersistentVolumeClaimResize, storage_objects::resize(registry, attributes));
        run!(self, laps, RuntimeClass, runtime_class::validate(registry, attributes).await);
        if let Some(authorizer) = self.authorizer.get() {
            certificate_signers::validate(authorizer.as_ref(), ctx, attributes, on).await?;
        }
        run!(self, laps, CertificateSubjectRestriction, certificate_subject::validate(attributes));
        run!(self, laps, DenyServiceExternalIPs, optional::deny_external_ips(attributes));
        run!(self, laps, ValidatingAdmissionWebhook, self.webhooks.validate(registry, ctx, attributes).await);
        Ok(())
    }

    /// What a valid object of a policy or a binding refers to that its writer may not read.
    pub async fn unreadable_parameters(
        &self,
        registry: &Registry,
        ctx: &Context,
        kind: &Kind,
        new: &Object,
        old: Option<&Object>,
    ) -> Option<field::Error> {
        parameters::unreadable(self.authorizer.get()?.as_ref(), registry, ctx, kind, new, old).await
    }

    /// Charges quotas for what everybody else has let pass; last of all.
    pub async fn charge(
        &self,
        registry: &Registry,
        attributes: &Attributes<'_>,
    ) -> Result<resource_quota::Charge, Status> {
        if !self.plugins.has(Plugin::ResourceQuota) {
            return Ok(Default::default());
        }
        let mut laps = self.metrics.laps(Step::Validate, attributes.operation);
        let outcome = self.quotas.charge(registry, attributes).await;
        laps.ended(Plugin::ResourceQuota, outcome.is_err());
        outcome
    }

    /// Takes a charge back whose write did not happen.
    pub async fn release(&self, registry: &Registry, charge: resource_quota::Charge) {
        self.quotas.release(registry, charge).await;
    }
}
