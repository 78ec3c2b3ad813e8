//! Files of the administrator that are looked at again and again: what changed is put to use without a restart.

use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How often a file is looked at.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// Calls `apply` with what the file holds whenever that is not what was put to use last. What will not do is tried
/// again for as long as it is there, and told once.
pub async fn follow(
    what: &'static str,
    path: PathBuf,
    mut in_use: Vec<u8>,
    cancel: CancellationToken,
    mut apply: impl AsyncFnMut(&[u8]) -> Result<(), String>,
) {
    let mut told = None;
    let shown = path.display();
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        let outcome = match tokio::fs::read(&path).await {
            Ok(found) if found == in_use => Ok(false),
            Ok(found) => tokio::select! {
                () = cancel.cancelled() => return,
                applied = apply(&found) => applied.map(|()| {
                    in_use = found;
                    true
                }),
            },
            Err(error) => Err(error.to_string()),
        };
        match outcome {
            Ok(true) => {
                told = None;
                tracing::info!("{what} {shown} changed, and is in use");
            }
            Ok(false) => told = None,
            Err(error) if told.as_ref() == Some(&error) => {}
            Err(error) => {
                tracing::error!(%error, "{what} {shown} changed and will not do; the one before is in use");
                told = Some(error);
            }
        }
    }
}
