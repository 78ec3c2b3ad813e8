//! Eviction: a delete that disruption budgets may refuse. Budgets are not served yet, so none refuses.

use apimachinery::schema::Schema;
use apimachinery::{GroupVersionKind, Object, Status};
use http::StatusCode;
use serde_json::json;

use super::{Call, decode};
use crate::http::body::{self, Request, Response};
use crate::http::{negotiate, respond};
use crate::registry::DeleteOptions;

impl Call<'_> {
    pub async fn eviction(&self, request: Request) -> Result<Response, Status> {
        let options = self.ctx.write_options("CreateOptions")?;
        let format = negotiate::content(request.headers())?;
        let bytes = body::read(request.into_body()).await?;
        let gvk = GroupVersionKind::new("policy", "v1", "Eviction");
        let schema = Schema::builtin("k8s.io.api.policy.v1", "Eviction")
            .ok_or_else(|| Status::internal("no schema of Eviction"))?;
        let eviction = decode::decode(self.ctx, &bytes, format, &schema, &gvk, options.field_validation)?;
        let info = &self.ctx.info;
        if !eviction.name().is_empty() && eviction.name() != info.name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let asked = eviction.get(&["deleteOptions"]).cloned().map(Object::from).unwrap_or_default();
        let mut delete = DeleteOptions::from_object(&asked);
        delete.dry_run |= options.dry_run;
        self.server.registry.delete(self.ctx, self.kind, &info.namespace, &info.name, &delete).await?;
        Ok(respond::success_status(self.accepted, StatusCode::CREATED, json!({})))
    }
}
