//! What is said of definitions, whole ones.

use apimachinery::{Object, Value};
use serde_json::json;

use super::definition::{APPROVED, CustomResourceDefinitions};
use crate::strategy::Strategy;
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
        Some(&json!({"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"}))
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
    let of =
        |versions: [Value; 2]| CustomResourceDefinitions.validate(&definition(json!({"versions": versions})));
    check(of([version("v1", "string", ".a"), version("v2", "string", ".a")]), &[]);
    check(of([version("v1", "string", ".a"), version("v2", "integer", ".b")]), &[]);
    check(
        of([version("v1", "string", ".a"), version("v2", "integer", ".a")]),
        &["spec.selectableFields: Invalid value: \"\": may only be set when validations.schema is included"],
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
    for (annotation, errors) in [("", 1), ("https://example.com/1", 0), ("unapproved, a test", 0), ("yes", 1)]
    {
        let mut object = definition(json!({"group": "x.k8s.io"}));
        object.set_name("widgets.x.k8s.io");
        object.set(&["metadata", "annotations", APPROVED], annotation);
        assert_eq!(CustomResourceDefinitions.validate(&object).len(), errors, "{annotation}");
    }
}

/// A definition of one version with a schema.
fn with_schema(schema: Value) -> Object {
    definition(json!({"versions": [version("v1", schema)]}))
}

fn version(name: &str, schema: Value) -> Value {
    json!({"name": name, "served": true, "storage": name == "v1", "schema": {"openAPIV3Schema": schema}})
}

fn properties(properties: Value) -> Object {
    with_schema(json!({"type": "object", "properties": properties}))
}

#[test]
fn causes_come_in_the_order_of_upstream() {
    let object = definition(json!({
        "scope": "", "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["S"], "categories": ["C"], "listKind": "Widget"},
        "versions": [
            {"name": "V1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "string"}},
                "additionalPrinterColumns": [{"name": "a", "type": "string"}]},
            {"name": "V1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "string"}}},
        ],
        "conversion": {"strategy": "Odd"},
    }));
    let fields: Vec<String> =
        CustomResourceDefinitions.validate(&object).into_iter().map(|error| error.field).collect();
    assert_eq!(
        fields,
        [
            "spec.scope",
            "spec.versions[0].name",
            "spec.versions[0].additionalPrinterColumns[0].JSONPath",
            "spec.versions[1].name",
            "spec.versions",
            "spec.versions",
            "spec.version",
            "spec.names.shortNames[0]",
            "spec.names.listKind",
            "spec.names.categories[0]",
            "spec.validation.openAPIV3Schema.type",
            "spec.conversion.strategy",
        ]
    );
}

#[test]
fn versions_are_shown_as_upstream_holds_them() {
    let mut versions =
        json!([version("v1", json!({"type": "object"})), version("v2", json!({"type": "object"}))]);
    versions[0]["storage"] = json!(false);
    check(
        CustomResourceDefinitions.validate(&definition(json!({"versions": versions}))),
        &[
            "spec.versions: Invalid value: [{\"Name\":\"v1\",\"Served\":true,\"Storage\":false,\"Deprecated\":false,\"DeprecationWarning\":null,\"Schema\":null,\"Subresources\":null,\"AdditionalPrinterColumns\":null,\"SelectableFields\":null},{\"Name\":\"v2\",\"Served\":true,\"Storage\":false,\"Deprecated\":false,\"DeprecationWarning\":null,\"Schema\":null,\"Subresources\":null,\"AdditionalPrinterColumns\":null,\"SelectableFields\":null}]: must have exactly one version marked as storage version",
            "status.storedVersions: Invalid value: null: must have at least one stored version",
        ],
    );
}

#[test]
fn a_status_subresource_is_of_its_version() {
    let hidden = json!({"type": "object", "nullable": false, "oneOf": [{"required": ["a"]}]});
    let mut versions = json!([version("v1", hidden.clone()), version("v2", json!({"type": "object"}))]);
    let wrong = |versions: &Value| -> Vec<String> {
        let errors = CustomResourceDefinitions.validate(&definition(json!({"versions": versions})));
        errors.into_iter().map(|error| error.field).collect()
    };
    versions[1]["subresources"] = json!({"status": {}});
    assert_eq!(wrong(&versions), Vec::<String>::new());
    versions[0]["subresources"] = json!({"status": {}});
    assert_eq!(wrong(&versions), ["spec.versions[0].schema.openAPIV3Schema"]);
    // what all versions have in common has to do for each that has a status
    versions[1] = version("v2", hidden);
    assert_eq!(wrong(&versions), ["spec.validation.openAPIV3Schema"]);
}

#[test]
fn what_no_schema_may_say_is_said_alone() {
    const AT: &str = "spec.validation.openAPIV3Schema";
    check(
        CustomResourceDefinitions.validate(&properties(json!({"a": {"$ref": "#/definitions/b"}, "b": {}}))),
        &[&format!("{AT}.properties[a].$ref: Forbidden: $ref is not supported")],
    );
    check(
        CustomResourceDefinitions.validate(&with_schema(json!({
            "type": "object", "x-kubernetes-preserve-unknown-fields": false,
        }))),
        &[&format!(
            "{AT}.x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined"
        )],
    );
    check(
        CustomResourceDefinitions.validate(&with_schema(json!({"type": "object", "$schema": "x"}))),
        &[&format!("{AT}: Invalid value: \"\": OpenAPIV3Schema 'schema' is not supported")],
    );
}

#[test]
fn schemas_are_kept_once_there_are_any() {
    let old = definition(json!({"versions": [{"name": "v1", "served": true, "storage": true}]}));
    check(
        CustomResourceDefinitions.validate_update(&old, &old),
        &["spec.versions[0].schema.openAPIV3Schema: Required value: because otherwise all fields are pruned"],
    );
    let mut preserving = old.clone();
    preserving.set(&["spec", "preserveUnknownFields"], true);
    check(CustomResourceDefinitions.validate_update(&preserving, &preserving), &[]);
    let mut defaulting = properties(json!({"a": {"type": "string", "default": "x"}}));
    defaulting.set(&["spec", "preserveUnknownFields"], true);
    check(
        CustomResourceDefinitions.validate_update(&defaulting, &preserving),
        &[
            "spec.preserveUnknownFields: Invalid value: true: must be false in order to use defaults in the schema",
        ],
    );
}

#[test]
fn what_schemas_said_before_stays() {
    let list = |of: Value| json!({"a": {"type": "array", "x-kubernetes-list-type": "set", "items": of}});
    let keyed = json!({"a": {
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
        "items": {"type": "object", "properties": {"k": {"type": "string"}}},
    }});
    let cases = [
        (list(json!({"type": "object"})), "a[items].x-kubernetes-map-type"),
        (list(json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"})), "a"),
        (keyed, "a"),
        (list(json!({"type": "string", "nullable": true})), "a"),
    ];
    for (odd, what) in cases {
        let old = properties(odd);
        assert_eq!(CustomResourceDefinitions.validate(&old).len(), 1, "{what}");
        check(CustomResourceDefinitions.validate_update(&old, &old), &[]);
        let fine = properties(json!({}));
        assert_eq!(CustomResourceDefinitions.validate_update(&old, &fine).len(), 1, "{what}");
    }
    let mut old = with_schema(json!({"type": "object", "properties": {"a": {"type": "odd"}}}));
    old.set(&["spec", "preserveUnknownFields"], true);
    check(CustomResourceDefinitions.validate_update(&old, &old), &[]);
}

#[test]
fn only_so_many_fields_are_selectable() {
    let fields = |count: usize| {
        let named = |of: fn(usize) -> Value| -> Vec<Value> { (0..count).map(of).collect() };
        let properties: serde_json::Map<String, Value> =
            (0..count).map(|at| (format!("f{at}"), json!({"type": "string"}))).collect();
        let mut version = version("v1", json!({"type": "object", "properties": properties}));
        version["selectableFields"] = json!(named(|at| json!({"jsonPath": format!(".f{at}")})));
        definition(json!({"versions": [version]}))
    };
    const MANY: &str = "spec.selectableFields: Too many: 9: must have at most 8 items";
    check(CustomResourceDefinitions.validate(&fields(8)), &[]);
    check(CustomResourceDefinitions.validate(&fields(9)), &[MANY]);
    check(CustomResourceDefinitions.validate_update(&fields(9), &fields(8)), &[MANY]);
    check(CustomResourceDefinitions.validate_update(&fields(9), &fields(9)), &[]);
    assert_eq!(CustomResourceDefinitions.validate_update(&fields(10), &fields(9)).len(), 1);
}

#[test]
fn formats_that_nobody_knows_are_said() {
    let of = |format: &str| properties(json!({"a": {"type": "string", "format": format}}));
    let strategy = CustomResourceDefinitions;
    assert_eq!(strategy.warnings_on_create(&of("date-time")), Vec::<String>::new());
    assert_eq!(strategy.warnings_on_create(&of("odd")), ["unrecognized format \"odd\""]);
    assert_eq!(strategy.warnings_on_update(&of("odd"), &of("date")), ["unrecognized format \"odd\""]);
    assert_eq!(strategy.warnings_on_update(&of("odd"), &of("odd")), Vec::<String>::new());
    let nested = properties(
        json!({"a": {"type": "array", "items": {"anyOf": [{"format": "int32"}], "type": "string"}}}),
    );
    assert_eq!(strategy.warnings_on_create(&nested), ["unrecognized format \"int32\""]);
}

#[test]
fn authorities_of_a_webhook_are_judged_once_it_is_used() {
    let with = |bundle: &str, established: &str| {
        let mut object = definition(json!({"conversion": {"strategy": "Webhook", "webhook": {
            "conversionReviewVersions": ["v1"],
            "clientConfig": {"service": {"namespace": "n", "name": "s"}, "caBundle": bundle},
        }}}));
        object.set(&["status", "conditions"], json!([{"type": "Established", "status": established}]));
        object
    };
    let strategy = CustomResourceDefinitions;
    check(strategy.validate(&with("dGV4dA==", "False")), &[]);
    check(strategy.validate_update(&with("dGV4dA==", "False"), &with("", "False")), &[]);
    check(
        strategy.validate_update(&with("dGV4dA==", "True"), &with("", "True")),
        &[
            "spec.conversion.webhookClientConfig.caBundle: Invalid value: \"dGV4dA==\": unable to load root certificates: unable to parse bytes as PEM block",
        ],
    );
    check(strategy.validate_update(&with("dGV4dA==", "True"), &with("b2xk", "True")), &[]);
}

#[test]
fn metadata_in_defaults() {
    const AT: &str = "spec.validation.openAPIV3Schema.properties[a]";
    let resource = |extra: Value| {
        let mut schema = json!({
            "type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true,
        });
        for (key, value) in extra.as_object().into_iter().flatten() {
            schema[key] = value.clone();
        }
        properties(json!({"a": schema}))
    };
    let whole = |metadata: Value| {
        resource(json!({"default": {"apiVersion": "v1", "kind": "A", "metadata": metadata}}))
    };
    let name = |default: Value| {
        resource(json!({"properties": {"metadata": {
            "type": "object", "properties": {"name": {"type": "string", "default": default}},
        }}}))
    };
    let labels = |default: Value| {
        resource(json!({"properties": {"metadata": {"type": "object", "properties": {"labels": {
            "type": "object", "additionalProperties": {"type": "string"}, "default": default,
        }}}}}))
    };
    let cases: Vec<(Object, Vec<&str>)> = vec![
        (whole(json!({"name": "fine", "labels": {"a": "b"}})), vec![]),
        (whole(json!({})), vec![]),
        (
            whole(json!({"name": "a/b"})),
            vec![".default.metadata.name: Invalid value: \"a/b\": may not contain '/'"],
        ),
        (
            whole(json!({"name": 1})),
            vec![
                ".default.metadata: Invalid value: {\"name\":1}: json: cannot unmarshal number into Go struct field ObjectMeta.name of type string",
            ],
        ),
        (
            whole(json!("text")),
            vec![
                ".default.metadata: Invalid value: \"text\": json: cannot unmarshal string into Go value of type v1.ObjectMeta",
            ],
        ),
        (name(json!("fine")), vec![]),
        (
            name(json!("a/b")),
            vec![
                ".properties[metadata].properties[name].default: Invalid value: \"a/b\": must result in valid metadata: metadata.name: Invalid value: \"a/b\": may not contain '/'",
            ],
        ),
        (labels(json!({"a": "b"})), vec![]),
        (
            labels(json!({"a": 1})),
            vec![
                ".properties[metadata].properties[labels].default: Invalid value: {\"a\":1}: must result in valid metadata: metadata: Invalid value: {\"labels\":{\"a\":1}}: json: cannot unmarshal number into Go struct field ObjectMeta.labels of type string",
            ],
        ),
    ];
    for (object, expected) in cases {
        let expected: Vec<String> = expected.iter().map(|rest| format!("{AT}{rest}")).collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        check(CustomResourceDefinitions.validate(&object), &expected);
    }
}

#[test]
fn the_status_of_a_definition_lets_metadata_move() {
    let old = definition(json!({}));
    let mut new = old.clone();
    new.set(&["metadata", "labels"], json!({"a": "b"}));
    new.set(&["spec", "scope"], "Cluster");
    CustomResourceDefinitions.prepare_for_status_update(&mut new, &old);
    assert_eq!(new.get(&["metadata", "labels"]), Some(&json!({"a": "b"})));
    assert_eq!(new.get(&["spec"]), old.get(&["spec"]));
}

#[test]
fn warnings_of_versions_can_be_printed() {
    for (warning, fine) in [
        ("Fine, \"really\" \\ 'so'", true),
        ("äöü", true),
        ("a\u{a0}b", false),
        ("a\nb", false),
        ("a\u{200b}", false),
    ] {
        let mut version = version("v1", json!({"type": "object"}));
        version["deprecated"] = json!(true);
        version["deprecationWarning"] = json!(warning);
        let errors = CustomResourceDefinitions.validate(&definition(json!({"versions": [version]})));
        assert_eq!(errors.is_empty(), fine, "{warning}");
    }
}
