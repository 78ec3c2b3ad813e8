//! The cluster's DNS on this node: its account, role and Service, then the server.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::node::Node;

/// Where the server listens on its node; the Service's port 53 leads here.
const PORT: u16 = 10053;
const RETRY: Duration = Duration::from_millis(200);

/// The account that the server reads with, in `kube-system`, as kubeadm has it.
pub const ACCOUNT: &str = "coredns";

pub struct Dns {
    pub node: Node,
    pub cluster_dns: IpAddr,
    pub cluster_domain: String,
    /// Makes what the server needs.
    pub admin: Client,
    /// Reads Services and endpoints.
    pub reader: Client,
}

pub async fn run(dns: Dns, cancel: CancellationToken) -> anyhow::Result<()> {
    let bind = SocketAddr::new(dns.node.ip, PORT);
    let config = cluster_dns::Config {
        bind,
        cluster_domain: dns.cluster_domain.clone(),
        cluster_dns: Some(dns.cluster_dns),
        resolv_conf: "/etc/resolv.conf".into(),
    };
    permit(&dns.admin).await.context("making the account of the cluster's DNS")?;
    let serving = cluster_dns::run(config, dns.reader.clone(), cancel.clone());
    tokio::select! {
        outcome = serving => outcome,
        () = publish(&dns) => Ok(()),
        () = cancel.cancelled() => Ok(()),
    }
}

/// Makes the Service and this node's part of it, once the node is there to belong to. Does not end.
fn publish(dns: &Dns) -> BoxFuture<'_, ()> {
    Box::pin(async {
        loop {
            let admin = dns.admin.clone();
            let made =
                cluster_dns::ensure_service(admin, dns.cluster_dns, &dns.node.name, dns.node.ip, PORT).await;
            match made {
                Ok(()) => std::future::pending::<()>().await,
                Err(error) => tracing::debug!(%error, "the Service of the cluster's DNS is not there yet"),
            }
            tokio::time::sleep(RETRY).await;
        }
    })
}

fn permit(admin: &Client) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(make_permissions(admin))
}

async fn make_permissions(admin: &Client) -> anyhow::Result<()> {
    const NAME: &str = "system:coredns";
    const GROUP: &str = "rbac.authorization.k8s.io";
    let params = PatchParams::apply("xebec").force();
    let role = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole", "metadata": {"name": NAME},
        "rules": [
            {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ],
    });
    Api::<ClusterRole>::all(admin.clone()).patch(NAME, &params, &Patch::Apply(role)).await?;
    let binding = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": NAME},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": NAME},
        "subjects": [{"kind": "ServiceAccount", "namespace": "kube-system", "name": ACCOUNT}],
    });
    Api::<ClusterRoleBinding>::all(admin.clone()).patch(NAME, &params, &Patch::Apply(binding)).await?;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}});
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), "kube-system");
    accounts.patch(ACCOUNT, &params, &Patch::Apply(account)).await?;
    Ok(())
}
