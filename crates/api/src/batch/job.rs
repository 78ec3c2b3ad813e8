//! Jobs.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::selectors::LabelSelector;
use apimachinery::validation as names;
use apimachinery::{Object, Value};
use serde_json::{Map, json};

use super::{job_spec, job_status};
use crate::apps::template;
use crate::catalogue::{Column, Now};
use crate::core::defaults::{self, child, each, set};
use crate::core::warnings;
use crate::printers::{self, AGE, NAME, column, count, selector, template_containers, wide};
use crate::strategy::{Dependents, Strategy, bump_generation, keep_status, reset_status_for_create};
use crate::validation::at::At;
use crate::validation::forms::{condition_is_true, unchanged};
use crate::validation::internal;

pub const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "string", "How the job is doing.", |job, _| json!(state(job))),
    column("Completions", "string", "Pods that succeeded, of those wanted.", |job, _| {
        json!(completions(job))
    }),
    column("Duration", "string", "How long the job took, or takes so far.", |job, now| {
        json!(duration(job, now))
    }),
    AGE,
    wide("Containers", "string", "Names of the containers.", |job, _| {
        json!(template_containers(job, "name"))
    }),
    wide("Images", "string", "Images of the containers.", |job, _| json!(template_containers(job, "image"))),
    wide("Selector", "string", "Which pods belong.", |job, _| json!(selector(job, &["spec", "selector"]))),
];

fn state(job: &Object) -> &'static str {
    let conditions = job.get_array(&["status", "conditions"]);
    let has = |kind: &str| condition_is_true(conditions, kind);
    if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if job.deletion_timestamp().is_some() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(job: &Object) -> String {
    let succeeded = count(job, &["status", "succeeded"]);
    match (job.get_i64(&["spec", "completions"]), count(job, &["spec", "parallelism"])) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn duration(job: &Object, now: &Now) -> String {
    let at = |key: &str| printers::seconds(job.get_str(&["status", key]));
    match (at("startTime"), at("completionTime")) {
        (None, _) => String::new(),
        (Some(start), end) => printers::human_duration(end.unwrap_or(now.0) - start),
    }
}

pub(super) const PACKAGE: &str = "k8s.io.api.batch.v1";

const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// The labels as they were called at first; pods still carry them.
const LEGACY_CONTROLLER_UID: &str = "controller-uid";
const LEGACY_JOB_NAME: &str = "job-name";

/// Defaults of what a pod failure policy says about conditions.
pub fn default_failure_policy(spec: &mut Map<String, Value>) {
    if let Some(policy) = child(spec, "podFailurePolicy") {
        for rule in each(policy, "rules") {
            for pattern in each(rule, "onPodConditions") {
                set(pattern, "status", "True");
            }
        }
    }
}

pub struct Jobs;

impl Strategy for Jobs {
    fn default(&self, job: &mut Object) {
        let labels = job.get(&["spec", "template", "metadata", "labels"]).cloned();
        if let Some(labels) = labels.filter(|labels| labels.as_object().is_some_and(|map| !map.is_empty()))
            && job.labels().is_none_or(Map::is_empty)
        {
            job.set(&["metadata", "labels"], labels);
        }
        let Some(spec) = job.as_map_mut().get_mut("spec").and_then(Value::as_object_mut) else { return };
        if !spec.contains_key("parallelism") && !spec.contains_key("completions") {
            set(spec, "completions", 1);
        }
        set(spec, "parallelism", 1);
        let limit = if spec.contains_key("backoffLimitPerIndex") { i32::MAX } else { 6 };
        set(spec, "backoffLimit", limit);
        set(spec, "completionMode", "NonIndexed");
        set(spec, "suspend", false);
        set(spec, "manualSelector", false);
        let replacement =
            if spec.contains_key("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
        set(spec, "podReplacementPolicy", replacement);
        default_failure_policy(spec);
        if let Some(template) = child(spec, "template").and_then(|template| child(template, "spec")) {
            defaults::pod_spec(template);
        }
    }

    fn prepare_for_create(&self, job: &mut Object) {
        generate_selector(job);
        reset_status_for_create(job);
        template::drop_gated(job, None);
    }

    fn validate(&self, job: &Object) -> ErrorList {
        validate_job(job, None)
    }

    fn prepare_for_update(&self, job: &mut Object, old: &Object) {
        keep_status(job, old);
        template::drop_gated(job, Some(old));
        bump_generation(job, old);
    }

    fn validate_update(&self, job: &Object, old: &Object) -> ErrorList {
        let (new, before) = (At::root(job).child("spec"), At::root(old).child("spec"));
        let mut errors = validate_job(job, Some(old));
        errors.extend(job_spec::completions_update(&new, &before));
        errors.extend(unchanged(&new.child("selector"), &before.child("selector")));
        errors.extend(template_update(&new.child("template"), &before.child("template"), Freedom::of(old)));
        for (key, name) in [
            ("completionMode", ""),
            ("podFailurePolicy", "PodFailurePolicy"),
            ("backoffLimitPerIndex", ""),
            ("managedBy", ""),
            ("successPolicy", "SuccessPolicy"),
        ] {
            let now = new.child(key);
            let shown = |error: Error| match name {
                "" => error,
                _ if !now.is_set() => error,
                name => error.showing(internal::of(PACKAGE, name, now.value).line()),
            };
            errors.extend(unchanged(&now, &before.child(key)).into_iter().map(shown));
        }
        errors
    }

    fn validate_status_update(&self, job: &Object, old: &Object) -> ErrorList {
        job_status::validate_update(job, old)
    }

    /// As it has always been for Jobs.
    fn dependents(&self) -> Dependents {
        Dependents::Orphaned
    }

    fn warnings_on_create(&self, job: &Object) -> Vec<String> {
        let mut warnings = template::name_warning(job);
        warnings.extend(spec_warnings(&At::of(job, &["spec"])));
        warnings
    }

    fn warnings_on_update(&self, job: &Object, old: &Object) -> Vec<String> {
        if job.generation() == old.generation() { Vec::new() } else { spec_warnings(&At::of(job, &["spec"])) }
    }

    fn warnings_on_delete(&self) -> &'static [&'static str] {
        &["child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to \
           remove them or set propagationPolicy=Orphan to suppress this warning"]
    }
}

/// Warnings about the spec of a Job.
pub fn spec_warnings(spec: &At<'_>) -> Vec<String> {
    let number = |key: &str| spec.number(key).unwrap_or_default();
    let mut warnings = Vec::new();
    if job_spec::is_indexed(spec.value) && number("completions") > 100_000 && number("parallelism") > 10_000 {
        warnings.push(
            "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
             Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
                .into(),
        );
    }
    warnings.extend(warnings::template(&spec.child("template")));
    warnings
}

/// Makes a Job find its pods, and no others, by its uid.
fn generate_selector(job: &mut Object) {
    if job.get_bool(&["spec", "manualSelector"]) {
        return;
    }
    let (name, uid) = (job.name().to_owned(), job.uid().to_owned());
    let labels = ["spec", "template", "metadata", "labels"];
    for (label, value) in
        [(LEGACY_JOB_NAME, &name), (JOB_NAME, &name), (LEGACY_CONTROLLER_UID, &uid), (CONTROLLER_UID, &uid)]
    {
        if job.get(&labels).is_none_or(|labels| labels.get(label).is_none()) {
            job.set(&["spec", "template", "metadata", "labels", label], value.as_str());
        }
    }
    if job.get(&["spec", "selector", "matchLabels", CONTROLLER_UID]).is_none() {
        job.set(&["spec", "selector", "matchLabels", CONTROLLER_UID], uid);
    }
}

/// That nobody else wrote other values into what is generated.
fn generated_selector(job: &Object, with_new_labels: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let Some(selector) = job.get(&["spec", "selector"]) else { return errors };
    if job.get_bool(&["spec", "manualSelector"]) {
        return errors;
    }
    if job.uid().is_empty() {
        errors.push(Error::required(&Path::new("metadata").child("uid"), ""));
    }
    let path = Path::new("spec").child("template").child("metadata").child("labels");
    let all = [
        (LEGACY_CONTROLLER_UID, job.uid()),
        (LEGACY_JOB_NAME, job.name()),
        (CONTROLLER_UID, job.uid()),
        (JOB_NAME, job.name()),
    ];
    let expected = if with_new_labels { &all[..] } else { &all[..2] };
    for (label, value) in expected.iter().copied() {
        let labels = job.get(&["spec", "template", "metadata", "labels"]).unwrap_or(&Value::Null);
        match labels.get(label).and_then(Value::as_str) {
            Some(found) if found == value => {}
            Some(_) => {
                let why = format!("must be '{value}'");
                errors.push(Error::invalid(&path.key(label), labels.clone(), why));
            }
            None => errors.push(Error::required(&path.key(label), format!("must be '{value}'"))),
        }
    }
    let labels: Map<String, Value> =
        expected.iter().map(|(label, value)| ((*label).to_owned(), json!(value))).collect();
    if LabelSelector::from_label_selector(selector).is_ok_and(|parsed| !parsed.matches(&labels)) {
        let at = Path::new("spec").child("selector");
        errors.push(Error::invalid(&at, selector.clone(), "`selector` not auto-generated"));
    }
    errors
}

/// All that may be wrong with a Job by itself. One that had not yet got the labels with a prefix may do without.
fn validate_job(job: &Object, old: Option<&Object>) -> ErrorList {
    let has = |label: &str| {
        old.is_none_or(|old| old.get(&["spec", "template", "metadata", "labels", label]).is_some())
    };
    let mut errors = generated_selector(job, has(JOB_NAME) && has(CONTROLLER_UID));
    let spec = At::of(job, &["spec"]);
    errors.extend(validate(&spec, old.map(|old| At::of(old, &["spec"])).as_ref()));
    let completions = spec.number("completions").unwrap_or_default();
    if job_spec::is_indexed(spec.value) && completions > 0 {
        let host = format!("{}-{}", job.name(), completions - 1);
        if !names::is_dns1123_label(&host).is_empty() {
            let why = format!("will not able to create pod with invalid DNS label: {host}");
            errors.push(Error::invalid(&Path::new("metadata").child("name"), job.name(), why));
        }
    }
    errors
}

fn validate(spec: &At<'_>, old: Option<&At<'_>>) -> ErrorList {
    let mut errors = job_spec::validate(spec, old);
    let selector = spec.child("selector");
    if selector.is_set() {
        errors.extend(selector.label_selector_after(old.map(|old| old.child("selector")).as_ref()));
    } else {
        errors.push(selector.required(""));
    }
    if let Ok(parsed) = LabelSelector::from_label_selector(selector.value) {
        let labels = spec.child("template").child("metadata").child("labels");
        let none = Map::new();
        let found = selector.is_set() && parsed.matches(labels.value.as_object().unwrap_or(&none));
        if !found {
            errors.push(labels.invalid("`selector` does not match template `labels`"));
        }
    }
    errors
}

/// What may still change of the template of a suspended Job.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Freedom {
    None,
    Scheduling,
    SchedulingAndResources,
}

impl Freedom {
    fn of(old: &Object) -> Self {
        if !old.get_bool(&["spec", "suspend"]) {
            return Self::None;
        }
        let stopped = condition_is_true(old.get_array(&["status", "conditions"]), "Suspended")
            && count(old, &["status", "active"]) == 0;
        match (stopped, old.get(&["status", "startTime"]).is_none()) {
            (true, _) => Self::SchedulingAndResources,
            (false, true) => Self::Scheduling,
            (false, false) => Self::None,
        }
    }
}

fn template_update(new: &At<'_>, old: &At<'_>, freedom: Freedom) -> ErrorList {
    let mut allowed = Object::from(old.value.clone());
    let wanted = Object::from(new.value.clone());
    let mut take = |path: &[&str]| match wanted.get(path) {
        Some(value) => allowed.set(path, value.clone()),
        None => {
            allowed.remove(path);
        }
    };
    if freedom != Freedom::None {
        for key in ["nodeSelector", "tolerations", "schedulingGates"] {
            take(&["spec", key]);
        }
        for key in ["annotations", "labels"] {
            take(&["metadata", key]);
        }
        take(&["spec", "affinity", "nodeAffinity"]);
        let empty = allowed.get(&["spec", "affinity"]).and_then(Value::as_object).is_some_and(Map::is_empty);
        if empty && wanted.get(&["spec", "affinity"]).is_none() {
            allowed.remove(&["spec", "affinity"]);
        }
    }
    if freedom == Freedom::SchedulingAndResources {
        for key in ["containers", "initContainers"] {
            take_resources(&mut allowed, &wanted, key);
        }
        let same = allowed.get(&["spec"]) == wanted.get(&["spec"]);
        return if same { ErrorList::new() } else { vec![immutable(&new.child("spec"), "PodSpec")] };
    }
    if allowed == wanted { ErrorList::new() } else { vec![immutable(new, "PodTemplateSpec")] }
}

fn immutable(at: &At<'_>, name: &str) -> Error {
    at.invalid("field is immutable").showing(internal::of(internal::CORE, name, at.value).line())
}

fn take_resources(allowed: &mut Object, wanted: &Object, key: &str) {
    let wanted = wanted.get_array(&["spec", key]);
    let Some(spec) = allowed.as_map_mut().get_mut("spec").and_then(Value::as_object_mut) else { return };
    let Some(containers) = spec.get_mut(key).and_then(Value::as_array_mut) else { return };
    if containers.len() != wanted.len() {
        return;
    }
    for (container, wanted) in containers.iter_mut().zip(wanted) {
        let Some(map) = container.as_object_mut().filter(|map| map.get("name") == wanted.get("name")) else {
            continue;
        };
        match wanted.get("resources") {
            Some(resources) => map.insert("resources".into(), resources.clone()),
            None => map.remove("resources"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::forms::check;

    fn job(spec: Value) -> Object {
        let mut job = Object::from(json!({
            "metadata": {"name": "j", "namespace": "n", "uid": "u"}, "spec": {
                "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}},
            },
        }));
        for (key, value) in spec.as_object().into_iter().flatten() {
            job.set(&["spec", key], value.clone());
        }
        Jobs.default(&mut job);
        Jobs.prepare_for_create(&mut job);
        job
    }

    #[test]
    fn defaults_and_selector() {
        let job = job(json!({}));
        assert_eq!(job.get(&["spec", "selector"]), Some(&json!({"matchLabels": {CONTROLLER_UID: "u"}})));
        assert_eq!(
            job.get(&["spec", "template", "metadata", "labels"]),
            Some(&json!({"controller-uid": "u", "job-name": "j", CONTROLLER_UID: "u", JOB_NAME: "j"}))
        );
        let number = |key: &str| job.get_i64(&["spec", key]);
        assert_eq!(
            (number("completions"), number("parallelism"), number("backoffLimit")),
            (Some(1), Some(1), Some(6))
        );
        check(Jobs.validate(&job), &[]);
    }

    #[test]
    fn warnings() {
        let mut job =
            job(json!({"completionMode": "Indexed", "completions": 100_001, "parallelism": 10_001}));
        job.set(&["spec", "template", "spec", "nodeSelector"], json!({"beta.kubernetes.io/os": "linux"}));
        let expected = [
            "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail",
            "spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
        ];
        assert_eq!(Jobs.warnings_on_create(&job), expected);
        assert_eq!(Jobs.warnings_on_update(&job, &job), Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_with_a_job() {
        let rules = |rule: Value| json!({"podFailurePolicy": {"rules": [rule]}});
        let cases: Vec<(Value, Vec<&str>)> = vec![
            (
                json!({"parallelism": -1}),
                vec!["spec.parallelism: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                json!({"completionMode": "Indexed", "parallelism": 2}),
                vec!["spec.completions: Required value: when completion mode is Indexed"],
            ),
            (
                json!({"backoffLimitPerIndex": 1}),
                vec!["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"],
            ),
            (
                json!({"successPolicy": {"rules": [{"succeededCount": 1}]}}),
                vec![
                    "spec.successPolicy: Invalid value: {\"Rules\":[{\"SucceededIndexes\":null,\"SucceededCount\":1}]}: requires indexed completion mode",
                ],
            ),
            (
                json!({"completionMode": "Indexed", "completions": 3, "successPolicy": {"rules": [
                    {"succeededIndexes": "0-5"}, {}, {"succeededCount": 4},
                ]}}),
                vec![
                    "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"0-5\": error parsing succeededIndexes: too large index: \"5\"",
                    "spec.successPolicy.rules[1]: Required value: at least one of succeededCount or succeededIndexes must be specified",
                    "spec.successPolicy.rules[2].succeededCount: Invalid value: 4: must be less than or equal to 3 (the number of specified completions)",
                ],
            ),
            (
                rules(json!({"action": "Odd"})),
                vec![
                    "spec.podFailurePolicy.rules[0].action: Unsupported value: \"Odd\": supported values: \"Count\", \"FailIndex\", \"FailJob\", \"Ignore\"",
                    "spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
                ],
            ),
            (
                rules(json!({"action": "FailIndex", "onExitCodes": {
                    "operator": "In", "values": [2, 0, 2], "containerName": "x",
                }})),
                vec![
                    "spec.podFailurePolicy.rules[0].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
                    "spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: \"x\": must be one of the container or initContainer names in the pod template",
                    "spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
                    "spec.podFailurePolicy.rules[0].onExitCodes.values[2]: Duplicate value: 2",
                    "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,0,2]: must be ordered",
                ],
            ),
            (
                json!({"podReplacementPolicy": "Odd", "managedBy": "me"}),
                vec![
                    "spec.managedBy: Invalid value: \"me\": must be a domain-prefixed path (such as \"acme.io/foo\")",
                    "spec.podReplacementPolicy: Unsupported value: \"Odd\": supported values: \"Failed\", \"TerminatingOrFailed\"",
                ],
            ),
        ];
        for (spec, expected) in cases {
            check(Jobs.validate(&job(spec)), &expected);
        }
    }

    #[test]
    fn a_restart_policy_is_needed() {
        let mut object = job(json!({}));
        object.set(&["spec", "template", "spec", "restartPolicy"], "Always");
        check(
            Jobs.validate(&object),
            &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""],
        );
    }

    #[test]
    fn a_selector_of_ones_own_needs_a_word() {
        let object = job(json!({"selector": {"matchLabels": {"a": "b"}}}));
        let errors = Jobs.validate(&object);
        assert!(errors.iter().any(|error| error.detail == "`selector` not auto-generated"), "{errors:?}");
    }

    #[test]
    fn generated_labels_stay_while_suspended() {
        let old = job(json!({"suspend": true}));
        let mut new = old.clone();
        new.remove(&["spec", "template", "metadata", "labels", JOB_NAME]);
        check(
            Jobs.validate_update(&new, &old),
            &["spec.template.metadata.labels[batch.kubernetes.io/job-name]: Required value: must be 'j'"],
        );
        // those from before these labels do without
        new.set(&["spec", "selector", "matchLabels"], json!({LEGACY_CONTROLLER_UID: "u"}));
        check(Jobs.validate_update(&new, &new), &[]);
    }

    #[test]
    fn policies_stay_and_are_shown_as_upstream_holds_them() {
        let of = |count: i64| {
            job(
                json!({"completionMode": "Indexed", "completions": 3, "parallelism": 1, "successPolicy": {"rules": [{"succeededCount": count}]}}),
            )
        };
        check(
            Jobs.validate_update(&of(2), &of(1)),
            &[
                "spec.successPolicy: Invalid value: {\"Rules\":[{\"SucceededIndexes\":null,\"SucceededCount\":2}]}: field is immutable",
            ],
        );
    }

    #[test]
    fn templates_move_only_while_suspended() {
        let old = job(json!({"suspend": true}));
        let mut new = old.clone();
        new.set(&["spec", "template", "spec", "nodeSelector"], json!({"a": "b"}));
        new.set(&["spec", "template", "spec", "affinity"], json!({"nodeAffinity": {}}));
        check(Jobs.validate_update(&new, &old), &[]);
        let mut running = old.clone();
        running.set(&["spec", "suspend"], false);
        let errors = Jobs.validate_update(&new, &running);
        assert_eq!(errors.len(), 1);
        let said = errors[0].to_string();
        let labels = "\"batch.kubernetes.io/controller-uid\":\"u\",\"batch.kubernetes.io/job-name\":\"j\",\"controller-uid\":\"u\",\"job-name\":\"j\"";
        let start =
            format!("spec.template: Invalid value: {{\"labels\":{{{labels}}},\"Spec\":{{\"Volumes\":null,");
        assert!(said.starts_with(&start) && said.ends_with("}}: field is immutable"), "{said}");
        let mut stopped = old.clone();
        stopped.set(&["status", "conditions"], json!([{"type": "Suspended", "status": "True"}]));
        let resources = json!([{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}]);
        let mut new = stopped.clone();
        new.set(&["spec", "template", "spec", "containers"], resources);
        Jobs.default(&mut new);
        check(Jobs.validate_update(&new, &stopped), &[]);
    }
}
