//! Real questions over UDP and TCP, to servers that are fed from objects in memory.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_server::proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::{DNSClass, Name, RecordType};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::server::{Handler, Sockets, serve};
use crate::zone::{World, Zone};

const WAIT: Duration = Duration::from_secs(5);

/// A server on a port of its own; it ends with this value.
struct Dns {
    address: SocketAddr,
    handler: Arc<Handler>,
    _guard: DropGuard,
}

impl Dns {
    async fn new(domain: &str, objects: &[Value]) -> Self {
        let world = World::new(Default::default(), Default::default(), Default::default());
        for object in objects {
            insert(&world, object);
        }
        let sockets = Sockets::bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let (address, cancel) = (sockets.address(), CancellationToken::new());
        let handler = Arc::new(Handler::new(Zone::new(domain, world).unwrap(), address));
        tokio::spawn(serve(sockets, handler.clone(), cancel.clone()));
        Self { address, handler, _guard: cancel.drop_guard() }
    }

    async fn send(&self, message: &Message) -> Message {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.send_to(&message.to_vec().unwrap(), self.address).await.unwrap();
        let mut buffer = vec![0; 65_535];
        let length = tokio::time::timeout(WAIT, socket.recv(&mut buffer)).await.expect("an answer").unwrap();
        let limit = message.edns.as_ref().map_or(512, Edns::max_payload);
        assert!(length <= usize::from(limit), "{length} octets over UDP");
        checked(message, &buffer[..length])
    }

    async fn send_tcp(&self, message: &Message) -> Message {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let bytes = message.to_vec().unwrap();
        stream.write_u16(bytes.len() as u16).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let length = tokio::time::timeout(WAIT, stream.read_u16()).await.expect("an answer").unwrap();
        let mut buffer = vec![0; usize::from(length)];
        stream.read_exact(&mut buffer).await.unwrap();
        checked(message, &buffer)
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Message {
        let message = question(name, kind);
        let (udp, tcp) = (self.send(&message).await, self.send_tcp(&message).await);
        assert_eq!(shown(&udp), shown(&tcp), "{name} over UDP and TCP");
        udp
    }
}

fn insert(world: &World, object: &Value) {
    fn parse<K: serde::de::DeserializeOwned>(object: &Value) -> Arc<K> {
        Arc::new(serde_json::from_value(object.clone()).unwrap())
    }
    match object["kind"].as_str().unwrap() {
        "Service" => drop(world.services.insert(parse::<Service>(object))),
        "Namespace" => drop(world.namespaces.insert(parse::<Namespace>(object))),
        _ => drop(world.slices.insert(parse::<EndpointSlice>(object))),
    }
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn checked(asked: &Message, bytes: &[u8]) -> Message {
    let answer = Message::from_vec(bytes).unwrap();
    assert_eq!(answer.metadata.id, asked.metadata.id);
    assert_eq!(answer.queries, asked.queries);
    answer
}

/// `CODE[ aa] | answers | authorities | additionals`, each record as `name type data`, sorted.
fn shown(message: &Message) -> String {
    let section = |records: &[hickory_server::proto::rr::Record]| {
        let mut lines: Vec<String> = records
            .iter()
            .map(|record| {
                let data = match record.record_type() {
                    // its serial is the time
                    RecordType::SOA => "SOA".to_owned(),
                    kind => format!("{kind} {}", record.data),
                };
                assert!(record.ttl <= 30, "{record}");
                format!("{} {data}", record.name)
            })
            .collect();
        lines.sort();
        lines.join(", ")
    };
    let code = match message.metadata.response_code {
        ResponseCode::NoError => "ok".to_owned(),
        ResponseCode::NXDomain => "nxdomain".to_owned(),
        code => format!("{code:?}").to_lowercase(),
    };
    let authoritative = if message.metadata.authoritative { " aa" } else { "" };
    let parts =
        [&message.answers, &message.authorities, &message.additionals].map(|records| section(records));
    let text = format!("{code}{authoritative} | {} | {} | {}", parts[0], parts[1], parts[2]);
    text.trim_end_matches([' ', '|']).to_owned()
}

fn namespace(name: &str) -> Value {
    json!({"kind": "Namespace", "metadata": {"name": name}})
}

fn service(namespace: &str, name: &str, spec: Value) -> Value {
    json!({"kind": "Service", "metadata": {"namespace": namespace, "name": name}, "spec": spec})
}

fn slice(service: &str, endpoints: Value, ports: Value) -> Value {
    json!({
        "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": endpoints, "ports": ports,
        "metadata": {"namespace": "ns", "name": format!("{service}-x"),
                     "labels": {"kubernetes.io/service-name": service}},
    })
}

fn objects() -> Vec<Value> {
    let http = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
    let many: Vec<Value> = (0..100).map(|n| json!({"addresses": [format!("10.244.7.{n}")]})).collect();
    vec![
        namespace("ns"),
        namespace("kube-system"),
        service("kube-system", "kube-dns", json!({"clusterIP": "10.96.0.10"})),
        service("ns", "web", json!({"clusterIP": "10.96.0.20", "ports": http})),
        slice(
            "web",
            json!([{"addresses": ["10.244.0.9"]}]),
            json!([{"name": "http", "port": 8080, "protocol": "TCP"}]),
        ),
        service(
            "ns",
            "dual",
            json!({"clusterIP": "10.96.0.21", "clusterIPs": ["10.96.0.21", "fd00::21"],
                   "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]}),
        ),
        service("ns", "db", json!({"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]})),
        slice(
            "db",
            json!([
                {"addresses": ["10.244.0.5"], "hostname": "db-0"},
                {"addresses": ["10.244.0.6"]},
                {"addresses": ["10.244.0.7"], "hostname": "db-2", "conditions": {"ready": false}},
            ]),
            json!([{"name": "sql", "port": 5432, "protocol": "TCP"}]),
        ),
        service("ns", "empty", json!({"clusterIP": "None"})),
        service("ns", "bare", json!({"clusterIP": "None"})),
        slice("bare", json!([{"addresses": ["10.244.0.8"]}]), json!([])),
        service("ns", "many", json!({"clusterIP": "None"})),
        slice("many", json!(many), json!([{"name": "", "port": 1}])),
        service("ns", "inside", json!({"type": "ExternalName", "externalName": "web.ns.svc.cluster.local"})),
        service("ns", "outside", json!({"type": "ExternalName", "externalName": "web.ns.svc.upstream.test"})),
        service("ns", "round", json!({"type": "ExternalName", "externalName": "round.ns.svc.cluster.local"})),
    ]
}

#[tokio::test]
async fn names_of_the_cluster() {
    use RecordType::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
    let dns = Dns::new("cluster.local", &objects()).await;
    dns.handler.set_synced();
    let nothing = "ok aa |  | cluster.local. SOA";
    let no_such = "nxdomain aa |  | cluster.local. SOA";
    let table = [
        ("web.ns.svc.cluster.local.", A, "ok aa | web.ns.svc.cluster.local. A 10.96.0.20"),
        ("WEB.ns.svc.Cluster.Local.", A, "ok aa | WEB.ns.svc.Cluster.Local. A 10.96.0.20"),
        ("web.ns.svc.cluster.local.", AAAA, nothing),
        ("web.ns.svc.cluster.local.", TXT, nothing),
        ("dual.ns.svc.cluster.local.", AAAA, "ok aa | dual.ns.svc.cluster.local. AAAA fd00::21"),
        (
            "_http._tcp.web.ns.svc.cluster.local.",
            A,
            "ok aa | _http._tcp.web.ns.svc.cluster.local. A 10.96.0.20",
        ),
        ("_nope._tcp.web.ns.svc.cluster.local.", SRV, no_such),
        ("_http._udp.web.ns.svc.cluster.local.", SRV, no_such),
        ("other.ns.svc.cluster.local.", A, no_such),
        ("web.other.svc.cluster.local.", A, no_such),
        ("a.b.c.web.ns.svc.cluster.local.", A, no_such),
        ("web.ns.svc.cluster.local.ns.svc.cluster.local.", A, no_such),
        ("google.com.cluster.local.", A, no_such),
        // a name above names has no records, but it exists
        ("cluster.local.", A, nothing),
        ("svc.cluster.local.", A, nothing),
        ("ns.svc.cluster.local.", A, nothing),
        ("ns.pod.cluster.local.", A, nothing),
        ("other.svc.cluster.local.", A, no_such),
        ("cluster.local.", SOA, "ok aa | cluster.local. SOA"),
        (
            "cluster.local.",
            NS,
            "ok aa | cluster.local. NS ns.dns.cluster.local. |  | ns.dns.cluster.local. A 10.96.0.10",
        ),
        ("ns.dns.cluster.local.", A, "ok aa | ns.dns.cluster.local. A 10.96.0.10"),
        ("dns-version.cluster.local.", TXT, "ok aa | dns-version.cluster.local. TXT 1.1.0"),
        ("dns-version.cluster.local.", A, nothing),
        // ready endpoints of a headless Service, and each by its name
        (
            "db.ns.svc.cluster.local.",
            A,
            "ok aa | db.ns.svc.cluster.local. A 10.244.0.5, db.ns.svc.cluster.local. A 10.244.0.6",
        ),
        ("db-0.db.ns.svc.cluster.local.", A, "ok aa | db-0.db.ns.svc.cluster.local. A 10.244.0.5"),
        (
            "10-244-0-6.db.ns.svc.cluster.local.",
            A,
            "ok aa | 10-244-0-6.db.ns.svc.cluster.local. A 10.244.0.6",
        ),
        ("db-0.db.ns.svc.cluster.local.", AAAA, nothing),
        ("db-2.db.ns.svc.cluster.local.", A, no_such),
        (
            "10-244-0-9.web.ns.svc.cluster.local.",
            A,
            "ok aa | 10-244-0-9.web.ns.svc.cluster.local. A 10.244.0.9",
        ),
        ("empty.ns.svc.cluster.local.", A, no_such),
        ("bare.ns.svc.cluster.local.", A, "ok aa | bare.ns.svc.cluster.local. A 10.244.0.8"),
        ("bare.ns.svc.cluster.local.", SRV, nothing),
        (
            "_http._tcp.web.ns.svc.cluster.local.",
            SRV,
            "ok aa | _http._tcp.web.ns.svc.cluster.local. SRV 0 100 80 web.ns.svc.cluster.local. |  | \
             web.ns.svc.cluster.local. A 10.96.0.20",
        ),
        (
            "dual.ns.svc.cluster.local.",
            SRV,
            "ok aa | dual.ns.svc.cluster.local. SRV 0 50 53 dual.ns.svc.cluster.local., \
             dual.ns.svc.cluster.local. SRV 0 50 80 dual.ns.svc.cluster.local. |  | \
             dual.ns.svc.cluster.local. A 10.96.0.21, dual.ns.svc.cluster.local. AAAA fd00::21",
        ),
        (
            "_sql._tcp.db.ns.svc.cluster.local.",
            SRV,
            "ok aa | _sql._tcp.db.ns.svc.cluster.local. SRV 0 50 5432 10-244-0-6.db.ns.svc.cluster.local., \
             _sql._tcp.db.ns.svc.cluster.local. SRV 0 50 5432 db-0.db.ns.svc.cluster.local. |  | \
             10-244-0-6.db.ns.svc.cluster.local. A 10.244.0.6, db-0.db.ns.svc.cluster.local. A 10.244.0.5",
        ),
        // pods by their addresses, whether they are there or not
        ("10-244-0-77.ns.pod.cluster.local.", A, "ok aa | 10-244-0-77.ns.pod.cluster.local. A 10.244.0.77"),
        ("10-244-0-77.ns.pod.cluster.local.", AAAA, nothing),
        ("fd00--77.ns.pod.cluster.local.", AAAA, "ok aa | fd00--77.ns.pod.cluster.local. AAAA fd00::77"),
        ("10-244-0-77.other.pod.cluster.local.", A, no_such),
        ("10-244-0-777.ns.pod.cluster.local.", A, no_such),
        ("web.ns.pod.cluster.local.", A, no_such),
        // addresses back to names
        ("20.0.96.10.in-addr.arpa.", PTR, "ok aa | 20.0.96.10.in-addr.arpa. PTR web.ns.svc.cluster.local."),
        (
            "5.0.244.10.in-addr.arpa.",
            PTR,
            "ok aa | 5.0.244.10.in-addr.arpa. PTR db-0.db.ns.svc.cluster.local.",
        ),
        ("5.0.244.10.in-addr.arpa.", A, nothing),
        (
            "1.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.",
            PTR,
            "ok aa | 1.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa. PTR \
             dual.ns.svc.cluster.local.",
        ),
        ("7.0.244.10.in-addr.arpa.", PTR, "servfail"),
        // one Service that stands for another name
        (
            "inside.ns.svc.cluster.local.",
            A,
            "ok aa | inside.ns.svc.cluster.local. CNAME web.ns.svc.cluster.local., \
             web.ns.svc.cluster.local. A 10.96.0.20",
        ),
        (
            "inside.ns.svc.cluster.local.",
            CNAME,
            "ok aa | inside.ns.svc.cluster.local. CNAME web.ns.svc.cluster.local.",
        ),
        ("inside.ns.svc.cluster.local.", SRV, nothing),
        ("round.ns.svc.cluster.local.", A, "servfail"),
    ];
    for (name, kind, expected) in table {
        assert_eq!(shown(&dns.ask(name, kind).await), expected, "{name} {kind}");
    }
}

#[tokio::test]
async fn other_names_are_asked_of_the_nodes_servers() {
    let upstream = Dns::new(
        "upstream.test",
        &[namespace("ns"), service("ns", "web", json!({"clusterIP": "192.0.2.7", "ports": [{"port": 80}]}))],
    )
    .await;
    upstream.handler.set_synced();
    let dns = Dns::new("cluster.local", &objects()).await;

    // names of the cluster are not known yet, others are
    dns.handler.set_upstream(&[upstream.address]);
    assert_eq!(shown(&dns.ask("web.ns.svc.cluster.local.", RecordType::A).await), "servfail");
    dns.handler.set_synced();
    let found = "ok | web.ns.svc.upstream.test. A 192.0.2.7";
    assert_eq!(shown(&dns.ask("web.ns.svc.upstream.test.", RecordType::A).await), found);
    let alias = "ok | outside.ns.svc.cluster.local. CNAME web.ns.svc.upstream.test., \
                 web.ns.svc.upstream.test. A 192.0.2.7";
    assert_eq!(shown(&dns.ask("outside.ns.svc.cluster.local.", RecordType::A).await), alias);
    let no_such = "nxdomain |  | upstream.test. SOA";
    assert_eq!(shown(&dns.ask("other.ns.svc.upstream.test.", RecordType::A).await), no_such);
    let nothing = "ok |  | upstream.test. SOA";
    assert_eq!(shown(&dns.ask("web.ns.svc.upstream.test.", RecordType::AAAA).await), nothing);

    // without servers there is no waiting; what was told is kept for a while only where it was told
    dns.handler.set_upstream(&[]);
    let started = Instant::now();
    assert_eq!(shown(&dns.ask("web.ns.svc.upstream.test.", RecordType::A).await), "servfail");
    assert!(started.elapsed() < Duration::from_millis(200));
}

#[tokio::test]
async fn answers_are_kept_while_the_nodes_servers_are_away() {
    let objects =
        [namespace("ns"), service("ns", "web", json!({"clusterIP": "192.0.2.7", "ports": [{"port": 80}]}))];
    let upstream = Dns::new("upstream.test", &objects).await;
    upstream.handler.set_synced();
    let dns = Dns::new("cluster.local", &[]).await;
    dns.handler.set_upstream(&[upstream.address]);
    let first = shown(&dns.ask("web.ns.svc.upstream.test.", RecordType::A).await);
    drop(upstream);
    let started = Instant::now();
    assert_eq!(shown(&dns.ask("web.ns.svc.upstream.test.", RecordType::A).await), first);
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn what_does_not_fit_into_a_packet_is_asked_again_over_tcp() {
    let dns = Dns::new("cluster.local", &objects()).await;
    dns.handler.set_synced();
    let mut asked = question("many.ns.svc.cluster.local.", RecordType::A);
    let udp = dns.send(&asked).await;
    assert!(udp.metadata.truncation && udp.answers.len() < 100);
    assert!(udp.edns.is_none());
    let tcp = dns.send_tcp(&asked).await;
    assert!(!tcp.metadata.truncation);
    assert_eq!(tcp.answers.len(), 100);

    // a client that says how much it takes gets that, up to what passes everywhere
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    asked.set_edns(edns);
    let udp = dns.send(&asked).await;
    assert!(udp.metadata.truncation && udp.answers.len() > 60, "{}", udp.answers.len());
    assert_eq!(udp.edns.as_ref().map(Edns::max_payload), Some(1232));
}

#[tokio::test]
async fn addresses_take_turns() {
    let dns = Dns::new("cluster.local", &objects()).await;
    dns.handler.set_synced();
    let asked = question("db.ns.svc.cluster.local.", RecordType::A);
    let (one, two) = (dns.send(&asked).await.answers, dns.send(&asked).await.answers);
    assert!(one != two && one.iter().all(|record| two.contains(record)));
}

#[tokio::test]
async fn odd_questions_get_a_code() {
    let dns = Dns::new("cluster.local", &objects()).await;
    dns.handler.set_synced();
    let asked = || question("web.ns.svc.cluster.local.", RecordType::A);
    assert_eq!(shown(&dns.ask("cluster.local.", RecordType::AXFR).await), "refused");

    let mut chaos = asked();
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(shown(&dns.send(&chaos).await), "refused");

    let mut newer = asked();
    let mut edns = Edns::new();
    edns.set_version(1);
    newer.set_edns(edns);
    // read back under the other name of the same number
    let code = u16::from(dns.send(&newer).await.metadata.response_code);
    assert_eq!(code, u16::from(ResponseCode::BADVERS));

    let mut notify = asked();
    notify.metadata.op_code = OpCode::Notify;
    assert_eq!(shown(&dns.send(&notify).await), "notimp");

    let mut none = asked();
    none.queries.clear();
    assert_eq!(shown(&dns.send(&none).await), "formerr");

    // garbage does not end the server
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.send_to(&[0xff; 40], dns.address).await.unwrap();
    assert!(shown(&dns.send(&asked()).await).starts_with("ok"));
}
