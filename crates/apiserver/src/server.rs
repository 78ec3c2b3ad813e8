//! One API server: everything a request may need, put together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use storage::Storage;
use tokio_util::sync::CancellationToken;

use crate::access::{Access, AccessError};
use crate::admission::{Admission, Options as AdmissionOptions};
use crate::audit::{Audit, AuditError, AuditOptions};
use crate::authentication::keys::OpenIdMetadata;
use crate::bootstrap::kubernetes::Presence;
use crate::cache::Cache;
use crate::encryption::Encryption;
use crate::flowcontrol::FlowControl;
use crate::http::impersonation::Impersonation;
use crate::http::max_in_flight::MaxInFlight;
use crate::kinds::Kinds;
use crate::kubelet_client::KubeletClient;
use crate::metrics::Metrics;
use crate::pki::{Pki, PkiError};
use crate::registry::Registry;
use crate::registry::allocators::{Allocators, PortRange, ServiceRanges};
use crate::{authentication, authorization, discovery, encryption, flowcontrol, openapi};

/// How often the store forgets what nobody can ask for any more, as upstream's compactor does.
const COMPACTION: Duration = Duration::from_secs(300);

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Storage(#[from] storage::Error),
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(
        "invalid configuration: MaxRequestsInFlight={0} and MaxMutatingRequestsInFlight={1}; they must add up to something positive"
    )]
    NothingInFlight(usize, usize),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error("--encryption-provider-config: {0}")]
    Encryption(String),
}

/// What a server is started with.
pub struct Config {
    /// The address that clients and `default/kubernetes` name.
    pub advertise: SocketAddr,
    /// The addresses of Services: one range, or one of each family.
    pub service_cidr: ServiceRanges,
    pub node_ports: PortRange,
    pub cluster_domain: String,
    pub requests: RequestOptions,
    /// The admission plugins that run, and how.
    pub admission: AdmissionOptions,
    /// How clients may authenticate.
    pub authentication: authentication::Options,
    /// Who decides what they may do.
    pub authorization: authorization::config::Options,
    /// What is encrypted in the store.
    pub encryption: Option<encryption::Options>,
}

impl Config {
    /// What upstream has by default, for a server that is reached at `advertise`.
    pub fn new(advertise: SocketAddr, service_cidr: ServiceRanges) -> Self {
        Self {
            advertise,
            service_cidr,
            node_ports: PortRange::default(),
            cluster_domain: "cluster.local".into(),
            requests: RequestOptions::default(),
            admission: AdmissionOptions::default(),
            authentication: authentication::Options::default(),
            authorization: authorization::config::Options::default(),
            encryption: None,
        }
    }
}

/// How requests are recorded and held back.
#[derive(Clone, Debug)]
pub struct RequestOptions {
    pub audit: AuditOptions,
    /// Whether requests are let through by priority and fairness, and not by counting reads and writes alone.
    pub priority_and_fairness: bool,
    /// Requests that read, at once; zero is no limit. By priority and fairness, the sum of both counts.
    pub max_in_flight: usize,
    /// Requests that write, at once; zero is no limit.
    pub max_mutating_in_flight: usize,
}

impl Default for RequestOptions {
    fn default() -> Self {
        Self {
            audit: AuditOptions::default(),
            priority_and_fairness: true,
            max_in_flight: 400,
            max_mutating_in_flight: 200,
        }
    }
}

impl RequestOptions {
    fn flow_control(&self) -> Result<Option<Arc<FlowControl>>, StartError> {
        if !self.priority_and_fairness {
            return Ok(None);
        }
        match self.max_in_flight.saturating_add(self.max_mutating_in_flight) {
            0 => Err(StartError::NothingInFlight(self.max_in_flight, self.max_mutating_in_flight)),
            seats => Ok(Some(FlowControl::new(u32::try_from(seats).unwrap_or(u32::MAX)))),
        }
    }
}

pub struct Server {
    pub config: Config,
    pub registry: Arc<Registry>,
    pub access: Access,
    pub kubelets: KubeletClient,
    pub metrics: Arc<Metrics>,
    pub audit: Option<Arc<Audit>>,
    pub impersonation: Impersonation,
    pub max_in_flight: MaxInFlight,
    pub flow_control: Option<Arc<FlowControl>>,
    pub openapi: openapi::Documents,
    /// Users whose components run in this process, and end with it.
    pub inside: parking_lot::Mutex<Vec<String>>,
    pub presence: Presence,
    pub bootstrapped: AtomicBool,
    pub store_failed: AtomicBool,
    pub stopping: CancellationToken,
}

impl Server {
    /// Loads the store and starts to follow it. The server answers at once, and is ready after
    /// [`crate::bootstrap::run`].
    pub async fn start(
        config: Config,
        storage: Arc<dyn Storage>,
        pki: &Pki,
        stopping: CancellationToken,
    ) -> Result<Arc<Self>, StartError> {
        let audit = Audit::open(&config.requests.audit)?;
        let limits = &config.requests;
        let max_in_flight = MaxInFlight::new(limits.max_in_flight, limits.max_mutating_in_flight);
        let flow_control = limits.flow_control()?;
        let encryption = match &config.encryption {
            Some(options) => Encryption::start(options, &stopping).map_err(StartError::Encryption)?,
            None => Encryption::none(),
        };
        let kinds = Kinds::encrypted(&encryption);
        let cache = Cache::load(storage.clone(), &kinds).await?;
        let registry = Arc::new(Registry {
            storage: storage.clone(),
            cache: cache.clone(),
            kinds,
            admission: Admission::new(config.admission.clone()),
            allocators: Allocators { addresses: config.service_cidr, ports: config.node_ports },
        });
        let access = Access::new(&registry, pki, &config, &stopping)?;
        registry.admission.set_authorizer(access.authorizer.clone());
        let metrics = Metrics::new(&access.authenticator.metrics, &registry.admission.metrics);
        let server = Arc::new(Self {
            kubelets: KubeletClient::new(pki)?,
            config,
            registry,
            access,
            metrics: Arc::new(metrics),
            audit,
            impersonation: Impersonation::default(),
            max_in_flight,
            flow_control: flow_control.clone(),
            openapi: openapi::Documents::default(),
            inside: Default::default(),
            presence: Presence::default(),
            bootstrapped: AtomicBool::new(false),
            store_failed: AtomicBool::new(false),
            stopping: stopping.clone(),
        });
        let following = server.clone();
        tokio::spawn(async move {
            let end = following.registry.cache.clone().follow(following.stopping.clone()).await;
            if let Err(error) = end {
                following.store_failed.store(true, Ordering::Relaxed);
                tracing::error!(%error, "the store's log broke off; the server can no longer answer truthfully and stops");
                following.stopping.cancel();
            }
            for cache in following.registry.cache.resources() {
                cache.end_watches();
            }
        });
        if let Some(control) = flow_control {
            flowcontrol::controller::follow(&control, &server.registry.cache);
            tokio::spawn(flowcontrol::controller::run(server.clone(), control));
        }
        tokio::spawn(compact(storage, stopping));
        Ok(server)
    }

    /// Host and port as discovery names them.
    pub fn address(&self) -> String {
        self.config.advertise.to_string()
    }

    /// The paths that `/` lists.
    pub fn paths(&self) -> Vec<String> {
        let mut out: Vec<String> = ["/api", "/api/v1", "/apis", "/apis/"].map(str::to_owned).into();
        let publishes_keys = self.access.open_id.is_some();
        if publishes_keys {
            out.insert(0, OpenIdMetadata::CONFIGURATION_PATH.to_owned());
        }
        for gv in discovery::group_versions(self) {
            let group = format!("/apis/{}", gv.group);
            if !out.contains(&group) {
                out.push(group);
            }
            out.push(format!("/apis/{gv}"));
        }
        for path in [
            "/healthz",
            "/livez",
            "/metrics",
            "/openapi/v2",
            "/openapi/v3",
            OpenIdMetadata::JWKS_PATH,
            "/readyz",
            "/version",
        ] {
            if path != OpenIdMetadata::JWKS_PATH || publishes_keys {
                out.push(path.to_owned());
            }
        }
        out
    }
}

/// Forgets revisions older than one interval, so that watches and pages have at least that long.
async fn compact(storage: Arc<dyn Storage>, stopping: CancellationToken) {
    let mut before = None;
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(COMPACTION) => {}
        }
        let now = match storage.current_revision().await {
            Ok(revision) => revision,
            Err(error) => {
                tracing::warn!(%error, "the store did not say where it is; compaction waits");
                continue;
            }
        };
        if let Some(revision) = before.replace(now)
            && let Err(error) = storage.compact(revision).await
        {
            tracing::warn!(%error, "the store could not be compacted");
        }
    }
}
