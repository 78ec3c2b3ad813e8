//! What a certificate request asks for, and whether a kubelet may ask so. Texts are upstream's: they are shown in
//! the `Failed` condition.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";

/// A request whose signature by its own key is good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub ip_addresses: Vec<IpAddr>,
    pub emails: Vec<String>,
    pub uris: Vec<String>,
    /// The subject by attribute, in the order in which certificates have it.
    pub subject: Vec<(&'static [u64], Vec<String>)>,
    /// The public key as it was sent, in DER.
    pub public_key: Vec<u8>,
}

pub const COMMON_NAME: &[u64] = &[2, 5, 4, 3];
const SERIAL_NUMBER: &[u64] = &[2, 5, 4, 5];
pub const ORGANIZATION: &[u64] = &[2, 5, 4, 10];
/// Country, organization, unit, locality, province, street, postal code, common name, serial number. What else a
/// subject holds is not passed on.
const ATTRIBUTES: [&[u64]; 9] = [
    &[2, 5, 4, 6],
    ORGANIZATION,
    &[2, 5, 4, 11],
    &[2, 5, 4, 7],
    &[2, 5, 4, 8],
    &[2, 5, 4, 9],
    &[2, 5, 4, 17],
    COMMON_NAME,
    SERIAL_NUMBER,
];

/// A subject by attribute. Of names that there is one of, the last counts: the certificate says what was checked.
pub fn read_subject(name: &X509Name<'_>) -> Result<Vec<(&'static [u64], Vec<String>)>, String> {
    let mut subject: Vec<(&'static [u64], Vec<String>)> = ATTRIBUTES.map(|oid| (oid, Vec::new())).into();
    for attribute in name.iter_attributes() {
        let Some(oid) = attribute.attr_type().iter().map(Iterator::collect::<Vec<u64>>) else { continue };
        let Some((known, values)) = subject.iter_mut().find(|(known, _)| *known == oid) else { continue };
        let value = attribute.as_str().map_err(|_| "x509: invalid RDNSequence: invalid attribute value")?;
        if [COMMON_NAME, SERIAL_NUMBER].contains(known) {
            values.clear();
        }
        values.push(value.to_owned());
    }
    subject.retain(|(_, values)| !values.is_empty());
    Ok(subject)
}

impl Request {
    /// Reads the PEM of `spec.request`.
    pub fn parse(pem: &[u8]) -> Result<Self, String> {
        let der = api::certificates::request_der(pem)?;
        let (_, parsed) = X509CertificationRequest::from_der(&der)
            .map_err(|error| format!("unable to parse certificate request: {error}"))?;
        api::certificates::verify_request(&parsed)
            .map_err(|error| format!("unable to verify certificate request signature: {error}"))?;
        let info = &parsed.certification_request_info;
        let subject = read_subject(&info.subject)?;
        let of = |oid: &[u64]| {
            let values = subject.iter().find(|(known, _)| *known == oid).map(|(_, values)| values.clone());
            values.unwrap_or_default()
        };
        let mut request = Self {
            common_name: of(COMMON_NAME).pop().unwrap_or_default(),
            organizations: of(ORGANIZATION),
            public_key: info.subject_pki.raw.to_vec(),
            subject,
            ..Self::default()
        };
        for extension in parsed.requested_extensions().into_iter().flatten() {
            match extension {
                ParsedExtension::SubjectAlternativeName(names) => {
                    names.general_names.iter().try_for_each(|name| request.add_name(name))?;
                }
                ParsedExtension::ParseError { error } => {
                    return Err(format!("unable to parse certificate request: {error}"));
                }
                _ => {}
            }
        }
        Ok(request)
    }

    fn add_name(&mut self, name: &GeneralName<'_>) -> Result<(), String> {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::RFC822Name(name) => self.emails.push((*name).to_owned()),
            GeneralName::URI(name) => self.uris.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let address = match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
                    (Ok(four), _) => IpAddr::V4(Ipv4Addr::from(four)),
                    (_, Ok(sixteen)) => IpAddr::V6(Ipv6Addr::from(sixteen)),
                    _ => return Err(format!("x509: cannot parse IP address of length {}", bytes.len())),
                };
                self.ip_addresses.push(address);
            }
            GeneralName::Invalid(..) => return Err("x509: invalid subject alternative names".to_owned()),
            // other kinds are not passed on
            _ => {}
        }
        Ok(())
    }
}

fn set(usages: &[String]) -> BTreeSet<&str> {
    usages.iter().map(String::as_str).collect()
}

/// Whether the usages are those of a kubelet's certificate for `purpose`; key encipherment is for RSA keys alone.
fn check_usages(usages: &[String], purpose: &'static str) -> Result<(), String> {
    let with = BTreeSet::from(["digital signature", "key encipherment", purpose]);
    let without = BTreeSet::from(["digital signature", purpose]);
    let usages = set(usages);
    if usages == with || usages == without {
        return Ok(());
    }
    let wanted: Vec<&str> = with.into_iter().collect();
    Err(format!("usages did not match [{}]", wanted.join(" ")))
}

fn none_of(names: &[String], kind: &str) -> Result<(), String> {
    if names.is_empty() { Ok(()) } else { Err(format!("{kind} subjectAltNames are not allowed")) }
}

fn check_node(request: &Request) -> Result<(), String> {
    match request.common_name.starts_with(NODE_PREFIX) {
        true => Ok(()),
        false => Err("subject common name does not begin with system:node:".to_owned()),
    }
}

fn check_nodes(request: &Request) -> Result<(), String> {
    match request.organizations == [NODES] {
        true => Ok(()),
        false => Err("subject organization is not system:nodes".to_owned()),
    }
}

/// What a kubelet shows to the API server.
pub fn check_kubelet_client(request: &Request, usages: &[String]) -> Result<(), String> {
    check_nodes(request)?;
    none_of(&request.dns_names, "DNS")?;
    none_of(&request.emails, "Email")?;
    if !request.ip_addresses.is_empty() {
        return Err("IP subjectAltNames are not allowed".to_owned());
    }
    none_of(&request.uris, "URI")?;
    check_node(request)?;
    check_usages(usages, "client auth")
}

/// What a kubelet's server shows.
pub fn check_kubelet_serving(request: &Request, usages: &[String]) -> Result<(), String> {
    check_nodes(request)?;
    if request.dns_names.is_empty() && request.ip_addresses.is_empty() {
        return Err("DNS or IP subjectAltName is required".to_owned());
    }
    none_of(&request.emails, "Email")?;
    none_of(&request.uris, "URI")?;
    check_usages(usages, "server auth")?;
    check_node(request)
}

/// What any client shows to the API server.
pub fn check_client(usages: &[String]) -> Result<(), String> {
    let optional = ["digital signature", "key encipherment"];
    let other = |usage: &&String| *usage != "client auth" && !optional.contains(&usage.as_str());
    if let Some(usage) = usages.iter().find(other) {
        return Err(format!("invalid usage for client certificate: {usage}"));
    }
    match set(usages).contains("client auth") {
        true => Ok(()),
        false => Err("missing required usage for client certificate: client auth".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use x509_parser::pem::Pem;

    use super::*;
    use crate::certificates::testing::{request_pem, usages};

    const CLIENT: &[&str] = &["digital signature", "client auth"];
    const SERVING: &[&str] = &["digital signature", "key encipherment", "server auth"];

    fn parsed(common_name: &str, organizations: &[&str], names: &[&str]) -> Request {
        Request::parse(request_pem(common_name, organizations, names).as_bytes()).unwrap()
    }

    #[test]
    fn a_request_is_read_whole() {
        let request = parsed("system:node:n1", &["system:nodes"], &["n1.example", "10.0.0.1", "fd00::1"]);
        assert_eq!(
            (request.common_name.as_str(), &request.organizations[..]),
            ("system:node:n1", &["system:nodes".to_owned()][..])
        );
        assert_eq!(request.dns_names, ["n1.example"]);
        assert_eq!(request.ip_addresses, ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
        assert!(!request.subject.is_empty() && !request.public_key.is_empty());
    }

    #[test]
    fn what_is_no_request_is_not_read() {
        let good = request_pem("a", &[], &[]);
        assert!(Request::parse(good.as_bytes()).is_ok());
        let other = good.replace("CERTIFICATE REQUEST", "CERTIFICATE");
        assert_eq!(
            Request::parse(other.as_bytes()).unwrap_err(),
            "PEM block type must be CERTIFICATE REQUEST"
        );
        assert_eq!(Request::parse(b"").unwrap_err(), "PEM block type must be CERTIFICATE REQUEST");
        // somebody else's name over the same signature
        let mut block = Pem::iter_from_buffer(good.as_bytes()).next().unwrap().unwrap().contents;
        let at = block.windows(3).position(|bytes| bytes == [0x13, 1, b'a']).unwrap();
        block[at + 2] = b'b';
        let forged = component_helpers::pem::pem("CERTIFICATE REQUEST", &block);
        let error = Request::parse(forged.as_bytes()).unwrap_err();
        assert!(error.starts_with("unable to verify certificate request signature"), "{error}");
    }

    /// Made with `openssl req -new`, of keys of these curves.
    const OPENSSL: [(&str, &str); 2] =
        [("P-384", include_str!("testdata/p384.csr")), ("P-521", include_str!("testdata/p521.csr"))];

    #[test]
    fn larger_curves_are_verified() {
        for (what, pem) in OPENSSL {
            let request = Request::parse(pem.as_bytes()).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!((request.common_name.as_str(), request.organizations.len()), ("jane", 1), "{what}");
            let mut block = Pem::iter_from_buffer(pem.as_bytes()).next().unwrap().unwrap().contents;
            let at = block.windows(4).position(|bytes| bytes == b"jane").unwrap();
            block[at] = b'k';
            let forged = component_helpers::pem::pem("CERTIFICATE REQUEST", &block);
            let error = Request::parse(forged.as_bytes()).unwrap_err();
            assert!(error.starts_with("unable to verify certificate request signature"), "{what}: {error}");
        }
    }

    #[test]
    fn kubelets_ask_for_what_is_theirs() {
        let node = ("system:node:n1", &["system:nodes"][..]);
        type Case<'a> = ((&'a str, &'a [&'a str]), &'a [&'a str], &'a [&'a str], Result<(), &'a str>);
        let client: [Case<'_>; 9] = [
            (node, &[], CLIENT, Ok(())),
            (node, &[], &["client auth", "key encipherment", "digital signature"], Ok(())),
            (
                node,
                &[],
                SERVING,
                Err("usages did not match [client auth digital signature key encipherment]"),
            ),
            (
                node,
                &[],
                &["client auth"],
                Err("usages did not match [client auth digital signature key encipherment]"),
            ),
            (
                ("system:node:n1", &["system:nodes", "system:masters"]),
                &[],
                CLIENT,
                Err("subject organization is not system:nodes"),
            ),
            (("system:node:n1", &[]), &[], CLIENT, Err("subject organization is not system:nodes")),
            (
                ("n1", &["system:nodes"]),
                &[],
                CLIENT,
                Err("subject common name does not begin with system:node:"),
            ),
            (node, &["n1"], CLIENT, Err("DNS subjectAltNames are not allowed")),
            (node, &["10.0.0.1"], CLIENT, Err("IP subjectAltNames are not allowed")),
        ];
        for (subject, names, wanted, outcome) in client {
            let request = parsed(subject.0, subject.1, names);
            let got = check_kubelet_client(&request, &usages(wanted));
            assert_eq!(got, outcome.map_err(str::to_owned), "{subject:?} {names:?} {wanted:?}");
        }
        let serving: [Case<'_>; 6] = [
            (node, &["n1"], SERVING, Ok(())),
            (node, &["10.0.0.1"], &["digital signature", "server auth"], Ok(())),
            (node, &[], SERVING, Err("DNS or IP subjectAltName is required")),
            (
                node,
                &["n1"],
                CLIENT,
                Err("usages did not match [digital signature key encipherment server auth]"),
            ),
            (
                ("n1", &["system:nodes"]),
                &["n1"],
                SERVING,
                Err("subject common name does not begin with system:node:"),
            ),
            (("system:node:n1", &["g"]), &["n1"], SERVING, Err("subject organization is not system:nodes")),
        ];
        for (subject, names, wanted, outcome) in serving {
            let request = parsed(subject.0, subject.1, names);
            let got = check_kubelet_serving(&request, &usages(wanted));
            assert_eq!(got, outcome.map_err(str::to_owned), "{subject:?} {names:?} {wanted:?}");
        }
        let mut request = parsed(node.0, node.1, &["n1"]);
        request.emails.push("a@b".into());
        assert_eq!(
            check_kubelet_serving(&request, &usages(SERVING)).unwrap_err(),
            "Email subjectAltNames are not allowed"
        );
        request.emails.clear();
        request.uris.push("spiffe://a".into());
        assert_eq!(
            check_kubelet_serving(&request, &usages(SERVING)).unwrap_err(),
            "URI subjectAltNames are not allowed"
        );
    }

    #[test]
    fn clients_ask_for_client_usages() {
        let cases: [(&[&str], Result<(), &str>); 4] = [
            (&["client auth"], Ok(())),
            (&["digital signature", "key encipherment", "client auth"], Ok(())),
            (&["digital signature"], Err("missing required usage for client certificate: client auth")),
            (&["client auth", "server auth"], Err("invalid usage for client certificate: server auth")),
        ];
        for (wanted, outcome) in cases {
            assert_eq!(check_client(&usages(wanted)), outcome.map_err(str::to_owned), "{wanted:?}");
        }
    }
}
