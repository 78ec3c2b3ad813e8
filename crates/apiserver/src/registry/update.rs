//! Update: one compare-and-swap loop under PUT, every kind of PATCH, and every subresource that writes.

use apimachinery::field::Path;
use apimachinery::{Object, Reason, Status, validation};
use storage::{Expect, Revision};

use super::{Registry, metadata, rights};
use crate::admission::{Attributes, Operation};
use crate::context::{Context, WriteOptions};
use crate::kinds::Kind;

/// How often a write is tried again when others write the same object.
const TRIES: usize = 64;

/// Which part of an object a write is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Main,
    Status,
    /// The number of replicas; the rules of the whole object hold.
    Scale,
    /// Another subresource that writes the object by rules of its own; the name is for admission.
    Other(&'static str),
}

impl Part {
    pub fn name(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Other(name) => name,
        }
    }
}

/// The outcome of an update.
#[derive(Debug)]
pub struct Updated {
    pub object: Object,
    pub created: bool,
}

/// Makes the new object from the current one; runs again when somebody else wrote in between. It gets `None`
/// where nothing is there and the resource may be created by an update.
pub type Transform<'a> = &'a (dyn Fn(Option<&Object>) -> Result<Object, Status> + Send + Sync);

impl Registry {
    pub async fn update(
        &self,
        ctx: &Context,
        kind: &Kind,
        namespace: &str,
        name: &str,
        part: Part,
        transform: Transform<'_>,
        may_create: bool,
        options: WriteOptions,
    ) -> Result<Updated, Status> {
        let resource = kind.resource;
        let key = kind.key(namespace, name);
        let mut current = match self.cache_of(kind)?.get(&key) {
            Some(entry) => Some((self.decode(kind, &entry)?, entry.revision())),
            None => self.fresh(kind, &key).await?,
        };
        let mut from_cache = true;
        for _ in 0..TRIES {
            let Some((old, revision)) = &current else {
                if !(part == Part::Main && may_create) {
                    return Err(Status::not_found(&resource.group_resource(), name));
                }
                let object = transform(None)?;
                check_name(name, &object)?;
                metadata::version_of(&object)?;
                match self.create(ctx, kind, namespace, object, options).await {
                    Ok(object) => return Ok(Updated { object, created: true }),
                    Err(status) if status.is(Reason::AlreadyExists) => {
                        current = self.fresh(kind, &key).await?;
                        from_cache = false;
                        continue;
                    }
                    Err(status) => return Err(status),
                }
            };
            match self.update_once(ctx, kind, &key, old, *revision, part, transform, options).await {
                Ok(Ok(object)) => return Ok(Updated { object, created: false }),
                // somebody wrote in between: go on from what they wrote
                Ok(Err(newer)) => {
                    current = newer;
                    from_cache = false;
                }
                // the cache may be behind what the client has seen: look again before refusing
                Err(status) if from_cache => {
                    let newest = self.fresh(kind, &key).await?;
                    if newest.as_ref().map(|(_, newest)| *newest) == Some(*revision) {
                        return Err(status);
                    }
                    current = newest;
                    from_cache = false;
                }
                Err(status) => return Err(status),
            }
        }
        Err(Status::modified(&resource.group_resource(), name))
    }

    /// One try. The inner error is the object as somebody else has written it meanwhile.
    async fn update_once(
        &self,
        ctx: &Context,
        kind: &Kind,
        key: &str,
        old: &Object,
        revision: Revision,
        part: Part,
        transform: Transform<'_>,
        options: WriteOptions,
    ) -> Result<Result<Object, Option<(Object, Revision)>>, Status> {
        let resource = kind.resource;
        let mut object = transform(Some(old))?;
        check_name(old.name(), &object)?;
        metadata::match_namespace(resource, old.namespace(), &mut object)?;
        // what a patch says of it is a change like any other, which the rules refuse
        if ctx.info.verb != "patch" {
            metadata::check_uid(resource, key, object.uid(), old)?;
        }
        metadata::check_version(resource, &object, old)?;
        object.set_resource_version(old.resource_version());
        metadata::carry_over(&mut object, old);

        let mut attributes = Attributes {
            operation: Operation::Update,
            kind,
            subresource: part.name(),
            namespace: old.namespace().to_owned(),
            name: old.name().to_owned(),
            object: Some(object),
            old: Some(old.clone()),
            dry_run: options.dry_run,
        };
        self.admission.admit(self, ctx, &mut attributes).await?;
        let mut object = attributes.object.take().unwrap_or_default();
        metadata::drop_repeated_owners(ctx, &mut object, true);
        metadata::match_namespace(resource, old.namespace(), &mut object)?;
        object.set_resource_version(old.resource_version());
        metadata::carry_over(&mut object, old);
        let allocation = match part {
            Part::Main => self.allocators.begin_update(self, kind, &mut object, old, options.dry_run).await?,
            _ => Default::default(),
        };
        let outcome =
            self.update_prepared(ctx, kind, key, &mut attributes, object, old, revision, part, options).await;
        match &outcome {
            Ok(Ok(_)) if !options.dry_run => allocation.finish(self).await,
            _ => allocation.release(self).await,
        }
        outcome
    }

    async fn update_prepared(
        &self,
        ctx: &Context,
        kind: &Kind,
        key: &str,
        attributes: &mut Attributes<'_>,
        mut object: Object,
        old: &Object,
        revision: Revision,
        part: Part,
        options: WriteOptions,
    ) -> Result<Result<Object, Option<(Object, Revision)>>, Status> {
        let resource = kind.resource;
        let strategy = resource.strategy;
        strategy.note_requester(&mut object, Some(old), &ctx.requester());
        match part {
            Part::Main | Part::Scale => strategy.prepare_for_update(&mut object, old),
            Part::Status => strategy.prepare_for_status_update(&mut object, old),
            Part::Other(name) => strategy.prepare_for_subresource(name, &mut object, old),
        }
        metadata::keep_deletion(&mut object, old);
        apimachinery::codec::normalize(&mut object, &kind.schema).map_err(Status::internal)?;
        let mut errors = validation::validate_object_meta_update(&object, old, &Path::new("metadata"));
        errors.extend(api::validation::finalizer_names(&object));
        errors.extend(metadata::validate_namespace(self, kind, &object, Some(old)));
        if let (Part::Status, Some(authorizer)) = (part, self.admission.authorizer()) {
            let rights = strategy.rights_for_status_update(&object, old, ctx.info.verb, &ctx.requester());
            errors.extend(rights::missing(authorizer, ctx, kind, old.namespace(), &rights).await);
        }
        errors.extend(match part {
            Part::Main | Part::Scale => strategy.validate_update(&object, old),
            Part::Status => strategy.validate_status_update(&object, old),
            Part::Other(name) => strategy.validate_subresource(name, &object, old),
        });
        if errors.is_empty() && part == Part::Main {
            errors.extend(self.admission.unreadable_parameters(self, ctx, kind, &object, Some(old)).await);
        }
        if !errors.is_empty() {
            return Err(Status::invalid(&resource.group_kind(), object.name(), &errors));
        }
        let warnings = match part {
            Part::Main | Part::Scale => strategy.warnings_on_update(&object, old),
            Part::Status => strategy.warnings_on_status_update(&object, old),
            Part::Other(_) => Vec::new(),
        };
        for warning in warnings {
            ctx.warn(warning);
        }
        strategy.canonicalize(&mut object);
        attributes.object = Some(object);
        self.admission.validate(self, ctx, attributes).await?;
        let charge = self.admission.charge(self, attributes).await?;
        let mut object = attributes.object.take().unwrap_or_default();
        // as what is stored has them, with which it is compared
        strategy.default(&mut object);

        // an update that changes nothing but the time of its own bookkeeping is no update, unless the object lies
        // in the store as it should no longer lie there
        if apimachinery::apply::same_but_for_times(&object, old)
            && (options.dry_run || !self.is_stale(kind, key).await?)
        {
            return Ok(Ok(old.clone()));
        }
        if options.dry_run {
            return Ok(Ok(kind.as_read_back(object)));
        }
        if goes_with_this_update(kind, &object, old) {
            return Ok(Ok(self.remove(kind, key, object, revision).await?));
        }
        match self.store(kind, key, object, Expect::ModRevision(revision)).await? {
            Ok(object) => Ok(Ok(object)),
            Err(current) => {
                self.admission.release(self, charge).await;
                match current {
                    Some(kv) => Ok(Err(Some(self.decode_kv(kind, &kv)?))),
                    None => Err(Status::not_found(&resource.group_resource(), old.name())),
                }
            }
        }
    }
}

/// The name in the body, where there is one, and the name in the path are one.
pub fn check_name(name: &str, object: &Object) -> Result<(), Status> {
    if object.name().is_empty() || object.name() == name {
        return Ok(());
    }
    Err(Status::bad_request(format!(
        "the name of the object ({}) does not match the name on the URL ({name})",
        object.name()
    )))
}

/// An object on its way out goes when its last finalizer does.
fn goes_with_this_update(kind: &Kind, object: &Object, old: &Object) -> bool {
    if object.deletion_timestamp().is_none() || !object.finalizers().is_empty() {
        return false;
    }
    if old.deletion_grace_period_seconds().is_some_and(|seconds| seconds != 0) {
        return false;
    }
    // a namespace has finalizers of its own
    (kind.resource.group, kind.resource.plural) != ("", "namespaces")
        || object.get_array(&["spec", "finalizers"]).is_empty()
}
