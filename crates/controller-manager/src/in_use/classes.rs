//! VolumeAttributesClasses stay while a volume or a claim names them.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use client::{Change, Informer, ObjectKey, Queue};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::run_cluster_scoped;
use crate::Shared;

const FINALIZER: &str = "kubernetes.io/vac-protection";
const BY_CLASS: &str = "volumeAttributesClassName";

fn classes_of_claim(claim: &PersistentVolumeClaim) -> Vec<String> {
    let status = claim.status.as_ref();
    let named = [
        claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_ref()),
        status.and_then(|status| status.current_volume_attributes_class_name.as_ref()),
        status
            .and_then(|status| status.modify_volume_status.as_ref())
            .and_then(|modify| modify.target_volume_attributes_class_name.as_ref()),
    ];
    let named: BTreeSet<&String> = named.into_iter().flatten().filter(|name| !name.is_empty()).collect();
    named.into_iter().cloned().collect()
}

fn classes_of_volume(volume: &PersistentVolume) -> Vec<String> {
    let named = volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.clone());
    named.into_iter().filter(|name| !name.is_empty()).collect()
}

/// The classes that an object has ceased to name.
fn left<K>(change: &Change<K>, classes: fn(&K) -> Vec<String>) -> Vec<String> {
    match change {
        Change::Added(_) => Vec::new(),
        Change::Updated { old, new } => {
            let kept = classes(new);
            classes(old).into_iter().filter(|name| !kept.contains(name)).collect()
        }
        Change::Deleted(object) => classes(object),
    }
}

/// Lets the users of classes be found by the class, and a class be looked at when they leave it.
fn follow<K>(users: &Informer<K>, queue: &Arc<Queue<ObjectKey>>, classes: fn(&K) -> Vec<String>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    users.store().add_index(BY_CLASS, classes);
    let queue = queue.clone();
    users.on_change(move |change| {
        for class in left(change, classes) {
            queue.add(ObjectKey::new("", class));
        }
    });
}

pub async fn run(shared: Shared, client: Client, cancel: CancellationToken) {
    let classes = shared.informers.all::<VolumeAttributesClass>();
    let claims = shared.informers.all::<PersistentVolumeClaim>();
    let volumes = shared.informers.all::<PersistentVolume>();
    let queue: Arc<Queue<ObjectKey>> = Arc::default();
    follow(&claims, &queue, classes_of_claim);
    follow(&volumes, &queue, classes_of_volume);
    claims.wait_for_sync().await;
    volumes.wait_for_sync().await;
    classes.wait_for_sync().await;
    let is_used = |class: &VolumeAttributesClass| {
        let name = class.metadata.name.as_deref().unwrap_or_default();
        !claims.store().by_index(BY_CLASS, name).is_empty()
            || !volumes.store().by_index(BY_CLASS, name).is_empty()
    };
    run_cluster_scoped("vac-protection", FINALIZER, classes, queue, client, cancel, is_used).await;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_names_the_class_it_wants_the_one_it_has_and_the_one_it_goes_to() {
        let claim = |value| serde_json::from_value::<PersistentVolumeClaim>(value).unwrap();
        let cases = [
            (json!({}), vec![]),
            (json!({"spec": {"volumeAttributesClassName": ""}}), vec![]),
            (
                json!({"spec": {"volumeAttributesClassName": "b"},
                    "status": {"currentVolumeAttributesClassName": "a",
                    "modifyVolumeStatus": {"status": "Pending", "targetVolumeAttributesClassName": "b"}}}),
                vec!["a", "b"],
            ),
            (
                json!({"status": {"modifyVolumeStatus": {"status": "Pending",
                    "targetVolumeAttributesClassName": "c"}}}),
                vec!["c"],
            ),
        ];
        for (value, wanted) in cases {
            assert_eq!(classes_of_claim(&claim(value.clone())), wanted, "{value}");
        }
    }

    #[test]
    fn a_class_is_looked_at_when_it_is_left() {
        let volume = |class: &str| {
            let value = json!({"spec": {"volumeAttributesClassName": class}});
            Arc::new(serde_json::from_value::<PersistentVolume>(value).unwrap())
        };
        let none: Vec<String> = Vec::new();
        assert_eq!(left(&Change::Added(volume("a")), classes_of_volume), none);
        assert_eq!(left(&Change::Updated { old: volume("a"), new: volume("a") }, classes_of_volume), none);
        assert_eq!(left(&Change::Updated { old: volume("a"), new: volume("b") }, classes_of_volume), ["a"]);
        assert_eq!(left(&Change::Deleted(volume("a")), classes_of_volume), ["a"]);
    }
}
