//! Components as processes of their own, over HTTPS with kubeconfigs.

use std::path::Path;

use anyhow::Context;
use client::leader::Election;
use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kubelet::certificates::Identity;
use tokio_util::sync::CancellationToken;

use crate::all_in_one::Running;
use crate::cli::{
    ApiserverArgs, ClientArgs, ControllerManagerArgs, DnsArgs, KubeletArgs, ProxyArgs, SchedulerArgs,
};
use crate::dns::{self, Dns};
use crate::identities::{ByToken, named};
use crate::identity;
use crate::node::{self, Node};
use crate::resolve;
use crate::resolve::Cluster;
use crate::signals;
use crate::terminal::Terminal;

pub async fn apiserver(args: ApiserverArgs) -> anyhow::Result<()> {
    let terminal = Terminal::default();
    let signal = signals::stop_token()?;
    let cluster = Cluster::resolve(&args.cluster)?;
    let running = Running::start(&args.cluster, &cluster).await?;
    terminal.api_ready(&cluster.server_url, &args.cluster.data_dir.join("admin.kubeconfig"));
    let outcome = tokio::select! {
        () = signal.cancelled() => {
            terminal.stopping();
            Ok(())
        }
        () = running.broken().cancelled() => Err(anyhow::anyhow!("the store broke off; the log says why")),
    };
    running.finish().await?;
    outcome
}

/// Waits for this component's turn, then runs it until it is over or asked to stop.
async fn in_turn<F>(args: &ClientArgs, lease: &str, client: Client, run: F) -> anyhow::Result<()>
where
    F: AsyncFnOnce(CancellationToken) -> anyhow::Result<()>,
{
    let signal = signals::stop_token()?;
    if !args.leader_elect {
        return run(signal).await;
    }
    let host = nix::unistd::gethostname().unwrap_or_default();
    let identity = format!("{}_{}", host.to_string_lossy(), std::process::id());
    let mut election = Election::new(client, "kube-system", lease, identity);
    if !election.acquire(&signal).await {
        return Ok(());
    }
    tokio::select! {
        outcome = run(signal.clone()) => outcome,
        () = election.hold(&signal) => match signal.is_cancelled() {
            true => Ok(()),
            false => Err(anyhow::anyhow!("the lease {lease} was lost to another copy; start again to stand by")),
        },
    }
}

/// A client as a kubeconfig says, by the component's name.
async fn component(kubeconfig: &Path, name: &str) -> anyhow::Result<Client> {
    Ok(named(client::kubeconfig::client(kubeconfig).await?, name))
}

pub async fn controller_manager(args: ControllerManagerArgs) -> anyhow::Result<()> {
    let cluster_cidr = controller_manager::ClusterCidr::parse(&args.cluster_cidr, args.node_cidr_mask_size)
        .context("--cluster-cidr")?;
    let path = args.root_ca_file.display();
    let root_ca = std::fs::read_to_string(&args.root_ca_file)
        .with_context(|| format!("--root-ca-file {path} cannot be read"))?;
    let signing = args.signing.resolve()?;
    let key_file = args.service_account_private_key_file.as_deref();
    let key = identity::signing_key("service-account-private-key-file", key_file)?;
    let client = component(&args.client.kubeconfig, "kube-controller-manager").await?;
    let kubeconfig = Kubeconfig::read_from(&args.client.kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.read_timeout = None;
    let lister = client.clone();
    in_turn(&args.client, "kube-controller-manager", client.clone(), async move |cancel| {
        let identities = ByToken::new(&config, &client).await?;
        let token_signer = key.map(identity::token_signer);
        let config = controller_manager::Config {
            cluster_cidr,
            root_ca,
            signing,
            token_signer,
            legacy_token_clean_up_period: args.legacy_tokens.legacy_service_account_token_clean_up_period,
        };
        controller_manager::run(config, lister, &identities, cancel).await;
        Ok(())
    })
    .await
}

pub async fn scheduler(args: SchedulerArgs) -> anyhow::Result<()> {
    let client = component(&args.client.kubeconfig, "kube-scheduler").await?;
    in_turn(&args.client, "kube-scheduler", client.clone(), async move |cancel| {
        scheduler::run(scheduler::Config::default(), client, cancel).await
    })
    .await
}

pub async fn kubelet(args: KubeletArgs) -> anyhow::Result<()> {
    let signal = signals::stop_token()?;
    let read = |path: &std::path::Path, flag: &str| {
        std::fs::read(path).with_context(|| format!("{flag} {} cannot be read", path.display()))
    };
    let node_name = resolve::node_name(args.node_name.as_deref())?;
    let node_ip = resolve::node_ip(args.node_ip)?;
    resolve::data_dir(&args.data_dir)?;
    let mut config = kubelet::Config::new(node_name, node_ip, std::path::absolute(&args.data_dir)?);
    config.cluster_dns = vec![args.cluster_dns];
    config.cluster_domain = args.cluster_domain;
    config.container_runtime_endpoint = args.container_runtime_endpoint;
    config.client_ca = Some(read(&args.client_ca_file, "--client-ca-file")?);
    config.serving = args.certificates.serving();
    config.cert_dir = args.certificates.cert_dir.clone();
    let identity = args.certificates.identity(args.kubeconfig, &config);
    let Some(identity) = signal.run_until_cancelled(Identity::load(identity)).await else { return Ok(()) };
    let identity = identity?;
    let client = named(identity.client(), "kubelet");
    tokio::spawn(identity.rotate(signal.clone()));
    node::run_kubelet(config, client, &args.cluster_cidr, signal).await
}

pub async fn proxy(args: ProxyArgs) -> anyhow::Result<()> {
    if args.cleanup {
        return kube_proxy::cleanup(false).await.context("the packet rules cannot be taken back");
    }
    let signal = signals::stop_token()?;
    let kubeconfig = args.kubeconfig.context("--kubeconfig is needed")?;
    let place =
        Node { name: resolve::node_name(args.node_name.as_deref())?, ip: resolve::node_ip(args.node_ip)? };
    let config = node::proxy_config(&place, &args.cluster_cidr, &args.service_cluster_ip_range)?;
    let client = component(&kubeconfig, "kube-proxy").await?;
    kube_proxy::run(config, client, signal).await
}

pub async fn dns(args: DnsArgs) -> anyhow::Result<()> {
    let signal = signals::stop_token()?;
    let node =
        Node { name: resolve::node_name(args.node_name.as_deref())?, ip: resolve::node_ip(args.node_ip)? };
    let client = component(&args.kubeconfig, "coredns").await?;
    let dns = Dns { node, cluster_dns: args.cluster_dns, cluster_domain: args.cluster_domain, client };
    dns::run(dns, signal).await
}
