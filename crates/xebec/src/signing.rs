//! How the controllers sign requests for certificates: upstream's flags, and what they mean.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use controller_manager::Signing;
use controller_manager::certificates::{AuthorityFiles, Signers};

/// The longest life of certificates that are asked for.
#[derive(Debug, Args)]
#[command(next_help_heading = "Signing")]
pub struct DurationArgs {
    /// How long certificates live that are signed for requests, unless less is asked for.
    #[arg(long, default_value = "8760h0m0s", value_name = "DURATION", value_parser = positive)]
    pub cluster_signing_duration: Duration,
}

/// What becomes of tokens that lie in secrets.
#[derive(Debug, Args)]
pub struct LegacyTokenArgs {
    /// How long a token that was made for a service account, and that nobody mounts, has to go unused until it is marked
    /// invalid, and then until it is deleted.
    #[arg(long, default_value = "8760h0m0s", value_name = "DURATION", value_parser = positive)]
    pub legacy_service_account_token_clean_up_period: Duration,
}

/// With what requests for certificates are signed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Signing")]
pub struct SigningArgs {
    #[command(flatten)]
    pub duration: DurationArgs,
    /// The authority that signs for all of the cluster's signers, in PEM.
    #[arg(long, value_name = "FILE")]
    pub cluster_signing_cert_file: Option<PathBuf>,
    /// The key of that authority, in PEM.
    #[arg(long, value_name = "FILE")]
    pub cluster_signing_key_file: Option<PathBuf>,
    /// The authority that signs for kubernetes.io/kubelet-serving alone.
    #[arg(long, value_name = "FILE")]
    pub cluster_signing_kubelet_serving_cert_file: Option<PathBuf>,
    /// The key of that authority.
    #[arg(long, value_name = "FILE")]
    pub cluster_signing_kubelet_serving_key_file: Option<PathBuf>,
    /// The authority that signs for kubernetes.io/kube-apiserver-client-kubelet alone.
    #[arg(long, value_name = "FILE")]
    pub cluster_signing_kubelet_client_cert_file: Option<PathBuf>,
    /// The key of that authority.
    #[arg(long, value_name = "FILE")]
    pub cluster_signing_kubelet_client_key_file: Option<PathBuf>,
    /// The authority that signs for kubernetes.io/kube-apiserver-client alone.
    #[arg(long, value_name = "FILE")]
    pub cluster_signing_kube_apiserver_client_cert_file: Option<PathBuf>,
    /// The key of that authority.
    #[arg(long, value_name = "FILE")]
    pub cluster_signing_kube_apiserver_client_key_file: Option<PathBuf>,
    /// The authority that signs for kubernetes.io/legacy-unknown alone.
    #[arg(long, value_name = "FILE")]
    pub cluster_signing_legacy_unknown_cert_file: Option<PathBuf>,
    /// The key of that authority.
    #[arg(long, value_name = "FILE")]
    pub cluster_signing_legacy_unknown_key_file: Option<PathBuf>,
}

fn positive(text: &str) -> Result<Duration, String> {
    let nanos = apimachinery::time::parse_duration(text).map_err(|error| error.to_string())?;
    match u64::try_from(nanos) {
        Ok(nanos) if nanos > 0 => Ok(Duration::from_nanos(nanos)),
        _ => Err("must be longer than nothing".into()),
    }
}

impl SigningArgs {
    /// Who signs; nothing where no authority is given.
    pub fn resolve(&self) -> anyhow::Result<Option<Signing>> {
        let files = |certificate: &Option<PathBuf>, key: &Option<PathBuf>, flags: &'static str| {
            AuthorityFiles::of(certificate.as_deref(), key.as_deref()).context(flags)
        };
        let all = files(
            &self.cluster_signing_cert_file,
            &self.cluster_signing_key_file,
            "--cluster-signing-cert-file and --cluster-signing-key-file",
        )?;
        let each = Signers {
            kubelet_serving: files(
                &self.cluster_signing_kubelet_serving_cert_file,
                &self.cluster_signing_kubelet_serving_key_file,
                "--cluster-signing-kubelet-serving-{cert,key}-file",
            )?,
            kubelet_client: files(
                &self.cluster_signing_kubelet_client_cert_file,
                &self.cluster_signing_kubelet_client_key_file,
                "--cluster-signing-kubelet-client-{cert,key}-file",
            )?,
            kube_apiserver_client: files(
                &self.cluster_signing_kube_apiserver_client_cert_file,
                &self.cluster_signing_kube_apiserver_client_key_file,
                "--cluster-signing-kube-apiserver-client-{cert,key}-file",
            )?,
            legacy_unknown: files(
                &self.cluster_signing_legacy_unknown_cert_file,
                &self.cluster_signing_legacy_unknown_key_file,
                "--cluster-signing-legacy-unknown-{cert,key}-file",
            )?,
        };
        if all.is_none() && each == Signers::default() {
            return Ok(None);
        }
        Signing::new(all, each, self.duration.cluster_signing_duration).map(Some)
    }
}

impl DurationArgs {
    /// Signing with the cluster's own authority.
    pub fn with_pki(&self, data_dir: &Path) -> anyhow::Result<Signing> {
        let pki = data_dir.join("pki");
        let files = AuthorityFiles { certificate: pki.join("ca.crt"), key: pki.join("ca.key") };
        Signing::new(Some(files), Signers::default(), self.cluster_signing_duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos_and_positive() {
        assert_eq!(positive("8760h0m0s"), Ok(controller_manager::certificates::SIGNING_DURATION));
        assert_eq!(positive("8760h0m0s"), Ok(controller_manager::CLEAN_UP_PERIOD));
        assert_eq!(positive("1m30s"), Ok(Duration::from_secs(90)));
        for wrong in ["0s", "-1h", "1", "soon", ""] {
            assert!(positive(wrong).is_err(), "{wrong}");
        }
    }
}
