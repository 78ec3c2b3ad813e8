//! Flags of the API server that say whom it believes and what for, and what they become.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use apiserver::authentication::jwt::{
    self, AuthenticationConfiguration, ClaimMappings, ClaimValidationRule, Issuer, JwtAuthenticatorConfig,
    PrefixedClaim,
};
use apiserver::authentication::keys::{PublicKey, SigningKey};
use apiserver::authentication::{Anonymous, ServiceAccountOptions, webhook};
use apiserver::authorization::config::{self as authorization, AuthorizationConfiguration};
use apiserver::encryption;
use apiserver::pki::{Serving, TlsVersion};
use clap::Args;

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

/// Others who are asked about tokens and requests.
#[derive(Debug, Args)]
#[command(next_help_heading = "Webhooks and authorization")]
pub struct WebhookArgs {
    /// A kubeconfig that says who is asked about bearer tokens that nobody here knows.
    #[arg(long, value_name = "FILE")]
    pub authentication_token_webhook_config_file: Option<PathBuf>,
    /// The version of the TokenReview that is posted: v1 or v1beta1.
    #[arg(long, default_value = "v1beta1", value_name = "VERSION")]
    pub authentication_token_webhook_version: String,
    /// How long answers about tokens are believed.
    #[arg(long, default_value = "2m0s", value_name = "DURATION", value_parser = duration)]
    pub authentication_token_webhook_cache_ttl: Duration,
    /// Who decides about requests, in this order: Node, RBAC, Webhook, AlwaysDeny [default: Node,RBAC].
    #[arg(long, value_delimiter = ',', value_name = "MODE")]
    pub authorization_mode: Vec<String>,
    /// An AuthorizationConfiguration (apiserver.config.k8s.io) instead; followed while the server runs.
    #[arg(long, value_name = "FILE")]
    pub authorization_config: Option<PathBuf>,
    /// A kubeconfig that says who is asked about requests, with the mode Webhook.
    #[arg(long, value_name = "FILE")]
    pub authorization_webhook_config_file: Option<PathBuf>,
    /// The version of the SubjectAccessReview that is posted: v1 or v1beta1 [default: v1beta1].
    #[arg(long, value_name = "VERSION")]
    pub authorization_webhook_version: Option<String>,
    /// How long it is believed that a request is allowed [default: 5m0s].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub authorization_webhook_cache_authorized_ttl: Option<Duration>,
    /// How long it is believed that a request is not allowed [default: 30s].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub authorization_webhook_cache_unauthorized_ttl: Option<Duration>,
}

impl WebhookArgs {
    /// Who is asked about tokens.
    pub fn tokens(&self) -> anyhow::Result<Option<webhook::Options>> {
        let Some(path) = &self.authentication_token_webhook_config_file else { return Ok(None) };
        let options = webhook::Options {
            version: self.authentication_token_webhook_version.clone(),
            cache_ttl: self.authentication_token_webhook_cache_ttl,
            ..webhook::Options::new(path.clone())
        };
        options.check().map_err(anyhow::Error::msg).context("--authentication-token-webhook-config-file")?;
        Ok(Some(options))
    }

    fn has_mode_flags(&self) -> bool {
        !self.authorization_mode.is_empty()
            || self.authorization_webhook_config_file.is_some()
            || self.authorization_webhook_version.is_some()
            || self.authorization_webhook_cache_authorized_ttl.is_some()
            || self.authorization_webhook_cache_unauthorized_ttl.is_some()
    }

    /// Who decides about requests.
    pub fn authorization(&self) -> anyhow::Result<authorization::Options> {
        if let Some(path) = &self.authorization_config {
            ensure!(
                !self.has_mode_flags(),
                "--authorization-config can not be specified when --authorization-mode or --authorization-webhook-* flags are defined"
            );
            let bytes = read("authorization-config", path)?;
            let shown = path.display();
            let config = AuthorizationConfiguration::parse(&bytes)
                .map_err(anyhow::Error::msg)
                .with_context(|| format!("failed to load AuthorizationConfiguration from file {shown}"))?;
            let file = Some((path.clone(), bytes));
            return Ok(authorization::Options { config, file, ..authorization::Options::default() });
        }
        let mut modes: Vec<&str> = self.authorization_mode.iter().map(String::as_str).collect();
        if modes.is_empty() {
            modes = vec!["Node", "RBAC"];
        }
        for (index, mode) in modes.iter().enumerate() {
            match *mode {
                "AlwaysAllow" | "ABAC" => bail!("--authorization-mode: {}", authorization::refused(mode)),
                "Node" | "RBAC" | "Webhook" | "AlwaysDeny" => {}
                mode => bail!("authorization-mode {mode:?} is not a valid mode"),
            }
            if modes[..index].contains(mode) {
                let quoted: Vec<String> = modes.iter().map(|mode| format!("{mode:?}")).collect();
                bail!("authorization-mode [{}] has mode specified more than once", quoted.join(" "));
            }
        }
        let mut config = AuthorizationConfiguration::of_modes(&modes);
        let place = config.authorizers.iter_mut().find(|one| one.kind == "Webhook");
        match (place, &self.authorization_webhook_config_file) {
            (Some(place), Some(path)) => place.webhook = Some(self.webhook(path)?),
            (Some(_), None) => bail!("authorization-mode Webhook's authorization config file not passed"),
            (None, Some(_)) => {
                bail!("cannot specify --authorization-webhook-config-file without mode Webhook")
            }
            (None, None) => {}
        }
        config.check().map_err(anyhow::Error::msg).context("--authorization-mode")?;
        Ok(authorization::Options { config, ..authorization::Options::default() })
    }

    /// As upstream's flags have it: a webhook that fails lets others decide.
    fn webhook(&self, path: &Path) -> anyhow::Result<authorization::Webhook> {
        let path = std::path::absolute(path).context("--authorization-webhook-config-file")?;
        let mut webhook = authorization::Webhook {
            timeout: "30s".into(),
            subject_access_review_version: self
                .authorization_webhook_version
                .clone()
                .unwrap_or_else(|| "v1beta1".into()),
            failure_policy: "NoOpinion".into(),
            connection_info: authorization::ConnectionInfo {
                kind: "KubeConfigFile".into(),
                kube_config_file: Some(path.display().to_string()),
            },
            ..authorization::Webhook::default()
        };
        let nanos = |ttl: Duration| format!("{}ns", ttl.as_nanos());
        if let Some(ttl) = self.authorization_webhook_cache_authorized_ttl {
            webhook.cache_authorized_requests = !ttl.is_zero();
            webhook.authorized_ttl = if ttl.is_zero() { webhook.authorized_ttl } else { nanos(ttl) };
        }
        if let Some(ttl) = self.authorization_webhook_cache_unauthorized_ttl {
            webhook.cache_unauthorized_requests = !ttl.is_zero();
            webhook.unauthorized_ttl = if ttl.is_zero() { webhook.unauthorized_ttl } else { nanos(ttl) };
        }
        Ok(webhook)
    }
}

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

/// What the server shows and whom it believes besides what is in its folder.
#[derive(Debug, Args)]
#[command(next_help_heading = "Serving")]
pub struct ServingArgs {
    /// Authorities of client certificates besides the cluster's own, in PEM.
    #[arg(long, value_name = "FILE")]
    pub client_ca_file: Option<PathBuf>,
    /// Authorities of front proxies besides the cluster's own, in PEM.
    #[arg(long, value_name = "FILE")]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// The certificate that the server shows, in PEM; read again when it changes [default: pki/apiserver.crt].
    #[arg(long, requires = "tls_private_key_file", value_name = "FILE")]
    pub tls_cert_file: Option<PathBuf>,
    /// The key of that certificate, in PEM.
    #[arg(long, requires = "tls_cert_file", value_name = "FILE")]
    pub tls_private_key_file: Option<PathBuf>,
    /// The oldest TLS that clients may speak: VersionTLS12 or VersionTLS13.
    #[arg(long, default_value = "VersionTLS12", value_name = "VERSION", value_parser = TlsVersion::parse)]
    pub tls_min_version: TlsVersion,
    /// The cipher suites of TLS 1.2, by Go's names [default: all that are good].
    #[arg(long, value_delimiter = ',', value_name = "SUITE")]
    pub tls_cipher_suites: Vec<String>,
}

impl ServingArgs {
    pub fn resolve(&self) -> anyhow::Result<Serving> {
        let authorities = |flag: &str, path: &Option<PathBuf>| match path {
            None => Ok(String::new()),
            Some(path) => {
                let pem = text(flag, path)?;
                let shown = path.display();
                ensure!(
                    pem.contains("-----BEGIN CERTIFICATE-----"),
                    "--{flag} {shown}: data does not contain any valid RSA or ECDSA certificates"
                );
                Ok(pem)
            }
        };
        Ok(Serving {
            certificate: self.tls_cert_file.clone().zip(self.tls_private_key_file.clone()),
            client_ca_pem: authorities("client-ca-file", &self.client_ca_file)?,
            front_proxy_ca_pem: authorities(
                "requestheader-client-ca-file",
                &self.requestheader_client_ca_file,
            )?,
            min_version: self.tls_min_version,
            cipher_suites: Serving::suites(&self.tls_cipher_suites)
                .map_err(anyhow::Error::msg)
                .context("--tls-cipher-suites")?,
        })
    }
}

/// What is encrypted in the store.
#[derive(Debug, Args)]
#[command(next_help_heading = "Encryption at rest")]
pub struct EncryptionArgs {
    /// An EncryptionConfiguration (apiserver.config.k8s.io/v1): which resources are encrypted, with which keys.
    #[arg(long, value_name = "FILE")]
    pub encryption_provider_config: Option<PathBuf>,
    /// Follow that file while the server runs.
    #[arg(long, default_value_t = false, default_missing_value = "true", num_args = 0..=1, require_equals = true,
        action = clap::ArgAction::Set, value_name = "BOOL")]
    pub encryption_provider_config_automatic_reload: bool,
}

impl EncryptionArgs {
    pub fn resolve(&self) -> anyhow::Result<Option<encryption::Options>> {
        let automatic_reload = self.encryption_provider_config_automatic_reload;
        ensure!(
            self.encryption_provider_config.is_some() || !automatic_reload,
            "--encryption-provider-config-automatic-reload must be set with --encryption-provider-config"
        );
        let options = |file: &PathBuf| encryption::Options { file: file.clone(), automatic_reload };
        Ok(self.encryption_provider_config.as_ref().map(options))
    }
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

/// A duration as Go writes it.
fn duration(text: &str) -> Result<Duration, String> {
    let nanos = apimachinery::time::parse_duration(text).map_err(|error| error.to_string())?;
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| format!("{text} is less than nothing"))
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| format!("malformed pair, expect string=string: {text}"))?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

fn read(flag: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("--{flag} {} cannot be read", path.display()))
}

fn text(flag: &str, path: &Path) -> anyhow::Result<String> {
    String::from_utf8(read(flag, path)?).with_context(|| format!("--{flag} {} is no text", path.display()))
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
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        issuer: IssuerArgs,
        #[command(flatten)]
        webhooks: WebhookArgs,
        #[command(flatten)]
        service_accounts: ServiceAccountArgs,
        #[command(flatten)]
        serving: ServingArgs,
    }

    fn issuers(flags: &[&str]) -> Result<(jwt::Options, Option<Anonymous>), String> {
        let parsed = Only::try_parse_from(std::iter::once(&"xebec").chain(flags))
            .map_err(|error| error.to_string())?;
        parsed.issuer.resolve(&["https://own.example".into()]).map_err(|error| format!("{error:#}"))
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

    #[test]
    fn who_decides_is_told_by_flags() {
        let folder = tempfile::tempdir().expect("a folder");
        let pair = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("a file");
            path.display().to_string()
        };
        let hook = pair("hook", "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]");
        let config = |text: &str| {
            let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n";
            let path = pair(&format!("config-{}", text.len()), &format!("{head}authorizers: [{text}]\n"));
            format!("--authorization-config={path}")
        };
        let options = |flags: &[&str]| {
            let parsed = Only::try_parse_from(std::iter::once(&"xebec").chain(flags)).expect("flags");
            parsed.webhooks.authorization().map_err(|error| format!("{error:#}"))
        };
        let kinds = |flags: &[&str]| {
            let config = options(flags).expect("good").config;
            config.authorizers.into_iter().map(|one| one.kind).collect::<Vec<_>>()
        };
        let hook_flag = format!("--authorization-webhook-config-file={hook}");
        assert_eq!(kinds(&[]), ["Node", "RBAC"]);
        assert_eq!(kinds(&["--authorization-mode=RBAC"]), ["RBAC"]);
        assert_eq!(kinds(&["--authorization-mode=Webhook,RBAC", &hook_flag]), ["Webhook", "RBAC"]);
        assert_eq!(kinds(&[&config("{type: RBAC, name: rbac}")]), ["RBAC"]);
        let ttl = "--authorization-webhook-cache-unauthorized-ttl=0s";
        let webhook = options(&["--authorization-mode=Webhook", &hook_flag, ttl]).expect("good").config;
        let webhook = webhook.authorizers[0].webhook.clone().expect("a webhook");
        assert_eq!((webhook.cache_authorized_requests, webhook.cache_unauthorized_requests), (true, false));
        assert_eq!((webhook.failure_policy.as_str(), webhook.timeout.as_str()), ("NoOpinion", "30s"));
        for (flags, why) in [
            (vec!["--authorization-mode=AlwaysAllow"], "authorization is always on"),
            (vec!["--authorization-mode=RBAC,AlwaysAllow"], "authorization is always on"),
            (vec!["--authorization-mode=ABAC"], "ABAC is not offered"),
            (vec!["--authorization-mode=Foo"], "authorization-mode \"Foo\" is not a valid mode"),
            (
                vec!["--authorization-mode=RBAC,RBAC"],
                "authorization-mode [\"RBAC\" \"RBAC\"] has mode specified more than once",
            ),
            (
                vec!["--authorization-mode=Webhook"],
                "authorization-mode Webhook's authorization config file not passed",
            ),
            (vec![&hook_flag], "cannot specify --authorization-webhook-config-file without mode Webhook"),
            (vec![&config("{type: AlwaysAllow, name: all}")], "authorization is always on"),
            (
                vec![&config("{type: RBAC, name: rbac}"), "--authorization-mode=RBAC"],
                "can not be specified when --authorization-mode",
            ),
        ] {
            let error = options(&flags).expect_err("refused");
            assert!(error.contains(why), "{flags:?}: {error}");
        }
    }

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
            let parsed = Only::try_parse_from(std::iter::once(&"xebec").chain(flags)).expect("flags");
            parsed.service_accounts.resolve().map_err(|error| format!("{error:#}"))
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

    #[test]
    fn serving_flags_are_checked() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ca");
        std::fs::write(&path, "nothing").expect("a file");
        let ca = format!("--client-ca-file={}", path.display());
        let options = |flags: &[&str]| {
            let parsed = Only::try_parse_from(std::iter::once(&"xebec").chain(flags));
            let parsed = parsed.map_err(|error| error.to_string())?;
            parsed.serving.resolve().map_err(|error| format!("{error:#}"))
        };
        let narrow = options(&[
            "--tls-min-version=VersionTLS13",
            "--tls-cipher-suites=TLS_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        ])
        .expect("good");
        assert_eq!((narrow.min_version, narrow.cipher_suites.len()), (TlsVersion::V13, 1));
        assert_eq!(options(&[]).expect("good").min_version, TlsVersion::V12);
        for (flags, why) in [
            (vec!["--tls-min-version=SSLv3"], "unknown tls version \"SSLv3\""),
            (
                vec!["--tls-cipher-suites=TLS_RSA_WITH_RC4_128_SHA"],
                "Cipher suite TLS_RSA_WITH_RC4_128_SHA not supported or doesn't exist",
            ),
            (vec!["--tls-cert-file=x"], "--tls-private-key-file"),
            (vec![&ca], "data does not contain any valid RSA or ECDSA certificates"),
            (vec!["--requestheader-client-ca-file=/nowhere"], "cannot be read"),
        ] {
            let error = options(&flags).map(drop).expect_err("refused");
            assert!(error.contains(why), "{flags:?}: {error}");
        }
    }
}
