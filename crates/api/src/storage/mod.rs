//! `storage.k8s.io/v1`: classes of volumes, drivers and what they attach.

mod attachment;
mod capacity;
mod class;
mod csi_driver;
mod csi_node;

use crate::catalogue::{Resource, Subresource};

const GROUP: Resource =
    Resource { namespaced: false, ..Resource::in_group("storage.k8s.io", "v1", "k8s.io.api.storage.v1") };

pub const RESOURCES: &[Resource] = &[
    Resource {
        kind: "CSIDriver",
        plural: "csidrivers",
        singular: "csidriver",
        prefix: "csidrivers",
        returns_deleted: true,
        columns: csi_driver::COLUMNS,
        strategy: &csi_driver::CsiDrivers,
        ..GROUP
    },
    Resource {
        kind: "CSINode",
        plural: "csinodes",
        singular: "csinode",
        prefix: "csinodes",
        returns_deleted: true,
        columns: csi_node::COLUMNS,
        strategy: &csi_node::CsiNodes,
        ..GROUP
    },
    Resource {
        kind: "CSIStorageCapacity",
        plural: "csistoragecapacities",
        singular: "csistoragecapacity",
        namespaced: true,
        prefix: "csistoragecapacities",
        columns: capacity::COLUMNS,
        strategy: &capacity::CsiStorageCapacities,
        ..GROUP
    },
    Resource {
        kind: "StorageClass",
        plural: "storageclasses",
        singular: "storageclass",
        short_names: &["sc"],
        prefix: "storageclasses",
        returns_deleted: true,
        columns: class::STORAGE_COLUMNS,
        strategy: &class::StorageClasses,
        ..GROUP
    },
    Resource {
        kind: "VolumeAttachment",
        plural: "volumeattachments",
        singular: "volumeattachment",
        prefix: "volumeattachments",
        subresources: &[Subresource::status("VolumeAttachment")],
        returns_deleted: true,
        columns: attachment::COLUMNS,
        strategy: &attachment::VolumeAttachments,
        ..GROUP
    },
    Resource {
        kind: "VolumeAttributesClass",
        plural: "volumeattributesclasses",
        singular: "volumeattributesclass",
        short_names: &["vac"],
        prefix: "volumeattributesclasses",
        returns_deleted: true,
        columns: class::ATTRIBUTES_COLUMNS,
        strategy: &class::VolumeAttributesClasses,
        ..GROUP
    },
];
