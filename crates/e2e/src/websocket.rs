//! A WebSocket client like a browser's, for servers inside a test's network.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::{SinkExt, StreamExt};
use http::{HeaderValue, Request, Response};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use streams::websocket::channels::{Codec, Said};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::Cluster;

const PATIENCE: Duration = Duration::from_secs(30);

pub type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// What a server said instead of switching to WebSocket.
pub type Refusal = Response<String>;

/// One request for a WebSocket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    pub port: u16,
    pub path: &'a str,
    pub token: &'a str,
    /// Separated by commas.
    pub protocols: &'a str,
    pub accept: &'a str,
    pub origin: &'a str,
}

impl Cluster {
    /// Runs a client inside the cluster's network.
    pub fn client<T: Send, F: Future<Output = anyhow::Result<T>>>(
        &self,
        talk: impl FnOnce() -> F + Send,
    ) -> anyhow::Result<T> {
        self.network.inside(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async { tokio::time::timeout(PATIENCE, talk()).await.context("too slow")? })
        })
    }

    /// Asks a server of the node for a WebSocket.
    pub async fn connect(&self, ask: Ask<'_>) -> anyhow::Result<Result<Socket, Refusal>> {
        let ca = std::fs::read(self.data_dir().join("pki/ca.crt"))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&ca) {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let host = self.network.node_ip;
        let tcp = TcpStream::connect((host, ask.port)).await?;
        let tls = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(host)?, tcp).await?;
        let mut request: Request<()> =
            format!("wss://{host}:{}{}", ask.port, ask.path).into_client_request()?;
        let bearer = format!("Bearer {}", ask.token);
        let headers = [
            ("authorization", bearer.as_str()),
            ("sec-websocket-protocol", ask.protocols),
            ("accept", ask.accept),
            ("origin", ask.origin),
        ];
        for (name, value) in headers.into_iter().filter(|(_, value)| !value.is_empty()) {
            request.headers_mut().insert(name, HeaderValue::from_str(value)?);
        }
        match tokio_tungstenite::client_async(request, tls).await {
            Ok((socket, response)) => {
                // of several, one was chosen
                let chosen = response.headers().get("sec-websocket-protocol");
                let chosen = chosen.map_or(Ok(""), HeaderValue::to_str)?;
                if !ask.protocols.split(',').any(|protocol| protocol.trim() == chosen) {
                    bail!("the server chose {chosen:?}");
                }
                Ok(Ok(socket))
            }
            Err(Error::Http(response)) => {
                Ok(Err(response.map(|body| String::from_utf8_lossy(&body.unwrap_or_default()).into_owned())))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Asks for a WebSocket that there must be.
    pub async fn open(&self, ask: Ask<'_>) -> anyhow::Result<Socket> {
        match self.connect(ask).await? {
            Ok(socket) => Ok(socket),
            Err(refusal) => bail!("{ask:?}: {refusal:?}"),
        }
    }

    /// The status and the text of a refusal that there must be.
    pub async fn refusal(&self, ask: Ask<'_>) -> anyhow::Result<(u16, String)> {
        match self.connect(ask).await? {
            Ok(_) => bail!("{ask:?}: a WebSocket was opened"),
            Err(refusal) => Ok((refusal.status().as_u16(), refusal.into_body())),
        }
    }
}

/// Sends to a channel.
pub async fn say(socket: &mut Socket, codec: Codec, channel: u8, data: &[u8]) -> anyhow::Result<()> {
    Ok(socket.send(codec.encode(channel, data)).await?)
}

/// All that is said on each channel until the server closes, which it has to do properly.
pub async fn listen(socket: &mut Socket, codec: Codec) -> anyhow::Result<[Vec<u8>; 4]> {
    let mut channels: [Vec<u8>; 4] = Default::default();
    loop {
        let message = socket.next().await.context("the server hung up without a word")??;
        if let Message::Close(frame) = message {
            let code = frame.map(|frame| u16::from(frame.code));
            if code != Some(1000) {
                bail!("the server closed with {code:?}");
            }
            return Ok(channels);
        }
        if let Said::Data { channel, data } = codec.decode(message, false) {
            channels.get_mut(usize::from(channel)).context("an odd channel")?.extend_from_slice(&data);
        }
    }
}
