//! Issues certificates for what was approved, or says in the request's status why it does not.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use client::runner::{self, Again};
use client::{ObjectKey, Queue};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use super::request::{self, Request};
use super::{
    Authority, KUBE_APISERVER_CLIENT, KUBE_APISERVER_CLIENT_KUBELET, KUBELET_SERVING, Signing, add_condition,
    authority, has_condition, issued,
};
use crate::Shared;

const WORKERS: usize = 5;

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
enum Action {
    Leave,
    /// It asks for what its signer never issues.
    Fail(String),
    Sign(Request),
}

fn plan(object: &CertificateSigningRequest) -> Result<Action, String> {
    if issued(object).is_some()
        || !has_condition(object, "Approved")
        || has_condition(object, "Denied")
        || has_condition(object, "Failed")
    {
        return Ok(Action::Leave);
    }
    let request = Request::parse(&object.spec.request.0)?;
    let usages = object.spec.usages.as_deref().unwrap_or_default();
    let checked = match object.spec.signer_name.as_str() {
        KUBELET_SERVING => request::check_kubelet_serving(&request, usages),
        KUBE_APISERVER_CLIENT_KUBELET => request::check_kubelet_client(&request, usages),
        KUBE_APISERVER_CLIENT => request::check_client(usages),
        // the legacy signer takes everything
        _ => Ok(()),
    };
    Ok(match checked {
        Ok(()) => Action::Sign(request),
        Err(why) => Action::Fail(why),
    })
}

pub async fn run(shared: Shared, client: Client, cancel: CancellationToken) {
    let Some(signing) = shared.signing.clone() else {
        tracing::info!("no certificates are signed: no authority to sign with was given");
        return;
    };
    let requests = shared.informers.all::<CertificateSigningRequest>();
    let queue: Arc<Queue<ObjectKey>> = Arc::default();
    requests.on_change({
        let (queue, signing) = (queue.clone(), signing.clone());
        move |change| {
            if signing.signers.of(&change.object().spec.signer_name).is_some() {
                queue.add(ObjectKey::of(change.object().as_ref()));
            }
        }
    });
    requests.wait_for_sync().await;
    runner::run("csrsigning", queue, WORKERS, cancel, |key| {
        let (requests, client, signing) = (requests.clone(), client.clone(), signing.clone());
        async move {
            let Some(object) = requests.store().get_key(&key) else { return Ok(Again::OnChange) };
            let Some(object) = decide(&object, &signing)? else { return Ok(Again::OnChange) };
            let api: Api<CertificateSigningRequest> = Api::all(client);
            match api.replace_status(&key.name, &PostParams::default(), &object).await {
                Err(error) if !client::is_not_found(&error) => {
                    Err(error).context("error updating signature for csr")
                }
                _ => Ok(Again::OnChange),
            }
        }
    })
    .await;
}

/// The request with a certificate or a failure in its status; nothing when there is nothing to write.
fn decide(
    object: &CertificateSigningRequest,
    signing: &Signing,
) -> anyhow::Result<Option<CertificateSigningRequest>> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let action = plan(object).map_err(|why| anyhow!("unable to parse csr {name:?}: {why}"))?;
    let mut out = object.clone();
    match action {
        Action::Leave => return Ok(None),
        Action::Fail(why) => add_condition(&mut out, "Failed", "SignerValidationFailure", &why),
        Action::Sign(request) => {
            let Some(files) = signing.signers.of(&object.spec.signer_name) else { return Ok(None) };
            let usages = object.spec.usages.as_deref().unwrap_or_default();
            let life = authority::life(signing.duration, object.spec.expiration_seconds);
            let certificate = Authority::read(files)
                .and_then(|authority| {
                    authority.sign(&request, usages, life, Timestamp::now(), rand::random())
                })
                .context("error auto signing csr")?;
            out.status.get_or_insert_default().certificate = Some(ByteString(certificate.into_bytes()));
        }
    }
    Ok(Some(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::testing::{authority_files, object, request_pem};
    use crate::certificates::{LEGACY_UNKNOWN, SIGNING_DURATION, Signers, conditions};

    const CLIENT: &[&str] = &["digital signature", "client auth"];

    fn approved(
        signer: &str,
        common_name: &str,
        organizations: &[&str],
        usages: &[&str],
    ) -> CertificateSigningRequest {
        let mut object = object(&request_pem(common_name, organizations, &[]), signer, usages);
        add_condition(&mut object, "Approved", "By", "hand");
        object
    }

    #[test]
    fn each_signer_has_rules_of_its_own() {
        let cases = [
            (approved(KUBE_APISERVER_CLIENT, "ann", &["team"], CLIENT), None),
            (
                approved(KUBE_APISERVER_CLIENT, "ann", &["team"], &["server auth"]),
                Some("invalid usage for client certificate: server auth"),
            ),
            (approved(KUBE_APISERVER_CLIENT_KUBELET, "system:node:a", &["system:nodes"], CLIENT), None),
            (
                approved(KUBE_APISERVER_CLIENT_KUBELET, "ann", &["system:nodes"], CLIENT),
                Some("subject common name does not begin with system:node:"),
            ),
            (
                approved(KUBELET_SERVING, "system:node:a", &["system:nodes"], CLIENT),
                Some("DNS or IP subjectAltName is required"),
            ),
            (approved(LEGACY_UNKNOWN, "anybody", &["anything"], &["cert sign"]), None),
        ];
        for (object, failure) in cases {
            match (plan(&object).unwrap(), failure) {
                (Action::Sign(_), None) => {}
                (Action::Fail(why), Some(wanted)) => assert_eq!(why, wanted),
                (action, wanted) => panic!("{:?}: {action:?}, not {wanted:?}", object.spec),
            }
        }
    }

    #[test]
    fn only_what_is_approved_and_open_is_signed() {
        let open = approved(KUBE_APISERVER_CLIENT, "ann", &[], CLIENT);
        assert!(matches!(plan(&open), Ok(Action::Sign(_))));
        for kind in ["Denied", "Failed"] {
            let mut object = open.clone();
            add_condition(&mut object, kind, "By", "hand");
            assert_eq!(plan(&object), Ok(Action::Leave), "{kind}");
        }
        let mut object = open.clone();
        object.status.as_mut().unwrap().certificate = Some(ByteString(b"a".to_vec()));
        assert_eq!(plan(&object), Ok(Action::Leave));
        let mut object = open;
        object.status = None;
        assert_eq!(plan(&object), Ok(Action::Leave));
    }

    #[test]
    fn the_status_says_what_came_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let files = authority_files(folder.path());
        let signing = Signing::new(Some(files.clone()), Signers::default(), SIGNING_DURATION).unwrap();
        let fine = approved(KUBE_APISERVER_CLIENT, "ann", &[], CLIENT);
        let signed = decide(&fine, &signing).unwrap().unwrap();
        assert!(issued(&signed).unwrap().starts_with(b"-----BEGIN CERTIFICATE-----\n"));
        let wrong = approved(KUBE_APISERVER_CLIENT, "ann", &[], &["server auth", "client auth"]);
        let failed = decide(&wrong, &signing).unwrap().unwrap();
        let condition = conditions(&failed).last().unwrap();
        assert_eq!((condition.type_.as_str(), condition.status.as_str()), ("Failed", "True"));
        assert_eq!(condition.reason.as_deref(), Some("SignerValidationFailure"));
        assert_eq!(condition.message.as_deref(), Some("invalid usage for client certificate: server auth"));
        let mut foreign = fine.clone();
        foreign.spec.signer_name = "example.com/own".to_owned();
        assert!(decide(&foreign, &signing).unwrap().is_none());
        std::fs::write(&files.key, "lost").unwrap();
        assert!(
            format!("{:#}", decide(&fine, &signing).unwrap_err())
                .starts_with("error auto signing csr: error")
        );
    }
}
