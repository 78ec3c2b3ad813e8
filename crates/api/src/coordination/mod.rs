//! `coordination.k8s.io/v1`: leases.

use apimachinery::Object;
use apimachinery::field::ErrorList;
use serde_json::json;

use crate::catalogue::Resource;
use crate::printers::{AGE, NAME, column};
use crate::strategy::Strategy;
use crate::validation::at::At;

const GROUP: Resource = Resource::in_group("coordination.k8s.io", "v1", "k8s.io.api.coordination.v1");

pub const RESOURCES: &[Resource] = &[Resource {
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    prefix: "leases",
    columns: &[
        NAME,
        column("Holder", "string", "Who holds the lease.", |lease, _| {
            json!(lease.get_str(&["spec", "holderIdentity"]))
        }),
        AGE,
    ],
    strategy: &Leases,
    ..GROUP
}];

struct Leases;

impl Strategy for Leases {
    fn prepare_for_create(&self, lease: &mut Object) {
        drop_coordination(lease, None);
    }

    fn prepare_for_update(&self, lease: &mut Object, old: &Object) {
        drop_coordination(lease, Some(old));
    }

    fn validate(&self, lease: &Object) -> ErrorList {
        let spec = At::root(lease).child("spec");
        let mut errors = ErrorList::new();
        let seconds = spec.child("leaseDurationSeconds");
        if seconds.int().is_some_and(|seconds| seconds <= 0) {
            errors.push(seconds.invalid("must be greater than 0"));
        }
        errors.extend(spec.child("leaseTransitions").non_negative());
        let (strategy, preferred) = (spec.child("strategy"), spec.child("preferredHolder"));
        if strategy.str().contains('/') {
            errors.extend(At::new(strategy.value, strategy.path.child("strategy")).qualified_name());
        } else {
            errors.extend(
                At::new(strategy.value, strategy.path.child("strategy"))
                    .supported(&["OldestEmulationVersion"]),
            );
        }
        if !preferred.is_empty() && strategy.is_empty() {
            errors.push(preferred.forbidden("may only be specified if `strategy` is defined"));
        }
        errors
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }
}

/// Fields of coordinated leader election, which is off, stay only where they are.
fn drop_coordination(lease: &mut Object, old: Option<&Object>) {
    for key in ["strategy", "preferredHolder"] {
        if old.is_none_or(|old| old.get(&["spec", key]).is_none()) {
            lease.remove(&["spec", key]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::forms::check;

    #[test]
    fn leases() {
        let lease = Object::from(json!({"spec": {
            "leaseDurationSeconds": 0, "leaseTransitions": -1, "preferredHolder": "a",
        }}));
        check(
            Leases.validate(&lease),
            &[
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
                "spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined",
            ],
        );
        let mut gated = lease.clone();
        Leases.prepare_for_create(&mut gated);
        assert_eq!(gated.get(&["spec", "preferredHolder"]), None);
        let mut kept = lease.clone();
        Leases.prepare_for_update(&mut kept, &lease);
        assert_eq!(kept, lease);
    }
}
