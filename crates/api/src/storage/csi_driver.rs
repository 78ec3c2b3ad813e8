//! CSI drivers.

use apimachinery::field::{Error, ErrorList};
use apimachinery::{Object, Value};
use serde_json::json;

use crate::catalogue::Column;
use crate::core::defaults::set;
use crate::printers::{AGE, NAME, column};
use crate::strategy::{Strategy, bump_generation};
use crate::validation::at::At;
use crate::validation::forms::unchanged;

pub const COLUMNS: &[Column] = &[
    NAME,
    column("AttachRequired", "boolean", "Whether volumes have to be attached.", |d, _| {
        json!(flag_or(d, "attachRequired", true))
    }),
    column("PodInfoOnMount", "boolean", "Whether the driver is told of the pod.", |d, _| {
        json!(flag_or(d, "podInfoOnMount", false))
    }),
    column("StorageCapacity", "boolean", "Whether the driver says how much it has.", |d, _| {
        json!(flag_or(d, "storageCapacity", false))
    }),
    column("TokenRequests", "string", "Audiences of the tokens the driver gets.", |d, _| {
        let requests = d.get_array(&["spec", "tokenRequests"]);
        if d.get(&["spec", "tokenRequests"]).is_none() {
            return json!("<unset>");
        }
        let audiences: Vec<&str> =
            requests.iter().map(|request| request["audience"].as_str().unwrap_or_default()).collect();
        json!(audiences.join(","))
    }),
    column("RequiresRepublish", "boolean", "Whether volumes are published again and again.", |d, _| {
        json!(flag_or(d, "requiresRepublish", false))
    }),
    column("Modes", "string", "How long volumes may live.", |d, _| {
        let modes: Vec<&str> =
            d.get_array(&["spec", "volumeLifecycleModes"]).iter().filter_map(Value::as_str).collect();
        json!(if modes.is_empty() { "<none>".to_owned() } else { modes.join(",") })
    }),
    AGE,
];

fn flag_or(driver: &Object, key: &str, default: bool) -> bool {
    driver.get(&["spec", key]).and_then(Value::as_bool).unwrap_or(default)
}

const SHORTEST_TOKEN: i64 = 600;

pub struct CsiDrivers;

impl Strategy for CsiDrivers {
    fn default(&self, driver: &mut Object) {
        driver.as_map_mut().entry("spec").or_insert_with(|| json!({}));
        let Some(spec) = driver.as_map_mut().get_mut("spec").and_then(Value::as_object_mut) else { return };
        for (key, value) in [
            ("attachRequired", true),
            ("podInfoOnMount", false),
            ("storageCapacity", false),
            ("requiresRepublish", false),
            ("seLinuxMount", false),
        ] {
            set(spec, key, value);
        }
        set(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        let modes = spec.get("volumeLifecycleModes").and_then(Value::as_array);
        if modes.is_none_or(Vec::is_empty) {
            spec.insert("volumeLifecycleModes".into(), json!(["Persistent"]));
        }
    }

    fn prepare_for_create(&self, driver: &mut Object) {
        drop_gated(driver, None);
    }

    fn prepare_for_update(&self, driver: &mut Object, old: &Object) {
        drop_gated(driver, Some(old));
        bump_generation(driver, old);
    }

    fn validate(&self, driver: &Object) -> ErrorList {
        validate(&At::root(driver).child("spec"))
    }

    fn validate_update(&self, driver: &Object, old: &Object) -> ErrorList {
        let (new, old) = (At::root(driver).child("spec"), At::root(old).child("spec"));
        let mut errors = validate(&new);
        let attach = At::new(new.child("attachRequired").value, new.path.child("attachedRequired"));
        errors.extend(unchanged(&attach, &old.child("attachRequired")));
        let key = "volumeLifecycleModes";
        errors.extend(unchanged(&new.child(key), &old.child(key)));
        errors
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }
}

/// A field of volume limits in scheduling, which is off, stays only where it is.
fn drop_gated(driver: &mut Object, old: Option<&Object>) {
    const FIELD: [&str; 2] = ["spec", "preventPodSchedulingIfMissing"];
    if old.is_none_or(|old| old.get(&FIELD).is_none()) {
        driver.remove(&FIELD);
    }
}

fn validate(spec: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    for (key, shown) in [
        ("attachRequired", "attachedRequired"),
        ("podInfoOnMount", "podInfoOnMount"),
        ("storageCapacity", "storageCapacity"),
    ] {
        if !spec.has(key) {
            errors.push(Error::required(&spec.path.child(shown), ""));
        }
    }
    errors.extend(spec.child("fsGroupPolicy").supported(&["File", "None", "ReadWriteOnceWithFSType"]));
    errors.extend(token_requests(&spec.child("tokenRequests")));
    let modes = spec.child("volumeLifecycleModes");
    for mode in modes.items().filter(|mode| !matches!(mode.str(), "Persistent" | "Ephemeral")) {
        errors.push(Error::not_supported(&modes.path, mode.str(), &["Persistent", "Ephemeral"]));
    }
    let mount = spec.child("seLinuxMount");
    if !mount.is_set() {
        errors.push(mount.required(""));
    }
    let period = spec.child("nodeAllocatableUpdatePeriodSeconds");
    if period.int().is_some_and(|seconds| seconds < 10) {
        errors.push(period.invalid("must be greater than or equal to 10 seconds"));
    }
    let secrets = spec.child("serviceAccountTokenInSecrets");
    if secrets.is_set() && spec.child("tokenRequests").is_empty() {
        let why = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        errors.push(secrets.invalid(why));
    }
    errors
}

fn token_requests(requests: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for request in requests.items() {
        let (audience, seconds) = (request.text("audience"), request.child("expirationSeconds"));
        if seen.contains(&audience) {
            errors.push(Error::duplicate(&request.child("audience").path, audience));
            continue;
        }
        seen.push(audience);
        if seconds.int().is_some_and(|seconds| seconds < SHORTEST_TOKEN) {
            errors.push(seconds.invalid("may not specify a duration less than 10 minutes"));
        }
        if seconds.int().is_some_and(|seconds| seconds > 1 << 32) {
            errors.push(seconds.invalid("may not specify a duration larger than 2^32 seconds"));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::forms::check;

    #[test]
    fn drivers() {
        let mut driver = Object::from(json!({"spec": {"preventPodSchedulingIfMissing": true}}));
        CsiDrivers.default(&mut driver);
        CsiDrivers.prepare_for_create(&mut driver);
        assert_eq!(
            driver.get(&["spec"]),
            Some(&json!({
                "attachRequired": true, "podInfoOnMount": false, "storageCapacity": false,
                "requiresRepublish": false, "seLinuxMount": false, "fsGroupPolicy": "ReadWriteOnceWithFSType",
                "volumeLifecycleModes": ["Persistent"],
            }))
        );
        check(CsiDrivers.validate(&driver), &[]);
        let mut odd = driver.clone();
        odd.set(&["spec", "fsGroupPolicy"], "Odd");
        odd.set(&["spec", "volumeLifecycleModes"], json!(["Odd"]));
        odd.set(
            &["spec", "tokenRequests"],
            json!([{"audience": "a", "expirationSeconds": 5}, {"audience": "a"}]),
        );
        odd.set(&["spec", "nodeAllocatableUpdatePeriodSeconds"], 5);
        odd.set(&["spec", "attachRequired"], false);
        check(
            CsiDrivers.validate_update(&odd, &driver),
            &[
                "spec.fsGroupPolicy: Unsupported value: \"Odd\": supported values: \"File\", \"None\", \"ReadWriteOnceWithFSType\"",
                "spec.tokenRequests[0].expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes",
                "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
                "spec.volumeLifecycleModes: Unsupported value: \"Odd\": supported values: \"Persistent\", \"Ephemeral\"",
                "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 5: must be greater than or equal to 10 seconds",
                "spec.attachedRequired: Invalid value: false: field is immutable",
                "spec.volumeLifecycleModes: Invalid value: [\"Odd\"]: field is immutable",
            ],
        );
        CsiDrivers.prepare_for_update(&mut odd, &driver);
        assert_eq!(odd.generation(), 1);
        let mut told = driver.clone();
        told.set(&["spec", "podInfoOnMount"], true);
        CsiDrivers.prepare_for_update(&mut told, &driver);
        assert_eq!(told.generation(), 1);
    }
}
