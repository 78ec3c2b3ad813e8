//! The runtime port: what the kubelet asks of a container runtime, and what it sees of pods in one.
//!
//! The vocabulary of requests is CRI's; what is observed is reduced to what decisions need.

pub mod cri;
pub mod labels;

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_cri::v1 as api;

/// A failed call. The message is the runtime's own and goes into events and statuses as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: ErrorKind,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    NotFound,
    /// The runtime cannot be reached: it is starting, or it died.
    Unavailable,
    DeadlineExceeded,
    Unimplemented,
    Other,
}

impl Error {
    pub fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }
}

pub type Result<T> = std::result::Result<T, Error>;

/// All that the runtime knows of one pod, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodState {
    pub sandboxes: Vec<Sandbox>,
    pub containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sandbox {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    pub created_at: i64,
    /// Empty for pods of the host network and before the network is there.
    pub ips: Vec<String>,
    pub host_network: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContainerState {
    Created,
    Running,
    Exited,
    #[default]
    Unknown,
}

impl ContainerState {
    /// Upstream's name, as messages show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Unknown => "unknown",
        }
    }
}

/// One run of one container of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Container {
    pub id: String,
    pub name: String,
    pub sandbox_id: String,
    pub restart_count: u32,
    pub state: ContainerState,
    /// Nanoseconds, for order.
    pub created_at: i64,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
    pub image: String,
    pub image_ref: String,
    /// Of the container's definition when it was made.
    pub hash: String,
    pub log_path: String,
    pub user: Option<User>,
    pub stop_signal: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct User {
    pub uid: i64,
    pub gid: i64,
    pub supplemental_groups: Vec<i64>,
}

impl PodState {
    /// The latest run of a container.
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.name == name)
    }

    pub fn running(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|c| c.state == ContainerState::Running)
    }

    pub fn ready_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|s| s.ready)
    }

    /// The addresses of the pod: those of its newest sandbox while it lives.
    pub fn ips(&self) -> Vec<String> {
        self.ready_sandbox().map(|s| s.ips.clone()).unwrap_or_default()
    }
}

/// One sandbox or container in a listing of everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub id: String,
    pub pod_uid: String,
    pub pod_name: String,
    pub pod_namespace: String,
    /// Empty for a sandbox.
    pub container_name: String,
    pub sandbox_id: String,
    pub running: bool,
    pub state: i32,
    pub created_at: i64,
}

#[derive(Clone, Debug, Default)]
pub struct ExecResult {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit_code: i32,
}

#[derive(Clone, Debug, Default)]
pub struct Version {
    pub name: String,
    pub version: String,
}

/// Whether the runtime and its network are ready, with the runtime's reasons.
#[derive(Clone, Debug, Default)]
pub struct Status {
    pub runtime_ready: bool,
    pub runtime_message: String,
    pub network_ready: bool,
    pub network_message: String,
    pub handlers: Vec<Handler>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handler {
    pub name: String,
    pub recursive_read_only_mounts: bool,
    pub user_namespaces: bool,
}

/// An image that the runtime holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    pub id: String,
    pub tags: Vec<String>,
    pub digests: Vec<String>,
    pub size: u64,
    /// The numeric user that the image says to run as.
    pub uid: Option<i64>,
    pub username: String,
    pub pinned: bool,
}

/// Which of the three streams of an exec or attach are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// What the kubelet asks of a container runtime. Every call has a deadline of its own, and dropping the future
/// gives the call up.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    async fn version(&self) -> Result<Version>;
    async fn status(&self) -> Result<Status>;

    async fn run_sandbox(&self, config: api::PodSandboxConfig, handler: &str) -> Result<String>;
    async fn stop_sandbox(&self, id: &str) -> Result<()>;
    async fn remove_sandbox(&self, id: &str) -> Result<()>;

    async fn create_container(
        &self,
        sandbox: &str,
        config: api::ContainerConfig,
        sandbox_config: api::PodSandboxConfig,
    ) -> Result<String>;
    async fn start_container(&self, id: &str) -> Result<()>;
    /// Asks the container to stop, and kills it after `grace`.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()>;
    async fn remove_container(&self, id: &str) -> Result<()>;
    async fn update_resources(&self, id: &str, resources: api::LinuxContainerResources) -> Result<()>;
    async fn reopen_log(&self, id: &str) -> Result<()>;

    async fn pod_state(&self, uid: &str) -> Result<PodState>;
    /// All sandboxes and containers that a kubelet made.
    async fn list(&self) -> Result<Vec<Listed>>;
    async fn container_status(&self, id: &str) -> Result<api::ContainerStatus>;
    async fn container_stats(&self) -> Result<Vec<api::ContainerStats>>;

    async fn exec_sync(&self, id: &str, command: Vec<String>, timeout: Duration) -> Result<ExecResult>;
    /// URLs of the runtime's streaming server.
    async fn exec(&self, id: &str, command: Vec<String>, streams: Streams) -> Result<String>;
    async fn attach(&self, id: &str, streams: Streams) -> Result<String>;
    async fn port_forward(&self, sandbox: &str) -> Result<String>;

    async fn image(&self, reference: &str) -> Result<Option<Image>>;
    async fn images(&self) -> Result<Vec<Image>>;
    async fn pull_image(
        &self,
        reference: &str,
        auth: Option<api::AuthConfig>,
        sandbox: Option<api::PodSandboxConfig>,
    ) -> Result<String>;
    async fn remove_image(&self, reference: &str) -> Result<()>;
}
