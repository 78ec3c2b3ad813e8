//! What is wrong with a request for a certificate. Updates tolerate what was stored before a rule came.

use apimachinery::field::{Error, ErrorList, quote};
use apimachinery::validation as names;
use apimachinery::{Object, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::pem;
use crate::validation::at::At;

pub const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";
const SHORTEST: i64 = 600;
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// Through which door an update comes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Main,
    Status,
    Approval,
}

/// What is let pass.
#[derive(Clone, Copy, Default)]
struct Lenient {
    both_decisions: bool,
    legacy_signer: bool,
    duplicate_conditions: bool,
    untyped_conditions: bool,
    any_certificate: bool,
    unknown_usages: bool,
    duplicate_usages: bool,
}

fn bytes(value: &Value) -> Vec<u8> {
    value.as_str().and_then(|text| BASE64.decode(text).ok()).unwrap_or_default()
}

fn certificate(request: &Object) -> Vec<u8> {
    request.get(&["status", "certificate"]).map(bytes).unwrap_or_default()
}

pub fn validate(request: &Object) -> ErrorList {
    judge(request, Lenient::default())
}

fn judge(request: &Object, lenient: Lenient) -> ErrorList {
    let root = At::root(request);
    let spec = root.child("spec");
    let mut errors = ErrorList::new();
    let body = spec.child("request");
    if let Err(why) = pem::check_request(&bytes(body.value)) {
        errors.push(body.invalid(why));
    }
    errors.extend(usages(&spec.child("usages"), lenient));
    let signer = spec.child("signerName");
    if !lenient.legacy_signer && signer.str() == LEGACY_UNKNOWN {
        errors.push(signer.invalid("the legacy signerName is not allowed via this API version"));
    } else {
        errors.extend(signer_name(&signer));
    }
    let duration = spec.child("expirationSeconds");
    if duration.int().is_some_and(|seconds| seconds < SHORTEST) {
        errors.push(duration.invalid("may not specify a duration less than 600 seconds (10 minutes)"));
    }
    errors.extend(conditions(&root.child("status").child("conditions"), lenient));
    if !lenient.any_certificate
        && let Err(why) = pem::check_certificate(&certificate(request))
    {
        let path = root.child("status").child("certificate").path;
        errors.push(Error::invalid(&path, "<certificate data>", why));
    }
    errors
}

fn usages(usages: &At<'_>, lenient: Lenient) -> ErrorList {
    let mut errors = ErrorList::new();
    if usages.is_empty() {
        errors.push(usages.required(""));
    }
    if !lenient.unknown_usages {
        errors.extend(usages.items().flat_map(|usage| usage.supported(&USAGES)));
    }
    if !lenient.duplicate_usages {
        let repeated = |(index, usage): &(usize, At<'_>)| usages.list()[..*index].contains(usage.value);
        errors.extend(usages.items().enumerate().filter(repeated).map(|(_, usage)| usage.duplicate()));
    }
    errors
}

/// A domain, a slash and a path: `example.com/my-signer`.
fn signer_name(signer: &At<'_>) -> ErrorList {
    const MAX: usize = 253 + 253 + 64 + 1;
    let name = signer.str();
    if name.is_empty() {
        return vec![signer.required("")];
    }
    let (domain, path) = match name.split('/').collect::<Vec<_>>()[..] {
        [domain, path] => (domain, path),
        _ => {
            let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
            return vec![signer.invalid(why)];
        }
    };
    let mut errors = ErrorList::new();
    if domain.len() > 253 {
        errors.push(signer.too_long(253));
    }
    let first_wrong = |part: &str, form: fn(&str) -> Vec<String>| -> ErrorList {
        part.split('.')
            .map(|label| (label, form(label)))
            .find(|(_, wrong)| !wrong.is_empty())
            .into_iter()
            .flat_map(|(label, wrong)| {
                let label = quote(label);
                wrong.into_iter().map(move |why| format!("validating label {label}: {why}"))
            })
            .map(|why| Error::invalid(&signer.path, part, why))
            .collect()
    };
    errors.extend(first_wrong(domain, names::is_dns1123_label));
    if !domain.contains('.') {
        let why = "should be a domain with at least two segments separated by dots";
        errors.push(Error::invalid(&signer.path, domain, why));
    }
    errors.extend(first_wrong(path, names::is_dns1123_subdomain));
    if name.len() > MAX {
        errors.push(signer.too_long(MAX));
    }
    errors
}

fn conditions(conditions: &At<'_>, lenient: Lenient) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for condition in conditions.items() {
        let (kind, status) = (condition.child("type"), condition.child("status"));
        if kind.is_empty() && !lenient.untyped_conditions {
            errors.push(kind.required(""));
        }
        let decision = matches!(kind.str(), "Approved" | "Denied" | "Failed");
        let valid: &[&str] = if decision { &["True"] } else { &["False", "True", "Unknown"] };
        errors.extend(status.one_of(valid));
        let other = match kind.str() {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if !lenient.both_decisions && !other.is_empty() && seen.contains(&other) {
            errors.push(kind.invalid("Approved and Denied conditions are mutually exclusive"));
        }
        if !lenient.duplicate_conditions && seen.contains(&kind.str()) {
            errors.push(kind.duplicate());
        }
        seen.push(kind.str());
    }
    errors
}

/// The conditions of a type.
pub fn of_type<'a>(request: &'a Object, kind: &str) -> Vec<&'a Value> {
    let all = request.get_array(&["status", "conditions"]);
    all.iter().filter(|condition| condition["type"] == kind).collect()
}

fn has_repeats<'a>(values: impl Iterator<Item = &'a Value>) -> bool {
    let values: Vec<&Value> = values.collect();
    values.iter().enumerate().any(|(index, value)| values[..index].contains(value))
}

pub fn validate_update(request: &Object, old: &Object, door: Door) -> ErrorList {
    let kinds = || old.get_array(&["status", "conditions"]).iter().map(|condition| &condition["type"]);
    let usages = old.get_array(&["spec", "usages"]);
    let lenient = Lenient {
        both_decisions: !of_type(old, "Approved").is_empty() && !of_type(old, "Denied").is_empty(),
        legacy_signer: old.get_str(&["spec", "signerName"]) == LEGACY_UNKNOWN,
        duplicate_conditions: has_repeats(kinds()),
        untyped_conditions: kinds().any(|kind| kind.as_str().unwrap_or_default().is_empty()),
        any_certificate: certificate(request) == certificate(old)
            || pem::check_certificate(&certificate(old)).is_err(),
        unknown_usages: usages.iter().any(|usage| !USAGES.iter().any(|known| usage == known)),
        duplicate_usages: has_repeats(usages.iter()),
    };
    let mut errors = judge(request, lenient);
    let status = At::root(request).child("status");
    let conditions = status.child("conditions");
    for kind in ["Approved", "Denied", "Failed"] {
        if of_type(request, kind).len() < of_type(old, kind).len() {
            let why = format!("updates may not remove a condition of type {}", quote(kind));
            errors.push(conditions.forbidden(why));
        }
    }
    if door != Door::Approval {
        for kind in ["Approved", "Denied"] {
            let (new, before) = (of_type(request, kind), of_type(old, kind));
            if new.len() > before.len() {
                let why = format!("updates may not add a condition of type {}", quote(kind));
                errors.push(conditions.forbidden(why));
            } else if new.len() == before.len() && new != before {
                let why = format!("updates may not modify a condition of type {}", quote(kind));
                errors.push(conditions.forbidden(why));
            }
        }
    }
    if certificate(request) != certificate(old) {
        let at = status.child("certificate");
        if door != Door::Status {
            errors.push(at.forbidden("updates may not set certificate content"));
        } else if !certificate(old).is_empty() {
            errors.push(at.forbidden("updates may not modify existing certificate content"));
        }
    }
    errors
}
