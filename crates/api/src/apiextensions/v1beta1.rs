//! Definitions as `apiextensions.k8s.io/v1beta1` had them, which is how the store holds them: what is the same in all
//! versions stands once, beside them. The version is served no more.

use apimachinery::{Object, Value};
use serde_json::{Map, json};

/// What each version has in v1, and its name beside the versions.
pub const SHARED: [(&str, &str); 4] = [
    ("subresources", "subresources"),
    ("schema", "validation"),
    ("additionalPrinterColumns", "additionalPrinterColumns"),
    ("selectableFields", "selectableFields"),
];

/// Turns an object of v1 into one of v1beta1.
pub fn from_v1(definition: &mut Object) {
    definition.set(&["apiVersion"], "apiextensions.k8s.io/v1beta1");
    let Some(spec) = spec(definition) else { return };
    // there it was a pointer, and not to set it meant true
    spec.entry("preserveUnknownFields").or_insert(Value::Bool(false));
    if let Some(conversion) = spec.get_mut("conversion").and_then(Value::as_object_mut)
        && let Some(Value::Object(mut webhook)) = conversion.remove("webhook")
    {
        let config = webhook.remove("clientConfig").map(|config| ("webhookClientConfig", config));
        let reviews = webhook.remove("conversionReviewVersions");
        let reviews = reviews.map(|reviews| ("conversionReviewVersions", reviews));
        conversion
            .extend([config, reviews].into_iter().flatten().map(|(key, value)| (key.to_owned(), value)));
    }
    for version in versions(spec) {
        rename_paths(version.get_mut("additionalPrinterColumns"), "jsonPath", "JSONPath");
    }
    let Some(first) = versions(spec).next().map(|version| version.clone()) else { return };
    if let Some(name) = first.get("name") {
        spec.insert("version".into(), name.clone());
    }
    for (of_version, of_all) in SHARED {
        let shared = first.get(of_version).filter(|value| !value.is_null());
        let Some(shared) =
            shared.filter(|_| versions(spec).all(|v| v.get(of_version) == first.get(of_version)))
        else {
            continue;
        };
        spec.insert(of_all.into(), shared.clone());
        for version in versions(spec) {
            version.remove(of_version);
        }
    }
}

/// Turns an object of v1beta1, with the defaults of its day, into one of v1.
pub fn to_v1(definition: &mut Object) {
    definition.set(&["apiVersion"], "apiextensions.k8s.io/v1");
    let Some(spec) = spec(definition) else { return };
    let is_missing = |value: Option<&Value>| {
        value
            .is_none_or(|value| value.is_null() || value == "" || value.as_array().is_some_and(Vec::is_empty))
    };
    if is_missing(spec.get("preserveUnknownFields")) {
        spec.insert("preserveUnknownFields".into(), Value::Bool(true));
    }
    if is_missing(spec.get("scope")) {
        spec.insert("scope".into(), json!("Namespaced"));
    }
    let name = spec.remove("version").filter(|name| !is_missing(Some(name)));
    if let Some(name) = name.filter(|_| is_missing(spec.get("versions"))) {
        spec.insert("versions".into(), json!([{"name": name, "served": true, "storage": true}]));
    }
    for (of_version, of_all) in SHARED {
        let Some(shared) = spec.remove(of_all).filter(|value| !value.is_null()) else { continue };
        for version in versions(spec) {
            version.insert(of_version.into(), shared.clone());
        }
    }
    for version in versions(spec) {
        rename_paths(version.get_mut("additionalPrinterColumns"), "JSONPath", "jsonPath");
    }
    let Some(conversion) = spec.get_mut("conversion").and_then(Value::as_object_mut) else { return };
    let config = conversion.remove("webhookClientConfig").filter(|config| !config.is_null());
    let mut reviews =
        conversion.remove("conversionReviewVersions").filter(|reviews| !is_missing(Some(reviews)));
    if reviews.is_none() && conversion.get("strategy").is_some_and(|strategy| strategy == "Webhook") {
        reviews = Some(json!(["v1beta1"]));
    }
    if config.is_some() || reviews.is_some() {
        let webhook = [("clientConfig", config), ("conversionReviewVersions", reviews)];
        let webhook = webhook.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        conversion.insert("webhook".into(), Value::Object(webhook.collect()));
    }
}

fn spec(definition: &mut Object) -> Option<&mut Map<String, Value>> {
    definition.as_map_mut().get_mut("spec")?.as_object_mut()
}

fn versions(spec: &mut Map<String, Value>) -> impl Iterator<Item = &mut Map<String, Value>> {
    let versions = spec.get_mut("versions").and_then(Value::as_array_mut);
    versions.into_iter().flatten().filter_map(Value::as_object_mut)
}

/// The one field of a column that is called otherwise.
fn rename_paths(columns: Option<&mut Value>, from: &str, to: &str) {
    for column in columns.and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
    {
        if let Some(path) = column.remove(from) {
            column.insert(to.into(), path);
        }
    }
}
