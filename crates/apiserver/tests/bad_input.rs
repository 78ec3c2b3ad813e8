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
        ("eyJ2IjoieCIsInJ2IjoxLCJzdGFydCI6ImEifQ", "server does not recognize this encoded version \"x\""),
    ] {
        let answer = cluster.admin("GET", &format!("{MAPS}?limit=1&continue={token}"), Value::Null).await;
        assert_eq!(
            (answer.code.as_u16(), answer.body["reason"].as_str()),
            (400, Some("BadRequest")),
            "{token}"
        );
        assert_eq!(answer.message(), format!("continue key is not valid: {why}"), "{token}");
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
