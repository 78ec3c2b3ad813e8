//! `events.k8s.io/v1`: another view of the events of the core group, over the same store.

use crate::catalogue::{Resource, Selectable, StoredAs};
use crate::core::event;

const GROUP: Resource = Resource::in_group("events.k8s.io", "v1", "k8s.io.api.events.v1");

pub const RESOURCES: &[Resource] = &[Resource {
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    prefix: "events",
    stored_as: Some(StoredAs {
        group: "",
        version: "v1",
        kind: "Event",
        to_stored: event::from_events_v1,
        from_stored: event::to_events_v1,
    }),
    selectable: SELECTABLE,
    columns: event::COLUMNS,
    strategy: &event::NewEvents,
    ..GROUP
}];

macro_rules! regarding {
    ($($name:literal => $key:literal),* $(,)?) => {
        &[
            $(Selectable { name: $name, read: |o| o.get_str(&["involvedObject", $key]).to_owned() },)*
            Selectable { name: "reason", read: |o| o.get_str(&["reason"]).to_owned() },
            Selectable {
                name: "reportingController",
                read: |o| o.get_str(&["reportingComponent"]).to_owned(),
            },
            Selectable { name: "type", read: |o| o.get_str(&["type"]).to_owned() },
        ]
    };
}

const SELECTABLE: &[Selectable] = regarding! {
    "regarding.kind" => "kind",
    "regarding.namespace" => "namespace",
    "regarding.name" => "name",
    "regarding.uid" => "uid",
    "regarding.apiVersion" => "apiVersion",
    "regarding.resourceVersion" => "resourceVersion",
    "regarding.fieldPath" => "fieldPath",
};
