//! A client that says which component it is: the server notes it with what was written, in logs and in audits.

use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{HeaderValue, USER_AGENT};
use kube::Client;
use kube::client::Body;
use tower::{BoxError, Service};

#[derive(Clone)]
struct Named {
    client: Client,
    agent: HeaderValue,
}

/// The same client with a name of its own, such as `kube-scheduler/v1.36.3`. One that no header can have is left out.
pub fn named(client: Client, agent: &str) -> Client {
    let Ok(agent) = HeaderValue::from_str(agent) else { return client };
    let namespace = client.default_namespace().to_owned();
    Client::new(Named { client, agent }, namespace)
}

impl Service<http::Request<Body>> for Named {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        request.headers_mut().entry(USER_AGENT).or_insert_with(|| self.agent.clone());
        let client = self.client.clone();
        async move { client.send(request).await.map_err(BoxError::from) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[tokio::test]
    async fn a_request_has_the_name_unless_it_has_another() {
        let answer = |request: http::Request<Body>| async move {
            let agent = request.headers().get(USER_AGENT).map(|agent| agent.as_bytes().to_vec());
            Ok::<_, Infallible>(http::Response::new(Body::from(agent.unwrap_or_default())))
        };
        let plain = Client::new(tower::service_fn(answer), "there");
        let said = async |client: &Client, agent: Option<&str>| {
            let mut request = http::Request::get("/");
            if let Some(agent) = agent {
                request = request.header(USER_AGENT, agent);
            }
            client.request_text(request.body(Vec::new()).unwrap()).await.unwrap()
        };
        let client = named(plain.clone(), "kube-scheduler/v1");
        assert_eq!(client.default_namespace(), "there");
        assert_eq!(said(&client, None).await, "kube-scheduler/v1");
        assert_eq!(said(&client, Some("other")).await, "other");
        assert_eq!(said(&named(plain.clone(), "a\nb"), None).await, "");
        assert_eq!(said(&plain, None).await, "");
    }
}
