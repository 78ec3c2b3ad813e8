//! What the audit log holds of requests to a real server.

mod common;

use std::path::Path;

use apiserver::RequestOptions;
use apiserver::audit::{AuditOptions, LogOptions};
use common::Cluster;
use serde_json::{Value, json};

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- {level: None, users: ["system:apiserver"]}
- {level: RequestResponse, omitManagedFields: true, resources: [{group: "", resources: [configmaps]}]}
- {level: Metadata, resources: [{group: "", resources: [secrets]}], omitStages: [RequestReceived]}
- {level: Request, resources: [{group: apps}]}
"#;

async fn start(folder: &Path) -> Cluster {
    let policy = folder.join("policy.yaml");
    std::fs::write(&policy, POLICY).unwrap();
    let log = LogOptions { path: folder.join("audit.log").display().to_string(), ..LogOptions::default() };
    let audit = AuditOptions { policy_file: Some(policy), log: Some(log) };
    Cluster::start(RequestOptions { audit, ..RequestOptions::default() }).await
}

async fn events(cluster: &Cluster, folder: &Path) -> Vec<Value> {
    cluster.server.audit.clone().expect("audit").flush().await;
    let text = std::fs::read_to_string(folder.join("audit.log")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_carry_what_their_level_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = start(folder.path()).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let headers = [("x-forwarded-for", "192.0.2.7"), ("audit-id", "my-id")];
    let body = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    let created = cluster.ask("root", &["system:masters"], "POST", maps, body, &headers).await;
    assert_eq!(created.code, 201, "{created:?}");
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"password": "hidden"}});
    assert_eq!(cluster.admin("POST", "/api/v1/namespaces/default/secrets", secret).await.code, 201);
    assert_eq!(cluster.admin("GET", "/api/v1/namespaces/default/pods", Value::Null).await.code, 200);
    let denied = cluster.ask("jane", &["dev"], "GET", &format!("{maps}/a?x=1"), Value::Null, &[]).await;
    assert_eq!(denied.code, 403);
    let acting = [("impersonate-user", "joe"), ("impersonate-group", "system:masters")];
    cluster.ask("admin", &["system:masters"], "DELETE", &format!("{maps}/a"), Value::Null, &acting).await;
    let patch = json!({"spec": {"replicas": 2}});
    cluster.admin("PATCH", "/apis/apps/v1/namespaces/default/deployments/d", patch.clone()).await;

    let events = events(&cluster, folder.path()).await;
    let stages: Vec<_> = events
        .iter()
        .map(|event| (event["verb"].as_str().unwrap(), event["stage"].as_str().unwrap()))
        .collect();
    let twice = |verb| [(verb, "RequestReceived"), (verb, "ResponseComplete")];
    let expected = [
        twice("create").as_slice(),
        &[("create", "ResponseComplete")],
        &twice("get"),
        &twice("delete"),
        &twice("patch"),
    ]
    .concat();
    assert_eq!(stages, expected);
    let create = &events[1];
    for (pointer, value) in [
        ("/kind", json!("Event")),
        ("/apiVersion", json!("audit.k8s.io/v1")),
        ("/level", json!("RequestResponse")),
        ("/auditID", json!("my-id")),
        ("/requestURI", json!(maps)),
        ("/user", json!({"username": "root", "groups": ["system:masters", "system:authenticated"]})),
        ("/sourceIPs", json!(["192.0.2.7"])),
        ("/userAgent", json!("test/1")),
        (
            "/objectRef",
            json!({"resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1"}),
        ),
        ("/responseStatus", json!({"metadata": {}, "code": 201})),
        ("/requestObject/data", json!({"k": "v"})),
        ("/responseObject/data", json!({"k": "v"})),
        (
            "/annotations",
            json!({"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""}),
        ),
    ] {
        assert_eq!(create.pointer(pointer), Some(&value), "{pointer}");
    }
    assert!(create.pointer("/responseObject/metadata/uid").is_some());
    assert!(create.pointer("/responseObject/metadata/managedFields").is_none());
    assert!(created.body.pointer("/metadata/managedFields").is_some(), "only the log leaves them out");
    let secret = &events[2];
    assert_eq!(secret["objectRef"]["name"], "s");
    assert!(secret.get("requestObject").is_none() && !secret.to_string().contains("hidden"));
    let denied = &events[4];
    assert_eq!(denied["responseStatus"]["reason"], "Forbidden");
    assert_eq!(denied["responseStatus"]["code"], 403);
    assert_eq!(denied["annotations"]["authorization.k8s.io/decision"], "forbid");
    let delete = &events[6];
    assert_eq!(delete["user"]["username"], "admin");
    assert_eq!(delete["impersonatedUser"]["username"], "joe");
    assert_eq!(delete["responseStatus"]["status"], "Success");
    assert_eq!(events[8]["requestObject"], patch);
    assert!(events[8].get("responseObject").is_none(), "the level is Request");
    assert_eq!(events[8]["responseStatus"]["reason"], "NotFound");
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_are_recorded_when_they_begin_and_when_they_end() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = start(folder.path()).await;
    let uri = "/api/v1/configmaps?watch=1&timeoutSeconds=1&resourceVersion=0";
    assert_eq!(cluster.admin("GET", uri, Value::Null).await.code, 200);
    let events = events(&cluster, folder.path()).await;
    let stages: Vec<_> = events.iter().map(|event| event["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["RequestReceived", "ResponseStarted", "ResponseComplete"]);
    assert_eq!(events[1]["responseStatus"], json!({"metadata": {}, "code": 200}));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_policy_nothing_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let log =
        LogOptions { path: folder.path().join("audit.log").display().to_string(), ..LogOptions::default() };
    let audit = AuditOptions { policy_file: None, log: Some(log) };
    let cluster = Cluster::start(RequestOptions { audit, ..RequestOptions::default() }).await;
    cluster.admin("GET", "/api/v1/configmaps", Value::Null).await;
    assert!(cluster.server.audit.is_none() && !folder.path().join("audit.log").exists());
}
