//! A bounded memory of what others answered, for as long as they said it may be believed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

/// How many answers are kept.
const CAPACITY: usize = 8192;

/// The digest of a question, so that the question itself, maybe a token, is not in memory.
pub type Key = [u8; 32];

/// Each part with its length, so that no two lists of parts are one question.
pub fn key<'p>(parts: impl IntoIterator<Item = &'p str>) -> Key {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// A lock, since every request that asks comes by; it is held for a lookup.
pub struct TtlCache<T>(Mutex<HashMap<Key, (Instant, T)>>);

impl<T> Default for TtlCache<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> TtlCache<T> {
    pub fn get(&self, key: &Key) -> Option<T> {
        let entries = self.0.lock();
        let (until, value) = entries.get(key)?;
        (Instant::now() < *until).then(|| value.clone())
    }

    /// Zero is not at all.
    pub fn insert(&self, key: Key, value: T, ttl: Duration) {
        if ttl.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut entries = self.0.lock();
        if entries.len() >= CAPACITY && !entries.contains_key(&key) {
            entries.retain(|_, (until, _)| now < *until);
            if entries.len() >= CAPACITY {
                entries.clear();
            }
        }
        entries.insert(key, (now + ttl, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_for_their_time_and_not_without_bound() {
        let cache = TtlCache::default();
        cache.insert(key(["a"]), 1, Duration::from_secs(3600));
        cache.insert(key(["b"]), 2, Duration::ZERO);
        cache.insert(key(["c"]), 3, Duration::from_nanos(1));
        std::thread::sleep(Duration::from_millis(1));
        let found = ["a", "b", "c"].map(|name| cache.get(&key([name])));
        assert_eq!(found, [Some(1), None, None]);
        for number in 0..2 * CAPACITY {
            cache.insert(key([number.to_string().as_str()]), 0, Duration::from_secs(3600));
        }
        assert!(cache.0.lock().len() <= CAPACITY);
        assert_ne!(key(["ab", "c"]), key(["a", "bc"]));
        assert_ne!(key(["a", ""]), key(["a"]));
    }
}
