//! Other issuers of tokens.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use apiserver::authentication::Anonymous;
use apiserver::authentication::jwt::{
    self, AuthenticationConfiguration, ClaimMappings, ClaimValidationRule, Issuer, JwtAuthenticatorConfig,
    PrefixedClaim,
};
use clap::Args;

use super::{read, text};

/// Tokens of other issuers.
#[derive(Debug, Args)]
#[command(next_help_heading = "Authentication by other issuers")]
pub struct IssuerArgs {
    /// An AuthenticationConfiguration (apiserver.config.k8s.io) with issuers of tokens; followed while the server runs.
    #[arg(long, value_name = "FILE")]
    pub authentication_config: Option<PathBuf>,
    /// The URL of one OpenID issuer.
    #[arg(long, value_name = "URL")]
    pub oidc_issuer_url: Option<String>,
    /// The audience that its tokens have to be for.
    #[arg(long, value_name = "ID")]
    pub oidc_client_id: Option<String>,
    /// The authorities of its certificate, in PEM [default: the system's].
    #[arg(long, value_name = "FILE")]
    pub oidc_ca_file: Option<PathBuf>,
    /// The claim that is the user's name.
    #[arg(long, default_value = "sub", value_name = "CLAIM")]
    pub oidc_username_claim: String,
    /// What comes before the user's name; - for nothing [default: the issuer's URL, but for email].
    #[arg(long, value_name = "PREFIX")]
    pub oidc_username_prefix: Option<String>,
    /// The claim that holds the user's groups.
    #[arg(long, value_name = "CLAIM")]
    pub oidc_groups_claim: Option<String>,
    /// What comes before each group.
    #[arg(long, value_name = "PREFIX")]
    pub oidc_groups_prefix: Option<String>,
    /// How its tokens may be signed.
    #[arg(long, value_delimiter = ',', default_value = "RS256", value_name = "ALGORITHM")]
    pub oidc_signing_algs: Vec<String>,
    /// A claim that its tokens have to have; may be given several times.
    #[arg(long, value_name = "CLAIM=VALUE", value_parser = pair)]
    pub oidc_required_claim: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| format!("malformed pair, expect string=string: {text}"))?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

impl IssuerArgs {
    fn has_oidc_flags(&self) -> bool {
        self.oidc_issuer_url.is_some()
            || self.oidc_client_id.is_some()
            || self.oidc_ca_file.is_some()
            || self.oidc_username_claim != "sub"
            || self.oidc_username_prefix.is_some()
            || self.oidc_groups_claim.is_some()
            || self.oidc_groups_prefix.is_some()
            || self.oidc_signing_algs != ["RS256"]
            || !self.oidc_required_claim.is_empty()
    }

    /// The issuers, and where anonymous requests pass if the file says so. `own` are the issuers of service account
    /// tokens.
    pub fn resolve(&self, own: &[String]) -> anyhow::Result<(jwt::Options, Option<Anonymous>)> {
        if let Some(path) = &self.authentication_config {
            ensure!(
                !self.has_oidc_flags(),
                "authentication-config file and oidc-* flags are mutually exclusive"
            );
            let bytes = read("authentication-config", path)?;
            let shown = path.display();
            ensure!(!bytes.is_empty(), "--authentication-config: empty config file {:?}", path);
            let config = AuthenticationConfiguration::parse(&bytes, own)
                .map_err(anyhow::Error::msg)
                .with_context(|| format!("--authentication-config {shown}"))?;
            let anonymous = config.anonymous.as_ref().map(|anonymous| {
                let paths: Vec<String> =
                    anonymous.conditions.iter().map(|condition| condition.path.clone()).collect();
                match (anonymous.enabled, paths.is_empty()) {
                    (false, _) => Anonymous::Nowhere,
                    (true, true) => Anonymous::Everywhere,
                    (true, false) => Anonymous::At(paths),
                }
            });
            let options =
                jwt::Options { config, file: Some((path.clone(), bytes)), ..jwt::Options::default() };
            return Ok((options, anonymous));
        }
        if !self.has_oidc_flags() {
            return Ok(Default::default());
        }
        let (Some(url), Some(client)) = (&self.oidc_issuer_url, &self.oidc_client_id) else {
            bail!(
                "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set"
            );
        };
        let config = AuthenticationConfiguration { jwt: vec![self.issuer(url, client)?], anonymous: None };
        config.check(own).map_err(anyhow::Error::msg).context("--oidc-issuer-url")?;
        let algorithm = |name: &String| {
            jwt::Algorithm::parse(name).with_context(|| format!("oidc: unsupported signing alg: {name:?}"))
        };
        let algorithms = self.oidc_signing_algs.iter().map(algorithm).collect::<anyhow::Result<_>>()?;
        Ok((jwt::Options { config, algorithms, file: None }, None))
    }

    fn issuer(&self, url: &str, client: &str) -> anyhow::Result<JwtAuthenticatorConfig> {
        let given = self.oidc_username_prefix.as_deref().unwrap_or_default();
        let username_prefix = match given {
            "" if self.oidc_username_claim != "email" => format!("{url}#"),
            "-" => String::new(),
            given => given.to_owned(),
        };
        let groups = self.oidc_groups_claim.as_ref().filter(|claim| !claim.is_empty());
        let groups = groups.map(|claim| PrefixedClaim {
            claim: claim.clone(),
            prefix: Some(self.oidc_groups_prefix.clone().unwrap_or_default()),
            ..PrefixedClaim::default()
        });
        let required = self.oidc_required_claim.iter().map(|(claim, value)| ClaimValidationRule {
            claim: claim.clone(),
            required_value: value.clone(),
            ..ClaimValidationRule::default()
        });
        Ok(JwtAuthenticatorConfig {
            issuer: Issuer {
                url: url.to_owned(),
                audiences: vec![client.to_owned()],
                certificate_authority: match &self.oidc_ca_file {
                    Some(path) => text("oidc-ca-file", path)?,
                    None => String::new(),
                },
                ..Issuer::default()
            },
            claim_mappings: ClaimMappings {
                username: PrefixedClaim {
                    claim: self.oidc_username_claim.clone(),
                    prefix: Some(username_prefix),
                    ..PrefixedClaim::default()
                },
                groups: groups.unwrap_or_default(),
                ..ClaimMappings::default()
            },
            claim_validation_rules: required.collect(),
            ..JwtAuthenticatorConfig::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::parse;

    fn issuers(flags: &[&str]) -> Result<(jwt::Options, Option<Anonymous>), String> {
        let own = ["https://own.example".to_owned()];
        parse::<IssuerArgs>(flags)?.resolve(&own).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn oidc_flags_name_an_issuer() {
        const BASE: [&str; 2] = ["--oidc-issuer-url=https://i.example", "--oidc-client-id=app"];
        let with = |more: &[&str]| issuers(&[BASE.as_slice(), more].concat()).expect("good").0;
        assert!(issuers(&[]).expect("none").0.config.jwt.is_empty());
        let plain = with(&[]);
        assert_eq!(plain.algorithms, [jwt::Algorithm::parse("RS256").expect("known")]);
        let prefix = |options: &jwt::Options| options.config.jwt[0].claim_mappings.username.prefix.clone();
        assert_eq!(prefix(&plain).as_deref(), Some("https://i.example#"));
        assert_eq!(plain.config.jwt[0].issuer.audiences, ["app"]);
        for (flags, wanted) in [
            (vec!["--oidc-username-claim=email"], ""),
            (vec!["--oidc-username-prefix=-"], ""),
            (vec!["--oidc-username-prefix=o:"], "o:"),
            (vec!["--oidc-username-claim=name"], "https://i.example#"),
        ] {
            assert_eq!(prefix(&with(&flags)).as_deref(), Some(wanted), "{flags:?}");
        }
        let more = with(&[
            "--oidc-groups-claim=g",
            "--oidc-groups-prefix=o:",
            "--oidc-signing-algs=ES256,PS256",
            "--oidc-required-claim=a=b=c",
            "--oidc-required-claim=d=e",
        ]);
        let jwt = &more.config.jwt[0];
        assert_eq!(jwt.claim_mappings.groups.prefix.as_deref(), Some("o:"));
        assert_eq!(jwt.claim_validation_rules[0].required_value, "b=c");
        assert_eq!((jwt.claim_validation_rules.len(), more.algorithms.len()), (2, 2));
    }

    #[test]
    fn flags_that_make_no_sense_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config");
        let file = format!("--authentication-config={}", path.display());
        let refused = |flags: &[&str]| issuers(flags).map(drop).expect_err("refused");
        assert!(refused(&[&file]).contains("cannot be read"));
        std::fs::write(&path, "").expect("a file");
        assert!(refused(&[&file]).contains("empty config file"));
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";
        std::fs::write(
            &path,
            format!("{head}anonymous: {{enabled: true, conditions: [{{path: /livez}}]}}\n"),
        )
        .expect("a file");
        assert_eq!(issuers(&[&file]).expect("good").1, Some(Anonymous::At(vec!["/livez".into()])));
        std::fs::write(&path, format!("{head}jtw: []\n")).expect("a file");
        assert!(refused(&[&file]).contains("unknown field \"jtw\""));
        let together =
            "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set";
        for (flags, why) in [
            (
                vec![file.as_str(), "--oidc-client-id=a"],
                "authentication-config file and oidc-* flags are mutually exclusive",
            ),
            (vec!["--oidc-issuer-url=https://i"], together),
            (vec!["--oidc-groups-claim=g"], together),
            (vec!["--oidc-issuer-url=http://i", "--oidc-client-id=a"], "URL scheme must be https"),
            (
                vec!["--oidc-issuer-url=https://own.example", "--oidc-client-id=a"],
                "disallowed issuers: [https://own.example]",
            ),
            (
                vec!["--oidc-issuer-url=https://i", "--oidc-client-id=a", "--oidc-signing-algs=none"],
                "oidc: unsupported signing alg: \"none\"",
            ),
            (
                vec!["--oidc-issuer-url=https://i", "--oidc-client-id=a", "--oidc-signing-algs=HS256"],
                "oidc: unsupported signing alg: \"HS256\"",
            ),
            (vec!["--oidc-required-claim=a"], "malformed pair, expect string=string: a"),
        ] {
            let error = refused(&flags);
            assert!(error.contains(why), "{flags:?}: {error}");
        }
    }
}
