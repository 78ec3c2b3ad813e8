//! PATCH: JSON patch, merge patch, strategic merge patch and server-side apply.

use apimachinery::codec;
use apimachinery::schema::Schema;
use apimachinery::{GroupKind, GroupVersion, GroupVersionKind, Object, Status, Value, apply, field, patch};

use super::{Call, decode};
use crate::context::{Context, FieldValidation, WriteOptions};
use crate::http::body::{self, Request, Response};
use crate::http::negotiate;
use crate::registry::{Part, check_name, metadata};

pub const JSON_PATCH: &str = "application/json-patch+json";
pub const MERGE_PATCH: &str = "application/merge-patch+json";
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub const APPLY: &str = "application/apply-patch+yaml";

/// The patch types a built-in resource takes.
pub const TYPES: [&str; 4] = [JSON_PATCH, MERGE_PATCH, STRATEGIC, APPLY];

/// A patch as it was read.
pub struct Read<'a> {
    pub media_type: &'a str,
    pub parsed: &'a Value,
    /// What strict field validation says of the patch itself.
    pub duplicates: &'a [String],
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

impl Read<'_> {
    /// The object as a patch leaves it, decoded anew, so that what the patch brought is checked like any body.
    pub fn applied_to(
        &self,
        ctx: &Context,
        old: &Object,
        schema: &Schema,
        gvk: &GroupVersionKind,
        validation: FieldValidation,
    ) -> Result<Object, Status> {
        let Read { media_type, parsed, duplicates } = *self;
        let mut value = old.as_value().clone();
        match media_type {
            JSON_PATCH => patch::json_patch(&mut value, parsed)?,
            MERGE_PATCH => patch::merge_patch(&mut value, parsed)?,
            _ if parsed.is_null() => {}
            _ => value = patch::strategic_merge(&value, parsed, schema)?,
        }
        let bytes = serde_json::to_vec(&value).map_err(Status::internal)?;
        // upstream names neither kind nor object here: its decoder knows of none yet
        let refuse = |why: String| {
            let shown = match media_type {
                JSON_PATCH | MERGE_PATCH => String::from_utf8_lossy(&bytes).into_owned(),
                _ => go_value(parsed),
            };
            let error = field::Error::invalid(&field::Path::new("patch"), shown, why);
            Status::invalid(&GroupKind::new("", ""), "", &[error])
        };
        if media_type != STRATEGIC
            && let Some(why) = decode::other_kind(&value, gvk)
        {
            return Err(refuse(why));
        }
        let decoded = codec::decode_json(&bytes, schema).map_err(|error| {
            let of_tree = (media_type == STRATEGIC).then(|| codec::restore_error(&value, schema)).flatten();
            refuse(of_tree.unwrap_or_else(|| error.to_string()))
        })?;
        let of_patch = duplicates.iter().map(|error| match media_type {
            JSON_PATCH => format!("json patch {error}"),
            _ => error.clone(),
        });
        let strict_errors: Vec<String> = of_patch.chain(decoded.strict_errors).collect();
        decode::judge(ctx, &strict_errors, validation).map_err(refuse)?;
        let mut object = decoded.object;
        object.set_type(gvk);
        Ok(object)
    }
}

/// How upstream's YAML library begins its errors: it reads YAML as JSON.
const NOT_JSON: &str = "error converting YAML to JSON";

/// A patch that is not an apply, and what strict validation says of it.
pub fn read_patch(
    media_type: &str,
    bytes: &[u8],
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    // what is not read with an eye on fields is not read with words of its own either
    let with_words = media_type != STRATEGIC && validation != FieldValidation::Ignore;
    let refuse = |why: String| {
        Status::bad_request(if with_words { format!("error decoding patch: {why}") } else { why })
    };
    let (parsed, mut duplicates) =
        codec::parse_json_strict(bytes).map_err(|error| refuse(error.to_string()))?;
    let wanted = match (media_type, &parsed) {
        (JSON_PATCH, Value::Array(operations)) => {
            add_unknown(operations, &mut duplicates);
            return Ok((parsed, duplicates));
        }
        (JSON_PATCH, Value::Null) | (MERGE_PATCH | STRATEGIC, Value::Object(_)) => {
            return Ok((parsed, duplicates));
        }
        (STRATEGIC, Value::Null) => return Ok((parsed, duplicates)),
        (MERGE_PATCH, Value::Null) => return Err(Status::bad_request("invalid JSON Patch")),
        (JSON_PATCH, _) if with_words => "[]handlers.jsonPatchOp",
        (JSON_PATCH, _) => "jsonpatch.Patch",
        _ => "map[string]interface {}",
    };
    let got = codec::go_kind(&parsed);
    Err(refuse(format!("json: cannot unmarshal {got} into Go value of type {wanted}")))
}

/// Adds the fields that operations do not have to what is wrong with these, operation by operation.
fn add_unknown(operations: &[Value], errors: &mut Vec<String>) {
    const KNOWN: [&str; 4] = ["op", "path", "from", "value"];
    for (index, operation) in operations.iter().enumerate() {
        let fields = operation.as_object().into_iter().flat_map(|fields| fields.keys());
        for field in fields.filter(|field| !KNOWN.contains(&field.as_str())) {
            errors.push(format!("unknown field \"[{index}].{field}\""));
        }
    }
    let index_of = |error: &String| -> usize {
        error.split_once('[').and_then(|(_, rest)| rest.split_once(']')?.0.parse().ok()).unwrap_or_default()
    };
    errors.sort_by_key(index_of);
}

/// What is applied, as the user wrote it and no more, and what strict validation says of it.
pub fn read_apply(bytes: &[u8]) -> Result<(Object, Vec<String>), Status> {
    let refuse = |why: String| Status::bad_request(format!("error decoding YAML: {why}"));
    let (written, duplicates) =
        codec::parse_yaml_strict(bytes).map_err(|error| refuse(format!("{NOT_JSON}: {error}")))?;
    match written {
        Value::Object(_) => Ok((Object::from(written), duplicates)),
        Value::Null => Ok((Object::default(), duplicates)),
        other => Err(refuse(format!(
            "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {} into Go value of type \
             map[string]interface {{}}",
            codec::go_kind(&other)
        ))),
    }
}

/// Who applies says who it is, and only who applies may override others.
pub fn check_options(ctx: &Context, media_type: &str, options: WriteOptions) -> Result<(), Status> {
    let error = if media_type != APPLY && options.force {
        field::Error::forbidden(&field::Path::new("force"), "may not be specified for non-apply patch")
    } else if media_type == APPLY && ctx.query.text("fieldManager").is_empty() {
        field::Error::required(&field::Path::new("fieldManager"), "is required for apply patch")
    } else {
        return Ok(());
    };
    Err(Status::invalid(&GroupKind::new("meta.k8s.io", "PatchOptions"), "", &[error]))
}

/// What is applied says of which kind it is.
pub fn check_applied_type(applied: &Object, expected: &GroupVersionKind) -> Result<(), Status> {
    let said = GroupVersion::parse(applied.api_version()).map(|version| version.with_kind(applied.kind()));
    let said = said.unwrap_or_default();
    if said == *expected {
        return Ok(());
    }
    Err(Status::bad_request(format!("invalid object type: {said}")))
}

impl Call<'_> {
    pub async fn patch(&self, request: Request, part: Part) -> Result<Response, Status> {
        let options = self.ctx.write_options("PatchOptions")?;
        let media_type = negotiate::media_type(request.headers()).to_owned();
        let bytes = body::read(request.into_body()).await?;
        check_options(self.ctx, &media_type, options)?;
        if media_type == APPLY {
            return self.apply(&bytes, part, options).await;
        }
        let (parsed, duplicates) = match media_type.as_str() {
            JSON_PATCH | MERGE_PATCH | STRATEGIC => {
                read_patch(&media_type, &bytes, options.field_validation)?
            }
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
            let schema = &self.kind.schema;
            let gvk = self.kind.resource.gvk();
            let patched = read.applied_to(self.ctx, old, schema, &gvk, options.field_validation)?;
            if patched.name().is_empty() {
                return Err(self.nameless());
            }
            let patched = self.defaulted(patched);
            self.managed(Some(old), patched, part.name())
        };
        self.update(part, &transform, false, options).await
    }

    async fn apply(&self, bytes: &[u8], part: Part, options: WriteOptions) -> Result<Response, Status> {
        let (mut applied, duplicates) = read_apply(bytes)?;
        if let Some(trail) = &self.ctx.audit {
            trail.request_object(&applied);
        }
        let gvk = self.kind.resource.gvk();
        let said =
            GroupVersion::parse(applied.api_version()).map(|version| version.with_kind(applied.kind()));
        let said = said.unwrap_or_default();
        if said != gvk {
            return Err(Status::bad_request(format!("invalid object type: {said}")));
        }
        let (name, namespace) = (&self.ctx.info.name, &self.ctx.info.namespace);
        metadata::match_namespace(self.kind.resource, namespace, &mut applied)?;
        check_name(name, &applied)?;
        let transform = |old: Option<&Object>| {
            let mut applied = applied.clone();
            if old.is_none() && applied.name().is_empty() {
                return Err(self.nameless());
            }
            applied.set_name(name);
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
            for why in &duplicates {
                match options.field_validation {
                    FieldValidation::Strict => {
                        return Err(Status::bad_request(format!(
                            "error strict decoding YAML: {NOT_JSON}: {why}"
                        )));
                    }
                    FieldValidation::Warn => decode::warn_of(self.ctx, why),
                    FieldValidation::Ignore => {}
                }
            }
            Ok(self.defaulted(merged))
        };
        self.update(part, &transform, true, options).await
    }
}
