//! The volumes of pods: made before containers start, kept up to date while they run, taken away at the end.

pub mod atomic_writer;
pub mod container_mounts;
pub mod mounts;
pub mod payload;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use component_helpers::amount::Amount;
use component_helpers::resource::{self, Options};
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, Volume};

use crate::config::Paths;
use crate::pod::fields::Surroundings;
use crate::pod::spec;
use payload::{Objects, payload};

/// A volume as containers get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    pub path: PathBuf,
    /// Containers cannot write to it, whatever their mounts say.
    pub read_only: bool,
}

/// A volume that could not be made, worded as the event that tells of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {reason}")]
pub struct VolumeError {
    pub volume: String,
    pub reason: String,
}

/// Makes or brings up to date all volumes of a pod. Errors of several volumes are reported together.
pub fn set_up(
    pod: &Pod,
    paths: &Paths,
    objects: &Objects,
    around: &Surroundings,
) -> Result<HashMap<String, Mounted>, Vec<VolumeError>> {
    let mut mounted = HashMap::new();
    let mut errors = Vec::new();
    for volume in spec::spec(pod).volumes.iter().flatten() {
        match set_up_one(volume, pod, paths, objects, around) {
            Ok(volume_mounted) => {
                mounted.insert(volume.name.clone(), volume_mounted);
            }
            Err(reason) => errors.push(VolumeError { volume: volume.name.clone(), reason }),
        }
    }
    if errors.is_empty() { Ok(mounted) } else { Err(errors) }
}

fn set_up_one(
    volume: &Volume,
    pod: &Pod,
    paths: &Paths,
    objects: &Objects,
    around: &Surroundings,
) -> Result<Mounted, String> {
    let uid = spec::uid(pod);
    let place = |plugin: &str| paths.pod_volume(uid, plugin, &volume.name);
    let failed = |error: io::Error| error.to_string();
    let fs_group = spec::spec(pod).security_context.as_ref().and_then(|c| c.fs_group);
    if let Some(source) = &volume.host_path {
        let path = PathBuf::from(&source.path);
        mounts::check_host_path(&path, source.type_.as_deref().unwrap_or_default())?;
        return Ok(Mounted { path, read_only: false });
    }
    if let Some(source) = &volume.empty_dir {
        let path = place("empty-dir");
        set_up_empty_dir(&path, source, pod, around, fs_group).map_err(failed)?;
        return Ok(Mounted { path, read_only: false });
    }
    let (plugin, in_memory) = if volume.config_map.is_some() {
        ("configmap", false)
    } else if volume.secret.is_some() {
        ("secret", true)
    } else if volume.downward_api.is_some() {
        ("downward-api", true)
    } else if volume.projected.is_some() {
        ("projected", true)
    } else {
        return Err("no volume plugin matched".to_owned());
    };
    let files = payload(volume, pod, objects, around).ok_or("no volume plugin matched")??;
    let path = place(plugin);
    if in_memory {
        // secrets do not belong on a disk
        mounts::mount_tmpfs(&path, None, 0o777).map_err(failed)?;
    } else {
        make_folder(&path).map_err(failed)?;
    }
    atomic_writer::write(&path, &files, |folder| match fs_group {
        Some(group) => mounts::set_group(folder, group, true),
        None => Ok(()),
    })
    .map_err(failed)?;
    Ok(Mounted { path, read_only: true })
}

fn make_folder(path: &Path) -> io::Result<()> {
    if !path.is_dir() {
        fs::create_dir_all(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
    }
    Ok(())
}

fn set_up_empty_dir(
    path: &Path,
    source: &EmptyDirVolumeSource,
    pod: &Pod,
    around: &Surroundings,
    fs_group: Option<i64>,
) -> io::Result<()> {
    let ready = path.with_extension("ready");
    if path.is_dir() && ready.exists() {
        return Ok(());
    }
    match source.medium.as_deref().unwrap_or_default() {
        "" => make_folder(path)?,
        "Memory" => mounts::mount_tmpfs(path, Some(memory_size(source, pod, around)), 0o777)?,
        other => return Err(io::Error::other(format!("unsupported medium {other:?}"))),
    }
    if let Some(group) = fs_group {
        mounts::set_group(path, group, false)?;
    }
    // ownership is set once; what containers change later is theirs
    fs::write(ready, "")
}

/// The smallest of the volume's limit, the pod's memory limit, and what the node has to give.
fn memory_size(source: &EmptyDirVolumeSource, pod: &Pod, around: &Surroundings) -> i64 {
    let own = source.size_limit.as_ref().map(|q| Amount::of(q).value());
    let limits = resource::pod_limits(pod, &Options::default());
    let of_pod = limits.get(resource::MEMORY).map(|a| a.value());
    let of_node = around.allocatable.get(resource::MEMORY).map(|a| a.value());
    [own, of_pod, of_node].into_iter().flatten().filter(|size| *size > 0).min().unwrap_or_default()
}

/// Takes away all volumes of a pod; host paths stay.
pub fn tear_down(paths: &Paths, uid: &str) -> io::Result<()> {
    let folder = std::path::absolute(paths.pod(uid))?;
    if !folder.exists() {
        return Ok(());
    }
    mounts::unmount_below(&folder)?;
    crate::files::remove_all(&paths.pod_subpaths(uid))?;
    crate::files::remove_all(&paths.pod_volumes(uid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use serde_json::json;

    #[test]
    fn volumes_come_and_go() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let paths = Config::new("n", [10, 0, 0, 1].into(), folder.path()).paths();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"a": "1"}},
            "spec": {"containers": [], "securityContext": {"fsGroup": 77}, "volumes": [
                {"name": "disk", "emptyDir": {}},
                {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "host", "hostPath": {"path": "/etc", "type": "Directory"}},
                {"name": "down", "downwardAPI": {"items": [
                    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            ]},
        }))
        .expect("a pod");
        let objects = Objects::default();
        let around = Surroundings::default();
        let mounted = set_up(&pod, &paths, &objects, &around).expect("volumes");
        assert_eq!(mounted["host"].path, PathBuf::from("/etc"));
        assert!(mounts::is_mount_point(&mounted["memory"].path) && mounted["down"].read_only);
        fs::write(mounted["disk"].path.join("kept"), "x").expect("a file");
        set_up(&pod, &paths, &objects, &around).expect("again");
        assert!(mounted["disk"].path.join("kept").exists());
        assert_eq!(fs::read_to_string(mounted["down"].path.join("labels")).expect("a file"), "a=\"1\"");
        tear_down(&paths, "u").expect("gone");
        assert!(!paths.pod_volumes("u").exists());
        tear_down(&paths, "u").expect("still gone");
    }

    #[test]
    fn failures_name_their_volume() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = Config::new("n", [10, 0, 0, 1].into(), folder.path()).paths();
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": {"containers": [], "volumes": [
            {"name": "v", "configMap": {"name": "m"}}, {"name": "w", "nfs": {"path": "/", "server": "s"}}]}}))
            .expect("a pod");
        let errors =
            set_up(&pod, &paths, &Objects::default(), &Surroundings::default()).expect_err("failures");
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "MountVolume.SetUp failed for volume \"v\" : configmap \"m\" not found",
                "MountVolume.SetUp failed for volume \"w\" : no volume plugin matched"
            ]
        );
    }
}
