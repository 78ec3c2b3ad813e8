//! Trees to YAML, in the style of upstream's encoder: keys sorted, two spaces, quotes only where needed.

use serde_json::{Map, Value};

use super::number::number_text;
use super::yaml::is_plain_string;
use crate::field::quote;
use crate::object::Object;

/// Appends the object as a YAML document.
pub fn encode_yaml(object: &Object, out: &mut Vec<u8>) {
    let mut text = String::new();
    write_map(object.as_map(), 0, &mut text);
    out.extend_from_slice(text.as_bytes());
}

fn indent(level: usize, out: &mut String) {
    out.extend(std::iter::repeat_n("  ", level));
}

/// Writes the entries; the first starts where the writer is, after a `- ` or at the margin.
fn write_map(map: &Map<String, Value>, level: usize, out: &mut String) {
    if map.is_empty() {
        out.push_str("{}\n");
        return;
    }
    // Trees are sorted already; the document must be whatever the map is.
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    for (at, (key, value)) in entries.into_iter().enumerate() {
        if at > 0 {
            indent(level, out);
        }
        write_text(key, None, out);
        out.push(':');
        match value {
            Value::Object(map) if !map.is_empty() => {
                out.push('\n');
                indent(level + 1, out);
                write_map(map, level + 1, out);
            }
            // Lists stand under their key without further indentation.
            Value::Array(list) if !list.is_empty() => {
                out.push('\n');
                indent(level, out);
                write_list(list, level, out);
            }
            scalar => {
                out.push(' ');
                write_scalar(scalar, level, out);
            }
        }
    }
}

fn write_list(list: &[Value], level: usize, out: &mut String) {
    for (at, value) in list.iter().enumerate() {
        if at > 0 {
            indent(level, out);
        }
        out.push_str("- ");
        match value {
            Value::Object(map) => write_map(map, level + 1, out),
            Value::Array(list) if !list.is_empty() => write_list(list, level + 1, out),
            scalar => write_scalar(scalar, level, out),
        }
    }
}

fn write_scalar(value: &Value, level: usize, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(set) => out.push_str(if *set { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number_text(number)),
        Value::String(text) => return write_text_line(text, level, out),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
    out.push('\n');
}

fn write_text_line(text: &str, level: usize, out: &mut String) {
    let literal = write_text(text, Some(level), out);
    if !literal {
        out.push('\n');
    }
}

/// Writes a string; as a block of lines where `block` allows one. Says whether it did.
fn write_text(text: &str, block: Option<usize>, out: &mut String) -> bool {
    let printable = text.chars().all(|c| c == '\n' || c == '\t' || !(c.is_control() || is_special(c)));
    if let Some(level) = block.filter(|_| text.contains('\n') && printable && fits_block(text)) {
        write_block(text, level, out);
        return true;
    }
    if !printable || text.contains('\n') || !is_plain_string(text) {
        out.push_str(&quote(text));
    } else if may_be_plain(text) {
        out.push_str(text);
    } else {
        out.push('\'');
        out.push_str(&text.replace('\'', "''"));
        out.push('\'');
    }
    false
}

/// Characters that YAML has only as escapes: the byte order mark, and two that are no characters.
fn is_special(c: char) -> bool {
    matches!(c, '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// Blank characters before a line break would not be seen.
fn fits_block(text: &str) -> bool {
    !text.split('\n').any(|line| line.ends_with([' ', '\t'])) && !text.starts_with('\n')
}

fn write_block(text: &str, level: usize, out: &mut String) {
    out.push('|');
    if text.starts_with(' ') {
        out.push('2');
    }
    let body = text.strip_suffix('\n');
    match body {
        None => out.push('-'),
        Some(body) if body.is_empty() || body.ends_with('\n') => out.push('+'),
        Some(_) => {}
    }
    out.push('\n');
    for line in body.unwrap_or(text).split('\n') {
        if !line.is_empty() {
            indent(level + 1, out);
            out.push_str(line);
        }
        out.push('\n');
    }
}

/// Whether nothing in the text means something to YAML.
fn may_be_plain(text: &str) -> bool {
    let first = text.chars().next().unwrap_or(' ');
    let second_is_blank = text.chars().nth(1).is_none_or(|c| c == ' ' || c == '\t');
    const INDICATORS: &str = " \t#,[]{}&*!|>'\"%@`";
    let indicates = INDICATORS.contains(first) || (matches!(first, '?' | ':' | '-') && second_is_blank);
    !indicates
        && !text.ends_with([' ', '\t', ':'])
        && !text.contains(": ")
        && !text.contains(":\t")
        && !text.contains(" #")
        && !text.contains("\t#")
        && !text.starts_with("---")
        && !text.starts_with("...")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn strings() {
        let cases = [
            ("plain text", "plain text"),
            ("", "\"\""),
            ("true", "\"true\""),
            ("10", "\"10\""),
            ("1.5", "\"1.5\""),
            ("null", "\"null\""),
            ("a: b", "'a: b'"),
            ("it's", "it's"),
            ("'q'", "'''q'''"),
            ("- x", "'- x'"),
            ("-x", "-x"),
            ("# c", "'# c'"),
            ("a #b", "'a #b'"),
            ("*x", "'*x'"),
            ("end:", "'end:'"),
            ("a\nb", "|-\n  a\n  b"),
            ("a\n", "|\n  a"),
            ("a\n\n", "|+\n  a\n"),
            ("\u{1}", "\"\\x01\""),
            ("a\u{fffe}", "\"a\\ufffe\""),
            ("2004-01-01T01:01:01Z", "\"2004-01-01T01:01:01Z\""),
            ("a:b", "a:b"),
            ("http://x", "http://x"),
        ];
        for (text, expected) in cases {
            let mut out = Vec::new();
            encode_yaml(&Object::from(json!({ "k": text })), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("k: {expected}\n"), "{text:?}");
        }
    }

    fn any_tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-1000i64..1000).prop_map(Value::from),
            "[ -~\n\té]{0,12}".prop_map(Value::from),
            "\\PC{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-z: #-]{0,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(tree in any_tree()) {
            let object = Object::from(json!({ "root": tree }));
            let mut out = Vec::new();
            encode_yaml(&object, &mut out);
            let back = crate::codec::parse_yaml(&out);
            prop_assert_eq!(back.as_ref(), Ok(object.as_value()), "{}", String::from_utf8_lossy(&out));
        }
    }
}
