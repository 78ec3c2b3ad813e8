//! Pods as the API server alone sees them.

mod common;

use apiserver::RequestOptions;
use common::Cluster;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";

async fn cluster() -> Cluster {
    let cluster = Cluster::start(RequestOptions::default()).await;
    cluster.admin("POST", ACCOUNTS, json!({"metadata": {"name": "default"}})).await;
    cluster
}

fn pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn sysctls_have_the_form_of_names() {
    let cluster = cluster().await;
    let sysctls =
        ["foo-", "kernel.shmmax", "safe-and-unsafe", "bar.."].map(|name| json!({"name": name, "value": "1"}));
    let refused =
        cluster.admin("POST", PODS, pod("p", json!({"securityContext": {"sysctls": sysctls}}))).await;
    assert_eq!(refused.code, 422);
    for (index, name) in [(0, "foo-"), (3, "bar..")] {
        let said = format!("spec.securityContext.sysctls[{index}].name: Invalid value: \"{name}\": ");
        assert!(refused.message().contains(&said), "{refused:?}");
    }
    for name in ["kernel.shmmax", "safe-and-unsafe"] {
        assert!(!refused.message().contains(name), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_mounted_unless_the_pod_or_its_account_says_no() {
    let cluster = cluster().await;
    for (name, automount) in [("unsaid", Value::Null), ("mount", json!(true)), ("nomount", json!(false))] {
        let account = json!({"metadata": {"name": name}, "automountServiceAccountToken": automount});
        assert_eq!(cluster.admin("POST", ACCOUNTS, account).await.code, 201);
    }
    for (account, by_account) in [("unsaid", true), ("mount", true), ("nomount", false)] {
        for (of_pod, mounts) in [(Value::Null, by_account), (json!(true), true), (json!(false), false)] {
            let name = format!("{account}-{of_pod}");
            let spec = json!({"serviceAccountName": account, "automountServiceAccountToken": of_pod});
            let created = cluster.admin("POST", PODS, pod(&name, spec)).await;
            assert_eq!(created.code, 201, "{created:?}");
            let mounted = created.body["spec"]["containers"][0]["volumeMounts"].as_array().cloned();
            let token = |mount: &Value| mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount";
            assert_eq!(mounted.unwrap_or_default().iter().any(token), mounts, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_with_inline_csi_volumes_are_kept() {
    let cluster = cluster().await;
    let driver =
        json!({"metadata": {"name": "inline.example.com"}, "spec": {"volumeLifecycleModes": ["Ephemeral"]}});
    assert_eq!(cluster.admin("POST", "/apis/storage.k8s.io/v1/csidrivers", driver).await.code, 201);
    let volume = json!({"driver": "inline.example.com", "readOnly": true, "fsType": "ext4", "volumeAttributes": {"a": "b"}});
    let spec = json!({"volumes": [{"name": "v", "csi": volume}]});
    assert_eq!(cluster.admin("POST", PODS, pod("p", spec)).await.code, 201);
    let uri = format!("{PODS}/p");
    let of_pod = |pod: &Value| pod["spec"]["volumes"][0]["csi"].clone();
    assert_eq!(of_pod(&cluster.admin("GET", &uri, Value::Null).await.body), volume);
    assert_eq!(of_pod(&cluster.admin("GET", PODS, Value::Null).await.body["items"][0]), volume);
    let patched = cluster.admin("PATCH", &uri, json!({"metadata": {"labels": {"patched": "yes"}}})).await;
    assert_eq!(
        (patched.code.as_u16(), &patched.body["metadata"]["labels"]),
        (200, &json!({"patched": "yes"}))
    );
    assert_eq!(cluster.admin("DELETE", &uri, Value::Null).await.code, 200);
    assert_eq!(cluster.admin("GET", &uri, Value::Null).await.code, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_access_to_devices_needs_a_namespace_that_allows_it() {
    let cluster = cluster().await;
    const WHY: &str = "admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace";
    let spec = json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu", "adminAccess": true}}]}});
    let claims = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
    let templates = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaimtemplates";
    let claim = json!({"metadata": {"name": "c"}, "spec": spec});
    let template = json!({"metadata": {"name": "t"}, "spec": {"spec": spec}});
    for (uri, object) in [(claims, &claim), (templates, &template)] {
        let refused = cluster.admin("POST", uri, object.clone()).await;
        assert_eq!(refused.code, 422, "{refused:?}");
        let cause = &refused.body["details"]["causes"][0];
        assert_eq!(
            (&cause["reason"], &cause["field"]),
            (&json!("FieldValueForbidden"), &json!("spec.devices.requests[0].adminAccess"))
        );
        assert_eq!(cause["message"], format!("Forbidden: {WHY}"));
    }
    let labels = json!({"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}});
    assert_eq!(cluster.admin("PATCH", "/api/v1/namespaces/default", labels).await.code, 200);
    for (uri, object) in [(claims, claim), (templates, template)] {
        assert_eq!(cluster.admin("POST", uri, object).await.code, 201);
    }
}
