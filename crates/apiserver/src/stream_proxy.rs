//! Upgraded connections between a client and a kubelet: once both sides have switched protocols, bytes.

use apimachinery::Status;
use http::StatusCode;
use hyper::upgrade::OnUpgrade;
use streams::switching::join;

use crate::http::body::{self, Request, Response};
use crate::kubelet_client::{Endpoint, KubeletClient};
use crate::stream_translator::client;

/// Whether a request asks to switch protocols.
pub fn is_upgrade(request: &Request) -> bool {
    streams::upgrade::is_upgrade(request.headers())
}

/// Passes an upgrade request on, and once the kubelet has agreed, everything that follows, both ways.
pub async fn forward(
    kubelets: &KubeletClient,
    endpoint: Endpoint,
    mut request: Request,
) -> Result<Response, Status> {
    if !is_upgrade(&request) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let client = client(&mut request)?;
    let mut response = kubelets.send(&endpoint, request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response);
    }
    let kubelet = response.extensions_mut().remove::<OnUpgrade>().ok_or_else(|| {
        Status::internal("the kubelet switched protocols on a connection that cannot be upgraded")
    })?;
    tokio::spawn(join(client, kubelet));
    let (parts, _) = response.into_parts();
    Ok(Response::from_parts(parts, body::empty()))
}
