//! Who was let in and what they were allowed. Every request comes by here: all series are made beforehand, so that
//! counting is no search.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::authorization::{Decision, Verdict};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UserLabels {
    username: &'static str,
}

/// How authentication ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    Success,
    /// Nobody knew the request's credentials, or it had none.
    Failure,
    Error,
}

/// What upstream tells apart of users, to keep their names out.
const USERS: [&str; 7] = [
    "admin",
    "client",
    "kube_proxy",
    "kubelet",
    "system:serviceaccount:kube-system:default",
    "email_id",
    "other",
];

fn user(name: &str) -> usize {
    match USERS[..5].iter().position(|known| *known == name) {
        Some(known) => known,
        None if name.contains('@') => 5,
        None => 6,
    }
}

/// Attempts and how long they took, by how they ended.
struct Attempts<const N: usize> {
    counts: [Counter; N],
    durations: [Histogram; N],
}

impl<const N: usize> Attempts<N> {
    fn register(registry: &mut Registry, names: [&str; 2], what: &str, results: [&'static str; N]) -> Self {
        let counts: Family<ResultLabels, Counter> = Family::default();
        let durations: Family<ResultLabels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 15)));
        registry.register(names[0], format!("{what} attempts by result"), counts.clone());
        registry.register(names[1], format!("{what} duration in seconds by result"), durations.clone());
        Self {
            counts: results.map(|result| counts.get_or_create(&ResultLabels { result }).clone()),
            durations: results.map(|result| durations.get_or_create(&ResultLabels { result }).clone()),
        }
    }

    fn ended(&self, result: usize, took: Duration) {
        self.counts[result].inc();
        self.durations[result].observe(took.as_secs_f64());
    }
}

pub struct AccessMetrics {
    users: [Counter; USERS.len()],
    authentication: Attempts<3>,
    authorization: Attempts<4>,
}

impl AccessMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let users: Family<UserLabels, Counter> = Family::default();
        registry.register(
            "authenticated_user_requests",
            "Authenticated requests by a category of user names",
            users.clone(),
        );
        Self {
            users: USERS.map(|username| users.get_or_create(&UserLabels { username }).clone()),
            authentication: Attempts::register(
                registry,
                ["authentication_attempts", "authentication_duration_seconds"],
                "Authentication",
                ["success", "failure", "error"],
            ),
            authorization: Attempts::register(
                registry,
                ["authorization_attempts", "authorization_duration_seconds"],
                "Authorization",
                ["allowed", "denied", "no-opinion", "error"],
            ),
        }
    }

    /// `name` is that of the user, where there is one.
    pub fn authenticated(&self, outcome: Authentication, name: &str, took: Duration) {
        if outcome == Authentication::Success {
            self.users[user(name)].inc();
        }
        self.authentication.ended(outcome as usize, took);
    }

    pub fn authorized(&self, verdict: &Verdict, took: Duration) {
        let result = match verdict.decision {
            Decision::Allow => 0,
            _ if !verdict.errors.is_empty() => 3,
            Decision::Deny => 1,
            Decision::NoOpinion => 2,
        };
        self.authorization.ended(result, took);
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn names_of_users_become_categories() {
        let cases = [
            ("admin", "admin"),
            ("kubelet", "kubelet"),
            ("system:serviceaccount:kube-system:default", "system:serviceaccount:kube-system:default"),
            ("jane@example.com", "email_id"),
            ("system:node:n1", "other"),
            ("email_id", "other"),
            ("", "other"),
        ];
        for (name, wanted) in cases {
            assert_eq!(USERS[user(name)], wanted, "{name}");
        }
    }

    #[test]
    fn attempts_are_counted_by_how_they_end() {
        let mut registry = Registry::default();
        let metrics = AccessMetrics::register(&mut registry);
        let took = Duration::from_millis(3);
        metrics.authenticated(Authentication::Success, "jane", took);
        metrics.authenticated(Authentication::Failure, "", took);
        let failed = |decision| Verdict { decision, errors: vec!["x".into()], ..Verdict::allow("") };
        metrics.authorized(&Verdict::allow(""), took);
        metrics.authorized(&failed(Decision::Allow), took);
        metrics.authorized(&failed(Decision::NoOpinion), took);
        metrics.authorized(&Verdict::no_opinion(""), took);
        metrics.authorized(&Verdict::deny(""), took);
        let mut text = String::new();
        encode(&mut text, &registry).expect("text");
        for line in [
            "authenticated_user_requests_total{username=\"other\"} 1",
            "authentication_attempts_total{result=\"success\"} 1",
            "authentication_attempts_total{result=\"failure\"} 1",
            "authentication_attempts_total{result=\"error\"} 0",
            "authentication_duration_seconds_bucket{le=\"0.004\",result=\"success\"} 1",
            "authorization_attempts_total{result=\"allowed\"} 2",
            "authorization_attempts_total{result=\"denied\"} 1",
            "authorization_attempts_total{result=\"no-opinion\"} 1",
            "authorization_attempts_total{result=\"error\"} 1",
            "authorization_duration_seconds_count{result=\"allowed\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
