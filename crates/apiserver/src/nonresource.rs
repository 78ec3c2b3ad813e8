//! Paths that are no resources: health, version, metrics, discovery, OpenAPI, keys.

use apimachinery::Status;
use http::{Method, StatusCode};
use serde_json::json;

use crate::authentication::keys::OpenIdMetadata;
use crate::context::Context;
use crate::http::body::{Request, Response};
use crate::http::{chain, respond};
use crate::server::Server;
use crate::{discovery, health, openapi};

/// The Kubernetes version that this server is.
pub const VERSION: &str = "v1.36.3";

pub async fn dispatch(server: &Server, ctx: &Context, request: Request) -> Result<Response, Status> {
    let (headers, query) = (request.headers(), &ctx.query);
    let path = ctx.info.path.trim_end_matches('/');
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    if let ["apis", group, ..] = parts.as_slice()
        && !server.registry.kinds.has_group(group)
    {
        return Ok(chain::not_found());
    }
    if *request.method() != Method::GET && is_read_by_get_alone(&parts) {
        return Err(Status::method_not_allowed());
    }
    match parts.as_slice() {
        [] => Ok(respond::json(StatusCode::OK, &json!({"paths": server.paths()}))),
        ["livez" | "readyz" | "healthz", rest @ ..] => {
            Ok(health::answer(server, parts[0], rest.first().copied(), &ctx.query))
        }
        ["version"] => Ok(respond::json(StatusCode::OK, &version())),
        ["metrics"] => Ok(respond::bytes(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            server.metrics.render(server),
        )),
        ["api"] => discovery::core_versions(server, headers, query),
        ["api", version] => discovery::resources(server, headers, query, "", version),
        ["apis"] => discovery::groups(server, headers, query),
        ["apis", group] => discovery::group(server, headers, query, group),
        ["apis", group, version] => discovery::resources(server, headers, query, group, version),
        ["openapi", "v2"] => Ok(openapi::v2(server, headers)),
        ["openapi", "v3"] => Ok(openapi::v3_index(server)),
        ["openapi", "v3", rest @ ..] => Ok(openapi::v3(server, headers, &ctx.query, &rest.join("/"))),
        [".well-known", "openid-configuration"] => Ok(key_document(server, |documents| {
            (OpenIdMetadata::CONFIGURATION_TYPE, &documents.configuration)
        })),
        ["openid", "v1", "jwks"] => {
            Ok(key_document(server, |documents| (OpenIdMetadata::JWKS_TYPE, &documents.jwks)))
        }
        ["debug", "api_priority_and_fairness", table] => Ok(flow_table(server, ctx, table)),
        _ => Ok(chain::not_found()),
    }
}

/// Paths that upstream routes by method, as it does those of resources: not even HEAD reads them. What it serves by path
/// alone takes any method.
fn is_read_by_get_alone(parts: &[&str]) -> bool {
    matches!(parts, ["version"] | ["api"] | ["api", _] | ["apis", _, _] | [".well-known" | "openid", ..])
}

/// The answer to a resource that there is not. Of a group that nobody serves, no part of upstream feels responsible.
pub fn no_such_resource(server: &Server, group: &str) -> Result<Response, Status> {
    match group.is_empty() || server.registry.kinds.has_group(group) {
        true => Err(Status::no_such_path()),
        false => Ok(chain::not_found()),
    }
}

/// What priority and fairness is about right now, as text.
fn flow_table(server: &Server, ctx: &Context, table: &str) -> Response {
    let details = !ctx.query.text("includeRequestDetails").is_empty();
    match server.flow_control.as_ref().and_then(|control| control.dump(table, details)) {
        Some(text) => respond::text(StatusCode::OK, text),
        None => chain::not_found(),
    }
}

/// How the tokens of this server are checked by others.
fn key_document(server: &Server, which: impl FnOnce(&OpenIdMetadata) -> (&'static str, &String)) -> Response {
    let Some((media_type, body)) = server.access.open_id.as_ref().map(which) else {
        return chain::not_found();
    };
    let mut response = respond::bytes(StatusCode::OK, media_type, body.clone());
    let keep = http::HeaderValue::from_static(OpenIdMetadata::CACHE_CONTROL);
    response.headers_mut().insert(http::header::CACHE_CONTROL, keep);
    response
}

fn version() -> serde_json::Value {
    let commit = option_env!("XEBEC_COMMIT").unwrap_or("unknown");
    json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
        "gitVersion": VERSION, "gitCommit": commit, "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc",
        "platform": format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
    })
}
