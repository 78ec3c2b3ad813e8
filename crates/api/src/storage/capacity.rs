//! How much storage a driver has where.

use apimachinery::Object;
use apimachinery::field::ErrorList;
use serde_json::json;

use crate::catalogue::Column;
use crate::core::warnings;
use crate::printers::{NAME, column};
use crate::strategy::Strategy;
use crate::validation::at::At;

pub const COLUMNS: &[Column] = &[
    NAME,
    column("StorageClassName", "string", "The class of the volumes.", |c, _| {
        json!(c.get_str(&["storageClassName"]))
    }),
    column("Capacity", "string", "How much there is.", |c, _| match c.get_str(&["capacity"]) {
        "" => json!("<unset>"),
        amount => json!(amount),
    }),
];

pub struct CsiStorageCapacities;

impl Strategy for CsiStorageCapacities {
    fn prepare_for_create(&self, _capacity: &mut Object) {}

    fn prepare_for_update(&self, _capacity: &mut Object, _old: &Object) {}

    fn validate(&self, capacity: &Object) -> ErrorList {
        validate(&At::root(capacity), false)
    }

    fn validate_update(&self, capacity: &Object, old: &Object) -> ErrorList {
        let (new, old) = (At::root(capacity), At::root(old));
        let mut errors = validate(&new, !old.child("nodeTopology").label_selector().is_empty());
        let fixed = ["nodeTopology", "storageClassName"].map(|key| (new.child(key), old.child(key)));
        let moved = fixed.iter().filter(|(new, old)| new.value != old.value);
        errors.extend(moved.map(|(new, _)| new.invalid("field is immutable")));
        errors
    }

    fn warnings_on_create(&self, capacity: &Object) -> Vec<String> {
        warnings::selector_of_nodes(&At::root(capacity).child("nodeTopology"))
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }
}

fn validate(root: &At<'_>, any_values: bool) -> ErrorList {
    let mut errors = root.child("nodeTopology").label_selector_with(any_values);
    errors.extend(root.child("storageClassName").subdomain());
    errors.extend(root.child("capacity").non_negative_quantity());
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::forms::check;

    #[test]
    fn capacities() {
        let old = Object::from(json!({"storageClassName": "fast", "capacity": "1Gi"}));
        check(CsiStorageCapacities.validate(&old), &[]);
        let new = Object::from(json!({"storageClassName": "slow", "capacity": "-1"}));
        check(
            CsiStorageCapacities.validate(&new),
            &["capacity: Invalid value: \"-1\": must be greater than or equal to 0"],
        );
        check(
            CsiStorageCapacities.validate_update(&new, &old),
            &[
                "capacity: Invalid value: \"-1\": must be greater than or equal to 0",
                "storageClassName: Invalid value: \"slow\": field is immutable",
            ],
        );
        let labelled = Object::from(json!({"storageClassName": "fast", "nodeTopology": {
            "matchLabels": {"beta.kubernetes.io/os": "linux"},
            "matchExpressions": [{"key": "node-role.kubernetes.io/master", "operator": "In", "values": ["x y"]}],
        }}));
        assert_eq!(
            CsiStorageCapacities.warnings_on_create(&labelled),
            [
                "nodeTopology.matchExpressions[0].key: node-role.kubernetes.io/master is use \"node-role.kubernetes.io/control-plane\" instead",
                "nodeTopology.matchLabels.beta.kubernetes.io/os: deprecated since v1.14; use \"kubernetes.io/os\" instead",
            ]
        );
        assert_eq!(CsiStorageCapacities.validate(&labelled).len(), 1);
        check(CsiStorageCapacities.validate_update(&labelled, &labelled), &[]);
    }
}
