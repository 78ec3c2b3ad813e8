//! Strategic merge patch: a merge patch that knows which lists are maps, with its directives.
//!
//! The order of a merged list follows upstream's rules: items named by the patch (or by `$setElementOrder`) in
//! that order, the others put in between where the live list has them.

use serde_json::{Map, Value};

use super::unprocessable;
use crate::schema::{Field, Kind, PatchStrategy, Schema, View};
use crate::status::{Reason, Status};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList";
const SET_ELEMENT_ORDER: &str = "$setElementOrder";

type Object = Map<String, Value>;

/// Applies a strategic merge patch to a document of a built-in type.
pub fn strategic_merge(original: &Value, patch: &Value, schema: &Schema) -> Result<Value, Status> {
    if schema.is_unstructured() {
        return Err(Error::UnsupportedFormat.into());
    }
    let (Value::Object(original), Value::Object(patch)) = (original, patch) else {
        return Err(Error::BadDocument.into());
    };
    let merged = merge_map(original.clone(), patch.clone(), Some(schema.view()))?;
    Ok(Value::Object(merged))
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("invalid JSON document")]
    BadDocument,
    #[error("lists of lists are not supported")]
    ListOfLists,
    #[error("invalid patch format of primitive list")]
    BadPrimitiveList,
    #[error("invalid patch format of retainKeys")]
    BadRetainKeys,
    #[error("invalid patch format of setElementOrder list")]
    BadElementOrder,
    #[error("strategic merge patch format is not supported")]
    UnsupportedFormat,
    #[error("map: {} does not contain declared merge key: {key}", go_map(.map))]
    NoMergeKey { map: Value, key: String },
    #[error("expected a {expected}, but received a {}", go_type(.got))]
    BadType { expected: &'static str, got: Value },
    #[error("unknown patch type: {} in map: {}", go_map(.0), go_map(.1))]
    BadDirective(Value, Value),
    #[error("merging lists cannot yet be specified in the patch")]
    MergeDirective,
    #[error("list element types are not identical: {}", go_map(.0))]
    MixedList(Value),
    #[error("cannot merge lists without merge key for {0}")]
    NoKeyDeclared(String),
    #[error("The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n", go_map(.0), go_map(.1))]
    OrderMismatch(Value, Value),
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::BadDocument
            | Error::BadPrimitiveList
            | Error::BadRetainKeys
            | Error::BadElementOrder
            | Error::UnsupportedFormat => Status::bad_request(error.to_string()),
            Error::ListOfLists => unprocessable(),
            other => Status::new(500, Reason::Unknown, other.to_string()),
        }
    }
}

/// A value as Go's `%v` prints what JSON was decoded to.
fn go_map(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let entries: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}:{}", go_map(value))).collect();
            format!("map[{}]", entries.join(" "))
        }
        Value::Array(list) => format!("[{}]", list.iter().map(go_map).collect::<Vec<_>>().join(" ")),
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "map[string]interface {}",
        Value::Array(_) => "[]interface {}",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::Null => "%!s(<nil>)",
    }
}

/// What the descriptors say about one field.
#[derive(Clone, Copy)]
struct Meta<'a> {
    /// The message that the field, or the elements of its list or map, are of.
    view: Option<View<'a>>,
    strategy: PatchStrategy,
    merge_key: &'a str,
}

fn meta<'a>(view: Option<View<'a>>, name: &str) -> Meta<'a> {
    let field: Option<&'a Field> = view.and_then(|view| view.field(name));
    let Some((view, field)) = view.zip(field) else {
        return Meta { view: None, strategy: PatchStrategy::default(), merge_key: "" };
    };
    let mut kind = &field.kind;
    loop {
        kind = match kind {
            Kind::List(list) => &list.element,
            Kind::Map(map) => &map.value,
            _ => break,
        };
    }
    Meta { view: view.of(kind), strategy: field.patch_strategy, merge_key: &field.merge_key }
}

fn merge_map(mut original: Object, mut patch: Object, view: Option<View<'_>>) -> Result<Object, Error> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Object::new()),
            _ => {
                patch.insert(DIRECTIVE.to_owned(), directive.clone());
                Err(Error::BadDirective(directive, Value::Object(patch)))
            }
        };
    }
    retain_keys(&mut original, &mut patch)?;
    order_lists(&mut original, &mut patch, view)?;
    for (key, value) in patch {
        let deletes = key.starts_with(DELETE_FROM_PRIMITIVE_LIST);
        let name = if deletes {
            list_name(&key, DELETE_FROM_PRIMITIVE_LIST, Error::BadPrimitiveList)?
        } else {
            &key
        };
        if value.is_null() {
            original.remove(name);
            continue;
        }
        let meta = meta(view, name);
        let merged = match (original.remove(name), value) {
            (Some(Value::Object(original)), Value::Object(patch)) if meta.strategy.replace => {
                drop(original);
                Some(Value::Object(patch))
            }
            (Some(Value::Object(original)), Value::Object(patch)) => {
                Some(Value::Object(merge_map(original, patch, inner(view, name, meta))?))
            }
            (Some(Value::Array(original)), Value::Array(patch)) if meta.strategy.merge || deletes => {
                Some(Value::Array(merge_list(original, patch, meta, deletes)?))
            }
            (Some(Value::Array(_)), Value::Array(patch)) => Some(Value::Array(patch)),
            (before, _) if deletes => before,
            (_, value) => without_directives(without_nulls(value)),
        };
        if let Some(merged) = merged {
            original.insert(name.to_owned(), merged);
        }
    }
    Ok(original)
}

/// The descriptors for the content of a map-valued field: those of a message are its own, while a map of
/// messages has them one level further down, where this leaves them.
fn inner<'a>(view: Option<View<'a>>, name: &str, meta: Meta<'a>) -> Option<View<'a>> {
    let field = view?.field(name)?;
    if matches!(field.kind, Kind::Map(_)) { None } else { meta.view }
}

/// The list that `$directive/list` is about.
fn list_name<'k>(key: &'k str, directive: &str, error: Error) -> Result<&'k str, Error> {
    key.strip_prefix(directive).and_then(|rest| rest.strip_prefix('/')).ok_or(error)
}

/// `$retainKeys`: what the patch does not name goes.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), Error> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(keys) = keys else { return Err(Error::BadRetainKeys) };
    let kept = |key: &str| keys.iter().any(|k| k == key);
    let directive =
        |key: &str| key.starts_with(DELETE_FROM_PRIMITIVE_LIST) || key.starts_with(SET_ELEMENT_ORDER);
    if patch.iter().any(|(key, value)| !value.is_null() && !directive(key) && !kept(key)) {
        return Err(Error::BadRetainKeys);
    }
    original.retain(|key, _| kept(key));
    Ok(())
}

/// `$setElementOrder`: merges the lists that the patch gives an order for.
fn order_lists(original: &mut Object, patch: &mut Object, view: Option<View<'_>>) -> Result<(), Error> {
    let directives: Vec<String> =
        patch.keys().filter(|key| key.starts_with(SET_ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let order = match patch.remove(&directive) {
            Some(Value::Array(order)) => order,
            other => return Err(bad_list(other.unwrap_or_default())),
        };
        let name = list_name(&directive, SET_ELEMENT_ORDER, Error::BadElementOrder)?;
        let live = original.remove(name).map(as_list).transpose()?;
        let items = patch.remove(name).map(as_list).transpose()?;
        let meta = meta(view, name);
        check_order(items.as_deref().unwrap_or_default(), &order, meta.merge_key)?;
        let live_order = live.clone().unwrap_or_default();
        let merged = match (live, items) {
            (None, None) => continue,
            (Some(live), None) => live,
            (None, Some(items)) => items.into_iter().filter_map(without_directives).collect(),
            (Some(live), Some(items)) if meta.strategy.merge => merge_list(live, items, meta, false)?,
            (Some(_), Some(items)) => items,
        };
        let merged = in_order(merged, &order, &live_order, meta.merge_key)?;
        original.insert(name.to_owned(), Value::Array(merged));
    }
    Ok(())
}

fn bad_list(got: Value) -> Error {
    Error::BadType { expected: "[]interface {}", got }
}

fn as_list(value: Value) -> Result<Vec<Value>, Error> {
    match value {
        Value::Array(list) => Ok(list),
        other => Err(bad_list(other)),
    }
}

/// The items of a patch must be among those of the order, and in that order.
fn check_order(items: &[Value], order: &[Value], merge_key: &str) -> Result<(), Error> {
    if items.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut rest = order.iter();
    for item in items.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        let key = identity(item, merge_key)?;
        let mut found = false;
        for other in rest.by_ref() {
            if identity(other, merge_key)? == key {
                found = true;
                break;
            }
        }
        if !found {
            return Err(Error::OrderMismatch(Value::from(items.to_vec()), Value::from(order.to_vec())));
        }
    }
    Ok(())
}

/// What tells an item from others: the value of its merge key, or itself.
fn identity<'v>(item: &'v Value, merge_key: &str) -> Result<&'v Value, Error> {
    if merge_key.is_empty() {
        return Ok(item);
    }
    let Value::Object(map) = item else {
        return Err(Error::BadType { expected: "map[string]interface {}", got: item.clone() });
    };
    map.get(merge_key).ok_or_else(|| Error::NoMergeKey { map: item.clone(), key: merge_key.to_owned() })
}

fn merge_list(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    meta: Meta<'_>,
    deletes: bool,
) -> Result<Vec<Value>, Error> {
    let Some(first) = original.first().or(patch.first()) else { return Ok(original) };
    if first.is_array() {
        return Err(Error::ListOfLists);
    }
    let of_maps = first.is_object();
    if original.iter().chain(&patch).any(|item| go_type(item) != go_type(first)) {
        let lists = vec![Value::from(original), Value::from(patch)];
        return Err(Error::MixedList(Value::from(lists)));
    }
    if !of_maps {
        if deletes {
            original.retain(|item| !patch.contains(item));
            return Ok(original);
        }
        let mut merged: Vec<Value> = Vec::with_capacity(original.len() + patch.len());
        for item in original.iter().chain(&patch) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return in_order(merged, &patch, &original, "");
    }
    if meta.merge_key.is_empty() {
        let name = meta.view.map_or_else(String::new, |view| view.message().name.to_string());
        return Err(Error::NoKeyDeclared(name));
    }
    let (original, patch) = special_items(original, patch, meta.merge_key)?;
    let live_order = original.clone();
    let mut merged = original;
    for item in &patch {
        let key = identity(item, meta.merge_key)?;
        let at = merged.iter().position(|other| other.get(meta.merge_key) == Some(key));
        match (at, item) {
            (Some(at), Value::Object(item)) => {
                let Value::Object(live) = std::mem::take(&mut merged[at]) else { continue };
                merged[at] = Value::Object(merge_map(live, item.clone(), meta.view)?);
            }
            _ => merged.push(item.clone()),
        }
    }
    in_order(merged, &patch, &live_order, meta.merge_key)
}

/// Carries out `$patch: delete` and `$patch: replace` among the items of a list.
fn special_items(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    merge_key: &str,
) -> Result<(Vec<Value>, Vec<Value>), Error> {
    let mut plain = Vec::with_capacity(patch.len());
    let mut replace = false;
    for item in patch {
        match item.get(DIRECTIVE).map(Value::as_str) {
            None => plain.push(item),
            Some(Some("delete")) => {
                let key = identity(&item, merge_key)?;
                original.retain(|other| other.get(merge_key) != Some(key));
            }
            Some(Some("replace")) => replace = true,
            Some(Some("merge")) => return Err(Error::MergeDirective),
            Some(_) => return Err(Error::BadDirective(item[DIRECTIVE].clone(), item)),
        }
    }
    Ok(if replace { (plain, Vec::new()) } else { (original, plain) })
}

/// Puts the items that `order` names in its order, and the others between them where the live list has them.
fn in_order(
    items: Vec<Value>,
    order: &[Value],
    live: &[Value],
    merge_key: &str,
) -> Result<Vec<Value>, Error> {
    for item in items.iter().chain(order).filter(|_| !merge_key.is_empty()) {
        identity(item, merge_key)?;
    }
    let key = |item: &Value| if merge_key.is_empty() { item.clone() } else { item[merge_key].clone() };
    let place = |list: &[Value], item: &Value| {
        let wanted = key(item);
        list.iter().position(|other| key(other) == wanted)
    };
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        items.into_iter().partition(|item| place(order, item).is_some());
    named.sort_by_key(|item| place(order, item));
    others.sort_by_key(|item| place(live, item).unwrap_or(usize::MAX));
    let mut merged = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(other), Some(name)) = (others.peek(), named.peek()) {
        let other_first = matches!((place(live, other), place(live, name)), (Some(a), Some(b)) if a < b);
        merged.extend(if other_first { others.next() } else { named.next() });
    }
    merged.extend(named);
    merged.extend(others);
    Ok(merged)
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect()
        }
        Value::Array(list) => list.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// A value that is new as a whole, without what was only meant for merging; `None` when all of it was.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => {
            Some(map.into_iter().filter_map(|(key, value)| Some((key, without_directives(value)?))).collect())
        }
        Value::Array(list) => Some(list.into_iter().filter_map(without_directives).collect()),
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn pod_spec() -> Schema {
        Schema::builtin("k8s.io.api.core.v1", "PodSpec").unwrap()
    }

    fn check(original: Value, patch: Value, expected: Value) {
        assert_eq!(
            strategic_merge(&original, &patch, &pod_spec()).map_err(|s| s.message),
            Ok(expected),
            "{patch}"
        );
    }

    #[test]
    fn lists_merge_by_key() {
        let live = || json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]});
        check(
            live(),
            json!({"containers": [{"name": "b", "image": "2"}]}),
            json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}),
        );
        check(
            live(),
            json!({"containers": [{"name": "c", "image": "3"}]}),
            json!({"containers": [{"name": "c", "image": "3"}, {"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}),
        );
        check(
            live(),
            json!({"containers": [{"$patch": "delete", "name": "a"}]}),
            json!({"containers": [{"name": "b", "image": "1"}]}),
        );
        check(
            live(),
            json!({"containers": [{"$patch": "replace"}, {"name": "z"}]}),
            json!({"containers": [{"name": "z"}]}),
        );
        check(
            live(),
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "b", "image": "2"}]}),
            json!({"containers": [{"name": "b", "image": "2"}, {"name": "a", "image": "1"}]}),
        );
        check(
            live(),
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
            json!({"containers": [{"name": "b", "image": "1"}, {"name": "a", "image": "1"}]}),
        );
        check(live(), json!({"containers": null}), json!({}));
        check(
            json!({}),
            json!({"containers": [{"name": "x", "$patch": "delete"}, {"name": "y"}]}),
            json!({"containers": [{"name": "y"}]}),
        );
    }

    #[test]
    fn maps_and_scalars() {
        check(
            json!({"nodeSelector": {"a": "1", "b": "2"}, "hostNetwork": true}),
            json!({"nodeSelector": {"a": null, "c": "3"}, "hostNetwork": false}),
            json!({"nodeSelector": {"b": "2", "c": "3"}, "hostNetwork": false}),
        );
        check(
            json!({"nodeSelector": {"a": "1"}}),
            json!({"nodeSelector": {"$patch": "replace", "b": "2"}}),
            json!({"nodeSelector": {"b": "2"}}),
        );
        check(
            json!({"nodeSelector": {"a": "1"}}),
            json!({"nodeSelector": {"$patch": "delete"}}),
            json!({"nodeSelector": {}}),
        );
        check(
            json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
            json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}),
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}),
        );
        check(
            json!({}),
            json!({"securityContext": {"runAsUser": null, "fsGroup": 1}}),
            json!({"securityContext": {"fsGroup": 1}}),
        );
        check(
            json!({"tolerations": [{"key": "a"}]}),
            json!({"tolerations": [{"key": "b"}]}),
            json!({"tolerations": [{"key": "b"}]}),
        );
    }

    #[test]
    fn primitive_lists() {
        let meta = Schema::builtin("k8s.io.apimachinery.pkg.apis.meta.v1", "ObjectMeta").unwrap();
        let cases = [
            (json!({"finalizers": ["c"]}), json!({"finalizers": ["c", "a", "b"]})),
            (json!({"$deleteFromPrimitiveList/finalizers": ["a"]}), json!({"finalizers": ["b"]})),
            (
                json!({"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["c", "b"], "finalizers": ["c"]}),
                json!({"finalizers": ["c", "b"]}),
            ),
        ];
        for (patch, expected) in cases {
            let live = json!({"finalizers": ["a", "b"]});
            assert_eq!(strategic_merge(&live, &patch, &meta).unwrap(), expected, "{patch}");
        }
    }

    #[test]
    fn refusals() {
        let live = json!({"containers": [{"name": "a"}], "volumes": [{"name": "v"}]});
        let cases = [
            (
                json!({"containers": [{"image": "x"}]}),
                500,
                "map: map[image:x] does not contain declared merge key: name",
            ),
            (json!({"containers": ["x"]}), 500, "list element types are not identical: [[map[name:a]] [x]]"),
            (json!({"$patch": "frob"}), 500, "unknown patch type: frob in map: map[$patch:frob]"),
            (
                json!({"volumes": [{"name": "v", "$retainKeys": [], "emptyDir": {}}]}),
                400,
                "invalid patch format of retainKeys",
            ),
            (json!({"$setElementOrder": []}), 400, "invalid patch format of setElementOrder list"),
            (json!([]), 400, "invalid JSON document"),
            (
                json!({"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "c"}]}),
                500,
                "The order in patch list:\n[map[name:c]]\n doesn't match $setElementOrder list:\n[map[name:b]]\n",
            ),
        ];
        for (patch, code, message) in cases {
            let error = strategic_merge(&live, &patch, &pod_spec()).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (code, message), "{patch}");
        }
    }

    fn any_patch() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            Just(json!("a")),
            Just(json!(1)),
            Just(json!("delete")),
            Just(json!("replace")),
            Just(json!([])),
            Just(json!({})),
        ];
        leaf.prop_recursive(5, 40, 5, |inner| {
            let key = prop_oneof![
                Just("containers"),
                Just("name"),
                Just("$patch"),
                Just("$retainKeys"),
                Just("env"),
                Just("nodeSelector"),
                Just("$setElementOrder/containers"),
                Just("$deleteFromPrimitiveList/args"),
                Just("args"),
                Just("volumes"),
            ];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((key, inner), 0..5)
                    .prop_map(|m| Value::Object(m.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn nothing_panics(original in any_patch(), patch in any_patch()) {
            let _ = strategic_merge(&original, &patch, &pod_spec());
        }

        #[test]
        fn an_empty_patch_changes_nothing(original in any_patch()) {
            if original.is_object() {
                prop_assert_eq!(strategic_merge(&original, &json!({}), &pod_spec()).unwrap(), original);
            }
        }
    }
}
