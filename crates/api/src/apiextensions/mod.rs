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
mod value;
mod versions;
mod walk;

use crate::catalogue::{Resource, Subresource};

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
    subresources: &[Subresource::status("CustomResourceDefinition")],
    strategy: &definition::CustomResourceDefinitions,
    ..GROUP
}];
