//! Paths of a document: what can be done with each resource.

use api::{Access, Resource, Subresource};
use apimachinery::schema::Schema;
use serde_json::{Map, Value, json};

use super::schemas::{Dialect, Schemas};

/// Where a resource's group and version live.
pub fn root(resource: &Resource) -> String {
    match resource.group {
        "" => format!("/api/{}", resource.version),
        group => format!("/apis/{group}/{}", resource.version),
    }
}

pub fn paths(resources: &[&'static Resource], schemas: &mut Schemas) -> Value {
    let mut out = Map::new();
    for resource in resources {
        let Some(schema) = Schema::builtin(resource.package, resource.kind) else { continue };
        let root = root(resource);
        let scoped = match resource.namespaced {
            true => format!("{root}/namespaces/{{namespace}}/{}", resource.plural),
            false => format!("{root}/{}", resource.plural),
        };
        let one = schemas.reference(&schema);
        if resource.access == Access::CreateOnly {
            out.insert(
                scoped,
                json!({"post": operation(schemas, resource, "post", "create", "", &one, true)}),
            );
            continue;
        }
        let list = schemas.list(&schema, &resource.gvk());
        let mut collection = json!({
            "get": operation(schemas, resource, "list", "list", "", &list, false),
            "post": operation(schemas, resource, "post", "create", "", &one, true),
        });
        if resource.verbs().contains(&"deletecollection") {
            collection["delete"] =
                operation(schemas, resource, "deletecollection", "deletecollection", "", &one, false);
        }
        let mut item = json!({
            "get": operation(schemas, resource, "get", "read", "", &one, false),
            "put": operation(schemas, resource, "put", "replace", "", &one, true),
            "patch": operation(schemas, resource, "patch", "patch", "", &one, true),
            "delete": operation(schemas, resource, "delete", "delete", "", &one, false),
        });
        if resource.access == Access::ReadOnly {
            collection = json!({"get": collection["get"]});
            item = json!({"get": item["get"]});
        }
        collection["parameters"] = parameters(schemas.dialect(), resource, false);
        item["parameters"] = parameters(schemas.dialect(), resource, true);
        if resource.namespaced {
            let all = operation(schemas, resource, "list", "list", "ForAllNamespaces", &list, false);
            out.insert(format!("{root}/{}", resource.plural), json!({"get": all}));
        }
        for sub in resource.subresources {
            out.insert(format!("{scoped}/{{name}}/{}", sub.name), subresource(schemas, resource, sub, &one));
        }
        out.insert(scoped.clone(), collection);
        out.insert(format!("{scoped}/{{name}}"), item);
    }
    Value::Object(out)
}

fn subresource(schemas: &mut Schemas, resource: &Resource, sub: &Subresource, parent: &Value) -> Value {
    let package = match sub.group_version {
        Some(("autoscaling", _)) => "k8s.io.api.autoscaling.v1",
        Some(("policy", _)) => "k8s.io.api.policy.v1",
        Some(("authentication.k8s.io", _)) => "k8s.io.api.authentication.v1",
        _ => resource.package,
    };
    let body = match Schema::builtin(package, sub.kind) {
        Some(schema) if sub.kind != resource.kind => schemas.reference(&schema),
        _ => parent.clone(),
    };
    let mut out = json!({});
    for verb in sub.verbs {
        let (method, action, name) = match *verb {
            "get" => ("get", "get", "read"),
            "create" => ("post", "post", "create"),
            "update" => ("put", "put", "replace"),
            "patch" => ("patch", "patch", "patch"),
            "delete" => ("delete", "delete", "delete"),
            _ => continue,
        };
        let suffix = camel(sub.name);
        out[method] =
            operation(schemas, resource, action, name, &suffix, &body, !matches!(method, "get" | "delete"));
    }
    out["parameters"] = parameters(schemas.dialect(), resource, true);
    out
}

fn camel(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// A parameter of the path or the query; v3 keeps its type in a schema of its own.
fn parameter(dialect: Dialect, place: &str, name: &str, kind: &str) -> Value {
    match dialect {
        Dialect::V2 => json!({"name": name, "in": place, "type": kind, "uniqueItems": true}),
        Dialect::V3 => json!({"name": name, "in": place, "schema": {"type": kind, "uniqueItems": true}}),
    }
}

fn parameters(dialect: Dialect, resource: &Resource, item: bool) -> Value {
    let parameter = |name: &str, what: &str| {
        let mut out = parameter(dialect, "path", name, "string");
        out["required"] = json!(true);
        out["description"] = json!(what);
        out
    };
    let mut out = Vec::new();
    if item {
        out.push(parameter("name", &format!("name of the {}", resource.kind)));
    }
    if resource.namespaced {
        out.push(parameter("namespace", "object name and auth scope, such as for teams and projects"));
    }
    json!(out)
}

fn operation(
    schemas: &mut Schemas,
    resource: &Resource,
    action: &str,
    verb: &str,
    suffix: &str,
    answer: &Value,
    has_body: bool,
) -> Value {
    let group = match resource.group {
        "" => "core".to_owned(),
        group => camel(group.split('.').next().unwrap_or_default()),
    };
    let scope = if resource.namespaced && suffix != "ForAllNamespaces" { "Namespaced" } else { "" };
    let id = format!("{verb}{}{}{scope}{}{suffix}", camel(&group), camel(resource.version), resource.kind);
    let mut out = json!({
        "operationId": id,
        "tags": [format!("{}_{}", group.to_lowercase(), resource.version)],
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind":
            {"group": resource.group, "version": resource.version, "kind": resource.kind},
    });
    const TYPES: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
    const PATCHES: [&str; 4] = [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ];
    let consumes: &[&str] = if action == "patch" { &PATCHES } else { &TYPES };
    let of = |types: &[&str], schema: &Value| -> Value {
        types.iter().map(|t| ((*t).to_owned(), json!({"schema": schema}))).collect::<Map<_, _>>().into()
    };
    let body = if action == "patch" { schemas.meta("Patch") } else { answer.clone() };
    let dialect = schemas.dialect();
    let query = queries(action).into_iter().map(|(name, kind)| parameter(dialect, "query", name, kind));
    let mut all: Vec<Value> = Vec::new();
    match dialect {
        Dialect::V2 => {
            out["consumes"] = json!(consumes);
            out["produces"] = json!(TYPES);
            out["schemes"] = json!(["https"]);
            if has_body {
                all.push(json!({"name": "body", "in": "body", "required": true, "schema": body}));
            }
            out["responses"] = json!({"200": {"description": "OK", "schema": answer}});
        }
        Dialect::V3 => {
            if has_body {
                out["requestBody"] = json!({"required": true, "content": of(consumes, &body)});
            }
            out["responses"] = json!({"200": {"description": "OK", "content": of(&TYPES, answer)}});
        }
    }
    all.extend(query);
    out["parameters"] = json!(all);
    out
}

/// The options of a verb, as names and types.
fn queries(action: &str) -> Vec<(&'static str, &'static str)> {
    let mut out = vec![("pretty", "string")];
    if matches!(action, "post" | "put" | "patch" | "delete" | "deletecollection") {
        out.push(("dryRun", "string"));
    }
    if matches!(action, "post" | "put" | "patch") {
        out.extend([("fieldManager", "string"), ("fieldValidation", "string")]);
    }
    if action == "patch" {
        out.push(("force", "boolean"));
    }
    if matches!(action, "delete" | "deletecollection") {
        out.extend([("gracePeriodSeconds", "integer"), ("propagationPolicy", "string")]);
    }
    if matches!(action, "list" | "deletecollection") {
        out.extend([
            ("continue", "string"),
            ("fieldSelector", "string"),
            ("labelSelector", "string"),
            ("limit", "integer"),
            ("resourceVersion", "string"),
            ("resourceVersionMatch", "string"),
            ("sendInitialEvents", "boolean"),
            ("timeoutSeconds", "integer"),
        ]);
    }
    if action == "list" {
        out.extend([("allowWatchBookmarks", "boolean"), ("watch", "boolean")]);
    }
    out
}
