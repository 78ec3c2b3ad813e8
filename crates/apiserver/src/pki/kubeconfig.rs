//! Kubeconfigs as kubeadm writes them: one cluster, one user, certificates inside.

use std::fmt;
use std::path::Path;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::certificates::{Judgement, KeyAndCertificate, Profile, judge};
use super::{PkiError, files};

/// What goes into one; shown, it is the file.
pub struct Kubeconfig<'c> {
    pub server: &'c str,
    pub ca_pem: &'c str,
    pub user: &'c str,
    pub certificate_pem: &'c str,
    pub key_pem: &'c str,
}

impl fmt::Display for Kubeconfig<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, user, .. } = self;
        let ca = STANDARD.encode(self.ca_pem);
        let certificate = STANDARD.encode(self.certificate_pem);
        let key = STANDARD.encode(self.key_pem);
        write!(
            f,
            "apiVersion: v1\n\
             clusters:\n\
             - cluster:\n\
             \x20   certificate-authority-data: {ca}\n\
             \x20   server: {server}\n\
             \x20 name: kubernetes\n\
             contexts:\n\
             - context:\n\
             \x20   cluster: kubernetes\n\
             \x20   user: {user}\n\
             \x20 name: {user}@kubernetes\n\
             current-context: {user}@kubernetes\n\
             kind: Config\n\
             preferences: {{}}\n\
             users:\n\
             - name: {user}\n\
             \x20 user:\n\
             \x20   client-certificate-data: {certificate}\n\
             \x20   client-key-data: {key}\n"
        )
    }
}

/// Whether the file is one of ours that still serves. One that somebody changed is recognized by its fields, and
/// replaced when they do not fit.
pub fn is_good(
    path: &Path,
    server: &str,
    user: &Profile,
    ca: &KeyAndCertificate,
    now: SystemTime,
) -> Result<bool, PkiError> {
    let Some(text) = files::read(path)? else { return Ok(false) };
    let field = |name: &str| {
        text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    let decoded = |name: &str| {
        let bytes = STANDARD.decode(field(name)?).ok()?;
        String::from_utf8(bytes).ok()
    };
    let certificate = decoded("client-certificate-data");
    let is_good = certificate.is_some_and(|pem| judge(&pem, user, ca, now) == Ok(Judgement::Good));
    Ok(is_good
        && field("server") == Some(server)
        && decoded("certificate-authority-data").as_ref() == Some(&ca.certificate_pem)
        && decoded("client-key-data").is_some())
}
