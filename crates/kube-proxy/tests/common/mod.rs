//! A node and pods without a cluster: network namespaces, a bridge like that of the CNI plugin, and threads that live
//! in namespaces of their own and answer.

// each test binary uses a part of this
#![allow(dead_code)]

use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, ExitCode};
use std::sync::mpsc;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

pub const NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
pub const WAIT: Duration = Duration::from_secs(3);
/// Before a connection is tried again by the kernel: nothing here is farther than a bridge.
const CONNECT: Duration = Duration::from_millis(900);

/// Runs a test where it can. Threads and programs are started from within its namespace, and so are in it.
pub fn run(test: impl Future<Output = ()>) -> ExitCode {
    // asked for its tests by a tool
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    if let Err(reason) = enter() {
        println!("skipped: {reason}");
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test);
    println!("ok");
    ExitCode::SUCCESS
}

/// Goes into a network namespace with a node's addresses.
fn enter() -> Result<(), String> {
    if !nix::unistd::Uid::effective().is_root() {
        return Err("real packet rules need root".into());
    }
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("no network namespace to be had: {error}"))?;
    for program in ["iptables-restore", "ip"] {
        let found = Command::new(program).arg("-V").output();
        if !found.is_ok_and(|output| output.status.success()) {
            return Err(format!("{program} is not installed"));
        }
    }
    ip("link set lo up");
    ip("link add cni0 type bridge");
    ip("addr add 10.244.0.1/24 dev cni0");
    ip("link set cni0 up");
    ip("link add eth0 type bridge");
    ip(&format!("addr add {NODE}/24 dev eth0"));
    ip("link set eth0 up");
    ip("route add default dev eth0");
    for setting in ["ip_forward", "conf/all/route_localnet"] {
        std::fs::write(format!("/proc/sys/net/ipv4/{setting}"), "1").unwrap();
    }
    Ok(())
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace of its own that answers on port 8080 (TCP) and 5353 (UDP) with its name and the
/// address that asked.
pub struct Pod {
    pub ip: Ipv4Addr,
    jobs: mpsc::Sender<Job>,
}

impl Pod {
    pub fn new(number: u8) -> Self {
        let ip = Ipv4Addr::new(10, 244, 0, number);
        let (jobs, todo) = mpsc::channel::<Job>();
        let (ready, wait) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ready.send(nix::unistd::gettid()).unwrap();
            todo.into_iter().for_each(|job| job());
        });
        let thread = wait.recv().unwrap();
        self::ip(&format!("link add veth{number} type veth peer name eth0 netns {thread}"));
        self::ip(&format!("link set veth{number} master cni0 up"));
        self::ip(&format!("link set veth{number} type bridge_slave hairpin on"));
        let pod = Self { ip, jobs };
        pod.run(move || {
            self::ip("link set lo up");
            self::ip(&format!("addr add {ip}/24 dev eth0"));
            self::ip("link set eth0 up");
            self::ip("route add default via 10.244.0.1");
            let listener = TcpListener::bind((ip, 8080)).unwrap();
            // these threads inherit the pod's namespace
            std::thread::spawn(move || {
                while let Ok((mut stream, from)) = listener.accept() {
                    let _ = write!(stream, "pod{number} {}", from.ip());
                }
            });
            let socket = UdpSocket::bind((ip, 5353)).unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(format!("pod{number} {}", from.ip()).as_bytes(), from);
                }
            });
        });
        pod
    }

    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = mpsc::channel();
        self.jobs.send(Box::new(move || drop(sender.send(job())))).unwrap();
        receiver.recv_timeout(Duration::from_secs(20)).expect("the pod's thread answers")
    }

    pub fn ask(&self, to: (Ipv4Addr, u16)) -> Result<Answer, ErrorKind> {
        self.run(move || ask(to))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answer {
    pub pod: String,
    pub seen_as: String,
}

impl Answer {
    pub fn parse(text: &str) -> Self {
        let (pod, seen_as) = text.split_once(' ').unwrap();
        Self { pod: pod.into(), seen_as: seen_as.into() }
    }
}

pub fn ask((ip, port): (Ipv4Addr, u16)) -> Result<Answer, ErrorKind> {
    let to = SocketAddr::V4(SocketAddrV4::new(ip, port));
    let mut stream = TcpStream::connect_timeout(&to, CONNECT).map_err(|error| error.kind())?;
    stream.set_read_timeout(Some(WAIT)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|error| error.kind())?;
    Ok(Answer::parse(&text))
}

pub fn refused(asked: Result<Answer, ErrorKind>) -> bool {
    asked == Err(ErrorKind::ConnectionRefused)
}

pub fn step(what: &str) {
    println!("  - {what}");
}
