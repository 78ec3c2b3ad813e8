//! The three patch formats that name changes: JSON patch, JSON merge patch, strategic merge patch. Their results
//! are raw trees: normalise them before use.

mod strategic;

use json_patch::{PatchOperation, jsonptr::Pointer};
use serde_json::Value;

pub use strategic::strategic_merge;

use crate::codec::MAX_DEPTH;
use crate::status::{Details, Reason, Status};

/// Upstream's bound on the operations of one patch.
pub const MAX_JSON_PATCH_OPERATIONS: usize = 10_000;
/// Upstream's bound on what the `copy` operations of one patch may add.
const MAX_COPY_BYTES: usize = 3 * 1024 * 1024;

/// A patch that fits the grammar but not the object.
fn unprocessable() -> Status {
    let message = "the server rejected our request due to an error in our request";
    let mut status = Status::new(422, Reason::Invalid, message);
    status.details = Some(Box::new(Details::default()));
    status
}

/// Applies a JSON patch (RFC 6902). When it fails the document is left half patched.
pub fn json_patch(document: &mut Value, operations: &Value) -> Result<(), Status> {
    let operations = match operations {
        Value::Array(operations) => operations.as_slice(),
        Value::Null => &[],
        _ => return Err(Status::bad_request("a JSON patch is a list of operations")),
    };
    if operations.len() > MAX_JSON_PATCH_OPERATIONS {
        return Err(Status::request_entity_too_large(format!(
            "The allowed maximum operations in a JSON patch is {MAX_JSON_PATCH_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let mut guard = Guard { copied: 0, depth: depth(document) };
    for operation in operations {
        // one that is none fails when it is its turn
        let operation = as_go_reads(operation).ok_or_else(unprocessable)?;
        guard.allow(document, &operation)?;
        json_patch::patch_unsafe(document, std::slice::from_ref(&operation)).map_err(|_| unprocessable())?;
    }
    Ok(())
}

/// An operation as upstream's library takes it: a value that is not there is null, and what stands before the first
/// slash of a path does not count.
fn as_go_reads(operation: &Value) -> Option<PatchOperation> {
    let mut operation = operation.as_object()?.clone();
    for key in ["path", "from"] {
        if let Some(Value::String(path)) = operation.get_mut(key)
            && !path.is_empty()
        {
            *path = path[path.find('/')?..].to_owned();
        }
    }
    if matches!(operation.get("op")?.as_str()?, "add" | "replace" | "test") {
        operation.entry("value").or_insert(Value::Null);
    }
    serde_json::from_value(Value::Object(operation)).ok()
}

/// Keeps a patch from making a document out of bounds: operations are cheap to write and may double it.
struct Guard {
    copied: usize,
    /// The document is at most this deep.
    depth: usize,
}

impl Guard {
    fn allow(&mut self, document: &Value, operation: &PatchOperation) -> Result<(), Status> {
        let tokens = |path: &Pointer| path.count();
        let at_least = match operation {
            PatchOperation::Add(op) => tokens(&op.path) + depth(&op.value),
            PatchOperation::Replace(op) => tokens(&op.path) + depth(&op.value),
            PatchOperation::Move(op) => tokens(&op.path) + self.depth,
            PatchOperation::Copy(op) => {
                let value = op.from.resolve(document).map_err(|_| unprocessable())?;
                self.copied += size(value);
                if self.copied > MAX_COPY_BYTES {
                    return Err(unprocessable());
                }
                tokens(&op.path) + depth(value)
            }
            PatchOperation::Remove(_) | PatchOperation::Test(_) => 0,
        };
        self.depth = self.depth.max(at_least);
        if self.depth > MAX_DEPTH {
            // The estimate only grows; look before refusing.
            let value = match operation {
                PatchOperation::Move(op) => op.from.resolve(document).map_or(0, depth) + tokens(&op.path),
                _ => at_least,
            };
            self.depth = depth(document).max(value);
        }
        if self.depth > MAX_DEPTH { Err(unprocessable()) } else { Ok(()) }
    }
}

/// How deep a tree nests; documents are bounded where they come in, so this may recurse.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or_default(),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

/// The bytes a tree takes as JSON, about.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(list) => 2 + list.iter().map(|v| size(v) + 1).sum::<usize>(),
        Value::Object(map) => 2 + map.iter().map(|(key, v)| key.len() + 4 + size(v)).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 5,
    }
}

/// Applies a JSON merge patch (RFC 7386).
pub fn merge_patch(document: &mut Value, patch: &Value) -> Result<(), Status> {
    if !patch.is_object() {
        return Err(Status::bad_request("invalid JSON Patch"));
    }
    json_patch::merge(document, patch);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_patches() {
        let mut document = json!({"a": {"b": [1, 2]}});
        let operations = json!([
            {"op": "test", "path": "/a/b/0", "value": 1}, {"op": "add", "path": "/a/b/-", "value": 3},
            {"op": "copy", "from": "/a/b", "path": "/c"}, {"op": "remove", "path": "/a"},
        ]);
        json_patch(&mut document, &operations).unwrap();
        assert_eq!(document, json!({"c": [1, 2, 3]}));
        let refused = [
            (json!([{"op": "remove", "path": "/nope"}]), 422),
            (json!([{"op": "test", "path": "/c/0", "value": 9}]), 422),
            (json!([{"op": "what", "path": "/c"}]), 422),
            (json!({"op": "add"}), 400),
            (json!(vec![json!({"op": "test", "path": "/c/0", "value": 1}); 10_001]), 413),
        ];
        for (operations, code) in refused {
            assert_eq!(
                json_patch(&mut document.clone(), &operations).unwrap_err().code,
                code,
                "{operations}"
            );
        }
    }

    #[test]
    fn patches_cannot_blow_a_document_up() {
        let doubling: Vec<Value> =
            (0..64).map(|at| json!({"op": "copy", "from": "", "path": format!("/{at}")})).collect();
        assert_eq!(json_patch(&mut json!({"x": "y"}), &json!(doubling)).unwrap_err().code, 422);
        let mut path = String::new();
        let nesting: Vec<Value> = (0..5000)
            .map(|_| {
                path.push_str("/a");
                json!({"op": "add", "path": path, "value": {}})
            })
            .collect();
        assert_eq!(json_patch(&mut json!({}), &json!(nesting)).unwrap_err().code, 422);
        let moves: Vec<Value> = (0..3000)
            .flat_map(|_| {
                [
                    json!({"op": "add", "path": "/b", "value": {}}),
                    json!({"op": "move", "from": "/a", "path": "/b/a"}),
                    json!({"op": "move", "from": "/b", "path": "/a"}),
                ]
            })
            .collect();
        assert_eq!(json_patch(&mut json!({"a": 1}), &json!(moves)).unwrap_err().code, 422);
        let harmless: Vec<Value> = (0..500)
            .flat_map(|_| {
                [
                    json!({"op": "move", "from": "/a", "path": "/b"}),
                    json!({"op": "move", "from": "/b", "path": "/a"}),
                ]
            })
            .collect();
        json_patch(&mut json!({"a": {"c": 1}}), &json!(harmless)).unwrap();
    }

    #[test]
    fn merge_patches() {
        let mut document = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        merge_patch(&mut document, &json!({"a": {"b": null, "e": {"f": null}}, "d": [2]})).unwrap();
        assert_eq!(document, json!({"a": {"c": 2, "e": {}}, "d": [2]}));
        assert_eq!(merge_patch(&mut document, &json!([])).unwrap_err().code, 400);
    }
}
