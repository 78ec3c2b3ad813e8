//! What the scheduler does to the world: it binds pods, and says why it cannot.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, PodCondition};

#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The answer was no; trying the same again will not help.
    #[error("{0}")]
    Refused(String),
    /// No answer: it may or may not have been done.
    #[error("{0}")]
    Unanswered(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Normal,
    Warning,
}

/// What a pod's status is to say of its scheduling.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusChange {
    pub condition: PodCondition,
    pub nominated_node: Option<String>,
}

#[async_trait]
pub trait Port: Send + Sync + 'static {
    async fn bind(&self, pod: &Pod, node: &str) -> Result<(), PortError>;

    async fn change_status(&self, pod: &Pod, change: &StatusChange) -> Result<(), PortError>;

    /// Tells users; never waits.
    fn event(&self, pod: &Pod, r#type: EventType, reason: &str, message: String);
}
