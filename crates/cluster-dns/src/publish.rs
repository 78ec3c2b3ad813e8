//! The Service kube-system/kube-dns, through which pods reach the servers on nodes. It selects no pods: each node
//! that serves DNS writes an EndpointSlice of its own.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Node, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};

use crate::upstream::PORT;
use crate::zone::{DNS_NAMESPACE, DNS_SERVICE};

/// Who writes these slices; the EndpointSlice controller leaves them alone.
const MANAGED_BY: &str = "cluster-dns.xebec";
/// Where nodes serve what their servers count, and the Service's port for it.
pub const METRICS_PORT: u16 = 9153;
const TRIES: u32 = 5;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the node {name} cannot be read: {source}")]
    Node { name: String, source: kube::Error },
    #[error("the Service {DNS_NAMESPACE}/{DNS_SERVICE} cannot be written: {0}")]
    Service(kube::Error),
    #[error("the EndpointSlice {name} cannot be written: {source}")]
    Slice { name: String, source: kube::Error },
}

/// Makes the Service with this address, and says that this node serves it on `node_ip:port`, and its metrics on
/// [`METRICS_PORT`]. Safe to call again.
/// The slice goes with its node.
pub async fn ensure_service(
    client: Client,
    cluster_dns_ip: IpAddr,
    node_name: &str,
    node_ip: IpAddr,
    port: u16,
) -> Result<(), Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let node =
        nodes.get(node_name).await.map_err(|source| Error::Node { name: node_name.to_owned(), source })?;
    let services = Api::namespaced(client.clone(), DNS_NAMESPACE);
    again_on_conflict(|| ensure(services.clone(), cluster_dns_ip)).await.map_err(Error::Service)?;

    let slice = slice(&node, node_ip, port);
    let name = slice.metadata.name.clone().unwrap_or_default();
    let slices = Api::namespaced(client, DNS_NAMESPACE);
    again_on_conflict(|| ensure_slice(slices.clone(), slice.clone()))
        .await
        .map_err(|source| Error::Slice { name, source })
}

/// Others may write the same object at the same time: several nodes start at once.
async fn again_on_conflict<W>(write: impl Fn() -> W) -> kube::Result<()>
where
    W: Future<Output = kube::Result<()>>,
{
    let mut tries = 1;
    loop {
        match write().await {
            Err(error)
                if tries < TRIES
                    && (client::is_conflict(&error)
                        || client::is_already_exists(&error)
                        || client::is_not_found(&error)) =>
            {
                tokio::time::sleep(std::time::Duration::from_millis(50 << tries)).await;
                tries += 1;
            }
            outcome => return outcome,
        }
    }
}

async fn ensure(services: Api<Service>, ip: IpAddr) -> kube::Result<()> {
    let wanted = service(ip);
    let Some(found) = services.get_opt(DNS_SERVICE).await? else {
        return services.create(&PostParams::default(), &wanted).await.map(drop);
    };
    let found_ip = found.spec.as_ref().and_then(|spec| spec.cluster_ip.clone());
    if found_ip != wanted.spec.as_ref().and_then(|spec| spec.cluster_ip.clone()) {
        // the address of a Service cannot be changed; this one is asked for by name or by the new address
        tracing::info!(from = found_ip, to = %ip, "the cluster DNS gets another address");
        services.delete(DNS_SERVICE, &DeleteParams::default()).await?;
        return services.create(&PostParams::default(), &wanted).await.map(drop);
    }
    let mut updated = found.clone();
    merge(&mut updated.metadata.labels, wanted.metadata.labels);
    let spec = updated.spec.get_or_insert_default();
    // a selector would make others write endpoints beside ours
    spec.selector = None;
    spec.ports = wanted.spec.and_then(|spec| spec.ports);
    if updated == found {
        return Ok(());
    }
    services.replace(DNS_SERVICE, &PostParams::default(), &updated).await.map(drop)
}

fn merge(into: &mut Option<BTreeMap<String, String>>, more: Option<BTreeMap<String, String>>) {
    into.get_or_insert_default().extend(more.unwrap_or_default());
}

async fn ensure_slice(slices: Api<EndpointSlice>, wanted: EndpointSlice) -> kube::Result<()> {
    let name = wanted.metadata.name.as_deref().unwrap_or_default();
    let Some(found) = slices.get_opt(name).await? else {
        return slices.create(&PostParams::default(), &wanted).await.map(drop);
    };
    if found.address_type != wanted.address_type {
        slices.delete(name, &DeleteParams::default()).await?;
        return slices.create(&PostParams::default(), &wanted).await.map(drop);
    }
    let mut updated = found.clone();
    merge(&mut updated.metadata.labels, wanted.metadata.labels.clone());
    updated.metadata.owner_references.clone_from(&wanted.metadata.owner_references);
    updated.endpoints.clone_from(&wanted.endpoints);
    updated.ports.clone_from(&wanted.ports);
    if updated == found {
        return Ok(());
    }
    slices.replace(name, &PostParams::default(), &updated).await.map(drop)
}

fn map(pairs: &[(&str, &str)]) -> Option<BTreeMap<String, String>> {
    Some(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
}

fn service(ip: IpAddr) -> Service {
    let port = |name: &str, protocol: &str, port: u16| ServicePort {
        name: Some(name.into()),
        protocol: Some(protocol.into()),
        port: port.into(),
        target_port: Some(IntOrString::Int(port.into())),
        ..ServicePort::default()
    };
    Service {
        metadata: ObjectMeta {
            name: Some(DNS_SERVICE.into()),
            namespace: Some(DNS_NAMESPACE.into()),
            labels: map(&[
                ("k8s-app", "kube-dns"),
                ("kubernetes.io/cluster-service", "true"),
                ("kubernetes.io/name", "CoreDNS"),
            ]),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            cluster_ip: Some(ip.to_string()),
            cluster_ips: Some(vec![ip.to_string()]),
            ports: Some(vec![
                port("dns", "UDP", PORT),
                port("dns-tcp", "TCP", PORT),
                port("metrics", "TCP", METRICS_PORT),
            ]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn slice(node: &Node, ip: IpAddr, port: u16) -> EndpointSlice {
    let node_name = node.metadata.name.clone().unwrap_or_default();
    let slice_port = |name: &str, protocol: &str, port: u16| EndpointPort {
        name: Some(name.into()),
        protocol: Some(protocol.into()),
        port: Some(port.into()),
        app_protocol: None,
    };
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(format!("{DNS_SERVICE}-{node_name}")),
            namespace: Some(DNS_NAMESPACE.into()),
            labels: map(&[
                ("endpointslice.kubernetes.io/managed-by", MANAGED_BY),
                ("kubernetes.io/service-name", DNS_SERVICE),
                ("k8s-app", "kube-dns"),
            ]),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: node_name.clone(),
                uid: node.metadata.uid.clone().unwrap_or_default(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        address_type: if ip.is_ipv4() { "IPv4" } else { "IPv6" }.into(),
        endpoints: Some(vec![Endpoint {
            addresses: vec![ip.to_string()],
            conditions: Some(EndpointConditions {
                ready: Some(true),
                serving: Some(true),
                terminating: Some(false),
            }),
            node_name: Some(node_name),
            ..Endpoint::default()
        }]),
        ports: Some(vec![
            slice_port("dns", "UDP", port),
            slice_port("dns-tcp", "TCP", port),
            slice_port("metrics", "TCP", METRICS_PORT),
        ]),
    }
}
