//! What Go would make of a document: fields left out, zeros shown, errors worded, all inputs survived.

use apimachinery::codec::{self, decode_json, decode_protobuf, decode_yaml, encode_json, encode_protobuf};
use apimachinery::schema::Schema;
use apimachinery::{GroupVersion, Object};
use proptest::prelude::*;
use serde_json::{Value, json};

fn schema(api_version: &str, kind: &str) -> Schema {
    Schema::for_kind(&GroupVersion::parse(api_version).unwrap().with_kind(kind)).unwrap()
}

fn schema_of(body: &Value) -> Schema {
    schema(body["apiVersion"].as_str().unwrap(), body["kind"].as_str().unwrap())
}

fn written(object: &Object, schema: &Schema) -> String {
    let mut out = Vec::new();
    encode_json(object, schema, &mut out);
    String::from_utf8(out).unwrap()
}

/// Decodes, checks the text Go would write, and that protobuf and a second normalising change nothing.
fn check(body: Value, expected: &str) {
    let schema = schema_of(&body);
    let object = decode_json(body.to_string().as_bytes(), &schema).unwrap().object;
    assert_eq!(written(&object, &schema), expected);
    let mut protobuf = Vec::new();
    encode_protobuf(&object, &schema, &mut protobuf);
    assert_eq!(decode_protobuf(&protobuf, &schema).unwrap(), object, "through protobuf");
    let mut again = object.clone();
    codec::normalize(&mut again, &schema).unwrap();
    assert_eq!(again, object, "normalised twice");
}

#[test]
fn structs_show_and_zeros_hide() {
    check(
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "labels": {}, "annotations": null, "creationTimestamp": null, "generation": 0},
            "spec": {"containers": [{"name": "c", "image": "", "stdin": false, "ports": [], "env": [{"name": "E", "value": ""}]}],
                "hostNetwork": false, "terminationGracePeriodSeconds": 0, "restartPolicy": "", "nodeSelector": {}},
            "status": {"containerStatuses": [{"name": "c"}], "conditions": [{"type": "Ready", "status": "True"}]}}),
        concat!(
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"},"#,
            r#""spec":{"containers":[{"name":"c","env":[{"name":"E"}],"resources":{}}],"terminationGracePeriodSeconds":0},"#,
            r#""status":{"conditions":[{"type":"Ready","status":"True","lastProbeTime":null,"lastTransitionTime":null}],"#,
            r#""containerStatuses":[{"name":"c","state":{},"lastState":{},"ready":false,"restartCount":0,"image":"","imageID":""}]}}"#
        ),
    );
    check(
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}),
        concat!(
            r#"{"kind":"Service","apiVersion":"v1","metadata":{"name":"s"},"#,
            r#""spec":{"ports":[{"port":80,"targetPort":0}]},"status":{"loadBalancer":{}}}"#
        ),
    );
    check(
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {}, "spec": {"replicas": 0, "selector": null}}),
        concat!(
            r#"{"kind":"Deployment","apiVersion":"apps/v1","metadata":{},"spec":{"replicas":0,"selector":null,"#,
            r#""template":{"metadata":{},"spec":{"containers":null}},"strategy":{}},"status":{}}"#
        ),
    );
    check(
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "r"}, "rules": []}),
        r#"{"kind":"ClusterRole","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{"name":"r"},"rules":null}"#,
    );
    check(
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": null, "b": ""}, "immutable": false}),
        r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"c"},"immutable":false,"data":{"a":"","b":""}}"#,
    );
    check(
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "c"}, "data": {"a": null, "b": "YQ==", "c": "Y\nQ==\n"}}),
        r#"{"kind":"Secret","apiVersion":"v1","metadata":{"name":"c"},"data":{"a":"","b":"YQ==","c":"YQ=="}}"#,
    );
}

#[test]
fn scalars_are_canonical() {
    check(
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"creationTimestamp": "2024-05-01T02:00:00.5+02:00"},
            "spec": {"hard": {"cpu": 0.5, "memory": "1024Ki", "pods": 10, "x": "1.5"}}}),
        concat!(
            r#"{"kind":"ResourceQuota","apiVersion":"v1","metadata":{"creationTimestamp":"2024-05-01T00:00:00Z"},"#,
            r#""spec":{"hard":{"cpu":"500m","memory":"1Mi","pods":"10","x":"1500m"}},"status":{}}"#
        ),
    );
    check(
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {},
            "spec": {"renewTime": "2024-05-01T02:00:00.000001+02:00", "leaseDurationSeconds": 40}}),
        concat!(
            r#"{"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{},"#,
            r#""spec":{"leaseDurationSeconds":40,"renewTime":"2024-05-01T00:00:00.000001Z"}}"#
        ),
    );
    check(
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {}, "spec": {
            "group": "g", "scope": "Cluster", "names": {"plural": "p", "kind": "K"}, "versions": [{"name": "v1", "served": true,
            "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "minimum": 1.0, "default": {"b": 1, "a": null},
            "additionalProperties": false, "items": {"type": "string"}, "enum": ["a", 1, null]}}}]}}),
        concat!(
            r#"{"kind":"CustomResourceDefinition","apiVersion":"apiextensions.k8s.io/v1","metadata":{},"spec":{"group":"g","#,
            r#""names":{"plural":"p","kind":"K"},"scope":"Cluster","versions":[{"name":"v1","served":true,"storage":true,"#,
            r#""schema":{"openAPIV3Schema":{"type":"object","default":{"a":null,"b":1},"minimum":1,"enum":["a",1,null],"#,
            r#""items":{"type":"string"},"additionalProperties":false}}}]},"#,
            r#""status":{"conditions":null,"acceptedNames":{"plural":"","kind":""},"storedVersions":null}}"#
        ),
    );
}

#[test]
fn strict_errors_come_in_document_order() {
    let schema = schema("apps/v1", "Deployment");
    let body = r#"{"apiVersion":"apps/v1","kind":"Deployment","bogus":1,"metadata":{"name":"a","labels":{"x":"1","x":"2"}},
        "spec":{"unknown1":true,"unknownDupe":1,"unknownDupe":2,"paused":true,"paused":false,"template":{"kind":"x","spec":
        {"containers":[{"name":"a"},{"name":"b","unknownNested":{"a":1},"image":"x","image":"y"}]}}}}"#;
    let decoded = decode_json(body.as_bytes(), &schema).unwrap();
    assert_eq!(
        decoded.strict_errors,
        [
            r#"unknown field "bogus""#,
            r#"duplicate field "metadata.labels.x""#,
            r#"unknown field "spec.unknown1""#,
            r#"unknown field "spec.unknownDupe""#,
            r#"duplicate field "spec.paused""#,
            r#"unknown field "spec.template.kind""#,
            r#"unknown field "spec.template.spec.containers[1].unknownNested""#,
            r#"duplicate field "spec.template.spec.containers[1].image""#,
        ]
    );
    assert_eq!(decoded.object.get_str(&["metadata", "labels", "x"]), "2");
    assert_eq!(decoded.object.get(&["bogus"]), None);
    let yaml =
        decode_yaml(b"kind: Deployment\nspec:\n  replicas: 1\n  replicas: 2\n  nope: 1\n", &schema).unwrap();
    assert_eq!(
        yaml.strict_errors,
        [
            "yaml: unmarshal errors:\n  line 4: key \"replicas\" already set in map",
            r#"unknown field "spec.nope""#
        ]
    );
}

#[test]
fn wrong_types_read_as_in_go() {
    let cases = [
        (
            r#"{"spec":{"replicas":"3"}}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"spec":{"replicas":3000000000}}"#,
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"spec":{"replicas":1.5}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"spec":[]}"#,
            "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec",
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":{}}}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":["a"]}}}}"#,
            "json: cannot unmarshal string into Go struct field PodSpec.spec.template.spec.containers of type v1.Container",
        ),
        (
            r#"{"metadata":{"labels":{"a":true}}}"#,
            "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            r#"{"spec":{"template":{"spec":{"restartPolicy":1}}}}"#,
            "json: cannot unmarshal number into Go struct field PodSpec.spec.template.spec.restartPolicy of type v1.RestartPolicy",
        ),
        (
            r#"{"metadata":{"creationTimestamp":"x"}}"#,
            r#"parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006""#,
        ),
        ("[]", "json: cannot unmarshal array into Go value of type v1.Deployment"),
        (r#"{"spec":{"replicas":"3"},"#, "unexpected end of JSON input"),
    ];
    let schema = schema("apps/v1", "Deployment");
    for (body, expected) in cases {
        assert_eq!(decode_json(body.as_bytes(), &schema).unwrap_err().to_string(), expected, "{body}");
    }
    let quota = self::schema("v1", "ResourceQuota");
    let error = decode_json(br#"{"spec":{"hard":{"cpu":"1x"}}}"#, &quota).unwrap_err().to_string();
    assert!(error.starts_with("quantities must match the regular expression"), "{error}");
}

#[test]
fn depth_is_bounded() {
    let schema = schema("apps/v1", "ControllerRevision");
    let deep = |levels: usize| format!(r#"{{"data":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    assert!(decode_json(deep(100).as_bytes(), &schema).is_ok());
    assert_eq!(decode_json(deep(5_000).as_bytes(), &schema), Err(codec::DecodeError::TooDeep));
    // beyond this, Go does not read it either, even where it would make nothing of it
    let unread = codec::DecodeError::Syntax("invalid character '[' exceeded max depth".to_owned());
    for field in ["data", "nothing"] {
        let body = deep(100_000).replace("data", field);
        assert_eq!(decode_json(body.as_bytes(), &schema), Err(unread.clone()), "{field}");
        let unread = codec::DecodeError::Syntax("yaml: exceeded max depth of 10000".to_owned());
        assert_eq!(codec::decode_yaml(body.as_bytes(), &schema), Err(unread), "{field}");
    }
    assert!(decode_json(deep(9_999).replace("data", "nothing").as_bytes(), &schema).is_ok());
    let mut value = json!(1);
    for _ in 0..200 {
        value = json!([value]);
    }
    let mut object = Object::from(json!({ "data": value }));
    assert_eq!(codec::normalize(&mut object, &schema), Err(codec::DecodeError::TooDeep));
    let crd = Schema::builtin("k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1", "JSONSchemaProps")
        .unwrap();
    let mut raw = Vec::new();
    for _ in 0..10_000 {
        // `not`, field 28.
        let mut outer = vec![0xe2, 0x01];
        let mut length = raw.len();
        while length >= 0x80 {
            outer.push(length as u8 | 0x80);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.extend_from_slice(&raw);
        raw = outer;
        if raw.len() > 30_000 {
            break;
        }
    }
    assert_eq!(codec::decode_protobuf_raw(&raw, &crd), Err(codec::DecodeError::TooDeep));
}

fn any_json() -> impl Strategy<Value = Value> {
    let names = prop_oneof![
        Just("metadata"),
        Just("spec"),
        Just("status"),
        Just("containers"),
        Just("name"),
        Just("template"),
        Just("labels"),
        Just("conditions"),
        Just("replicas"),
        Just("resources"),
        Just("limits"),
        Just("cpu"),
        Just("creationTimestamp"),
        Just("ports"),
        Just("targetPort"),
        Just("volumes"),
        Just("emptyDir"),
        Just("data"),
        Just("raw"),
        Just("other"),
        Just("managedFields"),
        Just("fieldsV1"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9:.\\-]{0,12}".prop_map(Value::from),
        Just(json!("2024-01-01T00:00:00Z")),
        Just(json!("1Gi")),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(names.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn normal_form_is_stable(body in any_json(), kind in prop_oneof![
        Just(("v1", "Pod")), Just(("apps/v1", "Deployment")), Just(("v1", "Service")), Just(("apps/v1", "ControllerRevision")),
    ]) {
        let schema = schema(kind.0, kind.1);
        if let Ok(decoded) = decode_json(body.to_string().as_bytes(), &schema) {
            let object = decoded.object;
            let text = written(&object, &schema);
            prop_assert_eq!(&decode_json(text.as_bytes(), &schema).unwrap().object, &object);
            let mut protobuf = Vec::new();
            encode_protobuf(&object, &schema, &mut protobuf);
            let back = decode_protobuf(&protobuf, &schema).unwrap();
            prop_assert_eq!(written(&back, &schema), text);
        }
    }

    #[test]
    fn mangled_protobuf_is_refused_or_taken(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let schema = schema("v1", "Pod");
        let body = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"a": "b"}}, "spec": {
            "containers": [{"name": "c", "resources": {"limits": {"cpu": "1"}}, "ports": [{"containerPort": 80}]}],
            "volumes": [{"name": "v", "emptyDir": {}}]}});
        let object = decode_json(body.to_string().as_bytes(), &schema).unwrap().object;
        let mut bytes = Vec::new();
        encode_protobuf(&object, &schema, &mut bytes);
        let index = at.index(bytes.len());
        bytes[index] = byte;
        let _ = decode_protobuf(&bytes, &schema);
        let _ = codec::EncodedProtobuf::from_stored(bytes.clone().into());
        bytes.truncate(cut.index(bytes.len()));
        let _ = decode_protobuf(&bytes, &schema);
        let _ = codec::EncodedProtobuf::from_stored(bytes.into());
    }

    #[test]
    fn noise_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let schema = schema("v1", "Pod");
        let _ = (decode_json(&bytes, &schema), decode_yaml(&bytes, &schema), codec::decode_protobuf_raw(&bytes, &schema));
        let _ = (codec::peek_type_json(&bytes), codec::peek_type_yaml(&bytes), codec::peek_type_protobuf(&bytes));
    }
}
