//! Service accounts.

use apimachinery::{Object, Value};
use serde_json::json;

use crate::catalogue::Column;
use crate::printers::{AGE, NAME, column};
use crate::strategy::Strategy;

pub const COLUMNS: &[Column] = &[
    NAME,
    column("Secrets", "string", "How many secrets the account names.", |account, _| {
        json!(account.get(&["secrets"]).and_then(Value::as_array).map_or(0, Vec::len))
    }),
    AGE,
];

const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";

pub struct ServiceAccounts;

/// Of the secrets that an account names only the names count.
fn only_names(account: &mut Object) {
    let secrets = account.as_map_mut().get_mut("secrets").and_then(Value::as_array_mut);
    for secret in secrets.into_iter().flatten() {
        *secret = match secret.get("name") {
            Some(name) => json!({"name": name}),
            None => json!({}),
        };
    }
}

impl Strategy for ServiceAccounts {
    fn prepare_for_create(&self, account: &mut Object) {
        only_names(account);
    }

    fn prepare_for_update(&self, account: &mut Object, _old: &Object) {
        only_names(account);
    }

    fn warnings_on_create(&self, account: &Object) -> Vec<String> {
        match account.annotation(ENFORCE) {
            Some(_) => vec![format!(
                "metadata.annotations[{ENFORCE}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
            )],
            None => Vec::new(),
        }
    }

    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }
}
