//! EventRateLimit: how many events the server, a namespace, a user, or a source about an object may write.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, Instant};

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Object, Status};
use parking_lot::Mutex;
use serde::Deserialize;

use super::{Attributes, Operation};
use crate::authentication::UserInfo;

const DEFAULT_CACHE: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitType {
    Server,
    Namespace,
    User,
    SourceAndObject,
}

impl LimitType {
    const NAMES: [&'static str; 4] = ["Namespace", "Server", "SourceAndObject", "User"];

    fn parse(name: &str) -> Option<Self> {
        match name {
            "Server" => Some(Self::Server),
            "Namespace" => Some(Self::Namespace),
            "User" => Some(Self::User),
            "SourceAndObject" => Some(Self::SourceAndObject),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Server => "Server",
            Self::Namespace => "Namespace",
            Self::User => "User",
            Self::SourceAndObject => "SourceAndObject",
        }
    }
}

/// A limit as a configuration has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Limit {
    r#type: String,
    qps: i32,
    burst: i32,
    #[serde(default)]
    cache_size: i32,
}

/// What is wrong with limits; without any, too.
pub fn validate_limits(limits: &[Limit]) -> ErrorList {
    let path = Path::new("limits");
    let mut errors = ErrorList::new();
    if limits.is_empty() {
        errors.push(Error::invalid(&path, "null", "must not be empty"));
    }
    for (index, limit) in limits.iter().enumerate() {
        let path = path.index(index);
        if LimitType::parse(&limit.r#type).is_none() {
            errors.push(Error::not_supported(&path.child("type"), limit.r#type.as_str(), &LimitType::NAMES));
        }
        for (key, number) in [("burst", limit.burst), ("qps", limit.qps)] {
            if number <= 0 {
                errors.push(Error::invalid(&path.child(key), number, "must be positive"));
            }
        }
        if limit.r#type != "Server" && limit.cache_size < 0 {
            errors.push(Error::invalid(&path.child("cacheSize"), limit.cache_size, "must not be negative"));
        }
    }
    errors
}

/// The limits at work.
pub struct EventRateLimit(Vec<Enforcer>);

struct Enforcer {
    r#type: LimitType,
    qps: f64,
    burst: f64,
    most: usize,
    /// What is left for each key, and since when. Locked for one event at a time.
    buckets: Mutex<HashMap<String, Bucket>>,
}

#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl EventRateLimit {
    pub fn new(limits: &[Limit]) -> Self {
        let enforcer = |limit: &Limit| {
            let cache = usize::try_from(limit.cache_size).unwrap_or_default();
            Some(Enforcer {
                r#type: LimitType::parse(&limit.r#type)?,
                qps: f64::from(limit.qps),
                burst: f64::from(limit.burst),
                most: if cache == 0 { DEFAULT_CACHE } else { cache },
                buckets: Mutex::default(),
            })
        };
        Self(limits.iter().filter_map(enforcer).collect())
    }

    /// Refuses an event that is one too many. Every limit takes note of it, whatever the others say.
    pub fn validate(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Result<(), Status> {
        if !attributes.is("events", "") || attributes.operation == Operation::Delete || attributes.dry_run {
            return Ok(());
        }
        let now = Instant::now();
        let mut outcome = Ok(());
        for enforcer in &self.0 {
            let key = key(enforcer.r#type, user, &attributes.namespace, attributes.object.as_ref());
            if !enforcer.accepts(&key, now) {
                let what = format!("limit reached on type {} for key {key}", enforcer.r#type.name());
                outcome = Err(Status::too_many_requests(format!("Too many requests: {what}"), 0));
            }
        }
        outcome
    }
}

impl Enforcer {
    fn accepts(&self, key: &str, now: Instant) -> bool {
        let mut buckets = self.buckets.lock();
        if buckets.len() >= self.most && !buckets.contains_key(key) {
            self.make_room(&mut buckets, now);
        }
        let mut bucket = match buckets.entry(key.to_owned()) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) => entry.insert_entry(Bucket { tokens: self.burst, at: now }),
        };
        let Bucket { tokens, at } = *bucket.get();
        let tokens = (tokens + now.saturating_duration_since(at).as_secs_f64() * self.qps).min(self.burst);
        let accepted = tokens >= 1.0;
        bucket.insert(Bucket { tokens: if accepted { tokens - 1.0 } else { tokens }, at: now });
        accepted
    }

    /// Forgets those that are full again, which is the same as never seen, else the one that was not used longest.
    fn make_room(&self, buckets: &mut HashMap<String, Bucket>, now: Instant) {
        let refill = Duration::try_from_secs_f64(self.burst / self.qps).unwrap_or(Duration::MAX);
        buckets.retain(|_, bucket| now.saturating_duration_since(bucket.at) < refill);
        while buckets.len() >= self.most {
            let oldest = buckets.iter().min_by_key(|(_, bucket)| bucket.at).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { return };
            buckets.remove(&oldest);
        }
    }
}

fn key(r#type: LimitType, user: &UserInfo, namespace: &str, event: Option<&Object>) -> String {
    match r#type {
        LimitType::Server => String::new(),
        LimitType::Namespace => namespace.to_owned(),
        LimitType::User => user.name.clone(),
        LimitType::SourceAndObject => {
            let text = |path: [&str; 2]| event.map(|event| event.get_str(&path)).unwrap_or_default();
            let source = ["component", "host"].map(|field| text(["source", field]));
            let about = ["kind", "namespace", "name", "uid", "apiVersion"];
            let about = about.map(|field| text(["involvedObject", field]));
            source.into_iter().chain(about).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn limits(value: serde_json::Value) -> Vec<Limit> {
        serde_json::from_value(value).expect("limits")
    }

    #[test]
    fn limits_are_checked() {
        let said =
            |value| validate_limits(&limits(value)).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(said(json!([{"type": "Server", "qps": 1, "burst": 1}])), [""; 0]);
        assert_eq!(said(json!([])).len(), 1);
        assert_eq!(
            said(json!([{"type": "Other", "qps": 0, "burst": -1, "cacheSize": -1}])),
            [
                "limits[0].type: Unsupported value: \"Other\": supported values: \"Namespace\", \"Server\", \"SourceAndObject\", \"User\"",
                "limits[0].burst: Invalid value: -1: must be positive",
                "limits[0].qps: Invalid value: 0: must be positive",
                "limits[0].cacheSize: Invalid value: -1: must not be negative",
            ]
        );
    }

    #[test]
    fn each_key_has_its_own_tokens_and_gets_new_ones() {
        let set = EventRateLimit::new(&limits(json!([{"type": "User", "qps": 2, "burst": 3}])));
        let enforcer = &set.0[0];
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        for (key, millis, accepted) in [
            ("a", 0, true),
            ("a", 0, true),
            ("a", 0, true),
            ("a", 0, false),
            ("b", 0, true),
            ("a", 400, false),
            ("a", 500, true),
            ("a", 501, false),
            ("a", 60_000, true),
        ] {
            assert_eq!(enforcer.accepts(key, at(millis)), accepted, "{key} {millis}");
        }
    }

    #[test]
    fn no_more_keys_are_kept_than_there_is_room_for() {
        let limit = json!([{"type": "Namespace", "qps": 1, "burst": 1, "cacheSize": 2}]);
        let set = EventRateLimit::new(&limits(limit));
        let start = Instant::now();
        for number in 0..10 {
            assert!(set.0[0].accepts(&format!("n{number}"), start + Duration::from_millis(number)));
        }
        assert_eq!(set.0[0].buckets.lock().len(), 2);
        assert!(!set.0[0].accepts("n9", start + Duration::from_millis(11)));
    }

    #[test]
    fn keys_say_whom_a_limit_is_for() {
        let event = Object::from(json!({"source": {"component": "c", "host": "h"}, "involvedObject": {
            "kind": "Pod", "namespace": "n", "name": "p", "uid": "u", "apiVersion": "v1"}}));
        let user = UserInfo::new("jane", &[]);
        for (r#type, wanted) in [
            (LimitType::Server, ""),
            (LimitType::Namespace, "ns"),
            (LimitType::User, "jane"),
            (LimitType::SourceAndObject, "chPodnpuv1"),
        ] {
            assert_eq!(key(r#type, &user, "ns", Some(&event)), wanted);
        }
    }
}
