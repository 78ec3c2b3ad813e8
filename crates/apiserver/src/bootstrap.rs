//! What every cluster has from the start: namespaces, roles, priority classes and levels, services of its own APIs,
//! the `kubernetes` Service. Made when missing, put right when it drifted, before the server says that it is ready.

mod authentication;
mod flowcontrol;
mod identity;
pub(crate) mod kubernetes;
mod legacy_tokens;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use api::{apiregistration, catalogue};
use apimachinery::{Object, Reason, Status, Value};
use futures::future::try_join_all;
use serde_json::json;

use crate::authorization::bootstrap as policy;
use crate::authorization::rbac::Kind as RbacKind;
use crate::authorization::reconcile::{Reconciled, reconcile};
use crate::context::{Context, WriteOptions};
use crate::kinds::Kind;
use crate::pki::{Authorities, Trust};
use crate::registry::{DeleteOptions, Part};
use crate::server::Server;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// How often what may drift is put right.
const RECONCILE: std::time::Duration = std::time::Duration::from_secs(10);

/// Makes all of it, then keeps true what only the server itself has a say in.
pub async fn run(server: Arc<Server>, trust: Arc<Trust>) -> Result<(), Status> {
    let ctx = Context::internal();
    let authorities = trust.authorities();
    let of_namespaces = NAMESPACES
        .map(|name| ensure(&server, &ctx, "", "v1", "namespaces", json!({"metadata": {"name": name}})));
    try_join_all(of_namespaces).await?;
    let mut roles = policy::objects();
    roles.push((RbacKind::ClusterRoleBinding, policy::cluster_admins_binding()));
    let of_roles = roles.into_iter().map(|(kind, object)| reconcile_rbac(&server, &ctx, kind, object));
    let ranges: Vec<String> = server.config.service_cidr.iter().map(|range| range.to_string()).collect();
    let service_cidr = json!({
        "metadata": {"name": "kubernetes"}, "spec": {"cidrs": ranges},
    });
    let cidr_status = json!([{"type": "Ready", "status": "True", "reason": "", "message":
        "Kubernetes default Service CIDR is ready", "lastTransitionTime": ctx.timestamp()}]);
    tokio::try_join!(
        async { try_join_all(of_roles).await.map(drop) },
        async {
            let made = ensure(&server, &ctx, "networking.k8s.io", "v1", "servicecidrs", service_cidr).await?;
            if made {
                set_status(&server, &ctx, "networking.k8s.io", "servicecidrs", "kubernetes", cidr_status)
                    .await?;
            }
            kubernetes::run(&server, &ctx).await
        },
        priority_classes(&server, &ctx),
        flowcontrol::run(&server, &ctx),
        api_services(&server, &ctx),
        async {
            tell_whom_it_believes(&server, &ctx, &authorities).await;
            Ok(())
        },
        legacy_tokens::run(&server, &ctx),
    )?;
    server.bootstrapped.store(true, Ordering::Release);
    tokio::spawn(crate::registry::allocators::repair::run(server.clone()));
    tokio::spawn(keep(server, trust));
    Ok(())
}

/// Says goodbye before the server stops: clients are led to others that live.
pub async fn stop(server: &Server) {
    if server.stopping.is_cancelled() {
        return;
    }
    let ctx = Context::internal();
    match tokio::time::timeout(2 * RECONCILE, kubernetes::leave(server, &ctx)).await {
        Ok(Ok(())) => {}
        Ok(Err(status)) => tracing::info!(%status, "default/kubernetes goes on to name this server"),
        Err(_) => tracing::warn!("this server could not be taken from default/kubernetes in time"),
    }
}

async fn keep(server: Arc<Server>, trust: Arc<Trust>) {
    let holder = uuid::Uuid::new_v4().to_string();
    loop {
        let ctx = Context::internal();
        if let Err(status) = identity::renew(&server, &ctx, &holder).await {
            tracing::warn!(%status, "the server's lease could not be renewed");
        }
        if let Err(status) = identity::collect(&server, &ctx).await {
            tracing::warn!(%status, "leases of servers that are gone could not be removed");
        }
        if let Err(status) = kubernetes::reconcile(&server, &ctx, kubernetes::Ports::Theirs).await {
            tracing::warn!(%status, "the endpoints of default/kubernetes could not be put right");
        }
        tell_whom_it_believes(&server, &ctx, &trust.authorities()).await;
        if let Err(status) = legacy_tokens::run(&server, &ctx).await {
            tracing::warn!(%status, "since when uses of tokens are noted could not be told");
        }
        if let Err(status) = flowcontrol::run(&server, &ctx).await {
            tracing::warn!(%status, "priority levels and flow schemas could not be put right");
        }
        if let Err(status) = api_services(&server, &ctx).await {
            tracing::warn!(%status, "services of the server's own APIs could not be put right");
        }
        tokio::select! {
            () = server.stopping.cancelled() => return,
            () = tokio::time::sleep(RECONCILE) => {}
        }
    }
}

/// A server can go on without.
async fn tell_whom_it_believes(server: &Server, ctx: &Context, authorities: &Authorities) {
    if let Err(status) = authentication::run(server, ctx, authorities).await {
        tracing::warn!(%status, "whom the server believes could not be told to extension servers");
    }
}

fn kind<'a>(server: &'a Server, group: &str, version: &str, plural: &str) -> Result<&'a Arc<Kind>, Status> {
    server
        .registry
        .kind(group, version, plural)
        .ok_or_else(|| Status::internal(format!("{plural}.{group} is not served")))
}

fn typed(kind: &Kind, object: Value) -> Object {
    let mut object = Object::from(object);
    object.set_type(&kind.resource.gvk());
    kind.resource.strategy.default(&mut object);
    object
}

/// Creates an object unless it is there. Says whether it did.
async fn ensure(
    server: &Server,
    ctx: &Context,
    group: &str,
    version: &str,
    plural: &str,
    object: Value,
) -> Result<bool, Status> {
    let kind = kind(server, group, version, plural)?;
    let object = typed(kind, object);
    let namespace = object.namespace().to_owned();
    if server.registry.peek(kind, &namespace, object.name()).is_some() {
        return Ok(false);
    }
    // boxed, as all writes here: many wait side by side, and each would have room for all that a write needs
    match Box::pin(server.registry.create(ctx, kind, &namespace, object, WriteOptions::default())).await {
        Ok(_) => Ok(true),
        Err(status) if status.is(Reason::AlreadyExists) => Ok(false),
        Err(status) => Err(status),
    }
}

/// Creates an object, or makes the fields that `object` names what they should be.
async fn put(
    server: &Server,
    ctx: &Context,
    group: &str,
    plural: &str,
    object: Value,
    fields: &[&str],
) -> Result<(), Status> {
    let kind = kind(server, group, "v1", plural)?;
    let wanted = typed(kind, object);
    let (namespace, name) = (wanted.namespace().to_owned(), wanted.name().to_owned());
    let transform = |old: Option<&Object>| {
        let Some(old) = old else { return Ok(wanted.clone()) };
        let mut new = old.clone();
        for field in fields {
            if let Some(value) = wanted.get(&[field]) {
                new.set(&[field], value.clone());
            }
        }
        for (key, value) in wanted.labels().into_iter().flatten() {
            new.set(&["metadata", "labels", key], value.clone());
        }
        Ok(new)
    };
    let options = WriteOptions::default();
    let update = server.registry.update(ctx, kind, &namespace, &name, Part::Main, &transform, true, options);
    Box::pin(update).await.map(drop)
}

async fn set_status(
    server: &Server,
    ctx: &Context,
    group: &str,
    plural: &str,
    name: &str,
    conditions: Value,
) -> Result<(), Status> {
    let kind = kind(server, group, "v1", plural)?;
    let transform = |old: Option<&Object>| {
        let mut new = old.cloned().unwrap_or_default();
        new.set(&["status", "conditions"], conditions.clone());
        Ok(new)
    };
    let options = WriteOptions::default();
    let update = server.registry.update(ctx, kind, "", name, Part::Status, &transform, false, options);
    Box::pin(update).await.map(drop)
}

/// Bootstrap roles get back what was taken from them, unless they opt out; what was added stays.
async fn reconcile_rbac(
    server: &Server,
    ctx: &Context,
    rbac_kind: RbacKind,
    object: Object,
) -> Result<(), Status> {
    let plural = match rbac_kind {
        RbacKind::ClusterRole => "clusterroles",
        RbacKind::ClusterRoleBinding => "clusterrolebindings",
        RbacKind::Role => "roles",
        RbacKind::RoleBinding => "rolebindings",
    };
    let kind = kind(server, "rbac.authorization.k8s.io", "v1", plural)?;
    let wanted = typed(kind, object.into_value());
    let (namespace, name) = (wanted.namespace().to_owned(), wanted.name().to_owned());
    let registry = &server.registry;
    let options = WriteOptions::default();
    let Some(old) = registry.peek(kind, &namespace, &name) else {
        return match Box::pin(registry.create(ctx, kind, &namespace, wanted, options)).await {
            Err(status) if !status.is(Reason::AlreadyExists) => Err(status),
            _ => Ok(()),
        };
    };
    match reconcile(rbac_kind, &old, &wanted) {
        Reconciled::Unchanged => Ok(()),
        Reconciled::Update(_) => {
            let transform = |old: Option<&Object>| {
                let old = old.cloned().unwrap_or_default();
                Ok(match reconcile(rbac_kind, &old, &wanted) {
                    Reconciled::Update(new) => new,
                    _ => old,
                })
            };
            let update =
                registry.update(ctx, kind, &namespace, &name, Part::Main, &transform, false, options);
            Box::pin(update).await.map(drop)
        }
        Reconciled::Recreate(new) => {
            Box::pin(registry.delete(ctx, kind, &namespace, &name, &DeleteOptions::default())).await?;
            Box::pin(registry.create(ctx, kind, &namespace, new, options)).await.map(drop)
        }
    }
}

async fn priority_classes(server: &Server, ctx: &Context) -> Result<(), Status> {
    let classes = [
        (
            "system-node-critical",
            2_000_001_000_i64,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ];
    for (name, value, description) in classes {
        let class = json!({"metadata": {"name": name}, "value": value, "description": description});
        ensure(server, ctx, "scheduling.k8s.io", "v1", "priorityclasses", class).await?;
    }
    Ok(())
}

/// Every version of a group that this server serves itself has an APIService that says so.
async fn api_services(server: &Server, ctx: &Context) -> Result<(), Status> {
    let versions = catalogue::catalogue().group_versions();
    let services = versions.iter().filter_map(|gv| apiregistration::local(&gv.group, &gv.version));
    let each = services
        .map(|it| put(server, ctx, "apiregistration.k8s.io", "apiservices", it.into_value(), &["spec"]));
    try_join_all(each).await.map(drop)
}
