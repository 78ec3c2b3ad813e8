//! Takes away requests that are over: issued, denied or failed an hour ago, or waiting for a day.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::DeleteParams;
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;
use x509_parser::pem::Pem;

use super::{conditions, issued};
use crate::Shared;

const PERIOD: Duration = Duration::from_secs(3600);
const DECIDED: Duration = Duration::from_secs(3600);
const PENDING: Duration = Duration::from_secs(24 * 3600);

fn is_older(time: Option<&Time>, age: Duration, now: Timestamp) -> bool {
    time.is_some_and(|time| time.0 < now - age)
}

/// Whether the certificate in the status has ended.
fn has_expired(object: &CertificateSigningRequest, now: Timestamp) -> bool {
    let end = || {
        let block = Pem::iter_from_buffer(issued(object)?).next()?.ok()?;
        Some(block.parse_x509().ok()?.validity().not_after.timestamp())
    };
    end().is_some_and(|end| end < now.as_second())
}

/// Why a request goes; nothing when it stays.
fn plan(object: &CertificateSigningRequest, now: Timestamp) -> Option<&'static str> {
    let issued = issued(object).is_some();
    for condition in conditions(object) {
        let age = |age| is_older(condition.last_update_time.as_ref(), age, now);
        let over = match condition.type_.as_str() {
            "Approved" if issued && age(DECIDED) => Some("approved"),
            "Approved" if issued && has_expired(object, now) => Some("expired"),
            "Approved" if !issued && age(PENDING) => Some("approved and not issued"),
            "Denied" if age(DECIDED) => Some("denied"),
            "Failed" if age(DECIDED) => Some("failed"),
            _ => None,
        };
        if over.is_some() {
            return over;
        }
    }
    let unseen = conditions(object).is_empty();
    (unseen && is_older(object.metadata.creation_timestamp.as_ref(), PENDING, now)).then_some("unhandled")
}

pub async fn run(shared: Shared, client: Client, cancel: CancellationToken) {
    let requests = shared.informers.all::<CertificateSigningRequest>();
    requests.wait_for_sync().await;
    let api: Api<CertificateSigningRequest> = Api::all(client);
    let clean = async {
        loop {
            for object in requests.store().list() {
                clean(&api, &object).await;
            }
            tokio::time::sleep(PERIOD).await;
        }
    };
    cancel.run_until_cancelled(clean).await;
}

async fn clean(api: &Api<CertificateSigningRequest>, object: &Arc<CertificateSigningRequest>) {
    let Some(why) = plan(object, Timestamp::now()) else { return };
    let name = object.metadata.name.as_deref().unwrap_or_default();
    tracing::info!(csr = name, why, "a request for a certificate is over and goes");
    match api.delete(name, &DeleteParams::default()).await {
        Err(error) if !client::is_not_found(&error) => {
            tracing::warn!(csr = name, %error, "unable to delete the request");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;
    use crate::certificates::KUBE_APISERVER_CLIENT;
    use crate::certificates::authority::Authority;
    use crate::certificates::request::Request;
    use crate::certificates::testing::{add, authority, object, request_pem, usages};

    const HOUR: i64 = 3600;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn certificate(authority: &Authority, ends_after: i64) -> ByteString {
        let request = Request::parse(request_pem("a", &[], &[]).as_bytes()).unwrap();
        let life = Duration::from_secs(ends_after.unsigned_abs());
        let pem = authority.sign(&request, &usages(&["any"]), life, at(0), [1; 16]).unwrap();
        ByteString(pem.into_bytes())
    }

    #[test]
    fn what_is_over_goes() {
        let authority = authority();
        let (long, short) = (certificate(&authority, 7 * HOUR), certificate(&authority, 60));
        // condition, certificate, seconds until it still stays, why it goes a second later
        let cases = [
            (None, None, 24 * HOUR, "unhandled"),
            (Some("Approved"), None, 24 * HOUR, "approved and not issued"),
            (Some("Approved"), Some(&long), HOUR, "approved"),
            (Some("Approved"), Some(&short), 60, "expired"),
            (Some("Denied"), None, HOUR, "denied"),
            (Some("Failed"), None, HOUR, "failed"),
        ];
        for (kind, certificate, age, why) in cases {
            let mut object = object("", KUBE_APISERVER_CLIENT, &["client auth"]);
            object.metadata.creation_timestamp = Some(Time(at(0)));
            if let Some(kind) = kind {
                add(&mut object, kind, at(0));
            }
            if let Some(certificate) = certificate {
                object.status.as_mut().unwrap().certificate = Some(certificate.clone());
            }
            assert_eq!(plan(&object, at(age)), None, "{why}");
            assert_eq!(plan(&object, at(age + 1)), Some(why));
        }
    }
}
