//! `kube-system/extension-apiserver-authentication`: by it extension servers know whom API servers believe. Each API
//! server adds what it believes and takes nothing away but authorities that have ended: another may be up with other
//! flags. What it cannot read it leaves to whoever wrote it.

use std::time::{Duration, SystemTime};

use apimachinery::{Object, Status};
use component_helpers::pem::pem;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authentication::RequestHeaders;
use crate::context::{Context, WriteOptions};
use crate::pki::Authorities;
use crate::registry::Part;
use crate::server::Server;

/// How long an authority is still named after its end, for clocks that differ.
const SLACK: Duration = Duration::from_secs(300);

pub async fn run(server: &Server, ctx: &Context, authorities: &Authorities) -> Result<(), Status> {
    let kind = super::kind(server, "", "v1", "configmaps")?;
    let wanted = super::typed(
        kind,
        json!({"metadata": {"namespace": "kube-system", "name": "extension-apiserver-authentication"}}),
    );
    let (namespace, name) = (wanted.namespace().to_owned(), wanted.name().to_owned());
    let headers = &server.config.authentication.request_headers;
    let transform = |old: Option<&Object>| {
        let mut map = old.unwrap_or(&wanted).clone();
        add(&mut map, authorities, headers, SystemTime::now()).map_err(|why| {
            Status::internal(format!(
                "kube-system/extension-apiserver-authentication is left as it is: {why}"
            ))
        })?;
        Ok::<_, Status>(map)
    };
    // a write of nothing would be shown to webhooks all the same
    let known = server.registry.peek(kind, &namespace, &name);
    if known.as_ref().is_some_and(|known| transform(Some(known)).as_ref() == Ok(known)) {
        return Ok(());
    }
    let options = WriteOptions::default();
    let update = server.registry.update(ctx, kind, &namespace, &name, Part::Main, &transform, true, options);
    Box::pin(update).await.map(drop)
}

/// Adds what this server believes. Nothing else stays in the map, as upstream has it.
fn add(
    map: &mut Object,
    authorities: &Authorities,
    headers: &RequestHeaders,
    now: SystemTime,
) -> Result<(), String> {
    let mut data = serde_json::Map::new();
    for (key, own) in [
        ("client-ca-file", &authorities.client_ca),
        ("requestheader-client-ca-file", &authorities.front_proxy_ca),
    ] {
        let all = combine(map.get_str(&["data", key]), own, now).map_err(|why| format!("{key}: {why}"))?;
        if !all.is_empty() {
            data.insert(key.to_owned(), all.into());
        }
    }
    for (key, own) in [
        ("requestheader-allowed-names", &headers.allowed_names),
        ("requestheader-username-headers", &headers.username),
        ("requestheader-uid-headers", &headers.uid),
        ("requestheader-group-headers", &headers.group),
        ("requestheader-extra-headers-prefix", &headers.extra_prefixes),
    ] {
        let known = map.get_str(&["data", key]);
        let known = if known.is_empty() { "[]" } else { known };
        let known: Option<Vec<String>> =
            serde_json::from_str(known).map_err(|error| format!("{key}: {error}"))?;
        let mut all: Vec<String> = Vec::new();
        for value in known.into_iter().flatten().chain(own.iter().cloned()) {
            if !all.contains(&value) {
                all.push(value);
            }
        }
        data.insert(key.to_owned(), Value::from(all).to_string().into());
    }
    map.set(&["data"], Value::Object(data));
    Ok(())
}

/// All certificates of two bundles that have not ended, each once.
fn combine(known: &str, own: &str, now: SystemTime) -> Result<String, String> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().saturating_sub(SLACK).as_secs();
    let mut all: Vec<CertificateDer<'_>> = Vec::new();
    for pem in [known, own].into_iter().filter(|pem| !pem.is_empty()) {
        let mut found = 0;
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|error| error.to_string())?;
            let (_, parsed) = X509Certificate::from_der(&certificate)
                .map_err(|error| format!("a certificate cannot be read: {error}"))?;
            found += 1;
            let ends = parsed.validity().not_after.timestamp();
            if u64::try_from(ends).is_ok_and(|ends| ends > now) && !all.contains(&certificate) {
                all.push(certificate);
            }
        }
        if found == 0 {
            return Err("data does not contain any valid RSA or ECDSA certificates".to_owned());
        }
    }
    Ok(all.iter().map(|certificate| pem("CERTIFICATE", certificate)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn what_is_believed_elsewhere_stays_until_it_ends() {
        let folders = [(); 3].map(|()| tempfile::tempdir().expect("a folder"));
        let [ours, theirs, proxies] = folders.each_ref().map(|folder| testing::pki(folder.path()));
        let authorities = |client: &str| Authorities {
            client_ca: client.to_owned(),
            front_proxy_ca: proxies.ca_pem().to_owned(),
        };
        let names = |list: &[&str]| RequestHeaders {
            allowed_names: list.iter().map(|name| (*name).to_owned()).collect(),
            ..RequestHeaders::default()
        };
        let now = SystemTime::now();
        let mut map = Object::from(json!({"data": {"other": "goes"}}));
        add(&mut map, &authorities(theirs.ca_pem()), &names(&["a"]), now).expect("readable");
        let first = map.clone();
        add(&mut map, &authorities(theirs.ca_pem()), &names(&["a"]), now).expect("readable");
        assert_eq!(map, first, "nothing new");
        add(&mut map, &authorities(&format!("# comment\n{}", ours.ca_pem())), &names(&["b", "a"]), now)
            .expect("readable");
        let data = |key: &str| map.get_str(&["data", key]).to_owned();
        assert_eq!(data("client-ca-file"), format!("{}{}", theirs.ca_pem(), ours.ca_pem()));
        assert_eq!(data("requestheader-client-ca-file"), proxies.ca_pem());
        assert_eq!(data("requestheader-allowed-names"), r#"["a","b"]"#);
        assert_eq!(data("requestheader-username-headers"), r#"["X-Remote-User"]"#);
        assert_eq!(map.get(&["data", "other"]), None);
        let der = CertificateDer::from_pem_slice(ours.ca_pem().as_bytes()).expect("a certificate");
        let (_, parsed) = X509Certificate::from_der(&der).expect("readable");
        let end = u64::try_from(parsed.validity().not_after.timestamp()).expect("after 1970");
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(combine("", ours.ca_pem(), at(end + 299)).as_deref(), Ok(ours.ca_pem()));
        assert_eq!(combine("", ours.ca_pem(), at(end + 300)).as_deref(), Ok(""));
    }

    /// Whoever wrote it may know better what it was to say.
    #[test]
    fn what_cannot_be_read_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let ours = testing::pki(folder.path());
        let authorities =
            Authorities { client_ca: ours.ca_pem().to_owned(), front_proxy_ca: ours.ca_pem().to_owned() };
        let broken = pem("CERTIFICATE", b"no certificate");
        let second = format!("{}{broken}", ours.ca_pem());
        for (key, text, why) in [
            ("client-ca-file", "garbage", "data does not contain any valid RSA or ECDSA certificates"),
            ("client-ca-file", broken.as_str(), "a certificate cannot be read: "),
            ("client-ca-file", second.as_str(), "a certificate cannot be read: "),
            ("requestheader-client-ca-file", broken.as_str(), "a certificate cannot be read: "),
            ("requestheader-allowed-names", "a,b", "expected value at line 1 column 1"),
        ] {
            let mut map = Object::from(json!({"data": {key: text}}));
            let before = map.clone();
            let error =
                add(&mut map, &authorities, &RequestHeaders::default(), SystemTime::now()).unwrap_err();
            assert!(error.starts_with(&format!("{key}: {why}")), "{error}");
            assert_eq!(map, before, "{key}");
        }
    }
}
