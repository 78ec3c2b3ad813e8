//! One copy of each decoded object per process: informers of several components that see the same version of an
//! object share it.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Weak};

use kube::Resource;
use parking_lot::Mutex;

type Key = (TypeId, String, String);

struct Table {
    objects: HashMap<Key, Weak<dyn Any + Send + Sync>>,
    /// When so many entries are there, those whose objects are gone are swept out.
    sweep_at: usize,
}

const FIRST_SWEEP: usize = 1024;

static TABLE: LazyLock<Mutex<Table>> =
    LazyLock::new(|| Mutex::new(Table { objects: HashMap::new(), sweep_at: FIRST_SWEEP }));

/// The shared copy of an object, without its managedFields.
pub fn intern<K: Resource + Send + Sync + 'static>(mut object: K) -> Arc<K> {
    object.meta_mut().managed_fields = None;
    let meta = object.meta();
    let (Some(uid), Some(version)) = (meta.uid.clone(), meta.resource_version.clone()) else {
        return Arc::new(object);
    };
    let key = (TypeId::of::<K>(), uid, version);
    let mut table = TABLE.lock();
    if let Some(shared) = table.objects.get(&key).and_then(Weak::upgrade)
        && let Ok(shared) = shared.downcast::<K>()
    {
        return shared;
    }
    let shared = Arc::new(object);
    let any: Arc<dyn Any + Send + Sync> = shared.clone();
    table.objects.insert(key, Arc::downgrade(&any));
    if table.objects.len() >= table.sweep_at {
        table.objects.retain(|_, object| object.strong_count() > 0);
        table.sweep_at = (table.objects.len() * 2).max(FIRST_SWEEP);
    }
    shared
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    #[test]
    fn equal_versions_are_one_object() {
        let map = |version: &str| {
            let mut map = ConfigMap::default();
            map.metadata.uid = Some("intern-test".into());
            map.metadata.resource_version = Some(version.into());
            map.metadata.managed_fields = Some(Vec::new());
            intern(map)
        };
        let (one, same, other) = (map("1"), map("1"), map("2"));
        assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &other));
        assert!(one.metadata.managed_fields.is_none());
    }
}
