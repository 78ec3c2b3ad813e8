//! `apiextensions.k8s.io/v1`: definitions of custom resources.

mod definition;
mod schema;
mod structural;
mod versions;

use crate::catalogue::{Access, Resource, Subresource};
use crate::printers;
use crate::strategy::Plain;

const GROUP: Resource = Resource {
    group: "apiextensions.k8s.io",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    namespaced: false,
    short_names: &[],
    categories: &["api-extensions"],
    access: Access::Stored,
    package: "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1",
    prefix: "",
    stored_as: None,
    subresources: &[],
    returns_deleted: false,
    selectable: &[],
    columns: printers::DEFAULT,
    strategy: &Plain,
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
