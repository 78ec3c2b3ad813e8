//! Every group over the server itself: what discovery says, what there is from the start, and objects of each kind
//! on their way through all verbs in JSON and protobuf.

mod common;

use std::sync::Arc;

use apimachinery::Value;
use apimachinery::schema::Schema;
use apiserver::authentication::UserInfo;
use apiserver::{InProcess, RequestOptions};
use common::stubs;
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::json;
use tower::{Service, ServiceExt};

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// A server, as one of its users sees it.
#[derive(Clone)]
struct Cluster {
    client: InProcess,
    running: Arc<common::Cluster>,
}

impl Cluster {
    async fn start() -> Self {
        let running = Arc::new(common::Cluster::start(RequestOptions::default()).await);
        let admin = UserInfo::new("admin", &["system:masters", "system:authenticated"]);
        Self { client: InProcess::new(running.server.clone(), admin), running }
    }

    fn as_user(&self, name: &str) -> Self {
        let user = UserInfo::new(name, &["system:authenticated"]);
        Self { client: InProcess::new(self.running.server.clone(), user), running: self.running.clone() }
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        accept: &str,
        body: Vec<u8>,
    ) -> (u16, Vec<u8>) {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type)
            .header("accept", accept)
            .body(Body::from(body))
            .unwrap();
        let response = self.client.clone().ready().await.unwrap().call(request).await.unwrap();
        let status = response.status().as_u16();
        (status, response.into_body().collect().await.unwrap().to_bytes().to_vec())
    }

    async fn json(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { JSON };
        let (status, answer) = self.send(method, path, kind, JSON, body).await;
        (status, serde_json::from_slice(&answer).unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.json("GET", path, &Value::Null).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }
}

fn words(value: &Value) -> String {
    let words: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    words.join(",")
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_is_what_upstream_serves() {
    let cluster = Cluster::start().await;
    let groups = cluster.get("/apis").await;
    let mut paths = vec!["/api/v1".to_owned()];
    let mut text = String::new();
    for group in groups["groups"].as_array().unwrap() {
        let preferred = group["preferredVersion"]["version"].as_str().unwrap();
        text += &format!("{} {preferred}\n", group["name"].as_str().unwrap());
        let versions = group["versions"].as_array().unwrap();
        paths.extend(versions.iter().map(|v| format!("/apis/{}", v["groupVersion"].as_str().unwrap())));
    }
    for path in paths {
        let list = cluster.get(&path).await;
        text += &format!("\n{}\n", list["groupVersion"].as_str().unwrap());
        for resource in list["resources"].as_array().unwrap() {
            let mut line = format!(
                "  {} [{}] {} {} {}",
                resource["name"].as_str().unwrap(),
                resource["singularName"].as_str().unwrap(),
                resource["kind"].as_str().unwrap(),
                if resource["namespaced"] == true { "namespaced" } else { "cluster" },
                words(&resource["verbs"]),
            );
            for key in ["shortNames", "categories"] {
                if resource.get(key).is_some() {
                    line += &format!(" {key}={}", words(&resource[key]));
                }
            }
            for key in ["group", "version", "storageVersionHash"] {
                if let Some(value) = resource.get(key).and_then(Value::as_str) {
                    line += &format!(" {key}={value}");
                }
            }
            text += &line;
            text.push('\n');
        }
    }
    insta::assert_snapshot!("discovery", text);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_from_the_start() {
    let cluster = Cluster::start().await;
    let names = async |path: &str| -> Vec<String> {
        let list = cluster.get(path).await;
        let items = list["items"].as_array().unwrap();
        items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let flowcontrol = "/apis/flowcontrol.apiserver.k8s.io/v1";
    let levels = names(&format!("{flowcontrol}/prioritylevelconfigurations")).await;
    assert_eq!(
        levels,
        [
            "catch-all",
            "exempt",
            "global-default",
            "leader-election",
            "node-high",
            "system",
            "workload-high",
            "workload-low"
        ],
    );
    let schemas = names(&format!("{flowcontrol}/flowschemas")).await;
    assert_eq!(
        schemas,
        [
            "catch-all",
            "exempt",
            "global-default",
            "kube-controller-manager",
            "kube-scheduler",
            "kube-system-service-accounts",
            "probes",
            "service-accounts",
            "system-leader-election",
            "system-node-high",
            "system-nodes"
        ],
    );
    let services = names("/apis/apiregistration.k8s.io/v1/apiservices").await;
    for name in ["v1.", "v1.apps", "v2.autoscaling", "v1.resource.k8s.io"] {
        assert!(services.contains(&name.to_owned()), "{services:?}");
    }
    // what is mandatory may go, and comes back, but does not change
    let exempt = format!("{flowcontrol}/prioritylevelconfigurations/exempt");
    let change = json!({"spec": {"exempt": {"lendablePercent": 101}}});
    let (status, answer) = cluster.json("PATCH", &exempt, &change).await;
    assert_eq!(status, 422, "{answer}");
    let (status, answer) = cluster.json("DELETE", &exempt, &Value::Null).await;
    assert_eq!(status, 200, "{answer}");
    let came_back = async {
        while cluster.json("GET", &exempt, &Value::Null).await.0 != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), came_back).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_every_kind_make_the_round() {
    let cluster = Cluster::start().await;
    for stub in stubs::all() {
        let (row, object) = (stub.row, stub.object);
        // these have tests of their own
        if ["", "policy", "events.k8s.io", "certificates.k8s.io"].contains(&row.group) {
            continue;
        }
        let (gvk, name) = (row.gvk(), object["metadata"]["name"].as_str().unwrap());
        let all = stubs::collection(row, "default");
        let one = format!("{all}/{name}");

        let (status, mut made) = cluster.json("POST", &all, &object).await;
        assert_eq!(status, 201, "{gvk}: {made}");
        if row.kind == "FlowSchema" {
            // the server says of each whether its level is there
            let told = async {
                while made["status"]["conditions"].as_array().is_none_or(Vec::is_empty) {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                    made = cluster.get(&one).await;
                }
            };
            tokio::time::timeout(std::time::Duration::from_secs(30), told).await.unwrap();
        }
        assert_eq!(made["kind"], row.kind);
        let got = cluster.get(&one).await;
        assert_eq!(got, made, "{gvk}");

        // protobuf says the same: what it gives can be put back, and changes nothing
        let (status, bytes) = cluster.send("GET", &one, JSON, PROTOBUF, Vec::new()).await;
        assert_eq!(status, 200, "{gvk}");
        assert!(bytes.starts_with(b"k8s\0"), "{gvk}");
        let (status, answer) = cluster.send("PUT", &one, PROTOBUF, JSON, bytes).await;
        assert_eq!(status, 200, "{gvk}: {}", String::from_utf8_lossy(&answer));
        let put: Value = serde_json::from_slice(&answer).unwrap();
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        assert_eq!(version(&put), version(&made), "{gvk} was changed by {put} from {made}");

        let (status, patched) =
            cluster.json("PATCH", &one, &json!({"metadata": {"labels": {"x": "y"}}})).await;
        assert_eq!(status, 200, "{gvk}: {patched}");
        assert_eq!(patched["metadata"]["labels"]["x"], "y", "{gvk}");
        let (status, updated) = cluster.json("PUT", &one, &patched).await;
        assert_eq!((status, &updated), (200, &patched), "{gvk}");

        let list = cluster.get(&format!("{all}?labelSelector=x%3Dy")).await;
        assert_eq!(list["items"].as_array().unwrap().len(), 1, "{gvk}");
        assert_eq!(list["kind"], format!("{}List", row.kind));
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let (status, table) = cluster.send("GET", &one, JSON, accept, Vec::new()).await;
        assert_eq!(status, 200, "{gvk}");
        let table: Value = serde_json::from_slice(&table).unwrap();
        let cells = table["rows"][0]["cells"].as_array().unwrap().len();
        assert_eq!(cells, table["columnDefinitions"].as_array().unwrap().len(), "{gvk}");
        assert_eq!(cells, row.columns.len(), "{gvk}");

        if row.subresources.iter().any(|sub| sub.name == "status") {
            let (status, answer) = cluster.json("PUT", &format!("{one}/status"), &updated).await;
            assert_eq!(status, 200, "{gvk}: {answer}");
        }
        let (status, answer) =
            cluster.json("DELETE", &one, &json!({"propagationPolicy": "Background"})).await;
        assert_eq!(status, 200, "{gvk}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_autoscaler_reads_the_same_in_both_versions() {
    let cluster = Cluster::start().await;
    let path =
        |version: &str| format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers");
    let memory = json!({"type": "Resource", "resource": {"name": "memory",
        "target": {"type": "Utilization", "averageUtilization": 60}}});
    let cpu = json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": 50}}});
    let object = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}, "metrics": [memory, cpu],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}}}});
    let (status, made) = cluster.json("POST", &path("v2"), &object).await;
    assert_eq!(status, 201, "{made}");
    let one = |version: &str| format!("{}/h", path(version));
    let old = cluster.get(&one("v1")).await;
    assert_eq!(old["spec"]["targetCPUUtilizationPercentage"], 50);
    let annotations = old["metadata"]["annotations"].as_object().unwrap();
    assert!(annotations["autoscaling.alpha.kubernetes.io/metrics"].as_str().unwrap().contains("memory"));
    assert!(annotations.contains_key("autoscaling.alpha.kubernetes.io/behavior"));
    // writing the old form back loses nothing
    let (status, answer) = cluster.json("PUT", &one("v1"), &old).await;
    assert_eq!(status, 200, "{answer}");
    let new = cluster.get(&one("v2")).await;
    let mut metrics = new["spec"]["metrics"].as_array().unwrap().clone();
    metrics.sort_by_key(|metric| metric["resource"]["name"].as_str().unwrap().to_owned());
    assert_eq!(metrics, [cpu, memory]);
    assert_eq!(new["spec"]["behavior"], made["spec"]["behavior"]);
    assert!(new["metadata"].get("annotations").is_none(), "{new}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_requests_are_approved_by_whom_the_signer_allows() {
    let admin = Cluster::start().await;
    let all = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let request = |organization: &str| {
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "r"},
            "spec": {"request": stubs::certificate_request(organization), "signerName": "kubernetes.io/kube-apiserver-client",
                "usages": ["client auth"]}})
    };
    let (status, answer) = admin.json("POST", all, &request("system:masters")).await;
    assert_eq!(status, 403);
    assert!(answer["message"].as_str().unwrap().ends_with(
        "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
    ));
    let (status, made) = admin.json("POST", all, &request("team")).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(made["spec"]["username"], "admin");

    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let mut rules = vec![json!({"verbs": ["get", "patch"], "apiGroups": ["certificates.k8s.io"],
        "resources": ["certificatesigningrequests/approval"]})];
    let role = |rules: &[Value]| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "approver"},
            "rules": rules})
    };
    let (status, _) = admin.json("POST", &format!("{rbac}/clusterroles"), &role(&rules)).await;
    assert_eq!(status, 201);
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "approver"}, "subjects": [{"kind": "User", "name": "bob"}],
        "roleRef": {"kind": "ClusterRole", "name": "approver", "apiGroup": "rbac.authorization.k8s.io"}});
    let (status, _) = admin.json("POST", &format!("{rbac}/clusterrolebindings"), &binding).await;
    assert_eq!(status, 201);

    let bob = admin.as_user("bob");
    let approval =
        json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "Fine"}]}});
    let path = format!("{all}/r/approval");
    let patch = async || {
        // rights come through a watch, a moment after the role
        for _ in 0..50 {
            let (status, answer) = bob.json("PATCH", &path, &approval).await;
            let allowed = !answer["message"].as_str().unwrap_or_default().contains("cannot patch resource");
            if allowed {
                return (status, answer);
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("bob may not patch");
    };
    let (status, answer) = patch().await;
    assert_eq!(status, 403, "{answer}");
    assert!(answer["message"].as_str().unwrap().ends_with(
        "user not permitted to approve requests with signerName \"kubernetes.io/kube-apiserver-client\""
    ));
    rules.push(json!({"verbs": ["approve"], "apiGroups": ["certificates.k8s.io"], "resources": ["signers"],
        "resourceNames": ["kubernetes.io/*"]}));
    let (status, _) = admin.json("PUT", &format!("{rbac}/clusterroles/approver"), &role(&rules)).await;
    assert_eq!(status, 200);
    let approved = async {
        while patch().await.0 != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), approved).await.unwrap();
    let got = admin.get(&format!("{all}/r")).await;
    assert_eq!(got["status"]["conditions"][0]["type"], "Approved");
}

/// Labels of a Job's own that the server gives to its pods become those of the Job when it is read.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_has_the_defaults_that_reads_find() {
    let admin = Cluster::start().await;
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let job = json!({"metadata": {"name": "j"}, "spec": {"template":
        {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
    let names = |job: &Value| job["metadata"]["labels"]["batch.kubernetes.io/job-name"].clone();
    let (status, tried) = admin.json("POST", &format!("{jobs}?dryRun=All"), &job).await;
    assert_eq!((status, names(&tried)), (201, json!("j")), "{tried}");
    let (status, made) = admin.json("POST", jobs, &job).await;
    assert_eq!((status, names(&made)), (201, json!("j")), "{made}");
    assert_eq!(admin.get(&format!("{jobs}/j")).await, made);
    let (_, bytes) = admin.send("GET", &format!("{jobs}/j"), JSON, PROTOBUF, Vec::new()).await;
    let schema = Schema::builtin("k8s.io.api.batch.v1", "Job").unwrap();
    let read = apimachinery::codec::decode_protobuf(&bytes, &schema).unwrap();
    assert_eq!(names(read.as_value()), "j");
    let found = admin.get(&format!("{jobs}?labelSelector=job-name%3Dj")).await;
    assert_eq!(found["items"][0]["metadata"], made["metadata"], "{found}");
}
