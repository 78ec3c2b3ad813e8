//! CronJobs.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;
use apimachinery::{Object, Value};
use serde_json::json;

use super::{job, job_spec, schedule};
use crate::catalogue::Column;
use crate::core::defaults::{self, child, set};
use crate::core::gates;
use crate::printers::{self, AGE, NAME, bool_or_unset, column, or_none, since, wide};
use crate::strategy::{Strategy, bump_generation, keep_status, reset_status_for_create};
use crate::validation::at::At;

const POD: &[&str] = &["spec", "jobTemplate", "spec", "template", "spec"];
const CONTAINERS: &[&str] = &["spec", "jobTemplate", "spec", "template", "spec", "containers"];

pub const COLUMNS: &[Column] = &[
    NAME,
    column("Schedule", "string", "When jobs are made, as a cron expression.", |c, _| {
        json!(c.get_str(&["spec", "schedule"]))
    }),
    column("Timezone", "string", "The time zone of the schedule.", |c, _| {
        or_none(c.get_str(&["spec", "timeZone"]))
    }),
    column("Suspend", "boolean", "Whether no jobs are made for now.", |c, _| {
        bool_or_unset(c.get(&["spec", "suspend"]))
    }),
    column("Active", "integer", "Jobs that run.", |c, _| json!(c.get_array(&["status", "active"]).len())),
    column("Last Schedule", "string", "Time since a job was made last.", |c, now| {
        match c.get_str(&["status", "lastScheduleTime"]) {
            "" => json!("<none>"),
            time => json!(since(time, now)),
        }
    }),
    AGE,
    wide("Containers", "string", "Names of the containers.", |c, _| {
        json!(printers::join(c.get_array(CONTAINERS), "name"))
    }),
    wide("Images", "string", "Images of the containers.", |c, _| {
        json!(printers::join(c.get_array(CONTAINERS), "image"))
    }),
    wide("Selector", "string", "Which pods belong.", |c, _| {
        json!(printers::selector(c, &["spec", "jobTemplate", "spec", "selector"]))
    }),
];

/// Jobs get a suffix of eleven characters after the name.
const MAX_NAME: usize = 63 - 11;

pub struct CronJobs;

impl Strategy for CronJobs {
    fn default(&self, cron_job: &mut Object) {
        let Some(spec) = cron_job.as_map_mut().get_mut("spec").and_then(Value::as_object_mut) else { return };
        set(spec, "concurrencyPolicy", "Allow");
        set(spec, "suspend", false);
        set(spec, "successfulJobsHistoryLimit", 3);
        set(spec, "failedJobsHistoryLimit", 1);
        if let Some(spec) = child(spec, "jobTemplate").and_then(|template| child(template, "spec")) {
            job::default_failure_policy(spec);
            if let Some(template) = child(spec, "template").and_then(|template| child(template, "spec")) {
                defaults::pod_spec(template);
            }
        }
    }

    fn prepare_for_create(&self, cron_job: &mut Object) {
        reset_status_for_create(cron_job);
        gates::pod_spec_at(cron_job, None, POD);
    }

    fn validate(&self, cron_job: &Object) -> ErrorList {
        let mut errors = validate(&At::root(cron_job).child("spec"), None);
        if cron_job.name().len() > MAX_NAME {
            let path = Path::new("metadata").child("name");
            errors.push(Error::invalid(&path, cron_job.name(), names::max_len_error(MAX_NAME)));
        }
        errors
    }

    fn prepare_for_update(&self, cron_job: &mut Object, old: &Object) {
        keep_status(cron_job, old);
        gates::pod_spec_at(cron_job, Some(old), POD);
        bump_generation(cron_job, old);
    }

    /// Names that are too long by today's rules stay.
    fn validate_update(&self, cron_job: &Object, old: &Object) -> ErrorList {
        validate(&At::root(cron_job).child("spec"), Some(&At::root(old).child("spec")))
    }

    fn warnings_on_create(&self, cron_job: &Object) -> Vec<String> {
        let mut warnings = crate::apps::template::name_warning(cron_job);
        warnings.extend(job_warnings(cron_job));
        warnings.extend(zone_warning(cron_job));
        warnings
    }

    fn warnings_on_update(&self, cron_job: &Object, old: &Object) -> Vec<String> {
        let mut warnings = Vec::new();
        if cron_job.generation() != old.generation() {
            warnings.extend(job_warnings(cron_job));
        }
        warnings.extend(zone_warning(cron_job));
        warnings
    }
}

fn job_warnings(cron_job: &Object) -> Vec<String> {
    super::job::spec_warnings(&At::of(cron_job, &["spec", "jobTemplate", "spec"]))
}

fn zone_warning(cron_job: &Object) -> Vec<String> {
    if !cron_job.get_str(&["spec", "schedule"]).contains("TZ") {
        return Vec::new();
    }
    vec![
        "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see \
         https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
            .into(),
    ]
}

fn validate(spec: &At<'_>, old: Option<&At<'_>>) -> ErrorList {
    let mut errors = ErrorList::new();
    let (schedule, zone) = (spec.child("schedule"), spec.child("timeZone"));
    if schedule.is_empty() {
        errors.push(schedule.required(""));
    } else {
        let was_there = old.is_some_and(|old| old.text("schedule").contains("TZ"));
        errors.extend(schedule_form(&schedule, was_there, zone.is_set()));
    }
    errors.extend(spec.child("startingDeadlineSeconds").non_negative());
    if zone.is_set() && old.is_none_or(|old| old.child("timeZone").value != zone.value) {
        errors.extend(time_zone(&zone));
    }
    errors.extend(spec.child("concurrencyPolicy").one_of(&["Allow", "Forbid", "Replace"]));
    let before = old.map(|old| old.child("jobTemplate").child("spec"));
    errors.extend(job_spec::validate_template(&spec.child("jobTemplate").child("spec"), before.as_ref()));
    errors.extend(spec.child("successfulJobsHistoryLimit").non_negative());
    errors.extend(spec.child("failedJobsHistoryLimit").non_negative());
    errors
}

fn schedule_form(schedule: &At<'_>, zone_was_there: bool, has_zone: bool) -> ErrorList {
    let mut errors: ErrorList =
        schedule::check(schedule.str()).err().map(|why| schedule.invalid(why)).into_iter().collect();
    if schedule.str().contains("TZ") {
        if zone_was_there && has_zone {
            errors.push(schedule.invalid("cannot use both timeZone field and TZ or CRON_TZ in schedule"));
        }
        if !zone_was_there {
            errors.push(schedule.invalid("cannot use TZ or CRON_TZ in schedule, use timeZone field instead"));
        }
    }
    errors
}

fn time_zone(zone: &At<'_>) -> ErrorList {
    let name = zone.str();
    if name.is_empty() {
        return vec![zone.invalid("timeZone must be nil or non-empty string")];
    }
    let fits = |part: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b".-_+".contains(&b);
        !matches!(part, "." | "..")
            && !part.starts_with('-')
            && (1..=14).contains(&part.len())
            && part.bytes().all(inner)
    };
    if !name.split('/').all(fits) {
        return vec![zone.invalid(format!("unknown time zone {name}"))];
    }
    let mut errors = ErrorList::new();
    if name.eq_ignore_ascii_case("local") {
        let why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.push(zone.invalid(why));
    }
    if !schedule::is_time_zone(name) {
        errors.push(zone.invalid(format!("unknown time zone {name}")));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::forms::check;

    fn cron_job(spec: Value) -> Object {
        let mut object = Object::from(json!({"metadata": {"name": "c"}, "spec": {
            "schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": {"spec": {
                "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}],
            }}}},
        }}));
        for (key, value) in spec.as_object().into_iter().flatten() {
            object.set(&["spec", key], value.clone());
        }
        CronJobs.default(&mut object);
        object
    }

    #[test]
    fn what_is_wrong_with_a_cron_job() {
        let cases: Vec<(Value, Vec<&str>)> = vec![
            (json!({}), vec![]),
            (json!({"timeZone": "Europe/Berlin"}), vec![]),
            (json!({"schedule": ""}), vec!["spec.schedule: Required value"]),
            (
                json!({"schedule": "* * *", "timeZone": "Mars/Base"}),
                vec![
                    "spec.schedule: Invalid value: \"* * *\": expected exactly 5 fields, found 3: [* * *]",
                    "spec.timeZone: Invalid value: \"Mars/Base\": unknown time zone Mars/Base",
                ],
            ),
            (
                json!({"schedule": "TZ=UTC 0 * * * *", "timeZone": "local"}),
                vec![
                    "spec.schedule: Invalid value: \"TZ=UTC 0 * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
                    "spec.timeZone: Invalid value: \"local\": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
                    "spec.timeZone: Invalid value: \"local\": unknown time zone local",
                ],
            ),
            (
                json!({"concurrencyPolicy": "Odd", "failedJobsHistoryLimit": -1}),
                vec![
                    "spec.concurrencyPolicy: Unsupported value: \"Odd\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
                    "spec.failedJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
        ];
        for (spec, expected) in cases {
            check(CronJobs.validate(&cron_job(spec)), &expected);
        }
        let mut long = cron_job(json!({}));
        long.set_name(&"a".repeat(53));
        assert_eq!(CronJobs.validate(&long).len(), 1);
        check(CronJobs.validate_update(&long, &long), &[]);
    }

    #[test]
    fn templates_have_no_selector() {
        let mut object = cron_job(json!({}));
        object.set(&["spec", "jobTemplate", "spec", "manualSelector"], true);
        check(
            CronJobs.validate(&object),
            &[
                "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\"",
            ],
        );
    }
}
