//! Bootstrap tokens, by which nodes first reach the cluster: [`cleaner`] takes away what has expired, [`signer`] lets
//! those who hold a token trust what `kube-public/cluster-info` says.

mod cleaner;
mod signer;

use std::time::Duration;

use client::Selector;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;

pub use cleaner::run as run_cleaner;
pub use signer::run as run_signer;

const NAMESPACE: &str = "kube-system";
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";

/// The secrets that are watched.
fn secrets() -> Selector {
    Selector::fields(format!("metadata.namespace={NAMESPACE},type={SECRET_TYPE}"))
}

fn data<'a>(secret: &'a Secret, key: &str) -> &'a str {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.as_slice());
    bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
}

/// How long a token is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    ForEver,
    For(Duration),
    /// Also when its end cannot be read.
    Over,
}

fn life(secret: &Secret, now: Timestamp) -> Life {
    let expiration = data(secret, "expiration");
    if expiration.is_empty() {
        return Life::ForEver;
    }
    let left = expiration.parse::<Timestamp>().ok().and_then(|end| Duration::try_from(end - now).ok());
    match left {
        Some(left) if !left.is_zero() => Life::For(left),
        _ => Life::Over,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    pub fn secret(pairs: &[(&str, &str)]) -> Secret {
        let mut secret = Secret { type_: Some(SECRET_TYPE.to_owned()), ..Secret::default() };
        let pairs =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
        secret.data = Some(pairs.collect());
        secret
    }

    #[test]
    fn lives_end_when_they_say_or_cannot_say() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let cases = [
            ("", Life::ForEver),
            ("2026-01-01T00:00:05Z", Life::For(Duration::from_secs(5))),
            ("2026-01-01T01:00:05+01:00", Life::For(Duration::from_secs(5))),
            ("2026-01-01T00:00:00Z", Life::Over),
            ("2025-12-31T00:00:00Z", Life::Over),
            ("soon", Life::Over),
        ];
        for (text, wanted) in cases {
            assert_eq!(life(&secret(&[("expiration", text)]), now), wanted, "{text}");
        }
    }
}
