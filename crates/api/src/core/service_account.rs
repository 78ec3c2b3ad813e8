//! Service accounts.

use apimachinery::Value;
use serde_json::json;

use crate::catalogue::Column;
use crate::printers::{AGE, NAME, column};

pub const COLUMNS: &[Column] = &[
    NAME,
    column("Secrets", "string", "How many secrets the account names.", |account, _| {
        json!(account.get(&["secrets"]).and_then(Value::as_array).map_or(0, Vec::len))
    }),
    AGE,
];
