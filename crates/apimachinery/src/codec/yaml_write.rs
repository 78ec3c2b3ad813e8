//! Trees to YAML: block style, keys sorted, strings quoted only where they would be read as something else.

use std::fmt::Write;

use serde_json::Value;

/// The document of a tree, with a line end.
pub fn write_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(value, 0, &mut out),
        Value::Array(list) if !list.is_empty() => block(value, 0, &mut out),
        other => {
            scalar(other, &mut out);
            out.push('\n');
        }
    }
    out
}

fn indent(depth: usize, out: &mut String) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

fn block(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            for (key, value) in entries {
                indent(depth, out);
                text(key, out);
                out.push(':');
                // lists stand at the level of their key, as Go's encoder has them
                let deeper = if value.is_array() { depth } else { depth + 1 };
                after(value, deeper, out);
            }
        }
        Value::Array(list) => {
            for value in list {
                indent(depth, out);
                out.push('-');
                item(value, depth + 1, out);
            }
        }
        other => {
            scalar(other, out);
            out.push('\n');
        }
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    }
}

/// What follows a key.
fn after(value: &Value, depth: usize, out: &mut String) {
    if is_block(value) {
        out.push('\n');
        block(value, depth, out);
    } else {
        out.push(' ');
        scalar(value, out);
        out.push('\n');
    }
}

/// What follows a dash: a block starts on the same line.
fn item(value: &Value, depth: usize, out: &mut String) {
    if is_block(value) {
        let mut nested = String::new();
        block(value, depth, &mut nested);
        out.push(' ');
        out.push_str(nested.trim_start_matches(' '));
    } else {
        out.push(' ');
        scalar(value, out);
        out.push('\n');
    }
}

fn scalar(value: &Value, out: &mut String) {
    match value {
        Value::String(string) => text(string, out),
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

fn text(string: &str, out: &mut String) {
    if is_plain(string) {
        out.push_str(string);
    } else {
        // JSON strings are YAML strings
        let _ = write!(out, "{}", Value::from(string));
    }
}

/// Whether a string reads back as itself without quotes, under YAML 1.1 as well as 1.2.
fn is_plain(string: &str) -> bool {
    const WORDS: [&str; 11] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "~", ""];
    let Some(first) = string.chars().next() else { return false };
    let safe_start = first.is_ascii_alphabetic() || matches!(first, '/' | '_');
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '_' | '-' | '=' | '@' | '+');
    safe_start && string.chars().all(safe) && !WORDS.contains(&string.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::super::parse_yaml;
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_reads_back() {
        let value = json!({
            "b": {"empty": {}, "none": [], "list": [{"x": 1, "y": [1, [2, 3]]}, "a: b", "no", "1", ""]},
            "a": "multi\nline", "c": null, "d": 1.5, "e": true, "weird key: #": "*x",
        });
        let text = write_yaml(&value);
        assert_eq!(parse_yaml(text.as_bytes()).unwrap(), value, "{text}");
        assert!(
            text.starts_with("a: \"multi\\nline\"\nb:\n  empty: {}\n  list:\n  - x: 1\n    y:\n"),
            "{text}"
        );
    }
}
