//! What must hold of patches and selectors whatever they are given: a difference, patched, gives what it was taken
//! from; a selector matches what a plain reading of it matches.

use apimachinery::patch::{merge_patch, strategic_merge};
use apimachinery::schema::{Kind, Schema};
use apimachinery::selectors::{FieldSelector, LabelSelector};
use apimachinery::{GroupVersion, Object};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn schema(api_version: &str, kind: &str) -> Schema {
    Schema::for_kind(&GroupVersion::parse(api_version).unwrap().with_kind(kind)).unwrap()
}

/// The merge patch that makes `new` of `old`, where `new` holds no null.
fn merge_difference(old: &Value, new: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return new.clone() };
    let mut out = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        out.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        match old.get(key) {
            Some(before) if before == value => {}
            // a map that replaces something else is written whole
            Some(before @ Value::Object(_)) if value.is_object() => {
                out.insert(key.clone(), merge_difference(before, value));
            }
            _ => drop(out.insert(key.clone(), value.clone())),
        }
    }
    Value::Object(out)
}

/// Trees without nulls.
fn any_tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        (0..3).prop_map(Value::from),
        "[ab]{0,2}".prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            btree_map("[a-d]", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_map() -> impl Strategy<Value = Value> {
    btree_map("[a-d]", any_tree(), 0..4).prop_map(|map| Value::Object(map.into_iter().collect()))
}

/// The strategic merge patch that makes `new` of `old`, as kubectl would make it, told by the descriptors.
fn strategic_difference(
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    schema: Option<&Schema>,
) -> Map<String, Value> {
    let mut out = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        out.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        let Some(before) = old.get(key) else {
            out.insert(key.clone(), value.clone());
            continue;
        };
        let field = schema.and_then(|schema| schema.field(key));
        match (before, value) {
            (before, value) if before == value => {}
            (Value::Object(before), Value::Object(value)) => {
                let inner = field.and_then(|field| schema?.of(&field.kind));
                out.insert(key.clone(), Value::Object(strategic_difference(before, value, inner.as_ref())));
            }
            (Value::Array(before), Value::Array(value))
                if field.is_some_and(|field| field.patch_strategy.merge) =>
            {
                let field = field.unwrap();
                match field.merge_key.is_empty() {
                    true => primitive_difference(key, before, value, &mut out),
                    false => {
                        let Kind::List(list) = &field.kind else { panic!("{key} is a list") };
                        let inner = schema.unwrap().of(&list.element).unwrap();
                        let by = &*field.merge_key;
                        let retain = field.patch_strategy.retain_keys;
                        list_difference(key, by, retain, before, value, &inner, &mut out);
                    }
                }
            }
            _ => drop(out.insert(key.clone(), value.clone())),
        }
    }
    out
}

fn primitive_difference(key: &str, old: &[Value], new: &[Value], out: &mut Map<String, Value>) {
    let without = |all: &[Value], those: &[Value]| -> Vec<Value> {
        all.iter().filter(|item| !those.contains(item)).cloned().collect()
    };
    out.insert(format!("$setElementOrder/{key}"), Value::from(new.to_vec()));
    let (gone, come) = (without(old, new), without(new, old));
    if !gone.is_empty() {
        out.insert(format!("$deleteFromPrimitiveList/{key}"), Value::from(gone));
    }
    if !come.is_empty() {
        out.insert(key.to_owned(), Value::from(come));
    }
}

fn list_difference(
    key: &str,
    by: &str,
    retain: bool,
    old: &[Value],
    new: &[Value],
    schema: &Schema,
    out: &mut Map<String, Value>,
) {
    let find = |list: &[Value], item: &Value| list.iter().find(|other| other[by] == item[by]).cloned();
    let mut items = Vec::new();
    for item in new {
        match find(old, item) {
            None => items.push(item.clone()),
            Some(before) if before == *item => {}
            Some(before) => {
                let (before, now) = (before.as_object().unwrap(), item.as_object().unwrap());
                let mut change = strategic_difference(before, now, Some(schema));
                change.insert(by.to_owned(), item[by].clone());
                if retain {
                    change.insert("$retainKeys".to_owned(), now.keys().cloned().collect());
                }
                items.push(Value::Object(change));
            }
        }
    }
    for gone in old.iter().filter(|item| find(new, item).is_none()) {
        items.push(json!({"$patch": "delete", by: gone[by]}));
    }
    let order: Vec<Value> = new.iter().map(|item| json!({by: item[by]})).collect();
    out.insert(format!("$setElementOrder/{key}"), Value::from(order));
    if !items.is_empty() {
        out.insert(key.to_owned(), Value::from(items));
    }
}

fn strings() -> impl Strategy<Value = Value> {
    btree_map("[a-c]", "[a-b]{0,2}", 0..3).prop_map(|map| json!(map))
}

/// A list of maps with names of their own, in any order.
fn named(content: impl Strategy<Value = Value>, most: usize) -> impl Strategy<Value = Value> {
    let items = btree_map("[a-e]", content, 0..most).prop_map(|items| {
        let item = |(name, mut item): (String, Value)| {
            item["name"] = json!(name);
            item
        };
        items.into_iter().map(item).collect::<Vec<_>>()
    });
    items.prop_shuffle().prop_map(Value::from)
}

fn container() -> impl Strategy<Value = Value> {
    let env = named("[a-b]{0,1}".prop_map(|value| json!({ "value": value })), 4);
    let image = proptest::option::of("[a-b]");
    (image, env, vec("[a-b]", 0..3), strings()).prop_map(|(image, env, args, limits)| {
        let mut out = json!({"args": args, "env": env, "resources": {"limits": limits}});
        if let Some(image) = image {
            out["image"] = json!(image);
        }
        out
    })
}

fn volume() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"emptyDir": {}})),
        "[a-b]".prop_map(|name| json!({"secret": {"secretName": name}})),
        "[a-b]".prop_map(|path| json!({"hostPath": {"path": path}})),
    ]
}

fn pod() -> impl Strategy<Value = Value> {
    let finalizers = proptest::sample::subsequence(vec!["a", "b", "c", "d"], 0..4).prop_shuffle();
    let spec = (
        named(container(), 4),
        named(volume(), 4),
        proptest::option::of(strings()),
        any::<bool>(),
        vec("[a-b]", 0..3),
    );
    (finalizers, strings(), spec).prop_map(|(finalizers, labels, (containers, volumes, selector, host, keys))| {
        let tolerations: Vec<Value> = keys.iter().map(|key| json!({ "key": key })).collect();
        let mut out = json!({"metadata": {"finalizers": finalizers, "labels": labels},
            "spec": {"containers": containers, "volumes": volumes, "hostNetwork": host, "tolerations": tolerations}});
        if let Some(selector) = selector {
            out["spec"]["nodeSelector"] = selector;
        }
        out
    })
}

/// One requirement on labels: its text, and what it means.
#[derive(Clone, Debug)]
enum Wish {
    Is(String, String),
    IsNot(String, String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Has(String),
    HasNot(String),
    Above(String, i64),
    Below(String, i64),
}

impl Wish {
    fn text(&self) -> String {
        match self {
            Self::Is(key, value) => format!("{key}={value}"),
            Self::IsNot(key, value) => format!("{key}!={value}"),
            Self::In(key, values) => format!("{key} in ({})", values.join(",")),
            Self::NotIn(key, values) => format!("{key} notin ({})", values.join(", ")),
            Self::Has(key) => key.clone(),
            Self::HasNot(key) => format!("!{key}"),
            Self::Above(key, bound) => format!("{key}>{bound}"),
            Self::Below(key, bound) => format!("{key}<{bound}"),
        }
    }

    fn holds(&self, labels: &Map<String, Value>) -> bool {
        let of = |key: &str| labels.get(key).and_then(Value::as_str);
        let number = |key: &str| of(key).and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::Is(key, value) => of(key) == Some(value),
            Self::IsNot(key, value) => of(key) != Some(value),
            Self::In(key, values) => of(key).is_some_and(|value| values.iter().any(|other| other == value)),
            Self::NotIn(key, values) => of(key).is_none_or(|value| values.iter().all(|other| other != value)),
            Self::Has(key) => of(key).is_some(),
            Self::HasNot(key) => of(key).is_none(),
            Self::Above(key, bound) => number(key).is_some_and(|value| value > *bound),
            Self::Below(key, bound) => number(key).is_some_and(|value| value < *bound),
        }
    }
}

fn wish() -> impl Strategy<Value = Wish> {
    let (key, value) = (|| "[a-c]", || "[a-b0-2]{0,1}");
    let values = || vec("[a-b0-2]", 1..3);
    prop_oneof![
        (key(), value()).prop_map(|(key, value)| Wish::Is(key, value)),
        (key(), value()).prop_map(|(key, value)| Wish::IsNot(key, value)),
        (key(), values()).prop_map(|(key, values)| Wish::In(key, values)),
        (key(), values()).prop_map(|(key, values)| Wish::NotIn(key, values)),
        key().prop_map(Wish::Has),
        key().prop_map(Wish::HasNot),
        (key(), 0..3i64).prop_map(|(key, bound)| Wish::Above(key, bound)),
        (key(), 0..3i64).prop_map(|(key, bound)| Wish::Below(key, bound)),
    ]
}

proptest! {
    #[test]
    fn a_merge_difference_gives_what_it_was_taken_from(old in any_map(), new in any_map()) {
        let mut patched = old.clone();
        merge_patch(&mut patched, &merge_difference(&old, &new)).unwrap();
        prop_assert_eq!(patched, new);
    }

    #[test]
    fn a_merge_patch_again_changes_nothing(old in any_map(), patch in any_map()) {
        let mut once = old;
        merge_patch(&mut once, &patch).unwrap();
        let mut twice = once.clone();
        merge_patch(&mut twice, &patch).unwrap();
        prop_assert_eq!(twice, once);
    }

    #[test]
    fn a_strategic_difference_gives_what_it_was_taken_from(old in pod(), new in pod()) {
        let schema = schema("v1", "Pod");
        let patch = strategic_difference(old.as_object().unwrap(), new.as_object().unwrap(), Some(&schema));
        let patch = Value::Object(patch);
        let patched = strategic_merge(&old, &patch, &schema);
        prop_assert_eq!(patched.as_ref(), Ok(&new), "by {}", patch);
    }

    #[test]
    fn a_strategic_patch_again_changes_nothing(old in pod(), patch in pod()) {
        let schema = schema("v1", "Pod");
        let once = strategic_merge(&old, &patch, &schema).unwrap();
        let twice = strategic_merge(&once, &patch, &schema).unwrap();
        prop_assert_eq!(twice, once);
    }

    #[test]
    fn a_strategic_patch_keeps_what_it_does_not_name(old in pod(), patch in pod()) {
        let schema = schema("v1", "Pod");
        let merged = strategic_merge(&old, &patch, &schema).unwrap();
        let names = |pod: &Value, list: &str| -> Vec<String> {
            let mut names: Vec<String> =
                pod["spec"][list].as_array().unwrap().iter().map(|item| item["name"].to_string()).collect();
            names.sort();
            names
        };
        for list in ["containers", "volumes"] {
            let mut wanted = [names(&old, list), names(&patch, list)].concat();
            wanted.sort();
            wanted.dedup();
            prop_assert_eq!(names(&merged, list), wanted);
        }
        for container in merged["spec"]["containers"].as_array().unwrap() {
            let of = |pod: &Value| {
                let all = pod["spec"]["containers"].as_array().unwrap().clone();
                all.into_iter().find(|other| other["name"] == container["name"])
            };
            let (before, change) = (of(&old), of(&patch));
            let image = |container: &Option<Value>| container.as_ref().and_then(|it| it.get("image").cloned());
            prop_assert_eq!(container.get("image").cloned(), image(&change).or(image(&before)));
        }
    }

    #[test]
    fn without_lists_that_merge_a_strategic_patch_is_a_merge_patch(old in any_map(), patch in any_map()) {
        let schema = schema("v1", "ConfigMap");
        let (old, patch) = (json!({ "data": old }), json!({ "data": patch }));
        let merged = strategic_merge(&old, &patch, &schema).unwrap();
        let mut plain = old;
        merge_patch(&mut plain, &patch).unwrap();
        prop_assert_eq!(merged, plain);
    }

    #[test]
    fn label_selectors_match_as_they_read(
        wishes in vec(wish(), 0..4),
        labels in btree_map("[a-c]", "[a-b0-2]{0,1}", 0..4),
    ) {
        let texts: Vec<String> = wishes.iter().map(Wish::text).collect();
        let selector = LabelSelector::parse(&texts.join(",")).unwrap();
        let labels: Map<String, Value> = labels.into_iter().map(|(key, value)| (key, json!(value))).collect();
        let wanted = wishes.iter().all(|wish| wish.holds(&labels));
        prop_assert_eq!(selector.matches(&labels), wanted, "{} of {:?}", selector, labels);
        let object = Object::from(json!({"metadata": {"labels": labels}}));
        prop_assert_eq!(selector.matches_object(&object), wanted);
        prop_assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap(), selector);
    }

    #[test]
    fn field_selectors_match_as_they_read(
        wishes in vec(("[a-c]", any::<bool>(), "[a,=\\\\]{0,2}"), 0..4),
        fields in btree_map("[a-c]", "[a,=\\\\]{0,2}", 0..4),
    ) {
        let escaped = |value: &str| value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
        let texts = wishes.iter().map(|(key, equals, value)| {
            format!("{key}{}{}", if *equals { "=" } else { "!=" }, escaped(value))
        });
        let selector = FieldSelector::parse(&texts.collect::<Vec<_>>().join(",")).unwrap();
        let of = |key: &str| fields.get(key).map_or("", String::as_str);
        let wanted = wishes.iter().all(|(key, equals, value)| (of(key) == value) == *equals);
        prop_assert_eq!(selector.matches(|key| fields.get(key).map(String::as_str)), wanted, "{}", selector);
    }
}
