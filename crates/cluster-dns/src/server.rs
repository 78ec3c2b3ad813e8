//! Takes questions from sockets, finds who knows the answer, and puts it into a message.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Edns, Header, HeaderCounts, Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use parking_lot::RwLock;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::metrics::{Asked, Metrics};
use crate::upstream::{Told, Upstream};
use crate::zone::{Answer, Zone};

/// A TCP connection without a question ends after this.
const IDLE: Duration = Duration::from_secs(10);
/// How many answers may wait for a slow reader on TCP.
const ANSWERS_WAITING: usize = 32;
/// What fits into a packet on all paths.
const MAX_UDP: u16 = 1232;
const MIN_UDP: u16 = 512;
/// How many names may stand for one another.
const ALIASES: usize = 8;
const FINISH: Duration = Duration::from_secs(2);

/// Both sockets of one address.
pub struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Sockets {
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let tcp = TcpListener::bind(address).await?;
        let udp = UdpSocket::bind(tcp.local_addr()?).await?;
        Ok(Self { udp, tcp })
    }

    #[cfg(test)]
    pub fn address(&self) -> SocketAddr {
        self.udp.local_addr().unwrap()
    }
}

/// Serves until cancelled.
pub async fn serve(sockets: Sockets, handler: Arc<Handler>, cancel: CancellationToken) -> anyhow::Result<()> {
    let mut server = Server::new(Shared(handler));
    server.register_socket(sockets.udp);
    server.register_listener(sockets.tcp, IDLE, ANSWERS_WAITING);
    let stop = server.shutdown_token().clone();
    tokio::select! {
        outcome = server.block_until_done() => return outcome.map_err(anyhow::Error::new),
        () = cancel.cancelled() => stop.cancel(),
    }
    if tokio::time::timeout(FINISH, server.block_until_done()).await.is_err() {
        tracing::debug!("DNS questions were left open");
    }
    Ok(())
}

/// Knows who answers what.
pub struct Handler {
    zone: Zone,
    synced: AtomicBool,
    /// Replaced when the node has other name servers; questions under way finish with the old ones.
    upstream: RwLock<Option<Arc<Upstream>>>,
    /// Turns the order of addresses, so that clients that take the first spread over all.
    turn: AtomicUsize,
    pub metrics: Metrics,
}

/// Who knew the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answerer {
    Zone,
    Upstream,
}

/// The parts of an answer.
#[derive(Debug, PartialEq)]
struct Reply {
    code: ResponseCode,
    answerer: Option<Answerer>,
    authoritative: bool,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
}

impl Reply {
    fn code(code: ResponseCode) -> Self {
        Self {
            code,
            answerer: None,
            authoritative: false,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
        }
    }
}

impl Handler {
    /// `address` is where the server listens.
    pub fn new(zone: Zone, address: SocketAddr) -> Self {
        Self {
            zone,
            synced: AtomicBool::new(false),
            upstream: RwLock::new(None),
            turn: AtomicUsize::new(0),
            metrics: Metrics::new(address),
        }
    }

    pub fn set_synced(&self) {
        self.synced.store(true, Ordering::Release);
    }

    pub fn set_upstream(&self, servers: &[SocketAddr]) {
        *self.upstream.write() = Upstream::new(servers).map(Arc::new);
    }

    async fn reply(&self, name: &Name, kind: RecordType) -> Reply {
        if kind == RecordType::AXFR || kind == RecordType::IXFR {
            return Reply::code(ResponseCode::Refused);
        }
        let mut reply = Reply {
            authoritative: true,
            answerer: Some(Answerer::Zone),
            ..Reply::code(ResponseCode::NoError)
        };
        let mut name = name.clone();
        for _ in 0..ALIASES {
            let of_cluster = self.zone.contains(&name);
            if of_cluster && !self.synced.load(Ordering::Acquire) {
                return Reply::code(ResponseCode::ServFail);
            }
            match self.zone.answer(&name, kind) {
                Answer::Records { mut answers, additionals } => {
                    let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                    let by = turn % answers.len().max(1);
                    answers.rotate_left(by);
                    reply.answers.extend(answers);
                    reply.additionals.extend(additionals);
                    return reply;
                }
                Answer::Alias { record, target } => {
                    reply.answers.push(*record);
                    if kind == RecordType::CNAME {
                        return reply;
                    }
                    name = target;
                }
                Answer::NoData => {
                    reply.authorities.push(self.zone.soa().clone());
                    return reply;
                }
                Answer::NxDomain => {
                    reply.code = ResponseCode::NXDomain;
                    reply.authorities.push(self.zone.soa().clone());
                    return reply;
                }
                Answer::NotOurs => {
                    let told = self.ask_upstream(&name, kind).await;
                    reply.authoritative = false;
                    reply.answerer = Some(Answerer::Upstream);
                    reply.code = told.code;
                    reply.answers.extend(told.answers);
                    reply.authorities.extend(told.authorities);
                    return reply;
                }
            }
        }
        Reply::code(ResponseCode::ServFail)
    }

    async fn ask_upstream(&self, name: &Name, kind: RecordType) -> Told {
        let upstream = self.upstream.read().clone();
        match upstream {
            Some(upstream) => upstream.ask(name, kind).await,
            None => Told { code: ResponseCode::ServFail, answers: Vec::new(), authorities: Vec::new() },
        }
    }

    async fn reply_to(&self, request: &Request) -> Reply {
        if request.metadata.op_code != OpCode::Query {
            return Reply::code(ResponseCode::NotImp);
        }
        if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return Reply::code(ResponseCode::BADVERS);
        }
        match request.request_info() {
            Ok(info) if info.query.query_class() == DNSClass::IN => {
                self.reply(info.query.original().name(), info.query.query_type()).await
            }
            Ok(_) => Reply::code(ResponseCode::Refused),
            // not one question but none or several
            Err(_) => Reply::code(ResponseCode::FormErr),
        }
    }
}

/// The handler as the server library takes it.
struct Shared(Arc<Handler>);

#[async_trait::async_trait]
impl RequestHandler for Shared {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut out: R,
    ) -> ResponseInfo {
        let started = Instant::now();
        let reply = self.0.reply_to(request).await;
        self.0.metrics.count(&Asked {
            from: request.src(),
            protocol: request.protocol(),
            kind: request.request_info().ok().map(|info| info.query.query_type()),
            code: reply.code,
            answerer: reply.answerer,
            took: started.elapsed(),
        });
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = reply.authoritative;
        metadata.recursion_available = true;
        metadata.response_code = reply.code;
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(asked.max_payload().clamp(MIN_UDP, MAX_UDP));
            edns.set_dnssec_ok(asked.flags().dnssec_ok);
            edns.set_rcode_high(reply.code.high());
            edns
        });
        let builder = MessageResponseBuilder::new(&request.queries, edns.as_ref());
        let message = builder.build(metadata, &reply.answers, &reply.authorities, &[], &reply.additionals);
        match out.send_response(message).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "a DNS answer could not be sent");
                ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
            }
        }
    }
}
