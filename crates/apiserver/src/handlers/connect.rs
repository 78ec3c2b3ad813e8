//! Connections to what objects stand for: what clients ask for, as webhooks are shown it.

use apimachinery::{Object, Status, Value};
use serde_json::json;

use super::Call;
use crate::admission::{Attributes, Operation};

impl Call<'_> {
    /// Whether webhooks let the client connect, who asks for a stream of this pod or for a path behind it.
    pub async fn admit_connection(&self, path: &str) -> Result<(), Status> {
        let info = &self.ctx.info;
        let registry = &self.server.registry;
        let mut attributes = Attributes {
            operation: Operation::Connect,
            kind: self.kind,
            subresource: &info.subresource,
            namespace: info.namespace.clone(),
            name: info.name.clone(),
            object: Some(self.options(path)),
            old: None,
            dry_run: false,
        };
        registry.admission.connect(registry, self.ctx, &mut attributes).await
    }

    /// The query, as an object of the kind that the subresource has for it. What is not said is left out.
    fn options(&self, path: &str) -> Object {
        let query = &self.ctx.query;
        let subresource = self.ctx.info.subresource.as_str();
        let kind = match (self.kind.resource.plural, subresource) {
            (_, "exec") => "PodExecOptions",
            (_, "attach") => "PodAttachOptions",
            (_, "portforward") => "PodPortForwardOptions",
            ("pods", _) => "PodProxyOptions",
            ("services", _) => "ServiceProxyOptions",
            _ => "NodeProxyOptions",
        };
        let mut options = json!({"kind": kind, "apiVersion": "v1"});
        if matches!(subresource, "exec" | "attach") {
            for key in ["stdin", "stdout", "stderr", "tty"].into_iter().filter(|key| query.flag(key)) {
                options[key] = json!(true);
            }
            if !query.text("container").is_empty() {
                options["container"] = query.text("container").into();
            }
        }
        match subresource {
            "exec" => options["command"] = query.all("command").map(Value::from).collect(),
            "portforward" => {
                let ports = query.all("ports").flat_map(|ports| ports.split(','));
                let ports: Vec<i32> = ports.filter_map(|port| port.parse().ok()).collect();
                if !ports.is_empty() {
                    options["ports"] = json!(ports);
                }
            }
            "proxy" if !path.is_empty() => options["path"] = path.into(),
            _ => {}
        }
        Object::from(options)
    }
}
