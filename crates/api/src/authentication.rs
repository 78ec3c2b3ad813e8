//! `authentication.k8s.io/v1`: reviews, which the API server answers and never stores.

use crate::catalogue::{Access, Resource};

const GROUP: Resource = Resource {
    namespaced: false,
    access: Access::CreateOnly,
    ..Resource::in_group("authentication.k8s.io", "v1", "k8s.io.api.authentication.v1")
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
