//! The way into the server for components of the same process: no TCP, no TLS, the same chain.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http_body_util::BodyExt;
use tower::Service;

use crate::authentication::{InProcessUser, UserInfo};
use crate::http::body::{BoxError, Response};
use crate::http::chain;
use crate::server::Server;

/// A caller of the server with an identity of its own; authorized like everybody else.
#[derive(Clone)]
pub struct InProcess {
    server: Arc<Server>,
    user: Arc<UserInfo>,
}

impl InProcess {
    pub fn new(server: Arc<Server>, user: UserInfo) -> Self {
        Self { server, user: Arc::new(user) }
    }

    /// A client that speaks to the server as `user`.
    pub fn client(server: Arc<Server>, user: UserInfo) -> kube::Client {
        let mut inside = server.inside.lock();
        if !inside.contains(&user.name) {
            inside.push(user.name.clone());
        }
        drop(inside);
        kube::Client::new(Self::new(server, user), "default")
    }
}

impl Service<http::Request<kube::client::Body>> for InProcess {
    type Response = Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<kube::client::Body>) -> Self::Future {
        let (server, user) = (self.server.clone(), InProcessUser(self.user.clone()));
        Box::pin(async move {
            let mut request = request.map(|body| body.map_err(BoxError::from).boxed_unsync());
            request.extensions_mut().insert(user);
            Ok(chain::handle(server, request).await)
        })
    }
}
