//! What the user may type. Flags have upstream's names wherever upstream has them.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::identity::{EncryptionArgs, IssuerArgs, ServiceAccountArgs, ServingArgs, WebhookArgs};
use crate::node_certificates::NodeCertificateArgs;
use crate::signing::{DurationArgs, LegacyTokenArgs, SigningArgs};

/// Kubernetes in one binary.
#[derive(Debug, Parser)]
#[command(name = "xebec", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub logging: Logging,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Logging")]
pub struct Logging {
    /// How much to log: 0 warnings, 1 what happens, 2 how, 4 and more everything.
    #[arg(short = 'v', long = "v", global = true, default_value_t = 0, value_name = "LEVEL")]
    pub verbosity: u8,
    /// Lines for people, or JSON for machines.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub logging_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Everything in one process: control plane, and a node unless told otherwise.
    Server(ServerArgs),
    /// The API server alone.
    #[command(alias = "kube-apiserver")]
    Apiserver(ApiserverArgs),
    /// The controllers alone.
    #[command(alias = "kube-controller-manager")]
    ControllerManager(ControllerManagerArgs),
    /// The scheduler alone.
    #[command(alias = "kube-scheduler")]
    Scheduler(SchedulerArgs),
    /// The kubelet alone: runs the pods of this node.
    Kubelet(KubeletArgs),
    /// The proxy alone: routes Services on this node.
    #[command(alias = "kube-proxy")]
    Proxy(ProxyArgs),
    /// The cluster's DNS alone: answers names on this node.
    Dns(DnsArgs),
    /// Take back what a node left on this machine: pods, containerd, mounts, packet rules. State and images stay.
    Reset(ResetArgs),
    /// Apply a manifest with a Deployment and a Service of one name, and show how the Service answers.
    #[command(hide = true)]
    Hello(HelloArgs),
}

/// Where the cluster's state and identity are kept, and how it is reached.
#[derive(Debug, Args)]
pub struct ClusterArgs {
    /// Where everything is kept: database, certificates, kubeconfigs, images, containers.
    #[arg(long, default_value = "/var/lib/xebec", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The address to listen on.
    #[arg(long, default_value = "0.0.0.0", value_name = "IP")]
    pub bind_address: IpAddr,
    /// The port to listen on.
    #[arg(long, default_value_t = 6443, value_name = "PORT")]
    pub secure_port: u16,
    /// The address by which others reach the API server [default: the node's].
    #[arg(long, value_name = "IP")]
    pub advertise_address: Option<IpAddr>,
    /// More names and addresses for the server's certificate.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub tls_san: Vec<String>,
    /// The addresses of Services: a range, or one of each family with a comma between.
    #[arg(long, default_value = "10.96.0.0/16", value_name = "CIDR")]
    pub service_cluster_ip_range: apiserver::ServiceRanges,
    /// The ports of NodePort Services.
    #[arg(long, default_value = "30000-32767", value_name = "FIRST-LAST", value_parser = port_range)]
    pub service_node_port_range: apiserver::PortRange,
    /// The domain of the cluster's DNS.
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    pub cluster_domain: String,
    /// Admission plugins to run besides those that run by default.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub enable_admission_plugins: Vec<String>,
    /// Admission plugins not to run although they run by default.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub disable_admission_plugins: Vec<String>,
    /// How admission plugins are configured: an apiserver.config.k8s.io/v1 AdmissionConfiguration.
    #[arg(long, value_name = "FILE")]
    pub admission_control_config_file: Option<PathBuf>,
    /// What keeps the state.
    #[arg(long, value_enum, default_value_t = StorageBackend::Sqlite, value_name = "BACKEND")]
    pub storage_backend: StorageBackend,
    /// The name of this node [default: the host's].
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// The address of this node [default: the one of the default route].
    #[arg(long, value_name = "IP")]
    pub node_ip: Option<IpAddr>,
    #[command(flatten)]
    pub requests: RequestArgs,
    #[command(flatten)]
    pub authentication: AuthenticationArgs,
    #[command(flatten)]
    pub issuers: IssuerArgs,
    #[command(flatten)]
    pub webhooks: WebhookArgs,
    #[command(flatten)]
    pub service_accounts: ServiceAccountArgs,
    #[command(flatten)]
    pub serving: ServingArgs,
    #[command(flatten)]
    pub encryption: EncryptionArgs,
}

/// How requests are recorded and held back.
#[derive(Debug, Args)]
#[command(next_help_heading = "Requests")]
pub struct RequestArgs {
    /// What is audited: an audit.k8s.io/v1 Policy [default: nothing].
    #[arg(long, value_name = "FILE")]
    pub audit_policy_file: Option<PathBuf>,
    /// Where audit events are written; - is standard output.
    #[arg(long, value_name = "FILE")]
    pub audit_log_path: Option<String>,
    /// How large the audit log grows before it is put aside, in megabytes [default: 100].
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "MB")]
    pub audit_log_maxsize: u64,
    /// How long audit logs that were put aside are kept, in days [default: for ever].
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "DAYS")]
    pub audit_log_maxage: u64,
    /// How many audit logs that were put aside are kept [default: all].
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "COUNT")]
    pub audit_log_maxbackup: usize,
    /// Compress audit logs that are put aside.
    #[arg(long)]
    pub audit_log_compress: bool,
    /// Answer requests by priority and fairness: as many at once as the two numbers below add up to.
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true,
        action = clap::ArgAction::Set, value_name = "BOOL")]
    pub enable_priority_and_fairness: bool,
    /// How many requests that read are answered at once; 0 is no limit.
    #[arg(long, default_value_t = 400, value_name = "COUNT")]
    pub max_requests_inflight: usize,
    /// How many requests that write are answered at once; 0 is no limit.
    #[arg(long, default_value_t = 200, value_name = "COUNT")]
    pub max_mutating_requests_inflight: usize,
}

/// How clients of the API server may authenticate, besides certificates and service account tokens.
#[derive(Debug, Args)]
#[command(next_help_heading = "Authentication")]
pub struct AuthenticationArgs {
    /// Let requests without credentials pass as system:anonymous [default: true].
    #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true,
        action = clap::ArgAction::Set, value_name = "BOOL")]
    pub anonymous_auth: Option<bool>,
    /// A CSV file of tokens: token, user name, user uid, and optionally groups.
    #[arg(long, value_name = "FILE")]
    pub token_auth_file: Option<PathBuf>,
    /// Accept tokens of bootstrap.kubernetes.io/token secrets in kube-system.
    #[arg(long, default_value_t = false, default_missing_value = "true", num_args = 0..=1, require_equals = true,
        action = clap::ArgAction::Set, value_name = "BOOL")]
    pub enable_bootstrap_token_auth: bool,
    /// The common names of front proxies' certificates; any of their authority if empty.
    #[arg(long, value_delimiter = ',', default_value = "front-proxy-client", value_name = "NAME")]
    pub requestheader_allowed_names: Vec<String>,
    /// The headers by which front proxies name the user.
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-User", value_name = "HEADER")]
    pub requestheader_username_headers: Vec<String>,
    /// The headers by which front proxies give the user's uid.
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-Uid", value_name = "HEADER")]
    pub requestheader_uid_headers: Vec<String>,
    /// The headers by which front proxies give the user's groups.
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-Group", value_name = "HEADER")]
    pub requestheader_group_headers: Vec<String>,
    /// The prefixes of headers by which front proxies give what else is known of the user.
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-Extra-", value_name = "PREFIX")]
    pub requestheader_extra_headers_prefix: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StorageBackend {
    /// A database of its own in the data directory.
    Sqlite,
}

fn port_range(text: &str) -> Result<apiserver::PortRange, String> {
    let parsed = text.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    match parsed {
        Some((first, last)) if 0 < first && first <= last => Ok(apiserver::PortRange { first, last }),
        _ => Err("a range of ports looks like 30000-32767".into()),
    }
}

/// Where the flags of a server that are no API server's are listed.
const PODS: &str = "Pods";

#[derive(Debug, Args)]
pub struct ServerArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// The addresses of pods.
    #[arg(long, help_heading = PODS, default_value = "10.244.0.0/16", value_name = "CIDR")]
    pub cluster_cidr: String,
    /// How large each node's part of the pods' addresses is.
    #[arg(long, help_heading = PODS, default_value_t = 24, value_name = "BITS")]
    pub node_cidr_mask_size: u8,
    #[command(flatten)]
    pub signing: DurationArgs,
    #[command(flatten)]
    pub legacy_tokens: LegacyTokenArgs,
    /// The address of the cluster's DNS [default: the tenth of the Services'].
    #[arg(long, help_heading = PODS, value_name = "IP")]
    pub cluster_dns: Option<IpAddr>,
    /// Control plane only: run no pods here.
    #[arg(long, help_heading = PODS)]
    pub disable_agent: bool,
    /// The socket of a container runtime that runs already [default: containerd is started].
    #[arg(long, help_heading = PODS, value_name = "SOCKET")]
    pub container_runtime_endpoint: Option<String>,
}

#[derive(Debug, Args)]
pub struct ApiserverArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// How a component that runs alone reaches the API server.
#[derive(Debug, Args)]
pub struct ClientArgs {
    /// The kubeconfig with address and identity.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: PathBuf,
    /// Take turns with other copies by a lease.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub leader_elect: bool,
}

#[derive(Debug, Args)]
pub struct ControllerManagerArgs {
    #[command(flatten)]
    pub client: ClientArgs,
    /// The addresses of pods.
    #[arg(long, default_value = "10.244.0.0/16", value_name = "CIDR")]
    pub cluster_cidr: String,
    /// How large each node's part of the pods' addresses is.
    #[arg(long, default_value_t = 24, value_name = "BITS")]
    pub node_cidr_mask_size: u8,
    /// The CA that pods get, in PEM.
    #[arg(long, value_name = "FILE")]
    pub root_ca_file: PathBuf,
    /// The key that signs the tokens of secrets, in PEM [default: no such tokens].
    #[arg(long, value_name = "FILE")]
    pub service_account_private_key_file: Option<PathBuf>,
    #[command(flatten)]
    pub signing: SigningArgs,
    #[command(flatten)]
    pub legacy_tokens: LegacyTokenArgs,
}

#[derive(Debug, Args)]
pub struct SchedulerArgs {
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Args)]
pub struct KubeletArgs {
    /// The kubeconfig with address and identity of the node. It is written if a bootstrap kubeconfig is given.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: PathBuf,
    /// Where containers, images and volumes are kept.
    #[arg(long, default_value = "/var/lib/xebec", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The name of this node [default: the host's].
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// The address of this node [default: the one of the default route].
    #[arg(long, value_name = "IP")]
    pub node_ip: Option<IpAddr>,
    /// The address of the cluster's DNS.
    #[arg(long, default_value = "10.96.0.10", value_name = "IP")]
    pub cluster_dns: IpAddr,
    /// The domain of the cluster's DNS.
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    pub cluster_domain: String,
    /// The addresses of pods: to others they have the address of this node.
    #[arg(long, default_value = "10.244.0.0/16", value_name = "CIDR")]
    pub cluster_cidr: String,
    /// The CA whose clients may talk to the kubelet, in PEM.
    #[arg(long, value_name = "FILE")]
    pub client_ca_file: PathBuf,
    /// The socket of a container runtime that runs already [default: containerd is started].
    #[arg(long, value_name = "SOCKET")]
    pub container_runtime_endpoint: Option<String>,
    #[command(flatten)]
    pub certificates: NodeCertificateArgs,
}

#[derive(Debug, Args)]
pub struct ProxyArgs {
    /// The kubeconfig with address and identity.
    #[arg(long, required_unless_present = "cleanup", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The addresses of pods.
    #[arg(long, default_value = "10.244.0.0/16", value_name = "CIDR")]
    pub cluster_cidr: String,
    /// The addresses of Services: a range, or one of each family with a comma between.
    #[arg(long, default_value = "10.96.0.0/16", value_name = "CIDR")]
    pub service_cluster_ip_range: apiserver::ServiceRanges,
    /// The name of this node [default: the host's].
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// The address of this node [default: the one of the default route].
    #[arg(long, value_name = "IP")]
    pub node_ip: Option<IpAddr>,
    /// Take back all packet rules and end.
    #[arg(long)]
    pub cleanup: bool,
}

#[derive(Debug, Args)]
pub struct DnsArgs {
    /// The kubeconfig with address and identity.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: PathBuf,
    /// The address of the cluster's DNS.
    #[arg(long, default_value = "10.96.0.10", value_name = "IP")]
    pub cluster_dns: IpAddr,
    /// The domain of the cluster's DNS.
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    pub cluster_domain: String,
    /// The name of this node [default: the host's].
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// The address of this node [default: the one of the default route].
    #[arg(long, value_name = "IP")]
    pub node_ip: Option<IpAddr>,
}

#[derive(Debug, Args)]
pub struct ResetArgs {
    /// Where everything of the node is kept. No server or kubelet may be running on it.
    #[arg(long, default_value = "/var/lib/xebec", value_name = "DIR")]
    pub data_dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct HelloArgs {
    /// The kubeconfig with address and identity.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: PathBuf,
    /// The manifest.
    #[arg(long, value_name = "FILE")]
    pub manifest: PathBuf,
}

/// Reads the arguments. Bad ones end the program with one line that says what is wrong.
pub fn parse() -> Cli {
    Cli::try_parse_from(arguments()).unwrap_or_else(|error| match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
        _ => {
            eprintln!("xebec: {}", in_one_line(&error.to_string()));
            std::process::exit(error.exit_code())
        }
    })
}

/// What is wrong with the arguments, without the usage that is shown below it.
fn in_one_line(shown: &str) -> String {
    let mut out = String::new();
    let lines = shown.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("Usage:"));
    for line in lines {
        if !out.is_empty() {
            out.push_str(if out.ends_with(':') { " " } else { "; " });
        }
        let line = line.strip_prefix("error: ").or(line.strip_prefix("tip: ")).unwrap_or(line);
        out.push_str(&line.replacen("For more", "for more", 1));
    }
    out
}

/// The arguments, with upstream's program names as subcommands: a link named `kube-apiserver` is one.
fn arguments() -> Vec<OsString> {
    const NAMES: [&str; 5] =
        ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"];
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let called = arguments.first().map(PathBuf::from);
    let name = called.as_ref().and_then(|path| path.file_name()?.to_str());
    if let Some(name) = name.filter(|name| NAMES.contains(name)) {
        arguments.insert(1, name.into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_sound_and_all_documented() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
            for sub in command.get_subcommands() {
                assert!(sub.get_about().is_some(), "{}", sub.get_name());
                check(sub);
            }
        }
        Cli::command().debug_assert();
        check(&Cli::command());
    }

    #[test]
    fn flags_are_listed_where_they_belong() {
        let cli = Cli::command();
        let heading = |command: &str, flag: &str| {
            let command = cli.find_subcommand(command).unwrap();
            let argument =
                command.get_arguments().find(|argument| argument.get_long() == Some(flag)).unwrap();
            argument.get_help_heading().unwrap_or_default().to_owned()
        };
        for (command, flag, wanted) in [
            ("server", "data-dir", ""),
            ("server", "encryption-provider-config", "Encryption at rest"),
            ("server", "cluster-cidr", PODS),
            ("server", "disable-agent", PODS),
            ("server", "cluster-signing-duration", "Signing"),
            ("controller-manager", "service-account-private-key-file", ""),
            ("kubelet", "node-name", ""),
            ("kubelet", "rotate-certificates", "Certificates"),
        ] {
            assert_eq!(heading(command, flag), wanted, "{command} --{flag}");
        }
    }

    #[test]
    fn switches_are_written_as_upstreams() {
        let cases: [(&[&str], (Option<bool>, bool)); 4] = [
            (&[], (None, false)),
            (&["--anonymous-auth=false", "--enable-bootstrap-token-auth"], (Some(false), true)),
            (&["--anonymous-auth", "--enable-bootstrap-token-auth=true"], (Some(true), true)),
            (&["--enable-bootstrap-token-auth=false"], (None, false)),
        ];
        for (flags, wanted) in cases {
            let arguments = ["xebec", "apiserver"].iter().chain(flags);
            let Command::Apiserver(args) = Cli::try_parse_from(arguments).expect("good").command else {
                panic!("another command");
            };
            let args = args.cluster.authentication;
            assert_eq!((args.anonymous_auth, args.enable_bootstrap_token_auth), wanted, "{flags:?}");
        }
    }

    #[test]
    fn bad_arguments_are_told_in_one_line() {
        let cases: [(&[&str], &str); 4] = [
            (
                &["server", "--data-dirr", "/x"],
                "unexpected argument '--data-dirr' found; a similar argument exists: '--data-dir'; \
                 for more information, try '--help'.",
            ),
            (
                &["server", "--secure-port", "x"],
                "invalid value 'x' for '--secure-port <PORT>': invalid digit found in string; \
                 for more information, try '--help'.",
            ),
            (
                &["scheduler"],
                "the following required arguments were not provided: --kubeconfig <FILE>; \
                 for more information, try '--help'.",
            ),
            (
                &["sever"],
                "unrecognized subcommand 'sever'; a similar subcommand exists: 'server'; \
                 for more information, try '--help'.",
            ),
        ];
        for (arguments, line) in cases {
            let error = Cli::try_parse_from(["xebec"].iter().chain(arguments)).unwrap_err();
            assert_eq!(in_one_line(&error.to_string()), line);
        }
    }

    #[test]
    fn port_ranges() {
        assert_eq!(port_range("1-2").map(|r| (r.first, r.last)), Ok((1, 2)));
        for bad in ["", "1", "2-1", "0-5", "1-70000", "a-b"] {
            assert!(port_range(bad).is_err(), "{bad}");
        }
    }
}
