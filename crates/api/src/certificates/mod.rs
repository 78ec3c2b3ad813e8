//! `certificates.k8s.io/v1`: requests for certificates.

mod pem;
mod request;
mod rules;

pub use pem::request_subject;

use crate::catalogue::{Access, Resource, Selectable, Subresource};
use crate::printers;
use crate::strategy::Plain;

const GROUP: Resource = Resource {
    group: "certificates.k8s.io",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    namespaced: false,
    short_names: &[],
    categories: &[],
    access: Access::Stored,
    package: "k8s.io.api.certificates.v1",
    prefix: "",
    stored_as: None,
    subresources: &[],
    returns_deleted: false,
    selectable: &[],
    columns: printers::DEFAULT,
    strategy: &Plain,
};

pub const RESOURCES: &[Resource] = &[Resource {
    kind: "CertificateSigningRequest",
    plural: "certificatesigningrequests",
    singular: "certificatesigningrequest",
    short_names: &["csr"],
    prefix: "certificatesigningrequests",
    subresources: &[
        Subresource {
            name: "approval",
            kind: "CertificateSigningRequest",
            group_version: None,
            verbs: &["get", "patch", "update"],
        },
        Subresource::status("CertificateSigningRequest"),
    ],
    selectable: &[Selectable {
        name: "spec.signerName",
        read: |request| request.get_str(&["spec", "signerName"]).to_owned(),
    }],
    columns: request::COLUMNS,
    strategy: &request::CertificateSigningRequests,
    ..GROUP
}];
