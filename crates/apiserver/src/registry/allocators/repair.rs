//! Puts right, now and then, what servers that died halfway left behind: addresses and node ports that no Service
//! has, and Services whose address or port nobody has written down. Several servers may do so at once: every step
//! is a write that is checked against the store, and none is taken before others had the time to finish theirs.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, Reason, Status};
use chrono::DateTime;

use super::addresses::{MANAGED_BY, MANAGER, record};
use super::{addresses_of, ports_of};
use crate::context::Context;
use crate::registry::{DeleteOptions, Registry};
use crate::server::Server;

/// How long between two looks.
const INTERVAL: Duration = Duration::from_secs(180);
/// An address is written down before its Service is; younger ones may belong to a Service that is on its way.
const GRACE: i64 = 60;
/// In how many looks a port has to be without a Service before it is free.
const LOOKS: u8 = 3;

/// Looks after addresses and ports until the server stops.
pub async fn run(server: Arc<Server>) {
    let mut leaks = Leaks::default();
    loop {
        let registry = &server.registry;
        if let Err(status) = addresses(registry).await {
            tracing::warn!(%status, "the addresses of Services could not be checked");
        }
        if let Err(status) = ports(registry, &mut leaks).await {
            tracing::warn!(%status, "the node ports of Services could not be checked");
        }
        tokio::select! {
            () = server.stopping.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// Ports that no Service has, and in how many looks on end that was so.
#[derive(Default)]
struct Leaks(HashMap<u16, u8>);

impl Leaks {
    /// Notes what is unused now. What was used in between starts anew.
    fn note(&mut self, unused: &[u16]) {
        self.0.retain(|port, _| unused.contains(port));
        for port in unused {
            let looks = self.0.entry(*port).or_default();
            *looks = looks.saturating_add(1);
        }
    }

    /// What has been unused for long enough.
    fn free(&self) -> Vec<u16> {
        self.0.iter().filter(|(_, looks)| **looks >= LOOKS).map(|(port, _)| *port).collect()
    }
}

async fn services(registry: &Registry) -> Result<Vec<Object>, Status> {
    registry.cache.wait_for_latest().await?;
    all(registry, "", "services")
}

fn all(registry: &Registry, group: &str, plural: &str) -> Result<Vec<Object>, Status> {
    let kind = registry.kind(group, "v1", plural);
    let Some(cache) = kind.and_then(|kind| registry.cache.resource(kind)) else { return Ok(Vec::new()) };
    cache.snapshot().iter().map(|entry| entry.object().map_err(Status::internal)).collect()
}

async fn ports(registry: &Registry, leaks: &mut Leaks) -> Result<(), Status> {
    let used: Vec<u16> = services(registry).await?.iter().flat_map(ports_of).collect();
    let free = leaks.free();
    if !free.is_empty() {
        tracing::warn!(ports = ?free, "node ports that no Service has are free again");
    }
    let unused = registry.allocators.ports.put_right(registry, &used, &free).await?;
    leaks.note(&unused);
    Ok(())
}

/// Whom an address is written down for.
fn owner(address: &Object) -> (&str, &str, &str) {
    let text = |key: &str| address.get_str(&["spec", "parentRef", key]);
    (text("resource"), text("namespace"), text("name"))
}

fn is_owner(address: &Object, service: &Object) -> bool {
    owner(address) == ("services", service.namespace(), service.name())
}

/// Whether an address stands for a Service that does not have it, and has done so for a while.
fn is_orphan(address: &Object, services: &[Object], now: i64) -> bool {
    let Ok(ip) = address.name().parse::<IpAddr>() else { return false };
    let created = DateTime::parse_from_rfc3339(address.creation_timestamp()).map(|time| time.timestamp());
    address.label(MANAGED_BY) == Some(MANAGER)
        && created.is_ok_and(|created| now - created > GRACE)
        && !services.iter().any(|service| is_owner(address, service) && addresses_of(service).contains(&ip))
}

async fn addresses(registry: &Registry) -> Result<(), Status> {
    let services = services(registry).await?;
    let known = all(registry, "networking.k8s.io", "ipaddresses")?;
    let ctx = Context::internal();
    let Some(kind) = registry.kind("networking.k8s.io", "v1", "ipaddresses") else { return Ok(()) };
    for service in &services {
        for ip in addresses_of(service) {
            let name = ip.to_string();
            match known.iter().find(|address| address.name() == name) {
                Some(address) if is_owner(address, service) => {}
                Some(address) => {
                    let (_, namespace, other) = owner(address);
                    tracing::warn!(
                        %ip, service = service.name(), "an address is that of {namespace}/{other} by the books"
                    );
                }
                None => match record(registry, service, ip, false).await {
                    Ok(()) => {
                        tracing::warn!(%ip, service = service.name(), "an address was in use, and is in the books now")
                    }
                    Err(status) if status.is(Reason::AlreadyExists) => {}
                    Err(status) => return Err(status),
                },
            }
        }
    }
    for address in known.iter().filter(|address| is_orphan(address, &services, ctx.now.timestamp())) {
        // what has been written since is somebody else's
        let options = DeleteOptions {
            uid: Some(address.uid().to_owned()),
            resource_version: Some(address.resource_version().to_owned()),
            ..DeleteOptions::default()
        };
        match Box::pin(registry.delete(&ctx, kind, "", address.name(), &options)).await {
            Ok(_) => tracing::warn!(ip = address.name(), "an address that no Service has is free again"),
            Err(status) if status.is(Reason::NotFound) || status.is(Reason::Conflict) => {}
            Err(status) => return Err(status),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_port_is_free_after_three_looks_on_end() {
        let mut leaks = Leaks::default();
        leaks.note(&[1, 2]);
        leaks.note(&[1, 2]);
        assert!(leaks.free().is_empty());
        leaks.note(&[1]);
        assert_eq!(leaks.free(), [1]);
        leaks.note(&[2]);
        assert!(leaks.free().is_empty(), "a port that was used in between starts anew");
    }

    #[test]
    fn an_orphan_is_old_and_has_no_service() {
        let service = Object::from(json!({"metadata": {"namespace": "n", "name": "s"},
            "spec": {"clusterIPs": ["10.0.0.1"]}}));
        let address = |ip: &str, managed: &str, name: &str| {
            Object::from(json!({
                "metadata": {"name": ip, "creationTimestamp": "1970-01-01T00:00:00Z", "labels": {MANAGED_BY: managed}},
                "spec": {"parentRef": {"resource": "services", "namespace": "n", "name": name}},
            }))
        };
        let services = [service];
        assert!(!is_orphan(&address("10.0.0.1", MANAGER, "s"), &services, 1000));
        assert!(is_orphan(&address("10.0.0.2", MANAGER, "s"), &services, 1000));
        assert!(is_orphan(&address("10.0.0.1", MANAGER, "other"), &services, 1000));
        assert!(
            !is_orphan(&address("10.0.0.2", MANAGER, "s"), &services, 30),
            "its Service may be on its way"
        );
        assert!(!is_orphan(&address("10.0.0.2", "me", "s"), &services, 1000));
    }
}
