//! Deletes bootstrap tokens when they expire.

use std::sync::Arc;

use client::runner::{self, Again};
use client::{Change, ObjectKey, Queue};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use super::{Life, life};
use crate::Shared;

pub async fn run(shared: Shared, client: Client, cancel: CancellationToken) {
    let secrets = shared.informers.select::<Secret>(super::secrets());
    let queue: Arc<Queue<ObjectKey>> = Arc::default();
    secrets.on_change({
        let queue = queue.clone();
        move |change| {
            if !matches!(change, Change::Deleted(_)) {
                queue.add(ObjectKey::of(change.object().as_ref()));
            }
        }
    });
    secrets.wait_for_sync().await;
    runner::run("token-cleaner", queue, 1, cancel, |key| {
        let (secrets, client) = (secrets.clone(), client.clone());
        async move {
            let Some(secret) = secrets.store().get_key(&key) else { return Ok(Again::OnChange) };
            match life(&secret, Timestamp::now()) {
                Life::ForEver => Ok(Again::OnChange),
                Life::For(left) => Ok(Again::After(left)),
                Life::Over => {
                    let api: Api<Secret> = Api::namespaced(client, &key.namespace);
                    // one of the same name that was made since is another token
                    let uid = Preconditions { uid: secret.metadata.uid.clone(), resource_version: None };
                    match api.delete(&key.name, &DeleteParams::default().preconditions(uid)).await {
                        Err(error) if !client::is_not_found(&error) && !client::is_conflict(&error) => {
                            Err(error.into())
                        }
                        _ => Ok(Again::OnChange),
                    }
                }
            }
        }
    })
    .await;
}
