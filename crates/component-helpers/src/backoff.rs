//! Exponential back-off by key, as upstream's `flowcontrol.Backoff`: the clock is the caller's.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// A back-off doubles with every failure up to `max`, and is forgotten when nothing failed for `2 * max`.
#[derive(Debug)]
pub struct Backoff<K> {
    initial: Duration,
    max: Duration,
    entries: HashMap<K, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    delay: Duration,
    last_update: Instant,
}

impl<K: Eq + Hash> Backoff<K> {
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, entries: HashMap::new() }
    }

    /// The delay in force for a key, zero when nothing failed lately.
    pub fn delay(&self, key: &K) -> Duration {
        self.entries.get(key).map_or(Duration::ZERO, |entry| entry.delay)
    }

    /// Notes a failure at `now`.
    pub fn next(&mut self, key: K, now: Instant) -> Duration {
        let (initial, max) = (self.initial, self.max);
        let entry = self.entries.entry(key).or_insert(Entry { delay: Duration::ZERO, last_update: now });
        let forgotten = now.saturating_duration_since(entry.last_update) > max * 2;
        entry.delay = if entry.delay.is_zero() || forgotten { initial } else { (entry.delay * 2).min(max) };
        entry.last_update = now;
        entry.delay
    }

    /// How long is still to wait when the last attempt ended at `event`; zero means go.
    pub fn remaining_since(&self, key: &K, event: Instant, now: Instant) -> Duration {
        match self.entries.get(key) {
            Some(entry) if now.saturating_duration_since(event) <= self.max * 2 => {
                (event + entry.delay).saturating_duration_since(now)
            }
            _ => Duration::ZERO,
        }
    }

    /// How long is still to wait since the last noted failure; zero means go.
    pub fn remaining(&self, key: &K, now: Instant) -> Duration {
        self.entries.get(key).map_or(Duration::ZERO, |entry| {
            if now.saturating_duration_since(entry.last_update) > self.max * 2 {
                Duration::ZERO
            } else {
                (entry.last_update + entry.delay).saturating_duration_since(now)
            }
        })
    }

    pub fn reset(&mut self, key: &K) {
        self.entries.remove(key);
    }

    /// Drops what is no longer in force, so that the map does not grow with every key ever seen.
    pub fn collect_garbage(&mut self, now: Instant) {
        let max = self.max;
        self.entries.retain(|_, entry| now.saturating_duration_since(entry.last_update) <= max * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn delays_double_to_the_maximum_and_are_forgotten() {
        let mut backoff = Backoff::new(10 * SECOND, 60 * SECOND);
        let start = Instant::now();
        let mut now = start;
        for want in [10, 20, 40, 60, 60] {
            assert_eq!(backoff.next("a", now), want * SECOND);
            now += SECOND;
        }
        assert_eq!(backoff.remaining(&"a", now), 59 * SECOND);
        assert_eq!(backoff.remaining(&"b", now), Duration::ZERO);
        assert_eq!(backoff.remaining_since(&"a", now - 30 * SECOND, now), 30 * SECOND);
        now += 121 * SECOND;
        assert_eq!(backoff.remaining(&"a", now), Duration::ZERO);
        assert_eq!(backoff.next("a", now), 10 * SECOND);
        backoff.collect_garbage(now + 121 * SECOND);
        assert_eq!(backoff.delay(&"a"), Duration::ZERO);
        backoff.next("a", now);
        backoff.reset(&"a");
        assert_eq!(backoff.delay(&"a"), Duration::ZERO);
    }
}
