//! Configuration files of the group `apiserver.config.k8s.io`: read as upstream's strict decoder reads them, with
//! its errors. What the fields mean is no matter here.

use std::sync::Arc;

use apimachinery::schema::{Field, Kind, List, ListType, MapOf, Message, Schema, Unknown};
use apimachinery::{Value, codec};
use serde::de::DeserializeOwned;

/// The group of all such files.
const GROUP: &str = "apiserver.config.k8s.io";

/// A kind of file. The messages are written `Name: field type, …`, the kind itself first; a type is `string`,
/// `bool`, `int`, `duration` or another message, `[type]` is a list, `{type}` a map.
pub struct FileKind {
    pub kind: &'static str,
    /// Versions that are read alike.
    pub versions: &'static [&'static str],
    pub messages: &'static [&'static str],
}

impl FileKind {
    /// Reads a file that must be of this kind.
    pub fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, String> {
        let (version, kind) = codec::peek_type_yaml(bytes).map_err(|error| error.to_string())?;
        let shown = || codec::parse_yaml(bytes).map(|value| value.to_string()).unwrap_or_default();
        if kind.is_empty() {
            return Err(format!("Object 'Kind' is missing in '{}'", shown()));
        }
        if version.is_empty() {
            return Err(format!("Object 'apiVersion' is missing in '{}'", shown()));
        }
        let of_group = version.strip_prefix(GROUP).and_then(|rest| rest.strip_prefix('/'));
        if kind != self.kind || !of_group.is_some_and(|version| self.versions.contains(&version)) {
            return Err(format!("no kind {kind:?} is registered for version {version:?}"));
        }
        let decoded = codec::decode_yaml(bytes, &self.schema()).map_err(|error| error.to_string())?;
        if !decoded.strict_errors.is_empty() {
            return Err(format!("strict decoding error: {}", decoded.strict_errors.join(", ")));
        }
        let mut value = decoded.object.into_value();
        drop_nulls(&mut value);
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    fn schema(&self) -> Schema {
        let split = |text: &'static str| text.split_once(": ").unwrap_or((text, ""));
        let names: Vec<&str> = self.messages.iter().map(|text| split(text).0).collect();
        let message = |text: &&'static str| {
            let (name, fields) = split(text);
            let fields = fields.split(", ").filter(|field| !field.is_empty()).map(|field| {
                let (field, kind) = field.split_once(' ').unwrap_or((field, ""));
                Field::unstructured(field, kind_of(kind, &names))
            });
            Message {
                package: "".into(),
                name: name.into(),
                fields: fields.collect(),
                unknown: Unknown::Prune,
                atomic: false,
            }
        };
        let mut messages: Vec<Message> = self.messages.iter().map(message).collect();
        if let Some(file) = messages.first_mut() {
            for name in ["apiVersion", "kind"] {
                file.fields.push(Field::unstructured(name, Kind::String));
            }
        }
        Schema::unstructured(messages)
    }
}

/// To Go, a null is a field that was not set.
pub fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn kind_of(text: &str, messages: &[&str]) -> Kind {
    let within = |open, close| text.strip_prefix(open).and_then(|rest: &str| rest.strip_suffix(close));
    if let Some(element) = within('[', ']') {
        let list =
            List { element: kind_of(element, messages), list_type: ListType::Atomic, keys: Vec::new() };
        return Kind::List(Arc::new(list));
    }
    if let Some(value) = within('{', '}') {
        return Kind::Map(Arc::new(MapOf { value: kind_of(value, messages), atomic: false }));
    }
    let message = messages.iter().position(|name| *name == text).and_then(|index| u32::try_from(index).ok());
    match (text, message) {
        ("string", _) => Kind::String,
        ("bool", _) => Kind::Bool,
        ("int", _) => Kind::Int32,
        ("duration", _) => Kind::Duration,
        (_, Some(index)) => Kind::Message(index),
        (_, None) => Kind::Any,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Sheet {
        name: String,
        ready: bool,
        parts: Vec<Part>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Part {
        count: i32,
    }

    #[test]
    fn files_are_read_strictly() {
        let sheet = FileKind {
            kind: "Sheet",
            versions: &["v1", "v1beta1"],
            messages: &["Sheet: name string, ready bool, parts [Part]", "Part: count int"],
        };
        let read = |text: &str| sheet.decode::<Sheet>(text.as_bytes());
        let head = |version: &str| format!("apiVersion: {GROUP}/{version}\nkind: Sheet\n");
        let good = format!("{}name: a\nready: true\nparts: [{{count: 2}}]\n", head("v1"));
        assert_eq!(read(&good), Ok(Sheet { name: "a".into(), ready: true, parts: vec![Part { count: 2 }] }));
        assert_eq!(read(&head("v1beta1")), Ok(Sheet::default()));
        assert_eq!(read(&format!("{}name: null\nparts:\n", head("v1"))), Ok(Sheet::default()));
        for (text, why) in [
            (head("v2"), "no kind \"Sheet\" is registered for version \"apiserver.config.k8s.io/v2\""),
            ("kind: Sheet".into(), "Object 'apiVersion' is missing in '{\"kind\":\"Sheet\"}'"),
            ("apiVersion: v1".into(), "Object 'Kind' is missing in '{\"apiVersion\":\"v1\"}'"),
            (String::new(), "Object 'Kind' is missing in 'null'"),
            (
                format!("{}parts: [{{cuont: 2}}]\n", head("v1")),
                "strict decoding error: unknown field \"parts[0].cuont\"",
            ),
        ] {
            assert_eq!(read(&text), Err(why.to_owned()), "{text}");
        }
        let twice = read(&format!("{}name: a\nname: b\n", head("v1"))).expect_err("refused");
        assert!(twice.contains("\"name\" already set in map"), "{twice}");
        assert!(read(&format!("{}name: [a]\n", head("v1"))).is_err());
    }
}
