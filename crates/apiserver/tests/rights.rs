//! Who may do what: by roles, as a node, with a token that is bound to something.

mod common;

use std::time::Duration;

use apiserver::AdmissionOptions;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use common::tokens::{account, claims};
use common::{Answer, Cluster};
use serde_json::{Value, json};

async fn cluster() -> Cluster {
    let options = AdmissionOptions::new(&[], &["ServiceAccount".to_owned()], None).unwrap();
    Cluster::start_in(tempfile::tempdir().unwrap(), |config| config.admission = options).await
}

async fn made(cluster: &Cluster, uri: &str, body: Value) -> Value {
    let made = cluster.admin("POST", uri, body).await;
    assert_eq!(made.code, 201, "{uri}: {}", made.body);
    made.body
}

/// A role for the whole cluster.
async fn role(cluster: &Cluster, name: &str, verbs: &[&str], group: &str, resource: &str) {
    let rule = json!({"verbs": verbs, "apiGroups": [group], "resources": [resource]});
    let role = json!({"metadata": {"name": name}, "rules": [rule]});
    made(cluster, "/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await;
}

/// Gives a role to users: in a namespace or, where none is named, everywhere.
async fn bind(cluster: &Cluster, role: &str, namespace: &str, users: &[&str]) {
    let subjects: Vec<Value> = users
        .iter()
        .map(|user| json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}))
        .collect();
    let to = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role});
    let binding = json!({"metadata": {"name": role}, "subjects": subjects, "roleRef": to});
    let root = "/apis/rbac.authorization.k8s.io/v1";
    let uri = match namespace {
        "" => format!("{root}/clusterrolebindings"),
        _ => format!("{root}/namespaces/{namespace}/rolebindings"),
    };
    made(cluster, &uri, binding).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gives_rights_that_they_do_not_have() {
    const RBAC: &str = "rbac.authorization.k8s.io";
    let cluster = cluster().await;
    for namespace in ["jobs", "other"] {
        made(&cluster, "/api/v1/namespaces", json!({"metadata": {"name": namespace}})).await;
    }
    role(&cluster, "write-jobs", &["*"], "batch", "*").await;
    role(&cluster, "create-bindings", &["create"], RBAC, "rolebindings").await;
    role(&cluster, "bind", &["bind"], RBAC, "clusterroles").await;
    bind(&cluster, "write-jobs", "", &["writer"]).await;
    bind(&cluster, "create-bindings", "", &["writer", "giver", "any-giver"]).await;
    bind(&cluster, "bind", "", &["any-giver"]).await;
    bind(&cluster, "write-jobs", "jobs", &["local-writer"]).await;
    bind(&cluster, "create-bindings", "jobs", &["local-writer", "local-giver"]).await;
    bind(&cluster, "bind", "jobs", &["local-giver"]).await;

    let job = json!({"metadata": {"name": "pi"}, "spec": {"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
    let given = json!({"metadata": {"name": "pi"},
        "subjects": [{"kind": "User", "apiGroup": RBAC, "name": "someone"}],
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "write-jobs"}});
    for (user, namespace, on_jobs, on_bindings) in [
        ("nobody", "jobs", 403, 403),
        ("nobody", "other", 403, 403),
        ("writer", "jobs", 201, 201),
        ("writer", "other", 201, 201),
        ("local-writer", "jobs", 201, 201),
        ("local-writer", "other", 403, 403),
        ("giver", "jobs", 403, 403),
        ("any-giver", "jobs", 403, 201),
        ("any-giver", "other", 403, 201),
        ("local-giver", "jobs", 403, 201),
        ("local-giver", "other", 403, 403),
    ] {
        let root = format!("namespaces/{namespace}");
        for (uri, body, code) in [
            (format!("/apis/batch/v1/{root}/jobs"), &job, on_jobs),
            (format!("/apis/{RBAC}/v1/{root}/rolebindings"), &given, on_bindings),
        ] {
            let answer = cluster.ask(user, &[], "POST", &uri, body.clone(), &[]).await;
            assert_eq!(answer.code, code, "{user} {uri}: {}", answer.body);
            let removed = cluster
                .admin("DELETE", &format!("{uri}/pi"), json!({"propagationPolicy": "Background"}))
                .await;
            assert_eq!(removed.code, if code == 201 { 200 } else { 404 }, "{user} {uri}");
        }
    }
}

/// What nodes ask for, one request a line: a name, then its method, address and body.
fn requests(node2: &Value) -> Vec<(&'static str, &'static str, &'static str, Value)> {
    let containers = json!([{"name": "c", "image": "i"}]);
    let normal = json!({"metadata": {"name": "normal"}, "spec": {"nodeName": "node2", "containers": containers,
        "volumes": [
            {"name": "s", "secret": {"secretName": "mine"}},
            {"name": "m", "configMap": {"name": "mine"}},
            {"name": "c", "persistentVolumeClaim": {"claimName": "mine"}}]}});
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "node2", "uid": node2["metadata"]["uid"],
        "controller": true});
    let mirror = json!({"metadata": {"name": "mirror", "annotations": {"kubernetes.io/config.mirror": "x"},
        "ownerReferences": [owner]}, "spec": {"nodeName": "node2", "containers": containers}});
    let eviction = |name: &str| json!({"metadata": {"name": name, "namespace": "default"}});
    let now = json!({"gracePeriodSeconds": 0});
    vec![
        ("secret", "GET", "/api/v1/namespaces/default/secrets/mine", Value::Null),
        ("secret of volume", "GET", "/api/v1/namespaces/default/secrets/of-volume", Value::Null),
        ("map", "GET", "/api/v1/namespaces/default/configmaps/mine", Value::Null),
        ("claim", "GET", "/api/v1/namespaces/default/persistentvolumeclaims/mine", Value::Null),
        ("volume", "GET", "/api/v1/persistentvolumes/mine", Value::Null),
        ("make normal", "POST", "/api/v1/namespaces/default/pods", normal),
        (
            "status of normal",
            "PATCH",
            "/api/v1/namespaces/default/pods/normal/status",
            json!({"status": {"reason": "r"}}),
        ),
        ("delete normal", "DELETE", "/api/v1/namespaces/default/pods/normal", now.clone()),
        ("evict normal", "POST", "/api/v1/namespaces/default/pods/normal/eviction", eviction("normal")),
        ("make mirror", "POST", "/api/v1/namespaces/default/pods", mirror),
        ("delete mirror", "DELETE", "/api/v1/namespaces/default/pods/mirror", now),
        ("evict mirror", "POST", "/api/v1/namespaces/default/pods/mirror/eviction", eviction("mirror")),
        ("status of node", "PATCH", "/api/v1/nodes/node2/status", json!({"status": {"images": []}})),
        ("delete node", "DELETE", "/api/v1/nodes/node2", Value::Null),
        (
            "make lease",
            "POST",
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
            json!({"metadata": {"name": "node2"}}),
        ),
        (
            "get lease",
            "GET",
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node2",
            Value::Null,
        ),
        (
            "delete lease",
            "DELETE",
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node2",
            Value::Null,
        ),
        (
            "make csi node",
            "POST",
            "/apis/storage.k8s.io/v1/csinodes",
            json!({"metadata": {"name": "node2"}, "spec": {"drivers": []}}),
        ),
        ("delete csi node", "DELETE", "/apis/storage.k8s.io/v1/csinodes/node2", Value::Null),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_see_what_their_pods_name_and_change_what_is_their_own() {
    let cluster = cluster().await;
    for name in ["mine", "of-volume"] {
        made(&cluster, "/api/v1/namespaces/default/secrets", json!({"metadata": {"name": name}})).await;
    }
    made(&cluster, "/api/v1/namespaces/default/configmaps", json!({"metadata": {"name": "mine"}})).await;
    let one = json!({"requests": {"storage": "1"}});
    let claim = json!({"metadata": {"name": "mine"}, "spec": {"accessModes": ["ReadOnlyMany"], "resources": one,
        "volumeName": "mine"}});
    made(&cluster, "/api/v1/namespaces/default/persistentvolumeclaims", claim).await;
    let source = json!({"driver": "d", "volumeHandle": "h",
        "nodePublishSecretRef": {"name": "of-volume", "namespace": "default"}});
    let volume = json!({"metadata": {"name": "mine"}, "spec": {"accessModes": ["ReadOnlyMany"],
        "capacity": {"storage": "1"}, "claimRef": {"namespace": "default", "name": "mine"}, "csi": source}});
    made(&cluster, "/api/v1/persistentvolumes", volume).await;
    for name in ["node1", "node2"] {
        made(&cluster, "/api/v1/nodes", json!({"metadata": {"name": name}})).await;
    }
    let node2 = cluster.admin("GET", "/api/v1/nodes/node2", Value::Null).await.body;
    let requests = requests(&node2);
    let ask = async |user: &str, what: &str| -> Answer {
        let (_, method, uri, body) = requests.iter().find(|(name, ..)| *name == what).expect(what);
        if user == "admin" {
            return cluster.admin(method, uri, body.clone()).await;
        }
        cluster.ask(user, &["system:nodes", "system:authenticated"], method, uri, body.clone(), &[]).await
    };
    const NAMED: [&str; 5] = ["secret", "secret of volume", "map", "claim", "volume"];
    let unknown = "someone";
    let (first, second) = ("system:node:node1", "system:node:node2");
    // nothing is anybody's yet
    for (name, ..) in &requests {
        let answer = ask(unknown, name).await;
        assert_eq!(answer.code, 403, "{name}: {}", answer.body);
    }
    for name in NAMED {
        for user in [first, second] {
            assert_eq!(ask(user, name).await.code, 403, "{user} {name}");
        }
    }
    for (user, name, code) in [
        (first, "make normal", 403),
        (first, "make mirror", 403),
        (first, "delete mirror", 404),
        (first, "evict mirror", 404),
        (first, "status of node", 403),
        (first, "delete node", 403),
        (first, "make lease", 403),
        (first, "make csi node", 403),
        (second, "make normal", 403),
        (second, "make mirror", 201),
        (second, "delete mirror", 200),
        (second, "make mirror", 201),
        (second, "evict mirror", 201),
        (second, "status of node", 200),
        (second, "delete node", 403),
        (second, "make lease", 201),
        (first, "get lease", 403),
        (first, "delete lease", 403),
        (second, "get lease", 200),
        (second, "delete lease", 200),
        (second, "make csi node", 201),
        (first, "delete csi node", 403),
        (second, "delete csi node", 200),
        ("admin", "make normal", 201),
    ] {
        let answer = ask(user, name).await;
        assert_eq!(answer.code, code, "{user} {name}: {}", answer.body);
    }
    // what is named by its pods is seen by a node, soon
    for name in NAMED {
        let mut tries = 0;
        while ask(second, name).await.code != 200 {
            tries += 1;
            assert!(tries < 500, "{name}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for user in [unknown, first] {
            assert_eq!(ask(user, name).await.code, 403, "{user} {name}");
        }
    }
    for (user, name, code) in [
        (unknown, "status of normal", 403),
        (unknown, "delete normal", 403),
        (unknown, "evict normal", 403),
        (first, "status of normal", 403),
        (first, "delete normal", 403),
        (first, "evict normal", 403),
        (second, "make normal", 403),
        (second, "status of normal", 200),
        (second, "delete normal", 200),
        ("admin", "make normal", 201),
        (second, "evict normal", 201),
    ] {
        let answer = ask(user, name).await;
        assert_eq!(answer.code, code, "{user} {name}: {}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_write_nothing_that_lets_them_do_more() {
    let cluster = cluster().await;
    let node = made(&cluster, "/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await;
    let ask = async |method: &str, uri: &str, body: &Value| -> Answer {
        cluster.ask("system:node:n1", &["system:nodes"], method, uri, body.clone(), &[]).await
    };
    let pods = "/api/v1/namespaces/default/pods";
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": node["metadata"]["uid"],
        "controller": true});
    let mirror = json!({"metadata": {"name": "m", "annotations": {"kubernetes.io/config.mirror": "x"},
        "ownerReferences": [owner]}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    let with = |pointer: &str, value: Value| {
        let mut pod = mirror.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        pod.pointer_mut(parent).unwrap()[key] = value;
        pod
    };
    let owned = |key: &str, value: Value| {
        let mut owner = owner.clone();
        owner[key] = value;
        with("/metadata/ownerReferences", json!([owner]))
    };
    let own = "can only create pods with an owner reference set to itself";
    let volume = |source: Value| {
        let mut volume = source;
        volume["name"] = "v".into();
        with("/spec/volumes", json!([volume]))
    };
    let environment =
        |source: Value| with("/spec/containers", json!([{"name": "c", "image": "i", "envFrom": [source]}]));
    let bundle = json!({"clusterTrustBundle": {"name": "b", "path": "p"}});
    let claims = json!([{"name": "d", "resourceClaimName": "d"}]);
    for (pod, why) in [
        (with("/metadata/annotations", json!({})), "can only create mirror pods"),
        (with("/spec/nodeName", "other".into()), "can only create pods with spec.nodeName set to itself"),
        (with("/metadata/ownerReferences", json!([])), own),
        (owned("name", "other".into()), own),
        (owned("controller", false.into()), "with a controller owner reference set to itself"),
        (owned("blockOwnerDeletion", true.into()), "must not set blockOwnerDeletion on an owner reference"),
        (owned("uid", "other".into()), "UID mismatch: expected other got "),
        (with("/spec/serviceAccountName", "a".into()), "reference a service account"),
        (with("/spec/imagePullSecrets", json!([{"name": "s"}])), "reference secrets"),
        (environment(json!({"secretRef": {"name": "s"}})), "reference secrets"),
        (volume(json!({"secret": {"secretName": "s"}})), "reference secrets"),
        (environment(json!({"configMapRef": {"name": "s"}})), "reference configmaps"),
        (volume(json!({"configMap": {"name": "s"}})), "reference configmaps"),
        (volume(json!({"projected": {"sources": [bundle]}})), "reference clustertrustbundles"),
        (volume(json!({"persistentVolumeClaim": {"claimName": "s"}})), "reference persistentvolumeclaims"),
        (with("/spec/resourceClaims", claims), "reference resourceclaims"),
    ] {
        let refused = ask("POST", pods, &pod).await;
        assert_eq!(refused.code, 403, "{why}: {}", refused.body);
        assert!(refused.message().contains(why), "{why}: {}", refused.message());
    }
    assert_eq!(ask("POST", pods, &mirror).await.code, 201);
    let status = format!("{pods}/m/status");
    let claims = json!({"status": {"resourceClaimStatuses": [{"name": "d", "resourceClaimName": "d"}]}});
    for (change, why) in [
        (json!({"metadata": {"labels": {"a": "b"}}}), "cannot update labels through pod status"),
        (claims, "cannot update resource claim statues"),
    ] {
        let refused = ask("PATCH", &status, &change).await;
        assert_eq!(refused.code, 403, "{why}: {}", refused.body);
        assert!(refused.message().contains(why), "{}", refused.message());
    }
    assert_eq!(ask("PATCH", &status, &json!({"status": {"phase": "Running"}})).await.code, 200);

    let one = json!({"requests": {"storage": "1"}});
    let claim =
        json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": one}});
    made(&cluster, "/api/v1/namespaces/default/persistentvolumeclaims", claim).await;
    let uses = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1",
        "containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}});
    made(&cluster, pods, uses).await;
    let claim = "/api/v1/namespaces/default/persistentvolumeclaims/c";
    for tries in 0.. {
        if ask("GET", claim, &Value::Null).await.code == 200 {
            break;
        }
        assert!(tries < 500);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let status = format!("{claim}/status");
    for change in [json!({"metadata": {"labels": {"a": "b"}}}), json!({"status": {"phase": "Bound"}})] {
        let refused = ask("PATCH", &status, &change).await;
        assert_eq!(refused.code, 403, "{change}: {}", refused.body);
        assert!(
            refused.message().contains("not allowed to update fields other than"),
            "{}",
            refused.message()
        );
    }
    let capacity = json!({"status": {"capacity": {"storage": "2"}}});
    let changed = ask("PATCH", &status, &capacity).await;
    assert_eq!(changed.code, 200, "{}", changed.body);

    let slices = "/apis/resource.k8s.io/v1/resourceslices";
    let pool = json!({"name": "p", "generation": 1, "resourceSliceCount": 1});
    for (node, code) in [("other", 403), ("n1", 201)] {
        let spec = json!({"driver": "d.example.com", "pool": pool, "nodeName": node});
        let slice = json!({"metadata": {"name": format!("s-{node}")}, "spec": spec});
        let answer = ask("POST", slices, &slice).await;
        assert_eq!(answer.code, code, "{node}: {}", answer.body);
    }
    let node = "/api/v1/nodes/n1";
    let taints = json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
    for (change, why) in [
        (taints, "is not allowed to modify taints"),
        (json!({"metadata": {"labels": {"node-restriction.kubernetes.io/a": "b"}}}), "modify labels"),
        (json!({"metadata": {"ownerReferences": [owner]}}), "is not allowed to modify ownerReferences"),
    ] {
        let refused = ask("PATCH", node, &change).await;
        assert_eq!(refused.code, 403, "{why}: {}", refused.body);
        assert!(refused.message().contains(why), "{}", refused.message());
    }
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    for (name, code) in [("system:node:n2", 403), ("system:node:n1", 201)] {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        let request = json!({"metadata": {"generateName": "r-"}, "spec": {
            "signerName": "kubernetes.io/kubelet-serving", "request": BASE64_STANDARD.encode(pem),
            "usages": ["digital signature", "server auth"]}});
        let answer = ask("POST", requests, &request).await;
        assert_eq!(answer.code, code, "{name}: {}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_ask_tokens_for_those_whom_pods_name() {
    let cluster = cluster().await;
    account(&cluster, "a").await;
    made(&cluster, "/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await;
    let tokens = json!([{"audience": "of-driver"}, {"audience": "of-inline"}]);
    for (name, tokens) in [("claimed", &tokens[0]), ("inline", &tokens[1])] {
        let driver = json!({"metadata": {"name": name}, "spec": {"tokenRequests": [tokens],
            "volumeLifecycleModes": ["Persistent", "Ephemeral"]}});
        made(&cluster, "/apis/storage.k8s.io/v1/csidrivers", driver).await;
    }
    let one = json!({"requests": {"storage": "1"}});
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": one,
        "volumeName": "v"}});
    made(&cluster, "/api/v1/namespaces/default/persistentvolumeclaims", claim).await;
    let volume = json!({"metadata": {"name": "v"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1"}, "csi": {"driver": "claimed", "volumeHandle": "h"}}});
    made(&cluster, "/api/v1/persistentvolumes", volume).await;
    let sources = json!([{"serviceAccountToken": {"path": "a"}},
        {"serviceAccountToken": {"path": "b", "audience": "projected"}}]);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "serviceAccountName": "a",
        "containers": [{"name": "c", "image": "i"}], "volumes": [
            {"name": "t", "projected": {"sources": sources}},
            {"name": "c", "persistentVolumeClaim": {"claimName": "c"}},
            {"name": "i", "csi": {"driver": "inline"}}]}});
    let pod = made(&cluster, "/api/v1/namespaces/default/pods", pod).await;
    let bound = json!({"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": pod["metadata"]["uid"]});
    let ask = async |audiences: &Value| -> Answer {
        let request = json!({"spec": {"audiences": audiences, "boundObjectRef": bound}});
        let uri = "/api/v1/namespaces/default/serviceaccounts/a/token";
        cluster.ask("system:node:n1", &["system:nodes"], "POST", uri, request, &[]).await
    };
    // the authorizer sees the pod soon
    for tries in 0.. {
        if ask(&json!([])).await.code == 201 {
            break;
        }
        assert!(tries < 500);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for audience in ["projected", "of-driver", "of-inline"] {
        let issued = ask(&json!([audience])).await;
        assert_eq!(issued.code, 201, "{audience}: {}", issued.body);
    }
    let refused = ask(&json!(["projected", "of-driver"])).await;
    assert!(refused.message().ends_with("node may only request 0 or 1 audiences"), "{}", refused.message());
    let refused = ask(&json!(["other"])).await;
    assert_eq!(refused.code, 403, "{}", refused.body);
    assert!(
        refused.message().ends_with(
            "audience \"other\" not found in pod spec volume, system:node:n1 is not authorized to request tokens \
             for this audience"
        ),
        "{}",
        refused.message()
    );
    role(&cluster, "ask", &["request-serviceaccounts-token-audience"], "", "other").await;
    bind(&cluster, "ask", "", &["system:node:n1"]).await;
    let issued = ask(&json!(["other"])).await;
    assert_eq!(issued.code, 201, "{}", issued.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_last_as_long_as_what_they_are_bound_to() {
    let cluster = cluster().await;
    let tokens = "/api/v1/namespaces/default/serviceaccounts/a/token";
    let of = |kind: &str, name: &str, uid: Option<&str>| {
        let mut bound = json!({"kind": kind, "apiVersion": "v1", "name": name});
        if let Some(uid) = uid {
            bound["uid"] = uid.into();
        }
        json!({"spec": {"boundObjectRef": bound}})
    };
    let review = async |token: &str| -> Value {
        let review = json!({"spec": {"token": token}});
        cluster.admin("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review).await.body["status"]
            .clone()
    };
    let pod = |name: &str, account: &str| {
        json!({"metadata": {"name": name},
            "spec": {"serviceAccountName": account, "containers": [{"name": "c", "image": "i"}]}})
    };
    assert_eq!(cluster.admin("POST", tokens, of("Pod", "p", None)).await.code, 404, "no account");
    account(&cluster, "a").await;
    for kind in ["Pod", "Secret", "Node"] {
        let name = kind.to_lowercase();
        let plural = format!("{name}s");
        let collection = match kind {
            "Node" => "/api/v1/nodes".to_owned(),
            _ => format!("/api/v1/namespaces/default/{plural}"),
        };
        let object = if kind == "Pod" { pod(&name, "a") } else { json!({"metadata": {"name": name}}) };
        let refused = cluster.admin("POST", tokens, of(kind, &name, None)).await;
        assert_eq!(refused.code, 404, "{kind} that is not there: {}", refused.body);
        let first = made(&cluster, &collection, object.clone()).await;
        let uid = first["metadata"]["uid"].as_str().unwrap();
        let refused = cluster.admin("POST", tokens, of(kind, &name, Some("wrong"))).await;
        assert_eq!(refused.code, 409, "another {kind}: {}", refused.body);
        for asked in [Some(uid), None] {
            let issued = cluster.admin("POST", tokens, of(kind, &name, asked)).await;
            assert_eq!(issued.code, 201, "{kind}: {}", issued.body);
            let claims = claims(issued.body["status"]["token"].as_str().unwrap());
            let bound = &claims["kubernetes.io"];
            assert_eq!(claims["sub"], "system:serviceaccount:default:a");
            assert_eq!(bound["namespace"], "default");
            assert_eq!(bound["serviceaccount"]["name"], "a");
            for other in ["pod", "secret", "node"] {
                let expected = if other == name { name.as_str().into() } else { Value::Null };
                assert_eq!(bound[other]["name"], expected, "{kind} {other}");
            }
        }
        let issued = cluster.admin("POST", tokens, of(kind, &name, None)).await.body;
        let token = issued["status"]["token"].as_str().unwrap();
        let status = review(token).await;
        assert_eq!(status["authenticated"], true, "{kind}: {status}");
        if kind != "Secret" {
            let extra = &status["user"]["extra"];
            let key = |what: &str| format!("authentication.kubernetes.io/{name}-{what}");
            assert_eq!(extra[key("name")], json!([name]), "{extra}");
            assert_eq!(extra[key("uid")], json!([uid]), "{extra}");
        }
        // one of the same name is another
        for again in [false, true] {
            if again {
                made(&cluster, &collection, object.clone()).await;
            } else {
                let gone = cluster
                    .admin("DELETE", &format!("{collection}/{name}"), json!({"gracePeriodSeconds": 0}))
                    .await;
                assert_eq!(gone.code, 200, "{kind}");
            }
            let status = review(token).await;
            assert_ne!(status["authenticated"], true, "{kind}: {status}");
            assert!(!status["error"].as_str().unwrap_or_default().is_empty(), "{kind}: {status}");
        }
    }
    made(&cluster, "/api/v1/namespaces/default/pods", pod("of-other", "other")).await;
    let refused = cluster.admin("POST", tokens, of("Pod", "of-other", None)).await;
    assert_eq!(refused.code, 400, "a pod of another account: {}", refused.body);
    // with another audience it is none of the server's, without one it is
    for (audiences, is_good) in [(json!(["other"]), false), (json!([]), true)] {
        let issued = cluster.admin("POST", tokens, json!({"spec": {"audiences": audiences}})).await.body;
        let status = review(issued["status"]["token"].as_str().unwrap()).await;
        assert_eq!(status["authenticated"] == true, is_good, "{status}");
    }
    let issued = cluster.admin("POST", tokens, json!({"spec": {}})).await.body;
    let token = issued["status"]["token"].as_str().unwrap();
    assert_eq!(review(token).await["authenticated"], true);
    cluster.admin("DELETE", "/api/v1/namespaces/default/serviceaccounts/a", Value::Null).await;
    assert_ne!(review(token).await["authenticated"], true);
}
