//! What a server does with more requests than it has places for.

mod common;

use apiserver::RequestOptions;
use apiserver::authentication::UserInfo;
use apiserver::http::request_info::RequestInfo;
use common::Cluster;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_too_late_is_told_to_try_again() {
    let requests =
        RequestOptions { priority_and_fairness: false, max_in_flight: 1, ..RequestOptions::default() };
    let cluster = Cluster::start(requests).await;
    let list = RequestInfo { is_resource: true, verb: "list", ..RequestInfo::default() };
    let taken = cluster.server.max_in_flight.enter(&list, &UserInfo::new("jane", &[]));
    assert!(taken.is_some());
    let get = |user, groups| cluster.ask(user, groups, "GET", "/version", Value::Null, &[]);
    let refused = get("jane", &["dev"]).await;
    assert_eq!(refused.code, 429);
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.body, "Too many requests, please try again later.\n");
    assert_eq!(get("admin", &["system:masters"]).await.code, 200);
    drop(taken);
    assert_eq!(get("jane", &["dev"]).await.code, 200);
    let metrics = cluster.admin("GET", "/metrics", Value::Null).await;
    let line = "apiserver_dropped_requests_total{request_kind=\"readOnly\"} 1";
    assert!(metrics.body.as_str().unwrap().contains(line));
}
