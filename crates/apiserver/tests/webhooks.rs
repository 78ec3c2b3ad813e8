//! Webhooks asked over TLS: what they see, what their answers do, and what happens when they fail.

mod common;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use apiserver::RequestOptions;
use common::hook::{Does, Hook, allows, patches};
use common::{Answer, Cluster};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const HOOKS: &str = "/apis/admissionregistration.k8s.io/v1";

async fn cluster() -> Cluster {
    Cluster::start(RequestOptions::default()).await
}

async fn configure(cluster: &Cluster, sort: &str, name: &str, webhooks: Vec<Value>) {
    let body = json!({"metadata": {"name": name}, "webhooks": webhooks});
    let answer = cluster.admin("POST", &format!("{HOOKS}/{sort}webhookconfigurations"), body).await;
    assert_eq!(answer.code, 201, "{answer:?}");
}

async fn create(cluster: &Cluster, name: &str) -> Answer {
    cluster.admin("POST", MAPS, json!({"metadata": {"name": name}, "data": {"k": "v"}})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validating_webhook_sees_the_write_and_may_refuse_it() {
    let cluster = cluster().await;
    let hook = Hook::start(&cluster.pki, |_, request| match request["name"].as_str() {
        Some("bad") => Does::Answers(json!({
            "allowed": false, "status": {"code": 403, "reason": "Forbidden", "message": "not like that"},
        })),
        Some("mute") => Does::Answers(json!({"allowed": false})),
        _ => Does::Answers(json!({"allowed": true, "warnings": ["mind the gap"]})),
    })
    .await;
    configure(&cluster, "validating", "v", vec![hook.webhook("v.example.com", "/v")]).await;
    let good = create(&cluster, "good").await;
    assert_eq!(good.code, 201);
    assert_eq!(good.warnings(), ["299 - \"mind the gap\""]);
    let bad = create(&cluster, "bad").await;
    assert_eq!((bad.code.as_u16(), bad.body["reason"].as_str()), (403, Some("Forbidden")));
    assert_eq!(bad.message(), "admission webhook \"v.example.com\" denied the request: not like that");
    let mute = create(&cluster, "mute").await;
    assert_eq!(mute.code, 400);
    assert_eq!(mute.message(), "admission webhook \"v.example.com\" denied the request without explanation");

    cluster.admin("PATCH", &format!("{MAPS}/good"), json!({"data": {"k": "w"}})).await;
    assert_eq!(cluster.admin("DELETE", &format!("{MAPS}/good"), Value::Null).await.code, 200);
    let asked = hook.asked();
    let operations: Vec<_> = asked.iter().map(|request| request["operation"].as_str().unwrap()).collect();
    assert_eq!(operations, ["CREATE", "CREATE", "CREATE", "UPDATE", "DELETE"]);
    let first = &asked[0];
    for (key, value) in [
        ("kind", json!({"group": "", "version": "v1", "kind": "ConfigMap"})),
        ("requestResource", json!({"group": "", "version": "v1", "resource": "configmaps"})),
        ("namespace", json!("default")),
        ("dryRun", json!(false)),
        ("oldObject", Value::Null),
        ("userInfo", json!({"username": "admin", "groups": ["system:masters", "system:authenticated"]})),
        ("options", json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"})),
    ] {
        assert_eq!(first[key], value, "{key}");
    }
    assert_eq!(first["object"]["data"]["k"], "v");
    assert_eq!(
        (&asked[3]["object"]["data"]["k"], &asked[3]["oldObject"]["data"]["k"]),
        (&json!("w"), &json!("v"))
    );
    assert_eq!((&asked[4]["object"], &asked[4]["oldObject"]["data"]["k"]), (&Value::Null, &json!("w")));
    assert_eq!(hook.connections.load(Ordering::SeqCst), 1, "one connection serves all");
}

#[tokio::test(flavor = "multi_thread")]
async fn mutating_webhooks_run_in_order_and_see_what_later_ones_did() {
    let cluster = cluster().await;
    let hook = Hook::start(&cluster.pki, |path, request| {
        let seen = request["object"]["data"].get("late").is_some();
        match path {
            "/first" if seen => {
                patches(json!([{"op": "add", "path": "/data/first-saw-late", "value": "yes"}]))
            }
            "/first" => patches(json!([{"op": "add", "path": "/data/first", "value": "1"}])),
            "/late" if !seen => patches(json!([{"op": "add", "path": "/data/late", "value": "1"}])),
            _ => allows(),
        }
    })
    .await;
    // configurations run by name, not by age
    configure(&cluster, "mutating", "b", vec![hook.webhook("late.example.com", "/late")]).await;
    let mut first = hook.webhook("first.example.com", "/first");
    first["reinvocationPolicy"] = json!("IfNeeded");
    configure(&cluster, "mutating", "a", vec![first]).await;
    let created = create(&cluster, "m").await;
    assert_eq!(created.code, 201, "{created:?}");
    let data = json!({"k": "v", "first": "1", "late": "1", "first-saw-late": "yes"});
    assert_eq!(created.body["data"], data);
    let stored = cluster.admin("GET", &format!("{MAPS}/m"), Value::Null).await;
    assert_eq!(stored.body["data"], data);
    assert_eq!(hook.asked().len(), 3, "only the one that wants to is asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_do_not_reach_what_is_the_servers() {
    let cluster = cluster().await;
    let hook = Hook::start(&cluster.pki, |_, request| match request["name"].as_str() {
        Some("identity") => patches(json!([
            {"op": "replace", "path": "/metadata/uid", "value": "mine"},
            {"op": "replace", "path": "/metadata/creationTimestamp", "value": "2000-01-01T00:00:00Z"},
            {"op": "add", "path": "/metadata/deletionTimestamp", "value": "2000-01-01T00:00:00Z"},
        ])),
        Some("elsewhere") => {
            patches(json!([{"op": "replace", "path": "/metadata/namespace", "value": "kube-system"}]))
        }
        Some("unknown") => patches(json!([{"op": "add", "path": "/nonsense", "value": 1}])),
        Some("wrong") => patches(json!([{"op": "remove", "path": "/data/absent"}])),
        Some("typed") => patches(json!([{"op": "replace", "path": "/data", "value": [1]}])),
        Some("gone") if request["operation"] == "DELETE" => {
            patches(json!([{"op": "remove", "path": "/data"}]))
        }
        _ => allows(),
    })
    .await;
    configure(&cluster, "mutating", "m", vec![hook.webhook("m.example.com", "/")]).await;
    let identity = create(&cluster, "identity").await;
    assert_eq!(identity.code, 201, "{identity:?}");
    let metadata = &identity.body["metadata"];
    assert_ne!(metadata["uid"], "mine");
    assert_ne!(metadata["creationTimestamp"], "2000-01-01T00:00:00Z");
    assert!(metadata.get("deletionTimestamp").is_none());
    let uid = metadata["uid"].clone();
    let updated = cluster.admin("PATCH", &format!("{MAPS}/identity"), json!({"data": {"k": "w"}})).await;
    assert_eq!(updated.code, 422, "{updated:?}");
    assert!(
        updated.message().contains("metadata.uid: Invalid value: \"mine\": field is immutable"),
        "{updated:?}"
    );
    let stored = cluster.admin("GET", &format!("{MAPS}/identity"), Value::Null).await;
    assert_eq!((&stored.body["metadata"]["uid"], &stored.body["data"]["k"]), (&uid, &json!("v")));
    let elsewhere = create(&cluster, "elsewhere").await;
    assert_eq!(elsewhere.code, 400, "{elsewhere:?}");
    assert!(elsewhere.message().contains("does not match the namespace sent on the request"));
    let unknown = create(&cluster, "unknown").await;
    assert_eq!(unknown.code, 201);
    assert!(unknown.body.get("nonsense").is_none());
    for name in ["wrong", "typed"] {
        let answer = create(&cluster, name).await;
        assert_eq!(
            (answer.code.as_u16(), answer.body["reason"].as_str()),
            (500, Some("InternalError")),
            "{name}"
        );
    }
    assert_eq!(create(&cluster, "gone").await.code, 201);
    let deleted = cluster.admin("DELETE", &format!("{MAPS}/gone"), Value::Null).await;
    assert_eq!(
        deleted.message(),
        "Internal error occurred: admission webhook \"m.example.com\" attempted to modify the object, which is not supported for this operation"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_judged_by_the_policy() {
    let cluster = cluster().await;
    let hook = Hook::start(&cluster.pki, |path, _| match path {
        "/hang" => Does::Hangs,
        "/die" => Does::Dies,
        "/garbage" => Does::Says(200, "garbage".into()),
        "/500" => Does::Says(500, "boom".into()),
        "/404" => Does::Says(404, String::new()),
        _ => Does::Answers(json!({"allowed": true, "patch": "W10=", "patchType": "JSONPatch"})),
    })
    .await;
    let address = hook.address;
    let cases = [
        ("hang", format!("failed to call webhook: Post \"https://{address}/hang?timeout=1s\": context deadline exceeded")),
        ("die", format!("failed to call webhook: Post \"https://{address}/die?timeout=1s\": EOF")),
        ("garbage", "failed to call webhook: couldn't get version/kind; json parse error".into()),
        ("500", "failed to call webhook: an error on the server (\"boom\") has prevented the request from succeeding".into()),
        ("404", "failed to call webhook: the server could not find the requested resource".into()),
        ("patch", "received invalid webhook response: validating webhook may not return response.patch".into()),
    ];
    for (name, why) in cases {
        let mut webhook = hook.webhook("f.example.com", &format!("/{name}"));
        webhook["timeoutSeconds"] = json!(1);
        configure(&cluster, "validating", "f", vec![webhook.clone()]).await;
        let started = Instant::now();
        let refused = create(&cluster, name).await;
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!(refused.code, 500, "{name}");
        let message = format!("Internal error occurred: failed calling webhook \"f.example.com\": {why}");
        assert!(refused.message().starts_with(&message), "{} is not {message}", refused.message());
        webhook["failurePolicy"] = json!("Ignore");
        let uri = format!("{HOOKS}/validatingwebhookconfigurations/f");
        let patched = cluster.admin("PATCH", &uri, json!({"webhooks": [webhook]})).await;
        assert_eq!(patched.code, 200, "a configuration is never judged by webhooks: {patched:?}");
        assert_eq!(create(&cluster, name).await.code, 201, "{name}");
        assert_eq!(cluster.admin("DELETE", &uri, Value::Null).await.code, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_or_a_stranger_is_not_believed() {
    let cluster = cluster().await;
    let hook = Hook::start(&cluster.pki, |_, _| allows()).await;
    let mut webhook = hook.webhook("g.example.com", "/");
    configure(&cluster, "validating", "g", vec![webhook.clone()]).await;
    assert_eq!(create(&cluster, "one").await.code, 201);
    let other = common::Cluster::start(RequestOptions::default()).await;
    let stranger = Hook::start(&other.pki, |_, _| allows()).await;
    webhook["clientConfig"]["url"] = json!(format!("https://{}/", stranger.address));
    let uri = format!("{HOOKS}/validatingwebhookconfigurations/g");
    assert_eq!(cluster.admin("PATCH", &uri, json!({"webhooks": [webhook]})).await.code, 200);
    let refused = create(&cluster, "two").await;
    let why = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    assert!(refused.message().ends_with(why), "{refused:?}");
    webhook["clientConfig"]["url"] = json!(format!("https://{}/", hook.address));
    assert_eq!(cluster.admin("PATCH", &uri, json!({"webhooks": [webhook]})).await.code, 200);
    assert_eq!(create(&cluster, "three").await.code, 201);
    let address = hook.address;
    drop(hook);
    // what was connected stays so until it is closed; a new connection is refused
    tokio::time::sleep(Duration::from_millis(100)).await;
    webhook["clientConfig"]["url"] = json!(format!("https://{address}/other"));
    assert_eq!(cluster.admin("PATCH", &uri, json!({"webhooks": [webhook]})).await.code, 200);
    let refused = create(&cluster, "four").await;
    assert!(
        refused.message().ends_with(&format!("dial tcp {address}: connect: connection refused")),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_runs_reach_only_webhooks_without_side_effects() {
    let cluster = cluster().await;
    let hook = Hook::start(&cluster.pki, |_, _| allows()).await;
    configure(&cluster, "mutating", "d", vec![hook.webhook("d.example.com", "/")]).await;
    let body = json!({"metadata": {"name": "d"}});
    let uri = format!("{MAPS}?dryRun=All");
    assert_eq!(cluster.admin("POST", &uri, body.clone()).await.code, 201);
    assert_eq!(hook.asked()[0]["dryRun"], true);
    assert_eq!(hook.asked()[0]["options"]["dryRun"], json!(["All"]));
    assert_eq!(cluster.admin("GET", &format!("{MAPS}/d"), Value::Null).await.code, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn selectors_and_conditions_say_who_is_asked() {
    let cluster = cluster().await;
    let hook = Hook::start(&cluster.pki, |_, _| Does::Answers(json!({"allowed": false}))).await;
    let mut by_object = hook.webhook("o.example.com", "/");
    by_object["objectSelector"] = json!({"matchLabels": {"judge": "me"}});
    let mut by_namespace = hook.webhook("n.example.com", "/");
    by_namespace["namespaceSelector"] =
        json!({"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}});
    configure(&cluster, "validating", "s", vec![by_object, by_namespace]).await;
    let labelled = json!({"metadata": {"name": "l", "labels": {"judge": "me"}}});
    let plain = json!({"metadata": {"name": "p"}});
    assert_eq!(cluster.admin("POST", MAPS, plain.clone()).await.code, 201);
    assert!(cluster.admin("POST", MAPS, labelled).await.message().contains("o.example.com"));
    let there = cluster.admin("POST", "/api/v1/namespaces/kube-system/configmaps", plain.clone()).await;
    assert!(there.message().contains("n.example.com"), "{there:?}");
    cluster.admin("DELETE", &format!("{HOOKS}/validatingwebhookconfigurations/s"), Value::Null).await;

    let mut conditional = hook.webhook("c.example.com", "/");
    conditional["matchConditions"] = json!([{"name": "never", "expression": "false"}]);
    configure(&cluster, "validating", "c", vec![conditional.clone()]).await;
    let refused = cluster.admin("POST", MAPS, json!({"metadata": {"name": "q"}})).await;
    assert_eq!(refused.code, 403);
    assert!(
        refused.message().contains("the matchConditions of webhook \"c.example.com\" cannot be evaluated")
    );
    conditional["failurePolicy"] = json!("Ignore");
    let uri = format!("{HOOKS}/validatingwebhookconfigurations/c");
    cluster.admin("PATCH", &uri, json!({"webhooks": [conditional]})).await;
    assert_eq!(cluster.admin("POST", MAPS, json!({"metadata": {"name": "q"}})).await.code, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn equivalent_forms_reach_a_webhook_in_the_form_it_knows() {
    let cluster = cluster().await;
    let hook = Hook::start(&cluster.pki, |_, _| {
        patches(json!([{"op": "replace", "path": "/spec/targetCPUUtilizationPercentage", "value": 33}]))
    })
    .await;
    let mut webhook = hook.webhook("e.example.com", "/");
    webhook["rules"] = json!([{
        "operations": ["CREATE"], "apiGroups": ["autoscaling"], "apiVersions": ["v1"],
        "resources": ["horizontalpodautoscalers"],
    }]);
    configure(&cluster, "mutating", "e", vec![webhook.clone()]).await;
    let uri = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let cpu = |percent| json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}}]);
    let scaler = |name: &str| {
        json!({
            "metadata": {"name": name},
            "spec": {
                "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"},
                "maxReplicas": 3, "metrics": cpu(50),
            },
        })
    };
    let created = cluster.admin("POST", uri, scaler("a")).await;
    assert_eq!(created.code, 201, "{created:?}");
    assert_eq!(created.body["spec"]["metrics"], cpu(33));
    let asked = &hook.asked()[0];
    assert_eq!((&asked["kind"]["version"], &asked["requestKind"]["version"]), (&json!("v1"), &json!("v2")));
    assert_eq!(asked["object"]["apiVersion"], "autoscaling/v1");
    assert_eq!(asked["object"]["spec"]["targetCPUUtilizationPercentage"], 50);
    webhook["matchPolicy"] = json!("Exact");
    cluster
        .admin("PATCH", &format!("{HOOKS}/mutatingwebhookconfigurations/e"), json!({"webhooks": [webhook]}))
        .await;
    assert_eq!(cluster.admin("POST", uri, scaler("b")).await.body["spec"]["metrics"], cpu(50));
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_found_by_their_endpoints() {
    let cluster = cluster().await;
    let hook = Hook::start(&cluster.pki, |_, _| {
        Does::Answers(json!({"allowed": false, "status": {"message": "no"}}))
    })
    .await;
    let mut webhook = hook.webhook("s.example.com", "/");
    webhook["clientConfig"] = json!({
        "service": {"namespace": "default", "name": "hook", "path": "/s"}, "caBundle": hook.ca_bundle,
    });
    configure(&cluster, "validating", "s", vec![webhook]).await;
    let failed = |why: &str| {
        format!(
            "Internal error occurred: failed calling webhook \"s.example.com\": failed to call webhook: Post \"https://hook.default.svc:443/s?timeout=2s\": {why}"
        )
    };
    assert_eq!(create(&cluster, "a").await.message(), failed("service \"hook\" not found"));
    let service = json!({
        "metadata": {"name": "hook"}, "spec": {"ports": [{"name": "https", "port": 443, "targetPort": 8443}]},
    });
    let made = cluster.admin("POST", "/api/v1/namespaces/default/services", service).await;
    assert_eq!(made.code, 201, "{made:?}");
    assert_eq!(create(&cluster, "a").await.message(), failed("no endpoints available for service \"hook\""));
    let slice = |ready: bool| {
        json!({
            "metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}},
            "addressType": "IPv4",
            "ports": [{"name": "https", "port": hook.address.port()}],
            "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": ready}}],
        })
    };
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let made = cluster.admin("POST", slices, slice(false)).await;
    assert_eq!(made.code, 201, "{made:?}");
    assert_eq!(create(&cluster, "a").await.message(), failed("no endpoints available for service \"hook\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_let_in_and_what_is_refused_is_counted() {
    let cluster = cluster().await;
    let hook = Hook::start(&cluster.pki, |path, request| match (path, request["name"].as_str()) {
        ("/dies", _) => Does::Dies,
        (_, Some("denied")) => Does::Answers(json!({"allowed": false, "status": {"code": 403}})),
        _ => allows(),
    })
    .await;
    configure(&cluster, "validating", "v", vec![hook.webhook("v.example.com", "/")]).await;
    let mut open = hook.webhook("open.example.com", "/dies");
    open["failurePolicy"] = json!("Ignore");
    configure(&cluster, "mutating", "m", vec![open]).await;
    assert_eq!(create(&cluster, "passes").await.code, 201);
    assert_eq!(create(&cluster, "denied").await.code, 403);
    assert_eq!(cluster.with_token("nobody", "GET", "/api", Value::Null).await.code, 401);
    assert_eq!(cluster.send(None, "GET", "/metrics", Value::Null, &[]).await.code, 403);
    let metrics = cluster.admin("GET", "/metrics", Value::Null).await;
    let text = metrics.body.as_str().unwrap();
    let value = |series: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("{series} is not in\n{text}")).parse::<f64>().unwrap()
    };
    for (series, wanted) in [
        ("authentication_attempts{result=\"error\"}", 1.0),
        ("authorization_attempts_total{result=\"no-opinion\"}", 1.0),
        ("authenticated_user_requests{username=\"email_id\"}", 0.0),
        (
            "apiserver_admission_webhook_request_total{name=\"v.example.com\",type=\"validating\",operation=\"CREATE\",code=\"403\",rejected=\"true\"}",
            1.0,
        ),
        (
            "apiserver_admission_webhook_request_total{name=\"v.example.com\",type=\"validating\",operation=\"CREATE\",code=\"200\",rejected=\"false\"}",
            1.0,
        ),
        (
            "apiserver_admission_webhook_rejection_count{name=\"v.example.com\",type=\"validating\",operation=\"CREATE\",error_type=\"no_error\",rejection_code=\"403\"}",
            1.0,
        ),
        ("apiserver_admission_webhook_fail_open_count{name=\"open.example.com\",type=\"admit\"}", 2.0),
    ] {
        assert_eq!(value(series), wanted, "{series}");
    }
    for series in [
        "authentication_attempts{result=\"success\"}",
        "authorization_attempts_total{result=\"allowed\"}",
        "authenticated_user_requests{username=\"admin\"}",
        "authentication_duration_seconds_count{result=\"success\"}",
        "authorization_duration_seconds_count{result=\"allowed\"}",
        "apiserver_admission_step_admission_duration_seconds_count{type=\"admit\",operation=\"CREATE\",rejected=\"false\"}",
        "apiserver_admission_controller_admission_duration_seconds_count{name=\"NamespaceLifecycle\",type=\"admit\",operation=\"CREATE\",rejected=\"false\"}",
        "apiserver_admission_webhook_admission_duration_seconds_count{name=\"v.example.com\",type=\"validating\",operation=\"CREATE\",rejected=\"true\"}",
    ] {
        assert!(value(series) > 0.0, "{series}");
    }
    assert!(text.contains("# TYPE authentication_attempts counter\n"), "{text}");
    assert!(text.contains("# TYPE apiserver_request_total counter\n"), "{text}");
    assert!(!text.contains("# EOF"));
}

/// A webhook for other objects than config maps.
fn of(mut webhook: Value, operation: &str, group: &str, resource: &str) -> Value {
    webhook["rules"] = json!([{
        "operations": [operation], "apiGroups": [group], "apiVersions": ["v1"], "resources": [resource],
    }]);
    webhook
}

/// Webhooks are listed by their label and deleted together, after which nobody is asked any more.
async fn listed_and_deleted_together(sort: &str, before: (u16, Value), does: fn() -> Does) {
    let cluster = cluster().await;
    let hook = Hook::start(&cluster.pki, move |_, _| does()).await;
    let of_sort = format!("{HOOKS}/{sort}webhookconfigurations");
    for number in 0..10 {
        let webhook = hook.webhook(&format!("w{number}.example.com"), "/");
        let body = json!({"metadata": {"name": format!("w{number}"), "labels": {"of": "list"}}, "webhooks": [webhook]});
        assert_eq!(cluster.admin("POST", &of_sort, body).await.code, 201);
    }
    let by_label = format!("{of_sort}?labelSelector=of%3Dlist");
    let listed = cluster.admin("GET", &by_label, Value::Null).await;
    assert_eq!(listed.body["items"].as_array().map(Vec::len), Some(10));
    let asked = create(&cluster, "asked").await;
    assert_eq!((asked.code.as_u16(), asked.body["data"].clone()), before);
    assert_eq!(cluster.admin("DELETE", &by_label, Value::Null).await.code, 200);
    assert_eq!(cluster.admin("GET", &by_label, Value::Null).await.body["items"], json!([]));
    let alone = create(&cluster, "alone").await;
    assert_eq!((alone.code.as_u16(), &alone.body["data"]), (201, &json!({"k": "v"})));
}

#[tokio::test(flavor = "multi_thread")]
async fn validating_webhooks_are_listed_and_deleted_together() {
    let refuses = || Does::Answers(json!({"allowed": false}));
    listed_and_deleted_together("validating", (400, Value::Null), refuses).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mutating_webhooks_are_listed_and_deleted_together() {
    let marks = || patches(json!([{"op": "add", "path": "/data/marked", "value": "yes"}]));
    listed_and_deleted_together("mutating", (201, json!({"k": "v", "marked": "yes"})), marks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_follows_updates_and_patches_of_its_rules() {
    let cluster = cluster().await;
    let hook = Hook::start(&cluster.pki, |path, _| match path {
        "/refuse" => Does::Answers(json!({"allowed": false})),
        _ => patches(json!([{"op": "add", "path": "/data/marked", "value": "yes"}])),
    })
    .await;
    for (sort, path, expected) in [
        ("validating", "/refuse", (400, Value::Null)),
        ("mutating", "/mark", (201, json!({"k": "v", "marked": "yes"}))),
    ] {
        configure(
            &cluster,
            sort,
            "u",
            vec![of(hook.webhook("u.example.com", path), "CREATE", "", "configmaps")],
        )
        .await;
        let uri = format!("{HOOKS}/{sort}webhookconfigurations/u");
        let mut stored = cluster.admin("GET", &uri, Value::Null).await.body;
        stored["webhooks"][0]["rules"][0]["operations"] = json!(["UPDATE"]);
        assert_eq!(cluster.admin("PUT", &uri, stored).await.code, 200);
        let unasked = create(&cluster, &format!("{sort}-unasked")).await;
        assert_eq!((unasked.code.as_u16(), &unasked.body["data"]), (201, &json!({"k": "v"})), "{sort}");
        let patch = json!({"webhooks": [{"name": "u.example.com", "rules": [{
            "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"],
        }]}]});
        let patched = cluster
            .ask(
                "admin",
                &["system:masters"],
                "PATCH",
                &uri,
                patch,
                &[("content-type", "application/strategic-merge-patch+json")],
            )
            .await;
        assert_eq!(patched.code, 200, "{patched:?}");
        let asked = create(&cluster, &format!("{sort}-asked")).await;
        assert_eq!((asked.code.as_u16(), asked.body["data"].clone()), expected, "{sort}");
        assert_eq!(cluster.admin("DELETE", &uri, Value::Null).await.code, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_of_webhooks_are_kept() {
    let cluster = cluster().await;
    let hook = Hook::start(&cluster.pki, |_, _| allows()).await;
    for sort in ["validating", "mutating"] {
        let one = json!({"name": "one", "expression": "object.metadata.namespace == 'somewhere'"});
        let two = json!({"name": "two", "expression": "object.metadata.name != 'skip-me'"});
        let mut webhook = hook.webhook("c.example.com", "/");
        webhook["matchConditions"] = json!([one]);
        configure(&cluster, sort, "c", vec![webhook]).await;
        let uri = format!("{HOOKS}/{sort}webhookconfigurations/c");
        let mut stored = cluster.admin("GET", &uri, Value::Null).await.body;
        assert_eq!(stored["webhooks"][0]["matchConditions"], json!([one]));
        stored["webhooks"][0]["matchConditions"] = json!([two, one]);
        assert_eq!(cluster.admin("PUT", &uri, stored).await.code, 200);
        let updated = cluster.admin("GET", &uri, Value::Null).await.body;
        assert_eq!(updated["webhooks"][0]["matchConditions"], json!([two, one]));
        assert_eq!(cluster.admin("DELETE", &uri, Value::Null).await.code, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_webhook_adds_to_a_pod_gets_defaults() {
    let cluster = cluster().await;
    let hook = Hook::start(&cluster.pki, |_, _| {
        let container = json!({"name": "added", "image": "i", "resources": {}});
        patches(json!([{"op": "add", "path": "/spec/initContainers", "value": [container]}]))
    })
    .await;
    configure(&cluster, "mutating", "p", vec![of(hook.webhook("p.example.com", "/"), "CREATE", "", "pods")])
        .await;
    cluster
        .admin("POST", "/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}}))
        .await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let created = cluster.admin("POST", "/api/v1/namespaces/default/pods", pod).await;
    assert_eq!(created.code, 201, "{created:?}");
    let added = &created.body["spec"]["initContainers"];
    assert_eq!(added.as_array().map(Vec::len), Some(1), "{added}");
    assert_eq!((&added[0]["name"], &added[0]["terminationMessagePolicy"]), (&json!("added"), &json!("File")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_may_keep_clients_from_attaching() {
    let cluster = cluster().await;
    let hook = Hook::start(&cluster.pki, |_, _| {
        Does::Answers(json!({"allowed": false, "status": {"message": "attaching is not for you"}}))
    })
    .await;
    let webhook = of(hook.webhook("a.example.com", "/"), "CONNECT", "", "pods/attach");
    configure(&cluster, "validating", "a", vec![webhook]).await;
    cluster
        .admin("POST", "/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}}))
        .await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    let pods = "/api/v1/namespaces/default/pods";
    assert_eq!(cluster.admin("POST", pods, pod).await.code, 201);
    let refused =
        cluster.admin("POST", &format!("{pods}/p/attach?stdout=true&container=c"), Value::Null).await;
    assert_eq!(
        refused.message(),
        "admission webhook \"a.example.com\" denied the request: attaching is not for you"
    );
    let asked = &hook.asked()[0];
    for (key, value) in [
        ("operation", json!("CONNECT")),
        ("name", json!("p")),
        ("namespace", json!("default")),
        ("subResource", json!("attach")),
        ("resource", json!({"group": "", "version": "v1", "resource": "pods"})),
        ("kind", json!({"group": "", "version": "v1", "kind": "PodAttachOptions"})),
        ("object", json!({"kind": "PodAttachOptions", "apiVersion": "v1", "stdout": true, "container": "c"})),
        ("oldObject", Value::Null),
        ("options", Value::Null),
    ] {
        assert_eq!(asked[key], value, "{key}");
    }
    // other ways to the pod are not meant
    let other = cluster.admin("POST", &format!("{pods}/p/exec?command=ls&stdout=true"), Value::Null).await;
    assert_eq!(other.message(), "nodes \"n\" not found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_may_refuse_definitions_of_custom_resources() {
    let cluster = cluster().await;
    let hook = Hook::start(&cluster.pki, |_, _| {
        Does::Answers(json!({"allowed": false, "status": {"message": "nothing new here"}}))
    })
    .await;
    let group = "apiextensions.k8s.io";
    let webhook = of(hook.webhook("d.example.com", "/"), "CREATE", group, "customresourcedefinitions");
    configure(&cluster, "validating", "d", vec![webhook]).await;
    let definition = json!({"metadata": {"name": "widgets.example.com"}, "spec": {
        "group": "example.com", "scope": "Cluster", "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
    }});
    let uri = format!("/apis/{group}/v1/customresourcedefinitions");
    let refused = cluster.admin("POST", &uri, definition.clone()).await;
    assert_eq!(refused.message(), "admission webhook \"d.example.com\" denied the request: nothing new here");
    cluster.admin("DELETE", &format!("{HOOKS}/validatingwebhookconfigurations/d"), Value::Null).await;
    assert_eq!(cluster.admin("POST", &uri, definition).await.code, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_have_no_say_about_webhooks() {
    let cluster = cluster().await;
    let hook = Hook::start(&cluster.pki, |path, _| match path {
        "/refuse" => Does::Answers(json!({"allowed": false})),
        _ => patches(json!([{"op": "add", "path": "/metadata/labels", "value": {"marked": "yes"}}])),
    })
    .await;
    let group = "admissionregistration.k8s.io";
    let of_hooks =
        |path: &str, operation: &str| of(hook.webhook("h.example.com", path), operation, group, "*");
    configure(&cluster, "validating", "v", vec![of_hooks("/refuse", "DELETE")]).await;
    configure(&cluster, "mutating", "m", vec![of_hooks("/mark", "CREATE")]).await;
    for sort in ["validating", "mutating"] {
        configure(&cluster, sort, "free", vec![hook.webhook("free.example.com", "/allow")]).await;
        let uri = format!("{HOOKS}/{sort}webhookconfigurations/free");
        let stored = cluster.admin("GET", &uri, Value::Null).await;
        assert_eq!(stored.body["metadata"].get("labels"), None, "{sort}");
        assert_eq!(cluster.admin("DELETE", &uri, Value::Null).await.code, 200, "{sort}");
    }
    assert!(hook.asked().is_empty());
}
