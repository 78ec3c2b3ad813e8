//! Server-side apply, and who manages which fields.

use serde_json::Value;

use super::{Answer, Cluster};

const APPLY: [(&str, &str); 1] = [("content-type", "application/apply-patch+yaml")];

impl Cluster {
    /// What becomes of an administrator's apply.
    pub async fn apply(&self, uri: &str, manager: &str, object: &Value) -> Answer {
        let join = if uri.contains('?') { '&' } else { '?' };
        let uri = format!("{uri}{join}fieldManager={manager}");
        self.ask("admin", &["system:masters"], "PATCH", &uri, object.clone(), &APPLY).await
    }

    /// The same, whoever owns what.
    pub async fn force_apply(&self, uri: &str, manager: &str, object: &Value) -> Answer {
        self.apply(&format!("{uri}?force=true"), manager, object).await
    }
}

pub fn entries(object: &Value) -> &[Value] {
    object["metadata"]["managedFields"].as_array().map_or(&[], Vec::as_slice)
}

/// What a manager owns through a subresource.
pub fn owned(object: &Value, manager: &str, subresource: &str) -> Value {
    let of = |entry: &&Value| {
        entry["manager"] == manager && entry["subresource"].as_str().unwrap_or_default() == subresource
    };
    entries(object).iter().find(of).map(|entry| entry["fieldsV1"].clone()).unwrap_or_default()
}
