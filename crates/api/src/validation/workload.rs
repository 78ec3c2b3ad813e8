//! Deployments and ReplicaSets.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::selectors::LabelSelector;
use apimachinery::validation as names;
use apimachinery::{Object, Value};

use super::{immutable, non_negative, pod};

/// The rules of replicas, selector and template that all workloads share.
fn common(object: &Object) -> ErrorList {
    let spec = Path::new("spec");
    let mut errors = non_negative(&spec.child("replicas"), object.get_i64(&["spec", "replicas"]));
    errors.extend(non_negative(&spec.child("minReadySeconds"), object.get_i64(&["spec", "minReadySeconds"])));
    let selector_path = spec.child("selector");
    let selector = object.get(&["spec", "selector"]).cloned().unwrap_or(Value::Null);
    if selector.is_null() {
        errors.push(Error::required(&selector_path, ""));
    } else {
        errors.extend(names::validate_label_selector(&selector, &selector_path));
        if selector.as_object().is_some_and(serde_json::Map::is_empty) {
            let why = "empty selector is invalid for deployment";
            errors.push(Error::invalid(&selector_path, selector.clone(), why));
        }
    }
    let template_path = spec.child("template");
    let template = Object::from(object.get(&["spec", "template"]).cloned().unwrap_or(Value::Null));
    if let Ok(parsed) = LabelSelector::from_label_selector(&selector)
        && !parsed.is_empty()
        && !parsed.matches_object(&template)
    {
        let labels = template.get(&["metadata", "labels"]).cloned().unwrap_or(Value::Null);
        let path = template_path.child("metadata").child("labels");
        let why = "`selector` does not match template `labels`";
        errors.push(Error::invalid(&path, labels, why));
    }
    errors.extend(pod::template(&template, &template_path));
    let policy = template.get_str(&["spec", "restartPolicy"]);
    if policy != "Always" {
        let path = template_path.child("spec").child("restartPolicy");
        errors.push(Error::not_supported(&path, policy, &["Always"]));
    }
    if template.get(&["spec", "activeDeadlineSeconds"]).is_some() {
        let path = template_path.child("spec").child("activeDeadlineSeconds");
        errors.push(Error::forbidden(&path, "activeDeadlineSeconds in ReplicaSet is not Supported"));
    }
    errors
}

pub fn replica_set(object: &Object) -> ErrorList {
    common(object)
}

pub fn replica_set_update(object: &Object, old: &Object) -> ErrorList {
    let mut errors = common(object);
    errors.extend(immutable(&Path::new("spec").child("selector"), object, old, &["spec", "selector"]));
    errors
}

pub fn deployment(object: &Object) -> ErrorList {
    let spec = Path::new("spec");
    let mut errors = common(object);
    errors.extend(strategy(object, &spec.child("strategy")));
    let history = object.get_i64(&["spec", "revisionHistoryLimit"]);
    errors.extend(non_negative(&spec.child("revisionHistoryLimit"), history));
    let deadline = object.get_i64(&["spec", "progressDeadlineSeconds"]);
    errors.extend(non_negative(&spec.child("progressDeadlineSeconds"), deadline));
    let ready = object.get_i64(&["spec", "minReadySeconds"]).unwrap_or_default();
    if let Some(deadline) = deadline.filter(|deadline| *deadline <= ready) {
        let why = "must be greater than minReadySeconds";
        errors.push(Error::invalid(&spec.child("progressDeadlineSeconds"), deadline, why));
    }
    errors
}

fn strategy(object: &Object, path: &Path) -> ErrorList {
    let rolling = object.get(&["spec", "strategy", "rollingUpdate"]);
    let path_rolling = path.child("rollingUpdate");
    match object.get_str(&["spec", "strategy", "type"]) {
        "Recreate" => match rolling {
            Some(_) => {
                let why = "may not be specified when strategy `type` is 'Recreate'";
                vec![Error::forbidden(&path_rolling, why)]
            }
            None => ErrorList::new(),
        },
        "RollingUpdate" => {
            let Some(rolling) = rolling else {
                let why = "this should be defaulted and never be nil";
                return vec![Error::required(&path_rolling, why)];
            };
            let mut errors = ErrorList::new();
            let mut zero = 0;
            for key in ["maxUnavailable", "maxSurge"] {
                let value = rolling.get(key).cloned().unwrap_or(Value::from(0));
                errors.extend(int_or_percent(&value, &path_rolling.child(key)));
                zero += usize::from(number_of(&value) == Some(0));
                if key == "maxUnavailable" && value.is_string() && number_of(&value).is_some_and(|n| n > 100)
                {
                    let why = "must not be greater than 100%";
                    errors.push(Error::invalid(&path_rolling.child(key), value, why));
                }
            }
            if zero == 2 {
                let value = rolling.get("maxUnavailable").cloned().unwrap_or(Value::from(0));
                let why = "may not be 0 when `maxSurge` is 0";
                errors.push(Error::invalid(&path_rolling.child("maxUnavailable"), value, why));
            }
            errors
        }
        "" => vec![Error::required(&path.child("type"), "")],
        other => vec![Error::not_supported(&path.child("type"), other, &["Recreate", "RollingUpdate"])],
    }
}

fn number_of(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.strip_suffix('%')?.parse().ok())
}

fn int_or_percent(value: &Value, path: &Path) -> ErrorList {
    match value {
        Value::String(text) => super::invalid(path, text.as_str(), names::is_valid_percent(text)),
        other => non_negative(path, other.as_i64()),
    }
}

pub fn deployment_update(object: &Object, old: &Object) -> ErrorList {
    let mut errors = deployment(object);
    errors.extend(immutable(&Path::new("spec").child("selector"), object, old, &["spec", "selector"]));
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_selector_that_misses_its_template_is_refused() {
        let mut object = Object::from(json!({"spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "a"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}},
            "template": {"metadata": {"labels": {"app": "b"}}, "spec": {
                "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30,
                "containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always",
                    "terminationMessagePolicy": "File"}],
            }},
        }}));
        let errors: Vec<String> = deployment(&object).iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "spec.template.metadata.labels: Invalid value: {\"app\":\"b\"}: `selector` does not match template `labels`",
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
            ]
        );
        object.set(&["spec", "template", "metadata", "labels", "app"], "a");
        object.set(&["spec", "strategy", "rollingUpdate", "maxSurge"], 1);
        assert!(deployment(&object).is_empty());
    }
}
