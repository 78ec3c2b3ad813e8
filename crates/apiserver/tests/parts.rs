//! Writes of parts of objects: who may write which, and what they own by it.

mod common;

use apiserver::RequestOptions;
use common::Cluster;
use common::managed::owned;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn subresources_of_pods_own_what_they_change_alone() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    let account = "/api/v1/namespaces/default/serviceaccounts";
    cluster.admin("POST", account, json!({"metadata": {"name": "default"}})).await;
    let pods = "/api/v1/namespaces/default/pods";
    let resources = |cpu: &str| json!({"requests": {"cpu": cpu, "memory": "1Mi"}});
    let pod = json!({"metadata": {"name": "p", "labels": {"a": "b"}}, "spec": {"containers": [
        {"name": "c", "image": "i", "resources": resources("1")},
    ]}});
    assert_eq!(cluster.admin("POST", pods, pod).await.code, 201);

    let resize = format!("{pods}/p/resize");
    let asked = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "x"}},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": resources("2")}]}});
    let resized = cluster.force_apply(&resize, "scaler", &asked).await;
    assert_eq!(resized.code, 200, "{resized:?}");
    assert_eq!(resized.body["metadata"]["labels"], json!({"a": "b"}));
    let amounts = json!({"f:resources": {"f:requests": {"f:cpu": {}, "f:memory": {}}}, ".": {}});
    assert_eq!(
        owned(&resized.body, "scaler", "resize"),
        json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": amounts}}})
    );

    let debug = format!("{pods}/p/ephemeralcontainers");
    let asked = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "finalizers": ["a.b/c"]},
        "spec": {"nodeName": "n", "ephemeralContainers": [{"name": "d", "image": "i"}]}});
    let debugged = cluster.force_apply(&debug, "debugger", &asked).await;
    assert_eq!(debugged.code, 200, "{debugged:?}");
    let container = json!({".": {}, "f:name": {}, "f:image": {}});
    assert_eq!(
        owned(&debugged.body, "debugger", "ephemeralcontainers"),
        json!({"f:spec": {"f:ephemeralContainers": {"k:{\"name\":\"d\"}": container}}})
    );
    assert_eq!(debugged.body["metadata"].get("finalizers"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resize_that_adds_or_renames_containers_is_refused() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    let account = "/api/v1/namespaces/default/serviceaccounts";
    cluster.admin("POST", account, json!({"metadata": {"name": "default"}})).await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |names: &[&str]| {
        let containers: Vec<Value> = names.iter().map(|name| json!({"name": name, "image": "i"})).collect();
        json!({"metadata": {"name": "p"}, "spec": {"containers": containers}})
    };
    assert_eq!(cluster.admin("POST", pods, pod(&["a"])).await.code, 201);
    for (names, why) in [
        (&["a", "b"][..], "spec.containers: Forbidden: containers may not be added or removed on resize"),
        (&["z"], "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize"),
    ] {
        let refused = cluster.admin("PUT", &format!("{pods}/p/resize"), pod(names)).await;
        assert_eq!(refused.code, 422, "{refused:?}");
        assert!(refused.message().contains(why), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_of_claims_take_rights_of_their_own() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let rule = |resources: &str, verbs: &str, names: &[&str]| json!({"apiGroups": ["resource.k8s.io"], "resources": [resources], "verbs": [verbs], "resourceNames": names});
    let all_of_status = rule("resourceclaims/status", "*", &[]);
    for (name, rules) in [
        ("status", vec![all_of_status.clone()]),
        ("binding", vec![all_of_status.clone(), rule("resourceclaims/binding", "update", &[])]),
        ("driver", vec![all_of_status, rule("resourceclaims/driver", "arbitrary-node:update", &["gpu.x"])]),
    ] {
        let role = json!({"metadata": {"name": name}, "rules": rules});
        assert_eq!(cluster.admin("POST", &format!("{rbac}/clusterroles"), role).await.code, 201);
        let binding = json!({"metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name}]});
        assert_eq!(cluster.admin("POST", &format!("{rbac}/clusterrolebindings"), binding).await.code, 201);
    }
    let claims = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
    let request = json!({"name": "r", "exactly": {"deviceClassName": "gpu"}});
    let claim = json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": [request]}}});
    assert_eq!(cluster.admin("POST", claims, claim).await.code, 201);
    let uri = format!("{claims}/c/status");
    let put = async |user: &str, status: Value| {
        let mut claim = cluster.admin("GET", &format!("{claims}/c"), Value::Null).await.body;
        claim["status"] = status;
        cluster.ask(user, &["system:authenticated"], "PUT", &uri, claim, &[]).await
    };
    let allocation = json!({"devices": {"results": [
        {"request": "r", "driver": "gpu.x", "pool": "p", "device": "d"},
    ]}});
    let allocated = json!({"allocation": allocation});
    let refused = put("status", allocated.clone()).await;
    assert_eq!(refused.code, 422, "{refused:?}");
    assert_eq!(
        refused.body["details"]["causes"][0],
        json!({"reason": "FieldValueForbidden", "field": "status", "message":
            "Forbidden: changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", verb=\"update\" permission: resourceclaims.resource.k8s.io is forbidden: User \"status\" cannot update resource \"resourceclaims/binding\" in API group \"resource.k8s.io\" at the cluster scope"})
    );
    assert_eq!(put("binding", allocated.clone()).await.code, 200);

    let mut reported = allocated;
    reported["devices"] = json!([{"driver": "gpu.x", "pool": "p", "device": "d"}]);
    let refused = put("binding", reported.clone()).await;
    assert_eq!(refused.code, 422, "{refused:?}");
    assert_eq!(
        refused.body["details"]["causes"][0],
        json!({"reason": "FieldValueForbidden", "field": "status.devices", "message":
            "Forbidden: changing status.devices requires resource=\"resourceclaims/driver\", verb=\"[arbitrary-node:update]\" permission: resourceclaims.resource.k8s.io \"gpu.x\" is forbidden: User \"binding\" cannot arbitrary-node:update resource \"resourceclaims/driver\" in API group \"resource.k8s.io\" in the namespace \"default\""})
    );
    assert_eq!(put("driver", reported.clone()).await.code, 200);
    assert_eq!(put("status", reported).await.code, 200, "nothing moves");
}
