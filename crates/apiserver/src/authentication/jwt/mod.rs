//! JSON web tokens of other issuers (OpenID Connect), as an `AuthenticationConfiguration` or the `--oidc-*` flags
//! name them.
//!
//! [`config`] says who is believed, [`provider`] what they publish. An issuer is asked in the background until it
//! answers, so that one that is dead holds up neither the start of the server nor other tokens.

mod config;
mod provider;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Authenticated, CREDENTIAL_ID_KEY, TokenAuthenticator, UserInfo};
use crate::outgoing::HttpsClient;
use crate::reload;
pub use config::{
    AnonymousCondition, AnonymousConfig, AuthenticationConfiguration, ClaimMappings, ClaimValidationRule,
    Issuer, JwtAuthenticatorConfig, PrefixedClaim,
};
pub use provider::Algorithm;
use provider::{RemoteKeys, Signed};

/// How often an issuer is asked that has not answered yet.
const RETRY: Duration = Duration::from_secs(10);

/// How long the issuers of a new configuration have to answer, and those of the one before stay of use.
const CHANGEOVER: Duration = Duration::from_secs(60);

/// How far an issuer's clock may be ahead, in seconds.
const LEEWAY: i64 = 60;

const GOOGLE: &str = "https://accounts.google.com";

/// Which issuers are believed.
#[derive(Clone, Debug)]
pub struct Options {
    pub config: AuthenticationConfiguration,
    /// How tokens may be signed.
    pub algorithms: Vec<Algorithm>,
    /// The file that the configuration is from, to be looked at again, with what it held.
    pub file: Option<(PathBuf, Vec<u8>)>,
}

impl Default for Options {
    fn default() -> Self {
        Self { config: AuthenticationConfiguration::default(), algorithms: Algorithm::all(), file: None }
    }
}

/// All issuers that are believed now.
pub struct JwtAuthenticators {
    current: ArcSwap<Generation>,
    algorithms: Vec<Algorithm>,
    /// The issuers of service account tokens, which no other issuer may be.
    disallowed: Vec<String>,
    retry: Duration,
}

/// The issuers of one configuration, asked for as long as this is there.
struct Generation {
    issuers: Vec<Arc<JwtAuthenticator>>,
    _ends_with_it: DropGuard,
}

impl Generation {
    fn start(
        config: &AuthenticationConfiguration,
        algorithms: &[Algorithm],
        retry: Duration,
    ) -> Result<Self, String> {
        let cancel = CancellationToken::new();
        let issuers = config
            .jwt
            .iter()
            .map(|one| JwtAuthenticator::new(one.clone(), algorithms.to_vec()).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        for issuer in &issuers {
            let (issuer, cancel) = (issuer.clone(), cancel.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = cancel.cancelled() => {}
                    () = issuer.initialize(retry) => {}
                }
            });
        }
        Ok(Self { issuers, _ends_with_it: cancel.drop_guard() })
    }

    fn health(&self) -> Result<(), String> {
        self.issuers.iter().try_for_each(|issuer| issuer.health())
    }
}

impl JwtAuthenticators {
    /// Begins to ask the issuers, and follows the file if there is one.
    pub fn start(
        options: &Options,
        disallowed: &[String],
        cancel: &CancellationToken,
    ) -> Result<Arc<Self>, String> {
        options.config.check(disallowed)?;
        let started = Arc::new(Self {
            current: ArcSwap::from_pointee(Generation::start(&options.config, &options.algorithms, RETRY)?),
            algorithms: options.algorithms.clone(),
            disallowed: disallowed.to_vec(),
            retry: RETRY,
        });
        if let Some((path, bytes)) = options.file.clone() {
            let (following, cancel) = (started.clone(), cancel.clone());
            tokio::spawn(reload::follow(
                "--authentication-config",
                path,
                bytes,
                cancel,
                async move |bytes| following.replace(bytes).await,
            ));
        }
        Ok(started)
    }

    /// Believes the issuers of another file, once all of them have answered.
    async fn replace(&self, bytes: &[u8]) -> Result<(), String> {
        let config = AuthenticationConfiguration::parse(bytes, &self.disallowed)?;
        let next = Generation::start(&config, &self.algorithms, self.retry)?;
        let answered = async {
            while next.health().is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        if tokio::time::timeout(CHANGEOVER, answered).await.is_err() {
            next.health()?;
        }
        let before = self.current.swap(Arc::new(next));
        // requests that are under way may still need it
        tokio::spawn(async move {
            tokio::time::sleep(CHANGEOVER).await;
            drop(before);
        });
        Ok(())
    }
}

#[async_trait]
impl TokenAuthenticator for JwtAuthenticators {
    async fn authenticate_token(
        &self,
        token: &str,
        _audiences: &[String],
    ) -> Result<Option<Authenticated>, String> {
        let generation = self.current.load_full();
        for issuer in &generation.issuers {
            if let Some(user) = issuer.authenticate_at(token, Utc::now()).await? {
                return Ok(Some(Authenticated::new(Arc::new(user))));
            }
        }
        Ok(None)
    }
}

/// Recognizes the tokens of one issuer.
struct JwtAuthenticator {
    config: JwtAuthenticatorConfig,
    algorithms: Vec<Algorithm>,
    client: HttpsClient,
    keys: OnceLock<RemoteKeys>,
    /// Why there are no keys yet.
    unready: Mutex<String>,
}

impl JwtAuthenticator {
    fn new(config: JwtAuthenticatorConfig, algorithms: Vec<Algorithm>) -> Result<Self, String> {
        let client = HttpsClient::new(config.issuer.certificate_authority.as_bytes())?;
        let unready = format!("oidc: authenticator for issuer {:?} is not initialized", config.issuer.url);
        Ok(Self { config, algorithms, client, keys: OnceLock::new(), unready: Mutex::new(unready) })
    }

    /// Asks the issuer until it answers.
    async fn initialize(&self, retry: Duration) {
        let issuer = &self.config.issuer;
        loop {
            match RemoteKeys::discover(&self.client, &issuer.url, &issuer.discovery_url).await {
                Ok(keys) => {
                    let _ = self.keys.set(keys);
                    return;
                }
                Err(error) => {
                    let mut unready = self.unready.lock();
                    if *unready == error {
                        tracing::debug!(issuer = issuer.url, %error, "oidc authenticator: initializing plugin");
                    } else {
                        tracing::error!(issuer = issuer.url, %error, "oidc authenticator: initializing plugin");
                        *unready = error;
                    }
                }
            }
            tokio::time::sleep(retry).await;
        }
    }

    fn health(&self) -> Result<(), String> {
        match self.keys.get() {
            Some(_) => Ok(()),
            None => Err(format!(
                "oidc: authenticator for issuer {:?} is not healthy: {}",
                self.config.issuer.url,
                self.unready.lock()
            )),
        }
    }

    async fn authenticate_at(&self, token: &str, now: DateTime<Utc>) -> Result<Option<UserInfo>, String> {
        if untrusted_issuer(token).as_deref() != Some(self.config.issuer.url.as_str()) {
            return Ok(None);
        }
        let keys = self.keys.get().ok_or("oidc: authenticator not initialized")?;
        let claims =
            self.verify(keys, token, now).await.map_err(|why| format!("oidc: verify token: {why}"))?;
        self.user(&claims).map(Some)
    }

    /// The claims of a token that is the issuer's, for us, and for now.
    async fn verify(&self, keys: &RemoteKeys, token: &str, now: DateTime<Utc>) -> Result<Claims, String> {
        let malformed = |why: &dyn std::fmt::Display| format!("oidc: malformed jwt: {why}");
        let [header, payload, signature] =
            split(token).ok_or_else(|| malformed(&"compact JWS format must have three parts"))?;
        let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|error| malformed(&error));
        let header: Value = serde_json::from_slice(&decoded(header)?).map_err(|error| malformed(&error))?;
        let claims: Map<String, Value> = serde_json::from_slice(&decoded(payload)?)
            .map_err(|error| format!("oidc: failed to unmarshal claims: {error}"))?;
        let claims = Claims(claims);
        let issuer = &self.config.issuer;
        let said = claims.0.get("iss").and_then(Value::as_str).unwrap_or_default();
        if coalesce(said) != issuer.url {
            return Err(format!(
                "oidc: id token issued by a different provider, expected {:?} got {said:?}",
                issuer.url
            ));
        }
        let audiences = claims.audiences()?;
        if !audiences.iter().any(|audience| issuer.audiences.contains(audience)) {
            let got = go_list(&audiences);
            return Err(match issuer.audiences.as_slice() {
                [one] => format!("oidc: expected audience {one:?} got {got}"),
                more => {
                    let mut sorted = more.to_vec();
                    sorted.sort();
                    format!("oidc: expected audience in {} got {got}", go_list(&sorted))
                }
            });
        }
        let expiry = claims.time("exp")?;
        if expiry.is_none_or(|expiry| expiry < now) {
            let shown = expiry.map_or_else(|| "0001-01-01 00:00:00 +0000 UTC".to_owned(), go_time);
            return Err(format!("oidc: token is expired (Token Expiry: {shown})"));
        }
        if let Some(not_before) = claims.time("nbf")?
            && now + chrono::TimeDelta::seconds(LEEWAY) < not_before
        {
            return Err(format!(
                "oidc: current time {} before the nbf (not before) time: {}",
                go_time(now),
                go_time(not_before)
            ));
        }
        let text = |key: &str| header.get(key).and_then(Value::as_str).unwrap_or_default();
        let algorithm = Algorithm::parse(text("alg")).filter(|algorithm| self.algorithms.contains(algorithm));
        let Some(algorithm) = algorithm else {
            let names: Vec<String> = self.algorithms.iter().map(|one| one.name().to_owned()).collect();
            return Err(format!(
                "oidc: id token signed with unsupported algorithm, expected {} got {:?}",
                go_list(&names),
                text("alg")
            ));
        };
        if header.get("crit").is_some() {
            return Err("failed to verify signature: failed to verify id token signature".into());
        }
        let message = &token.as_bytes()[..token.len() - signature.len() - 1];
        let signed = Signed { key_id: text("kid"), algorithm, message, signature };
        keys.verify(&self.client, signed)
            .await
            .map_err(|error| format!("failed to verify signature: {error}"))?;
        Ok(claims)
    }

    /// Whom the claims are about, if the rules of the configuration let them in.
    fn user(&self, claims: &Claims) -> Result<UserInfo, String> {
        let mappings = &self.config.claim_mappings;
        let groups_claim = mappings.groups.claim.as_str();
        if !groups_claim.is_empty() && claims.is_distributed(groups_claim) {
            return Err("oidc: could not expand distributed claims: they are not supported".into());
        }
        let claim = mappings.username.claim.as_str();
        let name =
            claims.text(claim).map_err(|why| format!("oidc: parse username claims {claim:?}: {why}"))?;
        if claim == "email"
            && let Some(verified) = claims.0.get("email_verified")
        {
            match verified {
                Value::Bool(true) => {}
                Value::Bool(false) | Value::Null => return Err("oidc: email not verified".into()),
                other => {
                    let why = cannot_unmarshal(other, "bool");
                    return Err(format!("oidc: parse 'email_verified' claim: {why}"));
                }
            }
        }
        let prefix = mappings.username.prefix.as_deref().unwrap_or_default();
        let mut user = UserInfo { name: format!("{prefix}{name}"), ..UserInfo::default() };
        if !groups_claim.is_empty() && claims.0.contains_key(groups_claim) {
            let groups = claims
                .texts(groups_claim)
                .map_err(|why| format!("oidc: parse groups claim {groups_claim:?}: {why}"))?;
            let prefix = mappings.groups.prefix.as_deref().unwrap_or_default();
            user.groups = groups.into_iter().map(|group| format!("{prefix}{group}")).collect();
        }
        let uid_claim = mappings.uid.claim.as_str();
        if !uid_claim.is_empty() {
            user.uid = claims
                .text(uid_claim)
                .map_err(|why| format!("oidc: parse uid claim {uid_claim:?}: {why}"))?;
        }
        if let Some(Value::String(id)) = claims.0.get("jti")
            && !id.is_empty()
        {
            user.extra.insert(CREDENTIAL_ID_KEY.to_owned(), vec![format!("JTI={id}")]);
        }
        for rule in &self.config.claim_validation_rules {
            let (claim, wanted) = (&rule.claim, &rule.required_value);
            if !claims.0.contains_key(claim) {
                return Err(format!("oidc: required claim {claim} not present in ID token"));
            }
            let got = claims.text(claim).map_err(|why| format!("oidc: parse claim {claim}: {why}"))?;
            if got != *wanted {
                return Err(format!(
                    "oidc: required claim {claim} value does not match. Got = {got}, want = {wanted}"
                ));
            }
        }
        Ok(user)
    }
}

/// What a token says.
struct Claims(Map<String, Value>);

impl Claims {
    /// A claim as Go reads it into a string: null is an empty one.
    fn text(&self, name: &str) -> Result<String, String> {
        match self.0.get(name) {
            None => Err("claim not present".into()),
            Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => Err(cannot_unmarshal(other, "string")),
        }
    }

    /// A list, or a single string as a list of one.
    fn texts(&self, name: &str) -> Result<Vec<String>, String> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(items)) => {
                let texts = items.iter().map(|item| match item {
                    Value::Null => Some(String::new()),
                    item => item.as_str().map(str::to_owned),
                });
                texts
                    .collect::<Option<_>>()
                    .ok_or_else(|| cannot_unmarshal(&Value::Array(Vec::new()), "string"))
            }
            Some(_) => self.text(name).map(|one| vec![one]),
        }
    }

    fn audiences(&self) -> Result<Vec<String>, String> {
        self.texts("aud").map_err(|why| format!("oidc: failed to unmarshal claims: {why}"))
    }

    /// Seconds since 1970, maybe with a fraction, that is not looked at.
    fn time(&self, name: &str) -> Result<Option<DateTime<Utc>>, String> {
        let wrong = |why: &str| format!("oidc: failed to unmarshal claims: {why}");
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Number(number)) => {
                let seconds = number.as_i64().or_else(|| number.as_f64().map(|seconds| seconds as i64));
                let time = seconds.and_then(|seconds| DateTime::from_timestamp(seconds, 0));
                time.map(Some).ok_or_else(|| wrong("time out of range"))
            }
            Some(other) => Err(wrong(&cannot_unmarshal(other, "json.Number"))),
        }
    }

    /// Whether somebody else is to be asked for a claim.
    fn is_distributed(&self, claim: &str) -> bool {
        !self.0.contains_key(claim) && self.0.get("_claim_names").and_then(|names| names.get(claim)).is_some()
    }
}

fn split(token: &str) -> Option<[&str; 3]> {
    let mut parts = token.split('.');
    let found = [parts.next()?, parts.next()?, parts.next()?];
    parts.next().is_none().then_some(found)
}

/// The issuer that a token says it is from. It decides who is asked, and nothing else.
fn untrusted_issuer(token: &str) -> Option<String> {
    let [_, payload, _] = split(token)?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    claims.get("iss")?.as_str().map(coalesce)
}

/// Google's tokens have had two names for their issuer.
fn coalesce(issuer: &str) -> String {
    if issuer == "accounts.google.com" { GOOGLE.to_owned() } else { issuer.to_owned() }
}

fn cannot_unmarshal(value: &Value, into: &str) -> String {
    let sort = apimachinery::codec::go_kind(value);
    format!("json: cannot unmarshal {sort} into Go value of type {into}")
}

/// As Go prints a list of strings with `%q`.
fn go_list(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|one| apimachinery::field::quote(one)).collect();
    format!("[{}]", quoted.join(" "))
}

fn go_time(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()
}
