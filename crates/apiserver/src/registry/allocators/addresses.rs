//! Cluster addresses: an address is taken by whoever creates the `IPAddress` object of its name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use apimachinery::{Object, Reason, Status};
use rand::Rng;
use serde_json::json;

use super::families::{Family, V4, V6, family_of};
use crate::context::{Context, WriteOptions};
use crate::registry::{DeleteOptions, Registry};

/// The label by which allocated addresses are told from those that people write, and its value.
pub const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
pub const MANAGER: &str = "ipallocator.k8s.io";

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    base: IpAddr,
    prefix: u8,
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("{text:?} is not a range of addresses such as 10.96.0.0/16");
        let (ip, prefix) = text.split_once('/').ok_or_else(refuse)?;
        let ip: IpAddr = ip.parse().map_err(|_| refuse())?;
        let prefix: u8 = prefix.parse().map_err(|_| refuse())?;
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        if prefix > bits {
            return Err(refuse());
        }
        let host = bits - prefix;
        let base = number(ip).checked_shr(host.into()).unwrap_or(0).checked_shl(host.into()).unwrap_or(0);
        Ok(Self { base: address(base, ip.is_ipv4()), prefix })
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

fn address(number: u128, v4: bool) -> IpAddr {
    match v4 {
        true => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
        false => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

impl Cidr {
    pub fn is_ipv6(&self) -> bool {
        self.base.is_ipv6()
    }

    pub fn family(&self) -> Family {
        if self.is_ipv6() { V6 } else { V4 }
    }

    /// The address so many places into the range.
    pub fn nth(&self, offset: u128) -> IpAddr {
        address(number(self.base).saturating_add(offset), self.base.is_ipv4())
    }

    /// How many addresses can be given out: all but the first, and but the broadcast address of IPv4.
    fn usable(&self) -> u128 {
        let bits: u32 = if self.base.is_ipv4() { 32 } else { 128 };
        // larger ranges than this are used in part, as upstream does
        let host = (bits - u32::from(self.prefix)).min(64);
        let all = 1_u128 << host;
        all.saturating_sub(if self.base.is_ipv4() { 2 } else { 1 })
    }

    /// Whether an address can be given out.
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.base.is_ipv4() && {
            let offset = number(ip).wrapping_sub(number(self.base));
            offset >= 1 && offset <= self.usable()
        }
    }
}

/// The ranges that a server is started with: one, or one of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceRanges {
    pub primary: Cidr,
    pub secondary: Option<Cidr>,
}

impl FromStr for ServiceRanges {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ranges: Vec<Cidr> =
            text.split(',').map(|range| range.trim().parse()).collect::<Result<_, _>>()?;
        match ranges.as_slice() {
            [primary] => Ok(Self { primary: *primary, secondary: None }),
            [primary, secondary] if primary.is_ipv6() != secondary.is_ipv6() => {
                Ok(Self { primary: *primary, secondary: Some(*secondary) })
            }
            [_, _] => Err("the two ranges must be of different families".into()),
            _ => Err("there can be two ranges at most".into()),
        }
    }
}

impl std::fmt::Display for ServiceRanges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.primary)?;
        self.secondary.map_or(Ok(()), |range| write!(f, ",{range}"))
    }
}

impl ServiceRanges {
    pub fn iter(&self) -> impl Iterator<Item = Cidr> {
        std::iter::once(self.primary).chain(self.secondary)
    }

    /// The families that Services can have, the cluster's own first.
    pub fn families(&self) -> Vec<Family> {
        self.iter().map(|range| range.family()).collect()
    }

    /// The range of a family that the server was started with.
    pub fn of_family(&self, v6: bool) -> Option<Cidr> {
        self.iter().find(|range| range.is_ipv6() == v6)
    }

    /// All ranges of a family: the server's own, and those of `ServiceCIDR` objects that are ready.
    pub fn of(&self, registry: &Registry, family: Family) -> Vec<Cidr> {
        let mut out: Vec<Cidr> = self.iter().filter(|range| range.family() == family).collect();
        let kind = registry.kind("networking.k8s.io", "v1", "servicecidrs");
        let Some(cache) = kind.and_then(|kind| registry.cache.resource(kind)) else { return out };
        for entry in cache.snapshot().iter().filter(|entry| !entry.is_deleting()) {
            let Ok(object) = entry.object() else { continue };
            let ready = object
                .get_array(&["status", "conditions"])
                .iter()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
            if !ready {
                continue;
            }
            let ranges = object.get_array(&["spec", "cidrs"]).iter().filter_map(|range| range.as_str());
            for range in ranges.filter_map(|range| range.parse::<Cidr>().ok()) {
                if range.family() == family && !out.contains(&range) {
                    out.push(range);
                }
            }
        }
        out
    }
}

fn all(ranges: &[Cidr]) -> String {
    let texts: Vec<String> = ranges.iter().map(Cidr::to_string).collect();
    texts.join(", ")
}

/// Takes a given address out of ranges. The error says why not.
pub async fn take(
    ranges: &[Cidr],
    registry: &Registry,
    service: &Object,
    ip: IpAddr,
    dry_run: bool,
) -> Result<(), String> {
    if !ranges.iter().any(|range| range.contains(ip)) {
        return Err(format!(
            "the provided IP ({ip}) is not in the valid range. The range of valid IPs is {}",
            all(ranges)
        ));
    }
    match record(registry, service, ip, dry_run).await {
        Ok(()) => Ok(()),
        Err(status) if status.is(Reason::AlreadyExists) => Err("provided IP is already allocated".into()),
        Err(status) => Err(status.to_string()),
    }
}

/// Takes a free address: any of the upper part of a range first, which leaves the lower one to those who choose.
pub async fn take_any(
    ranges: &[Cidr],
    registry: &Registry,
    service: &Object,
    dry_run: bool,
) -> Result<IpAddr, Status> {
    let kind = registry.kind("networking.k8s.io", "v1", "ipaddresses");
    let taken = kind.and_then(|kind| Some(registry.cache.resource(kind)?.snapshot()));
    for range in ranges {
        let usable = range.usable();
        let reserved = (usable / 16).clamp(16, 256).min(usable.saturating_sub(1));
        let upper = usable - reserved;
        let start = rand::rng().random_range(0..upper.max(1));
        let dynamic = (0..upper).map(|i| 1 + reserved + (start + i) % upper);
        for offset in dynamic.chain(1..=reserved) {
            let ip = range.nth(offset);
            let known =
                taken.as_ref().is_some_and(|all| all.get(&format!("/registry/ipaddresses/{ip}")).is_some());
            if known {
                continue;
            }
            match record(registry, service, ip, dry_run).await {
                Ok(()) => return Ok(ip),
                Err(status) if status.is(Reason::AlreadyExists) => {}
                Err(status) => return Err(status),
            }
        }
    }
    Err(Status::internal("failed to allocate a serviceIP: range is full"))
}

/// The object that says whose an address is.
pub async fn record(registry: &Registry, service: &Object, ip: IpAddr, dry_run: bool) -> Result<(), Status> {
    let Some(kind) = registry.kind("networking.k8s.io", "v1", "ipaddresses") else { return Ok(()) };
    let object = Object::from(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {"name": ip.to_string(), "labels": {
            "ipaddress.kubernetes.io/ip-family": family_of(ip),
            MANAGED_BY: MANAGER,
        }},
        "spec": {"parentRef": {
            "resource": "services", "namespace": service.namespace(), "name": service.name(),
        }},
    }));
    let options = WriteOptions { dry_run, ..WriteOptions::default() };
    // the registry calls the allocators, and these call the registry: the box ends the circle of types
    Box::pin(registry.create(&Context::internal(), kind, "", object, options)).await.map(drop)
}

pub async fn release(registry: &Registry, ip: IpAddr) {
    let Some(kind) = registry.kind("networking.k8s.io", "v1", "ipaddresses") else { return };
    let name = ip.to_string();
    let gone =
        Box::pin(registry.delete(&Context::internal(), kind, "", &name, &DeleteOptions::default())).await;
    if let Err(status) = gone
        && !status.is(Reason::NotFound)
    {
        tracing::warn!(%ip, %status, "a Service address could not be released");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_gives_out_neither_its_ends() {
        let range: Cidr = "10.96.7.9/24".parse().unwrap();
        assert_eq!(range.to_string(), "10.96.7.0/24");
        for (ip, inside) in [
            ("10.96.7.0", false),
            ("10.96.7.1", true),
            ("10.96.7.254", true),
            ("10.96.7.255", false),
            ("10.96.8.1", false),
            ("fd00::1", false),
        ] {
            assert_eq!(range.contains(ip.parse().unwrap()), inside, "{ip}");
        }
        let both: ServiceRanges = "10.96.0.0/16,fd00:10:96::/112".parse().unwrap();
        assert_eq!(
            (both.families(), both.to_string()),
            (vec![V4, V6], "10.96.0.0/16,fd00:10:96::/112".into())
        );
        assert!("10.96.0.0/16,10.97.0.0/16".parse::<ServiceRanges>().is_err());
        assert!("10.96.0.0".parse::<Cidr>().is_err() && "10.96.0.0/33".parse::<Cidr>().is_err());
    }
}
