//! Objects in memory, found by name, by namespace or by an index.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use kube::Resource;
use parking_lot::RwLock;

use crate::ObjectKey;

/// Computes the values under which an index files an object.
pub type IndexFn<K> = fn(&K) -> Vec<String>;

/// Written by one informer, read by everyone.
pub struct Store<K> {
    state: RwLock<State<K>>,
}

struct State<K> {
    objects: BTreeMap<ObjectKey, Arc<K>>,
    indices: HashMap<&'static str, Index<K>>,
}

struct Index<K> {
    compute: IndexFn<K>,
    entries: HashMap<String, BTreeSet<ObjectKey>>,
}

impl<K> Index<K> {
    fn add(&mut self, key: &ObjectKey, object: &K) {
        for value in (self.compute)(object) {
            self.entries.entry(value).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, key: &ObjectKey, object: &K) {
        for value in (self.compute)(object) {
            if let Some(keys) = self.entries.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.entries.remove(&value);
                }
            }
        }
    }
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self { state: RwLock::new(State { objects: BTreeMap::new(), indices: HashMap::new() }) }
    }
}

impl<K: Resource> Store<K> {
    /// Adds an index; what is there already is filed. A second index of the same name is the first.
    pub fn add_index(&self, name: &'static str, compute: IndexFn<K>) {
        let mut state = self.state.write();
        let State { objects, indices } = &mut *state;
        indices.entry(name).or_insert_with(|| {
            let mut index = Index { compute, entries: HashMap::new() };
            for (key, object) in objects.iter() {
                index.add(key, object);
            }
            index
        });
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.get_key(&ObjectKey::new(namespace, name))
    }

    pub fn get_key(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.state.read().objects.get(key).cloned()
    }

    pub fn list(&self) -> Vec<Arc<K>> {
        self.state.read().objects.values().cloned().collect()
    }

    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let from = ObjectKey::new(namespace, "");
        let state = self.state.read();
        let of_namespace = state.objects.range(from..).take_while(|(key, _)| key.namespace == namespace);
        of_namespace.map(|(_, object)| object.clone()).collect()
    }

    /// What an index files under a value. An index that was never added files nothing.
    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        let state = self.state.read();
        let keys = state.indices.get(name).and_then(|index| index.entries.get(value));
        keys.into_iter().flatten().filter_map(|key| state.objects.get(key).cloned()).collect()
    }

    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts an object in and gives back the one it replaces.
    pub fn insert(&self, object: Arc<K>) -> Option<Arc<K>> {
        let key = ObjectKey::of(object.as_ref());
        let mut state = self.state.write();
        let State { objects, indices } = &mut *state;
        let old = objects.insert(key.clone(), object.clone());
        for index in indices.values_mut() {
            if let Some(old) = &old {
                index.remove(&key, old);
            }
            index.add(&key, &object);
        }
        old
    }

    pub fn remove(&self, key: &ObjectKey) -> Option<Arc<K>> {
        let mut state = self.state.write();
        let State { objects, indices } = &mut *state;
        let old = objects.remove(key)?;
        for index in indices.values_mut() {
            index.remove(key, &old);
        }
        Some(old)
    }

    pub fn keys(&self) -> Vec<ObjectKey> {
        self.state.read().objects.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    fn pod(name: &str, node: &str) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.into());
        pod.metadata.namespace = Some("ns".into());
        pod.spec.get_or_insert_default().node_name = Some(node.into());
        Arc::new(pod)
    }

    #[test]
    fn an_index_follows_its_objects() {
        let store = Store::default();
        store.insert(pod("a", "n1"));
        store.add_index("node", |pod: &Pod| {
            pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).into_iter().collect()
        });
        store.insert(pod("b", "n1"));
        assert_eq!(store.by_index("node", "n1").len(), 2);
        store.insert(pod("b", "n2"));
        assert_eq!((store.by_index("node", "n1").len(), store.by_index("node", "n2").len()), (1, 1));
        store.remove(&ObjectKey::new("ns", "a"));
        assert!(store.by_index("node", "n1").is_empty());
        assert_eq!(store.list_namespace("ns").len(), 1);
        assert!(store.list_namespace("n").is_empty());
    }
}
