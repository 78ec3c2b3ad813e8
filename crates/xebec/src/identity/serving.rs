//! What the server shows, whom it believes besides the cluster's own, and what lies encrypted in its store.

use std::path::PathBuf;

use anyhow::{Context, anyhow, ensure};
use apiserver::encryption;
use apiserver::pki::{CaFile, Serving, SniCertificate, TlsVersion};
use clap::Args;

/// What the server shows and whom it believes besides what is in its folder.
#[derive(Debug, Args)]
#[command(next_help_heading = "Serving")]
pub struct ServingArgs {
    /// Authorities of client certificates besides the cluster's own, in PEM; read again when it changes.
    #[arg(long, value_name = "FILE")]
    pub client_ca_file: Option<PathBuf>,
    /// Authorities of front proxies besides the cluster's own, in PEM; read again when it changes.
    #[arg(long, value_name = "FILE")]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// The certificate that the server shows, in PEM; read again when it changes [default: pki/apiserver.crt].
    #[arg(long, requires = "tls_private_key_file", value_name = "FILE")]
    pub tls_cert_file: Option<PathBuf>,
    /// The key of that certificate, in PEM.
    #[arg(long, requires = "tls_cert_file", value_name = "FILE")]
    pub tls_private_key_file: Option<PathBuf>,
    /// A certificate and its key, in PEM, for clients that ask for one of these names, which can begin with "*."; those
    /// that the certificate says if none are given. Can be given several times.
    #[arg(long, value_name = "CERT,KEY[:NAME,...]")]
    pub tls_sni_cert_key: Vec<SniCertificate>,
    /// The oldest TLS that clients may speak: VersionTLS12 or VersionTLS13.
    #[arg(long, default_value = "VersionTLS12", value_name = "VERSION", value_parser = TlsVersion::parse)]
    pub tls_min_version: TlsVersion,
    /// The cipher suites of TLS 1.2, by Go's names [default: all that are good].
    #[arg(long, value_delimiter = ',', value_name = "SUITE")]
    pub tls_cipher_suites: Vec<String>,
}

impl ServingArgs {
    pub fn resolve(&self) -> anyhow::Result<Serving> {
        let authorities = |flag: &str, path: &Option<PathBuf>| {
            let file = path.as_deref().map(CaFile::read).transpose();
            file.map_err(|error| anyhow!("--{flag} {error}"))
        };
        Ok(Serving {
            certificate: self.tls_cert_file.clone().zip(self.tls_private_key_file.clone()),
            sni: self.tls_sni_cert_key.clone(),
            client_ca: authorities("client-ca-file", &self.client_ca_file)?,
            front_proxy_ca: authorities("requestheader-client-ca-file", &self.requestheader_client_ca_file)?,
            min_version: self.tls_min_version,
            cipher_suites: Serving::suites(&self.tls_cipher_suites)
                .map_err(anyhow::Error::msg)
                .context("--tls-cipher-suites")?,
        })
    }
}

/// What is encrypted in the store.
#[derive(Debug, Args)]
#[command(next_help_heading = "Encryption at rest")]
pub struct EncryptionArgs {
    /// An EncryptionConfiguration (apiserver.config.k8s.io/v1): which resources are encrypted, with which keys.
    #[arg(long, value_name = "FILE")]
    pub encryption_provider_config: Option<PathBuf>,
    /// Follow that file while the server runs.
    #[arg(long, default_value_t = false, default_missing_value = "true", num_args = 0..=1, require_equals = true,
        action = clap::ArgAction::Set, value_name = "BOOL")]
    pub encryption_provider_config_automatic_reload: bool,
}

impl EncryptionArgs {
    pub fn resolve(&self) -> anyhow::Result<Option<encryption::Options>> {
        let automatic_reload = self.encryption_provider_config_automatic_reload;
        ensure!(
            self.encryption_provider_config.is_some() || !automatic_reload,
            "--encryption-provider-config-automatic-reload must be set with --encryption-provider-config"
        );
        let options = |file: &PathBuf| encryption::Options { file: file.clone(), automatic_reload };
        Ok(self.encryption_provider_config.as_ref().map(options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::parse;

    #[test]
    fn serving_flags_are_checked() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ca");
        std::fs::write(&path, "nothing").expect("a file");
        let ca = format!("--client-ca-file={}", path.display());
        let options =
            |flags: &[&str]| parse::<ServingArgs>(flags)?.resolve().map_err(|error| format!("{error:#}"));
        let narrow = options(&[
            "--tls-min-version=VersionTLS13",
            "--tls-cipher-suites=TLS_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        ])
        .expect("good");
        assert_eq!((narrow.min_version, narrow.cipher_suites.len()), (TlsVersion::V13, 1));
        assert_eq!(options(&[]).expect("good").min_version, TlsVersion::V12);
        for (flags, why) in [
            (vec!["--tls-min-version=SSLv3"], "unknown tls version \"SSLv3\""),
            (
                vec!["--tls-cipher-suites=TLS_RSA_WITH_RC4_128_SHA"],
                "Cipher suite TLS_RSA_WITH_RC4_128_SHA not supported or doesn't exist",
            ),
            (vec!["--tls-cert-file=x"], "--tls-private-key-file"),
            (vec!["--tls-sni-cert-key=x"], "expected comma separated certificate and key file paths"),
            (vec![&ca], "data does not contain any valid RSA or ECDSA certificates"),
            (vec!["--requestheader-client-ca-file=/nowhere"], "cannot be read"),
        ] {
            let error = options(&flags).map(drop).expect_err("refused");
            assert!(error.contains(why), "{flags:?}: {error}");
        }
    }
}
