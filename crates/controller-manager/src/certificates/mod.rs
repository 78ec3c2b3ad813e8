//! Requests for certificates: [`approve`] lets kubelets have theirs, [`sign`] issues what was approved, [`clean`]
//! takes away what is over. [`request`] reads what is asked for, [`authority`] makes certificates of it.

mod approve;
mod authority;
mod clean;
mod request;
mod sign;
#[cfg(test)]
mod testing;
mod usages;

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};

pub use approve::run as run_approver;
pub use authority::Authority;
pub use clean::run as run_cleaner;
pub use request::Request;
pub use sign::run as run_signer;

const KUBE_APISERVER_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBE_APISERVER_CLIENT_KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";

/// Upstream's default of `--cluster-signing-duration`.
pub const SIGNING_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);

/// A certificate and its key in files. They are read for each signature, so that new ones count at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl AuthorityFiles {
    /// Two files, or nothing where neither is given.
    pub fn of(certificate: Option<&Path>, key: Option<&Path>) -> anyhow::Result<Option<Self>> {
        match (certificate, key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => {
                Ok(Some(Self { certificate: certificate.to_owned(), key: key.to_owned() }))
            }
            _ => anyhow::bail!("a certificate and its key are given together"),
        }
    }
}

/// Who signs for which of the cluster's signers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signers {
    pub kubelet_serving: Option<AuthorityFiles>,
    pub kubelet_client: Option<AuthorityFiles>,
    pub kube_apiserver_client: Option<AuthorityFiles>,
    pub legacy_unknown: Option<AuthorityFiles>,
}

impl Signers {
    /// One authority for all of them.
    pub fn all(files: AuthorityFiles) -> Self {
        Self {
            kubelet_serving: Some(files.clone()),
            kubelet_client: Some(files.clone()),
            kube_apiserver_client: Some(files.clone()),
            legacy_unknown: Some(files),
        }
    }

    /// The authority of a signer's name; `None` for signers that are somebody else's.
    fn of(&self, signer: &str) -> Option<&AuthorityFiles> {
        match signer {
            KUBELET_SERVING => self.kubelet_serving.as_ref(),
            KUBE_APISERVER_CLIENT_KUBELET => self.kubelet_client.as_ref(),
            KUBE_APISERVER_CLIENT => self.kube_apiserver_client.as_ref(),
            LEGACY_UNKNOWN => self.legacy_unknown.as_ref(),
            _ => None,
        }
    }

    fn each(&self) -> impl Iterator<Item = &AuthorityFiles> {
        [&self.kubelet_serving, &self.kubelet_client, &self.kube_apiserver_client, &self.legacy_unknown]
            .into_iter()
            .flatten()
    }
}

/// How requests are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signing {
    signers: Signers,
    /// The longest life of a certificate; requests may ask for less.
    duration: Duration,
}

impl Signing {
    /// Of one authority for all signers, or of one each: a signer without any issues nothing.
    pub fn new(
        all: Option<AuthorityFiles>,
        each: Signers,
        duration: Duration,
    ) -> Result<Self, anyhow::Error> {
        let signers = match all {
            Some(_) if each != Signers::default() => {
                anyhow::bail!("cannot specify default and per controller certs at the same time")
            }
            Some(files) => Signers::all(files),
            None => each,
        };
        // what cannot be used is said at the start
        for files in signers.each() {
            Authority::read(files)?;
        }
        Ok(Self { signers, duration })
    }
}

fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    request.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

fn has_condition(request: &CertificateSigningRequest, kind: &str) -> bool {
    conditions(request).iter().any(|condition| condition.type_ == kind)
}

/// The certificate in a request's status, as PEM.
fn issued(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let certificate = request.status.as_ref()?.certificate.as_ref()?;
    Some(certificate.0.as_slice()).filter(|pem| !pem.is_empty())
}

/// Adds a condition to a request's status.
fn add_condition(request: &mut CertificateSigningRequest, kind: &str, reason: &str, message: &str) {
    let status = request.status.get_or_insert_default();
    status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..CertificateSigningRequestCondition::default()
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signers_have_one_authority_or_each_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let files = testing::authority_files(folder.path());
        let signing = Signing::new(Some(files.clone()), Signers::default(), SIGNING_DURATION).unwrap();
        for signer in [KUBELET_SERVING, KUBE_APISERVER_CLIENT, KUBE_APISERVER_CLIENT_KUBELET, LEGACY_UNKNOWN]
        {
            assert_eq!(signing.signers.of(signer), Some(&files), "{signer}");
        }
        assert_eq!(signing.signers.of("example.com/signer"), None);
        let only = Signers { kubelet_serving: Some(files.clone()), ..Signers::default() };
        let signing = Signing::new(None, only.clone(), SIGNING_DURATION).unwrap();
        assert_eq!(signing.signers.of(KUBELET_SERVING), Some(&files));
        assert_eq!(signing.signers.of(KUBE_APISERVER_CLIENT), None);
        let both = Signing::new(Some(files.clone()), only, SIGNING_DURATION).unwrap_err().to_string();
        assert_eq!(both, "cannot specify default and per controller certs at the same time");
        let missing = AuthorityFiles { key: folder.path().join("missing.key"), ..files };
        let error =
            Signing::new(Some(missing), Signers::default(), SIGNING_DURATION).unwrap_err().to_string();
        assert!(error.starts_with("error reading CA key file") && error.contains("missing.key"), "{error}");
    }
}
