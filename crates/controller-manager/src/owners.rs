//! Who owns what: controller references, adoption and release.

use std::sync::Arc;

use apimachinery::selectors::LabelSelector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector as Selector, OwnerReference};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use serde_json::json;

/// The owner that manages an object, if one does.
pub fn controller_of<K: Resource>(object: &K) -> Option<&OwnerReference> {
    object.meta().owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
}

pub fn is_controlled_by<K: Resource>(object: &K, uid: &str) -> bool {
    controller_of(object).is_some_and(|owner| owner.uid == uid)
}

/// The reference by which `owner` manages what it makes.
pub fn controller_ref<O: Resource<DynamicType = ()>>(owner: &O) -> OwnerReference {
    OwnerReference {
        api_version: O::api_version(&()).into_owned(),
        kind: O::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Parses a typed selector. One that cannot be parsed selects nothing.
pub fn selector(selector: &Selector) -> LabelSelector {
    let value = serde_json::to_value(selector).unwrap_or_default();
    LabelSelector::from_label_selector(&value).unwrap_or_else(|_| LabelSelector::nothing())
}

/// Whether labels match.
pub fn matches<K: Resource>(selector: &LabelSelector, object: &K) -> bool {
    let labels = object.meta().labels.as_ref();
    selector.matches_by(|key| labels?.get(key).map(String::as_str))
}

/// What an owner does about an object it might own.
#[derive(Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the owner's.
    Owned,
    /// It is nobody's and matches.
    Adopt,
    /// It is the owner's and no longer matches.
    Release,
    /// It is none of the owner's business.
    Ignore,
}

/// Decides about one object. Owners on their way out, and objects that are, take no part.
pub fn claim<K: Resource>(
    object: &K,
    selector: &LabelSelector,
    owner_uid: &str,
    owner_leaves: bool,
) -> Claim {
    let leaves = object.meta().deletion_timestamp.is_some();
    match controller_of(object) {
        Some(owner) if owner.uid != owner_uid => Claim::Ignore,
        Some(_) if matches(selector, object) => Claim::Owned,
        Some(_) if owner_leaves => Claim::Ignore,
        Some(_) => Claim::Release,
        None if owner_leaves || leaves || !matches(selector, object) => Claim::Ignore,
        None => Claim::Adopt,
    }
}

/// Carries claims out and gives back what the owner has afterwards. Each write names the object's uid, so that
/// an object made anew under the name is left alone.
pub async fn claim_all<K, O>(
    api: &Api<K>,
    candidates: Vec<Arc<K>>,
    owner: &O,
    selector: &LabelSelector,
) -> Result<Vec<Arc<K>>, kube::Error>
where
    K: Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
    O: Resource<DynamicType = ()>,
{
    let uid = owner.meta().uid.clone().unwrap_or_default();
    let owner_leaves = owner.meta().deletion_timestamp.is_some();
    let mut owned = Vec::new();
    for object in candidates {
        let name = object.meta().name.clone().unwrap_or_default();
        let object_uid = object.meta().uid.clone().unwrap_or_default();
        match claim(object.as_ref(), selector, &uid, owner_leaves) {
            Claim::Ignore => {}
            Claim::Owned => owned.push(object),
            Claim::Adopt => {
                let patch = json!({"metadata": {
                    "uid": object_uid, "ownerReferences": [controller_ref(owner)],
                }});
                match api.patch(&name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                    Ok(_) => owned.push(object),
                    Err(error) if client::is_not_found(&error) => {}
                    Err(error) => return Err(error),
                }
            }
            Claim::Release => {
                let patch = json!({"metadata": {
                    "uid": object_uid, "ownerReferences": [{"$patch": "delete", "uid": uid}],
                }});
                match api.patch(&name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                    Ok(_) => {}
                    Err(error) if client::is_not_found(&error) || client::is_reason(&error, "Invalid") => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(owned)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    #[test]
    fn claims_follow_owner_and_labels() {
        let selector = LabelSelector::parse("app=a").unwrap();
        let pod = |app: &str, owner: Option<&str>| {
            let mut pod = Pod::default();
            pod.metadata.labels = Some([("app".to_owned(), app.to_owned())].into());
            pod.metadata.owner_references = owner.map(|uid| {
                vec![OwnerReference { uid: uid.into(), controller: Some(true), ..OwnerReference::default() }]
            });
            pod
        };
        let cases = [
            (pod("a", Some("me")), false, Claim::Owned),
            (pod("b", Some("me")), false, Claim::Release),
            (pod("b", Some("me")), true, Claim::Ignore),
            (pod("a", Some("other")), false, Claim::Ignore),
            (pod("a", None), false, Claim::Adopt),
            (pod("a", None), true, Claim::Ignore),
            (pod("b", None), false, Claim::Ignore),
        ];
        for (pod, leaves, expected) in cases {
            assert_eq!(claim(&pod, &selector, "me", leaves), expected);
        }
    }
}
