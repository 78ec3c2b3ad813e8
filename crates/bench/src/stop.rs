//! SIGINT and SIGTERM: a run that is interrupted still reports and cleans up.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[derive(Clone, Default)]
pub struct Stop(CancellationToken);

impl Stop {
    /// Is set by the first signal; the second ends the process.
    pub fn on_signals() -> anyhow::Result<Self> {
        let stop = Self::default();
        let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        let own = stop.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if own.is_set() {
                    std::process::exit(130);
                }
                eprintln!(
                    "stopping: what was measured is reported, what was made is removed (again to stop at once)"
                );
                own.0.cancel();
            }
        });
        Ok(stop)
    }

    /// One that is set with this, or by [`Stop::set`] alone.
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    pub fn set(&self) {
        self.0.cancel();
    }

    pub fn is_set(&self) -> bool {
        self.0.is_cancelled()
    }

    pub async fn wait(&self) {
        self.0.cancelled().await;
    }
}
