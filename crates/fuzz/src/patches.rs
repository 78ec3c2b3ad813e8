//! Patches, server-side apply and selectors. Documents of one input are divided by 0xff, which no text holds.

use api::Resource;
use apimachinery::apply;
use apimachinery::codec::{self, MAX_DEPTH};
use apimachinery::patch;
use apimachinery::schema::Schema;
use apimachinery::selectors::{FieldSelector, LabelSelector};
use apimachinery::time::{self, Time};
use apimachinery::{Object, Value};
use serde_json::json;

use crate::documents::{join, split};
use crate::sample;

const DIVIDER: u8 = 0xff;

/// The kind and the documents of an input, as far as they are JSON.
fn documents(input: &[u8]) -> Option<(&'static Resource, Schema, Vec<Value>)> {
    let (resource, schema, rest) = split(input)?;
    let parts = rest.split(|byte| *byte == DIVIDER).take(3);
    let values = parts.map(codec::parse_json).collect::<Result<_, _>>().ok()?;
    Some((resource, schema, values))
}

fn now() -> Time {
    time::parse("2024-05-01T00:00:00Z").expect("a time")
}

/// An object as a store would hold it.
fn normal(value: &Value, schema: &Schema) -> Option<Object> {
    let mut object = Object::from(value.clone());
    codec::normalize(&mut object, schema).ok()?;
    Some(object)
}

pub fn apply(input: &[u8]) {
    let Some((_, schema, documents)) = documents(input) else { return };
    let [live, applied] = documents.as_slice() else { return };
    let Some(live) = normal(live, &schema) else { return };
    let applied = Object::from(applied.clone());
    let to = |live: &Object, force: bool| {
        apply::apply(Some(live), &applied, &schema, "fuzz", force, now(), "", None)
    };
    let _ = to(&live, false);
    let Ok(first) = to(&live, true) else { return };
    // what was applied is there: to apply it again is no conflict and no change
    let again = to(&first, false).expect("what one applied, one may apply again");
    assert!(apply::same_but_for_times(&again, &first), "{again:?} {first:?}");
    apply::validate_managed_fields(&first).expect("what is noted can be read");
    let _ = apply::update(Some(&live), first, &schema, "other", now(), "", None);
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or_default(),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

pub fn strategic(input: &[u8]) {
    let Some((_, schema, documents)) = documents(input) else { return };
    let [original, change] = documents.as_slice() else { return };
    if let Ok(merged) = patch::strategic_merge(original, change, &schema) {
        let _ = codec::normalize(&mut Object::from(merged), &schema);
    }
}

/// RFC 7386, as it says it.
fn merged(target: &Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut out = target.as_object().cloned().unwrap_or_default();
    for (key, change) in patch {
        match change {
            Value::Null => drop(out.remove(key)),
            change => {
                let value = merged(out.get(key).unwrap_or(&Value::Null), change);
                out.insert(key.clone(), value);
            }
        }
    }
    Value::Object(out)
}

pub fn merge(input: &[u8]) {
    let Some((_, schema, documents)) = documents(input) else { return };
    let [original, change] = documents.as_slice() else { return };
    let mut patched = original.clone();
    if patch::merge_patch(&mut patched, change).is_ok() {
        assert_eq!(patched, merged(original, change));
        let _ = codec::normalize(&mut Object::from(patched), &schema);
    }
}

pub fn json_patch(input: &[u8]) {
    let Some((_, schema, documents)) = documents(input) else { return };
    let [original, operations] = documents.as_slice() else { return };
    let mut patched = original.clone();
    if patch::json_patch(&mut patched, operations).is_ok() {
        assert!(depth(&patched) <= MAX_DEPTH.max(depth(original)), "no deeper than documents may be");
        let _ = codec::normalize(&mut Object::from(patched), &schema);
    }
}

/// Pairs of documents of each kind.
fn pairs(second: impl Fn(&Resource) -> Vec<Value>) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for (index, resource) in sample::kinds().into_iter().enumerate() {
        let first = sample::full(resource).to_string();
        for second in second(resource) {
            let both = [first.as_bytes(), &[DIVIDER], second.to_string().as_bytes()].concat();
            out.push(join(index, &both));
        }
    }
    out
}

/// The sample without what an applier may not say.
fn applicable(resource: &Resource) -> Value {
    let mut object = Object::from(sample::full(resource));
    object.remove(&["metadata", "managedFields"]);
    object.into_value()
}

pub fn apply_seeds() -> Vec<Vec<u8>> {
    let live = |resource: &Resource| {
        let mut object = applicable(resource);
        object["metadata"]["labels"] = json!({"b": "c"});
        vec![applicable(resource), object]
    };
    let mut out = Vec::new();
    for (index, resource) in sample::kinds().into_iter().enumerate() {
        for applied in live(resource) {
            let live = applicable(resource).to_string();
            out.push(join(index, &[live.as_bytes(), &[DIVIDER], applied.to_string().as_bytes()].concat()));
        }
    }
    out
}

pub fn merge_seeds() -> Vec<Vec<u8>> {
    pairs(|resource| {
        vec![
            sample::full(resource),
            json!({"metadata": {"labels": {"a": null, "b": "c"}, "$retainKeys": ["labels"]}}),
            json!({"spec": {"$patch": "replace"}, "metadata": {"$deleteFromPrimitiveList/finalizers": ["a"],
                "$setElementOrder/ownerReferences": [{"uid": "a"}], "ownerReferences": [{"uid": "a", "$patch": "delete"}]}}),
        ]
    })
}

pub fn json_patch_seeds() -> Vec<Vec<u8>> {
    pairs(|_| {
        vec![json!([
            {"op": "test", "path": "/metadata/name", "value": "a"},
            {"op": "add", "path": "/metadata/finalizers/-", "value": "b"},
            {"op": "copy", "from": "/metadata", "path": "/metadata/labels"},
            {"op": "move", "from": "/metadata/labels", "path": "/spec"},
            {"op": "replace", "path": "/metadata/name", "value": {"a": [1]}},
            {"op": "remove", "path": "/metadata/uid"},
        ])]
    })
}

pub fn selectors(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(selector) = LabelSelector::parse(text) {
        let again = LabelSelector::parse(&selector.to_string()).expect("what was printed is read");
        assert_eq!(again, selector);
        let _ = selector.matches_by(|_| Some("a"));
    }
    if let Ok(selector) = FieldSelector::parse(text) {
        let again = FieldSelector::parse(&selector.to_string()).expect("what was printed is read");
        // requirements are sorted as they were written, so `a==b` and `a=b` stand at different places
        let sorted = |selector: &FieldSelector| {
            let mut all: Vec<String> = selector.requirements().iter().map(|one| format!("{one:?}")).collect();
            all.sort();
            all
        };
        assert_eq!(sorted(&again), sorted(&selector));
        let _ = selector.matches(|_| Some("a"));
    }
}

pub fn selector_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "a=b,c!=d,e==f",
        "a in (b,c),d notin (e, f),g,!h",
        "example.com/a>1,b<2",
        "metadata.name=a,spec.nodeName!=b",
        r"spec.x=a\,b\=c\\d",
        "in in (in),notin notin (notin)",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
