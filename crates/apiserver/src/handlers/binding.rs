//! Binding: a pod gets its node, once.

use apimachinery::schema::Schema;
use apimachinery::{GroupVersionKind, Object, Reason, Status, Value};
use http::StatusCode;
use serde_json::json;

use super::{Call, decode};
use crate::http::body::{self, Request, Response};
use crate::http::{negotiate, respond};
use crate::registry::{Part, metadata};

impl Call<'_> {
    pub async fn binding(&self, request: Request) -> Result<Response, Status> {
        let options = self.ctx.write_options("CreateOptions")?;
        let format = negotiate::content(request.headers())?;
        let bytes = body::read(request.into_body()).await?;
        let gvk = GroupVersionKind::new("", "v1", "Binding");
        let schema = Schema::builtin("k8s.io.api.core.v1", "Binding")
            .ok_or_else(|| Status::internal("no schema of Binding"))?;
        let binding = decode::decode(self.ctx, &bytes, format, &schema, &gvk, options.field_validation)?;
        let info = &self.ctx.info;
        let name = if info.name.is_empty() { binding.name() } else { &info.name };
        if binding.name() != name {
            return Err(Status::bad_request("name in URL does not match name in Binding object"));
        }
        let target = |key: &str| binding.get_str(&["target", key]);
        let mut errors = Vec::new();
        let path = apimachinery::field::Path::new("target");
        if !matches!(target("kind"), "" | "Node") {
            let error = apimachinery::field::Error::not_supported(
                &path.child("kind"),
                target("kind"),
                &["Node", "<empty>"],
            );
            errors.push(error);
        }
        if target("name").is_empty() {
            errors.push(apimachinery::field::Error::required(&path.child("name"), ""));
        }
        if !errors.is_empty() {
            // upstream never says whose errors these are
            return Err(Status::new(500, Reason::Unknown, apimachinery::field::aggregate(&errors)));
        }
        let pods = self.server.registry.core("pods");
        let resource = pods.resource.group_resource();
        let transform = |old: Option<&Object>| {
            let pod = old.ok_or_else(|| Status::not_found(&resource, name))?;
            let key = pods.key(pod.namespace(), name);
            metadata::check_uid(pods.resource, &key, binding.uid(), pod)?;
            bound(pod, &binding, target("name")).map_err(|why| {
                Status::conflict(&apimachinery::GroupResource::new("", "pods/binding"), name, why)
            })
        };
        self.server
            .registry
            .update(self.ctx, pods, &info.namespace, name, Part::Other("binding"), &transform, false, options)
            .await?;
        Ok(respond::success_status(self.accepted, StatusCode::CREATED, json!({})))
    }
}

/// The pod on its node; the error says why it cannot go there.
fn bound(pod: &Object, binding: &Object, node: &str) -> Result<Object, String> {
    let name = pod.name();
    if pod.deletion_timestamp().is_some() {
        return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let current = pod.get_str(&["spec", "nodeName"]);
    if !current.is_empty() {
        return Err(format!("pod {name} is already assigned to node {current:?}"));
    }
    if !pod.get_array(&["spec", "schedulingGates"]).is_empty() {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut pod = pod.clone();
    pod.set(&["spec", "nodeName"], node);
    for (key, value) in binding.annotations().into_iter().flatten() {
        pod.set(&["metadata", "annotations", key], value.clone());
    }
    let mut conditions: Vec<Value> = pod.get_array(&["status", "conditions"]).to_vec();
    let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let scheduled = conditions.iter_mut().find(|condition| condition["type"] == "PodScheduled");
    let generation = pod.generation();
    let mut condition =
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    if generation > 0 {
        condition["observedGeneration"] = json!(generation);
    }
    match scheduled {
        Some(old) => {
            if old["status"] == "True" {
                condition["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = condition;
        }
        None => conditions.push(condition),
    }
    pod.set(&["status", "conditions"], conditions);
    Ok(pod)
}
