//! From what was typed to what is meant: names, addresses, directories.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use apiserver::RequestOptions;
use apiserver::audit::{AuditOptions, LogOptions};
use apiserver::authentication::{Anonymous, Options, RequestHeaders, StaticTokens};
use apiserver::pki::{KeyAndCertificate, Pki, PkiOptions};
use storage::Storage;
use storage::sqlite::Sqlite;

use crate::cli::{ClusterArgs, RequestArgs, StorageBackend};

/// A cluster's place in the world.
pub struct Cluster {
    pub node_name: String,
    pub node_ip: IpAddr,
    pub bind: SocketAddr,
    pub advertise: SocketAddr,
    /// The address in kubeconfigs of this machine.
    pub server_url: String,
}

impl Cluster {
    pub fn resolve(args: &ClusterArgs) -> anyhow::Result<Self> {
        let node_name = node_name(args.node_name.as_deref())?;
        let node_ip = node_ip(args.node_ip.or(args.advertise_address))?;
        let advertise_ip = args.advertise_address.unwrap_or(node_ip);
        if advertise_ip.is_loopback() || advertise_ip.is_unspecified() {
            bail!(
                "pods cannot reach the API server at {advertise_ip}; give an address of this machine with --advertise-address"
            );
        }
        let local =
            if args.bind_address.is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { args.bind_address };
        Ok(Self {
            node_name,
            node_ip,
            bind: SocketAddr::new(args.bind_address, args.secure_port),
            advertise: SocketAddr::new(advertise_ip, args.secure_port),
            server_url: format!("https://{}", SocketAddr::new(local, args.secure_port)),
        })
    }
}

/// How requests are recorded and held back.
pub fn requests(args: &RequestArgs) -> RequestOptions {
    let log = args.audit_log_path.clone().map(|path| LogOptions {
        path,
        max_size: args.audit_log_maxsize,
        max_age: args.audit_log_maxage,
        max_backups: args.audit_log_maxbackup,
        compress: args.audit_log_compress,
    });
    RequestOptions {
        audit: AuditOptions { policy_file: args.audit_policy_file.clone(), log },
        priority_and_fairness: args.enable_priority_and_fairness,
        max_in_flight: args.max_requests_inflight,
        max_mutating_in_flight: args.max_mutating_requests_inflight,
    }
}

/// The node's name: as given, or the host's.
pub fn node_name(given: Option<&str>) -> anyhow::Result<String> {
    let name = match given {
        Some(name) => name.to_owned(),
        None => host_name()?,
    };
    match apimachinery::validation::is_dns1123_subdomain(&name).first() {
        None => Ok(name),
        Some(message) => {
            bail!("the node's name {name:?} will not do: {message}; choose another with --node-name")
        }
    }
}

/// The node's address: as given, or the one of the default route.
pub fn node_ip(given: Option<IpAddr>) -> anyhow::Result<IpAddr> {
    match given {
        Some(ip) => Ok(ip),
        None => default_address(),
    }
}

/// The host's name as a node's name: in lower case.
fn host_name() -> anyhow::Result<String> {
    let name =
        nix::unistd::gethostname().context("the host's name cannot be read; give one with --node-name")?;
    Ok(name.to_string_lossy().trim().to_lowercase())
}

/// The address from which packets to elsewhere would leave. Nothing is sent.
fn default_address() -> anyhow::Result<IpAddr> {
    const ELSEWHERE: (&str, u16) = ("192.0.2.1", 9);
    const HINT: &str = "this machine has no default route to tell its address by; give one with --node-ip";
    let socket = UdpSocket::bind(("0.0.0.0", 0)).context(HINT)?;
    socket.connect(ELSEWHERE).context(HINT)?;
    Ok(socket.local_addr().context(HINT)?.ip())
}

/// Makes the data directory, readable by its owner alone.
pub fn data_dir(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let shown = path.display();
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(path).with_context(|| {
        format!("the data directory {shown} cannot be made; choose another with --data-dir")
    })?;
    let probe = path.join(".writable");
    std::fs::write(&probe, b"")
        .and_then(|()| std::fs::remove_file(&probe))
        .with_context(|| format!("the data directory {shown} cannot be written; run as its owner, or choose another with --data-dir"))
}

/// The admission plugins that run.
pub fn admission(args: &ClusterArgs) -> anyhow::Result<apiserver::AdmissionOptions> {
    let (enable, disable) = (&args.enable_admission_plugins, &args.disable_admission_plugins);
    apiserver::AdmissionOptions::new(enable, disable, args.admission_control_config_file.as_deref())
        .map_err(anyhow::Error::msg)
}

/// Opens the store. A second server on the same directory ends here.
pub fn open_storage(args: &ClusterArgs) -> anyhow::Result<Arc<dyn Storage>> {
    match args.storage_backend {
        StorageBackend::Sqlite => {
            let path = args.data_dir.join("state.db");
            match Sqlite::open(&path) {
                Ok(storage) => Ok(Arc::new(storage)),
                Err(error @ storage::Error::Locked { .. }) => Err(error).context(
                    "another server runs on this data directory; stop it, or choose another with --data-dir",
                ),
                Err(error) => Err(error).context("the database cannot be opened; nothing was changed"),
            }
        }
    }
}

/// A list as it was given; one that was given as empty text has nothing in it.
fn without_blank(list: &[String]) -> Vec<String> {
    if list == [""] { Vec::new() } else { list.to_vec() }
}

/// How clients may authenticate, with the files that this takes.
pub fn authentication(cluster: &ClusterArgs) -> anyhow::Result<Options> {
    let args = &cluster.authentication;
    let service_accounts = cluster.service_accounts.resolve()?;
    let mut own = service_accounts.issuers.clone();
    if own.is_empty() {
        own.push(apiserver::authentication::default_issuer(&cluster.cluster_domain));
    }
    let (jwt, anonymous) = cluster.issuers.resolve(&own)?;
    let anonymous = match (anonymous, args.anonymous_auth) {
        (Some(_), Some(_)) => {
            bail!(
                "--anonymous-auth flag cannot be set when anonymous field is configured in authentication configuration file"
            )
        }
        (Some(anonymous), None) => anonymous,
        (None, Some(false)) => Anonymous::Nowhere,
        (None, _) => Anonymous::Everywhere,
    };
    let token_file = match &args.token_auth_file {
        Some(path) => {
            let shown = path.display().to_string();
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("--token-auth-file {shown} cannot be read"))?;
            let tokens = StaticTokens::from_csv(&shown, &text).map_err(anyhow::Error::msg);
            Some(tokens.context("--token-auth-file")?)
        }
        None => None,
    };
    let headers = |flag: &str, names: &[String]| {
        let trimmed: Vec<String> = without_blank(names).iter().map(|name| name.trim().to_owned()).collect();
        match trimmed.iter().any(String::is_empty) {
            true => bail!("--requestheader-{flag}: empty header"),
            false => Ok(trimmed),
        }
    };
    Ok(Options {
        anonymous,
        jwt,
        webhook: cluster.webhooks.tokens()?,
        service_accounts,
        token_file,
        bootstrap_tokens: args.enable_bootstrap_token_auth,
        request_headers: RequestHeaders {
            allowed_names: without_blank(&args.requestheader_allowed_names),
            username: headers("username-headers", &args.requestheader_username_headers)?,
            uid: headers("uid-headers", &args.requestheader_uid_headers)?,
            group: headers("group-headers", &args.requestheader_group_headers)?,
            extra_prefixes: headers("extra-headers-prefix", &args.requestheader_extra_headers_prefix)?,
        },
    })
}

/// What this machine's kubelet shows to the API server.
pub fn kubelet_serving(pki: &Pki, cluster: &Cluster) -> anyhow::Result<KeyAndCertificate> {
    let names = vec![cluster.node_name.clone(), cluster.node_ip.to_string()];
    pki.kubelet_serving(names).context("the kubelet's certificate cannot be read or made")
}

/// Reads or makes the certificates and writes the kubeconfigs.
pub fn pki(args: &ClusterArgs, cluster: &Cluster) -> anyhow::Result<Pki> {
    let mut sans = args.tls_san.clone();
    sans.push(cluster.advertise.ip().to_string());
    sans.push(cluster.node_ip.to_string());
    if !args.bind_address.is_unspecified() {
        sans.push(args.bind_address.to_string());
    }
    let serving = args.serving.resolve()?;
    let pki = Pki::load_or_create(PkiOptions {
        dir: args.data_dir.join("pki"),
        sans,
        node_name: cluster.node_name.clone(),
        cluster_domain: args.cluster_domain.clone(),
        service_ip: args.service_cluster_ip_range.primary.nth(1),
    })
    .and_then(|pki| pki.with_serving(serving))
    .context("the certificates cannot be read or made")?;
    kubelet_serving(&pki, cluster)?;
    pki.write_kubeconfigs(&args.data_dir, &cluster.server_url)
        .context("the kubeconfigs cannot be written")?;
    Ok(pki)
}
