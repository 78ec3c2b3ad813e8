//! How components talk to the API: clients, shared informers with indexed stores, work queues, leader election,
//! events. No component knows more of the API server than this.

pub mod bare;
pub mod events;
pub mod informer;
mod intern;
pub mod kubeconfig;
pub mod leader;
mod named;
pub mod queue;
mod reconnect;
pub mod runner;
pub mod store;

pub use bare::Bare;
pub use events::Recorder;
pub use informer::{Change, Informer, Informers, Selector};
pub use named::named;
pub use queue::Queue;
pub use reconnect::Reconnecting;
pub use store::Store;

/// `namespace/name`, by which work queues know objects; cluster-scoped ones have an empty namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    pub fn of<K: kube::Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace.as_str() {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

/// Whether an API call failed with a status of this reason.
pub fn is_reason(error: &kube::Error, reason: &str) -> bool {
    matches!(error, kube::Error::Api(status) if status.reason == reason)
}

pub fn is_not_found(error: &kube::Error) -> bool {
    is_reason(error, "NotFound")
}

pub fn is_conflict(error: &kube::Error) -> bool {
    is_reason(error, "Conflict")
}

pub fn is_already_exists(error: &kube::Error) -> bool {
    is_reason(error, "AlreadyExists")
}

/// Whether nothing more can be made in a namespace, since it is being deleted.
pub fn is_namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    causes.any(|cause| cause.reason == "NamespaceTerminating")
}

/// What an error says: of the API's own, the message alone.
pub fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
