//! `metadata.managedFields`: who owns which fields, by manager, operation, version and subresource.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::set::{FieldSet, PathElement, show};
use crate::field::quote;
use crate::object::Object;
use crate::status::{Cause, Status};
use crate::time::{self, Time};

/// What tells one entry from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Manager {
    pub name: String,
    pub operation: Operation,
    /// Empty for appliers: they are the same whatever version they apply.
    pub api_version: String,
    pub subresource: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    set: FieldSet,
    /// The set as it was read, for as long as it has not changed.
    encoded: Option<Value>,
    pub api_version: String,
    pub time: Option<Time>,
}

impl Entry {
    pub(super) fn new(set: FieldSet, api_version: &str, time: Option<Time>) -> Self {
        Self { set, encoded: None, api_version: api_version.to_owned(), time }
    }

    pub(super) fn set(&self) -> &FieldSet {
        &self.set
    }

    pub(super) fn replace(&mut self, set: FieldSet) {
        self.set = set;
        self.encoded = None;
    }

    pub(super) fn extend(&mut self, more: &FieldSet) {
        self.set.extend(more);
        self.encoded = None;
    }
}

pub(super) type Managers = BTreeMap<Manager, Entry>;

impl Manager {
    pub(super) fn new(name: &str, operation: Operation, api_version: &str, subresource: &str) -> Self {
        let api_version = if operation == Operation::Apply { "" } else { api_version };
        Self {
            name: if name.is_empty() { "unknown" } else { name }.to_owned(),
            operation,
            api_version: api_version.to_owned(),
            subresource: subresource.to_owned(),
        }
    }

    /// How conflicts name it.
    fn show(&self) -> String {
        let mut out = quote(&self.name);
        if !self.subresource.is_empty() {
            out.push_str(&format!(" with subresource {}", quote(&self.subresource)));
        }
        if self.operation == Operation::Update {
            out.push_str(&format!(" using {}", self.api_version));
        }
        out
    }
}

/// Whether the object asks for its managers to be forgotten: one empty entry.
pub(super) fn is_reset(object: &Object) -> bool {
    match object.get_array(&["metadata", "managedFields"]) {
        [Value::Object(entry)] => entry.is_empty(),
        _ => false,
    }
}

/// Reads the managers of an object.
pub(super) fn decode(object: &Object) -> Result<Managers, String> {
    let mut managers = Managers::new();
    for (index, entry) in object.get_array(&["metadata", "managedFields"]).iter().enumerate() {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        let operation = match text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".to_owned()),
        };
        let api_version = text("apiVersion");
        if api_version.is_empty() {
            return Err("apiVersion must not be empty".to_owned());
        }
        match text("fieldsType") {
            "FieldsV1" => {}
            "" => return Err(format!("missing fieldsType in managed fields entry {index}")),
            other => {
                return Err(format!("invalid fieldsType {} in managed fields entry {index}", quote(other)));
            }
        }
        let set = match entry.get("fieldsV1") {
            None | Some(Value::Null) => FieldSet::default(),
            Some(fields) => FieldSet::from_fields_v1(fields)
                .map_err(|error| format!("error decoding versioned set: error decoding set: {error}"))?,
        };
        let manager = Manager {
            name: text("manager").to_owned(),
            operation,
            api_version: if operation == Operation::Apply { String::new() } else { api_version.to_owned() },
            subresource: text("subresource").to_owned(),
        };
        let time = time::parse(text("time")).ok();
        let encoded = entry.get("fieldsV1").filter(|fields| !fields.is_null()).cloned();
        managers.insert(manager, Entry { encoded, ..Entry::new(set, api_version, time) });
    }
    Ok(managers)
}

/// Writes the managers into an object, in upstream's order: appliers first, then by time and name.
pub(super) fn encode(object: &mut Object, managers: &Managers) {
    if managers.is_empty() {
        object.remove(&["metadata", "managedFields"]);
        return;
    }
    let seconds = |entry: &Entry| entry.time.map_or(0, |time| time.timestamp());
    let mut entries: Vec<(&Manager, &Entry)> = managers.iter().collect();
    entries.sort_by(|(a, x), (b, y)| {
        (a.operation, seconds(x), &a.name, &x.api_version, &a.subresource).cmp(&(
            b.operation,
            seconds(y),
            &b.name,
            &y.api_version,
            &b.subresource,
        ))
    });
    let entries = entries.into_iter().map(|(manager, entry)| {
        let mut map = Map::new();
        for (key, text) in [("manager", &manager.name), ("subresource", &manager.subresource)] {
            if !text.is_empty() {
                map.insert(key.to_owned(), json!(text));
            }
        }
        map.insert("operation".to_owned(), json!(manager.operation.as_str()));
        map.insert("apiVersion".to_owned(), json!(entry.api_version));
        if let Some(time) = entry.time {
            map.insert("time".to_owned(), json!(time::format(time)));
        }
        map.insert("fieldsType".to_owned(), json!("FieldsV1"));
        let fields = entry.encoded.clone().unwrap_or_else(|| entry.set.to_fields_v1());
        map.insert("fieldsV1".to_owned(), fields);
        Value::Object(map)
    });
    let entries: Vec<Value> = entries.collect();
    object.set(&["metadata", "managedFields"], entries);
}

/// Fields that an apply would take from other managers.
pub(super) type Conflicts = Vec<(Manager, Vec<PathElement>)>;

/// The 409 that names every field and its manager.
pub(super) fn conflict_status(conflicts: &Conflicts) -> Status {
    let causes = conflicts.iter().map(|(manager, path)| Cause {
        reason: "FieldManagerConflict".to_owned(),
        message: format!("conflict with {}", manager.show()),
        field: show(path),
    });
    let message = match conflicts.as_slice() {
        [(manager, path)] => {
            format!("Apply failed with 1 conflict: conflict with {}: {}", manager.show(), show(path))
        }
        all => {
            let mut by_manager: BTreeMap<&Manager, Vec<String>> = BTreeMap::new();
            for (manager, path) in all {
                by_manager.entry(manager).or_default().push(format!("- {}", show(path)));
            }
            let parts = by_manager
                .into_iter()
                .map(|(manager, paths)| format!("conflicts with {}:\n{}", manager.show(), paths.join("\n")));
            format!("Apply failed with {} conflicts: {}", all.len(), parts.collect::<Vec<_>>().join("\n"))
        }
    };
    Status::apply_conflict(causes.collect(), message)
}
