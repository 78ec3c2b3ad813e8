//! What is said through subresources of requests that do not fit.

mod common;

use apiserver::RequestOptions;
use common::{Answer, Cluster};
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn is(answer: &Answer, code: u16, message: &str) {
    assert_eq!((answer.code.as_u16(), answer.message()), (code, message));
}

async fn patch(cluster: &Cluster, uri: &str, media_type: &str, body: Value) -> Answer {
    cluster.ask("admin", &["system:masters"], "PATCH", uri, body, &[("content-type", media_type)]).await
}

async fn make_pod(cluster: &Cluster, name: &str) {
    let body = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let account = "/api/v1/namespaces/default/serviceaccounts";
    cluster.admin("POST", account, json!({"metadata": {"name": "default"}})).await;
    let made = cluster.admin("POST", PODS, body).await;
    assert_eq!(made.code, 201, "{}", made.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn scales_say_whose_they_are() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    let sets = "/apis/apps/v1/namespaces/default/replicasets";
    let labels = json!({"a": "b"});
    let set = json!({"metadata": {"name": "s"}, "spec": {"replicas": 2, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    assert_eq!(cluster.admin("POST", sets, set).await.code, 201);
    let scale = format!("{sets}/s/scale");
    let put = |metadata: Value| json!({"metadata": metadata, "spec": {"replicas": 1}});
    is(
        &cluster.admin("PUT", &scale, put(json!({}))).await,
        400,
        "the name of the object (s based on URL) was undeterminable: name must be provided",
    );
    is(
        &cluster.admin("PUT", &scale, put(json!({"name": "t"}))).await,
        400,
        "the name of the object (t) does not match the name on the URL (s)",
    );
    let wrong =
        patch(&cluster, &scale, "application/merge-patch+json", json!({"spec": {"replicas": "x"}})).await;
    assert_eq!(wrong.code, 422);
    assert!(
        wrong.message().starts_with(" \"\" is invalid: patch: Invalid value: \"{"),
        "{}",
        wrong.message()
    );
    assert!(wrong.message().ends_with(
        "json: cannot unmarshal string into Go struct field ScaleSpec.spec.replicas of type int32"
    ));
    is(
        &patch(
            &cluster,
            &scale,
            "application/strategic-merge-patch+json",
            json!({"spec": {"replicas": "x"}}),
        )
        .await,
        422,
        " \"\" is invalid: patch: Invalid value: \"map[spec:map[replicas:x]]\": unrecognized type: int32",
    );
    let applied = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "spec": {"replicas": 1}});
    let uri = format!("{scale}?fieldManager=m");
    is(
        &patch(&cluster, &uri, "application/apply-patch+yaml", applied).await,
        400,
        "invalid object type: apps/v1, Kind=ReplicaSet",
    );
    let applied = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "s"}, "spec": {"replicas": 1}});
    let done = patch(&cluster, &format!("{uri}&force=true"), "application/apply-patch+yaml", applied).await;
    assert_eq!((done.code.as_u16(), &done.body["spec"]["replicas"]), (200, &json!(1)), "{}", done.body);
    let counters = json!({"status": {"replicas": -1}});
    is(
        &patch(&cluster, &format!("{sets}/s/status"), "application/merge-patch+json", counters).await,
        422,
        "ReplicaSet.apps \"s\" is invalid: [status.replicas: Invalid value: -1: must be greater than or equal to 0, \
         status.fullyLabeledReplicas: Invalid value: 0: cannot be greater than status.replicas, \
         status.readyReplicas: Invalid value: 0: cannot be greater than status.replicas, \
         status.availableReplicas: Invalid value: 0: cannot be greater than status.replicas]",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scale_moves_the_generation_of_what_it_scales() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    let labels = json!({"a": "b"});
    let template =
        json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let selected = json!({"replicas": 1, "selector": {"matchLabels": labels}, "template": template});
    let controller = json!({"replicas": 1, "selector": labels, "template": template});
    for (kinds, spec) in [
        ("/apis/apps/v1/namespaces/default/deployments", &selected),
        ("/apis/apps/v1/namespaces/default/replicasets", &selected),
        ("/apis/apps/v1/namespaces/default/statefulsets", &selected),
        ("/api/v1/namespaces/default/replicationcontrollers", &controller),
    ] {
        let made = cluster.admin("POST", kinds, json!({"metadata": {"name": "s"}, "spec": spec})).await;
        assert_eq!(made.code, 201, "{}", made.body);
        let one = format!("{kinds}/s");
        let generation = async || {
            let read = cluster.admin("GET", &one, Value::Null).await;
            (read.body["spec"]["replicas"].clone(), read.body["metadata"]["generation"].clone())
        };
        let scale = format!("{one}/scale");
        let put = |replicas: i64| json!({"metadata": {"name": "s"}, "spec": {"replicas": replicas}});
        let steps = [("", 3, 3, 2), ("", 3, 3, 2), ("?dryRun=All", 9, 3, 2), ("", 0, 0, 3)];
        for (query, replicas, stored, moved) in steps {
            let answer = cluster.admin("PUT", &format!("{scale}{query}"), put(replicas)).await;
            let said = answer.body["spec"]["replicas"].as_i64().unwrap_or_default();
            assert_eq!((answer.code.as_u16(), said), (200, replicas), "{kinds} {}", answer.body);
            assert_eq!(generation().await, (json!(stored), json!(moved)), "{kinds} {replicas}");
        }
        let wrong = cluster.admin("PUT", &scale, put(-1)).await;
        is(
            &wrong,
            422,
            "Scale.autoscaling \"s\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_applied_scale_owns_the_replicas() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    let one = "/apis/apps/v1/namespaces/default/replicasets/s";
    let labels = json!({"a": "b"});
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "s"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let apply =
        async |uri: String, body: Value| patch(&cluster, &uri, "application/apply-patch+yaml", body).await;
    assert_eq!(apply(format!("{one}?fieldManager=first"), set).await.code, 201);
    let of = |metadata: Value, replicas: Value| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata, "spec": {"replicas": replicas}});
    let scale = |replicas: i64| of(json!({"name": "s"}), json!(replicas));
    let uri = format!("{one}/scale?fieldManager=second");
    is(
        &apply(uri.clone(), scale(3)).await,
        409,
        "Apply failed with 1 conflict: conflict with \"first\": .spec.replicas",
    );
    let forced = format!("{uri}&force=true");
    let done = apply(forced.clone(), scale(3)).await;
    assert_eq!((done.code.as_u16(), &done.body["spec"]["replicas"]), (200, &json!(3)), "{}", done.body);
    assert_eq!(apply(uri.clone(), scale(4)).await.code, 200);
    let read = cluster.admin("GET", one, Value::Null).await.body;
    let managers: Vec<_> = read["metadata"]["managedFields"].as_array().unwrap().iter().collect();
    let of_second = managers.iter().find(|entry| entry["manager"] == "second").unwrap();
    assert_eq!(
        (
            &of_second["operation"],
            &of_second["subresource"],
            &of_second["apiVersion"],
            &of_second["fieldsV1"]
        ),
        (&json!("Apply"), &json!("scale"), &json!("apps/v1"), &json!({"f:spec": {"f:replicas": {}}}))
    );
    let of_first = managers.iter().find(|entry| entry["manager"] == "first").unwrap();
    assert!(of_first["fieldsV1"]["f:spec"].get("f:replicas").is_none(), "{of_first}");
    // whoever scales otherwise takes them
    let put = json!({"metadata": {"name": "s"}, "spec": {"replicas": 5}});
    assert_eq!(cluster.admin("PUT", &format!("{one}/scale?fieldManager=third"), put).await.code, 200);
    is(
        &apply(uri.clone(), scale(6)).await,
        409,
        "Apply failed with 1 conflict: conflict with \"third\" with subresource \"scale\" using autoscaling/v1: .spec.replicas",
    );
    let wrong = apply(forced.clone(), of(json!({"name": "s"}), json!("x"))).await;
    assert!(
        wrong.message().contains(".spec.replicas: expected numeric (int or float), got string"),
        "{}",
        wrong.body
    );
    let stranger = of(json!({"name": "s", "uid": "other"}), json!(1));
    let uid = read["metadata"]["uid"].as_str().unwrap();
    let why = format!(
        "Operation cannot be fulfilled on replicasets/scale.apps \"s\": Precondition failed: UID in \
         precondition: other, UID in object meta: {uid}"
    );
    is(&apply(forced, stranger.clone()).await, 409, &why);
    is(&cluster.admin("PUT", &format!("{one}/scale"), stranger).await, 409, &why);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scale_has_columns_of_its_own() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    let sets = "/apis/apps/v1/namespaces/default/replicasets";
    let labels = json!({"a": "b"});
    let set = json!({"metadata": {"name": "s"}, "spec": {"replicas": 2, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    assert_eq!(cluster.admin("POST", sets, set).await.code, 201);
    let get = async |shape: &str| {
        let accept = format!("application/json;as={shape};v=v1;g=meta.k8s.io");
        let uri = format!("{sets}/s/scale?includeObject=Object");
        cluster.ask("admin", &["system:masters"], "GET", &uri, Value::Null, &[("accept", &accept)]).await
    };
    let table = get("Table").await.body;
    let columns: Vec<_> = table["columnDefinitions"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(columns, ["Name", "Desired", "Available", "Age"]);
    let row = &table["rows"][0];
    assert_eq!(row["cells"].as_array().unwrap()[..3], [json!("s"), json!(2), json!(0)]);
    assert_eq!(row["object"]["kind"], "Scale", "{row}");
    let metadata = get("PartialObjectMetadata").await.body;
    assert_eq!(
        (&metadata["kind"], &metadata["metadata"]["name"]),
        (&json!("PartialObjectMetadata"), &json!("s"))
    );
    is(
        &get("PartialObjectMetadataList").await,
        406,
        "you requested PartialObjectMetadataList, but the requested object is not a list (*autoscaling.Scale)",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bindings_tokens_and_logs_that_do_not_fit() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    make_pod(&cluster, "a").await;
    let binding = |name: &str, target: Value| json!({"metadata": {"name": name}, "target": target});
    let uri = format!("{PODS}/a/binding");
    let node = json!({"kind": "Node", "name": "n"});
    for name in ["", "b"] {
        let answer = cluster.admin("POST", &uri, binding(name, node.clone())).await;
        is(&answer, 400, "name in URL does not match name in Binding object");
    }
    let answer = cluster.admin("POST", &uri, binding("a", json!({}))).await;
    is(&answer, 500, "target.name: Required value");
    assert_eq!(answer.body.get("reason"), None);

    let token = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let other = cluster.admin("POST", token, json!({"metadata": {"name": "b"}, "spec": {}})).await;
    is(
        &other,
        422,
        "TokenRequest.authentication.k8s.io \"default\" is invalid: metadata.name: Invalid value: \"b\": must match the \
         service account name if specified",
    );
    let made = cluster.admin("POST", token, json!({"spec": {}})).await;
    assert_eq!((made.code.as_u16(), &made.body["spec"]["expirationSeconds"]), (201, &json!(3600)));

    for (query, code, why) in [
        (
            "sinceTime=abc",
            400,
            "parsing time \"abc\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"abc\" as \"2006\"",
        ),
        ("tailLines=abc", 400, "strconv.ParseInt: parsing \"abc\": invalid syntax"),
        (
            "tailLines=-1",
            422,
            "PodLogOptions \"a\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0",
        ),
        ("tailLines=", 400, "strconv.ParseInt: parsing \"\": invalid syntax"),
        (
            "limitBytes=0&sinceSeconds=0&stream=All",
            422,
            "PodLogOptions \"a\" is invalid: [limitBytes: Invalid value: 0: must be greater than 0, sinceSeconds: Invalid \
             value: 0: must be greater than 0, stream: Forbidden: may not be specified]",
        ),
        (
            "sinceSeconds=0&sinceTime=2026-01-01T00:00:00Z",
            422,
            "PodLogOptions \"a\" is invalid: []: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
        ),
        ("stream=Stdout", 422, "PodLogOptions \"a\" is invalid: stream: Forbidden: may not be specified"),
        ("container=x", 400, "container x is not valid for pod a"),
    ] {
        cluster.admin("POST", &uri, binding("a", node.clone())).await;
        is(&cluster.admin("GET", &format!("{PODS}/a/log?{query}"), Value::Null).await, code, why);
    }
    let absent = cluster.admin("GET", &format!("{PODS}/b/log?stream=All"), Value::Null).await;
    is(&absent, 422, "PodLogOptions \"b\" is invalid: stream: Forbidden: may not be specified");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_named_where_there_are_several() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    make_pod(&cluster, "other").await;
    let named = |names: &[&str]| -> Vec<Value> {
        names.iter().map(|name| json!({"name": name, "image": "i"})).collect()
    };
    for (name, containers) in [("one", &["a"] as &[_]), ("two", &["a", "b"])] {
        let pod = json!({
            "metadata": {"name": name},
            "spec": {"initContainers": named(&["first"]), "containers": named(containers)},
        });
        let made = cluster.admin("POST", PODS, pod).await;
        assert_eq!(made.code, 201, "{made:?}");
    }
    assert_eq!(cluster.admin("GET", &format!("{PODS}/one/log"), Value::Null).await.code, 200);
    let why = "a container name must be specified for pod two, choose one of: [first a b]";
    for subresource in ["log", "attach", "exec?command=x"] {
        is(&cluster.admin("GET", &format!("{PODS}/two/{subresource}"), Value::Null).await, 400, why);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_go_one_by_one() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    cluster.admin("POST", "/api/v1/namespaces", json!({"metadata": {"name": "stays"}})).await;
    let answer = cluster.admin("DELETE", "/api/v1/namespaces", Value::Null).await;
    is(&answer, 405, "the server does not allow this method on the requested resource");
    let stays = cluster.admin("GET", "/api/v1/namespaces/stays", Value::Null).await;
    assert_eq!(stays.body["status"]["phase"], "Active");
    let resources = cluster.admin("GET", "/api/v1", Value::Null).await.body;
    let verbs = |name: &str| {
        let mut all = resources["resources"].as_array().unwrap().iter();
        all.find(|resource| resource["name"] == name).unwrap()["verbs"].clone()
    };
    assert_eq!(verbs("namespaces"), json!(["create", "delete", "get", "list", "patch", "update", "watch"]));
    assert!(verbs("nodes").as_array().unwrap().contains(&json!("deletecollection")));
}
