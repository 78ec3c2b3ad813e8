//! Priority and fairness through the whole server: how requests are classified, who waits and who is turned away.

mod common;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apiserver::RequestOptions;
use apiserver::authentication::{InProcessUser, UserInfo};
use apiserver::http::{body, chain};
use common::hook::{Does, Hook, allows};
use common::{Answer, Cluster};
use http_body_util::BodyExt;
use serde_json::{Value, json};

const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SCHEMA: &str = "x-kubernetes-pf-flowschema-uid";
const LEVEL: &str = "x-kubernetes-pf-prioritylevel-uid";

async fn cluster(concurrency: usize) -> Arc<Cluster> {
    let requests =
        RequestOptions { max_in_flight: concurrency, max_mutating_in_flight: 0, ..RequestOptions::default() };
    Arc::new(Cluster::start(requests).await)
}

/// Asks until the answer is as it should be.
async fn eventually<F: Future<Output = Option<T>>, T>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn uid(cluster: &Cluster, plural: &str, name: &str) -> String {
    let answer = cluster.admin("GET", &format!("{GROUP}/{plural}/{name}"), Value::Null).await;
    answer.body["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}

/// The schema and level that an answer names.
async fn classified(cluster: &Cluster, answer: &Answer) -> (String, String) {
    let mut out = Vec::new();
    for (header, plural) in [(SCHEMA, "flowschemas"), (LEVEL, "prioritylevelconfigurations")] {
        let uid = answer.headers.get(header).and_then(|uid| uid.to_str().ok()).unwrap_or_default();
        let list = cluster.admin("GET", &format!("{GROUP}/{plural}"), Value::Null).await;
        let item = list.body["items"].as_array().unwrap().iter().find(|item| item["metadata"]["uid"] == uid);
        out.push(item.and_then(|item| item["metadata"]["name"].as_str()).unwrap_or_default().to_owned());
    }
    let level = out.pop().unwrap();
    (out.pop().unwrap(), level)
}

/// Waits until the schemas of every cluster are in force.
async fn settled(cluster: &Cluster) {
    let wanted = uid(cluster, "flowschemas", "global-default").await;
    eventually("the configuration of every cluster", || async {
        let answer = cluster.ask("nobody", &[], "GET", "/version", Value::Null, &[]).await;
        (answer.headers[SCHEMA] == wanted.as_str()).then_some(())
    })
    .await;
}

/// A level for members of `team` with so many seats and one queue, and the schema that leads there.
async fn level_for_team(cluster: &Cluster, length_limit: u32) -> String {
    let level = json!({"metadata": {"name": "team"}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": 1, "lendablePercent": 0, "borrowingLimitPercent": 0, "limitResponse": {
            "type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": length_limit},
        },
    }}});
    let created = cluster.admin("POST", &format!("{GROUP}/prioritylevelconfigurations"), level).await;
    assert_eq!(created.code, 201, "{created:?}");
    let all = json!([{"subjects": [{"kind": "Group", "group": {"name": "team"}}],
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"],
            "clusterScope": true}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]);
    let schema = json!({"metadata": {"name": "team"}, "spec": {
        "priorityLevelConfiguration": {"name": "team"}, "matchingPrecedence": 50,
        "distinguisherMethod": {"type": "ByUser"}, "rules": all,
    }});
    let created = cluster.admin("POST", &format!("{GROUP}/flowschemas"), schema).await;
    assert_eq!(created.code, 201, "{created:?}");
    let uid = created.body["metadata"]["uid"].as_str().unwrap().to_owned();
    eventually("the new schema", || async {
        (get(cluster, "/version").await.headers[SCHEMA] == uid.as_str()).then_some(())
    })
    .await;
    uid
}

/// What a member of the team reads.
async fn get(cluster: &Cluster, uri: &str) -> Answer {
    cluster.ask("jane", &["team"], "GET", uri, Value::Null, &[]).await
}

/// The cells of a level in the table of levels.
async fn level_row(cluster: &Cluster, level: &str) -> Vec<String> {
    let uri = "/debug/api_priority_and_fairness/dump_priority_levels";
    let answer = cluster.admin("GET", uri, Value::Null).await;
    assert_eq!(answer.code, 200);
    let text = answer.body.as_str().unwrap().to_owned();
    let row = text.lines().find(|line| line.starts_with(&format!("{level},")));
    row.map(|row| row.split(',').map(|cell| cell.trim().to_owned()).collect()).unwrap_or_default()
}

/// A create of the team that takes its seat for as long as it is not aborted: its webhook says nothing.
async fn occupy(cluster: &Arc<Cluster>) -> (Hook, tokio::task::JoinHandle<Answer>) {
    let role = json!({"metadata": {"name": "team"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]}]});
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    assert_eq!(cluster.admin("POST", &format!("{rbac}/clusterroles"), role).await.code, 201);
    let binding = json!({"metadata": {"name": "team"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "team"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "team"}]});
    assert_eq!(cluster.admin("POST", &format!("{rbac}/clusterrolebindings"), binding).await.code, 201);
    let hook = Hook::start(&cluster.pki, |_, request| match request["name"].as_str() {
        Some("slow") => Does::Hangs,
        _ => allows(),
    })
    .await;
    let mut webhook = hook.webhook("slow.example.com", "/");
    webhook["timeoutSeconds"] = json!(30);
    let body = json!({"metadata": {"name": "slow"}, "webhooks": [webhook]});
    let uri = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    assert_eq!(cluster.admin("POST", uri, body).await.code, 201);
    let task = tokio::spawn({
        let cluster = cluster.clone();
        async move {
            let map = json!({"metadata": {"name": "slow"}});
            cluster.ask("jane", &["team"], "POST", MAPS, map, &[]).await
        }
    });
    eventually("the call of the webhook", || async { (!hook.asked().is_empty()).then_some(()) }).await;
    (hook, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_classified_as_upstream_does() {
    let cluster = cluster(600).await;
    settled(&cluster).await;
    let node: (&str, &[&str]) = ("system:node:n1", &["system:nodes"]);
    let account: (&str, &[&str]) =
        ("system:serviceaccount:default:app", &["system:serviceaccounts", "system:serviceaccounts:default"]);
    let system_account: (&str, &[&str]) = (
        "system:serviceaccount:kube-system:job-controller",
        &["system:serviceaccounts", "system:serviceaccounts:kube-system"],
    );
    let lease = "/apis/coordination.k8s.io/v1/namespaces";
    for ((user, groups), method, uri, schema, level) in [
        (("admin", &["system:masters"][..]), "GET", MAPS, "exempt", "exempt"),
        (("jane", &[]), "GET", MAPS, "global-default", "global-default"),
        (("jane", &[]), "GET", "/healthz", "probes", "exempt"),
        (("jane", &[]), "GET", "/livez/ping", "probes", "exempt"),
        (("jane", &[]), "GET", "/version", "global-default", "global-default"),
        (node, "GET", "/api/v1/nodes/n1", "system-node-high", "node-high"),
        (
            node,
            "PUT",
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1",
            "system-node-high",
            "node-high",
        ),
        (node, "GET", "/api/v1/pods", "system-nodes", "system"),
        (account, "GET", MAPS, "service-accounts", "workload-low"),
        (system_account, "GET", MAPS, "kube-system-service-accounts", "workload-high"),
        (("system:kube-scheduler", &[]), "GET", "/api/v1/pods", "kube-scheduler", "workload-high"),
        (
            ("system:kube-scheduler", &[]),
            "GET",
            &format!("{lease}/kube-system/leases/kube-scheduler"),
            "system-leader-election",
            "leader-election",
        ),
        (
            ("system:kube-controller-manager", &[]),
            "GET",
            "/api/v1/pods",
            "kube-controller-manager",
            "workload-high",
        ),
    ] {
        let answer = cluster.ask(user, groups, method, uri, Value::Null, &[]).await;
        let found = classified(&cluster, &answer).await;
        assert_eq!(found, (schema.to_owned(), level.to_owned()), "{user} {method} {uri}");
    }
    let streaming = "/api/v1/namespaces/default/pods/p/log?follow=true";
    let answer = cluster.ask("jane", &[], "GET", streaming, Value::Null, &[]).await;
    assert!(!answer.headers.contains_key(SCHEMA), "long-running requests are no concern of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_no_seat_waits_and_who_finds_no_place_to_wait_is_turned_away() {
    let cluster = cluster(1).await;
    let schema = level_for_team(&cluster, 1).await;
    let (_hook, slow) = occupy(&cluster).await;
    let waiting = tokio::spawn({
        let cluster = cluster.clone();
        async move { get(&cluster, MAPS).await }
    });
    eventually("the wait", || async { (level_row(&cluster, "team").await[4] == "1").then_some(()) }).await;
    let away = get(&cluster, MAPS).await;
    assert_eq!(away.code, 429);
    assert_eq!(away.body, "Too many requests, please try again later.\n");
    assert_eq!(away.headers["retry-after"], "1");
    assert_eq!(away.headers["content-type"], "text/plain; charset=utf-8");
    assert_eq!(away.headers[SCHEMA], schema.as_str());
    // others have levels of their own
    assert_eq!(cluster.admin("GET", MAPS, Value::Null).await.code, 200);
    assert_eq!(cluster.ask("joe", &[], "GET", "/version", Value::Null, &[]).await.code, 200);
    let metrics = cluster.admin("GET", "/metrics", Value::Null).await;
    let metrics = metrics.body.as_str().unwrap();
    for line in [
        "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"team\",priority_level=\"team\",reason=\"queue-full\"} 1",
        "apiserver_flowcontrol_current_inqueue_requests{flow_schema=\"team\",priority_level=\"team\"} 1",
        "apiserver_flowcontrol_current_executing_requests{flow_schema=\"team\",priority_level=\"team\"} 1",
        "apiserver_dropped_requests_total{request_kind=\"readOnly\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
    // a client that goes away gives its seat to the next
    slow.abort();
    let answer = waiting.await.unwrap();
    assert_eq!(answer.code, 200);
    assert_eq!(answer.headers[SCHEMA], schema.as_str());
    eventually("the end", || async { (level_row(&cluster, "team").await[2] == "true").then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_quarter_of_its_time_is_turned_away() {
    let cluster = cluster(1).await;
    level_for_team(&cluster, 10).await;
    let (_hook, slow) = occupy(&cluster).await;
    let away = get(&cluster, &format!("{MAPS}?timeout=400ms")).await;
    assert_eq!(away.code, 429);
    assert!(!slow.is_finished());
    let metrics = cluster.admin("GET", "/metrics", Value::Null).await;
    let line = "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"team\",priority_level=\"team\",reason=\"time-out\"} 1";
    assert!(metrics.body.as_str().unwrap().contains(line));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_has_a_seat_until_it_has_shown_what_there_is() {
    let cluster = cluster(1).await;
    level_for_team(&cluster, 10).await;
    let (_hook, slow) = occupy(&cluster).await;
    slow.abort();
    eventually("a free seat", || async { (level_row(&cluster, "team").await[2] == "true").then_some(()) })
        .await;
    let user = InProcessUser(Arc::new(UserInfo::new("jane", &["team"])));
    let request = http::Request::builder()
        .uri(format!("{MAPS}?watch=1&resourceVersion=0"))
        .extension(user)
        .body(body::empty())
        .unwrap();
    let response = chain::handle(cluster.server.clone(), request).await;
    assert_eq!(response.status(), 200);
    assert!(response.headers().contains_key(SCHEMA));
    assert_eq!(level_row(&cluster, "team").await[5], "1", "it has not shown anything yet");
    let mut events = response.into_body();
    let more = tokio::spawn(async move { while events.frame().await.is_some() {} });
    eventually("the beginning", || async { (level_row(&cluster, "team").await[5] == "0").then_some(()) })
        .await;
    assert_eq!(get(&cluster, MAPS).await.code, 200);
    assert!(!more.is_finished(), "the watch goes on");
    more.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_followed_and_statuses_say_what_is_missing() {
    let cluster = cluster(600).await;
    let schema = level_for_team(&cluster, 10).await;
    let dangling = |status: &'static str| {
        let cluster = cluster.clone();
        async move {
            let schema = cluster.admin("GET", &format!("{GROUP}/flowschemas/team"), Value::Null).await;
            let condition = schema.body["status"]["conditions"][0].clone();
            (condition["type"] == "Dangling" && condition["status"] == status).then_some(condition)
        }
    };
    let found = eventually("the condition", || dangling("False")).await;
    assert_eq!(found["reason"], "Found");
    let gone =
        cluster.admin("DELETE", &format!("{GROUP}/prioritylevelconfigurations/team"), Value::Null).await;
    assert_eq!(gone.code, 200);
    let lost = eventually("the new condition", || dangling("True")).await;
    assert_eq!(lost["reason"], "NotFound");
    let message = "This FlowSchema references the PriorityLevelConfiguration object named \"team\" but there is no such object";
    assert_eq!(lost["message"], message);
    eventually("another schema", || async {
        (get(&cluster, "/version").await.headers[SCHEMA] != schema.as_str()).then_some(())
    })
    .await;
    eventually("the end of the level", || async {
        level_row(&cluster, "team").await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_for_those_who_may_read_them() {
    let cluster = cluster(600).await;
    for table in ["dump_priority_levels", "dump_queues", "dump_requests"] {
        let uri = format!("/debug/api_priority_and_fairness/{table}");
        assert_eq!(cluster.admin("GET", &uri, Value::Null).await.code, 200);
        assert_eq!(cluster.ask("jane", &[], "GET", &uri, Value::Null, &[]).await.code, 403);
    }
    let unknown = cluster.admin("GET", "/debug/api_priority_and_fairness/dump", Value::Null).await;
    assert_eq!(unknown.code, 404);
}
