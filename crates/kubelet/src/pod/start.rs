//! Starts a container: image, configuration, creation, start, post-start hook; and the words for each failure.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use k8s_cri::v1::PodSandboxConfig;
use k8s_openapi::api::core::v1::{ConfigMap, Container, EphemeralContainer, Pod, Secret};

use crate::images::puller::Wanted;
use crate::pod::config::{ContainerInputs, container_config};
use crate::pod::kill::kill_container;
use crate::pod::plan::{Kill, KillReason};
use crate::pod::{env, hooks, security, spec};
use crate::runtime::cri::bare;
use crate::runtime::{Image, PodState};
use crate::shared::Shared;
use crate::volumes::{Mounted, container_mounts};

const HOOK_LIMIT: Duration = Duration::from_secs(3600);

/// Why a container did not start: reason and message of its waiting state, and when it is worth another try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError {
    pub reason: &'static str,
    pub message: String,
    pub retry_after: Option<Duration>,
}

impl StartError {
    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retry_after: None }
    }
}

/// The pod that a container starts in.
pub struct Start<'a> {
    pub shared: &'a Arc<Shared>,
    pub pod: &'a Pod,
    pub state: &'a PodState,
    pub sandbox_id: &'a str,
    pub sandbox_config: &'a PodSandboxConfig,
    pub pod_ips: &'a [String],
    pub volumes: &'a HashMap<String, Mounted>,
}

impl Start<'_> {
    /// Starts a container; `ephemeral` is its definition when it is an ephemeral one. Returns its id.
    pub async fn run(
        &self,
        container: &Container,
        ephemeral: Option<&EphemeralContainer>,
    ) -> Result<String, StartError> {
        let result = self.try_run(container, ephemeral).await;
        if let Err(error) = &result {
            tracing::debug!(
                pod = spec::format(self.pod),
                container = container.name,
                reason = error.reason,
                message = error.message,
                "a container did not start"
            );
        }
        result
    }

    fn failed(&self, container: &Container, message: &str) {
        let about = self.shared.about_container(self.pod, &container.name);
        self.shared.recorder.warning(&about, "Failed", format!("Error: {message}"));
    }

    async fn try_run(
        &self,
        container: &Container,
        ephemeral: Option<&EphemeralContainer>,
    ) -> Result<String, StartError> {
        let Self { shared, pod, state, .. } = self;
        let image = self.image(container).await?;
        let restart_count = match state.container(&container.name) {
            Some(last) => last.restart_count + 1,
            // the runtime forgot: the logs still tell
            None => restart_count_by_logs(&self.log_folder(container)),
        };
        let config_error = |message: String| {
            self.failed(container, &message);
            StartError::new("CreateContainerConfigError", message)
        };
        let target =
            match ephemeral.and_then(|e| e.target_container_name.as_deref()).filter(|t| !t.is_empty()) {
                None => None,
                Some(name) => Some(
                    state
                        .container(name)
                        .map(|c| c.id.as_str())
                        .ok_or_else(|| config_error(format!("unable to find target container {name}")))?,
                ),
            };
        security::verify_run_as_non_root(pod, container, &image).map_err(config_error)?;
        let environment = self.environment(container).await.map_err(config_error)?;
        let mounts = self.mounts(container, &environment).map_err(config_error)?;
        fs::create_dir_all(self.log_folder(container)).map_err(|error| {
            config_error(format!(
                "create container log directory for container {} failed: {error}",
                container.name
            ))
        })?;
        let seccomp_root = shared.paths.seccomp();
        let config = container_config(ContainerInputs {
            pod,
            container,
            restart_count,
            image: &image,
            environment,
            mounts,
            target,
            memory_capacity: shared.memory_capacity,
            seccomp_root: &seccomp_root,
        });
        let about = shared.about_container(pod, &container.name);
        let begun = Instant::now();
        let created =
            shared.runtime.create_container(self.sandbox_id, config, self.sandbox_config.clone()).await;
        let id = created.map_err(|error| {
            let message = bare(&error.message).to_owned();
            self.failed(container, &message);
            StartError::new("CreateContainerError", message)
        })?;
        shared.index.add(&id, spec::uid(pod));
        shared.recorder.normal(&about, "Created", "Container created");
        shared.runtime.start_container(&id).await.map_err(|error| {
            let message = bare(&error.message).to_owned();
            self.failed(container, &message);
            StartError::new("RunContainerError", message)
        })?;
        tracing::debug!(pod = spec::format(pod), container = container.name, took = ?begun.elapsed(), "started a container");
        shared.recorder.normal(&about, "Started", "Container started");
        self.post_start(container, &id).await?;
        Ok(id)
    }

    fn log_folder(&self, container: &Container) -> std::path::PathBuf {
        let logs =
            self.shared.paths.pod_logs(spec::namespace(self.pod), spec::name(self.pod), spec::uid(self.pod));
        logs.join(&container.name)
    }

    async fn image(&self, container: &Container) -> Result<Image, StartError> {
        let Self { shared, pod, .. } = self;
        let about = shared.about_container(pod, &container.name);
        let tell = |warning: bool, reason: &str, message: String| {
            if warning {
                shared.recorder.warning(&about, reason, message);
            } else {
                shared.recorder.normal(&about, reason, message);
            }
        };
        let mut secrets = Vec::new();
        for reference in spec::spec(pod).image_pull_secrets.iter().flatten().filter(|r| !r.name.is_empty()) {
            // a missing one is not fatal: the image may be public
            if let Ok(Some(secret)) =
                shared.secrets.get(spec::uid(pod), spec::namespace(pod), &reference.name).await
            {
                secrets.push(secret);
            }
        }
        let wanted = Wanted {
            pod_uid: spec::uid(pod),
            image: container.image.as_deref().unwrap_or_default(),
            policy: container.image_pull_policy.as_deref().unwrap_or("IfNotPresent"),
            secrets: &secrets,
            sandbox: Some(self.sandbox_config.clone()),
        };
        shared.puller.ensure(wanted, &tell).await.map_err(|error| {
            self.failed(container, error.reason);
            StartError { reason: error.reason, message: error.message, retry_after: error.retry_after }
        })
    }

    async fn environment(&self, container: &Container) -> Result<Vec<(String, String)>, String> {
        let Self { shared, pod, .. } = self;
        let (uid, namespace) = (spec::uid(pod), spec::namespace(pod));
        let (config_maps, secrets) = env::needs(container);
        let maps = config_maps.into_iter().map(|name| async move {
            let found: Option<Arc<ConfigMap>> = shared.config_maps.get(uid, namespace, &name).await?;
            Ok::<_, String>((name, found))
        });
        let secrets = secrets.into_iter().map(|name| async move {
            let found: Option<Arc<Secret>> = shared.secrets.get(uid, namespace, &name).await?;
            Ok::<_, String>((name, found))
        });
        let (maps, secrets) = tokio::try_join!(try_join_all(maps), try_join_all(secrets))?;
        shared.services.wait_for_sync().await;
        let services = shared.services.store().list();
        let links = spec::spec(pod).enable_service_links.unwrap_or(true);
        let sources = env::Sources {
            config_maps: maps.into_iter().collect(),
            secrets: secrets.into_iter().collect(),
            services: env::service_variables(services.iter().map(AsRef::as_ref), namespace, links),
            around: shared.surroundings(self.pod_ips),
        };
        env::environment(pod, container, &sources)
    }

    fn mounts(
        &self,
        container: &Container,
        environment: &[(String, String)],
    ) -> Result<Vec<k8s_cri::v1::Mount>, String> {
        let Self { shared, pod, .. } = self;
        let text = |error: std::io::Error| error.to_string();
        let mut mounts =
            container_mounts::volume_mounts(pod, container, self.volumes, environment, &shared.paths)?;
        let domain = &shared.config.cluster_domain;
        mounts.extend(
            container_mounts::hosts_mount(pod, container, self.pod_ips, domain, &shared.paths)
                .map_err(text)?,
        );
        mounts.extend(
            container_mounts::termination_message_mount(pod, container, &shared.paths).map_err(text)?,
        );
        Ok(mounts)
    }

    async fn post_start(&self, container: &Container, id: &str) -> Result<(), StartError> {
        let Self { shared, pod, .. } = self;
        let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else {
            return Ok(());
        };
        let ip = self.pod_ips.first().map_or("", String::as_str);
        let Err(message) =
            hooks::run(hook, pod, container, id, ip, shared.runtime.as_ref(), HOOK_LIMIT).await
        else {
            return Ok(());
        };
        let about = shared.about_container(pod, &container.name);
        // the message stays out of the event: it may hold what nobody else should read
        shared.recorder.warning(&about, "FailedPostStartHook", "PostStartHook failed");
        let kill = Kill {
            id: id.to_owned(),
            name: container.name.clone(),
            message: "FailedPostStartHook".to_owned(),
            reason: KillReason::FailedPostStartHook,
        };
        if let Err(error) = kill_container(shared, pod, &kill, ip).await {
            tracing::warn!(pod = spec::format(pod), container = container.name, %error, "cannot stop the container");
        }
        Err(StartError::new("PostStartHookError", message))
    }
}

/// One more than the highest run that left a log `N.log`.
fn restart_count_by_logs(folder: &Path) -> u32 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let counts = entries.filter_map(|entry| {
        let name = entry.file_name();
        let (number, rest) = name.to_str()?.split_once('.')?;
        if rest == "log" || rest.starts_with("log.") { number.parse::<u32>().ok() } else { None }
    });
    counts.max().map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_tell_how_often_a_container_ran() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(restart_count_by_logs(folder.path()), 0);
        assert_eq!(restart_count_by_logs(&folder.path().join("none")), 0);
        for name in ["0.log", "3.log.20260101", "x.log", "9.txt"] {
            fs::write(folder.path().join(name), "").expect("a file");
        }
        assert_eq!(restart_count_by_logs(folder.path()), 4);
    }
}
