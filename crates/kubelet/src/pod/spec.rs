//! Short ways to what a pod's spec says.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};

/// Fields that the API server always fills; an empty one only comes from a broken source.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

pub fn spec(pod: &Pod) -> &PodSpec {
    static NONE: std::sync::OnceLock<PodSpec> = std::sync::OnceLock::new();
    pod.spec.as_ref().unwrap_or_else(|| NONE.get_or_init(PodSpec::default))
}

/// `name_namespace(uid)`, as messages name a pod.
pub fn format(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

pub fn is_terminal_phase(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

pub fn is_being_deleted(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

pub fn restart_policy(spec: &PodSpec) -> &str {
    spec.restart_policy.as_deref().unwrap_or("Always")
}

pub fn host_network(spec: &PodSpec) -> bool {
    spec.host_network.unwrap_or_default()
}

pub fn init_containers(spec: &PodSpec) -> &[Container] {
    spec.init_containers.as_deref().unwrap_or_default()
}

/// Ephemeral containers in the shape of ordinary ones.
pub fn ephemeral_containers(spec: &PodSpec) -> Vec<Container> {
    spec.ephemeral_containers.iter().flatten().map(as_container).collect()
}

pub fn as_container(from: &EphemeralContainer) -> Container {
    let from = from.clone();
    Container {
        args: from.args,
        command: from.command,
        env: from.env,
        env_from: from.env_from,
        image: from.image,
        image_pull_policy: from.image_pull_policy,
        lifecycle: from.lifecycle,
        liveness_probe: from.liveness_probe,
        name: from.name,
        ports: from.ports,
        readiness_probe: from.readiness_probe,
        resize_policy: from.resize_policy,
        resources: from.resources,
        restart_policy: from.restart_policy,
        restart_policy_rules: from.restart_policy_rules,
        security_context: from.security_context,
        startup_probe: from.startup_probe,
        stdin: from.stdin,
        stdin_once: from.stdin_once,
        termination_message_path: from.termination_message_path,
        termination_message_policy: from.termination_message_policy,
        tty: from.tty,
        volume_devices: from.volume_devices,
        volume_mounts: from.volume_mounts,
        working_dir: from.working_dir,
    }
}

/// A container of any kind by its name.
pub fn find_container(spec: &PodSpec, name: &str) -> Option<Container> {
    let ordinary = component_helpers::pod::all_containers(spec).find(|c| c.name == name).cloned();
    ordinary.or_else(|| spec.ephemeral_containers.iter().flatten().find(|c| c.name == name).map(as_container))
}

/// Where events about a container point: `spec.containers{name}`.
pub fn field_path(spec: &PodSpec, container: &str) -> Option<String> {
    let kind = if spec.containers.iter().any(|c| c.name == container) {
        "containers"
    } else if init_containers(spec).iter().any(|c| c.name == container) {
        "initContainers"
    } else if spec.ephemeral_containers.iter().flatten().any(|c| c.name == container) {
        "ephemeralContainers"
    } else {
        return None;
    };
    Some(format!("spec.{kind}{{{container}}}"))
}

/// What of a container, when changed, makes it another one: its name and image (FNV-1a, as upstream writes it).
pub fn hash(container: &Container) -> String {
    let text = serde_json::json!({
        "image": container.image.as_deref().unwrap_or_default(), "name": container.name,
    })
    .to_string();
    let hash =
        text.bytes().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{hash:x}")
}
