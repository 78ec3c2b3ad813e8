//! The leases by which API servers know of each other: each renews its own, and any removes those that ran out.

use apimachinery::{Object, Reason, Status};
use chrono::{DateTime, TimeDelta, Utc};
use data_encoding::BASE32_NOPAD;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::context::{Context, WriteOptions};
use crate::registry::{DeleteOptions, Part};
use crate::server::Server;

const NAMESPACE: &str = "kube-system";
const LABEL: &str = "apiserver.kubernetes.io/identity";
const COMPONENT: &str = "kube-apiserver";
const SECONDS: i64 = 3600;

/// What a server is called: as upstream's on the same host.
fn name_on(host: &str) -> String {
    let hash = BASE32_NOPAD.encode(&Sha256::digest(host)[..16]);
    format!("apiserver-{}", hash.to_lowercase())
}

/// Renews this server's lease, or takes it.
pub async fn renew(server: &Server, ctx: &Context, holder: &str) -> Result<(), Status> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let now = Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    let name = name_on(host);
    let lease = json!({
        "metadata": {"namespace": NAMESPACE, "name": name, "labels": {
            LABEL: COMPONENT, "kubernetes.io/hostname": host,
        }},
        "spec": {"holderIdentity": format!("{name}_{holder}"), "leaseDurationSeconds": SECONDS, "renewTime": now},
    });
    let kind = super::kind(server, "coordination.k8s.io", "v1", "leases")?;
    let wanted = super::typed(kind, lease);
    let transform = |old: Option<&Object>| {
        let Some(old) = old else { return Ok(wanted.clone()) };
        let mut new = old.clone();
        new.set(&["spec", "renewTime"], now.as_str());
        Ok(new)
    };
    let options = WriteOptions::default();
    let update = server.registry.update(ctx, kind, NAMESPACE, &name, Part::Main, &transform, true, options);
    Box::pin(update).await.map(drop)
}

/// Whether nobody renewed a lease in time, or nobody can tell.
fn has_run_out(lease: &Object, now: DateTime<Utc>) -> bool {
    let renewed = DateTime::parse_from_rfc3339(lease.get_str(&["spec", "renewTime"])).ok();
    let seconds = lease.get_i64(&["spec", "leaseDurationSeconds"]);
    let life = seconds.and_then(TimeDelta::try_seconds);
    renewed.zip(life).and_then(|(renewed, life)| renewed.checked_add_signed(life)).is_none_or(|end| end < now)
}

/// Removes leases of servers that are gone.
pub async fn collect(server: &Server, ctx: &Context) -> Result<(), Status> {
    let kind = super::kind(server, "coordination.k8s.io", "v1", "leases")?;
    let Some(cache) = server.registry.cache.resource(kind) else { return Ok(()) };
    let snapshot = cache.snapshot();
    let prefix = kind.key(NAMESPACE, "");
    let of_servers = snapshot
        .range(&prefix, None)
        .filter(|entry| entry.labels().get(LABEL).is_some_and(|component| component == COMPONENT));
    for entry in of_servers {
        let lease = entry.object().map_err(Status::internal)?;
        if !has_run_out(&lease, ctx.now) {
            continue;
        }
        // whoever renews it meanwhile keeps it
        let options = DeleteOptions {
            uid: Some(entry.uid().to_owned()),
            resource_version: Some(entry.revision().to_string()),
            ..DeleteOptions::default()
        };
        match Box::pin(server.registry.delete(ctx, kind, NAMESPACE, entry.name(), &options)).await {
            Err(status) if !status.is(Reason::NotFound) && !status.is(Reason::Conflict) => {
                return Err(status);
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[test]
    fn servers_are_called_as_upstreams() {
        assert_eq!(name_on("node-1"), "apiserver-gwlrxzxjxmbevckvql7a4qxaja");
    }

    #[tokio::test]
    async fn leases_that_ran_out_go() {
        let (server, _folder) = crate::testing::server(CancellationToken::new()).await;
        let ctx = Context::internal();
        let kind = super::super::kind(&server, "coordination.k8s.io", "v1", "leases").unwrap();
        for name in [NAMESPACE, "kube-node-lease"] {
            let namespace = json!({"metadata": {"name": name}});
            super::super::ensure(&server, &ctx, "", "v1", "namespaces", namespace).await.unwrap();
        }
        let ago = |seconds| {
            let then = ctx.now - TimeDelta::seconds(seconds);
            json!(then.to_rfc3339_opts(chrono::SecondsFormat::Micros, true))
        };
        let made = [
            ("old", NAMESPACE, COMPONENT, ago(61), json!(60)),
            ("unsaid", NAMESPACE, COMPONENT, ago(1), json!(null)),
            ("fresh", NAMESPACE, COMPONENT, ago(1), json!(60)),
            ("others", NAMESPACE, "somebody", ago(61), json!(60)),
            ("elsewhere", "kube-node-lease", COMPONENT, ago(61), json!(60)),
        ];
        for (name, namespace, component, renewed, seconds) in made {
            let lease = json!({
                "metadata": {"namespace": namespace, "name": name, "labels": {LABEL: component}},
                "spec": {"holderIdentity": "somebody", "renewTime": renewed, "leaseDurationSeconds": seconds},
            });
            let lease = super::super::typed(kind, lease);
            server.registry.create(&ctx, kind, namespace, lease, WriteOptions::default()).await.unwrap();
        }
        renew(&server, &ctx, "holder").await.unwrap();
        collect(&server, &ctx).await.unwrap();
        let left = |namespace, name| server.registry.peek(kind, namespace, name).is_some();
        let of_servers = ["old", "unsaid", "fresh", "others"].map(|name| left(NAMESPACE, name));
        assert_eq!(of_servers, [false, false, true, true]);
        assert!(left("kube-node-lease", "elsewhere"));
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert!(left(NAMESPACE, &name_on(host.trim())));
    }
}
