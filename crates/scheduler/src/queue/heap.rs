//! A heap of queued pods from which any pod can be taken by its uid.

use std::collections::HashMap;

use super::QueuedPod;
use crate::pod_info::Uid;

type Less = Box<dyn Fn(&QueuedPod, &QueuedPod) -> bool + Send + Sync>;

pub struct Heap {
    items: Vec<QueuedPod>,
    places: HashMap<Uid, usize>,
    less: Less,
}

impl Heap {
    pub fn new(less: impl Fn(&QueuedPod, &QueuedPod) -> bool + Send + Sync + 'static) -> Self {
        Self { items: Vec::new(), places: HashMap::new(), less: Box::new(less) }
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn contains(&self, uid: &Uid) -> bool {
        self.places.contains_key(uid)
    }

    pub fn peek(&self) -> Option<&QueuedPod> {
        self.items.first()
    }

    pub fn push(&mut self, pod: QueuedPod) {
        self.remove(&pod.info.uid);
        let at = self.items.len();
        self.places.insert(pod.info.uid.clone(), at);
        self.items.push(pod);
        self.up(at);
    }

    pub fn pop(&mut self) -> Option<QueuedPod> {
        (!self.items.is_empty()).then(|| self.take(0))
    }

    pub fn remove(&mut self, uid: &Uid) -> Option<QueuedPod> {
        let at = *self.places.get(uid)?;
        Some(self.take(at))
    }

    fn take(&mut self, at: usize) -> QueuedPod {
        let last = self.items.len() - 1;
        self.swap(at, last);
        let pod = self.items.swap_remove(last);
        self.places.remove(&pod.info.uid);
        if at < self.items.len() {
            self.down(at);
            self.up(at);
        }
        pod
    }

    fn swap(&mut self, a: usize, b: usize) {
        if a != b {
            self.items.swap(a, b);
            for at in [a, b] {
                if let Some(place) = self.places.get_mut(&self.items[at].info.uid) {
                    *place = at;
                }
            }
        }
    }

    fn up(&mut self, mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if !(self.less)(&self.items[at], &self.items[parent]) {
                return;
            }
            self.swap(at, parent);
            at = parent;
        }
    }

    fn down(&mut self, mut at: usize) {
        loop {
            let children = 2 * at + 1..(2 * at + 3).min(self.items.len());
            let Some(first) = children
                .reduce(|a, b| if (self.less)(&self.items[b], &self.items[a]) { b } else { a })
                .filter(|child| (self.less)(&self.items[*child], &self.items[at]))
            else {
                return;
            };
            self.swap(at, first);
            at = first;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;
    use proptest::prelude::*;
    use serde_json::json;
    use std::time::Instant;

    fn queued(name: u8, priority: u8, now: Instant) -> QueuedPod {
        QueuedPod::new(pod(&name.to_string(), json!({"spec": {"priority": priority}})), now, u64::from(name))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn pods_come_out_in_order_whatever_was_taken(
            pushed in prop::collection::vec((0..40_u8, any::<u8>()), 0..60),
            taken in prop::collection::vec(0..40_u8, 0..20),
        ) {
            let now = Instant::now();
            let mut heap = Heap::new(|a, b| a.info.priority > b.info.priority);
            let mut model = HashMap::new();
            for (name, priority) in pushed {
                heap.push(queued(name, priority, now));
                model.insert(name.to_string(), i32::from(priority));
            }
            for name in taken {
                let uid: Uid = name.to_string().into();
                let found = heap.remove(&uid).map(|pod| pod.info.priority);
                prop_assert_eq!(found, model.remove(&*uid));
                prop_assert!(!heap.contains(&uid));
            }
            let mut want: Vec<i32> = model.into_values().collect();
            want.sort_by(|a, b| b.cmp(a));
            let got: Vec<i32> = std::iter::from_fn(|| heap.pop()).map(|pod| pod.info.priority).collect();
            prop_assert_eq!(got, want);
            prop_assert!(heap.places.is_empty());
        }
    }
}
