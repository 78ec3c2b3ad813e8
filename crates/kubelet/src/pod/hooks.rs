//! Lifecycle hooks: what a container asks to be done after its start and before its stop.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};

use crate::pod::spec;
use crate::probes::run_http;
use crate::runtime::Runtime;

/// Runs a hook to its end or to the limit. An error is for the log and the waiting message, not for events: it may
/// hold what the container said.
pub async fn run(
    hook: &LifecycleHandler,
    pod: &Pod,
    container: &Container,
    id: &str,
    pod_ip: &str,
    runtime: &dyn Runtime,
    limit: Duration,
) -> Result<(), String> {
    let whose = format!("for Container {:?} in Pod {:?}", container.name, spec::format(pod));
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let failed = |error: String, output: &str| {
            format!(
                "Exec lifecycle hook ([{}]) {whose} failed - error: {error}, message: {output:?}",
                command.join(" ")
            )
        };
        return match runtime.exec_sync(id, command.clone(), limit).await {
            Ok(result) if result.exit_code == 0 => Ok(()),
            Ok(result) => {
                let mut output = result.stdout;
                output.extend_from_slice(&result.stderr);
                let error = format!("command '{}' exited with {}", command.join(" "), result.exit_code);
                Err(failed(error, &String::from_utf8_lossy(&output)))
            }
            Err(error) => Err(failed(error.to_string(), "")),
        };
    }
    if let Some(get) = &hook.http_get {
        let failed = |error: String| {
            let path = get.path.as_deref().unwrap_or_default();
            format!("HTTP lifecycle hook ({path}) {whose} failed - error: {error}")
        };
        return match run_http(get, container, pod_ip, limit, "kube-lifecycle/1.36").await {
            Ok(answer) if answer.status < 400 => Ok(()),
            Ok(answer) => Err(failed(format!("{} answered with {}", answer.host(), answer.status))),
            Err(error) => Err(failed(format!("{error:?}"))),
        };
    }
    if let Some(sleep) = &hook.sleep {
        let wanted = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or_default());
        tokio::time::sleep(wanted.min(limit)).await;
        return Ok(());
    }
    Err(format!("Invalid handler: {hook:?}"))
}
