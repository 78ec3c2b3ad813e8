//! Definitions of custom resources: defaults, what may change, names, conversion.

use apimachinery::field::{Error, ErrorList};
use apimachinery::validation as names;
use apimachinery::{Object, Value};
use serde_json::json;

use super::versions::{self, Strict};
use crate::admissionregistration::client_config;
use crate::core::defaults::{child, set};
use crate::strategy::{Strategy, bump_generation, keep_status};
use crate::validation::at::At;
use crate::validation::forms::{condition_is_true, unchanged};

const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const APPROVED: &str = "api-approved.kubernetes.io";

pub struct CustomResourceDefinitions;

/// The version whose objects are stored.
fn storage_version(definition: &Object) -> Option<String> {
    let versions = definition.get_array(&["spec", "versions"]);
    let stored = versions.iter().find(|version| version["storage"] == true)?;
    stored["name"].as_str().map(str::to_owned)
}

/// Notes that objects may be stored in the storage version.
fn note_storage_version(definition: &mut Object) {
    let Some(version) = storage_version(definition) else { return };
    let mut stored = definition.get_array(&["status", "storedVersions"]).to_vec();
    if !stored.iter().any(|name| *name == version.as_str()) {
        stored.push(json!(version));
        definition.set(&["status", "storedVersions"], stored);
    }
}

impl Strategy for CustomResourceDefinitions {
    fn default(&self, definition: &mut Object) {
        if let Some(spec) = definition.as_map_mut().get_mut("spec").and_then(Value::as_object_mut) {
            if let Some(names) = child(spec, "names") {
                let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
                let is_empty =
                    |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().is_empty();
                if is_empty(names.get("singular")) {
                    names.insert("singular".into(), json!(kind.to_lowercase()));
                }
                if is_empty(names.get("listKind")) && !kind.is_empty() {
                    names.insert("listKind".into(), json!(format!("{kind}List")));
                }
            }
            set(spec, "conversion", json!({"strategy": "None"}));
            let service = child(spec, "conversion")
                .and_then(|conversion| child(conversion, "webhook"))
                .and_then(|webhook| child(webhook, "clientConfig"))
                .and_then(|config| child(config, "service"));
            if let Some(service) = service {
                set(service, "port", 443);
            }
        }
        if definition.get_array(&["status", "storedVersions"]).is_empty() {
            note_storage_version(definition);
        }
    }

    fn prepare_for_create(&self, definition: &mut Object) {
        definition.remove(&["status"]);
        definition.set_generation(1);
        note_storage_version(definition);
    }

    fn prepare_for_update(&self, definition: &mut Object, old: &Object) {
        keep_status(definition, old);
        bump_generation(definition, old);
        note_storage_version(definition);
    }

    fn validate(&self, definition: &Object) -> ErrorList {
        let root = At::root(definition);
        let spec = root.child("spec");
        let wanted = format!("{}.{}", spec.child("names").text("plural"), spec.text("group"));
        let mut errors = ErrorList::new();
        if definition.name() != wanted {
            let why = "must be spec.names.plural+\".\"+spec.group";
            errors.push(Error::invalid(&root.child("metadata").path.child("name"), definition.name(), why));
        }
        let strict = Strict { schemas: true, structural: true, pruned: true, selectable: true };
        errors.extend(validate(&spec, strict, true));
        errors.extend(rest(definition, None));
        errors
    }

    fn validate_update(&self, definition: &Object, old: &Object) -> ErrorList {
        let (spec, before) = (At::root(definition).child("spec"), At::root(old).child("spec"));
        let has_schema = |version: At<'_>| version.child("schema").has("openAPIV3Schema");
        let preserves = spec.child("preserveUnknownFields").flag();
        let selectable = |spec: &At<'_>| -> Vec<Value> {
            spec.each("versions").map(|version| version.child("selectableFields").value.clone()).collect()
        };
        let strict = Strict {
            schemas: before.each("versions").all(has_schema),
            structural: !preserves || versions::is_structural(&before),
            pruned: versions::has_pruned_defaults(&before),
            selectable: selectable(&spec) != selectable(&before),
        };
        let reviews = before.child("conversion").child("webhook").child("conversionReviewVersions");
        let understood = reviews.is_empty() || reviews.list().iter().any(is_known_review);
        let mut errors = validate(&spec, strict, understood);
        let (names, old_names) = (spec.child("names"), before.child("names"));
        if condition_is_true(old.get_array(&["status", "conditions"]), "Established") {
            errors.extend(unchanged(&spec.child("scope"), &before.child("scope")));
            errors.extend(unchanged(&names.child("kind"), &old_names.child("kind")));
        }
        errors.extend(unchanged(&spec.child("group"), &before.child("group")));
        errors.extend(unchanged(&names.child("plural"), &old_names.child("plural")));
        errors.extend(rest(definition, Some(old)));
        errors
    }

    fn validate_status_update(&self, definition: &Object, _old: &Object) -> ErrorList {
        accepted_names(&At::root(definition).child("status").child("acceptedNames"))
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }
}

fn is_known_review(version: &Value) -> bool {
    REVIEW_VERSIONS.iter().any(|known| version == known)
}

fn validate(spec: &At<'_>, strict: Strict, understood: bool) -> ErrorList {
    let (group, names) = (spec.child("group"), spec.child("names"));
    let mut errors = ErrorList::new();
    let wrong = names::is_dns1123_subdomain(group.str());
    if group.is_empty() {
        errors.push(group.required(""));
    } else if !wrong.is_empty() {
        errors.push(group.invalid(wrong.join(",")));
    } else if !group.str().contains('.') {
        errors.push(group.invalid("should be a domain with at least one dot"));
    }
    errors.extend(spec.child("scope").one_of(&["Cluster", "Namespaced"]));
    errors.extend(versions::validate(spec, strict));
    for key in ["plural", "singular", "kind", "listKind"] {
        let name = names.child(key);
        if name.is_empty() {
            errors.push(Error::required(&name.path, ""));
        }
    }
    errors.extend(accepted_names(&names));
    let conversion = spec.child("conversion");
    if spec.child("preserveUnknownFields").flag() && conversion.text("strategy") != "None" {
        let strategy = conversion.child("strategy");
        let why = "must be None if spec.preserveUnknownFields is true";
        errors.push(Error::invalid(&strategy.path, strategy.str(), why));
    }
    errors.extend(self::conversion(&conversion, understood));
    errors
}

/// Names that are there are well formed.
fn accepted_names(names: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut label = |at: &At<'_>, may_have_case: bool| {
        if at.is_empty() && !at.path.as_str().ends_with(']') {
            return;
        }
        let text = if may_have_case { at.str().to_lowercase() } else { at.str().to_owned() };
        let wrong = names::is_dns1035_label(&text);
        if wrong.is_empty() {
            return;
        }
        let prefix = if may_have_case { "may have mixed case, but should otherwise match: " } else { "" };
        errors.push(at.invalid(format!("{prefix}{}", wrong.join(","))));
    };
    label(&names.child("plural"), false);
    label(&names.child("singular"), false);
    label(&names.child("kind"), true);
    label(&names.child("listKind"), true);
    for key in ["shortNames", "categories"] {
        for name in names.each(key) {
            label(&name, false);
        }
    }
    let (kind, list) = (names.child("kind"), names.child("listKind"));
    if !kind.is_empty() && kind.str() == list.str() {
        errors.push(list.invalid("kind and listKind may not be the same"));
    }
    errors
}

/// How objects get from one version to another, at the paths of upstream's internal version.
fn conversion(conversion: &At<'_>, understood: bool) -> ErrorList {
    if !conversion.is_set() {
        return ErrorList::new();
    }
    let webhook = conversion.child("webhook");
    let inner = |key: &str, shown: &str| {
        At::new(webhook.value.get(key).unwrap_or(&Value::Null), conversion.path.child(shown))
    };
    let config = inner("clientConfig", "webhookClientConfig");
    let reviews = inner("conversionReviewVersions", "conversionReviewVersions");
    let mut errors = conversion.child("strategy").one_of(&["None", "Webhook"]);
    if conversion.text("strategy") != "Webhook" {
        for at in [config, reviews].iter().filter(|at| !at.is_empty()) {
            errors.push(at.forbidden("should not be set when strategy is not set to Webhook"));
        }
        return errors;
    }
    if config.is_set() {
        errors.extend(client_config(&config));
    } else {
        errors.push(config.required("required when strategy is set to Webhook"));
    }
    if reviews.is_empty() {
        errors.push(reviews.required(""));
        return errors;
    }
    for (index, version) in reviews.items().enumerate() {
        if reviews.list()[..index].contains(version.value) {
            errors.push(version.invalid("duplicate version"));
            continue;
        }
        errors.extend(version.wrong(names::is_dns1035_label(version.str())));
    }
    if understood && !reviews.list().iter().any(is_known_review) {
        let why = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        errors.push(reviews.invalid(why));
    }
    errors
}

/// What is checked beside the spec: the status, approval of names that are the community's, pruning.
fn rest(definition: &Object, old: Option<&Object>) -> ErrorList {
    let root = At::root(definition);
    let status = root.child("status");
    let mut errors = accepted_names(&status.child("acceptedNames"));
    errors.extend(stored_versions(&status.child("storedVersions"), &root.child("spec").child("versions")));
    errors.extend(approval(definition, old));
    let preserves = root.child("spec").child("preserveUnknownFields");
    let did = old.is_some_and(|old| old.get_bool(&["spec", "preserveUnknownFields"]));
    if preserves.flag() && !did {
        errors.push(preserves.invalid(
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ));
    }
    errors
}

fn stored_versions(stored: &At<'_>, versions: &At<'_>) -> ErrorList {
    if stored.is_empty() {
        return vec![stored.invalid("must have at least one stored version")];
    }
    let mut errors = ErrorList::new();
    for version in versions.items().filter(|version| version.child("storage").flag()) {
        let name = version.child("name");
        if !stored.list().contains(name.value) {
            errors.push(stored.invalid(format!("must have the storage version {}", name.str())));
        }
    }
    let is_served = |name: &At<'_>| versions.list().iter().any(|version| version["name"] == *name.value);
    for name in stored.items().filter(|name| !is_served(name)) {
        let version = name.str();
        errors.push(name.invalid(format!(
            "missing from spec.versions; {version} was previously a storage version, and must remain in spec.versions \
             until a storage migration ensures no data remains persisted in {version} and removes {version} from \
             status.storedVersions"
        )));
    }
    errors
}

#[derive(PartialEq, Eq)]
enum Approval {
    Missing,
    Bypassed,
    Approved,
    Invalid,
}

fn approval_of(definition: &Object) -> Approval {
    let text = definition.annotation(APPROVED).unwrap_or_default();
    let is_url = text.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && !rest.split('/').next().unwrap_or_default().is_empty()
    });
    match text {
        "" => Approval::Missing,
        text if text.starts_with("unapproved") => Approval::Bypassed,
        _ if is_url => Approval::Approved,
        _ => Approval::Invalid,
    }
}

/// Groups of the community need its approval, or a word that they have none.
fn approval(definition: &Object, old: Option<&Object>) -> ErrorList {
    let group = definition.get_str(&["spec", "group"]);
    let is_community = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')));
    let state = approval_of(definition);
    if !is_community || old.is_some_and(|old| approval_of(old) == state) {
        return ErrorList::new();
    }
    let path = At::root(definition).child("metadata").child("annotations").path.key(APPROVED);
    let needed = format!("protected groups must have approval annotation \"{APPROVED}\"");
    const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    match state {
        Approval::Approved | Approval::Bypassed => ErrorList::new(),
        Approval::Missing => vec![Error::required(&path, format!("{needed}, {SEE}"))],
        Approval::Invalid => {
            let why = format!("{needed} with either a URL or a reason starting with \"unapproved\", {SEE}");
            vec![Error::invalid(&path, definition.annotation(APPROVED).unwrap_or_default(), why)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::forms::check;

    fn definition(spec: Value) -> Object {
        let mut object = Object::from(json!({"metadata": {"name": "widgets.example.com"}, "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object"}},
            }}}],
        }}));
        for (key, value) in spec.as_object().into_iter().flatten() {
            object.set(&["spec", key], value.clone());
        }
        CustomResourceDefinitions.default(&mut object);
        CustomResourceDefinitions.prepare_for_create(&mut object);
        object
    }

    #[test]
    fn defaults() {
        let object = definition(json!({}));
        assert_eq!(
            object.get(&["spec", "names"]),
            Some(
                &json!({"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"})
            )
        );
        assert_eq!(object.get(&["status", "storedVersions"]), Some(&json!(["v1"])));
        assert_eq!(object.get_str(&["spec", "conversion", "strategy"]), "None");
        check(CustomResourceDefinitions.validate(&object), &[]);
    }

    #[test]
    fn what_is_wrong_with_a_definition() {
        let schema = |schema: Value| json!({"versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]});
        let cases: Vec<(Value, Vec<&str>)> = vec![
            (
                schema(json!({"type": "object", "properties": {"spec": {}}})),
                vec![
                    "spec.validation.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields",
                ],
            ),
            (
                json!({"versions": [{"name": "v1", "served": true, "storage": true}]}),
                vec!["spec.versions[0].schema.openAPIV3Schema: Required value"],
            ),
            (
                json!({"scope": "World", "conversion": {"strategy": "Webhook"}}),
                vec![
                    "spec.scope: Unsupported value: \"World\": supported values: \"Cluster\", \"Namespaced\"",
                    "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
                    "spec.conversion.conversionReviewVersions: Required value",
                ],
            ),
            (
                json!({"preserveUnknownFields": true}),
                vec![
                    "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
                ],
            ),
            (
                json!({"names": {"plural": "widgets", "kind": "Widget", "listKind": "Widget", "shortNames": ["W"]}}),
                vec![
                    "spec.names.shortNames[0]: Invalid value: \"W\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
                    "spec.names.listKind: Invalid value: \"Widget\": kind and listKind may not be the same",
                ],
            ),
        ];
        for (spec, expected) in cases {
            check(CustomResourceDefinitions.validate(&definition(spec)), &expected);
        }
        let mut named = definition(json!({}));
        named.set_name("other");
        assert_eq!(CustomResourceDefinitions.validate(&named)[0].field, "metadata.name");
    }

    #[test]
    fn columns_scale_and_fields() {
        let object = definition(json!({"versions": [{
            "name": "v1", "served": true, "storage": true, "deprecationWarning": "x",
            "schema": {"openAPIV3Schema": {"type": "object", "nullable": true, "properties": {
                "spec": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "array", "items": {"type": "string"}}}},
            }}},
            "subresources": {"scale": {"specReplicasPath": "spec", "statusReplicasPath": ".spec.x"}},
            "additionalPrinterColumns": [{"type": "odd", "format": "odd", "jsonPath": "a"}],
            "selectableFields": [
                {"jsonPath": ".metadata.name"}, {"jsonPath": ".spec.a"}, {"jsonPath": ".spec.a"}, {"jsonPath": ".spec.b"},
                {"jsonPath": ".spec['a']"}, {"jsonPath": "spec"}, {"jsonPath": ".spec.a.x"},
            ],
        }]}));
        check(
            CustomResourceDefinitions.validate(&object),
            &[
                "spec.versions[0].deprecationWarning: Invalid value: \"x\": can only be set for deprecated versions",
                "spec.validation.openAPIV3Schema.nullable: Forbidden: nullable cannot be true at the root",
                "spec.subresources.scale.specReplicasPath: Invalid value: \"spec\": must be a simple json path starting with .",
                "spec.subresources.scale.statusReplicasPath: Invalid value: \".spec.x\": should be a json path under .status",
                "spec.additionalPrinterColumns[0].name: Required value",
                "spec.additionalPrinterColumns[0].type: Invalid value: \"odd\": must be one of boolean,date,integer,number,string",
                "spec.additionalPrinterColumns[0].format: Invalid value: \"odd\": must be one of byte,date,date-time,double,float,int32,int64,password",
                "spec.additionalPrinterColumns[0].JSONPath: Invalid value: \"a\": must be a simple json path starting with .",
                "spec.selectableFields[0].jsonPath: Invalid value: \".metadata.name\": is an invalid path: does not refer to a valid field",
                "spec.selectableFields[2].jsonPath: Duplicate value: \".spec.a\"",
                "spec.selectableFields[3].jsonPath: Invalid value: \".spec.b\": must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
                "spec.selectableFields[4].jsonPath: Invalid value: \".spec['a']\": is an invalid path: array notation is not allowed",
                "spec.selectableFields[5].jsonPath: Invalid value: \"spec\": is an invalid path: expected [ or . but got: spec",
                "spec.selectableFields[6].jsonPath: Invalid value: \".spec.a.x\": is an invalid path: does not refer to a valid field",
            ],
        );
    }

    #[test]
    fn selectable_fields_stand_where_schemas_stand() {
        let version = |name: &str, kind: &str, path: &str| {
            json!({"name": name, "served": true, "storage": name == "v1", "selectableFields": [{"jsonPath": path}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"a": {"type": kind}, "b": {"type": "string"}}}}})
        };
        let of = |versions: [Value; 2]| {
            CustomResourceDefinitions.validate(&definition(json!({"versions": versions})))
        };
        check(of([version("v1", "string", ".a"), version("v2", "string", ".a")]), &[]);
        check(of([version("v1", "string", ".a"), version("v2", "integer", ".b")]), &[]);
        check(
            of([version("v1", "string", ".a"), version("v2", "integer", ".a")]),
            &[
                "spec.selectableFields: Invalid value: \"\": may only be set when validations.schema is included",
            ],
        );
        const EACH: &str =
            "Invalid value: \"\": may only be set when `version.schema.openAPIV3Schema` is not included";
        check(
            of([version("v1", "string", ".a"), version("v2", "string", ".b")]),
            &[
                &format!("spec.versions[0].selectableFields: {EACH}"),
                &format!("spec.versions[1].selectableFields: {EACH}"),
            ],
        );
    }

    #[test]
    fn defaults_in_schemas() {
        let with = |properties: Value| {
            definition(
                json!({"versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                    "type": "object", "properties": properties,
                }}}]}),
            )
        };
        const AT: &str = "spec.validation.openAPIV3Schema.properties";
        let cases: Vec<(Value, Vec<&str>)> = vec![
            (
                json!({"a": {"type": "object", "default": {"b": 1}, "properties": {"b": {"type": "integer", "default": 2}}}}),
                vec![],
            ),
            (
                json!({"a": {"type": "object", "default": {"c": 1}, "properties": {"b": {"type": "integer"}}}}),
                vec!["[a].default: Invalid value: {\"c\":1}: must not have unknown fields"],
            ),
            (
                json!({"a": {"type": "object", "default": {"c": {"d": 1}}, "x-kubernetes-preserve-unknown-fields": true}}),
                vec![],
            ),
            (
                json!({"a": {"type": "object", "default": {"b": "x"}, "required": ["e"], "properties": {"b": {"type": "integer"}, "e": {"type": "string"}}}}),
                vec![
                    "[a].default.b: Invalid value: \"string\": b in body must be of type integer: \"string\"",
                    "[a].default.e: Required value",
                ],
            ),
            (
                json!({"a": {"type": "string", "enum": ["x", "y"], "default": "z"}}),
                vec!["[a].default: Unsupported value: \"z\": supported values: \"x\", \"y\""],
            ),
            (json!({"a": {"x-kubernetes-int-or-string": true, "default": "50%"}}), vec![]),
            (
                json!({"metadata": {"type": "object", "properties": {"name": {"type": "string", "default": "x"}}}}),
                vec!["[metadata].properties[name].default: Forbidden: must not be set in top-level metadata"],
            ),
            (
                json!({"a": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true, "default": {"kind": "A b"}}}),
                vec![
                    "[a].default.apiVersion: Required value",
                    "[a].default.kind: Invalid value: \"A b\": may have mixed case, but should otherwise match: a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
                ],
            ),
        ];
        for (properties, expected) in cases {
            let expected: Vec<String> = expected.iter().map(|rest| format!("{AT}{rest}")).collect();
            let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            check(CustomResourceDefinitions.validate(&with(properties)), &expected);
        }
        // what was stored with unknown fields in defaults stays
        let old = with(json!({"a": {"type": "object", "default": {"c": 1}}}));
        let new = with(json!({"a": {"type": "object", "default": {"c": 2}}}));
        check(CustomResourceDefinitions.validate_update(&new, &old), &[]);
    }

    #[test]
    fn an_established_definition_keeps_its_names() {
        let mut old = definition(json!({}));
        old.set(&["status", "conditions"], json!([{"type": "Established", "status": "True"}]));
        let mut new = old.clone();
        new.set(&["spec", "scope"], "Cluster");
        new.set(&["spec", "versions"], json!([{"name": "v2", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]));
        CustomResourceDefinitions.prepare_for_update(&mut new, &old);
        assert_eq!(new.get(&["status", "storedVersions"]), Some(&json!(["v1", "v2"])));
        let errors = CustomResourceDefinitions.validate_update(&new, &old);
        let short: Vec<(&str, &str)> =
            errors.iter().map(|e| (e.field.as_str(), &e.detail[..20.min(e.detail.len())])).collect();
        assert_eq!(
            short,
            [("spec.scope", "field is immutable"), ("status.storedVersions[0]", "missing from spec.ve")]
        );
    }

    #[test]
    fn names_of_the_community_need_approval() {
        for (annotation, errors) in
            [("", 1), ("https://example.com/1", 0), ("unapproved, a test", 0), ("yes", 1)]
        {
            let mut object = definition(json!({"group": "x.k8s.io"}));
            object.set_name("widgets.x.k8s.io");
            object.set(&["metadata", "annotations", APPROVED], annotation);
            assert_eq!(CustomResourceDefinitions.validate(&object).len(), errors, "{annotation}");
        }
    }
}
