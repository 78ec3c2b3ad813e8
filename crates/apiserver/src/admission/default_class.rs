//! DefaultStorageClass and DefaultIngressClass: claims and ingresses that name no class get the one that is marked as
//! the default; of several, the newest.

use apimachinery::Object;

use super::{Attributes, Operation};
use crate::registry::Registry;

const STORAGE: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const INGRESS: [&str; 1] = ["ingressclass.kubernetes.io/is-default-class"];

pub fn storage(registry: &Registry, attributes: &mut Attributes<'_>) {
    if !attributes.is("persistentvolumeclaims", "") || attributes.operation != Operation::Create {
        return;
    }
    let Some(claim) = &mut attributes.object else { return };
    let named = claim.annotation("volume.beta.kubernetes.io/storage-class").is_some()
        || claim.get(&["spec", "storageClassName"]).is_some();
    if !named && let Some(class) = default(registry, "storage.k8s.io", "storageclasses", &STORAGE) {
        claim.set(&["spec", "storageClassName"], class);
    }
}

pub fn ingress(registry: &Registry, attributes: &mut Attributes<'_>) {
    if !attributes.is_in("networking.k8s.io", "ingresses", "") || attributes.operation != Operation::Create {
        return;
    }
    let Some(ingress) = &mut attributes.object else { return };
    let named = ingress.annotation("kubernetes.io/ingress.class").is_some()
        || ingress.get(&["spec", "ingressClassName"]).is_some();
    if !named && let Some(class) = default(registry, "networking.k8s.io", "ingressclasses", &INGRESS) {
        ingress.set(&["spec", "ingressClassName"], class);
    }
}

fn default(registry: &Registry, group: &str, plural: &str, marks: &[&str]) -> Option<String> {
    let cache = registry.cache.resource(registry.kind(group, "v1", plural)?)?;
    newest(cache.snapshot().iter().filter_map(|entry| entry.object().ok()), marks)
}

fn newest(classes: impl Iterator<Item = Object>, marks: &[&str]) -> Option<String> {
    let marked = |class: &Object| marks.iter().any(|mark| class.annotation(mark) == Some("true"));
    classes
        .filter(marked)
        .max_by(|a, b| {
            let older = a.creation_timestamp().cmp(b.creation_timestamp());
            older.then_with(|| b.name().cmp(a.name()))
        })
        .map(|class| class.name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_newest_default_is_taken() {
        let class = |name: &str, mark: &str, at: &str| {
            Object::from(json!({"metadata": {"name": name, "creationTimestamp": at,
                "annotations": {STORAGE[0]: mark}}}))
        };
        let old = "2025-01-01T00:00:00Z";
        let new = "2026-01-01T00:00:00Z";
        let cases = [
            (vec![], None),
            (vec![class("a", "false", new)], None),
            (vec![class("a", "true", old), class("b", "true", new)], Some("b")),
            (vec![class("b", "true", new), class("a", "true", new)], Some("a")),
        ];
        for (classes, wanted) in cases {
            assert_eq!(newest(classes.into_iter(), &STORAGE).as_deref(), wanted);
        }
    }
}
