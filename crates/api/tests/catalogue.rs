//! The whole catalogue: every kind that Kubernetes serves by default is in it, and the rules of each bear odd objects.

use std::path::PathBuf;

use api::{Requester, Resource, catalogue};
use apimachinery::codec::decode_json;
use apimachinery::schema::Schema;
use apimachinery::{GroupVersionKind, Object, Value};
use serde_json::json;

const DESCRIPTORS: &str = include_str!("../../apimachinery/src/schema/builtin.txt");

/// Kinds with lists in stable versions that are no resources.
const NOT_SERVED: [&str; 4] = ["APIGroup", "APIGroupDiscovery", "APIResource", "PartialObjectMetadata"];

/// Of all the odd values of all fields one in so many is tried.
const ODD_STEP: usize = 61;

/// Group, version and kind of every kind that can be listed and is stable.
fn stable_kinds() -> Vec<GroupVersionKind> {
    let mut kinds = Vec::new();
    let (mut group, mut version) = (String::new(), String::new());
    let mut messages: Vec<&str> = Vec::new();
    for line in DESCRIPTORS.lines().chain(["p end end"]) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["p", _, ref served @ ..] => {
                let stable = version.strip_prefix('v').is_some_and(|number| number.parse::<u32>().is_ok());
                let listed = |kind: &&&str| messages.contains(&format!("{kind}List").as_str());
                let found = messages.iter().filter(listed).filter(|_| stable);
                kinds.extend(found.map(|kind| GroupVersionKind::new(&*group, &*version, *kind)));
                messages.clear();
                (group, version) = match served {
                    ["-", version] => (String::new(), (*version).to_owned()),
                    [group, version] => ((*group).to_owned(), (*version).to_owned()),
                    _ => (String::new(), String::new()),
                };
            }
            ["m", name] => messages.push(name),
            _ => {}
        }
    }
    kinds.retain(|gvk| !NOT_SERVED.contains(&gvk.kind.as_str()));
    kinds
}

#[test]
fn every_stable_kind_has_a_row() {
    let kinds = stable_kinds();
    assert!(kinds.len() > 60, "{kinds:?}");
    assert!(kinds.contains(&GroupVersionKind::new("", "v1", "Pod")));
    let missing: Vec<String> = kinds
        .iter()
        .filter(|gvk| catalogue::catalogue().by_kind(gvk).is_none())
        .map(ToString::to_string)
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn rows_are_whole() {
    let mut prefixes: Vec<(&str, &str)> = Vec::new();
    for row in catalogue::catalogue().all() {
        let gvk = row.gvk();
        assert!(Schema::for_kind(&gvk).is_some(), "{gvk}");
        assert_eq!(row.singular, row.kind.to_lowercase(), "{gvk}");
        assert!(row.plural.starts_with(&row.singular[..row.singular.len() - 1]), "{gvk}");
        if let Some((_, kind)) =
            prefixes.iter().find(|(prefix, _)| *prefix == row.prefix && !prefix.is_empty())
        {
            // two versions, or two groups, of one stored kind
            assert_eq!(*kind, row.kind, "{}", row.prefix);
        }
        prefixes.push((row.prefix, row.kind));
    }
}

/// Takes an object through all the hooks of its kind that a create, an update and an update of its status call.
fn walk(row: &Resource, mut object: Object) {
    let strategy = row.strategy;
    let requester =
        Requester { name: "somebody".into(), time: "2026-01-01T00:00:00Z".into(), ..Requester::default() };
    strategy.default(&mut object);
    let once = object.clone();
    strategy.default(&mut object);
    assert_eq!(object, once, "defaults of {} are not idempotent", row.kind);
    let old = object.clone();
    let mut new = object;
    strategy.warnings_before_create(&new);
    strategy.note_requester(&mut new, None, &requester);
    strategy.prepare_for_create(&mut new);
    strategy.validate(&new);
    strategy.warnings_on_create(&new);
    let mut updated = new.clone();
    strategy.note_requester(&mut updated, Some(&old), &requester);
    strategy.prepare_for_update(&mut updated, &old);
    strategy.validate_update(&updated, &old);
    strategy.validate_update(&old, &updated);
    strategy.warnings_on_update(&updated, &old);
    let mut status = old.clone();
    strategy.prepare_for_status_update(&mut status, &updated);
    strategy.validate_status_update(&status, &updated);
    for sub in row.subresources {
        let mut through = old.clone();
        strategy.prepare_for_subresource(sub.name, &mut through, &updated);
        strategy.validate_subresource(sub.name, &through, &updated);
    }
    for column in row.columns {
        (column.cell)(&old, &catalogue::Now(1_767_225_600));
    }
    for field in row.selectable {
        (field.read)(&old);
    }
    if let Some(stored) = &row.stored_as {
        let mut object = old.clone();
        (stored.to_stored)(&mut object);
        (stored.from_stored)(&mut object);
    }
}

/// Where the fields of an object are.
fn fields(value: &Value, at: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                fields(inner, &at, out);
                out.push(at);
            }
        }
        Value::Array(items) => {
            for (index, inner) in items.iter().enumerate() {
                fields(inner, &format!("{at}/{index}"), out);
            }
        }
        _ => {}
    }
}

#[test]
fn rules_bear_what_is_all_but_empty() {
    for row in catalogue::catalogue().all() {
        for body in [
            json!({}),
            json!({"metadata": {"name": "a"}}),
            json!({"metadata": {"name": "a"}, "spec": {}, "status": {}}),
            json!({"metadata": {"name": "a", "generation": 3, "annotations": {"a": ""}}, "spec": {"template": {}},
                "status": {"conditions": [{}]}, "data": {}, "rules": [{}], "subjects": [{}], "webhooks": [{}]}),
        ] {
            let body = serde_json::to_vec(&body).unwrap();
            let schema = Schema::for_kind(&row.gvk()).unwrap();
            // fields that a kind does not have are dropped, others must be what the kind says
            let Ok(decoded) = decode_json(&body, &schema) else { continue };
            walk(row, decoded.object);
        }
    }
}

/// Vectors with every field set live beside the repository; without them there is less to check.
fn vector(row: &Resource) -> Option<Vec<u8>> {
    let group = if row.group.is_empty() { "core" } else { row.group };
    let name = format!("{group}.{}.{}.json", row.version, row.kind);
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let folders = ["../../../shared/testdata/api", "../../../../shared/testdata/api"];
    folders.iter().find_map(|folder| std::fs::read(root.join(folder).join(&name)).ok())
}

#[test]
fn rules_bear_every_field_and_odd_ones() {
    for row in catalogue::catalogue().all() {
        let Some(body) = vector(row) else { continue };
        let schema = Schema::for_kind(&row.gvk()).unwrap();
        let object = decode_json(&body, &schema).unwrap().object;
        let odd = [json!(null), json!(""), json!(-1), json!("x/y z"), json!([]), json!({})];
        let mut pointers = Vec::new();
        fields(object.as_value(), "", &mut pointers);
        // a part of the many, another one of every kind and of every field
        let pairs = pointers.iter().flat_map(|pointer| odd.iter().map(move |odd| (pointer, odd)));
        for (pointer, odd) in pairs.step_by(ODD_STEP) {
            let mut value = object.as_value().clone();
            *value.pointer_mut(pointer).unwrap() = odd.clone();
            let body = serde_json::to_vec(&value).unwrap();
            let Ok(decoded) = decode_json(&body, &schema) else { continue };
            walk(row, decoded.object);
        }
        walk(row, object);
    }
}
