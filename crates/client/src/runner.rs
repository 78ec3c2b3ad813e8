//! The loop that every controller runs in: take a key, reconcile it, and come back as the outcome says.

use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::queue::Queue;

/// How long one reconciliation may take before it is given up and tried again.
const DEADLINE: Duration = Duration::from_secs(120);

/// When to look at a key again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// When something changes.
    OnChange,
    After(Duration),
    /// Like after a failure, later each time, but there is nothing to tell.
    RateLimited,
}

/// Runs workers over a queue until cancelled. A failure is logged and its key comes back later.
pub async fn run<K, F, R>(
    controller: &'static str,
    queue: Arc<Queue<K>>,
    workers: usize,
    cancel: CancellationToken,
    reconcile: F,
) where
    K: Clone + Eq + Hash + std::fmt::Display,
    F: Fn(K) -> R,
    R: Future<Output = anyhow::Result<Again>>,
{
    let workers = (0..workers.max(1)).map(|_| work(controller, &queue, &reconcile));
    tokio::select! {
        () = cancel.cancelled() => queue.close(),
        _ = join_all(workers) => {}
    }
}

/// An error and its causes in a line; of what the API says, the message alone.
fn describe(error: &anyhow::Error) -> String {
    let texts: Vec<String> = error
        .chain()
        .map(|cause| cause.downcast_ref::<kube::Error>().map_or_else(|| cause.to_string(), crate::message))
        .collect();
    let mut texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    // the API's status is its own cause
    texts.dedup_by(|next, last| last.contains(*next) || next.contains(*last));
    texts.join(": ")
}

async fn work<K, F, R>(controller: &'static str, queue: &Queue<K>, reconcile: &F)
where
    K: Clone + Eq + Hash + std::fmt::Display,
    F: Fn(K) -> R,
    R: Future<Output = anyhow::Result<Again>>,
{
    while let Some(key) = queue.get().await {
        let outcome = match tokio::time::timeout(DEADLINE, reconcile(key.clone())).await {
            Ok(outcome) => outcome,
            Err(_) => Err(anyhow::anyhow!("took longer than {DEADLINE:?}")),
        };
        match outcome {
            Ok(Again::RateLimited) => queue.add_rate_limited(key.clone()),
            Ok(again) => {
                queue.forget(&key);
                if let Again::After(delay) = again {
                    queue.add_after(key.clone(), delay);
                }
            }
            Err(error) => {
                // conflicts are how optimistic writers meet; they are not worth a line each
                if error.downcast_ref::<kube::Error>().is_some_and(crate::is_conflict) {
                    tracing::debug!(controller, key = %key, "conflict, trying again");
                } else {
                    let error = describe(&error);
                    tracing::warn!(controller, key = %key, error, "reconciling failed, trying again");
                }
                queue.add_rate_limited(key.clone());
            }
        }
        queue.done(&key);
    }
}
