//! `certificates.k8s.io/v1`: requests for certificates.

mod pem;
mod request;
mod rules;
mod signature;

pub(crate) use pem::check_authorities;
pub use pem::{request_der, request_subject};
pub use signature::verify as verify_request;

use crate::catalogue::{Resource, Selectable, Subresource};

const GROUP: Resource = Resource {
    namespaced: false,
    ..Resource::in_group("certificates.k8s.io", "v1", "k8s.io.api.certificates.v1")
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
