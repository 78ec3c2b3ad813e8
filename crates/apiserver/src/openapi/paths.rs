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
        let list = schemas.list(&schema, &resource.gvk(), resource.plural);
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
        "description": described(resource.kind, action, suffix),
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
    let query = queries(action).into_iter().map(|(name, kind, about)| {
        let mut out = parameter(dialect, "query", name, kind);
        out["description"] = json!(about);
        out
    });
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

/// What an operation does, of the object itself or of a part of it.
fn described(kind: &str, action: &str, suffix: &str) -> String {
    let part = match suffix {
        "" | "ForAllNamespaces" => String::new(),
        suffix => format!("{} of ", suffix.to_lowercase()),
    };
    let one = format!("{part}the specified {kind}");
    match action {
        "list" => format!("list or watch objects of kind {kind}"),
        "deletecollection" => format!("delete collection of {kind}"),
        "post" => format!("create {part}a {kind}"),
        "delete" => format!("delete {part}a {kind}"),
        "put" => format!("replace {one}"),
        "patch" => format!("partially update {one}"),
        _ => format!("read {one}"),
    }
}

type Query = (&'static str, &'static str, &'static str);

const PRETTY: Query = ("pretty", "string", "Whether the answer is to be indented.");

const DRY_RUN: Query =
    ("dryRun", "string", "All: the request goes through every stage, and nothing is stored.");

const WRITTEN: [Query; 2] = [
    ("fieldManager", "string", "A name for who or what makes the change."),
    ("fieldValidation", "string", "What comes of unknown and duplicate fields: Ignore, Warn or Strict."),
];

const FORCED: Query =
    ("force", "boolean", "Whether an apply takes fields from other managers that have them.");

const DELETED: [Query; 3] = [
    ("gracePeriodSeconds", "integer", "How many seconds the object has to end; zero deletes it at once."),
    ("orphanDependents", "boolean", "Whether dependents stay; propagationPolicy says it better."),
    ("propagationPolicy", "string", "What becomes of dependents: Orphan, Background or Foreground."),
];

const SELECTED: [Query; 8] = [
    ("continue", "string", "Where a list goes on, as the page before said."),
    ("fieldSelector", "string", "Restricts the list of returned objects by their fields."),
    ("labelSelector", "string", "Restricts the list of returned objects by their labels."),
    ("limit", "integer", "How many objects a page has at most."),
    ("resourceVersion", "string", "From which version on the objects will do."),
    ("resourceVersionMatch", "string", "How resourceVersion is meant: Exact or NotOlderThan."),
    ("sendInitialEvents", "boolean", "Whether a watch begins with all objects that there are."),
    ("timeoutSeconds", "integer", "How long a list or a watch may take."),
];

const LISTED: [Query; 2] = [
    ("allowWatchBookmarks", "boolean", "Whether a watch may have bookmarks."),
    ("watch", "boolean", "Watch for changes to the described resources, as a stream, instead of a list."),
];

/// The options of a verb, as names, types and what they are for.
fn queries(action: &str) -> Vec<Query> {
    let mut out = vec![PRETTY];
    if matches!(action, "post" | "put" | "patch" | "delete" | "deletecollection") {
        out.push(DRY_RUN);
    }
    if matches!(action, "post" | "put" | "patch") {
        out.extend(WRITTEN);
    }
    if action == "patch" {
        out.push(FORCED);
    }
    if matches!(action, "delete" | "deletecollection") {
        out.extend(DELETED);
    }
    if matches!(action, "list" | "deletecollection") {
        out.extend(SELECTED);
    }
    if action == "list" {
        out.extend(LISTED);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_operations(dialect: Dialect) -> Vec<Value> {
        let mut schemas = Schemas::new(dialect);
        let resources: Vec<_> = api::catalogue().all().collect();
        let paths = paths(&resources, &mut schemas);
        let items = paths.as_object().unwrap().values();
        let members = items.flat_map(|item| item.as_object().unwrap().clone());
        members.filter(|(name, _)| name != "parameters").map(|(_, operation)| operation).collect()
    }

    #[test]
    fn every_operation_and_option_is_described() {
        for dialect in [Dialect::V2, Dialect::V3] {
            let operations = all_operations(dialect);
            assert!(operations.len() > 500, "{}", operations.len());
            for operation in operations {
                assert!(operation["description"].is_string(), "{operation}");
                for option in operation["parameters"].as_array().unwrap() {
                    assert!(option["in"] == "body" || option["description"].is_string(), "{option}");
                }
            }
        }
    }

    #[test]
    fn operations_say_what_they_do_to_what() {
        for (action, suffix, said) in [
            ("list", "", "list or watch objects of kind Pod"),
            ("list", "ForAllNamespaces", "list or watch objects of kind Pod"),
            ("get", "", "read the specified Pod"),
            ("get", "Status", "read status of the specified Pod"),
            ("post", "", "create a Pod"),
            ("post", "Eviction", "create eviction of a Pod"),
            ("put", "Status", "replace status of the specified Pod"),
            ("patch", "", "partially update the specified Pod"),
            ("delete", "", "delete a Pod"),
            ("deletecollection", "", "delete collection of Pod"),
        ] {
            assert_eq!(described("Pod", action, suffix), said, "{action} {suffix}");
        }
    }
}
