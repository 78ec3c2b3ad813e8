//! Configurations told good from bad, and webhooks asked over TLS.

use apimachinery::selectors::{FieldSelector, LabelSelector};
use serde_json::{Value, json};

use super::*;
use crate::testing;
use crate::testing::https::{Asked, Says};

fn file(authorizers: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n{authorizers}"
    )
}

fn webhook(path: &str, more: &str) -> String {
    let base = "subjectAccessReviewVersion: v1, timeout: 3s, failurePolicy: Deny";
    let info = format!("connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {path}}}");
    file(&format!("- {{type: Webhook, name: w, webhook: {{{base}, {info}{more}}}}}\n"))
}

#[test]
fn files_are_read_and_what_is_wrong_is_said_in_upstreams_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config");
    std::fs::write(&path, "").expect("a file");
    let (path, dir) = (path.display().to_string(), folder.path().display().to_string());
    let good = AuthorizationConfiguration::parse(webhook(&path, "").as_bytes()).expect("good");
    let read = good.authorizers[0].webhook.as_ref().expect("there");
    assert_eq!(
        (read.timeout(), read.authorized_ttl(), read.unauthorized_ttl(), read.failure_policy()),
        (Duration::from_secs(3), Duration::from_secs(300), Duration::from_secs(30), FailurePolicy::Deny)
    );
    let change = |from: &str, to: &str| webhook(&path, "").replace(from, to);
    let cases = [
        (file(""), "authorizers: Required value: at least one authorization mode must be defined".to_owned()),
        (file("- {name: a}\n"), "authorizers[0].type: Required value".into()),
        (
            file("- {type: Cert, name: a}\n"),
            "authorizers[0].type: Unsupported value: \"Cert\": supported values: \"ABAC\", \"AlwaysAllow\", \"AlwaysDeny\", \"Node\", \"RBAC\", \"Webhook\"".into(),
        ),
        (
            file("- {type: AlwaysAllow, name: a}\n"),
            "authorizers[0].type: Forbidden: AlwaysAllow is not offered: authorization is always on".into(),
        ),
        (
            file("- {type: ABAC, name: a}\n"),
            "authorizers[0].type: Forbidden: ABAC is not offered; use RBAC".into(),
        ),
        (
            file("- {type: RBAC, name: a}\n- {type: RBAC, name: b}\n"),
            "authorizers[1].type: Duplicate value: \"RBAC\"".into(),
        ),
        (file("- {type: RBAC}\n"), "authorizers[0].name: Required value".into()),
        (
            file("- {type: RBAC, name: a}\n- {type: Node, name: a}\n"),
            "authorizers[1].name: Duplicate value: \"a\"".into(),
        ),
        (
            file("- {type: RBAC, name: a, webhook: {}}\n"),
            "authorizers[0].webhook: Invalid value: \"non-null\": may only be specified when type=Webhook".into(),
        ),
        (
            file("- {type: Webhook, name: a}\n"),
            "authorizers[0].webhook: Required value: required when type=Webhook".into(),
        ),
        (change("timeout: 3s, ", ""), "authorizers[0].timeout: Required value".into()),
        (
            change("timeout: 3s", "timeout: 31s"),
            "authorizers[0].timeout: Invalid value: \"31s\": must be > 0s and <= 30s".into(),
        ),
        (
            webhook(&path, ", authorizedTTL: -1s"),
            "authorizers[0].authorizedTTL: Invalid value: \"-1s\": must be > 0s".into(),
        ),
        (
            change("Version: v1", "Version: v2"),
            "authorizers[0].subjectAccessReviewVersion: Unsupported value: \"v2\": supported values: \"v1\", \"v1beta1\"".into(),
        ),
        (
            change("failurePolicy: Deny", "failurePolicy: Allow"),
            "authorizers[0].failurePolicy: Unsupported value: \"Allow\": supported values: \"NoOpinion\", \"Deny\"".into(),
        ),
        (
            webhook("config", ""),
            "authorizers[0].connectionInfo.kubeConfigFile: Invalid value: \"config\": must be an absolute path".into(),
        ),
        (
            webhook("/nowhere/config", ""),
            "authorizers[0].connectionInfo.kubeConfigFile: Invalid value: \"/nowhere/config\": error loading file: stat /nowhere/config: no such file or directory".into(),
        ),
        (
            webhook(&dir, ""),
            format!("authorizers[0].connectionInfo.kubeConfigFile: Invalid value: {dir:?}: must be a regular file"),
        ),
        (
            webhook(&path, ", matchConditions: [{expression: c}, {expression: c}, {expression: ' '}]"),
            "[authorizers[0].matchConditionSubjectAccessReviewVersion: Required value: required if match conditions are specified, authorizers[0].matchConditions[0].expression: Invalid value: \"c\": CEL expressions are not supported yet, authorizers[0].matchConditions[1].expression: Duplicate value: \"c\", authorizers[0].matchConditions[2].expression: Required value]".into(),
        ),
        (
            webhook(&path, ", ttl: 1s"),
            "strict decoding error: unknown field \"authorizers[0].webhook.ttl\"".into(),
        ),
    ];
    for (text, why) in cases {
        assert_eq!(AuthorizationConfiguration::parse(text.as_bytes()), Err(why), "{text}");
    }
}

struct Says1(&'static str);

#[async_trait]
impl Authorizer for Says1 {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Verdict {
        match attributes.user.name.starts_with(self.0) {
            true => Verdict::allow(self.0),
            false => Verdict::no_opinion(format!("not by {}", self.0)),
        }
    }

    async fn rules_for(&self, _user: &UserInfo, _namespace: &str) -> UserRules {
        UserRules::default()
    }
}

/// Node, then the webhook, then RBAC.
fn chain_with(world: &testing::Webhook, change: impl Fn(String) -> String) -> Arc<Reloadable> {
    let webhook = webhook(&world.kubeconfig().display().to_string(), "");
    let text = change(webhook).replace("authorizers:\n", "authorizers:\n- {type: Node, name: node}\n");
    let config = AuthorizationConfiguration::parse(format!("{text}- {{type: RBAC, name: r}}\n").as_bytes());
    let own = Own { node: Arc::new(Says1("node")), rbac: Arc::new(Says1("rbac")) };
    let backoff = Backoff { first: Duration::from_millis(1), steps: 5 };
    let options = Options { config: config.expect("good"), backoff, file: None };
    Reloadable::start(&options, own, &CancellationToken::new()).expect("a chain")
}

fn review(status: Value) -> Says {
    Says::Json(json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "status": status,
    }))
}

async fn ask(chain: &Reloadable, user: &str) -> (Decision, String, Option<String>) {
    let user = UserInfo::new(user, &["g"]);
    let fields = FieldSelector::parse("metadata.name=web,metadata.namespace!=other").expect("fields");
    let labels = LabelSelector::parse("a=1,b notin (2,3),c,!d,e>5").expect("labels");
    let attributes = Attributes {
        namespace: "ns",
        name: "web",
        api_version: "v1",
        field_selector: fields.requirements(),
        label_selector: labels.requirements(),
        ..Attributes::resource(&user, "list", "apps", "deployments")
    };
    let verdict = chain.authorize(&attributes).await;
    (verdict.decision, verdict.reason.clone(), verdict.error())
}

use crate::authorization::Decision;

fn answers(asked: &Asked) -> Says {
    match asked.body["spec"]["user"].as_str().unwrap_or_default() {
        "hook-allows" => review(json!({"allowed": true, "reason": "yes"})),
        "hook-denies" | "rbac-denied" => review(json!({"allowed": false, "denied": true, "reason": "no"})),
        "hook-both" => review(json!({"allowed": true, "denied": true})),
        "rbac-failing" | "failing" => Says::Text(500, "out of order".into()),
        "hangs" => Says::Hangs,
        "dies" => Says::Dies,
        "garbage" => Says::Text(200, "<html>".into()),
        _ => review(json!({"allowed": false, "reason": "do not know"})),
    }
}

#[tokio::test]
async fn a_webhook_has_its_place_in_the_order() {
    let world = testing::Webhook::start("/authorize", answers).await;
    let chain = chain_with(&world, |text| text);
    let plain = |decision, reason: &str| (decision, reason.to_owned(), None);
    assert_eq!(ask(&chain, "node-1").await, plain(Decision::Allow, "node"));
    assert!(world.server.asked().is_empty(), "who comes before has decided");
    assert_eq!(ask(&chain, "hook-allows").await, plain(Decision::Allow, "yes"));
    assert_eq!(ask(&chain, "hook-denies").await, plain(Decision::Deny, "no"));
    assert_eq!(ask(&chain, "rbac-denied").await, plain(Decision::Deny, "no"));
    assert_eq!(ask(&chain, "rbac-user").await, plain(Decision::Allow, "rbac"));
    let nobody = ask(&chain, "nobody").await;
    assert_eq!(nobody, plain(Decision::NoOpinion, "not by node\ndo not know\nnot by rbac"));
    let both = ask(&chain, "hook-both").await;
    let why = "webhook subject access review returned both allow and deny response";
    assert_eq!((both.0, both.2.as_deref()), (Decision::Deny, Some(why)));
    let first = &world.server.asked()[0];
    assert_eq!(first.headers["authorization"], "Bearer secret");
    assert_eq!(
        first.body["spec"],
        json!({
            "user": "hook-allows", "groups": ["g", "system:authenticated"],
            "resourceAttributes": {
                "namespace": "ns", "verb": "list", "group": "apps", "version": "v1", "resource": "deployments",
                "name": "web",
                "fieldSelector": {"requirements": [
                    {"key": "metadata.name", "operator": "In", "values": ["web"]},
                    {"key": "metadata.namespace", "operator": "NotIn", "values": ["other"]},
                ]},
                "labelSelector": {"requirements": [
                    {"key": "a", "operator": "In", "values": ["1"]},
                    {"key": "b", "operator": "NotIn", "values": ["2", "3"]},
                    {"key": "c", "operator": "Exists"},
                    {"key": "d", "operator": "DoesNotExist"},
                ]},
            },
        })
    );
    let masters = UserInfo::new("root", &["system:masters"]);
    let before = world.server.asked().len();
    assert!(chain.authorize(&Attributes::path(&masters, "get", "/x")).await.is_allowed());
    assert_eq!(world.server.asked().len(), before, "nobody judges the privileged group");
    let user = UserInfo::new("jane", &[]);
    chain.authorize(&Attributes::path(&user, "get", "/metrics")).await;
    let last = world.server.asked().pop().expect("a request");
    assert_eq!(last.body["spec"]["nonResourceAttributes"], json!({"path": "/metrics", "verb": "get"}));
    let rules = chain.rules_for(&user, "ns").await;
    assert!(rules.incomplete);
    assert_eq!(rules.errors, ["webhook authorizer does not support user rule resolution"]);
}

#[tokio::test]
async fn answers_are_kept_where_that_is_safe() {
    let world = testing::Webhook::start("/authorize", answers).await;
    let asked = async |chain: &Reloadable, user: &str| {
        let before = world.server.asked().len();
        for _ in 0..3 {
            ask(chain, user).await;
        }
        world.server.asked().len() - before
    };
    let chain = chain_with(&world, |text| text);
    assert_eq!(asked(&chain, "hook-allows").await, 1);
    assert_eq!(asked(&chain, "nobody").await, 1);
    let careful =
        chain_with(&world, |text| text.replace("timeout:", "cacheAuthorizedRequests: false, timeout:"));
    assert_eq!(asked(&careful, "hook-allows").await, 3);
    assert_eq!(asked(&careful, "nobody").await, 1);
    let long = "x".repeat(MAX_NAME);
    let user = UserInfo::new("hook-allows", &[]);
    let before = world.server.asked().len();
    for _ in 0..2 {
        let attributes = Attributes { name: &long, ..Attributes::resource(&user, "get", "", "pods") };
        assert!(chain.authorize(&attributes).await.is_allowed());
    }
    assert_eq!(world.server.asked().len() - before, 2, "what the caller chooses does not fill the memory");
}

const MAX_NAME: usize = 10_000;

#[tokio::test]
async fn a_webhook_that_fails_lets_others_decide_or_nobody() {
    let world = testing::Webhook::start("/authorize", answers).await;
    let quick = |text: String| text.replace("timeout: 3s", "timeout: 50ms");
    let open = chain_with(&world, |text| quick(text).replace("Deny", "NoOpinion"));
    let closed = chain_with(&world, quick);
    let server_error = "an error on the server (\"out of order\") has prevented the request from succeeding";
    for (user, why, tries) in [
        ("rbac-failing", server_error, 5),
        ("failing", server_error, 5),
        ("dies", "EOF", 5),
        ("hangs", "context deadline exceeded", 1),
        ("garbage", "invalid character '<' looking for beginning of value", 1),
    ] {
        let before = world.server.asked().len();
        let (decision, _, error) = ask(&closed, user).await;
        assert_eq!(decision, Decision::Deny, "{user}");
        assert!(error.as_ref().is_some_and(|error| error.contains(why)), "{user}: {error:?}");
        assert_eq!(world.server.asked().len() - before, tries, "{user}");
        let (decision, reason, error) = ask(&open, user).await;
        match user {
            // somebody else allows it, and the failure is of no account
            "rbac-failing" => assert_eq!((decision, reason.as_str(), error), (Decision::Allow, "rbac", None)),
            _ => {
                assert_eq!(decision, Decision::NoOpinion, "{user}");
                assert!(error.is_some_and(|error| error.contains(why)), "{user}");
            }
        }
    }
}

#[tokio::test]
async fn another_configuration_takes_over() {
    let world = testing::Webhook::start("/authorize", answers).await;
    let chain = chain_with(&world, |text| text);
    assert_eq!(ask(&chain, "hook-allows").await.0, Decision::Allow);
    chain.replace(file("- {type: RBAC, name: r}\n").as_bytes()).expect("good");
    assert_eq!(ask(&chain, "hook-allows").await.0, Decision::NoOpinion);
    assert_eq!(ask(&chain, "node-1").await.0, Decision::NoOpinion);
    let error = chain.replace(file("- {type: AlwaysAllow, name: a}\n").as_bytes()).expect_err("refused");
    assert!(error.contains("authorization is always on"), "{error}");
    assert_eq!(ask(&chain, "hook-allows").await.0, Decision::NoOpinion, "the one before stays");
    chain.replace(file("- {type: AlwaysDeny, name: a}\n").as_bytes()).expect("good");
    assert_eq!(ask(&chain, "rbac-user").await.0, Decision::NoOpinion);
}
