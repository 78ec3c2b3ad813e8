//! What is in use stays: claims that pods mount, volumes that are bound and attributes classes that either refers to
//! have finalizers (admission sets them), and here they are taken away once nothing uses the object any more.

mod claims;
mod classes;
mod volumes;

use std::fmt::Debug;
use std::sync::Arc;

use client::runner::{self, Again};
use client::{Informer, ObjectKey, Queue};
use kube::api::PostParams;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

pub use claims::run as run_claims;
pub use classes::run as run_classes;
pub use volumes::run as run_volumes;

/// What becomes of an object's finalizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// The object is from a time before admission set it.
    Add,
    Remove,
}

/// Whether anything is to be done about an object, whoever uses it.
fn is_candidate<K: Resource>(object: &K, finalizer: &str) -> bool {
    object.meta().deletion_timestamp.is_some() == has(object, finalizer)
}

fn has<K: Resource>(object: &K, finalizer: &str) -> bool {
    object.meta().finalizers.iter().flatten().any(|one| one == finalizer)
}

/// What is to be done; `is_used` is asked about objects alone that are being deleted.
fn plan<K: Resource>(object: &K, finalizer: &str, is_used: impl FnOnce() -> bool) -> Option<Action> {
    match (object.meta().deletion_timestamp.is_some(), has(object, finalizer)) {
        (true, true) => (!is_used()).then_some(Action::Remove),
        (false, false) => Some(Action::Add),
        _ => None,
    }
}

async fn carry_out<K>(api: &Api<K>, object: &K, finalizer: &str, action: Action) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let mut object = object.clone();
    let finalizers = object.meta_mut().finalizers.get_or_insert_default();
    match action {
        Action::Add => finalizers.push(finalizer.to_owned()),
        Action::Remove => finalizers.retain(|one| one != finalizer),
    }
    let name = object.meta().name.clone().unwrap_or_default();
    match api.replace(&name, &PostParams::default(), &object).await {
        Err(error) if !client::is_not_found(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Runs the controller of a kind without namespaces over a queue that is woken by the objects themselves, and by
/// whom its owner lets wake it.
async fn run_cluster_scoped<K>(
    controller: &'static str,
    finalizer: &'static str,
    objects: Arc<Informer<K>>,
    queue: Arc<Queue<ObjectKey>>,
    client: Client,
    cancel: CancellationToken,
    is_used: impl Fn(&K) -> bool,
) where
    K: Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    objects.on_change({
        let queue = queue.clone();
        move |change| {
            if is_candidate(change.object().as_ref(), finalizer) {
                queue.add(ObjectKey::of(change.object().as_ref()));
            }
        }
    });
    let api: Api<K> = Api::all(client);
    runner::run(controller, queue, 1, cancel, |key| {
        let planned = objects.store().get_key(&key).and_then(|object| {
            let action = plan(object.as_ref(), finalizer, || is_used(&object))?;
            Some((object, action))
        });
        let api = api.clone();
        async move {
            if let Some((object, action)) = planned {
                carry_out(&api, object.as_ref(), finalizer, action).await?;
            }
            Ok(Again::OnChange)
        }
    })
    .await;
}

#[cfg(test)]
pub mod tests {
    use k8s_openapi::api::core::v1::PersistentVolume;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    /// Makes an object look as if it was being deleted.
    pub fn deleted<K: Resource>(mut object: K) -> K {
        object.meta_mut().deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        object
    }

    #[test]
    fn finalizers_come_to_what_lives_and_leave_what_goes_unused() {
        // is being deleted, has the finalizer, is used, what is done
        let cases = [
            (false, true, false, None),
            (false, true, true, None),
            (false, false, false, Some(Action::Add)),
            (true, false, false, None),
            (true, true, true, None),
            (true, true, false, Some(Action::Remove)),
        ];
        for (leaves, protected, used, wanted) in cases {
            let mut volume = PersistentVolume::default();
            volume.metadata.finalizers = Some(vec!["example.com/other".into()]);
            if protected {
                volume.metadata.finalizers.get_or_insert_default().push("f".into());
            }
            let volume = if leaves { deleted(volume) } else { volume };
            assert_eq!(plan(&volume, "f", || used), wanted, "{leaves} {protected} {used}");
            assert!(wanted.is_none() || is_candidate(&volume, "f"), "{leaves} {protected}");
        }
    }
}
