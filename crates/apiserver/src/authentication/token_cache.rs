//! A bounded memory of tokens whose signature was found good. Only that is remembered: expiry and the objects
//! that a token is bound to are looked at anew each time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::metrics::TokenCacheMetrics;

/// Tokens of one generation; two are kept.
const GENERATION: usize = 4096;

/// By the token's digest, so that the tokens themselves are not in memory. A lock, since every request with a
/// token comes by; it is held for a lookup.
pub struct TokenCache<T> {
    known: Mutex<Generations<T>>,
    metrics: TokenCacheMetrics,
}

struct Generations<T> {
    young: HashMap<[u8; 32], Arc<T>>,
    old: HashMap<[u8; 32], Arc<T>>,
}

impl<T> Default for TokenCache<T> {
    fn default() -> Self {
        Self::new(TokenCacheMetrics::default())
    }
}

impl<T> TokenCache<T> {
    pub fn new(metrics: TokenCacheMetrics) -> Self {
        let known = Mutex::new(Generations { young: HashMap::new(), old: HashMap::new() });
        Self { known, metrics }
    }

    /// What is known of the token, or what `verify` finds; failures are not kept.
    pub fn get_or_verify<E>(&self, token: &str, verify: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        let begun = Instant::now();
        let key: [u8; 32] = Sha256::digest(token).into();
        if let Some(found) = self.get(&key) {
            self.metrics.asked(true, begun.elapsed());
            return Ok(found);
        }
        let verified = {
            let _in_flight = self.metrics.in_flight();
            verify()
        };
        self.metrics.fetched(verified.is_ok());
        self.metrics.asked(false, begun.elapsed());
        let verified = Arc::new(verified?);
        self.insert(key, verified.clone());
        Ok(verified)
    }

    fn get(&self, key: &[u8; 32]) -> Option<Arc<T>> {
        let mut generations = self.known.lock();
        if let Some(found) = generations.young.get(key) {
            return Some(found.clone());
        }
        // Still in use: it survives the next change of generations.
        let found = generations.old.remove(key)?;
        insert(&mut generations, *key, found.clone());
        Some(found)
    }

    fn insert(&self, key: [u8; 32], value: Arc<T>) {
        insert(&mut self.known.lock(), key, value);
    }
}

fn insert<T>(generations: &mut Generations<T>, key: [u8; 32], value: Arc<T>) {
    if generations.young.len() >= GENERATION {
        generations.old = std::mem::take(&mut generations.young);
    }
    generations.young.insert(key, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_is_bounded() {
        let cache = TokenCache::default();
        let known = |token: &str| cache.get_or_verify(token, || Err(())).is_ok();
        let learn = |token: &str| drop(cache.get_or_verify::<()>(token, || Ok(token.len())));
        assert!(!known("used"));
        learn("used");
        learn("unused");
        for number in 0..3 * GENERATION {
            learn(&number.to_string());
            assert!(known("used"));
        }
        assert!(!known("unused"));
        let generations = cache.known.lock();
        assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION);
    }
}
