//! Changes that informers report, until the scheduler takes them. Changes of one object are merged, so that what
//! waits here is never more than there are objects.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use client::{Change, ObjectKey};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Resource;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// An object before and after.
#[derive(Debug)]
pub struct Pair<K> {
    pub old: Option<Arc<K>>,
    pub new: Option<Arc<K>>,
}

#[derive(Debug)]
pub enum Item {
    Node(Pair<Node>),
    Pod(Pair<Pod>),
}

#[derive(Default)]
pub struct Inbox {
    /// Informers write and the scheduler takes all at once; held for that only.
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    nodes: Merged<Node>,
    pods: Merged<Pod>,
}

struct Merged<K> {
    places: HashMap<ObjectKey, usize>,
    pairs: Vec<Pair<K>>,
}

impl<K> Default for Merged<K> {
    fn default() -> Self {
        Self { places: HashMap::new(), pairs: Vec::new() }
    }
}

impl<K: Resource<DynamicType = ()>> Merged<K>
where
    ObjectKey: Hash + Eq,
{
    fn push(&mut self, change: &Change<K>) {
        let (old, new) = match change {
            Change::Added(new) => (None, Some(new)),
            Change::Updated { old, new } => (Some(old), Some(new)),
            Change::Deleted(old) => (Some(old), None),
        };
        let key = ObjectKey::of(change.object().as_ref());
        match self.places.get(&key) {
            // the first state before and the last after
            Some(place) => self.pairs[*place].new = new.cloned(),
            None => {
                self.places.insert(key, self.pairs.len());
                self.pairs.push(Pair { old: old.cloned(), new: new.cloned() });
            }
        }
    }
}

impl Inbox {
    pub fn node(&self, change: &Change<Node>) {
        self.state.lock().nodes.push(change);
        self.changed.notify_one();
    }

    pub fn pod(&self, change: &Change<Pod>) {
        self.state.lock().pods.push(change);
        self.changed.notify_one();
    }

    /// Everything that has come in, nodes first: a pod may be on one of them.
    pub fn take(&self) -> Vec<Item> {
        let State { nodes, pods } = std::mem::take(&mut *self.state.lock());
        let nodes = nodes.pairs.into_iter().map(Item::Node);
        nodes.chain(pods.pairs.into_iter().map(Item::Pod)).collect()
    }

    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::raw_pod;
    use serde_json::json;

    #[test]
    fn changes_of_one_object_become_one() {
        let version = |v: &str| raw_pod("p", json!({"metadata": {"resourceVersion": v}}));
        let seen = |inbox: &Inbox| -> Vec<(Option<String>, Option<String>)> {
            let of = |pod: Option<Arc<Pod>>| pod.and_then(|pod| pod.metadata.resource_version.clone());
            inbox
                .take()
                .into_iter()
                .filter_map(|item| match item {
                    Item::Pod(pair) => Some((of(pair.old), of(pair.new))),
                    Item::Node(_) => None,
                })
                .collect()
        };
        let inbox = Inbox::default();
        inbox.pod(&Change::Added(version("1")));
        inbox.pod(&Change::Updated { old: version("1"), new: version("2") });
        assert_eq!(seen(&inbox), [(None, Some("2".into()))]);
        inbox.pod(&Change::Updated { old: version("2"), new: version("3") });
        inbox.pod(&Change::Deleted(version("3")));
        assert_eq!(seen(&inbox), [(Some("2".into()), None)]);
        inbox.pod(&Change::Deleted(version("3")));
        inbox.pod(&Change::Added(version("9")));
        assert_eq!(seen(&inbox), [(Some("3".into()), Some("9".into()))]);
        assert!(seen(&inbox).is_empty());
    }
}
