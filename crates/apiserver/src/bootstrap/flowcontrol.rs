//! Priority levels and flow schemas that every cluster has: the mandatory ones are what they must be, the suggested
//! ones what they should be unless somebody made them their own.

use api::flowcontrol::bootstrap::{
    AUTO_UPDATE, mandatory_levels, mandatory_schemas, suggested_levels, suggested_schemas,
};
use apimachinery::{Object, Reason, Status};
use futures::future::try_join_all;

use super::{kind, typed};
use crate::context::{Context, WriteOptions};
use crate::registry::Part;
use crate::server::Server;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const LEVELS: &str = "prioritylevelconfigurations";
const SCHEMAS: &str = "flowschemas";

pub async fn run(server: &Server, ctx: &Context) -> Result<(), Status> {
    let wanted = [
        (LEVELS, true, mandatory_levels()),
        (SCHEMAS, true, mandatory_schemas()),
        (LEVELS, false, suggested_levels()),
        (SCHEMAS, false, suggested_schemas()),
    ];
    let each = wanted.into_iter().flat_map(|(plural, mandatory, objects)| {
        objects.into_iter().map(move |object| reconcile(server, ctx, plural, mandatory, object))
    });
    try_join_all(each).await.map(drop)
}

async fn reconcile(
    server: &Server,
    ctx: &Context,
    plural: &str,
    mandatory: bool,
    object: Object,
) -> Result<(), Status> {
    let kind = kind(server, GROUP, "v1", plural)?;
    let wanted = typed(kind, object.into_value());
    let name = wanted.name().to_owned();
    let Some(old) = server.registry.peek(kind, "", &name) else {
        return match Box::pin(server.registry.create(ctx, kind, "", wanted, WriteOptions::default())).await {
            Err(status) if !status.is(Reason::AlreadyExists) => Err(status),
            _ => Ok(()),
        };
    };
    if corrected(&old, &wanted, mandatory).is_none() {
        return Ok(());
    }
    let transform = |old: Option<&Object>| {
        let old = old.cloned().unwrap_or_default();
        Ok(corrected(&old, &wanted, mandatory).unwrap_or(old))
    };
    let options = WriteOptions::default();
    let update = server.registry.update(ctx, kind, "", &name, Part::Main, &transform, false, options);
    Box::pin(update).await.map(drop)
}

/// What becomes of an object that is there already; `None` when it stays as it is.
fn corrected(old: &Object, wanted: &Object, mandatory: bool) -> Option<Object> {
    let annotation = old.annotation(AUTO_UPDATE);
    // one without the annotation is ours as long as nobody changed it
    let ours = match annotation {
        _ if mandatory => true,
        Some(value) => value == "true",
        None => old.generation() == 1,
    };
    let note = ours.to_string();
    let spec = wanted.get(&["spec"]).filter(|spec| ours && old.get(&["spec"]) != Some(spec));
    if spec.is_none() && annotation == Some(note.as_str()) {
        return None;
    }
    let mut new = old.clone();
    if let Some(spec) = spec {
        new.set(&["spec"], spec.clone());
    }
    new.set(&["metadata", "annotations", AUTO_UPDATE], note);
    (new != *old).then_some(new)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn level(shares: i64, annotation: Option<&str>, generation: i64) -> Object {
        let mut level = Object::from(json!({"metadata": {"name": "l", "generation": generation}}));
        level.set(&["spec"], json!({"limited": {"nominalConcurrencyShares": shares}}));
        if let Some(value) = annotation {
            level.set(&["metadata", "annotations", AUTO_UPDATE], value);
        }
        level
    }

    #[test]
    fn what_becomes_of_what_is_there() {
        let wanted = level(30, Some("true"), 1);
        // shares, annotation, generation, mandatory; then the shares and the annotation after
        for (shares, annotation, generation, mandatory, after) in [
            (30, Some("true"), 1, false, None),
            (10, Some("true"), 2, false, Some((30, "true"))),
            (10, Some("false"), 2, false, None),
            (10, Some("false"), 2, true, Some((30, "true"))),
            (10, None, 1, false, Some((30, "true"))),
            (10, None, 2, false, Some((10, "false"))),
        ] {
            let new = corrected(&level(shares, annotation, generation), &wanted, mandatory);
            let got = new.as_ref().map(|new| {
                let shares =
                    new.get_i64(&["spec", "limited", "nominalConcurrencyShares"]).unwrap_or_default();
                (shares, new.annotation(AUTO_UPDATE).unwrap_or_default())
            });
            assert_eq!(got, after, "{shares} {annotation:?} {generation} {mandatory}");
        }
    }
}
