//! What is asked of a definition. An update lets pass what was stored before it was asked.

use apimachinery::Value;

use super::{defaults, schema, selectable, structural, versions, walk};
use crate::validation::at::At;
use crate::validation::forms::condition_is_true;

const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

pub struct Options {
    pub schemas: bool,
    pub structural: bool,
    /// Defaults have no fields that their schemas do not know.
    pub pruned: bool,
    /// Types are ones of OpenAPI.
    pub types: bool,
    /// Items of sets are atomic.
    pub atomic_sets: bool,
    /// Keys of maps, and items of maps and sets, are there.
    pub map_keys: bool,
    /// A webhook that converts understands a review that is known.
    pub reviews: bool,
    /// Authorities of a webhook that converts are ones.
    pub authorities: bool,
    pub has_defaults: bool,
    /// Versions that may have as many selectable fields as they like; the empty one is what all have in common.
    many_selectable: Vec<String>,
}

impl Options {
    pub fn of_create(spec: &At<'_>) -> Self {
        Self {
            schemas: true,
            structural: true,
            pruned: true,
            types: true,
            atomic_sets: true,
            map_keys: true,
            reviews: true,
            // a definition that nobody uses yet may be without
            authorities: false,
            has_defaults: has_schema_with(spec, |schema| schema.get("default").is_some()),
            many_selectable: Vec::new(),
        }
    }

    /// `old` is the definition before an update, at its root.
    pub fn of_update(spec: &At<'_>, old: &At<'_>) -> Self {
        let before = old.child("spec");
        let schemas = || versions::schemas(&before).filter(At::is_set);
        let conversion = before.child("conversion").child("webhook");
        let reviews = conversion.child("conversionReviewVersions");
        let has_defaults = has_schema_with(spec, |schema| schema.get("default").is_some());
        let is_structural = |schema: At<'_>| {
            structural::is_convertible(schema.value).is_ok() && structural::validate(&schema).is_empty()
        };
        Self {
            schemas: versions::schemas(&before).all(|schema| schema.is_set()),
            structural: !spec.child("preserveUnknownFields").flag()
                || has_defaults
                || has_schema_with(spec, has_extensions)
                || schemas().all(is_structural),
            pruned: schemas().all(|schema| has_pruned_defaults(&schema)),
            types: !has_schema_with(&before, |schema| !schema::has_known_type(schema)),
            atomic_sets: !has_schema_with(&before, |schema| !schema::is_atomic_set(schema)),
            map_keys: !has_schema_with(&before, |schema| !schema::has_map_keys(schema)),
            reviews: reviews.is_empty() || reviews.list().iter().any(is_known_review),
            authorities: is_established(old) && !has_bad_authorities(&conversion.child("clientConfig")),
            has_defaults,
            many_selectable: many_selectable(spec, &before),
        }
    }

    /// Whether a version, or what all have in common, may have as many selectable fields as it likes.
    pub fn allows_many(&self, version: Option<&str>) -> bool {
        self.many_selectable.iter().any(|name| name == version.unwrap_or_default())
    }
}

pub fn is_known_review(version: &Value) -> bool {
    REVIEW_VERSIONS.iter().any(|known| version == known)
}

/// What a review has to be one of.
pub fn known_reviews() -> String {
    REVIEW_VERSIONS.join(", ")
}

pub fn is_established(definition: &At<'_>) -> bool {
    condition_is_true(definition.child("status").child("conditions").list(), "Established")
}

fn has_bad_authorities(config: &At<'_>) -> bool {
    let bundle = config.child("caBundle");
    !bundle.is_empty() && super::conversion::authorities(&bundle).is_some()
}

fn has_schema_with(spec: &At<'_>, test: impl Fn(&Value) -> bool) -> bool {
    versions::schemas(spec).any(|schema| walk::any(schema.value, &test))
}

fn has_extensions(schema: &Value) -> bool {
    let is_true = |key: &str| schema[key] == true;
    let is_set = |key: &str| schema.get(key).is_some_and(|value| !value.is_null());
    let is_filled = |key: &str| schema[key].as_array().is_some_and(|list| !list.is_empty());
    is_true("x-kubernetes-embedded-resource")
        || is_true("x-kubernetes-int-or-string")
        || is_set("x-kubernetes-preserve-unknown-fields")
        || is_set("x-kubernetes-list-type")
        || is_filled("x-kubernetes-list-map-keys")
        || is_filled("x-kubernetes-validations")
}

/// Whether there is nothing to prune in the defaults of a schema; one that is not structural has none.
fn has_pruned_defaults(schema: &At<'_>) -> bool {
    structural::is_convertible(schema.value).is_err()
        || !structural::validate(schema).is_empty()
        || defaults::validate(schema, true).len() == defaults::validate(schema, false).len()
}

fn many_selectable(spec: &At<'_>, before: &At<'_>) -> Vec<String> {
    const KEY: &str = "selectableFields";
    let is_kept =
        |now: &At<'_>, then: &At<'_>| then.len() > selectable::MAX_SELECTABLE && now.value == then.value;
    let (now, then) = (versions::shared(spec, KEY), versions::shared(before, KEY));
    let mut kept = Vec::new();
    if then.is_some_and(|then| now.is_some_and(|now| is_kept(&now, &then))) {
        kept.push(String::new());
    }
    if versions::shared(before, KEY).is_some() || versions::shared(spec, KEY).is_some() {
        return kept;
    }
    for version in spec.each("versions") {
        let old = before.each("versions").find(|old| old.text("name") == version.text("name"));
        if old.is_some_and(|old| is_kept(&version.child(KEY), &old.child(KEY))) {
            kept.push(version.text("name").to_owned());
        }
    }
    kept
}
