//! Who decides about requests, and others who are asked about them and about tokens.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use apiserver::authentication::webhook;
use apiserver::authorization::config::{self as authorization, AuthorizationConfiguration};
use clap::Args;

use super::{duration, read};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::parse;

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
            let parsed = parse::<WebhookArgs>(flags).expect("flags");
            parsed.authorization().map_err(|error| format!("{error:#}"))
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
}
