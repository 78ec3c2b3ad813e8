//! What is said of fields that nobody knows or that are there twice, by every way to write an object.

mod common;

use common::{Answer, Cluster};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

const JSON: &str = r#"{
    "apiVersion": "apps/v1", "kind": "Deployment",
    "metadata": {"name": "twice", "name": "NAME", "labels": {"a": "b"}, "unknownMeta": "v"},
    "spec": {
        "unknown1": "v", "unknownTwice": "v", "unknownTwice": "w", "paused": true, "paused": false,
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{
            "name": "c", "image": "i", "unknownNested": "v", "imagePullPolicy": "Always", "imagePullPolicy": "Never"
        }]}}
    }
}"#;

const YAML: &str = "apiVersion: apps/v1
kind: Deployment
metadata:
  name: twice
  name: NAME
  unknownMeta: v
  labels:
    a: b
spec:
  unknown1: v
  unknownTwice: v
  unknownTwice: w
  paused: true
  paused: false
  selector:
    matchLabels:
      a: b
  template:
    metadata:
      labels:
        a: b
    spec:
      containers:
      - name: c
        image: i
        unknownNested: v
        imagePullPolicy: Always
        imagePullPolicy: Never";

const VALID: &str = r#"{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "NAME", "labels": {"a": "b"}},
    "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always"}]}}}}"#;

const APPLIED: &str = "apiVersion: apps/v1
kind: Deployment
metadata:
  name: NAME
spec:
  paused: false
  paused: true
  selector:
    matchLabels:
      a: b
  template:
    metadata:
      labels:
        a: b
    spec:
      containers:
      - name: c
        image: i
        imagePullPolicy: Never
        imagePullPolicy: Always";

const MERGED: &str = r#"{"spec": {"unknown1": "v", "unknownTwice": "v", "unknownTwice": "w", "paused": true, "paused": false,
    "template": {"spec": {"containers": [{"name": "c", "image": "i", "unknownNested": "v",
        "imagePullPolicy": "Always", "imagePullPolicy": "Never"}]}}}}"#;

const OPERATIONS: &str = r#"[
    {"op": "add", "path": "/spec/unknown1", "value": "v", "foo": "bar"},
    {"op": "add", "path": "/spec/unknown2", "path": "/spec/unknown3", "value": "v"},
    {"op": "add", "path": "/spec/unknownTwice", "value": "v"},
    {"op": "add", "path": "/spec/unknownTwice", "value": "w"},
    {"op": "add", "path": "/spec/paused", "value": true},
    {"op": "add", "path": "/spec/paused", "value": false},
    {"op": "add", "path": "/spec/template/spec/containers/0/unknownNested", "value": "v"},
    {"op": "add", "path": "/spec/template/spec/containers/0/imagePullPolicy", "value": "Never"}
]"#;

const OF_JSON: &[&str] = &[
    r#"duplicate field "metadata.name""#,
    r#"unknown field "metadata.unknownMeta""#,
    r#"unknown field "spec.unknown1""#,
    r#"unknown field "spec.unknownTwice""#,
    r#"duplicate field "spec.paused""#,
    r#"unknown field "spec.template.spec.containers[0].unknownNested""#,
    r#"duplicate field "spec.template.spec.containers[0].imagePullPolicy""#,
];

const OF_YAML: &[&str] = &[
    r#"line 5: key "name" already set in map"#,
    r#"line 12: key "unknownTwice" already set in map"#,
    r#"line 14: key "paused" already set in map"#,
    r#"line 28: key "imagePullPolicy" already set in map"#,
    r#"unknown field "metadata.unknownMeta""#,
    r#"unknown field "spec.template.spec.containers[0].unknownNested""#,
    r#"unknown field "spec.unknown1""#,
    r#"unknown field "spec.unknownTwice""#,
];

const OF_MERGED: &[&str] = &[
    r#"duplicate field "spec.unknownTwice""#,
    r#"duplicate field "spec.paused""#,
    r#"duplicate field "spec.template.spec.containers[0].imagePullPolicy""#,
    r#"unknown field "spec.template.spec.containers[0].unknownNested""#,
    r#"unknown field "spec.unknown1""#,
    r#"unknown field "spec.unknownTwice""#,
];

const OF_OPERATIONS: &[&str] = &[
    r#"json patch unknown field "[0].foo""#,
    r#"json patch duplicate field "[1].path""#,
    r#"unknown field "spec.template.spec.containers[0].unknownNested""#,
    r#"unknown field "spec.unknown1""#,
    r#"unknown field "spec.unknown3""#,
    r#"unknown field "spec.unknownTwice""#,
];

const OF_APPLIED: &[&str] =
    &[r#"line 7: key "paused" already set in map"#, r#"line 20: key "imagePullPolicy" already set in map"#];

/// The texts of warnings.
fn warnings(answer: &Answer) -> Vec<String> {
    let text = |warning: &str| {
        let quoted =
            warning.strip_prefix("299 - \"").and_then(|rest| rest.strip_suffix('"')).expect("a warning");
        quoted.replace("\\\"", "\"")
    };
    answer.warnings().into_iter().map(text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_are_judged_as_strictly_as_is_asked_for() {
    let cluster = Cluster::start(Default::default()).await;
    let strict_yaml = |before: &str, of: &[&str]| {
        let (lines, fields): (Vec<&str>, Vec<&str>) = of.iter().partition(|text| text.starts_with("line"));
        let lines = format!("{before}yaml: unmarshal errors:\n  {}", lines.join("\n  "));
        [vec![lines.as_str()], fields].concat().join(", ")
    };
    let strict = |of: &[&str]| format!("strict decoding error: {}", of.join(", "));
    let applied = strict_yaml("error strict decoding YAML: error converting YAML to JSON: ", OF_APPLIED);
    let (json, yaml) = ("application/json", "application/yaml");
    let (merge, strategic) = ("application/merge-patch+json", "application/strategic-merge-patch+json");
    let (operations, apply) = ("application/json-patch+json", "application/apply-patch+yaml");
    let cases = [
        ("POST", json, JSON, OF_JSON, strict(OF_JSON)),
        ("PUT", json, JSON, OF_JSON, strict(OF_JSON)),
        ("POST", yaml, YAML, OF_YAML, strict_yaml("strict decoding error: ", OF_YAML)),
        ("PUT", yaml, YAML, OF_YAML, strict_yaml("strict decoding error: ", OF_YAML)),
        ("PATCH", merge, MERGED, OF_MERGED, strict(OF_MERGED)),
        ("PATCH", strategic, MERGED, OF_MERGED, strict(OF_MERGED)),
        ("PATCH", operations, OPERATIONS, OF_OPERATIONS, strict(OF_OPERATIONS)),
        ("CREATE BY PATCH", apply, APPLIED, OF_APPLIED, applied.clone()),
        ("PATCH", apply, APPLIED, OF_APPLIED, applied),
    ];
    for (index, (method, media_type, body, said, error)) in cases.into_iter().enumerate() {
        for validation in ["Strict", "Warn", "Ignore", ""] {
            let case = format!("{method} {media_type} {validation}");
            let name = format!("d{index}{}", validation.to_lowercase());
            let one = format!("{DEPLOYMENTS}/{name}");
            let uri = if method == "POST" { DEPLOYMENTS } else { &one };
            let with_name = |body: &str| body.replace("NAME", &name).into_bytes();
            if ["PUT", "PATCH"].contains(&method) {
                let made = cluster.raw("POST", DEPLOYMENTS, json, &with_name(VALID)).await;
                assert_eq!(made.code, 201, "{case}: {}", made.body);
            }
            let mut uri = format!("{uri}?force={}", media_type == apply);
            if media_type == apply {
                uri += "&fieldManager=m";
            }
            if !validation.is_empty() {
                uri += &format!("&fieldValidation={validation}");
            }
            let verb = method.split(' ').next_back().unwrap();
            let answer = cluster.raw(verb, &uri, media_type, &with_name(body)).await;
            if validation == "Strict" {
                assert!(!answer.code.is_success(), "{case}");
                assert!(answer.message().ends_with(&error), "{case}: {}\n{error}", answer.message());
                assert!(answer.warnings().is_empty(), "{case}");
                continue;
            }
            assert!(answer.code.is_success(), "{case}: {}", answer.body);
            let expected: &[&str] = if validation == "Ignore" { &[] } else { said };
            assert_eq!(warnings(&answer), expected, "{case}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_patches_have_a_limit() {
    const LIMIT: usize = 3 * 1024 * 1024;
    const SECRETS: &str = "/api/v1/namespaces/default/secrets";
    let cluster = Cluster::start(Default::default()).await;
    let (json, yaml) = ("application/json", "application/yaml");
    let made = cluster.raw("POST", SECRETS, json, br#"{"metadata": {"name": "s"}}"#).await;
    assert_eq!(made.code, 201, "{made:?}");
    let one = format!("{SECRETS}/s");
    let huge = "x".repeat(LIMIT + 1);
    for (method, uri, media_type) in [
        ("POST", "/api/v1/namespaces/default/pods", json),
        ("PUT", &one, json),
        ("PATCH", &one, "application/json-patch+json"),
        ("DELETE", &one, json),
        ("POST", SECRETS, yaml),
    ] {
        let answer = cluster.raw(method, uri, media_type, huge.as_bytes()).await;
        assert_eq!(answer.code, 413, "{method} {uri}: {}", answer.message());
        assert_eq!(answer.body["reason"], "RequestEntityTooLarge", "{}", answer.body);
    }
    // much that says little, and what is nested deeper than anything
    let spaces = " ".repeat(LIMIT - 200);
    let nested = format!("{}{}", "[".repeat(LIMIT / 2 - 500), "]".repeat(LIMIT / 2 - 500));
    let apply = format!("{one}?fieldManager=m");
    for (uri, media_type, [before, after]) in [
        (&one, "application/json-patch+json", [r#"[{"op":"add","path":"/foo","value":"#, "}]"]),
        (&one, "application/merge-patch+json", [r#"{"value":"#, "}"]),
        (&one, "application/strategic-merge-patch+json", [r#"{"value":"#, "}"]),
        (&apply, "application/apply-patch+yaml", [r#"{"apiVersion":"v1","kind":"Secret","value":"#, "}"]),
    ] {
        let deep = cluster.raw("PATCH", uri, media_type, format!("{before}{nested}{after}").as_bytes()).await;
        assert!([200, 400].contains(&deep.code.as_u16()), "{media_type}: {deep:?}");
        let body = match media_type {
            "application/apply-patch+yaml" => format!(r#"{{"apiVersion":"v1","kind":"Secret"{spaces}}}"#),
            _ => format!("{before}0{spaces}{after}"),
        };
        let wide = cluster.raw("PATCH", uri, media_type, body.as_bytes()).await;
        assert_eq!(wide.code, 200, "{media_type}: {wide:?}");
    }
    let many = format!("[{}]", vec![r#"{"op":"add","path":"/x","value":"y"}"#; 10_001].join(","));
    let refused = cluster.raw("PATCH", &one, "application/json-patch+json", many.as_bytes()).await;
    let why = "The allowed maximum operations in a JSON patch is 10000, got 10001";
    assert_eq!(refused.code, 413, "{}", refused.body);
    assert!(refused.message().contains(why), "{}", refused.body);
    let unbalanced = "[".repeat(LIMIT - 1000);
    for (media_type, head, tail) in [
        (json, r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"m"},"values":"#, "}"),
        (yaml, "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: m\nvalues: ", ""),
    ] {
        let maps = "/api/v1/namespaces/default/configmaps";
        let deep = cluster.raw("POST", maps, media_type, format!("{head}{nested}{tail}").as_bytes()).await;
        assert!([201, 400].contains(&deep.code.as_u16()), "{media_type}: {deep:?}");
        let deep =
            cluster.raw("POST", maps, media_type, format!("{head}{unbalanced}{tail}").as_bytes()).await;
        assert_eq!(deep.code, 400, "{media_type}: {deep:?}");
    }
}
