//! Eviction: a delete that disruption budgets may refuse.

use std::time::Duration;

use apimachinery::schema::Schema;
use apimachinery::{GroupVersionKind, Object, Reason, Status};
use chrono::SecondsFormat;
use http::StatusCode;
use serde_json::json;

use super::{Call, decode, disruption};
use crate::context::{Context, WriteOptions};
use crate::http::body::{self, Request, Response};
use crate::http::{negotiate, respond};
use crate::registry::list::ListOptions;
use crate::registry::{DeleteOptions, Part};

/// How often, and after how long, an eviction is tried again that lost a race.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(500);

/// How far an eviction has come.
enum Permit {
    /// The pod may go, as it was seen or as it may have become.
    Go {
        as_seen: bool,
        budget: Option<String>,
    },
    Refused(Status),
}

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
        if eviction.name() != info.name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let asked = eviction.get(&["deleteOptions"]).cloned().map(Object::from).unwrap_or_default();
        let said = asked.get_array(&["dryRun"]);
        if options.dry_run && !said.is_empty() && !said.iter().any(|value| value == "All") {
            let texts: Vec<&str> = said.iter().filter_map(|value| value.as_str()).collect();
            return Err(Status::bad_request(format!(
                "Non-matching dry-run options in request and content: [All] and [{}]",
                texts.join(" ")
            )));
        }
        let mut delete = DeleteOptions::from_object(&asked);
        if options.dry_run {
            delete.dry_run = vec!["All".to_owned()];
        }
        delete.validate()?;
        self.evict(delete).await?;
        Ok(respond::success_status(self.accepted, StatusCode::CREATED, json!({})))
    }

    async fn evict(&self, asked: DeleteOptions) -> Result<(), Status> {
        let info = &self.ctx.info;
        let registry = &self.server.registry;
        for attempt in 0.. {
            let entry = registry.get(self.kind, &info.namespace, &info.name, "").await?;
            let pod = entry.object().map_err(Status::internal)?;
            let without_budget = disruption::needs_no_budget(&pod);
            let permit = match without_budget {
                true => Permit::Go { as_seen: disruption::may_still_start(&pod), budget: None },
                false => self.ask_budgets(&pod, asked.is_dry_run()).await?,
            };
            let (as_seen, budget) = match permit {
                Permit::Refused(status) => return Err(status),
                Permit::Go { as_seen, budget } => (as_seen, budget),
            };
            let mut delete = asked.clone();
            if as_seen && delete.resource_version.is_none() {
                delete.resource_version = Some(pod.resource_version().to_owned());
            }
            match self.mark_and_delete(delete).await {
                Err(status) if status.is(Reason::Conflict) && as_seen && asked.resource_version.is_none() => {
                    match budget {
                        // it may have become ready meanwhile, and would then have to be counted
                        Some(budget) => return Err(disruption::still_processed(&budget)),
                        None if attempt + 1 < TRIES => tokio::time::sleep(PAUSE).await,
                        None => return Err(status),
                    }
                }
                done => return done,
            }
        }
        Ok(())
    }

    /// Asks the budget that covers a pod, and lets it count the eviction.
    async fn ask_budgets(&self, pod: &Object, dry_run: bool) -> Result<Permit, Status> {
        let registry = &self.server.registry;
        let kind = registry
            .kind("policy", "v1", "poddisruptionbudgets")
            .ok_or_else(|| Status::internal("disruption budgets are not served"))?;
        let page = registry.list(kind, pod.namespace(), &ListOptions::default()).await?;
        let mut covering = Vec::new();
        for entry in &page.entries {
            let budget = entry.object().map_err(Status::internal)?;
            if disruption::covers(&budget, pod) {
                covering.push(budget);
            }
        }
        let budget = match covering.as_slice() {
            [] => return Ok(Permit::Go { as_seen: false, budget: None }),
            [budget] => budget,
            _ => return Ok(Permit::Refused(disruption::more_than_one())),
        };
        let name = budget.name().to_owned();
        if !disruption::is_ready(pod) && disruption::lets_unready_go(budget) {
            return Ok(Permit::Go { as_seen: true, budget: Some(name) });
        }
        let internal = Context::internal();
        let now = internal.now.to_rfc3339_opts(SecondsFormat::Secs, true);
        let transform = |old: Option<&Object>| {
            let old = old.ok_or_else(|| Status::not_found(&kind.resource.group_resource(), &name))?;
            disruption::decrement(old, pod.name(), &now, dry_run)
        };
        let options = WriteOptions { dry_run, ..WriteOptions::default() };
        let counted = registry
            .update(&internal, kind, pod.namespace(), &name, Part::Status, &transform, false, options)
            .await;
        match counted {
            Ok(_) => Ok(Permit::Go { as_seen: false, budget: Some(name) }),
            Err(status) if status.is(Reason::Conflict) => {
                let why = format!("couldn't update PodDisruptionBudget {name:?} due to conflicts");
                Ok(Permit::Refused(Status::timeout(why, 10)))
            }
            Err(status) => Ok(Permit::Refused(status)),
        }
    }

    /// Writes on the pod why it goes, and deletes it.
    async fn mark_and_delete(&self, mut delete: DeleteOptions) -> Result<(), Status> {
        let info = &self.ctx.info;
        let registry = &self.server.registry;
        if !delete.is_dry_run() {
            let now = self.ctx.now.to_rfc3339_opts(SecondsFormat::Secs, true);
            let resource = self.kind.resource.group_resource();
            let transform = |old: Option<&Object>| {
                let old = old.ok_or_else(|| Status::not_found(&resource, &info.name))?;
                let differs = |asked: &Option<String>, is: &str| {
                    asked.as_deref().filter(|asked| !asked.is_empty() && *asked != is).map(str::to_owned)
                };
                if let Some(uid) = differs(&delete.uid, old.uid()) {
                    let why = format!(
                        "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
                        old.uid()
                    );
                    return Err(Status::conflict(&resource, &info.name, why));
                }
                if let Some(version) = differs(&delete.resource_version, old.resource_version()) {
                    let why = format!(
                        "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({}). The object might have been modified",
                        old.resource_version()
                    );
                    return Err(Status::conflict(&resource, &info.name, why));
                }
                let mut new = old.clone();
                disruption::mark_evicted(&mut new, &now);
                Ok(new)
            };
            let options = WriteOptions::default();
            let marked = registry
                .update(
                    self.ctx,
                    self.kind,
                    &info.namespace,
                    &info.name,
                    Part::Status,
                    &transform,
                    false,
                    options,
                )
                .await?;
            if delete.resource_version.is_some() {
                delete.resource_version = Some(marked.object.resource_version().to_owned());
            }
        }
        registry.delete(self.ctx, self.kind, &info.namespace, &info.name, &delete).await?;
        Ok(())
    }
}
