//! Pods that `Permit` plugins hold back: each plugin that said wait must allow the pod, or it is turned away.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Status;
use crate::pod_info::Uid;

/// Shared by the framework and the plugins that hold pods back. The lock is held for look-ups only.
#[derive(Default)]
pub struct WaitingPods {
    pods: Mutex<HashMap<Uid, Entry>>,
}

struct Entry {
    plugins: Vec<&'static str>,
    answer: oneshot::Sender<Result<(), Status>>,
}

/// The other end: the binding cycle waits on it.
pub struct Waiting {
    pods: Arc<WaitingPods>,
    uid: Uid,
    answer: oneshot::Receiver<Result<(), Status>>,
    /// Until when each plugin lets the pod wait, the most impatient first.
    deadlines: Vec<(Instant, &'static str)>,
}

impl WaitingPods {
    pub(super) fn add(self: &Arc<Self>, uid: Uid, plugins: &[(&'static str, Duration)]) -> Waiting {
        let (answer, receiver) = oneshot::channel();
        let now = Instant::now();
        let mut deadlines: Vec<_> =
            plugins.iter().map(|(plugin, patience)| (now + *patience, *plugin)).collect();
        deadlines.sort();
        let entry = Entry { plugins: plugins.iter().map(|(plugin, _)| *plugin).collect(), answer };
        self.pods.lock().insert(uid.clone(), entry);
        Waiting { pods: self.clone(), uid, answer: receiver, deadlines }
    }

    /// A plugin no longer holds the pod back.
    pub fn allow(&self, uid: &Uid, plugin: &str) {
        let mut pods = self.pods.lock();
        let Some(entry) = pods.get_mut(uid) else { return };
        entry.plugins.retain(|waiting| *waiting != plugin);
        if entry.plugins.is_empty()
            && let Some(entry) = pods.remove(uid)
        {
            // nobody listens when the wait has timed out
            let _ = entry.answer.send(Ok(()));
        }
    }

    /// Turns a waiting pod away; whether it was waiting.
    pub fn reject(&self, uid: &Uid, status: Status) -> bool {
        let entry = self.pods.lock().remove(uid);
        entry.is_some_and(|entry| entry.answer.send(Err(status)).is_ok())
    }
}

impl Waiting {
    pub async fn answer(mut self) -> Result<(), Status> {
        let Some((deadline, plugin)) = self.deadlines.first().copied() else { return Ok(()) };
        match tokio::time::timeout_at(deadline, &mut self.answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Status::error("the waiting pod was forgotten")),
            Err(_) => Err(Status::unschedulable("timeout waiting for permit plugins").with_plugin(plugin)),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.pods.pods.lock().remove(&self.uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_plugin_must_allow_in_time() {
        let pods = Arc::new(WaitingPods::default());
        let uid: Uid = "1".into();
        let (soon, late) = (Duration::from_millis(10), Duration::from_secs(60));

        let waiting = pods.add(uid.clone(), &[("a", late), ("b", late)]);
        pods.allow(&uid, "a");
        pods.allow(&uid, "other");
        pods.allow(&uid, "b");
        assert_eq!(waiting.answer().await, Ok(()));

        let waiting = pods.add(uid.clone(), &[("a", late)]);
        assert!(pods.reject(&uid, Status::unschedulable("no")));
        assert_eq!(waiting.answer().await, Err(Status::unschedulable("no")));
        assert!(!pods.reject(&uid, Status::unschedulable("no")));

        let waiting = pods.add(uid.clone(), &[("b", late), ("a", soon)]);
        let answer = waiting.answer().await.expect_err("nobody allowed it");
        assert_eq!((answer.plugin, answer.message().as_str()), ("a", "timeout waiting for permit plugins"));
        assert!(pods.pods.lock().is_empty());
    }
}
