//! The versions of a definition: schemas, subresources, columns. What all versions have in common upstream holds
//! once, beside the versions, and that is where its error messages point.

use apimachinery::field::{Error, ErrorList};
use apimachinery::validation as names;
use apimachinery::{Value, field::Path};

use super::options::Options;
use super::selectable;
use super::v1beta1::SHARED;
use super::{defaults, schema, structural};
use crate::validation::at::At;
use crate::validation::value::go_struct;

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

/// What all versions have in common in a field, where upstream has it; none when they differ.
pub fn shared<'a>(spec: &At<'a>, key: &str) -> Option<At<'a>> {
    let mut all = spec.each("versions").map(|version| version.child(key));
    let first = all.next()?;
    let (_, name) = SHARED.iter().find(|(field, _)| *field == key)?;
    all.all(|other| other.value == first.value).then(|| At::new(first.value, spec.path.child(name)))
}

/// A field of a version; nothing where all versions have it in common.
fn own<'a>(spec: &At<'a>, version: &At<'a>, key: &str) -> At<'a> {
    let at = version.child(key);
    if shared(spec, key).is_some() { At::new(&Value::Null, at.path) } else { at }
}

/// The schemas of all versions.
pub fn schemas<'a>(spec: &At<'a>) -> impl Iterator<Item = At<'a>> + use<'a> {
    spec.each("versions").map(|version| version.child("schema").child("openAPIV3Schema"))
}

/// That versions have schemas, and what defaults need besides.
pub fn needed_schemas(spec: &At<'_>, options: &Options) -> ErrorList {
    let mut errors = ErrorList::new();
    let preserves = spec.child("preserveUnknownFields");
    for (version, schema) in spec.each("versions").zip(schemas(spec)).filter(|(_, schema)| !schema.is_set()) {
        if options.schemas {
            errors.push(schema.required(""));
        } else if !preserves.flag() && version.child("served").flag() {
            errors.push(schema.required("because otherwise all fields are pruned"));
        }
    }
    if options.has_defaults && preserves.flag() {
        errors.push(preserves.invalid("must be false in order to use defaults in the schema"));
    }
    errors
}

/// Each version with what it has alone, then what has to hold of all.
pub fn validate(spec: &At<'_>, options: &Options) -> ErrorList {
    let versions = spec.child("versions");
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for version in versions.items() {
        errors.extend(name(&version.child("name")));
        seen.push(version.text("name"));
        errors.extend(deprecation(&version));
        let has_status = match shared(spec, "subresources") {
            Some(subresources) => subresources.has("status"),
            // two versions of one name are judged by the first
            None => versions
                .items()
                .find(|other| other.text("name") == version.text("name"))
                .is_some_and(|first| first.child("subresources").has("status")),
        };
        let schema = own(spec, &version, "schema").child("openAPIV3Schema");
        errors.extend(whole_schema(&schema, has_status, options));
        errors.extend(scale(&own(spec, &version, "subresources")));
        errors.extend(own(spec, &version, "additionalPrinterColumns").items().flat_map(|each| column(&each)));
        let fields = own(spec, &version, "selectableFields");
        if !fields.is_empty() && !schema.is_set() {
            let why = "may only be set when `version.schema.openAPIV3Schema` is not included";
            errors.push(Error::invalid(&fields.path, "", why));
        } else if !fields.is_empty() {
            errors.extend(selectable::validate(
                &fields,
                schema.value,
                options.allows_many(seen.last().copied()),
            ));
        }
    }
    if (1..seen.len()).any(|index| seen[..index].contains(&seen[index])) {
        errors.push(versions.invalid("must contain unique version names").showing(shown(spec)));
    }
    if versions.items().filter(|version| version.child("storage").flag()).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        errors.push(versions.invalid(why).showing(shown(spec)));
    }
    // upstream has the name of the first version beside the versions as well
    if let Some(first) = versions.items().next().filter(|first| !first.text("name").is_empty()) {
        errors.extend(name(&At::new(first.child("name").value, spec.path.child("version"))));
    }
    errors
}

/// What all versions have in common.
pub fn validate_shared(spec: &At<'_>, options: &Options) -> ErrorList {
    let of = |key: &str| shared(spec, key).unwrap_or(At::new(&Value::Null, spec.path.clone()));
    let schema = of("schema");
    let any_status = spec.each("versions").any(|version| version.child("subresources").has("status"));
    let mut errors = whole_schema(&schema.child("openAPIV3Schema"), any_status, options);
    errors.extend(scale(&of("subresources")));
    errors.extend(of("additionalPrinterColumns").items().flat_map(|each| column(&each)));
    let fields = of("selectableFields");
    if !fields.is_empty() && !schema.is_set() {
        let why = "may only be set when validations.schema is included";
        errors.push(Error::invalid(&fields.path, "", why));
    } else if !fields.is_empty() {
        let schema = schema.child("openAPIV3Schema");
        errors.extend(selectable::validate(&fields, schema.value, options.allows_many(None)));
    }
    errors
}

/// Versions as upstream shows them.
fn shown(spec: &At<'_>) -> String {
    let of = |version: At<'_>| {
        let value = |key: &str| version.child(key).value.clone();
        let own = |key: &str| own(spec, &version, key).value.clone();
        let flag = |key: &str| Value::from(version.child(key).flag());
        go_struct(&[
            ("Name", version.text("name").into()),
            ("Served", flag("served")),
            ("Storage", flag("storage")),
            ("Deprecated", flag("deprecated")),
            ("DeprecationWarning", value("deprecationWarning")),
            ("Schema", own("schema")),
            ("Subresources", own("subresources")),
            ("AdditionalPrinterColumns", own("additionalPrinterColumns")),
            ("SelectableFields", own("selectableFields")),
        ])
    };
    let versions: Vec<String> = spec.each("versions").map(of).collect();
    if versions.is_empty() { "null".to_owned() } else { format!("[{}]", versions.join(",")) }
}

fn name(name: &At<'_>) -> Option<Error> {
    let wrong = names::is_dns1035_label(name.str());
    (!wrong.is_empty()).then(|| name.invalid_text(wrong.join(",")))
}

/// Whether Go holds a character to be printable, of which spaces are only the one of ASCII.
fn is_printable(c: char) -> bool {
    c == ' ' || matches!(c, '"' | '\'' | '\\') || (!c.is_whitespace() && c.escape_debug().len() == 1)
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
    if let Some((index, _)) = warning.str().char_indices().find(|(_, c)| !is_printable(*c)) {
        errors.push(warning.invalid(format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {index}"
        )));
    }
    errors
}

fn whole_schema(at: &At<'_>, has_status: bool, options: &Options) -> ErrorList {
    if !at.is_set() {
        return ErrorList::new();
    }
    let mut errors = schema::root(at, has_status);
    let convertible = if options.structural { structural::is_convertible(at.value) } else { Ok(()) };
    if options.structural && convertible.is_ok() {
        let wrong = structural::validate(at);
        errors.extend(if wrong.is_empty() { defaults::validate(at, options.pruned) } else { wrong });
    }
    errors.extend(schema::validate(at, options));
    match convertible {
        Err(why) if errors.is_empty() => vec![Error::invalid(&at.path, "", why)],
        _ => errors,
    }
}

fn simple_path(path: &At<'_>) -> ErrorList {
    if path.str().starts_with('.') {
        return ErrorList::new();
    }
    vec![path.invalid("must be a simple json path starting with .")]
}

fn scale(subresources: &At<'_>) -> ErrorList {
    let (scale, path): (At<'_>, &Path) = (subresources.child("scale"), &subresources.path);
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
