//! How answers are written: objects, lists, tables, metadata alone, failures; in JSON, YAML or protobuf.

use api::catalogue::{Column, Now};
use apimachinery::codec::{self, EncodedJson, EncodedProtobuf, ListHeader};
use apimachinery::schema::Schema;
use apimachinery::{Object, Status, Value};
use bytes::Bytes;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use serde_json::json;

use super::body::{Response, full};
use super::list_body;
use super::negotiate::{Accepted, As, Format};
use crate::cache::Entry;
use crate::context::Context;
use crate::kinds::Kind;
use crate::registry::list::Page;

const META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1";

/// An answer with a body of a media type.
pub fn bytes(code: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(full(body));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

pub fn text(code: StatusCode, body: impl Into<String>) -> Response {
    bytes(code, "text/plain; charset=utf-8", body.into())
}

pub fn json(code: StatusCode, value: &Value) -> Response {
    let mut body = value.to_string();
    body.push('\n');
    bytes(code, "application/json", body)
}

/// A failure, in the format that was asked for, JSON where that could not be made out.
pub fn failure(status: &Status, accepted: Option<Accepted>) -> Response {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let format = accepted.map_or(Format::Json, |accepted| accepted.format);
    let pretty = accepted.is_some_and(|accepted| accepted.pretty);
    let object = Object::from(status.to_value());
    let mut response = match Schema::builtin(META, "Status") {
        Some(schema) => encoded(code, format, pretty, &object, &schema),
        None => json(code, object.as_value()),
    };
    if let Some(seconds) = status.details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0) {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// The answer of a delete that left nothing behind, and of writes that have no object to show.
pub fn success(accepted: Accepted, code: StatusCode, kind: &Kind, object: &Object) -> Response {
    let details = json!({
        "name": object.name(), "group": kind.resource.group, "kind": kind.resource.plural, "uid": object.uid(),
    });
    success_status(accepted, code, details)
}

pub fn success_status(accepted: Accepted, code: StatusCode, details: Value) -> Response {
    let mut object = Object::from(json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
    }));
    match Schema::builtin(META, "Status") {
        Some(schema) => {
            // empty strings go, as in every object
            if let Err(error) = codec::normalize(&mut object, &schema) {
                tracing::error!(%error, "a Status of the server's own making is not well-formed");
            }
            encoded(code, accepted.format, accepted.pretty, &object, &schema)
        }
        None => json(code, object.as_value()),
    }
}

/// One object in a format.
pub fn encoded(code: StatusCode, format: Format, pretty: bool, object: &Object, schema: &Schema) -> Response {
    let mut out = Vec::new();
    match format {
        Format::Json => {
            codec::encode_json(object, schema, &mut out);
            if pretty {
                out = indent(&out);
            }
            out.push(b'\n');
        }
        Format::Protobuf => codec::encode_protobuf(object, schema, &mut out),
        Format::Yaml => codec::encode_yaml(object, &mut out),
    }
    bytes(code, format.media_type(), out)
}

/// What an object looks like to clients.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    pub schema: &'a Schema,
    pub columns: &'a [Column],
    /// As Go prints the type that holds it in the server.
    pub go_type: &'a str,
}

/// One object of a kind, in whatever shape the client asked for.
pub fn object(accepted: Accepted, code: StatusCode, ctx: &Context, kind: &Kind, object: &Object) -> Response {
    let go_type = go_type(kind);
    let look = Look { schema: &kind.schema, columns: kind.resource.columns, go_type: &go_type };
    shaped(accepted, code, ctx, look, object)
}

/// One object, of whatever type, in the shape that the client asked for.
pub fn shaped(
    accepted: Accepted,
    code: StatusCode,
    ctx: &Context,
    look: Look<'_>,
    object: &Object,
) -> Response {
    match accepted.r#as {
        As::Itself => encoded(code, accepted.format, accepted.pretty, object, look.schema),
        As::PartialObjectMetadata => {
            match (metadata_of(object), Schema::builtin(META, "PartialObjectMetadata")) {
                (object, Some(schema)) => encoded(code, accepted.format, accepted.pretty, &object, &schema),
                (object, None) => json(code, object.as_value()),
            }
        }
        As::Table => {
            let version = object.resource_version();
            let rows = vec![row(look.columns, object, ctx)];
            let meta = list_meta(version, "", None);
            as_table(accepted, code, ctx, &table(look.columns, rows, meta, true))
        }
        As::PartialObjectMetadataList => {
            failure(&unfit("PartialObjectMetadataList", "not a list", look.go_type), Some(accepted))
        }
    }
}

/// One cached object; its encodings are shared.
pub fn entry(
    accepted: Accepted,
    code: StatusCode,
    ctx: &Context,
    kind: &Kind,
    entry: &Entry,
) -> Result<Response, Status> {
    if accepted.r#as == As::Itself && !kind.converts() && !accepted.pretty {
        match accepted.format {
            Format::Json => {
                let json = entry.json().map_err(Status::internal)?;
                let mut body = Vec::with_capacity(json.size_hint());
                json.append(entry.revision(), &mut body);
                body.push(b'\n');
                return Ok(bytes(code, Format::Json.media_type(), body));
            }
            Format::Protobuf => {
                let mut body = Vec::with_capacity(entry.protobuf().stored().len() + 32);
                entry.protobuf().append(entry.revision(), &mut body);
                return Ok(bytes(code, Format::Protobuf.media_type(), body));
            }
            Format::Yaml => {}
        }
    }
    let mut decoded = entry.object().map_err(Status::internal)?;
    kind.convert_from_stored(&mut decoded);
    Ok(object(accepted, code, ctx, kind, &decoded))
}

/// A page of a list.
pub fn list(accepted: Accepted, ctx: &Context, kind: &Kind, page: &Page) -> Result<Response, Status> {
    let version = page.revision.to_string();
    let meta = list_meta(&version, &page.r#continue, page.remaining);
    let header = ListHeader {
        api_version: kind.resource.gvk().api_version(),
        kind: format!("{}List", kind.resource.kind),
        resource_version: version,
        continue_token: page.r#continue.clone(),
        remaining_item_count: page.remaining.and_then(|count| i64::try_from(count).ok()),
    };
    match accepted.r#as {
        As::Itself
            if !kind.converts()
                && !accepted.pretty
                && list_body::is_large(page)
                && format_streams(accepted) =>
        {
            let body = list_body::stream(accepted.format, header, &page.entries);
            let mut response = bytes(StatusCode::OK, accepted.format.media_type(), "");
            *response.body_mut() = body;
            Ok(response)
        }
        As::Itself if accepted.format == Format::Json && !accepted.pretty => {
            list_json(kind, page, &header).map(|body| bytes(StatusCode::OK, Format::Json.media_type(), body))
        }
        As::Itself if accepted.format == Format::Protobuf => list_protobuf(kind, page, &header)
            .map(|body| bytes(StatusCode::OK, Format::Protobuf.media_type(), body)),
        As::Itself => {
            let body = list_json(kind, page, &header)?;
            match accepted.format {
                Format::Yaml => {
                    let value: Value = serde_json::from_slice(&body).map_err(Status::internal)?;
                    let mut text = Vec::new();
                    codec::encode_yaml(&Object::from(value), &mut text);
                    Ok(bytes(StatusCode::OK, Format::Yaml.media_type(), text))
                }
                _ => Ok(bytes(StatusCode::OK, Format::Json.media_type(), indent(&body))),
            }
        }
        As::Table => {
            let mut rows = Vec::with_capacity(page.entries.len());
            for entry in &page.entries {
                let object = entry.object().map_err(Status::internal)?;
                rows.push(row(kind.resource.columns, &object, ctx));
            }
            Ok(as_table(accepted, StatusCode::OK, ctx, &table(kind.resource.columns, rows, meta, true)))
        }
        As::PartialObjectMetadata => {
            Err(unfit("PartialObjectMetadata", "a list", &format!("{}List", go_type(kind))))
        }
        As::PartialObjectMetadataList => {
            let mut items = Vec::with_capacity(page.entries.len());
            for entry in &page.entries {
                items.push(metadata(kind, entry)?.into_value());
            }
            let list = Object::from(json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "items": items,
            }));
            let schema = Schema::builtin(META, "PartialObjectMetadataList")
                .ok_or_else(|| Status::internal("no schema of PartialObjectMetadataList"))?;
            Ok(encoded(StatusCode::OK, accepted.format, accepted.pretty, &list, &schema))
        }
    }
}

/// A kind as Go prints the type that holds it in the server.
fn go_type(kind: &Kind) -> String {
    let package = kind.resource.group.split('.').next().filter(|name| !name.is_empty()).unwrap_or("core");
    format!("*{package}.{}", kind.resource.kind)
}

fn unfit(asked: &str, is: &str, what: &str) -> Status {
    Status::not_acceptable(format!("you requested {asked}, but the requested object is {is} ({what})"))
}

fn as_table(accepted: Accepted, code: StatusCode, ctx: &Context, table: &Value) -> Response {
    if let Err(status) = check_include(ctx) {
        return failure(&status, Some(accepted));
    }
    match accepted.format {
        Format::Yaml => {
            let mut text = Vec::new();
            codec::encode_yaml(&Object::from(table.clone()), &mut text);
            bytes(code, Format::Yaml.media_type(), text)
        }
        _ => json(code, table),
    }
}

/// Whether a table can be had with what was asked to go with its rows.
pub fn check_include(ctx: &Context) -> Result<(), Status> {
    match ctx.query.text("includeObject") {
        "" | "None" | "Metadata" | "Object" => Ok(()),
        other => Err(Status::bad_request(format!(
            "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', \
             'Object', 'None', or empty"
        ))),
    }
}

fn format_streams(accepted: Accepted) -> bool {
    matches!(accepted.format, Format::Json | Format::Protobuf)
}

fn list_json(kind: &Kind, page: &Page, header: &ListHeader) -> Result<Vec<u8>, Status> {
    let converted = converted(kind, page, EncodedJson::new)?;
    let mut items = Vec::with_capacity(page.entries.len());
    for (index, entry) in page.entries.iter().enumerate() {
        let json = match converted.get(index) {
            Some(json) => json,
            None => entry.json().map_err(Status::internal)?,
        };
        items.push((json, entry.revision()));
    }
    let size: usize = items.iter().map(|(json, _)| json.size_hint()).sum();
    let mut out = Vec::with_capacity(size + 256);
    codec::encode_json_list(header, false, items, &mut out);
    out.push(b'\n');
    Ok(out)
}

fn list_protobuf(kind: &Kind, page: &Page, header: &ListHeader) -> Result<Vec<u8>, Status> {
    let converted = converted(kind, page, EncodedProtobuf::new)?;
    let items =
        page.entries.iter().enumerate().map(|(index, entry)| {
            (converted.get(index).unwrap_or_else(|| entry.protobuf()), entry.revision())
        });
    let mut out = Vec::new();
    codec::encode_protobuf_list(header, items, &mut out);
    Ok(out)
}

/// The items of a kind that shares another's store, encoded anew; none for a kind that is stored as it is shown.
fn converted<T>(kind: &Kind, page: &Page, encode: fn(&Object, &Schema) -> T) -> Result<Vec<T>, Status> {
    if !kind.converts() {
        return Ok(Vec::new());
    }
    let mut out = Vec::with_capacity(page.entries.len());
    for entry in &page.entries {
        let mut object = entry.object().map_err(Status::internal)?;
        kind.convert_from_stored(&mut object);
        out.push(encode(&object, &kind.schema));
    }
    Ok(out)
}

pub fn list_meta(version: &str, r#continue: &str, remaining: Option<usize>) -> Value {
    let mut meta = json!({"resourceVersion": version});
    if !r#continue.is_empty() {
        meta["continue"] = json!(r#continue);
    }
    if let Some(remaining) = remaining {
        meta["remainingItemCount"] = json!(remaining);
    }
    meta
}

/// An object's metadata as an object of its own.
pub fn metadata_of(object: &Object) -> Object {
    partial(object.get(&["metadata"]).cloned())
}

/// Like [`metadata_of`], of an object that nobody needs any more.
pub fn into_metadata(mut object: Object) -> Object {
    partial(object.remove(&["metadata"]))
}

fn partial(metadata: Option<Value>) -> Object {
    let metadata = metadata.unwrap_or_else(|| json!({}));
    Object::from(
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}),
    )
}

/// A cached object's metadata as an object of its own, as clients of `kind` see it.
pub fn metadata(kind: &Kind, entry: &Entry) -> Result<Object, Status> {
    if !kind.converts() {
        return entry.metadata().map_err(Status::internal);
    }
    let mut object = entry.object().map_err(Status::internal)?;
    kind.convert_from_stored(&mut object);
    Ok(into_metadata(object))
}

/// One row; what it carries of the object is as `includeObject` says.
pub fn row(columns: &[Column], object: &Object, ctx: &Context) -> Value {
    let now = Now(ctx.now.timestamp());
    let cells: Vec<Value> = columns.iter().map(|column| (column.cell)(object, &now)).collect();
    match ctx.query.text("includeObject") {
        "None" => json!({"cells": cells, "object": null}),
        "Object" => json!({"cells": cells, "object": object.as_value()}),
        _ => json!({"cells": cells, "object": metadata_of(object).as_value()}),
    }
}

pub fn table(columns: &[Column], rows: Vec<Value>, meta: Value, with_columns: bool) -> Value {
    let definitions: Vec<Value> = columns
        .iter()
        .map(|column| {
            json!({
                "name": column.name, "type": column.r#type, "format": column.format,
                "description": column.description, "priority": column.priority,
            })
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta,
        "columnDefinitions": if with_columns { json!(definitions) } else { Value::Null },
        "rows": rows,
    })
}

/// Adds the warnings that a request gathered.
pub fn warn(response: &mut Response, ctx: &Context) {
    for warning in ctx.warnings.lock().iter() {
        let escaped: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| if matches!(c, '"' | '\\') { vec!['\\', c] } else { vec![c] })
            .collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{escaped}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

/// JSON with two spaces a level, in the order it has.
pub fn indent(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    let newline = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + 2 * depth, b' ');
    };
    let mut bytes = json.iter().copied().filter(|byte| *byte != b'\n').peekable();
    while let Some(byte) = bytes.next() {
        if in_string {
            out.push(byte);
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'"' => {
                in_string = true;
                out.push(byte);
            }
            b'{' | b'[' => {
                out.push(byte);
                let close = if byte == b'{' { b'}' } else { b']' };
                if bytes.next_if_eq(&close).is_some() {
                    out.push(close);
                } else {
                    depth += 1;
                    newline(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                newline(&mut out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                newline(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            _ => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indenting_keeps_order_and_strings() {
        let text = indent(br#"{"b":{},"a":[1,"x:{\",}"],"c":[]}"#);
        let expected = "{\n  \"b\": {},\n  \"a\": [\n    1,\n    \"x:{\\\",}\"\n  ],\n  \"c\": []\n}";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
