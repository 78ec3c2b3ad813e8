//! `authorization.k8s.io/v1`: access reviews, which the API server answers and never stores.

use crate::catalogue::{Access, Resource};

const GROUP: Resource = Resource {
    namespaced: false,
    access: Access::CreateOnly,
    ..Resource::in_group("authorization.k8s.io", "v1", "k8s.io.api.authorization.v1")
};

pub const RESOURCES: &[Resource] = &[
    Resource {
        kind: "LocalSubjectAccessReview",
        plural: "localsubjectaccessreviews",
        singular: "localsubjectaccessreview",
        namespaced: true,
        ..GROUP
    },
    Resource {
        kind: "SelfSubjectAccessReview",
        plural: "selfsubjectaccessreviews",
        singular: "selfsubjectaccessreview",
        ..GROUP
    },
    Resource {
        kind: "SelfSubjectRulesReview",
        plural: "selfsubjectrulesreviews",
        singular: "selfsubjectrulesreview",
        ..GROUP
    },
    Resource {
        kind: "SubjectAccessReview",
        plural: "subjectaccessreviews",
        singular: "subjectaccessreview",
        ..GROUP
    },
];
