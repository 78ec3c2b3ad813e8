//! Tokens that were once made for every service account and lie in secrets: those that nobody has used for long are
//! marked, and later deleted. How long that is counts from when the API server began to note uses.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use anyhow::Context;
use client::Selector;
use component_helpers::legacy_tokens::{INVALID_SINCE_LABEL, LAST_USED_LABEL, TRACKING};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::civil::Date;
use k8s_openapi::jiff::tz::TimeZone;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::Shared;
use crate::service_account_tokens::{self, TYPE};

const INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// Upstream's `--legacy-service-account-token-clean-up-period`.
pub const CLEAN_UP_PERIOD: Duration = Duration::from_secs(365 * 24 * 3600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Nobody gets in by it from this day on.
    Mark(Date),
    Delete,
}

/// Go's `2006-01-02`.
fn date(text: &str) -> Option<Date> {
    Date::strptime("%Y-%m-%d", text).ok().filter(|date| date.to_string() == text)
}

fn day(time: Timestamp) -> Date {
    TimeZone::UTC.to_datetime(time).date()
}

/// Whether uses have been noted for long enough to judge by; `since` is the day on which that began.
fn is_tracked(since: &str, period: Duration, now: Timestamp) -> anyhow::Result<bool> {
    let since =
        date(since).with_context(|| format!("parsing {since:?}, the day since which uses are noted"))?;
    // only the day after is tracked as a whole
    let from = since.tomorrow()?.to_zoned(TimeZone::UTC)?.timestamp();
    Ok(now >= from + period)
}

/// What becomes of a secret; `is_mounted` is asked last.
fn plan(
    secret: &Secret,
    account: Option<&ServiceAccount>,
    is_mounted: impl FnOnce() -> bool,
    period: Duration,
    now: Timestamp,
) -> Option<Action> {
    let label = |key: &str| secret.metadata.labels.as_ref()?.get(key).map(String::as_str);
    let keep_from = now - period;
    let created = secret.metadata.creation_timestamp.as_ref().map(|time| time.0);
    if secret.type_.as_deref() != Some(TYPE)
        || secret.metadata.deletion_timestamp.is_some()
        || created.is_some_and(|created| created >= keep_from)
    {
        return None;
    }
    // a day that cannot be read says nothing of when it was used
    if let Some(used) = label(LAST_USED_LABEL)
        && date(used).is_none_or(|used| used >= day(keep_from))
    {
        return None;
    }
    let name = secret.metadata.name.as_deref().unwrap_or_default();
    let uid = service_account_tokens::annotation(secret, service_account_tokens::UID);
    let account = account.filter(|account| uid.is_empty() || account.metadata.uid.as_deref() == Some(uid))?;
    // one that its account does not name was made by somebody
    let is_named = account.secrets.iter().flatten().any(|reference| reference.name.as_deref() == Some(name));
    if !is_named || is_mounted() {
        return None;
    }
    match label(INVALID_SINCE_LABEL).and_then(date) {
        None => Some(Action::Mark(day(now))),
        Some(since) if since >= day(keep_from) => None,
        Some(_) => Some(Action::Delete),
    }
}

/// The secrets that a pod refers to, in whatever way. Maps of its own that happen to have such keys only keep a token.
fn secret_names(pod: &Pod) -> BTreeSet<String> {
    fn see(value: &Value, names: &mut BTreeSet<String>) {
        let name = |of: &Value| of["name"].as_str().map(str::to_owned);
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    match key.as_str() {
                        "secretName" => names.extend(value.as_str().map(str::to_owned)),
                        "secret" | "secretRef" | "secretKeyRef" | "nodePublishSecretRef" => {
                            names.extend(name(value));
                        }
                        "imagePullSecrets" => {
                            names.extend(value.as_array().into_iter().flatten().filter_map(name));
                        }
                        _ => {}
                    }
                    see(value, names);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| see(item, names)),
            _ => {}
        }
    }
    let mut names = BTreeSet::new();
    see(&serde_json::to_value(&pod.spec).unwrap_or_default(), &mut names);
    names
}

pub async fn run(shared: Shared, client: Client, cancel: CancellationToken) {
    let secrets = shared.informers.select::<Secret>(Selector::fields(format!("type={TYPE}")));
    let accounts = shared.informers.all::<ServiceAccount>();
    let pods = shared.informers.all::<Pod>();
    let work = async {
        secrets.wait_for_sync().await;
        accounts.wait_for_sync().await;
        pods.wait_for_sync().await;
        loop {
            let now = Timestamp::now();
            if has_been_tracked(&client, shared.legacy_token_clean_up_period, now).await {
                let mut mounted: HashMap<String, BTreeSet<String>> = HashMap::new();
                for secret in secrets.store().list() {
                    let namespace = secret.metadata.namespace.clone().unwrap_or_default();
                    let owner = service_account_tokens::annotation(&secret, service_account_tokens::NAME);
                    let account = accounts.store().get(&namespace, owner);
                    let is_mounted = || {
                        let of_pods = || pods.store().list_namespace(&namespace);
                        let names = mounted
                            .entry(namespace.clone())
                            .or_insert_with(|| of_pods().iter().flat_map(|pod| secret_names(pod)).collect());
                        names.contains(secret.metadata.name.as_deref().unwrap_or_default())
                    };
                    let period = shared.legacy_token_clean_up_period;
                    if let Some(action) = plan(&secret, account.as_deref(), is_mounted, period, now) {
                        carry_out(&client, &secret, action).await;
                    }
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    cancel.run_until_cancelled(work).await;
}

async fn has_been_tracked(client: &Client, period: Duration, now: Timestamp) -> bool {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let tracked = match api.get(TRACKING).await {
        Ok(map) => {
            let since = map.data.as_ref().and_then(|data| data.get("since")).cloned();
            is_tracked(&since.unwrap_or_default(), period, now)
        }
        Err(error) => Err(error.into()),
    };
    tracked.unwrap_or_else(|error| {
        tracing::warn!("it is not known since when uses of tokens are noted: {error:#}");
        false
    })
}

async fn carry_out(client: &Client, secret: &Secret, action: Action) {
    let namespace = secret.metadata.namespace.as_deref().unwrap_or_default();
    let name = secret.metadata.name.as_deref().unwrap_or_default();
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let outcome = match action {
        Action::Mark(day) => {
            tracing::info!(namespace, name, %day, "a service account's token that nobody uses is marked invalid");
            let labels = json!({INVALID_SINCE_LABEL: day.to_string()});
            let patch = json!({"metadata": {"uid": secret.metadata.uid, "labels": labels}});
            api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
        }
        Action::Delete => {
            tracing::info!(namespace, name, "a service account's token that nobody uses is deleted");
            // used once more since it was looked at, it is another version
            let version = secret.metadata.resource_version.clone();
            let as_seen = Preconditions { uid: None, resource_version: version };
            api.delete(name, &DeleteParams::default().preconditions(as_seen)).await.map(drop)
        }
    };
    match outcome {
        Err(error) if !client::is_not_found(&error) && !client::is_conflict(&error) => {
            tracing::warn!(namespace, name, %error, "a token that nobody uses could not be marked or deleted");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const DAY: i64 = 24 * 3600;
    const PERIOD: Duration = Duration::from_secs(10 * 24 * 3600);

    /// Noon of a day of January 2026.
    fn noon(day: i64) -> Timestamp {
        let first: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        Timestamp::from_second(first.as_second() + (day - 1) * DAY).unwrap()
    }

    #[test]
    fn uses_have_to_be_noted_for_the_whole_period() {
        for (since, day, wanted) in [
            ("2026-01-01", 11, Some(false)),
            ("2026-01-01", 12, Some(true)),
            ("2026-01-31", 12, Some(false)),
            ("2026-1-1", 20, None),
            ("", 20, None),
            ("soon", 20, None),
        ] {
            assert_eq!(is_tracked(since, PERIOD, noon(day)).ok(), wanted, "{since} {day}");
        }
    }

    #[test]
    fn tokens_that_nobody_uses_are_marked_and_then_deleted() {
        let secret = |change: Value| {
            let mut secret = json!({
                "type": TYPE,
                "metadata": {
                    "namespace": "a", "name": "t", "creationTimestamp": "2025-12-01T00:00:00Z",
                    "annotations": {"kubernetes.io/service-account.name": "s", "kubernetes.io/service-account.uid": "1"},
                },
            });
            merge(&mut secret, &change);
            serde_json::from_value::<Secret>(secret).unwrap()
        };
        let labels = |used: Option<&str>, invalid: Option<&str>| {
            let given = [(LAST_USED_LABEL, used), (INVALID_SINCE_LABEL, invalid)];
            let labels: BTreeMap<_, _> =
                given.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
            json!({"metadata": {"labels": labels}})
        };
        let account = |uid: &str, secrets: &[&str]| {
            let mut account = ServiceAccount::default();
            account.metadata.uid = Some(uid.into());
            account.secrets = serde_json::from_value(
                secrets.iter().map(|name| json!({"name": name})).collect::<Vec<_>>().into(),
            )
            .unwrap();
            account
        };
        let owner = account("1", &["other", "t"]);
        let mark = Some(Action::Mark(date("2026-01-20").unwrap()));
        let cases = [
            (json!({}), Some(&owner), false, mark),
            (labels(Some("2026-01-09"), None), Some(&owner), false, mark),
            (labels(Some("2026-01-10"), None), Some(&owner), false, None),
            (labels(Some("yesterday"), None), Some(&owner), false, None),
            (labels(None, Some("2026-01-09")), Some(&owner), false, Some(Action::Delete)),
            (labels(None, Some("2026-01-10")), Some(&owner), false, None),
            (labels(None, Some("now")), Some(&owner), false, mark),
            (labels(None, Some("2026-01-09")), Some(&owner), true, None),
            (json!({"type": "Opaque"}), Some(&owner), false, None),
            (json!({"metadata": {"creationTimestamp": "2026-01-15T00:00:00Z"}}), Some(&owner), false, None),
            (json!({"metadata": {"deletionTimestamp": "2026-01-15T00:00:00Z"}}), Some(&owner), false, None),
            (json!({}), None, false, None),
            (json!({}), Some(&account("2", &["t"])), false, None),
            (json!({}), Some(&account("1", &["other"])), false, None),
        ];
        for (change, account, mounted, wanted) in cases {
            let found = plan(&secret(change.clone()), account, || mounted, PERIOD, noon(20));
            assert_eq!(found, wanted, "{change} {mounted}");
        }
    }

    /// Merges a document into another.
    fn merge(into: &mut Value, from: &Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                for (key, value) in from {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
            (into, from) => *into = from.clone(),
        }
    }

    #[test]
    fn pods_refer_to_secrets_in_many_ways() {
        let env = json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "env", "key": "k"}}}]);
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"name": "c", "env": env, "envFrom": [{"secretRef": {"name": "from"}}]}],
            "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "init"}}]}],
            "volumes": [
                {"name": "a", "secret": {"secretName": "volume"}},
                {"name": "b", "projected": {"sources": [{"secret": {"name": "projected"}}]}},
                {"name": "c", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "csi"}}},
                {"name": "d", "azureFile": {"secretName": "azure", "shareName": "s"}},
                {"name": "e", "configMap": {"name": "map"}},
            ],
        }}))
        .unwrap();
        let wanted = ["azure", "csi", "env", "from", "init", "projected", "pull", "volume"];
        assert_eq!(secret_names(&pod).into_iter().collect::<Vec<_>>(), wanted);
    }
}
