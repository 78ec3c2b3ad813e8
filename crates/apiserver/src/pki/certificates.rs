//! Making certificates, and telling whether one that is there will do.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{PkiError, RENEW_BEFORE, files};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Certificates start a little in the past, for clocks that are slow.
const BACKDATE: Duration = Duration::from_secs(5 * 60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Server,
    Client,
}

/// What a certificate has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    pub common_name: String,
    pub organizations: Vec<String>,
    /// DNS names and addresses.
    pub sans: Vec<String>,
    pub usage: Usage,
}

impl Profile {
    pub fn client(user: &str, groups: &[&str]) -> Self {
        let organizations = groups.iter().map(|group| (*group).to_owned()).collect();
        Self { common_name: user.to_owned(), organizations, sans: Vec::new(), usage: Usage::Client }
    }

    pub fn server(name: &str, sans: Vec<String>) -> Self {
        Self { common_name: name.to_owned(), organizations: Vec::new(), sans, usage: Usage::Server }
    }
}

/// A key with its certificate, as PEM.
#[derive(Clone)]
pub struct KeyAndCertificate {
    pub certificate_pem: String,
    pub key_pem: String,
}

impl KeyAndCertificate {
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, PkiError> {
        CertificateDer::pem_slice_iter(self.certificate_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| PkiError::Tls(error.to_string()))
    }

    pub fn key(&self) -> Result<PrivateKeyDer<'static>, PkiError> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map_err(|error| PkiError::Tls(error.to_string()))
    }
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn parameters(
    profile: &Profile,
    now: SystemTime,
    lifetime: Duration,
) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(profile.sans.clone())?;
    let mut subject = DistinguishedName::new();
    for organization in &profile.organizations {
        subject.push(DnType::OrganizationName, organization.as_str());
    }
    subject.push(DnType::CommonName, profile.common_name.as_str());
    parameters.distinguished_name = subject;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    parameters.not_before = epoch + since_epoch(now).saturating_sub(BACKDATE);
    parameters.not_after = epoch + since_epoch(now) + lifetime;
    Ok(parameters)
}

/// Makes a key and a certificate signed by the authority.
pub fn issue(
    profile: &Profile,
    ca: &KeyAndCertificate,
    now: SystemTime,
) -> Result<KeyAndCertificate, PkiError> {
    sign(profile, ca, KeyPair::generate(), now)
}

fn sign(
    profile: &Profile,
    ca: &KeyAndCertificate,
    key: Result<KeyPair, rcgen::Error>,
    now: SystemTime,
) -> Result<KeyAndCertificate, PkiError> {
    let make = || -> Result<KeyAndCertificate, rcgen::Error> {
        let key = key?;
        let mut parameters = parameters(profile, now, YEAR)?;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        parameters.extended_key_usages = vec![match profile.usage {
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        parameters.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_ca_cert_pem(&ca.certificate_pem, KeyPair::from_pem(&ca.key_pem)?)?;
        let certificate = parameters.signed_by(&key, &issuer)?;
        Ok(KeyAndCertificate { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    };
    make().map_err(|error| PkiError::Certificate {
        name: profile.common_name.clone(),
        reason: error.to_string(),
    })
}

fn make_ca(
    common_name: &str,
    key: Result<KeyPair, rcgen::Error>,
    now: SystemTime,
) -> Result<KeyAndCertificate, rcgen::Error> {
    let key = key?;
    let mut profile = Profile::server(common_name, vec![common_name.to_owned()]);
    profile.organizations.clear();
    let mut parameters = parameters(&profile, now, CA_LIFETIME)?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyCertSign,
    ];
    let certificate = parameters.self_signed(&key)?;
    Ok(KeyAndCertificate { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

/// Reads `NAME.crt` and `NAME.key`; `None` when neither is there.
fn load(dir: &Path, name: &str) -> Result<Option<KeyAndCertificate>, PkiError> {
    let (certificate_path, key_path) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
    let found = match (files::read(&certificate_path)?, files::read(&key_path)?) {
        (None, None) => return Ok(None),
        (Some(certificate_pem), Some(key_pem)) => KeyAndCertificate { certificate_pem, key_pem },
        (Some(_), None) => return Err(PkiError::Incomplete { present: certificate_path, missing: key_path }),
        // The key is written first: an interrupted start leaves it alone.
        (None, Some(_)) => return Ok(None),
    };
    let unusable = |path: &Path, reason: String| PkiError::Unusable { path: path.to_owned(), reason };
    let key = KeyPair::from_pem(&found.key_pem).map_err(|error| unusable(&key_path, error.to_string()))?;
    let matches = with_certificate(&found.certificate_pem, |certificate| {
        certificate.public_key().subject_public_key.data.as_ref() == key.der_bytes()
    });
    match matches {
        Err(reason) => Err(unusable(&certificate_path, reason)),
        Ok(false) => {
            Err(unusable(&certificate_path, format!("it does not belong to {}", key_path.display())))
        }
        Ok(true) => Ok(Some(found)),
    }
}

/// The key that is there without a certificate, or a new one: a key is never overwritten for want of the other.
/// A certificate that is made anew gets a new key as well.
fn key_for(dir: &Path, name: &str) -> Result<Result<KeyPair, rcgen::Error>, PkiError> {
    let path = dir.join(format!("{name}.key"));
    match files::read(&path)? {
        Some(pem) if files::read(&dir.join(format!("{name}.crt")))?.is_none() => KeyPair::from_pem(&pem)
            .map(Ok)
            .map_err(|error| PkiError::Unusable { path, reason: error.to_string() }),
        _ => Ok(KeyPair::generate()),
    }
}

fn save(dir: &Path, name: &str, pair: &KeyAndCertificate) -> Result<(), PkiError> {
    files::write(&dir.join(format!("{name}.key")), pair.key_pem.as_bytes(), files::PRIVATE)?;
    files::write(&dir.join(format!("{name}.crt")), pair.certificate_pem.as_bytes(), files::PUBLIC)
}

fn with_certificate<T>(pem: &str, read: impl FnOnce(&X509Certificate<'_>) -> T) -> Result<T, String> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|error| error.to_string())?;
    Ok(read(&certificate))
}

/// An authority is never replaced: everything that trusts it would be cut off.
pub fn load_or_create_ca(
    dir: &Path,
    name: &str,
    common_name: &str,
    now: SystemTime,
) -> Result<KeyAndCertificate, PkiError> {
    if let Some(found) = load(dir, name)? {
        let path = dir.join(format!("{name}.crt"));
        let expired = with_certificate(&found.certificate_pem, |certificate| expires_by(certificate, now));
        return match expired {
            Err(reason) => Err(PkiError::Unusable { path, reason }),
            Ok(true) => Err(PkiError::Unusable { path, reason: "the certificate has expired".into() }),
            Ok(false) => Ok(found),
        };
    }
    let made = make_ca(common_name, key_for(dir, name)?, now)
        .map_err(|error| PkiError::Certificate { name: common_name.to_owned(), reason: error.to_string() })?;
    save(dir, name, &made)?;
    Ok(made)
}

fn expires_by(certificate: &X509Certificate<'_>, time: SystemTime) -> bool {
    let end = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
    end <= since_epoch(time).as_secs()
}

pub fn load_or_create(
    dir: &Path,
    name: &str,
    profile: &Profile,
    ca: &KeyAndCertificate,
    now: SystemTime,
) -> Result<KeyAndCertificate, PkiError> {
    if let Some(found) = load(dir, name)? {
        match judge(&found.certificate_pem, profile, ca, now) {
            Ok(Judgement::Good) => return Ok(found),
            Ok(Judgement::Outdated) => {}
            Ok(Judgement::Foreign) => {
                let reason = "it is not signed by this cluster's authority".to_owned();
                return Err(PkiError::Unusable { path: dir.join(format!("{name}.crt")), reason });
            }
            Err(reason) => {
                return Err(PkiError::Unusable { path: dir.join(format!("{name}.crt")), reason });
            }
        }
    }
    let made = sign(profile, ca, key_for(dir, name)?, now)?;
    save(dir, name, &made)?;
    Ok(made)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    Good,
    /// Ours, but it ends soon or says too little.
    Outdated,
    /// Of another authority.
    Foreign,
}

/// Whether a certificate will do for a purpose.
pub fn judge(
    certificate_pem: &str,
    profile: &Profile,
    ca: &KeyAndCertificate,
    now: SystemTime,
) -> Result<Judgement, String> {
    let authority = with_certificate(&ca.certificate_pem, |ca| {
        (ca.subject().as_raw().to_vec(), key_identifier(ca, Whose::Own))
    })?;
    with_certificate(certificate_pem, |certificate| {
        let (subject, key) = &authority;
        // Forging this gains nothing: whoever can write our files needs no forgery, and peers check signatures.
        let is_ours = certificate.issuer().as_raw() == subject
            && key.is_some()
            && key_identifier(certificate, Whose::Authority) == *key;
        if !is_ours {
            Judgement::Foreign
        } else if expires_by(certificate, now + RENEW_BEFORE) || !says(certificate, profile) {
            Judgement::Outdated
        } else {
            Judgement::Good
        }
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Own,
    Authority,
}

/// The identifier that a certificate gives for its own key, or for that of who signed it.
fn key_identifier(certificate: &X509Certificate<'_>, whose: Whose) -> Option<Vec<u8>> {
    certificate.extensions().iter().find_map(|extension| match (whose, extension.parsed_extension()) {
        (Whose::Own, ParsedExtension::SubjectKeyIdentifier(id)) => Some(id.0.to_vec()),
        (Whose::Authority, ParsedExtension::AuthorityKeyIdentifier(id)) => {
            id.key_identifier.as_ref().map(|id| id.0.to_vec())
        }
        _ => None,
    })
}

fn says(certificate: &X509Certificate<'_>, profile: &Profile) -> bool {
    let subject = certificate.subject();
    let name = subject.iter_common_name().last().and_then(|name| name.as_str().ok());
    let organizations: Vec<&str> =
        subject.iter_organization().filter_map(|organization| organization.as_str().ok()).collect();
    let sans = match certificate.subject_alternative_name() {
        Ok(Some(extension)) => extension.value.general_names.as_slice(),
        _ => &[],
    };
    let has = |wanted: &String| {
        let address = wanted.parse::<IpAddr>().ok().map(|address| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        });
        sans.iter().any(|san| match (san, &address) {
            (GeneralName::IPAddress(found), Some(address)) => found == address,
            (GeneralName::DNSName(found), None) => found == wanted,
            _ => false,
        })
    };
    name == Some(profile.common_name.as_str())
        && organizations == profile.organizations
        && profile.sans.iter().all(has)
}

/// Reads or makes a key pair without a certificate: `NAME.key` and `NAME.pub`.
pub fn load_or_create_key(dir: &Path, name: &str) -> Result<(String, String), PkiError> {
    let (key_path, public_path) = (dir.join(format!("{name}.key")), dir.join(format!("{name}.pub")));
    match (files::read(&key_path)?, files::read(&public_path)?) {
        (Some(key), Some(public)) => return Ok((key, public)),
        (None, Some(_)) => return Err(PkiError::Incomplete { present: public_path, missing: key_path }),
        (Some(key), None) => {
            let public = KeyPair::from_pem(&key)
                .map_err(|error| PkiError::Unusable { path: key_path, reason: error.to_string() })?
                .public_key_pem();
            files::write(&public_path, public.as_bytes(), files::PUBLIC)?;
            return Ok((key, public));
        }
        (None, None) => {}
    }
    let key = KeyPair::generate().map_err(|error| PkiError::Certificate {
        name: "service account tokens".into(),
        reason: error.to_string(),
    })?;
    let (key, public) = (key.serialize_pem(), key.public_key_pem());
    files::write(&key_path, key.as_bytes(), files::PRIVATE)?;
    files::write(&public_path, public.as_bytes(), files::PUBLIC)?;
    Ok((key, public))
}
