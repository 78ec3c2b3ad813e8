//! Delete: grace, finalizers, propagation and preconditions, for one object or for all that a selector finds.

use api::{Dependents, Grace};
use apimachinery::field::{self, Path};
use apimachinery::{GroupKind, GroupResource, Object, Status, Value};
use chrono::{Duration, SecondsFormat};
use storage::{DeleteOutcome, Expect, Revision};

use super::Registry;
use super::list::parse_i64;
use crate::admission::{Attributes, Operation};
use crate::cache::storage_failed;
use crate::context::{Context, dry_run_errors};
use crate::http::request_info::Query;
use crate::kinds::Kind;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// The body and query of a delete.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub propagation_policy: Option<String>,
    pub orphan_dependents: Option<bool>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    /// All values that were given.
    pub dry_run: Vec<String>,
}

impl DeleteOptions {
    pub fn is_dry_run(&self) -> bool {
        !self.dry_run.is_empty()
    }

    pub fn from_query(query: &Query) -> Result<Self, Status> {
        let seconds = query.get("gracePeriodSeconds").map(parse_i64).transpose()?;
        Ok(Self {
            grace_period_seconds: seconds,
            propagation_policy: query.get("propagationPolicy").map(str::to_owned),
            orphan_dependents: query.get("orphanDependents").map(|_| query.flag("orphanDependents")),
            uid: None,
            resource_version: None,
            dry_run: query.all("dryRun").map(str::to_owned).collect(),
        })
    }

    pub fn from_object(object: &Object) -> Self {
        let text = |path: &[&str]| object.get(path).and_then(Value::as_str).map(str::to_owned);
        Self {
            grace_period_seconds: object.get_i64(&["gracePeriodSeconds"]),
            propagation_policy: text(&["propagationPolicy"]),
            orphan_dependents: object.get(&["orphanDependents"]).and_then(Value::as_bool),
            uid: text(&["preconditions", "uid"]),
            resource_version: text(&["preconditions", "resourceVersion"]),
            dry_run: object
                .get_array(&["dryRun"])
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
        }
    }

    pub fn validate(&self) -> Result<(), Status> {
        let mut errors = Vec::new();
        if self.propagation_policy.is_some() && self.orphan_dependents.is_some() {
            errors.push(field::Error::invalid(
                &Path::new("propagationPolicy"),
                self.propagation_policy.clone(),
                "orphanDependents and deletionPropagation cannot be both set",
            ));
        }
        if let Some(policy) = &self.propagation_policy
            && !matches!(policy.as_str(), "Foreground" | "Background" | "Orphan")
        {
            let valid = ["Foreground", "Background", "Orphan", "nil"];
            errors.push(field::Error::not_supported(
                &Path::new("propagationPolicy"),
                policy.as_str(),
                &valid,
            ));
        }
        errors.extend(dry_run_errors(&self.dry_run));
        if errors.is_empty() {
            return Ok(());
        }
        Err(Status::invalid(&GroupKind::new("meta.k8s.io", "DeleteOptions"), "", &errors))
    }
}

/// What a delete did.
#[derive(Debug)]
pub struct Deleted {
    /// The object as it was last, or as it waits for its end.
    pub object: Object,
    /// Whether it is gone.
    pub gone: bool,
}

impl Registry {
    pub async fn delete(
        &self,
        ctx: &Context,
        kind: &Kind,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        options.validate()?;
        let resource = kind.resource;
        // upstream asks only whoever names the object
        if ctx.info.verb != "deletecollection"
            && let Some(why) = resource.strategy.forbids_delete(name)
        {
            return Err(Status::forbidden(&resource.group_resource(), name, why));
        }
        if options.propagation_policy.is_none() && options.orphan_dependents.is_none() {
            resource.strategy.warnings_on_delete().iter().for_each(|warning| ctx.warn(*warning));
        }
        let key = kind.key(namespace, name);
        let mut current = match self.cache_of(kind)?.get(&key) {
            Some(entry) => Some((self.decode(kind, &entry)?, entry.revision())),
            None => self.fresh(kind, &key).await?,
        };
        let mut admitted = false;
        loop {
            let Some((old, revision)) = current else {
                return Err(Status::not_found(&resource.group_resource(), name));
            };
            check_preconditions(kind, &old, options)?;
            if !admitted {
                let mut attributes = Attributes {
                    operation: Operation::Delete,
                    kind,
                    subresource: "",
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                    object: None,
                    old: Some(old.clone()),
                    dry_run: options.is_dry_run(),
                };
                self.admission.admit_delete(self, ctx, &mut attributes).await?;
                self.admission.validate(self, ctx, &attributes).await?;
                admitted = true;
            }
            match self.delete_once(ctx, kind, &key, old, revision, options).await? {
                Ok(deleted) => return Ok(deleted),
                Err(()) => current = self.fresh(kind, &key).await?,
            }
        }
    }

    /// One try; the inner error says that somebody wrote in between.
    async fn delete_once(
        &self,
        ctx: &Context,
        kind: &Kind,
        key: &str,
        old: Object,
        revision: Revision,
        options: &DeleteOptions,
    ) -> Result<Result<Deleted, ()>, Status> {
        let plan = plan_delete(ctx, kind, &old, options)?;
        match plan {
            Plan::Nothing => Ok(Ok(Deleted { object: old, gone: false })),
            Plan::Remove(object) if options.is_dry_run() => Ok(Ok(Deleted { object, gone: true })),
            Plan::Remove(object) => match self.try_remove(kind, key, &object, revision).await? {
                Some(object) => Ok(Ok(Deleted { object, gone: true })),
                None => Ok(Err(())),
            },
            Plan::Mark(object) if options.is_dry_run() => Ok(Ok(Deleted { object, gone: false })),
            Plan::Mark(object) => match self.store(kind, key, object, Expect::ModRevision(revision)).await? {
                Ok(object) => Ok(Ok(Deleted { object, gone: false })),
                Err(_) => Ok(Err(())),
            },
        }
    }

    /// Takes an object out of the store; a conflict when it is not the one expected.
    pub(super) async fn remove(
        &self,
        kind: &Kind,
        key: &str,
        object: Object,
        revision: Revision,
    ) -> Result<Object, Status> {
        match self.try_remove(kind, key, &object, revision).await? {
            Some(object) => Ok(object),
            None => Err(Status::modified(&kind.resource.group_resource(), object.name())),
        }
    }

    async fn try_remove(
        &self,
        kind: &Kind,
        key: &str,
        object: &Object,
        revision: Revision,
    ) -> Result<Option<Object>, Status> {
        match self.storage.delete_if(key, revision).await.map_err(storage_failed)? {
            DeleteOutcome::Deleted { revision: at, .. } => {
                self.cache.wait_for(at).await?;
                self.allocators.released(self, kind, object).await;
                let mut object = object.clone();
                object.set_resource_version(&at.to_string());
                Ok(Some(object))
            }
            DeleteOutcome::Conflict(None) => {
                Err(Status::not_found(&kind.resource.group_resource(), object.name()))
            }
            DeleteOutcome::Conflict(Some(_)) => Ok(None),
        }
    }
}

enum Plan {
    /// It waits for its end already, and the request does not shorten that.
    Nothing,
    Remove(Object),
    Mark(Object),
}

/// What a delete does to an object: nothing more, mark it, or take it out.
fn plan_delete(ctx: &Context, kind: &Kind, old: &Object, options: &DeleteOptions) -> Result<Plan, Status> {
    let resource = kind.resource;
    let namespace = (resource.group, resource.plural) == ("", "namespaces");
    let mut object = old.clone();
    let finalizers = finalizers_after(kind, old, options);
    let finalizers_moved = finalizers != old.finalizers();
    object.set_finalizers(&finalizers);

    if namespace {
        return Ok(plan_namespace(ctx, object, old));
    }
    let grace = match resource.strategy.grace(old, options.grace_period_seconds) {
        Grace::None => 0,
        Grace::Seconds(seconds) => seconds,
    };
    let graceful = matches!(resource.strategy.grace(old, None), Grace::Seconds(_));
    if old.deletion_timestamp().is_some() {
        let before = old.deletion_grace_period_seconds().unwrap_or_default();
        // grace only ever gets shorter
        let shorter = graceful
            && options.grace_period_seconds.is_some()
            && (grace < before || (grace == 0 && before == 0));
        if finalizers.is_empty() && (before == 0 || (shorter && grace == 0)) {
            return Ok(Plan::Remove(object));
        }
        if shorter && grace < before {
            mark(ctx, &mut object, grace, Some(before));
            return Ok(Plan::Mark(object));
        }
        // what waits for its grace to end is not touched
        return Ok(if finalizers_moved && !graceful { Plan::Mark(object) } else { Plan::Nothing });
    }
    if grace == 0 && finalizers.is_empty() {
        return Ok(Plan::Remove(object));
    }
    mark(ctx, &mut object, grace, None);
    Ok(Plan::Mark(object))
}

/// Sets when an object goes. `before` is the grace it had been given.
fn mark(ctx: &Context, object: &mut Object, grace: i64, before: Option<i64>) {
    let start = match (before, object.deletion_timestamp().and_then(|at| at.parse().ok())) {
        (Some(before), Some(at)) => {
            let at: chrono::DateTime<chrono::Utc> = at;
            at - Duration::seconds(before)
        }
        _ => ctx.now,
    };
    let at = (start + Duration::seconds(grace)).to_rfc3339_opts(SecondsFormat::Secs, true);
    object.set(&["metadata", "deletionTimestamp"], at);
    object.set(&["metadata", "deletionGracePeriodSeconds"], grace);
    if before.is_none() && object.generation() > 0 {
        object.set_generation(object.generation() + 1);
    }
}

/// A namespace is emptied by its controller first, which owns a finalizer in its spec.
fn plan_namespace(ctx: &Context, mut object: Object, old: &Object) -> Plan {
    if old.deletion_timestamp().is_none() {
        object.set(&["metadata", "deletionTimestamp"], ctx.timestamp());
        object.set(&["status", "phase"], "Terminating");
        return Plan::Mark(object);
    }
    if old.get_array(&["spec", "finalizers"]).is_empty() && object.finalizers().is_empty() {
        return Plan::Remove(object);
    }
    Plan::Nothing
}

/// The finalizers that stand for how dependents are treated, as the request asks.
fn finalizers_after(kind: &Kind, old: &Object, options: &DeleteOptions) -> Vec<String> {
    let has = |name: &str| old.finalizers().contains(&name);
    let policy = options.propagation_policy.as_deref();
    let dependents = kind.resource.strategy.dependents();
    let orphan = match (policy, options.orphan_dependents) {
        (Some(policy), _) => policy == "Orphan",
        (None, Some(orphan)) => orphan,
        (None, None) if has(ORPHAN) => true,
        (None, None) if has(FOREGROUND) => false,
        (None, None) => dependents == Dependents::Orphaned,
    };
    let foreground = match (policy, options.orphan_dependents) {
        (Some(policy), _) => policy == "Foreground",
        (None, Some(_)) => false,
        (None, None) => has(FOREGROUND),
    };
    let mut out: Vec<String> = old
        .finalizers()
        .into_iter()
        .filter(|name| !matches!(*name, ORPHAN | FOREGROUND))
        .map(str::to_owned)
        .collect();
    if dependents == Dependents::None {
        return out;
    }
    if orphan {
        out.push(ORPHAN.into());
    } else if foreground {
        out.push(FOREGROUND.into());
    }
    out
}

fn check_preconditions(kind: &Kind, old: &Object, options: &DeleteOptions) -> Result<(), Status> {
    let refuse = |what: &str, asked: &str, is: &str, may_have_been: &str| {
        // upstream names the kind where other errors name the resource
        let resource = GroupResource::new(kind.resource.group, kind.resource.kind);
        let why = format!(
            "the {what} in the precondition ({asked}) does not match the {what} in record ({is}). \
             The object might have been {may_have_been}"
        );
        Status::conflict(&resource, old.name(), why)
    };
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != old.uid()) {
        return Err(refuse("UID", uid, old.uid(), "deleted and then recreated"));
    }
    if let Some(version) = options.resource_version.as_deref().filter(|v| *v != old.resource_version()) {
        return Err(refuse("ResourceVersion", version, old.resource_version(), "modified"));
    }
    Ok(())
}
