//! What the server makes of single fields, above what their kinds' rules say.

mod common;

use apiserver::AdmissionOptions;
use common::Cluster;
use serde_json::{Value, json};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const PODS: &str = "/api/v1/namespaces/default/pods";

async fn cluster(range: &str) -> Cluster {
    let options = AdmissionOptions::new(&[], &["ServiceAccount".to_owned()], None).unwrap();
    let range = range.parse().unwrap();
    Cluster::start_in(tempfile::tempdir().unwrap(), |config| {
        config.admission = options;
        config.service_cidr = range;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_of_traffic_come_and_go_with_what_they_are_about() {
    let cluster = cluster("10.96.0.0/16").await;
    let outside = json!({"type": "ExternalName", "externalName": "a.example"});
    let mut with_policy = outside.clone();
    with_policy["internalTrafficPolicy"] = "Cluster".into();
    for (name, spec) in [("a", outside), ("b", with_policy)] {
        let made = cluster.admin("POST", SERVICES, json!({"metadata": {"name": name}, "spec": spec})).await;
        assert_eq!(made.code, 201, "{}", made.body);
        let read = cluster.admin("GET", &format!("{SERVICES}/{name}"), Value::Null).await;
        for answer in [made, read] {
            assert_eq!(answer.body["spec"]["internalTrafficPolicy"], Value::Null, "{name}");
        }
    }
    let one = format!("{SERVICES}/c");
    let spec = json!({"ports": [{"port": 80}], "selector": {"a": "b"}, "externalIPs": ["1.1.1.1"]});
    let made = cluster.admin("POST", SERVICES, json!({"metadata": {"name": "c"}, "spec": spec})).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(made.body["spec"]["internalTrafficPolicy"], "Cluster");
    assert_eq!(made.body["spec"]["externalTrafficPolicy"], "Cluster");
    let mut service = made.body;
    for (addresses, policy) in
        [(json!([]), Value::Null), (json!(["1.1.1.1"]), "Cluster".into()), (json!([]), Value::Null)]
    {
        service["spec"]["externalIPs"] = addresses;
        let changed = cluster.admin("PUT", &one, service).await;
        assert_eq!(changed.code, 200, "{}", changed.body);
        service = cluster.admin("GET", &one, Value::Null).await.body;
        assert_eq!(changed.body["spec"]["externalTrafficPolicy"], policy);
        assert_eq!(service["spec"]["externalTrafficPolicy"], policy);
    }
    service["spec"]["type"] = "ExternalName".into();
    service["spec"]["externalName"] = "a.example".into();
    let changed = cluster.admin("PUT", &one, service).await;
    assert_eq!(changed.code, 200, "{}", changed.body);
    for field in ["internalTrafficPolicy", "clusterIP", "clusterIPs"] {
        assert_eq!(changed.body["spec"][field], Value::Null, "{field}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_services_are_given_to_the_last() {
    let small = cluster("192.168.0.0/29").await;
    let service = |name: &str| json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    for index in 0..5 {
        let made = small.admin("POST", SERVICES, service(&format!("s{index}"))).await;
        assert_eq!(made.code, 201, "{}", made.body);
    }
    let refused = small.admin("POST", SERVICES, service("more")).await;
    assert!(refused.message().contains("range is full"), "{}", refused.body);
    small.admin("DELETE", &format!("{SERVICES}/s1"), Value::Null).await;
    let made = small.admin("POST", SERVICES, service("more")).await;
    assert_eq!(made.code, 201, "{}", made.body);

    let large = cluster("2001:db8::/64").await;
    let mut last = service("last");
    last["spec"]["clusterIP"] = "2001:db8::ffff:ffff:ffff:ffff".into();
    for service in [service("a"), service("b"), last] {
        let made = large.admin("POST", SERVICES, service).await;
        assert_eq!(made.code, 201, "{}", made.body);
        let address = made.body["spec"]["clusterIP"].as_str().unwrap();
        let held = format!("/apis/networking.k8s.io/v1/ipaddresses/{address}");
        assert_eq!(large.admin("GET", &held, Value::Null).await.code, 200, "{address}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_of_pods_only_get_shorter() {
    let cluster = cluster("10.96.0.0/16").await;
    let cases: [(Option<i64>, Option<i64>, bool); 10] = [
        (None, None, true),
        (Some(30), Some(30), true),
        (None, Some(60), true),
        (Some(60), Some(30), true),
        (Some(30), Some(60), false),
        (Some(30), Some(-1), false),
        (None, Some(-1), false),
        (Some(30), Some(0), false),
        (None, Some(0), false),
        (Some(30), None, false),
    ];
    for (index, (before, after, is_valid)) in cases.into_iter().enumerate() {
        let containers =
            json!([{"name": "c", "image": "i", "securityContext": {"readOnlyRootFilesystem": true}}]);
        let pod = |deadline: Option<i64>| {
            json!({"metadata": {"name": format!("p{index}")},
                "spec": {"containers": containers, "activeDeadlineSeconds": deadline}})
        };
        let made = cluster.admin("POST", PODS, pod(before)).await;
        assert_eq!(made.code, 201, "{}", made.body);
        let changed = cluster.admin("PUT", &format!("{PODS}/p{index}"), pod(after)).await;
        assert_eq!(changed.code, if is_valid { 200 } else { 422 }, "{before:?} {after:?}: {}", changed.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reviews_of_rights_in_a_namespace_are_about_it() {
    let cluster = cluster("10.96.0.0/16").await;
    let reviews = "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews";
    let review = |attributes: Value| {
        json!({"metadata": {"namespace": "default"},
            "spec": {"user": "u", "groups": ["system:masters"], "resourceAttributes": attributes}})
    };
    let pods = json!({"verb": "list", "version": "v1", "resource": "pods"});
    for namespace in [Some("default"), Some("other"), None] {
        let mut attributes = pods.clone();
        if let Some(namespace) = namespace {
            attributes["namespace"] = namespace.into();
        }
        let answer = cluster.admin("POST", reviews, review(attributes)).await;
        if namespace == Some("default") {
            assert_eq!(answer.code, 201, "{}", answer.body);
            assert_eq!(answer.body["status"]["allowed"], true);
        } else {
            assert_eq!(answer.code, 422, "{}", answer.body);
            assert!(answer.message().contains("must match metadata.namespace"), "{}", answer.body);
        }
    }
    let nobody = json!({"spec": {"resourceAttributes": pods}});
    let answer = cluster.admin("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", nobody).await;
    assert_eq!(answer.code, 422, "{}", answer.body);
    assert!(answer.message().contains("at least one of user or group must be specified"), "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_change_what_is_there_and_nothing_of_who_it_is() {
    let cluster = cluster("10.96.0.0/16").await;
    let one = "/api/v1/namespaces/default/endpoints/e";
    let endpoints = |metadata: Value| {
        json!({"kind": "Endpoints", "apiVersion": "v1", "metadata": metadata,
            "subsets": [{"addresses": [{"ip": "1.2.3.4"}], "ports": [{"port": 80, "protocol": "TCP"}]}]})
    };
    let named = endpoints(json!({"name": "e", "namespace": "default"}));
    assert_eq!(cluster.admin("PATCH", one, named.clone()).await.code, 404);
    let made = cluster.admin("PUT", one, named).await;
    assert_eq!(made.code, 201, "{}", made.body);
    for (body, code) in [
        (made.body, 200),
        (endpoints(json!({"namespace": "default", "resourceVersion": "1"})), 409),
        (endpoints(json!({"namespace": "default", "uid": "abc"})), 422),
        (endpoints(json!({"name": "other", "namespace": "default"})), 400),
        (endpoints(json!({"namespace": "default"})), 200),
    ] {
        let patched = cluster.admin("PATCH", one, body.clone()).await;
        assert_eq!(patched.code, code, "{body}: {}", patched.body);
    }
    let two = r#"{"metadata": {"labels": {"foo": "bar", "baz": "qux"}}}"#;
    let less = r#"{"metadata": {"labels": {"foo": null}}}"#;
    for (media_type, patches) in [
        (
            "application/json-patch+json",
            [
                r#"[{"op": "add", "path": "/metadata/labels", "value": {"foo": "bar", "baz": "qux"}}]"#,
                r#"[{"op": "remove", "path": "/metadata/labels/foo"}]"#,
                r#"[{"op": "remove", "path": "/metadata/labels"}]"#,
            ],
        ),
        ("application/merge-patch+json", [two, less, r#"{"metadata": {"labels": null}}"#]),
        (
            "application/strategic-merge-patch+json",
            [two, less, r#"{"metadata": {"labels": {"$patch": "replace"}}}"#],
        ),
    ] {
        let left = [json!({"foo": "bar", "baz": "qux"}), json!({"baz": "qux"}), Value::Null];
        for (patch, left) in patches.into_iter().zip(left) {
            let patched = cluster.raw("PATCH", one, media_type, patch.as_bytes()).await;
            assert_eq!(patched.code, 200, "{patch}: {}", patched.body);
            assert_eq!(patched.body["metadata"]["labels"], left, "{media_type} {patch}");
        }
    }
}

/// What follows from what the server prepared is there at once, not only when it is read again.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_have_the_labels_of_their_pods() {
    let cluster = cluster("10.96.0.0/16").await;
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let containers = json!([{"name": "c", "image": "i"}]);
    let template = json!({"spec": {"restartPolicy": "Never", "containers": containers}});
    let made =
        cluster.admin("POST", jobs, json!({"metadata": {"name": "j"}, "spec": {"template": template}})).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let labels = &made.body["metadata"]["labels"];
    assert_eq!(*labels, made.body["spec"]["template"]["metadata"]["labels"]);
    assert_eq!(labels["batch.kubernetes.io/job-name"], "j");
    let read = cluster.admin("GET", &format!("{jobs}/j"), Value::Null).await;
    assert_eq!(read.body["metadata"]["labels"], *labels);
}
