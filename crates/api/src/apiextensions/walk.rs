//! All schemas within a schema.

use apimachinery::Value;

/// The places that have schemas by names.
const IS_MAP: [&str; 4] = ["properties", "patternProperties", "definitions", "dependencies"];

/// Calls a visitor with a schema and all within it, in upstream's order.
pub fn visit<'v>(schema: &'v Value, visitor: &mut dyn FnMut(&'v Value)) {
    if !schema.is_object() {
        return;
    }
    visitor(schema);
    const PLACES: [&str; 11] = [
        "items",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "properties",
        "additionalProperties",
        "patternProperties",
        "additionalItems",
        "definitions",
        "dependencies",
    ];
    for place in PLACES {
        match &schema[place] {
            Value::Array(schemas) => schemas.iter().for_each(|schema| visit(schema, visitor)),
            Value::Object(schemas) if IS_MAP.contains(&place) => {
                schemas.values().for_each(|schema| visit(schema, visitor));
            }
            schema => visit(schema, visitor),
        }
    }
}

/// Whether a schema or one within it passes a test.
pub fn any(schema: &Value, test: impl Fn(&Value) -> bool) -> bool {
    let mut found = false;
    visit(schema, &mut |schema| found = found || test(schema));
    found
}
