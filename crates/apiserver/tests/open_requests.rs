//! Every route and verb of the catalogue, and every path that is no resource, asked for by those who have no rights of
//! their own. What is open to them is written down in `data/open_requests.txt`, with the role that opens it.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use apiserver::RequestOptions;
use common::Cluster;
use serde_json::{Value, json};

const OPEN: &str = include_str!("data/open_requests.txt");

/// Who asks: a word for it, the user's name, its groups.
const CALLERS: [(&str, &str, &[&str]); 3] = [
    ("anonymous", "system:anonymous", &["system:unauthenticated"]),
    (
        "account",
        "system:serviceaccount:default:unbound",
        &["system:serviceaccounts", "system:serviceaccounts:default"],
    ),
    ("node", "system:node:n1", &["system:nodes"]),
];

/// Paths that the server may or may not have, besides those that it lists.
const PATHS: [&str; 22] = [
    "/",
    "/api/",
    "/apis/nothing",
    "/configz",
    "/debug/api_priority_and_fairness/dump_priority_levels",
    "/debug/api_priority_and_fairness/dump_queues",
    "/debug/api_priority_and_fairness/dump_requests",
    "/debug/flags/v",
    "/debug/pprof/",
    "/flagz",
    "/healthz/etcd",
    "/healthz/ping",
    "/livez/ping",
    "/logs",
    "/metrics/slis",
    "/nothing",
    "/openapi/v3/api/v1",
    "/readyz/ping",
    "/statusz",
    "/swagger.json",
    "/ui",
    "/version/",
];

/// A verb with the method that it comes by.
const VERBS: [(&str, &str); 8] = [
    ("create", "POST"),
    ("delete", "DELETE"),
    ("deletecollection", "DELETE"),
    ("get", "GET"),
    ("list", "GET"),
    ("patch", "PATCH"),
    ("update", "PUT"),
    ("watch", "GET"),
];

/// A request: how it is written down, its method and its address.
type Asked = (String, &'static str, String);

/// Everything that can be asked of resources: of an object of this name, in each namespace that every cluster has.
fn of_resources(name: &str, shown: &str) -> Vec<Asked> {
    let mut out = Vec::new();
    for resource in api::catalogue().all() {
        let root = match resource.group {
            "" => format!("/api/{}", resource.version),
            group => format!("/apis/{group}/{}", resource.version),
        };
        if !resource.namespaced {
            out.extend(of_resource(resource, &root, name, shown));
            continue;
        }
        for namespace in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            let there = if namespace == "default" { String::new() } else { format!(" in {namespace}") };
            let root = format!("{root}/namespaces/{namespace}");
            out.extend(of_resource(resource, &root, name, &format!("{shown}{there}")));
        }
        let everywhere = of_resource(resource, &root, name, " everywhere");
        let reads = |asked: &Asked| asked.0.starts_with("list ") || asked.0.starts_with("watch ");
        out.extend(everywhere.into_iter().filter(reads));
    }
    out
}

/// The paths that say themselves that they are watches, which are no longer used: of a collection, of an object, and
/// with every method.
fn of_watch_paths(name: &str, shown: &str) -> Vec<Asked> {
    let mut out = Vec::new();
    for resource in api::catalogue().all() {
        let (root, full) = match resource.group {
            "" => (format!("/api/{}", resource.version), format!("{}/{}", resource.version, resource.plural)),
            group => {
                let version = format!("{group}/{}", resource.version);
                (format!("/apis/{version}"), format!("{version}/{}", resource.plural))
            }
        };
        let namespace = if resource.namespaced { "namespaces/default/" } else { "" };
        let collection = format!("{root}/watch/{namespace}{}", resource.plural);
        let mut uris = vec![collection.clone(), format!("{collection}/{name}")];
        if resource.namespaced {
            uris.push(format!("{root}/watch/{}", resource.plural));
        }
        for method in ["DELETE", "GET", "PATCH", "POST", "PUT"] {
            out.extend(uris.iter().map(|uri| (format!("watch {full}{shown}"), method, uri.clone())));
        }
    }
    out
}

fn of_resource(resource: &api::Resource, root: &str, name: &str, shown: &str) -> Vec<Asked> {
    let collection = format!("{root}/{}", resource.plural);
    let full = |part: &str| match resource.group {
        "" => format!("{}/{}{part}", resource.version, resource.plural),
        group => format!("{group}/{}/{}{part}", resource.version, resource.plural),
    };
    let mut out = Vec::new();
    for (verb, method) in VERBS {
        let uri = match verb {
            "create" | "deletecollection" | "list" => collection.clone(),
            "watch" => format!("{collection}?watch=1&resourceVersion=0"),
            _ => format!("{collection}/{name}"),
        };
        out.push((format!("{verb} {}{shown}", full("")), method, uri));
    }
    for subresource in resource.subresources {
        for (verb, method) in VERBS.into_iter().filter(|(verb, _)| subresource.verbs.contains(verb)) {
            let uri = format!("{collection}/{name}/{}", subresource.name);
            out.push((format!("{verb} {}{shown}", full(&format!("/{}", subresource.name))), method, uri));
        }
    }
    out
}

fn of_paths(cluster: &Cluster) -> Vec<Asked> {
    let listed = cluster.server.paths();
    let all: BTreeSet<&str> = listed.iter().map(String::as_str).chain(PATHS).collect();
    let methods = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];
    let each = |path: &str| {
        methods.map(|method| (format!("{} {path}", method.to_lowercase()), method, path.to_owned()))
    };
    all.into_iter().flat_map(each).collect()
}

/// What a caller is let through with: its answer is anything but that it may not ask this.
async fn open(cluster: &Cluster, user: &str, groups: &[&str], asked: Vec<Asked>) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for (shown, method, uri) in asked {
        // what is open in general need not be said again of one object or namespace
        let of_any = shown.replace(" own", "");
        let in_any = shown.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let said = out.contains(&of_any) || out.contains(&in_any);
        if !said && !is_closed(cluster, user, groups, method, &uri).await {
            out.insert(shown);
        }
    }
    out
}

async fn is_closed(cluster: &Cluster, user: &str, groups: &[&str], method: &str, uri: &str) -> bool {
    let answer = cluster.head(user, groups, method, uri).await;
    answer.code == 403 && answer.message().contains(&format!("User {user:?} cannot "))
}

/// Whether a line is about a request; a star at its end stands for whatever comes there, as in roles.
fn covers(line: &str, request: &str) -> bool {
    line == request || line.strip_suffix('*').is_some_and(|start| request.starts_with(start))
}

/// What is written down: for each caller its requests, each with the role that opens it.
fn expected() -> BTreeMap<&'static str, BTreeMap<String, &'static str>> {
    let mut out: BTreeMap<&str, BTreeMap<String, &str>> = BTreeMap::new();
    for line in OPEN.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [caller, verb, what @ .., role] = words.as_slice() else { panic!("{line}") };
        let request = format!("{verb} {}", what.join(" "));
        assert_eq!(out.entry(caller).or_default().insert(request, role), None, "{line} stands twice");
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_open_that_upstream_closes() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    let node = json!({"metadata": {"name": "n1"}});
    assert_eq!(cluster.admin("POST", "/api/v1/nodes", node).await.code, 201);
    let expected = expected();
    let mut wrong = Vec::new();
    for (caller, user, groups) in CALLERS {
        let mut asked = of_paths(&cluster);
        asked.extend(of_resources("x", ""));
        asked.extend(of_watch_paths("x", ""));
        if caller == "node" {
            asked.extend(of_resources("n1", " own"));
            asked.extend(of_watch_paths("n1", " own"));
        }
        let open = open(&cluster, user, groups, asked).await;
        let nothing = BTreeMap::new();
        let expected = expected.get(caller).unwrap_or(&nothing);
        let known = |request: &&String| expected.keys().any(|line| covers(line, request));
        let met = |line: &&String| open.iter().any(|request| covers(line, request));
        wrong.extend(open.iter().filter(|it| !known(it)).map(|it| format!("open: {caller} {it}")));
        wrong.extend(expected.keys().filter(|it| !met(it)).map(|it| format!("closed: {caller} {it}")));
        let roles: BTreeSet<&str> = expected.values().copied().collect();
        for role in roles {
            let uri = format!("/apis/rbac.authorization.k8s.io/v1/clusterroles/{role}");
            assert_eq!(cluster.admin("GET", &uri, Value::Null).await.code, 200, "there is no role {role}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
