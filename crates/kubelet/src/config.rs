//! What a kubelet is told, and where it keeps its files.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::progress::Progress;

/// Everything that wiring decides; no defaults are read from the environment.
#[derive(Clone, Debug)]
pub struct Config {
    pub node_name: String,
    pub node_ip: IpAddr,
    /// The server's data directory; the kubelet, containerd, CNI and images have their own folders in it.
    pub data_dir: PathBuf,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    /// A CRI socket to use instead of a containerd of our own (`unix:///run/containerd/containerd.sock` or a path).
    pub container_runtime_endpoint: Option<String>,
    /// Where the HTTPS server listens; port 0 is allowed in tests.
    pub address: IpAddr,
    pub port: u16,
    /// What the HTTPS server shows.
    pub serving: Serving,
    /// Where certificates that were asked for are kept, other than in the data directory.
    pub cert_dir: Option<PathBuf>,
    /// PEM certificates of the authority whose client certificates are accepted.
    pub client_ca: Option<Vec<u8>>,
    pub max_pods: u32,
    /// Registries that are reached by plain HTTP or through a mirror.
    pub registries: Vec<Registry>,
    pub node_labels: Vec<(String, String)>,
    /// Taints to register with, as `key=value:Effect`.
    pub register_with_taints: Vec<String>,
    /// Below this cgroup the pods' cgroups are made; `/` on a machine of its own.
    pub cgroup_root: String,
    pub container_log_max_size: u64,
    pub container_log_max_files: u32,
    /// The version that the node reports, as `v1.36.3`.
    pub version: String,
    /// Where it is told what takes long.
    pub progress: Progress,
}

/// Where the HTTPS server's certificate comes from.
#[derive(Clone, Debug)]
pub enum Serving {
    /// The kubelet makes one itself.
    SelfSigned,
    Given(ServingCertificate),
    /// From files that may change while the kubelet runs.
    Files {
        certificate: PathBuf,
        key: PathBuf,
    },
    /// By request to the API server, renewed in time.
    Requested,
}

/// A certificate chain and its key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct ServingCertificate {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
}

impl std::fmt::Debug for ServingCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServingCertificate(..)")
    }
}

/// How images of one registry host are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// `docker.io`, `registry.example.com:5000`
    pub host: String,
    /// Base URLs tried in this order, as `http://10.0.0.1:5000`.
    pub mirrors: Vec<String>,
    pub skip_verify: bool,
}

impl Config {
    /// A configuration with upstream's defaults for what is not given.
    pub fn new(node_name: impl Into<String>, node_ip: IpAddr, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            node_name: node_name.into(),
            node_ip,
            data_dir: data_dir.into(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".into(),
            container_runtime_endpoint: None,
            address: IpAddr::from([0, 0, 0, 0]),
            port: 10250,
            serving: Serving::SelfSigned,
            cert_dir: None,
            client_ca: None,
            max_pods: 110,
            registries: Vec::new(),
            node_labels: Vec::new(),
            register_with_taints: Vec::new(),
            cgroup_root: "/".into(),
            container_log_max_size: 10 << 20,
            container_log_max_files: 5,
            version: "v1.36.3".into(),
            progress: Progress::default(),
        }
    }

    /// Where certificates that were asked for are kept.
    pub fn cert_dir(&self) -> PathBuf {
        self.cert_dir.clone().unwrap_or_else(|| self.paths().pki())
    }

    pub fn paths(&self) -> Paths {
        Paths { data: self.data_dir.clone() }
    }
}

/// The layout of the data directory, as far as a node owns it.
#[derive(Clone, Debug)]
pub struct Paths {
    data: PathBuf,
}

impl Paths {
    /// Image archives put here are imported.
    pub fn images(&self) -> PathBuf {
        self.data.join("images")
    }

    pub fn containerd(&self) -> PathBuf {
        self.data.join("containerd")
    }

    pub fn cni_config(&self) -> PathBuf {
        self.data.join("cni/net.d")
    }

    pub fn cni_state(&self) -> PathBuf {
        self.data.join("cni/networks")
    }

    pub fn kubelet(&self) -> PathBuf {
        self.data.join("kubelet")
    }

    pub fn pods(&self) -> PathBuf {
        self.kubelet().join("pods")
    }

    pub fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }

    pub fn pod_volumes(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("volumes")
    }

    /// `volumes/kubernetes.io~configmap/NAME`
    pub fn pod_volume(&self, uid: &str, plugin: &str, name: &str) -> PathBuf {
        self.pod_volumes(uid).join(format!("kubernetes.io~{plugin}")).join(name)
    }

    pub fn pod_subpaths(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("volume-subpaths")
    }

    pub fn pod_container(&self, uid: &str, container: &str) -> PathBuf {
        self.pod(uid).join("containers").join(container)
    }

    pub fn etc_hosts(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("etc-hosts")
    }

    pub fn pod_logs_root(&self) -> PathBuf {
        self.data.join("log/pods")
    }

    /// `NAMESPACE_NAME_UID`, as under upstream's `/var/log/pods`.
    pub fn pod_logs(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.pod_logs_root().join(format!("{namespace}_{name}_{uid}"))
    }

    pub fn pki(&self) -> PathBuf {
        self.kubelet().join("pki")
    }

    pub fn seccomp(&self) -> PathBuf {
        self.kubelet().join("seccomp")
    }

    pub fn as_path(&self) -> &Path {
        &self.data
    }
}
