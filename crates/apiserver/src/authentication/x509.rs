//! Client certificates: the subject's common name is the user, its organizations are the groups.

use std::sync::{Arc, OnceLock};

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use super::{CREDENTIAL_ID_KEY, UserInfo};

/// Where the UID is in a subject (KEP-5295's attribute).
const UID_OID: &str = "1.3.6.1.4.1.57683.2";

const EXPIRED: &str = "x509: certificate has expired or is not yet valid";

/// The certificates that a client showed in the handshake of a connection, the client's own first. The
/// transport puts them into the extensions of the connection's requests, as an `Arc`. The handshake has proved
/// that the client holds the key; whether the certificates are worth anything is found out here, so that a bad
/// one gets an answer rather than a broken connection.
#[derive(Debug)]
pub struct PeerCertificates {
    chain: Vec<CertificateDer<'static>>,
    /// What the first request of the connection found.
    found: OnceLock<Result<Option<Identity>, String>>,
    /// The same for the authority of front proxies: the common name, and when it ends.
    proxy: OnceLock<Result<(String, u64), String>>,
}

#[derive(Clone, Debug)]
struct Identity {
    user: Arc<UserInfo>,
    not_after: u64,
}

impl PeerCertificates {
    /// `None` when the client showed none.
    pub fn new(chain: &[CertificateDer<'_>]) -> Option<Arc<Self>> {
        if chain.is_empty() {
            return None;
        }
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        Some(Arc::new(Self { chain, found: OnceLock::new(), proxy: OnceLock::new() }))
    }
}

/// The authority whose client certificates are accepted.
#[derive(Clone, Debug)]
pub struct ClientCa(Arc<dyn ClientCertVerifier>);

impl ClientCa {
    pub fn new(roots: impl IntoIterator<Item = CertificateDer<'static>>) -> Result<Self, rustls::Error> {
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider)
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(Self(verifier))
    }

    pub(crate) fn verifier(&self) -> &Arc<dyn ClientCertVerifier> {
        &self.0
    }

    /// Who a client is by its certificate; `None` for one without a common name.
    pub fn authenticate(&self, peer: &PeerCertificates) -> Result<Option<Arc<UserInfo>>, String> {
        let now = UnixTime::now();
        match peer.found.get_or_init(|| self.verify(&peer.chain, now)) {
            Ok(Some(identity)) if now.as_secs() > identity.not_after => Err(EXPIRED.into()),
            Ok(identity) => Ok(identity.as_ref().map(|identity| identity.user.clone())),
            Err(error) => Err(error.clone()),
        }
    }

    /// The common name of a front proxy's certificate, of which this is the authority.
    pub(super) fn proxy_name(&self, peer: &PeerCertificates) -> Result<String, String> {
        let now = UnixTime::now();
        let verify = || {
            let own = self.verified(&peer.chain, now)?;
            let certificate = parse(own)?;
            let name = certificate.subject().iter_common_name().last().map(text).transpose()?;
            Ok((name.unwrap_or_default(), not_after(&certificate)))
        };
        match peer.proxy.get_or_init(verify) {
            Ok((_, not_after)) if now.as_secs() > *not_after => Err(EXPIRED.into()),
            Ok((name, _)) => Ok(name.clone()),
            Err(error) => Err(error.clone()),
        }
    }

    fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<Option<Identity>, String> {
        identity(self.verified(chain, now)?)
    }

    /// The client's own certificate, if the chain leads to this authority.
    fn verified<'c, 'd>(
        &self,
        chain: &'c [CertificateDer<'d>],
        now: UnixTime,
    ) -> Result<&'c CertificateDer<'d>, String> {
        let [own, intermediates @ ..] = chain else { return Err("x509: no certificate".into()) };
        self.0
            .verify_client_cert(own, intermediates, now)
            .map_err(|error| format!("x509: verifying certificate failed: {error}"))?;
        Ok(own)
    }
}

fn identity(der: &CertificateDer<'_>) -> Result<Option<Identity>, String> {
    let certificate = parse(der)?;
    let Some(mut user) = user(certificate.subject())? else { return Ok(None) };
    let mut id = String::from("X509SHA256=");
    for byte in Sha256::digest(der) {
        id.push_str(&format!("{byte:02x}"));
    }
    user.extra.insert(CREDENTIAL_ID_KEY.to_owned(), vec![id]);
    Ok(Some(Identity { user: Arc::new(user.authenticated()), not_after: not_after(&certificate) }))
}

fn parse<'d>(der: &'d CertificateDer<'_>) -> Result<X509Certificate<'d>, String> {
    X509Certificate::from_der(der).map(|(_, parsed)| parsed).map_err(|error| format!("x509: {error}"))
}

fn not_after(certificate: &X509Certificate<'_>) -> u64 {
    u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default()
}

fn text(attribute: &AttributeTypeAndValue<'_>) -> Result<String, String> {
    attribute.as_str().map(str::to_owned).map_err(|error| format!("x509: {error}"))
}

fn user(subject: &X509Name<'_>) -> Result<Option<UserInfo>, String> {
    // Of several the last counts, as in Go.
    let name = subject.iter_common_name().last().map(text).transpose()?.unwrap_or_default();
    if name.is_empty() {
        return Ok(None);
    }
    let groups = subject.iter_organization().map(text).collect::<Result<_, _>>()?;
    let uids: Vec<String> = subject
        .iter_attributes()
        .filter(|attribute| attribute.attr_type().to_id_string() == UID_OID)
        .map(text)
        .collect::<Result<_, _>>()?;
    let uid = match uids.as_slice() {
        [] => String::new(),
        [uid] if uid.is_empty() => return Err("UID cannot be an empty string".into()),
        [uid] => uid.clone(),
        many => return Err(format!("expected 1 UID, but found multiple: {many:?}")),
    };
    Ok(Some(UserInfo { name, uid, groups, ..UserInfo::default() }))
}
