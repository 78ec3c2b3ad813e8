//! The Service `default/kubernetes` and what stands behind it: the addresses of all servers that live. Each keeps a lease
//! on its own at upstream's key, which the store forgets when nobody renews it, and any of them writes what is left.

use std::collections::BTreeSet;
use std::time::Duration;

use apimachinery::{Object, Status, Value};
use serde_json::json;
use storage::{DeleteOutcome, Expect, PutOutcome, Range};
use tokio::sync::Mutex;

use super::{ensure, kind, put, typed};
use crate::cache::storage_failed;
use crate::context::{Context, WriteOptions};
use crate::kinds::Kind;
use crate::registry::{DeleteOptions, Part};
use crate::server::Server;

const LEASES: &str = "/registry/masterleases/";
/// What upstream calls the leases where encryption names what it is for.
const LEASED: &str = "apiServerIPInfo";
/// A server that does not renew its lease for so long is gone: one and a half of the intervals at which it does.
const TTL: Duration = Duration::from_secs(15);
const TRIES: usize = 8;

const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";

/// Whether this server has left. Held while it puts itself among the others, so that it does not come back.
#[derive(Default)]
pub struct Presence(Mutex<bool>);

/// Makes the Service, and this server one of those behind it.
pub async fn run(server: &Server, ctx: &Context) -> Result<(), Status> {
    let ip = server.config.service_cidr.primary.nth(1).to_string();
    let port = server.config.advertise.port();
    let service = json!({
        "metadata": {"namespace": NAMESPACE, "name": NAME, "labels": {
            "component": "apiserver", "provider": "kubernetes",
        }},
        "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "sessionAffinity": "None",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]},
    });
    ensure(server, ctx, "", "v1", "services", service).await?;
    reconcile(server, ctx, Ports::Own).await
}

/// Which ports endpoints are to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// This server's, as when it comes and when it goes.
    Own,
    /// Those that they have, whoever wrote them.
    Theirs,
}

/// Renews this server's lease, and writes who lives.
pub async fn reconcile(server: &Server, ctx: &Context, ports: Ports) -> Result<(), Status> {
    let has_left = server.presence.0.lock().await;
    if *has_left {
        return Ok(());
    }
    renew(server).await?;
    publish(server, ctx, ports).await
}

/// Takes this server from among those that live. Of the last one the address stays, since nobody knows better.
pub async fn leave(server: &Server, ctx: &Context) -> Result<(), Status> {
    let mut has_left = server.presence.0.lock().await;
    *has_left = true;
    release(server).await?;
    publish(server, ctx, Ports::Own).await
}

fn own_key(server: &Server) -> String {
    format!("{LEASES}{}", server.config.advertise.ip())
}

/// Writes this server's lease anew: its generation counts the renewals, as upstream's does.
async fn renew(server: &Server) -> Result<(), Status> {
    let kind = kind(server, "", "v1", "endpoints")?;
    let storage = &server.registry.storage;
    let key = own_key(server);
    let (mut current, _) = storage.get(&key).await.map_err(storage_failed)?;
    for _ in 0..TRIES {
        let (expected, renewals) = match &current {
            None => (Expect::Absent, 0),
            Some(kv) => {
                let lease = read(kind, &kv.key, &kv.value)?;
                (Expect::ModRevision(kv.mod_revision), lease.generation())
            }
        };
        let lease = lease(&server.config.advertise.ip().to_string(), renewals + 1);
        let sealed = kind.encryption().seal("", LEASED, &key, kind.encode_stored(&lease));
        let bytes = sealed.map_err(Status::internal)?.into();
        match storage.put_if(&key, expected, bytes, Some(TTL)).await.map_err(storage_failed)? {
            PutOutcome::Stored(_) => return Ok(()),
            PutOutcome::Conflict(newer) => current = newer,
        }
    }
    Err(Status::internal(format!("{key} is written by somebody else all the time")))
}

fn lease(ip: &str, generation: i64) -> Object {
    Object::from(json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"generation": generation},
        "subsets": [{"addresses": [{"ip": ip}]}],
    }))
}

fn read(kind: &Kind, key: &str, value: &bytes::Bytes) -> Result<Object, Status> {
    let opened = kind.encryption().open("", LEASED, key, value).map_err(Status::internal)?;
    kind.decode_stored(&opened.value).map_err(Status::internal)
}

async fn release(server: &Server) -> Result<(), Status> {
    let storage = &server.registry.storage;
    let key = own_key(server);
    let (mut current, _) = storage.get(&key).await.map_err(storage_failed)?;
    for _ in 0..TRIES {
        let Some(kv) = current else { return Ok(()) };
        match storage.delete_if(&key, kv.mod_revision).await.map_err(storage_failed)? {
            DeleteOutcome::Deleted { .. } => return Ok(()),
            DeleteOutcome::Conflict(newer) => current = newer,
        }
    }
    Err(Status::internal(format!("{key} is written by somebody else all the time")))
}

/// The addresses that are leased, in the order of their keys.
async fn leased(server: &Server) -> Result<Vec<String>, Status> {
    let kind = kind(server, "", "v1", "endpoints")?;
    let page = server.registry.storage.range(Range::prefix(LEASES)).await.map_err(storage_failed)?;
    let mut addresses = Vec::new();
    for kv in page.kvs {
        let lease = read(kind, &kv.key, &kv.value)?;
        let ip = lease.get_array(&["subsets"]).first().and_then(|subset| subset.pointer("/addresses/0/ip"));
        addresses.extend(ip.and_then(Value::as_str).map(str::to_owned));
    }
    Ok(addresses)
}

/// Writes `Endpoints` and slice so that they name whoever holds a lease.
async fn publish(server: &Server, ctx: &Context, ports: Ports) -> Result<(), Status> {
    let living = leased(server).await?;
    if living.is_empty() {
        return Err(Status::internal(
            "no API server IP addresses were listed in storage, refusing to erase all endpoints for the kubernetes Service",
        ));
    }
    let kind = kind(server, "", "v1", "endpoints")?;
    let port = server.config.advertise.port();
    let made = typed(kind, json!({"metadata": {"namespace": NAMESPACE, "name": NAME}}));
    let transform = |old: Option<&Object>| {
        let mut new = old.unwrap_or(&made).clone();
        // this server writes the slice itself
        new.set(&["metadata", "labels", "endpointslice.kubernetes.io/skip-mirror"], "true");
        if let Some(subsets) = subsets(new.get_array(&["subsets"]), &living, port, ports) {
            new.set(&["subsets"], subsets);
        }
        Ok(new)
    };
    let (registry, options) = (&server.registry, WriteOptions::default());
    let update = registry.update(ctx, kind, NAMESPACE, NAME, Part::Main, &transform, true, options);
    let updated = Box::pin(update).await?;
    slice(server, ctx, &updated.object).await
}

/// The subsets that there are to be; `None` where those that are there will do.
fn subsets(old: &[Value], living: &[String], port: u16, ports: Ports) -> Option<Value> {
    let own = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
    let [subset] = old else {
        return Some(json!([subset(living, &own)]));
    };
    let kept = match ports {
        Ports::Own => &own,
        Ports::Theirs => &subset["ports"],
    };
    let named: Vec<&str> = subset["addresses"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|address| address["ip"].as_str())
        .collect();
    let wanted: BTreeSet<&str> = living.iter().map(String::as_str).collect();
    let all = named.len() == wanted.len() && named.iter().copied().collect::<BTreeSet<_>>() == wanted;
    (!all || *kept != subset["ports"]).then(|| json!([self::subset(living, kept)]))
}

fn subset(living: &[String], ports: &Value) -> Value {
    let addresses: Vec<Value> = living.iter().map(|ip| json!({"ip": ip})).collect();
    let mut subset = json!({"addresses": addresses});
    if !ports.is_null() {
        subset["ports"] = ports.clone();
    }
    subset
}

/// Writes the slice that says what `Endpoints` say. A slice is of one family for good: that of all its addresses, and
/// IPv4 where they have both.
async fn slice(server: &Server, ctx: &Context, endpoints: &Object) -> Result<(), Status> {
    let subset = endpoints.get_array(&["subsets"]).first().cloned().unwrap_or_default();
    let is_ipv6 = |ip: &str| ip.contains(':');
    let ips: Vec<&str> = subset["addresses"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|address| address["ip"].as_str())
        .collect();
    let family = if ips.iter().all(|ip| is_ipv6(ip)) { "IPv6" } else { "IPv4" };
    let of_family = ips.iter().filter(|ip| is_ipv6(ip) == (family == "IPv6"));
    let each: Vec<Value> =
        of_family.map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
    let slices = kind(server, "discovery.k8s.io", "v1", "endpointslices")?;
    let old = server.registry.peek(slices, NAMESPACE, NAME);
    if old.is_some_and(|old| old.get_str(&["addressType"]) != family) {
        let options = DeleteOptions::default();
        Box::pin(server.registry.delete(ctx, slices, NAMESPACE, NAME, &options)).await?;
    }
    let slice = json!({
        "metadata": {"namespace": NAMESPACE, "name": NAME, "labels": {"kubernetes.io/service-name": NAME}},
        "addressType": family,
        "endpoints": each,
        "ports": subset["ports"],
    });
    put(server, ctx, "discovery.k8s.io", "endpointslices", slice, &["endpoints", "ports"]).await
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[test]
    fn endpoints_name_whoever_lives() {
        let living = ["10.0.0.1".to_owned(), "10.0.0.2".to_owned()];
        let port = |number: u16| json!([{"name": "https", "port": number, "protocol": "TCP"}]);
        let of = |ips: &[&str], number: u16| {
            let addresses: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
            json!([{"addresses": addresses, "ports": port(number)}])
        };
        let both = ["10.0.0.1", "10.0.0.2"];
        for (old, ports, expected) in [
            (json!([]), Ports::Theirs, Some(of(&both, 6443))),
            (of(&both, 6443), Ports::Own, None),
            (of(&["10.0.0.2", "10.0.0.1"], 6443), Ports::Own, None),
            (of(&["10.0.0.1"], 7443), Ports::Theirs, Some(of(&both, 7443))),
            (of(&["10.0.0.1", "10.0.0.9"], 6443), Ports::Theirs, Some(of(&both, 6443))),
            (of(&["10.0.0.1", "10.0.0.1"], 6443), Ports::Theirs, Some(of(&both, 6443))),
            (of(&both, 7443), Ports::Theirs, None),
            (of(&both, 7443), Ports::Own, Some(of(&both, 6443))),
            (json!([of(&both, 6443)[0], of(&["10.0.0.3"], 1)[0]]), Ports::Theirs, Some(of(&both, 6443))),
            (
                json!([{"notReadyAddresses": [{"ip": "10.0.0.1"}], "ports": port(6443)}]),
                Ports::Theirs,
                Some(of(&both, 6443)),
            ),
        ] {
            let got = subsets(old.as_array().unwrap(), &living, 6443, ports);
            assert_eq!(got, expected, "{old} {ports:?}");
        }
    }

    /// Upstream reads and renews these too.
    #[tokio::test]
    async fn leases_lie_in_the_store_as_upstreams() {
        let (server, _folder) = crate::testing::server(CancellationToken::new()).await;
        for renewals in [1, 2] {
            renew(&server).await.unwrap();
            let (kv, _) = server.registry.storage.get("/registry/masterleases/10.0.0.1").await.unwrap();
            let kv = kv.expect("a lease");
            assert_ne!(kv.lease, 0);
            // names, a namespace and the like are always there; field 7 is the generation
            let metadata = [0x0a, 0, 0x12, 0, 0x1a, 0, 0x22, 0, 0x2a, 0, 0x32, 0, 0x38, renewals, 0x42, 0];
            let address = [b"\x0a\x08".as_slice(), b"10.0.0.1\x1a\x00"].concat();
            let subset = [&[0x0a, address.len() as u8], address.as_slice()].concat();
            let raw = [
                &[0x0a, metadata.len() as u8],
                metadata.as_slice(),
                &[0x12, subset.len() as u8],
                subset.as_slice(),
            ]
            .concat();
            let expected = [
                b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Endpoints\x12".as_slice(),
                &[raw.len() as u8],
                raw.as_slice(),
                b"\x1a\x00\x22\x00",
            ]
            .concat();
            assert_eq!(kv.value, expected);
        }
    }

    #[tokio::test]
    async fn a_lease_that_nobody_renews_ends() {
        let (server, _folder) = crate::testing::server(CancellationToken::new()).await;
        let ctx = Context::internal();
        let namespace = json!({"metadata": {"name": NAMESPACE}});
        ensure(&server, &ctx, "", "v1", "namespaces", namespace).await.unwrap();
        let kind = kind(&server, "", "v1", "endpoints").unwrap();
        let bytes = kind.encode_stored(&lease("10.0.0.9", 3)).into();
        let key = format!("{LEASES}10.0.0.9");
        let ttl = Some(Duration::from_secs(1));
        server.registry.storage.put_if(&key, Expect::Absent, bytes, ttl).await.unwrap();
        let named = async || {
            reconcile(&server, &ctx, Ports::Theirs).await.unwrap();
            let of = |group: &str, plural: &str| {
                let kind = super::kind(&server, group, "v1", plural).unwrap();
                server.registry.peek(kind, NAMESPACE, NAME).unwrap()
            };
            let endpoints = of("", "endpoints").get_array(&["subsets"])[0]["addresses"].clone();
            let slice = of("discovery.k8s.io", "endpointslices").get_array(&["endpoints"]).to_vec();
            let ips = |list: &[Value], pointer: &str| -> Vec<String> {
                list.iter().map(|item| item.pointer(pointer).unwrap().as_str().unwrap().to_owned()).collect()
            };
            let ips = [ips(endpoints.as_array().unwrap(), "/ip"), ips(&slice, "/addresses/0")];
            assert_eq!(ips[0], ips[1]);
            ips[0].clone()
        };
        assert_eq!(named().await, ["10.0.0.1", "10.0.0.9"]);
        let end = tokio::time::Instant::now() + Duration::from_secs(10);
        while named().await != ["10.0.0.1"] {
            assert!(tokio::time::Instant::now() < end, "the lease should have run out");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
