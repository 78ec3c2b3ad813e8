//! `kube-system/kube-apiserver-legacy-service-account-token-tracking`: the day since which it is noted when tokens that
//! lie in secrets are used. A controller goes by it.

use apimachinery::{Object, Status};
use chrono::NaiveDate;
use component_helpers::legacy_tokens::TRACKING;
use serde_json::json;

use crate::context::{Context, WriteOptions};
use crate::registry::Part;
use crate::server::Server;

const DATE: &str = "%Y-%m-%d";

fn is_date(text: &str) -> bool {
    NaiveDate::parse_from_str(text, DATE).is_ok_and(|date| date.format(DATE).to_string() == text)
}

/// Makes it, and puts a day there where none can be read.
pub async fn run(server: &Server, ctx: &Context) -> Result<(), Status> {
    let kind = super::kind(server, "", "v1", "configmaps")?;
    if let Some(map) = server.registry.peek(kind, "kube-system", TRACKING)
        && is_date(map.get_str(&["data", "since"]))
    {
        return Ok(());
    }
    let new = super::typed(kind, json!({"metadata": {"namespace": "kube-system", "name": TRACKING}}));
    let today = ctx.now.format(DATE).to_string();
    let transform = |old: Option<&Object>| {
        let mut map = old.unwrap_or(&new).clone();
        if !is_date(map.get_str(&["data", "since"])) {
            map.set(&["data", "since"], today.as_str());
        }
        Ok(map)
    };
    let options = WriteOptions::default();
    let update =
        server.registry.update(ctx, kind, "kube-system", TRACKING, Part::Main, &transform, true, options);
    Box::pin(update).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_written_in_one_way() {
        for (text, wanted) in
            [("2026-01-31", true), ("2026-1-31", false), ("2026-02-30", false), ("", false), ("now", false)]
        {
            assert_eq!(is_date(text), wanted, "{text}");
        }
    }
}
