//! From a Service and its pods to endpoints. No clock, no IO.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort as CorePort, Endpoints, ObjectReference, Pod, Service, ServicePort,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::order;
use super::subsets::Subsets;
use crate::{owners, pods};

pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
const HEADLESS: &str = "service.kubernetes.io/headless";
const PUBLISH_ANNOTATION: &str = "service.alpha.kubernetes.io/tolerate-unready-endpoints";
const MAX_PER_SLICE: usize = 100;
const MAX_IN_ENDPOINTS: usize = 1000;

pub fn selects(selector: &BTreeMap<String, String>, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    !selector.is_empty()
        && selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

fn ip(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).unwrap_or_default()
}

/// Whether a change of a pod can change endpoints.
pub fn matters(old: &Pod, new: &Pod) -> bool {
    let facts = |pod: &Pod| {
        (
            ip(pod).to_owned(),
            pods::is_ready(pod),
            pods::has_ended(pod),
            pod.metadata.deletion_timestamp.is_some(),
            pods::node_name(pod).to_owned(),
        )
    };
    facts(old) != facts(new)
        || old.metadata.labels != new.metadata.labels
        || old.spec.as_ref().map(|spec| (&spec.hostname, &spec.subdomain))
            != new.spec.as_ref().map(|spec| (&spec.hostname, &spec.subdomain))
}

fn publishes_unready(service: &Service) -> bool {
    let annotated = service.metadata.annotations.as_ref().and_then(|all| all.get(PUBLISH_ANNOTATION));
    annotated.map(String::as_str) == Some("true")
        || service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

fn has_address(pod: &Pod) -> bool {
    !ip(pod).is_empty() && !pods::has_ended(pod)
}

/// The port of a pod that a Service port means.
pub fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|container| container.restart_policy.as_deref() == Some("Always"));
            spec.containers
                .iter()
                .chain(sidecars)
                .flat_map(|container| container.ports.iter().flatten())
                .find(|own| {
                    own.name.as_deref() == Some(name) && own.protocol.as_deref().unwrap_or("TCP") == protocol
                })
                .map(|own| own.container_port)
        }
    }
}

fn ports(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default()
}

fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The hostname under which DNS knows a pod within a Service.
fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let subdomain = spec.subdomain.as_deref()?;
    let same = service.metadata.name.as_deref() == Some(subdomain)
        && service.metadata.namespace == pod.metadata.namespace;
    spec.hostname.clone().filter(|hostname| same && !hostname.is_empty())
}

/// The `Endpoints` of a Service.
pub fn endpoints(service: &Service, pods: &[Arc<Pod>]) -> Endpoints {
    let mut subsets = Subsets::default();
    let mut count = 0;
    for pod in pods.iter().filter(|pod| has_address(pod)) {
        let publishes = publishes_unready(service);
        if pod.metadata.deletion_timestamp.is_some() && !publishes {
            continue;
        }
        if count == MAX_IN_ENDPOINTS {
            break;
        }
        count += 1;
        let node = pods::node_name(pod);
        let address = EndpointAddress {
            ip: ip(pod).to_owned(),
            hostname: hostname(pod, service),
            node_name: (!node.is_empty()).then(|| node.to_owned()),
            target_ref: Some(reference(pod)),
        };
        let ready = publishes || pods::is_ready(pod);
        if is_headless(service) && ports(service).is_empty() {
            subsets.add(&address, ready, None);
        }
        for port in ports(service) {
            let Some(number) = target_port(pod, port) else { continue };
            let served = CorePort {
                name: port.name.clone().filter(|name| !name.is_empty()),
                port: number,
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
                app_protocol: port.app_protocol.clone(),
            };
            subsets.add(&address, ready, Some(served));
        }
    }
    let subsets = subsets.pack();
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    // the controller that mirrors hand-made endpoints leaves these alone
    labels.insert("endpoints.kubernetes.io/managed-by".into(), "endpoint-controller".into());
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        subsets: (!subsets.is_empty()).then_some(subsets),
    }
}

/// Whether a slice is made by this controller for a Service.
pub fn is_ours(slice: &EndpointSlice, service: &str) -> bool {
    let label =
        |key: &str| slice.metadata.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
    label(MANAGED_BY) == Some(MANAGER) && label(SERVICE_NAME) == Some(service)
}

/// What to do so that the slices say what is so.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    pub create: Vec<EndpointSlice>,
    pub update: Vec<EndpointSlice>,
    pub delete: Vec<String>,
}

fn endpoint(pod: &Pod, service: &Service, zones: &BTreeMap<String, String>) -> Endpoint {
    let leaves = pod.metadata.deletion_timestamp.is_some();
    let serving = pods::is_ready(pod);
    let node = pods::node_name(pod);
    Endpoint {
        addresses: vec![ip(pod).to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(publishes_unready(service) || (serving && !leaves)),
            serving: Some(serving),
            terminating: Some(leaves),
        }),
        hostname: hostname(pod, service),
        node_name: (!node.is_empty()).then(|| node.to_owned()),
        target_ref: Some(reference(pod)),
        zone: zones.get(node).cloned(),
        ..Endpoint::default()
    }
}

/// The changes to the slices of a Service. Slices keep what they have where it is still right, so that a change
/// of one pod is a change of one slice.
pub fn slices(
    service: &Service,
    pods: &[Arc<Pod>],
    zones: &BTreeMap<String, String>,
    current: &[Arc<EndpointSlice>],
) -> Changes {
    let mut wanted: BTreeMap<Vec<(String, Option<i32>, String, Option<String>)>, Vec<Endpoint>> =
        BTreeMap::new();
    for pod in pods.iter().filter(|pod| has_address(pod)) {
        let of_pod = ports(service)
            .iter()
            .filter_map(|port| {
                let number = target_port(pod, port)?;
                let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
                Some((
                    port.name.clone().unwrap_or_default(),
                    Some(number),
                    protocol,
                    port.app_protocol.clone(),
                ))
            })
            .collect();
        wanted.entry(of_pod).or_default().push(endpoint(pod, service, zones));
    }
    // a Service without pods still has one slice, which says that there is nothing
    if wanted.is_empty() {
        wanted.insert(Vec::new(), Vec::new());
    }
    let mut unused: Vec<&Arc<EndpointSlice>> = current.iter().collect();
    let mut changes = Changes::default();
    let labels = slice_labels(service);
    for (ports, endpoints) in wanted {
        let mut ports: Vec<EndpointPort> = ports
            .into_iter()
            .map(|(name, port, protocol, app_protocol)| EndpointPort {
                name: Some(name),
                port,
                protocol: Some(protocol),
                app_protocol,
            })
            .collect();
        order::sort_slice_ports(&mut ports);
        let mut left = endpoints;
        let mut full: Vec<(EndpointSlice, Vec<Endpoint>)> = Vec::new();
        let mut same: Vec<&Arc<EndpointSlice>> = Vec::new();
        unused.retain(|slice| {
            let mut theirs = slice.ports.clone().unwrap_or_default();
            order::sort_slice_ports(&mut theirs);
            let matches = theirs == ports;
            if matches {
                same.push(slice);
            }
            !matches
        });
        for slice in same {
            let mut kept = Vec::new();
            for old in slice.endpoints.iter().flatten() {
                if let Some(at) = left.iter().position(|new| new.addresses == old.addresses) {
                    kept.push(left.swap_remove(at));
                }
            }
            let mut new = slice.as_ref().clone();
            new.endpoints = None;
            full.push((new, kept));
        }
        left.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        for (_, endpoints) in &mut full {
            let room = MAX_PER_SLICE.saturating_sub(endpoints.len());
            endpoints.extend(left.drain(..room.min(left.len())));
        }
        let keep_one_empty = full.iter().all(|(_, endpoints)| endpoints.is_empty()) && left.is_empty();
        let mut kept_empty = false;
        for (mut slice, endpoints) in full {
            if endpoints.is_empty() && (kept_empty || !keep_one_empty) {
                changes.delete.push(slice.metadata.name.unwrap_or_default());
                continue;
            }
            kept_empty |= endpoints.is_empty();
            slice.endpoints = some(endpoints);
            slice.metadata.labels = Some(labels.clone());
            let old = current.iter().find(|old| old.metadata.name == slice.metadata.name);
            if old.is_none_or(|old| **old != slice) {
                changes.update.push(slice);
            }
        }
        while !left.is_empty() || (keep_one_empty && !kept_empty) {
            kept_empty = true;
            let part: Vec<Endpoint> = left.drain(..MAX_PER_SLICE.min(left.len())).collect();
            changes.create.push(new_slice(service, &labels, ports.clone(), part));
        }
    }
    changes.delete.extend(unused.iter().filter_map(|slice| slice.metadata.name.clone()));
    changes
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn slice_labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    labels
}

fn new_slice(
    service: &Service,
    labels: &BTreeMap<String, String>,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let owner = OwnerReference { block_owner_deletion: Some(true), ..owners::controller_ref(service) };
    let name = service.metadata.name.clone().unwrap_or_default();
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels.clone()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        address_type: "IPv4".into(),
        endpoints: some(endpoints),
        ports: (!ports.is_empty()).then_some(ports),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodCondition, PodStatus, ServiceSpec};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn service() -> Service {
        let port =
            ServicePort { port: 80, target_port: Some(IntOrString::Int(8080)), ..ServicePort::default() };
        let spec = ServiceSpec { ports: Some(vec![port]), ..ServiceSpec::default() };
        let mut service = Service { spec: Some(spec), ..Service::default() };
        service.metadata.name = Some("web".into());
        service
    }

    fn pod(ip: &str, ready: bool, leaves: bool) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.deletion_timestamp = leaves.then_some(Time(Timestamp::UNIX_EPOCH));
        pod.status = Some(PodStatus {
            pod_ip: Some(ip.into()),
            conditions: Some(vec![PodCondition {
                type_: "Ready".into(),
                status: if ready { "True" } else { "False" }.into(),
                ..PodCondition::default()
            }]),
            ..PodStatus::default()
        });
        Arc::new(pod)
    }

    #[test]
    fn readiness_decides_where_an_address_stands() {
        let pods = [pod("10.0.0.1", true, false), pod("10.0.0.2", false, false), pod("10.0.0.3", true, true)];
        let subsets = endpoints(&service(), &pods).subsets.unwrap();
        let ips = |list: &Option<Vec<EndpointAddress>>| -> Vec<String> {
            list.iter().flatten().map(|address| address.ip.clone()).collect()
        };
        assert_eq!(ips(&subsets[0].addresses), ["10.0.0.1"]);
        assert_eq!(ips(&subsets[0].not_ready_addresses), ["10.0.0.2"]);
        assert_eq!(subsets[0].ports.as_ref().unwrap()[0].port, 8080);
    }

    #[test]
    fn ports_of_slices_stand_as_upstreams_whatever_the_order_of_the_service() {
        let zones = BTreeMap::new();
        let port = |name: &str, number: i32| ServicePort {
            name: Some(name.into()),
            port: number,
            app_protocol: Some(name.into()),
            ..ServicePort::default()
        };
        let pods = [pod("10.0.0.1", true, false)];
        let mut made = Vec::new();
        for ports in [[port("http", 80), port("https", 443)], [port("https", 443), port("http", 80)]] {
            let mut service = service();
            service.spec.as_mut().unwrap().ports = Some(ports.to_vec());
            let mut created = slices(&service, &pods, &zones, &[]).create;
            let names: Vec<_> = created[0].ports.iter().flatten().map(|port| port.name.as_deref()).collect();
            assert_eq!(names, [Some("https"), Some("http")]);
            // one that another order was written to is as good
            created[0].ports.as_mut().unwrap().reverse();
            let current: Vec<_> = created.iter().cloned().map(Arc::new).collect();
            assert_eq!(slices(&service, &pods, &zones, &current), Changes::default());
            made.push(created);
        }
        assert_eq!(made[0], made[1]);
    }

    #[test]
    fn slices_settle() {
        let zones = BTreeMap::new();
        let pods: Vec<Arc<Pod>> =
            (0..250).map(|i| pod(&format!("10.0.{}.{}", i / 100, i % 100), true, false)).collect();
        let first = slices(&service(), &pods, &zones, &[]);
        assert_eq!(
            first.create.iter().map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len)).collect::<Vec<_>>(),
            [100, 100, 50]
        );
        let current: Vec<Arc<EndpointSlice>> = first
            .create
            .into_iter()
            .enumerate()
            .map(|(index, mut slice)| {
                slice.metadata.name = Some(format!("web-{index}"));
                Arc::new(slice)
            })
            .collect();
        assert_eq!(slices(&service(), &pods, &zones, &current), Changes::default(), "nothing changed");
        let fewer = slices(&service(), &pods[1..], &zones, &current);
        assert_eq!((fewer.create.len(), fewer.update.len(), fewer.delete.len()), (0, 1, 0));
        let none = slices(&service(), &[], &zones, &current);
        assert_eq!((none.create.len(), none.delete.len()), (1, 3), "one empty slice is left");
    }
}
