//! `resource.k8s.io/v1`: devices that nodes publish, classes of them, and claims.

mod claim;
mod class;
mod forms;
mod policy;
mod rights;
mod slice;
mod status;
mod template;

use crate::catalogue::{Resource, Selectable, Subresource};

const GROUP: Resource = Resource {
    namespaced: false,
    returns_deleted: true,
    ..Resource::in_group("resource.k8s.io", "v1", "k8s.io.api.resource.v1")
};

pub const RESOURCES: &[Resource] = &[
    Resource {
        kind: "DeviceClass",
        plural: "deviceclasses",
        singular: "deviceclass",
        prefix: "deviceclasses",
        strategy: &class::DeviceClasses,
        ..GROUP
    },
    Resource {
        kind: "ResourceClaim",
        plural: "resourceclaims",
        singular: "resourceclaim",
        namespaced: true,
        prefix: "resourceclaims",
        subresources: &[Subresource::status("ResourceClaim")],
        columns: claim::COLUMNS,
        strategy: &claim::ResourceClaims,
        ..GROUP
    },
    Resource {
        kind: "ResourceClaimTemplate",
        plural: "resourceclaimtemplates",
        singular: "resourceclaimtemplate",
        namespaced: true,
        prefix: "resourceclaimtemplates",
        strategy: &template::ResourceClaimTemplates,
        ..GROUP
    },
    Resource {
        kind: "ResourceSlice",
        plural: "resourceslices",
        singular: "resourceslice",
        prefix: "resourceslices",
        selectable: &[
            Selectable {
                name: "spec.nodeName",
                read: |slice| slice.get_str(&["spec", "nodeName"]).to_owned(),
            },
            Selectable { name: "spec.driver", read: |slice| slice.get_str(&["spec", "driver"]).to_owned() },
        ],
        columns: slice::COLUMNS,
        strategy: &slice::ResourceSlices,
        ..GROUP
    },
];
