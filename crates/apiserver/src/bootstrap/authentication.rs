//! `kube-system/extension-apiserver-authentication`: by it extension servers know whom API servers believe. Each API
//! server adds what it believes and takes nothing away but authorities that have ended: another may be up with other
//! flags.

use std::time::SystemTime;

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
        add(&mut map, authorities, headers, SystemTime::now());
        Ok::<_, Status>(map)
    };
    // a write of nothing would be shown to webhooks all the same
    let known = server.registry.peek(kind, &namespace, &name);
    if known.as_ref().is_some_and(|known| transform(Some(known)).as_ref() == Ok(known)) {
        return Ok(());
    }
    let options = WriteOptions::default();
    Box::pin(server.registry.update(ctx, kind, &namespace, &name, Part::Main, &transform, true, options))
        .await?;
    Ok(())
}

fn add(map: &mut Object, authorities: &Authorities, headers: &RequestHeaders, now: SystemTime) {
    for (key, own) in [
        ("client-ca-file", &authorities.client_ca),
        ("requestheader-client-ca-file", &authorities.front_proxy_ca),
    ] {
        let all = combine(map.get_str(&["data", key]), own, now);
        map.set(&["data", key], all);
    }
    for (key, own) in [
        ("requestheader-allowed-names", &headers.allowed_names),
        ("requestheader-username-headers", &headers.username),
        ("requestheader-uid-headers", &headers.uid),
        ("requestheader-group-headers", &headers.group),
        ("requestheader-extra-headers-prefix", &headers.extra_prefixes),
    ] {
        let mut all = listed(key, map.get_str(&["data", key]));
        for value in own {
            if !all.contains(value) {
                all.push(value.clone());
            }
        }
        map.set(&["data", key], Value::from(all).to_string());
    }
}

/// All certificates of two bundles that have not ended, each once.
fn combine(known: &str, own: &str, now: SystemTime) -> String {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut all: Vec<CertificateDer<'_>> = Vec::new();
    for pem in [known, own] {
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()).flatten() {
            let parsed = X509Certificate::from_der(&certificate);
            let ends = parsed.map_or(0, |(_, parsed)| parsed.validity().not_after.timestamp());
            if u64::try_from(ends).is_ok_and(|ends| ends > now) && !all.contains(&certificate) {
                all.push(certificate);
            }
        }
    }
    all.iter().map(|certificate| pem("CERTIFICATE", certificate)).collect()
}

/// What a list says that others wrote; one that cannot be read is written anew.
fn listed(key: &str, text: &str) -> Vec<String> {
    let read = if text.is_empty() { Ok(Vec::new()) } else { serde_json::from_str(text) };
    read.unwrap_or_else(|error| {
        tracing::warn!(key, %error, "a list in extension-apiserver-authentication cannot be read and is replaced");
        Vec::new()
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        let mut map = Object::from(json!({"data": {"other": "stays"}}));
        add(&mut map, &authorities(theirs.ca_pem()), &names(&["a"]), now);
        let first = map.clone();
        add(&mut map, &authorities(theirs.ca_pem()), &names(&["a"]), now);
        assert_eq!(map, first, "nothing new");
        add(&mut map, &authorities(&format!("# comment\n{}", ours.ca_pem())), &names(&["b", "a"]), now);
        let data = |key: &str| map.get_str(&["data", key]).to_owned();
        assert_eq!(data("client-ca-file"), format!("{}{}", theirs.ca_pem(), ours.ca_pem()));
        assert_eq!(data("requestheader-client-ca-file"), proxies.ca_pem());
        assert_eq!(data("requestheader-allowed-names"), r#"["a","b"]"#);
        assert_eq!(data("requestheader-username-headers"), r#"["X-Remote-User"]"#);
        assert_eq!(data("other"), "stays");
        let much_later = now + Duration::from_secs(50 * 365 * 24 * 3600);
        assert_eq!(combine(&data("client-ca-file"), "", much_later), "");
        assert_eq!(combine("garbage", ours.ca_pem(), now), ours.ca_pem());
    }
}
