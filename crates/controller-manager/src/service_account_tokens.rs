//! Secrets of type `kubernetes.io/service-account-token`: those whose account is there get a token of it, which does
//! not expire; those whose account is gone go as well. It runs as the controller manager itself, as upstream's.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::runner::{self, Again};
use client::{Informers, ObjectKey, Queue, Selector};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub(crate) const TYPE: &str = "kubernetes.io/service-account-token";
pub(crate) const NAME: &str = "kubernetes.io/service-account.name";
pub(crate) const UID: &str = "kubernetes.io/service-account.uid";

/// Who tokens of secrets say they are from.
const ISSUER: &str = "kubernetes/serviceaccount";

const WORKERS: usize = 5;

/// Signs the claims of a token.
pub type Signer = Arc<dyn Fn(&Value) -> Result<String, String> + Send + Sync>;

/// What is to be done about a secret.
#[derive(Debug, PartialEq)]
enum Plan {
    Nothing,
    /// Its account is not there, or no longer.
    Delete,
    /// Something is missing or out of date.
    Fill,
}

pub(crate) fn annotation<'s>(secret: &'s Secret, key: &str) -> &'s str {
    secret.metadata.annotations.as_ref().and_then(|all| all.get(key)).map_or("", String::as_str)
}

fn plan(secret: &Secret, account: Option<&ServiceAccount>, root_ca: &str) -> Plan {
    if secret.type_.as_deref() != Some(TYPE) || secret.metadata.deletion_timestamp.is_some() {
        return Plan::Nothing;
    }
    let uid = annotation(secret, UID);
    let account = account.filter(|account| uid.is_empty() || account.metadata.uid.as_deref() == Some(uid));
    if account.is_none() {
        return Plan::Delete;
    }
    let data = |key: &str| {
        secret.data.as_ref().and_then(|data| data.get(key)).map_or(&[][..], |value| value.0.as_slice())
    };
    let complete = !uid.is_empty()
        && !data("token").is_empty()
        && !data("namespace").is_empty()
        && (root_ca.is_empty() || data("ca.crt") == root_ca.as_bytes());
    if complete { Plan::Nothing } else { Plan::Fill }
}

/// What a token of a secret says.
fn claims(secret: &Secret, account: &ServiceAccount) -> Value {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (namespace, name) = (text(&account.metadata.namespace), text(&account.metadata.name));
    json!({
        "iss": ISSUER,
        "sub": format!("system:serviceaccount:{namespace}:{name}"),
        "kubernetes.io/serviceaccount/namespace": namespace,
        "kubernetes.io/serviceaccount/secret.name": text(&secret.metadata.name),
        "kubernetes.io/serviceaccount/service-account.name": name,
        "kubernetes.io/serviceaccount/service-account.uid": text(&account.metadata.uid),
    })
}

/// The secret with all that it should have; a token that is there stays.
fn filled(
    secret: &Secret,
    account: &ServiceAccount,
    root_ca: &str,
    sign: impl FnOnce(&Value) -> Result<String, String>,
) -> Result<Secret, String> {
    let mut secret = secret.clone();
    let uid = account.metadata.uid.clone().unwrap_or_default();
    let annotations = secret.metadata.annotations.get_or_insert_default();
    annotations.insert(UID.into(), uid);
    let claims = claims(&secret, account);
    let data: &mut BTreeMap<String, ByteString> = secret.data.get_or_insert_default();
    let is_empty =
        |data: &BTreeMap<String, ByteString>, key| data.get(key).is_none_or(|value| value.0.is_empty());
    if !root_ca.is_empty() {
        data.insert("ca.crt".into(), ByteString(root_ca.as_bytes().to_vec()));
    }
    if is_empty(data, "namespace") {
        let namespace = account.metadata.namespace.clone().unwrap_or_default();
        data.insert("namespace".into(), ByteString(namespace.into_bytes()));
    }
    if is_empty(data, "token") {
        data.insert("token".into(), ByteString(sign(&claims)?.into_bytes()));
    }
    Ok(secret)
}

/// Runs until cancelled.
pub async fn run(client: Client, sign: Signer, root_ca: String, cancel: CancellationToken) {
    let informers = Informers::new(client.clone(), cancel.clone());
    let secrets = informers.select::<Secret>(Selector::fields(format!("type={TYPE}")));
    let accounts = informers.all::<ServiceAccount>();
    let queue = Arc::new(Queue::default());
    secrets.on_change({
        let queue = queue.clone();
        move |change| queue.add(ObjectKey::of(change.object().as_ref()))
    });
    accounts.on_change({
        let (queue, secrets) = (queue.clone(), secrets.store().clone());
        move |change| {
            let account = &change.object().metadata;
            let of_account = |secret: &&Arc<Secret>| {
                secret.metadata.namespace == account.namespace
                    && Some(annotation(secret, NAME)) == account.name.as_deref()
            };
            let all = secrets.list();
            for secret in all.iter().filter(of_account) {
                queue.add(ObjectKey::of(secret.as_ref()));
            }
        }
    });
    secrets.wait_for_sync().await;
    accounts.wait_for_sync().await;
    runner::run("serviceaccount_tokens_secret", queue, WORKERS, cancel, |key| {
        let (secrets, accounts) = (secrets.store().clone(), accounts.store().clone());
        let (client, sign, root_ca) = (client.clone(), sign.clone(), root_ca.clone());
        async move {
            let Some(secret) = secrets.get_key(&key) else { return Ok(Again::OnChange) };
            let name = annotation(&secret, NAME);
            let account = accounts.get(&key.namespace, name);
            let api: Api<Secret> = Api::namespaced(client.clone(), &key.namespace);
            let (account, plan) = match plan(&secret, account.as_deref(), &root_ca) {
                // an account that was made a moment ago may not be in the cache yet
                Plan::Delete => {
                    let live: Api<ServiceAccount> = Api::namespaced(client, &key.namespace);
                    let live = if name.is_empty() { None } else { live.get_opt(name).await? };
                    let plan = plan(&secret, live.as_ref(), &root_ca);
                    (live.map(Arc::new), plan)
                }
                plan => (account, plan),
            };
            let outcome = match (plan, account) {
                (Plan::Delete, _) => {
                    let only = Preconditions { uid: secret.metadata.uid.clone(), resource_version: None };
                    let options = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
                    api.delete(&key.name, &options).await.map(drop)
                }
                (Plan::Fill, Some(account)) => {
                    let filled = filled(&secret, &account, &root_ca, |claims| sign(claims))
                        .map_err(anyhow::Error::msg)?;
                    api.replace(&key.name, &PostParams::default(), &filled).await.map(drop)
                }
                _ => Ok(()),
            };
            match outcome {
                Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => {
                    Ok(Again::OnChange)
                }
                Err(error) => Err(error.into()),
                Ok(()) => Ok(Again::OnChange),
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(uid: &str) -> ServiceAccount {
        let account = json!({"metadata": {"namespace": "ns", "name": "jane", "uid": uid}});
        serde_json::from_value(account).expect("an account")
    }

    fn secret(uid: &str, data: &[(&str, &str)]) -> Secret {
        let data: BTreeMap<&str, ByteString> =
            data.iter().map(|(key, value)| (*key, ByteString(value.as_bytes().to_vec()))).collect();
        let mut annotations = json!({ NAME: "jane" });
        if !uid.is_empty() {
            annotations[UID] = json!(uid);
        }
        let metadata = json!({"namespace": "ns", "name": "s", "annotations": annotations});
        serde_json::from_value(json!({"metadata": metadata, "type": TYPE, "data": data})).expect("a secret")
    }

    #[test]
    fn secrets_follow_their_accounts() {
        let full = [("token", "t"), ("namespace", "ns"), ("ca.crt", "CA")];
        let cases = [
            (secret("", &[]), Some(account("1")), Plan::Fill),
            (secret("1", &full), Some(account("1")), Plan::Nothing),
            (secret("1", &full[..1]), Some(account("1")), Plan::Fill),
            (secret("1", &[full[0], full[1], ("ca.crt", "old")]), Some(account("1")), Plan::Fill),
            (secret("1", &full), Some(account("2")), Plan::Delete),
            (secret("", &[]), None, Plan::Delete),
            (Secret { type_: Some("Opaque".into()), ..secret("1", &full) }, None, Plan::Nothing),
        ];
        for (secret, account, wanted) in cases {
            assert_eq!(plan(&secret, account.as_ref(), "CA"), wanted, "{secret:?}");
        }
    }

    #[test]
    fn what_is_missing_is_filled_in_and_a_token_stays() {
        let sign =
            |claims: &Value| Ok(format!("signed {}", claims["kubernetes.io/serviceaccount/secret.name"]));
        let new = filled(&secret("", &[]), &account("1"), "CA", sign).expect("filled");
        assert_eq!(annotation(&new, UID), "1");
        let data = |secret: &Secret, key: &str| {
            String::from_utf8(secret.data.as_ref().expect("data")[key].0.clone()).expect("text")
        };
        assert_eq!(data(&new, "token"), "signed \"s\"");
        assert_eq!((data(&new, "namespace"), data(&new, "ca.crt")), ("ns".into(), "CA".into()));
        assert_eq!(plan(&new, Some(&account("1")), "CA"), Plan::Nothing);
        let old = filled(&secret("1", &[("token", "mine")]), &account("1"), "CA", |_| Err("never".into()));
        assert_eq!(data(&old.expect("filled"), "token"), "mine");
        let claims = claims(&secret("", &[]), &account("1"));
        assert_eq!(
            (&claims["iss"], &claims["sub"]),
            (&json!(ISSUER), &json!("system:serviceaccount:ns:jane"))
        );
    }
}
