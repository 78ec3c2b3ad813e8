//! What no compiler checks: that the floors of the house hold, that every module says what it owns, that the
//! binary stays wiring.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Crates by floor; a crate may use crates of lower floors only.
const FLOORS: [(&str, u8); 19] = [
    ("apimachinery", 1),
    ("storage", 1),
    ("streams", 1),
    ("api", 2),
    ("client", 2),
    ("component-base", 2),
    ("component-helpers", 2),
    ("apiserver", 3),
    ("cluster-dns", 3),
    ("cluster-network", 3),
    ("controller-manager", 3),
    ("kube-proxy", 3),
    ("kubelet", 3),
    ("scheduler", 3),
    ("xebec", 4),
    ("bench", 5),
    ("e2e", 5),
    ("fuzz", 5),
    ("xtask", 5),
];

/// The one crate that may touch storage, besides the binary that opens it.
const STORAGE_USERS: [&str; 2] = ["apiserver", "xebec"];

/// Crates of one floor that may use each other nevertheless: the kubelet writes the CNI configuration, and the pod
/// network's rules are written by the proxy's iptables.
const SAME_FLOOR: [(&str, &str); 2] = [("cluster-network", "kube-proxy"), ("kubelet", "cluster-network")];

const MAIN_LINES: usize = 60;

pub fn check() -> anyhow::Result<()> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crates' folder")?;
    let mut wrong = Vec::new();
    for entry in fs::read_dir(crates)? {
        let folder = entry?.path();
        if !folder.join("Cargo.toml").exists() {
            continue;
        }
        check_floors(&folder, &mut wrong)?;
        check_sources(&folder.join("src"), &mut wrong)?;
    }
    let main = fs::read_to_string(crates.join("xebec/src/main.rs"))?;
    if main.lines().count() > MAIN_LINES {
        wrong.push(format!("xebec/src/main.rs has more than {MAIN_LINES} lines"));
    }
    let root = crates.parent().context("the repository")?;
    wrong.extend(crate::conformance::count(root).err().map(|error| error.to_string()));
    if wrong.is_empty() {
        return Ok(());
    }
    wrong.sort();
    bail!("{} things are not tidy:\n  {}", wrong.len(), wrong.join("\n  "))
}

fn floor(name: &str) -> Option<u8> {
    FLOORS.iter().find(|(own, _)| *own == name).map(|(_, floor)| *floor)
}

fn check_floors(folder: &Path, wrong: &mut Vec<String>) -> anyhow::Result<()> {
    let name = folder.file_name().and_then(|name| name.to_str()).context("a crate's name")?;
    let Some(own) = floor(name) else {
        wrong.push(format!("{name} has no floor; give it one in xtask"));
        return Ok(());
    };
    let manifest = fs::read_to_string(folder.join("Cargo.toml"))?;
    let mut section = "";
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        }
        if section != "[dependencies]" {
            continue;
        }
        let Some(used) = line.split(['.', ' ', '=']).next().filter(|used| floor(used).is_some()) else {
            continue;
        };
        let lower = floor(used).is_some_and(|used| used < own);
        if !lower && !SAME_FLOOR.contains(&(name, used)) {
            wrong.push(format!("{name} uses {used}, which is not on a lower floor"));
        }
        if used == "storage" && own < 5 && !STORAGE_USERS.contains(&name) {
            wrong.push(format!("{name} uses storage; only the API server may"));
        }
    }
    Ok(())
}

fn check_sources(folder: &Path, wrong: &mut Vec<String>) -> anyhow::Result<()> {
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let text = fs::read_to_string(&path)?;
            if !text.starts_with("//!") {
                wrong.push(format!("{} does not say what it owns in its first line", path.display()));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_of_a_higher_floor_is_found() {
        let folder = std::env::temp_dir().join(format!("tidy-{}", std::process::id())).join("storage");
        fs::create_dir_all(&folder).unwrap();
        fs::write(
            folder.join("Cargo.toml"),
            "[dependencies]\napi.workspace = true\nbytes.workspace = true\n",
        )
        .unwrap();
        let mut wrong = Vec::new();
        check_floors(&folder, &mut wrong).unwrap();
        fs::remove_dir_all(folder.parent().unwrap()).unwrap();
        assert_eq!(wrong, ["storage uses api, which is not on a lower floor"]);
    }
}
