//! Namespaces: one on its way out is emptied of everything; every other has its default service account and the
//! cluster's CA.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use client::runner::{self, Again};
use client::{Change, Informer, ObjectKey, Queue};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroupList, APIResourceList, ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::Shared;

const WORKERS: usize = 10;
const CA_NAME: &str = "kube-root-ca.crt";
const ACCOUNT: &str = "default";

/// How soon a namespace is looked at again whose content takes its time, such as pods with grace.
const RECHECK: Duration = Duration::from_millis(500);
/// The finalizer that stands for a namespace's content.
const FINALIZER: &str = "kubernetes";

/// Wakes the namespace of whatever changed.
fn wake_on<K>(informer: &Informer<K>, queue: &Arc<Queue<ObjectKey>>, name: &'static str)
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let queue = queue.clone();
    informer.on_change(move |change| {
        let object = change.object();
        if object.meta().name.as_deref() == Some(name) && !matches!(change, Change::Added(_)) {
            queue.add(ObjectKey::new("", object.meta().namespace.clone().unwrap_or_default()));
        }
    });
}

fn is_active(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
}

/// Every namespace has a service account named `default`.
pub async fn run_service_accounts(shared: Shared, client: Client, cancel: CancellationToken) {
    let namespaces = shared.informers.all::<Namespace>();
    let accounts = shared.informers.all::<ServiceAccount>();
    let queue = Arc::new(Queue::default());
    wake_on(&accounts, &queue, ACCOUNT);
    namespaces.on_change({
        let queue = queue.clone();
        move |change| queue.add(ObjectKey::of(change.object().as_ref()))
    });
    namespaces.wait_for_sync().await;
    accounts.wait_for_sync().await;
    runner::run("serviceaccount", queue, 1, cancel, |key| {
        let (namespaces, accounts, client) = (namespaces.clone(), accounts.clone(), client.clone());
        async move {
            let wanted = namespaces.store().get_key(&key).is_some_and(|namespace| is_active(&namespace));
            if !wanted || accounts.store().get(&key.name, ACCOUNT).is_some() {
                return Ok(Again::OnChange);
            }
            let metadata = ObjectMeta { name: Some(ACCOUNT.into()), ..ObjectMeta::default() };
            let account = ServiceAccount { metadata, ..ServiceAccount::default() };
            let api: Api<ServiceAccount> = Api::namespaced(client, &key.name);
            settled(api.create(&PostParams::default(), &account).await)
        }
    })
    .await;
}

/// Every namespace has the CA by which pods know the API server.
pub async fn run_root_ca(shared: Shared, client: Client, cancel: CancellationToken) {
    let namespaces = shared.informers.all::<Namespace>();
    let maps =
        shared.informers.select::<ConfigMap>(client::Selector::fields(format!("metadata.name={CA_NAME}")));
    let queue = Arc::new(Queue::default());
    wake_on(&maps, &queue, CA_NAME);
    namespaces.on_change({
        let queue = queue.clone();
        move |change| queue.add(ObjectKey::of(change.object().as_ref()))
    });
    namespaces.wait_for_sync().await;
    maps.wait_for_sync().await;
    let data: BTreeMap<String, String> = [("ca.crt".to_owned(), shared.root_ca.to_string())].into();
    runner::run("root-ca-certificate-publisher", queue, 1, cancel, |key| {
        let (namespaces, maps, client, data) = (namespaces.clone(), maps.clone(), client.clone(), data.clone());
        async move {
            if !namespaces.store().get_key(&key).is_some_and(|namespace| is_active(&namespace)) {
                return Ok(Again::OnChange);
            }
            let api: Api<ConfigMap> = Api::namespaced(client, &key.name);
            match maps.store().get(&key.name, CA_NAME) {
                Some(map) if map.data.as_ref() == Some(&data) => Ok(Again::OnChange),
                Some(map) => {
                    let map = ConfigMap { data: Some(data), ..map.as_ref().clone() };
                    settled(api.replace(CA_NAME, &PostParams::default(), &map).await)
                }
                None => {
                    let text = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";
                    let annotations = [("kubernetes.io/description".to_owned(), text.to_owned())].into();
                    let metadata = ObjectMeta {
                        name: Some(CA_NAME.into()),
                        annotations: Some(annotations),
                        ..ObjectMeta::default()
                    };
                    let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
                    settled(api.create(&PostParams::default(), &map).await)
                }
            }
        }
    })
    .await;
}

/// A write into a namespace that somebody else did first, or whose namespace goes, is no failure.
fn settled<T>(outcome: Result<T, kube::Error>) -> anyhow::Result<Again> {
    match outcome {
        Ok(_) => Ok(Again::OnChange),
        Err(error) if client::is_already_exists(&error) || client::is_not_found(&error) => {
            Ok(Again::OnChange)
        }
        Err(error) if client::is_namespace_terminating(&error) => Ok(Again::OnChange),
        Err(error) => Err(error.into()),
    }
}

/// Empties namespaces that are on their way out.
pub async fn run(shared: Shared, client: Client, cancel: CancellationToken) {
    let namespaces = shared.informers.all::<Namespace>();
    let queue = Arc::new(Queue::default());
    namespaces.on_change({
        let queue = queue.clone();
        move |change| {
            if change.object().metadata.deletion_timestamp.is_some() && !matches!(change, Change::Deleted(_))
            {
                queue.add(ObjectKey::of(change.object().as_ref()));
            }
        }
    });
    namespaces.wait_for_sync().await;
    runner::run("namespace", queue, WORKERS, cancel, |key| {
        let (namespaces, client) = (namespaces.clone(), client.clone());
        async move {
            let Some(namespace) = namespaces.store().get_key(&key) else { return Ok(Again::OnChange) };
            let finalizers =
                namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
            if is_active(&namespace) || !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
                return Ok(Again::OnChange);
            }
            empty(&client, &namespace, finalizers).await
        }
    })
    .await;
}

/// A kind of content: where it is listed and whether all of it can be deleted at once.
struct Content {
    path: String,
    resource: String,
}

async fn request<T: serde::de::DeserializeOwned>(
    client: &Client,
    method: &str,
    path: &str,
) -> Result<T, kube::Error> {
    let request =
        http::Request::builder().method(method).uri(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
    client.request(request).await
}

/// Everything that a namespace can hold.
async fn contents(client: &Client, namespace: &str) -> Result<Vec<Content>, kube::Error> {
    let mut roots = vec!["/api/v1".to_owned()];
    let groups: APIGroupList = request(client, "GET", "/apis").await?;
    for group in groups.groups {
        if let Some(version) = group.preferred_version.or_else(|| group.versions.first().cloned()) {
            roots.push(format!("/apis/{}", version.group_version));
        }
    }
    let mut out = Vec::new();
    for root in roots {
        let list: APIResourceList = request(client, "GET", &root).await?;
        for resource in list.resources {
            let can = |verb: &str| resource.verbs.iter().any(|own| own == verb);
            if resource.namespaced && can("delete") && can("list") && can("deletecollection") {
                let path = format!("{root}/namespaces/{namespace}/{}", resource.name);
                out.push(Content { path, resource: resource.name });
            }
        }
    }
    Ok(out)
}

async fn empty(client: &Client, namespace: &Namespace, finalizers: Vec<String>) -> anyhow::Result<Again> {
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let contents = contents(client, name).await.context("finding out what the namespace holds")?;
    let deletes = contents.iter().map(|content| request::<Value>(client, "DELETE", &content.path));
    for (content, outcome) in contents.iter().zip(join_all(deletes).await) {
        if let Err(error) = outcome
            && !client::is_not_found(&error)
        {
            set_conditions(client, namespace, &format!("deleting {}: {error}", content.resource), &[])
                .await?;
            return Err(anyhow::Error::from(error).context(format!("deleting {}", content.resource)));
        }
    }
    let lists = contents.iter().map(|content| request::<Value>(client, "GET", &content.path));
    let mut remaining: Vec<(String, Value)> = Vec::new();
    for (content, outcome) in contents.iter().zip(join_all(lists).await) {
        let list = outcome.with_context(|| format!("listing {}", content.resource))?;
        for item in list["items"].as_array().into_iter().flatten() {
            remaining.push((content.resource.clone(), item["metadata"].clone()));
        }
    }
    if !remaining.is_empty() {
        set_conditions(client, namespace, "", &remaining).await?;
        return Ok(Again::After(RECHECK));
    }
    let kept: Vec<String> = finalizers.into_iter().filter(|finalizer| finalizer != FINALIZER).collect();
    let mut body = serde_json::to_value(namespace)?;
    body["spec"]["finalizers"] = json!(kept);
    let request = http::Request::builder()
        .method("PUT")
        .uri(format!("/api/v1/namespaces/{name}/finalize"))
        .header("content-type", "application/json")
        .body(serde_json::to_vec(&body)?)?;
    match client.request::<Value>(request).await {
        Ok(_) => Ok(Again::OnChange),
        Err(error) if client::is_not_found(&error) => Ok(Again::OnChange),
        Err(error) => Err(error.into()),
    }
}

/// Tells what is in the way of a namespace's end.
async fn set_conditions(
    client: &Client,
    namespace: &Namespace,
    failure: &str,
    remaining: &[(String, Value)],
) -> anyhow::Result<()> {
    let conditions = conditions(failure, remaining);
    let old = namespace.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let same = conditions.iter().all(|(kind, value, reason, message)| {
        old.iter().any(|condition| {
            condition.type_ == *kind
                && condition.status == *value
                && condition.reason.as_deref() == Some(reason)
                && condition.message.as_deref() == Some(message)
        })
    });
    if same {
        return Ok(());
    }
    let now = Time(Timestamp::now());
    let conditions: Vec<Value> = conditions
        .into_iter()
        .map(|(kind, value, reason, message)| {
            let since = old.iter().find(|condition| condition.type_ == kind && condition.status == value);
            let since = since.and_then(|condition| condition.last_transition_time.clone()).unwrap_or(now.clone());
            json!({"type": kind, "status": value, "reason": reason, "message": message, "lastTransitionTime": since})
        })
        .collect();
    let api: Api<Namespace> = Api::all(client.clone());
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let patch = kube::api::Patch::Merge(json!({"status": {"conditions": conditions}}));
    match api.patch_status(name, &Default::default(), &patch).await {
        Ok(_) => Ok(()),
        Err(error) if client::is_not_found(&error) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Type, status, reason and message of the five conditions, as upstream words them.
fn conditions(
    failure: &str,
    remaining: &[(String, Value)],
) -> Vec<(&'static str, &'static str, &'static str, String)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut finalizers: BTreeMap<String, usize> = BTreeMap::new();
    for (resource, metadata) in remaining {
        *counts.entry(resource).or_default() += 1;
        for finalizer in metadata["finalizers"].as_array().into_iter().flatten() {
            *finalizers.entry(finalizer.as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    let content: Vec<String> = counts
        .iter()
        .map(|(resource, count)| format!("{resource}. has {count} resource instances"))
        .collect();
    let waiting: Vec<String> =
        finalizers.iter().map(|(name, count)| format!("{name} in {count} resource instances")).collect();
    vec![
        (
            "NamespaceDeletionDiscoveryFailure",
            "False",
            "ResourcesDiscovered",
            "All resources successfully discovered".to_owned(),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            "False",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed".to_owned(),
        ),
        match failure {
            "" => (
                "NamespaceDeletionContentFailure",
                "False",
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization".to_owned(),
            ),
            why => (
                "NamespaceDeletionContentFailure",
                "True",
                "ContentDeletionFailed",
                format!("Failed to delete all resource types, 1 remaining: {why}"),
            ),
        },
        match counts.is_empty() {
            true => (
                "NamespaceContentRemaining",
                "False",
                "ContentRemoved",
                "All content successfully removed".to_owned(),
            ),
            false => (
                "NamespaceContentRemaining",
                "True",
                "SomeResourcesRemain",
                format!("Some resources are remaining: {}", content.join(", ")),
            ),
        },
        match finalizers.is_empty() {
            true => (
                "NamespaceFinalizersRemaining",
                "False",
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished".to_owned(),
            ),
            false => (
                "NamespaceFinalizersRemaining",
                "True",
                "SomeFinalizersRemain",
                format!("Some content in the namespace has finalizers remaining: {}", waiting.join(", ")),
            ),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remains_is_told() {
        let remaining = [("pods".to_owned(), json!({"finalizers": ["a/b"]})), ("pods".to_owned(), json!({}))];
        let told = conditions("", &remaining);
        assert_eq!(told[3].3, "Some resources are remaining: pods. has 2 resource instances");
        assert_eq!(
            told[4].3,
            "Some content in the namespace has finalizers remaining: a/b in 1 resource instances"
        );
        assert!(conditions("", &[]).iter().all(|(_, status, ..)| *status == "False"));
    }
}
