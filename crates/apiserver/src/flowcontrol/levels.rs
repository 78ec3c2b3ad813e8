//! The levels and schemas in use, made anew from their objects whenever one changes, and the seats of each level.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use api::flowcontrol::bootstrap::{mandatory_levels, mandatory_schemas};
use apimachinery::Object;
use http::HeaderValue;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::allocation::{self, Demand, Limits, Party, Share};
use super::metrics::FlowMetrics;
use super::queue_set::{QueueSet, Queuing};
use super::retry_after::RetryAfter;
use super::rules::Spec;
use super::shuffle_sharding::Dealer;
use crate::authentication::UserInfo;
use crate::http::request_info::RequestInfo;

pub const EXEMPT: &str = "exempt";
pub const CATCH_ALL: &str = "catch-all";

/// One request may take this part of a level's seats.
const MAX_SEATS_PART: f64 = 0.15;

/// What is kept of a request while it waits or runs.
pub struct About {
    pub schema: Arc<Schema>,
    pub user: Arc<UserInfo>,
    pub info: Arc<RequestInfo>,
}

pub type Requests = QueueSet<About, oneshot::Sender<()>>;

/// A priority level, as long as somebody uses it.
pub struct Level {
    pub name: String,
    /// Locked for as long as it takes to decide about one request.
    pub requests: Mutex<Requests>,
    /// Nobody wants it any more; it goes when it is idle.
    pub quiescing: AtomicBool,
    /// How many seats one request may have; zero is no limit.
    pub max_seats: AtomicU32,
    pub retry_after: Mutex<RetryAfter>,
}

/// A flow schema in use.
pub struct Schema {
    pub name: String,
    pub spec: Spec,
    pub level: Arc<Level>,
    /// The identities that answers name.
    pub uid: HeaderValue,
    pub level_uid: HeaderValue,
    /// Whether its level tells flows apart.
    pub shards: bool,
    pub metrics: FlowMetrics,
}

/// Schemas in the order in which they are tried.
pub struct Schemas(pub Vec<Arc<Schema>>);

impl Schemas {
    /// The first schema that matches; the last resort for what none does.
    pub fn classify(&self, user: &UserInfo, info: &RequestInfo) -> Option<&Arc<Schema>> {
        let found = self.0.iter().find(|schema| schema.spec.matches(user, info));
        found.or_else(|| self.0.iter().find(|schema| schema.name == CATCH_ALL))
    }
}

/// A priority level's object, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelSpec {
    pub uid: String,
    pub share: Share,
    pub queuing: Queuing,
}

impl LevelSpec {
    /// Refuses what validation would, and what would make a level exempt that is not.
    pub fn parse(level: &Object) -> Result<Self, String> {
        let spec = |part: &str| level.get(&["spec", part]);
        let number = |part: &str, key: &str| {
            level.get_i64(&["spec", part, key]).and_then(|number| u32::try_from(number).ok())
        };
        let exempt = level.get_str(&["spec", "type"]) == "Exempt";
        if exempt == spec("limited").is_some() || exempt != spec("exempt").is_some() {
            return Err("broken union structure at the top".into());
        }
        if exempt != (level.name() == EXEMPT) {
            return Err("non-alignment between name and type".into());
        }
        let part = if exempt { "exempt" } else { "limited" };
        let share = Share {
            shares: number(part, "nominalConcurrencyShares").unwrap_or_default(),
            lendable_percent: number(part, "lendablePercent").unwrap_or_default(),
            borrowing_percent: if exempt { None } else { number(part, "borrowingLimitPercent") },
        };
        let response = ["spec", "limited", "limitResponse"];
        let queued = level.get(&[&response[..], &["queuing"]].concat());
        if !exempt && (level.get_str(&[&response[..], &["type"]].concat()) == "Queue") != queued.is_some() {
            return Err("broken union structure for limit response".into());
        }
        let queuing = match queued {
            _ if exempt => Queuing::Exempt,
            None => Queuing::Reject,
            Some(queuing) => {
                let number = |key: &str| {
                    queuing[key].as_u64().and_then(|number| usize::try_from(number).ok()).unwrap_or_default()
                };
                let queues = number("queues");
                let dealer = Dealer::new(queues, number("handSize"))?;
                Queuing::Queue { dealer, queues, length_limit: number("queueLengthLimit") }
            }
        };
        Ok(Self { uid: level.uid().to_owned(), share, queuing })
    }

    /// The most seats of one request, where the level has that many in all.
    fn max_seats(&self, nominal: u32) -> u32 {
        let Queuing::Queue { dealer, .. } = self.queuing else { return 0 };
        let part = (f64::from(nominal) * MAX_SEATS_PART).ceil() as u32;
        part.min(nominal / dealer.hand()).max(1)
    }
}

/// A level with what is decided for it.
pub struct LevelState {
    pub level: Arc<Level>,
    pub spec: LevelSpec,
    pub limits: Limits,
    pub current: u32,
    pub demand: Demand,
    pub target: Option<f64>,
}

/// A schema whose status should say whether its level exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub schema: String,
    pub level: String,
    pub dangling: bool,
}

/// All levels. Owned and updated by the task that follows the configuration, and by nobody else.
pub struct Levels {
    /// How many requests the server answers at once, all in all.
    concurrency: u32,
    pub states: BTreeMap<String, LevelState>,
    nominal_sum: u32,
    pub fair_fraction: f64,
}

impl Levels {
    pub fn new(concurrency: u32) -> Self {
        Self { concurrency, states: BTreeMap::new(), nominal_sum: 0, fair_fraction: 0.0 }
    }

    /// Follows the objects there are. Whatever they say, there is an `exempt` level and a `catch-all`, each with its
    /// schema. Levels that are gone stay until their requests are.
    pub fn digest(
        &mut self,
        now: Duration,
        levels: &[Object],
        schemas: &[Object],
        earlier: &Schemas,
    ) -> (Schemas, Vec<Reference>) {
        let mut specs = BTreeMap::new();
        for level in levels {
            match LevelSpec::parse(level) {
                Ok(spec) => {
                    specs.insert(level.name().to_owned(), spec);
                }
                Err(error) => tracing::warn!(level = level.name(), error, "a priority level is broken"),
            }
        }
        let references: Vec<Reference> = schemas
            .iter()
            .map(|schema| {
                let level = schema.get_str(&["spec", "priorityLevelConfiguration", "name"]);
                Reference {
                    schema: schema.name().to_owned(),
                    level: level.to_owned(),
                    dangling: !specs.contains_key(level),
                }
            })
            .collect();
        for level in mandatory_levels() {
            // one that was there before keeps its requests
            if let Ok(spec) = LevelSpec::parse(&level) {
                specs.entry(level.name().to_owned()).or_insert(spec);
            }
        }
        let mut woken = Vec::new();
        self.states.retain(|name, state| {
            let wanted = specs.contains_key(name);
            state.level.quiescing.store(!wanted, Ordering::Relaxed);
            wanted || !state.level.requests.lock().is_idle()
        });
        for (name, spec) in specs {
            match self.states.get_mut(&name) {
                Some(state) => state.spec = spec,
                None => {
                    let level = Level {
                        name: name.clone(),
                        requests: Mutex::new(QueueSet::new(now, spec.queuing, 0)),
                        quiescing: AtomicBool::new(false),
                        max_seats: AtomicU32::new(0),
                        retry_after: Mutex::default(),
                    };
                    let state = LevelState {
                        level: Arc::new(level),
                        spec,
                        limits: Limits::default(),
                        current: 0,
                        demand: Demand::default(),
                        target: None,
                    };
                    self.states.insert(name, state);
                }
            }
        }
        let shares: Vec<Share> = self.states.values().map(|state| state.spec.share).collect();
        for (state, limits) in self.states.values_mut().zip(allocation::nominal(self.concurrency, &shares)) {
            if state.limits == Limits::default() {
                state.current = limits.initial();
            }
            state.limits = limits;
            state.level.max_seats.store(state.spec.max_seats(limits.nominal), Ordering::Relaxed);
        }
        self.nominal_sum = self.states.values().map(|state| state.limits.nominal).sum();
        self.adjust(now, &mut woken);
        wake(woken);
        (self.schemas(schemas, earlier), references)
    }

    /// The schemas whose level exists, in order.
    fn schemas(&self, objects: &[Object], earlier: &Schemas) -> Schemas {
        let uid = |uid: &str| HeaderValue::from_str(uid).unwrap_or(HeaderValue::from_static(""));
        let mut out: Vec<Arc<Schema>> = Vec::with_capacity(objects.len());
        let mut add = |object: &Object| {
            let spec = Spec::parse(object);
            let Some(state) = self.states.get(&spec.level) else { return };
            // the objects come before what stands in for them
            if out.iter().any(|schema| schema.name == object.name()) {
                return;
            }
            if state.level.quiescing.load(Ordering::Relaxed) {
                return;
            }
            let shards = matches!(state.spec.queuing, Queuing::Queue { queues, .. } if queues > 1);
            let before = earlier
                .0
                .iter()
                .find(|schema| schema.name == object.name() && Arc::ptr_eq(&schema.level, &state.level));
            out.push(Arc::new(Schema {
                name: object.name().to_owned(),
                level: state.level.clone(),
                uid: uid(object.uid()),
                level_uid: uid(&state.spec.uid),
                shards,
                spec,
                metrics: before.map(|schema| schema.metrics.clone()).unwrap_or_default(),
            }));
        };
        objects.iter().for_each(&mut add);
        for mandatory in mandatory_schemas() {
            add(&mandatory);
        }
        out.sort_by(|a, b| (a.spec.precedence, &a.name).cmp(&(b.spec.precedence, &b.name)));
        Schemas(out)
    }

    /// Divides the seats anew by what the levels could have used since the last time.
    pub fn adjust(&mut self, now: Duration, woken: &mut Vec<oneshot::Sender<()>>) {
        let parties: Vec<Party> = self
            .states
            .values_mut()
            .map(|state| {
                state.demand.update(state.level.requests.lock().look_at_demand(now));
                let exempt = state.spec.queuing == Queuing::Exempt;
                Party { exempt, limits: state.limits, demand: state.demand, current: state.current }
            })
            .collect();
        let adjusted = allocation::adjust(self.nominal_sum, &parties);
        self.fair_fraction = adjusted.fair_fraction;
        let results = adjusted.seats.into_iter().zip(adjusted.targets);
        for (state, (seats, target)) in self.states.values_mut().zip(results) {
            state.current = seats;
            state.target = target;
            state.level.requests.lock().configure(now, state.spec.queuing, seats, woken);
        }
    }
}

/// Tells requests that it is their turn. Those that have gone meanwhile have given their seats back.
pub fn wake(woken: Vec<oneshot::Sender<()>>) {
    for request in woken {
        let _ = request.send(());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn level(name: &str, spec: Value) -> Object {
        Object::from(json!({"metadata": {"name": name, "uid": format!("uid-{name}")}, "spec": spec}))
    }

    fn queue(shares: u32, queues: u32) -> Value {
        json!({"type": "Limited", "limited": {
            "nominalConcurrencyShares": shares, "lendablePercent": 0, "limitResponse": {
                "type": "Queue", "queuing": {"queues": queues, "handSize": 1, "queueLengthLimit": 10},
            },
        }})
    }

    fn schema(name: &str, level: &str, precedence: u32) -> Object {
        Object::from(json!({"metadata": {"name": name, "uid": name}, "spec": {
            "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence,
            "rules": [{"subjects": [{"kind": "User", "user": {"name": "jane"}}],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}],
        }}))
    }

    fn names(schemas: &Schemas) -> Vec<&str> {
        schemas.0.iter().map(|schema| schema.name.as_str()).collect()
    }

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn broken_levels_are_as_good_as_none() {
        for (name, spec, works) in [
            ("a", queue(1, 4), true),
            ("a", queue(1, 0), false),
            ("exempt", queue(1, 4), false),
            ("exempt", json!({"type": "Exempt", "exempt": {}}), true),
            ("a", json!({"type": "Exempt", "exempt": {}}), false),
            ("a", json!({"type": "Limited"}), false),
            ("a", json!({"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}), true),
            ("a", json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue"}}}), false),
        ] {
            assert_eq!(LevelSpec::parse(&level(name, spec.clone())).is_ok(), works, "{name} {spec}");
        }
    }

    #[test]
    fn what_must_be_there_is_there() {
        let mut levels = Levels::new(600);
        let (schemas, references) = levels.digest(NOW, &[], &[], &Schemas(Vec::new()));
        assert_eq!(names(&schemas), ["exempt", "catch-all"]);
        assert_eq!(references, []);
        assert_eq!(levels.states[CATCH_ALL].current, 600);
        assert_eq!(levels.states[CATCH_ALL].level.requests.lock().seats_in_use(), 0);
        let (jane, info) = (UserInfo::new("jane", &[]), RequestInfo::default());
        assert_eq!(schemas.classify(&jane, &info).unwrap().name, CATCH_ALL);
    }

    #[test]
    fn schemas_are_in_order_and_dangling_ones_are_left_out() {
        let mut levels = Levels::new(600);
        let objects =
            [schema("b", "l", 500), schema("a", "l", 500), schema("first", "l", 2), schema("d", "gone", 3)];
        let (schemas, references) =
            levels.digest(NOW, &[level("l", queue(30, 64))], &objects, &Schemas(Vec::new()));
        assert_eq!(names(&schemas), ["exempt", "first", "a", "b", "catch-all"]);
        let dangling: Vec<_> = references.iter().map(|it| (it.schema.as_str(), it.dangling)).collect();
        assert_eq!(dangling, [("b", false), ("a", false), ("first", false), ("d", true)]);
        assert_eq!(schemas.0[1].level_uid, "uid-l");
        assert_eq!(levels.states["l"].limits.nominal, 515);
        // 15 percent, but not more than a hand of queues may have
        assert_eq!(levels.states["l"].level.max_seats.load(Ordering::Relaxed), 78);
    }

    #[test]
    fn a_level_that_is_gone_stays_until_its_requests_are() {
        let mut levels = Levels::new(10);
        let (objects, of) = ([level("l", queue(5, 4))], [schema("s", "l", 1)]);
        let (schemas, _) = levels.digest(NOW, &objects, &of, &Schemas(Vec::new()));
        let old = schemas.0.iter().find(|schema| schema.name == "s").unwrap().clone();
        let about = About {
            schema: old.clone(),
            user: Arc::new(UserInfo::new("jane", &[])),
            info: Arc::new(RequestInfo::default()),
        };
        let mut woken = Vec::new();
        let work = super::super::work::WorkEstimate::seats(1);
        let started =
            old.level.requests.lock().start(NOW, 0, work, about, || oneshot::channel().0, &mut woken);
        let super::super::queue_set::Start::Executing(id) = started else { panic!("{started:?}") };
        let (schemas, references) = levels.digest(NOW, &[], &of, &schemas);
        assert_eq!(names(&schemas), ["exempt", "catch-all"]);
        assert!(references[0].dangling && levels.states.contains_key("l"));
        assert_eq!(levels.states["l"].limits.nominal, 5, "it keeps its seats meanwhile");
        // it may come back
        let (schemas, _) = levels.digest(NOW, &objects, &of, &schemas);
        assert_eq!(names(&schemas), ["exempt", "s", "catch-all"]);
        assert!(Arc::ptr_eq(&old.level, &levels.states["l"].level));
        levels.digest(NOW, &[], &of, &schemas);
        old.level.requests.lock().finish(NOW, id, &mut woken);
        levels.digest(NOW, &[], &of, &schemas);
        assert!(!levels.states.contains_key("l"));
        assert_eq!(levels.states[CATCH_ALL].limits.nominal, 10);
    }
}
