//! What a controller has asked for and not yet seen come true. Until it has, its cache tells of the past, and
//! acting on it would do things twice.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use client::ObjectKey;
use parking_lot::Mutex;
use tokio::time::Instant;

/// After this an expectation is given up: the write or its event was lost.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Default)]
pub struct Expectations {
    by_owner: Mutex<HashMap<ObjectKey, Pending>>,
}

struct Pending {
    creations: usize,
    deletions: HashSet<String>,
    since: Instant,
}

impl Default for Pending {
    fn default() -> Self {
        Self { creations: 0, deletions: HashSet::new(), since: Instant::now() }
    }
}

impl Expectations {
    pub fn expect_creations(&self, owner: &ObjectKey, count: usize) {
        let mut all = self.by_owner.lock();
        let pending = all.entry(owner.clone()).or_default();
        pending.creations += count;
        pending.since = Instant::now();
    }

    pub fn expect_deletions(&self, owner: &ObjectKey, uids: impl IntoIterator<Item = String>) {
        let mut all = self.by_owner.lock();
        let pending = all.entry(owner.clone()).or_default();
        pending.deletions.extend(uids);
        pending.since = Instant::now();
    }

    /// One creation was seen, or failed.
    pub fn creation_observed(&self, owner: &ObjectKey) {
        if let Some(pending) = self.by_owner.lock().get_mut(owner) {
            pending.creations = pending.creations.saturating_sub(1);
        }
    }

    /// One deletion was seen, or failed.
    pub fn deletion_observed(&self, owner: &ObjectKey, uid: &str) {
        if let Some(pending) = self.by_owner.lock().get_mut(owner) {
            pending.deletions.remove(uid);
        }
    }

    /// Whether the cache shows everything that was asked for.
    pub fn satisfied(&self, owner: &ObjectKey) -> bool {
        let mut all = self.by_owner.lock();
        let Some(pending) = all.get(owner) else { return true };
        let done = pending.creations == 0 && pending.deletions.is_empty();
        if done || pending.since.elapsed() > PATIENCE {
            all.remove(owner);
            return true;
        }
        false
    }

    pub fn forget(&self, owner: &ObjectKey) {
        self.by_owner.lock().remove(owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn satisfied_once_everything_was_seen() {
        let expectations = Expectations::default();
        let owner = ObjectKey::new("ns", "rs");
        assert!(expectations.satisfied(&owner));
        expectations.expect_creations(&owner, 2);
        expectations.expect_deletions(&owner, ["x".to_owned()]);
        expectations.creation_observed(&owner);
        assert!(!expectations.satisfied(&owner));
        expectations.creation_observed(&owner);
        expectations.deletion_observed(&owner, "y");
        assert!(!expectations.satisfied(&owner));
        expectations.deletion_observed(&owner, "x");
        assert!(expectations.satisfied(&owner));
    }
}
