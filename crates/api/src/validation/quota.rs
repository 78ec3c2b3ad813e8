//! Resource quotas and limit ranges.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::quantity::{Format, Quantity};
use apimachinery::validation as names;
use apimachinery::{Object, Value};

use super::resources::{
    allows_overcommit, container_resource_name, is_standard_quota, quantity_value, quota_resource_name,
    resource_name,
};
use super::value::{entries, field, invalid, list, quantity, shown, strings, text};

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
    let scopes = |quota: &Object| {
        let mut scopes: Vec<String> = quota
            .get_array(&["spec", "scopes"])
            .iter()
            .map(|scope| scope.as_str().unwrap_or_default().to_owned())
            .collect();
        scopes.sort();
        scopes.dedup();
        scopes
    };
    if scopes(new) != scopes(old) {
        let shown = new.get(&["spec", "scopes"]).cloned().unwrap_or_default();
        errors.push(Error::invalid(&Path::new("spec").child("scopes"), shown, "field is immutable"));
    }
    errors
}

pub fn resource_quota_status_update(new: &Object) -> ErrorList {
    quota_status(new)
}

fn amounts(owner: &Value, key: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (name, value) in entries(owner, key) {
        let at = path.child(key).key(name);
        errors.extend(quota_resource_name(name, &at));
        errors.extend(quantity_value(name, value, &at));
    }
    errors
}

fn quota_status(quota: &Object) -> ErrorList {
    let Some(status) = quota.get(&["status"]) else { return ErrorList::new() };
    let path = Path::new("status");
    let mut errors = amounts(status, "hard", &path);
    errors.extend(amounts(status, "used", &path));
    errors
}

fn quota_spec(quota: &Object) -> ErrorList {
    let Some(spec) = quota.get(&["spec"]) else { return ErrorList::new() };
    let path = Path::new("spec");
    let mut errors = amounts(spec, "hard", &path);
    let hard: Vec<&str> = entries(spec, "hard").map(|(name, _)| name).collect();
    errors.extend(scopes(spec, &hard, &path.child("scopes")));
    if let Some(selector) = field(spec, "scopeSelector") {
        errors.extend(scope_selector(selector, &hard, spec, &path));
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

fn scopes(spec: &Value, hard: &[&str], path: &Path) -> ErrorList {
    let scopes = strings(spec, "scopes");
    let refuse = |why: &str| Error::invalid(path, list(spec, "scopes").to_vec(), why);
    let mut errors = ErrorList::new();
    for scope in &scopes {
        if !SCOPES.contains(scope) {
            errors.push(refuse("unsupported scope"));
        }
        let wrong = hard.iter().filter(|name| is_standard_quota(name) && !fits(scope, name));
        errors.extend(wrong.map(|_| refuse("unsupported scope applied to resource")));
    }
    errors.extend((0..conflicting(&scopes)).map(|_| refuse("conflicting scopes")));
    errors
}

fn scope_selector(selector: &Value, hard: &[&str], spec: &Value, path: &Path) -> ErrorList {
    let at = path.child("scopeSelector").child("matchExpressions");
    let mut errors = ErrorList::new();
    let expressions = list(selector, "matchExpressions");
    for expression in expressions {
        let (scope, operator) = (text(expression, "scopeName"), text(expression, "operator"));
        let values = list(expression, "values");
        if !SCOPES.contains(&scope) {
            errors.push(Error::invalid(&at.child("scopeName"), scope, "unsupported scope"));
        }
        for _ in hard.iter().filter(|name| is_standard_quota(name) && !fits(scope, name)) {
            let why = "unsupported scope applied to resource";
            errors.push(Error::invalid(&at, selector.clone(), why));
        }
        let plain = !matches!(scope, "PriorityClass" | "VolumeAttributesClass") && SCOPES.contains(&scope);
        if plain && operator != "Exists" {
            let why = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.push(Error::invalid(&at.child("operator"), operator, why));
        }
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.push(Error::required(&at.child("values"), why));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.push(Error::invalid(&at.child("values"), values.to_vec(), why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                let why = "not a valid selector operator";
                errors.push(Error::invalid(&at.child("operator"), other, why));
            }
        }
    }
    let named: Vec<&str> = expressions.iter().map(|one| text(one, "scopeName")).collect();
    for _ in 0..conflicting(&named) {
        let shown = spec.get("scopes").cloned().unwrap_or_default();
        errors.push(Error::invalid(&at, shown, "conflicting scopes"));
    }
    errors
}

pub fn limit_range(range: &Object) -> ErrorList {
    let path = Path::new("spec").child("limits");
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for (index, limit) in range.get_array(&["spec", "limits"]).iter().enumerate() {
        let at = path.index(index);
        let kind = text(limit, "type");
        errors.extend(limit_type(kind, &at.child("type")));
        if seen.contains(&kind) {
            errors.push(Error::duplicate(&at.child("type"), kind));
        }
        seen.push(kind);
        errors.extend(limit_amounts(limit, kind, &at));
    }
    errors
}

fn limit_type(kind: &str, path: &Path) -> ErrorList {
    let errors = invalid(path, kind, names::is_qualified_name(kind));
    let known = matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim");
    if errors.is_empty() && !kind.contains('/') && !known {
        return vec![Error::invalid(path, kind, "must be a standard limit type or fully qualified")];
    }
    errors
}

fn limit_amounts(limit: &Value, kind: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let pods = kind == "Pod";
    let rule = if pods || kind == "Container" { container_resource_name } else { resource_name };
    let mut keys: Vec<&str> = Vec::new();
    for part in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        if pods && part.starts_with("default") {
            if entries(limit, part).next().is_some() {
                let why = "may not be specified when `type` is 'Pod'";
                errors.push(Error::forbidden(&path.child(part), why));
            }
            continue;
        }
        if part == "maxLimitRequestRatio" && kind == "PersistentVolumeClaim" {
            let storage = |part: &str| entries(limit, part).any(|(name, _)| name == "storage");
            if !storage("min") && !storage("max") {
                let why = "either minimum or maximum storage value is required, but neither was provided";
                errors.push(Error::required(&path.child("limits"), why));
            }
        }
        for (name, _) in entries(limit, part) {
            errors.extend(rule(name, &path.child(part).key(name)));
            if !keys.contains(&name) {
                keys.push(name);
            }
        }
    }
    keys.sort_unstable();
    for name in keys {
        errors.extend(one_limit(limit, name, pods, path));
    }
    errors
}

/// Minimum, default and maximum of one resource are in this order, and the ratio leaves room for them.
fn one_limit(limit: &Value, name: &str, pods: bool, path: &Path) -> ErrorList {
    let of = |part: &str| -> Option<(Quantity, String, Path)> {
        if pods && part.starts_with("default") {
            return None;
        }
        let value = limit.get(part)?.get(name)?;
        Some((quantity(value)?, shown(value), path.child(part).key(name)))
    };
    let (min, max) = (of("min"), of("max"));
    let (default, request) = (of("default"), of("defaultRequest"));
    let ratio = of("maxLimitRequestRatio");
    let mut errors = ErrorList::new();
    type Amount = Option<(Quantity, String, Path)>;
    // the smaller and the greater one, what they are called, where the error stands, and which of the two is shown
    let mut ordered = |small: &Amount, great: &Amount, names: [&str; 2], at: &Amount, shown: &Amount| {
        let (Some(small), Some(great)) = (small, great) else { return };
        let (Some(at), Some(shown)) = (at, shown) else { return };
        if small.0 > great.0 {
            let why =
                format!("{} value {} is greater than {} value {}", names[0], small.1, names[1], great.1);
            errors.push(Error::invalid(&at.2, shown.1.as_str(), why));
        }
    };
    ordered(&min, &max, ["min", "max"], &min, &min);
    ordered(&min, &request, ["min", "default request"], &request, &request);
    ordered(&request, &max, ["default request", "max"], &request, &request);
    ordered(&request, &default, ["default request", "default limit"], &request, &request);
    ordered(&min, &default, ["min", "default"], &default, &min);
    ordered(&default, &max, ["default", "max"], &default, &max);
    if let Some((amount, shown, at)) = &ratio {
        if *amount < Quantity::new(1, Format::DecimalSI) {
            errors.push(Error::invalid(at, shown.as_str(), format!("ratio {shown} is less than 1")));
        }
        if let (Some(min), Some(max)) = (&min, &max) {
            let most = ratio_of(&max.0, &min.0);
            if amount.as_f64() > most {
                let why = format!("ratio {shown} is greater than max/min = {most:.6}");
                errors.push(Error::invalid(at, shown.as_str(), why));
            }
        }
    }
    if let (Some(default), Some(request)) = (&default, &request)
        && !allows_overcommit(name)
        && default.0 != request.0
    {
        let why =
            format!("default value {} must equal to defaultRequest value {} in {name}", default.1, request.1);
        errors.push(Error::invalid(&request.2, request.1.as_str(), why));
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
