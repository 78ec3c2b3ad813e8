//! What answers a resource request: the verbs over the registry, and the subresources that have ways of their own.

mod binding;
mod components;
mod connect;
mod decode;
mod disruption;
mod escalation;
mod eviction;
mod finalize;
mod objects;
mod patch;
mod proxy;
mod reviews;
mod scale;
mod streams;
mod token;
mod watch;

use apimachinery::Status;
use futures::FutureExt;
use futures::future::{self, BoxFuture};
use http::Method;

use crate::context::Context;
use crate::http::body::{Request, Response};
use crate::http::negotiate::{self, Accepted};
use crate::kinds::Kind;
use crate::nonresource;
use crate::registry::Part;
use crate::server::Server;

/// One resource request, past authentication and authorization.
pub struct Call<'a> {
    pub server: &'a Server,
    pub ctx: &'a Context,
    pub kind: &'a Kind,
    pub accepted: Accepted,
}

/// Answers a resource request.
pub async fn dispatch(server: &Server, ctx: &Context, request: Request) -> Result<Response, Status> {
    let info = &ctx.info;
    if info.verb == "proxy" {
        return Err(Status::no_such_path());
    }
    let Some(kind) = server.registry.kind(&info.group, &info.version, &info.resource).cloned() else {
        return nonresource::no_such_resource(server, &info.group);
    };
    if kind.resource.namespaced && info.namespace.is_empty() && !matches!(info.verb, "list" | "watch") {
        // a namespaced object without a namespace has no address; only lists go across
        return Err(if info.verb == "deletecollection" || info.verb == "create" {
            Status::method_not_allowed()
        } else {
            Status::no_such_path()
        });
    }
    if !kind.resource.namespaced && !info.namespace.is_empty() && kind.resource.plural != "namespaces" {
        return Err(Status::no_such_path());
    }
    // authorized like GET, but only what is connected to is told of it
    if *request.method() == Method::HEAD && info.subresource != "proxy" {
        return Err(Status::method_not_allowed());
    }
    // reviews, bindings, tokens and evictions are shown to nobody
    let shown = kind.resource.access != api::Access::CreateOnly
        && !matches!(info.subresource.as_str(), "binding" | "eviction" | "token");
    let asked = negotiate::Asked { stream: info.verb == "watch", tables: shown };
    let accepted = negotiate::accepted(request.headers(), ctx.query.get("pretty"), asked)?;
    let call = Call { server, ctx, kind: &kind, accepted };
    if let Some(deprecation) = kind.resource.strategy.deprecation() {
        ctx.warn(deprecation);
    }
    if info.subresource.is_empty() {
        // a collection is not replaced, and what has a name already is not created
        let wants_name = matches!(info.verb, "update" | "patch");
        if (wants_name && info.name.is_empty()) || (info.verb == "create" && !info.name.is_empty()) {
            return Err(Status::method_not_allowed());
        }
        return call.main(request).await;
    }
    let subresource = kind.resource.subresource(&info.subresource).ok_or_else(Status::no_such_path)?;
    let allowed = match info.verb {
        "create" | "get" | "update" | "patch" | "delete" => subresource.verbs.contains(&info.verb),
        _ => false,
    };
    if !allowed {
        return Err(Status::method_not_allowed());
    }
    call.subresource(request).await
}

impl Call<'_> {
    /// In a box, so that the many ways together do not make the request's own future large.
    fn subresource(&self, request: Request) -> BoxFuture<'_, Result<Response, Status>> {
        let part = |name| Part::Other(name);
        match (self.kind.resource.plural, self.ctx.info.subresource.as_str()) {
            (_, "status") => self.part(request, Part::Status).boxed(),
            ("certificatesigningrequests", "approval") => self.part(request, part("approval")).boxed(),
            (_, "scale") => self.scale(request).boxed(),
            ("pods", "binding") => self.binding(request).boxed(),
            ("pods", "ephemeralcontainers") => self.part(request, part("ephemeralcontainers")).boxed(),
            ("pods", "resize") => self.part(request, part("resize")).boxed(),
            ("pods", "eviction") => self.eviction(request).boxed(),
            ("pods", "log" | "exec" | "attach" | "portforward") => self.stream(request).boxed(),
            ("pods" | "services" | "nodes", "proxy") => self.proxy(request).boxed(),
            ("namespaces", "finalize") => self.finalize(request).boxed(),
            ("serviceaccounts", "token") => self.token(request).boxed(),
            _ => future::ready(Err(Status::no_such_path())).boxed(),
        }
    }

    /// In a box too, of the size that the verb needs.
    fn main(&self, request: Request) -> BoxFuture<'_, Result<Response, Status>> {
        let refused = || future::ready(Err(Status::method_not_allowed())).boxed();
        let resource = self.kind.resource;
        match (resource.access, self.ctx.info.verb) {
            (api::Access::CreateOnly, "create") if resource.plural == "bindings" => {
                self.binding(request).boxed()
            }
            (api::Access::CreateOnly, "create") => self.review(request).boxed(),
            (api::Access::ReadOnly, "get" | "list") => future::ready(self.components()).boxed(),
            (api::Access::CreateOnly | api::Access::ReadOnly, _) => refused(),
            (_, "get") => self.get().boxed(),
            (_, "list") => self.list().boxed(),
            // a path can say that it is a watch, whatever the method
            (_, "watch") if *request.method() == Method::GET => self.watch(request).boxed(),
            (_, "create") => self.create(request).boxed(),
            (_, "update" | "patch") => self.part(request, Part::Main).boxed(),
            (_, "delete") => self.delete(request).boxed(),
            (_, "deletecollection") if resource.verbs().contains(&"deletecollection") => {
                self.delete_collection(request).boxed()
            }
            _ => refused(),
        }
    }
}
