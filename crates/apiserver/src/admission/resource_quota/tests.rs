//! Quotas: the rule as a table, and many writers at one quota through the whole server.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::authentication::{SYSTEM_PRIVILEGED_GROUP, UserInfo};
use crate::testing;

fn quota(name: &str, spec: Value, hard: Value, used: Value) -> ResourceQuota {
    serde_json::from_value(json!({
        "metadata": {"name": name}, "spec": spec, "status": {"hard": hard, "used": used}}))
    .expect("a quota")
}

fn request(plural: &'static str, object: Value, old: Option<Value>) -> Request {
    let counted = Counted { group: "", plural };
    let object = Object::from(object);
    let now = Timestamp::now();
    let (usage, scopes) = measure(counted, &object, now).expect("an object");
    Request {
        counted,
        create: old.is_none(),
        usage,
        old: old.map(|old| measure(counted, &Object::from(old), now).expect("an object")),
        scopes,
        pod: (plural == "pods").then(|| typed(&object).expect("a pod")),
        refusable: true,
    }
}

#[test]
fn writes_are_charged_or_refused() {
    let pod = |resources: Value| json!({"spec": {"containers": [{"name": "a", "resources": resources}]}});
    let asking = pod(json!({"requests": {"cpu": "500m", "memory": "1Gi"}}));
    let service = |kind: &str| json!({"spec": {"type": kind, "ports": [{"port": 80}]}});
    let any = || json!({});
    let cases: Vec<(&str, ResourceQuota, Request, Result<&str, &str>)> = vec![
        (
            "fits",
            quota("q", any(), json!({"pods": "2"}), json!({"pods": "1"})),
            request("pods", asking.clone(), None),
            Ok("0:pods=1"),
        ),
        (
            "full",
            quota(
                "q",
                any(),
                json!({"pods": "1", "requests.cpu": "1"}),
                json!({"pods": "1", "requests.cpu": "600m"}),
            ),
            request("pods", asking.clone(), None),
            Err(
                "exceeded quota: q, requested: pods=1,requests.cpu=500m, used: pods=1,requests.cpu=600m, limited: pods=1,requests.cpu=1",
            ),
        ),
        (
            "only what is over is named",
            quota("q", any(), json!({"pods": "5", "memory": "1Gi"}), json!({"pods": "1", "memory": "512Mi"})),
            request("pods", asking.clone(), None),
            Err("exceeded quota: q, requested: memory=1Gi, used: memory=512Mi, limited: memory=1Gi"),
        ),
        (
            "must be set",
            quota("q", any(), json!({"limits.memory": "1Gi"}), json!({"limits.memory": "0"})),
            request("pods", asking.clone(), None),
            Err("failed quota: q: must specify limits.memory for: a"),
        ),
        (
            "not counted yet",
            quota("q", any(), json!({"pods": "1", "cpu": "1"}), json!({"cpu": "0"})),
            request("pods", asking.clone(), None),
            Err("status unknown for quota: q, resources: cpu,pods"),
        ),
        (
            "no status yet",
            quota("q", json!({"hard": {"pods": "0"}}), json!({}), json!({})),
            request("pods", asking.clone(), None),
            Ok(""),
        ),
        (
            "another scope",
            quota("q", json!({"scopes": ["BestEffort"]}), json!({"pods": "0"}), json!({"pods": "0"})),
            request("pods", asking.clone(), None),
            Ok(""),
        ),
        (
            "its scope",
            quota("q", json!({"scopes": ["BestEffort"]}), json!({"pods": "0"}), json!({"pods": "0"})),
            request("pods", pod(json!({})), None),
            Err("exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0"),
        ),
        (
            "another kind",
            quota("q", any(), json!({"services": "0"}), json!({"services": "0"})),
            request("pods", asking.clone(), None),
            Ok(""),
        ),
        (
            "a new type of service",
            quota(
                "q",
                any(),
                json!({"services": "1", "services.nodeports": "1"}),
                json!({"services": "1", "services.nodeports": "0"}),
            ),
            request("services", service("NodePort"), Some(service("ClusterIP"))),
            Ok("0:services.nodeports=1"),
        ),
        (
            "a smaller update",
            quota("q", any(), json!({"services.nodeports": "0"}), json!({"services.nodeports": "5"})),
            request("services", service("ClusterIP"), Some(service("NodePort"))),
            Ok(""),
        ),
        (
            "by name of kind",
            quota(
                "q",
                any(),
                json!({"count/secrets": "1", "secrets": "2"}),
                json!({"count/secrets": "1", "secrets": "1"}),
            ),
            request("secrets", json!({}), None),
            Err(
                "exceeded quota: q, requested: count/secrets=1, used: count/secrets=1, limited: count/secrets=1",
            ),
        ),
        (
            "negative",
            quota("q", any(), json!({"pods": "1"}), json!({"pods": "0"})),
            request("pods", pod(json!({"requests": {"cpu": "-1"}})), None),
            Err("quota usage is negative for resource(s): cpu,requests.cpu"),
        ),
    ];
    for (name, quota, request, wanted) in cases {
        let found = check([&quota].into_iter(), &request, &[]).map(|due| {
            due.iter().map(|(index, usage)| format!("{index}:{}", shown(usage))).collect::<String>()
        });
        let wanted = wanted.map(str::to_owned).map_err(|why| Refusal::Forbidden(why.to_owned()));
        assert_eq!(found, wanted, "{name}");
    }
}

#[test]
fn what_is_limited_takes_a_quota() {
    let limited = |value: Value| -> Vec<LimitedResource> { serde_json::from_value(value).expect("limits") };
    let cpu = limited(json!([{"resource": "pods", "matchContains": ["cpu"]}]));
    let high = limited(json!([{"resource": "pods", "matchScopes": [
        {"scopeName": "PriorityClass", "operator": "In", "values": ["high", "higher"]}]}]));
    let pod = |more: Value| {
        let mut spec = json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]});
        spec.as_object_mut().expect("a map").extend(more.as_object().cloned().unwrap_or_default());
        json!({"spec": spec})
    };
    let important = pod(json!({"priorityClassName": "high"}));
    let of_cpu = quota(
        "q",
        json!({}),
        json!({"cpu": "9", "requests.cpu": "9"}),
        json!({"cpu": "0", "requests.cpu": "0"}),
    );
    let scope = json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "Exists"}]}});
    let of_class = quota("q", scope, json!({"pods": "9"}), json!({"pods": "0"}));
    let forbidden = |why: &str| Err(Refusal::Forbidden(why.to_owned()));
    let failed = |why: &str| Err(Refusal::Failed(why.to_owned()));
    let cases: Vec<(&str, &[LimitedResource], Vec<&ResourceQuota>, Request, Result<(), Refusal>)> = vec![
        (
            "no quota",
            &cpu,
            vec![],
            request("pods", pod(json!({})), None),
            forbidden("insufficient quota to consume: cpu,requests.cpu"),
        ),
        ("a quota", &cpu, vec![&of_cpu], request("pods", pod(json!({})), None), Ok(())),
        ("nothing new", &cpu, vec![], request("pods", pod(json!({})), Some(pod(json!({})))), Ok(())),
        ("another kind", &cpu, vec![], request("secrets", json!({}), None), Ok(())),
        (
            "no quota of the class",
            &high,
            vec![&of_cpu],
            request("pods", important.clone(), None),
            failed("insufficient quota to match these scopes: [{PriorityClass In [high higher]}]"),
        ),
        ("a quota of the class", &high, vec![&of_class], request("pods", important, None), Ok(())),
        ("another class", &high, vec![], request("pods", pod(json!({})), None), Ok(())),
    ];
    for (name, limited, quotas, request, wanted) in cases {
        assert_eq!(check(quotas.iter().copied(), &request, limited).map(drop), wanted, "{name}");
    }
}

#[test]
fn a_status_is_charged_beyond_the_limit() {
    let full = quota("q", json!({}), json!({"requests.storage": "1Gi"}), json!({"requests.storage": "1Gi"}));
    let claim = |allocated: &str| {
        json!({"spec": {"resources": {"requests": {"storage": "1Gi"}}},
        "status": {"allocatedResources": {"storage": allocated}}})
    };
    let mut request = request("persistentvolumeclaims", claim("2Gi"), Some(claim("1Gi")));
    assert!(check([&full].into_iter(), &request, &[]).is_err());
    request.refusable = false;
    let due = check([&full].into_iter(), &request, &[]).expect("charged");
    assert_eq!(shown(&due[0].1), "requests.storage=1Gi");
}

async fn limited(client: &kube::Client, hard: Value) -> Api<k8s_openapi::api::core::v1::ResourceQuota> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "a"}})).expect("a namespace");
    namespaces.create(&PostParams::default(), &namespace).await.expect("made");
    let quotas: Api<k8s_openapi::api::core::v1::ResourceQuota> = Api::namespaced(client.clone(), "a");
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": hard}});
    quotas
        .create(&PostParams::default(), &serde_json::from_value(quota).expect("a quota"))
        .await
        .expect("made");
    let used: serde_json::Map<String, Value> =
        hard.as_object().into_iter().flatten().map(|(name, _)| (name.clone(), json!("0"))).collect();
    let status = json!({"status": {"hard": hard, "used": used}});
    quotas.patch_status("q", &PatchParams::default(), &Patch::Merge(status)).await.expect("a status");
    quotas
}

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}})).expect("a map")
}

fn used(quota: &k8s_openapi::api::core::v1::ResourceQuota, name: &str) -> String {
    quota.status.as_ref().and_then(|s| s.used.as_ref()?.get(name)).map(|q| q.0.clone()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_writers_at_one_quota_take_what_there_is() {
    let stopping = CancellationToken::new();
    let (server, _dir) = testing::server(stopping.clone()).await;
    let user = || UserInfo::new("root", &[SYSTEM_PRIVILEGED_GROUP]);
    let client = crate::InProcess::client(server.clone(), user());
    let quotas = limited(&client, json!({"count/configmaps": "50"})).await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "a");
    let maps = Arc::new(maps);
    let mut writers = tokio::task::JoinSet::new();
    for index in 0..200 {
        let maps = maps.clone();
        writers.spawn(async move { maps.create(&PostParams::default(), &map(&format!("m{index}"))).await });
    }
    let (mut made, mut refused) = (0, 0);
    while let Some(outcome) = writers.join_next().await {
        match outcome.expect("no panic") {
            Ok(_) => made += 1,
            Err(kube::Error::Api(status)) => {
                let wanted = "exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=50, limited: count/configmaps=50";
                assert!(status.message.ends_with(wanted), "{}", status.message);
                assert_eq!((status.code, status.reason.as_str()), (403, "Forbidden"));
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((made, refused), (50, 150));
    assert_eq!(maps.list(&Default::default()).await.expect("a list").items.len(), 50);
    assert_eq!(used(&quotas.get("q").await.expect("the quota"), "count/configmaps"), "50");
    stopping.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_together_is_charged_by_one_write() {
    let stopping = CancellationToken::new();
    let (server, _dir) = testing::server(stopping.clone()).await;
    let client = crate::InProcess::client(server.clone(), UserInfo::new("root", &[SYSTEM_PRIVILEGED_GROUP]));
    let quotas = limited(&client, json!({"count/configmaps": "20", "count/secrets": "9"})).await;
    let turns = Turns::default();
    let lead = turns.of("a").lead.lock().await;
    let charge =
        |plural, dry_run| turns.charge(&server.registry, "a", request(plural, json!({}), None), dry_run, &[]);
    let mut writes: Vec<_> = (0..30).map(|_| charge("configmaps", false)).collect();
    writes.push(charge("secrets", true));
    writes.push(charge("secrets", false));
    let mut writes = std::pin::pin!(futures::future::join_all(writes));
    assert!(futures::poll!(&mut writes).is_pending());
    let before = quotas.get("q").await.expect("the quota").metadata.resource_version;
    drop(lead);
    let (mut charged, mut refused) = (Vec::new(), 0);
    for outcome in writes.await {
        match outcome.expect("the store works") {
            Ok(charge) => charged.push(charge),
            Err(Refusal::Forbidden(why)) => {
                assert!(why.ends_with("used: count/configmaps=20, limited: count/configmaps=20"), "{why}");
                refused += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((charged.len(), refused), (22, 10));
    let quota = quotas.get("q").await.expect("the quota");
    assert_eq!([used(&quota, "count/configmaps"), used(&quota, "count/secrets")], ["20", "1"]);
    let revision = |version: Option<String>| version.and_then(|v| v.parse::<u64>().ok()).expect("a version");
    let from = revision(before);
    let mut events = server.registry.storage.watch("/registry/resourcequotas/", from).await.expect("a watch");
    let batch = events.next().await.expect("goes on").expect("does not fail");
    assert_eq!(batch.events.len(), 1, "the quota was written once");
    assert_eq!(batch.events[0].revision(), revision(quota.metadata.resource_version));
    for charge in charged {
        turns.release(&server.registry, charge).await;
    }
    let quota = quotas.get("q").await.expect("the quota");
    assert_eq!([used(&quota, "count/configmaps"), used(&quota, "count/secrets")], ["0", "0"]);
    stopping.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_and_a_failed_write_cost_nothing() {
    let stopping = CancellationToken::new();
    let (server, _dir) = testing::server(stopping.clone()).await;
    let client = crate::InProcess::client(server, UserInfo::new("root", &[SYSTEM_PRIVILEGED_GROUP]));
    let quotas = limited(&client, json!({"configmaps": "2"})).await;
    let maps: Api<ConfigMap> = Api::namespaced(client, "a");
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    maps.create(&dry, &map("a")).await.expect("a dry run");
    assert_eq!(used(&quotas.get("q").await.expect("the quota"), "configmaps"), "0");
    maps.create(&PostParams::default(), &map("a")).await.expect("made");
    maps.create(&PostParams::default(), &map("a")).await.expect_err("there already");
    assert_eq!(used(&quotas.get("q").await.expect("the quota"), "configmaps"), "1");
    maps.create(&PostParams::default(), &map("b")).await.expect("made");
    maps.create(&dry, &map("c")).await.expect_err("no room, in a dry run too");
    stopping.cancel();
}
