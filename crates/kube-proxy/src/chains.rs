//! Names: of the chains that all Services share, and of those of one port, hashed as upstream does.

use data_encoding::BASE32_NOPAD;
use sha2::{Digest, Sha256};

use crate::endpoints::Endpoint;
use crate::service::PortName;

pub const SERVICES: &str = "KUBE-SERVICES";
pub const EXTERNAL_SERVICES: &str = "KUBE-EXTERNAL-SERVICES";
pub const NODE_PORTS: &str = "KUBE-NODEPORTS";
pub const POSTROUTING: &str = "KUBE-POSTROUTING";
pub const MARK_MASQ: &str = "KUBE-MARK-MASQ";
pub const FORWARD: &str = "KUBE-FORWARD";
pub const PROXY_FIREWALL: &str = "KUBE-PROXY-FIREWALL";
/// Holds nothing. When it is gone, somebody flushed the tables.
pub const CANARY: &str = "KUBE-PROXY-CANARY";
/// The kubelet's chain; the proxy writes the same one rule into it and leaves it at clean-up.
pub const KUBELET_FIREWALL: &str = "KUBE-FIREWALL";

const CLUSTER: &str = "KUBE-SVC-";
const LOCAL: &str = "KUBE-SVL-";
const FIREWALL: &str = "KUBE-FW-";
const EXTERNAL: &str = "KUBE-EXT-";
const ENDPOINT: &str = "KUBE-SEP-";

/// Whether a chain belongs to one Service port or endpoint.
pub fn is_of_service(chain: &str) -> bool {
    [CLUSTER, LOCAL, FIREWALL, EXTERNAL, ENDPOINT].iter().any(|prefix| chain.starts_with(prefix))
}

/// The chains of one port.
#[derive(Clone, Debug)]
pub struct PortChains {
    /// Spreads over all endpoints.
    pub cluster: String,
    /// Spreads over the endpoints of this node.
    pub local: String,
    /// Sorts traffic from load balancers by its source.
    pub firewall: String,
    /// Takes traffic to everything but the cluster IP.
    pub external: String,
}

impl PortChains {
    pub fn of(name: &PortName) -> Self {
        let hash = hash(&format!("{name}{}", name.protocol));
        Self {
            cluster: format!("{CLUSTER}{hash}"),
            local: format!("{LOCAL}{hash}"),
            firewall: format!("{FIREWALL}{hash}"),
            external: format!("{EXTERNAL}{hash}"),
        }
    }
}

/// The chain that sends to one endpoint of a port.
pub fn endpoint(name: &PortName, endpoint: &Endpoint) -> String {
    format!("{ENDPOINT}{}", hash(&format!("{name}{}{endpoint}", name.protocol)))
}

/// Chain names have at most 28 characters, so names are hashed: 16 characters of base32.
fn hash(text: &str) -> String {
    BASE32_NOPAD.encode(&Sha256::digest(text)[..10])
}

#[cfg(test)]
mod tests {
    use client::ObjectKey;

    use super::*;
    use crate::service::Protocol;

    #[test]
    fn names_are_those_that_upstream_gives() {
        let name =
            PortName { service: ObjectKey::new("ns1", "svc1"), port: "p80".into(), protocol: Protocol::Tcp };
        assert_eq!(PortChains::of(&name).cluster, "KUBE-SVC-XPGD46QRK7WJZT7O");
        let endpoint_80 = Endpoint {
            ip: [10, 180, 0, 1].into(),
            port: 80,
            ready: true,
            serving: true,
            terminating: false,
            local: false,
            zone_hints: Vec::new(),
            node_hints: Vec::new(),
        };
        assert_eq!(endpoint(&name, &endpoint_80), "KUBE-SEP-SXIVWICOYRO3J4NJ");
    }
}
