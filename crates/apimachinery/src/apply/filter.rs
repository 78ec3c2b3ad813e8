//! Which fields a write through an endpoint may come to own: all but some, or some alone (`fieldpath.Filter`).

use std::collections::BTreeMap;

use super::set::{FieldSet, PathElement};

/// Leaves of a set what may be owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// All but these fields and what is below them.
    Exclude(FieldSet),
    Include(Matcher),
}

/// Some fields, what is below them, and what is on the way to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matcher {
    everything: bool,
    /// What of any item of a list or map is meant; goes before `named`.
    any: Option<Box<Matcher>>,
    named: BTreeMap<String, Matcher>,
}

/// Stands for any item in the paths of [`Filter::only`].
const ANY: &str = "*";

impl Filter {
    /// All but what stands at paths of struct fields, such as `&[&["status"], &["metadata", "labels"]]`.
    pub fn all_but(paths: &[&[&str]]) -> Self {
        Self::Exclude(FieldSet::of_fields(paths))
    }

    /// What stands at paths of struct fields and, as `*`, of any items.
    pub fn only(paths: &[&[&str]]) -> Self {
        let mut matcher = Matcher::default();
        paths.iter().for_each(|path| matcher.insert(path));
        Self::Include(matcher)
    }

    #[must_use]
    pub(super) fn apply(&self, set: FieldSet) -> FieldSet {
        match self {
            Self::Exclude(fields) => set.recursive_difference(fields),
            Self::Include(matcher) => matcher.pick(&set),
        }
    }
}

impl Matcher {
    fn insert(&mut self, path: &[&str]) {
        match path {
            [] => self.everything = true,
            [ANY, rest @ ..] => self.any.get_or_insert_default().insert(rest),
            [name, rest @ ..] => self.named.entry((*name).to_owned()).or_default().insert(rest),
        }
    }

    fn below(&self, element: &PathElement) -> Option<&Self> {
        match (&self.any, element) {
            (Some(any), _) => Some(any),
            (None, PathElement::Field(name)) => self.named.get(name),
            (None, _) => None,
        }
    }

    fn pick(&self, set: &FieldSet) -> FieldSet {
        if self.everything {
            return set.clone();
        }
        let mut out = FieldSet::default();
        for element in set.members().filter(|element| self.below(element).is_some()) {
            out.add(element.clone());
        }
        for (element, below) in set.children() {
            if let Some(matcher) = self.below(element) {
                out.attach(element.clone(), matcher.pick(below));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_of_a_set() {
        let set = json!({
            "f:metadata": {"f:labels": {"f:a": {}}},
            "f:spec": {
                "f:containers": {"k:{\"name\":\"c\"}": {
                    ".": {}, "f:name": {}, "f:image": {}, "f:resources": {"f:limits": {"f:cpu": {}}},
                }},
                "f:nodeName": {},
            },
            "f:status": {"f:phase": {}},
        });
        let container =
            |fields: serde_json::Value| json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": fields}}});
        let cases = [
            (
                Filter::all_but(&[&["status"], &["spec", "containers"], &["metadata", "labels"]]),
                json!({"f:spec": {"f:nodeName": {}}}),
            ),
            (
                Filter::only(&[
                    &["spec", "containers", "*", "resources"],
                    &["spec", "containers", "*", "resizePolicy"],
                ]),
                container(json!({".": {}, "f:resources": {"f:limits": {"f:cpu": {}}}})),
            ),
            (Filter::only(&[&["spec", "ephemeralContainers"]]), json!({})),
            (Filter::only(&[&["spec", "nodeName"]]), json!({"f:spec": {"f:nodeName": {}}})),
            (Filter::only(&[&[]]), set.clone()),
        ];
        let set = FieldSet::from_fields_v1(&set).expect("a set");
        for (filter, expected) in cases {
            assert_eq!(filter.apply(set.clone()).to_fields_v1(), expected, "{filter:?}");
        }
    }
}
