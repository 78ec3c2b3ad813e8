//! Puts the parts together and runs them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use client::events::Recorder;
use client::informer::{Informers, Selector};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, Service};
use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::certificates::serving;
use crate::cgroups::{Cgroups, Limits};
use crate::config::Config;
use crate::containerd::Containerd;
use crate::containerd::events::{Events, TaskEvent};
use crate::housekeeping::{Housekeeping, RELIST_WITH_EVENTS, RELIST_WITHOUT_EVENTS};
use crate::images::archives::{self, Archives};
use crate::images::collect::Collector;
use crate::images::puller::Puller;
use crate::node::{Heartbeat, Machine, NodeFacts};
use crate::objects::Objects;
use crate::pod::dns::HostDns;
use crate::pods::{Pods, Wakes};
use crate::progress::Step;
use crate::runtime::Runtime;
use crate::runtime::cri::{self, Cri};
use crate::server::{Listener, Server};
use crate::shared::{ContainerIndex, Shared};
use crate::status_manager::StatusManager;
use crate::tokens::Tokens;

const EVENTS_RETRY: Duration = Duration::from_millis(200);

/// The runtime's socket, and the containerd behind it when it is ours.
struct RuntimeHost {
    channel: Channel,
    own: Option<Arc<Containerd>>,
}

async fn runtime_host(config: &Config) -> anyhow::Result<RuntimeHost> {
    if let Some(endpoint) = &config.container_runtime_endpoint {
        let socket = PathBuf::from(endpoint.trim_start_matches("unix://"));
        anyhow::ensure!(socket.exists(), "there is no container runtime at {}", socket.display());
        return Ok(RuntimeHost { channel: cri::connect(&socket), own: None });
    }
    let containerd = Arc::new(Containerd::prepare(config).await?);
    config.progress.tell(Step::StartingRuntime);
    containerd.ensure_running().await?;
    config.progress.tell(Step::RuntimeReady);
    Ok(RuntimeHost { channel: containerd.channel(), own: Some(containerd) })
}

/// Runs a kubelet until `cancel`. Containers go on when it returns, and so does a containerd of its own.
pub async fn run(config: Config, client: Client, cancel: CancellationToken) -> anyhow::Result<()> {
    let paths = config.paths();
    for folder in [paths.pods(), paths.images(), paths.pod_logs_root()] {
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let cgroups = Cgroups::detect(&config.cgroup_root).context("cannot use cgroups")?;
    let machine = Machine::look(&paths.kubelet());
    let listener = Listener::bind(&config).await?;
    let Some(host) = cancel.run_until_cancelled(runtime_host(&config)).await else { return Ok(()) };
    let host = host?;
    let runtime: Arc<dyn Runtime> = Arc::new(Cri::new(host.channel.clone()));
    let version = runtime.version().await.context("the container runtime does not answer")?;
    tracing::info!(runtime = version.name, version = version.version, "the container runtime answers");
    let is_containerd = version.name == "containerd";
    if host.own.is_some() {
        archives::import_pause(host.channel.clone()).await.context("cannot import the pause image")?;
    }
    prepare_cgroups(&cgroups, &config, &machine)?;

    let recorder = Recorder::new(client.clone(), "kubelet", &config.node_name);
    let informers = Informers::new(client.clone(), cancel.clone());
    let own_pods = informers.select::<Pod>(Selector::fields(format!("spec.nodeName={}", config.node_name)));
    let own_node = informers.select::<Node>(Selector::fields(format!("metadata.name={}", config.node_name)));
    let wakes = Wakes::default();
    let changed = wakes.clone();
    let on_change = Arc::new(move |uids: &[String]| changed.objects_changed(uids));
    let (network, network_state) = watch::channel(Some("NetworkReady=unknown".to_owned()));
    let (imported, archives_imported) = watch::channel(!is_containerd);
    let statuses = StatusManager::new(client.clone());
    let shared = Arc::new(Shared {
        client: client.clone(),
        paths: paths.clone(),
        runtime: runtime.clone(),
        runtime_name: version.name.clone(),
        puller: Puller::new(runtime.clone(), archives_imported),
        config_maps: Objects::<ConfigMap>::new(client.clone(), "configmap", on_change.clone()),
        secrets: Objects::<Secret>::new(client.clone(), "secret", on_change),
        tokens: Tokens::new(client.clone()),
        services: informers.all::<Service>(),
        cgroups,
        recorder: recorder.clone(),
        statuses: statuses.clone(),
        host_dns: HostDns::read(),
        memory_capacity: machine.memory,
        allocatable: machine.allocatable(config.max_pods),
        network: network_state,
        index: ContainerIndex::default(),
        config: config.clone(),
    });
    let pods = Pods::new(shared.clone(), own_pods.clone(), own_node, wakes.clone());
    let facts = NodeFacts { config: config.clone(), machine, port: listener.port };
    let server = Server::new(shared.clone(), pods.clone(), client.clone());
    let fresh = serving::keep_fresh(config.clone(), listener.shown.clone(), client.clone(), cancel.clone());
    let heartbeat = Heartbeat::new(facts, client, runtime, recorder, network);

    let mut tasks = tokio::task::JoinSet::new();
    let writers = statuses.start(&cancel);
    tasks.spawn(heartbeat.run(cancel.clone()));
    tasks.spawn(server.run(listener, cancel.clone()));
    tasks.spawn(fresh);
    if is_containerd {
        let archives = Archives::new(paths.images(), host.channel.clone(), config.progress.clone());
        tasks.spawn(archives.run(imported, cancel.clone()));
        tasks.spawn(follow_events(host.channel, shared.clone(), wakes, cancel.clone()));
    }
    let collector = Collector::new(shared.runtime.clone(), paths.as_path().to_owned());
    tasks.spawn(collector.run(cancel.clone()));
    if let Some(containerd) = host.own {
        let cancel = cancel.clone();
        tasks.spawn(async move { containerd.supervise(cancel).await });
    }
    let housekeeping = Housekeeping { shared, pods: pods.clone() };
    let period = if is_containerd { RELIST_WITH_EVENTS } else { RELIST_WITHOUT_EVENTS };
    let ended = cancel.clone();
    let keep_house = async move {
        own_pods.wait_for_sync().await;
        // let the tasks of known pods come first, or their containers would look like orphans
        tokio::time::sleep(Duration::from_secs(1)).await;
        housekeeping.run(period).await;
    };
    tasks.spawn(async move { ended.run_until_cancelled(keep_house).await.unwrap_or_default() });
    tasks.spawn(pods.run(cancel.clone()));

    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            cancel.cancel();
            tasks.join_all().await;
            return Err(error).context("a part of the kubelet failed");
        }
    }
    for writer in writers {
        // what is being written is written
        let _ = tokio::time::timeout(Duration::from_secs(5), writer).await;
    }
    Ok(())
}

/// The cgroups above those of pods: all pods together may use what is allocatable.
fn prepare_cgroups(cgroups: &Cgroups, config: &Config, machine: &Machine) -> anyhow::Result<()> {
    use component_helpers::qos::QosClass;
    let allocatable = machine.allocatable(config.max_pods);
    let all = Limits {
        shares: Some(crate::cgroups::shares(allocatable.milli_cpu())),
        memory: Some(allocatable.memory()),
        ..Limits::default()
    };
    cgroups.ensure(&cgroups.kubepods(), &all)?;
    cgroups.ensure(&cgroups.qos(QosClass::Burstable), &Limits::default())?;
    let least = Limits { shares: Some(crate::cgroups::shares(0)), ..Limits::default() };
    cgroups.ensure(&cgroups.qos(QosClass::BestEffort), &least)?;
    Ok(())
}

/// Tells pods of the ends of their processes as containerd tells us.
async fn follow_events(channel: Channel, shared: Arc<Shared>, wakes: Wakes, cancel: CancellationToken) {
    let follow = async {
        loop {
            let mut events = Events::subscribe(channel.clone());
            // what happened while nobody listened
            wakes.wake_all();
            loop {
                match events.next().await {
                    Ok(TaskEvent::Exited { id }) => {
                        if let Some(wake) = shared.index.pod_of(&id).and_then(|uid| wakes.get(&uid)) {
                            wake.exited(&id);
                        }
                    }
                    Ok(TaskEvent::OutOfMemory { id }) => {
                        tracing::debug!(container = id, "a container ran out of memory")
                    }
                    Err(status) => {
                        tracing::debug!(message = status.message(), "containerd's event stream ended");
                        break;
                    }
                }
            }
            tokio::time::sleep(EVENTS_RETRY).await;
        }
    };
    cancel.run_until_cancelled(follow).await;
}
