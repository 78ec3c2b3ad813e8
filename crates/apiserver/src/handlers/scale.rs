//! `scale`: how many replicas, whatever the kind.

use api::autoscaling::SCALE_COLUMNS;
use apimachinery::apply::{self, managers_from_scale, managers_to_scale};
use apimachinery::schema::Schema;
use apimachinery::{GroupResource, GroupVersionKind, Object, Status, Value};
use http::StatusCode;
use serde_json::json;

use super::patch::{
    APPLY, JSON_PATCH, MERGE_PATCH, Read, STRATEGIC, TYPES, check_applied_type, check_options, read_apply,
    read_patch,
};
use super::{Call, decode};
use crate::context::{Context, WriteOptions};
use crate::http::body::{self, Request, Response};
use crate::http::negotiate;
use crate::http::respond::{self, Look};
use crate::registry::{Part, check_name, metadata};

const PACKAGE: &str = "k8s.io.api.autoscaling.v1";

fn gvk() -> GroupVersionKind {
    GroupVersionKind::new("autoscaling", "v1", "Scale")
}

/// The scale of an object.
fn scale_of(object: &Object) -> Object {
    let mut scale = Object::default();
    scale.set_type(&gvk());
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.get(&["metadata", key]) {
            scale.set(&["metadata", key], value.clone());
        }
    }
    scale.set(&["spec"], json!({}));
    if let Some(replicas) = object.get_i64(&["spec", "replicas"]).filter(|n| *n != 0) {
        scale.set(&["spec", "replicas"], replicas);
    }
    scale.set(&["status", "replicas"], object.get_i64(&["status", "replicas"]).unwrap_or_default());
    let mut selector = object.get(&["spec", "selector"]).cloned().unwrap_or(Value::Null);
    if object.kind() == "ReplicationController" {
        // its selector is but a map of labels
        selector = json!({"matchLabels": selector});
    }
    if let Ok(selector) = apimachinery::selectors::LabelSelector::from_label_selector(&selector) {
        scale.set(&["status", "selector"], selector.to_string());
    }
    scale
}

impl Call<'_> {
    pub async fn scale(&self, request: Request) -> Result<Response, Status> {
        let schema =
            Schema::builtin(PACKAGE, "Scale").ok_or_else(|| Status::internal("no schema of Scale"))?;
        let info = &self.ctx.info;
        let answer = |object: &Object| {
            let look = Look { schema: &schema, columns: SCALE_COLUMNS, go_type: "*autoscaling.Scale" };
            respond::shaped(self.accepted, StatusCode::OK, self.ctx, look, &scale_of(object))
        };
        if info.verb == "get" {
            let entry = self.server.registry.get(self.kind, &info.namespace, &info.name, "").await?;
            return Ok(answer(&entry.object().map_err(Status::internal)?));
        }
        let options =
            self.ctx.write_options(if info.verb == "patch" { "PatchOptions" } else { "UpdateOptions" })?;
        let media_type = negotiate::media_type(request.headers()).to_owned();
        if info.verb == "patch" {
            check_options(self.ctx, &media_type, options)?;
        }
        let format = negotiate::content(request.headers());
        let bytes = body::read(request.into_body()).await?;
        let put = match info.verb {
            "update" => {
                Some(decode::decode(self.ctx, &bytes, format?, &schema, &gvk(), options.field_validation)?)
            }
            _ => None,
        };
        if let Some(scale) = &put {
            self.check_scale_name(scale)?;
        }
        let transform = |old: Option<&Object>| {
            let old =
                old.ok_or_else(|| Status::not_found(&self.kind.resource.group_resource(), &info.name))?;
            let mut scale = scale_of(old);
            managers_to_scale(old, &mut scale).map_err(Status::internal)?;
            let write = Write { ctx: self.ctx, old: &scale, schema: &schema, options };
            let wanted = match &put {
                Some(scale) => write.updated_to(scale.clone()),
                None => write.patched(&media_type, &bytes)?,
            };
            self.check_scale_name(&wanted)?;
            let replicas = wanted.get_i64(&["spec", "replicas"]).unwrap_or_default();
            if replicas < 0 {
                let path = apimachinery::field::Path::new("spec").child("replicas");
                let why = "must be greater than or equal to 0";
                let error = apimachinery::field::Error::invalid(&path, replicas, why);
                let kind = apimachinery::GroupKind::new("autoscaling", "Scale");
                return Err(Status::invalid(&kind, &info.name, &[error]));
            }
            let resource = self.kind.resource.group_resource();
            if !["", old.uid()].contains(&wanted.uid()) {
                let why = format!(
                    "Precondition failed: UID in precondition: {}, UID in object meta: {}",
                    wanted.uid(),
                    old.uid()
                );
                let scale = GroupResource::new(&resource.group, format!("{}/scale", resource.resource));
                return Err(Status::conflict(&scale, old.name(), why));
            }
            let version = metadata::version_of(&wanted)?;
            if version != 0 && version != metadata::version_of(old)? {
                return Err(Status::modified(&resource, &info.name));
            }
            let mut new = old.clone();
            new.set(&["spec", "replicas"], replicas);
            managers_from_scale(&wanted, &mut new).map_err(Status::internal)?;
            Ok(new)
        };
        let updated = self
            .server
            .registry
            .update(self.ctx, self.kind, &info.namespace, &info.name, Part::Scale, &transform, false, options)
            .await?;
        Ok(answer(&updated.object))
    }

    fn check_scale_name(&self, scale: &Object) -> Result<(), Status> {
        if scale.name().is_empty() {
            return Err(self.nameless());
        }
        check_name(&self.ctx.info.name, scale)
    }
}

/// A write to a scale.
struct Write<'a> {
    ctx: &'a Context,
    /// The scale as it is, with its managers.
    old: &'a Object,
    schema: &'a Schema,
    options: WriteOptions,
}

impl Write<'_> {
    fn updated_to(&self, new: Object) -> Object {
        let (manager, now) = (self.ctx.field_manager(), self.ctx.now_time());
        apply::update(Some(self.old), new, self.schema, &manager, now, "scale", None)
    }

    fn patched(&self, media_type: &str, bytes: &[u8]) -> Result<Object, Status> {
        let Self { ctx, old, schema, options } = *self;
        match media_type {
            JSON_PATCH | MERGE_PATCH | STRATEGIC => {
                let (parsed, duplicates) = read_patch(media_type, bytes, options.field_validation)?;
                let read = Read { media_type, parsed: &parsed, duplicates: &duplicates };
                let new = read.applied_to(ctx, old, schema, &gvk(), options.field_validation)?;
                Ok(self.updated_to(new))
            }
            APPLY => {
                let (mut applied, _) = read_apply(bytes)?;
                check_applied_type(&applied, &gvk())?;
                if applied.name().is_empty() {
                    applied.set_name(old.name());
                }
                let (manager, now) = (ctx.field_manager(), ctx.now_time());
                apply::apply(Some(old), &applied, schema, &manager, options.force, now, "scale", None)
            }
            _ => Err(negotiate::unsupported(&TYPES)),
        }
    }
}
