//! Admission plugins that run when they are asked for, configured by a file.

mod common;

use std::path::{Path, PathBuf};

use apiserver::AdmissionOptions;
use apiserver::pki::Profile;
use common::hook::{Hook, allows};
use common::{Answer, Cluster};
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const EVENTS: &str = "/api/v1/namespaces/default/events";

/// A configuration of these plugins, each by its name.
fn file(folder: &Path, plugins: Value) -> PathBuf {
    let plugins: Vec<Value> = plugins
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, configuration)| json!({"name": name, "configuration": configuration}))
        .collect();
    let whole = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration", "plugins": plugins,
    });
    let path = folder.join("admission.yaml");
    std::fs::write(&path, whole.to_string()).unwrap();
    path
}

async fn cluster(enable: &[&str], plugins: Value) -> Cluster {
    let folder = tempfile::tempdir().unwrap();
    let enable: Vec<String> = enable.iter().map(|name| (*name).to_owned()).collect();
    let options = AdmissionOptions::new(&enable, &[], Some(&file(folder.path(), plugins))).unwrap();
    let cluster = Cluster::start_in(tempfile::tempdir().unwrap(), |config| config.admission = options).await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = cluster.admin("POST", accounts, json!({"metadata": {"name": "default"}})).await;
    assert_eq!(account.code, 201, "{account:?}");
    cluster
}

async fn pod(cluster: &Cluster, name: &str, spec: Value) -> Answer {
    let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "a", "image": "i"}]}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    cluster.admin("POST", PODS, pod).await
}

async fn annotate(cluster: &Cluster, key: &str, value: Value) {
    let body = json!({"metadata": {"annotations": {key: value}}});
    let answer = cluster.admin("PATCH", "/api/v1/namespaces/default", body).await;
    assert_eq!(answer.code, 200, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_limited() {
    let limits = json!({
        "apiVersion": "eventratelimit.admission.k8s.io/v1alpha1", "kind": "Configuration",
        // one more comes after a day
        "limits": [{"type": "Namespace", "qps": 1, "burst": 2}, {"type": "User", "qps": 1, "burst": 100}],
    });
    let cluster = cluster(&["EventRateLimit"], json!({"EventRateLimit": limits})).await;
    let mut refused = None;
    for number in 0..50 {
        let event = json!({"metadata": {"name": format!("e{number}")}, "type": "Normal",
            "involvedObject": {"namespace": "default", "kind": "Pod", "name": "p"}});
        let answer = cluster.admin("POST", EVENTS, event).await;
        if answer.code != 201 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("one of fifty at once is too many");
    assert_eq!((refused.code.as_u16(), refused.body["reason"].as_str()), (429, Some("TooManyRequests")));
    assert_eq!(refused.message(), "Too many requests: limit reached on type Namespace for key default");
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_tolerate_what_their_namespace_lets_them() {
    let exists = |key: &str| json!({"key": key, "operator": "Exists"});
    let configuration = json!({
        "apiVersion": "podtolerationrestriction.admission.k8s.io/v1alpha1", "kind": "Configuration",
        "default": [exists("cluster")],
        "whitelist": [exists("cluster"), exists("node.kubernetes.io/not-ready"),
            exists("node.kubernetes.io/unreachable")],
    });
    let plugins = json!({"PodTolerationRestriction": configuration});
    let cluster = cluster(&["PodTolerationRestriction"], plugins).await;
    let made = pod(&cluster, "a", json!({})).await;
    assert_eq!(made.code, 201, "{made:?}");
    assert_eq!(made.body["spec"]["tolerations"][0], exists("cluster"));
    let refused = pod(&cluster, "b", json!({"tolerations": [exists("other")]})).await;
    assert_eq!(
        (refused.code.as_u16(), refused.message()),
        (
            500,
            "pod tolerations (possibly merged with namespace default tolerations) conflict with its cluster whitelist"
        )
    );
    let own = json!([exists("own")]).to_string();
    annotate(&cluster, "scheduler.alpha.kubernetes.io/defaultTolerations", json!(own)).await;
    annotate(&cluster, "scheduler.alpha.kubernetes.io/tolerationsWhitelist", json!("")).await;
    let made = pod(&cluster, "c", json!({"tolerations": [exists("other")]})).await;
    assert_eq!(made.code, 201, "{made:?}");
    assert_eq!(made.body["spec"]["tolerations"][0], exists("own"));
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_keep_their_pods_where_the_cluster_lets_them() {
    let selectors = json!({"podNodeSelectorPluginConfig": {
        "clusterDefaultNodeSelector": "pool=common", "default": "pool=common,disk=ssd",
    }});
    let cluster = cluster(&["PodNodeSelector"], json!({"PodNodeSelector": selectors})).await;
    let made = pod(&cluster, "a", json!({"nodeSelector": {"disk": "ssd"}})).await;
    assert_eq!(made.body["spec"]["nodeSelector"], json!({"disk": "ssd", "pool": "common"}), "{made:?}");
    for (selector, why) in [
        (json!({"disk": "hdd"}), "pod node label selector labels conflict with its namespace whitelist"),
        (json!({"zone": "a"}), "pod node label selector labels conflict with its namespace whitelist"),
        (json!({"pool": "x"}), "pod node label selector conflicts with its namespace node label selector"),
    ] {
        let refused = pod(&cluster, "b", json!({"nodeSelector": selector})).await;
        assert_eq!(refused.message(), format!("pods \"b\" is forbidden: {why}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn levels_and_quotas_are_configured() {
    let plugins = json!({
        "PodSecurity": {
            "apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
            "defaults": {"enforce": "baseline", "enforce-version": "latest"},
            "exemptions": {"usernames": ["trusted"]},
        },
        "ResourceQuota": {
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "ResourceQuotaConfiguration",
            "limitedResources": [{"resource": "secrets", "matchContains": ["count/secrets"]}],
        },
    });
    let cluster = cluster(&[], plugins).await;
    let host = json!({"hostNetwork": true});
    let refused = pod(&cluster, "a", host.clone()).await;
    assert!(refused.message().contains("violates PodSecurity \"baseline:latest\""), "{refused:?}");
    let body = json!({"metadata": {"name": "a"}, "spec": {"hostNetwork": true,
        "containers": [{"name": "a", "image": "i"}]}});
    let trusted = cluster.ask("trusted", &["system:masters"], "POST", PODS, body, &[]).await;
    assert_eq!(trusted.code, 201, "{trusted:?}");
    let secret =
        cluster.admin("POST", "/api/v1/namespaces/default/secrets", json!({"metadata": {"name": "s"}})).await;
    assert_eq!(secret.message(), "secrets \"s\" is forbidden: insufficient quota to consume: count/secrets");
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_are_named_by_those_who_may() {
    let cluster = cluster(&["OwnerReferencesPermissionEnforcement"], json!({})).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = |rules: Value| json!({"metadata": {"name": "writer"}, "rules": rules});
    let write = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "update"]});
    let made = cluster.admin("POST", &format!("{rbac}/clusterroles"), role(json!([write]))).await;
    assert_eq!(made.code, 201);
    let binding = json!({"metadata": {"name": "writer"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "writer"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]});
    assert_eq!(cluster.admin("POST", &format!("{rbac}/clusterrolebindings"), binding).await.code, 201);
    let map = |name: &str, blocks: bool, kind: &str| {
        json!({"metadata": {"name": name, "ownerReferences": [{"apiVersion": "apps/v1", "kind": kind,
            "name": "d", "uid": "u", "blockOwnerDeletion": blocks}]}})
    };
    let create = |body: Value| cluster.ask("jane", &[], "POST", maps, body, &[]);
    assert_eq!(create(json!({"metadata": {"name": "free"}})).await.code, 201, "without owners nobody asks");
    let refused = create(map("a", false, "Deployment")).await;
    assert_eq!(refused.code, 403);
    let start = "configmaps \"a\" is forbidden: cannot set an ownerRef on a resource you can't delete: ";
    assert!(refused.message().starts_with(start), "{refused:?}");
    let delete = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "delete"]});
    let grant = |rules: Value| {
        cluster.admin(
            "PATCH",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/writer",
            json!({"rules": rules}),
        )
    };
    assert_eq!(grant(json!([delete])).await.code, 200);
    assert_eq!(create(map("b", false, "Deployment")).await.code, 201);
    let refused = create(map("c", true, "Deployment")).await;
    let start = "configmaps \"c\" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: ";
    assert!(refused.message().starts_with(start), "{refused:?}");
    let refused = create(map("c", true, "Nothing")).await;
    assert!(
        refused.message().contains("no matches for kind \"Nothing\" in version \"apps/v1\""),
        "{refused:?}"
    );
    let finalize =
        json!({"apiGroups": ["apps"], "resources": ["deployments/finalizers"], "verbs": ["update"]});
    assert_eq!(grant(json!([delete, finalize])).await.code, 200);
    assert_eq!(create(map("c", true, "Deployment")).await.code, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_are_shown_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let pki = apiserver::pki::Pki::load_or_create(common::pki_options(folder.path())).unwrap();
    let hook = Hook::start(&pki, |_, _| allows()).await;
    let client = pki.issue(&Profile::client("apiserver", &[])).unwrap();
    let (certificate, key) = (folder.path().join("client.crt"), folder.path().join("client.key"));
    std::fs::write(&certificate, client.certificate_pem).unwrap();
    std::fs::write(&key, client.key_pem).unwrap();
    let kubeconfig = folder.path().join("hooks.kubeconfig");
    let users = json!({"apiVersion": "v1", "kind": "Config", "users": [{"name": hook.address.to_string(), "user": {
        "token": "secret", "client-certificate": certificate, "client-key": key,
    }}]});
    std::fs::write(&kubeconfig, users.to_string()).unwrap();
    let configuration = json!({"apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "WebhookAdmissionConfiguration", "kubeConfigFile": kubeconfig});
    let cluster = cluster(&[], json!({"ValidatingAdmissionWebhook": configuration})).await;
    for sort in ["validating", "mutating"] {
        let body = json!({"metadata": {"name": "h"}, "webhooks": [hook.webhook("h.example.com", "/")]});
        let uri = format!("/apis/admissionregistration.k8s.io/v1/{sort}webhookconfigurations");
        assert_eq!(cluster.admin("POST", &uri, body).await.code, 201);
    }
    let map = json!({"metadata": {"name": "m"}});
    let made = cluster.admin("POST", "/api/v1/namespaces/default/configmaps", map).await;
    assert_eq!(made.code, 201, "{made:?}");
    let callers = hook.callers.lock().unwrap().clone();
    assert_eq!(callers, [(false, String::new()), (true, "Bearer secret".to_owned())], "mutating, validating");
}
