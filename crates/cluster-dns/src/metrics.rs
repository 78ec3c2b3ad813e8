//! What the server was asked and answered, under CoreDNS's names and labels.

use std::net::SocketAddr;
use std::time::Duration;

use component_base::Page;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::RecordType;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::server::Answerer;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    proto: &'static str,
    family: &'static str,
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseLabels {
    rcode: &'static str,
    plugin: &'static str,
}

pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    responses: Family<ResponseLabels, Counter>,
    duration: Histogram,
}

/// What was asked, how, and what came of it.
pub struct Asked {
    pub from: SocketAddr,
    pub protocol: Protocol,
    /// None when there was no single question.
    pub kind: Option<RecordType>,
    pub code: ResponseCode,
    pub answerer: Option<Answerer>,
    pub took: Duration,
}

impl Metrics {
    /// Of the server that listens here.
    pub fn new(address: SocketAddr) -> Self {
        let (requests, responses) = (Family::default(), Family::default());
        let duration = Histogram::new(exponential_buckets(0.000_25, 2.0, 16));
        let mut registry = Registry::with_prefix("coredns");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION")), ("revision", ""), ("goversion", "")]);
        registry.register("build", "The program that serves", build);
        let labels = [("server", format!("dns://{address}")), ("zone", ".".into()), ("view", String::new())];
        let of_server = labels.map(|(name, value)| (name.into(), value.into()));
        let of_server = registry.sub_registry_with_labels(of_server.into_iter());
        of_server.register("dns_requests", "Counter of DNS requests made", Family::clone(&requests));
        of_server.register("dns_responses", "Counter of response status codes", Family::clone(&responses));
        of_server.register(
            "dns_request_duration_seconds",
            "Histogram of the time (in seconds) each request took",
            duration.clone(),
        );
        Self { registry, requests, responses, duration }
    }

    pub fn count(&self, asked: &Asked) {
        let request = RequestLabels {
            proto: if asked.protocol == Protocol::Udp { "udp" } else { "tcp" },
            family: if asked.from.is_ipv4() { "1" } else { "2" },
            r#type: asked.kind.map_or("other", kind_text),
        };
        self.requests.get_or_create(&request).inc();
        let response = ResponseLabels {
            rcode: code_text(asked.code),
            plugin: match asked.answerer {
                Some(Answerer::Zone) => "kubernetes",
                Some(Answerer::Upstream) => "forward",
                None => "",
            },
        };
        self.responses.get_or_create(&response).inc();
        self.duration.observe(asked.took.as_secs_f64());
    }

    pub fn serve(&self, path: &str) -> Page {
        match path {
            "/metrics" => component_base::metrics(&self.registry),
            _ => component_base::not_found(),
        }
    }
}

/// Types that many ask for; clients must not be able to make up labels.
fn kind_text(kind: RecordType) -> &'static str {
    match kind {
        RecordType::A => "A",
        RecordType::AAAA => "AAAA",
        RecordType::CNAME => "CNAME",
        RecordType::DNSKEY => "DNSKEY",
        RecordType::DS => "DS",
        RecordType::HTTPS => "HTTPS",
        RecordType::MX => "MX",
        RecordType::NS => "NS",
        RecordType::NSEC => "NSEC",
        RecordType::NSEC3 => "NSEC3",
        RecordType::PTR => "PTR",
        RecordType::RRSIG => "RRSIG",
        RecordType::SOA => "SOA",
        RecordType::SRV => "SRV",
        RecordType::TXT => "TXT",
        _ => "other",
    }
}

/// Codes as zone files and `dig` write them.
fn code_text(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::BADVERS => "BADVERS",
        // what the node's name servers may say besides
        _ => "other",
    }
}
