//! `namespaces/finalize`: who has emptied a namespace says so, and the last one lets it go.

use apimachinery::{Object, Status};

use super::{Call, decode};
use crate::http::body::{self, Request, Response};
use crate::http::negotiate;
use crate::registry::Part;

impl Call<'_> {
    pub async fn finalize(&self, request: Request) -> Result<Response, Status> {
        let options = self.ctx.write_options("UpdateOptions")?;
        let format = negotiate::content(request.headers())?;
        let bytes = body::read(request.into_body()).await?;
        let gvk = self.kind.resource.gvk();
        let schema = &self.kind.schema;
        let asked = decode::decode(self.ctx, &bytes, format, schema, &gvk, options.field_validation)?;
        let transform = |old: Option<&Object>| {
            let old = old.ok_or_else(|| {
                Status::not_found(&self.kind.resource.group_resource(), &self.ctx.info.name)
            })?;
            let mut new = asked.clone();
            api::strategy::restore(&mut new, old, "status");
            self.managed(Some(old), new, "finalize")
        };
        self.update(Part::Other("finalize"), &transform, false, options).await
    }
}
