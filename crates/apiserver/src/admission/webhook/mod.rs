//! MutatingAdmissionWebhook and ValidatingAdmissionWebhook: others asked over HTTPS what they think of a write.
//!
//! [`hooks`] are read from configurations, [`matching`] says which are asked, [`review`] is what is said, [`client`]
//! says it.

mod client;
mod credentials;
mod hooks;
mod matching;
mod review;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apimachinery::schema::Schema;
use apimachinery::{GroupVersionKind, Object, Status, codec, patch};
use futures::future::join_all;
use serde_json::json;

use super::metrics::{AdmissionMetrics, Rejection, Step};
use super::{Attributes, Operation};
use crate::context::Context;
use crate::kinds::Kind;
use crate::registry::Registry;
use client::{Client, Unanswered};
pub use credentials::Credentials;
use hooks::{Hook, Hooks, Sort};
use matching::Write;

/// Configurations of admission itself, which no webhook may judge: it could lock everybody out.
const EXEMPT: [&str; 6] = [
    "ValidatingWebhookConfiguration",
    "MutatingWebhookConfiguration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
];

pub struct Webhooks {
    metrics: AdmissionMetrics,
    mutating: Hooks,
    validating: Hooks,
    /// The ways to those that change objects, and to those that judge them: they may be shown different credentials.
    mutating_client: Client,
    validating_client: Client,
}

/// What is asked again after somebody changed the object, which happens once.
#[derive(Default)]
pub struct Reinvocation {
    is_second: bool,
    needed: bool,
    asked: HashSet<String>,
    again: HashSet<String>,
    last: Option<Object>,
}

impl Reinvocation {
    /// Begins the second round, if there is to be one.
    pub fn begin_second(&mut self) -> bool {
        self.is_second = self.needed;
        self.needed
    }

    fn something_changed(&mut self) {
        self.again.extend(self.asked.drain());
    }
}

/// Why a webhook's word is a no.
enum Failure {
    /// It could not be asked, or did not answer well; its policy says what that means.
    Call(Unanswered),
    /// What it asks for cannot be.
    Internal(Status),
    Denied(Status),
}

impl Failure {
    fn call(code: u16, why: impl Into<String>) -> Self {
        Self::Call(Unanswered { code, why: why.into() })
    }
}

/// A webhook that is to be asked, with the form in which it wants to see the object.
struct Invocation<'a> {
    hook: &'a Hook,
    kind: Arc<Kind>,
}

impl Webhooks {
    pub fn new(mutating: Credentials, validating: Credentials, metrics: AdmissionMetrics) -> Self {
        Self {
            metrics,
            mutating: Hooks::default(),
            validating: Hooks::default(),
            mutating_client: Client::new(mutating),
            validating_client: Client::new(validating),
        }
    }

    /// Lets mutating webhooks change the object, one after the other.
    pub async fn admit(
        &self,
        registry: &Registry,
        ctx: &Context,
        attributes: &mut Attributes<'_>,
        round: &mut Reinvocation,
    ) -> Result<(), Status> {
        if is_exempt(attributes) {
            return Ok(());
        }
        let hooks = self.mutating.get(registry, Sort::Mutating);
        if hooks.is_empty() {
            return Ok(());
        }
        if round.is_second && round.last != attributes.object {
            round.something_changed();
        }
        for (index, hook) in hooks.iter().enumerate() {
            let Some(invocation) = invocation(registry, hook, attributes)? else { continue };
            if round.is_second && !round.again.contains(&hook.uid) {
                continue;
            }
            let begun = Instant::now();
            let changed = self.ask_to_change(registry, ctx, attributes, &invocation).await;
            self.observe(Step::Admit, attributes.operation, hook, changed.as_ref().err(), begun.elapsed());
            let place = format!("round_{}_index_{index}", u8::from(round.is_second));
            let mutated = matches!(changed, Ok(Some((true, _))));
            let note = json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": mutated});
            ctx.annotate(&format!("mutation.webhook.admission.k8s.io/{place}"), &note.to_string());
            if let Ok(Some((changed, patch))) = &changed {
                if let Some(trail) = ctx.audit.as_ref().filter(|trail| trail.wants_request_object()) {
                    let note = json!({
                        "configuration": hook.configuration, "webhook": hook.name, "patch": patch,
                        "patchType": "JSONPatch",
                    });
                    trail.annotate(&format!("patch.webhook.admission.k8s.io/{place}"), &note.to_string());
                }
                if *changed {
                    round.something_changed();
                    round.needed = true;
                }
            }
            if hook.reinvocable {
                round.asked.insert(hook.uid.clone());
            }
            if let Err(failure) = changed {
                self.note_fail_open(Step::Admit, hook, &failure);
                judge(ctx, hook, failure, &format!("failed-open.mutation.webhook.admission.k8s.io/{place}"))?;
            }
        }
        round.last.clone_from(&attributes.object);
        Ok(())
    }

    /// Has all validating webhooks judge the object, at once.
    pub async fn validate(
        &self,
        registry: &Registry,
        ctx: &Context,
        attributes: &Attributes<'_>,
    ) -> Result<(), Status> {
        if is_exempt(attributes) {
            return Ok(());
        }
        let hooks = self.validating.get(registry, Sort::Validating);
        let mut invocations = Vec::new();
        for hook in hooks.iter() {
            invocations.extend(invocation(registry, hook, attributes)?);
        }
        let asked = invocations.iter().enumerate().map(|(index, invocation)| async move {
            let object =
                attributes.object.as_ref().map(|object| shown(attributes.kind, &invocation.kind, object));
            let begun = Instant::now();
            let answer =
                self.ask(registry, ctx, attributes, invocation, Sort::Validating, object.as_ref()).await;
            let failure = answer.as_ref().err();
            self.observe(Step::Validate, attributes.operation, invocation.hook, failure, begun.elapsed());
            let key = format!("failed-open.validating.webhook.admission.k8s.io/round_0_index_{index}");
            answer.map(drop).or_else(|failure| {
                self.note_fail_open(Step::Validate, invocation.hook, &failure);
                judge(ctx, invocation.hook, failure, &key)
            })
        });
        join_all(asked).await.into_iter().collect()
    }

    /// Counts how a webhook's answer ended.
    fn observe(
        &self,
        step: Step,
        operation: Operation,
        hook: &Hook,
        failure: Option<&Failure>,
        took: Duration,
    ) {
        let rejection = match failure {
            None => None,
            Some(Failure::Call(_)) if hook.ignores_failures => None,
            Some(Failure::Call(_)) => Some(Rejection::Calling),
            Some(Failure::Internal(_)) => Some(Rejection::Internal),
            Some(Failure::Denied(_)) => Some(Rejection::NoError),
        };
        let code = match failure {
            None => 200,
            Some(Failure::Call(unanswered)) => unanswered.code,
            Some(Failure::Internal(_)) => 0,
            Some(Failure::Denied(status)) => status.code,
        };
        if let Some(rejection) = rejection {
            self.metrics.rejection(&hook.name, step, operation, rejection, code);
        }
        self.metrics.webhook(&hook.name, step, operation, code, rejection.is_some(), took);
    }

    fn note_fail_open(&self, step: Step, hook: &Hook, failure: &Failure) {
        if hook.ignores_failures && matches!(failure, Failure::Call(_)) {
            self.metrics.failed_open(&hook.name, step);
        }
    }

    /// Whether the object became another, and by which patch; nothing where no patch came.
    async fn ask_to_change(
        &self,
        registry: &Registry,
        ctx: &Context,
        attributes: &mut Attributes<'_>,
        invocation: &Invocation<'_>,
    ) -> Result<Option<(bool, serde_json::Value)>, Failure> {
        let object =
            attributes.object.as_ref().map(|object| shown(attributes.kind, &invocation.kind, object));
        let name = &invocation.hook.name;
        let answer = self.ask(registry, ctx, attributes, invocation, Sort::Mutating, object.as_ref()).await?;
        if answer.patch.is_empty() {
            return Ok(None);
        }
        let operations: serde_json::Value = serde_json::from_slice(&answer.patch).map_err(|error| {
            Failure::call(503, format!("received undecodable patch in webhook response: {error}"))
        })?;
        if operations.as_array().is_some_and(Vec::is_empty) {
            return Ok(None);
        }
        let internal = |why: String| Failure::Internal(Status::internal(why));
        let Some(object) = object else {
            return Err(internal(format!(
                "admission webhook {name:?} attempted to modify the object, which is not supported for this operation"
            )));
        };
        if answer.patch_type != "JSONPatch" {
            return Err(Failure::call(503, format!("unsupported patch type {:?}", answer.patch_type)));
        }
        let mut value = object.as_value().clone();
        patch::json_patch(&mut value, &operations).map_err(|status| internal(status.message))?;
        let patched = decoded(&invocation.kind, attributes.subresource, &object, &value).map_err(internal)?;
        let changed = patched != object;
        let mut patched = shown(&invocation.kind, attributes.kind, &patched);
        attributes.kind.resource.strategy.default(&mut patched);
        attributes.object = Some(patched);
        Ok(Some((changed, operations)))
    }

    /// Asks, and takes note of what the answer says besides yes or no.
    async fn ask(
        &self,
        registry: &Registry,
        ctx: &Context,
        attributes: &Attributes<'_>,
        invocation: &Invocation<'_>,
        sort: Sort,
        object: Option<&Object>,
    ) -> Result<review::Response, Failure> {
        let Invocation { hook, kind } = invocation;
        if attributes.dry_run && hook.has_side_effects {
            let why = format!("admission webhook {:?} does not support dry run", hook.name);
            return Err(Failure::Internal(Status::bad_request(why)));
        }
        if !hook.speaks_v1 {
            let why = "could not create admission objects: webhook does not accept known AdmissionReview versions (v1)";
            return Err(Failure::call(400, why));
        }
        let target = hook.target.as_ref();
        let target = target.map_err(|why| Failure::call(500, format!("could not get REST client: {why}")))?;
        let uid = uuid::Uuid::new_v4().to_string();
        let old = attributes.old.as_ref().map(|old| shown(attributes.kind, kind, old));
        let request = review::request(ctx, attributes, kind, &uid, object, old.as_ref());
        let request = serde_json::to_vec(&request).map_err(|error| Failure::call(503, error.to_string()))?;
        let left = ctx.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.unwrap_or(Duration::MAX).min(hook.timeout);
        let client = match sort {
            Sort::Mutating => &self.mutating_client,
            Sort::Validating => &self.validating_client,
        };
        let answer = tokio::select! {
            answer = client.post(registry, target, request.into(), timeout) => answer.map_err(Failure::Call)?,
            () = ctx.left.cancelled() => return Err(Failure::call(503, "failed to call webhook: context canceled")),
        };
        let answer = review::response(&answer, &uid, sort).map_err(|why| Failure::call(503, why))?;
        for (key, value) in &answer.annotations {
            ctx.annotate(&format!("{}/{key}", hook.name), value);
        }
        for warning in &answer.warnings {
            ctx.warn(warning.as_str());
        }
        match answer.allowed {
            true => Ok(answer),
            false => Err(Failure::Denied(review::denial(&hook.name, &answer.result))),
        }
    }
}

/// What a failure means for the request.
fn judge(ctx: &Context, hook: &Hook, failure: Failure, failed_open: &str) -> Result<(), Status> {
    match failure {
        Failure::Denied(status) => Err(status),
        Failure::Internal(status) => {
            tracing::warn!(webhook = hook.name, why = status.message, "what a webhook asks for cannot be");
            Err(status)
        }
        Failure::Call(Unanswered { why, .. }) if hook.ignores_failures => {
            tracing::warn!(webhook = hook.name, %why, "a webhook could not be asked; its policy is to go on");
            ctx.annotate(failed_open, &hook.name);
            match ctx.left.is_cancelled() || ctx.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                true => Err(Status::timeout("request did not complete within requested timeout", 0)),
                false => Ok(()),
            }
        }
        Failure::Call(Unanswered { why, .. }) => {
            tracing::warn!(webhook = hook.name, %why, "a webhook could not be asked; the write is refused");
            Err(Status::internal(format!("failed calling webhook {:?}: {why}", hook.name)))
        }
    }
}

fn is_exempt(attributes: &Attributes<'_>) -> bool {
    let resource = attributes.kind.resource;
    resource.group == "admissionregistration.k8s.io" && EXEMPT.contains(&resource.kind)
}

/// Whether a webhook is to be asked, and in which form it wants to see the object.
fn invocation<'a>(
    registry: &Registry,
    hook: &'a Hook,
    attributes: &Attributes<'_>,
) -> Result<Option<Invocation<'a>>, Status> {
    // selectors that cannot be judged only matter to webhooks whose rules fit
    let in_namespace = matches_namespace(registry, hook, attributes);
    if matches!(in_namespace, Ok(false)) {
        return Ok(None);
    }
    let selected = match &hook.objects {
        Ok(selector) if selector.is_empty() => Ok(true),
        Ok(selector) => {
            let mut objects = attributes.object.iter().chain(&attributes.old);
            Ok(objects.any(|object| selector.matches_object(object)))
        }
        Err(why) => Err(Status::internal(why)),
    };
    if matches!(selected, Ok(false)) {
        return Ok(None);
    }
    let Some(kind) = form(registry, hook, attributes) else { return Ok(None) };
    in_namespace?;
    selected?;
    if hook.has_conditions {
        let why =
            format!("the matchConditions of webhook {:?} cannot be evaluated by this server", hook.name);
        if hook.ignores_failures {
            tracing::warn!(webhook = hook.name, "{why}; its policy is to go on without it");
            return Ok(None);
        }
        return Err(attributes.forbidden(why));
    }
    Ok(Some(Invocation { hook, kind }))
}

fn matches_namespace(registry: &Registry, hook: &Hook, attributes: &Attributes<'_>) -> Result<bool, Status> {
    let resource = attributes.kind.resource;
    let about_namespaces = (resource.group, resource.plural) == ("", "namespaces");
    let name = review::namespace(attributes);
    if name.is_empty() && !about_namespaces {
        return Ok(true);
    }
    let selector = hook.namespaces.as_ref().map_err(Status::internal)?;
    if selector.is_empty() {
        return Ok(true);
    }
    // a namespace that is being written is judged by what it is to become
    if about_namespaces && attributes.subresource.is_empty() && attributes.operation != Operation::Delete {
        return Ok(attributes.object.as_ref().is_some_and(|object| selector.matches_object(object)));
    }
    let kind = registry.core("namespaces");
    let namespace = registry.peek(kind, "", name);
    let namespace = namespace.ok_or_else(|| Status::not_found(&kind.resource.group_resource(), name))?;
    Ok(selector.matches_object(&namespace))
}

/// The form of the object that the first fitting rule names: its own, or an equivalent one.
fn form(registry: &Registry, hook: &Hook, attributes: &Attributes<'_>) -> Option<Arc<Kind>> {
    let fits = |rule: &matching::Rule, kind: &Kind| {
        let resource = kind.resource;
        rule.matches(&Write {
            operation: attributes.operation,
            group: resource.group,
            version: resource.version,
            resource: resource.plural,
            subresource: attributes.subresource,
            namespace: review::namespace(attributes),
        })
    };
    let own = attributes.kind.resource;
    let same = |kind: &Kind| {
        (kind.resource.group, kind.resource.version, kind.resource.plural)
            == (own.group, own.version, own.plural)
    };
    if hook.rules.iter().any(|rule| fits(rule, attributes.kind)) {
        return registry.kind(own.group, own.version, own.plural).cloned();
    }
    if !hook.matches_equivalent {
        return None;
    }
    let equivalent: Vec<&Arc<Kind>> = registry
        .kinds
        .all()
        .filter(|kind| kind.resource.access == api::Access::Stored)
        .filter(|kind| kind.resource.prefix == own.prefix && !same(kind))
        .collect();
    let fitting = |rule| equivalent.iter().find(|kind| fits(rule, kind));
    hook.rules.iter().find_map(fitting).map(|kind| (*kind).clone())
}

/// An object in another form of the same.
fn shown(from: &Kind, to: &Kind, object: &Object) -> Object {
    let mut object = object.clone();
    if from.resource.gvk() != to.resource.gvk() {
        from.convert_to_stored(&mut object);
        to.convert_from_stored(&mut object);
        object.set_type(&to.resource.gvk());
    }
    object
}

/// The object that a patch left, read anew: what the schema does not know goes.
fn decoded(
    kind: &Kind,
    subresource: &str,
    before: &Object,
    patched: &serde_json::Value,
) -> Result<Object, String> {
    let bytes = serde_json::to_vec(patched).map_err(|error| error.to_string())?;
    let own = kind.resource.gvk();
    let version = before.api_version();
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let gvk = match before.kind() {
        "" => own.clone(),
        kind => GroupVersionKind::new(group, version, kind),
    };
    let schema = match gvk == own || subresource.is_empty() {
        true => kind.schema.clone(),
        false => Schema::for_kind(&gvk).ok_or_else(|| format!("no schema of {gvk}"))?,
    };
    let mut object = codec::decode_json(&bytes, &schema).map_err(|error| error.to_string())?.object;
    object.set_type(&gvk);
    Ok(object)
}
