//! What deletes answer with, and what is left after them.

mod common;

use apiserver::AdmissionOptions;
use common::Cluster;
use serde_json::{Value, json};

async fn cluster() -> Cluster {
    let options = AdmissionOptions::new(&[], &["ServiceAccount".to_owned()], None).unwrap();
    Cluster::start_in(tempfile::tempdir().unwrap(), |config| config.admission = options).await
}

/// What is deleted; whether it is on its way out already, and held by a finalizer; how it is deleted; as what it is
/// answered, and whether in another version.
const OUTCOMES: &str = "
pods            new   free  normal      Pod             newer
pods            new   free  orphan      Pod             newer
pods            new   free  foreground  Pod             newer
pods            new   free  sooner      Pod             newer
pods            new   free  at-once     Pod             newer
pods            going free  normal      Pod             same
pods            going free  sooner      Pod             newer
pods            going free  at-once     Pod             newer
pods            going held  normal      Pod             same
pods            going held  orphan      Pod             same
pods            going held  foreground  Pod             same
pods            going held  sooner      Pod             newer
pods            going held  at-once     Pod             newer
serviceaccounts new   free  normal      ServiceAccount  newer
serviceaccounts new   free  orphan      ServiceAccount  newer
serviceaccounts new   free  foreground  ServiceAccount  newer
serviceaccounts going held  normal      ServiceAccount  same
serviceaccounts going held  orphan      ServiceAccount  newer
serviceaccounts going held  foreground  ServiceAccount  newer
configmaps      new   free  normal      Status          -
configmaps      new   free  orphan      ConfigMap       newer
configmaps      new   free  foreground  ConfigMap       newer
configmaps      going held  normal      ConfigMap       same
configmaps      going held  orphan      ConfigMap       newer
configmaps      going held  foreground  ConfigMap       newer
";

#[tokio::test(flavor = "multi_thread")]
async fn deletes_answer_with_what_is_left() {
    let cluster = cluster().await;
    let version = |object: &Value| {
        object["metadata"]["resourceVersion"].as_str().and_then(|version| version.parse::<u64>().ok())
    };
    for (index, line) in OUTCOMES.trim().lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [plural, state, held, how, kind, outcome] = words[..] else { panic!("{line}") };
        let all = format!("/api/v1/namespaces/default/{plural}");
        let name = format!("o{index}");
        let mut object = json!({"metadata": {"name": name}});
        if plural == "pods" {
            object["spec"] = json!({"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]});
        }
        if held == "held" {
            object["metadata"]["finalizers"] = json!(["example.com/held"]);
        }
        let made = cluster.admin("POST", &all, object).await;
        assert_eq!(made.code, 201, "{line}: {}", made.body);
        let one = format!("{all}/{name}");
        if state == "going" {
            let options = if plural == "pods" { json!({"gracePeriodSeconds": 30}) } else { json!({}) };
            assert_eq!(cluster.admin("DELETE", &one, options).await.code, 200, "{line}");
        }
        let before = version(&cluster.admin("GET", &one, Value::Null).await.body);
        let options = match how {
            "orphan" => json!({"propagationPolicy": "Orphan"}),
            "foreground" => json!({"propagationPolicy": "Foreground"}),
            "sooner" => json!({"gracePeriodSeconds": 15}),
            "at-once" => json!({"gracePeriodSeconds": 0}),
            _ => json!({}),
        };
        let answer = cluster.admin("DELETE", &one, options).await;
        assert_eq!(
            (answer.code.as_u16(), &answer.body["kind"]),
            (200, &json!(kind)),
            "{line}: {}",
            answer.body
        );
        match outcome {
            "newer" => assert!(version(&answer.body) > before, "{line}: {}", answer.body),
            "same" => assert_eq!(version(&answer.body), before, "{line}: {}", answer.body),
            _ => assert_eq!(version(&answer.body), None, "{line}: {}", answer.body),
        }
    }
    let none = cluster.admin("DELETE", "/api/v1/namespaces/default/pods/none", json!({})).await;
    assert_eq!(none.code, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_asks_for_dependents_to_go_is_told_that_it_takes_time() {
    let cluster = cluster().await;
    let all = "/api/v1/namespaces/default/configmaps";
    for (finalizers, options, code) in [
        (json!([]), json!({}), 200),
        (json!(["example.com/held"]), json!({}), 200),
        (json!([]), json!({"orphanDependents": false}), 200),
        (json!(["example.com/held"]), json!({"orphanDependents": false}), 202),
    ] {
        let object = json!({"metadata": {"generateName": "m-", "finalizers": finalizers}});
        let made = cluster.admin("POST", all, object).await;
        let one = format!("{all}/{}", made.body["metadata"]["name"].as_str().unwrap());
        assert_eq!(cluster.admin("DELETE", &one, options.clone()).await.code, code, "{finalizers} {options}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_are_named_once() {
    let cluster = cluster().await;
    let all = "/api/v1/namespaces/default/configmaps";
    let owner =
        |name: &str| json!({"apiVersion": "v1", "kind": "Node", "name": name, "uid": format!("uid-{name}")});
    let (a, b) = (owner("a"), owner("b"));
    let warning = |when: &str| {
        format!(
            "299 - \".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, \
             and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: uid-a\""
        )
    };
    let of = |owners: Value| json!({"metadata": {"name": "m", "ownerReferences": owners}});
    let made = cluster.admin("POST", all, of(json!([a, a]))).await;
    assert_eq!((made.code.as_u16(), made.warnings()), (201, vec![warning("").as_str()]));
    assert_eq!(made.body["metadata"]["ownerReferences"], json!([a]));
    let one = format!("{all}/m");
    let put = cluster.admin("PUT", &one, of(json!([a, a]))).await;
    assert_eq!((put.code.as_u16(), put.warnings()), (200, vec![warning("").as_str()]));
    let operation = json!([{"op": "add", "path": "/metadata/ownerReferences/-", "value": a}]);
    let headers = [("content-type", "application/json-patch+json")];
    let patched = cluster.ask("admin", &["system:masters"], "PATCH", &one, operation, &headers).await;
    let after = warning(" after mutating admission happens");
    assert_eq!((patched.code.as_u16(), patched.warnings()), (200, vec![after.as_str()]));
    assert_eq!(patched.body["metadata"]["ownerReferences"], json!([a]));
    let put = cluster.admin("PUT", &one, of(json!([a, b]))).await;
    assert_eq!((put.warnings().len(), &put.body["metadata"]["ownerReferences"]), (0, &json!([a, b])));
}
