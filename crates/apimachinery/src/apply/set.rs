//! Sets of field paths, and their form in `managedFields` (`FieldsV1`).

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Number, Value};

use crate::codec::{MAX_DEPTH, write_any};
use crate::field::quote;

/// One step into an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathElement {
    /// A field of a struct or a key of a map.
    Field(String),
    /// The item of a keyed list, by its keys, sorted by name.
    Key(Vec<(String, Scalar)>),
    /// The item of a set.
    Value(Scalar),
    /// An item by its place. Only read, never made here.
    Index(i64),
}

/// A value that tells items of a list apart. Numbers sort before text, text before booleans.
#[derive(Clone, Debug)]
pub struct Scalar(pub Value);

impl Scalar {
    fn rank(&self) -> u8 {
        match self.0 {
            Value::Number(_) => 0,
            Value::String(_) => 1,
            Value::Bool(_) => 2,
            Value::Array(_) => 3,
            Value::Object(_) => 4,
            Value::Null => 5,
        }
    }
}

impl Ord for Scalar {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Value::Number(a), Value::Number(b)) => compare_numbers(a, b),
            (Value::String(a), Value::String(b)) => a.cmp(b),
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            // Lists and maps tell nothing apart in upstream either; any order that is one will do.
            (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => {
                self.0.to_string().cmp(&other.0.to_string())
            }
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Scalar {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scalar {}

fn compare_numbers(a: &Number, b: &Number) -> Ordering {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => a.as_f64().unwrap_or_default().total_cmp(&b.as_f64().unwrap_or_default()),
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Value::String(text) => f.write_str(&quote(text)),
            other => write!(f, "{other}"),
        }
    }
}

/// `.field`, `[name="a"]`, `[="value"]`, `[3]`
impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(keys) => {
                let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", keys.join(","))
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

impl PathElement {
    /// `f:name`, `k:{"name":"a"}`, `v:"value"`, `i:3`
    fn encode(&self) -> String {
        let json = |value: &Value| {
            let mut out = Vec::new();
            write_any(value, &mut out);
            String::from_utf8(out).unwrap_or_default()
        };
        match self {
            Self::Field(name) => ["f:", name].concat(),
            Self::Key(keys) => {
                let map: Map<String, Value> = keys.iter().map(|(k, v)| (k.clone(), v.0.clone())).collect();
                format!("k:{}", json(&Value::Object(map)))
            }
            Self::Value(value) => format!("v:{}", json(&value.0)),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    /// `Ok(None)` for kinds of elements that a later version may know.
    fn decode(text: &str) -> Result<Option<Self>, String> {
        let (kind, rest) = text.split_once(':').ok_or_else(|| format!("missing colon: {text}"))?;
        let parse = || serde_json::from_str::<Value>(rest).map_err(|error| error.to_string());
        Ok(Some(match kind {
            "f" => Self::Field(rest.to_owned()),
            "v" => Self::Value(Scalar(parse()?)),
            "k" => match parse()? {
                Value::Object(map) => {
                    let mut keys: Vec<_> = map.into_iter().map(|(k, v)| (k, Scalar(v))).collect();
                    keys.sort();
                    Self::Key(keys)
                }
                other => return Err(format!("expected an object, got {other}")),
            },
            "i" => Self::Index(rest.parse().map_err(|_| format!("invalid index: {rest}"))?),
            kind if kind.len() == 1 => return Ok(None),
            _ => return Err(format!("missing colon: {text}")),
        }))
    }
}

/// A set of field paths. A path's parents are in it only when they are said to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    members: BTreeSet<PathElement>,
    /// Never holds an empty set.
    children: BTreeMap<PathElement, FieldSet>,
}

impl FieldSet {
    /// A set of paths of struct fields, such as `&[&["status"], &["metadata", "labels"]]`.
    pub fn of_fields(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let path: Vec<_> = path.iter().map(|name| PathElement::Field((*name).to_owned())).collect();
            set.insert(&path);
        }
        set
    }

    pub fn insert(&mut self, path: &[PathElement]) {
        match path {
            [] => {}
            [last] => self.add(last.clone()),
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    pub(super) fn add(&mut self, element: PathElement) {
        self.members.insert(element);
    }

    /// Puts a whole set below an element.
    pub(super) fn attach(&mut self, element: PathElement, below: FieldSet) {
        if !below.is_empty() {
            self.children.insert(element, below);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.is_empty()
    }

    pub fn has(&self, path: &[PathElement]) -> bool {
        match path {
            [] => false,
            [last] => self.members.contains(last),
            [first, rest @ ..] => self.children.get(first).is_some_and(|below| below.has(rest)),
        }
    }

    pub(super) fn has_member(&self, element: &PathElement) -> bool {
        self.members.contains(element)
    }

    pub(super) fn below(&self, element: &PathElement) -> Option<&FieldSet> {
        self.children.get(element)
    }

    pub(super) fn children(&self) -> impl Iterator<Item = (&PathElement, &FieldSet)> {
        self.children.iter()
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &PathElement> {
        self.members.iter()
    }

    #[must_use]
    pub fn union(mut self, other: &Self) -> Self {
        self.extend(other);
        self
    }

    pub(super) fn extend(&mut self, other: &Self) {
        self.members.extend(other.members.iter().cloned());
        for (element, below) in &other.children {
            self.children.entry(element.clone()).or_default().extend(below);
        }
    }

    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut out = Self {
            members: self.members.intersection(&other.members).cloned().collect(),
            children: BTreeMap::new(),
        };
        for (element, below) in &self.children {
            if let Some(others) = other.children.get(element) {
                out.attach(element.clone(), below.intersection(others));
            }
        }
        out
    }

    /// What is here and not there, path by path.
    #[must_use]
    pub fn difference(mut self, other: &Self) -> Self {
        self.subtract(other);
        self
    }

    fn subtract(&mut self, other: &Self) {
        for element in &other.members {
            self.members.remove(element);
        }
        for (element, others) in &other.children {
            if let Some(below) = self.children.get_mut(element) {
                below.subtract(others);
                if below.is_empty() {
                    self.children.remove(element);
                }
            }
        }
    }

    /// What is here and neither there nor below anything there.
    #[must_use]
    pub fn recursive_difference(mut self, other: &Self) -> Self {
        self.subtract_all(other);
        self
    }

    fn subtract_all(&mut self, other: &Self) {
        for element in &other.members {
            self.members.remove(element);
            self.children.remove(element);
        }
        for (element, others) in &other.children {
            if let Some(below) = self.children.get_mut(element) {
                below.subtract_all(others);
                if below.is_empty() {
                    self.children.remove(element);
                }
            }
        }
    }

    /// All paths, members before what is below them.
    pub fn paths(&self) -> Vec<Vec<PathElement>> {
        let mut out = Vec::new();
        self.collect(&mut Vec::new(), &mut out);
        out
    }

    fn collect(&self, prefix: &mut Vec<PathElement>, out: &mut Vec<Vec<PathElement>>) {
        for element in &self.members {
            out.push([prefix.as_slice(), std::slice::from_ref(element)].concat());
        }
        for (element, below) in &self.children {
            prefix.push(element.clone());
            below.collect(prefix, out);
            prefix.pop();
        }
    }

    /// The set as `FieldsV1`.
    pub fn to_fields_v1(&self) -> Value {
        self.encode(false)
    }

    fn encode(&self, member: bool) -> Value {
        let mut map = Map::new();
        if member && !self.is_empty() {
            map.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for element in self.members.iter().filter(|element| !self.children.contains_key(element)) {
            map.insert(element.encode(), Value::Object(Map::new()));
        }
        for (element, below) in &self.children {
            map.insert(element.encode(), below.encode(self.members.contains(element)));
        }
        Value::Object(map)
    }

    /// Reads `FieldsV1`; what it cannot know it leaves out, what is malformed it refuses.
    pub fn from_fields_v1(fields: &Value) -> Result<Self, String> {
        Self::decode(fields, 0).map(|(set, _)| set)
    }

    /// The set below, and whether the place itself is a member.
    fn decode(fields: &Value, depth: usize) -> Result<(Self, bool), String> {
        let map = match fields {
            Value::Object(map) if depth < MAX_DEPTH => map,
            Value::Null => return Ok((Self::default(), true)),
            _ => return Err("expected an object".to_owned()),
        };
        let (mut set, mut member) = (Self::default(), false);
        for (key, value) in map {
            if key == "." {
                member = true;
                continue;
            }
            let Some(element) = PathElement::decode(key)? else { continue };
            let (below, is_member) = Self::decode(value, depth + 1)?;
            if is_member {
                set.add(element.clone());
            }
            set.attach(element, below);
        }
        let member = member || set.is_empty();
        Ok((set, member))
    }
}

/// How a path reads in messages: `.spec.containers[name="a"].image`.
pub(super) fn show(path: &[PathElement]) -> String {
    path.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn fields_v1() {
        let fields = json!({
            "f:metadata": {"f:labels": {".": {}, "f:a": {}}, "f:finalizers": {"v:\"x\"": {}}},
            "f:spec": {"f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}},
        });
        let set = FieldSet::from_fields_v1(&fields).unwrap();
        assert_eq!(set.to_fields_v1(), fields);
        let paths: Vec<String> = set.paths().iter().map(|path| show(path)).collect();
        assert_eq!(
            paths,
            [
                ".metadata.labels",
                ".metadata.finalizers[=\"x\"]",
                ".metadata.labels.a",
                ".spec.ports",
                ".spec.ports[port=80,protocol=\"TCP\"]",
                ".spec.ports[port=80,protocol=\"TCP\"].port",
            ]
        );
        assert_eq!(FieldSet::from_fields_v1(&json!({"x:new": {}, "f:a": {}})).unwrap().paths().len(), 1);
        for wrong in [json!({"f": {}}), json!({"k:1": {}}), json!({"f:a": 1}), json!({"v:{": {}}), json!([])]
        {
            assert!(FieldSet::from_fields_v1(&wrong).is_err(), "{wrong}");
        }
    }

    fn any_set() -> impl Strategy<Value = FieldSet> {
        let element = prop_oneof![
            "[a-c]".prop_map(PathElement::Field),
            (0..3i64).prop_map(|n| PathElement::Value(Scalar(json!(n)))),
            "[a-b]".prop_map(|name| PathElement::Key(vec![("name".to_owned(), Scalar(json!(name)))])),
        ];
        let path = proptest::collection::vec(element, 1..4);
        proptest::collection::vec(path, 0..8).prop_map(|paths| {
            let mut set = FieldSet::default();
            paths.iter().for_each(|path| set.insert(path));
            set
        })
    }

    proptest! {
        #[test]
        fn algebra(a in any_set(), b in any_set()) {
            let (union, both) = (a.clone().union(&b), a.intersection(&b));
            let (left, right) = (a.clone().difference(&b), b.clone().difference(&a));
            prop_assert_eq!(left.clone().union(&both).union(&right), union.clone());
            prop_assert!(left.intersection(&b).is_empty());
            prop_assert_eq!(a.clone().difference(&left), both);
            for path in a.paths() {
                prop_assert!(union.has(&path));
                prop_assert_eq!(left.has(&path), !b.has(&path));
                let covered = (1..=path.len()).any(|n| b.has(&path[..n]));
                prop_assert_eq!(a.clone().recursive_difference(&b).has(&path), !covered);
            }
        }

        #[test]
        fn encoding_round_trips(set in any_set()) {
            prop_assert_eq!(FieldSet::from_fields_v1(&set.to_fields_v1()).unwrap(), set);
        }
    }
}
