//! Charges of many writes at once: whoever finds nobody charging a namespace does it for all that wait there, in the
//! order in which they came, with one write for each quota.

use std::hash::{DefaultHasher, Hash, Hasher};

use apimachinery::{Object, Status};
use component_helpers::quota;
use component_helpers::resource::ResourceList;
use k8s_openapi::api::core::v1::ResourceQuota;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use parking_lot::Mutex;
use storage::Expect;
use tokio::sync::oneshot;

use super::{LimitedResource, Refusal, Request, check, quotas};
use crate::registry::Registry;

/// How often a charge is tried again when other servers, or the quota controller, write the same quota.
const TRIES: usize = 16;
const STRIPES: usize = 64;

/// What one write has been charged, by quota.
#[derive(Default)]
#[must_use]
pub struct Charge {
    namespace: String,
    paid: Vec<(String, ResourceList)>,
}

type Answer = Result<Result<Charge, Refusal>, Status>;

/// A turn for each share of the namespaces. They only save writes and tries; what decides is the store.
pub struct Turns([Turn; STRIPES]);

#[derive(Default)]
pub(super) struct Turn {
    /// Held by who charges.
    pub(super) lead: tokio::sync::Mutex<()>,
    waiting: Mutex<Vec<Waiting>>,
}

/// A write that wants to be charged.
struct Waiting {
    namespace: String,
    request: Request,
    dry_run: bool,
    answer: oneshot::Sender<Answer>,
}

impl Default for Turns {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Turn::default()))
    }
}

impl Turns {
    pub(super) fn of(&self, namespace: &str) -> &Turn {
        let mut hasher = DefaultHasher::new();
        namespace.hash(&mut hasher);
        &self.0[hasher.finish() as usize % STRIPES]
    }

    /// Charges a write to every quota that it counts for, together with those that wait for the same. A dry run is
    /// checked only.
    pub async fn charge(
        &self,
        registry: &Registry,
        namespace: &str,
        request: Request,
        dry_run: bool,
        limited: &[LimitedResource],
    ) -> Answer {
        let turn = self.of(namespace);
        let (answer, mut answered) = oneshot::channel();
        turn.waiting.lock().push(Waiting { namespace: namespace.to_owned(), request, dry_run, answer });
        loop {
            let _lead = tokio::select! {
                biased;
                answer = &mut answered => return answer.unwrap_or_else(|_| Err(given_up())),
                lead = turn.lead.lock() => lead,
            };
            let batch = turn.waiting.lock().extract_if(.., |one| one.namespace == namespace).collect();
            // boxed: every write has room for this future, and few have quotas
            Box::pin(charge_all(registry, namespace, batch, limited)).await;
        }
    }

    /// Takes back what a write was charged that did not happen.
    pub async fn release(&self, registry: &Registry, charge: Charge) {
        if !charge.paid.is_empty() {
            let _lead = self.of(&charge.namespace).lead.lock().await;
            charge.take_back(registry).await;
        }
    }
}

/// Who charged for others was stopped.
fn given_up() -> Status {
    Status::timeout("request did not complete within the allotted timeout", 0)
}

impl Charge {
    fn has_paid(&self, quota: &ResourceQuota) -> bool {
        self.paid.iter().any(|(name, _)| Some(name) == quota.metadata.name.as_ref())
    }

    /// What cannot be taken back is found by the quota controller when it counts again.
    async fn take_back(&self, registry: &Registry) {
        for (name, usage) in &self.paid {
            for _ in 0..TRIES {
                let Ok(found) = quotas(registry, &self.namespace) else { break };
                let Some((quota, object)) = found.into_iter().find(|(_, object)| object.name() == name)
                else {
                    break;
                };
                let used = quota::status_used(&quota);
                let mut rest = ResourceList::default();
                for (name, amount) in usage.iter() {
                    let left = used.get(name).unwrap_or_default() - amount;
                    rest.set(name, if left.is_negative() { Default::default() } else { left });
                }
                match write(registry, object, &rest).await {
                    Ok(true) => break,
                    Ok(false) => drop(registry.cache.wait_for_latest().await),
                    Err(status) => {
                        tracing::warn!(quota = name, error = %status.message, "a charge could not be taken back");
                        break;
                    }
                }
            }
        }
    }
}

/// A write on its way through the quotas.
struct Paying {
    waiting: Waiting,
    charge: Charge,
    /// Why it is not charged after all.
    failed: Option<Status>,
    /// How many quotas it still owes.
    due: usize,
    /// Whether a quota that it owes was written by somebody else meanwhile.
    stuck: bool,
}

impl Paying {
    fn answer(self, answer: Answer) {
        // Who no longer waits needs no answer; what it has paid the quota controller finds.
        let _ = self.waiting.answer.send(answer);
    }

    async fn give_up(self, registry: &Registry, answer: Answer) {
        self.charge.take_back(registry).await;
        self.answer(answer);
    }
}

/// Charges writes of one namespace and answers each.
async fn charge_all(registry: &Registry, namespace: &str, batch: Vec<Waiting>, limited: &[LimitedResource]) {
    let begin = |waiting| {
        let charge = Charge { namespace: namespace.to_owned(), paid: Vec::new() };
        Paying { waiting, charge, failed: None, due: 0, stuck: false }
    };
    let mut paying: Vec<Paying> = batch.into_iter().map(begin).collect();
    for _ in 0..TRIES {
        paying = match quotas(registry, namespace) {
            Ok(found) => charge_once(registry, found, paying, limited).await,
            Err(status) => {
                for one in paying {
                    one.give_up(registry, Err(status.clone())).await;
                }
                return;
            }
        };
        if paying.is_empty() {
            return;
        }
        // somebody else has written a quota: what is new of it shows soon
        if let Err(status) = registry.cache.wait_for_latest().await {
            paying.iter_mut().for_each(|one| one.failed = Some(status.clone()));
            break;
        }
    }
    let kind = registry.core("resourcequotas");
    for mut one in paying {
        let status = one.failed.take();
        let status = status.unwrap_or_else(|| Status::modified(&kind.resource.group_resource(), namespace));
        one.give_up(registry, Err(status)).await;
    }
}

/// Charges writes to quotas as they were read; gives back those that owe a quota that somebody else wrote meanwhile.
async fn charge_once(
    registry: &Registry,
    mut found: Vec<(ResourceQuota, Object)>,
    paying: Vec<Paying>,
    limited: &[LimitedResource],
) -> Vec<Paying> {
    let mut rest: Vec<Paying> = Vec::new();
    let before: Vec<ResourceList> = found.iter().map(|(quota, _)| quota::status_used(quota)).collect();
    // what each quota is charged, and by which of those
    let mut due: Vec<Vec<(usize, ResourceList)>> = found.iter().map(|_| Vec::new()).collect();
    for mut one in paying {
        let open: Vec<usize> = (0..found.len()).filter(|&i| !one.charge.has_paid(&found[i].0)).collect();
        let asked = check(open.iter().map(|&i| &found[i].0), &one.waiting.request, limited);
        match asked {
            Err(refusal) => one.give_up(registry, Ok(Err(refusal))).await,
            Ok(asked) if asked.is_empty() || one.waiting.dry_run => {
                let charge = std::mem::take(&mut one.charge);
                one.answer(Ok(Ok(charge)));
            }
            Ok(asked) => {
                (one.due, one.stuck) = (asked.len(), false);
                for (index, usage) in asked {
                    let quota = open[index];
                    add_used(&mut found[quota].0, &usage);
                    due[quota].push((rest.len(), usage));
                }
                rest.push(one);
            }
        }
    }
    for (((_, object), before), mut due) in found.into_iter().zip(before).zip(due) {
        // in the same order everywhere, and none before the one that comes first is paid: what will be refused by
        // that one does not fill the others meanwhile
        due.retain(|(by, _)| !rest[*by].stuck);
        let mut charged = ResourceList::default();
        due.iter().for_each(|(_, usage)| charged.add(usage));
        if charged.is_empty() {
            continue;
        }
        let total = charged
            .iter()
            .map(|(name, amount)| (name, before.get(name).unwrap_or_default() + amount))
            .collect();
        let name = object.name().to_owned();
        let written = write(registry, object, &total).await;
        for (by, usage) in due {
            let one = &mut rest[by];
            match &written {
                Ok(true) => {
                    one.charge.paid.push((name.clone(), usage));
                    one.due -= 1;
                }
                Ok(false) => one.stuck = true,
                Err(status) => {
                    one.stuck = true;
                    one.failed = Some(status.clone());
                }
            }
        }
    }
    let mut owing = Vec::new();
    for mut one in rest {
        if let Some(status) = one.failed.take() {
            one.give_up(registry, Err(status)).await;
        } else if one.due > 0 {
            owing.push(one);
        } else {
            let charge = std::mem::take(&mut one.charge);
            one.answer(Ok(Ok(charge)));
        }
    }
    owing
}

/// Counts a charge in a quota, for the check of the next one.
fn add_used(quota: &mut ResourceQuota, usage: &ResourceList) {
    let mut used = quota::status_used(quota);
    used.add(usage);
    let status = quota.status.get_or_insert_default().used.get_or_insert_default();
    for (name, amount) in used.iter().filter(|(name, _)| usage.get(name).is_some()) {
        status.insert(name.to_owned(), Quantity(amount.to_string()));
    }
}

/// Writes amounts into a quota's `status.used`; `false` when somebody else has written it meanwhile.
async fn write(registry: &Registry, mut quota: Object, used: &ResourceList) -> Result<bool, Status> {
    let kind = registry.core("resourcequotas");
    let revision = quota.resource_version().parse().map_err(Status::internal)?;
    for (name, amount) in used.iter() {
        quota.set(&["status", "used", name], amount.to_string());
    }
    let key = kind.key(quota.namespace(), quota.name());
    Ok(registry.store(kind, &key, quota, Expect::ModRevision(revision)).await?.is_ok())
}
