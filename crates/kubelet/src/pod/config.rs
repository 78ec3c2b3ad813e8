//! What the runtime is told about a pod's sandbox and its containers.

use std::collections::HashMap;
use std::path::Path;

use component_helpers::resource::{self, Options, is_restartable_init};
use k8s_cri::v1 as api;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::cgroups::{self, Cgroups};
use crate::config::Config;
use crate::pod::dns::{HostDns, dns_config};
use crate::pod::expansion::expand;
use crate::pod::{hosts, security, spec};
use crate::runtime::{Image, labels};

/// The sandbox of a pod.
pub fn sandbox_config(
    pod: &Pod,
    attempt: u32,
    config: &Config,
    cgroups: &Cgroups,
    host_dns: &HostDns,
) -> api::PodSandboxConfig {
    let pod_spec = spec::spec(pod);
    let (namespace, name, uid) = (spec::namespace(pod), spec::name(pod), spec::uid(pod));
    let hostname = if spec::host_network(pod_spec) {
        String::new()
    } else {
        let (name, domain) = hosts::hostname(pod, &config.cluster_domain);
        let full = pod_spec.set_hostname_as_fqdn.unwrap_or_default() && !domain.is_empty();
        if full { format!("{name}.{domain}") } else { name }
    };
    let mut all_labels: HashMap<String, String> =
        pod.metadata.labels.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    all_labels.extend(pod_labels(pod));
    api::PodSandboxConfig {
        metadata: Some(api::PodSandboxMetadata {
            name: name.to_owned(),
            uid: uid.to_owned(),
            namespace: namespace.to_owned(),
            attempt,
        }),
        hostname,
        log_directory: config.paths().pod_logs(namespace, name, uid).to_string_lossy().into_owned(),
        dns_config: Some(dns_config(pod, &config.cluster_dns, &config.cluster_domain, host_dns)),
        port_mappings: port_mappings(pod),
        labels: all_labels,
        annotations: pod.metadata.annotations.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
        linux: Some(api::LinuxPodSandboxConfig {
            cgroup_parent: cgroups.pod(component_helpers::qos::pod_qos(pod), uid),
            security_context: Some(security::sandbox_context(pod)),
            sysctls: sysctls(pod),
            overhead: Some(total(pod, true)),
            resources: Some(total(pod, false)),
        }),
        windows: None,
    }
}

fn sysctls(pod: &Pod) -> HashMap<String, String> {
    let context = spec::spec(pod).security_context.as_ref();
    let sysctls = context.and_then(|c| c.sysctls.as_deref()).unwrap_or_default();
    // runc knows the names with dots only
    sysctls.iter().map(|s| (s.name.replace('/', "."), s.value.clone())).collect()
}

fn total(pod: &Pod, overhead: bool) -> api::LinuxContainerResources {
    let (requests, limits) = if overhead {
        let list = resource::ResourceList::from_quantities(spec::spec(pod).overhead.as_ref());
        (list.clone(), list)
    } else {
        let options = Options { exclude_overhead: true, ..Options::default() };
        (resource::pod_requests(pod, &options), resource::pod_limits(pod, &options))
    };
    if overhead && requests.is_empty() {
        return api::LinuxContainerResources::default();
    }
    api::LinuxContainerResources {
        cpu_shares: cgroups::shares(requests.milli_cpu()),
        memory_limit_in_bytes: limits.memory(),
        ..Default::default()
    }
}

fn pod_labels(pod: &Pod) -> HashMap<String, String> {
    HashMap::from([
        (labels::POD_NAME.to_owned(), spec::name(pod).to_owned()),
        (labels::POD_NAMESPACE.to_owned(), spec::namespace(pod).to_owned()),
        (labels::POD_UID.to_owned(), spec::uid(pod).to_owned()),
    ])
}

fn port_mappings(pod: &Pod) -> Vec<api::PortMapping> {
    let pod_spec = spec::spec(pod);
    // the pod's ports are the node's then
    if spec::host_network(pod_spec) {
        return Vec::new();
    }
    let sidecars = spec::init_containers(pod_spec).iter().filter(|c| is_restartable_init(c));
    let ports = sidecars.chain(&pod_spec.containers).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter(|port| port.host_port.unwrap_or_default() > 0)
        .map(|port| api::PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => api::Protocol::Udp,
                Some("SCTP") => api::Protocol::Sctp,
                _ => api::Protocol::Tcp,
            } as i32,
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or_default(),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}

/// What a container needs that only doing can find out.
pub struct ContainerInputs<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub restart_count: u32,
    /// The image by its id, as the runtime holds it.
    pub image: &'a Image,
    pub environment: Vec<(String, String)>,
    pub mounts: Vec<api::Mount>,
    /// The container that an ephemeral container looks into.
    pub target: Option<&'a str>,
    pub memory_capacity: i64,
    pub seccomp_root: &'a Path,
}

/// `NAME/RESTARTS.log`, below the sandbox' log folder.
pub fn log_path(container: &str, restart_count: u32) -> String {
    format!("{container}/{restart_count}.log")
}

/// One run of a container.
pub fn container_config(inputs: ContainerInputs<'_>) -> api::ContainerConfig {
    let ContainerInputs { pod, container, restart_count, image, environment, mounts, .. } = inputs;
    let expanded = |list: &Option<Vec<String>>| -> Vec<String> {
        let lookup = |name: &str| environment.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        list.iter().flatten().map(|text| expand(text, lookup)).collect()
    };
    let (command, args) = (expanded(&container.command), expanded(&container.args));
    let mut container_labels = pod_labels(pod);
    container_labels.insert(labels::CONTAINER_NAME.to_owned(), container.name.clone());
    api::ContainerConfig {
        metadata: Some(api::ContainerMetadata { name: container.name.clone(), attempt: restart_count }),
        image: Some(api::ImageSpec {
            image: image.id.clone(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..Default::default()
        }),
        command,
        args,
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: environment.into_iter().map(|(key, value)| api::KeyValue { key, value }).collect(),
        mounts,
        labels: container_labels,
        annotations: container_annotations(pod, container, restart_count),
        log_path: log_path(&container.name, restart_count),
        stdin: container.stdin.unwrap_or_default(),
        stdin_once: container.stdin_once.unwrap_or_default(),
        tty: container.tty.unwrap_or_default(),
        linux: Some(api::LinuxContainerConfig {
            resources: Some(cgroups::container_resources(pod, container, inputs.memory_capacity)),
            security_context: Some(security::container_context(
                pod,
                container,
                image,
                inputs.target,
                inputs.seccomp_root,
            )),
        }),
        ..Default::default()
    }
}

/// What has to be known of a container when its pod is no longer.
fn container_annotations(pod: &Pod, container: &Container, restart_count: u32) -> HashMap<String, String> {
    let mut annotations = HashMap::from([
        (labels::CONTAINER_HASH.to_owned(), spec::hash(container)),
        (labels::RESTART_COUNT.to_owned(), restart_count.to_string()),
        (
            labels::TERMINATION_MESSAGE_PATH.to_owned(),
            container.termination_message_path.clone().unwrap_or_default(),
        ),
        (
            labels::TERMINATION_MESSAGE_POLICY.to_owned(),
            container.termination_message_policy.clone().unwrap_or_default(),
        ),
    ]);
    let mut put = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            annotations.insert(key.to_owned(), value);
        }
    };
    let json = |value: serde_json::Result<String>| value.ok();
    let pre_stop = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
    put(labels::PRE_STOP_HANDLER, pre_stop.and_then(|hook| json(serde_json::to_string(hook))));
    put(labels::PORTS, container.ports.as_ref().and_then(|ports| json(serde_json::to_string(ports))));
    let grace = spec::spec(pod).termination_grace_period_seconds;
    put(labels::POD_TERMINATION_GRACE_PERIOD, grace.map(|s| s.to_string()));
    let deletion = pod.metadata.deletion_grace_period_seconds;
    put(labels::POD_DELETION_GRACE_PERIOD, deletion.map(|s| s.to_string()));
    annotations
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "x"}},
            "spec": {
                "terminationGracePeriodSeconds": 30, "subdomain": "sub", "setHostnameAsFQDN": true,
                "securityContext": {"sysctls": [{"name": "net/core/somaxconn", "value": "5"}]},
                "containers": [{
                    "name": "c", "image": "img", "command": ["sh", "$(A)"], "args": ["$(B)"], "tty": true,
                    "ports": [{"containerPort": 80, "hostPort": 8080, "protocol": "UDP"}, {"containerPort": 81}],
                    "resources": {"limits": {"cpu": "100m"}},
                }],
            },
        }))
        .expect("a pod")
    }

    #[test]
    fn a_sandbox_is_described() {
        let config = Config::new("n1", [10, 0, 0, 1].into(), "/data");
        let Ok(cgroups) = Cgroups::detect("/") else { return };
        let made = sandbox_config(&pod(), 2, &config, &cgroups, &HostDns::default());
        assert_eq!(made.hostname, "p.sub.ns.svc.cluster.local");
        assert_eq!(made.log_directory, "/data/log/pods/ns_p_u");
        assert_eq!(made.port_mappings.len(), 1);
        assert_eq!(made.port_mappings[0].protocol, api::Protocol::Udp as i32);
        assert_eq!(made.labels["app"], "x");
        assert_eq!(made.labels[labels::POD_UID], "u");
        let linux = made.linux.expect("linux");
        assert_eq!(linux.cgroup_parent, "/kubepods/burstable/podu");
        assert_eq!(linux.sysctls["net.core.somaxconn"], "5");
    }

    #[test]
    fn a_container_is_described() {
        let pod = pod();
        let container = &spec::spec(&pod).containers[0];
        let made = container_config(ContainerInputs {
            pod: &pod,
            container,
            restart_count: 3,
            image: &Image { id: "sha256:1".into(), ..Image::default() },
            environment: vec![("A".into(), "a".into()), ("B".into(), "b".into())],
            mounts: Vec::new(),
            target: None,
            memory_capacity: 1 << 30,
            seccomp_root: Path::new("/seccomp"),
        });
        assert_eq!((made.command, made.args), (vec!["sh".to_owned(), "a".into()], vec!["b".to_owned()]));
        assert_eq!((made.log_path.as_str(), made.tty), ("c/3.log", true));
        assert_eq!(made.annotations[labels::RESTART_COUNT], "3");
        assert_eq!(made.annotations[labels::CONTAINER_HASH], spec::hash(container));
        assert_eq!(made.annotations[labels::POD_TERMINATION_GRACE_PERIOD], "30");
    }
}
