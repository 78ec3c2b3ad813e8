//! Signs the kubeconfig in `kube-public/cluster-info` with every token that may sign, so that who holds one can tell
//! that it is the cluster's.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use client::runner::{self, Again};
use client::{ObjectKey, Queue, Selector};
use hmac::{Hmac, Mac};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use sha2::Sha256;
use tokio_util::sync::CancellationToken;

use super::{Life, data, life};
use crate::Shared;

const NAMESPACE: &str = "kube-public";
const NAME: &str = "cluster-info";
const KUBECONFIG: &str = "kubeconfig";
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";

/// A token's id and secret, if it may sign.
fn token(secret: &Secret, now: Timestamp) -> Option<(&str, &str)> {
    let name = secret.metadata.name.as_deref()?.strip_prefix("bootstrap-token-")?;
    let (id, value) = (data(secret, "token-id"), data(secret, "token-secret"));
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let good = name.len() == 6
        && name.bytes().all(plain)
        && name == id
        && !value.is_empty()
        && data(secret, "usage-bootstrap-signing") == "true"
        && life(secret, now) != Life::Over;
    good.then_some((id, value))
}

/// A JWS of `content` with the content left out (RFC 7515, appendix F).
fn detached_signature(content: &str, id: &str, secret: &str) -> String {
    // ids are plain: nothing to escape
    let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{id}"}}"#));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length will do");
    mac.update(format!("{header}.{}", URL_SAFE_NO_PAD.encode(content)).as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

/// What the map should hold, if that differs.
fn plan(map: &ConfigMap, secrets: &[Arc<Secret>], now: Timestamp) -> Option<BTreeMap<String, String>> {
    let data = map.data.as_ref()?;
    let content = data.get(KUBECONFIG)?;
    let mut wanted = data.clone();
    wanted.retain(|key, _| !key.starts_with(SIGNATURE_PREFIX));
    for (id, value) in secrets.iter().filter_map(|secret| token(secret, now)) {
        wanted.insert(format!("{SIGNATURE_PREFIX}{id}"), detached_signature(content, id, value));
    }
    (wanted != *data).then_some(wanted)
}

pub async fn run(shared: Shared, client: Client, cancel: CancellationToken) {
    let secrets = shared.informers.select::<Secret>(super::secrets());
    let maps = shared.informers.select::<ConfigMap>(Selector::fields(format!(
        "metadata.namespace={NAMESPACE},metadata.name={NAME}"
    )));
    let queue: Arc<Queue<ObjectKey>> = Arc::default();
    let wake = {
        let queue = queue.clone();
        move || queue.add(ObjectKey::new(NAMESPACE, NAME))
    };
    secrets.on_change({
        let wake = wake.clone();
        move |_| wake()
    });
    maps.on_change(move |_| wake());
    secrets.wait_for_sync().await;
    maps.wait_for_sync().await;
    runner::run("bootstrap-signer", queue, 1, cancel, |key| {
        let (secrets, maps, client) = (secrets.clone(), maps.clone(), client.clone());
        async move {
            let Some(map) = maps.store().get_key(&key) else { return Ok(Again::OnChange) };
            let Some(data) = plan(&map, &secrets.store().list(), Timestamp::now()) else {
                return Ok(Again::OnChange);
            };
            let map = ConfigMap { data: Some(data), ..map.as_ref().clone() };
            let api: Api<ConfigMap> = Api::namespaced(client, &key.namespace);
            match api.replace(&key.name, &PostParams::default(), &map).await {
                Err(error) if !client::is_not_found(&error) => Err(error.into()),
                _ => Ok(Again::OnChange),
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::super::tests::secret;
    use super::*;

    fn named(name: &str, pairs: &[(&str, &str)]) -> Arc<Secret> {
        let mut secret = secret(pairs);
        secret.metadata.name = Some(name.to_owned());
        Arc::new(secret)
    }

    fn map(pairs: &[(&str, &str)]) -> ConfigMap {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        ConfigMap { data: Some(pairs.collect()), ..ConfigMap::default() }
    }

    const GOOD: [(&str, &str); 3] =
        [("token-id", "joshua"), ("token-secret", "my-tokens-secret"), ("usage-bootstrap-signing", "true")];

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_signature_is_upstreams() {
        // what upstream's own test expects of this content and token
        let signature = detached_signature(
            "Hello from the other side. I must have called a thousand times.",
            "joshua",
            "my voice is my passcode",
        );
        assert_eq!(
            signature,
            "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8"
        );
    }

    #[test]
    fn signatures_follow_the_tokens() {
        let tokens = [named("bootstrap-token-joshua", &GOOD)];
        let first = plan(&map(&[("kubeconfig", "a"), ("other", "b")]), &tokens, now()).unwrap();
        assert_eq!(first.keys().collect::<Vec<_>>(), ["jws-kubeconfig-joshua", "kubeconfig", "other"]);
        let signed = ConfigMap { data: Some(first.clone()), ..ConfigMap::default() };
        assert_eq!(plan(&signed, &tokens, now()), None);
        let mut changed = first.clone();
        changed.insert("kubeconfig".into(), "c".into());
        let again = plan(&ConfigMap { data: Some(changed), ..ConfigMap::default() }, &tokens, now()).unwrap();
        assert_ne!(again["jws-kubeconfig-joshua"], first["jws-kubeconfig-joshua"]);
        let gone = plan(&signed, &[], now()).unwrap();
        assert_eq!(gone.keys().collect::<Vec<_>>(), ["kubeconfig", "other"]);
        assert_eq!(plan(&map(&[("other", "b")]), &tokens, now()), None, "there is nothing to sign");
    }

    #[test]
    fn only_tokens_for_signing_sign() {
        let with = |key: &'static str, value: &'static str| {
            let mut pairs = GOOD.to_vec();
            pairs.retain(|(known, _)| *known != key);
            pairs.push((key, value));
            pairs
        };
        let cases = [
            ("bootstrap-token-joshua", GOOD.to_vec(), true),
            ("bootstrap-token-joshub", GOOD.to_vec(), false),
            ("token-joshua", GOOD.to_vec(), false),
            ("bootstrap-token-joshua", with("token-secret", ""), false),
            ("bootstrap-token-joshua", with("usage-bootstrap-signing", "false"), false),
            ("bootstrap-token-joshua", with("expiration", "2025-01-01T00:00:00Z"), false),
            ("bootstrap-token-joshua", with("expiration", "2027-01-01T00:00:00Z"), true),
        ];
        for (name, pairs, good) in cases {
            assert_eq!(token(&named(name, &pairs), now()).is_some(), good, "{name} {pairs:?}");
        }
    }
}
