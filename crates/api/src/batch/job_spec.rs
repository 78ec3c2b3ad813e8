//! What is wrong with the spec of a Job, alone or in a CronJob's template.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path, quote};

use super::indexes;
use super::job::PACKAGE;
use crate::apps::template;
use crate::validation::at::At;
use crate::validation::internal;

const MAX_PARALLELISM_INDEXED: i64 = 100_000;
const MAX_FAILED_INDEXES: i64 = 100_000;
const COMPLETIONS_SOFT_LIMIT: i64 = 100_000;
const PARALLELISM_HIGH_COMPLETIONS: i64 = 10_000;
const MAX_FAILED_INDEXES_HIGH_COMPLETIONS: i64 = 10_000;
const MAX_FAILURE_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;
const MAX_CONDITION_PATTERNS: usize = 20;
const MAX_MANAGED_BY: usize = 63;
const MAX_SUCCESS_RULES: usize = 20;
const MAX_SUCCEEDED_INDEXES: usize = 64 * 1024;

const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: [&str; 2] = ["In", "NotIn"];
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];

pub fn is_indexed(spec: &Value) -> bool {
    spec["completionMode"] == "Indexed"
}

/// All rules but those of the selector, which a CronJob's template does not have.
pub fn validate(spec: &At<'_>, old: Option<&At<'_>>) -> ErrorList {
    let mut errors = ErrorList::new();
    for key in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        errors.extend(spec.child(key).non_negative());
    }
    let per_index = spec.child("backoffLimitPerIndex");
    if spec.has("maxFailedIndexes") && !per_index.is_set() {
        errors.push(per_index.required("when maxFailedIndexes is specified"));
    }
    let managed_by = spec.child("managedBy");
    if managed_by.is_set() {
        errors.extend(managed_by.domain_prefixed_path());
        if managed_by.len() > MAX_MANAGED_BY {
            errors.push(managed_by.too_long(MAX_MANAGED_BY));
        }
    }
    errors.extend(completion_mode(spec));
    let failure = spec.child("podFailurePolicy");
    if failure.is_set() {
        errors.extend(failure_policy(spec, &failure));
    }
    let success = spec.child("successPolicy");
    if success.is_set() {
        if is_indexed(spec.value) {
            errors.extend(success_policy(spec, &success));
        } else {
            let shown = internal::of(PACKAGE, "SuccessPolicy", success.value).line();
            errors.push(success.invalid("requires indexed completion mode").showing(shown));
        }
    }
    let replacement = spec.child("podReplacementPolicy");
    let valid: &[&str] = if failure.is_set() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    errors.extend(replacement.supported(valid));
    let template = spec.child("template");
    errors.extend(template::pods(&template, old.map(|old| old.child("template")).as_ref()));
    errors.extend(restart_policy(&template.child("spec").child("restartPolicy"), failure.is_set()));
    errors
}

fn completion_mode(spec: &At<'_>) -> ErrorList {
    let mode = spec.child("completionMode");
    let mut errors = mode.supported(&["NonIndexed", "Indexed"]);
    let (completions, parallelism) = (spec.child("completions"), spec.child("parallelism"));
    let (per_index, failed) = (spec.child("backoffLimitPerIndex"), spec.child("maxFailedIndexes"));
    let over = |at: &At<'_>, limit: i64| at.int().is_some_and(|number| number > limit);
    if mode.str() == "Indexed" {
        if !completions.is_set() {
            errors.push(completions.required("when completion mode is Indexed"));
        }
        if over(&parallelism, MAX_PARALLELISM_INDEXED) {
            errors.push(parallelism.invalid(format!(
                "must be less than or equal to {MAX_PARALLELISM_INDEXED} when completion mode is Indexed"
            )));
        }
        if completions.int().is_some_and(|wanted| over(&failed, wanted)) {
            errors.push(failed.invalid("must be less than or equal to completions"));
        }
        if over(&failed, MAX_FAILED_INDEXES) {
            errors.push(failed.invalid(format!("must be less than or equal to {MAX_FAILED_INDEXES}")));
        }
        if over(&completions, COMPLETIONS_SOFT_LIMIT) && per_index.is_set() {
            if !failed.is_set() {
                let why = format!("must be specified when completions is above {COMPLETIONS_SOFT_LIMIT}");
                errors.push(failed.required(why));
            }
            let high = |limit: i64| {
                format!(
                    "must be less than or equal to {limit} when completions are above {COMPLETIONS_SOFT_LIMIT} \
                     and used with backoff limit per index"
                )
            };
            if over(&parallelism, PARALLELISM_HIGH_COMPLETIONS) {
                errors.push(parallelism.invalid(high(PARALLELISM_HIGH_COMPLETIONS)));
            }
            if over(&failed, MAX_FAILED_INDEXES_HIGH_COMPLETIONS) {
                errors.push(failed.invalid(high(MAX_FAILED_INDEXES_HIGH_COMPLETIONS)));
            }
        }
    }
    if matches!(mode.str(), "" | "NonIndexed") {
        for at in [per_index, failed].iter().filter(|at| at.is_set()) {
            errors.push(at.invalid("requires indexed completion mode"));
        }
    }
    errors
}

/// `[%q]` of a list of words.
fn quoted(words: &[&str]) -> String {
    let all: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("valid values: [{}]", all.join(" "))
}

fn choice(at: &At<'_>, valid: &[&str]) -> ErrorList {
    match at.str() {
        "" => vec![at.required(quoted(valid))],
        text if valid.contains(&text) => ErrorList::new(),
        _ => vec![at.not_supported(valid)],
    }
}

fn failure_policy(spec: &At<'_>, policy: &At<'_>) -> ErrorList {
    let rules = policy.child("rules");
    let mut errors = ErrorList::new();
    if rules.len() > MAX_FAILURE_RULES {
        errors.push(rules.too_many(MAX_FAILURE_RULES));
    }
    let pod = spec.child("template").child("spec");
    let names: Vec<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|key| pod.each(key))
        .map(|container| container.text("name"))
        .collect();
    for rule in rules.items() {
        let action = rule.child("action");
        if action.str() == "FailIndex" {
            if !spec.has("backoffLimitPerIndex") {
                errors.push(action.invalid("requires the backoffLimitPerIndex to be set"));
            }
        } else {
            errors.extend(choice(&action, &ACTIONS));
        }
        let (codes, conditions) = (rule.child("onExitCodes"), rule.child("onPodConditions"));
        if codes.is_set() {
            errors.extend(exit_codes(&codes, &names));
        }
        errors.extend(pod_conditions(&conditions));
        match (codes.is_set(), !conditions.is_empty()) {
            (true, true) => errors.push(
                rule.invalid_unseen("specifying both OnExitCodes and OnPodConditions is not supported"),
            ),
            (false, false) => errors
                .push(rule.invalid_unseen("specifying one of OnExitCodes and OnPodConditions is required")),
            _ => {}
        }
    }
    errors
}

fn pod_conditions(patterns: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    if patterns.len() > MAX_CONDITION_PATTERNS {
        errors.push(patterns.too_many(MAX_CONDITION_PATTERNS));
    }
    for pattern in patterns.items() {
        errors.extend(pattern.child("type").qualified_name());
        errors.extend(choice(&pattern.child("status"), &STATUSES));
    }
    errors
}

fn exit_codes(codes: &At<'_>, containers: &[&str]) -> ErrorList {
    let operator = codes.child("operator");
    let mut errors = choice(&operator, &OPERATORS);
    let container = codes.child("containerName");
    if container.is_set() && !containers.contains(&container.str()) {
        let why = "must be one of the container or initContainer names in the pod template";
        errors.push(container.invalid(why));
    }
    let values = codes.child("values");
    if values.is_empty() {
        errors.push(values.invalid("at least one value is required"));
    } else if values.len() > MAX_EXIT_CODES {
        errors.push(values.too_many(MAX_EXIT_CODES));
    }
    let numbers: Vec<i64> = values.list().iter().filter_map(Value::as_i64).collect();
    for (index, value) in values.items().enumerate() {
        if operator.str() == "In" && value.int() == Some(0) {
            errors.push(value.invalid("must not be 0 for the In operator"));
        }
        if value.int().is_some_and(|number| numbers[..index.min(numbers.len())].contains(&number)) {
            errors.push(value.duplicate());
        }
    }
    if !numbers.is_sorted() {
        errors.push(values.invalid("must be ordered"));
    }
    errors
}

fn success_policy(spec: &At<'_>, policy: &At<'_>) -> ErrorList {
    let rules = policy.child("rules");
    let mut errors = ErrorList::new();
    if rules.is_empty() {
        let why = "at least one rules must be specified when the successPolicy is specified";
        errors.push(rules.required(why));
    }
    if rules.len() > MAX_SUCCESS_RULES {
        errors.push(rules.too_many(MAX_SUCCESS_RULES));
    }
    let completions = spec.number("completions").unwrap_or_default();
    for rule in rules.items() {
        let (wanted, indexes) = (rule.child("succeededCount"), rule.child("succeededIndexes"));
        if !wanted.is_set() && !indexes.is_set() {
            let why = "at least one of succeededCount or succeededIndexes must be specified";
            errors.push(rule.required(why));
        }
        let mut total = 0;
        if indexes.is_set() {
            if indexes.len() > MAX_SUCCEEDED_INDEXES {
                errors.push(indexes.too_long(MAX_SUCCEEDED_INDEXES));
            }
            match indexes::count(indexes.str(), completions) {
                Ok(number) => total = number,
                Err(why) => errors.push(indexes.invalid(format!("error parsing succeededIndexes: {why}"))),
            }
        }
        if let Some(number) = wanted.int() {
            errors.extend(wanted.non_negative());
            if number > completions {
                errors.push(wanted.invalid(format!(
                    "must be less than or equal to {completions} (the number of specified completions)"
                )));
            }
            if indexes.is_set() && number > total {
                errors.push(wanted.invalid(format!(
                    "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
                )));
            }
        }
    }
    errors
}

fn restart_policy(policy: &At<'_>, has_failure_policy: bool) -> ErrorList {
    match policy.str() {
        "" | "Always" => vec![policy.required("valid values: \"OnFailure\", \"Never\"")],
        "Never" => ErrorList::new(),
        "OnFailure" if has_failure_policy => {
            vec![policy.invalid("only \"Never\" is supported when podFailurePolicy is specified")]
        }
        "OnFailure" => ErrorList::new(),
        _ => vec![policy.not_supported(&["OnFailure", "Never"])],
    }
}

/// Rules of the template of a CronJob.
pub fn validate_template(spec: &At<'_>, old: Option<&At<'_>>) -> ErrorList {
    let mut errors = validate(spec, old);
    let selector = spec.child("selector");
    if selector.is_set() {
        errors.push(selector.invalid("`selector` will be auto-generated"));
    }
    let manual = spec.child("manualSelector");
    if manual.flag() {
        errors.push(manual.not_supported(&["nil", "false"]));
    }
    errors
}

/// How many completions there are may move with the parallelism of an indexed Job, and not at all otherwise.
pub fn completions_update(new: &At<'_>, old: &At<'_>) -> ErrorList {
    let (wanted, before) = (new.child("completions"), old.child("completions"));
    if wanted.value == before.value {
        return ErrorList::new();
    }
    if !is_indexed(new.value) {
        return vec![wanted.invalid("field is immutable")];
    }
    if wanted.is_set() && wanted.value != new.child("parallelism").value {
        let why = format!("can only be modified in tandem with {}", Path::new("spec").child("parallelism"));
        return vec![Error::invalid(&wanted.path, wanted.value.clone(), why)];
    }
    ErrorList::new()
}
