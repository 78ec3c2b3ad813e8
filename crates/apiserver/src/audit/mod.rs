//! Audit: who asked for what and how it ended, as far as a policy asks for it. Without a policy nothing is recorded.
//!
//! [`policy`] decides, a [`Trail`] gathers what becomes known of one request, [`log`] writes it down.

mod log;
mod policy;
mod trail;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::authorization::Attributes;

pub use log::LogOptions;
pub use trail::{Facts, PeerAddress, Trail, record_response, record_unauthenticated};

use log::Log;
use policy::{Level, Policy};

/// How long the end of a server waits for the log.
const FLUSH: Duration = Duration::from_secs(5);

/// What the flags say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditOptions {
    pub policy_file: Option<PathBuf>,
    /// Without a path nothing is written, whatever the policy says.
    pub log: Option<LogOptions>,
}

/// Why audit could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("loading audit policy file: failed to read file path {path:?}: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("loading audit policy file: {why}: from file {}", path.display())]
    Policy { path: PathBuf, why: String },
    #[error("the audit log {path:?} cannot be written: {source}; choose another with --audit-log-path")]
    Log { path: String, source: std::io::Error },
}

pub struct Audit {
    policy: Policy,
    log: Log,
}

impl Audit {
    /// Nothing unless there are a policy and a place to write to.
    pub fn open(options: &AuditOptions) -> Result<Option<Arc<Self>>, AuditError> {
        let Some(path) = &options.policy_file else { return Ok(None) };
        let bytes =
            std::fs::read(path).map_err(|source| AuditError::Unreadable { path: path.clone(), source })?;
        let policy = Policy::parse(&bytes).map_err(|why| AuditError::Policy { path: path.clone(), why })?;
        let Some(log) = &options.log else { return Ok(None) };
        let log = Log::open(log).map_err(|source| AuditError::Log { path: log.path.clone(), source })?;
        Ok(Some(Arc::new(Self { policy, log })))
    }

    /// Begins the record of a request; none where the policy wants none.
    pub fn begin(self: &Arc<Self>, attributes: &Attributes<'_>, request: Facts<'_>) -> Option<Arc<Trail>> {
        let decision = self.policy.evaluate(attributes);
        (decision.level != Level::None)
            .then(|| Arc::new(Trail::new(self.clone(), decision.clone(), attributes, request)))
    }

    /// Events written, and events lost because the log could not keep up.
    pub fn counts(&self) -> (u64, u64) {
        self.log.counts()
    }

    /// Waits until everything recorded so far is written.
    pub async fn flush(self: Arc<Self>) {
        let flushed = tokio::task::spawn_blocking(move || self.log.flush(FLUSH)).await;
        if flushed.is_err() {
            tracing::error!("the audit log could not be flushed");
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.log.close();
    }
}
