//! StatefulSets.

use std::collections::BTreeSet;

use apimachinery::field::{Error, ErrorList, Path, quote};
use apimachinery::validation as names;
use apimachinery::{Object, Value};
use serde_json::json;

use super::template;
use crate::catalogue::Column;
use crate::core::defaults::{child, each, set};
use crate::core::warnings;
use crate::printers::{AGE, NAME, column, count, template_containers, wide};
use crate::strategy::{Strategy, bump_generation, keep_status, reset_status_for_create};
use crate::validation::at::At;
use crate::validation::forms::not_decremented;
use crate::validation::value::go_struct;
use crate::validation::{claim, pod};

pub const COLUMNS: &[Column] = &[
    NAME,
    column("Ready", "string", "Ready replicas of wanted replicas.", |s, _| {
        json!(format!("{}/{}", count(s, &["status", "readyReplicas"]), count(s, &["spec", "replicas"])))
    }),
    AGE,
    wide("Containers", "string", "Names of the containers.", |s, _| json!(template_containers(s, "name"))),
    wide("Images", "string", "Images of the containers.", |s, _| json!(template_containers(s, "image"))),
];

/// What an update may change of the spec.
const MUTABLE: [&str; 7] = [
    "replicas",
    "template",
    "updateStrategy",
    "minReadySeconds",
    "ordinals",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
];

pub struct StatefulSets;

impl Strategy for StatefulSets {
    fn default(&self, object: &mut Object) {
        let Some(spec) = object.as_map_mut().get_mut("spec").and_then(Value::as_object_mut) else { return };
        set(spec, "podManagementPolicy", "OrderedReady");
        set(spec, "updateStrategy", json!({}));
        if let Some(strategy) = child(spec, "updateStrategy") {
            set(strategy, "type", "RollingUpdate");
            if strategy.get("type") == Some(&json!("RollingUpdate")) {
                set(strategy, "rollingUpdate", json!({}));
                if let Some(rolling) = child(strategy, "rollingUpdate") {
                    set(rolling, "partition", 0);
                    set(rolling, "maxUnavailable", 1);
                }
            }
        }
        set(spec, "persistentVolumeClaimRetentionPolicy", json!({}));
        if let Some(policy) = child(spec, "persistentVolumeClaimRetentionPolicy") {
            set(policy, "whenDeleted", "Retain");
            set(policy, "whenScaled", "Retain");
        }
        set(spec, "replicas", 1);
        set(spec, "revisionHistoryLimit", 10);
        template::default(spec);
        for claim in each(spec, "volumeClaimTemplates") {
            set(claim, "apiVersion", "v1");
            set(claim, "kind", "PersistentVolumeClaim");
            set(claim, "spec", json!({}));
            if let Some(spec) = child(claim, "spec") {
                set(spec, "volumeMode", "Filesystem");
            }
            set(claim, "status", json!({}));
            if let Some(status) = child(claim, "status") {
                set(status, "phase", "Pending");
            }
        }
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        names::name_is_dns_label(name, prefix)
    }

    fn prepare_for_create(&self, object: &mut Object) {
        reset_status_for_create(object);
        object.set(&["status"], json!({"replicas": 0}));
        template::drop_gated(object, None);
    }

    fn validate(&self, object: &Object) -> ErrorList {
        validate(&At::root(object).child("spec"), None, Strictness::default())
    }

    fn prepare_for_update(&self, object: &mut Object, old: &Object) {
        keep_status(object, old);
        template::drop_gated(object, Some(old));
        bump_generation(object, old);
    }

    /// Names of Services and claims cannot change, so what was stored is not judged again; a template that was
    /// refused by today's rules stays until somebody mends it.
    fn validate_update(&self, object: &Object, old: &Object) -> ErrorList {
        let (new, before) = (At::root(object).child("spec"), At::root(old).child("spec"));
        let lenient = Strictness { service_name: false, claims: false, template: true };
        let was_valid = validate(&before, Some(&before), lenient).is_empty();
        let mut errors = validate(&new, Some(&before), Strictness { template: was_valid, ..lenient });
        let fixed = |spec: &At<'_>| {
            let mut spec = spec.value.clone();
            if let Some(map) = spec.as_object_mut() {
                map.retain(|key, _| !MUTABLE.contains(&key.as_str()));
            }
            spec
        };
        if fixed(&new) != fixed(&before) {
            errors.push(new.forbidden(
                "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                 'minReadySeconds' are forbidden",
            ));
        }
        errors
    }

    fn validate_status_update(&self, object: &Object, old: &Object) -> ErrorList {
        let (status, old) = (At::root(object).child("status"), At::root(old).child("status"));
        let all = [
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
            "observedGeneration",
            "collisionCount",
        ];
        let bounded = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
        let mut errors = template::counters(&status, &all, &bounded);
        errors.extend(template::available_of_ready(&status, "status.readyReplicas"));
        errors.extend(not_decremented(&status.child("collisionCount"), &old.child("collisionCount")));
        errors
    }

    fn warnings_on_create(&self, object: &Object) -> Vec<String> {
        let mut warnings = template::warnings(object);
        warnings.extend(claims_and_history(object, |claim| claim));
        warnings
    }

    fn warnings_on_update(&self, object: &Object, old: &Object) -> Vec<String> {
        let mut warnings = template::warnings_on_update(object, old);
        warnings.extend(claims_and_history(object, |claim| claim.child("Spec")));
        warnings
    }
}

/// Warnings about claims and about the history; upstream leaves `spec` out of the paths of the former, and on updates
/// writes it with a capital.
fn claims_and_history(object: &Object, path: impl Fn(Path) -> Path) -> Vec<String> {
    let spec = At::of(object, &["spec"]);
    let mut warnings = Vec::new();
    for claim in spec.each("volumeClaimTemplates") {
        warnings.extend(warnings::claim_spec(&At::new(claim.child("spec").value, path(claim.path.clone()))));
    }
    if spec.number("revisionHistoryLimit").is_some_and(|limit| limit < 0) {
        warnings.push(
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
                .into(),
        );
    }
    warnings
}

/// Which parts are judged; an update leaves out what cannot change.
#[derive(Clone, Copy)]
struct Strictness {
    service_name: bool,
    claims: bool,
    template: bool,
}

impl Default for Strictness {
    fn default() -> Self {
        Self { service_name: true, claims: true, template: true }
    }
}

fn validate(spec: &At<'_>, old: Option<&At<'_>>, strict: Strictness) -> ErrorList {
    let mut errors = ErrorList::new();
    let policy = spec.child("podManagementPolicy");
    match policy.str() {
        "" => errors.push(policy.required("")),
        "OrderedReady" | "Parallel" => {}
        _ => errors.push(policy.invalid("must be 'OrderedReady' or 'Parallel'")),
    }
    errors.extend(update_strategy(&spec.child("updateStrategy")));
    let retention = spec.child("persistentVolumeClaimRetentionPolicy");
    if retention.is_set() {
        for key in ["whenDeleted", "whenScaled"] {
            let when = retention.child(key);
            if !matches!(when.str(), "Retain" | "Delete") {
                errors.push(Error::not_supported(&when.path, when.str(), &["Retain", "Delete"]));
            }
        }
    }
    if strict.claims {
        for claim in spec.each("volumeClaimTemplates") {
            errors.extend(claim::spec(&claim.child("spec")));
        }
    }
    errors.extend(spec.child("replicas").non_negative());
    errors.extend(spec.child("minReadySeconds").non_negative());
    errors.extend(spec.child("ordinals").child("start").non_negative());
    let service = spec.child("serviceName");
    if strict.service_name && !service.is_empty() {
        errors.extend(service.dns_label());
    }
    errors.extend(template::selector(spec, "statefulset"));
    errors.extend(pods(spec, old, strict.template));
    errors.extend(template::runs_for_ever(&spec.child("template"), "StatefulSet"));
    errors
}

/// A rolling update of the internal version.
fn rolling_text(rolling: &At<'_>) -> String {
    let partition = Value::from(rolling.number_or_zero("partition"));
    let unavailable = rolling.child("maxUnavailable").value.clone();
    go_struct(&[("Partition", partition), ("MaxUnavailable", unavailable)])
}

fn update_strategy(strategy: &At<'_>) -> ErrorList {
    let rolling = strategy.child("rollingUpdate");
    match strategy.text("type") {
        "" => vec![strategy.required("")],
        "OnDelete" if rolling.is_set() => {
            let why = "only allowed for updateStrategy 'RollingUpdate'";
            vec![rolling.invalid(why).showing(rolling_text(&rolling))]
        }
        "OnDelete" => ErrorList::new(),
        "RollingUpdate" => {
            let mut errors = rolling.child("partition").non_negative();
            let unavailable = rolling.child("maxUnavailable");
            if unavailable.is_set() {
                errors.extend(unavailable.int_or_percent());
                if unavailable.number_of_percent() == 0 {
                    errors.push(unavailable.invalid("cannot be 0"));
                }
                errors.extend(unavailable.not_more_than_100_percent());
            }
            errors
        }
        _ => {
            let why = "must be 'RollingUpdate' or 'OnDelete'";
            let rolling = if rolling.is_set() { rolling_text(&rolling) } else { "null".to_owned() };
            let shown = format!("{{\"Type\":{},\"RollingUpdate\":{rolling}}}", quote(strategy.text("type")));
            vec![strategy.invalid(why).showing(shown)]
        }
    }
}

/// The template without what the controller writes over, with the volumes that it adds.
fn pods(spec: &At<'_>, old: Option<&At<'_>>, judge_template: bool) -> ErrorList {
    let Some(mut errors) = template::matches(spec) else {
        return vec![spec.child("selector").invalid("")];
    };
    let template = spec.child("template");
    let mut object = Object::from(template.value.clone());
    for key in ["subdomain", "hostname"] {
        object.remove(&["spec", key]);
    }
    let claims: BTreeSet<&str> = spec
        .each("volumeClaimTemplates")
        .filter_map(|claim| claim.value.pointer("/metadata/name").and_then(Value::as_str))
        .collect();
    if !claims.is_empty() {
        let mut volumes: Vec<Value> = claims
            .iter()
            .map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}))
            .collect();
        let own = template.child("spec");
        let own = own.child("volumes");
        volumes.extend(own.list().iter().filter(|v| !claims.iter().any(|name| v["name"] == *name)).cloned());
        object.set(&["spec", "volumes"], volumes);
    }
    let judged = At::new(object.as_value(), template.path.clone());
    let before = old.map(|old| old.child("template"));
    if judge_template {
        errors.extend(template::pods(&judged, before.as_ref()));
    }
    errors.extend(pod::template_metadata(&judged, before.as_ref().map(|old| old.value)));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::forms::check;

    fn stateful_set() -> Object {
        let mut object = Object::from(json!({"metadata": {"name": "db"}, "spec": {
            "serviceName": "db", "selector": {"matchLabels": {"app": "a"}},
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [
                {"name": "c", "image": "i", "volumeMounts": [{"name": "data", "mountPath": "/data"}]},
            ]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
            }}],
        }}));
        StatefulSets.default(&mut object);
        object
    }

    #[test]
    fn defaults() {
        let object = stateful_set();
        assert_eq!(
            object.get(&["spec", "updateStrategy"]),
            Some(&json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 1}}))
        );
        assert_eq!(object.get_array(&["spec", "volumeClaimTemplates"])[0]["status"]["phase"], "Pending");
        check(StatefulSets.validate(&object), &[]);
    }

    #[test]
    fn warnings() {
        let mut object = stateful_set();
        assert_eq!(StatefulSets.warnings_on_create(&object), Vec::<String>::new());
        object.set(&["spec", "template", "spec", "nodeSelector"], json!({"beta.kubernetes.io/os": "linux"}));
        object.set(&["spec", "revisionHistoryLimit"], -1);
        let claims =
            object.as_value_mut().pointer_mut("/spec/volumeClaimTemplates/0/spec/resources/requests/storage");
        *claims.expect("a claim") = json!("1m");
        let of_template = "spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead";
        let of_rest = [
            "spec.volumeClaimTemplates[0].resources.requests[storage]: fractional byte value \"1m\" is invalid, must be an integer",
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended",
        ];
        assert_eq!(StatefulSets.warnings_on_create(&object), [&[of_template][..], &of_rest].concat());
        let on_update = of_rest.map(|warning| warning.replace("[0].resources", "[0].Spec.resources"));
        assert_eq!(StatefulSets.warnings_on_update(&object, &object), on_update);
    }

    #[test]
    fn what_is_wrong_with_a_stateful_set() {
        let mut object = stateful_set();
        object.set(&["spec", "podManagementPolicy"], "Odd");
        object.set(&["spec", "serviceName"], "a.b");
        object.set(&["spec", "ordinals"], json!({"start": -1}));
        object
            .set(&["spec", "updateStrategy"], json!({"type": "OnDelete", "rollingUpdate": {"partition": 2}}));
        object.set(&["spec", "persistentVolumeClaimRetentionPolicy", "whenScaled"], "Keep");
        check(
            StatefulSets.validate(&object),
            &[
                "spec.podManagementPolicy: Invalid value: \"Odd\": must be 'OrderedReady' or 'Parallel'",
                "spec.updateStrategy.rollingUpdate: Invalid value: {\"Partition\":2,\"MaxUnavailable\":null}: only allowed for updateStrategy 'RollingUpdate'",
                "spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: \"Keep\": supported values: \"Retain\", \"Delete\"",
                "spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0",
                "spec.serviceName: Invalid value: \"a.b\": must not contain dots",
            ],
        );
    }

    #[test]
    fn most_of_a_spec_stays() {
        let old = stateful_set();
        let mut new = old.clone();
        new.set(&["spec", "replicas"], 4);
        new.set(&["spec", "template", "spec", "containers"], json!([]));
        assert_eq!(StatefulSets.validate_update(&new, &old).len(), 1, "no containers");
        let mut new = old.clone();
        new.set(&["spec", "serviceName"], "other");
        check(
            StatefulSets.validate_update(&new, &old),
            &[
                "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
            ],
        );
    }
}
