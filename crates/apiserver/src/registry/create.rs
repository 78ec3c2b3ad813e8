//! Create: from an admitted object to a stored one.

use apimachinery::field::ErrorList;
use apimachinery::{Object, Status};
use storage::Expect;

use super::{Registry, metadata, rights};
use crate::admission::{Attributes, Operation};
use crate::context::{Context, WriteOptions};
use crate::kinds::Kind;

/// How often a generated name is tried before the client has to.
const NAME_TRIES: usize = 8;

impl Registry {
    /// Creates an object that has been decoded and defaulted.
    pub async fn create(
        &self,
        ctx: &Context,
        kind: &Kind,
        namespace: &str,
        object: Object,
        options: WriteOptions,
    ) -> Result<Object, Status> {
        if !object.name().is_empty() || object.generate_name().is_empty() {
            return self.create_once(ctx, kind, namespace, object, options).await;
        }
        let mut last = Status::internal("no name could be generated");
        for _ in 0..NAME_TRIES {
            match self.create_once(ctx, kind, namespace, object.clone(), options).await {
                Err(status) if status.is(apimachinery::Reason::AlreadyExists) => {
                    let name =
                        status.details.as_ref().map(|details| details.name.clone()).unwrap_or_default();
                    last = Status::generate_name_conflict(&kind.resource.group_resource(), &name);
                }
                done => return done,
            }
        }
        Err(last)
    }

    async fn create_once(
        &self,
        ctx: &Context,
        kind: &Kind,
        namespace: &str,
        mut object: Object,
        options: WriteOptions,
    ) -> Result<Object, Status> {
        let resource = kind.resource;
        // as upstream, which takes what is no number for none
        if metadata::version_of(&object).is_ok_and(|version| version != 0) {
            return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
        }
        metadata::match_namespace(resource, namespace, &mut object)?;
        metadata::fill_new(&mut object, ctx);
        let uid = object.uid().to_owned();
        let mut attributes = Attributes {
            operation: Operation::Create,
            kind,
            subresource: "",
            namespace: namespace.to_owned(),
            name: object.name().to_owned(),
            object: Some(object),
            old: None,
            dry_run: options.dry_run,
        };
        self.admission.admit(self, ctx, &mut attributes).await?;
        let mut object = attributes.object.take().unwrap_or_default();
        metadata::drop_repeated_owners(ctx, &mut object, true);
        metadata::match_namespace(resource, namespace, &mut object)?;
        metadata::keep_new(&mut object, &uid, ctx);
        let allocation = self.allocators.begin_create(self, kind, &mut object, options.dry_run).await?;
        let stored = self.create_prepared(ctx, kind, &mut attributes, object, options).await;
        match &stored {
            Ok(_) if !options.dry_run => allocation.keep(),
            _ => allocation.release(self).await,
        }
        stored
    }

    async fn create_prepared(
        &self,
        ctx: &Context,
        kind: &Kind,
        attributes: &mut Attributes<'_>,
        mut object: Object,
        options: WriteOptions,
    ) -> Result<Object, Status> {
        let resource = kind.resource;
        for warning in resource.strategy.warnings_before_create(&object) {
            ctx.warn(warning);
        }
        resource.strategy.note_requester(&mut object, None, &ctx.requester());
        resource.strategy.prepare_for_create(&mut object);
        let mut errors = ErrorList::from_iter(metadata::validate_namespace(self, kind, &object, None));
        errors.extend(metadata::validate_new(resource, &object));
        if errors.is_empty() {
            errors.extend(self.admission.unreadable_parameters(self, ctx, kind, &object, None).await);
        }
        if !errors.is_empty() {
            return Err(Status::invalid(&resource.group_kind(), object.name(), &errors));
        }
        for warning in resource.strategy.warnings_on_create(&object) {
            ctx.warn(warning);
        }
        resource.strategy.canonicalize(&mut object);
        apimachinery::codec::normalize(&mut object, &kind.schema).map_err(Status::internal)?;
        if let (true, Some(authorizer)) = (ctx.info.verb != "create", self.admission.authorizer()) {
            rights::to_create(authorizer, ctx, kind, &object).await?;
        }
        attributes.object = Some(object);
        self.admission.validate(self, ctx, attributes).await?;
        let charge = self.admission.charge(self, attributes).await?;
        let object = attributes.object.take().unwrap_or_default();
        let key = kind.key(object.namespace(), object.name());
        let name = object.name().to_owned();
        if options.dry_run {
            return match self.fresh(kind, &key).await? {
                Some(_) => Err(Status::already_exists(&resource.group_resource(), &name)),
                None => Ok(kind.as_read_back(object)),
            };
        }
        match self.store(kind, &key, object, Expect::Absent).await? {
            Ok(object) => Ok(object),
            Err(current) => {
                self.admission.release(self, charge).await;
                let mut status = Status::already_exists(&resource.group_resource(), &name);
                let deleting = match current {
                    Some(kv) => self.decode_kv(kind, &kv)?.0.deletion_timestamp().is_some(),
                    None => false,
                };
                if deleting {
                    status.message = format!("object is being deleted: {}", status.message);
                }
                Err(status)
            }
        }
    }
}
