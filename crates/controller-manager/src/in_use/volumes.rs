//! Persistent volumes stay while they are bound to a claim.

use std::sync::Arc;

use client::{ObjectKey, Queue};
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::Client;
use tokio_util::sync::CancellationToken;

use super::run_cluster_scoped;
use crate::Shared;

const FINALIZER: &str = "kubernetes.io/pv-protection";

fn is_bound(volume: &PersistentVolume) -> bool {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
}

pub async fn run(shared: Shared, client: Client, cancel: CancellationToken) {
    let volumes = shared.informers.all::<PersistentVolume>();
    let queue: Arc<Queue<ObjectKey>> = Arc::default();
    volumes.wait_for_sync().await;
    run_cluster_scoped("pv-protection", FINALIZER, volumes, queue, client, cancel, is_bound).await;
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PersistentVolumeStatus;

    use super::*;

    #[test]
    fn a_volume_is_in_use_while_it_is_bound() {
        assert!(!is_bound(&PersistentVolume::default()));
        for (phase, wanted) in [("Bound", true), ("Available", false), ("Released", false), ("Failed", false)]
        {
            let status = PersistentVolumeStatus { phase: Some(phase.into()), ..Default::default() };
            let volume = PersistentVolume { status: Some(status), ..Default::default() };
            assert_eq!(is_bound(&volume), wanted, "{phase}");
        }
    }
}
