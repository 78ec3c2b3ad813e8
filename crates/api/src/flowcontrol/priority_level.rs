//! Priority levels: how many requests run at once, and what becomes of the others.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Object, Value};
use serde_json::json;

use super::bootstrap;
use super::flow_schema::{PACKAGE, conditions};
use crate::catalogue::Column;
use crate::core::defaults::{child, set};
use crate::printers::{AGE, NAME, column};
use crate::strategy::{
    Strategy, bump_generation, keep_all_metadata, keep_spec, keep_status, reset_metadata_too,
    reset_status_for_create,
};
use crate::validation::at::At;
use crate::validation::internal;

/// What an old version kept a share of nothing by; no level carries it.
const KEEPS_ZERO: &str = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares";
const QUEUING: [&str; 4] = ["spec", "limited", "limitResponse", "queuing"];

fn queuing(level: &Object, key: &str) -> Value {
    level.get(&QUEUING).map_or(json!("<none>"), |queuing| json!(queuing[key].as_i64().unwrap_or_default()))
}

pub const COLUMNS: &[Column] = &[
    NAME,
    column("Type", "string", "Whether the level is limited.", |l, _| json!(l.get_str(&["spec", "type"]))),
    column("NominalConcurrencyShares", "string", "Its share of the seats.", |l, _| {
        match l.get(&["spec", "limited"]) {
            Some(limited) => json!(limited["nominalConcurrencyShares"].as_i64().unwrap_or_default()),
            None => json!("<none>"),
        }
    }),
    column("Queues", "string", "How many queues it has.", |l, _| queuing(l, "queues")),
    column("HandSize", "string", "Among how many queues a flow chooses.", |l, _| queuing(l, "handSize")),
    column("QueueLengthLimit", "string", "How long a queue gets.", |l, _| queuing(l, "queueLengthLimit")),
    AGE,
];

const MAX_QUEUES: i64 = 10_000_000;
const MAX_HASH_BITS: i64 = 60;

pub struct PriorityLevels;

impl Strategy for PriorityLevels {
    fn default(&self, level: &mut Object) {
        let Some(spec) = level.as_map_mut().get_mut("spec").and_then(Value::as_object_mut) else { return };
        if let Some(exempt) = child(spec, "exempt") {
            set(exempt, "nominalConcurrencyShares", 0);
            set(exempt, "lendablePercent", 0);
        }
        let Some(limited) = child(spec, "limited") else { return };
        set(limited, "nominalConcurrencyShares", 30);
        set(limited, "lendablePercent", 0);
        if let Some(queuing) = child(limited, "limitResponse").and_then(|response| child(response, "queuing"))
        {
            for (key, value) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
                if queuing.get(key).and_then(Value::as_i64).unwrap_or_default() == 0 {
                    queuing.insert(key.into(), json!(value));
                }
            }
        }
    }

    fn prepare_for_create(&self, level: &mut Object) {
        reset_status_for_create(level);
        level.set_generation(1);
    }

    fn prepare_for_update(&self, level: &mut Object, old: &Object) {
        keep_status(level, old);
        bump_generation(level, old);
    }

    fn validate(&self, level: &Object) -> ErrorList {
        let root = At::root(level);
        let spec = root.child("spec");
        let mut errors = validate(level.name(), &spec);
        if level.annotation(KEEPS_ZERO).is_some() {
            let at = Path::new("metadata").child("annotations");
            errors.push(Error::forbidden(&at, format!("annotation '{KEEPS_ZERO}' is forbidden")));
        }
        errors.extend(mandatory(level.name(), &spec));
        errors.extend(conditions(&root.child("status").child("conditions")));
        errors
    }

    fn prepare_for_status_update(&self, level: &mut Object, old: &Object) {
        keep_spec(level, old);
        keep_all_metadata(level, old);
    }

    fn validate_status_update(&self, level: &Object, _old: &Object) -> ErrorList {
        conditions(&At::root(level).child("status").child("conditions"))
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        reset_metadata_too(subresource)
    }
}

/// Mandatory levels are as they are, but for what `exempt` lends.
fn mandatory(name: &str, spec: &At<'_>) -> ErrorList {
    let Some(mut fixed) = bootstrap::fixed_spec(bootstrap::mandatory_levels(), name) else {
        return ErrorList::new();
    };
    let mut is = spec.value.clone();
    let shown = internal::of(PACKAGE, "PriorityLevelConfigurationSpec", spec.value).line();
    if name != "exempt" {
        let why = format!("spec of '{name}' must equal the fixed value");
        return if is == fixed { ErrorList::new() } else { vec![spec.invalid(why).showing(shown)] };
    }
    for spec in [&mut is, &mut fixed] {
        spec.as_object_mut().map(|map| map.remove("exempt"));
    }
    let why = format!("spec of '{name}' except the 'spec.exempt' field must equal the fixed value");
    if is == fixed { ErrorList::new() } else { vec![spec.invalid(why).showing(shown)] }
}

fn validate(name: &str, spec: &At<'_>) -> ErrorList {
    let kind = spec.child("type");
    let (exempt, limited) = (spec.child("exempt"), spec.child("limited"));
    let mut errors = ErrorList::new();
    if (name == "exempt") != (kind.str() == "Exempt") {
        let why = "must be 'Exempt' if and only if `name` is 'exempt'";
        errors.push(Error::invalid(&kind.path, kind.str(), why));
    }
    match kind.str() {
        "Exempt" => {
            if limited.is_set() {
                errors.push(limited.forbidden("must be nil if the type is not Limited"));
            }
            if exempt.is_set() {
                errors.extend(shares(&exempt));
                errors.extend(lendable(&exempt));
            }
        }
        "Limited" => {
            if exempt.is_set() {
                errors.push(exempt.forbidden("must be nil if the type is Limited"));
            }
            if limited.is_set() {
                errors.extend(self::limited(&limited));
            } else {
                errors.push(limited.required("must not be empty when type is Limited"));
            }
        }
        other => errors.push(Error::not_supported(&kind.path, other, &["Exempt", "Limited"])),
    }
    errors
}

fn shares(level: &At<'_>) -> ErrorList {
    let shares = level.child("nominalConcurrencyShares");
    if shares.int().is_some_and(|shares| shares < 0) {
        return vec![shares.invalid("must be a non-negative integer")];
    }
    ErrorList::new()
}

fn lendable(level: &At<'_>) -> ErrorList {
    let percent = level.child("lendablePercent");
    if percent.int().is_some_and(|percent| !(0..=100).contains(&percent)) {
        return vec![percent.invalid("must be between 0 and 100, inclusive")];
    }
    ErrorList::new()
}

fn limited(limited: &At<'_>) -> ErrorList {
    let mut errors = shares(limited);
    let response = limited.child("limitResponse");
    let (kind, queuing) = (response.child("type"), response.child("queuing"));
    match kind.str() {
        "Reject" => {
            if queuing.is_set() {
                errors.push(queuing.forbidden("must be nil if limited.limitResponse.type is not Limited"));
            }
        }
        "Queue" if !queuing.is_set() => {
            errors.push(queuing.required("must not be empty if limited.limitResponse.type is Limited"));
        }
        "Queue" => errors.extend(self::queues(&queuing)),
        other => errors.push(Error::not_supported(&kind.path, other, &["Queue", "Reject"])),
    }
    errors.extend(lendable(limited));
    let borrowing = limited.child("borrowingLimitPercent");
    if borrowing.int().is_some_and(|percent| percent < 0) {
        errors.push(borrowing.invalid("if specified, must be a non-negative integer"));
    }
    errors
}

fn queues(queuing: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let number = |key: &str| queuing.number(key).unwrap_or_default();
    let mut refuse = |key: &str, why: String| {
        errors.push(Error::invalid(&queuing.path.child(key), number(key), why));
    };
    let (queues, hand) = (number("queues"), number("handSize"));
    if number("queueLengthLimit") <= 0 {
        refuse("queueLengthLimit", "must be positive".into());
    }
    if queues <= 0 {
        refuse("queues", "must be positive".into());
    } else if queues > MAX_QUEUES {
        refuse("queues", format!("must not be greater than {MAX_QUEUES}"));
    }
    if hand <= 0 {
        refuse("handSize", "must be positive".into());
    } else if hand > queues {
        refuse("handSize", format!("should not be greater than queues ({queues})"));
    } else if entropy_bits(queues, hand) > MAX_HASH_BITS {
        refuse(
            "handSize",
            format!(
                "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {MAX_HASH_BITS}"
            ),
        );
    }
    errors
}

/// How many bits of a hash dealing a hand takes.
fn entropy_bits(deck: i64, hand: i64) -> i64 {
    ((deck as f64).log2() * hand as f64).ceil() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::forms::check;

    #[test]
    fn what_is_wrong_with_a_level() {
        let limited = |limited: Value| json!({"type": "Limited", "limited": limited});
        let cases: Vec<(Value, Vec<&str>)> = vec![
            (limited(json!({"limitResponse": {"type": "Queue", "queuing": {}}})), vec![]),
            (
                json!({"type": "Odd"}),
                vec!["spec.type: Unsupported value: \"Odd\": supported values: \"Exempt\", \"Limited\""],
            ),
            (
                json!({"type": "Limited", "exempt": {}}),
                vec![
                    "spec.exempt: Forbidden: must be nil if the type is Limited",
                    "spec.limited: Required value: must not be empty when type is Limited",
                ],
            ),
            (
                limited(
                    json!({"nominalConcurrencyShares": -1, "lendablePercent": 101, "borrowingLimitPercent": -1,
                    "limitResponse": {"type": "Queue", "queuing": {"queues": 1000, "handSize": 20, "queueLengthLimit": -1}}}),
                ),
                vec![
                    "spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer",
                    "spec.limited.limitResponse.queuing.queueLengthLimit: Invalid value: -1: must be positive",
                    "spec.limited.limitResponse.queuing.handSize: Invalid value: 20: required entropy bits of deckSize 1000 and handSize 20 should not be greater than 60",
                    "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
                    "spec.limited.borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer",
                ],
            ),
        ];
        for (spec, expected) in cases {
            let mut level = Object::from(json!({"metadata": {"name": "l"}, "spec": spec}));
            PriorityLevels.default(&mut level);
            check(PriorityLevels.validate(&level), &expected);
        }
        let mut level = Object::from(json!({"metadata": {"name": "l"}, "spec": {"type": "Exempt"}}));
        level.set(&["metadata", "annotations", KEEPS_ZERO], "");
        level.set(&["status", "conditions"], json!([{}]));
        check(
            PriorityLevels.validate(&level),
            &[
                "spec.type: Invalid value: \"Exempt\": must be 'Exempt' if and only if `name` is 'exempt'",
                "metadata.annotations: Forbidden: annotation 'flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares' is forbidden",
                "status.conditions[0].type: Required value",
            ],
        );
    }

    #[test]
    fn mandatory_levels_stay_but_for_what_exempt_lends() {
        let mut exempt = bootstrap::mandatory_levels().remove(0);
        exempt.set(&["spec", "exempt", "lendablePercent"], 50);
        check(PriorityLevels.validate(&exempt), &[]);
        let mut rest = bootstrap::mandatory_levels().remove(1);
        rest.set(&["spec", "limited", "nominalConcurrencyShares"], 7);
        assert_eq!(
            PriorityLevels.validate(&rest)[0].detail,
            "spec of 'catch-all' must equal the fixed value"
        );
    }
}
