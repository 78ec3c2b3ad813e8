//! PATCH: JSON patch, merge patch, strategic merge patch and server-side apply.

use apimachinery::codec;
use apimachinery::{GroupKind, Object, Status, Value, apply, field, patch};

use super::{Call, decode};
use crate::context::{FieldValidation, WriteOptions};
use crate::http::body::{self, Request, Response};
use crate::http::negotiate::{self, Format};
use crate::registry::Part;

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// The patch types a built-in resource takes.
const TYPES: [&str; 4] = [JSON_PATCH, MERGE_PATCH, STRATEGIC, APPLY];

/// A patch as it was read.
struct Read<'a> {
    media_type: &'a str,
    parsed: &'a Value,
    /// What strict field validation says of the patch itself.
    duplicates: &'a [String],
}

/// A value as Go prints one with `%+v`, which is how upstream quotes a strategic merge patch.
fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(go_value).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut members: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}:{}", go_value(value))).collect();
            members.sort_unstable();
            format!("map[{}]", members.join(" "))
        }
        other => other.to_string(),
    }
}

impl Call<'_> {
    pub async fn patch(&self, request: Request, part: Part) -> Result<Response, Status> {
        let options = self.ctx.write_options("PatchOptions")?;
        let media_type = negotiate::media_type(request.headers()).to_owned();
        let bytes = body::read(request.into_body()).await?;
        if media_type == APPLY {
            return self.apply(&bytes, part, options).await;
        }
        if options.force {
            let path = field::Path::new("force");
            let error = field::Error::forbidden(&path, "may not be specified for non-apply patch");
            let kind = GroupKind::new("meta.k8s.io", "PatchOptions");
            return Err(Status::invalid(&kind, "", &[error]));
        }
        let (parsed, duplicates) = match media_type.as_str() {
            JSON_PATCH | MERGE_PATCH | STRATEGIC => codec::parse_json_strict(&bytes)
                .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?,
            _ => return Err(negotiate::unsupported(&TYPES)),
        };
        let read = Read { media_type: &media_type, parsed: &parsed, duplicates: &duplicates };
        if let Some(trail) = &self.ctx.audit {
            trail.request_patch(&parsed);
        }
        let transform = |old: Option<&Object>| {
            let old = old.ok_or_else(|| {
                Status::not_found(&self.kind.resource.group_resource(), &self.ctx.info.name)
            })?;
            let patched = self.patched(&read, old, options.field_validation)?;
            self.managed(Some(old), patched, part.name())
        };
        self.update(part, &transform, false, options).await
    }

    /// The object as a patch leaves it, decoded anew, so that what the patch brought is checked like any body.
    fn patched(&self, read: &Read<'_>, old: &Object, validation: FieldValidation) -> Result<Object, Status> {
        let Read { media_type, parsed, duplicates } = *read;
        let schema = &self.kind.schema;
        let mut value = old.as_value().clone();
        match media_type {
            JSON_PATCH => patch::json_patch(&mut value, parsed)?,
            MERGE_PATCH => {
                if !parsed.is_object() {
                    return Err(Status::bad_request("error decoding patch: a merge patch is an object"));
                }
                patch::merge_patch(&mut value, parsed)?;
            }
            _ => {
                if !parsed.is_object() {
                    return Err(Status::bad_request(
                        "error decoding patch: a strategic merge patch is an object",
                    ));
                }
                value = patch::strategic_merge(&value, parsed, schema)?;
            }
        }
        let bytes = serde_json::to_vec(&value).map_err(Status::internal)?;
        let gvk = self.kind.resource.gvk();
        // upstream names neither kind nor object here: its decoder knows of none yet
        let refuse = |why: String| {
            let shown = match media_type {
                JSON_PATCH | MERGE_PATCH => String::from_utf8_lossy(&bytes).into_owned(),
                _ => go_value(parsed),
            };
            let error = field::Error::invalid(&field::Path::new("patch"), shown, why);
            Status::invalid(&GroupKind::new("", ""), "", &[error])
        };
        let decoded = codec::decode_json(&bytes, schema).map_err(|error| refuse(error.to_string()))?;
        let of_patch = duplicates.iter().map(|error| match media_type {
            JSON_PATCH => format!("json patch {error}"),
            _ => error.clone(),
        });
        let strict_errors: Vec<String> = of_patch.chain(decoded.strict_errors).collect();
        decode::judge(self.ctx, &strict_errors, validation).map_err(refuse)?;
        let mut object = decoded.object;
        object.set_type(&gvk);
        Ok(self.defaulted(object))
    }

    async fn apply(&self, bytes: &[u8], part: Part, options: WriteOptions) -> Result<Response, Status> {
        if self.ctx.query.text("fieldManager").is_empty() {
            let path = field::Path::new("fieldManager");
            let error = field::Error::required(&path, "is required for apply patch");
            let kind = GroupKind::new("meta.k8s.io", "PatchOptions");
            return Err(Status::invalid(&kind, "", &[error]));
        }
        let gvk = self.kind.resource.gvk();
        // read once to judge it, and once as it was written: what is applied is what the user wrote, no more
        decode::decode(self.ctx, bytes, Format::Yaml, &self.kind.schema, &gvk, options.field_validation)?;
        let written = codec::parse_yaml(bytes).map_err(|error| Status::bad_request(error.to_string()))?;
        let mut applied = Object::from(written);
        applied.set_type(&gvk);
        if applied.get(&["metadata", "managedFields"]).is_some() {
            return Err(Status::bad_request("metadata.managedFields must be nil"));
        }
        if !applied.name().is_empty() && applied.name() != self.ctx.info.name {
            return Err(Status::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                applied.name(),
                self.ctx.info.name
            )));
        }
        let transform = |old: Option<&Object>| {
            let mut applied = applied.clone();
            applied.set_name(&self.ctx.info.name);
            if self.kind.resource.namespaced {
                applied.set_namespace(&self.ctx.info.namespace);
            }
            if let (None, uid) = (old, applied.uid())
                && !uid.is_empty()
            {
                let why = format!(
                    "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                );
                return Err(Status::conflict(&self.kind.resource.group_resource(), applied.name(), why));
            }
            let merged = apply::apply(
                old,
                &applied,
                &self.kind.schema,
                &self.ctx.field_manager(),
                options.force,
                self.ctx.now_time(),
                part.name(),
                Some(&self.ownable(part.name())),
            )?;
            Ok(self.defaulted(merged))
        };
        self.update(part, &transform, true, options).await
    }
}
