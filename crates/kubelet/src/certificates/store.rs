//! A certificate and its key in one file, `PREFIX-current.pem`, which is a link to the newest of `PREFIX-TIME.pem`.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::files;

/// A certificate with its key, as one PEM, and what the certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub pem: Vec<u8>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub ip_addresses: Vec<IpAddr>,
}

impl Pair {
    /// Reads a PEM that holds a certificate and a key.
    pub fn parse(pem: Vec<u8>) -> anyhow::Result<Self> {
        PrivateKeyDer::from_pem_slice(&pem).context("there is no key")?;
        let certificate =
            CertificateDer::pem_slice_iter(&pem).next().context("there is no certificate")??;
        let (_, leaf) = X509Certificate::from_der(&certificate).context("the certificate cannot be read")?;
        let names = leaf.subject_alternative_name()?.map(|names| names.value.general_names.as_slice());
        let names = names.unwrap_or_default();
        let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            attribute.as_str().map(str::to_owned).unwrap_or_default()
        };
        let address = |bytes: &[u8]| {
            let four = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
            four.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
        };
        Ok(Self {
            not_before: Timestamp::from_second(leaf.validity().not_before.timestamp())?,
            not_after: Timestamp::from_second(leaf.validity().not_after.timestamp())?,
            common_name: leaf.subject().iter_common_name().next().map(text).unwrap_or_default(),
            organizations: leaf.subject().iter_organization().map(text).collect(),
            dns_names: names
                .iter()
                .filter_map(|name| match name {
                    GeneralName::DNSName(name) => Some((*name).to_owned()),
                    _ => None,
                })
                .collect(),
            ip_addresses: names
                .iter()
                .filter_map(|name| match name {
                    GeneralName::IPAddress(bytes) => address(bytes),
                    _ => None,
                })
                .collect(),
            pem,
        })
    }

    pub fn is_over(&self, now: Timestamp) -> bool {
        self.not_after <= now
    }
}

#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    prefix: &'static str,
}

impl Store {
    pub fn new(folder: &Path, prefix: &'static str) -> Self {
        Self { folder: folder.to_owned(), prefix }
    }

    fn path(&self, qualifier: &str) -> PathBuf {
        self.folder.join(format!("{}-{qualifier}.pem", self.prefix))
    }

    /// Where the newest pair always is.
    pub fn current_path(&self) -> PathBuf {
        self.path("current")
    }

    /// The newest pair, if there is one.
    pub fn current(&self) -> anyhow::Result<Option<Pair>> {
        let path = self.current_path();
        match std::fs::read(&path) {
            Ok(pem) => {
                let pair = Pair::parse(pem);
                pair.with_context(|| format!("{} holds no certificate with its key", path.display()))
                    .map(Some)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Keeps a new pair and makes it the current one.
    pub fn update(&self, certificate: &[u8], key: &str, now: Timestamp) -> anyhow::Result<Pair> {
        let mut pem = certificate.to_vec();
        if !pem.ends_with(b"\n") {
            pem.push(b'\n');
        }
        pem.extend_from_slice(key.as_bytes());
        let pair = Pair::parse(pem).context("what was signed is of no use")?;
        let current = self.current_path();
        if current.symlink_metadata().is_ok_and(|found| !found.is_symlink()) {
            bail!("expected {:?} to be a symlink but it is a file", current.display());
        }
        let put = || -> io::Result<()> {
            std::fs::create_dir_all(&self.folder)?;
            let file = self.path(&now.strftime("%Y-%m-%d-%H-%M-%S").to_string());
            files::write_atomically(&file, &pair.pem, 0o600)?;
            let updated = self.path("updated");
            files::remove_all(&updated)?;
            std::os::unix::fs::symlink(std::path::absolute(&file)?, &updated)?;
            std::fs::rename(&updated, &current)
        };
        put().with_context(|| format!("cannot keep a certificate in {}", self.folder.display()))?;
        Ok(pair)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A certificate that lives from one time to another, and its key.
    pub fn pair(from: i64, to: i64, names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = rcgen::CertificateParams::new(names).unwrap();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "system:node:n1");
        parameters.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
        let seconds = |seconds: i64| std::time::Duration::from_secs(seconds.unsigned_abs());
        parameters.not_before = rcgen::date_time_ymd(1970, 1, 1) + seconds(from);
        parameters.not_after = rcgen::date_time_ymd(1970, 1, 1) + seconds(to);
        let key = rcgen::KeyPair::generate().unwrap();
        (parameters.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn the_newest_pair_is_the_current_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(&folder.path().join("pki"), "kubelet-client");
        assert_eq!(store.current().unwrap(), None);
        let (certificate, key) = pair(1000, 2000, &["n1", "10.0.0.1", "fd00::1"]);
        let now = Timestamp::from_second(1500).unwrap();
        let first = store.update(certificate.as_bytes(), &key, now).unwrap();
        assert_eq!(store.current().unwrap().as_ref(), Some(&first));
        assert_eq!((first.not_before.as_second(), first.not_after.as_second()), (1000, 2000));
        assert_eq!(
            (first.common_name.as_str(), &first.organizations[..]),
            ("system:node:n1", &["system:nodes".to_owned()][..])
        );
        assert_eq!(first.dns_names, ["n1"]);
        assert_eq!(first.ip_addresses, ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
        assert!(!first.is_over(now) && first.is_over(first.not_after));
        let path = folder.path().join("pki/kubelet-client-current.pem");
        let target = std::fs::read_link(&path).unwrap();
        assert!(target.ends_with("kubelet-client-1970-01-01-00-25-00.pem"), "{target:?}");
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);

        let (certificate, key) = pair(1000, 3000, &[]);
        let second =
            store.update(certificate.as_bytes(), &key, now + std::time::Duration::from_secs(1)).unwrap();
        assert_eq!(store.current().unwrap(), Some(second));
        assert!(target.exists(), "the one before stays");
    }

    #[test]
    fn what_is_no_pair_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), "kubelet-client");
        let (certificate, key) = pair(1000, 2000, &[]);
        let now = Timestamp::from_second(1500).unwrap();
        assert!(
            store.update(b"", &key, now).is_err() && store.update(certificate.as_bytes(), "", now).is_err()
        );
        assert_eq!(store.current().unwrap(), None);
        std::fs::write(store.current_path(), "nonsense").unwrap();
        assert!(store.current().is_err());
        let error = store.update(certificate.as_bytes(), &key, now).unwrap_err().to_string();
        assert!(error.contains("to be a symlink but it is a file"), "{error}");
    }
}
