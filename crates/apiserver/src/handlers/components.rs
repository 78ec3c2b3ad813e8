//! `componentstatuses`: what the server knows of the parts of the control plane, made up when somebody asks.

use std::sync::atomic::Ordering;

use apimachinery::schema::Schema;
use apimachinery::{Object, Reason, Status, Value};
use chrono::{DateTime, Duration};
use http::StatusCode;
use serde_json::json;

use super::Call;
use crate::http::body::Response;
use crate::http::negotiate::As;
use crate::http::respond;
use crate::registry::list::ListOptions;

/// Names of the components, and the lease by which each shows that it lives where it is a process of its own.
const COMPONENTS: [(&str, Option<&str>); 3] = [
    ("controller-manager", Some("kube-controller-manager")),
    ("etcd-0", None),
    ("scheduler", Some("kube-scheduler")),
];

impl Call<'_> {
    fn component(&self, name: &str, lease: Option<&str>) -> Object {
        let (healthy, message) = match lease {
            None => match self.server.store_failed.load(Ordering::Relaxed) {
                false => (true, "ok".to_owned()),
                true => (false, "the store's log broke off".to_owned()),
            },
            Some(lease) if self.runs_inside(lease) || self.lease_is_held(lease) => (true, "ok".to_owned()),
            Some(lease) => (false, format!("nobody holds the lease kube-system/{lease}")),
        };
        let status = if healthy { "True" } else { "False" };
        let mut object = Object::from(json!({
            "metadata": {"name": name},
            "conditions": [{"type": "Healthy", "status": status, "message": message}],
        }));
        object.set_type(&self.kind.resource.gvk());
        object
    }

    /// Whether a component is part of this process: if it ends, so does the server.
    fn runs_inside(&self, component: &str) -> bool {
        let user = format!("system:{component}");
        self.server.inside.lock().contains(&user)
    }

    fn lease_is_held(&self, name: &str) -> bool {
        let registry = &self.server.registry;
        let Some(kind) = registry.kind("coordination.k8s.io", "v1", "leases") else { return false };
        let Some(lease) = registry.peek(kind, "kube-system", name) else { return false };
        let seconds = lease.get_i64(&["spec", "leaseDurationSeconds"]).unwrap_or_default().clamp(0, 86400);
        let renewed = DateTime::parse_from_rfc3339(lease.get_str(&["spec", "renewTime"]));
        !lease.get_str(&["spec", "holderIdentity"]).is_empty()
            && renewed.is_ok_and(|renewed| renewed + Duration::seconds(seconds) > self.ctx.now)
    }

    pub fn components(&self) -> Result<Response, Status> {
        let info = &self.ctx.info;
        if info.verb == "get" {
            let known = COMPONENTS.iter().find(|(name, _)| *name == info.name);
            let (name, lease) = known.ok_or_else(|| {
                Status::new(500, Reason::Unknown, format!("Component not found: {}", info.name))
            })?;
            let object = self.component(name, *lease);
            return Ok(respond::object(self.accepted, StatusCode::OK, self.ctx, self.kind, &object));
        }
        let options = ListOptions::parse(self.kind, info, &self.ctx.query)?;
        let none = serde_json::Map::new();
        let objects: Vec<Object> = COMPONENTS
            .iter()
            .map(|(name, lease)| self.component(name, *lease))
            .filter(|_| options.labels.as_ref().is_none_or(|labels| labels.matches(&none)))
            .filter(|object| {
                let named = |field: &str| (field == "metadata.name").then(|| object.name());
                options.fields.as_ref().is_none_or(|selector| selector.matches(named))
            })
            .collect();
        self.made_up_list(&objects)
    }

    fn made_up_list(&self, objects: &[Object]) -> Result<Response, Status> {
        let columns = self.kind.resource.columns;
        let list = |kind: &str, api_version: &str, items: Vec<Value>| {
            Object::from(json!({"kind": kind, "apiVersion": api_version, "metadata": {}, "items": items}))
        };
        let (object, schema) = match self.accepted.r#as {
            As::Table => {
                let rows = objects.iter().map(|object| respond::row(columns, object, self.ctx)).collect();
                return Ok(respond::json(StatusCode::OK, &respond::table(columns, rows, json!({}), true)));
            }
            As::Itself => {
                let kind = format!("{}List", self.kind.resource.kind);
                let items = objects.iter().map(|object| object.as_value().clone()).collect();
                let schema = Schema::builtin(self.kind.resource.package, &kind);
                (list(&kind, &self.kind.resource.gvk().api_version(), items), schema)
            }
            As::PartialObjectMetadata | As::PartialObjectMetadataList => {
                let items = objects.iter().map(|object| respond::metadata_of(object).into_value()).collect();
                let schema =
                    Schema::builtin("k8s.io.apimachinery.pkg.apis.meta.v1", "PartialObjectMetadataList");
                (list("PartialObjectMetadataList", "meta.k8s.io/v1", items), schema)
            }
        };
        let schema = schema.ok_or_else(|| Status::internal("no schema of the list"))?;
        Ok(respond::encoded(StatusCode::OK, self.accepted.format, self.accepted.pretty, &object, &schema))
    }
}
