//! `apiextensions.k8s.io/v1`: definitions of custom resources.

mod conversion;
mod defaults;
mod definition;
mod embedded;
mod formats;
mod go_regexp;
mod options;
mod schema;
mod selectable;
mod structural;
#[cfg(test)]
mod tests;
mod v1beta1;
mod value;
mod versions;
mod walk;

use crate::catalogue::{Encoding, OtherVersion, Resource, Subresource};

const GROUP: Resource = Resource {
    namespaced: false,
    categories: &["api-extensions"],
    ..Resource::in_group(
        "apiextensions.k8s.io",
        "v1",
        "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1",
    )
};

pub const RESOURCES: &[Resource] = &[Resource {
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
    singular: "customresourcedefinition",
    short_names: &["crd", "crds"],
    prefix: "apiextensions.k8s.io/customresourcedefinitions",
    encoding: Encoding::JsonOf(OtherVersion {
        version: "v1beta1",
        package: "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1beta1",
        to_stored: v1beta1::from_v1,
        from_stored: v1beta1::to_v1,
    }),
    subresources: &[Subresource::status("CustomResourceDefinition")],
    strategy: &definition::CustomResourceDefinitions,
    ..GROUP
}];
