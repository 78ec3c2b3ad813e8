//! What a Job's status may become. Only what an update changes is judged by rules that came later than stored objects.

use apimachinery::field::{Error, ErrorList};
use apimachinery::{Object, Value};

use super::indexes;
use super::job_spec::is_indexed;
use crate::printers::seconds;
use crate::validation::at::At;
use crate::validation::forms::condition_is_true;

/// A Job's status as the rules look at it.
struct View<'a> {
    spec: &'a Value,
    status: At<'a>,
    complete: bool,
    failed: bool,
    failure_target: bool,
    success: bool,
    suspended: Option<bool>,
}

impl<'a> View<'a> {
    fn new(job: &'a Object) -> Self {
        let conditions = job.get_array(&["status", "conditions"]);
        let has = |kind: &str| condition_is_true(conditions, kind);
        Self {
            spec: job.get(&["spec"]).unwrap_or(&Value::Null),
            status: At::root(job).child("status"),
            complete: has("Complete"),
            failed: has("Failed"),
            failure_target: has("FailureTarget"),
            success: has("SuccessCriteriaMet"),
            suspended: conditions.iter().find(|one| one["type"] == "Suspended").and_then(|one| {
                match one["status"].as_str()? {
                    "True" => Some(true),
                    "False" => Some(false),
                    _ => None,
                }
            }),
        }
    }

    fn finished(&self) -> bool {
        self.complete || self.failed
    }
}

/// Which parts of the status an update moves.
struct Moved<'a>(&'a View<'a>, &'a View<'a>);

impl Moved<'_> {
    fn field(&self, key: &str) -> bool {
        self.0.status.value.get(key) != self.1.status.value.get(key)
    }

    fn state(&self, read: impl Fn(&View<'_>) -> bool) -> bool {
        read(self.0) != read(self.1)
    }
}

pub fn validate_update(job: &Object, old: &Object) -> ErrorList {
    let (new, old) = (View::new(job), View::new(old));
    let moved = Moved(&new, &old);
    let mut errors = counters(&new.status);
    conditions(&new, &moved, &mut errors);
    finished(&new, &moved, &mut errors);
    index_sets(&new, &moved, &mut errors);
    let (ready, active) = (new.status.child("ready"), new.status.number("active").unwrap_or_default());
    if (moved.field("ready") || moved.field("active")) && ready.int().is_some_and(|ready| ready > active) {
        errors.push(ready.invalid("cannot set more ready pods than active"));
    }
    success(&new, &mut errors);
    transitions(&new, &old, &moved, &mut errors);
    errors
}

fn counters(status: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    for key in ["active", "succeeded", "failed", "ready", "terminating"] {
        errors.extend(status.child(key).non_negative());
    }
    let uncounted = status.child("uncountedTerminatedPods");
    let mut seen: Vec<&str> = Vec::new();
    for uid in ["succeeded", "failed"].iter().flat_map(|key| uncounted.each(key)) {
        if uid.str().is_empty() {
            errors.push(uid.invalid("must not be empty"));
        } else if seen.contains(&uid.str()) {
            errors.push(uid.duplicate());
        } else {
            seen.push(uid.str());
        }
    }
    errors
}

fn conditions(new: &View<'_>, moved: &Moved<'_>, errors: &mut ErrorList) {
    let conditions = new.status.child("conditions");
    let (complete, failed) = (moved.state(|v| v.complete), moved.state(|v| v.failed));
    let mut refuse = |wrong: bool, why: &str| {
        if wrong {
            errors.push(conditions.invalid_unseen(why));
        }
    };
    refuse(
        (complete || failed) && new.complete && new.failed,
        "cannot set Complete=True and Failed=true conditions",
    );
    refuse(
        (complete || moved.state(|v| v.failure_target)) && new.complete && new.failure_target,
        "cannot set Complete=True and FailureTarget=true conditions",
    );
    let time = new.status.child("completionTime");
    let started = new.status.child("startTime");
    if complete || moved.field("completionTime") {
        if time.is_set() && !new.complete {
            errors.push(time.invalid("cannot set completionTime when there is no Complete=True condition"));
        }
        if !time.is_set() && new.complete {
            errors.push(time.required("completionTime is required for Complete jobs"));
        }
    }
    if moved.field("startTime") || moved.field("completionTime") {
        let early = match (seconds(started.str()), seconds(time.str())) {
            (Some(start), Some(end)) => end < start,
            _ => false,
        };
        if early {
            errors.push(time.invalid("must be equal to or after `startTime`"));
        }
    }
    let mut refuse = |wrong: bool, why: &str| {
        if wrong {
            errors.push(conditions.invalid_unseen(why));
        }
    };
    refuse(
        (failed || moved.field("failedIndexes")) && new.failed && !new.failure_target,
        "cannot set Failed=True condition without the FailureTarget=true condition",
    );
    refuse(
        (complete || moved.state(|v| v.success)) && new.complete && !new.success,
        "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
    );
}

fn finished(new: &View<'_>, moved: &Moved<'_>, errors: &mut ErrorList) {
    if !new.finished() {
        return;
    }
    let ended = moved.state(|view| view.finished());
    let active = new.status.child("active");
    if (ended || moved.field("active")) && active.int().unwrap_or_default() > 0 {
        errors.push(active.invalid("active>0 is invalid for finished job"));
    }
    let started = new.status.child("startTime");
    let never_runs = new.spec["suspend"] == true && new.spec["completions"] == 0;
    if (ended || moved.field("startTime")) && !never_runs && !started.is_set() {
        errors.push(started.required("startTime is required for finished job"));
    }
    let uncounted = new.status.child("uncountedTerminatedPods");
    let left = uncounted.child("failed").len() + uncounted.child("succeeded").len();
    if (ended || moved.field("uncountedTerminatedPods")) && left > 0 {
        errors.push(uncounted.invalid("must be empty for finished job"));
    }
}

fn index_sets(new: &View<'_>, moved: &Moved<'_>, errors: &mut ErrorList) {
    let (completed, failed) = (new.status.child("completedIndexes"), new.status.child("failedIndexes"));
    let (completed_moved, failed_moved) = (moved.field("completedIndexes"), moved.field("failedIndexes"));
    let completions = new.spec["completions"].as_i64();
    let per_index = new.spec.get("backoffLimitPerIndex").is_some();
    let mut parse = |at: &At<'_>, name: &str| {
        if let Some(Err(why)) = completions.map(|wanted| indexes::count(at.str(), wanted)) {
            errors.push(at.invalid(format!("error parsing {name}: {why}")));
        }
    };
    if completed_moved {
        parse(&completed, "completedIndexes");
    }
    if failed_moved && per_index && failed.is_set() {
        parse(&failed, "failedIndexes");
    }
    if completed_moved && !completed.is_empty() && !is_indexed(new.spec) {
        let why = "cannot set non-empty completedIndexes when non-indexed completion mode";
        errors.push(completed.invalid(why));
    }
    if failed_moved && !per_index && failed.is_set() {
        errors.push(failed.invalid("cannot set non-null failedIndexes when backoffLimitPerIndex is null"));
    }
    if (failed_moved || completed_moved)
        && failed.is_set()
        && let Some(wanted) = completions
        && let Some(index) = indexes::overlap(completed.str(), failed.str(), wanted)
    {
        let why = format!("failedIndexes and completedIndexes overlap at index: {index}");
        errors.push(failed.invalid(why));
    }
    let terminating = new.status.child("terminating");
    let ended = moved.state(|view| view.finished()) || moved.field("terminating");
    if ended && new.finished() && terminating.int().unwrap_or_default() > 0 {
        errors.push(terminating.invalid("terminating>0 is invalid for finished job"));
    }
}

fn success(new: &View<'_>, errors: &mut ErrorList) {
    let conditions = new.status.child("conditions");
    let has_policy = new.spec.get("successPolicy").is_some();
    for (wrong, why) in [
        (new.success && new.failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
        (
            new.success && new.failure_target,
            "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
        ),
        (
            has_policy && !new.success && new.complete,
            "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
        ),
    ] {
        if wrong {
            errors.push(conditions.invalid_unseen(why));
        }
    }
}

fn transitions(new: &View<'_>, old: &View<'_>, moved: &Moved<'_>, errors: &mut ErrorList) {
    let conditions = new.status.child("conditions");
    for (before, now, kind) in [
        (old.failed, new.failed, "Failed"),
        (old.complete, new.complete, "Complete"),
        (old.failure_target, new.failure_target, "FailureTarget"),
    ] {
        if before && !now {
            let why = format!("cannot disable the terminal {kind}=True condition");
            errors.push(conditions.invalid_unseen(why));
        }
    }
    // an indexed Job whose completions follow its parallelism may shrink
    let shrinks = is_indexed(new.spec) && new.spec.get("completions") == new.spec.get("parallelism");
    for (key, may_shrink) in [("failed", false), ("succeeded", shrinks)] {
        let now = new.status.number(key).unwrap_or_default();
        if !may_shrink && now < old.status.number(key).unwrap_or_default() {
            let at = new.status.child(key);
            errors.push(Error::invalid(&at.path, now, format!("cannot decrease the {key} counter")));
        }
    }
    let (time, before) = (new.status.child("completionTime"), old.status.child("completionTime"));
    if time.is_set() && before.is_set() && time.value != before.value {
        errors.push(time.invalid("field is immutable"));
    }
    let started = new.status.child("startTime");
    // a Job that goes on after it was suspended starts anew
    let resumes = old.suspended == Some(true) && new.suspended == Some(false);
    if moved.field("startTime") && !resumes && old.status.has("startTime") && new.spec["suspend"] != true {
        errors.push(started.required("startTime cannot be removed for unsuspended job"));
    }
    if old.success && !new.success {
        errors.push(conditions.invalid_unseen("cannot disable the SuccessCriteriaMet=True condition"));
    }
    if old.complete && !old.success && new.success {
        let why = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        errors.push(conditions.invalid_unseen(why));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::forms::check;

    fn job(status: Value) -> Object {
        Object::from(json!({
            "spec": {"completions": 3, "parallelism": 1, "completionMode": "Indexed"}, "status": status,
        }))
    }

    #[test]
    fn statuses() {
        let done = |kinds: &[&str]| {
            let all: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
            Value::Array(all)
        };
        let running = json!({"active": 1, "startTime": "2024-01-01T00:00:00Z", "failed": 1});
        let cases: Vec<(Value, Value, Vec<&str>)> = vec![
            (
                running.clone(),
                json!({
                    "startTime": "2024-01-01T00:00:00Z", "completionTime": "2024-01-01T00:01:00Z", "failed": 1,
                    "conditions": done(&["SuccessCriteriaMet", "Complete"]), "succeeded": 3,
                    "completedIndexes": "0-2",
                }),
                vec![],
            ),
            (
                running.clone(),
                json!({"conditions": done(&["Complete", "Failed"]), "active": 1}),
                vec![
                    "status.conditions: Invalid value: cannot set Complete=True and Failed=true conditions",
                    "status.completionTime: Required value: completionTime is required for Complete jobs",
                    "status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition",
                    "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
                    "status.active: Invalid value: 1: active>0 is invalid for finished job",
                    "status.startTime: Required value: startTime is required for finished job",
                    "status.failed: Invalid value: 0: cannot decrease the failed counter",
                    "status.startTime: Required value: startTime cannot be removed for unsuspended job",
                ],
            ),
            (
                json!({}),
                json!({"active": 1, "ready": 2, "completedIndexes": "9", "failedIndexes": "1"}),
                vec![
                    "status.completedIndexes: Invalid value: \"9\": error parsing completedIndexes: too large index: \"9\"",
                    "status.failedIndexes: Invalid value: \"1\": cannot set non-null failedIndexes when backoffLimitPerIndex is null",
                    "status.ready: Invalid value: 2: cannot set more ready pods than active",
                ],
            ),
            (
                json!({"conditions": done(&["Failed", "FailureTarget"])}),
                json!({"uncountedTerminatedPods": {"succeeded": ["a"], "failed": ["a", ""]}}),
                vec![
                    "status.uncountedTerminatedPods.failed[0]: Duplicate value: \"a\"",
                    "status.uncountedTerminatedPods.failed[1]: Invalid value: \"\": must not be empty",
                    "status.conditions: Invalid value: cannot disable the terminal Failed=True condition",
                    "status.conditions: Invalid value: cannot disable the terminal FailureTarget=True condition",
                ],
            ),
            (
                json!({"startTime": "2024-01-01T00:00:00Z", "conditions": [{"type": "Suspended", "status": "True"}]}),
                json!({"startTime": "2024-01-02T00:00:00Z", "conditions": [{"type": "Suspended", "status": "False"}]}),
                vec![],
            ),
            (
                json!({"startTime": "2024-01-01T00:00:00Z", "conditions": [{"type": "Suspended", "status": "False"}]}),
                json!({"startTime": "2024-01-02T00:00:00Z", "conditions": [{"type": "Suspended", "status": "False"}]}),
                vec!["status.startTime: Required value: startTime cannot be removed for unsuspended job"],
            ),
        ];
        for (old, new, expected) in cases {
            check(validate_update(&job(new), &job(old)), &expected);
        }
    }
}
