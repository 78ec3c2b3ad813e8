//! Rules of kinds through the whole server: what an update has to be, what is said to its sender, and what the
//! parameters of policies take.

mod common;

use apiserver::RequestOptions;
use common::{Answer, Cluster};
use serde_json::{Value, json};

const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

async fn made(cluster: &Cluster, uri: &str, body: Value) -> Answer {
    let answer = cluster.admin("POST", uri, body).await;
    assert_eq!(answer.code, 201, "{answer:?}");
    answer
}

/// The causes of a refusal: fields and messages.
fn causes(answer: &Answer) -> Vec<(&str, &str)> {
    assert_eq!(answer.code, 422, "{answer:?}");
    let causes = answer.body["details"]["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |cause: &'_ Value, key: &str| cause[key].as_str().map(str::to_owned);
    assert!(causes.iter().all(|cause| text(cause, "reason").is_some()));
    causes
        .iter()
        .map(|cause| (cause["field"].as_str().unwrap(), cause["message"].as_str().unwrap()))
        .collect()
}

async fn grant(cluster: &Cluster, user: &str, rules: Value) {
    made(cluster, &format!("{RBAC}/clusterroles"), json!({"metadata": {"name": user}, "rules": rules})).await;
    let binding = json!({"metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]});
    made(cluster, &format!("{RBAC}/clusterrolebindings"), binding).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_are_judged_as_what_is_new() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    let classes = "/apis/storage.k8s.io/v1/storageclasses";
    made(&cluster, classes, json!({"metadata": {"name": "fast"}, "provisioner": "a.b/c"})).await;
    let bad = json!({"reclaimPolicy": "Retain", "allowedTopologies": [{"matchLabelExpressions": [{"key": "zone", "values": []}]}]});
    let refused = cluster.admin("PATCH", &format!("{classes}/fast"), bad).await;
    assert_eq!(
        causes(&refused),
        [
            ("allowedTopologies[0].matchLabelExpressions[0].values", "Required value"),
            ("reclaimPolicy", "Forbidden: updates to reclaimPolicy are forbidden."),
        ]
    );
    let ranges = "/apis/networking.k8s.io/v1/servicecidrs";
    made(&cluster, ranges, json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.200.0.0/24"]}})).await;
    let grown = json!({"spec": {"cidrs": ["10.200.0.0/24", "fd00:1::/112"]}, "status": {"conditions": [{"type": "A"}]}});
    let answer = cluster.admin("PATCH", &format!("{ranges}/more"), grown).await;
    assert_eq!(answer.code, 200, "{answer:?}");
    assert_eq!(answer.body["metadata"]["generation"], Value::Null);
    assert!(!answer.body["status"]["conditions"].to_string().contains("\"A\""), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn warnings_come_with_what_is_written() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    let policies = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
    let policy = json!({"metadata": {"name": "p"}, "spec": {"podSelector": {}, "ingress": [
        {"from": [{"ipBlock": {"cidr": "2001:DB8::/32"}}]},
    ]}});
    assert_eq!(
        made(&cluster, policies, policy).await.warnings(),
        [
            "299 - \"spec.ingress[0].from[0].ipBlock.cidr: IPv6 CIDR value \\\"2001:DB8::/32\\\" should be in RFC 5952 canonical format (\\\"2001:db8::/32\\\")\""
        ]
    );
    let definition = json!({"metadata": {"name": "widgets.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
            "type": "object", "properties": {
                "a": {"type": "string", "format": "odd"}, "b": {"type": "string", "format": "odd"},
            },
        }}}],
    }});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(
        made(&cluster, definitions, definition).await.warnings(),
        ["299 - \"unrecognized format \\\"odd\\\"\""]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_of_policies_are_for_those_who_may_read_them() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    let writes = json!({"apiGroups": ["admissionregistration.k8s.io"], "resources": ["*"], "verbs": ["*"]});
    let reads = |verbs: Value| json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": verbs});
    grant(&cluster, "ann", json!([writes])).await;
    grant(&cluster, "bob", json!([writes, reads(json!(["get"]))])).await;
    let send = async |user: &str, method: &str, plural: &str, body: Value| {
        let uri = match method {
            "POST" => format!("{ADMISSION}/{plural}"),
            _ => format!("{ADMISSION}/{plural}/{}", body["metadata"]["name"].as_str().unwrap()),
        };
        cluster.ask(user, &["system:authenticated"], method, &uri, body, &[]).await
    };
    let policy = |name: &str, kind: &str| {
        json!({"metadata": {"name": name}, "spec": {
            "paramKind": {"apiVersion": "v1", "kind": kind}, "validations": [{"expression": "true"}],
            "matchConstraints": {"resourceRules": [
                {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]},
            ]},
        }})
    };
    let policies = "validatingadmissionpolicies";
    assert_eq!(
        causes(&send("ann", "POST", policies, policy("p", "ConfigMap")).await),
        [(
            "spec.paramKind",
            "Forbidden: user &{ann  [system:authenticated] map[]} must have \"get\" permission on all objects of the referenced paramKind (kind=ConfigMap, apiVersion=v1)",
        )]
    );
    assert_eq!(send("bob", "POST", policies, policy("p", "ConfigMap")).await.code, 201);
    // a kind that is not there takes everything of its version
    assert_eq!(causes(&send("bob", "POST", policies, policy("q", "Odd")).await)[0].0, "spec.paramKind");
    // what was there before may stay
    let labels = json!({"metadata": {"name": "p", "labels": {"a": "b"}}});
    assert_eq!(send("ann", "PATCH", policies, labels).await.code, 200);

    let binding = |policy: &str, reference: Value| {
        json!({"metadata": {"name": "b"}, "spec": {
            "policyName": policy, "paramRef": reference, "validationActions": ["Deny"],
        }})
    };
    let bindings = "validatingadmissionpolicybindings";
    let named = json!({"name": "c", "namespace": "default", "parameterNotFoundAction": "Deny"});
    let selected = json!({"selector": {}, "parameterNotFoundAction": "Deny"});
    const USER: &str = "user &{ann  [system:authenticated] map[]} does not have \"get\" permission";
    for (policy, why) in [
        ("p", format!("Forbidden: {USER} on the object referenced by paramRef")),
        (
            "none",
            format!(
                "Forbidden: unable to get policy none to determine minimum required permissions and {USER} for all groups, versions and resources"
            ),
        ),
    ] {
        let refused = send("ann", "POST", bindings, binding(policy, named.clone())).await;
        assert_eq!(causes(&refused), [("spec.paramRef", why.as_str())]);
    }
    assert_eq!(
        causes(&send("bob", "POST", bindings, binding("p", selected)).await),
        [(
            "spec.paramRef",
            "Forbidden: user &{bob  [system:authenticated] map[]} does not have \"list\" permission on the object referenced by paramRef",
        )]
    );
    assert_eq!(send("bob", "POST", bindings, binding("p", named)).await.code, 201);
}
