//! Which records a name of the cluster has (Kubernetes' DNS specification 1.1.0, and CoreDNS where that is silent).
//! Pure lookups in stores that informers fill.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use client::{ObjectKey, Store};
use hickory_server::proto::ProtoError;
use hickory_server::proto::rr::rdata::{CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// Seconds for which clients may keep an answer.
const TTL: u32 = 30;
const SCHEMA_VERSION: &str = "1.1.0";
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Services by their own addresses.
const BY_CLUSTER_IP: &str = "cluster-dns/cluster-ip";
/// Slices by the Service they belong to.
const BY_SERVICE: &str = "cluster-dns/service";
/// Slices by the addresses in them.
const BY_ADDRESS: &str = "cluster-dns/address";

/// The Service through which pods reach this server.
pub const DNS_NAMESPACE: &str = "kube-system";
pub const DNS_SERVICE: &str = "kube-dns";

/// The objects that have names.
#[derive(Clone)]
pub struct World {
    pub services: Arc<Store<Service>>,
    pub slices: Arc<Store<EndpointSlice>>,
    pub namespaces: Arc<Store<Namespace>>,
}

impl World {
    pub fn new(
        services: Arc<Store<Service>>,
        slices: Arc<Store<EndpointSlice>>,
        namespaces: Arc<Store<Namespace>>,
    ) -> Self {
        services
            .add_index(BY_CLUSTER_IP, |service| cluster_ips(service).iter().map(IpAddr::to_string).collect());
        slices.add_index(BY_SERVICE, |slice| {
            service_of(slice).map(|key| key.to_string()).into_iter().collect()
        });
        slices.add_index(BY_ADDRESS, |slice| {
            let endpoints = slice.endpoints.iter().flatten().filter(|endpoint| is_ready(endpoint));
            let addresses = endpoints.filter_map(address);
            // one entry per address, however often it occurs
            addresses.map(|ip| ip.to_string()).collect::<BTreeSet<_>>().into_iter().collect()
        });
        Self { services, slices, namespaces }
    }

    fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.get("", name).is_some()
    }
}

fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    Some(ObjectKey::new(slice.metadata.namespace.clone()?, name.clone()))
}

fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    // `None` of headless Services is no address
    let ips: BTreeSet<IpAddr> = all.filter_map(|ip| ip.parse().ok()).collect();
    ips.into_iter().collect()
}

/// Addresses that are to be published before they are ready are marked as ready by who writes the slice.
fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

fn address(endpoint: &Endpoint) -> Option<IpAddr> {
    endpoint.addresses.first()?.parse().ok()
}

/// The label under which an endpoint is found below its Service.
fn endpoint_label(endpoint: &Endpoint, ip: IpAddr) -> String {
    match endpoint.hostname.as_deref() {
        Some(hostname) if !hostname.is_empty() => hostname.to_owned(),
        _ => ip.to_string().replace(['.', ':'], "-"),
    }
}

/// What there is to say about a name.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Records {
        answers: Vec<Record>,
        additionals: Vec<Record>,
    },
    /// The name stands for another one, which may be anywhere.
    Alias {
        record: Box<Record>,
        target: Name,
    },
    /// The name exists, without records of this type.
    NoData,
    NxDomain,
    /// An address that belongs to nothing in the cluster, or a name outside of it.
    NotOurs,
}

/// A place where a Service answers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    ip: IpAddr,
    /// An endpoint may have none.
    port: Option<u16>,
    /// The label of the endpoint; none for the Service's own address.
    label: Option<String>,
}

/// What a name below the cluster's domain asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked<'a> {
    Apex,
    Version,
    NameServer,
    /// `svc` or `pod` itself: there are names below it.
    Branch,
    Namespace(&'a str),
    Pod {
        namespace: &'a str,
        address: &'a str,
    },
    Service {
        namespace: &'a str,
        name: &'a str,
        below: Below<'a>,
    },
    Unknown,
}

#[derive(Debug, PartialEq, Eq)]
enum Below<'a> {
    Nothing,
    Endpoint(&'a str),
    Port { name: &'a str, protocol: &'a str },
}

/// The names of a cluster.
pub struct Zone {
    /// In lower case, with its dot at the end.
    domain: String,
    origin: Name,
    soa: Record,
    name_server: Name,
    world: World,
}

impl Zone {
    pub fn new(domain: &str, world: World) -> Result<Self, ProtoError> {
        let domain = format!("{}.", domain.trim_matches('.').to_ascii_lowercase());
        let origin = Name::from_ascii(&domain)?;
        let name_server = Name::from_ascii(format!("ns.dns.{domain}"))?;
        let hostmaster = Name::from_ascii(format!("hostmaster.{domain}"))?;
        let serial = std::time::UNIX_EPOCH.elapsed().map(|since| since.as_secs() as u32).unwrap_or_default();
        let soa = SOA::new(name_server.clone(), hostmaster, serial, 7200, 1800, 86400, TTL);
        let soa = Record::from_rdata(origin.clone(), TTL, RData::SOA(soa));
        Ok(Self { domain, origin, soa, name_server, world })
    }

    /// What goes with an answer that there is nothing.
    pub fn soa(&self) -> &Record {
        &self.soa
    }

    pub fn contains(&self, name: &Name) -> bool {
        self.origin.zone_of(name)
    }

    /// Answers carry the name as it was asked, for clients that vary its case.
    pub fn answer(&self, name: &Name, kind: RecordType) -> Answer {
        let lower = name.to_ascii().to_ascii_lowercase();
        let Some(base) = self.below_domain(&lower) else { return self.reverse(name, kind) };
        match parse(base) {
            Asked::Apex => match kind {
                RecordType::SOA => records([self.soa.clone()]),
                RecordType::NS => Answer::Records {
                    answers: vec![record(name, RData::NS(NS(self.name_server.clone())))],
                    additionals: self
                        .own_addresses()
                        .map(|ip| address_record(&self.name_server, ip))
                        .collect(),
                },
                _ => Answer::NoData,
            },
            Asked::Version if kind == RecordType::TXT => {
                records([record(name, RData::TXT(TXT::new(vec![SCHEMA_VERSION.to_owned()])))])
            }
            Asked::Version | Asked::Branch => Answer::NoData,
            Asked::NameServer => addresses(name, kind, self.own_addresses()),
            Asked::Namespace(namespace) => match self.world.has_namespace(namespace) {
                true => Answer::NoData,
                false => Answer::NxDomain,
            },
            Asked::Pod { namespace, address } => match pod_address(address) {
                // the address is taken from the name; that there is such a pod is not looked up
                Some(ip) if self.world.has_namespace(namespace) => addresses(name, kind, [ip].into_iter()),
                _ => Answer::NxDomain,
            },
            Asked::Service { namespace, name: service, below } => {
                match self.world.services.get(namespace, service) {
                    Some(found) => self.service(name, kind, &found, &below),
                    None => Answer::NxDomain,
                }
            }
            Asked::Unknown => Answer::NxDomain,
        }
    }

    fn below_domain<'a>(&self, lower: &'a str) -> Option<&'a str> {
        let base = lower.strip_suffix(&self.domain)?;
        if base.is_empty() { Some(base) } else { base.strip_suffix('.') }
    }

    fn own_addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let service = self.world.services.get(DNS_NAMESPACE, DNS_SERVICE);
        service.map(|service| cluster_ips(&service)).unwrap_or_default().into_iter()
    }

    fn service(&self, name: &Name, kind: RecordType, service: &Service, below: &Below<'_>) -> Answer {
        let spec = service.spec.as_ref();
        if spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
            let target = spec.and_then(|spec| spec.external_name.as_deref()).unwrap_or_default();
            return external_name(name, kind, target, below);
        }
        let Some(targets) = self.targets(service, below) else { return Answer::NxDomain };
        match kind {
            RecordType::SRV => self.srv(name, service, targets),
            _ => addresses(name, kind, targets.into_iter().map(|target| target.ip)),
        }
    }

    /// Where a Service answers: its own address, or its endpoints when it is headless or one of them is asked for.
    /// `None` when nothing of that name is there.
    fn targets(&self, service: &Service, below: &Below<'_>) -> Option<BTreeSet<Target>> {
        let not_empty = |targets: BTreeSet<Target>| Some(targets).filter(|targets| !targets.is_empty());
        let own = cluster_ips(service);
        let mut targets = BTreeSet::new();
        if own.is_empty() || matches!(below, Below::Endpoint(_)) {
            for slice in self.world.slices.by_index(BY_SERVICE, &ObjectKey::of(service).to_string()) {
                endpoint_targets(&slice, below, &mut targets);
            }
            return not_empty(targets);
        }
        let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        let asked = ports.filter(|port| below.is_port(port.name.as_deref(), port.protocol.as_deref()));
        for port in asked {
            let number = u16::try_from(port.port).ok();
            targets.extend(own.iter().map(|ip| Target { ip: *ip, port: number, label: None }));
        }
        not_empty(targets)
    }

    fn srv(&self, name: &Name, service: &Service, targets: BTreeSet<Target>) -> Answer {
        let key = ObjectKey::of(service);
        let mut places = BTreeSet::new();
        let mut additionals = Vec::new();
        let mut named = BTreeSet::new();
        for target in &targets {
            let Some(port) = target.port else { continue };
            let Some(host) = self.name_of(&key, target.label.as_deref()) else { continue };
            if named.insert((host.clone(), target.ip)) {
                additionals.push(address_record(&host, target.ip));
            }
            places.insert((host, port));
        }
        if places.is_empty() {
            return Answer::NoData;
        }
        let weight = (100 / places.len()).max(1) as u16;
        let srv = |(host, port)| record(name, RData::SRV(SRV::new(0, weight, port, host)));
        Answer::Records { answers: places.into_iter().map(srv).collect(), additionals }
    }

    fn name_of(&self, service: &ObjectKey, label: Option<&str>) -> Option<Name> {
        let label = label.map(|label| format!("{label}.")).unwrap_or_default();
        let ObjectKey { namespace, name } = service;
        Name::from_ascii(format!("{label}{name}.{namespace}.svc.{}", self.domain)).ok()
    }

    /// The names of an address: of the Service it belongs to, else of the endpoints that have it.
    fn reverse(&self, name: &Name, kind: RecordType) -> Answer {
        let Ok(network) = name.parse_arpa_name() else { return Answer::NotOurs };
        if network.prefix_len() != network.max_prefix_len() {
            return Answer::NotOurs;
        }
        let ip = network.addr();
        let text = ip.to_string();
        let services = self.world.services.by_index(BY_CLUSTER_IP, &text);
        let mut names: BTreeSet<Name> = services
            .iter()
            .filter_map(|service| self.name_of(&ObjectKey::of(service.as_ref()), None))
            .collect();
        if names.is_empty() {
            for slice in self.world.slices.by_index(BY_ADDRESS, &text) {
                let Some(service) = service_of(&slice) else { continue };
                let endpoints = slice.endpoints.iter().flatten();
                let here = endpoints.filter(|endpoint| is_ready(endpoint) && address(endpoint) == Some(ip));
                names.extend(
                    here.filter_map(|endpoint| self.name_of(&service, Some(&endpoint_label(endpoint, ip)))),
                );
            }
        }
        match (names.is_empty(), kind) {
            (true, _) => Answer::NotOurs,
            (false, RecordType::PTR) => {
                records(names.into_iter().map(|target| record(name, RData::PTR(PTR(target)))))
            }
            (false, _) => Answer::NoData,
        }
    }
}

impl Below<'_> {
    fn is_port(&self, name: Option<&str>, protocol: Option<&str>) -> bool {
        match self {
            Self::Nothing | Self::Endpoint(_) => true,
            Self::Port { name: asked, protocol: over } => {
                asked.eq_ignore_ascii_case(name.unwrap_or_default())
                    && over.eq_ignore_ascii_case(protocol.unwrap_or("TCP"))
            }
        }
    }
}

fn endpoint_targets(slice: &EndpointSlice, below: &Below<'_>, targets: &mut BTreeSet<Target>) {
    let ports = slice.ports.as_deref().unwrap_or_default();
    let asked = ports.iter().filter(|port| below.is_port(port.name.as_deref(), port.protocol.as_deref()));
    let mut numbers: Vec<Option<u16>> =
        asked.map(|port| port.port.and_then(|port| u16::try_from(port).ok())).collect();
    if ports.is_empty() && !matches!(below, Below::Port { .. }) {
        numbers.push(None);
    }
    for endpoint in slice.endpoints.iter().flatten().filter(|endpoint| is_ready(endpoint)) {
        let Some(ip) = address(endpoint) else { continue };
        let label = endpoint_label(endpoint, ip);
        if let Below::Endpoint(asked) = below
            && !asked.eq_ignore_ascii_case(&label)
        {
            continue;
        }
        targets.extend(numbers.iter().map(|port| Target { ip, port: *port, label: Some(label.clone()) }));
    }
}

/// Reads a name from its end: `[endpoint. | _port._protocol.]service.namespace.svc`.
fn parse(base: &str) -> Asked<'_> {
    match base {
        "" => return Asked::Apex,
        "dns-version" => return Asked::Version,
        "dns" | "svc" | "pod" => return Asked::Branch,
        "ns.dns" => return Asked::NameServer,
        _ => {}
    }
    let labels: Vec<&str> = base.split('.').collect();
    match labels.as_slice() {
        [namespace, "svc" | "pod"] => Asked::Namespace(namespace),
        [address, namespace, "pod"] => Asked::Pod { namespace, address },
        [name, namespace, "svc"] => Asked::Service { namespace, name, below: Below::Nothing },
        [endpoint, name, namespace, "svc"] => {
            Asked::Service { namespace, name, below: Below::Endpoint(endpoint) }
        }
        [port, protocol, name, namespace, "svc"] => {
            let below =
                Below::Port { name: without_underscore(port), protocol: without_underscore(protocol) };
            Asked::Service { namespace, name, below }
        }
        _ => Asked::Unknown,
    }
}

fn without_underscore(label: &str) -> &str {
    label.strip_prefix('_').unwrap_or(label)
}

/// The address that a pod's name spells: `10-1-2-3`, or with `-` for each `:`.
fn pod_address(label: &str) -> Option<IpAddr> {
    match label.matches('-').count() == 3 && !label.contains("--") {
        true => label.replace('-', ".").parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        false => label.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::V6),
    }
}

fn external_name(name: &Name, kind: RecordType, target: &str, below: &Below<'_>) -> Answer {
    let target = target.trim_end_matches('.');
    if *below != Below::Nothing || target.parse::<IpAddr>().is_ok() {
        return Answer::NxDomain;
    }
    let Ok(target) = Name::from_ascii(format!("{target}.")) else { return Answer::NxDomain };
    match kind {
        RecordType::A | RecordType::AAAA | RecordType::CNAME => {
            let record = Box::new(record(name, RData::CNAME(CNAME(target.clone()))));
            Answer::Alias { record, target }
        }
        _ => Answer::NoData,
    }
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL, data)
}

fn records(answers: impl IntoIterator<Item = Record>) -> Answer {
    Answer::Records { answers: answers.into_iter().collect(), additionals: Vec::new() }
}

fn address_record(name: &Name, ip: IpAddr) -> Record {
    record(name, RData::from(ip))
}

fn addresses(name: &Name, kind: RecordType, ips: impl Iterator<Item = IpAddr>) -> Answer {
    let of_kind = |ip: &IpAddr| match kind {
        RecordType::A => ip.is_ipv4(),
        RecordType::AAAA => ip.is_ipv6(),
        _ => false,
    };
    let found: BTreeSet<IpAddr> = ips.filter(of_kind).collect();
    match found.is_empty() {
        true => Answer::NoData,
        false => records(found.into_iter().map(|ip| address_record(name, ip))),
    }
}
