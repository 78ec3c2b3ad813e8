//! What all pods of a node have in common.

use std::collections::HashMap;
use std::sync::Arc;

use client::events::{Recorder, reference};
use client::informer::Informer;
use component_helpers::resource::ResourceList;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference, Pod, Secret, Service};
use kube::Client;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::cgroups::Cgroups;
use crate::config::{Config, Paths};
use crate::images::puller::Puller;
use crate::objects::Objects;
use crate::pod::dns::HostDns;
use crate::pod::fields::Surroundings;
use crate::pod::spec;
use crate::runtime::{PodState, Runtime};
use crate::status_manager::StatusManager;
use crate::tokens::Tokens;

/// Which pod a container or sandbox belongs to, by its id in the runtime.
#[derive(Default)]
pub struct ContainerIndex(Mutex<HashMap<String, String>>);

impl ContainerIndex {
    /// Notes all that a pod has in the runtime.
    pub fn set(&self, uid: &str, state: &PodState) {
        let mut index = self.0.lock();
        let sandboxes = state.sandboxes.iter().map(|s| &s.id);
        for id in state.containers.iter().map(|c| &c.id).chain(sandboxes) {
            if !index.contains_key(id) {
                index.insert(id.clone(), uid.to_owned());
            }
        }
    }

    pub fn add(&self, id: &str, uid: &str) {
        self.0.lock().insert(id.to_owned(), uid.to_owned());
    }

    pub fn pod_of(&self, id: &str) -> Option<String> {
        self.0.lock().get(id).cloned()
    }

    pub fn forget(&self, uid: &str) {
        self.0.lock().retain(|_, owner| owner != uid);
    }
}

pub struct Shared {
    pub client: Client,
    pub config: Config,
    pub paths: Paths,
    pub runtime: Arc<dyn Runtime>,
    /// `containerd`, which ids in statuses are prefixed with.
    pub runtime_name: String,
    pub puller: Puller,
    pub config_maps: Objects<ConfigMap>,
    pub secrets: Objects<Secret>,
    pub tokens: Tokens,
    pub services: Arc<Informer<Service>>,
    pub cgroups: Cgroups,
    pub recorder: Recorder,
    pub statuses: StatusManager,
    pub host_dns: HostDns,
    pub memory_capacity: i64,
    pub allocatable: ResourceList,
    /// Why the pod network is not ready; `None` when it is.
    pub network: watch::Receiver<Option<String>>,
    pub index: ContainerIndex,
}

impl Shared {
    pub fn surroundings(&self, pod_ips: &[String]) -> Surroundings {
        Surroundings {
            host_ip: self.config.node_ip.to_string(),
            pod_ips: crate::pod::status::sort_ips(pod_ips, self.config.node_ip),
            allocatable: self.allocatable.clone(),
        }
    }

    pub fn about(&self, pod: &Pod) -> ObjectReference {
        reference(pod)
    }

    pub fn about_container(&self, pod: &Pod, container: &str) -> ObjectReference {
        ObjectReference { field_path: spec::field_path(spec::spec(pod), container), ..reference(pod) }
    }
}
