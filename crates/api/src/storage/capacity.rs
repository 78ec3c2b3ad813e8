//! How much storage a driver has where.

use apimachinery::Object;
use apimachinery::field::ErrorList;
use serde_json::json;

use crate::catalogue::Column;
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
        let root = At::root(capacity);
        let mut errors = root.child("nodeTopology").label_selector();
        errors.extend(root.child("storageClassName").subdomain());
        errors.extend(root.child("capacity").non_negative_quantity());
        errors
    }

    fn validate_update(&self, capacity: &Object, old: &Object) -> ErrorList {
        let (new, old) = (At::root(capacity), At::root(old));
        ["nodeTopology", "storageClassName"]
            .iter()
            .map(|key| (new.child(key), old.child(key)))
            .filter(|(new, old)| new.value != old.value)
            .map(|(new, _)| new.invalid("field is immutable"))
            .collect()
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }
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
            &["storageClassName: Invalid value: \"slow\": field is immutable"],
        );
    }
}
