//! A node's certificates: upstream's flags, and what they mean.

use std::path::PathBuf;

use clap::Args;
use kubelet::certificates::IdentityOptions;
use kubelet::config::Serving;

/// How a node gets its certificates and keeps them fresh.
#[derive(Debug, Args)]
#[command(next_help_heading = "Certificates")]
pub struct NodeCertificateArgs {
    /// With what the node asks for its first certificate, if its kubeconfig has none.
    #[arg(long, value_name = "FILE")]
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// Where certificates are kept that were asked for [default: <data-dir>/kubelet/pki].
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
    /// Ask for a new client certificate when the old one nears its end.
    #[arg(long, default_value_t = false, default_missing_value = "true", num_args = 0..=1, require_equals = true,
        action = clap::ArgAction::Set, value_name = "BOOL")]
    pub rotate_certificates: bool,
    /// Ask for the serving certificate too, and for a new one when it nears its end. Somebody has to approve them.
    #[arg(long, default_value_t = false, default_missing_value = "true", num_args = 0..=1, require_equals = true,
        action = clap::ArgAction::Set, value_name = "BOOL", conflicts_with = "tls_cert_file")]
    pub rotate_server_certificates: bool,
    /// The certificate that the kubelet shows, in PEM [default: one that the kubelet makes].
    #[arg(long, requires = "tls_private_key_file", value_name = "FILE")]
    pub tls_cert_file: Option<PathBuf>,
    /// The key of that certificate, in PEM.
    #[arg(long, requires = "tls_cert_file", value_name = "FILE")]
    pub tls_private_key_file: Option<PathBuf>,
}

impl NodeCertificateArgs {
    pub fn serving(&self) -> Serving {
        match (&self.tls_cert_file, &self.tls_private_key_file) {
            (Some(certificate), Some(key)) => {
                Serving::Files { certificate: certificate.clone(), key: key.clone() }
            }
            _ if self.rotate_server_certificates => Serving::Requested,
            _ => Serving::SelfSigned,
        }
    }

    pub fn identity(&self, kubeconfig: PathBuf, config: &kubelet::Config) -> IdentityOptions {
        IdentityOptions {
            kubeconfig,
            bootstrap_kubeconfig: self.bootstrap_kubeconfig.clone(),
            cert_dir: config.cert_dir(),
            node_name: config.node_name.clone(),
            rotate: self.rotate_certificates,
        }
    }
}
