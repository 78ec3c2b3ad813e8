//! Discovery: which groups, versions and resources there are; one by one, and all at once.

use std::sync::Arc;

use api::{Access, Resource, catalogue};
use apimachinery::schema::Schema;
use apimachinery::{GroupVersion, Object, Status, Value, codec};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, VARY};
use serde_json::json;
use sha2::{Digest, Sha256, Sha512};

use crate::http::body::Response;
use crate::http::negotiate::{self, Format};
use crate::http::request_info::Query;
use crate::http::respond;
use crate::kinds::Kind;
use crate::server::Server;

/// Named groups and their versions, in order.
pub fn group_versions(server: &Server) -> Vec<GroupVersion> {
    let mut out: Vec<GroupVersion> = Vec::new();
    for kind in server.registry.kinds.all() {
        let gv = kind.resource.group_version();
        if !gv.group.is_empty() && !out.contains(&gv) {
            out.push(gv);
        }
    }
    // what nothing aggregates comes first: the aggregator's own group
    let group = |gv: &GroupVersion| catalogue::group_priority(&gv.group).unwrap_or(i64::MAX);
    let version = |gv: &GroupVersion| catalogue::version_priority(&gv.group, &gv.version);
    out.sort_by(|a, b| (group(b), &a.group, version(b)).cmp(&(group(a), &b.group, version(a))));
    out
}

fn kinds_of(server: &Server, group: &str, version: &str) -> Vec<Arc<Kind>> {
    let all = server.registry.kinds.all();
    let of_version = |kind: &&Arc<Kind>| kind.resource.group == group && kind.resource.version == version;
    let mut out: Vec<Arc<Kind>> = all.filter(of_version).cloned().collect();
    out.sort_by_key(|kind| kind.resource.plural);
    out
}

/// The hash that tells clients which version of a kind is stored.
fn storage_version_hash(resource: &Resource) -> String {
    let stored = resource.stored_gvk();
    let text = format!("{}/{}/{}", stored.group, stored.version, stored.kind);
    STANDARD.encode(&Sha256::digest(text.as_bytes())[..8])
}

pub fn core_versions(server: &Server, headers: &HeaderMap, query: &Query) -> Result<Response, Status> {
    if let Some(response) = aggregated(server, headers, true) {
        return response;
    }
    let body = json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server.address()}],
    });
    answer(headers, query, body)
}

fn api_group(group: &str, versions: &[GroupVersion]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .filter(|gv| gv.group == group)
        .map(|gv| json!({"groupVersion": gv.to_string(), "version": gv.version}))
        .collect();
    json!({"name": group, "versions": versions, "preferredVersion": versions[0]})
}

pub fn groups(server: &Server, headers: &HeaderMap, query: &Query) -> Result<Response, Status> {
    if let Some(response) = aggregated(server, headers, false) {
        return response;
    }
    let versions = group_versions(server);
    let mut names: Vec<&str> = versions.iter().map(|gv| gv.group.as_str()).collect();
    names.dedup();
    let groups: Vec<Value> = names.into_iter().map(|name| api_group(name, &versions)).collect();
    answer(headers, query, json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
}

pub fn group(server: &Server, headers: &HeaderMap, query: &Query, group: &str) -> Result<Response, Status> {
    let versions = group_versions(server);
    if !versions.iter().any(|gv| gv.group == group) {
        return Err(Status::no_such_path());
    }
    let mut body = api_group(group, &versions);
    body["kind"] = json!("APIGroup");
    body["apiVersion"] = json!("v1");
    answer(headers, query, body)
}

pub fn resources(
    server: &Server,
    headers: &HeaderMap,
    query: &Query,
    group: &str,
    version: &str,
) -> Result<Response, Status> {
    let kinds = kinds_of(server, group, version);
    if kinds.is_empty() {
        return Err(Status::no_such_path());
    }
    let mut list = Vec::new();
    for kind in kinds {
        let resource = kind.resource;
        let mut entry = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": resource.verbs(),
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        if resource.access == Access::Stored {
            entry["storageVersionHash"] = json!(storage_version_hash(kind.stored_as));
        }
        list.push(entry);
        let mut subresources = resource.subresources.to_vec();
        subresources.sort_by_key(|sub| sub.name);
        for sub in subresources {
            let mut entry = json!({
                "name": format!("{}/{}", resource.plural, sub.name), "singularName": "",
                "namespaced": resource.namespaced, "kind": sub.kind, "verbs": sub.verbs,
            });
            if let Some((group, version)) = sub.group_version {
                entry["group"] = json!(group);
                entry["version"] = json!(version);
            }
            list.push(entry);
        }
    }
    let gv = GroupVersion::new(group, version).to_string();
    let mut body = json!({"kind": "APIResourceList", "groupVersion": gv, "resources": list});
    // the core group's says no version of its own, as it did when there was none to say
    if !group.is_empty() {
        body["apiVersion"] = json!("v1");
    }
    answer(headers, query, body)
}

const META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1";

/// A document of discovery in the format that the client takes.
fn answer(headers: &HeaderMap, query: &Query, body: Value) -> Result<Response, Status> {
    let accepted = negotiate::plain(headers, query.get("pretty"))?;
    let (object, schema) = typed(META, body)?;
    Ok(respond::encoded(StatusCode::OK, accepted.format, accepted.pretty, &object, &schema))
}

fn typed(package: &str, body: Value) -> Result<(Object, Schema), Status> {
    let mut object = Object::from(body);
    let schema = Schema::builtin(package, object.kind())
        .ok_or_else(|| Status::internal(format!("no schema of {}", object.kind())))?;
    codec::normalize(&mut object, &schema).map_err(Status::internal)?;
    Ok((object, schema))
}

/// The whole of discovery in one document, where the client takes it: the best clause that fits decides.
fn aggregated(server: &Server, headers: &HeaderMap, core: bool) -> Option<Result<Response, Status>> {
    let wanted = negotiate::clauses(negotiate::accept(headers)).into_iter().find_map(|clause| {
        let format = match clause.media_type {
            "application/json" | "*/*" | "application/*" => Format::Json,
            "application/vnd.kubernetes.protobuf" => Format::Protobuf,
            "application/yaml" => Format::Yaml,
            _ => return None,
        };
        match (clause.parameter("as"), clause.parameter("g"), clause.parameter("v")) {
            (None, ..) => Some(None),
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => {
                Some(Some((format, "v2")))
            }
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2beta1")) => {
                Some(Some((format, "v2beta1")))
            }
            _ => None,
        }
    });
    let (format, version) = wanted??;
    Some(all_in_one(server, headers, core, format, version))
}

fn all_in_one(
    server: &Server,
    headers: &HeaderMap,
    core: bool,
    format: Format,
    version: &str,
) -> Result<Response, Status> {
    let gvs: Vec<GroupVersion> =
        if core { vec![GroupVersion::new("", "v1")] } else { group_versions(server) };
    let items: Vec<Value> =
        gvs.chunk_by(|a, b| a.group == b.group).map(|gvs| group_discovery(server, gvs)).collect();
    let body = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items,
    });
    let (object, schema) = typed(&format!("k8s.io.api.apidiscovery.{version}"), body)?;
    let etag = format!("\"{:X}\"", Sha512::digest(object.as_value().to_string().as_bytes()));
    let mut response = if matches_etag(headers, &etag) {
        respond::bytes(StatusCode::NOT_MODIFIED, "application/json", "")
    } else {
        respond::encoded(StatusCode::OK, format, false, &object, &schema)
    };
    let media_type =
        format!("{};g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList", format.media_type());
    let headers = response.headers_mut();
    for (name, value) in [(CONTENT_TYPE, media_type), (ETAG, etag)] {
        headers.insert(name, HeaderValue::from_str(&value).map_err(Status::internal)?);
    }
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    Ok(response)
}

/// Whether the client has this very document already.
pub fn matches_etag(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get(IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|tags| tags.split(',').any(|tag| tag.trim() == etag))
}

fn response_kind(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

/// The entry of a group, with its versions in order.
fn group_discovery(server: &Server, versions: &[GroupVersion]) -> Value {
    let group = versions.first().map(|gv| gv.group.as_str()).unwrap_or_default();
    let versions: Vec<Value> = versions.iter().map(|gv| version_discovery(server, gv)).collect();
    json!({"metadata": {"name": group}, "versions": versions})
}

fn version_discovery(server: &Server, gv: &GroupVersion) -> Value {
    let resources: Vec<Value> = kinds_of(server, &gv.group, &gv.version)
        .into_iter()
        .map(|kind| {
            let resource = kind.resource;
            let mut out = json!({
                "resource": resource.plural,
                "responseKind": response_kind(resource.group, resource.version, resource.kind),
                "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
                "singularResource": resource.singular,
                "verbs": resource.verbs(),
            });
            if !resource.short_names.is_empty() {
                out["shortNames"] = json!(resource.short_names);
            }
            if !resource.categories.is_empty() {
                out["categories"] = json!(resource.categories);
            }
            if !resource.subresources.is_empty() {
                let subresources: Vec<Value> = resource
                    .subresources
                    .iter()
                    .map(|sub| {
                        let (group, version) =
                            sub.group_version.unwrap_or((resource.group, resource.version));
                        json!({
                            "subresource": sub.name,
                            "responseKind": response_kind(group, version, sub.kind),
                            "verbs": sub.verbs,
                        })
                    })
                    .collect();
                out["subresources"] = json!(subresources);
            }
            out
        })
        .collect();
    json!({"version": gv.version, "resources": resources, "freshness": "Current"})
}

/// Answers with a document unless the client has it.
pub fn document(headers: &HeaderMap, media_type: &'static str, etag: &str, body: bytes::Bytes) -> Response {
    let mut response = if matches_etag(headers, etag) {
        respond::bytes(StatusCode::NOT_MODIFIED, media_type, "")
    } else {
        respond::bytes(StatusCode::OK, media_type, body)
    };
    if let Ok(etag) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}
