//! Security contexts: what pod and container say together, in the runtime's words.

use k8s_cri::v1 as api;
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, SELinuxOptions, SeccompProfile, SecurityContext,
};

use crate::pod::spec;
use crate::runtime::Image;

const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn of_pod(pod: &Pod) -> Option<&PodSecurityContext> {
    spec::spec(pod).security_context.as_ref()
}

fn of(container: &Container) -> Option<&SecurityContext> {
    container.security_context.as_ref()
}

pub fn is_privileged(container: &Container) -> bool {
    of(container).and_then(|c| c.privileged).unwrap_or_default()
}

/// Whether any container of a pod is privileged; then its sandbox is, too.
pub fn any_privileged(pod: &Pod) -> bool {
    component_helpers::pod::all_containers(spec::spec(pod)).any(is_privileged)
}

pub fn run_as_user(pod: &Pod, container: &Container) -> Option<i64> {
    of(container).and_then(|c| c.run_as_user).or_else(|| of_pod(pod)?.run_as_user)
}

fn run_as_group(pod: &Pod, container: &Container) -> Option<i64> {
    of(container).and_then(|c| c.run_as_group).or_else(|| of_pod(pod)?.run_as_group)
}

fn int64(value: i64) -> api::Int64Value {
    api::Int64Value { value }
}

/// The namespaces of a pod; `pid` is for containers, `target` for an ephemeral container that looks into another.
fn namespaces(pod: &Pod, target: Option<&str>) -> api::NamespaceOption {
    let pod_spec = spec::spec(pod);
    let mode = |node: Option<bool>| {
        if node.unwrap_or_default() { api::NamespaceMode::Node } else { api::NamespaceMode::Pod }
    };
    let pid = if target.is_some() {
        api::NamespaceMode::Target
    } else if pod_spec.host_pid.unwrap_or_default() {
        api::NamespaceMode::Node
    } else if pod_spec.share_process_namespace.unwrap_or_default() {
        api::NamespaceMode::Pod
    } else {
        api::NamespaceMode::Container
    };
    api::NamespaceOption {
        network: mode(pod_spec.host_network) as i32,
        ipc: mode(pod_spec.host_ipc) as i32,
        pid: pid as i32,
        target_id: target.unwrap_or_default().to_owned(),
        userns_options: None,
    }
}

/// The groups that processes of a pod are in besides their own.
fn supplemental_groups(pod: &Pod) -> Vec<i64> {
    let Some(context) = of_pod(pod) else { return Vec::new() };
    let mut groups = context.supplemental_groups.clone().unwrap_or_default();
    groups.extend(context.fs_group.filter(|group| !groups.contains(group)));
    groups
}

fn groups_policy(pod: &Pod) -> i32 {
    let strict = of_pod(pod).and_then(|c| c.supplemental_groups_policy.as_deref()) == Some("Strict");
    let policy =
        if strict { api::SupplementalGroupsPolicy::Strict } else { api::SupplementalGroupsPolicy::Merge };
    policy as i32
}

fn selinux(options: &SELinuxOptions) -> api::SeLinuxOption {
    api::SeLinuxOption {
        user: options.user.clone().unwrap_or_default(),
        role: options.role.clone().unwrap_or_default(),
        r#type: options.type_.clone().unwrap_or_default(),
        level: options.level.clone().unwrap_or_default(),
    }
}

fn profile(kind: &str, localhost: String) -> api::SecurityProfile {
    use api::security_profile::ProfileType;
    let (profile_type, localhost_ref) = match kind {
        "RuntimeDefault" => (ProfileType::RuntimeDefault, String::new()),
        "Localhost" => (ProfileType::Localhost, localhost),
        _ => (ProfileType::Unconfined, String::new()),
    };
    api::SecurityProfile { profile_type: profile_type as i32, localhost_ref }
}

fn seccomp(profile_of: Option<&SeccompProfile>, root: &std::path::Path) -> api::SecurityProfile {
    let kind = profile_of.map_or("Unconfined", |p| p.type_.as_str());
    let file = profile_of.and_then(|p| p.localhost_profile.as_deref()).unwrap_or_default();
    profile(kind, root.join(file).to_string_lossy().into_owned())
}

fn apparmor(profile_of: Option<&AppArmorProfile>) -> Option<api::SecurityProfile> {
    profile_of.map(|p| profile(&p.type_, p.localhost_profile.clone().unwrap_or_default()))
}

/// The security context of a pod's sandbox.
pub fn sandbox_context(pod: &Pod) -> api::LinuxSandboxSecurityContext {
    let context = of_pod(pod);
    api::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod, None)),
        selinux_options: context.and_then(|c| c.se_linux_options.as_ref()).map(selinux),
        run_as_user: context.and_then(|c| c.run_as_user).map(int64),
        run_as_group: context.and_then(|c| c.run_as_group).map(int64),
        supplemental_groups: supplemental_groups(pod),
        supplemental_groups_policy: groups_policy(pod),
        privileged: any_privileged(pod),
        seccomp: Some(profile("RuntimeDefault", String::new())),
        ..Default::default()
    }
}

/// The security context of a container. The image says who runs where nobody else does.
pub fn container_context(
    pod: &Pod,
    container: &Container,
    image: &Image,
    target: Option<&str>,
    seccomp_root: &std::path::Path,
) -> api::LinuxContainerSecurityContext {
    let (own, shared) = (of(container), of_pod(pod));
    let user = run_as_user(pod, container);
    let by_name = user.is_none() && !image.username.is_empty();
    let unmasked = own.and_then(|c| c.proc_mount.as_deref()) == Some("Unmasked");
    let paths = |list: &[&str]| {
        if unmasked { Vec::new() } else { list.iter().map(|p| (*p).to_owned()).collect() }
    };
    let capabilities = own.and_then(|c| c.capabilities.as_ref()).map(|c| api::Capability {
        add_capabilities: c.add.clone().unwrap_or_default(),
        drop_capabilities: c.drop.clone().unwrap_or_default(),
        ..Default::default()
    });
    let seccomp_profile = own
        .and_then(|c| c.seccomp_profile.as_ref())
        .or_else(|| shared.and_then(|c| c.seccomp_profile.as_ref()));
    api::LinuxContainerSecurityContext {
        capabilities,
        privileged: is_privileged(container),
        namespace_options: Some(namespaces(pod, target)),
        selinux_options: own
            .and_then(|c| c.se_linux_options.as_ref())
            .or_else(|| shared.and_then(|c| c.se_linux_options.as_ref()))
            .map(selinux),
        run_as_user: user.or(image.uid.filter(|_| !by_name)).map(int64),
        run_as_group: run_as_group(pod, container).map(int64),
        run_as_username: if by_name { image.username.clone() } else { String::new() },
        readonly_rootfs: own.and_then(|c| c.read_only_root_filesystem).unwrap_or_default(),
        supplemental_groups: supplemental_groups(pod),
        supplemental_groups_policy: groups_policy(pod),
        no_new_privs: own.and_then(|c| c.allow_privilege_escalation) == Some(false),
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
        seccomp: Some(seccomp(seccomp_profile, seccomp_root)),
        apparmor: apparmor(
            own.and_then(|c| c.app_armor_profile.as_ref())
                .or_else(|| shared.and_then(|c| c.app_armor_profile.as_ref())),
        ),
        ..Default::default()
    }
}

/// Refuses a container that must not run as root and would.
pub fn verify_run_as_non_root(pod: &Pod, container: &Container, image: &Image) -> Result<(), String> {
    let demanded = of(container).and_then(|c| c.run_as_non_root).or_else(|| of_pod(pod)?.run_as_non_root);
    if demanded != Some(true) {
        return Ok(());
    }
    let whose = format!("(pod: {:?}, container: {})", spec::format(pod), container.name);
    match run_as_user(pod, container) {
        Some(0) => Err(format!("container's runAsUser breaks non-root policy {whose}")),
        Some(_) => Ok(()),
        None if !image.username.is_empty() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root {whose}",
            image.username
        )),
        None if image.uid.unwrap_or_default() == 0 => {
            Err(format!("container has runAsNonRoot and image will run as root {whose}"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(context: Value, container: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"securityContext": context, "containers": [{"name": "c", "securityContext": container}]},
        }))
        .expect("a pod")
    }

    fn context(pod: &Pod, image: &Image) -> api::LinuxContainerSecurityContext {
        let container = &spec::spec(pod).containers[0];
        container_context(pod, container, image, None, std::path::Path::new("/seccomp"))
    }

    #[test]
    fn the_container_wins_over_the_pod_and_both_over_the_image() {
        let image = Image { uid: Some(65), ..Image::default() };
        let user = |pod: &Pod| context(pod, &image).run_as_user.map(|u| u.value);
        assert_eq!(user(&pod(json!({}), json!({}))), Some(65));
        assert_eq!(user(&pod(json!({"runAsUser": 1}), json!({}))), Some(1));
        assert_eq!(user(&pod(json!({"runAsUser": 1}), json!({"runAsUser": 2}))), Some(2));
        let named = Image { username: "web".into(), ..Image::default() };
        let made = context(&pod(json!({}), json!({})), &named);
        assert_eq!((made.run_as_username.as_str(), made.run_as_user), ("web", None));
    }

    #[test]
    fn contexts_are_translated() {
        let pod = pod(
            json!({"fsGroup": 7, "supplementalGroups": [3], "seccompProfile": {"type": "RuntimeDefault"}}),
            json!({"privileged": true, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                   "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
                   "seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}}),
        );
        let made = context(&pod, &Image::default());
        assert_eq!(made.supplemental_groups, [3, 7]);
        assert!(made.privileged && made.no_new_privs && made.readonly_rootfs);
        assert_eq!(made.seccomp.map(|s| s.localhost_ref), Some("/seccomp/a.json".into()));
        assert!(sandbox_context(&pod).privileged);
        let capabilities = made.capabilities.expect("capabilities");
        assert_eq!(
            (capabilities.add_capabilities, capabilities.drop_capabilities),
            (vec!["NET_ADMIN".into()], vec!["ALL".into()])
        );
    }

    #[test]
    fn root_is_refused_where_it_may_not_be() {
        let root = Image { uid: Some(0), ..Image::default() };
        let named = Image { username: "web".into(), ..Image::default() };
        let must = json!({"runAsNonRoot": true});
        let cases = [
            (pod(json!({}), json!({})), &root, true),
            (pod(must.clone(), json!({})), &root, false),
            (pod(must.clone(), json!({})), &named, false),
            (pod(must.clone(), json!({"runAsUser": 5})), &root, true),
            (pod(must.clone(), json!({"runAsUser": 0})), &root, false),
            (pod(must, json!({"runAsNonRoot": false})), &root, true),
        ];
        for (pod, image, allowed) in cases {
            let container = &spec::spec(&pod).containers[0];
            assert_eq!(verify_run_as_non_root(&pod, container, image).is_ok(), allowed, "{pod:?}");
        }
    }
}
