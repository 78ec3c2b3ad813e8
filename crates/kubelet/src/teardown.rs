//! Takes a node down for good: all its pods, its containerd, and what they left on the machine. Images stay.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::join_all;

use crate::cgroups::Cgroups;
use crate::config::Config;
use crate::containerd::Containerd;
use crate::runtime::Runtime;
use crate::runtime::cri::Cri;
use crate::volumes::mounts;

const GRACE: Duration = Duration::from_secs(2);

/// Ends and removes everything that runs for this data directory. No kubelet may be running on it.
pub async fn teardown(config: &Config) -> anyhow::Result<()> {
    let paths = config.paths();
    if config.container_runtime_endpoint.is_none() && paths.containerd().exists() {
        // containers can only be removed by the runtime that knows them
        let containerd = Containerd::prepare(config).await?;
        containerd.ensure_running().await?;
        let runtime: Arc<dyn Runtime> = Arc::new(Cri::new(containerd.channel()));
        remove_pods(runtime.as_ref()).await.context("cannot remove the node's pods")?;
        containerd.stop().await;
    }
    let cgroups = Cgroups::detect(&config.cgroup_root).context("cannot use cgroups")?;
    let folders = std::fs::read_dir(paths.pods()).into_iter().flatten().flatten();
    let own: Vec<String> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let deadline = tokio::time::Instant::now() + GRACE;
    for (uid, cgroup) in cgroups.pods() {
        // another node may run on this machine
        if !own.contains(&uid) {
            continue;
        }
        // the last processes may be about to end
        while !cgroups.remove(&cgroup) && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    mounts::unmount_below(&std::path::absolute(paths.as_path())?)?;
    crate::files::remove_all(&paths.pods()).context("cannot remove the folders of pods")
}

async fn remove_pods(runtime: &dyn Runtime) -> crate::runtime::Result<()> {
    let listed = runtime.list().await?;
    let (sandboxes, containers): (Vec<_>, Vec<_>) =
        listed.iter().partition(|item| item.container_name.is_empty());
    // all at once: each may take its time to end
    join_all(containers.iter().map(async |container| {
        if let Err(error) = runtime.stop_container(&container.id, GRACE).await {
            tracing::debug!(%error, container = container.id, "does not stop by itself");
        }
    }))
    .await;
    // a sandbox takes its containers along, whatever they are about; one that does not go keeps none of the others
    let removed = join_all(sandboxes.iter().map(async |sandbox| {
        runtime.stop_sandbox(&sandbox.id).await?;
        runtime.remove_sandbox(&sandbox.id).await
    }));
    removed.await.into_iter().collect()
}
