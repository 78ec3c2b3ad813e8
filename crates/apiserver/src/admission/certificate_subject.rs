//! CertificateSubjectRestriction: nobody asks for a client certificate of `system:masters`.

use apimachinery::{Object, Status};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use x509_parser::prelude::{FromDer, X509CertificationRequest, X509Name};

use super::{Attributes, Operation};

const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const FORBIDDEN: &str = "system:masters";

pub fn validate(attributes: &Attributes<'_>) -> Result<(), Status> {
    let requests = attributes.is_in("certificates.k8s.io", "certificatesigningrequests", "");
    let Some(object) = attributes.object.as_ref() else { return Ok(()) };
    if !requests
        || attributes.operation != Operation::Create
        || object.get_str(&["spec", "signerName"]) != SIGNER
    {
        return Ok(());
    }
    match organizations(object) {
        Err(why) => Err(attributes.forbidden(format_args!("failed to parse CSR: {why}"))),
        Ok(groups) if groups.iter().any(|group| group == FORBIDDEN) => Err(attributes
            .forbidden(format_args!("use of {SIGNER} signer with {FORBIDDEN} group is not allowed"))),
        Ok(_) => Ok(()),
    }
}

/// The organizations of the subject that a request asks for, which are groups of the user.
fn organizations(object: &Object) -> Result<Vec<String>, String> {
    with_subject(object, |subject| {
        let groups = subject.iter_organization().filter_map(|group| group.as_str().ok());
        groups.map(str::to_owned).collect()
    })
}

/// The last common name of the subject that a request asks for, as Go reads it.
pub fn common_name(object: &Object) -> Result<String, String> {
    with_subject(object, |subject| {
        let names = subject.iter_common_name().filter_map(|name| name.as_str().ok());
        names.last().unwrap_or_default().to_owned()
    })
}

fn with_subject<T>(object: &Object, read: impl Fn(&X509Name<'_>) -> T) -> Result<T, String> {
    const MALFORMED: &str = "PEM block type must be CERTIFICATE REQUEST";
    let pem = STANDARD.decode(object.get_str(&["spec", "request"])).map_err(|_| MALFORMED)?;
    let (_, block) = x509_parser::pem::parse_x509_pem(&pem).map_err(|_| MALFORMED)?;
    if block.label != "CERTIFICATE REQUEST" {
        return Err(MALFORMED.into());
    }
    let (_, request) =
        X509CertificationRequest::from_der(&block.contents).map_err(|error| error.to_string())?;
    Ok(read(&request.certification_request_info.subject))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(group: &str) -> Object {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, group);
        let key = rcgen::KeyPair::generate().expect("a key");
        let pem = params.serialize_request(&key).expect("a request").pem().expect("PEM");
        Object::from(json!({"spec": {"request": STANDARD.encode(pem), "signerName": SIGNER}}))
    }

    #[test]
    fn groups_are_read_from_requests() {
        for group in ["developers", FORBIDDEN] {
            assert_eq!(organizations(&request(group)), Ok(vec![group.to_owned()]));
        }
        let wrong = Object::from(json!({"spec": {"request": STANDARD.encode("nonsense")}}));
        assert_eq!(organizations(&wrong), Err("PEM block type must be CERTIFICATE REQUEST".into()));
    }
}
