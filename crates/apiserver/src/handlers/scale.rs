//! `scale`: how many replicas, whatever the kind.

use api::autoscaling::SCALE_COLUMNS;
use apimachinery::apply;
use apimachinery::schema::Schema;
use apimachinery::{GroupVersionKind, Object, Status, Value};
use http::StatusCode;
use serde_json::json;

use super::patch::{
    APPLY, JSON_PATCH, MERGE_PATCH, Read, STRATEGIC, TYPES, check_applied_type, read_apply, read_patch,
};
use super::{Call, decode};
use crate::context::{Context, WriteOptions};
use crate::http::body::{self, Request, Response};
use crate::http::negotiate;
use crate::http::respond::{self, Look};
use crate::registry::{Part, check_name};

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
            let group_resource = self.kind.resource.group_resource();
            let old = old.ok_or_else(|| Status::not_found(&group_resource, &info.name))?;
            if put.is_none() && media_type == APPLY {
                return self.applied_scale(&bytes, &schema, old, options);
            }
            let wanted = match &put {
                Some(scale) => scale.clone(),
                None => patched(self.ctx, &media_type, &bytes, &scale_of(old), &schema, options)?,
            };
            self.check_scale_name(&wanted)?;
            let replicas = self.checked_replicas(&wanted, old)?;
            let mut new = old.clone();
            if !wanted.resource_version().is_empty() {
                new.set_resource_version(wanted.resource_version());
            }
            new.set(&["spec", "replicas"], replicas);
            self.managed(Some(old), new, "scale")
        };
        let updated = self
            .server
            .registry
            .update(self.ctx, self.kind, &info.namespace, &info.name, Part::Scale, &transform, false, options)
            .await?;
        Ok(answer(&updated.object))
    }

    /// How many replicas a scale wants, where it is in order and of this object.
    fn checked_replicas(&self, wanted: &Object, old: &Object) -> Result<i64, Status> {
        let replicas = wanted.get_i64(&["spec", "replicas"]).unwrap_or_default();
        if replicas < 0 {
            let path = apimachinery::field::Path::new("spec").child("replicas");
            let why = "must be greater than or equal to 0";
            let error = apimachinery::field::Error::invalid(&path, replicas, why);
            let kind = apimachinery::GroupKind::new("autoscaling", "Scale");
            return Err(Status::invalid(&kind, old.name(), &[error]));
        }
        let mut resource = self.kind.resource.group_resource();
        if !wanted.uid().is_empty() && wanted.uid() != old.uid() {
            resource.resource.push_str("/scale");
            let (asked, there) = (wanted.uid(), old.uid());
            let why =
                format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {there}");
            return Err(Status::conflict(&resource, old.name(), why));
        }
        let version = wanted.resource_version();
        if !version.is_empty() && version != old.resource_version() {
            return Err(Status::modified(&resource, old.name()));
        }
        Ok(replicas)
    }

    /// The object with the replicas of an applied scale, whose manager owns them by that.
    fn applied_scale(
        &self,
        bytes: &[u8],
        schema: &Schema,
        old: &Object,
        options: WriteOptions,
    ) -> Result<Object, Status> {
        let (scale, _) = read_apply(bytes)?;
        check_applied_type(&scale, &gvk())?;
        check_name(&self.ctx.info.name, &scale)?;
        let apply = |live: &Object, applied: &Object, schema: &Schema, force: bool| {
            let (manager, now, part) = (self.ctx.field_manager(), self.ctx.now_time(), Part::Scale.name());
            let ownable = self.ownable(part);
            apply::apply(Some(live), applied, schema, &manager, force, now, part, Some(&ownable))
        };
        // whether it is a scale at all; who owns what is known by the object
        apply(&scale_of(old), &scale, schema, true)?;
        self.checked_replicas(&scale, old)?;
        let mut applied = Object::default();
        applied.set_type(&self.kind.resource.gvk());
        applied.set_name(old.name());
        if let Some(replicas) = scale.get(&["spec", "replicas"]) {
            applied.set(&["spec", "replicas"], replicas.clone());
        }
        let mut new = apply(old, &applied, &self.kind.schema, options.force)?;
        if new.get(&["spec", "replicas"]).is_none() {
            // nobody wants any
            new.set(&["spec", "replicas"], 0);
        }
        Ok(new)
    }

    fn check_scale_name(&self, scale: &Object) -> Result<(), Status> {
        if scale.name().is_empty() {
            return Err(self.nameless());
        }
        check_name(&self.ctx.info.name, scale)
    }
}

fn patched(
    ctx: &Context,
    media_type: &str,
    bytes: &[u8],
    scale: &Object,
    schema: &Schema,
    options: WriteOptions,
) -> Result<Object, Status> {
    match media_type {
        JSON_PATCH | MERGE_PATCH | STRATEGIC => {
            let (parsed, duplicates) = read_patch(media_type, bytes, options.field_validation)?;
            let read = Read { media_type, parsed: &parsed, duplicates: &duplicates };
            read.applied_to(ctx, scale, schema, &gvk(), options.field_validation)
        }
        _ => Err(negotiate::unsupported(&TYPES)),
    }
}
