//! The forms that reads may ask for instead of whole objects: `Table` and `PartialObjectMetadata`.

use serde_json::{Value, json};

use crate::codec::ListHeader;
use crate::object::Object;

const API_VERSION: &str = "meta.k8s.io/v1";

/// A column as `kubectl get` shows it. The names and texts are part of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnDefinition {
    pub name: &'static str,
    /// `string`, `integer`, `number`, `boolean`, `date`.
    pub kind: &'static str,
    /// `name` for the column that names the object, else mostly empty.
    pub format: &'static str,
    pub description: &'static str,
    /// Above 0: only in wide output.
    pub priority: i32,
}

impl ColumnDefinition {
    pub fn to_value(&self) -> Value {
        json!({
            "name": self.name, "type": self.kind, "format": self.format,
            "description": self.description, "priority": self.priority,
        })
    }
}

/// How much of each object a table carries along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    /// Reads `?includeObject=`; `None` for anything upstream refuses.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Metadata" => Some(Self::Metadata),
            "None" => Some(Self::None),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// One row: the cells in the order of the columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub cells: Vec<Value>,
    /// What goes along with it; null for nothing.
    pub object: Value,
}

impl Row {
    pub fn new(cells: Vec<Value>, object: &Object, include: IncludeObject) -> Self {
        let object = match include {
            IncludeObject::None => Value::Null,
            IncludeObject::Metadata => partial_object_metadata(object).into_value(),
            IncludeObject::Object => object.as_value().clone(),
        };
        Self { cells, object }
    }
}

/// A table of rows. `columns` may be `None` for events of a watch after the first, as upstream leaves them out.
pub fn table(header: &ListHeader, columns: Option<&[Value]>, rows: Vec<Row>) -> Object {
    let rows: Vec<Value> =
        rows.into_iter().map(|row| json!({"cells": row.cells, "object": row.object})).collect();
    let mut object = Object::from(json!({
        "kind": "Table", "apiVersion": API_VERSION, "metadata": {},
        "columnDefinitions": columns, "rows": rows,
    }));
    set_list_meta(&mut object, header);
    object
}

fn set_list_meta(object: &mut Object, header: &ListHeader) {
    if !header.resource_version.is_empty() {
        object.set_resource_version(&header.resource_version);
    }
    if !header.continue_token.is_empty() {
        object.set(&["metadata", "continue"], header.continue_token.as_str());
    }
    if let Some(count) = header.remaining_item_count {
        object.set(&["metadata", "remainingItemCount"], count);
    }
}

/// An object's metadata alone.
pub fn partial_object_metadata(object: &Object) -> Object {
    let metadata = object.get(&["metadata"]).cloned().unwrap_or_else(|| json!({}));
    Object::from(json!({"kind": "PartialObjectMetadata", "apiVersion": API_VERSION, "metadata": metadata}))
}

/// A list of metadata.
pub fn partial_object_metadata_list(header: &ListHeader, items: impl IntoIterator<Item = Object>) -> Object {
    let items: Vec<Value> =
        items.into_iter().map(|item| partial_object_metadata(&item).into_value()).collect();
    let mut object = Object::from(json!({
        "kind": "PartialObjectMetadataList", "apiVersion": API_VERSION, "metadata": {}, "items": items,
    }));
    set_list_meta(&mut object, header);
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::encode_json;
    use crate::group::GroupVersionKind;
    use crate::schema::Schema;

    #[test]
    fn tables_read_as_upstream() {
        let pod = Object::from(json!({"kind": "Pod", "metadata": {"name": "a", "uid": "u"}, "spec": {}}));
        let name =
            ColumnDefinition { name: "Name", kind: "string", format: "name", description: "d", priority: 0 };
        let rows = vec![Row::new(vec![json!("a"), json!(1)], &pod, IncludeObject::Metadata)];
        let header = ListHeader { resource_version: "7".into(), ..ListHeader::default() };
        let table = table(&header, Some(&[name.to_value()]), rows);
        let schema = Schema::for_kind(&GroupVersionKind::new("meta.k8s.io", "v1", "Table")).unwrap();
        let mut out = Vec::new();
        encode_json(&table, &schema, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            concat!(
                r#"{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"7"},"#,
                r#""columnDefinitions":[{"name":"Name","type":"string","format":"name","description":"d","priority":0}],"#,
                r#""rows":[{"cells":["a",1],"object":{"apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadata","#,
                r#""metadata":{"name":"a","uid":"u"}}}]}"#
            )
        );
    }
}
