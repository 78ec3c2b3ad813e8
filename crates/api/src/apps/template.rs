//! What the workloads share: the pod template under a selector, and how names become those of pods.

use apimachinery::field::{Error, ErrorList, quote};
use apimachinery::selectors::LabelSelector;
use apimachinery::validation as names;
use apimachinery::{Object, Value};
use serde_json::Map;

use crate::core::defaults::{self, child};
use crate::core::{gates, warnings};
use crate::validation::at::At;
use crate::validation::pod;
use crate::validation::value::go_struct;

/// Defaults of the template in a workload's spec.
pub fn default(spec: &mut Map<String, Value>) {
    if let Some(template) = child(spec, "template").and_then(|template| child(template, "spec")) {
        defaults::pod_spec(template);
    }
}

/// The selector of a workload: there, well formed and not empty.
pub fn selector(spec: &At<'_>, workload: &str) -> ErrorList {
    let selector = spec.child("selector");
    if !selector.is_set() {
        return vec![selector.required("")];
    }
    let mut errors = selector.label_selector();
    let empty = selector.child("matchLabels").len() + selector.child("matchExpressions").len() == 0;
    if empty {
        errors.push(selector.invalid(format!("empty selector is invalid for {workload}")));
    }
    errors
}

/// That the selector finds the pods of the template; no selector finds none. `None` where it cannot be read.
pub fn matches(spec: &At<'_>) -> Option<ErrorList> {
    let (selector, template) = (spec.child("selector"), spec.child("template"));
    let parsed = LabelSelector::from_label_selector(selector.value).ok()?;
    let labels = template.child("metadata").child("labels");
    let none = Map::new();
    let found = selector.is_set() && parsed.matches(labels.value.as_object().unwrap_or(&none));
    Some(match found {
        true => ErrorList::new(),
        false => vec![labels.invalid("`selector` does not match template `labels`")],
    })
}

/// The template's pod. What was wrong with it before an update may stay.
pub fn pods(template: &At<'_>, old: Option<&At<'_>>) -> ErrorList {
    match old {
        Some(old) => pod::template_update(template, old.value),
        None => pod::template(template),
    }
}

/// Drops from the template what is off.
pub fn drop_gated(object: &mut Object, old: Option<&Object>) {
    gates::pod_spec_at(object, old, &["spec", "template", "spec"]);
}

/// What a controller that restarts its pods refuses of a template.
pub fn runs_for_ever(template: &At<'_>, workload: &str) -> ErrorList {
    let spec = template.child("spec");
    let policy = spec.child("restartPolicy");
    let mut errors = ErrorList::new();
    if policy.str() != "Always" {
        errors.push(Error::not_supported(&policy.path, policy.str(), &["Always"]));
    }
    let deadline = spec.child("activeDeadlineSeconds");
    if deadline.is_set() {
        errors.push(deadline.forbidden(format!("activeDeadlineSeconds in {workload} is not Supported")));
    }
    errors
}

/// Warnings about the template of a workload.
pub fn warnings(object: &Object) -> Vec<String> {
    warnings::template(&At::of(object, &["spec", "template"]))
}

/// Warnings about a template on an update, which has to change something to be warned about.
pub fn warnings_on_update(object: &Object, old: &Object) -> Vec<String> {
    if object.generation() == old.generation() { Vec::new() } else { warnings(object) }
}

/// Warns of names that do not fit into the host names of pods.
pub fn name_warning(object: &Object) -> Vec<String> {
    let wrong = names::is_dns1123_label(object.name());
    if wrong.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; \
         a DNS label is recommended: [{}]",
        wrong.join(" ")
    )]
}

/// A strategy of the internal version, as error messages show one: there, limits that are not set are zero.
pub fn strategy_text(strategy: &At<'_>) -> String {
    let rolling = match strategy.field("rollingUpdate") {
        Some(rolling) => {
            let limit = |key: &str| rolling.field(key).map_or(Value::from(0), |limit| limit.value.clone());
            go_struct(&[("MaxUnavailable", limit("maxUnavailable")), ("MaxSurge", limit("maxSurge"))])
        }
        None => "null".to_owned(),
    };
    format!("{{\"Type\":{},\"RollingUpdate\":{rolling}}}", quote(strategy.text("type")))
}

/// Counters of a status: none negative, and none above the one that `of` names.
pub fn counters(status: &At<'_>, counters: &[&str], bounded: &[&str]) -> ErrorList {
    let mut errors: ErrorList = counters.iter().flat_map(|key| status.child(key).non_negative()).collect();
    let total = status.number("replicas").unwrap_or_default();
    for key in bounded {
        let counter = status.child(key);
        if counter.int_or_zero() > total {
            errors.push(Error::invalid(
                &counter.path,
                counter.int_or_zero(),
                "cannot be greater than status.replicas",
            ));
        }
    }
    errors
}

/// More pods cannot be available than are ready.
pub fn available_of_ready(status: &At<'_>, ready: &str) -> ErrorList {
    let available = status.child("availableReplicas");
    if available.int().unwrap_or_default() > status.number("readyReplicas").unwrap_or_default() {
        return vec![available.invalid(format!("cannot be greater than {ready}"))];
    }
    ErrorList::new()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::catalogue::catalogue;
    use apimachinery::{GroupVersionKind, Object};

    #[test]
    fn what_is_off_goes_from_every_template_and_stays_where_it_was() {
        let job = ["spec", "jobTemplate", "spec", "template", "spec"];
        let kinds = [
            ("apps", "Deployment", &job[3..]),
            ("apps", "DaemonSet", &job[3..]),
            ("apps", "ReplicaSet", &job[3..]),
            ("apps", "StatefulSet", &job[3..]),
            ("batch", "Job", &job[3..]),
            ("batch", "CronJob", &job[1..]),
        ];
        for (group, kind, path) in kinds {
            let strategy =
                catalogue().by_kind(&GroupVersionKind::new(group, "v1", kind)).expect(kind).strategy;
            let path = [&["spec"], path].concat();
            let pod =
                json!({"containers": [{"name": "c", "image": "i", "lifecycle": {"stopSignal": "SIGUSR1"}}]});
            let mut gated = Object::from(json!({"metadata": {"name": "o", "uid": "u"}}));
            gated.set(&path, pod);
            let signal = |object: &Object| {
                object.get_array(&[&path[..], &["containers"]].concat())[0]["lifecycle"]
                    .get("stopSignal")
                    .is_some()
            };
            let mut created = gated.clone();
            strategy.prepare_for_create(&mut created);
            assert!(!signal(&created), "{kind}");
            let mut updated = gated.clone();
            strategy.prepare_for_update(&mut updated, &created);
            assert!(!signal(&updated), "{kind}");
            let mut kept = gated.clone();
            strategy.prepare_for_update(&mut kept, &gated);
            assert!(signal(&kept), "{kind}");
        }
    }
}
