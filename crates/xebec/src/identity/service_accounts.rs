//! Tokens of service accounts and the keys behind them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use apiserver::authentication::ServiceAccountOptions;
use apiserver::authentication::keys::{PublicKey, SigningKey};
use clap::Args;

use super::{duration, read};

/// Tokens of service accounts.
#[derive(Debug, Args)]
#[command(next_help_heading = "Service account tokens")]
pub struct ServiceAccountArgs {
    /// Who new tokens say they are from; those of further ones are believed as well [default: the cluster's own name].
    #[arg(long, value_name = "ISSUER")]
    pub service_account_issuer: Vec<String>,
    /// Keys whose tokens are believed besides that which signs, in PEM; may be given several times.
    #[arg(long, value_name = "FILE")]
    pub service_account_key_file: Vec<PathBuf>,
    /// The key that signs new tokens, in PEM [default: pki/sa.key].
    #[arg(long, value_name = "FILE")]
    pub service_account_signing_key_file: Option<PathBuf>,
    /// What tokens have to be for to be good at this server [default: the issuers].
    #[arg(long, value_delimiter = ',', value_name = "AUDIENCE")]
    pub api_audiences: Vec<String>,
    /// How long a token may be good at most.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub service_account_max_token_expiration: Option<Duration>,
    /// Let the tokens of pods live on for a year, for clients that do not read them again.
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true,
        action = clap::ArgAction::Set, value_name = "BOOL")]
    pub service_account_extend_token_expiration: bool,
    /// Where others are told to find the keys [default: at this server].
    #[arg(long, value_name = "URL")]
    pub service_account_jwks_uri: Option<String>,
}

/// What signs the tokens of secrets, for the token controller.
pub fn token_signer(key: SigningKey) -> controller_manager::service_account_tokens::Signer {
    Arc::new(move |claims| key.sign(claims).map_err(|error| error.to_string()))
}

/// The key that signs tokens, of a file if one is named.
pub fn signing_key(flag: &str, file: Option<&Path>) -> anyhow::Result<Option<SigningKey>> {
    let Some(path) = file else { return Ok(None) };
    let key = SigningKey::from_private_pem(&read(flag, path)?);
    key.map(Some).with_context(|| format!("--{flag} {}", path.display()))
}

/// What upstream asks for so that its extension of tokens still works.
const EXTENDED_FROM: Duration = Duration::from_secs(3607);
const EXTENDED_TO: Duration = Duration::from_secs(365 * 24 * 3600);

impl ServiceAccountArgs {
    pub fn resolve(&self) -> anyhow::Result<ServiceAccountOptions> {
        for (index, issuer) in self.service_account_issuer.iter().enumerate() {
            ensure!(!issuer.is_empty(), "service-account-issuer should not be an empty string");
            ensure!(
                !self.service_account_issuer[..index].contains(issuer),
                "service-account-issuer {issuer:?} is already specified"
            );
            if issuer.contains(':') {
                apiserver::authentication::check_url(issuer).map_err(|why| {
                    anyhow::anyhow!(
                        "service-account-issuer {issuer:?} contained a ':' but was not a valid URL: {why}"
                    )
                })?;
            }
        }
        let mut keys = Vec::new();
        for path in &self.service_account_key_file {
            let pem = read("service-account-key-file", path)?;
            let found = PublicKey::from_pem(&pem);
            keys.extend(found.with_context(|| format!("--service-account-key-file {}", path.display()))?);
        }
        let file = self.service_account_signing_key_file.as_deref();
        let signing_key = signing_key("service-account-signing-key-file", file)?;
        let jwks_uri = self.service_account_jwks_uri.clone().unwrap_or_default();
        if !jwks_uri.is_empty() {
            let scheme = apiserver::authentication::check_url(&jwks_uri)
                .map_err(|why| anyhow::anyhow!("service-account-jwks-uri must be a valid URL: {why}"))?;
            ensure!(
                scheme == "https",
                "service-account-jwks-uri requires https scheme, parsed as: {jwks_uri}"
            );
        }
        Ok(ServiceAccountOptions {
            issuers: self.service_account_issuer.clone(),
            audiences: self.api_audiences.clone(),
            signing_key,
            keys,
            jwks_uri,
            max_expiration: self.max_expiration()?,
            extend_expiration: self.service_account_extend_token_expiration,
        })
    }

    fn max_expiration(&self) -> anyhow::Result<Option<i64>> {
        let Some(max) = self.service_account_max_token_expiration.filter(|max| !max.is_zero()) else {
            return Ok(None);
        };
        ensure!(
            (Duration::from_secs(3600)..=Duration::from_secs(1 << 32)).contains(&max),
            "the service-account-max-token-expiration must be between 1 hour and 2^32 seconds"
        );
        if self.service_account_extend_token_expiration {
            ensure!(
                (EXTENDED_FROM..=EXTENDED_TO).contains(&max),
                "the service-account-extend-token-expiration is true, in order to correctly trigger safe transition logic, the service-account-max-token-expiration must be set longer than {} seconds (currently {}s)",
                EXTENDED_FROM.as_secs(),
                max.as_secs()
            );
        }
        Ok(i64::try_from(max.as_secs()).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::parse;

    #[test]
    fn service_account_flags_are_checked() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        std::fs::write(&path, "no key").expect("a file");
        let shown = path.display();
        let (keys, signing) = (
            format!("--service-account-key-file={shown}"),
            format!("--service-account-signing-key-file={shown}"),
        );
        let options = |flags: &[&str]| {
            let parsed = parse::<ServiceAccountArgs>(flags).expect("flags");
            parsed.resolve().map_err(|error| format!("{error:#}"))
        };
        let good = options(&[
            "--service-account-issuer=https://a",
            "--service-account-issuer=b",
            "--api-audiences=x,y",
            "--service-account-max-token-expiration=24h",
            "--service-account-extend-token-expiration=false",
            "--service-account-jwks-uri=https://a/keys",
        ])
        .map_err(|error| error.to_string())
        .expect("good");
        assert_eq!((good.issuers.len(), good.audiences.len()), (2, 2));
        assert_eq!((good.max_expiration, good.extend_expiration), (Some(86400), false));
        for (flags, why) in [
            (vec!["--service-account-issuer="], "service-account-issuer should not be an empty string"),
            (
                vec!["--service-account-issuer=a", "--service-account-issuer=a"],
                "service-account-issuer \"a\" is already specified",
            ),
            (vec!["--service-account-issuer=https://a b"], "contained a ':' but was not a valid URL"),
            (vec!["--service-account-jwks-uri=http://a"], "requires https scheme, parsed as: http://a"),
            (vec!["--service-account-max-token-expiration=59m"], "between 1 hour and 2^32 seconds"),
            (vec!["--service-account-max-token-expiration=1h"], "must be set longer than 3607 seconds"),
            (vec![&keys], "it holds no public key"),
            (vec![&signing], "data does not contain a valid RSA or ECDSA private key"),
            (vec!["--service-account-key-file=/nowhere"], "cannot be read"),
        ] {
            let error = options(&flags).map(drop).expect_err("refused");
            assert!(error.contains(why), "{flags:?}: {error}");
        }
    }
}
