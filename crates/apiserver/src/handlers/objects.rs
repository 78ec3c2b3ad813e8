//! get, list, create, update, delete and deletecollection of whole objects and of their status.

use std::sync::Arc;

use apimachinery::apply::{self, Filter};
use apimachinery::{Object, Status};
use futures::future::join_all;
use http::StatusCode;

use super::{Call, decode};
use crate::cache::Entry;
use crate::context::WriteOptions;
use crate::http::body::{self, Request, Response};
use crate::http::{negotiate, respond};
use crate::registry::list::ListOptions;
use crate::registry::{DeleteOptions, Part, metadata};

/// How many deletes of a collection run at once.
const DELETES_AT_ONCE: usize = 8;

impl Call<'_> {
    pub async fn get(&self) -> Result<Response, Status> {
        let info = &self.ctx.info;
        let version = self.ctx.query.text("resourceVersion");
        let entry = self.server.registry.get(self.kind, &info.namespace, &info.name, version).await?;
        respond::entry(self.accepted, StatusCode::OK, self.ctx, self.kind, &entry)
    }

    pub async fn list(&self) -> Result<Response, Status> {
        let options = ListOptions::parse(self.kind, &self.ctx.info, &self.ctx.query)?;
        let page = self.server.registry.list(self.kind, &self.ctx.info.namespace, &options).await?;
        respond::list(self.accepted, self.ctx, self.kind, &page)
    }

    pub async fn create(&self, request: Request) -> Result<Response, Status> {
        let options = self.ctx.write_options("CreateOptions")?;
        let format = negotiate::content(request.headers())?;
        let bytes = body::read(request.into_body()).await?;
        let gvk = self.kind.resource.gvk();
        let schema = &self.kind.schema;
        let object = decode::decode(self.ctx, &bytes, format, schema, &gvk, options.field_validation)?;
        let mut object = self.defaulted(object);
        metadata::drop_repeated_owners(self.ctx, &mut object, false);
        if object.name().is_empty() && object.generate_name().is_empty() {
            return Err(nameless(self.kind, &object));
        }
        self.confirm_no_escalation(&object, None)?;
        let object = self.managed(None, object, "")?;
        let namespace = &self.ctx.info.namespace;
        let created = self.server.registry.create(self.ctx, self.kind, namespace, object, options).await?;
        self.written(StatusCode::CREATED, &created, options)
    }

    /// PUT and PATCH of an object or of its status.
    pub async fn part(&self, request: Request, part: Part) -> Result<Response, Status> {
        match self.ctx.info.verb {
            "get" => self.get().await,
            "patch" => self.patch(request, part).await,
            _ => self.replace(request, part).await,
        }
    }

    async fn replace(&self, request: Request, part: Part) -> Result<Response, Status> {
        let options = self.ctx.write_options("UpdateOptions")?;
        let format = negotiate::content(request.headers())?;
        let bytes = body::read(request.into_body()).await?;
        let gvk = self.kind.resource.gvk();
        let schema = &self.kind.schema;
        let object = decode::decode(self.ctx, &bytes, format, schema, &gvk, options.field_validation)?;
        if object.name().is_empty() {
            return Err(self.nameless());
        }
        let mut object = self.defaulted(object);
        metadata::drop_repeated_owners(self.ctx, &mut object, false);
        let transform = |old: Option<&Object>| self.managed(old, object.clone(), part.name());
        self.update(part, &transform, self.kind.resource.strategy.allow_create_on_update(), options).await
    }

    /// Runs an update and answers with its outcome.
    pub async fn update(
        &self,
        part: Part,
        transform: &(dyn Fn(Option<&Object>) -> Result<Object, Status> + Send + Sync),
        may_create: bool,
        options: WriteOptions,
    ) -> Result<Response, Status> {
        let info = &self.ctx.info;
        let transform = &|old: Option<&Object>| {
            let new = transform(old)?;
            self.confirm_no_escalation(&new, old)?;
            Ok(new)
        };
        let updated = self
            .server
            .registry
            .update(self.ctx, self.kind, &info.namespace, &info.name, part, transform, may_create, options)
            .await?;
        let code = if updated.created { StatusCode::CREATED } else { StatusCode::OK };
        self.written(code, &updated.object, options)
    }

    /// The answer to a write: what the cache shares with all who read it, unless somebody has written since.
    fn written(&self, code: StatusCode, object: &Object, options: WriteOptions) -> Result<Response, Status> {
        let entry = self.server.registry.glance(self.kind, object.namespace(), object.name());
        let same = |entry: &Arc<Entry>| entry.revision().to_string() == object.resource_version();
        match entry.filter(|entry| !options.dry_run && !self.kind.converts() && same(entry)) {
            Some(entry) => respond::entry(self.accepted, code, self.ctx, self.kind, &entry),
            None => Ok(respond::object(self.accepted, code, self.ctx, self.kind, object)),
        }
    }

    /// The refusal of an object that does not say its name, while its path does.
    pub fn nameless(&self) -> Status {
        Status::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            self.ctx.info.name
        ))
    }

    pub fn defaulted(&self, mut object: Object) -> Object {
        self.kind.resource.strategy.default(&mut object);
        object
    }

    /// Notes in managedFields who changed what.
    pub fn managed(&self, old: Option<&Object>, new: Object, subresource: &str) -> Result<Object, Status> {
        let ownable = self.ownable(subresource);
        let manager = self.ctx.field_manager();
        let schema = &self.kind.schema;
        Ok(apply::update(old, new, schema, &manager, self.ctx.now_time(), subresource, Some(&ownable)))
    }

    /// Which fields a write through a subresource can change, so that it may own them.
    pub fn ownable(&self, subresource: &str) -> Filter {
        let strategy = self.kind.resource.strategy;
        match strategy.only_fields(subresource) {
            Some(fields) => Filter::only(fields),
            None => Filter::all_but(strategy.reset_fields(subresource)),
        }
    }

    /// The options of a delete, which a body says, or else the query.
    async fn delete_options(&self, request: Request) -> Result<DeleteOptions, Status> {
        let format = negotiate::content(request.headers());
        let bytes = body::read(request.into_body()).await?;
        let options = if bytes.is_empty() {
            DeleteOptions::from_query(&self.ctx.query)?
        } else {
            let object = decode::delete_options(&bytes, format?)?;
            if let Some(trail) = &self.ctx.audit {
                trail.request_object(&object);
            }
            DeleteOptions::from_object(&object)
        };
        options.validate()?;
        Ok(options)
    }

    pub async fn delete(&self, request: Request) -> Result<Response, Status> {
        let options = self.delete_options(request).await?;
        let info = &self.ctx.info;
        let deleted =
            self.server.registry.delete(self.ctx, self.kind, &info.namespace, &info.name, &options).await?;
        let cascades = options.orphan_dependents == Some(false);
        let code = if !deleted.gone && cascades { StatusCode::ACCEPTED } else { StatusCode::OK };
        if deleted.gone && !self.kind.resource.returns_deleted {
            return Ok(respond::success(self.accepted, code, self.kind, &deleted.object));
        }
        Ok(respond::object(self.accepted, code, self.ctx, self.kind, &deleted.object))
    }

    pub async fn delete_collection(&self, request: Request) -> Result<Response, Status> {
        let options = self.delete_options(request).await?;
        let list_options = ListOptions::parse(self.kind, &self.ctx.info, &self.ctx.query)?;
        let registry = &self.server.registry;
        let page = registry.list(self.kind, &self.ctx.info.namespace, &list_options).await?;
        for some in page.entries.chunks(DELETES_AT_ONCE) {
            let mut deletes = Vec::with_capacity(some.len());
            for entry in some {
                deletes.push(registry.delete(self.ctx, self.kind, entry.namespace(), entry.name(), &options));
            }
            for deleted in join_all(deletes).await {
                match deleted {
                    Ok(_) => {}
                    // somebody else was faster
                    Err(status) if status.is(apimachinery::Reason::NotFound) => {}
                    Err(status) => return Err(status),
                }
            }
        }
        respond::list(self.accepted, self.ctx, self.kind, &page)
    }
}

/// The refusal of an object without a name.
fn nameless(kind: &crate::kinds::Kind, object: &Object) -> Status {
    let path = apimachinery::field::Path::new("metadata").child("name");
    let mut errors = vec![apimachinery::field::Error::required(&path, "name or generateName is required")];
    errors.extend(kind.resource.strategy.validate(object));
    Status::invalid(&kind.resource.group_kind(), "", &errors)
}
