//! Follows flow schemas and priority levels: a change is in force at once, the seats are divided anew every ten
//! seconds, and each schema's status says whether its level exists.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, Reason, Status};
use rand::Rng;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::FlowControl;
use super::levels::Reference;
use crate::cache::{Cache, Change};
use crate::context::{Context, WriteOptions};
use crate::kinds::Kind;
use crate::registry::Part;
use crate::server::Server;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const LEVELS: &str = "prioritylevelconfigurations";
const SCHEMAS: &str = "flowschemas";

/// How often the seats are divided anew.
const ADJUSTMENT: Duration = Duration::from_secs(10);

/// As whom the status is written.
const FIELD_MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";

const DANGLING: &str = "Dangling";

/// So many times a minute the status of a schema is written, lest servers that disagree fight for ever.
const WRITES: usize = 6;
const MINUTE: Duration = Duration::from_secs(60);

/// Wakes the task whenever an object changes.
pub fn follow(control: &Arc<FlowControl>, cache: &Cache) {
    let control = control.clone();
    cache.observe(Box::new(move |resource, _: &Change| {
        if resource.group == GROUP {
            control.changed.notify_one();
        }
    }));
}

/// Keeps up with the configuration until the server stops.
pub async fn run(server: Arc<Server>, control: Arc<FlowControl>) {
    let mut writes = Writes::default();
    let mut adjust = tokio::time::interval(ADJUSTMENT);
    adjust.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut again = None;
    loop {
        tokio::select! {
            () = server.stopping.cancelled() => return,
            () = control.changed.notified() => {}
            _ = adjust.tick() => {
                control.adjust();
                if again.is_none_or(|again| Instant::now() < again) {
                    continue;
                }
            }
        }
        let references = control.digest(&objects(&server, LEVELS), &objects(&server, SCHEMAS));
        again = write_statuses(&server, references, &mut writes).await;
    }
}

fn kind<'a>(server: &'a Server, plural: &str) -> Option<&'a Arc<Kind>> {
    server.registry.kind(GROUP, "v1", plural)
}

fn objects(server: &Server, plural: &str) -> Vec<Object> {
    let cache = kind(server, plural).and_then(|kind| server.registry.cache.resource(kind));
    let Some(cache) = cache else { return Vec::new() };
    let read = |entry: &Arc<crate::cache::Entry>| match entry.object() {
        Ok(object) => Some(object),
        Err(error) => {
            tracing::error!(key = %entry.key(), %error, "a stored object cannot be read");
            None
        }
    };
    cache.snapshot().iter().filter_map(read).collect()
}

/// When the status of which schema was written.
#[derive(Default)]
struct Writes(HashMap<String, VecDeque<Instant>>);

impl Writes {
    /// Whether one more is not too many; if so, it counts.
    fn take(&mut self, schema: &str, now: Instant) -> bool {
        let of_schema = self.0.entry(schema.to_owned()).or_default();
        while of_schema.front().is_some_and(|write| now.duration_since(*write) > MINUTE) {
            of_schema.pop_front();
        }
        if of_schema.len() >= WRITES {
            return false;
        }
        of_schema.push_back(now);
        true
    }
}

/// Writes what is wrong in schemas' statuses; says when to try again what could not be written.
async fn write_statuses(server: &Server, references: Vec<Reference>, writes: &mut Writes) -> Option<Instant> {
    let kind = kind(server, SCHEMAS)?;
    let mut again = None;
    writes.0.retain(|schema, _| references.iter().any(|reference| reference.schema == *schema));
    for reference in references {
        let Some(schema) = server.registry.peek(kind, "", &reference.schema) else { continue };
        let now = chrono::Utc::now();
        let ctx = Context { user_agent: FIELD_MANAGER.into(), ..Context::internal() };
        if with_condition(&schema, &reference, now).is_none() {
            continue;
        }
        if !writes.take(&reference.schema, Instant::now()) {
            let seconds = rand::rng().random_range(30..75);
            again = Some(Instant::now() + Duration::from_secs(seconds));
            continue;
        }
        let transform = |old: Option<&Object>| {
            let old = old.cloned().unwrap_or_default();
            Ok(with_condition(&old, &reference, now).unwrap_or(old))
        };
        let options = WriteOptions::default();
        let name = &reference.schema;
        let written = server.registry.update(&ctx, kind, "", name, Part::Status, &transform, false, options);
        if let Err(status) = written.await
            && !status.is(Reason::NotFound)
        {
            warn(name, &status);
            again = Some(Instant::now() + ADJUSTMENT);
        }
    }
    again
}

fn warn(schema: &str, status: &Status) {
    tracing::warn!(schema, %status, "the status of a flow schema could not be written");
}

/// The schema with the condition that it should have; `None` if it has it.
fn with_condition(
    schema: &Object,
    reference: &Reference,
    now: chrono::DateTime<chrono::Utc>,
) -> Option<Object> {
    let level = &reference.level;
    let named = "This FlowSchema references the PriorityLevelConfiguration object named";
    let (status, reason, message) = match reference.dangling {
        true => ("True", "NotFound", format!("{named} {level:?} but there is no such object")),
        false => ("False", "Found", format!("{named} {level:?} and it exists")),
    };
    let wanted = [("status", status), ("reason", reason), ("message", &message)];
    let mut conditions = schema.get_array(&["status", "conditions"]).to_vec();
    let found = conditions.iter().position(|condition| condition["type"] == DANGLING);
    if found.is_some_and(|at| wanted.iter().all(|(key, value)| conditions[at][key] == *value)) {
        return None;
    }
    let since = now.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let condition: Value = json!({
        "type": DANGLING, "status": status, "lastTransitionTime": since, "reason": reason, "message": message,
    });
    match found {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
    let mut out = schema.clone();
    out.set(&["status", "conditions"], conditions);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_written_so_often_and_no_more() {
        let mut writes = Writes::default();
        let now = Instant::now();
        for number in 0..9 {
            assert_eq!(writes.take("s", now), number < WRITES, "{number}");
        }
        assert!(writes.take("t", now));
        assert!(writes.take("s", now + MINUTE + Duration::from_secs(1)));
    }

    #[test]
    fn conditions_say_whether_the_level_exists() {
        let reference = |dangling| Reference { schema: "s".into(), level: "l".into(), dangling };
        let now = chrono::DateTime::UNIX_EPOCH;
        let fresh = Object::from(json!({"metadata": {"name": "s"}}));
        let found = with_condition(&fresh, &reference(false), now).unwrap();
        assert_eq!(
            found.get_array(&["status", "conditions"]),
            [json!({
                "type": "Dangling", "status": "False", "lastTransitionTime": "1970-01-01T00:00:00Z",
                "reason": "Found",
                "message": "This FlowSchema references the PriorityLevelConfiguration object named \"l\" and it exists",
            })]
        );
        assert_eq!(with_condition(&found, &reference(false), chrono::Utc::now()), None);
        let lost = with_condition(&found, &reference(true), now).unwrap();
        let condition = &lost.get_array(&["status", "conditions"])[0];
        assert_eq!(
            (condition["status"].as_str(), condition["reason"].as_str()),
            (Some("True"), Some("NotFound"))
        );
    }
}
