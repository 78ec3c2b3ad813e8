//! What nobody asks for: changes that no event told of, orphans of earlier lives, dead containers, long logs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use component_helpers::conditions::is_pod_terminal;
use component_helpers::qos::{QosClass, pod_qos};
use component_helpers::resource::{Options, pod_requests};

use crate::cgroups::{Limits, shares};
use crate::logs;
use crate::pod::kill::remove_from_runtime;
use crate::pods::Pods;
use crate::runtime::{ContainerState, Listed, PodState};
use crate::shared::Shared;
use crate::volumes;

/// With an event stream the relist only catches what it missed; without one it is how exits are learned.
pub const RELIST_WITH_EVENTS: Duration = Duration::from_secs(10);
pub const RELIST_WITHOUT_EVENTS: Duration = Duration::from_secs(1);
const LOG_PERIOD: Duration = Duration::from_secs(10);
/// Ended runs of a container that are kept beside the newest.
const DEAD_KEPT: usize = 1;
const ORPHAN_GRACE: Duration = Duration::from_secs(2);

pub struct Housekeeping {
    pub shared: Arc<Shared>,
    pub pods: Arc<Pods>,
}

impl Housekeeping {
    pub async fn run(self, period: Duration) {
        let mut seen: HashMap<String, Vec<(String, i32)>> = HashMap::new();
        let mut logs_at = tokio::time::Instant::now();
        loop {
            match self.shared.runtime.list().await {
                Ok(listed) => {
                    self.relist(&listed, &mut seen);
                    self.remove_orphans(&listed).await;
                    self.remove_dead(&listed).await;
                    self.share_cpu();
                }
                Err(error) => tracing::debug!(%error, "the runtime cannot be listed"),
            }
            if logs_at.elapsed() >= LOG_PERIOD {
                logs_at = tokio::time::Instant::now();
                self.rotate_logs().await;
            }
            tokio::time::sleep(period).await;
        }
    }

    /// Wakes pods whose sandboxes or containers are not what they were.
    fn relist(&self, listed: &[Listed], seen: &mut HashMap<String, Vec<(String, i32)>>) {
        let mut now: HashMap<String, Vec<(String, i32)>> = HashMap::new();
        for item in listed {
            now.entry(item.pod_uid.clone()).or_default().push((item.id.clone(), item.state));
        }
        now.values_mut().for_each(|items| items.sort());
        let changed = |uid: &String| now.get(uid) != seen.get(uid);
        let uids: HashSet<&String> = now.keys().chain(seen.keys()).collect();
        for uid in uids.into_iter().filter(|uid| changed(uid)) {
            self.pods.wake(uid);
        }
        *seen = now;
    }

    /// Ends and removes what belongs to pods that are no longer this node's.
    async fn remove_orphans(&self, listed: &[Listed]) {
        let mut uids: HashSet<String> = listed.iter().map(|item| item.pod_uid.clone()).collect();
        let folders = fs::read_dir(self.shared.paths.pods()).into_iter().flatten().flatten();
        uids.extend(folders.filter_map(|entry| entry.file_name().into_string().ok()));
        for uid in uids.into_iter().filter(|uid| !self.pods.knows(uid)) {
            tracing::info!(pod_uid = uid, "removing what is left of a pod that is gone");
            if let Err(error) = self.remove_orphan(&uid).await {
                tracing::warn!(pod_uid = uid, error, "an orphaned pod stays for now");
            }
        }
        // logs of pods that left nothing else
        for entry in fs::read_dir(self.shared.paths.pod_logs_root()).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some((_, uid)) = name.rsplit_once('_')
                && !self.pods.knows(uid)
                && let Err(error) = crate::files::remove_all(&entry.path())
            {
                tracing::debug!(folder = name, %error, "old logs stay for now");
            }
        }
    }

    async fn remove_orphan(&self, uid: &str) -> Result<(), String> {
        let shared = &self.shared;
        let state = shared.runtime.pod_state(uid).await.map_err(|error| error.to_string())?;
        for run in state.containers.iter().filter(|c| c.state == ContainerState::Running) {
            shared.runtime.stop_container(&run.id, ORPHAN_GRACE).await.map_err(|error| error.to_string())?;
        }
        remove_from_runtime(shared, &state).await.map_err(|error| error.to_string())?;
        let (paths, owner) = (shared.paths.clone(), uid.to_owned());
        tokio::task::spawn_blocking(move || volumes::tear_down(&paths, &owner))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        for (_, cgroup) in shared.cgroups.pods().into_iter().filter(|(own, _)| own == uid) {
            shared.cgroups.remove(&cgroup);
        }
        shared.index.forget(uid);
        crate::files::remove_all(&shared.paths.pod(uid)).map_err(|error| error.to_string())
    }

    /// Keeps the newest run of each container and one before it; older ones and their logs go.
    async fn remove_dead(&self, listed: &[Listed]) {
        let known = listed.iter().filter(|item| self.pods.knows(&item.pod_uid));
        let mut by_container: BTreeMap<(&str, &str), Vec<&Listed>> = BTreeMap::new();
        for item in known.clone().filter(|item| !item.container_name.is_empty()) {
            by_container.entry((&item.pod_uid, &item.container_name)).or_default().push(item);
        }
        for runs in by_container.values_mut() {
            runs.sort_by_key(|run| std::cmp::Reverse(run.created_at));
            for run in runs.iter().skip(1 + DEAD_KEPT).filter(|run| !run.running) {
                self.remove_run(&run.id).await;
            }
        }
        // a sandbox that was replaced and holds no container any more
        let mut sandboxes: BTreeMap<&str, Vec<&Listed>> = BTreeMap::new();
        for item in known.filter(|item| item.container_name.is_empty()) {
            sandboxes.entry(&item.pod_uid).or_default().push(item);
        }
        for own in sandboxes.values_mut() {
            own.sort_by_key(|sandbox| std::cmp::Reverse(sandbox.created_at));
            for old in own.iter().skip(1).filter(|old| !old.running) {
                let used = listed.iter().any(|c| !c.container_name.is_empty() && c.sandbox_id == old.id);
                if !used {
                    let state = PodState {
                        sandboxes: vec![crate::runtime::Sandbox { id: old.id.clone(), ..Default::default() }],
                        ..PodState::default()
                    };
                    if let Err(error) = remove_from_runtime(&self.shared, &state).await {
                        tracing::debug!(sandbox = old.id, %error, "an old sandbox stays for now");
                    }
                }
            }
        }
    }

    async fn remove_run(&self, id: &str) {
        let log = self.shared.runtime.container_status(id).await.map(|status| status.log_path).ok();
        if let Err(error) = self.shared.runtime.remove_container(id).await {
            tracing::debug!(container = id, %error, "a dead container stays for now");
            return;
        }
        if let Some(path) = log.filter(|path| !path.is_empty())
            && let Err(error) = logs::remove_with_rotated(std::path::Path::new(&path))
        {
            tracing::debug!(path, %error, "an old log stays for now");
        }
    }

    /// Burstable pods together weigh as much as they ask for, against the guaranteed ones beside them.
    fn share_cpu(&self) {
        let pods = self.pods.list();
        let burstable =
            pods.iter().filter(|pod| pod_qos(pod) == QosClass::Burstable && !is_pod_terminal(pod));
        let options = Options::default();
        let milli_cpu: i64 = burstable.map(|pod| pod_requests(pod, &options).milli_cpu()).sum();
        let limits = Limits { shares: Some(shares(milli_cpu)), ..Limits::default() };
        let cgroups = &self.shared.cgroups;
        if let Err(error) = cgroups.ensure(&cgroups.qos(QosClass::Burstable), &limits) {
            tracing::debug!(%error, "the weight of burstable pods stays as it is");
        }
    }

    async fn rotate_logs(&self) {
        let config = &self.shared.config;
        let Ok(listed) = self.shared.runtime.list().await else { return };
        for item in listed.iter().filter(|item| item.running && !item.container_name.is_empty()) {
            let Ok(status) = self.shared.runtime.container_status(&item.id).await else { continue };
            let path = std::path::PathBuf::from(&status.log_path);
            let long = fs::metadata(&path).is_ok_and(|log| log.len() > config.container_log_max_size);
            if !long {
                continue;
            }
            let rotated = logs::rotate(&path, config.container_log_max_files);
            if let Err(error) = rotated {
                tracing::warn!(path = %path.display(), %error, "a log cannot be rotated");
                continue;
            }
            if let Err(error) = self.shared.runtime.reopen_log(&item.id).await {
                tracing::warn!(path = %path.display(), %error, "a log cannot be opened anew");
            }
        }
    }
}
