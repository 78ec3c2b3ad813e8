//! The node's own name servers, asked for every name outside of the cluster.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_server::net::runtime::TokioRuntimeProvider;
use hickory_server::net::{DnsError, NetError};
use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::{Name, Record, RecordType};
use hickory_server::resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_server::resolver::{Resolver, TokioResolver};
use tokio::sync::Semaphore;

pub const PORT: u16 = 53;
/// Answers are kept for no longer than this.
const MAX_TTL: Duration = Duration::from_secs(30);
/// How many answers are kept.
const CACHED: u64 = 4096;
const TRY: Duration = Duration::from_secs(2);
/// Clients wait five seconds, mostly.
const DEADLINE: Duration = Duration::from_millis(4500);
/// How many questions may be open; more are refused.
const OPEN: usize = 1000;

/// The servers that a resolv.conf names; at most three are asked, as the C library does.
pub fn name_servers(resolv_conf: &str) -> Vec<IpAddr> {
    let lines = resolv_conf.lines().map(|line| line.split(['#', ';']).next().unwrap_or_default());
    let servers = lines.filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        // an address may carry the interface it is reached by
        let address = (words.next()? == "nameserver").then(|| words.next())??;
        address.split('%').next()?.parse().ok()
    });
    servers.take(3).collect()
}

/// What other servers say.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub code: ResponseCode,
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
}

impl Told {
    fn code(code: ResponseCode) -> Self {
        Self { code, answers: Vec::new(), authorities: Vec::new() }
    }
}

/// Servers to ask, and what they answered of late.
pub struct Upstream {
    resolver: TokioResolver,
    open: Semaphore,
}

impl Upstream {
    /// `None` without servers.
    pub fn new(servers: &[SocketAddr]) -> Option<Self> {
        if servers.is_empty() {
            return None;
        }
        let server = |address: &SocketAddr| {
            let connection = |mut connection: ConnectionConfig| {
                connection.port = address.port();
                connection
            };
            let connections = vec![connection(ConnectionConfig::udp()), connection(ConnectionConfig::tcp())];
            NameServerConfig::new(address.ip(), true, connections)
        };
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(server).collect());
        let mut options = ResolverOpts::default();
        options.timeout = TRY;
        options.cache_size = CACHED;
        options.use_hosts_file = ResolveHosts::Never;
        options.positive_max_ttl = Some(MAX_TTL);
        options.negative_max_ttl = Some(MAX_TTL);
        options.max_active_requests = OPEN;
        options.try_tcp_on_error = true;
        let builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        match builder.with_options(options).build() {
            Ok(resolver) => Some(Self { resolver, open: Semaphore::new(OPEN) }),
            Err(error) => {
                tracing::warn!(%error, "the node's name servers cannot be used");
                None
            }
        }
    }

    pub async fn ask(&self, name: &Name, kind: RecordType) -> Told {
        let Ok(_permit) = self.open.try_acquire() else { return Told::code(ResponseCode::Refused) };
        let mut name = name.clone();
        // without the mark the resolver would try the node's search domains
        name.set_fqdn(true);
        let told = match tokio::time::timeout(DEADLINE, self.resolver.lookup(name, kind)).await {
            Ok(told) => told,
            Err(_) => Err(NetError::Timeout),
        };
        match told {
            Ok(lookup) => Told {
                code: lookup.message().metadata.response_code,
                answers: lookup.answers().to_vec(),
                authorities: Vec::new(),
            },
            Err(NetError::Dns(DnsError::NoRecordsFound(nothing))) => {
                let soa = nothing.soa.map(|soa| soa.into_record_of_rdata());
                Told { authorities: soa.into_iter().collect(), ..Told::code(nothing.response_code) }
            }
            Err(NetError::Dns(DnsError::ResponseCode(code))) => Told::code(code),
            Err(error) => {
                tracing::debug!(%error, "the node's name servers did not answer");
                Told::code(ResponseCode::ServFail)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_the_c_library_reads_them() {
        let text = "# nameserver 1.1.1.1\nsearch a b\nnameserver 10.0.0.1 # one\n nameserver\tfe80::1%eth0\n\
                    nameserver nonsense\nnameserver\nnameserver 10.0.0.2\nnameserver 10.0.0.3\n";
        let expected: Vec<IpAddr> =
            vec!["10.0.0.1".parse().unwrap(), "fe80::1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        assert_eq!(name_servers(text), expected);
        assert!(Upstream::new(&[]).is_none());
    }
}
