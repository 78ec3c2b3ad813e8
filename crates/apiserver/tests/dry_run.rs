//! What is only tried leaves everything as it was, for every kind there is.

mod common;

use std::time::Duration;

use apiserver::AdmissionOptions;
use common::{Cluster, stubs};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_changed_by_what_is_only_tried() {
    let options = AdmissionOptions::new(&[], &["ServiceAccount".to_owned()], None).unwrap();
    let cluster = Cluster::start_in(tempfile::tempdir().unwrap(), |config| config.admission = options).await;
    let mut wrong = Vec::new();
    for stub in stubs::all() {
        let kind = stub.row.gvk();
        let collection = stubs::collection(stub.row, "default");
        let one = format!("{collection}/{}", stub.name());
        let tried = |uri: &str| format!("{uri}?dryRun=All");
        let made = cluster.admin("POST", &tried(&collection), stub.object.clone()).await;
        if made.code != 201 || cluster.admin("GET", &one, Value::Null).await.code != 404 {
            wrong.push(format!("POST of {kind}: {}", made.body));
        }
        let made = cluster.admin("POST", &collection, stub.object.clone()).await;
        assert_eq!(made.code, 201, "{kind}: {}", made.body);
        let mut before = cluster.admin("GET", &one, Value::Null).await.body;
        // the server says itself what it thinks of one
        while stub.row.kind == "FlowSchema" && before["status"]["conditions"].is_null() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            before = cluster.admin("GET", &one, Value::Null).await.body;
        }
        let annotated = json!({"metadata": {"annotations": {"a": "b"}}});
        let mut replaced = before.clone();
        replaced["metadata"]["annotations"]["a"] = "b".into();
        let mut calls =
            vec![("PATCH", tried(&one), annotated.clone()), ("PUT", tried(&one), replaced.clone())];
        if stub.has_status() {
            calls.push(("PUT", tried(&format!("{one}/status")), replaced.clone()));
            calls.push(("PATCH", tried(&format!("{one}/status")), annotated));
        }
        if stub.row.subresource("scale").is_some() {
            let scaled = json!({"spec": {"replicas": 5}});
            calls.push(("PATCH", tried(&format!("{one}/scale")), scaled));
        }
        if stub.row.kind == "Namespace" {
            let mut emptied = before.clone();
            emptied["spec"]["finalizers"] = json!([]);
            calls.push(("PUT", tried(&format!("{one}/finalize")), emptied));
        }
        calls.push(("DELETE", tried(&one), Value::Null));
        calls.push(("DELETE", one.clone(), json!({"gracePeriodSeconds": 0, "dryRun": ["All"]})));
        if stub.row.kind != "Namespace" && stub.row.kind != "Service" {
            calls.push(("DELETE", tried(&collection), Value::Null));
        }
        for (method, uri, body) in calls {
            let answer = cluster.admin(method, &uri, body).await;
            if !answer.code.is_success() {
                wrong.push(format!("{method} {uri}: {} {}", answer.code, answer.message()));
            }
            let after = cluster.admin("GET", &one, Value::Null).await.body;
            if after != before {
                wrong.push(format!("{method} {uri} left {after} of {before}"));
            }
        }
        // others would be kept from something by it, or are another view of it
        if ["LimitRange", "ResourceQuota", "HorizontalPodAutoscaler", "Event"].contains(&stub.row.kind) {
            assert_eq!(cluster.admin("DELETE", &one, Value::Null).await.code, 200, "{kind}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
