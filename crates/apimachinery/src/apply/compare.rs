//! Two objects side by side: what one has that the other has not, and one laid over the other.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::filter::Filter;
use super::set::{FieldSet, PathElement};
use super::typed::{Node, Shape, is_empty};

/// How one object differs from another. Only an item that was or becomes a duplicate is in two of the sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    pub removed: FieldSet,
    pub modified: FieldSet,
    pub added: FieldSet,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Removed,
    Modified,
    Added,
}

impl Comparison {
    fn note(&mut self, change: Change, element: PathElement) {
        match change {
            Change::Removed => self.removed.add(element),
            Change::Modified => self.modified.add(element),
            Change::Added => self.added.add(element),
        }
    }

    fn attach(&mut self, element: PathElement, (own, below): (Option<Change>, Comparison)) {
        if let Some(change) = own {
            self.note(change, element.clone());
        }
        for (set, below) in [
            (&mut self.removed, below.removed),
            (&mut self.modified, below.modified),
            (&mut self.added, below.added),
        ] {
            if !below.is_empty() {
                set.attach(element.clone(), below);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    fn extend(&mut self, other: &Comparison) {
        self.removed.extend(&other.removed);
        self.modified.extend(&other.modified);
        self.added.extend(&other.added);
    }

    /// What a filter leaves of it.
    pub(super) fn filtered(self, filter: Option<&Filter>) -> Self {
        let Some(filter) = filter else { return self };
        Self {
            removed: filter.apply(self.removed),
            modified: filter.apply(self.modified),
            added: filter.apply(self.added),
        }
    }
}

/// Compares an object with the one that follows it.
pub(super) fn compare(old: &Value, new: &Value, node: Node<'_>) -> Comparison {
    compare_at(Some(old), Some(new), node).1
}

/// The shapes two values have at a place; a side that is missing, or null, takes the form of the other.
fn shapes(old: Option<&Value>, new: Option<&Value>, node: Node<'_>) -> (Option<Shape>, Shape) {
    let shape = |value: Option<&Value>| value.map(|value| node.shape(value));
    match (shape(old), shape(new)) {
        (Some(old), None) => (None, old),
        (Some(old), Some(new)) if old != new => (Some(old), new),
        (_, Some(new)) => (None, new),
        (None, None) => (None, Shape::Scalar),
    }
}

fn compare_at(old: Option<&Value>, new: Option<&Value>, node: Node<'_>) -> (Option<Change>, Comparison) {
    // Most of an object stays the same in most writes.
    if let (Some(old), Some(new)) = (old, new)
        && equal(old, new)
    {
        return (None, Comparison::default());
    }
    let (other, shape) = shapes(old, new, node);
    let (change, mut comparison) = compare_as(shape, old, new, node);
    let Some(other) = other else { return (change, comparison) };
    let (own, rest) = compare_as(other, old, new, node);
    comparison.extend(&rest);
    (change.or(own), comparison)
}

fn leaf(old: Option<&Value>, new: Option<&Value>) -> Option<Change> {
    match (old, new) {
        (None, _) => Some(Change::Added),
        (_, None) => Some(Change::Removed),
        (Some(old), Some(new)) => (!equal(old, new)).then_some(Change::Modified),
    }
}

fn compare_as(
    shape: Shape,
    old: Option<&Value>,
    new: Option<&Value>,
    node: Node<'_>,
) -> (Option<Change>, Comparison) {
    let mut comparison = Comparison::default();
    let container = |value: Option<&Value>| match shape {
        Shape::Items => value.is_some_and(Value::is_array),
        _ => value.is_some_and(Value::is_object),
    };
    match shape {
        Shape::Scalar | Shape::Atomic => return (leaf(old, new), comparison),
        // Whether something is empty or not there is a difference only here.
        _ if !container(old.filter(|v| !is_empty(Some(v))))
            && !container(new.filter(|v| !is_empty(Some(v)))) =>
        {
            return (leaf(old, new), comparison);
        }
        Shape::Fields => {
            let (olds, news) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
            for name in names(olds, news) {
                let child = compare_at(get(olds, name), get(news, name), node.child(name));
                if child.0.is_some() || !child.1.is_empty() {
                    comparison.attach(PathElement::Field(name.clone()), child);
                }
            }
        }
        Shape::Items => compare_items(old, new, node, &mut comparison),
    }
    let own = match (old, new) {
        (None, _) => Some(Change::Added),
        (_, None) => Some(Change::Removed),
        _ => None,
    };
    (own, comparison)
}

/// The keys of two maps, each once.
fn names<'m>(a: Option<&'m Map<String, Value>>, b: Option<&'m Map<String, Value>>) -> Vec<&'m String> {
    let more = b.into_iter().flatten().map(|(name, _)| name);
    let more = more.filter(|name| !a.is_some_and(|a| a.contains_key(*name)));
    a.into_iter().flatten().map(|(name, _)| name).chain(more).collect()
}

fn get<'m>(map: Option<&'m Map<String, Value>>, name: &str) -> Option<&'m Value> {
    map.and_then(|map| map.get(name))
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn compare_items(old: Option<&Value>, new: Option<&Value>, node: Node<'_>, comparison: &mut Comparison) {
    let mut pairs: BTreeMap<PathElement, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    for item in items(old) {
        if let Ok(key) = node.item(item) {
            pairs.entry(key).or_default().0.push(item);
        }
    }
    for item in items(new) {
        if let Ok(key) = node.item(item) {
            pairs.entry(key).or_default().1.push(item);
        }
    }
    for (key, (olds, news)) in pairs {
        let element = node.element();
        match (olds.as_slice(), news.as_slice()) {
            ([] | [_], [] | [_]) => {
                let child = compare_at(olds.first().copied(), news.first().copied(), element);
                comparison.attach(key, child);
            }
            // Items that are there more than once count as one.
            ([_, _, ..], [_, _, ..]) => {
                let same = olds.len() == news.len() && olds.iter().zip(&news).all(|(a, b)| equal(a, b));
                if !same {
                    comparison.note(Change::Modified, key);
                }
            }
            ([_, _, ..], _) => {
                if let Some(new) = news.first() {
                    comparison.attach(key.clone(), compare_at(None, Some(new), element));
                }
                comparison.note(Change::Removed, key);
            }
            (_, [_, _, ..]) => {
                if let Some(old) = olds.first() {
                    comparison.attach(key.clone(), compare_at(Some(old), None, element));
                }
                comparison.note(Change::Added, key);
            }
        }
    }
}

/// Equality of values; numbers are equal when their values are.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| equal(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(key, x)| y.get(key).is_some_and(|y| equal(x, y)))
        }
        _ => a == b,
    }
}

/// Lays an applied configuration over a live object.
pub(super) fn merge(live: &Value, config: &Value, node: Node<'_>) -> Value {
    merge_at(Some(live), Some(config), node).unwrap_or(Value::Null)
}

fn merge_at(live: Option<&Value>, config: Option<&Value>, node: Node<'_>) -> Option<Value> {
    let (_, shape) = shapes(live, config, node);
    let keep = || config.or(live).cloned();
    match shape {
        Shape::Scalar | Shape::Atomic => keep(),
        _ if is_empty(live) && is_empty(config) => keep(),
        Shape::Fields => {
            let (lives, configs) = (live.and_then(Value::as_object), config.and_then(Value::as_object));
            if lives.is_none() && configs.is_none() {
                return keep();
            }
            let mut out = Map::new();
            for name in names(lives, configs) {
                if let Some(value) = merge_at(get(lives, name), get(configs, name), node.child(name)) {
                    out.insert(name.clone(), value);
                }
            }
            (!out.is_empty()).then_some(Value::Object(out))
        }
        Shape::Items => {
            let out = merge_items(items(live), items(config), node);
            (!out.is_empty()).then_some(Value::Array(out))
        }
    }
}

/// Merges keyed lists. The configuration's items keep their order; items that only the live list has stay in
/// front of what they were in front of.
fn merge_items(live: &[Value], config: &[Value], node: Node<'_>) -> Vec<Value> {
    let keyed = |list: &[Value]| -> Vec<PathElement> {
        list.iter().map(|item| node.item(item).unwrap_or(PathElement::Index(-1))).collect()
    };
    let (live_keys, config_keys) = (keyed(live), keyed(config));
    let element = node.element();
    let find = |keys: &[PathElement], key: &PathElement| keys.iter().position(|other| other == key);
    // A live item that is there twice is not merged with: the configuration's takes its place.
    let partner = |key: &PathElement| {
        let twice = live_keys.iter().filter(|other| *other == key).count() > 1;
        if twice { Some(&Value::Null) } else { find(&live_keys, key).map(|at| &live[at]) }
    };
    let mut shared = config_keys.iter().filter(|key| find(&live_keys, key).is_some());
    let mut next_shared = shared.next();
    let mut out = Vec::with_capacity(live.len().max(config.len()));
    let (mut l, mut c) = (0, 0);
    while l < live.len() || c < config.len() {
        if l < live.len() {
            let key = &live_keys[l];
            match find(&config_keys, key) {
                None => {
                    out.extend(merge_at(Some(&live[l]), None, element));
                    l += 1;
                    continue;
                }
                Some(at) if at == c => l += 1,
                // The configuration puts it further on.
                Some(_) if c < config.len() && next_shared.is_some_and(|next| next != key) => {
                    l += 1;
                    continue;
                }
                // It has been put already.
                Some(at) if at < c => l += 1,
                Some(_) => {}
            }
        }
        if c < config.len() {
            let key = &config_keys[c];
            out.extend(merge_at(partner(key), Some(&config[c]), element));
            if next_shared == Some(key) {
                next_shared = shared.next();
            }
            c += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Schema;
    use serde_json::json;

    #[test]
    fn merged_lists_keep_both_orders_where_they_can() {
        let schema = Schema::builtin("k8s.io.apimachinery.pkg.apis.meta.v1", "ObjectMeta").unwrap();
        let kind = crate::schema::Kind::Foreign(schema.clone());
        let node = Node::root(schema.view(), &kind);
        let cases = [
            ("", "a", "a"),
            ("ab", "c", "abc"),
            ("abc", "ca", "bca"),
            ("abc", "bx", "abcx"),
            ("abcd", "dxb", "acdxb"),
            ("ab", "xayb", "xayb"),
            ("aax", "an", "anx"),
            ("abc", "", "abc"),
        ];
        let list = |text: &str| -> Value { text.chars().map(|c| c.to_string()).collect() };
        for (live, config, expected) in cases {
            let (live, config) = (json!({"finalizers": list(live)}), json!({"finalizers": list(config)}));
            assert_eq!(merge(&live, &config, node)["finalizers"], list(expected), "{live} {config}");
        }
    }

    #[test]
    fn every_difference_is_in_one_set() {
        let schema = Schema::builtin("k8s.io.api.core.v1", "ConfigMap").unwrap();
        let kind = crate::schema::Kind::Foreign(schema.clone());
        let node = Node::root(schema.view(), &kind);
        let old = json!({"data": {"a": "1", "b": "2"}, "metadata": {"finalizers": ["x", "x", "y"], "labels": {"l": "1"}}});
        let new = json!({"data": {"a": "3", "c": "4"}, "metadata": {"finalizers": ["x", "z", "z"]}, "immutable": true});
        let comparison = compare(&old, &new, node);
        let show = |set: &FieldSet| -> Vec<String> {
            set.paths().iter().map(|path| path.iter().map(ToString::to_string).collect()).collect()
        };
        assert_eq!(show(&comparison.modified), [".data.a"]);
        assert_eq!(
            show(&comparison.added),
            [".immutable", ".data.c", ".metadata.finalizers[=\"x\"]", ".metadata.finalizers[=\"z\"]"]
        );
        assert_eq!(
            show(&comparison.removed),
            [
                ".data.b",
                ".metadata.labels",
                ".metadata.finalizers[=\"x\"]",
                ".metadata.finalizers[=\"y\"]",
                ".metadata.labels.l"
            ]
        );
    }
}
