//! StorageObjectInUseProtection and PersistentVolumeClaimResize: what is in use stays until it is not, and only
//! bound claims of classes that allow it grow.

use apimachinery::{Object, Status};
use component_helpers::amount::Amount;

use super::{Attributes, Operation};
use crate::registry::Registry;

/// Which finalizer keeps which objects.
const PROTECTED: [(&str, &str, &str); 3] = [
    ("", "persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("", "persistentvolumes", "kubernetes.io/pv-protection"),
    ("storage.k8s.io", "volumeattributesclasses", "kubernetes.io/vac-protection"),
];

/// Keeps what is in use. A controller takes the finalizers away again.
pub fn protect(attributes: &mut Attributes<'_>) {
    if attributes.operation != Operation::Create || !attributes.subresource.is_empty() {
        return;
    }
    let resource = attributes.kind.resource;
    let found =
        PROTECTED.iter().find(|(group, plural, _)| (*group, *plural) == (resource.group, resource.plural));
    if let (Some((_, _, finalizer)), Some(object)) = (found, &mut attributes.object) {
        let mut all: Vec<String> = object.finalizers().into_iter().map(str::to_owned).collect();
        if !all.iter().any(|one| one == finalizer) {
            all.push((*finalizer).to_owned());
            object.set_finalizers(&all);
        }
    }
}

pub fn resize(registry: &Registry, attributes: &Attributes<'_>) -> Result<(), Status> {
    if !attributes.is("persistentvolumeclaims", "") || attributes.operation != Operation::Update {
        return Ok(());
    }
    let (Some(new), Some(old)) = (&attributes.object, &attributes.old) else { return Ok(()) };
    let expandable = |class: &str| {
        let kind = registry.kind("storage.k8s.io", "v1", "storageclasses");
        let class = kind.and_then(|kind| registry.peek(kind, "", class));
        class.is_some_and(|class| class.get_bool(&["allowVolumeExpansion"]))
    };
    match why_not(new, old, expandable) {
        Some(why) => Err(attributes.forbidden(why)),
        None => Ok(()),
    }
}

fn class_of(claim: &Object) -> &str {
    let annotation = claim.annotation("volume.beta.kubernetes.io/storage-class");
    annotation.unwrap_or_else(|| claim.get_str(&["spec", "storageClassName"]))
}

fn why_not(new: &Object, old: &Object, expandable: impl Fn(&str) -> bool) -> Option<&'static str> {
    let size = |claim: &Object| {
        Amount::parse(claim.get_str(&["spec", "resources", "requests", "storage"])).unwrap_or_default()
    };
    if size(new) <= size(old) {
        return None;
    }
    if old.get_str(&["status", "phase"]) != "Bound" {
        return Some("Only bound persistent volume claims can be expanded");
    }
    let (class, before) = (class_of(new), class_of(old));
    if class.is_empty() || class != before || !expandable(class) {
        return Some(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bound_claims_grow_where_their_class_allows_it() {
        let claim = |size: &str, class: &str, phase: &str| {
            Object::from(
                json!({"spec": {"storageClassName": class, "resources": {"requests": {"storage": size}}},
                "status": {"phase": phase}}),
            )
        };
        let old = claim("1Gi", "gold", "Bound");
        let cases = [
            (claim("1Gi", "gold", "Bound"), claim("1Gi", "gold", "Pending"), None),
            (claim("2Gi", "gold", "Bound"), old.clone(), None),
            (claim("2Gi", "gold", "Bound"), claim("1Gi", "gold", "Pending"), Some("Only bound")),
            (claim("2Gi", "lead", "Bound"), claim("1Gi", "lead", "Bound"), Some("only dynamically")),
            (claim("2Gi", "", "Bound"), claim("1Gi", "", "Bound"), Some("only dynamically")),
            (claim("2Gi", "gold", "Bound"), claim("1Gi", "lead", "Bound"), Some("only dynamically")),
        ];
        for (new, old, wanted) in cases {
            let found = why_not(&new, &old, |class| class == "gold");
            let start = found.map(|why| wanted.is_some_and(|wanted| why.starts_with(wanted)));
            assert_eq!(start, wanted.map(|_| true), "{new:?} {found:?}");
        }
    }
}
