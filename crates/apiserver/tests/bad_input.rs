//! What is said of requests that make no sense.

mod common;

use apiserver::RequestOptions;
use common::Cluster;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(flavor = "multi_thread")]
async fn continue_tokens_that_are_none() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    for (token, why) in [
        ("a*b", "illegal base64 data at input byte 1"),
        ("YWJj=", "illegal base64 data at input byte 4"),
        ("eyJ2IjoieCIsInJ2IjoxLCJzdGFydCI6ImEifQ", "server does not recognize this encoded version x"),
        ("e30", "server does not recognize this encoded version "),
        ("eHl6", "invalid character 'x' looking for beginning of value"),
        // {"v":"meta.k8s.io/v1"} with nothing, with a revision, and with a start that leads elsewhere
        (
            "eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ",
            "incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
        ),
        ("eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MX0", "encoded start key empty (version meta.k8s.io/v1)"),
        ("eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiIuLi9hIn0", "../a"),
    ] {
        let answer = cluster.admin("GET", &format!("{MAPS}?limit=1&continue={token}"), Value::Null).await;
        assert_eq!(
            (answer.code.as_u16(), answer.body["reason"].as_str()),
            (400, Some("BadRequest")),
            "{token}"
        );
        assert_eq!(
            answer.message(),
            format!("invalid continue token: continue key is not valid: {why}"),
            "{token}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subsets_of_endpoints_are_stored_as_they_come() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    let subset = |ip: &str| json!({"addresses": [{"ip": ip}], "ports": [{"port": 80, "protocol": "TCP"}]});
    let subsets = json!([subset("10.0.0.2"), subset("10.0.0.1")]);
    let body = json!({"metadata": {"name": "e"}, "subsets": subsets});
    let uri = "/api/v1/namespaces/default/endpoints";
    assert_eq!(cluster.admin("POST", uri, body.clone()).await.code, 201);
    let stored = cluster.admin("GET", &format!("{uri}/e"), Value::Null).await;
    assert_eq!(stored.body["subsets"], subsets);
    let again = cluster.admin("PUT", &format!("{uri}/e"), body).await;
    assert_eq!(again.body["metadata"]["resourceVersion"], stored.body["metadata"]["resourceVersion"]);
    let wrong = json!({"metadata": {"name": "w"}, "subsets": [subset("10.0.0.1"), subset("127.0.0.1")]});
    let refused = cluster.admin("POST", uri, wrong).await;
    assert_eq!(refused.body["details"]["causes"][0]["field"], "subsets[1].addresses[0].ip");
}

#[tokio::test]
async fn a_namespace_that_is_named_by_the_server_carries_its_name_as_a_label() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    let made = cluster.admin("POST", "/api/v1/namespaces", json!({"metadata": {"generateName": "n-"}})).await;
    assert_eq!(made.code, 201);
    assert_eq!(made.body["metadata"]["labels"]["kubernetes.io/metadata.name"], made.body["metadata"]["name"]);
}

fn is(answer: &common::Answer, code: u16, message: &str) {
    assert_eq!((answer.code.as_u16(), answer.message()), (code, message));
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_that_are_none_or_not_there() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    const NONE: &str =
        "resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax";
    cluster.admin("POST", MAPS, json!({"metadata": {"name": "a"}})).await;
    let list = cluster.admin("GET", &format!("{MAPS}?resourceVersion=abc"), Value::Null).await;
    is(&list, 400, &format!("invalid resource version: {NONE}"));
    let get = cluster.admin("GET", &format!("{MAPS}/a?resourceVersion=abc"), Value::Null).await;
    is(&get, 500, NONE);
    let watch = cluster.admin("GET", &format!("{MAPS}?watch=1&resourceVersion=abc"), Value::Null).await;
    is(&watch, 422, &format!("configmaps \"\" is invalid: {NONE}"));
    for (method, uri) in [("GET", format!("{MAPS}/a")), ("DELETE", MAPS.to_owned())] {
        for (version, why) in [("%2B1", "invalid syntax"), ("18446744073709551616", "value out of range")] {
            let answer =
                cluster.admin(method, &format!("{uri}?resourceVersion={version}"), Value::Null).await;
            assert!(answer.message().ends_with(why), "{method} {version} {answer:?}");
            assert_eq!(answer.code, if method == "GET" { 500 } else { 400 }, "{answer:?}");
        }
    }
    let many = cluster.admin("GET", &format!("{MAPS}?limit=99999999999999999999"), Value::Null).await;
    is(&many, 400, "strconv.ParseInt: parsing \"99999999999999999999\": value out of range");
    // {"v":"meta.k8s.io/v1","rv":99999999,"start":"a"}
    let token = "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6OTk5OTk5OTksInN0YXJ0IjoiYSJ9";
    let future = cluster.admin("GET", &format!("{MAPS}?continue={token}"), Value::Null).await;
    assert_eq!(future.code, 504);
    assert!(future.message().starts_with("Timeout: Too large resource version: 99999999, current: "));
    assert_eq!(future.body["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    // a watch waits for what is not there yet
    let uri = format!("{MAPS}?watch=1&resourceVersion=99999999");
    let watch = cluster.head("admin", &["system:masters"], "GET", &uri).await;
    assert_eq!(watch.code, 200);
}

/// The version in an object says which state of it a client has seen.
#[tokio::test(flavor = "multi_thread")]
async fn versions_of_objects_that_are_none_or_not_theirs() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    let map = |name: &str, version: &str| json!({"metadata": {"name": name, "resourceVersion": version}});
    // to a new object, what is no number says nothing
    assert_eq!(cluster.admin("POST", MAPS, map("a", "abc")).await.code, 201);
    let fixed = cluster.admin("POST", MAPS, map("b", "7")).await;
    is(&fixed, 400, "resourceVersion should not be set on objects to be created");
    let one = format!("{MAPS}/a");
    let lease = json!({"metadata": {"name": "l"}, "spec": {}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    assert_eq!(cluster.admin("POST", leases, lease.clone()).await.code, 201);
    let deployment = json!({
        "metadata": {"name": "d"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    });
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    assert_eq!(cluster.admin("POST", deployments, deployment).await.code, 201);
    let scale = format!("{deployments}/d/scale");
    for (version, why) in [
        ("abc", "strconv.ParseUint: parsing \"abc\": invalid syntax"),
        ("-1", "strconv.ParseUint: parsing \"-1\": invalid syntax"),
        ("18446744073709551616", "strconv.ParseUint: parsing \"18446744073709551616\": value out of range"),
    ] {
        for (method, uri) in [("PUT", one.as_str()), ("PATCH", &one), ("PATCH", &scale)] {
            let name = if uri == scale { "d" } else { "a" };
            let answer = cluster.admin(method, uri, map(name, version)).await;
            is(&answer, 500, why);
            assert_eq!(
                (answer.body.get("reason"), answer.body.get("details")),
                (None, None),
                "{method} {uri}"
            );
        }
        let new = cluster.admin("PUT", &format!("{leases}/new"), map("new", version)).await;
        is(&new, 500, why);
    }
    let stale = cluster.admin("PUT", &one, map("a", "1")).await;
    assert_eq!((stale.code.as_u16(), stale.body["reason"].as_str()), (409, Some("Conflict")));
    let version = cluster.admin("GET", &one, Value::Null).await.body["metadata"]["resourceVersion"].clone();
    let padded = format!("0{}", version.as_str().unwrap());
    assert_eq!(cluster.admin("PUT", &one, map("a", &padded)).await.code, 200);
    let open = cluster.admin("PUT", &format!("{leases}/l"), lease).await;
    is(
        &open,
        422,
        "leases.coordination.k8s.io \"l\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an \
         update",
    );
    let options = json!({"preconditions": {"resourceVersion": "abc"}});
    let deleted = cluster.admin("DELETE", &one, options).await;
    assert_eq!(deleted.code, 409);
    assert!(
        deleted.message().contains("the ResourceVersion in the precondition (abc) does not match"),
        "{deleted:?}"
    );
}

/// Lists whose revision is compacted away: those that had begun may go on with what there is now.
#[tokio::test(flavor = "multi_thread")]
async fn lists_of_revisions_that_are_gone() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    for name in ["a", "b", "c", "d"] {
        let made =
            cluster.admin("POST", MAPS, json!({"metadata": {"name": name, "labels": {"of": "test"}}})).await;
        assert_eq!(made.code, 201);
    }
    let uri = |more: &str| format!("{MAPS}?labelSelector=of%3Dtest&limit=2{more}");
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().expect("items");
        items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let first = cluster.admin("GET", &uri(""), Value::Null).await.body;
    assert_eq!(names(&first), ["a", "b"]);
    let version = first["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    cluster.admin("POST", MAPS, json!({"metadata": {"name": "e", "labels": {"of": "test"}}})).await;

    // a page of a version is exactly of that version, with and without saying so
    let folder = cluster.stop().await;
    let cluster = Cluster::start_in(folder, |_| ()).await;
    for more in ["", "&resourceVersionMatch=Exact"] {
        let list = cluster
            .admin(
                "GET",
                &format!("{MAPS}?labelSelector=of%3Dtest&limit=9&resourceVersion={version}{more}"),
                Value::Null,
            )
            .await;
        assert_eq!(names(&list.body), ["a", "b", "c", "d"], "{more}");
    }
    let newer = cluster.admin("GET", &format!("{MAPS}?labelSelector=of%3Dtest&limit=9&resourceVersion={version}&resourceVersionMatch=NotOlderThan"), Value::Null).await;
    assert_eq!(names(&newer.body), ["a", "b", "c", "d", "e"]);

    let latest = cluster.storage.current_revision().await.unwrap();
    cluster.storage.compact(latest).await.unwrap();
    let folder = cluster.stop().await;
    let cluster = Cluster::start_in(folder, |_| ()).await;
    let exact = cluster.admin("GET", &format!("{MAPS}?limit=9&resourceVersion={version}"), Value::Null).await;
    is(&exact, 410, "The resourceVersion for the provided list is too old.");
    assert_eq!(exact.body["reason"], "Expired");
    let token = first["metadata"]["continue"].as_str().unwrap();
    let next = cluster.admin("GET", &uri(&format!("&continue={token}")), Value::Null).await;
    assert_eq!((next.code.as_u16(), &next.body["reason"]), (410, &json!("Expired")));
    assert!(next.message().contains("or use the continue token in this response"), "{}", next.message());
    let token = next.body["metadata"]["continue"].as_str().expect("a token");
    let rest = cluster.admin("GET", &uri(&format!("&continue={token}")), Value::Null).await.body;
    assert_eq!(names(&rest), ["c", "d"]);
    let token = rest["metadata"]["continue"].as_str().expect("one more");
    let last = cluster.admin("GET", &uri(&format!("&continue={token}")), Value::Null).await.body;
    assert_eq!(names(&last), ["e"], "what came between shows");
    assert_ne!(last["metadata"]["resourceVersion"], version.as_str());
    assert_eq!(last["metadata"].get("continue"), None);
}

/// Upstream's router knows the methods that a path was given. HEAD is none of them, though it is authorized like GET.
#[tokio::test(flavor = "multi_thread")]
async fn methods_that_a_path_is_not_served_by() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    assert_eq!(cluster.admin("POST", MAPS, json!({"metadata": {"name": "a"}})).await.code, 201);
    let not_allowed = "the server does not allow this method on the requested resource";
    let one = format!("{MAPS}/a");
    let watched = format!("{MAPS}?watch=1");
    for uri in [
        MAPS,
        &one,
        &watched,
        "/api/v1/watch/configmaps",
        "/api/v1/namespaces/default/pods/p/log",
        "/api",
        "/api/v1",
        "/apis/apps/v1",
        "/version",
        "/.well-known/openid-configuration",
        "/openid/v1/jwks",
    ] {
        for method in ["HEAD", "OPTIONS"] {
            let answer = cluster.admin(method, uri, Value::Null).await;
            assert_eq!(
                (answer.code.as_u16(), answer.message(), &answer.body["reason"]),
                (405, not_allowed, &json!("MethodNotAllowed")),
                "{method} {uri}"
            );
        }
    }
    for uri in
        ["/healthz", "/livez/ping", "/apis", "/apis/apps", "/openapi/v2", "/openapi/v3", "/metrics", "/"]
    {
        for method in ["HEAD", "POST"] {
            assert_eq!(cluster.admin(method, uri, Value::Null).await.code, 200, "{method} {uri}");
        }
    }
    for uri in ["/api/v1/nothings", "/apis/apps/v1/nothings"] {
        assert_eq!(cluster.admin("HEAD", uri, Value::Null).await.code, 404, "{uri}");
    }
    // nobody feels responsible for a group that there is not
    let no_such_path = "the server could not find the requested resource";
    for uri in ["/api/v1/nothings", "/apis/apps/v1/nothings", "/apis/apps/v9", "/apis/apps/v9/deployments"] {
        is(&cluster.admin("GET", uri, Value::Null).await, 404, no_such_path);
    }
    for uri in
        ["/apis/none", "/apis/none/v1", "/apis/none/v1/nothings", "/apis/none/v1/namespaces/a/nothings/b"]
    {
        for method in ["GET", "POST"] {
            let answer = cluster.admin(method, uri, Value::Null).await;
            assert_eq!(
                (answer.code.as_u16(), &answer.body),
                (404, &json!("404 page not found\n")),
                "{method} {uri}"
            );
        }
    }
    let stranger = cluster.ask("stranger", &[], "HEAD", MAPS, Value::Null, &[]).await;
    assert_eq!(stranger.code, 403, "{stranger:?}");
    assert!(stranger.message().contains("cannot list resource"), "{stranger:?}");
}

/// Also where nothing would be made of it.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_nest_too_deep() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    let body = |levels: usize| {
        format!(
            "{{\"metadata\":{{\"name\":\"deep\"}},\"nothing\":{}{}}}",
            "[".repeat(levels),
            "]".repeat(levels)
        )
    };
    let refused = cluster.send_text("POST", MAPS, body(10_000).as_bytes()).await;
    assert_eq!(
        refused["message"],
        "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: \
         invalid character '[' exceeded max depth ({\"metadata\":{\"name\":\"deep\"},\"n ...)"
    );
    assert_eq!(refused["code"], 400);
    let yaml = format!("metadata: {{name: deep}}\nnothing: {}", "[".repeat(10_001));
    let refused = cluster.raw("POST", MAPS, "application/yaml", yaml.as_bytes()).await;
    assert_eq!(
        (refused.code.as_u16(), refused.message()),
        (
            400,
            "the object provided is unrecognized (must be of type ConfigMap): yaml: line 2: exceeded max depth of 10000 \
             (6d657461646174613a207b6e616d653a20646565707d0a6e6f7468696e67 ...)"
        )
    );
    let taken = cluster.send_text("POST", MAPS, body(9_999).as_bytes()).await;
    assert_eq!(taken["metadata"]["name"], "deep", "{taken}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_paths_that_do_not_fit() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    let made = cluster.admin("POST", MAPS, json!({"metadata": {"name": "a"}})).await.body;
    let one = format!("{MAPS}/a");
    let not_allowed = "the server does not allow this method on the requested resource";
    for (method, uri) in [
        ("POST", one.as_str()),
        ("PUT", MAPS),
        ("PATCH", MAPS),
        ("POST", "/api/v1/configmaps"),
        ("POST", "/api/v1/nodes/n/status"),
    ] {
        let answer = cluster.admin(method, uri, json!({"metadata": {"name": "b"}})).await;
        is(&answer, 405, not_allowed);
        assert_eq!(answer.body["details"], json!({}), "{method} {uri}");
    }
    assert_eq!(cluster.admin("GET", &format!("{MAPS}/b"), Value::Null).await.code, 404);
    let nameless = cluster.admin("PUT", &one, json!({"metadata": {}})).await;
    is(&nameless, 400, "the name of the object (a based on URL) was undeterminable: name must be provided");
    let array = cluster.admin("POST", MAPS, json!([])).await;
    is(
        &array,
        400,
        "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: \
         json: cannot unmarshal array into Go value of type struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; \
         Kind string \"json:\\\"kind,omitempty\\\"\" } (5b5d)",
    );
    let kind = cluster.admin("POST", MAPS, json!({"kind": 3})).await;
    is(
        &kind,
        400,
        "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: \
         json: cannot unmarshal number into Go struct field .kind of type string ({\"kind\":3})",
    );

    let uid = made["metadata"]["uid"].as_str().unwrap();
    let other = cluster.admin("PUT", &one, json!({"metadata": {"name": "a", "uid": "b"}})).await;
    is(
        &other,
        409,
        &format!(
            "Operation cannot be fulfilled on configmaps \"a\": StorageError: invalid object, Code: 4, Key: \
             /registry/configmaps/default/a, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: \
             UID in precondition: b, UID in object meta: {uid}"
        ),
    );
    let delete = cluster.admin("DELETE", &one, json!({"preconditions": {"uid": "b"}})).await;
    is(
        &delete,
        409,
        &format!(
            "Operation cannot be fulfilled on ConfigMap \"a\": the UID in the precondition (b) does not match the UID in \
             record ({uid}). The object might have been deleted and then recreated"
        ),
    );
    for (uri, why) in [
        (MAPS, "\"a.b\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""),
        ("/api/v1/pods", "field label not supported: a.b"),
        ("/apis/batch/v1/jobs", "field label \"a.b\" not supported for batchv1.Job"),
        (
            "/apis/resource.k8s.io/v1/resourceslices",
            "field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: a.b",
        ),
    ] {
        is(&cluster.admin("GET", &format!("{uri}?fieldSelector=a.b%3Dc"), Value::Null).await, 400, why);
    }
    // what is no text is taken as Go takes it
    let text = cluster
        .raw(
            "POST",
            MAPS,
            "application/json",
            b"{\"metadata\":{\"name\":\"t\"},\"data\":{\"a\":\"\xff\\ud800\"}}",
        )
        .await
        .body;
    assert_eq!(text["data"]["a"], "\u{fffd}\u{fffd}");
}

/// What is asked for in vain does not happen, least of all a delete.
#[tokio::test(flavor = "multi_thread")]
async fn options_of_writes_that_are_none() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    let made = cluster.admin("POST", MAPS, json!({"metadata": {"name": "a"}})).await.body;
    let one = format!("{MAPS}/a");
    const DRY: &str = "dryRun: Unsupported value: [\"Foo\"]: supported values: \"All\"";
    let cases = [
        ("POST", MAPS, "CreateOptions", "dryRun=Foo", DRY),
        (
            "PUT",
            one.as_str(),
            "UpdateOptions",
            "dryRun=All&dryRun=",
            "dryRun: Unsupported value: [\"All\",\"\"]: supported values: \"All\"",
        ),
        (
            "PUT",
            &one,
            "UpdateOptions",
            "fieldValidation=strict",
            "fieldValidation: Unsupported value: \"strict\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
        ),
        (
            "PATCH",
            &one,
            "PatchOptions",
            "fieldManager=a%0Ab",
            "fieldManager: Invalid value: \"a\\nb\": invalid character U+000A (at position 1)",
        ),
        ("DELETE", &one, "DeleteOptions", "dryRun=Foo", DRY),
        ("DELETE", MAPS, "DeleteOptions", "dryRun=Foo", DRY),
        (
            "DELETE",
            &one,
            "DeleteOptions",
            "propagationPolicy=foo",
            "propagationPolicy: Unsupported value: \"foo\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"",
        ),
    ];
    for (method, uri, kind, query, why) in cases {
        let body = if method == "DELETE" { Value::Null } else { json!({"metadata": {"name": "a"}}) };
        let answer = cluster.admin(method, &format!("{uri}?{query}"), body).await;
        is(&answer, 422, &format!("{kind}.meta.k8s.io \"\" is invalid: {why}"));
    }
    for (body, code, why) in [
        (json!({"dryRun": ["Foo"]}), 422, format!("DeleteOptions.meta.k8s.io \"\" is invalid: {DRY}")),
        (json!({"gracePeriodSeconds": "1"}), 400, "json: cannot unmarshal string into Go struct field DeleteOptions.gracePeriodSeconds of type int64".to_owned()),
        (json!({"kind": "Foo"}), 400, "no kind \"Foo\" is registered for version \"v1\" in scheme \"pkg/apis/meta/internalversion/scheme/register.go:27\"".to_owned()),
    ] {
        is(&cluster.admin("DELETE", &one, body).await, code, &why);
    }
    assert_eq!(cluster.admin("GET", &one, Value::Null).await.body, made);
    // what a body says counts alone
    let kept =
        cluster.admin("DELETE", &format!("{one}?gracePeriodSeconds=x"), json!({"dryRun": ["All"]})).await;
    assert_eq!(kept.code, 200, "{}", kept.body);
    assert_eq!(cluster.admin("GET", &one, Value::Null).await.body, made);
}

/// Patches that are none, or that leave something that is not the object.
#[tokio::test(flavor = "multi_thread")]
async fn patches_that_do_not_fit() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    let made = cluster.admin("POST", MAPS, json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await.body;
    let one = format!("{MAPS}/a");
    let (json_patch, merge, strategic, apply) = (
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    );
    let own = r#"pkg/api/legacyscheme/scheme.go:30"#;
    let foo = format!("no kind \"Foo\" is registered for version \"v1\" in scheme {own:?}");
    let secret = "converting (v1.Secret) to (core.ConfigMap): unknown conversion".to_owned();
    let generic = "the server rejected our request due to an error in our request".to_owned();
    let nameless =
        "the name of the object (a based on URL) was undeterminable: name must be provided".to_owned();
    let patch = |value: &str, why: &str| format!(" \"\" is invalid: patch: Invalid value: {value:?}: {why}");
    let cases: &[(&str, Value, u16, String)] = &[
        (json_patch, json!({"a": 1}), 400, "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp".into()),
        (json_patch, json!([{"op": "foo", "path": "/data/k"}]), 422, generic.clone()),
        (json_patch, json!([{"op": "add", "value": 1}]), 422, generic.clone()),
        (json_patch, json!([{"op": "add", "path": "k", "value": 1}]), 422, generic.clone()),
        (json_patch, json!([{"op": "replace", "path": "/data/l", "value": ""}]), 422, generic),
        (json_patch, json!([{"op": "replace", "path": "", "value": {}}]), 400, nameless.clone()),
        (merge, json!([]), 400, "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}".into()),
        (merge, json!({"metadata": null}), 400, nameless.clone()),
        (strategic, json!([]), 400, "json: cannot unmarshal array into Go value of type map[string]interface {}".into()),
        (strategic, json!({"data": {"k": 1}}), 422, patch("map[data:map[k:1]]", "cannot convert int64 to string")),
        (strategic, json!({"data": "x"}), 422, patch("map[data:x]", "cannot restore map from string")),
        (apply, json!([]), 400, "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array into Go value of type map[string]interface {}".into()),
        (apply, json!({}), 400, "invalid object type: /, Kind=".into()),
        (apply, json!({"apiVersion": "v1", "kind": "Secret"}), 400, "invalid object type: /v1, Kind=Secret".into()),
        (apply, json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": 1}}), 500, "failed to create typed patch object (default/a; /v1, Kind=ConfigMap): .data.k: expected string, got &value.valueUnstructured{Value:1}".into()),
        (apply, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "b"}}), 400, "the namespace of the provided object does not match the namespace sent on the request".into()),
    ];
    for (media_type, body, code, why) in cases {
        let uri = format!("{one}?fieldManager=m");
        let answer = cluster
            .ask("admin", &["system:masters"], "PATCH", &uri, body.clone(), &[("content-type", media_type)])
            .await;
        assert_eq!((answer.code.as_u16(), answer.message()), (*code, why.as_str()), "{media_type} {body}");
    }
    for (kind, why) in [("Foo", foo), ("Secret", secret)] {
        for (media_type, body) in [
            (merge, json!({"kind": kind})),
            (json_patch, json!([{"op": "replace", "path": "/kind", "value": kind}])),
        ] {
            let answer = cluster
                .ask("admin", &["system:masters"], "PATCH", &one, body, &[("content-type", media_type)])
                .await;
            assert_eq!(answer.code, 422);
            assert!(
                answer.message().starts_with(" \"\" is invalid: patch: Invalid value: \"{"),
                "{}",
                answer.message()
            );
            assert!(answer.message().ends_with(&why), "{}", answer.message());
        }
    }
    let apply_to = |name: &str, query: &str| format!("{MAPS}/{name}?fieldManager=m&{query}");
    let headers = [("content-type", apply)];
    let unnamed = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    let answer =
        cluster.ask("admin", &["system:masters"], "PATCH", &apply_to("b", ""), unnamed, &headers).await;
    is(&answer, 400, &nameless.replace("(a ", "(b "));
    assert_eq!(cluster.admin("GET", &one, Value::Null).await.body, made);
    // what changes nothing is no error
    for (media_type, body) in [(json_patch, json!([])), (strategic, json!({"kind": "Foo"}))] {
        let answer = cluster
            .ask("admin", &["system:masters"], "PATCH", &one, body, &[("content-type", media_type)])
            .await;
        assert_eq!((answer.code.as_u16(), &answer.body), (200, &made), "{media_type}");
    }
}
