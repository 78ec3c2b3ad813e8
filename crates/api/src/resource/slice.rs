//! Slices: devices that a driver publishes.

use apimachinery::field::{Error, ErrorList};
use apimachinery::validation as names;
use apimachinery::{Object, Value};
use serde_json::json;

use super::forms::{attribute_name, binding_conditions, bounded, map_of, pool_name, set_of, taint};
use super::policy;
use crate::catalogue::Column;
use crate::printers::{AGE, NAME, column};
use crate::strategy::{Strategy, bump_generation};
use crate::validation::at::At;
use crate::validation::forms::unchanged;
use crate::validation::pod;
use crate::validation::value::list;

const MAX_DEVICES: usize = 128;
const MAX_DEVICES_WITH_MORE: usize = 64;
const MAX_COUNTER_SETS: usize = 8;
const MAX_COUNTERS: usize = 32;
const MAX_CONSUMED_SETS: usize = 2;
const MAX_NAMED: usize = 32;
const MAX_TAINTS: usize = 16;
const MAX_VALUE: usize = 64;
/// Lists as attributes are not on yet.
const LIST_ATTRIBUTES: [&str; 4] = ["ints", "bools", "strings", "versions"];
const ATTRIBUTES: [&str; 4] = ["int", "bool", "string", "version"];

pub const COLUMNS: &[Column] = &[
    NAME,
    column("Node", "string", "The node that has the devices.", |slice, _| {
        json!(match (slice.get_str(&["spec", "nodeName"]), slice.get_bool(&["spec", "allNodes"])) {
            ("", true) => "AllNodes",
            ("", false) => "<unset>",
            (node, _) => node,
        })
    }),
    column("Driver", "string", "The driver of the devices.", |slice, _| {
        json!(slice.get_str(&["spec", "driver"]))
    }),
    column("Pool", "string", "The pool that the devices are in.", |slice, _| {
        json!(slice.get_str(&["spec", "pool", "name"]))
    }),
    AGE,
];

pub struct ResourceSlices;

impl Strategy for ResourceSlices {
    fn prepare_for_create(&self, slice: &mut Object) {
        slice.set_generation(1);
        drop_gated(slice);
    }

    fn prepare_for_update(&self, slice: &mut Object, old: &Object) {
        drop_gated(slice);
        bump_generation(slice, old);
    }

    fn note_requester(
        &self,
        slice: &mut Object,
        _old: Option<&Object>,
        requester: &crate::strategy::Requester,
    ) {
        let devices = slice.as_value_mut().pointer_mut("/spec/devices").and_then(Value::as_array_mut);
        for device in devices.into_iter().flatten() {
            let taints = device.get_mut("taints").and_then(Value::as_array_mut);
            for taint in taints.into_iter().flatten().filter(|it| it.is_object()) {
                if taint.get("timeAdded").is_none_or(Value::is_null) {
                    taint["timeAdded"] = json!(requester.time);
                }
            }
        }
    }

    fn validate(&self, slice: &Object) -> ErrorList {
        validate(&At::root(slice).child("spec"), &Value::Null)
    }

    fn validate_update(&self, slice: &Object, old: &Object) -> ErrorList {
        let (new, old) = (At::root(slice).child("spec"), At::root(old).child("spec"));
        let mut errors = validate(&new, old.value);
        errors.extend(unchanged(&new.child("pool").child("name"), &old.child("pool").child("name")));
        errors.extend(
            ["driver", "nodeName"].iter().flat_map(|key| unchanged(&new.child(key), &old.child(key))),
        );
        errors
    }

    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }
}

fn drop_gated(slice: &mut Object) {
    let devices = slice.as_value_mut().pointer_mut("/spec/devices").and_then(Value::as_array_mut);
    for device in devices.into_iter().flatten().filter_map(Value::as_object_mut) {
        device.remove("nodeAllocatableResourceMappings");
        let attributes = device.get_mut("attributes").and_then(Value::as_object_mut);
        for attribute in
            attributes.into_iter().flat_map(|map| map.values_mut()).filter_map(Value::as_object_mut)
        {
            attribute.retain(|key, _| !LIST_ATTRIBUTES.contains(&key.as_str()));
        }
    }
}

fn validate(spec: &At<'_>, old: &Value) -> ErrorList {
    let mut errors = spec.child("driver").driver_name();
    let pool = spec.child("pool");
    errors.extend(pool_name(&pool.child("name")));
    errors.extend(pool.child("resourceSliceCount").positive());
    let generation = pool.child("generation");
    if generation.int().is_some_and(|number| number < 0) {
        errors.push(generation.invalid("must be greater than or equal to zero"));
    }
    errors.extend(nodes(spec));
    if spec.has("sharedCounters") && spec.has("devices") {
        let why = "only one of `sharedCounters` or `devices` is allowed";
        errors.push(Error::invalid(&spec.path, "", why));
    }
    let devices = spec.child("devices");
    let more = |key: &str| devices.list().iter().any(|device| !list(device, key).is_empty());
    let max = if more("taints") || more("consumesCounters") { MAX_DEVICES_WITH_MORE } else { MAX_DEVICES };
    let each_by_itself = spec.child("perDeviceNodeSelection").flag();
    let name = |item: &Value| item["name"].clone();
    errors.extend(set_of(&devices, max, name, |each| {
        let before = list(old, "devices").iter().find(|before| before["name"] == each.value["name"]);
        device(each, before.unwrap_or(&Value::Null), each_by_itself)
    }));
    errors.extend(set_of(&spec.child("sharedCounters"), MAX_COUNTER_SETS, name, |set| {
        counters(set, "name", MAX_COUNTERS)
    }));
    errors
}

/// A set of counters under a name, published or consumed.
fn counters(set: &At<'_>, name: &str, max: usize) -> ErrorList {
    let (name, counters) = (set.child(name), set.child("counters"));
    let mut errors = if name.is_empty() { vec![name.required("")] } else { name.dns_label() };
    if counters.is_empty() {
        errors.push(counters.required(""));
    } else {
        errors.extend(map_of(&counters, Some(max), |name| name.dns_label(), |_| ErrorList::new()));
    }
    errors
}

/// Which of the ways to say where devices are is taken; each that is, is checked.
fn ways(at: &At<'_>, ways: &[&str], unset: &str, errors: &mut ErrorList) -> Vec<String> {
    let mut taken = Vec::new();
    for way in ways {
        let field = at.child(way);
        match field.value {
            Value::Null => continue,
            Value::String(name) if name.is_empty() => {
                errors.push(field.invalid(unset));
                continue;
            }
            Value::String(_) => errors.extend(field.wrong(names::name_is_dns_subdomain(field.str(), false))),
            Value::Bool(false) => {
                errors.push(field.invalid("must be either unset or set to true"));
                continue;
            }
            Value::Bool(true) => {}
            _ => errors.extend(pod::node_selector(&field, false)),
        }
        taken.push(format!("`{way}`"));
    }
    taken
}

fn nodes(spec: &At<'_>) -> ErrorList {
    const WAYS: [&str; 4] = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
    const WHY: &str =
        "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let mut errors = ErrorList::new();
    let unset = "must be either unset or set to a non-empty string";
    let mut taken = ways(spec, &WAYS[..2], unset, &mut errors);
    let terms = spec.child("nodeSelector").child("nodeSelectorTerms");
    if spec.has("nodeSelector") && terms.len() != 1 {
        errors.push(terms.invalid("must have exactly one node selector term"));
    }
    taken.extend(ways(spec, &WAYS[2..], unset, &mut errors));
    match taken.len() {
        0 => errors.push(spec.required(WHY)),
        1 => {}
        _ => errors.push(Error::invalid(
            &spec.path,
            format!("{{{}}}", taken.join(", ")),
            format!("{WHY}, but multiple fields are set"),
        )),
    }
    errors
}

fn device(device: &At<'_>, old: &Value, chooses_nodes: bool) -> ErrorList {
    let mut errors = device.child("name").dns_label();
    let (attributes, capacity) = (device.child("attributes"), device.child("capacity"));
    let named = attributes.len() + capacity.len();
    if named > MAX_NAMED {
        let why = format!("the total number of attributes and capacities must not exceed {MAX_NAMED}");
        errors.push(Error::invalid(&device.path, named, why));
    }
    errors.extend(map_of(&attributes, None, attribute_name, attribute));
    let as_before = |key: &str| old.get(key).is_some_and(|before| *before == device.value[key]);
    if !as_before("capacity") {
        let shared = device.child("allowMultipleAllocations").flag();
        errors.extend(map_of(&capacity, None, attribute_name, |amount| policy::validate(amount, shared)));
    }
    if !as_before("taints") {
        errors.extend(bounded(&device.child("taints"), MAX_TAINTS, taint));
    }
    let consumed = device.child("consumesCounters");
    errors.extend(set_of(
        &consumed,
        MAX_CONSUMED_SETS,
        |item| item["counterSet"].clone(),
        |set| counters(set, "counterSet", MAX_COUNTERS),
    ));
    errors.extend(device_nodes(device, chooses_nodes));
    errors.extend(binding_conditions(device));
    errors
}

fn device_nodes(device: &At<'_>, chooses: bool) -> ErrorList {
    const WAYS: [&str; 3] = ["nodeName", "nodeSelector", "allNodes"];
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when \
                       `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    const NONE: &str = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set \
                        to true in the ResourceSlice spec";
    let mut errors = ErrorList::new();
    if !chooses {
        if WAYS.iter().any(|way| device.has(way)) {
            errors.push(Error::invalid(&device.path, Value::Null, NONE));
        }
        return errors;
    }
    let taken = ways(device, &WAYS, "must not be empty", &mut errors);
    match taken.len() {
        0 => errors.push(device.required(ONE)),
        1 => {}
        _ => errors.push(Error::invalid(&device.path, format!("{{{}}}", taken.join(", ")), ONE)),
    }
    errors
}

fn attribute(attribute: &At<'_>) -> ErrorList {
    let (text, version) = (attribute.child("string"), attribute.child("version"));
    let mut errors = ErrorList::new();
    if version.is_set() && !is_semver(version.str()) {
        errors.push(version.invalid("must be a string compatible with semver.org spec 2.0.0"));
    }
    for field in [&text, &version] {
        if field.len() > MAX_VALUE {
            errors.push(field.too_long(MAX_VALUE));
        }
    }
    let why = "exactly one value must be specified";
    match ATTRIBUTES.iter().filter(|key| attribute.has(key)).count() {
        0 => errors.push(Error::invalid(&attribute.path, "", why)),
        1 => {}
        _ => errors.push(attribute.invalid(why)),
    }
    errors
}

/// Three numbers, then what comes before a release, then what a build adds.
fn is_semver(version: &str) -> bool {
    let word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = |text: &str| digits(text) && (text == "0" || !text.starts_with('0'));
    let (version, build) = version.split_once('+').map_or((version, None), |(v, b)| (v, Some(b)));
    let (numbers, before) = version.split_once('-').map_or((version, None), |(v, b)| (v, Some(b)));
    let numbers: Vec<&str> = numbers.split('.').collect();
    numbers.len() == 3
        && numbers.into_iter().all(number)
        && before.is_none_or(|it| it.split('.').all(|part| word(part) && (!digits(part) || number(part))))
        && build.is_none_or(|it| it.split('.').all(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::forms::check;

    fn slice(spec: Value) -> Object {
        Object::from(json!({"metadata": {"name": "s"}, "spec": spec}))
    }

    #[test]
    fn versions() {
        for (version, fits) in [
            ("1.2.3", true),
            ("1.2.3-a.0+b.01", true),
            ("1.2", false),
            ("01.2.3", false),
            ("1.2.3-01", false),
            ("1.2.3-", false),
        ] {
            assert_eq!(is_semver(version), fits, "{version}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_slice() {
        let pool = json!({"name": "p", "resourceSliceCount": 1, "generation": 0});
        let cases: Vec<(Value, Vec<&str>)> = vec![
            (
                json!({"driver": "d.io", "pool": pool, "nodeName": "n", "devices": [{"name": "a",
                    "attributes": {"d.io/x": {"int": 1}, "y": {"version": "1.0.0"}}, "capacity": {"m": {"value": "1Gi"}}}]}),
                vec![],
            ),
            (
                json!({"driver": "", "pool": {"name": "", "generation": -1}}),
                vec![
                    "spec.driver: Required value",
                    "spec.pool.name: Required value",
                    "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
                    "spec.pool.generation: Invalid value: -1: must be greater than or equal to zero",
                    "spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required",
                ],
            ),
            (
                json!({"driver": "d.io", "pool": pool, "nodeName": "n", "allNodes": true, "devices": [
                    {"name": "a", "nodeName": "n", "attributes": {"x": {}, "a/b/c": {"version": "1"}}},
                    {"name": "a", "capacity": {"m": {"value": "1", "requestPolicy": {}}}, "taints": [{"key": "k", "effect": "X"}]},
                ]}),
                vec![
                    "spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set",
                    "spec.devices[0].attributes: Invalid value: \"a/b/c\": must not contain more than one slash",
                    "spec.devices[0].attributes[a/b/c].version: Invalid value: \"1\": must be a string compatible with semver.org spec 2.0.0",
                    "spec.devices[0].attributes[x]: Invalid value: \"\": exactly one value must be specified",
                    "spec.devices[0]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
                    "spec.devices[1].capacity[m].requestPolicy: Forbidden: allowMultipleAllocations must be true",
                    "spec.devices[1].taints[0].effect: Unsupported value: \"X\": supported values: \"NoExecute\", \"NoSchedule\", \"None\"",
                    "spec.devices[1]: Duplicate value: \"a\"",
                ],
            ),
            (
                json!({"driver": "d.io", "pool": pool, "perDeviceNodeSelection": true, "devices": [
                    {"name": "a"}, {"name": "b", "allNodes": true, "consumesCounters": [{"counterSet": "s", "counters": {}}]},
                ]}),
                vec![
                    "spec.devices[0]: Required value: exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
                    "spec.devices[1].consumesCounters[0].counters: Required value",
                ],
            ),
        ];
        for (spec, expected) in cases {
            check(ResourceSlices.validate(&slice(spec)), &expected);
        }
    }

    #[test]
    fn lists_as_attributes_are_dropped() {
        let mut object =
            slice(json!({"devices": [{"name": "a", "attributes": {"x": {"ints": [1], "int": 2}}}]}));
        ResourceSlices.prepare_for_create(&mut object);
        let device = &object.get_array(&["spec", "devices"])[0];
        assert_eq!(device["attributes"]["x"], json!({"int": 2}));
        assert_eq!(object.generation(), 1);
    }
}
