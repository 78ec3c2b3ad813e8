//! OpenAPI v2 and v3, made from the descriptor table when first asked for and kept.

mod paths;
mod protobuf;
mod schemas;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use http::HeaderMap;
use http::StatusCode;
use http::header::{CACHE_CONTROL, EXPIRES, HeaderValue, LOCATION, VARY};
use serde_json::{Value, json};
use sha2::{Digest, Sha512};

use crate::discovery;
use crate::http::body::Response;
use crate::http::request_info::Query;
use crate::http::{negotiate, respond};
use crate::nonresource::VERSION;
use crate::server::Server;

/// The documents of one server.
#[derive(Default)]
pub struct Documents {
    v2: OnceLock<Document>,
    v3: OnceLock<BTreeMap<String, Document>>,
}

/// A document in both of its formats. They share a hash, which `Vary` keeps apart for those who cache.
struct Document {
    json: Bytes,
    hash: String,
    protobuf: OnceLock<Bytes>,
    encode: fn(&Value) -> Vec<u8>,
}

impl Document {
    fn new(value: &Value, encode: fn(&Value) -> Vec<u8>) -> Self {
        let json = Bytes::from(value.to_string());
        let hash = format!("{:X}", Sha512::digest(&json));
        Self { json, hash, protobuf: OnceLock::new(), encode }
    }

    /// The body of a format, made when somebody asks for it.
    fn body(&self, format: Format) -> Bytes {
        let encoded = || {
            let value: Value = serde_json::from_slice(&self.json).unwrap_or_default();
            (self.encode)(&value).into()
        };
        match format {
            Format::Json => self.json.clone(),
            Format::Protobuf => self.protobuf.get_or_init(encoded).clone(),
        }
    }

    fn answer(&self, headers: &HeaderMap, format: Format, protobuf: &'static str) -> Response {
        let media_type = match format {
            Format::Json => "application/json",
            Format::Protobuf => protobuf,
        };
        let etag = format!("\"{}\"", self.hash);
        varied(discovery::document(headers, media_type, &etag, self.body(format)))
    }
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": VERSION})
}

/// The names that protobuf goes by: the one of old that client-go asks for, and the one that it is told it got.
struct Protobuf {
    asked: &'static str,
    sent: &'static str,
}

const V2: Protobuf = Protobuf {
    asked: "com.github.proto-openapi.spec.v2@v1.0+protobuf",
    sent: "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
};
const V3: Protobuf = Protobuf {
    asked: "com.github.proto-openapi.spec.v3@v1.0+protobuf",
    sent: "application/com.github.proto-openapi.spec.v3.v1.0+protobuf",
};

/// The one document of v2.
pub fn v2(server: &Server, headers: &HeaderMap) -> Response {
    let Some(format) = wanted(headers, &V2) else { return not_acceptable() };
    let document = server.openapi.v2.get_or_init(|| {
        let resources: Vec<_> = server.registry.kinds.all().map(|kind| kind.resource).collect();
        let mut schemas = schemas::Schemas::new(schemas::Dialect::V2);
        let paths = paths::paths(&resources, &mut schemas);
        let document = json!({
            "swagger": "2.0", "info": info(), "paths": paths, "definitions": schemas.finish(),
            "securityDefinitions": {"BearerToken": {
                "description": "Bearer Token authentication", "type": "apiKey", "name": "authorization", "in": "header",
            }},
            "security": [{"BearerToken": []}],
        });
        Document::new(&document, protobuf::v2::document)
    });
    document.answer(headers, format, V2.sent)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Format {
    Json,
    Protobuf,
}

/// The best format of `Accept` that there is; JSON for those who do not say.
fn wanted(headers: &HeaderMap, protobuf: &Protobuf) -> Option<Format> {
    negotiate::clauses(negotiate::accept(headers)).into_iter().find_map(|clause| {
        let (kind, format) = clause.media_type.split_once('/')?;
        let sent = protobuf.sent.strip_prefix("application/");
        match format {
            _ if !matches!(kind, "application" | "*") => None,
            "json" | "*" => Some(Format::Json),
            name if name == protobuf.asked || Some(name) == sent => Some(Format::Protobuf),
            _ => None,
        }
    })
}

fn not_acceptable() -> Response {
    varied(respond::text(StatusCode::NOT_ACCEPTABLE, ""))
}

/// Notes that another client may get the same in another format.
fn varied(mut response: Response) -> Response {
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept"));
    response
}

/// The documents of v3 by path, such as `api/v1` or `apis/apps/v1`.
fn documents(server: &Server) -> &BTreeMap<String, Document> {
    server.openapi.v3.get_or_init(|| {
        let mut groups: BTreeMap<String, Vec<&'static api::Resource>> = BTreeMap::new();
        for kind in server.registry.kinds.all() {
            let resource = kind.resource;
            groups.entry(paths::root(resource)).or_default().push(resource);
        }
        groups
            .into_iter()
            .map(|(path, resources)| {
                let mut schemas = schemas::Schemas::new(schemas::Dialect::V3);
                let paths = paths::paths(&resources, &mut schemas);
                let document = json!({
                    "openapi": "3.0.0", "info": info(), "paths": paths,
                    "components": {
                        "schemas": schemas.finish(),
                        "securitySchemes": {"BearerToken": {
                            "description": "Bearer Token authentication", "type": "apiKey",
                            "name": "authorization", "in": "header",
                        }},
                    },
                });
                (path.trim_start_matches('/').to_owned(), Document::new(&document, protobuf::v3::document))
            })
            .collect()
    })
}

/// The index of v3: each document's path with the hash of what it says now. As upstream's aggregator, it does not say
/// that it is JSON.
pub fn v3_index(server: &Server) -> Response {
    let paths: serde_json::Map<String, Value> = documents(server)
        .iter()
        .map(|(path, document)| {
            let url = format!("/openapi/v3/{path}?hash={}", document.hash);
            (path.clone(), json!({"serverRelativeURL": url}))
        })
        .collect();
    let index = json!({"paths": paths}).to_string();
    respond::bytes(StatusCode::OK, "text/plain; charset=utf-8", index)
}

/// One document of v3. With the hash of the newest it may be kept for good; with another, a redirect.
pub fn v3(server: &Server, headers: &HeaderMap, query: &Query, path: &str) -> Response {
    let Some(document) = documents(server).get(path) else { return respond::text(StatusCode::NOT_FOUND, "") };
    let Some(format) = wanted(headers, &V3) else { return not_acceptable() };
    let mut response = document.answer(headers, format, V3.sent);
    let hash = query.text("hash");
    if hash.is_empty() {
        return response;
    }
    if hash != document.hash {
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        *response.body_mut() = Default::default();
        let url = format!("/openapi/v3/{path}?hash={}", document.hash);
        if let Ok(url) = HeaderValue::from_str(&url) {
            response.headers_mut().insert(LOCATION, url);
        }
        return response;
    }
    let year = chrono::Utc::now() + chrono::Duration::days(365);
    let expires = year.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    if let Ok(expires) = HeaderValue::from_str(&expires) {
        response.headers_mut().insert(EXPIRES, expires);
    }
    response
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT;

    use super::*;

    #[test]
    fn the_first_format_there_is_is_sent() {
        let of = |accept: Option<&'static str>, protobuf: &Protobuf| {
            let mut headers = HeaderMap::new();
            headers.extend(accept.map(|accept| (ACCEPT, HeaderValue::from_static(accept))));
            wanted(&headers, protobuf)
        };
        for version in [&V2, &V3] {
            assert_eq!(of(None, version), Some(Format::Json));
            for json in ["*/*", "*/json", "application/*", "text/html, application/json;q=0.9"] {
                assert_eq!(of(Some(json), version), Some(Format::Json), "{json}");
            }
            assert_eq!(of(Some("text/html"), version), None);
            assert_eq!(of(Some("text/json"), version), None);
        }
        let asked = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
        assert_eq!(of(Some(asked), &V2), Some(Format::Protobuf));
        assert_eq!(of(Some(asked), &V3), None);
        let sent = "application/json;q=0.5, application/com.github.proto-openapi.spec.v3.v1.0+protobuf";
        assert_eq!(of(Some(sent), &V3), Some(Format::Protobuf));
        assert_eq!(of(Some(sent), &V2), Some(Format::Json));
        let asked = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";
        assert_eq!(of(Some(asked), &V3), Some(Format::Protobuf));
    }
}
