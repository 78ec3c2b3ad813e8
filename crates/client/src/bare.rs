//! Objects of any kind of which nothing is asked but what they are called, whose they are and whether they go.

use std::borrow::Cow;

use http::header::{ACCEPT, HeaderValue};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::api::{Api, ApiResource};
use kube::client::Body;
use kube::core::DynamicResourceScope;
use kube::{Client, Resource};
use serde::Deserialize;
use tower::BoxError;

const ONE: HeaderValue =
    HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
const LIST: HeaderValue =
    HeaderValue::from_static("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");

/// An object whose metadata has a name, namespace, uid and resourceVersion, owners, finalizers and a time of deletion,
/// and nothing else.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Wire")]
pub struct Bare {
    pub metadata: ObjectMeta,
}

/// The fields that are read. What is not named here is passed over without being kept.
#[derive(Deserialize)]
struct Wire {
    metadata: Meta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    owner_references: Option<Vec<OwnerReference>>,
    finalizers: Option<Vec<String>>,
    deletion_timestamp: Option<Time>,
}

impl From<Wire> for Bare {
    fn from(Wire { metadata }: Wire) -> Self {
        let Meta { name, namespace, uid, resource_version, owner_references, finalizers, deletion_timestamp } =
            metadata;
        Self {
            metadata: ObjectMeta {
                name,
                namespace,
                uid,
                resource_version,
                owner_references,
                finalizers,
                deletion_timestamp,
                ..ObjectMeta::default()
            },
        }
    }
}

impl Resource for Bare {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        resource.api_version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Bare {
    /// All objects of a resource, to be listed and watched; the server sends metadata alone.
    pub fn all(client: &Client, resource: &ApiResource) -> Api<Self> {
        let namespace = client.default_namespace().to_owned();
        let client = client.clone();
        let ask = move |mut request: http::Request<Body>| {
            let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            request.headers_mut().insert(ACCEPT, if watches { ONE } else { LIST });
            let client = client.clone();
            async move { client.send(request).await.map_err(BoxError::from) }
        };
        Api::all_with(Client::new(tower::service_fn(ask), namespace), resource)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use futures::TryStreamExt;
    use kube::api::{ListParams, WatchEvent, WatchParams};
    use parking_lot::Mutex;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn metadata_is_asked_for_and_read_as_far_as_it_matters() {
        let object = json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": {
                "name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7",
                "labels": {"l": "v"}, "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["f/g"],
                "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "o", "uid": "ou"}],
                "managedFields": [{"manager": "m", "operation": "Update", "fieldsV1": {"f:data": {}}}],
            },
        });
        let asked: Arc<Mutex<Vec<HeaderValue>>> = Arc::default();
        let seen = asked.clone();
        let server = move |request: http::Request<Body>| {
            seen.lock().push(request.headers()[ACCEPT].clone());
            let body = match request.uri().query().unwrap_or_default().contains("watch=true") {
                true => json!({"type": "ADDED", "object": object}),
                false => json!({
                    "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                    "metadata": {"resourceVersion": "7"}, "items": [object],
                }),
            };
            let answer = http::Response::new(Body::from(format!("{body}\n").into_bytes()));
            async move { Ok::<_, Infallible>(answer) }
        };
        let client = Client::new(tower::service_fn(server), "default");
        let resource = ApiResource::erase::<k8s_openapi::api::core::v1::ConfigMap>(&());
        let api = Bare::all(&client, &resource);

        let mut found = api.list(&ListParams::default()).await.unwrap().items;
        let mut events = std::pin::pin!(api.watch(&WatchParams::default(), "7").await.unwrap());
        match events.try_next().await.unwrap() {
            Some(WatchEvent::Added(object)) => found.push(object),
            other => panic!("{other:?}"),
        }
        for Bare { metadata } in found {
            assert_eq!(metadata.name.as_deref(), Some("a"));
            assert_eq!(metadata.namespace.as_deref(), Some("n"));
            assert_eq!(metadata.uid.as_deref(), Some("u"));
            assert_eq!(metadata.resource_version.as_deref(), Some("7"));
            assert_eq!(metadata.finalizers, Some(vec!["f/g".to_owned()]));
            assert_eq!(metadata.owner_references.unwrap()[0].uid, "ou");
            assert!(metadata.deletion_timestamp.is_some());
            assert_eq!((metadata.labels, metadata.managed_fields), (None, None));
        }
        assert_eq!(*asked.lock(), [LIST, ONE]);
    }
}
