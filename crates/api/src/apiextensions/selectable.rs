//! The fields that lists of custom resources are selected by.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};

use super::schema;
use crate::validation::at::At;

pub const MAX_SELECTABLE: usize = 8;

/// `many` is whether there may be more than upstream allows today.
pub fn validate(fields: &At<'_>, schema: &Value, many: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: Vec<Vec<String>> = Vec::new();
    for field in fields.items() {
        let path = field.child("jsonPath");
        if path.is_empty() {
            errors.push(path.required(""));
            continue;
        }
        let (names, found) = match schema::find(path.str(), schema, false) {
            Ok(found) => found,
            Err(why) => {
                errors.push(path.invalid(format!("is an invalid path: {why}")));
                continue;
            }
        };
        if names.first().is_some_and(|first| first == "metadata") {
            errors.push(path.invalid("must not point to fields in metadata"));
        }
        if !matches!(found["type"].as_str(), Some("string" | "boolean" | "integer")) {
            errors.push(path.invalid(
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats \
                 are allowed.",
            ));
        }
        if seen.contains(&names) {
            errors.push(path.duplicate());
        } else {
            seen.push(names);
        }
    }
    if !many && seen.len() > MAX_SELECTABLE {
        errors.push(Error::too_many(&fields.path, seen.len(), MAX_SELECTABLE));
    }
    errors
}
