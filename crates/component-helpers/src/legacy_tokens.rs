//! Where it is noted who uses tokens that lie in secrets: the API server writes it, a controller cleans up by it.

/// A secret's label with the day of the last use.
pub const LAST_USED_LABEL: &str = "kubernetes.io/legacy-token-last-used";
/// A secret's label with the day since which its token is refused.
pub const INVALID_SINCE_LABEL: &str = "kubernetes.io/legacy-token-invalid-since";
/// The config map in kube-system with the day since which uses are noted, under `since`.
pub const TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";
