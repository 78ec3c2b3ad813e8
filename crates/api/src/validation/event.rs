//! Events. Those that come through `v1` heed the old rules alone; `events.k8s.io/v1` is stricter.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Object, Value};

use super::at::At;
use super::forms::unchanged;

const MAX_WORD: usize = 128;
const MAX_NOTE: usize = 1024;

/// The rules of an event of `v1`.
pub fn event(event: &Object) -> ErrorList {
    lenient(event, "reportingComponent")
}

/// The rules that every event heeds, in the form of `v1`; `reporter` is what the request's version calls the field.
fn lenient(event: &Object, reporter: &str) -> ErrorList {
    let root = At::root(event);
    let mut errors = ErrorList::new();
    let (own, involved) = (event.namespace(), root.child("involvedObject").child("namespace"));
    let is_new = root.says("eventTime");
    let elsewhere = match (is_new, involved.str()) {
        (false, "") => !matches!(own, "" | "default"),
        (false, involved) => own != involved,
        (true, involved) => involved.is_empty() && !matches!(own, "default" | "kube-system"),
    };
    if elsewhere {
        errors.push(involved.invalid_text("does not match event.namespace"));
    }
    if is_new {
        let controller = root.child("reportingComponent");
        let controller = At::new(controller.value, Path::new(reporter));
        errors.extend(controller.must_be_set());
        errors.extend(controller.qualified_name());
        for word in ["reportingInstance", "action", "reason"].map(|key| root.child(key)) {
            errors.extend(word.must_be_set());
            errors.extend(too_long(&word, MAX_WORD));
        }
        errors.extend(too_long(&root.child("message"), MAX_NOTE));
    }
    errors.extend(At::new(&Value::from(own), Path::new("namespace")).subdomain());
    errors
}

fn too_long(text: &At<'_>, max: usize) -> Option<Error> {
    let why = format!("can have at most {max} characters");
    (text.len() > max).then(|| Error::invalid(&text.path, "", why))
}

/// The rules of a new event of `events.k8s.io/v1`, in the form of `v1`.
pub fn strict_event(event: &Object) -> ErrorList {
    let mut errors = lenient(event, "reportingController");
    errors.extend(series(event));
    if event.get_str(&["eventTime"]).is_empty() {
        errors.push(Error::required(&Path::new("eventTime"), ""));
    }
    let kind = event.get_str(&["type"]);
    if !matches!(kind, "Normal" | "Warning") {
        errors.push(Error::invalid(&Path::new("type"), "", format!("has invalid value: {kind}")));
    }
    let source = ["component", "host"].iter().any(|key| !event.get_str(&["source", key]).is_empty());
    for (key, set) in [
        ("firstTimestamp", !event.get_str(&["firstTimestamp"]).is_empty()),
        ("lastTimestamp", !event.get_str(&["lastTimestamp"]).is_empty()),
        ("count", event.get_i64(&["count"]).unwrap_or_default() != 0),
        ("source", source),
    ] {
        if set {
            errors.push(Error::invalid(&Path::new(key), "", "needs to be unset"));
        }
    }
    errors
}

fn series(event: &Object) -> ErrorList {
    let mut errors = ErrorList::new();
    if event.get(&["series"]).is_none_or(Value::is_null) {
        return errors;
    }
    if event.get_i64(&["series", "count"]).unwrap_or_default() < 2 {
        errors.push(Error::invalid(&Path::new("series.count"), "", "should be at least 2"));
    }
    if event.get_str(&["series", "lastObservedTime"]).is_empty() {
        errors.push(Error::required(&Path::new("series.lastObservedTime"), ""));
    }
    errors
}

/// The rules of an update through `events.k8s.io/v1`, both in the form of `v1`: only the series moves.
pub fn strict_event_update(new: &Object, old: &Object) -> ErrorList {
    const FIXED: [(&str, &str); 14] = [
        ("involvedObject", "involvedObject"),
        ("reason", "reason"),
        ("message", "message"),
        ("source", "source"),
        ("firstTimestamp", "firstTimestamp"),
        ("lastTimestamp", "lastTimestamp"),
        ("count", "count"),
        ("reason", "reason"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingComponent", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ];
    let mut errors = lenient(new, "reportingController");
    if new.get(&["series"]) != old.get(&["series"]) {
        errors.extend(series(new));
    }
    for (key, shown) in FIXED {
        let after = At::new(At::of(new, &[key]).value, Path::new(shown));
        errors.extend(unchanged(&after, &At::of(old, &[key])));
    }
    errors
}
