//! What the machine is and has.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use component_helpers::amount::Amount;
use component_helpers::resource::{CPU, EPHEMERAL_STORAGE, MEMORY, PODS, ResourceList};

/// Kept free for the node itself before pods are thrown out (upstream's default hard eviction thresholds).
const RESERVED_MEMORY: i64 = 100 << 20;
const RESERVED_DISK_PERCENT: i64 = 10;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    pub cpus: i64,
    pub memory: i64,
    pub swap: i64,
    /// Bytes of the file system that pods write to.
    pub disk: i64,
    pub huge_pages: BTreeMap<String, i64>,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel: String,
    pub os_image: String,
    pub architecture: String,
    pub hostname: String,
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// A line `MemTotal:  24551356 kB` of /proc/meminfo, in bytes.
fn meminfo(text: &str, name: &str) -> i64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()).and_then(|n| n.parse::<i64>().ok());
    kilobytes.unwrap_or_default() << 10
}

fn os_image(release: &str) -> String {
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map(|name| name.trim_matches('"').to_owned()).unwrap_or_else(|| "Linux".to_owned())
}

fn huge_pages() -> BTreeMap<String, i64> {
    let mut pages = BTreeMap::new();
    for entry in fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let size =
            name.to_str().and_then(|n| n.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<i64>().ok());
        if let Some(kilobytes) = size {
            let count: i64 =
                read(&entry.path().join("nr_hugepages").to_string_lossy()).parse().unwrap_or_default();
            let label = match kilobytes {
                k if k % (1 << 20) == 0 => format!("hugepages-{}Gi", k >> 20),
                k if k % (1 << 10) == 0 => format!("hugepages-{}Mi", k >> 10),
                k => format!("hugepages-{k}Ki"),
            };
            pages.insert(label, count * (kilobytes << 10));
        }
    }
    pages
}

impl Machine {
    /// Looks at the machine; `data` is a folder on the file system that pods write to.
    pub fn look(data: &Path) -> Self {
        let memory = read("/proc/meminfo");
        let disk = nix::sys::statvfs::statvfs(data)
            .map(|fs| i64::try_from(fs.blocks() * fs.fragment_size()).unwrap_or(i64::MAX))
            .unwrap_or_default();
        let id = match read("/etc/machine-id") {
            id if id.is_empty() => read("/var/lib/dbus/machine-id"),
            id => id,
        };
        let uuid = match read("/sys/class/dmi/id/product_uuid") {
            uuid if uuid.is_empty() => id.clone(),
            uuid => uuid.to_lowercase(),
        };
        Self {
            cpus: std::thread::available_parallelism().map_or(1, |n| i64::try_from(n.get()).unwrap_or(1)),
            memory: meminfo(&memory, "MemTotal"),
            swap: meminfo(&memory, "SwapTotal"),
            disk,
            huge_pages: huge_pages(),
            machine_id: id,
            system_uuid: uuid,
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            kernel: read("/proc/sys/kernel/osrelease"),
            os_image: os_image(&read("/etc/os-release")),
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64".to_owned(),
                "aarch64" => "arm64".to_owned(),
                other => other.to_owned(),
            },
            hostname: read("/proc/sys/kernel/hostname"),
        }
    }

    pub fn capacity(&self, max_pods: u32) -> ResourceList {
        let mut list: ResourceList = [
            (CPU, Amount::from_units(self.cpus)),
            (MEMORY, Amount::from_units(self.memory)),
            (EPHEMERAL_STORAGE, Amount::from_units(self.disk)),
            (PODS, Amount::from_units(i64::from(max_pods))),
        ]
        .into_iter()
        .collect();
        for (name, bytes) in &self.huge_pages {
            list.set(name, Amount::from_units(*bytes));
        }
        list
    }

    /// What pods may use: the capacity without what is kept free.
    pub fn allocatable(&self, max_pods: u32) -> ResourceList {
        let mut list = self.capacity(max_pods);
        let huge: i64 = self.huge_pages.values().sum();
        list.set(MEMORY, Amount::from_units((self.memory - huge - RESERVED_MEMORY).max(0)));
        list.set(EPHEMERAL_STORAGE, Amount::from_units(self.disk - self.disk / 100 * RESERVED_DISK_PERCENT));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read() {
        let text = "MemTotal:       24551356 kB\nMemFree:  1 kB\nSwapTotal:             0 kB\n";
        assert_eq!(meminfo(text, "MemTotal"), 24_551_356 << 10);
        assert_eq!((meminfo(text, "SwapTotal"), meminfo(text, "None")), (0, 0));
        assert_eq!(
            os_image("ID=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
            "Debian GNU/Linux 12 (bookworm)"
        );
    }

    #[test]
    fn this_machine_has_something() {
        let machine = Machine::look(Path::new("/"));
        assert!(machine.cpus > 0 && machine.memory > 0 && machine.disk > 0 && !machine.kernel.is_empty());
        let (capacity, allocatable) = (machine.capacity(110), machine.allocatable(110));
        assert!(allocatable.memory() < capacity.memory());
        assert_eq!(allocatable.get(PODS), Some(Amount::from_units(110)));
    }
}
