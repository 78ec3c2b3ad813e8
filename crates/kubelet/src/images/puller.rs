//! Makes sure that a container's image is on the node: pull policies, back-off, and the words for it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use component_helpers::backoff::Backoff;
use k8s_cri::v1::{AuthConfig, PodSandboxConfig};
use k8s_openapi::api::core::v1::Secret;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::credentials::Keyring;
use super::reference::{Reference, with_default_tag};
use crate::runtime::{Image, Runtime};

const FIRST_BACK_OFF: Duration = Duration::from_secs(10);
const LAST_BACK_OFF: Duration = Duration::from_secs(300);
const SAY_BACK_OFF: Duration = Duration::from_secs(2);
/// Pulls at the same time; more would only share the line.
const PARALLEL_PULLS: usize = 4;

/// Why there is no image. The reason is the container's waiting reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullError {
    pub reason: &'static str,
    pub message: String,
    /// For a back-off: when it ends.
    pub retry_after: Option<Duration>,
}

/// What is told about a pull: `(warning, reason, message)`.
pub type Tell<'a> = &'a (dyn Fn(bool, &str, String) + Send + Sync);

/// What is asked for.
pub struct Wanted<'a> {
    pub pod_uid: &'a str,
    pub image: &'a str,
    pub policy: &'a str,
    pub secrets: &'a [Arc<Secret>],
    pub sandbox: Option<PodSandboxConfig>,
}

pub struct Puller {
    runtime: Arc<dyn Runtime>,
    back_off: Mutex<Backoff<String>>,
    /// Keys whose last pull failed; the error stays in the message of the back-off.
    failed: Mutex<std::collections::HashMap<String, String>>,
    permits: Semaphore,
    /// Whether the archives that lay there at the start have been imported.
    archives: watch::Receiver<bool>,
}

fn error(reason: &'static str, message: String) -> PullError {
    PullError { reason, message, retry_after: None }
}

impl Puller {
    pub fn new(runtime: Arc<dyn Runtime>, archives: watch::Receiver<bool>) -> Self {
        Self {
            runtime,
            back_off: Mutex::new(Backoff::new(FIRST_BACK_OFF, LAST_BACK_OFF)),
            failed: Mutex::default(),
            permits: Semaphore::new(PARALLEL_PULLS),
            archives,
        }
    }

    pub async fn ensure(&self, wanted: Wanted<'_>, tell: Tell<'_>) -> Result<Image, PullError> {
        let image = wanted.image;
        let reference = match with_default_tag(image) {
            Ok(reference) => reference,
            Err(problem) => {
                let message = format!(
                    "Failed to apply default image tag {image:?}: couldn't parse image name {image:?}: {problem}"
                );
                tell(true, "InspectFailed", message.clone());
                return Err(error("InvalidImageName", message));
            }
        };
        let present = match self.find(&reference).await {
            Ok(present) => present,
            Err(problem) => {
                let message = format!("Failed to inspect image {image:?}: {problem}");
                tell(true, "InspectFailed", message.clone());
                return Err(error("ImageInspectError", message));
            }
        };
        match (wanted.policy, present) {
            ("Never", None) => {
                let message = format!("Container image {image:?} is not present with pull policy of Never");
                tell(true, "ErrImageNeverPull", message.clone());
                return Err(error("ErrImageNeverPull", message));
            }
            ("Never" | "IfNotPresent", Some(present)) => {
                tell(
                    false,
                    "Pulled",
                    format!(
                        "Container image {image:?} already present on machine and can be accessed by the pod"
                    ),
                );
                return Ok(present);
            }
            _ => {}
        }
        self.pull(&wanted, &reference, tell).await
    }

    /// The image as the runtime holds it. What is not there may still be in an archive that is being imported.
    async fn find(&self, reference: &str) -> crate::runtime::Result<Option<Image>> {
        let present = self.runtime.image(reference).await?;
        if present.is_some() || *self.archives.borrow() {
            return Ok(present);
        }
        // without a sender there is nothing to wait for
        let _ = self.archives.clone().wait_for(|imported| *imported).await;
        self.runtime.image(reference).await
    }

    async fn pull(&self, wanted: &Wanted<'_>, reference: &str, tell: Tell<'_>) -> Result<Image, PullError> {
        let image = wanted.image;
        let key = format!("{}_{image}", wanted.pod_uid);
        let remaining = self.back_off.lock().remaining(&key, Instant::now());
        if !remaining.is_zero() {
            let mut message = format!("Back-off pulling image {image:?}");
            tell(false, "BackOff", message.clone());
            if let Some(last) = self.failed.lock().get(&key) {
                message.push_str(&format!(": {last}"));
            }
            return Err(PullError { reason: "ImagePullBackOff", message, retry_after: Some(remaining) });
        }
        tell(false, "Pulling", format!("Pulling image {image:?}"));
        let asked = Instant::now();
        let Ok(_permit) = self.permits.acquire().await else {
            return Err(error("ErrImagePull", "the kubelet is ending".to_owned()));
        };
        let started = Instant::now();
        match self.try_pull(wanted, reference).await {
            Ok(pulled) => {
                let size = pulled.size;
                let (took, waited) = (go_duration(started.elapsed()), go_duration(asked.elapsed()));
                tell(
                    false,
                    "Pulled",
                    format!(
                        "Successfully pulled image {image:?} in {took} ({waited} including waiting). Image size: {size} bytes."
                    ),
                );
                self.back_off.lock().reset(&key);
                self.failed.lock().remove(&key);
                Ok(pulled)
            }
            Err(message) => {
                tell(true, "Failed", format!("Failed to pull image {image:?}: {message}"));
                let mut back_off = self.back_off.lock();
                back_off.collect_garbage(Instant::now());
                back_off.next(key.clone(), Instant::now());
                self.failed.lock().insert(key, format!("ErrImagePull: {message}"));
                // looked at again soon, to say that it waits now
                Err(PullError { reason: "ErrImagePull", message, retry_after: Some(SAY_BACK_OFF) })
            }
        }
    }

    /// Tries each credential that fits, or none when there is none.
    async fn try_pull(&self, wanted: &Wanted<'_>, reference: &str) -> Result<Image, String> {
        let repository = Reference::parse(reference).map(|r| r.repository()).unwrap_or_default();
        let mut credentials: Vec<Option<AuthConfig>> =
            Keyring::from_secrets(wanted.secrets).lookup(&repository).into_iter().map(Some).collect();
        if credentials.is_empty() {
            credentials.push(None);
        }
        let mut problems: Vec<String> = Vec::new();
        let mut seen = HashSet::new();
        for auth in credentials {
            let pulled = self.runtime.pull_image(reference, auth, wanted.sandbox.clone()).await;
            match pulled {
                Ok(id) => {
                    return match self.runtime.image(&id).await {
                        Ok(Some(image)) => Ok(image),
                        Ok(None) => Err(format!("image {id} is gone after its pull")),
                        Err(problem) => Err(problem.to_string()),
                    };
                }
                Err(problem) if seen.insert(problem.to_string()) => problems.push(problem.to_string()),
                Err(_) => {}
            }
        }
        Err(if problems.len() == 1 { problems.swap_remove(0) } else { format!("[{}]", problems.join(", ")) })
    }

    /// A pod is gone.
    pub fn release(&self, pod_uid: &str) {
        self.failed.lock().retain(|key, _| !key.starts_with(pod_uid));
    }
}

/// A duration as Go prints it, in whole milliseconds: `1.234s`, `12ms`, `1m2.5s`.
pub fn go_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let fraction = |millis: u128| {
        let text = format!("{}.{:03}", millis / 1000, millis % 1000);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let (hours, minutes, rest) = (millis / 3_600_000, millis / 60_000 % 60, millis % 60_000);
    match (hours, minutes) {
        (0, 0) => format!("{}s", fraction(rest)),
        (0, _) => format!("{minutes}m{}s", fraction(rest)),
        _ => format!("{hours}h{minutes}m{}s", fraction(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_gos() {
        let cases = [
            (0, "0s"),
            (12, "12ms"),
            (1234, "1.234s"),
            (1500, "1.5s"),
            (10_000, "10s"),
            (62_500, "1m2.5s"),
            (3_600_000, "1h0m0s"),
        ];
        for (millis, want) in cases {
            assert_eq!(go_duration(Duration::from_millis(millis)), want);
        }
    }
}
