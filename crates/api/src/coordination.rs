//! `coordination.k8s.io/v1`: leases.

use apimachinery::Object;
use apimachinery::field::ErrorList;
use serde_json::json;

use crate::catalogue::{Access, Resource};
use crate::printers::{self, AGE, NAME, column};
use crate::strategy::{Plain, Strategy};
use crate::validation;

const GROUP: Resource = Resource {
    group: "coordination.k8s.io",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    namespaced: true,
    short_names: &[],
    categories: &[],
    access: Access::Stored,
    package: "k8s.io.api.coordination.v1",
    prefix: "",
    subresources: &[],
    returns_deleted: false,
    selectable: &[],
    columns: printers::DEFAULT,
    strategy: &Plain,
};

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
    fn prepare_for_create(&self, _lease: &mut Object) {}

    fn prepare_for_update(&self, _lease: &mut Object, _old: &Object) {}

    fn validate(&self, lease: &Object) -> ErrorList {
        validation::lease(lease)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }
}
