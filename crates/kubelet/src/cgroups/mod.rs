//! The cgroups of pods: `kubepods`, one below it per quality of service, one below that per pod. Containers' own
//! cgroups are the runtime's.

mod limits;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use component_helpers::qos::QosClass;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub use limits::{Limits, container_resources, limits_memory, pod_limits, shares};

/// The kernel charges memory in batches.
const CHARGED_AHEAD: i64 = 256 << 10;
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "memory", "pids", "io"];

#[derive(Debug, thiserror::Error)]
#[error("cannot {what} cgroup {path}: {source}")]
pub struct CgroupError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// How cgroups are mounted on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Hierarchy {
    /// One tree for all controllers.
    Unified(PathBuf),
    /// A tree per controller (or group of controllers), by controller name; trees of those that do not matter here,
    /// where runtimes make cgroups too, by their folder's.
    PerController(BTreeMap<String, PathBuf>),
}

/// The cgroups below a root, by the cgroupfs driver's names.
#[derive(Clone, Debug)]
pub struct Cgroups {
    hierarchy: Hierarchy,
    root: String,
}

impl Cgroups {
    /// Finds out how cgroups are mounted.
    pub fn detect(root: &str) -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let hierarchy = parse_mounts(&mounts)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no cgroup hierarchy is mounted"))?;
        Ok(Self { hierarchy, root: root.trim_end_matches('/').to_owned() })
    }

    pub fn kubepods(&self) -> String {
        format!("{}/kubepods", self.root)
    }

    pub fn qos(&self, class: QosClass) -> String {
        match class {
            QosClass::Guaranteed => self.kubepods(),
            QosClass::Burstable => format!("{}/burstable", self.kubepods()),
            QosClass::BestEffort => format!("{}/besteffort", self.kubepods()),
        }
    }

    /// `/kubepods/burstable/podUID`, which the runtime gets as the parent of containers.
    pub fn pod(&self, class: QosClass, uid: &str) -> String {
        format!("{}/pod{uid}", self.qos(class))
    }

    /// The folders of a cgroup, one per hierarchy.
    fn folders(&self, cgroup: &str) -> Vec<PathBuf> {
        let relative = cgroup.trim_start_matches('/');
        match &self.hierarchy {
            Hierarchy::Unified(mount) => vec![mount.join(relative)],
            Hierarchy::PerController(mounts) => {
                let mut folders: Vec<PathBuf> = mounts.values().map(|mount| mount.join(relative)).collect();
                folders.sort();
                folders.dedup();
                folders
            }
        }
    }

    /// Makes a cgroup and sets its limits; what it has already stays.
    pub fn ensure(&self, cgroup: &str, limits: &Limits) -> Result<(), CgroupError> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| CgroupError { what, path, source }
        };
        match &self.hierarchy {
            Hierarchy::Unified(mount) => {
                let mut folder = mount.clone();
                for part in cgroup.split('/').filter(|part| !part.is_empty()) {
                    // children get only the controllers that their parent hands on
                    for controller in CONTROLLERS {
                        let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
                    }
                    folder.push(part);
                    fs::create_dir_all(&folder).map_err(failed("make", &folder))?;
                }
                for (file, value) in limits.unified() {
                    let path = folder.join(file);
                    fs::write(&path, value).map_err(failed("limit", &path))?;
                }
            }
            Hierarchy::PerController(mounts) => {
                for controller in ["cpu", "memory", "pids"] {
                    let Some(mount) = mounts.get(controller) else { continue };
                    let folder = mount.join(cgroup.trim_start_matches('/'));
                    fs::create_dir_all(&folder).map_err(failed("make", &folder))?;
                    for (file, value) in limits.per_controller(controller) {
                        let path = folder.join(file);
                        fs::write(&path, value).map_err(failed("limit", &path))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether the kernel has killed for lack of memory in a cgroup or below it. Version 1 does not count that; there, that as
    /// much memory was used at a time as `limit` allows, since the last yes, stands for it: it says nothing of several
    /// containers.
    pub fn lacked_memory(&self, cgroup: &str, limit: i64) -> bool {
        let relative = cgroup.trim_start_matches('/');
        match &self.hierarchy {
            Hierarchy::Unified(mount) => {
                let events =
                    fs::read_to_string(mount.join(relative).join("memory.events")).unwrap_or_default();
                let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
                kills.and_then(|count| count.trim().parse().ok()).is_some_and(|count: u64| count > 0)
            }
            Hierarchy::PerController(mounts) => {
                let Some(mount) = mounts.get("memory") else { return false };
                let path = mount.join(relative).join("memory.max_usage_in_bytes");
                let most = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<i64>().ok());
                let lacked = most.is_some_and(|most| most >= limit - CHARGED_AHEAD);
                if lacked && let Err(error) = fs::write(&path, "0") {
                    tracing::debug!(%error, "a cgroup's highest use of memory stays");
                }
                lacked
            }
        }
    }

    /// Ends what still runs in a cgroup and removes it with all below it. Returns whether it is gone.
    pub fn remove(&self, cgroup: &str) -> bool {
        let mut gone = true;
        for folder in self.folders(cgroup) {
            gone &= remove_tree(&folder);
        }
        gone
    }

    /// The pods that have a cgroup, by uid.
    pub fn pods(&self) -> Vec<(String, String)> {
        let mut found = BTreeMap::new();
        for class in [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort] {
            for folder in self.folders(&self.qos(class)) {
                for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                    let name = entry.file_name();
                    if let Some(uid) = name.to_str().and_then(|name| name.strip_prefix("pod"))
                        && entry.path().is_dir()
                    {
                        found.insert(uid.to_owned(), self.pod(class, uid));
                    }
                }
            }
        }
        found.into_iter().collect()
    }
}

fn remove_tree(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return !folder.exists() };
    for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
        if !remove_tree(&entry.path()) {
            return false;
        }
    }
    let processes = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    for pid in processes.lines().filter_map(|line| line.parse().ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    match fs::remove_dir(folder) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn parse_mounts(mounts: &str) -> Option<Hierarchy> {
    let mut controllers = BTreeMap::new();
    let mut unified = None;
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(_), Some(point), Some(kind), Some(options)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        match kind {
            "cgroup2" => unified = unified.or(Some(PathBuf::from(point))),
            "cgroup" => {
                let known = |option: &&str| matches!(*option, "cpu" | "cpuacct" | "memory" | "pids");
                let mut names: Vec<&str> = options.split(',').filter(known).collect();
                if names.is_empty() {
                    names.extend(point.rsplit('/').next());
                }
                for name in names {
                    controllers.entry(name.to_owned()).or_insert_with(|| PathBuf::from(point));
                }
            }
            _ => {}
        }
    }
    // On a hybrid machine the controllers are in the old hierarchies and the new one is empty.
    if controllers.contains_key("memory") || controllers.contains_key("cpu") {
        controllers.extend(unified.map(|point| ("unified".to_owned(), point)));
        Some(Hierarchy::PerController(controllers))
    } else {
        unified.map(Hierarchy::Unified)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
        cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
        cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
        cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n\
        cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";

    #[test]
    fn mounts_tell_the_version() {
        let Some(Hierarchy::PerController(found)) = parse_mounts(HYBRID) else { panic!("version 1") };
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["cpu", "cpuacct", "memory", "systemd", "unified"]);
        assert_eq!(found["cpu"], PathBuf::from("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(
            parse_mounts("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"),
            Some(Hierarchy::Unified("/sys/fs/cgroup".into()))
        );
        assert_eq!(parse_mounts("proc /proc proc rw 0 0\n"), None);
    }

    #[test]
    fn pods_lie_below_their_class() {
        let cgroups = Cgroups { hierarchy: Hierarchy::Unified("/x".into()), root: String::new() };
        assert_eq!(cgroups.pod(QosClass::Guaranteed, "u"), "/kubepods/podu");
        assert_eq!(cgroups.pod(QosClass::Burstable, "u"), "/kubepods/burstable/podu");
        assert_eq!(cgroups.pod(QosClass::BestEffort, "u"), "/kubepods/besteffort/podu");
    }

    #[test]
    fn both_versions_are_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let limits = Limits { shares: Some(512), quota: Some(50_000), memory: Some(1 << 20) };
        let unified = Cgroups { hierarchy: Hierarchy::Unified(folder.path().join("v2")), root: "/r".into() };
        fs::create_dir(folder.path().join("v2")).expect("a folder");
        unified.ensure(&unified.pod(QosClass::Burstable, "u"), &limits).expect("made");
        let pod = folder.path().join("v2/r/kubepods/burstable/podu");
        assert_eq!(fs::read_to_string(pod.join("cpu.max")).expect("a limit"), "50000 100000");
        assert_eq!(fs::read_to_string(pod.join("memory.max")).expect("a limit"), "1048576");
        assert_eq!(unified.pods(), [("u".to_owned(), "/r/kubepods/burstable/podu".to_owned())]);
        let mounts = ["cpu", "memory", "pids"].map(|name| (name.to_owned(), folder.path().join(name)));
        let old = Cgroups { hierarchy: Hierarchy::PerController(mounts.into()), root: String::new() };
        old.ensure("/kubepods/podv", &limits).expect("made");
        let read = |file: &str| fs::read_to_string(folder.path().join(file)).expect("a limit");
        assert_eq!(read("cpu/kubepods/podv/cpu.shares"), "512");
        assert_eq!(read("cpu/kubepods/podv/cpu.cfs_quota_us"), "50000");
        assert_eq!(read("memory/kubepods/podv/memory.limit_in_bytes"), "1048576");
    }

    #[test]
    fn the_kernel_tells_of_a_lack_of_memory() {
        let folder = tempfile::tempdir().expect("a folder");
        let pod = folder.path().join("pod");
        fs::create_dir(&pod).expect("made");
        let unified = Cgroups { hierarchy: Hierarchy::Unified(folder.path().into()), root: String::new() };
        let one = BTreeMap::from([("memory".to_owned(), folder.path().to_owned())]);
        let split = Cgroups { hierarchy: Hierarchy::PerController(one), root: String::new() };
        assert!(!unified.lacked_memory("/pod", 100) && !split.lacked_memory("/pod", 100), "nothing is known");
        for (count, lacked) in [(0, false), (2, true)] {
            fs::write(pod.join("memory.events"), format!("low 0\noom 1\noom_kill {count}\n"))
                .expect("written");
            assert_eq!(unified.lacked_memory("/pod", 1 << 24), lacked);
        }
        for (most, lacked) in [((1 << 24) - 4096, true), (1 << 23, false)] {
            fs::write(pod.join("memory.max_usage_in_bytes"), most.to_string()).expect("written");
            assert_eq!(split.lacked_memory("/pod", 1 << 24), lacked, "{most}");
        }
    }
}
