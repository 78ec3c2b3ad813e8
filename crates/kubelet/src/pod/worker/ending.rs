//! The end of a pod's time on the node: its containers stop, then volumes and cgroup go, then all the rest.

use std::time::Duration;

use component_helpers::qos::pod_qos;
use tokio::sync::watch;

use super::{Desired, RETRY, RUNTIME_RETRY, Worker};
use crate::pod::kill::{kill_pod, remove_from_runtime};
use crate::pod::spec;
use crate::pod::status::terminate;
use crate::volumes;

impl Worker {
    pub(super) async fn terminate(&mut self) {
        self.probes.stop_liveness_and_startup();
        loop {
            let desired = self.desired.borrow_and_update().clone();
            self.pod = desired.pod;
            let Ok(state) = self.observe().await else {
                tokio::time::sleep(RUNTIME_RETRY).await;
                continue;
            };
            self.update_probes(&state);
            self.probes.stop_liveness_and_startup();
            self.shared.statuses.set(&self.pod, self.generate(&state, false));
            // an object that is gone cannot be waited for
            let grace = desired
                .removed
                .then_some(Duration::from_secs(1))
                .filter(|_| !spec::is_being_deleted(&self.pod));
            let grace = grace.or_else(|| self.deletion_grace());
            let shorter = self.desired.clone();
            let killed = tokio::select! {
                killed = kill_pod(&self.shared, &self.pod, &state, grace) => killed,
                () = less_time(shorter, self.deletion_grace()) => continue,
            };
            match killed {
                Ok(()) => {
                    if let Ok(after) = self.observe().await
                        && after.running().next().is_none()
                    {
                        self.probes.stop();
                        let mut status = self.generate(&after, true);
                        terminate(&self.pod, &mut status);
                        self.shared.statuses.set(&self.pod, status);
                        return;
                    }
                }
                Err(error) => {
                    let about = self.shared.about(&self.pod);
                    self.shared.recorder.warning(
                        &about,
                        "FailedKillPod",
                        format!("error killing pod: {error}"),
                    );
                }
            }
            tokio::time::sleep(RUNTIME_RETRY).await;
        }
    }

    fn deletion_grace(&self) -> Option<Duration> {
        let seconds = self.pod.metadata.deletion_grace_period_seconds?;
        Some(Duration::from_secs(u64::try_from(seconds).unwrap_or_default().max(1)))
    }

    /// Takes volumes and cgroup away, however often it has to be tried.
    pub(super) async fn clean_up(&mut self) {
        let uid = self.uid();
        let mut pause = Duration::from_millis(100);
        loop {
            let (paths, owner) = (self.shared.paths.clone(), uid.clone());
            let gone = tokio::task::spawn_blocking(move || volumes::tear_down(&paths, &owner)).await;
            let problem = match gone {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            let cgroup = self.shared.cgroups.pod(pod_qos(&self.pod), &uid);
            let cgroup_gone = self.shared.cgroups.remove(&cgroup);
            match problem {
                None if cgroup_gone => break,
                None => tracing::debug!(pod = spec::format(&self.pod), "the pod's cgroup is still in use"),
                Some(error) => {
                    tracing::warn!(
                        pod = spec::format(&self.pod),
                        error,
                        "cannot take the pod's volumes away"
                    );
                    let about = self.shared.about(&self.pod);
                    self.shared.recorder.warning(&about, "FailedUnMount", error);
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY);
        }
        self.shared.config_maps.release(&uid);
        self.shared.secrets.release(&uid);
        self.shared.tokens.release(&uid);
        self.shared.puller.release(&uid);
    }

    /// The object is gone: nothing of the pod stays.
    pub(super) async fn remove(&mut self) {
        let uid = self.uid();
        self.shared.statuses.forget(&uid);
        for _ in 0..5 {
            let removed = match self.shared.runtime.pod_state(&uid).await {
                Ok(state) => remove_from_runtime(&self.shared, &state).await,
                Err(error) => Err(error),
            };
            match removed {
                Ok(()) => break,
                // housekeeping finds what is left
                Err(error) => {
                    tracing::debug!(pod = spec::format(&self.pod), %error, "containers stay for now")
                }
            }
            tokio::time::sleep(RUNTIME_RETRY).await;
        }
        self.shared.index.forget(&uid);
        let (pod, paths) = (&self.pod, &self.shared.paths);
        let logs = paths.pod_logs(spec::namespace(pod), spec::name(pod), spec::uid(pod));
        for folder in [logs, paths.pod(&uid)] {
            if let Err(error) = crate::files::remove_all(&folder) {
                tracing::debug!(folder = %folder.display(), %error, "a folder stays for now");
            }
        }
    }
}

/// Ends when a pod that is being deleted is given less time than before.
async fn less_time(mut desired: watch::Receiver<Desired>, before: Option<Duration>) {
    let seconds = |desired: &Desired| desired.pod.metadata.deletion_grace_period_seconds;
    let before = before.map(|grace| i64::try_from(grace.as_secs()).unwrap_or(i64::MAX));
    let less = |desired: &Desired| match (seconds(desired), before) {
        (Some(now), Some(before)) => now.max(1) < before,
        (Some(_), None) => true,
        (None, _) => desired.removed,
    };
    if desired.wait_for(less).await.is_err() {
        std::future::pending::<()>().await;
    }
}
