//! Forms that classes, claims and slices of devices share.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};
use apimachinery::validation as names;

use crate::validation::at::At;
use crate::validation::value::list;

const MAX_POOL_NAME: usize = 253;
const MAX_ID: usize = 32;
const MAX_EXPRESSION: usize = 10 * 1024;
const MAX_PARAMETERS: usize = 10 * 1024;
const MAX_TOLERATIONS: usize = 16;
const MAX_BINDING_CONDITIONS: usize = 4;
const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];
const OPERATORS: [&str; 2] = ["Equal", "Exists"];
pub const MAX_REQUESTS: usize = 32;
pub const MAX_SELECTORS: usize = 32;
pub const MAX_CONFIG: usize = 32;

/// A list of at most so many items, each by a rule; of a longer one nothing else is said.
pub fn bounded<'a>(list: &At<'a>, max: usize, rule: impl Fn(&At<'a>) -> ErrorList) -> ErrorList {
    if list.len() > max {
        return vec![list.too_many(max)];
    }
    list.items().flat_map(|item| rule(&item)).collect()
}

/// As [`bounded`], where no two items have the same key.
pub fn set_of<'a>(
    list: &At<'a>,
    max: usize,
    key: impl Fn(&Value) -> Value,
    rule: impl Fn(&At<'a>) -> ErrorList,
) -> ErrorList {
    if list.len() > max {
        return vec![list.too_many(max)];
    }
    let mut errors: ErrorList = list.items().flat_map(|item| rule(&item)).collect();
    let keys: Vec<Value> = list.list().iter().map(key).collect();
    for (index, item) in list.items().enumerate() {
        if keys[..index].contains(&keys[index]) {
            errors.push(Error::duplicate(&item.path, keys[index].clone()));
        }
    }
    errors
}

/// As [`set_of`] for items that are their own keys.
pub fn set<'a>(list: &At<'a>, max: usize, rule: impl Fn(&At<'a>) -> ErrorList) -> ErrorList {
    set_of(list, max, Value::clone, rule)
}

/// A map of at most so many entries.
pub fn map_of<'a>(
    map: &At<'a>,
    max: Option<usize>,
    key_rule: impl Fn(&At<'_>) -> ErrorList,
    rule: impl Fn(&At<'a>) -> ErrorList,
) -> ErrorList {
    if let Some(max) = max.filter(|max| map.len() > *max) {
        return vec![map.too_many(max)];
    }
    let mut errors = ErrorList::new();
    for (key, entry) in map.entries() {
        let key = Value::from(key);
        errors.extend(key_rule(&At::new(&key, map.path.clone())));
        errors.extend(rule(&entry));
    }
    errors
}

/// The name of a pool: parts between slashes.
pub fn pool_name(name: &At<'_>) -> ErrorList {
    if name.str().is_empty() {
        return vec![name.required("")];
    }
    let mut errors = ErrorList::new();
    if name.len() > MAX_POOL_NAME {
        errors.push(name.too_long(MAX_POOL_NAME));
    }
    for part in name.str().split('/') {
        let wrong = names::is_dns1123_subdomain(part);
        errors.extend(wrong.into_iter().map(|why| Error::invalid(&name.path, part, why)));
    }
    errors
}

/// The name of an attribute or a capacity, with or without the domain it comes from.
pub fn attribute_name(name: &At<'_>) -> ErrorList {
    let parts: Vec<&str> = name.str().split('/').collect();
    match parts[..] {
        [id] => identifier(name, id),
        [domain, id] => {
            let mut errors = if domain.is_empty() {
                vec![Error::invalid(&name.path, "", "the domain must not be empty")]
            } else {
                At::new(&Value::from(domain), name.path.clone()).driver_name()
            };
            if id.is_empty() {
                errors.push(Error::invalid(&name.path, "", "the name must not be empty"));
            } else {
                errors.extend(identifier(name, id));
            }
            errors
        }
        _ => vec![name.invalid("must not contain more than one slash")],
    }
}

/// An attribute's name that says its domain.
pub fn full_attribute_name(name: &At<'_>) -> ErrorList {
    let mut errors = attribute_name(name);
    if !name.str().contains('/') {
        errors.push(name.invalid("a fully qualified name must be a domain and a name separated by a slash"));
    }
    errors
}

fn identifier(name: &At<'_>, id: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    if id.len() > MAX_ID {
        errors.push(name.too_long(MAX_ID));
    }
    errors.extend(names::is_c_identifier(id).into_iter().map(|why| Error::invalid(&name.path, id, why)));
    errors
}

/// What tells devices that fit; its expression is stored as it is.
pub fn selector(selector: &At<'_>) -> ErrorList {
    let cel = selector.child("cel");
    if !cel.is_set() {
        return vec![cel.required("")];
    }
    let expression = cel.child("expression");
    match expression.len() > MAX_EXPRESSION {
        true => vec![expression.too_long(MAX_EXPRESSION)],
        false => ErrorList::new(),
    }
}

/// What a driver is told.
pub fn configuration(config: &At<'_>) -> ErrorList {
    let opaque = config.child("opaque");
    if !opaque.is_set() {
        return vec![opaque.required("")];
    }
    let mut errors = opaque.child("driver").driver_name();
    errors.extend(raw(&opaque.child("parameters"), MAX_PARAMETERS));
    errors
}

/// An object of which nothing is known but its size.
pub fn raw(value: &At<'_>, max: usize) -> ErrorList {
    match value.value {
        Value::Null => vec![value.required("")],
        it if it.to_string().len() > max => vec![value.too_long(max)],
        Value::Object(_) => ErrorList::new(),
        _ => vec![Error::invalid(&value.path, "<value omitted>", "must be a valid JSON object")],
    }
}

/// Names of requests, or of a request and one of its alternatives.
pub struct RequestNames<'a>(&'a [Value]);

impl<'a> RequestNames<'a> {
    /// Of the `devices` of a claim's spec.
    pub fn of(devices: &At<'a>) -> Self {
        Self(devices.child("requests").list())
    }

    fn has(&self, name: &str) -> bool {
        let (request, alternative) = match name.split_once('/') {
            Some((request, alternative)) => (request, Some(alternative)),
            None => (name, None),
        };
        self.0.iter().filter(|each| each["name"] == request).any(|each| match alternative {
            Some(name) => list(each, "firstAvailable").iter().any(|sub| sub["name"] == name),
            None => true,
        })
    }

    pub fn reference(&self, name: &At<'_>) -> ErrorList {
        const WHY: &str = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        let segments: Vec<&str> = name.str().split('/').collect();
        if segments.len() > 2 {
            return vec![name.invalid(WHY)];
        }
        let mut errors = ErrorList::new();
        for segment in segments {
            let wrong = names::is_dns1123_label(segment);
            errors.extend(wrong.into_iter().map(|why| Error::invalid(&name.path, segment, why)));
        }
        if !self.has(name.str()) {
            errors.push(name.invalid(WHY));
        }
        errors
    }
}

pub fn tolerations(tolerations: &At<'_>) -> ErrorList {
    bounded(tolerations, MAX_TOLERATIONS, toleration)
}

fn toleration(toleration: &At<'_>) -> ErrorList {
    let (key, value) = (toleration.child("key"), toleration.child("value"));
    let mut errors = ErrorList::new();
    if !key.is_empty() {
        errors.extend(key.qualified_name());
    }
    let operator = toleration.child("operator");
    match operator.str() {
        "Exists" if !value.is_empty() => errors.push(value.invalid("must be empty for operator `Exists`")),
        "Equal" => errors.extend(value.wrong(names::is_valid_label_value(value.str()))),
        _ => errors.extend(operator.one_of(&OPERATORS)),
    }
    let effect = toleration.child("effect");
    if !effect.is_empty() {
        errors.extend(effect.one_of(&EFFECTS));
    }
    errors
}

pub fn taint(taint: &At<'_>) -> ErrorList {
    let mut errors = taint.child("key").qualified_name();
    let value = taint.child("value");
    errors.extend(value.wrong(names::is_valid_label_value(value.str())));
    errors.extend(taint.child("effect").one_of(&EFFECTS));
    errors
}

/// Conditions of binding a pod to devices, and those that say that it failed: both or neither.
pub fn binding_conditions(at: &At<'_>) -> ErrorList {
    let (good, bad) = (at.child("bindingConditions"), at.child("bindingFailureConditions"));
    let mut errors = bounded(&good, MAX_BINDING_CONDITIONS, At::qualified_name);
    errors.extend(bounded(&bad, MAX_BINDING_CONDITIONS, At::qualified_name));
    let twice = |list: &At<'_>, index: usize| list.list()[..index].contains(&list.list()[index]);
    for (index, item) in good.items().enumerate() {
        if twice(&good, index) {
            errors.push(item.duplicate());
        }
    }
    for (index, item) in bad.items().enumerate() {
        if twice(&bad, index) {
            errors.push(item.duplicate());
        }
        if good.list().contains(item.value) {
            errors.push(item.invalid("bindingFailureConditions must not overlap with bindingConditions"));
        }
    }
    if good.is_empty() && !bad.is_empty() {
        errors.push(good.invalid("bindingConditions are required to use bindingFailureConditions"));
    }
    if bad.is_empty() && !good.is_empty() {
        errors.push(bad.invalid("bindingFailureConditions are required to use bindingConditions"));
    }
    errors
}
