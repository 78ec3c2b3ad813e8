//! What lists hold, page by page, and in which forms objects show.

mod common;

use apiserver::AdmissionOptions;
use common::{Answer, Cluster, stubs};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn cluster() -> Cluster {
    let options = AdmissionOptions::new(&[], &["ServiceAccount".to_owned()], None).unwrap();
    Cluster::start_in(tempfile::tempdir().unwrap(), |config| config.admission = options).await
}

async fn get(cluster: &Cluster, uri: &str) -> Answer {
    cluster.admin("GET", uri, Value::Null).await
}

fn names(list: &Answer) -> Vec<&str> {
    let items = list.body["items"].as_array().unwrap_or_else(|| panic!("no list: {}", list.body));
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

/// Why a list is refused, by a part of the message; otherwise how many it holds.
fn expected(limit: usize, token: &str, version: &str, matching: &str) -> Result<usize, &'static str> {
    if version.is_empty() && !matching.is_empty() {
        return Err("resourceVersionMatch is forbidden unless resourceVersion is provided");
    }
    if !token.is_empty() && !matching.is_empty() {
        return Err("resourceVersionMatch is forbidden when continue is provided");
    }
    match (matching, version, token) {
        ("Invalid", ..) => return Err("supported values"),
        ("Exact", "0", _) => {
            return Err("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
        (_, _, "invalid") => return Err("continue key is not valid"),
        (_, "gone" | "invalid", "valid") => {
            return Err("specifying resource version is not allowed when using continue");
        }
        (_, "invalid", _) => return Err("Invalid value"),
        ("Exact", "gone", _) => return Err("The resourceVersion for the provided list is too old"),
        ("", "gone", _) if limit > 0 => return Err("The resourceVersion for the provided list is too old"),
        _ => {}
    }
    Ok(match (token, version, limit) {
        ("valid", ..) => 4,
        (_, "0", _) | (.., 0) => 10,
        _ => limit,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_ask_for_a_list_is_answered_or_refused() {
    let cluster = cluster().await;
    let mut versions = Vec::new();
    for index in 0..15 {
        let map = json!({"metadata": {"name": format!("m{index:02}"), "labels": {"of": "test"}}});
        let made = cluster.admin("POST", MAPS, map).await;
        assert_eq!(made.code, 201, "{}", made.body);
        versions.push(made.body["metadata"]["resourceVersion"].as_str().unwrap().to_owned());
        if index < 5 {
            cluster.admin("DELETE", &format!("{MAPS}/m{index:02}"), Value::Null).await;
        }
    }
    cluster.storage.compact(versions[4].parse().unwrap()).await.unwrap();
    let folder = cluster.stop().await;
    let cluster = Cluster::start_in(folder, |_| ()).await;
    let first = get(&cluster, &format!("{MAPS}?labelSelector=of&limit=6")).await;
    assert_eq!(names(&first).len(), 6);
    let next = first.body["metadata"]["continue"].as_str().unwrap().to_owned();
    let mut wrong = Vec::new();
    for limit in [0, 6] {
        for token in ["", "valid", "invalid"] {
            for version in ["", "0", "gone", "invalid"] {
                for matching in ["", "NotOlderThan", "Exact", "Invalid"] {
                    let shown_token = if token == "valid" { next.as_str() } else { token };
                    let shown_version = if version == "gone" { versions[0].as_str() } else { version };
                    let list = get(
                        &cluster,
                        &format!(
                            "{MAPS}?labelSelector=of&limit={limit}&continue={shown_token}\
                             &resourceVersion={shown_version}&resourceVersionMatch={matching}"
                        ),
                    )
                    .await;
                    let is_right = match expected(limit, token, version, matching) {
                        Ok(count) => list.code == 200 && names(&list).len() == count,
                        Err(why) => list.code != 200 && list.message().contains(why),
                    };
                    if !is_right {
                        wrong.push(format!(
                            "limit {limit}, token {token:?}, version {version:?}, match {matching:?}: {} {} {:?}",
                            list.code,
                            list.message(),
                            list.body["items"].as_array().map(Vec::len)
                        ));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_what_is_selected_at_the_version_of_the_first() {
    let cluster = cluster().await;
    for index in 0..10 {
        let map =
            json!({"metadata": {"name": format!("m{index}"), "labels": {"odd": format!("{}", index % 2)}}});
        assert_eq!(cluster.admin("POST", MAPS, map).await.code, 201);
    }
    let first = get(&cluster, &format!("{MAPS}?labelSelector=odd%3D1&limit=3")).await;
    assert_eq!(names(&first), ["m1", "m3", "m5"]);
    // what cannot be counted without looking is not counted
    assert_eq!(first.body["metadata"].get("remainingItemCount"), None);
    cluster.admin("POST", MAPS, json!({"metadata": {"name": "m99", "labels": {"odd": "1"}}})).await;
    let token = first.body["metadata"]["continue"].as_str().unwrap();
    let next = get(&cluster, &format!("{MAPS}?labelSelector=odd%3D1&limit=3&continue={token}")).await;
    assert_eq!(names(&next), ["m7", "m9"]);
    let version = |list: &Answer| list.body["metadata"]["resourceVersion"].clone();
    assert_eq!(version(&next), version(&first));
    assert_eq!(next.body["metadata"].get("continue"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_namespaces_are_selected_like_fields() {
    let cluster = cluster().await;
    for namespace in ["ns0", "ns1", "ns2"] {
        cluster.admin("POST", "/api/v1/namespaces", json!({"metadata": {"name": namespace}})).await;
        for name in ["foo", "bar"] {
            let uri = format!("/api/v1/namespaces/{namespace}/secrets");
            let made = cluster.admin("POST", &uri, json!({"metadata": {"name": name}})).await;
            assert_eq!(made.code, 201, "{}", made.body);
        }
    }
    for (namespace, selector, count) in [
        ("", "metadata.name=foo", 3),
        ("", "metadata.name=foo,metadata.name=bar", 0),
        ("", "metadata.name=foo,metadata.namespace=ns1", 1),
        ("namespaces/ns1/", "metadata.name=foo,metadata.namespace=ns1", 1),
        ("namespaces/ns1/", "metadata.name=foo,metadata.namespace=ns2", 0),
        ("namespaces/ns1/", "metadata.name=foo,metadata.namespace=", 0),
    ] {
        let selected = selector.replace('=', "%3D");
        let list = get(&cluster, &format!("/api/v1/{namespace}secrets?fieldSelector={selected}")).await;
        assert_eq!(names(&list).len(), count, "{namespace} {selector}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_lists_have_items() {
    let cluster = cluster().await;
    for row in api::catalogue().all().filter(|row| row.verbs().contains(&"list")) {
        let uri = format!("{}?labelSelector=nothing", stubs::collection(row, "nowhere"));
        let list = get(&cluster, &uri).await;
        assert_eq!(list.body["items"], json!([]), "{uri}: {}", list.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subresources_show_as_tables() {
    let cluster = cluster().await;
    let uri = "/api/v1/namespaces/default/replicationcontrollers";
    let containers = json!([{"name": "c", "image": "i"}]);
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers}});
    let spec = json!({"replicas": 2, "selector": {"a": "b"}, "template": template});
    let made = cluster.admin("POST", uri, json!({"metadata": {"name": "r"}, "spec": spec})).await;
    assert_eq!(made.code, 201, "{}", made.body);
    for part in ["", "/status", "/scale"] {
        let accept = [("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")];
        let table = cluster
            .ask("admin", &["system:masters"], "GET", &format!("{uri}/r{part}"), Value::Null, &accept)
            .await;
        assert_eq!(table.body["kind"], "Table", "{part}: {}", table.body);
        assert_eq!(table.body["rows"][0]["cells"][0], "r", "{part}");
        let names = table.body["columnDefinitions"].as_array().unwrap().iter();
        let names: Vec<&str> = names.map(|column| column["name"].as_str().unwrap()).collect();
        if part == "/scale" {
            assert_eq!(names, ["Name", "Desired", "Available", "Age"]);
            let cells = &table.body["rows"][0]["cells"];
            assert_eq!((&cells[1], &cells[2]), (&json!(2), &json!(0)));
        }
    }
}
