//! Lists of tolerations put together.

use apimachinery::Value;

fn text<'a>(toleration: &'a Value, key: &str) -> &'a str {
    toleration.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Whether everything that `other` tolerates is tolerated by `one` too.
pub fn includes(one: &Value, other: &Value) -> bool {
    if one == other {
        return true;
    }
    let exists = |toleration: &Value| text(toleration, "operator") == "Exists";
    if !text(one, "key").is_empty() && text(one, "key") != text(other, "key") {
        return false;
    }
    // an empty key with `Exists` is every key
    if text(one, "key").is_empty() && !exists(one) {
        return false;
    }
    if !text(one, "effect").is_empty() && text(one, "effect") != text(other, "effect") {
        return false;
    }
    let seconds = |toleration: &Value| toleration.get("tolerationSeconds").and_then(Value::as_i64);
    if text(one, "effect") == "NoExecute" {
        let longer = match (seconds(one), seconds(other)) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(one), Some(other)) => one >= other,
        };
        if !longer {
            return false;
        }
    }
    exists(one) || (!exists(other) && text(one, "value") == text(other, "value"))
}

/// Both lists without what another entry includes.
pub fn merge(first: &[Value], second: &[Value]) -> Vec<Value> {
    let all: Vec<&Value> = first.iter().chain(second).collect();
    let mut out = Vec::new();
    for (at, one) in all.iter().enumerate() {
        let needless = all.iter().enumerate().any(|(other_at, other)| {
            // of two that include each other, the first stays
            other_at != at && includes(other, one) && (other_at < at || !includes(one, other))
        });
        if !needless {
            out.push((*one).clone());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_another_includes_is_left_out() {
        let exists = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoSchedule"});
        let equal = |key: &str, value: &str| json!({"key": key, "value": value, "effect": "NoSchedule"});
        let all = json!({"operator": "Exists"});
        let cases = [
            (vec![equal("a", "1")], vec![equal("a", "1")], vec![equal("a", "1")]),
            (vec![equal("a", "1")], vec![equal("a", "2")], vec![equal("a", "1"), equal("a", "2")]),
            (vec![equal("a", "1")], vec![exists("a")], vec![exists("a")]),
            (vec![exists("a"), exists("b")], vec![all.clone()], vec![all]),
        ];
        for (first, second, wanted) in cases {
            assert_eq!(merge(&first, &second), wanted);
        }
    }
}
