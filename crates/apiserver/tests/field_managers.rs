//! Server-side apply over the server itself: what is written, what is left alone, and who stands in whose way.

mod common;

use std::time::Duration;

use apiserver::AdmissionOptions;
use common::managed::{entries, owned};
use common::stubs::{self, Stub};
use common::{Answer, Cluster};
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// Without accounts, which would be mounted into pods.
async fn cluster() -> Cluster {
    let options = AdmissionOptions::new(&[], &["ServiceAccount".to_owned()], None).unwrap();
    Cluster::start_in(tempfile::tempdir().unwrap(), |config| config.admission = options).await
}

fn ok(answer: Answer) -> Value {
    assert!(answer.code.is_success(), "{}", answer.body);
    answer.body
}

fn pod(labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": labels},
        "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
}

fn deployment(spec: Value, pod: Value) -> Value {
    let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "d", "labels": {"app": "a"}},
        "spec": {"selector": {"matchLabels": {"app": "a"}}, "template": {
            "metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    for (at, more) in [("/spec", spec), ("/spec/template/spec", pod)] {
        let part = object.pointer_mut(at).unwrap().as_object_mut().unwrap();
        part.extend(more.as_object().unwrap().clone());
    }
    object
}

fn set() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "s", "labels": {"app": "a"}},
        "spec": {"serviceName": "s", "selector": {"matchLabels": {"app": "a"}},
            "template": {"metadata": {"labels": {"app": "a"}, "annotations": {}}, "spec": {"containers": [
                {"name": "c", "image": "i", "resources": {"limits": {"memory": "2048Mi"}}}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "v"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}})
}

fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().expect("a version")
}

/// Until the clock of managed fields, which counts seconds, shows another time.
async fn a_second() {
    tokio::time::sleep(Duration::from_millis(1100)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_nothing_is_not_written() {
    let cluster = cluster().await;
    let sets = "/apis/apps/v1/namespaces/default/statefulsets";
    let mut nulls = map(json!({"a": "b"}));
    nulls["metadata"]["creationTimestamp"] = Value::Null;
    nulls["metadata"]["resourceVersion"] = Value::Null;
    let applied = [
        (format!("{PODS}/p"), pod(json!({"a": "1", "c": "2", "b": "3"}))),
        (format!("{sets}/s"), set()),
        (format!("{MAPS}/m"), nulls),
    ];
    let mut before = Vec::new();
    for (uri, object) in &applied {
        before.push(ok(cluster.apply(uri, "one", object).await));
    }
    let mut other = set();
    other["metadata"]["name"] = json!("t");
    let made = ok(cluster.admin("POST", sets, other.clone()).await);
    a_second().await;
    for ((uri, object), before) in applied.iter().zip(&before) {
        assert_eq!(ok(cluster.apply(uri, "one", object).await), *before);
        assert_eq!(ok(cluster.admin("PUT", uri, before.clone()).await), *before);
    }
    // what a client left to defaults, or wrote in another form
    assert_eq!(version(&ok(cluster.admin("PUT", &format!("{sets}/t"), other).await)), version(&made));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_struct_is_not_none() {
    let cluster = cluster().await;
    let mut with = pod(json!({}));
    with["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
    let mut without = with.clone();
    without["spec"]["volumes"] = json!([{"name": "v"}]);
    let first = ok(cluster.apply(&format!("{PODS}/p"), "one", &with).await);
    let second = ok(cluster.apply(&format!("{PODS}/p"), "one", &without).await);
    assert_ne!(version(&first), version(&second));
    assert_eq!(second["spec"]["volumes"], first["spec"]["volumes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_makes_an_object_names_no_uid_and_may_create() {
    let cluster = cluster().await;
    let uri = format!("{PODS}/p");
    let mut with_uid = pod(json!({}));
    with_uid["metadata"]["uid"] = json!("88e00824-7f0e-11e8-94a1-c8d3ffb15800");
    let answer = cluster.apply(&uri, "one", &with_uid).await;
    assert_eq!((answer.code.as_u16(), &answer.body["reason"]), (409, &json!("Conflict")), "{answer:?}");

    let asked = || async {
        let headers = [("content-type", "application/apply-patch+yaml")];
        let uri = format!("{uri}?fieldManager=one");
        cluster.ask("panda", &[], "PATCH", &uri, pod(json!({})), &headers).await
    };
    for verb in ["patch", "create"] {
        let answer = asked().await;
        let why = format!(
            "pods \"p\" is forbidden: User \"panda\" cannot {verb} resource \"pods\" in API group \"\" in the namespace \"default\""
        );
        assert_eq!((answer.code.as_u16(), answer.message()), (403, why.as_str()), "{answer:?}");
        assert_eq!(answer.body["details"], json!({"name": "p", "kind": "pods"}));
        let name = format!("may-{verb}");
        let role = json!({"metadata": {"name": name}, "rules": [
            {"apiGroups": [""], "resources": ["pods"], "verbs": [verb]}]});
        let rbac = "/apis/rbac.authorization.k8s.io/v1";
        ok(cluster.admin("POST", &format!("{rbac}/clusterroles"), role).await);
        let binding = json!({"metadata": {"name": name}, "subjects": [{"kind": "User", "name": "panda"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}});
        ok(cluster.admin("POST", &format!("{rbac}/namespaces/default/rolebindings"), binding).await);
    }
    assert_eq!(asked().await.code, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_are_named_and_can_be_overridden() {
    let cluster = cluster().await;
    let uri = format!("{DEPLOYMENTS}/d");
    let three = deployment(json!({"replicas": 3}), json!({}));
    ok(cluster.apply(&uri, "one", &three).await);
    ok(cluster.admin("PATCH", &uri, json!({"spec": {"replicas": 5}})).await);
    let refused = cluster.apply(&uri, "one", &three).await;
    assert_eq!(refused.code, 409, "{refused:?}");
    let causes = json!([{"reason": "FieldManagerConflict", "field": ".spec.replicas",
        "message": "conflict with \"test\" using apps/v1"}]);
    assert_eq!(refused.body["details"]["causes"], causes);
    let forced = ok(cluster.force_apply(&uri, "one", &three).await);
    assert_eq!(forced["spec"]["replicas"], 3);

    // a protocol that is the default is the same key as none
    let port = |name: &str, more: Value| {
        let mut port = json!({"name": name, "containerPort": 80});
        port.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        deployment(json!({}), json!({"containers": [{"name": "c", "image": "i", "ports": [port]}]}))
    };
    ok(cluster.apply(&uri, "two", &port("a", json!({}))).await);
    let refused = cluster.apply(&uri, "three", &port("b", json!({"protocol": "TCP"}))).await;
    assert_eq!(refused.body["details"]["causes"].as_array().map(Vec::len), Some(1), "{refused:?}");

    let mut other = three;
    other["apiVersion"] = json!("extensions/v1beta");
    assert_eq!(cluster.apply(&uri, "one", &other).await.code, 400);
    let headers = [("content-type", "application/apply-patch+yaml")];
    let uri = format!("{MAPS}/m");
    let nobody = cluster.ask("admin", &["system:masters"], "PATCH", &uri, map(json!({})), &headers).await;
    let why =
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
    assert_eq!((nobody.code.as_u16(), nobody.message()), (422, why));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_owner_leaves_out_goes_where_nobody_else_has_it() {
    let cluster = cluster().await;
    let uri = format!("{DEPLOYMENTS}/d");
    let whole = deployment(json!({"replicas": 3}), json!({"hostname": "h"}));
    let less = deployment(json!({}), json!({}));
    let shown = |object: Value| {
        (object["spec"]["replicas"].clone(), object["spec"]["template"]["spec"]["hostname"].clone())
    };
    ok(cluster.apply(&uri, "one", &whole).await);
    assert_eq!(shown(ok(cluster.apply(&uri, "one", &less).await)), (json!(1), Value::Null));
    for manager in ["one", "two"] {
        ok(cluster.force_apply(&uri, manager, &whole).await);
    }
    assert_eq!(shown(ok(cluster.apply(&uri, "one", &less).await)), (json!(3), json!("h")));
    assert_eq!(shown(ok(cluster.apply(&uri, "two", &less).await)), (json!(1), Value::Null));

    // a controller that has taken a field over keeps it
    let mut object = ok(cluster.apply(&uri, "one", &whole).await);
    object["spec"]["replicas"] = json!(4);
    object["spec"]["template"]["spec"]["containers"][0]["workingDir"] = json!("/w");
    ok(cluster.admin("PUT", &format!("{uri}?fieldManager=controller"), object).await);
    assert_eq!(ok(cluster.apply(&uri, "one", &less).await)["spec"]["replicas"], 4);
    // but not an item of a list that somebody else put there
    for manager in ["one", "two"] {
        let other = json!({"containers": [{"name": "other", "image": "i"}]});
        let object = ok(cluster.force_apply(&uri, manager, &deployment(json!({}), other)).await);
        let containers = object["spec"]["template"]["spec"]["containers"].as_array().unwrap().clone();
        let names: Vec<&str> = containers.iter().map(|c| c["name"].as_str().unwrap()).collect();
        let expected: &[&str] = if manager == "one" { &["other", "c"] } else { &["other"] };
        assert_eq!(names.len(), expected.len(), "{names:?}");
    }

    let ports = |ports: Value| {
        let container = json!({"name": "other", "image": "i", "ports": ports});
        deployment(json!({}), json!({"containers": [container]}))
    };
    ok(cluster.apply(&uri, "one", &ports(json!([{"containerPort": 80, "protocol": "TCP"}]))).await);
    let object = ok(cluster.apply(&uri, "one", &ports(json!([]))).await);
    assert_eq!(object["spec"]["template"]["spec"]["containers"][0].get("ports"), None, "{object}");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_say_who_did_what_and_when() {
    let cluster = cluster().await;
    let uri = format!("{MAPS}/m");
    let mut first = map(json!({"key": "value"}));
    first["metadata"]["labels"] = json!({"l": "v"});
    ok(cluster.apply(&uri, "one", &first).await);
    let patched = |data: Value| {
        let uri = format!("{uri}?fieldManager=updater");
        let cluster = &cluster;
        async move { ok(cluster.admin("PATCH", &uri, json!({"data": data})).await) }
    };
    patched(json!({"new-key": "value"})).await;
    a_second().await;
    let object = patched(json!({"key": "new value"})).await;
    let mut entries = entries(&object).to_vec();
    let times: Vec<Value> =
        entries.iter_mut().map(|entry| entry.as_object_mut().unwrap().remove("time").unwrap()).collect();
    assert_ne!(times[0], times[1]);
    let expected = json!([
        {"manager": "one", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:labels": {"f:l": {}}}}},
        {"manager": "updater", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {"f:key": {}, "f:new-key": {}}}},
    ]);
    assert_eq!(json!(entries), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_few_and_none_is_empty() {
    let cluster = cluster().await;
    let nothing = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
    for _ in 0..2 {
        let object = ok(cluster.apply(&format!("{MAPS}/m"), "one", &nothing).await);
        assert_eq!(object["metadata"].get("managedFields"), None, "{object}");
    }
    let hooks = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/w";
    let hook = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "w", "labels": {"one": "true"}}});
    let mut object = ok(cluster.apply(hooks, "one", &hook).await);
    for index in 0..20 {
        let uri = format!("{hooks}?fieldManager=updater{index}");
        let label = json!({"metadata": {"labels": {format!("l{index}"): "new"}}});
        object = ok(cluster.admin("PATCH", &uri, label).await);
    }
    let managers: Vec<&str> =
        entries(&object).iter().map(|entry| entry["manager"].as_str().unwrap()).collect();
    assert_eq!((managers.len(), &managers[..2]), (11, &["one", "ancient-changes"][..]), "{managers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_can_be_cleared_and_bad_ones_do_no_harm() {
    let cluster = cluster().await;
    let uri = format!("{MAPS}/m");
    let mut object = map(json!({"key": "value"}));
    object["metadata"]["labels"] = json!({"l": "v"});
    let cleared = json!({"metadata": {"managedFields": [{}]}});
    let operation = json!([{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}]);
    let mut put = object.clone();
    put["metadata"]["managedFields"] = json!([{}]);
    for (method, kind, body) in [
        ("PATCH", "application/merge-patch+json", cleared.clone()),
        ("PATCH", "application/strategic-merge-patch+json", cleared),
        ("PATCH", "application/json-patch+json", operation),
        ("PUT", "application/json", put),
    ] {
        ok(cluster.force_apply(&uri, "one", &object).await);
        let headers = [("content-type", kind)];
        let answer = ok(cluster.ask("admin", &["system:masters"], method, &uri, body, &headers).await);
        assert_eq!(answer["metadata"].get("managedFields"), None, "{kind}: {answer}");
        assert_eq!(answer["metadata"]["labels"], json!({"l": "v"}), "{kind}");
    }
    // cleared by an empty list, nothing is tracked until somebody applies
    ok(cluster.force_apply(&uri, "one", &object).await);
    let mut put = object.clone();
    put["metadata"]["managedFields"] = json!([]);
    ok(cluster.admin("PUT", &uri, put).await);
    let answer = ok(cluster.admin("PATCH", &uri, json!({"metadata": {"labels": {"l": "w"}}})).await);
    assert_eq!(answer["metadata"].get("managedFields"), None, "{answer}");

    let odd = json!([{"manager": "one", "operation": "Apply", "apiVersion": "v1", "fieldsType": "",
        "time": "2019-07-08T09:31:18Z", "fieldsV1": {}}]);
    object["metadata"]["managedFields"] = odd.clone();
    ok(cluster.admin("PUT", &uri, object.clone()).await);
    let operation = json!([{"op": "add", "path": "/metadata/managedFields", "value": odd}]);
    let headers = [("content-type", "application/json-patch+json")];
    ok(cluster.ask("admin", &["system:masters"], "PATCH", &uri, operation, &headers).await);
    object["metadata"]["name"] = json!("n");
    ok(cluster.admin("POST", MAPS, object).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_are_renamed_become_one() {
    let cluster = cluster().await;
    let uri = format!("{PODS}/p");
    let label = |key: &str| json!({"metadata": {"labels": {key: "v"}}});
    let apply_label = |key: &str| {
        let mut object = label(key);
        object["apiVersion"] = json!("v1");
        object["kind"] = json!("Pod");
        object
    };
    let b = json!({"f:metadata": {"f:labels": {"f:b": {}}}});
    // writes an object back with its entries changed
    let rewritten = |mut object: Value, key: &'static str, value: &'static str| {
        let (cluster, uri) = (&cluster, &uri);
        async move {
            for entry in object["metadata"]["managedFields"].as_array_mut().unwrap() {
                entry[key] = json!(value);
            }
            ok(cluster.admin("PUT", uri, object).await)
        }
    };
    let shown = |object: &Value, at: usize| {
        let entry = &entries(object)[at];
        (entry["manager"].clone(), entry["operation"].clone(), entry["fieldsV1"].clone())
    };
    let gone = || async {
        ok(cluster.admin("DELETE", &uri, json!({"gracePeriodSeconds": 0})).await);
    };

    ok(cluster.apply(&uri, "one", &pod(json!({"a": "v"}))).await);
    let object = ok(cluster.apply(&uri, "two", &apply_label("b")).await);
    let object = rewritten(object, "manager", "both").await;
    assert_eq!(entries(&object).len(), 1, "{object}");
    assert_eq!(shown(&object, 0), (json!("both"), json!("Apply"), b.clone()));
    gone().await;

    ok(cluster.apply(&uri, "first", &pod(json!({}))).await);
    ok(cluster.admin("PATCH", &format!("{uri}?fieldManager=one"), label("a")).await);
    let object = ok(cluster.admin("PATCH", &format!("{uri}?fieldManager=two"), label("b")).await);
    let object = rewritten(object, "manager", "both").await;
    assert_eq!(entries(&object).len(), 2, "{object}");
    assert_eq!(shown(&object, 1), (json!("both"), json!("Update"), b.clone()));
    gone().await;

    let mut plain = pod(json!({}));
    plain["metadata"].as_object_mut().unwrap().remove("labels");
    ok(cluster.apply(&uri, "first", &plain).await);
    ok(cluster.apply(&uri, "labels", &apply_label("a")).await);
    let object = ok(cluster.apply(&format!("{uri}/status"), "labels", &apply_label("b")).await);
    let parts: Vec<&str> =
        entries(&object).iter().map(|entry| entry["subresource"].as_str().unwrap_or_default()).collect();
    assert_eq!(parts, ["", "", "status"]);
    let object = rewritten(object, "subresource", "").await;
    assert_eq!(entries(&object).len(), 2, "{object}");
    assert_eq!(shown(&object, 1), (json!("labels"), json!("Apply"), b));
    gone().await;

    ok(cluster.apply(&uri, "first", &pod(json!({}))).await);
    ok(cluster.admin("PATCH", &format!("{uri}?fieldManager=m"), label("a")).await);
    let phase = json!({"status": {"phase": "Running"}});
    let object = ok(cluster.admin("PATCH", &format!("{uri}/status?fieldManager=m"), phase).await);
    assert_eq!(entries(&object).len(), 3, "{object}");
    let object = rewritten(object, "subresource", "").await;
    assert_eq!(entries(&object).len(), 2, "{object}");
    let fields = json!({"f:status": {"f:phase": {}}});
    assert_eq!(shown(&object, 1), (json!("m"), json!("Update"), fields));
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_old_are_taken_as_they_are_meant() {
    let cluster = cluster().await;
    // of a version that is no more
    let mut object = deployment(json!({}), json!({}));
    let fields = json!({"f:metadata": {"f:labels": {"f:side": {}}}, "f:spec": {"f:template": {"f:spec": {
        "f:containers": {"k:{\"name\":\"side\"}": {".": {}, "f:image": {}}}}}}});
    object["metadata"]["managedFields"] = json!([{"manager": "side", "operation": "Apply",
        "apiVersion": "extensions/v1beta1", "fieldsType": "FieldsV1", "fieldsV1": fields}]);
    ok(cluster.admin("POST", DEPLOYMENTS, object).await);
    let applied = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "d", "labels": {"side": "v"}},
        "spec": {"template": {"spec": {"containers": [{"name": "side", "image": "s"}]}}}});
    let object = ok(cluster.apply(&format!("{DEPLOYMENTS}/d"), "side", &applied).await);
    assert_eq!(entries(&object).len(), 2, "{object}");
    let container = json!({".": {}, "f:image": {}, "f:name": {}});
    assert_eq!(
        owned(&object, "side", ""),
        json!({"f:metadata": {"f:labels": {"f:side": {}}}, "f:spec": {"f:template": {"f:spec": {
            "f:containers": {"k:{\"name\":\"side\"}": container}}}}})
    );

    // of a struct that was owned as a whole once
    let volumes = "/api/v1/persistentvolumes";
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "c", "namespace": "default",
        "resourceVersion": "15499", "uid": "2018e302-7b12-406c-9fa2-e52535d29e48"});
    let volume = |claim: Value| {
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v", "labels": {"l": "v"}},
            "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "16Mi"}, "storageClassName": "",
                "hostPath": {"path": "/tmp/v"}, "claimRef": claim}})
    };
    ok(cluster.admin("POST", volumes, volume(claim.clone())).await);
    let user = json!({"f:metadata": {"f:labels": {"f:l": {}}}, "f:spec": {"f:accessModes": {},
        "f:capacity": {"f:storage": {}}, "f:hostPath": {"f:path": {}}, "f:storageClassName": {}}});
    let of = |manager: &str, operation: &str, fields: &Value| {
        json!({"manager": manager, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1",
            "time": "2022-06-08T23:46:32Z", "fieldsV1": fields})
    };
    let controller = json!({"f:spec": {"f:claimRef": {}}});
    let patch = json!({"metadata": {"managedFields": [
        of("user", "Apply", &user), of("controller", "Update", &controller)]}});
    ok(cluster.admin("PATCH", &format!("{volumes}/v?fieldManager=user"), patch).await);
    let part = json!({"name": "c", "namespace": "default"});
    let object = ok(cluster.apply(&format!("{volumes}/v"), "user", &volume(part)).await);
    assert_eq!(object["spec"]["claimRef"], claim);
    let mut expected = user;
    expected["f:spec"]["f:claimRef"] = json!({"f:name": {}, "f:namespace": {}});
    assert_eq!(owned(&object, "user", ""), expected);
    assert_eq!(owned(&object, "controller", ""), controller);
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_goes_over_from_applying_by_itself() {
    let cluster = cluster().await;
    let uri = format!("{DEPLOYMENTS}/d");
    let last = deployment(json!({"replicas": 3}), json!({})).to_string();
    let mut object = deployment(json!({"replicas": 100_000}), json!({}));
    object["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": last});
    ok(cluster.admin("POST", DEPLOYMENTS, object).await);
    let mut applied = deployment(json!({"replicas": 3}), json!({}));
    applied["metadata"]["labels"] = json!({"app": "new"});
    let refused = cluster.apply(&uri, "kubectl", &applied).await;
    assert_eq!(refused.code, 409, "{refused:?}");
    assert_eq!(refused.body["details"]["causes"].as_array().unwrap().len(), 1, "{refused:?}");
    let mut applied = deployment(json!({}), json!({"containers": [{"name": "c", "image": "new"}]}));
    applied["metadata"]["labels"] = json!({"app": "new"});
    let object = ok(cluster.apply(&uri, "kubectl", &applied).await);
    assert_eq!(object["spec"]["replicas"], 100_000);
    assert_eq!(object["spec"]["template"]["spec"]["containers"][0]["image"], "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn items_that_are_there_twice_are_owned_as_one() {
    let cluster = cluster().await;
    let all = "/apis/apps/v1/namespaces/default/daemonsets";
    let uri = format!("{all}/d");
    let whole = |ports: Value, env: Value| {
        let container = json!({"name": "c", "image": "i", "ports": ports, "env": env});
        let mut object = deployment(json!({}), json!({"containers": [container]}));
        object["kind"] = json!("DaemonSet");
        object
    };
    let port = |name: &str, number: u16| json!({"name": name, "containerPort": number});
    let env = |name: &str, value: &str| json!({"name": name, "value": value});
    let of = |object: &Value, manager: &str| {
        let container = "/f:spec/f:template/f:spec/f:containers/k:{\"name\":\"c\"}";
        let owned = owned(object, manager, "").pointer(container).cloned().unwrap_or_default();
        (owned["f:ports"].clone(), owned["f:env"].clone())
    };
    let counts = |object: &Value| {
        let container = &object["spec"]["template"]["spec"]["containers"][0];
        ["ports", "env"].map(|key| container[key].as_array().unwrap().len())
    };
    let object = whole(
        json!([port("p0", 1), port("p1", 80), port("p2", 80)]),
        json!([env("E", "1"), env("PATH", "/bin"), env("PATH", "$PATH:/usr/bin")]),
    );
    let object = ok(cluster.admin("POST", &format!("{all}?fieldManager=create"), object).await);
    assert_eq!(counts(&object), [3, 3]);
    let e = json!({".": {}, "f:name": {}, "f:value": {}});
    let p1 = json!({".": {}, "f:containerPort": {}, "f:name": {}, "f:protocol": {}});
    let key = |port: u16| format!("k:{{\"containerPort\":{port},\"protocol\":\"TCP\"}}");
    assert_eq!(
        of(&object, "create"),
        (
            json!({".": {}, key(1): p1, key(80): {}}),
            json!({".": {}, "k:{\"name\":\"E\"}": e, "k:{\"name\":\"PATH\"}": {}})
        )
    );

    // adding others leaves them alone
    let more = whole(json!([port("p3", 443)]), json!([env("HOME", "/h")]));
    let object = ok(cluster.apply(&uri, "apply", &more).await);
    assert_eq!(counts(&object), [4, 4]);
    let applied_port = json!({".": {}, "f:containerPort": {}, "f:name": {}});
    assert_eq!(of(&object, "apply"), (json!({key(443): applied_port}), json!({"k:{\"name\":\"HOME\"}": e})));

    // who changes one of them owns all of the key
    let object = whole(
        json!([port("p0", 1), port("p3", 443), port("p4", 80), port("p5", 80)]),
        json!([env("E", "1"), env("PATH", "/bin"), env("PATH", "$PATH:/other"), env("HOME", "/h")]),
    );
    let object = ok(cluster.admin("PUT", &format!("{uri}?fieldManager=update"), object).await);
    assert_eq!(counts(&object), [4, 4]);
    assert_eq!(of(&object, "update"), (json!({key(80): {}}), json!({"k:{\"name\":\"PATH\"}": {}})));
    assert_eq!(
        of(&object, "create"),
        (json!({".": {}, key(1): p1}), json!({".": {}, "k:{\"name\":\"E\"}": e}))
    );

    // one takes the place of all
    let one = whole(json!([port("p80", 80)]), json!([env("PATH", "/all")]));
    let object = ok(cluster.force_apply(&uri, "apply", &one).await);
    assert_eq!(counts(&object), [2, 2]);
    assert_eq!(of(&object, "apply"), (json!({key(80): applied_port}), json!({"k:{\"name\":\"PATH\"}": e})));
    assert_eq!(of(&object, "update"), (Value::Null, Value::Null));
}

/// Who owns `replicas`.
fn owners(object: &Value) -> Vec<&str> {
    let owns = |entry: &&Value| entry["fieldsV1"].pointer("/f:spec/f:replicas").is_some();
    let mut owners: Vec<&str> =
        entries(object).iter().filter(owns).map(|entry| entry["manager"].as_str().unwrap()).collect();
    owners.sort();
    owners
}

#[tokio::test(flavor = "multi_thread")]
async fn scales_own_replicas_and_conflict_over_them() {
    let cluster = cluster().await;
    let scaled = ["ReplicationController", "Deployment", "ReplicaSet", "StatefulSet"];
    for stub in stubs::all().into_iter().filter(|stub| scaled.contains(&stub.row.kind)) {
        let one = format!("{}/one", stubs::collection(stub.row, "default"));
        let scale_of = format!("{one}/scale");
        let mut object = stub.object.clone();
        object["spec"]["replicas"] = json!(1);
        let scale = |replicas: i64| {
            json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": {"replicas": replicas},
                "metadata": {"name": "one", "namespace": "default"}})
        };
        let is = async |replicas: i64, managers: &[&str]| {
            let object = ok(cluster.admin("GET", &one, Value::Null).await);
            let kind = stub.row.kind;
            assert_eq!(
                (&object["spec"]["replicas"], &*owners(&object)),
                (&json!(replicas), managers),
                "{kind}"
            );
        };
        ok(cluster.apply(&one, "apply", &object).await);
        is(1, &["apply"]).await;
        let patch = json!({"spec": {"replicas": 5}});
        ok(cluster.admin("PATCH", &format!("{scale_of}?fieldManager=scale"), patch.clone()).await);
        is(5, &["scale"]).await;
        assert_eq!(cluster.apply(&one, "apply", &object).await.code, 409);
        ok(cluster.force_apply(&one, "apply", &object).await);
        is(1, &["apply"]).await;
        let refused = cluster.apply(&scale_of, "apply-scale", &scale(17)).await;
        assert_eq!(refused.code, 409, "{refused:?}");
        assert!(refused.message().contains("\"apply\""), "{refused:?}");
        ok(cluster.force_apply(&scale_of, "apply-scale", &scale(17)).await);
        is(17, &["apply-scale"]).await;
        ok(cluster.admin("PUT", &format!("{scale_of}?fieldManager=replace"), scale(7)).await);
        is(7, &["replace"]).await;
        ok(cluster.apply(&scale_of, "both", &scale(7)).await);
        is(7, &["both", "replace"]).await;
        ok(cluster.admin("PATCH", &format!("{scale_of}?fieldManager=scale"), patch).await);
        is(5, &["scale"]).await;
        let status = json!({"status": {"replicas": 42}});
        ok(cluster.admin("PATCH", &format!("{scale_of}?fieldManager=status"), status).await);
        is(5, &["scale"]).await;
    }
}

/// Two managers of the two parts do not meet, however much of the other part they send.
#[tokio::test(flavor = "multi_thread")]
async fn managers_of_different_parts_do_not_meet() {
    let cluster = cluster().await;
    // nothing of these is anybody's, or nothing can be asked for
    let meet_never = ["CertificateSigningRequest", "ServiceCIDR", "Namespace"];
    for stub in stubs::all().into_iter().filter(Stub::has_status) {
        let gvk = stub.row.gvk();
        let uri = format!("{}/{}", stubs::collection(stub.row, "default"), stub.name());
        let [status, other] = stub.statuses();
        let mut first = stub.object.clone();
        first["status"] = status["status"].clone();
        let mut second = first.clone();
        for (key, value) in stub.change().iter().flat_map(|change| change["spec"].as_object().unwrap()) {
            second["spec"][key] = value.clone();
        }
        second["status"] = other["status"].clone();
        let answer = cluster.apply(&uri, "one", &first).await;
        assert_eq!(answer.code, 201, "{gvk}: {}", answer.body);
        let answer = cluster.apply(&format!("{uri}/status"), "two", &second).await;
        // a server that says itself what a status is stands in the way
        if !["CustomResourceDefinition", "APIService"].contains(&stub.row.kind) {
            assert_eq!(answer.code, 200, "{gvk}: {}", answer.body);
        }
        if !meet_never.contains(&stub.row.kind) {
            let answers = [
                (stub.change().is_some(), cluster.apply(&uri, "two", &second).await),
                (true, cluster.apply(&format!("{uri}/status"), "one", &first).await),
            ];
            for (meet, answer) in answers {
                assert_eq!(answer.code == 409, meet, "{gvk}: {}", answer.body);
            }
        }
        cluster.admin("DELETE", &uri, json!({"gracePeriodSeconds": 0})).await;
    }
}
