//! Resource quotas and limit ranges.

use std::collections::BTreeSet;

use apimachinery::Object;
use apimachinery::field::{Error, ErrorList};
use apimachinery::quantity::{Format, Quantity};

use super::at::At;
use super::resources::{
    allows_overcommit, container_resource_name, is_standard_quota, quantity_value, quota_resource_name,
    resource_name,
};
use super::value::{shown, text};

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
const POD_COMPUTE: [&str; 6] =
    ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

pub fn resource_quota(quota: &Object) -> ErrorList {
    let mut errors = quota_spec(quota);
    errors.extend(quota_status(quota));
    errors
}

pub fn resource_quota_update(new: &Object, old: &Object) -> ErrorList {
    let mut errors = quota_spec(new);
    let spec = At::of(new, &["spec"]);
    let set = |spec: &At<'_>| -> BTreeSet<String> {
        spec.strings("scopes").into_iter().map(str::to_owned).collect()
    };
    if set(&spec) != set(&At::of(old, &["spec"])) {
        errors.push(spec.child("scopes").invalid("field is immutable"));
    }
    errors
}

pub fn resource_quota_status_update(new: &Object) -> ErrorList {
    quota_status(new)
}

fn amounts(amounts: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    for (name, amount) in amounts.entries() {
        errors.extend(quota_resource_name(name, &amount.path));
        errors.extend(quantity_value(name, &amount));
    }
    errors
}

fn quota_status(quota: &Object) -> ErrorList {
    let status = At::of(quota, &["status"]);
    let mut errors = amounts(&status.child("hard"));
    errors.extend(amounts(&status.child("used")));
    errors
}

fn quota_spec(quota: &Object) -> ErrorList {
    let spec = At::of(quota, &["spec"]);
    let mut errors = amounts(&spec.child("hard"));
    let names: Vec<&str> = spec.child("hard").entries().map(|(name, _)| name).collect();
    errors.extend(scopes(&spec.child("scopes"), &names));
    if let Some(selector) = spec.field("scopeSelector") {
        errors.extend(scope_selector(&selector, &names, &spec));
    }
    errors
}

/// Whether what is counted exists within a scope.
fn fits(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => resource == "pods" || POD_COMPUTE.contains(&resource),
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    }
}

fn conflicting(scopes: &[&str]) -> usize {
    [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]]
        .iter()
        .filter(|pair| pair.iter().all(|scope| scopes.contains(scope)))
        .count()
}

fn scopes(scopes: &At<'_>, hard: &[&str]) -> ErrorList {
    let all: Vec<&str> = scopes.items().map(|scope| scope.str()).collect();
    let mut errors = ErrorList::new();
    for scope in &all {
        if !SCOPES.contains(scope) {
            errors.push(scopes.invalid("unsupported scope"));
        }
        let wrong = hard.iter().filter(|name| is_standard_quota(name) && !fits(scope, name));
        errors.extend(wrong.map(|_| scopes.invalid("unsupported scope applied to resource")));
    }
    errors.extend((0..conflicting(&all)).map(|_| scopes.invalid("conflicting scopes")));
    errors
}

/// Errors stand at the list of expressions, never at one of them.
fn scope_selector(selector: &At<'_>, hard: &[&str], spec: &At<'_>) -> ErrorList {
    let expressions = selector.child("matchExpressions");
    let mut errors = ErrorList::new();
    for expression in expressions.items() {
        let expression = At::new(expression.value, expressions.path.clone());
        let (scope, operator) = (expression.child("scopeName"), expression.child("operator"));
        let values = expression.child("values");
        let known = SCOPES.contains(&scope.str());
        if !known {
            errors.push(scope.invalid_text("unsupported scope"));
        }
        for _ in hard.iter().filter(|name| is_standard_quota(name) && !fits(scope.str(), name)) {
            let why = "unsupported scope applied to resource";
            errors.push(At::new(selector.value, expression.path.clone()).invalid(why));
        }
        let plain = known && !matches!(scope.str(), "PriorityClass" | "VolumeAttributesClass");
        if plain && operator.str() != "Exists" {
            let why = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.push(operator.invalid_text(why));
        }
        match operator.str() {
            "In" | "NotIn" if values.is_empty() => {
                let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.push(values.required(why));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.push(values.invalid(why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.push(operator.invalid_text("not a valid selector operator")),
        }
    }
    let named: Vec<&str> = expressions.list().iter().map(|one| text(one, "scopeName")).collect();
    let scopes = At::new(spec.child("scopes").value, expressions.path);
    errors.extend((0..conflicting(&named)).map(|_| scopes.invalid("conflicting scopes")));
    errors
}

pub fn limit_range(range: &Object) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for limit in At::of(range, &["spec", "limits"]).items() {
        let kind = limit.child("type");
        errors.extend(limit_type(&kind));
        if seen.contains(&kind.str()) {
            errors.push(kind.duplicate());
        }
        seen.push(kind.str());
        errors.extend(limit_amounts(&limit, kind.str()));
    }
    errors
}

fn limit_type(kind: &At<'_>) -> ErrorList {
    let errors = kind.qualified_name();
    let known = matches!(kind.str(), "Pod" | "Container" | "PersistentVolumeClaim");
    if errors.is_empty() && !kind.str().contains('/') && !known {
        return vec![kind.invalid("must be a standard limit type or fully qualified")];
    }
    errors
}

fn limit_amounts(limit: &At<'_>, kind: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    let pods = kind == "Pod";
    let rule = if pods || kind == "Container" { container_resource_name } else { resource_name };
    let mut keys: Vec<&str> = Vec::new();
    for part in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        let amounts = limit.child(part);
        if pods && part.starts_with("default") {
            if !amounts.is_empty() {
                errors.push(amounts.forbidden("may not be specified when `type` is 'Pod'"));
            }
            continue;
        }
        if part == "maxLimitRequestRatio" && kind == "PersistentVolumeClaim" {
            let storage = |part: &str| limit.child(part).has("storage");
            if !storage("min") && !storage("max") {
                let why = "either minimum or maximum storage value is required, but neither was provided";
                errors.push(limit.child("limits").required(why));
            }
        }
        for (name, amount) in amounts.entries() {
            errors.extend(rule(name, &amount.path));
            if !keys.contains(&name) {
                keys.push(name);
            }
        }
    }
    keys.sort_unstable();
    for name in keys {
        errors.extend(one_limit(limit, name, pods));
    }
    errors
}

/// Minimum, default and maximum of one resource are in this order, and the ratio leaves room for them.
fn one_limit(limit: &At<'_>, name: &str, pods: bool) -> ErrorList {
    type Amount<'a> = Option<(Quantity, At<'a>)>;
    let of = |part: &str| {
        if pods && part.starts_with("default") {
            return None;
        }
        let (_, amount) = limit.child(part).entries().find(|(key, _)| *key == name)?;
        Some((amount.quantity()?, amount))
    };
    let (min, max) = (of("min"), of("max"));
    let (default, request) = (of("default"), of("defaultRequest"));
    let ratio = of("maxLimitRequestRatio");
    let mut errors = ErrorList::new();
    // the smaller and the greater one, what they are called, where the error stands, and which of the two is shown
    let mut ordered =
        |small: &Amount<'_>, great: &Amount<'_>, names: [&str; 2], at: &Amount<'_>, which: &Amount<'_>| {
            let (Some(small), Some(great)) = (small, great) else { return };
            let (Some(at), Some(which)) = (at, which) else { return };
            if small.0 > great.0 {
                let (small, great) = (shown(small.1.value), shown(great.1.value));
                let why = format!("{} value {small} is greater than {} value {great}", names[0], names[1]);
                errors.push(Error::invalid(&at.1.path, shown(which.1.value), why));
            }
        };
    ordered(&min, &max, ["min", "max"], &min, &min);
    ordered(&min, &request, ["min", "default request"], &request, &request);
    ordered(&request, &max, ["default request", "max"], &request, &request);
    ordered(&request, &default, ["default request", "default limit"], &request, &request);
    ordered(&min, &default, ["min", "default"], &default, &min);
    ordered(&default, &max, ["default", "max"], &default, &max);
    if let Some((amount, at)) = &ratio {
        let shown = shown(at.value);
        if *amount < Quantity::new(1, Format::DecimalSI) {
            errors.push(at.invalid_quantity(format!("ratio {shown} is less than 1")));
        }
        if let (Some(min), Some(max)) = (&min, &max) {
            let most = ratio_of(&max.0, &min.0);
            if amount.as_f64() > most {
                errors
                    .push(at.invalid_quantity(format!("ratio {shown} is greater than max/min = {most:.6}")));
            }
        }
    }
    if let (Some(default), Some(request)) = (&default, &request)
        && !allows_overcommit(name)
        && default.0 != request.0
    {
        let (default, shown) = (shown(default.1.value), shown(request.1.value));
        let why = format!("default value {default} must equal to defaultRequest value {shown} in {name}");
        errors.push(request.1.invalid_quantity(why));
    }
    errors
}

/// The quotient of two amounts, in thousandths where these can be told.
fn ratio_of(max: &Quantity, min: &Quantity) -> f64 {
    const MAX_MILLI: i64 = i64::MAX / 1000;
    let (top, bottom) = match max.value() < MAX_MILLI && min.value() < MAX_MILLI {
        true => (max.milli_value(), min.milli_value()),
        false => (max.value(), min.value()),
    };
    top as f64 / bottom as f64
}
