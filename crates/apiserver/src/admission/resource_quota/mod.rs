//! ResourceQuota: what a namespace may hold. Usage is charged by compare-and-swap on the quotas' statuses before
//! the object is written, so that no number of writers and servers goes beyond a limit together.

mod charging;

use std::collections::BTreeSet;

use apimachinery::{Object, Reason, Status};
use component_helpers::quota::{self, Counted, Scopes};
use component_helpers::resource::ResourceList;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota, ScopedResourceSelectorRequirement};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;

pub use charging::Charge;
use charging::Turns;

use super::{Attributes, Operation};
use crate::registry::Registry;

pub struct ResourceQuotas {
    turns: Turns,
    limited: Vec<LimitedResource>,
}

/// A resource that nobody may use unless a quota says how much.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct LimitedResource {
    api_group: String,
    resource: String,
    /// Parts of the names, as quotas have them, of what is limited.
    match_contains: Vec<String>,
    match_scopes: Vec<ScopedResourceSelectorRequirement>,
}

impl LimitedResource {
    pub fn is_nameless(&self) -> bool {
        self.resource.is_empty()
    }

    fn is_about(&self, counted: Counted<'_>) -> bool {
        self.api_group == counted.group && self.resource == counted.plural
    }
}

/// A write as quotas see it.
struct Request {
    counted: Counted<'static>,
    create: bool,
    usage: ResourceList,
    /// What the object used before, and where it counted.
    old: Option<(ResourceList, Scopes)>,
    scopes: Scopes,
    pod: Option<Pod>,
    /// What a status reports has happened already: it is charged, whatever the limit.
    refusable: bool,
}

impl ResourceQuotas {
    /// Quotas, and what may not be used without one.
    pub fn new(limited: Vec<LimitedResource>) -> Self {
        Self { turns: Turns::default(), limited }
    }

    /// Charges a write to every quota that it counts for. A dry run is checked only.
    pub async fn charge(&self, registry: &Registry, attributes: &Attributes<'_>) -> Result<Charge, Status> {
        let namespace = &attributes.namespace;
        let none = self.limited.is_empty() && !has_quotas(registry, namespace);
        if none || !is_counted(attributes) {
            return Ok(Charge::default());
        }
        let request = Request::of(attributes)?;
        let charged =
            self.turns.charge(registry, namespace, request, attributes.dry_run, &self.limited).await?;
        charged.map_err(|refusal| match refusal {
            Refusal::Forbidden(why) => attributes.forbidden(why),
            Refusal::Failed(why) => Status::new(500, Reason::Unknown, why),
        })
    }

    /// Takes back what a write was charged that did not happen.
    pub async fn release(&self, registry: &Registry, charge: Charge) {
        self.turns.release(registry, charge).await;
    }
}

/// Whether a namespace has any quota.
fn has_quotas(registry: &Registry, namespace: &str) -> bool {
    let kind = registry.core("resourcequotas");
    registry
        .cache
        .resource(kind)
        .is_some_and(|cache| cache.snapshot().range(&kind.key(namespace, ""), None).next().is_some())
}

/// The quotas of a namespace, typed and as trees, as far as they can be read.
fn quotas(registry: &Registry, namespace: &str) -> Result<Vec<(ResourceQuota, Object)>, Status> {
    let kind = registry.core("resourcequotas");
    let Some(cache) = registry.cache.resource(kind) else { return Ok(Vec::new()) };
    let (snapshot, prefix) = (cache.snapshot(), kind.key(namespace, ""));
    snapshot
        .range(&prefix, None)
        .map(|entry| {
            let object = entry.object().map_err(Status::internal)?;
            Ok((typed(&object)?, object))
        })
        .collect()
}

fn typed<T: DeserializeOwned>(object: &Object) -> Result<T, Status> {
    T::deserialize(object.as_value()).map_err(Status::internal)
}

/// Whether a write can change what any quota counts.
fn is_counted(attributes: &Attributes<'_>) -> bool {
    let resource = attributes.kind.resource;
    let counted = Counted { group: resource.group, plural: resource.plural };
    if !resource.namespaced || attributes.namespace.is_empty() || counted.is_ignored() {
        return false;
    }
    match (attributes.operation, attributes.subresource) {
        (Operation::Create, "") => true,
        (Operation::Update, "") => {
            attributes.is("services", "") || attributes.is("persistentvolumeclaims", "")
        }
        (Operation::Update, "resize") => attributes.is("pods", "resize"),
        (Operation::Update, "status") => attributes.is("persistentvolumeclaims", "status"),
        _ => false,
    }
}

impl Request {
    /// Whether anything is used that was not used before.
    fn asks_for_more(&self) -> bool {
        let before = self.old.as_ref().filter(|_| !self.create).map(|(usage, _)| usage);
        self.usage.iter().any(|(name, amount)| {
            let more = amount - before.and_then(|before| before.get(name)).unwrap_or_default();
            !more.is_negative() && !more.is_zero()
        })
    }

    fn of(attributes: &Attributes<'_>) -> Result<Self, Status> {
        let resource = attributes.kind.resource;
        let counted = Counted { group: resource.group, plural: resource.plural };
        let now = Timestamp::now();
        let object = attributes.object.clone().unwrap_or_default();
        let (usage, scopes) = measure(counted, &object, now)?;
        let old = match &attributes.old {
            Some(old) if attributes.operation == Operation::Update => Some(measure(counted, old, now)?),
            _ => None,
        };
        Ok(Self {
            counted,
            create: attributes.operation == Operation::Create,
            usage,
            old,
            scopes,
            pod: if attributes.is("pods", attributes.subresource) { Some(typed(&object)?) } else { None },
            refusable: attributes.subresource != "status",
        })
    }
}

fn measure(counted: Counted<'_>, object: &Object, now: Timestamp) -> Result<(ResourceList, Scopes), Status> {
    Ok(match (counted.group, counted.plural) {
        ("", "pods") => {
            let pod = typed(object)?;
            (quota::pod_usage(&pod, now), Scopes::of_pod(&pod))
        }
        ("", "services") => (quota::service_usage(&typed(object)?), Scopes::default()),
        ("", "persistentvolumeclaims") => {
            let claim = typed(object)?;
            (quota::claim_usage(&claim), Scopes::of_claim(&claim))
        }
        ("resource.k8s.io", "resourceclaims") => {
            (quota::resource_claim_usage(&typed(object)?), Scopes::default())
        }
        _ => (quota::object_usage(counted), Scopes::default()),
    })
}

/// Why a write does not fit; upstream answers some of it as a failure of its own.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    Forbidden(String),
    Failed(String),
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self::Forbidden(why)
    }
}

/// What each quota is to be charged, by its place in the list; or why the write does not fit.
fn check<'q>(
    quotas: impl Iterator<Item = &'q ResourceQuota> + Clone,
    request: &Request,
    limited: &[LimitedResource],
) -> Result<Vec<(usize, ResourceList)>, Refusal> {
    let mut concerned = Vec::new();
    let mut covered: BTreeSet<String> = BTreeSet::new();
    for (index, one) in quotas.clone().enumerate() {
        let (name, hard) = (one.metadata.name.as_deref().unwrap_or_default(), quota::status_hard(one));
        let limited: Vec<&str> = hard.names().filter(|name| request.counted.answers_to(name)).collect();
        if limited.is_empty() || !quota::matches_scopes(one, &request.scopes) {
            continue;
        }
        if let Some(why) = request.pod.as_ref().and_then(|pod| quota::unmet_constraints(pod, &limited)) {
            return Err(format!("failed quota: {name}: {why}").into());
        }
        let used = quota::status_used(one);
        if limited.iter().any(|name| used.get(name).is_none()) {
            return Err(format!("status unknown for quota: {name}, resources: {}", limited.join(",")).into());
        }
        covered.extend(limited.iter().map(|name| (*name).to_owned()));
        concerned.push((index, one, hard, used));
    }
    let negative = request.usage.iter().filter(|(_, amount)| amount.is_negative());
    let negative: Vec<&str> = negative.map(|(name, _)| name).collect();
    if !negative.is_empty() {
        return Err(format!("quota usage is negative for resource(s): {}", negative.join(",")).into());
    }
    confirm_covered(quotas, request, limited, &covered)?;
    let mut due = Vec::new();
    for (index, one, hard, used) in concerned {
        let before = match &request.old {
            Some((usage, scopes)) if !request.create && quota::matches_scopes(one, scopes) => usage.clone(),
            _ => ResourceList::default(),
        };
        let mut asked = ResourceList::default();
        for (name, amount) in request.usage.iter().filter(|(name, _)| hard.get(name).is_some()) {
            let more = amount - before.get(name).unwrap_or_default();
            if !more.is_negative() && !more.is_zero() {
                asked.set(name, more);
            }
        }
        let over = |name: &str| {
            let total = used.get(name).unwrap_or_default() + asked.get(name).unwrap_or_default();
            hard.get(name).is_some_and(|limit| total > limit)
        };
        let exceeded: BTreeSet<&str> = asked.names().filter(|name| over(name)).collect();
        if request.refusable && !exceeded.is_empty() {
            let part = |list: &ResourceList| shown(&list.only(|name| exceeded.contains(name)));
            return Err(format!(
                "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                one.metadata.name.as_deref().unwrap_or_default(),
                part(&asked),
                part(&used),
                part(&hard)
            )
            .into());
        }
        if !asked.is_empty() {
            due.push((index, asked));
        }
    }
    Ok(due)
}

/// What may only be used where a quota limits it is limited by one.
fn confirm_covered<'q>(
    quotas: impl Iterator<Item = &'q ResourceQuota>,
    request: &Request,
    limited: &[LimitedResource],
    covered: &BTreeSet<String>,
) -> Result<(), Refusal> {
    if limited.is_empty() || !request.asks_for_more() {
        return Ok(());
    }
    let is_limited = |name: &str| {
        let about = limited.iter().filter(|limited| limited.is_about(request.counted));
        about
            .into_iter()
            .any(|limited| limited.match_contains.iter().any(|part| name.contains(part.as_str())))
    };
    let used = request.usage.iter().filter(|(_, amount)| !amount.is_zero());
    let uncovered: Vec<&str> =
        used.map(|(name, _)| name).filter(|name| is_limited(name) && !covered.contains(*name)).collect();
    if !uncovered.is_empty() {
        return Err(format!("insufficient quota to consume: {}", uncovered.join(",")).into());
    }
    let lies_in = |scope: &&ScopedResourceSelectorRequirement| request.scopes.lies_in(scope);
    let asked: Vec<&ScopedResourceSelectorRequirement> =
        limited.iter().flat_map(|limited| &limited.match_scopes).filter(lies_in).collect();
    if asked.is_empty() {
        return Ok(());
    }
    let of_quotas: BTreeSet<String> = quotas
        .flat_map(quota::scope_requirements)
        .filter(|scope| request.scopes.lies_in(scope))
        .map(|scope| scope.scope_name)
        .collect();
    let shown: Vec<String> = asked
        .into_iter()
        .filter(|scope| !of_quotas.contains(&scope.scope_name))
        .map(|scope| {
            let values = scope.values.as_deref().unwrap_or_default().join(" ");
            format!("{{{} {} [{values}]}}", scope.scope_name, scope.operator)
        })
        .collect();
    match shown.is_empty() {
        true => Ok(()),
        false => {
            Err(Refusal::Failed(format!("insufficient quota to match these scopes: [{}]", shown.join(" "))))
        }
    }
}

fn shown(list: &ResourceList) -> String {
    list.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
