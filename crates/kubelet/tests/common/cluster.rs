//! A whole control plane in the test's process, and a kubelet that runs pods for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apiserver::authentication::UserInfo;
use apiserver::pki::{Pki, PkiOptions, Profile};
use apiserver::{InProcess, Server};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Node;

pub struct Cluster {
    pub pki: Pki,
    pub ca: String,
    pub server: Arc<Server>,
    pub admin: Client,
    pub node: Node,
    pub config: kubelet::Config,
    stop: CancellationToken,
    kubelet: Option<(CancellationToken, tokio::task::JoinHandle<anyhow::Result<()>>)>,
}

fn user(name: &str, groups: &[&str]) -> UserInfo {
    let groups = groups.iter().chain(&["system:authenticated"]).map(|g| (*g).to_owned()).collect();
    UserInfo { name: name.to_owned(), groups, ..UserInfo::default() }
}

struct Identities(Arc<Server>);

impl controller_manager::Identities for Identities {
    fn client(&self, controller: &'static str) -> Client {
        let name = format!("system:serviceaccount:kube-system:{controller}");
        InProcess::client(
            self.0.clone(),
            user(&name, &["system:serviceaccounts", "system:serviceaccounts:kube-system"]),
        )
    }
}

impl Cluster {
    /// Starts everything and waits until the node is ready.
    pub async fn start(ip: [u8; 4]) -> Self {
        if std::env::var_os("TEST_LOG").is_some() {
            let filter = tracing_subscriber::EnvFilter::new(std::env::var("TEST_LOG").unwrap_or_default());
            let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
        }
        let node = Node::new();
        let folder = node.folder.path();
        let stop = CancellationToken::new();
        let pki = Pki::load_or_create(PkiOptions {
            dir: folder.join("pki"),
            sans: Vec::new(),
            node_name: "n1".into(),
            cluster_domain: "cluster.local".into(),
            service_ip: [10, 96, 0, 1].into(),
        })
        .expect("a PKI");
        let storage = storage::sqlite::Sqlite::open(folder.join("state.db")).expect("a store");
        let config =
            apiserver::Config::new(SocketAddr::from((ip, 6443)), "10.96.0.0/16".parse().expect("a range"));
        let server = Server::start(config, Arc::new(storage), &pki, stop.clone()).await.expect("a server");
        apiserver::bootstrap::run(server.clone(), pki.trust().clone()).await.expect("a bootstrapped server");
        let admin = InProcess::client(server.clone(), user("admin", &["system:masters"]));
        let controllers = controller_manager::Config {
            cluster_cidr: controller_manager::ClusterCidr::parse("10.244.0.0/16", 24).expect("a range"),
            root_ca: pki.ca_pem().to_owned(),
            signing: None,
            token_signer: None,
            legacy_token_clean_up_period: controller_manager::CLEAN_UP_PERIOD,
        };
        let manager = InProcess::client(server.clone(), user("system:kube-controller-manager", &[]));
        let (identities, cancel) = (Identities(server.clone()), stop.clone());
        tokio::spawn(async move { controller_manager::run(controllers, manager, &identities, cancel).await });
        let mut config = node.config(ip);
        config.cluster_dns = vec![[10, 96, 0, 10].into()];
        config.client_ca = Some(pki.ca_pem().as_bytes().to_vec());
        let names = vec!["n1".to_owned(), config.node_ip.to_string()];
        let serving = pki.issue(&Profile::server("system:node:n1", names)).expect("a certificate");
        config.serving = kubelet::config::Serving::Given(kubelet::config::ServingCertificate {
            certificate: serving.certificate_pem.into_bytes(),
            key: serving.key_pem.into_bytes(),
        });
        let network = cluster_network::Config {
            cluster_cidr: "10.244.0.0/16".parse().expect("a range"),
            node_name: "n1".into(),
            cni_folder: config.paths().cni_config(),
            state: config.paths().cni_state(),
            mtu: 0,
        };
        let node_client = InProcess::client(server.clone(), user("system:node:n1", &["system:nodes"]));
        tokio::spawn(cluster_network::run(network, node_client, stop.clone()));
        let ca = pki.ca_pem().to_owned();
        let mut cluster = Self { pki, ca, server, admin, node, config, stop, kubelet: None };
        super::demo_image(&cluster.config.paths().images());
        let started = Instant::now();
        cluster.start_kubelet();
        cluster.wait_until_node_is_ready().await;
        eprintln!("the node is ready after {:?}", started.elapsed());
        cluster
    }

    pub fn start_kubelet(&mut self) {
        let client = InProcess::client(self.server.clone(), user("system:node:n1", &["system:nodes"]));
        let cancel = CancellationToken::new();
        let task = tokio::spawn(kubelet::run(self.config.clone(), client, cancel.clone()));
        self.kubelet = Some((cancel, task));
    }

    pub async fn stop_kubelet(&mut self) {
        let Some((cancel, task)) = self.kubelet.take() else { return };
        cancel.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(20), task).await.expect("it ends in time");
        ended.expect("no panic").expect("no error");
    }

    async fn wait_until_node_is_ready(&self) {
        let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(self.admin.clone());
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Ok(node) = nodes.get("n1").await
                && component_helpers::conditions::is_node_ready(&node)
            {
                return;
            }
            if let Some((_, task)) = &self.kubelet {
                assert!(!task.is_finished(), "the kubelet ended");
            }
            assert!(Instant::now() < deadline, "the node does not get ready: {:?}", nodes.get("n1").await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.admin.clone(), "default")
    }

    /// Makes a pod on the node, without a scheduler.
    pub async fn create(&self, name: &str, spec: Value) {
        self.create_labelled(name, json!({}), spec).await;
    }

    pub async fn create_labelled(&self, name: &str, labels: Value, mut spec: Value) {
        spec["nodeName"] = "n1".into();
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "spec": spec}))
                .expect("a pod");
        // the service account controller may be a moment behind
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Err(error) = self.pods().create(&PostParams::default(), &pod).await {
            assert!(Instant::now() < deadline, "{name}: {error}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until a pod is as wanted, and returns it.
    pub async fn wait(&self, name: &str, what: &str, seconds: u64, is: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let mut last = Value::Null;
        loop {
            if let Ok(Some(pod)) = self.pods().get_opt(name).await {
                last = serde_json::to_value(pod).expect("JSON");
                if is(&last) {
                    return last;
                }
            }
            if Instant::now() > deadline {
                let events = self.events(name).await.join("\n");
                panic!("{name} is not {what}:\n{:#}\n{events}", last["status"]);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn wait_for_phase(&self, name: &str, phase: &str) -> Value {
        self.wait(name, phase, 30, |pod| pod["status"]["phase"] == phase).await
    }

    pub async fn wait_until_ready(&self, name: &str) -> Value {
        self.wait(name, "ready", 30, |pod| condition(pod, "Ready") == "True").await
    }

    pub async fn wait_until_gone(&self, name: &str, seconds: u64) {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        while let Ok(Some(pod)) = self.pods().get_opt(name).await {
            let status = serde_json::to_value(&pod.status).expect("JSON");
            assert!(Instant::now() < deadline, "{name} does not go: {status:#}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn delete(&self, name: &str, grace: Option<u32>) {
        let parameters = DeleteParams { grace_period_seconds: grace, ..DeleteParams::default() };
        self.pods().delete(name, &parameters).await.expect("deleted");
    }

    /// `Type Reason: message` of all events about a pod.
    pub async fn events(&self, name: &str) -> Vec<String> {
        let api: Api<k8s_openapi::api::core::v1::Event> = Api::namespaced(self.admin.clone(), "default");
        let all = api.list(&Default::default()).await.expect("events");
        let mut own: Vec<_> =
            all.items.into_iter().filter(|e| e.involved_object.name.as_deref() == Some(name)).collect();
        own.sort_by_key(|e| e.metadata.name.clone());
        own.into_iter()
            .map(|e| {
                let text = |t: Option<String>| t.unwrap_or_default();
                format!("{} {}: {}", text(e.type_), text(e.reason), text(e.message))
            })
            .collect()
    }

    /// Waits until an event about a pod holds the text.
    pub async fn wait_for_event(&self, name: &str, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.events(name).await.join("\n").contains(text) {
            assert!(Instant::now() < deadline, "no {text:?} in\n{}", self.events(name).await.join("\n"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn runtime(&self) -> kubelet::runtime::cri::Cri {
        let socket = self.config.paths().containerd().join("containerd.sock");
        kubelet::runtime::cri::Cri::new(kubelet::runtime::cri::connect(&socket))
    }

    /// Runs a command in a container (`containerd://…`); returns its exit code.
    pub async fn exec(&self, id: &str, command: &[&str]) -> i32 {
        use kubelet::runtime::Runtime;
        let id = id.trim_start_matches("containerd://");
        let command = command.iter().map(|part| (*part).to_owned()).collect();
        let result = self.runtime().exec_sync(id, command, Duration::from_secs(5)).await;
        result.expect("an answer").exit_code
    }

    /// Names of pods that have a sandbox that lives.
    pub async fn running_pods(&self) -> Vec<String> {
        use kubelet::runtime::Runtime;
        let listed = self.runtime().list().await.unwrap_or_default();
        let sandboxes = listed.into_iter().filter(|item| item.container_name.is_empty() && item.running);
        sandboxes.map(|item| item.pod_name).collect()
    }

    pub fn kill_containerd(&self) {
        let pid =
            std::fs::read_to_string(self.config.paths().containerd().join("containerd.pid")).expect("a pid");
        let pid = nix::unistd::Pid::from_raw(pid.trim().parse().expect("a number"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("killed");
    }

    /// What a container has written once `last` is one of its lines: a container without a readiness probe is
    /// ready before its program has got anywhere.
    pub async fn log_up_to(&self, last: &str, pod: &Value, container: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let log = self.log(pod, container);
            if log.lines().any(|line| line == last) {
                return log;
            }
            assert!(Instant::now() < deadline, "no {last:?} in\n{log}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What a container has written so far.
    pub fn log(&self, pod: &Value, container: &str) -> String {
        let text = |path: &str| pod["metadata"][path].as_str().unwrap_or_default().to_owned();
        let folder = self.config.paths().pod_logs(&text("namespace"), &text("name"), &text("uid"));
        let path = folder.join(container).join("0.log");
        let raw = std::fs::read_to_string(path).unwrap_or_default();
        let lines = raw.lines().filter_map(|line| line.splitn(4, ' ').nth(3));
        lines.map(|line| format!("{line}\n")).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some((cancel, _)) = &self.kubelet {
            cancel.cancel();
        }
        self.stop.cancel();
    }
}

pub fn condition(pod: &Value, kind: &str) -> String {
    let all = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|c| c["type"] == kind);
    found.and_then(|c| c["status"].as_str()).unwrap_or_default().to_owned()
}

/// One container of the demo image.
pub fn container(name: &str, script: &str) -> Value {
    json!({"name": name, "image": super::DEMO, "command": ["sh", "-c", script]})
}
