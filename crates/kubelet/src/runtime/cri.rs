//! The runtime port over CRI v1: gRPC on a unix socket, to containerd or any other runtime.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::try_join_all;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use k8s_cri::v1 as api;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request};

use super::labels;
use super::{
    Container, ContainerState, Error, ErrorKind, ExecResult, Handler, Image, Listed, PodState, Result,
    Runtime, Sandbox, Status, Streams, User, Version,
};

/// Calls that only read or change records.
const QUICK: Duration = Duration::from_secs(30);
/// Calls that start or stop processes; CNI and runc are part of them. Upstream's request timeout is the same.
const SLOW: Duration = Duration::from_secs(4 * 60);
/// A pull goes on as long as the pod wants it, but not forever.
const PULL: Duration = Duration::from_secs(60 * 60);
const MAX_MESSAGE: usize = 16 << 20;
/// Termination messages longer than this are cut (API docs of `terminationMessagePath`).
const MAX_TERMINATION_MESSAGE: u64 = 4096;
/// With `FallbackToLogsOnError` the tail of the log serves: at most so many lines and bytes.
const MAX_TERMINATION_LOG_LINES: usize = 80;
const MAX_TERMINATION_LOG_BYTES: u64 = 2048;

/// A connection that is made when first used and made again after the runtime came back.
pub fn connect(socket: &Path) -> Channel {
    let socket: PathBuf = socket.to_owned();
    // The address is never used: the connector knows the socket.
    Endpoint::from_static("http://localhost")
        .connect_timeout(Duration::from_secs(5))
        .connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
        }))
}

/// The CRI adapter.
#[derive(Clone)]
pub struct Cri {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

impl Cri {
    pub fn new(channel: Channel) -> Self {
        Self {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE),
        }
    }
}

fn request<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        let kind = match status.code() {
            Code::NotFound => ErrorKind::NotFound,
            Code::Unavailable => ErrorKind::Unavailable,
            Code::DeadlineExceeded | Code::Cancelled => ErrorKind::DeadlineExceeded,
            Code::Unimplemented => ErrorKind::Unimplemented,
            // containerd answers so for objects that vanish while it looks at them
            _ if status.message().contains("not found") => ErrorKind::NotFound,
            _ => ErrorKind::Other,
        };
        // the words that upstream's gRPC client puts before the message show up in its events
        let message = format!("rpc error: code = {} desc = {}", code_name(status.code()), status.message());
        Self { kind, message }
    }
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// The message of a gRPC error without the words before it, as container events show it.
pub fn bare(message: &str) -> &str {
    message
        .strip_prefix("rpc error: code = ")
        .and_then(|rest| rest.split_once(" desc = "))
        .map_or(message, |(_, message)| message)
}

fn missing(what: &str) -> Error {
    Error { kind: ErrorKind::Other, message: format!("the runtime answered without {what}") }
}

fn time(nanoseconds: i64) -> Option<Timestamp> {
    if nanoseconds == 0 { None } else { Timestamp::from_nanosecond(i128::from(nanoseconds)).ok() }
}

fn by_label(key: &str, value: &str) -> HashMap<String, String> {
    HashMap::from([(key.to_owned(), value.to_owned())])
}

fn sandbox(status: api::PodSandboxStatus) -> Sandbox {
    let host_network = status
        .linux
        .and_then(|linux| linux.namespaces)
        .and_then(|namespaces| namespaces.options)
        .is_some_and(|options| options.network == api::NamespaceMode::Node as i32);
    let mut ips = Vec::new();
    if let Some(network) = status.network.filter(|n| !host_network && !n.ip.is_empty()) {
        ips.push(network.ip);
        ips.extend(network.additional_ips.into_iter().map(|ip| ip.ip));
    }
    Sandbox {
        id: status.id,
        attempt: status.metadata.map(|m| m.attempt).unwrap_or_default(),
        ready: status.state == api::PodSandboxState::SandboxReady as i32,
        created_at: status.created_at,
        ips,
        host_network,
    }
}

fn container_state(state: i32) -> ContainerState {
    match api::ContainerState::try_from(state) {
        Ok(api::ContainerState::ContainerCreated) => ContainerState::Created,
        Ok(api::ContainerState::ContainerRunning) => ContainerState::Running,
        Ok(api::ContainerState::ContainerExited) => ContainerState::Exited,
        _ => ContainerState::Unknown,
    }
}

/// What a container left in its termination message file, or at the end of its log where its policy says so.
fn termination_message(status: &api::ContainerStatus) -> Option<String> {
    let annotation = |key: &str| status.annotations.get(key).map(String::as_str).unwrap_or_default();
    let path = annotation(labels::TERMINATION_MESSAGE_PATH);
    let mount = status.mounts.iter().find(|m| !path.is_empty() && m.container_path == path);
    if let Some(mount) = mount {
        match crate::files::read_tail(Path::new(&mount.host_path), MAX_TERMINATION_MESSAGE) {
            Ok(bytes) if !bytes.is_empty() => return Some(String::from_utf8_lossy(&bytes).into_owned()),
            Ok(_) => {}
            Err(error) => {
                return Some(format!("Error on reading termination log {}: {error}", mount.host_path));
            }
        }
    }
    let falls_back = annotation(labels::TERMINATION_MESSAGE_POLICY) == "FallbackToLogsOnError";
    if !falls_back || (status.exit_code == 0 && status.reason != "ContainerCannotRun") {
        return None;
    }
    crate::logs::tail_text(Path::new(&status.log_path), MAX_TERMINATION_LOG_LINES, MAX_TERMINATION_LOG_BYTES)
        .ok()
}

fn container(listed: &api::Container, status: api::ContainerStatus) -> Container {
    let state = container_state(status.state);
    let annotation = |key: &str| status.annotations.get(key).cloned().unwrap_or_default();
    let exited = state == ContainerState::Exited;
    let message = if exited { termination_message(&status) } else { None };
    let user = status.user.as_ref().and_then(|u| u.linux.as_ref()).map(|linux| User {
        uid: linux.uid,
        gid: linux.gid,
        supplemental_groups: linux.supplemental_groups.clone(),
    });
    Container {
        id: status.id.clone(),
        name: status.metadata.as_ref().map(|m| m.name.clone()).unwrap_or_default(),
        sandbox_id: listed.pod_sandbox_id.clone(),
        restart_count: annotation(labels::RESTART_COUNT).parse().unwrap_or_default(),
        state,
        created_at: status.created_at,
        started_at: time(status.started_at),
        finished_at: if exited { time(status.finished_at) } else { None },
        exit_code: if exited { status.exit_code } else { 0 },
        reason: if exited { status.reason.clone() } else { String::new() },
        message: message.unwrap_or(if exited { status.message } else { String::new() }),
        image: status.image.map(|i| i.image).unwrap_or_default(),
        image_ref: status.image_ref,
        hash: status.annotations.get(labels::CONTAINER_HASH).cloned().unwrap_or_default(),
        log_path: status.log_path,
        user,
        stop_signal: None,
    }
}

fn image(image: api::Image) -> Image {
    Image {
        id: image.id,
        tags: image.repo_tags,
        digests: image.repo_digests,
        size: image.size,
        uid: image.uid.map(|uid| uid.value),
        username: image.username,
        pinned: image.pinned,
    }
}

#[async_trait]
impl Runtime for Cri {
    async fn version(&self) -> Result<Version> {
        let message = api::VersionRequest { version: "0.1.0".into() };
        let answer = self.runtime.clone().version(request(message, QUICK)).await?.into_inner();
        Ok(Version { name: answer.runtime_name, version: answer.runtime_version })
    }

    async fn status(&self) -> Result<Status> {
        let message = api::StatusRequest { verbose: false };
        let answer = self.runtime.clone().status(request(message, QUICK)).await?.into_inner();
        let mut status = Status {
            handlers: answer
                .runtime_handlers
                .into_iter()
                .map(|h| {
                    let features = h.features.unwrap_or_default();
                    Handler {
                        name: h.name,
                        recursive_read_only_mounts: features.recursive_read_only_mounts,
                        user_namespaces: features.user_namespaces,
                    }
                })
                .collect(),
            ..Status::default()
        };
        for condition in answer.status.unwrap_or_default().conditions {
            let told = format!("reason:{} message:{}", condition.reason, condition.message);
            match condition.r#type.as_str() {
                "RuntimeReady" => (status.runtime_ready, status.runtime_message) = (condition.status, told),
                "NetworkReady" => (status.network_ready, status.network_message) = (condition.status, told),
                _ => {}
            }
        }
        Ok(status)
    }

    async fn run_sandbox(&self, config: api::PodSandboxConfig, handler: &str) -> Result<String> {
        let message = api::RunPodSandboxRequest { config: Some(config), runtime_handler: handler.to_owned() };
        Ok(self.runtime.clone().run_pod_sandbox(request(message, SLOW)).await?.into_inner().pod_sandbox_id)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let message = api::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.runtime.clone().stop_pod_sandbox(request(message, SLOW)).await?;
        Ok(())
    }

    async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let message = api::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.runtime.clone().remove_pod_sandbox(request(message, SLOW)).await?;
        Ok(())
    }

    async fn create_container(
        &self,
        sandbox: &str,
        config: api::ContainerConfig,
        sandbox_config: api::PodSandboxConfig,
    ) -> Result<String> {
        let message = api::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        Ok(self.runtime.clone().create_container(request(message, SLOW)).await?.into_inner().container_id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let message = api::StartContainerRequest { container_id: id.to_owned() };
        self.runtime.clone().start_container(request(message, SLOW)).await?;
        Ok(())
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let message = api::StopContainerRequest { container_id: id.to_owned(), timeout };
        self.runtime.clone().stop_container(request(message, grace.saturating_add(SLOW))).await?;
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        let message = api::RemoveContainerRequest { container_id: id.to_owned() };
        self.runtime.clone().remove_container(request(message, SLOW)).await?;
        Ok(())
    }

    async fn update_resources(&self, id: &str, resources: api::LinuxContainerResources) -> Result<()> {
        let message = api::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(resources),
            ..Default::default()
        };
        self.runtime.clone().update_container_resources(request(message, SLOW)).await?;
        Ok(())
    }

    async fn reopen_log(&self, id: &str) -> Result<()> {
        let message = api::ReopenContainerLogRequest { container_id: id.to_owned() };
        self.runtime.clone().reopen_container_log(request(message, QUICK)).await?;
        Ok(())
    }

    async fn pod_state(&self, uid: &str) -> Result<PodState> {
        let label_selector = by_label(labels::POD_UID, uid);
        let sandboxes = api::ListPodSandboxRequest {
            filter: Some(api::PodSandboxFilter {
                label_selector: label_selector.clone(),
                ..Default::default()
            }),
        };
        let containers = api::ListContainersRequest {
            filter: Some(api::ContainerFilter { label_selector, ..Default::default() }),
        };
        let (mut for_sandboxes, mut for_containers) = (self.runtime.clone(), self.runtime.clone());
        let (sandboxes, containers) = tokio::try_join!(
            for_sandboxes.list_pod_sandbox(request(sandboxes, QUICK)),
            for_containers.list_containers(request(containers, QUICK)),
        )?;
        // What vanishes between the list and the look at it is not there.
        let sandboxes = sandboxes.into_inner().items.into_iter().map(|listed| async move {
            let message = api::PodSandboxStatusRequest { pod_sandbox_id: listed.id, verbose: false };
            match self.runtime.clone().pod_sandbox_status(request(message, QUICK)).await {
                Ok(answer) => Ok(answer.into_inner().status.map(sandbox)),
                Err(status) => Error::from(status).when_found(),
            }
        });
        let containers = containers.into_inner().containers.into_iter().map(|listed| async move {
            let message = api::ContainerStatusRequest { container_id: listed.id.clone(), verbose: false };
            match self.runtime.clone().container_status(request(message, QUICK)).await {
                Ok(answer) => Ok(answer.into_inner().status.map(|status| container(&listed, status))),
                Err(status) => Error::from(status).when_found(),
            }
        });
        let (sandboxes, containers) = tokio::try_join!(try_join_all(sandboxes), try_join_all(containers))?;
        let mut state = PodState {
            sandboxes: sandboxes.into_iter().flatten().collect(),
            containers: containers.into_iter().flatten().collect(),
        };
        state.sandboxes.sort_by_key(|s| std::cmp::Reverse(s.created_at));
        state.containers.sort_by_key(|c| std::cmp::Reverse(c.created_at));
        Ok(state)
    }

    async fn list(&self) -> Result<Vec<Listed>> {
        let (mut for_sandboxes, mut for_containers) = (self.runtime.clone(), self.runtime.clone());
        let (sandboxes, containers) = tokio::try_join!(
            for_sandboxes.list_pod_sandbox(request(api::ListPodSandboxRequest { filter: None }, QUICK)),
            for_containers.list_containers(request(api::ListContainersRequest { filter: None }, QUICK)),
        )?;
        let label =
            |labels: &HashMap<String, String>, key: &str| labels.get(key).cloned().unwrap_or_default();
        let sandboxes = sandboxes.into_inner().items.into_iter().map(|s| Listed {
            pod_uid: label(&s.labels, labels::POD_UID),
            pod_name: label(&s.labels, labels::POD_NAME),
            pod_namespace: label(&s.labels, labels::POD_NAMESPACE),
            container_name: String::new(),
            sandbox_id: s.id.clone(),
            running: s.state == api::PodSandboxState::SandboxReady as i32,
            state: s.state,
            created_at: s.created_at,
            id: s.id,
        });
        let containers = containers.into_inner().containers.into_iter().map(|c| Listed {
            pod_uid: label(&c.labels, labels::POD_UID),
            pod_name: label(&c.labels, labels::POD_NAME),
            pod_namespace: label(&c.labels, labels::POD_NAMESPACE),
            container_name: label(&c.labels, labels::CONTAINER_NAME),
            sandbox_id: c.pod_sandbox_id,
            running: c.state == api::ContainerState::ContainerRunning as i32,
            state: c.state,
            created_at: c.created_at,
            id: c.id,
        });
        Ok(sandboxes.chain(containers).filter(|item| !item.pod_uid.is_empty()).collect())
    }

    async fn container_status(&self, id: &str) -> Result<api::ContainerStatus> {
        let message = api::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let answer = self.runtime.clone().container_status(request(message, QUICK)).await?;
        answer.into_inner().status.ok_or_else(|| missing("a container status"))
    }

    async fn container_stats(&self) -> Result<Vec<api::ContainerStats>> {
        let message = api::ListContainerStatsRequest { filter: None };
        Ok(self.runtime.clone().list_container_stats(request(message, QUICK)).await?.into_inner().stats)
    }

    async fn exec_sync(&self, id: &str, command: Vec<String>, timeout: Duration) -> Result<ExecResult> {
        let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
        let message = api::ExecSyncRequest { container_id: id.to_owned(), cmd: command, timeout: seconds };
        // The runtime ends the process at the timeout; the call gets a little longer to hear of it.
        let deadline = if seconds == 0 { SLOW } else { timeout + Duration::from_secs(10) };
        let answer = self.runtime.clone().exec_sync(request(message, deadline)).await?.into_inner();
        Ok(ExecResult { stdout: answer.stdout, stderr: answer.stderr, exit_code: answer.exit_code })
    }

    async fn exec(&self, id: &str, command: Vec<String>, streams: Streams) -> Result<String> {
        let message = api::ExecRequest {
            container_id: id.to_owned(),
            cmd: command,
            tty: streams.tty,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
        };
        Ok(self.runtime.clone().exec(request(message, QUICK)).await?.into_inner().url)
    }

    async fn attach(&self, id: &str, streams: Streams) -> Result<String> {
        let message = api::AttachRequest {
            container_id: id.to_owned(),
            tty: streams.tty,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
        };
        Ok(self.runtime.clone().attach(request(message, QUICK)).await?.into_inner().url)
    }

    async fn port_forward(&self, sandbox: &str) -> Result<String> {
        let message = api::PortForwardRequest { pod_sandbox_id: sandbox.to_owned(), port: Vec::new() };
        Ok(self.runtime.clone().port_forward(request(message, QUICK)).await?.into_inner().url)
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>> {
        let spec = api::ImageSpec { image: reference.to_owned(), ..Default::default() };
        let message = api::ImageStatusRequest { image: Some(spec), verbose: false };
        Ok(self.images.clone().image_status(request(message, QUICK)).await?.into_inner().image.map(image))
    }

    async fn images(&self) -> Result<Vec<Image>> {
        let message = api::ListImagesRequest { filter: None };
        let answer = self.images.clone().list_images(request(message, QUICK)).await?.into_inner();
        Ok(answer.images.into_iter().map(image).collect())
    }

    async fn pull_image(
        &self,
        reference: &str,
        auth: Option<api::AuthConfig>,
        sandbox: Option<api::PodSandboxConfig>,
    ) -> Result<String> {
        let spec = api::ImageSpec { image: reference.to_owned(), ..Default::default() };
        let message = api::PullImageRequest { image: Some(spec), auth, sandbox_config: sandbox };
        Ok(self.images.clone().pull_image(request(message, PULL)).await?.into_inner().image_ref)
    }

    async fn remove_image(&self, reference: &str) -> Result<()> {
        let spec = api::ImageSpec { image: reference.to_owned(), ..Default::default() };
        let message = api::RemoveImageRequest { image: Some(spec) };
        self.images.clone().remove_image(request(message, SLOW)).await?;
        Ok(())
    }
}

impl Error {
    /// Turns "not found" into nothing.
    fn when_found<T>(self) -> Result<Option<T>> {
        if self.is_not_found() { Ok(None) } else { Err(self) }
    }
}
