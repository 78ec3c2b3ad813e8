//! API Priority and Fairness (KEP-1040): which of the requests that come in at once are answered now, which wait, and
//! which are told to come again. The rules are pure ([`rules`], [`work`], [`queue_set`], [`allocation`]); this module
//! has the clock, wakes those that wait, and gives seats back.

mod allocation;
pub mod controller;
mod dump;
mod integrator;
mod levels;
mod metrics;
mod queue_set;
mod retry_after;
mod rules;
mod seat_seconds;
mod shuffle_sharding;
mod watch_tracker;
mod work;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use apimachinery::Object;
use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use self::levels::{About, Level, Levels, Reference, Schema, Schemas, wake};
use self::queue_set::{Id, Rejection, Start};
pub use self::watch_tracker::Registration;
use self::watch_tracker::WatchTracker;
pub use self::work::Stored;
use crate::authentication::UserInfo;
use crate::http::request_info::{Query, RequestInfo};

/// How a request was classified, for its answer.
const SCHEMA_UID: &str = "x-kubernetes-pf-flowschema-uid";
const LEVEL_UID: &str = "x-kubernetes-pf-prioritylevel-uid";

/// Who may be answered, and when.
pub struct FlowControl {
    began: Instant,
    began_at: DateTime<Utc>,
    /// What requests are classified by; replaced as a whole.
    schemas: ArcSwap<Schemas>,
    /// Locked by the task that follows the configuration, and by who shows it.
    levels: Mutex<Levels>,
    /// The configuration changed, or a level that nobody wants has become idle.
    changed: Notify,
    watches: Arc<WatchTracker>,
}

/// A request that asks for a seat.
pub struct Asking<'a> {
    pub user: &'a Arc<UserInfo>,
    pub info: &'a Arc<RequestInfo>,
    pub query: &'a Query,
    /// Until when it may wait.
    pub until: Instant,
}

/// How a request was classified.
#[derive(Clone)]
pub struct Classified(Arc<Schema>);

impl Classified {
    /// Says in an answer what the request was taken for; by uids, so that no name says how unimportant it is.
    pub fn mark(&self, headers: &mut HeaderMap<HeaderValue>) {
        headers.insert(LEVEL_UID, self.0.level_uid.clone());
        headers.insert(SCHEMA_UID, self.0.uid.clone());
    }
}

/// A request that is told to come again.
pub struct TurnedAway {
    pub classified: Classified,
    /// In seconds.
    pub retry_after: u64,
}

/// The seats of a request that is being answered. They are free when it is dropped, or as long after as the request
/// keeps its watchers busy.
pub struct Seat {
    control: Arc<FlowControl>,
    schema: Arc<Schema>,
    id: Id,
    began: Instant,
    watch: bool,
}

impl Seat {
    pub fn classified(&self) -> Classified {
        Classified(self.schema.clone())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.schema.metrics.executed(self.began.elapsed(), self.watch);
        self.control.finish(&self.schema.level, self.id);
    }
}

/// A place in a queue; given up when dropped, unless it has become a seat.
struct Waiting {
    control: Arc<FlowControl>,
    level: Arc<Level>,
    /// `None` once it is a seat.
    id: Option<Id>,
}

impl Waiting {
    /// Leaves the queue, unless it is this request's turn already.
    fn leave(mut self) -> Option<Id> {
        let id = self.id.take()?;
        if self.control.cancel(&self.level, id) { None } else { Some(id) }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(id) = self.id.take()
            && !self.control.cancel(&self.level, id)
        {
            // its turn came in the moment in which it went
            self.control.finish(&self.level, id);
        }
    }
}

impl FlowControl {
    /// Divides `concurrency` seats. Until [`controller::run`] has seen the configuration, by what is mandatory.
    pub fn new(concurrency: u32) -> Arc<Self> {
        let mut levels = Levels::new(concurrency);
        let (schemas, _) = levels.digest(Duration::ZERO, &[], &[], &Schemas(Vec::new()));
        Arc::new(Self {
            began: Instant::now(),
            began_at: Utc::now(),
            schemas: ArcSwap::from_pointee(schemas),
            levels: Mutex::new(levels),
            changed: Notify::new(),
            watches: Arc::default(),
        })
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// A seat for a request, once it is its turn. `stored` says what there is of a resource that is listed.
    pub async fn enter(
        self: &Arc<Self>,
        asking: Asking<'_>,
        stored: impl FnOnce() -> Option<Stored>,
    ) -> Result<Seat, TurnedAway> {
        let Asking { user, info, query, until } = asking;
        let schema = {
            let schemas = self.schemas.load();
            let schema = schemas.classify(user, info);
            schema.expect("there is always a schema for everything").clone()
        };
        let level = &schema.level;
        let max_seats = Some(level.max_seats.load(Ordering::Relaxed)).filter(|seats| *seats > 0);
        let watchers = || {
            let count = self.watches.interested(info);
            schema.metrics.watchers(count);
            count
        };
        let work = work::estimate(info, query, max_seats, stored, watchers);
        schema.metrics.estimated(work.max_seats());
        let hash = if schema.shards { flow_hash(&schema, user, info) } else { 0 };
        let about = About { schema: schema.clone(), user: user.clone(), info: info.clone() };
        let asked = Instant::now();
        let mut woken = Vec::new();
        let mut turn = None;
        let started = level.requests.lock().start(
            self.now(),
            hash,
            work,
            about,
            || {
                let (sender, receiver) = oneshot::channel();
                turn = Some(receiver);
                sender
            },
            &mut woken,
        );
        wake(woken);
        let id = match (started, turn) {
            (Start::Executing(id), _) => Ok(id),
            (Start::Rejected(Rejection::ConcurrencyLimit), _) => Err("concurrency-limit"),
            (Start::Rejected(Rejection::QueueFull), _) => Err("queue-full"),
            (Start::Waiting(id), turn) => {
                let waiting = Waiting { control: self.clone(), level: level.clone(), id: Some(id) };
                if let Some(turn) = turn {
                    // when the turn comes in the very moment in which the time is over, it counts
                    let _ = tokio::time::timeout_at(until, turn).await;
                }
                waiting.leave().ok_or("time-out")
            }
        };
        let exempt = level.name == levels::EXEMPT;
        if !exempt {
            schema.metrics.waited(asked.elapsed(), id.is_ok());
        }
        match id {
            Ok(id) => {
                schema.metrics.dispatched();
                let watch = info.verb == "watch";
                Ok(Seat { control: self.clone(), schema, id, began: Instant::now(), watch })
            }
            Err(reason) => {
                schema.metrics.rejected(reason);
                self.reap(level);
                let now = u64::try_from(Utc::now().timestamp()).unwrap_or_default();
                let retry_after = level.retry_after.lock().dropped(now);
                Err(TurnedAway { classified: Classified(schema), retry_after })
            }
        }
    }

    /// Counts a watch that has begun, until what comes back is dropped.
    pub fn register_watch(&self, info: &RequestInfo, query: &Query) -> Registration {
        self.watches.register(info, query)
    }

    /// Takes a request from its queue. Says whether it was still there.
    fn cancel(&self, level: &Arc<Level>, id: Id) -> bool {
        let mut woken = Vec::new();
        let waited = level.requests.lock().cancel(self.now(), id, &mut woken);
        wake(woken);
        waited
    }

    fn finish(self: &Arc<Self>, level: &Arc<Level>, id: Id) {
        let mut woken = Vec::new();
        let kept = level.requests.lock().finish(self.now(), id, &mut woken);
        wake(woken);
        if let Some(kept) = kept {
            let (control, level) = (self.clone(), level.clone());
            let release = move || {
                let mut woken = Vec::new();
                level.requests.lock().release(control.now(), id, &mut woken);
                wake(woken);
            };
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => {
                    runtime.spawn(async move {
                        tokio::time::sleep(kept).await;
                        release();
                    });
                }
                // nothing runs any more that could wait
                Err(_) => release(),
            }
        }
        self.reap(level);
    }

    /// A level that nobody wants goes once it is idle.
    fn reap(&self, level: &Level) {
        if level.quiescing.load(Ordering::Relaxed) && level.requests.lock().is_idle() {
            self.changed.notify_one();
        }
    }

    /// Follows the objects there are. Says which schemas refer to which levels.
    fn digest(&self, levels: &[Object], schemas: &[Object]) -> Vec<Reference> {
        let mut state = self.levels.lock();
        let (schemas, references) = state.digest(self.now(), levels, schemas, &self.schemas.load());
        self.schemas.store(Arc::new(schemas));
        references
    }

    /// Divides the seats anew by what was asked for.
    fn adjust(&self) {
        let mut woken = Vec::new();
        self.levels.lock().adjust(self.now(), &mut woken);
        wake(woken);
    }

    pub fn render_metrics(&self, out: &mut String) {
        metrics::render(&self.levels.lock(), &self.schemas.load(), out);
    }

    /// The table of a debugging endpoint, by its name.
    pub fn dump(&self, name: &str, details: bool) -> Option<String> {
        let levels = self.levels.lock();
        match name {
            "dump_priority_levels" => Some(dump::priority_levels(&levels)),
            "dump_queues" => Some(dump::queues(&levels)),
            "dump_requests" => Some(dump::requests(&levels, self.began_at, details)),
            _ => None,
        }
    }
}

/// What the hand of a flow is dealt by.
fn flow_hash(schema: &Schema, user: &UserInfo, info: &RequestInfo) -> u64 {
    let distinguisher = schema.spec.distinguisher.of(user, info);
    let digest =
        Sha256::new().chain_update(&schema.name).chain_update([0]).chain_update(distinguisher).finalize();
    digest.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
