//! What each kind does by itself: who may be made by PUT, whose dependents go along, what each part of it may change.

mod common;

use apiserver::AdmissionOptions;
use common::managed::owned;
use common::stubs::{self, Stub};
use common::{Answer, Cluster};
use serde_json::{Value, json};

/// Without accounts, which would be mounted into pods.
async fn cluster() -> Cluster {
    let options = AdmissionOptions::new(&[], &["ServiceAccount".to_owned()], None).unwrap();
    Cluster::start_in(tempfile::tempdir().unwrap(), |config| config.admission = options).await
}

/// Which kinds do something that most do not.
struct Exceptions {
    of: &'static str,
    expected: Vec<&'static str>,
    found: Vec<String>,
}

impl Exceptions {
    fn new(of: &'static str, expected: &str) -> Self {
        let expected: &'static str = String::leak(expected.to_owned());
        Self { of, expected: expected.split_whitespace().collect(), found: Vec::new() }
    }

    fn note(&mut self, stub: &Stub, is_one: bool) {
        if is_one {
            self.found.push(stub.group_resource());
        }
    }

    fn check(mut self) {
        self.expected.sort();
        self.found.sort();
        self.found.dedup();
        assert_eq!(self.found, self.expected, "{}", self.of);
    }
}

async fn made(cluster: &Cluster, stub: &Stub) -> Answer {
    let made = cluster.admin("POST", &stubs::collection(stub.row, "default"), stub.object.clone()).await;
    assert_eq!(made.code, 201, "{}: {}", stub.row.gvk(), made.body);
    made
}

fn one(stub: &Stub) -> String {
    format!("{}/{}", stubs::collection(stub.row, "default"), stub.name())
}

/// Has it gone, whatever it holds on to.
async fn remove(cluster: &Cluster, stub: &Stub) {
    cluster.admin("DELETE", &one(stub), json!({"gracePeriodSeconds": 0})).await;
    cluster.admin("PATCH", &one(stub), json!({"metadata": {"finalizers": null}})).await;
    if stub.row.kind == "Namespace" {
        let emptied = json!({"metadata": {"name": stub.name()}, "spec": {"finalizers": []}});
        cluster.admin("PUT", &format!("{}/finalize", one(stub)), emptied).await;
    }
    let left = cluster.admin("GET", &one(stub), Value::Null).await;
    assert_eq!(left.code, 404, "{}: {}", stub.row.gvk(), left.body);
}

fn finalizers(answer: &Answer) -> Vec<&str> {
    let finalizers = answer.body["metadata"]["finalizers"].as_array();
    finalizers.into_iter().flatten().filter_map(Value::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn few_kinds_are_made_by_put_and_some_are_not_named_by_the_server() {
    let cluster = cluster().await;
    let mut by_put = Exceptions::new(
        "made by PUT",
        "clusterrolebindings.rbac.authorization.k8s.io clusterroles.rbac.authorization.k8s.io endpoints events \
         events.events.k8s.io leases.coordination.k8s.io limitranges rolebindings.rbac.authorization.k8s.io \
         roles.rbac.authorization.k8s.io runtimeclasses.node.k8s.io services",
    );
    let mut unnamed = Exceptions::new(
        "not named by the server",
        "apiservices.apiregistration.k8s.io customresourcedefinitions.apiextensions.k8s.io \
         ipaddresses.networking.k8s.io",
    );
    for stub in stubs::all() {
        let put = cluster.admin("PUT", &one(&stub), stub.object.clone()).await;
        assert!([201, 404].contains(&put.code.as_u16()), "{}: {}", stub.row.gvk(), put.body);
        by_put.note(&stub, put.code == 201);
        remove(&cluster, &stub).await;

        let mut nameless = stub.object.clone();
        nameless["metadata"] = json!({"generateName": "some-"});
        let answer = cluster.admin("POST", &stubs::collection(stub.row, "default"), nameless).await;
        let named = answer.body["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("some-"));
        assert!([201, 422].contains(&answer.code.as_u16()), "{}: {}", stub.row.gvk(), answer.body);
        unnamed.note(&stub, !(answer.code == 201 && named));
        let mut generated = stub;
        generated.object["metadata"]["name"] = answer.body["metadata"]["name"].clone();
        if named {
            remove(&cluster, &generated).await;
        }
    }
    by_put.check();
    unnamed.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn some_kinds_ask_for_the_version_that_is_replaced() {
    let cluster = cluster().await;
    let mut conditional = Exceptions::new(
        "replaced only where the version is named",
        "apiservices.apiregistration.k8s.io csidrivers.storage.k8s.io csinodes.storage.k8s.io \
         csistoragecapacities.storage.k8s.io customresourcedefinitions.apiextensions.k8s.io leases.coordination.k8s.io \
         mutatingadmissionpolicies.admissionregistration.k8s.io \
         mutatingadmissionpolicybindings.admissionregistration.k8s.io \
         mutatingwebhookconfigurations.admissionregistration.k8s.io poddisruptionbudgets.policy \
         runtimeclasses.node.k8s.io validatingadmissionpolicies.admissionregistration.k8s.io \
         validatingadmissionpolicybindings.admissionregistration.k8s.io \
         validatingwebhookconfigurations.admissionregistration.k8s.io volumeattachments.storage.k8s.io",
    );
    for stub in stubs::all() {
        let mut object = made(&cluster, &stub).await.body;
        object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        let put = cluster.admin("PUT", &one(&stub), object).await;
        assert!([200, 422].contains(&put.code.as_u16()), "{}: {}", stub.row.gvk(), put.body);
        if put.code == 422 {
            let why = "metadata.resourceVersion: Invalid value: 0: must be specified for an update";
            assert!(put.message().ends_with(why), "{}", put.body);
        }
        conditional.note(&stub, put.code == 422);
        remove(&cluster, &stub).await;
    }
    conditional.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn dependents_go_along_and_only_pods_take_their_time() {
    let cluster = cluster().await;
    let mut orphaning =
        Exceptions::new("dependents are left by default", "jobs.batch replicationcontrollers");
    let mut without = Exceptions::new("dependents are not waited for", "events events.events.k8s.io");
    let mut graceful = Exceptions::new("take their time", "pods");
    for mut stub in stubs::all() {
        if stub.row.kind == "Pod" {
            stub.object["spec"]["nodeName"] = json!("n1");
        }
        for (options, exceptions) in
            [(json!({}), &mut orphaning), (json!({"propagationPolicy": "Foreground"}), &mut without)]
        {
            made(&cluster, &stub).await;
            let held = json!({"metadata": {"finalizers": ["example.com/held"]}});
            let held = cluster.admin("PATCH", &one(&stub), held).await;
            assert_eq!(held.code, 200, "{}: {}", stub.row.gvk(), held.body);
            let gone = cluster.admin("DELETE", &one(&stub), options.clone()).await;
            assert!([200, 202].contains(&gone.code.as_u16()), "{}: {}", stub.row.gvk(), gone.body);
            let left = cluster.admin("GET", &one(&stub), Value::Null).await;
            let finalizers = finalizers(&left);
            assert!(finalizers.contains(&"example.com/held"), "{}: {}", stub.row.gvk(), left.body);
            let foreground = finalizers.contains(&"foregroundDeletion");
            if options == json!({}) {
                assert!(!foreground, "{}: {}", stub.row.gvk(), left.body);
                exceptions.note(&stub, finalizers.contains(&"orphan"));
            } else {
                exceptions.note(&stub, !foreground);
            }
            remove(&cluster, &stub).await;
        }
        made(&cluster, &stub).await;
        cluster.admin("DELETE", &one(&stub), json!({"gracePeriodSeconds": 30})).await;
        let left = cluster.admin("GET", &one(&stub), Value::Null).await;
        graceful.note(&stub, left.code == 200 && left.body["metadata"]["deletionGracePeriodSeconds"] == 30);
        remove(&cluster, &stub).await;
    }
    orphaning.check();
    without.check();
    graceful.check();
}

/// Whether an object has all that a patch of it says.
fn has(object: &Value, patch: &Value) -> bool {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            patch.iter().all(|(key, value)| object.get(key).is_some_and(|own| has(own, value)))
        }
        (Value::Array(items), Value::Array(patch)) => {
            patch.iter().all(|value| items.iter().any(|item| has(item, value)))
        }
        (object, patch) => object == patch,
    }
}

fn merge(object: &mut Value, patch: &Value) {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(object.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (object, patch) => *object = patch.clone(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_part_changes_what_is_its_own_and_owns_no_more() {
    let cluster = cluster().await;
    let mut born_with = Exceptions::new("born with a status", "nodes");
    let mut labelled = Exceptions::new(
        "status moves labels",
        "certificatesigningrequests.certificates.k8s.io cronjobs.batch \
         customresourcedefinitions.apiextensions.k8s.io daemonsets.apps horizontalpodautoscalers.autoscaling \
         ingresses.networking.k8s.io jobs.batch namespaces nodes persistentvolumeclaims persistentvolumes \
         poddisruptionbudgets.policy pods replicasets.apps replicationcontrollers resourcequotas services \
         statefulsets.apps",
    );
    for stub in stubs::all().into_iter().filter(Stub::has_status) {
        let gvk = stub.row.gvk();
        let [status, other] = stub.statuses();
        let mut object = stub.object.clone();
        merge(&mut object, &status);
        let answer = cluster.force_apply(&one(&stub), "main", &object).await;
        assert_eq!(answer.code, 201, "{gvk}: {}", answer.body);
        born_with.note(&stub, has(&answer.body, &status));

        let mut through_status = object.clone();
        merge(&mut through_status, &stub.change().unwrap_or_else(|| json!({})));
        let label = json!({"metadata": {"labels": {"from": "status"}}});
        merge(&mut through_status, &label);
        let status_of = format!("{}/status", one(&stub));
        let answer = cluster.force_apply(&status_of, "controller", &through_status).await;
        assert_eq!(answer.code, 200, "{gvk}: {}", answer.body);
        let now = cluster.admin("GET", &one(&stub), Value::Null).await.body;
        assert!(owned(&now, "main", "").get("f:status").is_none(), "{gvk}: {now}");
        let owned = owned(&now, "controller", "status");
        assert!(owned.get("f:spec").is_none(), "{gvk}: {now}");
        let owns_label = owned.pointer("/f:metadata/f:labels/f:from").is_some();
        assert_eq!(owns_label, has(&now, &label), "{gvk}: {now}");
        labelled.note(&stub, owns_label);

        let answer = cluster.admin("PATCH", &one(&stub), other.clone()).await;
        assert_eq!(answer.code, 200, "{gvk}: {}", answer.body);
        assert!(!has(&answer.body, &other), "{gvk}: {}", answer.body);
        if let Some(change) = stub.change() {
            let answer = cluster.admin("PATCH", &status_of, change.clone()).await;
            assert_eq!(answer.code, 200, "{gvk}: {}", answer.body);
            assert!(!has(&answer.body, &change), "{gvk}: {}", answer.body);
        }
        let label = json!({"metadata": {"labels": {"patched": "status"}}});
        let answer = cluster.admin("PATCH", &status_of, label.clone()).await;
        assert_eq!(answer.code, 200, "{gvk}: {}", answer.body);
        assert_eq!(has(&answer.body, &label), owns_label, "{gvk}: {}", answer.body);
        remove(&cluster, &stub).await;
    }
    born_with.check();
    labelled.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_count_changes_of_what_is_asked_for() {
    let cluster = cluster().await;
    let mut uncounted = Exceptions::new(
        "have no generation",
        "apiservices.apiregistration.k8s.io certificatesigningrequests.certificates.k8s.io \
         horizontalpodautoscalers.autoscaling namespaces nodes persistentvolumeclaims persistentvolumes \
         resourceclaims.resource.k8s.io resourcequotas \
         servicecidrs.networking.k8s.io services volumeattachments.storage.k8s.io",
    );
    for stub in stubs::all().into_iter().filter(Stub::has_status) {
        let gvk = stub.row.gvk();
        let generation = |answer: &Answer| answer.body["metadata"]["generation"].as_i64().unwrap_or_default();
        let answer = made(&cluster, &stub).await;
        let at_first = generation(&answer);
        assert!(at_first <= 1, "{gvk}: {}", answer.body);
        uncounted.note(&stub, at_first == 0);

        let answer =
            cluster.admin("PATCH", &format!("{}/status", one(&stub)), stub.statuses()[1].clone()).await;
        assert_eq!((answer.code.as_u16(), generation(&answer)), (200, at_first), "{gvk}: {}", answer.body);
        let label = json!({"metadata": {"labels": {"a": "c"}}});
        let answer = cluster.admin("PATCH", &one(&stub), label).await;
        assert_eq!((answer.code.as_u16(), generation(&answer)), (200, at_first), "{gvk}: {}", answer.body);
        if let Some(change) = stub.change() {
            let answer = cluster.admin("PATCH", &one(&stub), change).await;
            if stub.row.kind != "PersistentVolumeClaim" {
                assert_eq!(answer.code, 200, "{gvk}: {}", answer.body);
                assert_eq!(generation(&answer), 2 * at_first, "{gvk}: {}", answer.body);
            }
        }
        remove(&cluster, &stub).await;
    }
    uncounted.check();
}
