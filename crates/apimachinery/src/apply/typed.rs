//! Objects as server-side apply sees them: which fields are leaves, which lists have keys; and the walks that
//! need no second object: validating, collecting the fields set, removing fields.

use serde_json::{Map, Value};

use super::set::{FieldSet, PathElement, Scalar};
use crate::schema::{Kind, List, ListType, Unknown, View};

/// A place in an object: what the descriptors say about the value there.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    view: View<'a>,
    kind: &'a Kind,
    /// What the field says over what its type says.
    atomic: Option<bool>,
}

/// How a value is owned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Scalar,
    /// A list or a map that has one owner.
    Atomic,
    /// A list whose items have owners.
    Items,
    /// A struct or a map whose fields have owners.
    Fields,
}

const ANY: Kind = Kind::Any;

impl<'a> Node<'a> {
    /// The whole object.
    pub(super) fn root(view: View<'a>, kind: &'a Kind) -> Self {
        Self { view, kind, atomic: Some(false) }
    }

    fn plain(view: View<'a>, kind: &'a Kind) -> Self {
        Self { view, kind, atomic: None }
    }

    /// Values without descriptors: those of custom resources have owners map by map, others as a whole.
    fn is_any(&self) -> bool {
        matches!(
            self.kind,
            Kind::Any
                | Kind::Json
                | Kind::RawExtension
                | Kind::FieldsV1
                | Kind::SchemaOrBool(_)
                | Kind::SchemaOrArray(_)
                | Kind::SchemaOrStrings(_)
        )
    }

    fn deduced(&self) -> bool {
        self.view.unstructured() && self.is_any()
    }

    pub(super) fn shape(&self, value: &Value) -> Shape {
        match self.kind {
            _ if self.deduced() => match value {
                Value::Object(_) | Value::Null => Shape::Fields,
                Value::Array(_) => Shape::Atomic,
                _ => Shape::Scalar,
            },
            _ if self.is_any() => match value {
                Value::Object(_) | Value::Array(_) | Value::Null => Shape::Atomic,
                _ => Shape::Scalar,
            },
            Kind::Message(_) | Kind::Foreign(_) => {
                let own = self.view.of(self.kind).is_some_and(|view| view.message().atomic);
                if self.atomic.unwrap_or(own) { Shape::Atomic } else { Shape::Fields }
            }
            Kind::Map(map) if !map.atomic => Shape::Fields,
            Kind::List(list) if list.list_type != ListType::Atomic => Shape::Items,
            Kind::List(_) | Kind::Map(_) | Kind::Strings => Shape::Atomic,
            _ => Shape::Scalar,
        }
    }

    /// The place of a field, and whether the descriptors name it. `None`: there is no such field.
    pub(super) fn field(&self, name: &str) -> Option<(Node<'a>, bool)> {
        if let Some(view) = self.view.of(self.kind).filter(|_| !self.is_any()) {
            if let Some(field) = view.field(name) {
                return Some((Node { view, kind: &field.kind, atomic: field.atomic }, true));
            }
            return match &view.message().unknown {
                Unknown::Prune => None,
                Unknown::Keep => Some((Node::plain(view, &ANY), false)),
                Unknown::Typed(kind) => Some((Node::plain(view, kind), false)),
            };
        }
        match self.kind {
            Kind::Map(map) => Some((Node::plain(self.view, &map.value), false)),
            _ => Some((Node::plain(self.view, &ANY), false)),
        }
    }

    /// Like [`Self::field`], for objects that are known to be well formed.
    fn field_or_any(&self, name: &str) -> (Node<'a>, bool) {
        self.field(name).unwrap_or((Node::plain(self.view, &ANY), false))
    }

    pub(super) fn child(&self, name: &str) -> Node<'a> {
        self.field_or_any(name).0
    }

    fn list(&self) -> Option<&'a List> {
        match self.kind {
            Kind::List(list) => Some(list),
            _ => None,
        }
    }

    pub(super) fn element(&self) -> Node<'a> {
        self.list().map_or(Node::plain(self.view, &ANY), |list| Node::plain(self.view, &list.element))
    }

    /// What tells an item of the list from the others.
    pub(super) fn item(&self, item: &Value) -> Result<PathElement, String> {
        let keys = self.list().map(|list| list.keys.as_slice()).unwrap_or_default();
        if keys.is_empty() {
            return match item {
                Value::Object(_) => {
                    Err("associative list without keys has an element that's a map type".into())
                }
                Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
                Value::Null => {
                    Err("associative list without keys has an element that's an explicit null".into())
                }
                scalar => Ok(PathElement::Value(Scalar(scalar.clone()))),
            };
        }
        let map = match item {
            Value::Object(map) => map,
            Value::Null => return Err("associative list with keys may not have a null element".into()),
            _ => return Err("associative list with keys may not have non-map elements".into()),
        };
        let element = self.element();
        let default = |key: &str| {
            let fields = element.view.of(element.kind)?;
            fields.field(key)?.default.as_ref()
        };
        let mut found: Vec<(String, Scalar)> = Vec::with_capacity(keys.len());
        for key in keys {
            if let Some(value) = map.get(&**key).or_else(|| default(key)) {
                found.push((key.to_string(), Scalar(value.clone())));
            }
        }
        if found.is_empty() {
            let names: Vec<String> = keys.iter().map(|key| crate::field::quote(key)).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] \
                 (and doesn't have default values for any key fields)",
                names.join(" ")
            ));
        }
        found.sort();
        Ok(PathElement::Key(found))
    }

    /// The place that a path element leads to.
    fn at(&self, element: &PathElement) -> Option<(Node<'a>, bool)> {
        match element {
            PathElement::Field(name) => self.field(name),
            PathElement::Key(_) | PathElement::Value(_) | PathElement::Index(_) => {
                Some((self.element(), false))
            }
        }
    }
}

pub(super) fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        Some(_) => false,
    }
}

/// The fields that a value sets, and whether the value's own place is one of them.
pub(super) fn field_set(value: &Value, node: Node<'_>) -> (bool, FieldSet) {
    let mut set = FieldSet::default();
    match (node.shape(value), value) {
        (Shape::Scalar | Shape::Atomic, _) => return (true, set),
        (Shape::Items, Value::Array(items)) => {
            let element = node.element();
            let keyed: Vec<_> = items.iter().filter_map(|item| Some((node.item(item).ok()?, item))).collect();
            for (key, item) in &keyed {
                // An item that is there twice has no fields of its own.
                if keyed.iter().filter(|(other, _)| other == key).count() == 1 {
                    set.attach(key.clone(), field_set(item, element).1);
                }
                set.add(key.clone());
            }
        }
        (Shape::Fields, Value::Object(map)) => {
            for (name, value) in map {
                let (child, named) = node.field_or_any(name);
                let (own, below) = field_set(value, child);
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                let element = PathElement::Field(name.clone());
                if own || empty || !named {
                    set.add(element.clone());
                }
                set.attach(element, below);
            }
        }
        _ => {}
    }
    (false, set)
}

/// Takes out of a value what a set names; what is left of a container that becomes empty is null.
pub(super) fn remove(value: &Value, set: &FieldSet, node: Node<'_>) -> Value {
    match (node.shape(value), value) {
        (Shape::Scalar, value) => value.clone(),
        (Shape::Items, Value::Array(items)) => {
            let mut left = Vec::with_capacity(items.len());
            for item in items {
                match node.item(item) {
                    Ok(key) if set.has_member(&key) => {}
                    Ok(key) => match set.below(&key) {
                        Some(below) => left.push(remove(item, below, node.element())),
                        None => left.push(item.clone()),
                    },
                    Err(_) => left.push(item.clone()),
                }
            }
            if left.is_empty() { Value::Null } else { Value::Array(left) }
        }
        (Shape::Fields, Value::Object(map)) => {
            let mut left = Map::new();
            for (name, value) in map {
                let element = PathElement::Field(name.clone());
                if set.has_member(&element) {
                    continue;
                }
                let value = match set.below(&element) {
                    Some(below) => remove(value, below, node.child(name)),
                    None => value.clone(),
                };
                left.insert(name.clone(), value);
            }
            if left.is_empty() { Value::Null } else { Value::Object(left) }
        }
        _ => Value::Null,
    }
}

/// The set with every named field that it holds something below.
pub(super) fn with_named_fields(set: &FieldSet, node: Option<Node<'_>>) -> FieldSet {
    let mut out = FieldSet::default();
    for element in set.members() {
        out.add(element.clone());
    }
    for (element, below) in set.children() {
        let next = node.and_then(|node| node.at(element));
        if next.is_some_and(|(_, named)| named) {
            out.add(element.clone());
        }
        out.attach(element.clone(), with_named_fields(below, next.map(|(node, _)| node)));
    }
    out
}

/// Whether [`reconcile`] would change the set.
pub(super) fn is_outdated(set: &FieldSet, node: Node<'_>) -> bool {
    set.children().any(|(element, below)| match node.at(element) {
        Some((next, _)) => next.is_atomic_container() || is_outdated(below, next),
        None => false,
    })
}

/// Brings a set that was written when a field had many owners up to descriptors that give it one.
pub(super) fn reconcile(set: &FieldSet, node: Node<'_>) -> FieldSet {
    let mut out = FieldSet::default();
    for element in set.members() {
        out.add(element.clone());
    }
    for (element, below) in set.children() {
        match node.at(element).map(|(node, _)| node) {
            Some(next) if next.is_atomic_container() => out.add(element.clone()),
            Some(next) => out.attach(element.clone(), reconcile(below, next)),
            None => out.attach(element.clone(), below.clone()),
        }
    }
    out
}

impl Node<'_> {
    fn is_atomic_container(&self) -> bool {
        !self.deduced()
            && !matches!(self.kind, Kind::Strings)
            && matches!(self.shape(&Value::Null), Shape::Atomic)
    }
}

/// What is wrong with an applied configuration, path by path.
pub(super) fn validate(value: &Value, node: Node<'_>, errors: &mut Vec<String>) {
    walk(value, node, &mut String::new(), errors);
}

fn fail(path: &str, errors: &mut Vec<String>, what: String) {
    let colon = if path.is_empty() { "" } else { ": " };
    errors.push(format!("{path}{colon}{what}"));
}

fn walk(value: &Value, node: Node<'_>, path: &mut String, errors: &mut Vec<String>) {
    if value.is_null() || node.is_any() {
        return;
    }
    // Custom resources are validated by their schema, with better messages than these.
    let lenient = node.view.unstructured();
    match node.kind {
        Kind::List(_) | Kind::Strings => {
            let Value::Array(items) = value else {
                return fail(path, errors, format!("expected list, got &{{{}}}", plain(value)));
            };
            let keyed = node.list().is_some_and(|list| list.list_type != ListType::Atomic);
            let mut seen: Vec<PathElement> = Vec::new();
            for (index, item) in items.iter().enumerate() {
                let element = match node.item(item).map_err(|error| format!("element {index}: {error}")) {
                    _ if !keyed => PathElement::Index(index as i64),
                    Ok(element) => element,
                    Err(error) => return fail(path, errors, error),
                };
                if keyed && seen.contains(&element) {
                    fail(path, errors, format!("duplicate entries for key {element}"));
                }
                let length = path.len();
                path.push_str(&element.to_string());
                walk(item, node.element(), path, errors);
                path.truncate(length);
                if keyed {
                    seen.push(element);
                }
            }
        }
        Kind::Message(_) | Kind::Foreign(_) | Kind::Map(_) => {
            let Value::Object(map) = value else {
                return fail(path, errors, format!("expected map, got &{{{}}}", plain(value)));
            };
            for (name, value) in map {
                let length = path.len();
                path.push('.');
                path.push_str(name);
                match node.field(name) {
                    Some((child, _)) => walk(value, child, path, errors),
                    None => errors.push(format!("{path}: field not declared in schema")),
                }
                path.truncate(length);
            }
        }
        _ if lenient => {}
        Kind::String | Kind::Bytes if !value.is_string() => {
            fail(
                path,
                errors,
                format!("expected string, got &value.valueUnstructured{{Value:{}}}", plain(value)),
            );
        }
        Kind::Bool if !value.is_boolean() => {
            fail(path, errors, format!("expected boolean, got &{{{}}}", plain(value)))
        }
        Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Float64 if !value.is_number() => {
            let got = match value {
                Value::String(_) => "string",
                Value::Bool(_) => "bool",
                Value::Array(_) => "[]interface {}",
                _ => "map[string]interface {}",
            };
            fail(path, errors, format!("expected numeric (int or float), got {got}"));
        }
        _ if value.is_object() || value.is_array() => {
            fail(path, errors, format!("expected any scalar, got &{{{}}}", plain(value)));
        }
        _ => {}
    }
}

/// A value as Go prints it when it was decoded from JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(plain).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let entries: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}:{}", plain(value))).collect();
            format!("map[{}]", entries.join(" "))
        }
        other => other.to_string(),
    }
}
