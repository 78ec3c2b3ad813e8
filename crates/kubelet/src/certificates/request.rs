//! One request for a certificate: made, sent, and waited for until it is signed or refused.

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::api::PostParams;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData};
use sha2::{Digest, Sha512_256};
use std::net::IpAddr;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;

use super::NODES;
use super::store::Pair;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub signer: &'static str,
    pub usages: &'static [&'static str],
    pub common_name: String,
    pub dns_names: Vec<String>,
    pub ip_addresses: Vec<IpAddr>,
}

impl Wanted {
    /// A node's identity.
    pub fn client(node: &str) -> Self {
        Self {
            signer: "kubernetes.io/kube-apiserver-client-kubelet",
            // keys are elliptic: they encipher nothing
            usages: &["digital signature", "client auth"],
            common_name: super::node_user(node),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
        }
    }

    /// What a node's server shows.
    pub fn serving(node: &str, address: IpAddr) -> Self {
        Self {
            signer: "kubernetes.io/kubelet-serving",
            usages: &["digital signature", "server auth"],
            common_name: super::node_user(node),
            dns_names: vec![node.to_owned()],
            ip_addresses: vec![address],
        }
    }

    /// Whether a certificate says all that is wanted; it may say more.
    pub fn is_met_by(&self, pair: &Pair) -> bool {
        pair.common_name == self.common_name
            && pair.organizations.iter().any(|organization| organization == NODES)
            && self.dns_names.iter().all(|name| pair.dns_names.contains(name))
            && self.ip_addresses.iter().all(|address| pair.ip_addresses.contains(address))
    }

    fn pem(&self, key: &KeyPair) -> anyhow::Result<String> {
        let addresses = self.ip_addresses.iter().map(IpAddr::to_string);
        let names: Vec<String> = self.dns_names.iter().cloned().chain(addresses).collect();
        let mut parameters = CertificateParams::new(names)?;
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, NODES);
        subject.push(DnType::CommonName, self.common_name.as_str());
        parameters.distinguished_name = subject;
        Ok(parameters.serialize_request(key)?.pem()?)
    }

    /// A name that the same key and the same wishes always have, so that a kubelet that starts again finds its request.
    pub fn digested_name(&self, key: &KeyPair) -> String {
        let mut hash = Sha512_256::new();
        let mut write = |part: &[u8]| {
            hash.update(URL_SAFE_NO_PAD.encode(part));
            hash.update(b"|");
        };
        write(&key.subject_public_key_info());
        write(self.common_name.as_bytes());
        write(NODES.as_bytes());
        self.usages.iter().for_each(|usage| write(usage.as_bytes()));
        format!("node-csr-{}", URL_SAFE_NO_PAD.encode(hash.finalize()))
    }
}

/// Asks for a certificate and waits for it, without end: callers have deadlines. A request of the given name that is
/// there already is waited for, if it is for the same key.
pub async fn certificate(
    client: &Client,
    wanted: &Wanted,
    key: &KeyPair,
    name: Option<String>,
) -> anyhow::Result<Vec<u8>> {
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let mut request = CertificateSigningRequest::default();
    request.metadata.generate_name = name.is_none().then(|| "csr-".to_owned());
    request.metadata.name = name.clone();
    request.spec.request = ByteString(wanted.pem(key)?.into_bytes());
    request.spec.signer_name = wanted.signer.to_owned();
    request.spec.usages = Some(wanted.usages.iter().map(|usage| (*usage).to_owned()).collect());
    let created = match (api.create(&PostParams::default(), &request).await, name) {
        (Ok(created), _) => created,
        (Err(error), Some(name)) if client::is_already_exists(&error) => {
            let found = api.get(&name).await.context("cannot retrieve certificate signing request")?;
            ensure_same(&found, wanted, key).context("retrieved csr is not compatible")?;
            tracing::info!(csr = name, "csr for this node already exists, reusing");
            found
        }
        (Err(error), _) => return Err(error).context("cannot create certificate signing request"),
    };
    let name = created.metadata.name.clone().unwrap_or_default();
    tracing::info!(csr = name, signer = wanted.signer, "asked for a certificate");
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let stream = watcher::watcher(api, config).backoff(watcher::DefaultBackoff::default());
    let mut stream = std::pin::pin!(stream);
    let mut found = false;
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => {
                found = true;
                if let Some(certificate) = verdict(&object, created.metadata.uid.as_deref())? {
                    return Ok(certificate);
                }
            }
            Ok(Event::Delete(_)) => bail!("csr {name:?} was deleted"),
            Ok(Event::Init) => found = false,
            Ok(Event::InitDone) => ensure!(found, "csr {name:?} was deleted"),
            Err(error) => tracing::debug!(%error, "a watch broke off and is taken up again"),
        }
    }
    bail!("the watch on csr {name:?} ended")
}

/// The certificate, once there is one; an error when there will never be one.
fn verdict(object: &CertificateSigningRequest, uid: Option<&str>) -> anyhow::Result<Option<Vec<u8>>> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    ensure!(object.metadata.uid.as_deref() == uid, "csr {name:?} changed UIDs");
    let status = object.status.as_ref();
    let mut approved = false;
    for condition in status.and_then(|status| status.conditions.as_deref()).unwrap_or_default() {
        let (reason, message) = (
            condition.reason.as_deref().unwrap_or_default(),
            condition.message.as_deref().unwrap_or_default(),
        );
        match condition.type_.as_str() {
            "Denied" => bail!("certificate signing request is denied, reason: {reason}, message: {message}"),
            "Failed" => bail!("certificate signing request failed, reason: {reason}, message: {message}"),
            "Approved" => approved = true,
            _ => {}
        }
    }
    let certificate = status.and_then(|status| status.certificate.as_ref()).map(|bytes| bytes.0.clone());
    Ok(certificate.filter(|bytes| approved && !bytes.is_empty()))
}

/// Whether a request that is there is for this key and name.
fn ensure_same(found: &CertificateSigningRequest, wanted: &Wanted, key: &KeyPair) -> anyhow::Result<()> {
    ensure!(found.spec.signer_name == wanted.signer, "csr signerNames differ: {:?}", found.spec.signer_name);
    let block = Pem::iter_from_buffer(&found.spec.request.0).next().context("it holds no PEM")??;
    let (_, parsed) = X509CertificationRequest::from_der(&block.contents)?;
    let info = &parsed.certification_request_info;
    ensure!(info.subject_pki.raw == key.subject_public_key_info(), "it is for another key");
    let name = info.subject.iter_common_name().next().and_then(|name| name.as_str().ok());
    ensure!(name == Some(&wanted.common_name), "csr subjects differ: {name:?}");
    if let Some(certificate) = found.status.as_ref().and_then(|status| status.certificate.as_ref()) {
        let block = Pem::iter_from_buffer(&certificate.0).next().context("its certificate is no PEM")??;
        let end = block.parse_x509()?.validity().not_after;
        ensure!(end.timestamp() > jiff::Timestamp::now().as_second(), "its certificate has expired: {end}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::certificates::v1::{
        CertificateSigningRequestCondition, CertificateSigningRequestStatus,
    };

    use super::*;
    use crate::certificates::store::tests::pair;

    #[test]
    fn a_certificate_may_say_more_than_is_wanted() {
        let parse = |names: &[&str]| {
            let (certificate, key) = pair(1000, 2000, names);
            Pair::parse((certificate + &key).into_bytes()).unwrap()
        };
        let address = [10, 0, 0, 1].into();
        let serving = Wanted::serving("n1", address);
        assert!(serving.is_met_by(&parse(&["n1", "10.0.0.1", "other"])));
        assert!(!serving.is_met_by(&parse(&["n1"])) && !serving.is_met_by(&parse(&["10.0.0.1"])));
        assert!(Wanted::client("n1").is_met_by(&parse(&[])));
        assert!(!Wanted::client("n2").is_met_by(&parse(&[])));
    }

    #[test]
    fn names_follow_key_and_wishes() {
        let (one, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let wanted = Wanted::client("n1");
        let name = wanted.digested_name(&one);
        assert_eq!((name.len(), wanted.digested_name(&one)), ("node-csr-".len() + 43, name.clone()));
        assert_ne!(wanted.digested_name(&other), name);
        assert_ne!(Wanted::client("n2").digested_name(&one), name);
    }

    #[test]
    fn a_request_of_another_key_is_not_taken_over() {
        let (one, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let wanted = Wanted::client("n1");
        let mut object = CertificateSigningRequest::default();
        object.spec.signer_name = wanted.signer.to_owned();
        object.spec.request = ByteString(wanted.pem(&one).unwrap().into_bytes());
        ensure_same(&object, &wanted, &one).unwrap();
        assert!(ensure_same(&object, &wanted, &other).is_err());
        assert!(ensure_same(&object, &Wanted::client("n2"), &one).is_err());
        let (expired, _) = pair(1000, 2000, &[]);
        object.status = Some(CertificateSigningRequestStatus {
            certificate: Some(ByteString(expired.into_bytes())),
            ..CertificateSigningRequestStatus::default()
        });
        assert!(ensure_same(&object, &wanted, &one).is_err());
    }

    #[test]
    fn verdicts() {
        let condition = |kind: &str| CertificateSigningRequestCondition {
            type_: kind.to_owned(),
            reason: Some("R".into()),
            message: Some("m".into()),
            ..CertificateSigningRequestCondition::default()
        };
        let cases: [(&[&str], &[u8], Result<Option<&[u8]>, &str>); 6] = [
            (&[], b"", Ok(None)),
            (&["Approved"], b"", Ok(None)),
            (&[], b"pem", Ok(None)),
            (&["Approved"], b"pem", Ok(Some(b"pem"))),
            (&["Denied"], b"", Err("certificate signing request is denied, reason: R, message: m")),
            (&["Approved", "Failed"], b"", Err("certificate signing request failed, reason: R, message: m")),
        ];
        for (kinds, certificate, wanted) in cases {
            let mut object = CertificateSigningRequest::default();
            object.metadata.uid = Some("u".into());
            object.status = Some(CertificateSigningRequestStatus {
                conditions: Some(kinds.iter().map(|kind| condition(kind)).collect()),
                certificate: Some(ByteString(certificate.to_vec())),
            });
            let got = verdict(&object, Some("u")).map_err(|error| error.to_string());
            assert_eq!(got, wanted.map(|it| it.map(<[u8]>::to_vec)).map_err(str::to_owned), "{kinds:?}");
            assert!(verdict(&object, Some("other")).is_err());
        }
    }
}
