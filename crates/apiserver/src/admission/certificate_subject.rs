//! CertificateSubjectRestriction: nobody asks for a client certificate of the group that may do everything.

use apimachinery::Status;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Attributes, Operation};
use crate::authentication::SYSTEM_PRIVILEGED_GROUP;

const SIGNER: &str = "kubernetes.io/kube-apiserver-client";

pub fn validate(attributes: &Attributes<'_>) -> Result<(), Status> {
    if !attributes.is_in("certificates.k8s.io", "certificatesigningrequests", "")
        || attributes.operation != Operation::Create
    {
        return Ok(());
    }
    let Some(request) = attributes.object.as_ref().filter(|it| it.get_str(&["spec", "signerName"]) == SIGNER)
    else {
        return Ok(());
    };
    let pem = STANDARD.decode(request.get_str(&["spec", "request"])).unwrap_or_default();
    let groups = api::certificates::request_subject(&pem)
        .map_err(|why| attributes.forbidden(format!("failed to parse CSR: {why}")))?;
    if groups.iter().any(|group| group == SYSTEM_PRIVILEGED_GROUP) {
        let why = format!("use of {SIGNER} signer with {SYSTEM_PRIVILEGED_GROUP} group is not allowed");
        return Err(attributes.forbidden(why));
    }
    Ok(())
}
