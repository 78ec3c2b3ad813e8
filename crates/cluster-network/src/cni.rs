//! The network configuration that the container runtime gives to the CNI plugins.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// The file's name; the runtime takes the first in the folder.
pub const FILE: &str = "10-xebec.conflist";
/// The bridge that pods of a node hang on.
pub const BRIDGE: &str = "cni0";

#[derive(Debug, thiserror::Error)]
pub enum CniError {
    #[error("{0:?} is not a CIDR")]
    Cidr(String),
    #[error("cannot write {0}: {1}")]
    Write(PathBuf, io::Error),
}

/// What a node's pod network depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// `Node.spec.podCIDRs`
    pub pod_cidrs: Vec<String>,
    /// Where host-local keeps the addresses it gave away.
    pub state: PathBuf,
    /// Of the pods' interfaces; 0 leaves it to the kernel.
    pub mtu: u32,
}

fn default_route(cidr: &str) -> Result<&'static str, CniError> {
    let bad = || CniError::Cidr(cidr.to_owned());
    let (address, length) = cidr.split_once('/').ok_or_else(bad)?;
    let address: IpAddr = address.parse().map_err(|_| bad())?;
    let length: u8 = length.parse().map_err(|_| bad())?;
    match address {
        IpAddr::V4(_) if length <= 32 => Ok("0.0.0.0/0"),
        IpAddr::V6(_) if length <= 128 => Ok("::/0"),
        _ => Err(bad()),
    }
}

/// A bridge with hairpin (a pod may reach itself through its Service), addresses by host-local, host ports by
/// portmap. Masquerading is not the bridge's: traffic between pods keeps its source.
pub fn conflist(network: &Network) -> Result<Value, CniError> {
    let mut ranges = Vec::new();
    let mut routes = Vec::new();
    for cidr in &network.pod_cidrs {
        let route = json!({"dst": default_route(cidr)?});
        // one per family, however many ranges it has
        if !routes.contains(&route) {
            routes.push(route);
        }
        ranges.push(json!([{"subnet": cidr}]));
    }
    let mut bridge = json!({
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": true,
        "isDefaultGateway": false,
        "ipMasq": false,
        "hairpinMode": true,
        "ipam": {"type": "host-local", "dataDir": network.state, "ranges": ranges, "routes": routes},
    });
    if network.mtu > 0 {
        bridge["mtu"] = network.mtu.into();
    }
    Ok(json!({
        "cniVersion": "0.4.0",
        "name": "xebec",
        "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}],
    }))
}

/// Writes the configuration as one step; returns whether it is new.
pub fn write(folder: &Path, network: &Network) -> Result<bool, CniError> {
    let path = folder.join(FILE);
    let failed = |error| CniError::Write(path.clone(), error);
    let content = format!("{:#}\n", conflist(network)?);
    if fs::read_to_string(&path).is_ok_and(|old| old == content) {
        return Ok(false);
    }
    fs::create_dir_all(folder).map_err(failed)?;
    // The runtime watches the folder and must not see half a file.
    let temporary = folder.join(format!(".{FILE}"));
    let mut file = fs::File::create(&temporary).map_err(failed)?;
    file.write_all(content.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&temporary, &path).map_err(failed)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(cidrs: &[&str]) -> Network {
        Network {
            pod_cidrs: cidrs.iter().map(|c| (*c).to_owned()).collect(),
            state: "/data/cni/networks".into(),
            mtu: 0,
        }
    }

    #[test]
    fn the_configuration_follows_the_pod_cidrs() {
        let list = conflist(&network(&["10.244.1.0/24", "fd00:1::/64"])).expect("a configuration");
        insta::assert_snapshot!(format!("{list:#}"));
    }

    #[test]
    fn bad_cidrs_are_refused() {
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "x/24", "::/129"] {
            assert!(matches!(conflist(&network(&[bad])), Err(CniError::Cidr(_))), "{bad}");
        }
    }

    #[test]
    fn the_file_changes_only_with_the_network() {
        let folder = tempfile::tempdir().expect("a folder");
        let one = network(&["10.244.1.0/24"]);
        assert!(write(folder.path(), &one).expect("written"));
        assert!(!write(folder.path(), &one).expect("unchanged"));
        assert!(write(folder.path(), &network(&["10.244.2.0/24"])).expect("written"));
        assert_eq!(fs::read_dir(folder.path()).expect("a listing").count(), 1);
    }
}
