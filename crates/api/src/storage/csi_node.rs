//! The drivers on a node.

use apimachinery::field::{Error, ErrorList};
use apimachinery::{Object, Value};
use serde_json::json;

use crate::catalogue::Column;
use crate::printers::{AGE, NAME, column};
use crate::strategy::Strategy;
use crate::validation::at::At;
use crate::validation::value::{go_struct, text};

pub const COLUMNS: &[Column] = &[
    NAME,
    column("Drivers", "integer", "How many drivers the node has.", |node, _| {
        json!(node.get_array(&["spec", "drivers"]).len())
    }),
    AGE,
];

const MAX_NODE_ID: usize = 256;

pub struct CsiNodes;

impl Strategy for CsiNodes {
    fn prepare_for_create(&self, _node: &mut Object) {}

    fn prepare_for_update(&self, _node: &mut Object, _old: &Object) {}

    fn validate(&self, node: &Object) -> ErrorList {
        validate(&At::root(node).child("spec"))
    }

    /// A driver keeps its id and topology; only how many volumes it takes may move. What else is wrong is said twice,
    /// as upstream says it.
    fn validate_update(&self, node: &Object, old: &Object) -> ErrorList {
        let spec = At::root(node).child("spec");
        let mut errors = validate(&spec);
        errors.extend(errors.clone());
        let fixed = |driver: &Value| {
            let mut driver = driver.clone();
            driver.as_object_mut().map(|map| map.remove("allocatable"));
            driver
        };
        for before in old.get_array(&["spec", "drivers"]) {
            for now in spec.each("drivers").filter(|now| now.value["name"] == before["name"]) {
                let (now, before) = (fixed(now.value), fixed(before));
                if now != before {
                    let error =
                        Error::invalid(&spec.path.child("drivers"), Value::Null, "field is immutable");
                    errors.push(error.showing(shown(&now)));
                }
            }
        }
        errors
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }
}

/// A driver as upstream shows it, without what may move.
fn shown(driver: &Value) -> String {
    go_struct(&[
        ("Name", text(driver, "name").into()),
        ("NodeID", text(driver, "nodeID").into()),
        ("TopologyKeys", driver["topologyKeys"].clone()),
        ("Allocatable", Value::Null),
    ])
}

fn validate(spec: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for driver in spec.each("drivers") {
        let (name, id) = (driver.child("name"), driver.child("nodeID"));
        errors.extend(name.driver_name());
        if id.is_empty() {
            errors.push(id.required(""));
        }
        if id.len() > MAX_NODE_ID {
            errors.push(id.invalid(format!("must be {MAX_NODE_ID} characters or less")));
        }
        errors.extend(driver.child("allocatable").child("count").non_negative());
        if seen.contains(&name.str()) {
            errors.push(name.duplicate());
        }
        seen.push(name.str());
        errors.extend(topology_keys(&driver));
    }
    errors
}

fn topology_keys(driver: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for key in driver.each("topologyKeys") {
        let at = At::new(key.value, driver.path.clone());
        if key.is_empty() {
            errors.push(at.required(""));
        }
        if seen.contains(&key.str()) {
            errors.push(at.duplicate());
        }
        seen.push(key.str());
        errors.extend(at.qualified_name());
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::forms::check;

    #[test]
    fn nodes() {
        let old = Object::from(json!({"spec": {"drivers": [
            {"name": "a.b", "nodeID": "n", "topologyKeys": ["zone"], "allocatable": {"count": 3}},
        ]}}));
        check(CsiNodes.validate(&old), &[]);
        let mut new = old.clone();
        new.set(&["spec", "drivers"], json!([
            {"name": "a.b", "nodeID": "m", "topologyKeys": ["zone", "zone"], "allocatable": {"count": -1}},
            {"name": "a.b"},
        ]));
        check(
            CsiNodes.validate(&new),
            &[
                "spec.drivers[0].allocatable.count: Invalid value: -1: must be greater than or equal to 0",
                "spec.drivers[0]: Duplicate value: \"zone\"",
                "spec.drivers[1].nodeID: Required value",
                "spec.drivers[1].name: Duplicate value: \"a.b\"",
            ],
        );
        let mut more = old.clone();
        more.set(
            &["spec", "drivers"],
            json!([
                {"name": "a.b", "nodeID": "n", "topologyKeys": ["zone"], "allocatable": {"count": 9}},
            ]),
        );
        check(CsiNodes.validate_update(&more, &old), &[]);
        const COUNT: &str =
            "spec.drivers[0].allocatable.count: Invalid value: -1: must be greater than or equal to 0";
        let mut moved = old.clone();
        moved.set(
            &["spec", "drivers"],
            json!([{"name": "a.b", "nodeID": "m", "topologyKeys": ["zone"], "allocatable": {"count": -1}}]),
        );
        check(
            CsiNodes.validate_update(&moved, &old),
            &[
                COUNT,
                COUNT,
                "spec.drivers: Invalid value: {\"Name\":\"a.b\",\"NodeID\":\"m\",\"TopologyKeys\":[\"zone\"],\"Allocatable\":null}: field is immutable",
            ],
        );
    }
}
