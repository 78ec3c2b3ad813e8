//! Services: with so many of them there, how long it takes from the write of an endpoint until a packet to the Service's
//! address is answered by it. Runs on a node, since that is where packets are routed.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use http::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::load::make;
use crate::record::{Record, Samples};
use crate::report::Report;
use crate::sandbox::Sandbox;
use crate::stop::Stop;
use crate::target::{Protocol, Request, Target};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// How many Services there are beside the measured one.
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub services: u64,
    /// How many endpoints each has.
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub endpoints: u64,
    /// How many changes are measured.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub rounds: usize,
    /// An address of this node, where the measured endpoint listens [default: the one of the default route].
    #[arg(long, value_name = "IP")]
    pub address: Option<IpAddr>,
}

const PATIENCE: Duration = Duration::from_secs(60);
/// A packet that is dropped is sent again after this long.
const CONNECT: Duration = Duration::from_millis(50);

pub async fn run(args: &Args, target: &Target, report: &Report, stop: &Stop) -> anyhow::Result<()> {
    Sandbox::with(target, async |sandbox| measure(args, target, report, stop, sandbox).await).await
}

fn slices(sandbox: &Sandbox) -> String {
    format!("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices", sandbox.namespace)
}

async fn measure(
    args: &Args,
    target: &Target,
    report: &Report,
    stop: &Stop,
    sandbox: &Sandbox,
) -> anyhow::Result<()> {
    let address = match args.address {
        Some(address) => address,
        None => own_address().context("give an address of this node with --address")?,
    };
    let listener = TcpListener::bind(SocketAddr::new(address, 0))
        .await
        .with_context(|| format!("{address} is no address of this machine; run this on a node"))?;
    let port = listener.local_addr()?.port();
    let answering = tokio::spawn(answer(listener));

    let (services, slices) = (sandbox.path("services"), slices(sandbox));
    eprintln!("making {} services with {} endpoints each …", args.services, args.endpoints);
    make("services", target, args.services, stop, async |connection, number| {
        let name = format!("other-{number}");
        let addresses = (0..args.endpoints).map(|index| format!("192.0.2.{}", 1 + (number + index) % 250));
        let bodies = [
            (&services, service(&name).to_string()),
            (&slices, slice(&name, addresses.collect(), 80).to_string()),
        ];
        for (path, body) in bodies {
            connection.success(Request::new(Method::POST, path, body)).await?;
        }
        Ok(())
    })
    .await?;

    let name = "measured";
    let made = target.once(Request::new(Method::POST, &services, service(name).to_string())).await?;
    let made: Value = serde_json::from_slice(&made)?;
    let cluster_ip: IpAddr = made["spec"]["clusterIP"]
        .as_str()
        .and_then(|ip| ip.parse().ok())
        .context("a Service without address")?;
    let to = SocketAddr::new(cluster_ip, 80);
    let body = slice(name, Vec::new(), port).to_string();
    target.once(Request::new(Method::POST, &slices, body)).await?;
    until(to, false).await.context("before any endpoint was there")?;

    eprintln!("{} changes …", args.rounds);
    let record = Record::default();
    let begun = Instant::now();
    let item = format!("{slices}/{name}");
    let mut connection = target.connect(Protocol::Http1).await?;
    for _ in 0..args.rounds {
        if stop.is_set() {
            break;
        }
        for there in [true, false] {
            let addresses = if there { vec![address.to_string()] } else { Vec::new() };
            let written = Instant::now();
            let body = slice(name, addresses, port).to_string();
            connection.success(Request::new(Method::PUT, &item, body)).await?;
            until(to, there).await?;
            if there {
                let mut samples = Samples::default();
                samples.push(written.elapsed(), 0);
                record.add(&mut samples);
            }
        }
    }
    answering.abort();
    let mut line = record.summary(begun.elapsed());
    line.remove("per_second");
    line.insert("services".into(), json!(args.services));
    line.insert("endpoints".into(), json!(args.endpoints));
    report.line("routed", line);
    report.curve("routed", &record);
    Ok(())
}

/// The address from which packets to elsewhere would leave. Nothing is sent.
fn own_address() -> anyhow::Result<IpAddr> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.connect(("192.0.2.1", 9))?;
    Ok(socket.local_addr()?.ip())
}

/// Answers everybody with a byte.
async fn answer(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move { stream.write_all(b"x").await });
    }
}

/// Waits until an address answers, or until it does not.
async fn until(to: SocketAddr, answers: bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let connected = matches!(tokio::time::timeout(CONNECT, TcpStream::connect(to)).await, Ok(Ok(_)));
        if connected == answers {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            bail!("{to} {} after {PATIENCE:?}", if answers { "does not answer" } else { "still answers" });
        }
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 80}]},
    })
}

fn slice(service: &str, addresses: Vec<String>, port: u16) -> Value {
    let endpoints: Vec<Value> = addresses
        .into_iter()
        .map(|address| json!({"addresses": [address], "conditions": {"ready": true}}))
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": service, "labels": {"kubernetes.io/service-name": service}},
        "endpoints": endpoints, "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
    })
}
