//! Client certificates: the subject's common name is the user, its organizations are the groups.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
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
    /// Who the client is.
    found: Found<Option<Identity>>,
    /// The same for the authority of front proxies: the common name, and when it ends.
    proxy: Found<(String, u64)>,
}

/// What the first request of a connection found, or the first since other authorities are believed.
#[derive(Debug)]
struct Found<T>(ArcSwapOption<(Arc<Roots>, Result<T, String>)>);

impl<T> Found<T> {
    fn get_or_verify(
        &self,
        roots: &Arc<Roots>,
        verify: impl FnOnce() -> Result<T, String>,
    ) -> Arc<(Arc<Roots>, Result<T, String>)> {
        if let Some(known) = &*self.0.load()
            && Arc::ptr_eq(&known.0, roots)
        {
            return known.clone();
        }
        let found = Arc::new((roots.clone(), verify()));
        self.0.store(Some(found.clone()));
        found
    }
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
        Some(Arc::new(Self {
            chain,
            found: Found(ArcSwapOption::empty()),
            proxy: Found(ArcSwapOption::empty()),
        }))
    }
}

/// The authorities whose client certificates are accepted. All clones change together.
#[derive(Clone, Debug)]
pub struct ClientCa(Arc<ArcSwap<Roots>>);

#[derive(Debug)]
struct Roots(Arc<dyn ClientCertVerifier>);

impl Roots {
    fn new(roots: impl IntoIterator<Item = CertificateDer<'static>>) -> Result<Self, rustls::Error> {
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
}

impl ClientCa {
    pub fn new(roots: impl IntoIterator<Item = CertificateDer<'static>>) -> Result<Self, rustls::Error> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(Roots::new(roots)?))))
    }

    /// Accepts those of these authorities from now on, and of no others.
    pub fn replace(
        &self,
        roots: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<(), rustls::Error> {
        self.0.store(Arc::new(Roots::new(roots)?));
        Ok(())
    }

    pub(crate) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.0.load().0.clone()
    }

    /// Who a client is by its certificate; `None` for one without a common name.
    pub fn authenticate(&self, peer: &PeerCertificates) -> Result<Option<Arc<UserInfo>>, String> {
        let now = UnixTime::now();
        let roots = self.0.load();
        let found = peer.found.get_or_verify(&roots, || identity(roots.verified(&peer.chain, now)?));
        match &found.1 {
            Ok(Some(identity)) if now.as_secs() > identity.not_after => Err(EXPIRED.into()),
            Ok(identity) => Ok(identity.as_ref().map(|identity| identity.user.clone())),
            Err(error) => Err(error.clone()),
        }
    }

    /// The common name of a front proxy's certificate, of which this is the authority.
    pub(super) fn proxy_name(&self, peer: &PeerCertificates) -> Result<String, String> {
        let now = UnixTime::now();
        let roots = self.0.load();
        let verify = || {
            let own = roots.verified(&peer.chain, now)?;
            let certificate = parse(own)?;
            let name = certificate.subject().iter_common_name().last().map(text).transpose()?;
            Ok((name.unwrap_or_default(), not_after(&certificate)))
        };
        match &peer.proxy.get_or_verify(&roots, verify).1 {
            Ok((_, not_after)) if now.as_secs() > *not_after => Err(EXPIRED.into()),
            Ok((name, _)) => Ok(name.clone()),
            Err(error) => Err(error.clone()),
        }
    }
}

impl Roots {
    /// The client's own certificate, if the chain leads to one of these authorities.
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
