//! What is wrong with the metrics and the behaviour of an autoscaler, at the paths of `autoscaling/v2`.

use apimachinery::field::{Error, ErrorList};
use apimachinery::quantity::Quantity;

use crate::validation::at::At;

const MAX_PERIOD: i64 = 1800;
const MAX_WINDOW: i64 = 3600;
/// Types of metrics with the field each has its source in.
const TYPES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];
/// The order in which sources are looked at; only the first is judged.
const SOURCES: [&str; 5] = ["object", "external", "pods", "resource", "containerResource"];

/// What the version of a reference has to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Versions {
    OfAGroup,
    Readable,
    Whatever,
}

impl Versions {
    fn refusal(self, version: &str) -> Option<String> {
        let (group, rest) = match version {
            "/" => ("", ""),
            _ => version.split_once('/').unwrap_or(("", version)),
        };
        match self {
            Self::Whatever => None,
            _ if rest.contains('/') => Some(format!("unexpected GroupVersion string: {version}")),
            Self::OfAGroup if group.is_empty() => Some("apiVersion must specify API group".into()),
            _ => None,
        }
    }

    /// How the metrics of an update are judged: as they were.
    pub fn of_metrics_after(old: &At<'_>) -> Self {
        let wrong = |metric: &At<'_>| {
            let object = metric.child("object").child("describedObject");
            metric.text("type") == "Object"
                && metric.has("object")
                && Self::Readable.refusal(object.text("apiVersion")).is_some()
        };
        if old.each("metrics").any(|metric| wrong(&metric)) { Self::Whatever } else { Self::Readable }
    }
}

pub fn reference(reference: &At<'_>, versions: Versions) -> ErrorList {
    let mut errors = reference.child("kind").required_path_segment();
    errors.extend(reference.child("name").required_path_segment());
    let version = reference.text("apiVersion");
    if let Some(why) = versions.refusal(version) {
        errors.push(Error::invalid(&reference.path.child("apiVersion"), version, why));
    }
    errors
}

pub fn metric(metric: &At<'_>, versions: Versions) -> ErrorList {
    let mut errors = ErrorList::new();
    let kind = metric.child("type");
    let types: Vec<&str> = TYPES.iter().map(|(name, _)| *name).collect();
    if kind.is_empty() {
        errors.push(kind.required("must specify a metric source type"));
    }
    let known = TYPES.iter().find(|(name, _)| *name == kind.str());
    if known.is_none() {
        errors.push(Error::not_supported(&kind.path, kind.str(), &types));
    }
    let present: Vec<&str> = SOURCES.into_iter().filter(|source| metric.has(source)).collect();
    if let Some(source) = present.first() {
        errors.extend(self::source(source, &metric.child(source), versions));
    }
    match known {
        Some((_, field)) if !metric.has(field) => {
            let why = "must populate information for the given metric source";
            errors.push(metric.child(field).required(why));
        }
        Some(_) => {}
        None => errors.push(Error::not_supported(&kind.path, kind.str(), &types)),
    }
    if present.len() != 1 {
        let expected = known.map(|(_, field)| *field);
        for extra in present.into_iter().filter(|source| Some(*source) != expected) {
            errors.push(metric.child(extra).forbidden("must populate the given metric source only"));
        }
    }
    errors
}

fn source(kind: &str, source: &At<'_>, versions: Versions) -> ErrorList {
    let target = source.child("target");
    let (value, average) = (target.child("value"), target.child("averageValue"));
    let utilization = target.child("averageUtilization");
    let mut errors = ErrorList::new();
    match kind {
        "object" => {
            errors.extend(reference(&source.child("describedObject"), versions));
            errors.extend(identifier(&source.child("metric")));
            errors.extend(self::target(&target));
            if !value.is_set() && !average.is_set() {
                errors.push(average.required("must set either a target value or averageValue"));
            }
        }
        "external" => {
            errors.extend(identifier(&source.child("metric")));
            errors.extend(self::target(&target));
            match (value.is_set(), average.is_set()) {
                (false, false) => {
                    let why = "must set either a target value for metric or a per-pod target";
                    errors.push(average.required(why));
                }
                (true, true) => {
                    let why = "may not set both a target value for metric and a per-pod target";
                    errors.push(value.forbidden(why));
                }
                _ => {}
            }
        }
        "pods" => {
            errors.extend(identifier(&source.child("metric")));
            errors.extend(self::target(&target));
            if !average.is_set() {
                errors.push(average.required("must specify a positive target averageValue"));
            }
        }
        _ => {
            let name = source.child("name");
            if name.is_empty() {
                errors.push(name.required("must specify a resource name"));
            } else if kind == "containerResource" {
                errors.extend(name.qualified_name());
            }
            let container = source.child("container");
            if kind == "containerResource" {
                if container.is_empty() {
                    errors.push(container.required("must specify a container"));
                } else {
                    errors.extend(container.dns_label());
                }
            }
            errors.extend(self::target(&target));
            match (utilization.is_set(), average.is_set()) {
                (false, false) => {
                    let why = "must set either a target raw value or a target utilization";
                    errors.push(utilization.required(why));
                }
                (true, true) => {
                    let why = "may not set both a target raw value and a target utilization";
                    errors.push(average.forbidden(why));
                }
                _ => {}
            }
        }
    }
    errors
}

fn identifier(metric: &At<'_>) -> ErrorList {
    let name = metric.child("name");
    if name.is_empty() {
        return vec![name.required("must specify a metric name")];
    }
    name.path_segment()
}

fn target(target: &At<'_>) -> ErrorList {
    let kind = target.child("type");
    let mut errors = ErrorList::new();
    if kind.is_empty() {
        errors.push(kind.required("must specify a metric target type"));
    }
    if !matches!(kind.str(), "Utilization" | "Value" | "AverageValue") {
        let why = "must be either Utilization, Value, or AverageValue";
        errors.push(Error::invalid(&kind.path, kind.str(), why));
    }
    for key in ["value", "averageValue"] {
        let amount = target.child(key);
        if amount.is_set() && !Quantity::parse(amount.str()).is_ok_and(|amount| amount.signum() > 0) {
            errors.push(amount.invalid("must be positive"));
        }
    }
    let utilization = target.child("averageUtilization");
    if utilization.int().is_some_and(|percent| percent < 1) {
        errors.push(utilization.invalid("must be greater than 0"));
    }
    errors
}

pub fn behavior(behavior: &At<'_>) -> ErrorList {
    ["scaleUp", "scaleDown"]
        .iter()
        .map(|key| behavior.child(key))
        .filter(At::is_set)
        .flat_map(|rules| scaling_rules(&rules))
        .collect()
}

fn scaling_rules(rules: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let window = rules.child("stabilizationWindowSeconds");
    if window.int().is_some_and(|seconds| seconds < 0) {
        errors.push(window.invalid("must be greater than or equal to zero"));
    }
    if window.int().is_some_and(|seconds| seconds > MAX_WINDOW) {
        errors.push(window.invalid(format!("must be less than or equal to {MAX_WINDOW}")));
    }
    errors.extend(rules.child("selectPolicy").supported(&["Disabled", "Max", "Min"]));
    let policies = rules.child("policies");
    if policies.is_empty() {
        errors.push(policies.required("must specify at least one Policy"));
    }
    for policy in policies.items() {
        let (kind, period) = (policy.child("type"), policy.child("periodSeconds"));
        if !matches!(kind.str(), "Pods" | "Percent") {
            errors.push(Error::not_supported(&kind.path, kind.str(), &["Percent", "Pods"]));
        }
        errors.extend(policy.child("value").positive());
        errors.extend(period.positive());
        if period.int().is_some_and(|seconds| seconds > MAX_PERIOD) {
            errors.push(period.invalid(format!("must be less than or equal to {MAX_PERIOD}")));
        }
    }
    let tolerance = rules.child("tolerance");
    errors.extend(tolerance.non_negative_quantity());
    errors
}
