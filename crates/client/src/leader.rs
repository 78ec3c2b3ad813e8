//! Leader election over a Lease: of several copies of a component, one works.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Upstream's defaults.
const LEASE: Duration = Duration::from_secs(15);
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);

/// A candidate for one lease.
pub struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
    /// The last state of the lease that was seen, and when: clocks of other machines are never compared.
    seen: Option<(Option<MicroTime>, Option<String>, Instant)>,
}

impl Election {
    pub fn new(client: Client, namespace: &str, name: &str, identity: String) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.into(), identity, seen: None }
    }

    /// Waits until this candidate leads. `false` when cancelled before.
    pub async fn acquire(&mut self, cancel: &CancellationToken) -> bool {
        loop {
            match self.try_lead().await {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => tracing::debug!(lease = self.name, %error, "the lease could not be taken"),
            }
            tokio::select! {
                () = cancel.cancelled() => return false,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// Renews until leadership is lost or `cancel` is called; then gives the lease up.
    pub async fn hold(&mut self, cancel: &CancellationToken) {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = cancel.cancelled() => {
                    if let Err(error) = self.release().await {
                        tracing::debug!(lease = self.name, %error, "the lease could not be given up");
                    }
                    return;
                }
                () = tokio::time::sleep(RETRY) => {}
            }
            match tokio::time::timeout(RENEW_DEADLINE, self.try_lead()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(error)) => {
                    tracing::debug!(lease = self.name, %error, "the lease could not be renewed")
                }
                Err(_) => {}
            }
            if renewed.elapsed() > RENEW_DEADLINE {
                return;
            }
        }
    }

    async fn try_lead(&mut self) -> Result<bool, kube::Error> {
        let now = MicroTime(Timestamp::now());
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let spec = self.spec(&now, now.clone(), 0);
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(spec) };
            return match self.api.create(&PostParams::default(), &lease).await {
                Ok(_) => Ok(true),
                Err(error) if crate::is_already_exists(&error) => Ok(false),
                Err(error) => Err(error),
            };
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty());
        let mine = holder.as_deref() == Some(&self.identity);
        let state = (spec.renew_time.clone(), holder.clone());
        let unchanged_since = match &self.seen {
            Some((renewed, by, at)) if (renewed, by) == (&state.0, &state.1) => *at,
            _ => {
                let at = Instant::now();
                self.seen = Some((state.0, state.1, at));
                at
            }
        };
        let valid =
            Duration::from_secs(u64::try_from(spec.lease_duration_seconds.unwrap_or(15)).unwrap_or(15));
        if !mine && holder.is_some() && unchanged_since.elapsed() < valid {
            return Ok(false);
        }
        let transitions = spec.lease_transitions.unwrap_or_default();
        let acquired = if mine { spec.acquire_time.unwrap_or_else(|| now.clone()) } else { now.clone() };
        lease.spec = Some(self.spec(&now, acquired, transitions + i32::from(!mine)));
        match self.api.replace(&self.name, &PostParams::default(), &lease).await {
            Ok(_) => Ok(true),
            Err(error) if crate::is_conflict(&error) => Ok(mine),
            Err(error) => Err(error),
        }
    }

    fn spec(&self, now: &MicroTime, acquired: MicroTime, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(LEASE.as_secs().try_into().unwrap_or(15)),
            acquire_time: Some(acquired),
            renew_time: Some(now.clone()),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    async fn release(&self) -> Result<(), kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else { return Ok(()) };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            return Ok(());
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        self.api.replace(&self.name, &PostParams::default(), &lease).await.map(drop)
    }
}
