//! Bearer tokens that somebody else is asked about: a `TokenReview` posted to a webhook.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use super::metrics::TokenCacheMetrics;
use super::{Authenticated, TokenAuthenticator, UserInfo};
use crate::outgoing::retry::{Backoff, post_review};
use crate::outgoing::ttl_cache::{Key, TtlCache, key};
use crate::outgoing::{HttpsClient, TIMEOUT};

/// How a webhook is asked.
#[derive(Clone, Debug)]
pub struct Options {
    /// A kubeconfig that says where it is.
    pub config_file: PathBuf,
    /// `v1` or `v1beta1`.
    pub version: String,
    /// How long its answers are believed.
    pub cache_ttl: Duration,
    pub backoff: Backoff,
    pub timeout: Duration,
}

impl Options {
    /// What upstream has by default.
    pub fn new(config_file: PathBuf) -> Self {
        Self {
            config_file,
            version: "v1beta1".into(),
            cache_ttl: Duration::from_secs(120),
            backoff: Backoff::default(),
            timeout: TIMEOUT,
        }
    }
}

impl Options {
    /// Whether a webhook can be made of it.
    pub fn check(&self) -> Result<(), String> {
        TokenWebhook::new(self, &[]).map(drop)
    }
}

type Outcome = Result<Option<Authenticated>, String>;

/// Recognizes tokens that a webhook knows.
pub struct TokenWebhook {
    asker: Arc<Asker>,
    known: Arc<TtlCache<Option<Authenticated>>>,
    ttl: Duration,
    /// Questions that are under way: whoever has the same waits for the same answer.
    asking: Arc<Mutex<HashMap<Key, Shared<BoxFuture<'static, Outcome>>>>>,
    /// The API server's own audiences.
    audiences: Vec<String>,
    metrics: TokenCacheMetrics,
}

struct Asker {
    client: HttpsClient,
    url: String,
    version: String,
    backoff: Backoff,
    timeout: Duration,
    audiences: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Review {
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    authenticated: bool,
    user: User,
    audiences: Vec<String>,
    error: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
    uid: String,
    groups: Option<Vec<String>>,
    extra: Option<std::collections::BTreeMap<String, Vec<String>>>,
}

impl TokenWebhook {
    /// `audiences` are the API server's own: what a webhook that knows of none vouches for.
    pub fn new(options: &Options, audiences: &[String]) -> Result<Self, String> {
        let version = options.version.as_str();
        if !["v1", "v1beta1"].contains(&version) {
            return Err(format!(
                "unsupported authentication webhook version {version:?}, supported versions are \"v1\", \"v1beta1\""
            ));
        }
        let (client, url) = HttpsClient::from_kubeconfig(&options.config_file)?;
        let asker = Asker {
            client,
            url,
            version: version.to_owned(),
            backoff: options.backoff,
            timeout: options.timeout,
            audiences: audiences.to_vec(),
        };
        Ok(Self {
            asker: Arc::new(asker),
            known: Arc::default(),
            ttl: options.cache_ttl,
            asking: Arc::default(),
            audiences: audiences.to_vec(),
            metrics: TokenCacheMetrics::default(),
        })
    }

    /// Counts tokens that come again.
    pub fn with_metrics(self, metrics: &TokenCacheMetrics) -> Self {
        Self { metrics: metrics.clone(), ..self }
    }

    /// The answer that is on its way already, or a question that goes on even when its caller leaves.
    fn ask(&self, key: Key, token: &str, wanted: &[String]) -> Shared<BoxFuture<'static, Outcome>> {
        let mut asking = self.asking.lock();
        if let Some(under_way) = asking.get(&key) {
            return under_way.clone();
        }
        let (asker, known, ttl) = (self.asker.clone(), self.known.clone(), self.ttl);
        let (open, token, wanted) = (self.asking.clone(), token.to_owned(), wanted.to_vec());
        let metrics = self.metrics.clone();
        let question = tokio::spawn(async move {
            let in_flight = metrics.in_flight();
            let outcome = asker.ask(&token, &wanted).await;
            drop(in_flight);
            metrics.fetched(outcome.is_ok());
            if let Ok(found) = &outcome {
                known.insert(key, found.clone(), ttl);
            }
            open.lock().remove(&key);
            outcome
        });
        let answer =
            question.map(|ended| ended.unwrap_or_else(|error| Err(error.to_string()))).boxed().shared();
        asking.insert(key, answer.clone());
        answer
    }
}

impl Asker {
    async fn ask(&self, token: &str, wanted: &[String]) -> Outcome {
        let review = json!({
            "kind": "TokenReview",
            "apiVersion": format!("authentication.k8s.io/{}", self.version),
            "metadata": {"creationTimestamp": null},
            "spec": {"token": token, "audiences": wanted},
            "status": {"user": {}},
        });
        let answer = post_review(&self.client, &self.url, &review, self.timeout, self.backoff).await;
        let answer = answer.and_then(|answer: Value| {
            serde_json::from_value::<Review>(answer).map_err(|error| error.to_string())
        });
        let status = match answer {
            Ok(review) => review.status,
            Err(error) => {
                tracing::error!(%error, "Failed to make webhook authenticator request");
                return Err(error);
            }
        };
        let got = if status.audiences.is_empty() { &self.audiences } else { &status.audiences };
        let good_for: Vec<String> = wanted.iter().filter(|one| got.contains(one)).cloned().collect();
        if good_for.is_empty() {
            return Ok(None);
        }
        if !status.authenticated {
            return if status.error.is_empty() { Ok(None) } else { Err(status.error) };
        }
        let user = UserInfo {
            name: status.user.username,
            uid: status.user.uid,
            groups: status.user.groups.unwrap_or_default(),
            extra: status.user.extra.unwrap_or_default(),
        };
        Ok(Some(Authenticated { audiences: good_for, ..Authenticated::new(Arc::new(user)) }))
    }
}

#[async_trait]
impl TokenAuthenticator for TokenWebhook {
    async fn authenticate_token(&self, token: &str, audiences: &[String]) -> Outcome {
        let wanted = if audiences.is_empty() { &self.audiences } else { audiences };
        let key = key(std::iter::once(token).chain(wanted.iter().map(String::as_str)));
        let begun = Instant::now();
        if let Some(known) = self.known.get(&key) {
            self.metrics.asked(true, begun.elapsed());
            return Ok(known);
        }
        let _blocked = self.metrics.blocked();
        let outcome = self.ask(key, token, wanted).await;
        self.metrics.asked(false, begun.elapsed());
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::testing::Webhook;
    use crate::testing::https::{Asked, Says};

    async fn start(does: impl Fn(&Asked) -> Says + Send + Sync + 'static) -> Webhook {
        Webhook::start("/authenticate", does).await
    }

    fn options(world: &Webhook) -> Options {
        let backoff = Backoff { first: Duration::from_millis(1), steps: 5 };
        Options { version: "v1".into(), backoff, ..Options::new(world.kubeconfig()) }
    }

    fn open(options: &Options) -> TokenWebhook {
        TokenWebhook::new(options, &["api".into()]).expect("a webhook")
    }

    fn review(status: Value) -> Says {
        Says::Json(json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status,
        }))
    }

    fn jane(audiences: &[&str]) -> Value {
        let user = json!({"username": "jane", "uid": "7", "groups": ["devs"], "extra": {"k": ["v"]}});
        json!({"authenticated": true, "user": user, "audiences": audiences})
    }

    #[tokio::test]
    async fn the_webhook_says_who_it_is() {
        let world = start(|asked| match asked.body["spec"]["token"].as_str() {
            Some("good") => review(jane(&[])),
            Some("narrow") => review(jane(&["other"])),
            Some("explained") => review(json!({"authenticated": false, "error": "too old"})),
            _ => review(json!({"authenticated": false})),
        })
        .await;
        let webhook = open(&options(&world));
        let found = webhook.authenticate_token("good", &[]).await.expect("no error").expect("known");
        assert_eq!(found.user.to_value(), jane(&[])["user"]);
        assert_eq!(found.audiences, ["api"], "a webhook that knows of none vouches for the server's own");
        let ask = async |token: &str, audiences: &[&str]| {
            let audiences: Vec<String> = audiences.iter().map(|one| (*one).to_owned()).collect();
            let found = webhook.authenticate_token(token, &audiences).await;
            found.map(|found| found.map(|found| found.audiences))
        };
        assert_eq!(ask("good", &["x"]).await, Ok(None));
        assert_eq!(ask("narrow", &[]).await, Ok(None));
        assert_eq!(ask("narrow", &["x", "other"]).await, Ok(Some(vec!["other".to_owned()])));
        assert_eq!(ask("explained", &[]).await, Err("too old".into()));
        assert_eq!(ask("bad", &[]).await, Ok(None));
        let asked = world.server.asked();
        assert_eq!(asked[0].path, "/authenticate");
        assert_eq!(asked[0].client.as_deref(), Some("apiserver"), "it shows its own certificate");
        assert_eq!(asked[0].body["spec"], json!({"token": "good", "audiences": ["api"]}));
        assert_eq!(asked[0].body["apiVersion"], "authentication.k8s.io/v1");
    }

    #[tokio::test]
    async fn answers_are_kept_and_shared_but_failures_are_not() {
        let world = start(|asked| match asked.body["spec"]["token"].as_str() {
            Some("good") => review(jane(&[])),
            Some("broken") => Says::Text(404, String::new()),
            _ => review(json!({"authenticated": false})),
        })
        .await;
        let webhook = open(&options(&world));
        for (token, questions) in [("good", 1), ("bad", 1), ("broken", 3)] {
            let before = world.server.asked().len();
            for _ in 0..3 {
                let _ = webhook.authenticate_token(token, &[]).await;
            }
            assert_eq!(world.server.asked().len() - before, questions, "{token}");
        }
        let forgetful = open(&Options { cache_ttl: Duration::ZERO, ..options(&world) });
        let before = world.server.asked().len();
        let many = (0..8).map(|_| forgetful.authenticate_token("good", &[]));
        for found in futures::future::join_all(many).await {
            assert!(matches!(found, Ok(Some(_))));
        }
        assert_eq!(world.server.asked().len() - before, 1, "those who ask at once share an answer");
        assert!(matches!(forgetful.authenticate_token("good", &[]).await, Ok(Some(_))));
        assert_eq!(world.server.asked().len() - before, 2);
    }

    #[tokio::test]
    async fn what_may_pass_is_tried_again() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let world = start(move |asked| {
            let number = counted.fetch_add(1, Ordering::SeqCst);
            match asked.body["spec"]["token"].as_str() {
                Some("soon") if number >= 3 => review(jane(&[])),
                Some("soon" | "never") => Says::Text(500, "out of order".into()),
                Some("dies") => Says::Dies,
                Some("garbage") => Says::Text(200, "<html>".into()),
                Some("else") => Says::Json(json!({"kind": "Pod", "apiVersion": "v1"})),
                Some("old") => {
                    Says::Json(json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1beta1"}))
                }
                Some("locked") => Says::Text(401, String::new()),
                _ => Says::Hangs,
            }
        })
        .await;
        let webhook = open(&options(&world));
        assert!(matches!(webhook.authenticate_token("soon", &[]).await, Ok(Some(_))));
        for (token, tries, why) in [
            (
                "never",
                5,
                "an error on the server (\"out of order\") has prevented the request from succeeding",
            ),
            ("dies", 5, "EOF"),
            ("garbage", 1, "invalid character '<' looking for beginning of value"),
            ("else", 1, "no kind \"Pod\" is registered for version \"v1\""),
            ("old", 1, "no kind \"TokenReview\" is registered for version \"authentication.k8s.io/v1beta1\""),
            ("locked", 1, "the server has asked for the client to provide credentials"),
        ] {
            calls.store(0, Ordering::SeqCst);
            let error = webhook.authenticate_token(token, &[]).await.expect_err("no answer");
            assert!(error.contains(why), "{token}: {error}");
            assert_eq!(calls.load(Ordering::SeqCst), tries, "{token}");
        }
        let impatient = open(&Options { timeout: Duration::from_millis(50), ..options(&world) });
        let error = impatient.authenticate_token("hangs", &[]).await.expect_err("no answer");
        assert!(error.ends_with("/authenticate\": context deadline exceeded"), "{error}");
    }

    #[tokio::test]
    async fn one_that_is_gone_or_not_itself_is_told_from_one_that_refuses() {
        let world = start(|_| review(jane(&[]))).await;
        let options = options(&world);
        let gone = start(|_| review(jane(&[]))).await;
        let text = std::fs::read_to_string(&options.config_file).expect("a file");
        // another authority than that which signed the webhook's certificate
        std::fs::copy(gone.folder.path().join("ca"), world.folder.path().join("ca")).expect("a file");
        let error = open(&options).authenticate_token("good", &[]).await.expect_err("not itself");
        assert!(error.ends_with("x509: certificate signed by unknown authority"), "{error}");
        assert!(world.server.asked().is_empty(), "no token is told to a stranger");
        let unused = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("one");
        let moved = text.replace(&world.server.address.to_string(), &unused.to_string());
        std::fs::write(&options.config_file, moved).expect("a file");
        let error = open(&options).authenticate_token("good", &[]).await.expect_err("gone");
        assert!(error.ends_with("connection refused"), "{error}");
        let wrong =
            TokenWebhook::new(&Options { version: "v2".into(), ..options }, &[]).err().expect("refused");
        assert_eq!(
            wrong,
            "unsupported authentication webhook version \"v2\", supported versions are \"v1\", \"v1beta1\""
        );
    }
}
