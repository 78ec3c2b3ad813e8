//! Which ways to authenticate a server offers, and those that know nothing of audiences made to heed them.

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::keys::{PublicKey, SigningKey};
use super::{
    Anonymous, Authenticated, Authenticator, BootstrapTokens, RequestHeaders, StaticTokens,
    TokenAuthenticator, TokenGetter, jwt, webhook,
};

/// What may be chosen; certificates and service account tokens always count.
#[derive(Clone)]
pub struct Options {
    /// Which requests without credentials are `system:anonymous`.
    pub anonymous: Anonymous,
    /// The tokens of a file.
    pub token_file: Option<StaticTokens>,
    /// Bootstrap tokens, from secrets in `kube-system`.
    pub bootstrap_tokens: bool,
    /// The headers by which front proxies tell for whom they speak.
    pub request_headers: RequestHeaders,
    /// Other issuers of tokens.
    pub jwt: jwt::Options,
    /// Who is asked about tokens that nobody here knows.
    pub webhook: Option<webhook::Options>,
    pub service_accounts: ServiceAccountOptions,
}

/// The tokens of service accounts.
#[derive(Clone)]
pub struct ServiceAccountOptions {
    /// The first is in new tokens, all are believed; the cluster's own name if there are none.
    pub issuers: Vec<String>,
    /// The API server's own audiences; the issuers if there are none.
    pub audiences: Vec<String>,
    /// What new tokens are signed with; the key of the certificates' folder if there is none.
    pub signing_key: Option<SigningKey>,
    /// Keys whose tokens are believed besides.
    pub keys: Vec<PublicKey>,
    /// Where the keys are said to be; at this server if it is empty.
    pub jwks_uri: String,
    /// How long a token may be good at most, in seconds.
    pub max_expiration: Option<i64>,
    /// Tokens of the admission plugin live on for a year, for clients that do not read them again.
    pub extend_expiration: bool,
}

impl Default for ServiceAccountOptions {
    fn default() -> Self {
        Self {
            issuers: Vec::new(),
            audiences: Vec::new(),
            signing_key: None,
            keys: Vec::new(),
            jwks_uri: String::new(),
            max_expiration: None,
            extend_expiration: true,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            anonymous: Anonymous::Everywhere,
            token_file: None,
            bootstrap_tokens: false,
            request_headers: RequestHeaders::default(),
            jwt: jwt::Options::default(),
            webhook: None,
            service_accounts: ServiceAccountOptions::default(),
        }
    }
}

impl Options {
    /// Puts what was chosen around the tokens of service accounts, in upstream's order. `audiences` are the API
    /// server's own, `issuers` those of service account tokens.
    pub fn apply(
        &self,
        base: Authenticator,
        service_accounts: impl IntoIterator<Item = Arc<dyn TokenAuthenticator>>,
        objects: Arc<dyn TokenGetter>,
        audiences: &[String],
        issuers: &[String],
        stopping: &CancellationToken,
    ) -> Result<Authenticator, String> {
        let heeding = |inner: Arc<dyn TokenAuthenticator>| {
            Arc::new(AudienceAgnostic { inner, audiences: audiences.to_vec() })
        };
        let mut chain = base.with_anonymous(self.anonymous.clone());
        if let Some(tokens) = &self.token_file {
            chain = chain.with_tokens(heeding(Arc::new(tokens.clone())));
        }
        for tokens in service_accounts {
            chain = chain.with_tokens(tokens);
        }
        if self.bootstrap_tokens {
            chain = chain.with_tokens(heeding(Arc::new(BootstrapTokens::new(objects))));
        }
        if self.jwt.file.is_some() || !self.jwt.config.jwt.is_empty() {
            let issuers = jwt::JwtAuthenticators::start(&self.jwt, issuers, stopping)?;
            chain = chain.with_tokens(heeding(issuers));
        }
        if let Some(options) = &self.webhook {
            let webhook = webhook::TokenWebhook::new(options, audiences)
                .map_err(|error| format!("--authentication-token-webhook-config-file: {error}"))?;
            let webhook = webhook.with_metrics(&chain.metrics);
            chain = chain.with_tokens(Arc::new(webhook));
        }
        Ok(chain)
    }
}

/// Tokens that name no audience: they are good for the API server's own and for no other.
struct AudienceAgnostic {
    inner: Arc<dyn TokenAuthenticator>,
    audiences: Vec<String>,
}

#[async_trait]
impl TokenAuthenticator for AudienceAgnostic {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Authenticated>, String> {
        let asked = |own: &&String| audiences.is_empty() || audiences.contains(own);
        let common: Vec<String> = self.audiences.iter().filter(asked).cloned().collect();
        if common.is_empty() {
            return Ok(None);
        }
        let found = self.inner.authenticate_token(token, audiences).await?;
        Ok(found.map(|found| Authenticated { audiences: common, ..found }))
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::Object;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use http::Request;
    use serde_json::json;

    use super::*;
    use crate::authentication::{ALL_AUTHENTICATED, ANONYMOUS};

    const BOOTSTRAP: &str = "abcdef.0123456789abcdef";

    struct Nobody;

    #[async_trait]
    impl TokenAuthenticator for Nobody {
        async fn authenticate_token(&self, _: &str, _: &[String]) -> Result<Option<Authenticated>, String> {
            Ok(None)
        }
    }

    struct Secrets;

    impl TokenGetter for Secrets {
        fn service_account(&self, _: &str, _: &str) -> Option<Arc<Object>> {
            None
        }

        fn pod(&self, _: &str, _: &str) -> Option<Arc<Object>> {
            None
        }

        fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
            let data = json!({
                "token-id": STANDARD.encode("abcdef"),
                "token-secret": STANDARD.encode("0123456789abcdef"),
                "usage-bootstrap-authentication": STANDARD.encode("true"),
            });
            let object = json!({"type": "bootstrap.kubernetes.io/token", "data": data});
            (namespace == "kube-system" && name == "bootstrap-token-abcdef").then(|| Arc::new(object.into()))
        }

        fn node(&self, _: &str) -> Option<Arc<Object>> {
            None
        }
    }

    fn chain(options: &Options) -> Authenticator {
        let audiences = ["api".to_owned(), "other-api".to_owned()];
        let stopping = CancellationToken::new();
        options
            .apply(
                Authenticator::new(),
                [Arc::new(Nobody) as Arc<dyn TokenAuthenticator>],
                Arc::new(Secrets),
                &audiences,
                &[],
                &stopping,
            )
            .expect("a chain")
    }

    fn all() -> Options {
        let token_file = StaticTokens::from_csv("f", "known,jane,1,devs\n").expect("good");
        Options {
            anonymous: Anonymous::Nowhere,
            token_file: Some(token_file),
            bootstrap_tokens: true,
            ..Options::default()
        }
    }

    #[tokio::test]
    async fn what_is_chosen_is_offered() {
        let who = async |options: &Options, token: Option<&str>| {
            let request = Request::builder();
            let request = match token {
                Some(token) => request.header("authorization", format!("Bearer {token}")),
                None => request,
            };
            let mut parts = request.body(()).expect("a request").into_parts().0;
            let found = chain(options).authenticate(&mut parts).await.ok()?;
            Some((found.user.name.clone(), found.user.is_in(ALL_AUTHENTICATED)))
        };
        let none = Options::default();
        let known = |name: &str| Some((name.to_owned(), true));
        let cases = [
            (&none, None, Some((ANONYMOUS.to_owned(), false))),
            (&none, Some("known"), None),
            (&none, Some(BOOTSTRAP), None),
            (&all(), None, None),
            (&all(), Some("known"), known("jane")),
            (&all(), Some(BOOTSTRAP), known("system:bootstrap:abcdef")),
            (&all(), Some("unknown"), None),
        ];
        for (options, token, wanted) in cases {
            assert_eq!(who(options, token).await, wanted, "{token:?}");
        }
    }

    #[tokio::test]
    async fn tokens_without_audiences_are_good_for_the_servers_own() {
        let chain = chain(&all());
        let cases: [(&[&str], Option<&[&str]>); 4] = [
            (&[], Some(&["api", "other-api"])),
            (&["api", "x"], Some(&["api"])),
            (&["other-api", "api"], Some(&["api", "other-api"])),
            (&["x"], None),
        ];
        for (asked, wanted) in cases {
            let asked: Vec<String> = asked.iter().map(|audience| (*audience).to_owned()).collect();
            for token in ["known", BOOTSTRAP] {
                let found = chain.authenticate_token(token, &asked).await.expect("no error");
                let wanted = wanted.map(|list| list.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>());
                assert_eq!(found.map(|found| found.audiences), wanted, "{token} {asked:?}");
            }
        }
    }
}
