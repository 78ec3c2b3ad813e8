//! A client whose identity may change while it is in use: what is asked after a change goes over new connections.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use kube::Client;
use kube::client::Body;
use parking_lot::RwLock;
use tower::{BoxError, Service};

/// What a client goes through. Requests under way end where they began; watches are begun anew within minutes.
#[derive(Clone)]
pub struct Reconnecting(Arc<RwLock<Client>>);

impl Reconnecting {
    pub fn new(client: Client) -> Self {
        Self(Arc::new(RwLock::new(client)))
    }

    /// A client that always goes by the newest one.
    pub fn client(&self) -> Client {
        let namespace = self.0.read().default_namespace().to_owned();
        Client::new(self.clone(), namespace)
    }

    /// From now on requests go by this client.
    pub fn replace(&self, client: Client) {
        *self.0.write() = client;
    }
}

impl Service<http::Request<Body>> for Reconnecting {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let client = self.0.read().clone();
        async move { client.send(request).await.map_err(BoxError::from) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// A client that answers everything with its name.
    fn named(name: &'static str) -> Client {
        let answer = move |_: http::Request<Body>| async move {
            Ok::<_, Infallible>(http::Response::new(Body::from(name.as_bytes().to_vec())))
        };
        Client::new(tower::service_fn(answer), "default")
    }

    #[tokio::test]
    async fn requests_go_by_the_newest_client() {
        let reconnecting = Reconnecting::new(named("first"));
        let client = reconnecting.client();
        let ask = async || {
            let request = http::Request::get("/").body(Vec::new()).unwrap();
            client.clone().request_text(request).await.unwrap()
        };
        assert_eq!(ask().await, "first");
        reconnecting.replace(named("second"));
        assert_eq!(ask().await, "second");
    }
}
