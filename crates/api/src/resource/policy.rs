//! How much of a device's capacity a claim may ask for.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::quantity::Quantity;
use apimachinery::{Value, field};

use super::forms::set_of;
use crate::validation::at::At;

const MAX_VALUES: usize = 10;

/// A capacity and the policy of asking for it, which only a device that is shared has.
pub fn validate(capacity: &At<'_>, shared: bool) -> ErrorList {
    let policy = capacity.child("requestPolicy");
    if !policy.is_set() {
        return ErrorList::new();
    }
    if !shared {
        return vec![policy.forbidden("allowMultipleAllocations must be true")];
    }
    let (values, range) = (policy.child("validValues"), policy.child("validRange"));
    let default = amount(&policy.child("default"));
    let missing = |why: &str| vec![policy.child("default").required(why)];
    let all = amount(&capacity.child("value"))
        .unwrap_or(Quantity::new(0, apimachinery::quantity::Format::DecimalSI));
    match (values.is_empty(), range.is_set()) {
        (false, true) => vec![policy.forbidden(
            r#"exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time"#,
        )],
        (false, false) => default.map_or_else(
            || missing("required when validValues is defined"),
            |default| of_values(&values, default, all),
        ),
        (true, true) => default.map_or_else(
            || missing("required when validRange is defined"),
            |default| of_range(&range, default, all),
        ),
        (true, false) => ErrorList::new(),
    }
}

fn amount(at: &At<'_>) -> Option<Quantity> {
    Quantity::parse(at.str()).ok()
}

fn wrong(path: &Path, amount: Quantity, why: impl Into<String>) -> field::Error {
    Error::invalid(path, amount.to_string(), why)
}

fn of_values(values: &At<'_>, default: Quantity, all: Quantity) -> ErrorList {
    let amounts: Vec<Quantity> = values.items().filter_map(|item| amount(&item)).collect();
    let mut errors = ErrorList::new();
    for (index, pair) in amounts.windows(2).enumerate() {
        if pair[0] > pair[1] {
            let path = values.path.index(index + 1);
            errors.push(wrong(&path, pair[1], "values must be sorted in ascending order"));
        }
    }
    let key = |item: &Value| {
        let whole = Quantity::parse(item.as_str().unwrap_or_default()).map(|amount| amount.value());
        Value::from(whole.unwrap_or_default().to_string())
    };
    errors.extend(set_of(values, MAX_VALUES, key, |item| match amount(item) {
        Some(option) if option > all => {
            vec![wrong(&item.path, option, format!("option is larger than capacity value: {all}"))]
        }
        _ => ErrorList::new(),
    }));
    if values.len() > MAX_VALUES || !amounts.contains(&default) {
        errors.push(wrong(
            &values.path,
            default,
            "default value is not valid according to the requestPolicy",
        ));
    }
    errors
}

fn of_range(range: &At<'_>, default: Quantity, all: Quantity) -> ErrorList {
    let [min_at, max_at, step_at, default_at] =
        ["min", "max", "step", "default"].map(|key| range.path.child(key));
    let Some(min) = amount(&range.child("min")) else {
        return vec![Error::required(&min_at, "required when validRange is defined")];
    };
    let (max, step) = (amount(&range.child("max")), amount(&range.child("step")));
    let mut errors = ErrorList::new();
    if min > all {
        errors.push(wrong(&min_at, min, format!("min is larger than capacity value: {all}")));
    }
    if default < min {
        errors.push(wrong(&default_at, default, format!("default is less than min: {min}")));
    }
    if let Some(max) = max {
        if min > max {
            errors.push(wrong(&max_at, min, format!("min is larger than max: {max}")));
        }
        if max > all {
            errors.push(wrong(&max_at, max, format!("max is larger than capacity value: {all}")));
        }
        if default > max {
            errors.push(wrong(&default_at, default, format!("default is more than max: {max}")));
        }
    }
    let Some(step) = step else { return errors };
    if step.signum() <= 0 {
        errors.push(wrong(&step_at, step, "must be greater than zero"));
        return errors;
    }
    let added = min + step;
    if added > all {
        errors.push(wrong(&step_at, step, format!("one step {added} is larger than capacity value: {all}")));
    }
    let (by, from) = (i128::from(step.value()), i128::from(min.value()));
    for value in [Some(default), max].into_iter().flatten() {
        if by == 0 || (i128::from(value.value()) - from) % by != 0 {
            let why = format!("value is not a multiple of a given step ({step}) from ({min})");
            errors.push(wrong(&step_at, value, why));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::forms::check;

    #[test]
    fn policies() {
        let cases: Vec<(Value, Vec<&str>)> = vec![
            (json!({}), vec![]),
            (json!({"default": "2", "validValues": ["1", "2"]}), vec![]),
            (json!({"default": "2", "validRange": {"min": "0", "step": "2", "max": "8"}}), vec![]),
            (
                json!({"validValues": ["1"]}),
                vec!["c.requestPolicy.default: Required value: required when validValues is defined"],
            ),
            (
                json!({"default": "3", "validValues": ["2", "1", "20"]}),
                vec![
                    "c.requestPolicy.validValues[1]: Invalid value: \"1\": values must be sorted in ascending order",
                    "c.requestPolicy.validValues[2]: Invalid value: \"20\": option is larger than capacity value: 10",
                    "c.requestPolicy.validValues: Invalid value: \"3\": default value is not valid according to the requestPolicy",
                ],
            ),
            (
                json!({"default": "3", "validRange": {"min": "4", "max": "20", "step": "3"}}),
                vec![
                    "c.requestPolicy.validRange.default: Invalid value: \"3\": default is less than min: 4",
                    "c.requestPolicy.validRange.max: Invalid value: \"20\": max is larger than capacity value: 10",
                    "c.requestPolicy.validRange.step: Invalid value: \"3\": value is not a multiple of a given step (3) from (4)",
                    "c.requestPolicy.validRange.step: Invalid value: \"20\": value is not a multiple of a given step (3) from (4)",
                ],
            ),
        ];
        for (policy, expected) in cases {
            let capacity = json!({"value": "10", "requestPolicy": policy});
            check(validate(&At::new(&capacity, Path::new("c")), true), &expected);
        }
    }
}
