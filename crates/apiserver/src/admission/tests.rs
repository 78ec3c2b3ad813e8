//! The chain through the whole server: what several plugins make of a write together.

use k8s_openapi::api::core::v1::{LimitRange, Namespace, Pod, ServiceAccount};
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::authentication::{SYSTEM_PRIVILEGED_GROUP, UserInfo};
use crate::testing;

fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}

async fn namespace(client: &kube::Client, name: &str, labels: Value) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let object = from(json!({"metadata": {"name": name, "labels": labels}}));
    namespaces.create(&PostParams::default(), &object).await.expect("a namespace");
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), name);
    let account = from(json!({"metadata": {"name": "default"}}));
    accounts.create(&PostParams::default(), &account).await.expect("an account");
}

fn message<T: std::fmt::Debug>(outcome: Result<T, kube::Error>) -> String {
    match outcome {
        Err(kube::Error::Api(status)) => format!("{} {}", status.code, status.message),
        other => panic!("{other:?}"),
    }
}

fn pod(name: &str, spec: Value) -> Pod {
    let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "a", "image": "i"}]}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    from(pod)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_meet_what_their_namespace_demands() {
    let stopping = CancellationToken::new();
    let (server, _folder) = testing::server(stopping.clone()).await;
    let client = crate::InProcess::client(server, UserInfo::new("root", &[SYSTEM_PRIVILEGED_GROUP]));
    namespace(&client, "strict", json!({"pod-security.kubernetes.io/enforce": "baseline"})).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "strict");
    let refused = pods.create(&PostParams::default(), &pod("p", json!({"hostNetwork": true}))).await;
    assert_eq!(
        message(refused),
        "403 pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
    );
    pods.create(&PostParams::default(), &pod("p", json!({}))).await.expect("a plain pod");
    let namespaces: Api<Namespace> = Api::all(client);
    let label = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "bad"}}});
    let wrong = namespaces.patch("strict", &PatchParams::default(), &Patch::Merge(label)).await;
    assert_eq!(
        message(wrong),
        "422 Namespace \"strict\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \
         \"bad\": must be one of privileged, baseline, restricted"
    );
    stopping.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_set_before_they_are_judged() {
    let stopping = CancellationToken::new();
    let (server, _folder) = testing::server(stopping.clone()).await;
    let client = crate::InProcess::client(server, UserInfo::new("root", &[SYSTEM_PRIVILEGED_GROUP]));
    namespace(&client, "small", json!({})).await;
    let ranges: Api<LimitRange> = Api::namespaced(client.clone(), "small");
    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": [{"type": "Container",
        "max": {"cpu": "1"}, "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}}]}});
    ranges.create(&PostParams::default(), &from(range)).await.expect("a range");
    let pods: Api<Pod> = Api::namespaced(client.clone(), "small");
    let made = pods.create(&PostParams::default(), &pod("p", json!({}))).await.expect("a pod");
    let resources = made.spec.expect("a spec").containers[0].resources.clone().expect("resources");
    let shown = serde_json::to_value(resources).expect("json");
    assert_eq!(shown, json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}}));
    let large = json!({"containers": [{"name": "a", "image": "i", "resources": {"limits": {"cpu": "2"}}}]});
    assert_eq!(
        message(pods.create(&PostParams::default(), &pod("q", large)).await),
        "403 pods \"q\" is forbidden: maximum cpu usage per Container is 1, but limit is 2"
    );
    let unknown = pod("v", json!({"runtimeClassName": "vm"}));
    assert_eq!(
        message(pods.create(&PostParams::default(), &unknown).await),
        "403 pods \"v\" is forbidden: pod rejected: RuntimeClass \"vm\" not found"
    );
    stopping.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_get_the_default_class() {
    let stopping = CancellationToken::new();
    let (server, _folder) = testing::server(stopping.clone()).await;
    let client = crate::InProcess::client(server, UserInfo::new("root", &[SYSTEM_PRIVILEGED_GROUP]));
    namespace(&client, "data", json!({})).await;
    let resource = |group: &str, kind: &str, plural: &str| kube::api::ApiResource {
        group: group.into(),
        version: "v1".into(),
        api_version: if group.is_empty() { "v1".into() } else { format!("{group}/v1") },
        kind: kind.into(),
        plural: plural.into(),
    };
    let classes: Api<DynamicObject> =
        Api::all_with(client.clone(), &resource("storage.k8s.io", "StorageClass", "storageclasses"));
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "example.com/x",
        "metadata": {"name": "gold", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}});
    classes.create(&PostParams::default(), &from(class)).await.expect("a class");
    let claims: Api<DynamicObject> = Api::namespaced_with(
        client,
        "data",
        &resource("", "PersistentVolumeClaim", "persistentvolumeclaims"),
    );
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let made = claims.create(&PostParams::default(), &from(claim)).await.expect("a claim");
    assert_eq!(made.data["spec"]["storageClassName"], "gold");
    let larger = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let outcome = claims.patch("c", &PatchParams::default(), &Patch::Merge(larger)).await;
    assert!(message(outcome).starts_with("4"), "a claim that is not bound does not grow");
    stopping.cancel();
}
