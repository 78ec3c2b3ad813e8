//! Certificates that are shown to clients that ask for other names: `--tls-sni-cert-key`.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{PkiError, Rotating};

/// A certificate with its key, and the names that it is for; those that it says itself if there are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SniCertificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub names: Vec<String>,
}

impl FromStr for SniCertificate {
    type Err = String;

    /// `certificate,key` or `certificate,key:name,*.name`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (files, names) = match text.split_once(':') {
            None => (text, Vec::new()),
            Some((_, names)) if names.trim().is_empty() => {
                return Err("empty names list is not allowed".into());
            }
            Some((files, names)) => (files, names.split(',').map(|name| name.trim().to_owned()).collect()),
        };
        match files.split(',').map(str::trim).collect::<Vec<_>>().as_slice() {
            [certificate, key] => Ok(Self { certificate: certificate.into(), key: key.into(), names }),
            _ => Err("expected comma separated certificate and key file paths".into()),
        }
    }
}

/// Chooses by the name that a client asks for.
#[derive(Debug)]
pub struct ByName {
    default: Arc<Rotating>,
    /// With the names that they were given for.
    named: Vec<(Arc<Rotating>, Vec<String>)>,
}

impl ByName {
    pub fn open(
        default: Rotating,
        named: &[SniCertificate],
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, PkiError> {
        let open = |one: &SniCertificate| {
            let rotating = Rotating::open(&one.certificate, &one.key, provider.clone())?;
            Ok((Arc::new(rotating), one.names.clone()))
        };
        let named = named.iter().map(open).collect::<Result<_, PkiError>>()?;
        Ok(Self { default: Arc::new(default), named })
    }

    pub fn certificates(&self) -> impl Iterator<Item = &Arc<Rotating>> {
        std::iter::once(&self.default).chain(self.named.iter().map(|(one, _)| one))
    }

    fn choose(&self, name: &str) -> &Arc<Rotating> {
        let name = name.to_ascii_lowercase();
        let wild = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        // names that were given count for more than those that a certificate says
        let given = |name: &str| self.named.iter().find(|(_, names)| names.iter().any(|one| one == name));
        let said = |name: &str| self.named.iter().find(|(one, names)| names.is_empty() && one.is_for(name));
        let find = |name: &str| given(name).or_else(|| said(name));
        let found = find(&name).or_else(|| find(wild.as_deref()?));
        found.map_or(&self.default, |(one, _)| one)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chosen = hello.server_name().map_or(&self.default, |name| self.choose(name));
        Some(chosen.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{KeyAndCertificate, Profile};
    use crate::testing;

    #[test]
    fn flags_are_read_as_upstream_reads_them() {
        let of = |certificate: &str, key: &str, names: &[&str]| SniCertificate {
            certificate: certificate.into(),
            key: key.into(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let cases = [
            ("a.crt,a.key", Ok(of("a.crt", "a.key", &[]))),
            (" a.crt , a.key : *.foo.com , foo.com ", Ok(of("a.crt", "a.key", &["*.foo.com", "foo.com"]))),
            ("a.crt,a.key:", Err("empty names list is not allowed")),
            ("a.crt", Err("expected comma separated certificate and key file paths")),
            ("a,b,c:x", Err("expected comma separated certificate and key file paths")),
        ];
        for (text, wanted) in cases {
            assert_eq!(text.parse(), wanted.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn names_that_were_given_come_before_those_of_certificates_and_whole_ones_before_wild_ones() {
        let folder = tempfile::tempdir().expect("a folder");
        let pki = testing::pki(folder.path());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let made = |file: &str, dns: &[&str]| -> KeyAndCertificate {
            let names = dns.iter().map(|name| (*name).to_owned()).collect();
            let made = pki.issue(&Profile::server(&format!("{file}.cn"), names)).expect("issued");
            std::fs::write(folder.path().join(format!("{file}.crt")), &made.certificate_pem)
                .expect("written");
            std::fs::write(folder.path().join(format!("{file}.key")), &made.key_pem).expect("written");
            made
        };
        let own = made("default", &["default.example"]);
        made("said", &["a.example", "*.wild.example", "10.0.0.1"]);
        made("given", &["given.example"]);
        let named = |file: &str, names: &[&str]| SniCertificate {
            certificate: folder.path().join(format!("{file}.crt")),
            key: folder.path().join(format!("{file}.key")),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let default = Rotating::new(folder.path(), "default", &own, provider.clone()).expect("good");
        let chosen =
            [named("said", &[]), named("given", &["a.example", "b.wild.example", "*.other.example"])];
        let by_name = ByName::open(default, &chosen, &provider).expect("good");
        for (name, wanted) in [
            ("a.example", 2),
            ("A.EXAMPLE", 2),
            ("b.wild.example", 2),
            ("c.wild.example", 1),
            ("said.cn", 1),
            ("x.other.example", 2),
            ("x.y.other.example", 0),
            ("given.example", 0),
            ("given.cn", 0),
            ("default.example", 0),
            ("nobody.example", 0),
        ] {
            let all: Vec<&Arc<Rotating>> = by_name.certificates().collect();
            let found = all.iter().position(|one| Arc::ptr_eq(one, by_name.choose(name)));
            assert_eq!(found, Some(wanted), "{name}");
        }
        assert!(
            ByName::open(
                Rotating::new(folder.path(), "default", &own, provider.clone()).expect("good"),
                &[named("nowhere", &[])],
                &provider
            )
            .is_err()
        );
    }
}
