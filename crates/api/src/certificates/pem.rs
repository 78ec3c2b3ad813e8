//! What requests and certificates hold, as PEM.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::signature;

const REQUEST: &str = "CERTIFICATE REQUEST";
const CERTIFICATE: &str = "CERTIFICATE";

struct Block<'a> {
    label: &'a str,
    has_headers: bool,
    contents: Vec<u8>,
}

/// The blocks of a text. What is between them, and what is no whole block, is passed over, as Go does.
fn blocks(text: &[u8]) -> Vec<Block<'_>> {
    let lines: Vec<&str> = text
        .split(|byte| *byte == b'\n')
        .map(|line| std::str::from_utf8(line).unwrap_or("").trim_end())
        .collect();
    let mut blocks = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        match block(&lines[at..]) {
            Some((block, length)) => {
                blocks.push(block);
                at += length;
            }
            None => at += 1,
        }
    }
    blocks
}

/// The block that begins with the first line, and how many lines it has.
fn block<'a>(lines: &[&'a str]) -> Option<(Block<'a>, usize)> {
    let label = lines.first()?.strip_prefix("-----BEGIN ")?.strip_suffix("-----")?;
    let is_end = |line: &&str| {
        line.strip_prefix("-----END ").is_some_and(|rest| rest.strip_suffix("-----") == Some(label))
    };
    let end = lines.iter().position(is_end)?;
    let inner = &lines[1..end];
    let headers = inner.iter().take_while(|line| line.contains(':')).count();
    let body: String = inner[headers..].concat().split_whitespace().collect();
    let contents = BASE64_STANDARD.decode(body).ok()?;
    Some((Block { label, has_headers: headers > 0, contents }, end + 1))
}

/// Why a certificate request is refused: it cannot be read, or is not signed by its own key.
pub fn check_request(text: &[u8]) -> Result<(), String> {
    with_request(text, signature::verify)?
}

/// The DER of a certificate request.
pub fn request_der(text: &[u8]) -> Result<Vec<u8>, String> {
    let first = blocks(text).into_iter().next().filter(|block| block.label == REQUEST);
    first.map(|block| block.contents).ok_or_else(|| format!("PEM block type must be {REQUEST}"))
}

fn with_request<T>(text: &[u8], read: impl Fn(&X509CertificationRequest<'_>) -> T) -> Result<T, String> {
    let der = request_der(text)?;
    let (_, request) = X509CertificationRequest::from_der(&der)
        .map_err(|_| "asn1: structure error: malformed certificate request".to_owned())?;
    Ok(read(&request))
}

/// The organizations in the subject of a certificate request.
pub fn request_subject(text: &[u8]) -> Result<Vec<String>, String> {
    with_request(text, |request| {
        let organizations = request.certification_request_info.subject.iter_organization();
        organizations.filter_map(|name| name.as_str().ok().map(str::to_owned)).collect()
    })
}

/// Why an issued certificate is refused. Nothing is fine: it has not been issued yet.
pub fn check_certificate(text: &[u8]) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    let blocks = blocks(text);
    if blocks.is_empty() {
        return Err("must contain at least one CERTIFICATE PEM block".into());
    }
    for block in blocks {
        if block.label != CERTIFICATE {
            let label = apimachinery::field::quote(block.label);
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {label}"));
        }
        if block.has_headers {
            return Err("no PEM block headers are permitted".into());
        }
        if block.contents.is_empty() {
            return Err("found CERTIFICATE PEM block containing 0 certificates".into());
        }
        parse_certificate(&block.contents)?;
    }
    Ok(())
}

fn parse_certificate(der: &[u8]) -> Result<(), String> {
    X509Certificate::from_der(der).map(drop).map_err(|_| "x509: malformed certificate".to_owned())
}

/// Why a bundle of authorities cannot be used to verify anybody: one certificate in it would be enough.
pub fn check_authorities(text: &[u8]) -> Result<(), String> {
    let blocks = blocks(text);
    let refuse = |why: &str| Err(format!("unable to load root certificates: {why}"));
    let mut certificates = blocks.iter().filter(|block| block.label == CERTIFICATE && !block.has_headers);
    let mut parsed = certificates.clone().map(|block| parse_certificate(&block.contents));
    if parsed.any(|certificate| certificate.is_ok()) {
        return Ok(());
    }
    let ends_with_a_block = text.ends_with(b"-----\n") || text.ends_with(b"-----");
    match certificates.next().map(|block| parse_certificate(&block.contents)) {
        Some(Err(why)) => refuse(&format!("failed to parse certificate: {why}")),
        _ if !blocks.is_empty() && ends_with_a_block => refuse("no valid certificate authority data seen"),
        _ => refuse("unable to parse bytes as PEM block"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTHORITY: &str = include_str!("testdata/authority.pem");

    fn block_of(label: &str, inner: &str) -> String {
        format!("-----BEGIN {label}-----\n{inner}\n-----END {label}-----\n")
    }

    #[test]
    fn requests_are_signed_by_their_own_keys() {
        let request = include_str!("testdata/request.pem");
        assert_eq!(check_request(request.as_bytes()), Ok(()));
        let told = request.replacen('\n', "\nName: value\n\n", 1);
        assert_eq!(check_request(format!("a comment\n{told}").as_bytes()), Ok(()));
        for other in [include_str!("testdata/p521-sha384.csr"), include_str!("testdata/p521-sha256.csr")] {
            assert_eq!(check_request(other.as_bytes()), Ok(()));
        }
        let mut der = blocks(request.as_bytes()).remove(0).contents;
        *der.last_mut().unwrap() ^= 1;
        let forged = block_of(REQUEST, &BASE64_STANDARD.encode(der));
        assert_eq!(check_request(forged.as_bytes()), Err("x509: ECDSA verification failure".to_owned()));
        assert_eq!(
            check_request(AUTHORITY.as_bytes()),
            Err("PEM block type must be CERTIFICATE REQUEST".to_owned())
        );
    }

    #[test]
    fn issued_certificates_are_certificates_alone() {
        let headed = AUTHORITY.replacen('\n', "\nName: value\n\n", 1);
        let cases = [
            ("", Ok(())),
            (AUTHORITY, Ok(())),
            ("text", Err("must contain at least one CERTIFICATE PEM block")),
            (&headed, Err("no PEM block headers are permitted")),
            (&block_of("KEY", "AAAA"), Err("only CERTIFICATE PEM blocks are allowed, found \"KEY\"")),
            (&block_of(CERTIFICATE, ""), Err("found CERTIFICATE PEM block containing 0 certificates")),
            (&block_of(CERTIFICATE, "AAAA"), Err("x509: malformed certificate")),
        ];
        for (text, expected) in cases {
            assert_eq!(check_certificate(text.as_bytes()), expected.map_err(str::to_owned), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd(text in "((-----(BEGIN|END) (A|CERTIFICATE)-----|[A-Za-z: =]{0,9}|\\PC)\n?){0,9}") {
            let _ = (check_request(text.as_bytes()), check_certificate(text.as_bytes()), check_authorities(text.as_bytes()));
        }
    }

    #[test]
    fn one_certificate_makes_a_bundle() {
        const UNABLE: &str = "unable to load root certificates: ";
        let bad = block_of(CERTIFICATE, "AAAA");
        assert_eq!(check_authorities(format!("{bad}{AUTHORITY}").as_bytes()), Ok(()));
        for (text, why) in [
            ("text", "unable to parse bytes as PEM block"),
            (&bad, "failed to parse certificate: x509: malformed certificate"),
            (&block_of("KEY", "AAAA"), "no valid certificate authority data seen"),
        ] {
            assert_eq!(check_authorities(text.as_bytes()), Err(format!("{UNABLE}{why}")), "{text}");
        }
    }
}
