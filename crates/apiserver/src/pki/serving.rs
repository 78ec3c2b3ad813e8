//! How the server serves beyond what is in its folder: another certificate, more authorities, narrower TLS.

use std::path::PathBuf;

use rustls::crypto::{CryptoProvider, ring};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, SupportedProtocolVersion};

use super::SniCertificate;

/// The oldest version that clients may speak. There is none before 1.2 here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    #[default]
    V12,
    V13,
}

impl TlsVersion {
    /// By the names of upstream's flag; those of versions that are not spoken stand for the oldest that is.
    pub fn parse(name: &str) -> Result<Self, String> {
        match name {
            "VersionTLS10" | "VersionTLS11" | "VersionTLS12" => Ok(Self::V12),
            "VersionTLS13" => Ok(Self::V13),
            _ => Err(format!(
                "unknown tls version {name:?}; possible values: VersionTLS10, VersionTLS11, VersionTLS12, VersionTLS13"
            )),
        }
    }
}

/// Go's names of the cipher suites of TLS 1.2 that may be chosen. Those of TLS 1.3 cannot be, as in Go.
pub const CIPHER_SUITES: [(&str, CipherSuite); 8] = [
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// Authorities in a file that is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaFile {
    pub(super) path: PathBuf,
    /// What it held when it was read.
    pub(super) pem: String,
}

#[derive(Clone, Debug, Default)]
pub struct Serving {
    /// A certificate and its key to show instead of the folder's.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Certificates for clients that ask for other names.
    pub sni: Vec<SniCertificate>,
    /// Authorities of clients besides the cluster's own.
    pub client_ca: Option<CaFile>,
    /// Authorities of front proxies besides the cluster's own.
    pub front_proxy_ca: Option<CaFile>,
    pub min_version: TlsVersion,
    /// The cipher suites of TLS 1.2; all if there are none.
    pub cipher_suites: Vec<CipherSuite>,
}

impl Serving {
    /// The cipher suites of Go's names.
    pub fn suites(names: &[String]) -> Result<Vec<CipherSuite>, String> {
        const OF_TLS_13: [&str; 3] =
            ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];
        let chosen = names.iter().filter(|name| !OF_TLS_13.contains(&name.as_str()));
        let known =
            |name: &String| CIPHER_SUITES.iter().find(|(known, _)| known == name).map(|(_, suite)| *suite);
        chosen
            .map(|name| {
                known(name).ok_or_else(|| format!("Cipher suite {name} not supported or doesn't exist"))
            })
            .collect()
    }

    pub(super) fn provider(&self) -> CryptoProvider {
        let mut provider = ring::default_provider();
        if !self.cipher_suites.is_empty() {
            let keep = |suite: CipherSuite| self.cipher_suites.contains(&suite);
            provider.cipher_suites.retain(|suite| suite.tls13().is_some() || keep(suite.suite()));
        }
        provider
    }

    pub(super) fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        match self.min_version {
            TlsVersion::V12 => vec![&TLS13, &TLS12],
            TlsVersion::V13 => vec![&TLS13],
        }
    }
}
