//! Authentication and authorization put together, and kept in step with the cache.

use std::sync::Arc;

use apimachinery::Object;
use component_helpers::legacy_tokens::LAST_USED_LABEL;
use tokio_util::sync::CancellationToken;

use crate::authentication::keys::OpenIdMetadata;
use crate::authentication::{
    Authenticator, FrontProxy, LegacyTokens, ServiceAccountTokens, TokenAuthenticator, TokenGetter,
    TokenIssuer, default_issuer,
};
use crate::authorization::Authorizer;
use crate::authorization::config::{Own, Reloadable};
use crate::authorization::node::{Kind as NodeKind, NodeAuthorizer};
use crate::authorization::rbac::{Kind as RbacKind, Rbac};
use crate::cache::{Cache, Change, Entry};
use crate::context::{Context, WriteOptions};
use crate::pki::{Pki, PkiError};
use crate::registry::{Part, Registry};
use crate::server::Config;

/// Why nobody can be let in.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error("invalid authentication config: {0}")]
    Authentication(String),
    #[error("invalid authorization config: {0}")]
    Authorization(String),
}

/// Everything that decides who may do what.
pub struct Access {
    pub authenticator: Authenticator,
    pub authorizer: Arc<dyn Authorizer>,
    pub rbac: Arc<Rbac>,
    pub issuer: TokenIssuer,
    /// What is published of the keys, if the issuer is one that others can find.
    pub open_id: Option<OpenIdMetadata>,
    /// How long a service account's token may be good, in seconds.
    pub max_token_expiration: Option<i64>,
    /// The audiences of the API server itself.
    pub audiences: Vec<String>,
}

impl Access {
    pub fn new(
        registry: &Arc<Registry>,
        pki: &Pki,
        config: &Config,
        stopping: &CancellationToken,
    ) -> Result<Self, AccessError> {
        let chosen = &config.authentication.service_accounts;
        let or = |list: &[String], otherwise: &[String]| {
            if list.is_empty() { otherwise.to_vec() } else { list.to_vec() }
        };
        let issuers = or(&chosen.issuers, &[default_issuer(&config.cluster_domain)]);
        let audiences = or(&chosen.audiences, &issuers);
        let key = match &chosen.signing_key {
            Some(key) => key.clone(),
            None => pki.service_account_key()?,
        };
        let mut keys = vec![key.public().clone()];
        for other in &chosen.keys {
            if keys.iter().all(|known| known.key_id() != other.key_id()) {
                keys.push(other.clone());
            }
        }
        let jwks_uri = match chosen.jwks_uri.as_str() {
            "" => format!("https://{}{}", config.advertise, OpenIdMetadata::JWKS_PATH),
            given => given.to_owned(),
        };
        let objects = Arc::new(Getter(registry.clone()));
        let tokens =
            ServiceAccountTokens::new(issuers.clone(), keys.clone(), audiences.clone(), objects.clone());
        let legacy = LegacyTokens::new(keys.clone(), audiences.clone(), objects.clone());
        let proxy =
            FrontProxy::new(pki.trust().front_proxies(), config.authentication.request_headers.clone());
        let base = Authenticator::new().with_front_proxy(proxy).with_client_ca(pki.trust().clients());
        let (tokens, legacy) = (tokens.with_metrics(&base.metrics), legacy.with_metrics(&base.metrics));
        let service_accounts: [Arc<dyn TokenAuthenticator>; 2] = [Arc::new(legacy), Arc::new(tokens)];
        let authenticator = config
            .authentication
            .apply(base, service_accounts, objects, &audiences, &issuers, stopping)
            .map_err(AccessError::Authentication)?;
        let rbac = Arc::new(Rbac::default());
        let nodes = Arc::new(NodeAuthorizer::default());
        follow(&registry.cache, rbac.clone(), nodes.clone());
        let own = Own { node: nodes, rbac: rbac.clone() };
        let authorizer =
            Reloadable::start(&config.authorization, own, stopping).map_err(AccessError::Authorization)?;
        let open_id = OpenIdMetadata::for_issuer(&issuers[0], &jwks_uri, &keys);
        let open_id = open_id.inspect_err(|why| tracing::warn!("keys are not published: {why}")).ok();
        Ok(Self {
            authenticator,
            authorizer,
            rbac,
            open_id,
            issuer: TokenIssuer::new(&issuers[0], key, audiences.clone(), chosen.extend_expiration),
            max_token_expiration: chosen.max_expiration,
            audiences,
        })
    }
}

/// Feeds the authorizers with every change of what they judge by.
fn follow(cache: &Cache, rbac: Arc<Rbac>, nodes: Arc<NodeAuthorizer>) {
    cache.observe(Box::new(move |resource, change: &Change| {
        let rbac_kind = match resource.group {
            "rbac.authorization.k8s.io" => RbacKind::parse(resource.kind),
            _ => None,
        };
        let node_kind = NodeKind::parse(resource.group, resource.kind);
        if rbac_kind.is_none() && node_kind.is_none() {
            return;
        }
        let decoded = |entry: &Arc<Entry>| match entry.object() {
            Ok(object) => Some(object),
            Err(error) => {
                tracing::error!(key = %entry.key(), %error, "a stored object cannot be read");
                None
            }
        };
        match (&change.new, &change.old) {
            (Some(new), _) => {
                let Some(object) = decoded(new) else { return };
                if let Some(kind) = rbac_kind {
                    rbac.upsert(kind, &object);
                }
                if let Some(kind) = node_kind {
                    nodes.upsert(kind, &object);
                }
            }
            (None, Some(old)) => {
                if let Some(kind) = rbac_kind {
                    rbac.remove(kind, old.namespace(), old.name());
                }
                if let Some(kind) = node_kind {
                    nodes.remove(kind, old.namespace(), old.name());
                }
            }
            (None, None) => {}
        }
    }));
}

/// The objects that tokens are bound to, from the cache.
struct Getter(Arc<Registry>);

impl Getter {
    fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.0.peek(self.0.core(plural), namespace, name).map(Arc::new)
    }
}

impl TokenGetter for Getter {
    fn service_account(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.get("serviceaccounts", namespace, name)
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.get("pods", namespace, name)
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.get("secrets", namespace, name)
    }

    fn node(&self, name: &str) -> Option<Arc<Object>> {
        self.get("nodes", "", name)
    }

    fn mark_used(&self, secret: &Object, day: &str) {
        let (registry, day) = (self.0.clone(), day.to_owned());
        let (namespace, name, uid) =
            (secret.namespace().to_owned(), secret.name().to_owned(), secret.uid().to_owned());
        // the request need not wait for it
        tokio::spawn(async move {
            let context = Context::internal();
            let kind = registry.core("secrets").clone();
            let mark = |current: Option<&Object>| {
                let mut secret = current.cloned().unwrap_or_default();
                if secret.uid() == uid {
                    secret.set(&["metadata", "labels", LAST_USED_LABEL], day.as_str());
                }
                Ok(secret)
            };
            let options = WriteOptions::default();
            let done =
                registry.update(&context, &kind, &namespace, &name, Part::Main, &mark, false, options).await;
            if let Err(status) = done {
                tracing::warn!(
                    namespace,
                    name,
                    why = status.message,
                    "the use of a token could not be noted"
                );
            }
        });
    }
}
