//! A work queue keyed by object: a key is handled by one worker at a time, a key added while it is handled is
//! handled again after, and a key that fails comes back later each time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Upstream's per-item limits: 5 ms doubled with each failure, up to 1000 s.
const BASE_DELAY: Duration = Duration::from_millis(5);
const MAX_DELAY: Duration = Duration::from_secs(1000);

pub struct Queue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    /// Waiting in `ready`, or to be queued again once handled.
    dirty: HashSet<K>,
    handled: HashSet<K>,
    failures: HashMap<K, u32>,
    delayed: BinaryHeap<Reverse<Delayed<K>>>,
    sequence: u64,
    closed: bool,
}

struct Delayed<K> {
    at: Instant,
    sequence: u64,
    key: K,
}

impl<K> PartialEq for Delayed<K> {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl<K> Eq for Delayed<K> {}

impl<K> PartialOrd for Delayed<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<K> Ord for Delayed<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl<K: Clone + Eq + Hash> Default for Queue<K> {
    fn default() -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            handled: HashSet::new(),
            failures: HashMap::new(),
            delayed: BinaryHeap::new(),
            sequence: 0,
            closed: false,
        };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn add(&mut self, key: K) {
        if self.closed || !self.dirty.insert(key.clone()) {
            return;
        }
        if !self.handled.contains(&key) {
            self.ready.push_back(key);
        }
    }
}

/// How long a key waits that has failed so many times before.
fn back_off(failures: u32) -> Duration {
    BASE_DELAY.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX)).min(MAX_DELAY)
}

impl<K: Clone + Eq + Hash> Queue<K> {
    pub fn add(&self, key: K) {
        self.state.lock().add(key);
        self.changed.notify_one();
    }

    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let mut state = self.state.lock();
        state.sequence += 1;
        let sequence = state.sequence;
        state.delayed.push(Reverse(Delayed { at: Instant::now() + delay, sequence, key }));
        drop(state);
        self.changed.notify_one();
    }

    /// Adds a key that has failed, later each time until [`Queue::forget`].
    pub fn add_rate_limited(&self, key: K) {
        let mut state = self.state.lock();
        let failures = state.failures.entry(key.clone()).or_default();
        let delay = back_off(*failures);
        *failures = (*failures + 1).min(31);
        drop(state);
        self.add_after(key, delay);
    }

    /// How often a key has failed since it was forgotten.
    pub fn failures(&self, key: &K) -> u32 {
        self.state.lock().failures.get(key).copied().unwrap_or_default()
    }

    pub fn forget(&self, key: &K) {
        self.state.lock().failures.remove(key);
    }

    pub fn len(&self) -> usize {
        self.state.lock().ready.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next key; `None` once the queue is closed. The caller says [`Queue::done`] when it has handled it.
    pub async fn get(&self) -> Option<K> {
        loop {
            let next = {
                let mut state = self.state.lock();
                if state.closed {
                    return None;
                }
                let now = Instant::now();
                while state.delayed.peek().is_some_and(|Reverse(first)| first.at <= now) {
                    if let Some(Reverse(first)) = state.delayed.pop() {
                        state.add(first.key);
                    }
                }
                if let Some(key) = state.ready.pop_front() {
                    state.dirty.remove(&key);
                    state.handled.insert(key.clone());
                    if !state.ready.is_empty() {
                        self.changed.notify_one();
                    }
                    return Some(key);
                }
                state.delayed.peek().map(|Reverse(first)| first.at)
            };
            match next {
                Some(at) => {
                    tokio::select! {
                        () = self.changed.notified() => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => self.changed.notified().await,
            }
        }
    }

    pub fn done(&self, key: &K) {
        let mut state = self.state.lock();
        state.handled.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Ends all waits; nothing is handed out any more.
    pub fn close(&self) {
        self.state.lock().closed = true;
        // each waiter passes the word on, since one permit wakes one
        self.changed.notify_waiters();
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_added_while_handled_comes_again_and_only_then() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.get().await, Some("a"));
        queue.add("a");
        assert!(queue.is_empty());
        queue.done(&"a");
        assert_eq!(queue.get().await, Some("a"));
        queue.done(&"a");
        assert!(queue.is_empty());
    }

    #[tokio::test]
    async fn failures_are_counted_until_forgotten() {
        let queue = Queue::default();
        for failures in 1..4 {
            queue.add_rate_limited("a");
            queue.get().await;
            queue.done(&"a");
            assert_eq!(queue.failures(&"a"), failures);
        }
        queue.forget(&"a");
        assert_eq!(queue.failures(&"a"), 0);
    }

    #[test]
    fn each_failure_doubles_the_wait_up_to_a_limit() {
        for (failures, millis) in [(0, 5), (1, 10), (4, 80), (18, 1_000_000), (31, 1_000_000)] {
            assert_eq!(back_off(failures).as_millis(), millis, "{failures}");
        }
    }

    #[tokio::test]
    async fn delayed_keys_come_in_order() {
        let queue = Queue::default();
        queue.add_after("late", Duration::from_millis(60));
        queue.add_after("soon", Duration::from_millis(1));
        assert_eq!(queue.get().await, Some("soon"));
        assert_eq!(queue.get().await, Some("late"));
        queue.close();
        assert_eq!(queue.get().await, None);
    }
}
