//! Acting as somebody else through the whole server: by the new verbs, which are for certain requests, and by the old.

mod common;

use apiserver::RequestOptions;
use common::{Answer, Cluster};
use serde_json::{Value, json};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const AUTHENTICATION: &str = "authentication.k8s.io";

async fn grant(cluster: &Cluster, name: &str, user: &str, rules: Value) {
    let role = json!({"metadata": {"name": name}, "rules": rules});
    let made = cluster.admin("POST", &format!("{RBAC}/clusterroles"), role).await;
    assert_eq!(made.code, 201, "{made:?}");
    let binding = json!({"metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]});
    let made = cluster.admin("POST", &format!("{RBAC}/clusterrolebindings"), binding).await;
    assert_eq!(made.code, 201, "{made:?}");
}

async fn acting(cluster: &Cluster, method: &str, uri: &str, body: Value, as_whom: &[(&str, &str)]) -> Answer {
    cluster.ask("jane", &[], method, uri, body, as_whom).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_to_act_as_somebody_is_for_some_requests() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    grant(&cluster, "maps", "joe", json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]}]))
        .await;
    let joe = [("impersonate-user", "joe")];
    let list = || acting(&cluster, "GET", MAPS, Value::Null, &joe);
    let refused = list().await;
    assert_eq!(refused.code, 403);
    let message = "configmaps is forbidden: User \"jane\" cannot impersonate-on:user-info:list resource \"configmaps\" in API group \"\" in the namespace \"default\"";
    assert_eq!(refused.message(), message);
    grant(
        &cluster,
        "on-lists",
        "jane",
        json!([
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["impersonate-on:user-info:list"]},
        ]),
    )
    .await;
    let refused = list().await;
    let message = "users.authentication.k8s.io \"joe\" is forbidden: User \"jane\" cannot impersonate:user-info resource \"users\" in API group \"authentication.k8s.io\" at the cluster scope";
    assert_eq!(refused.message(), message);
    grant(&cluster, "as-joe", "jane", json!([
        {"apiGroups": [AUTHENTICATION], "resources": ["users"], "resourceNames": ["joe"], "verbs": ["impersonate:user-info"]},
    ])).await;
    assert_eq!(list().await.code, 200);
    // not for other requests
    let refused = acting(&cluster, "POST", MAPS, json!({"metadata": {"name": "m"}}), &joe).await;
    assert_eq!(refused.code, 403);
    assert!(refused.message().contains("impersonate-on:user-info:create"), "{refused:?}");
    // the old way is for all
    grant(
        &cluster,
        "old",
        "jane",
        json!([
            {"apiGroups": [""], "resources": ["users"], "resourceNames": ["joe"], "verbs": ["impersonate"]},
        ]),
    )
    .await;
    let made = acting(&cluster, "POST", MAPS, json!({"metadata": {"name": "m"}}), &joe).await;
    assert_eq!(made.code, 201, "{made:?}");
    let metrics = cluster.admin("GET", "/metrics", Value::Null).await;
    let metrics = metrics.body.as_str().unwrap();
    for line in [
        "apiserver_impersonation_attempts_total{mode=\"user-info\",decision=\"allowed\"} 1",
        "apiserver_impersonation_attempts_total{mode=\"legacy\",decision=\"allowed\"} 1",
        "apiserver_impersonation_attempts_total{mode=\"\",decision=\"denied\"} 3",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_acts_as_somebody_is_that_user_to_all_behind() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let uri = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    grant(&cluster, "any", "jane", json!([
        {"apiGroups": [AUTHENTICATION], "resources": ["selfsubjectreviews"],
            "verbs": ["impersonate-on:serviceaccount:create", "impersonate-on:arbitrary-node:create"]},
        {"apiGroups": [AUTHENTICATION], "resources": ["serviceaccounts"], "verbs": ["impersonate:serviceaccount"]},
        {"apiGroups": [AUTHENTICATION], "resources": ["nodes"], "verbs": ["impersonate:arbitrary-node"]},
    ])).await;
    for (user, groups) in [
        (
            "system:serviceaccount:default:app",
            json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]),
        ),
        ("system:node:n1", json!(["system:nodes", "system:authenticated"])),
    ] {
        let answer = acting(&cluster, "POST", uri, review.clone(), &[("impersonate-user", user)]).await;
        assert_eq!(answer.code, 201, "{answer:?}");
        let info = &answer.body["status"]["userInfo"];
        assert_eq!((info["username"].as_str(), &info["groups"]), (Some(user), &groups));
    }
    let without_user = acting(&cluster, "GET", MAPS, Value::Null, &[("impersonate-group", "g")]).await;
    assert_eq!(without_user.code, 400);
    assert!(without_user.message().ends_with("without impersonating a user name"), "{without_user:?}");
}
