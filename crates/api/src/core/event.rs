//! Events: one store behind `v1` and `events.k8s.io/v1`.

use apimachinery::field::ErrorList;
use apimachinery::{Object, Value};
use serde_json::json;

use crate::catalogue::{Column, Now, Selectable};
use crate::printers::{NAME, column, since, wide};
use crate::strategy::{Dependents, Strategy};
use crate::validation;

macro_rules! involved {
    ($($name:literal => $key:literal),* $(,)?) => {
        &[
            $(Selectable { name: $name, read: |o| o.get_str(&["involvedObject", $key]).to_owned() },)*
            Selectable { name: "reason", read: |o| o.get_str(&["reason"]).to_owned() },
            Selectable { name: "reportingComponent", read: |o| o.get_str(&["reportingComponent"]).to_owned() },
            Selectable { name: "source", read: source },
            Selectable { name: "type", read: |o| o.get_str(&["type"]).to_owned() },
        ]
    };
}

pub const SELECTABLE: &[Selectable] = involved! {
    "involvedObject.kind" => "kind",
    "involvedObject.namespace" => "namespace",
    "involvedObject.name" => "name",
    "involvedObject.uid" => "uid",
    "involvedObject.apiVersion" => "apiVersion",
    "involvedObject.resourceVersion" => "resourceVersion",
    "involvedObject.fieldPath" => "fieldPath",
};

fn source(event: &Object) -> String {
    match event.get_str(&["source", "component"]) {
        "" => event.get_str(&["reportingComponent"]).to_owned(),
        component => component.to_owned(),
    }
}

fn seen(event: &Object, path: &[&str], now: &Now) -> String {
    since(event.get_str(path), now)
}

fn last_seen(event: &Object, now: &Now) -> Value {
    let series = event.get_str(&["series", "lastObservedTime"]);
    json!(if !series.is_empty() {
        since(series, now)
    } else if !event.get_str(&["lastTimestamp"]).is_empty() {
        seen(event, &["lastTimestamp"], now)
    } else {
        seen(event, &["eventTime"], now)
    })
}

fn first_seen(event: &Object, now: &Now) -> Value {
    json!(match event.get_str(&["firstTimestamp"]) {
        "" => seen(event, &["eventTime"], now),
        _ => seen(event, &["firstTimestamp"], now),
    })
}

pub const COLUMNS: &[Column] = &[
    column("Last Seen", "string", "When the event was seen last.", last_seen),
    column("Type", "string", "Normal or Warning.", |e, _| json!(e.get_str(&["type"]))),
    column("Reason", "string", "Why, in a word.", |e, _| json!(e.get_str(&["reason"]))),
    column("Object", "string", "What the event is about.", |e, _| {
        let kind = e.get_str(&["involvedObject", "kind"]).to_lowercase();
        let name = e.get_str(&["involvedObject", "name"]);
        json!(if name.is_empty() { kind } else { format!("{kind}/{name}") })
    }),
    wide("Subobject", "string", "The part of the object.", |e, _| {
        json!(e.get_str(&["involvedObject", "fieldPath"]))
    }),
    wide("Source", "string", "Who reported the event.", |e, _| {
        let (component, host) = (source(e), e.get_str(&["source", "host"]));
        json!(if host.is_empty() { component } else { format!("{component}, {host}") })
    }),
    column("Message", "string", "What happened.", |e, _| json!(e.get_str(&["message"]).trim())),
    wide("First Seen", "string", "When the event was seen first.", first_seen),
    wide("Count", "string", "How often.", |e, _| {
        let series = e.get_i64(&["series", "count"]);
        json!(series.or_else(|| e.get_i64(&["count"])).unwrap_or(1).max(1).to_string())
    }),
    Column { priority: 1, ..NAME },
];

pub struct Events;

impl Strategy for Events {
    fn prepare_for_create(&self, _event: &mut Object) {}

    fn prepare_for_update(&self, _event: &mut Object, _old: &Object) {}

    fn validate(&self, event: &Object) -> ErrorList {
        validation::event(event)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn dependents(&self) -> Dependents {
        Dependents::None
    }

    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }
}

/// Events of `events.k8s.io/v1`, which have to say more than those of old.
pub struct NewEvents;

/// The event by the names that both versions' rules are written in.
fn as_core(event: &Object) -> Object {
    let mut event = event.clone();
    from_events_v1(&mut event);
    event
}

impl Strategy for NewEvents {
    fn prepare_for_create(&self, _event: &mut Object) {}

    fn prepare_for_update(&self, _event: &mut Object, _old: &Object) {}

    fn validate(&self, event: &Object) -> ErrorList {
        validation::strict_event(&as_core(event))
    }

    fn validate_update(&self, event: &Object, old: &Object) -> ErrorList {
        validation::strict_event_update(&as_core(event), &as_core(old))
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn dependents(&self) -> Dependents {
        Dependents::None
    }

    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }
}

/// Turns a core event into one of `events.k8s.io/v1`; both share name, metadata and store.
pub fn to_events_v1(event: &mut Object) {
    rename(
        event,
        &[
            ("involvedObject", "regarding"),
            ("message", "note"),
            ("source", "deprecatedSource"),
            ("firstTimestamp", "deprecatedFirstTimestamp"),
            ("lastTimestamp", "deprecatedLastTimestamp"),
            ("count", "deprecatedCount"),
            ("reportingComponent", "reportingController"),
        ],
    );
    event.set(&["apiVersion"], "events.k8s.io/v1");
}

/// The way back of [`to_events_v1`].
pub fn from_events_v1(event: &mut Object) {
    rename(
        event,
        &[
            ("regarding", "involvedObject"),
            ("note", "message"),
            ("deprecatedSource", "source"),
            ("deprecatedFirstTimestamp", "firstTimestamp"),
            ("deprecatedLastTimestamp", "lastTimestamp"),
            ("deprecatedCount", "count"),
            ("reportingController", "reportingComponent"),
        ],
    );
    event.set(&["apiVersion"], "v1");
}

fn rename(event: &mut Object, pairs: &[(&str, &str)]) {
    for (from, to) in pairs {
        if let Some(value) = event.remove(&[from]) {
            event.set(&[to], value);
        }
    }
}
