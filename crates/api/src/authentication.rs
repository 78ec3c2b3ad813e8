//! `authentication.k8s.io/v1`: reviews, which the API server answers and never stores.

use crate::catalogue::{Access, Resource};
use crate::printers;
use crate::strategy::Plain;

const GROUP: Resource = Resource {
    group: "authentication.k8s.io",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    namespaced: false,
    short_names: &[],
    categories: &[],
    access: Access::CreateOnly,
    package: "k8s.io.api.authentication.v1",
    prefix: "",
    stored_as: None,
    subresources: &[],
    returns_deleted: false,
    selectable: &[],
    columns: printers::DEFAULT,
    strategy: &Plain,
};

pub const RESOURCES: &[Resource] = &[
    Resource {
        kind: "SelfSubjectReview",
        plural: "selfsubjectreviews",
        singular: "selfsubjectreview",
        ..GROUP
    },
    Resource { kind: "TokenReview", plural: "tokenreviews", singular: "tokenreview", ..GROUP },
];
