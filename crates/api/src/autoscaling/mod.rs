//! The autoscaling group: HorizontalPodAutoscalers in two versions over one stored form, `autoscaling/v2`.

mod autoscaler;
mod conversion;
mod metrics;
mod printer;

pub use printer::SCALE_COLUMNS;

use crate::catalogue::{Resource, StoredAs, Subresource};

const GROUP: Resource =
    Resource { categories: &["all"], ..Resource::in_group("autoscaling", "v2", "k8s.io.api.autoscaling.v2") };

pub const RESOURCES: &[Resource] = &[
    Resource {
        kind: "HorizontalPodAutoscaler",
        plural: "horizontalpodautoscalers",
        singular: "horizontalpodautoscaler",
        short_names: &["hpa"],
        prefix: "horizontalpodautoscalers",
        subresources: &[Subresource::status("HorizontalPodAutoscaler")],
        columns: printer::COLUMNS,
        strategy: &autoscaler::Autoscalers,
        ..GROUP
    },
    Resource {
        version: "v1",
        kind: "HorizontalPodAutoscaler",
        plural: "horizontalpodautoscalers",
        singular: "horizontalpodautoscaler",
        short_names: &["hpa"],
        package: "k8s.io.api.autoscaling.v1",
        prefix: "horizontalpodautoscalers",
        stored_as: Some(StoredAs {
            group: "autoscaling",
            version: "v2",
            kind: "HorizontalPodAutoscaler",
            to_stored: conversion::to_v2,
            from_stored: conversion::to_v1,
        }),
        subresources: &[Subresource::status("HorizontalPodAutoscaler")],
        columns: printer::V1_COLUMNS,
        strategy: &autoscaler::AutoscalersV1,
        ..GROUP
    },
];
