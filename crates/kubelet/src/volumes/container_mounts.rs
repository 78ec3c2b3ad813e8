//! What a container finds mounted: its volumes and parts of them, `/etc/hosts`, its termination message file.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use k8s_cri::v1::{Mount, MountPropagation};
use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};

use crate::config::Paths;
use crate::pod::expansion::expand;
use crate::pod::{hosts, spec};
use crate::volumes::{Mounted, mounts};

const ETC_HOSTS: &str = "/etc/hosts";

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn propagation(mount: &VolumeMount) -> MountPropagation {
    match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => MountPropagation::PropagationBidirectional,
        _ => MountPropagation::PropagationPrivate,
    }
}

/// The sub-path of a mount, with variables put in; `None` when the whole volume is mounted.
fn sub_path(mount: &VolumeMount, environment: &[(String, String)]) -> Result<Option<String>, String> {
    if let Some(path) = mount.sub_path.as_deref().filter(|p| !p.is_empty()) {
        return Ok(Some(path.to_owned()));
    }
    let Some(expression) = mount.sub_path_expr.as_deref().filter(|p| !p.is_empty()) else { return Ok(None) };
    let missing = std::cell::RefCell::new(None);
    let expanded = expand(expression, |name| {
        let found = environment.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
        if found.is_none() {
            missing.replace(Some(name.to_owned()));
        }
        found
    });
    match missing.into_inner() {
        Some(name) => Err(format!("missing value for {name:?}")),
        None => Ok(Some(expanded)),
    }
}

/// Whether a path leads nowhere but into its volume.
fn stays_within(sub_path: &str) -> Result<(), String> {
    if sub_path.starts_with('/') {
        return Err(format!("error SubPath `{sub_path}` must not be an absolute path"));
    }
    if sub_path.split('/').any(|part| part == "..") {
        return Err(format!("unable to provision SubPath `{sub_path}`: must not contain '..'"));
    }
    Ok(())
}

/// Prepares the mounts of a container's volumes.
pub fn volume_mounts(
    pod: &Pod,
    container: &Container,
    volumes: &HashMap<String, Mounted>,
    environment: &[(String, String)],
    paths: &Paths,
) -> Result<Vec<Mount>, String> {
    let mut all = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let volume = volumes.get(&mount.name).ok_or_else(|| {
            format!("cannot find volume {:?} to mount into container {:?}", mount.name, container.name)
        })?;
        let mut host_path = volume.path.clone();
        if let Some(sub_path) = sub_path(mount, environment)? {
            stays_within(&sub_path)?;
            let target = paths
                .pod_subpaths(spec::uid(pod))
                .join(&mount.name)
                .join(&container.name)
                .join(index.to_string());
            let target = std::path::absolute(target).map_err(|error| error.to_string())?;
            mounts::bind_sub_path(&volume.path, &sub_path, &target).map_err(|error| {
                tracing::warn!(pod = spec::format(pod), container = container.name, %error, "no sub-path");
                format!(
                    "failed to prepare subPath for volumeMount {:?} of container {:?}",
                    mount.name, container.name
                )
            })?;
            host_path = target;
        }
        let host_path = std::path::absolute(host_path).map_err(|error| error.to_string())?;
        all.push(Mount {
            container_path: absolute(&mount.mount_path),
            host_path: host_path.to_string_lossy().into_owned(),
            readonly: mount.read_only.unwrap_or_default() || volume.read_only,
            propagation: propagation(mount) as i32,
            ..Mount::default()
        });
    }
    Ok(all)
}

/// The pod's `/etc/hosts`, unless the container brings one; `None` as long as the pod has no address.
pub fn hosts_mount(
    pod: &Pod,
    container: &Container,
    ips: &[String],
    cluster_domain: &str,
    paths: &Paths,
) -> std::io::Result<Option<Mount>> {
    let own = container.volume_mounts.iter().flatten().any(|mount| mount.mount_path == ETC_HOSTS);
    let host_network = spec::host_network(spec::spec(pod));
    if own || (ips.is_empty() && !host_network) {
        return Ok(None);
    }
    let content = if host_network {
        hosts::of_node(pod, &fs::read_to_string(ETC_HOSTS)?)
    } else {
        hosts::managed(pod, ips, cluster_domain)
    };
    let path = std::path::absolute(paths.etc_hosts(spec::uid(pod)))?;
    // written in place: containers that run hold the file itself
    fs::write(&path, content)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    Ok(Some(plain(ETC_HOSTS, &path)))
}

/// A fresh file that the container may leave its last words in.
pub fn termination_message_mount(
    pod: &Pod,
    container: &Container,
    paths: &Paths,
) -> std::io::Result<Option<Mount>> {
    let Some(inside) = container.termination_message_path.as_deref().filter(|p| !p.is_empty()) else {
        return Ok(None);
    };
    let folder = paths.pod_container(spec::uid(pod), &container.name);
    fs::create_dir_all(&folder)?;
    let path = std::path::absolute(folder.join(format!("{:08x}", rand::random::<u32>())))?;
    fs::File::create(&path)?;
    // whoever the container runs as may write it
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    Ok(Some(plain(inside, &path)))
}

fn plain(inside: &str, path: &Path) -> Mount {
    Mount {
        container_path: inside.to_owned(),
        host_path: path.to_string_lossy().into_owned(),
        ..Mount::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn sub(mount: Value) -> Result<Option<String>, String> {
        let mount = serde_json::from_value(mount).expect("a mount");
        sub_path(&mount, &[("POD".into(), "p".into())])
    }

    #[test]
    fn sub_paths_are_expanded() {
        assert_eq!(sub(json!({"name": "v", "mountPath": "/x"})), Ok(None));
        assert_eq!(sub(json!({"name": "v", "mountPath": "/x", "subPath": "a"})), Ok(Some("a".into())));
        assert_eq!(
            sub(json!({"name": "v", "mountPath": "/x", "subPathExpr": "$(POD)/y"})),
            Ok(Some("p/y".into()))
        );
        assert_eq!(
            sub(json!({"name": "v", "mountPath": "/x", "subPathExpr": "$(NONE)"})),
            Err("missing value for \"NONE\"".into())
        );
    }

    #[test]
    fn mounts_are_read_only_where_volume_or_mount_say_so() {
        let container: Container = serde_json::from_value(json!({"name": "c", "volumeMounts": [
            {"name": "a", "mountPath": "/a"}, {"name": "a", "mountPath": "b", "readOnly": true},
            {"name": "r", "mountPath": "/r", "mountPropagation": "Bidirectional"}]}))
        .expect("a container");
        let mounted = |read_only| Mounted { path: "/host".into(), read_only };
        let volumes = HashMap::from([("a".to_owned(), mounted(false)), ("r".to_owned(), mounted(true))]);
        let paths = crate::Config::new("n", [10, 0, 0, 1].into(), "/data").paths();
        let made = volume_mounts(&Pod::default(), &container, &volumes, &[], &paths).expect("mounts");
        let shown: Vec<_> =
            made.iter().map(|m| (m.container_path.as_str(), m.readonly, m.propagation)).collect();
        assert_eq!(shown, [("/a", false, 0), ("/b", true, 0), ("/r", true, 2)]);
        let missing = volume_mounts(&Pod::default(), &container, &HashMap::new(), &[], &paths);
        assert_eq!(missing, Err("cannot find volume \"a\" to mount into container \"c\"".into()));
    }
}
