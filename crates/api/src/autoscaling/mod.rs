//! The autoscaling group: HorizontalPodAutoscalers in two versions over one stored form, `autoscaling/v2`.

mod autoscaler;
mod conversion;
mod metrics;
mod printer;

use crate::catalogue::{Access, Resource, StoredAs, Subresource};
use crate::printers;
use crate::strategy::Plain;

const GROUP: Resource = Resource {
    group: "autoscaling",
    version: "v2",
    kind: "",
    plural: "",
    singular: "",
    namespaced: true,
    short_names: &[],
    categories: &["all"],
    access: Access::Stored,
    package: "k8s.io.api.autoscaling.v2",
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
