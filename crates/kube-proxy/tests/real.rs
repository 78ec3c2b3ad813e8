//! Real packets through real iptables, in a network namespace of this test's own. Needs root; says so and passes
//! without.

mod common;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Command, ExitCode};
use std::time::Instant;

use client::ObjectKey;
use common::{Answer, NODE, Pod, WAIT, ask, refused, step};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube_proxy::{Done, Iptables, Proxier, Settings, World};
use serde_json::{Value, json};

const SERVICE_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 20);
const FREE_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 99);

fn main() -> ExitCode {
    common::run(test())
}

struct Cluster {
    world: World,
    proxier: Proxier,
    changed: BTreeSet<ObjectKey>,
}

impl Cluster {
    async fn new() -> Self {
        let world = World::new(Default::default(), Default::default());
        let iptables = Iptables::open().await.unwrap();
        let settings = Settings {
            node_ip: NODE,
            cluster_cidr: Some("10.244.0.0/16".parse().unwrap()),
            service_cidr: Some("10.96.0.0/16".parse().unwrap()),
            masquerade_all: false,
            masquerade_mark: 1 << 14,
            random_fully: iptables.has_random_fully(),
            localhost_node_ports: true,
            conntrack_liberal: false,
        };
        let proxier = Proxier::new(iptables, settings, "node", world.clone());
        Self { world, proxier, changed: BTreeSet::new() }
    }

    fn service(&mut self, name: &str, spec: Value) {
        let service = json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec});
        let service: Service = serde_json::from_value(service).unwrap();
        self.changed.insert(ObjectKey::of(&service));
        self.world.services.insert(service.into());
    }

    fn remove(&mut self, name: &str) {
        self.changed.insert(ObjectKey::new("ns", name));
        self.world.services.remove(&ObjectKey::new("ns", name));
    }

    fn endpoints(&mut self, name: &str, pods: &[&Pod]) {
        let endpoint = |pod: &&Pod| json!({"addresses": [pod.ip.to_string()], "nodeName": "node"});
        let slice = json!({
            "metadata": {"namespace": "ns", "name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}, {"name": "dns", "port": 5353, "protocol": "UDP"}],
            "endpoints": pods.iter().map(endpoint).collect::<Vec<_>>(),
        });
        let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
        self.changed.insert(ObjectKey::new("ns", name));
        self.world.slices.insert(slice.into());
    }

    async fn sync(&mut self) -> Done {
        let changed = std::mem::take(&mut self.changed);
        self.proxier.sync(&changed).await.unwrap()
    }
}

async fn test() {
    let (one, two) = (Pod::new(11), Pod::new(12));
    let client = Pod::new(13);
    let mut cluster = Cluster::new().await;
    let spec = |more: Value| {
        let mut spec = json!({
            "type": "NodePort", "clusterIP": SERVICE_IP.to_string(), "externalIPs": ["198.51.100.7"],
            "ports": [{"name": "http", "port": 80, "nodePort": 30080},
                      {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053}],
        });
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        spec
    };
    cluster.service("web", spec(json!({})));
    assert_eq!(cluster.sync().await, Done::Everything);

    step("without endpoints, and where there is no Service, connections are refused at once");
    for address in [(SERVICE_IP, 80), (FREE_IP, 80), (SERVICE_IP, 81), (NODE, 30080)] {
        // more often than the kernel tells one client by ICMP
        for _ in 0..10 {
            assert!(refused(client.ask(address)), "{address:?} from a pod");
            assert!(refused(ask(address)), "{address:?} from the node");
        }
    }

    step("the cluster IP, node ports and external IPs reach every endpoint");
    cluster.endpoints("web", &[&one, &two]);
    assert_eq!(cluster.sync().await, Done::Change);
    for address in
        [(SERVICE_IP, 80), (NODE, 30080), (Ipv4Addr::LOCALHOST, 30080), ([198, 51, 100, 7].into(), 80)]
    {
        let asked: BTreeSet<String> = (0..40).map(|_| ask(address).expect("an answer").pod).collect();
        assert_eq!(asked, BTreeSet::from(["pod11".into(), "pod12".into()]), "{address:?} from the node");
    }
    for address in [(SERVICE_IP, 80), (NODE, 30080)] {
        let asked: BTreeSet<String> = (0..40).map(|_| client.ask(address).unwrap().pod).collect();
        assert_eq!(asked.len(), 2, "{address:?} from a pod");
    }
    assert!(refused(client.ask((FREE_IP, 80))) && refused(client.ask((SERVICE_IP, 81))));

    step("a pod is seen with its own address, the node and whoever comes from outside masqueraded");
    assert_eq!(client.ask((SERVICE_IP, 80)).unwrap().seen_as, client.ip.to_string());
    assert_eq!(ask((SERVICE_IP, 80)).unwrap().seen_as, "10.244.0.1");

    step("a pod reaches itself through its Service");
    cluster.endpoints("web", &[&one]);
    cluster.sync().await;
    let answer = one.ask((SERVICE_IP, 80)).unwrap();
    assert_eq!((answer.pod.as_str(), answer.seen_as.as_str()), ("pod11", "10.244.0.1"));

    step("UDP follows the endpoints, also on a socket that was used before");
    udp(&mut cluster, &client, &one, &two).await;

    step("a client sticks to its endpoint");
    cluster.service("web", spec(json!({"sessionAffinity": "ClientIP"})));
    cluster.endpoints("web", &[&one, &two]);
    cluster.sync().await;
    let asked: BTreeSet<String> = (0..30).map(|_| client.ask((SERVICE_IP, 80)).unwrap().pod).collect();
    assert_eq!(asked.len(), 1);

    step("a policy of Local keeps to this node, and keeps the address");
    cluster.service("web", spec(json!({"internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local"})));
    cluster.sync().await;
    assert!(client.ask((SERVICE_IP, 80)).is_ok());
    assert_eq!(client.ask((NODE, 30080)).unwrap().seen_as, client.ip.to_string());

    step("flushed tables are noticed and written anew");
    assert!(!cluster.proxier.was_flushed().await);
    for arguments in [&["-F"], &["-X"]] {
        assert!(Command::new("iptables").args(["-t", "nat"]).args(arguments).status().unwrap().success());
    }
    assert!(cluster.proxier.was_flushed().await);
    cluster.proxier.distrust();
    assert_eq!(cluster.sync().await, Done::Everything);
    assert!(client.ask((SERVICE_IP, 80)).is_ok());

    step("a proxy that starts over rules of before takes them over and removes what is gone");
    let before = rules();
    let mut next = Cluster::new().await;
    next.world.services.insert(cluster.world.services.get("ns", "web").unwrap());
    next.world.slices.insert(cluster.world.slices.get("ns", "web").unwrap());
    next.sync().await;
    assert_eq!(rules(), before);
    next.remove("web");
    next.sync().await;
    assert!(refused(client.ask((SERVICE_IP, 80))));
    assert!(!rules().iter().any(|rule| rule.contains("ns/web")));
    cluster.proxier.distrust();
    cluster.sync().await;
    assert!(client.ask((SERVICE_IP, 80)).is_ok());
    next.proxier.distrust();
    next.sync().await;
    assert!(!rules().iter().any(|rule| rule.contains("KUBE-SVC-")), "chains of a proxy of before are gone");

    step("clean-up leaves nothing but what others wrote");
    assert!(
        Command::new("iptables")
            .args(["-A", "INPUT", "-s", "192.0.2.1", "-j", "DROP"])
            .status()
            .unwrap()
            .success()
    );
    kube_proxy::cleanup(false).await.unwrap();
    let left: Vec<_> = rules().into_iter().filter(|rule| !rule.contains("KUBE-FIREWALL")).collect();
    let foreign = |rule: &String| rule.starts_with("-A") || rule.contains("KUBE-");
    assert_eq!(
        left.iter().filter(|rule| foreign(rule)).collect::<Vec<_>>(),
        ["-A INPUT -s 192.0.2.1/32 -j DROP"]
    );
    kube_proxy::cleanup(true).await.unwrap();
    assert!(!rules().iter().any(|rule| rule.contains("KUBE-")), "the kubelet's chain goes on request");

    many_services().await;
}

async fn udp(cluster: &mut Cluster, client: &Pod, one: &Pod, two: &Pod) {
    let socket = client.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:4242").unwrap();
        socket.set_read_timeout(Some(WAIT)).unwrap();
        socket
    });
    let ask = |socket: UdpSocket| {
        client.run(move || {
            let mut buffer = [0; 64];
            socket.send_to(b"?", (SERVICE_IP, 53)).unwrap();
            let length = socket.recv(&mut buffer).expect("an answer");
            Answer::parse(std::str::from_utf8(&buffer[..length]).unwrap()).pod
        })
    };
    assert_eq!(ask(socket.try_clone().unwrap()), "pod11");
    cluster.endpoints("web", &[two]);
    cluster.sync().await;
    assert_eq!(ask(socket), "pod12");
    cluster.endpoints("web", &[one]);
    cluster.sync().await;
}

/// A change must not cost more because there are other Services.
async fn many_services() {
    let count: u32 = std::env::var("SERVICES").ok().and_then(|count| count.parse().ok()).unwrap_or(300);
    step(&format!("a change among {count} Services is small"));
    let pods = [Pod::new(21), Pod::new(22)];
    let mut cluster = Cluster::new().await;
    for number in 0..count {
        let name = format!("many-{number}");
        let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 8, 0)) + number);
        cluster.service(&name, json!({"clusterIP": ip.to_string(), "ports": [{"name": "http", "port": 80}]}));
        cluster.endpoints(&name, &[&pods[0], &pods[1]]);
    }
    let took = |what: &str, started: Instant| println!("     {what}: {:?}", started.elapsed());
    let started = Instant::now();
    cluster.sync().await;
    took("everything", started);
    for (what, pods) in [
        ("one endpoint less", vec![&pods[0]]),
        ("one endpoint more", vec![&pods[0], &pods[1]]),
        ("none left", vec![]),
    ] {
        cluster.endpoints("many-7", &pods);
        let started = Instant::now();
        assert_eq!(cluster.sync().await, Done::Change);
        took(what, started);
    }
    cluster.changed.insert(ObjectKey::new("ns", "many-7"));
    let started = Instant::now();
    assert_eq!(cluster.sync().await, Done::Nothing);
    took("finding that nothing is to be written", started);
    let started = Instant::now();
    Iptables::open().await.unwrap().restore("*nat\n:KUBE-PROXY-CANARY - [0:0]\nCOMMIT\n").await.unwrap();
    took("the least change that iptables makes, after its start", started);
    let started = Instant::now();
    assert!(refused(ask((Ipv4Addr::new(10, 96, 8, 7), 80))));
    took("a refused connection", started);
    assert_eq!(cluster.sync().await, Done::Nothing);
    assert!(ask((Ipv4Addr::new(10, 96, 8, 9), 80)).is_ok());
}

/// Every chain and rule of every table, without counters.
fn rules() -> Vec<String> {
    let output = Command::new("iptables-save").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| line.starts_with(':') || line.starts_with("-A"));
    let mut rules: Vec<String> = lines.map(|line| line.split(" [").next().unwrap().to_owned()).collect();
    rules.sort();
    rules
}
