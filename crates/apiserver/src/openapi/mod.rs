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
use crate::http::{chain, negotiate, respond};
use crate::nonresource::VERSION;
use crate::server::Server;

/// The documents of one server.
#[derive(Default)]
pub struct Documents {
    v2: OnceLock<V2>,
    v3: OnceLock<BTreeMap<String, Document>>,
}

/// The document of v2 in both of its formats.
struct V2 {
    json: Document,
    protobuf: Document,
}

struct Document {
    body: Bytes,
    hash: String,
}

impl Document {
    fn new(value: &Value) -> Self {
        Self::of_bytes(value.to_string().into())
    }

    fn of_bytes(body: Bytes) -> Self {
        let hash = format!("{:X}", Sha512::digest(&body));
        Self { body, hash }
    }

    fn etag(&self) -> String {
        format!("\"{}\"", self.hash)
    }
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": VERSION})
}

/// What client-go asks for, and what it is told that it got.
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const PROTOBUF_SENT: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The one document of v2.
pub fn v2(server: &Server, headers: &HeaderMap) -> Response {
    let Some(wanted) = wanted(headers) else { return varied(respond::text(StatusCode::NOT_ACCEPTABLE, "")) };
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
        let protobuf = Document::of_bytes(protobuf::document(&document).into());
        V2 { json: Document::new(&document), protobuf }
    });
    let (document, media_type) = match wanted {
        Wanted::Json => (&document.json, "application/json"),
        Wanted::Protobuf => (&document.protobuf, PROTOBUF_SENT),
    };
    varied(discovery::document(headers, media_type, &document.etag(), document.body.clone()))
}

#[derive(Debug, PartialEq)]
enum Wanted {
    Json,
    Protobuf,
}

/// The best format of `Accept` that there is; JSON for those who do not say.
fn wanted(headers: &HeaderMap) -> Option<Wanted> {
    negotiate::clauses(negotiate::accept(headers)).into_iter().find_map(|clause| match clause.media_type {
        PROTOBUF | PROTOBUF_SENT => Some(Wanted::Protobuf),
        "application/json" | "application/*" | "*/*" => Some(Wanted::Json),
        _ => None,
    })
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
                (path.trim_start_matches('/').to_owned(), Document::new(&document))
            })
            .collect()
    })
}

/// The index of v3: each document's path with the hash of what it says now.
pub fn v3_index(server: &Server, headers: &HeaderMap) -> Response {
    let paths: serde_json::Map<String, Value> = documents(server)
        .iter()
        .map(|(path, document)| {
            let url = format!("/openapi/v3/{path}?hash={}", document.hash);
            (path.clone(), json!({"serverRelativeURL": url}))
        })
        .collect();
    let index = Document::new(&json!({"paths": paths}));
    discovery::document(headers, "application/json", &index.etag(), index.body.clone())
}

/// One document of v3. With the hash of the newest it may be kept for good; with another, a redirect.
pub fn v3(server: &Server, headers: &HeaderMap, query: &Query, path: &str) -> Response {
    let Some(document) = documents(server).get(path) else { return chain::not_found() };
    if let Some(hash) = query.get("hash")
        && hash != document.hash
    {
        let mut response = respond::text(StatusCode::MOVED_PERMANENTLY, "");
        let url = format!("/openapi/v3/{path}?hash={}", document.hash);
        if let Ok(url) = HeaderValue::from_str(&url) {
            response.headers_mut().insert(LOCATION, url);
        }
        return response;
    }
    if wanted(headers) != Some(Wanted::Json) {
        return varied(respond::text(StatusCode::NOT_ACCEPTABLE, ""));
    }
    let mut response =
        varied(discovery::document(headers, "application/json", &document.etag(), document.body.clone()));
    if query.get("hash").is_some() {
        let year = chrono::Utc::now() + chrono::Duration::days(365);
        let expires = year.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        if let Ok(expires) = HeaderValue::from_str(&expires) {
            response.headers_mut().insert(EXPIRES, expires);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT;

    use super::*;

    #[test]
    fn the_first_format_there_is_is_sent() {
        let of = |accept: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.extend(accept.map(|accept| (ACCEPT, HeaderValue::from_static(accept))));
            wanted(&headers)
        };
        assert_eq!(of(None), Some(Wanted::Json));
        assert_eq!(of(Some("*/*")), Some(Wanted::Json));
        assert_eq!(of(Some("text/html, application/json;q=0.9")), Some(Wanted::Json));
        assert_eq!(of(Some(PROTOBUF)), Some(Wanted::Protobuf));
        assert_eq!(
            of(Some("application/json;q=0.5, application/com.github.proto-openapi.spec.v2.v1.0+protobuf")),
            Some(Wanted::Protobuf)
        );
        assert_eq!(of(Some("text/html")), None);
    }
}
