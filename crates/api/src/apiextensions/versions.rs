//! The versions of a definition: schemas, subresources, columns. What all versions have in common upstream holds
//! once, beside the versions, and that is where its error messages point.

use apimachinery::field::{Error, ErrorList};
use apimachinery::validation as names;
use apimachinery::{Value, field::Path};

use super::{defaults, schema, structural};
use crate::validation::at::At;

const MAX_SELECTABLE: usize = 8;
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

/// What an update lets pass because it was stored like that.
#[derive(Clone, Copy)]
pub struct Strict {
    pub schemas: bool,
    pub structural: bool,
    /// Defaults have no fields that their schemas do not know.
    pub pruned: bool,
    pub selectable: bool,
}

/// A field of the versions, once for each place at which upstream has it.
fn places<'a>(spec: &At<'a>, key: &str, shared: &str) -> Vec<At<'a>> {
    let all: Vec<At<'a>> = spec.each("versions").map(|version| version.child(key)).collect();
    match all.first() {
        Some(first) if all.iter().all(|each| each.value == first.value) => {
            vec![At::new(first.value, spec.path.child(shared))]
        }
        _ => all,
    }
}

pub fn validate(spec: &At<'_>, strict: Strict) -> ErrorList {
    let versions = spec.child("versions");
    let mut errors = ErrorList::new();
    if strict.schemas {
        for version in versions.items() {
            let schema = version.child("schema").child("openAPIV3Schema");
            if !schema.is_set() {
                errors.push(schema.required(""));
            }
        }
    }
    let mut seen: Vec<&str> = Vec::new();
    for version in versions.items() {
        let name = version.child("name");
        let wrong = names::is_dns1035_label(name.str());
        if !wrong.is_empty() {
            errors.push(Error::invalid(&name.path, name.str(), wrong.join(",")));
        }
        errors.extend(deprecation(&version));
        seen.push(name.str());
    }
    let with_status = |version: &At<'_>| version.child("subresources").has("status");
    let any_status = versions.items().any(|version| with_status(&version));
    for at in places(spec, "schema", "validation").iter().filter(|at| at.is_set()) {
        errors.extend(whole_schema(&at.child("openAPIV3Schema"), any_status, strict));
    }
    for at in places(spec, "subresources", "subresources") {
        errors.extend(scale(&at.child("scale"), &at.path));
    }
    for column in
        places(spec, "additionalPrinterColumns", "additionalPrinterColumns").iter().flat_map(At::items)
    {
        errors.extend(self::column(&column));
    }
    errors.extend(all_selectable(spec, strict));
    if (1..seen.len()).any(|index| seen[..index].contains(&seen[index])) {
        errors.push(versions.invalid("must contain unique version names"));
    }
    if versions.items().filter(|version| version.child("storage").flag()).count() != 1 {
        errors.push(versions.invalid("must have exactly one version marked as storage version"));
    }
    errors
}

fn deprecation(version: &At<'_>) -> ErrorList {
    let warning = version.child("deprecationWarning");
    if !warning.is_set() {
        return ErrorList::new();
    }
    if !version.child("deprecated").flag() {
        return vec![warning.invalid("can only be set for deprecated versions")];
    }
    let mut errors = ErrorList::new();
    if warning.len() > 256 {
        errors.push(warning.invalid("must be <= 256 characters long"));
    }
    if warning.is_empty() {
        errors.push(warning.invalid("must not be an empty string"));
    }
    if let Some((index, _)) = warning.str().char_indices().find(|(_, c)| c.is_control()) {
        errors.push(warning.invalid(format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {index}"
        )));
    }
    errors
}

fn whole_schema(at: &At<'_>, has_status: bool, strict: Strict) -> ErrorList {
    if !at.is_set() {
        return ErrorList::new();
    }
    let mut errors = schema::root(at, has_status);
    if strict.structural {
        let wrong = structural::validate(at);
        errors.extend(if wrong.is_empty() { defaults::validate(at, strict.pruned) } else { wrong });
    }
    errors.extend(schema::validate(at));
    errors
}

/// Whether the defaults of all schemas are ones that are known, for updates of definitions that were stored before
/// that was asked.
pub fn has_pruned_defaults(spec: &At<'_>) -> bool {
    spec.each("versions").all(|version| {
        let schema = version.child("schema").child("openAPIV3Schema");
        !schema.is_set()
            || defaults::validate(&schema, true).len() == defaults::validate(&schema, false).len()
    })
}

/// Whether a schema passes today's rules, for updates of definitions that were stored before them.
pub fn is_structural(spec: &At<'_>) -> bool {
    spec.each("versions").all(|version| {
        let schema = version.child("schema").child("openAPIV3Schema");
        !schema.is_set() || structural::validate(&schema).is_empty()
    })
}

fn simple_path(path: &At<'_>) -> ErrorList {
    if path.str().starts_with('.') {
        return ErrorList::new();
    }
    vec![path.invalid("must be a simple json path starting with .")]
}

fn scale(scale: &At<'_>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if !scale.is_set() {
        return errors;
    }
    for (key, under, needed) in [
        ("specReplicasPath", &[".spec."][..], true),
        ("statusReplicasPath", &[".status."][..], true),
        ("labelSelectorPath", &[".spec.", ".status."][..], false),
    ] {
        let value = scale.value.get(key).unwrap_or(&Value::Null);
        let at = At::new(value, path.child(&format!("scale.{key}")));
        if at.is_empty() {
            if needed {
                errors.push(at.required(""));
            }
            continue;
        }
        let wrong = simple_path(&at);
        if wrong.is_empty() && !under.iter().any(|prefix| at.str().starts_with(prefix)) {
            let place = match under {
                [one] => one.trim_end_matches('.').to_owned(),
                _ => "either .spec or .status".to_owned(),
            };
            errors.push(at.invalid(format!("should be a json path under {place}")));
        }
        errors.extend(wrong);
    }
    errors
}

fn column(column: &At<'_>) -> ErrorList {
    let (kind, format) = (column.child("type"), column.child("format"));
    let mut errors = ErrorList::new();
    if column.child("name").is_empty() {
        errors.push(column.child("name").required(""));
    }
    let one_of = format!("must be one of {}", COLUMN_TYPES.join(","));
    if kind.is_empty() {
        errors.push(kind.required(one_of));
    } else if !COLUMN_TYPES.contains(&kind.str()) {
        errors.push(kind.invalid(one_of));
    }
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format.str()) {
        errors.push(format.invalid(format!("must be one of {}", COLUMN_FORMATS.join(","))));
    }
    let value = column.value.get("jsonPath").unwrap_or(&Value::Null);
    let path = At::new(value, column.path.child("JSONPath"));
    if path.is_empty() {
        errors.push(path.required(""));
    } else {
        errors.extend(simple_path(&path));
    }
    errors
}

/// The fields that lists are selected by, which upstream looks for in schemas that stand where the fields stand: with
/// each version, or beside all of them.
fn all_selectable(spec: &At<'_>, strict: Strict) -> ErrorList {
    let (fields, schemas) =
        (places(spec, "selectableFields", "selectableFields"), places(spec, "schema", "validation"));
    let is_shared =
        |places: &[At<'_>], key: &str| places.first().is_some_and(|at| at.path == spec.path.child(key));
    let together = is_shared(&fields, "selectableFields") == is_shared(&schemas, "validation");
    let missing = match is_shared(&fields, "selectableFields") {
        true => "may only be set when validations.schema is included",
        false => "may only be set when `version.schema.openAPIV3Schema` is not included",
    };
    let mut errors = ErrorList::new();
    for (index, at) in fields.iter().enumerate().filter(|(_, at)| !at.is_empty()) {
        let schema = schemas.get(index).filter(|_| together).map(|schema| schema.child("openAPIV3Schema"));
        match schema.filter(At::is_set) {
            Some(schema) => errors.extend(selectable(at, schema.value, strict)),
            None => errors.push(Error::invalid(&at.path, "", missing)),
        }
    }
    errors
}

fn selectable(fields: &At<'_>, schema: &Value, strict: Strict) -> ErrorList {
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
    if strict.selectable && seen.len() > MAX_SELECTABLE {
        errors.push(Error::too_many(&fields.path, seen.len(), MAX_SELECTABLE));
    }
    errors
}
