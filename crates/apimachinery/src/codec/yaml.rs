//! YAML to trees, reading scalars as upstream's parser does: YAML 1.1 booleans, octal and all.

use std::collections::HashMap;

use base64::Engine as _;
use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, Span, Tag, options};
use serde_json::{Map, Number, Value};

use super::{DecodeError, MAX_DEPTH, depth, number};

/// Aliases may blow a small document up; this many nodes are enough for any real one.
const MAX_NODES: usize = 2_000_000;

pub(super) struct Document {
    pub value: Value,
    /// What upstream's strict parser says about repeated keys; at most one text.
    pub duplicates: Vec<String>,
}

/// Reads the first document of a stream; an empty stream is `null`.
pub(super) fn parse(body: &[u8]) -> Result<Document, DecodeError> {
    let text = std::str::from_utf8(body)
        .map_err(|_| DecodeError::Syntax("yaml: invalid leading UTF-8 octet".to_owned()))?;
    match build(text) {
        Err(DecodeError::TooDeep) => Err(depth::check_yaml(text).err().unwrap_or(DecodeError::TooDeep)),
        done => done,
    }
}

fn build(text: &str) -> Result<Document, DecodeError> {
    let options = options! {
        emit_comments: false,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut builder = Builder::default();
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| match error.kind() {
            ErrorKind::RecursionLimitExceeded => DecodeError::TooDeep,
            _ => DecodeError::Syntax(format!("yaml: line {}: {}", error.marker().line(), error.info())),
        })?;
        if matches!(event, Event::DocumentEnd) {
            break;
        }
        builder.event(event, &span)?;
    }
    let duplicates = builder.duplicates;
    let duplicates = if duplicates.is_empty() {
        Vec::new()
    } else {
        vec![format!("yaml: unmarshal errors:\n  {}", duplicates.join("\n  "))]
    };
    Ok(Document { value: builder.root.unwrap_or(Value::Null), duplicates })
}

/// A collection whose end has not come yet.
enum Open {
    List { items: Vec<Value>, anchor: usize },
    Map { entries: Map<String, Value>, merges: Vec<Value>, key: Option<Key>, anchor: usize },
}

enum Key {
    Name(String),
    Merge,
}

#[derive(Default)]
struct Builder {
    root: Option<Value>,
    open: Vec<Open>,
    anchors: HashMap<usize, (Value, usize)>,
    nodes: usize,
    duplicates: Vec<String>,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<(), DecodeError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let merge = text == "<<" && style == ScalarStyle::Plain && tag.is_none();
                let value = scalar(&text, style, tag.as_deref())?;
                self.count(1)?;
                self.anchor(anchor, &value, 1);
                self.put(value, merge, span)
            }
            Event::SequenceStart(_, anchor, _) => self.start(Open::List { items: Vec::new(), anchor }),
            Event::MappingStart(_, anchor, _) => {
                self.start(Open::Map { entries: Map::new(), merges: Vec::new(), key: None, anchor })
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let (value, anchor) = match self.open.pop() {
                    Some(Open::List { items, anchor }) => (Value::Array(items), anchor),
                    Some(Open::Map { mut entries, merges, anchor, .. }) => {
                        merge(&mut entries, merges)?;
                        (Value::Object(entries), anchor)
                    }
                    None => return Err(DecodeError::Syntax("yaml: unbalanced collection".to_owned())),
                };
                if anchor != 0 {
                    let size = size(&value);
                    self.anchor(anchor, &value, size);
                }
                self.put(value, false, span)
            }
            Event::Alias(anchor) => {
                let Some((value, size)) = self.anchors.get(&anchor).cloned() else {
                    return Err(DecodeError::Syntax("yaml: unknown anchor referenced".to_owned()));
                };
                self.count(size)?;
                self.put(value, false, span)
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, nodes: usize) -> Result<(), DecodeError> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(DecodeError::Syntax("yaml: document contains excessive aliasing".to_owned()));
        }
        Ok(())
    }

    fn anchor(&mut self, anchor: usize, value: &Value, size: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, (value.clone(), size));
        }
    }

    fn start(&mut self, open: Open) -> Result<(), DecodeError> {
        self.count(1)?;
        self.open.push(open);
        if self.open.len() > MAX_DEPTH { Err(DecodeError::TooDeep) } else { Ok(()) }
    }

    fn put(&mut self, value: Value, merges_here: bool, span: &Span) -> Result<(), DecodeError> {
        match self.open.last_mut() {
            None => self.root = Some(value),
            Some(Open::List { items, .. }) => items.push(value),
            Some(Open::Map { entries, merges, key, .. }) => match key.take() {
                None if merges_here => *key = Some(Key::Merge),
                None => *key = Some(Key::Name(key_text(value)?)),
                Some(Key::Merge) => merges.push(value),
                Some(Key::Name(name)) => {
                    if entries.contains_key(&name) {
                        let line = span.start.line();
                        self.duplicates.push(format!("line {line}: key {name:?} already set in map"));
                    }
                    entries.insert(name, value);
                }
            },
        }
        Ok(())
    }
}

/// Takes over what `<<` names, where the map does not say otherwise itself.
fn merge(entries: &mut Map<String, Value>, merges: Vec<Value>) -> Result<(), DecodeError> {
    for value in merges {
        let maps = match value {
            Value::Array(list) => list,
            map => vec![map],
        };
        for map in maps {
            let Value::Object(map) = map else {
                return Err(DecodeError::Syntax(
                    "yaml: map merge requires map or sequence of maps as the value".into(),
                ));
            };
            for (key, value) in map {
                entries.entry(key).or_insert(value);
            }
        }
    }
    Ok(())
}

/// The nodes of a tree; its depth is bounded where it was built.
fn size(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(size).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(size).sum::<usize>(),
        _ => 1,
    }
}

fn key_text(key: Value) -> Result<String, DecodeError> {
    match key {
        Value::String(text) => Ok(text),
        Value::Bool(set) => Ok(set.to_string()),
        Value::Number(n) => Ok(number::number_text(&n)),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            Err(DecodeError::Syntax(format!("unsupported map key of type: {key}")))
        }
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, DecodeError> {
    let string = || Ok(Value::String(text.to_owned()));
    let suffix = tag.filter(|tag| tag.handle() == "tag:yaml.org,2002:").map(Tag::suffix);
    match suffix {
        Some("str") => string(),
        Some("binary") => {
            let compact: String = text.split_whitespace().collect();
            let bytes = base64::engine::general_purpose::STANDARD.decode(compact).map_err(|error| {
                DecodeError::Syntax(format!("yaml: !!binary value contains invalid base64 data: {error}"))
            })?;
            Ok(Value::String(String::from_utf8_lossy(&bytes).into_owned()))
        }
        Some("int" | "float" | "bool" | "null") => Ok(plain(text)),
        _ if style == ScalarStyle::Plain => Ok(plain(text)),
        _ => string(),
    }
}

/// Whether a plain scalar reads as a string: not as a number, a boolean, a time or nothing.
pub(super) fn is_plain_string(text: &str) -> bool {
    /// Words that other parsers take for something.
    const SPECIAL: [&str; 8] = ["<<", "=", ".nan", ".inf", "-.inf", "+.inf", ".NaN", ".Inf"];
    let timelike = text.len() >= 8
        && text.as_bytes().get(4) == Some(&b'-')
        && text.bytes().take(4).all(|b| b.is_ascii_digit());
    // Base 60 numbers of YAML 1.1, such as `1:30`.
    let sexagesimal = text.contains(':')
        && text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-'))
        && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b':' | b'_' | b'.' | b'+' | b'-'));
    !timelike && !sexagesimal && !SPECIAL.contains(&text) && plain(text).is_string()
}

fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    if text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        let digits = text.replace('_', "");
        if let Some(number) = integer(&digits).or_else(|| float(&digits)) {
            return Value::Number(number::canonical(number));
        }
    }
    Value::String(text.to_owned())
}

/// Go's `strconv.ParseInt(text, 0, 64)`: prefixes for the base, a leading zero for octal.
fn integer(text: &str) -> Option<Number> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = rest.to_ascii_lowercase();
    let (digits, radix) = if let Some(hex) = lower.strip_prefix("0x") {
        (hex, 16)
    } else if let Some(binary) = lower.strip_prefix("0b") {
        (binary, 2)
    } else if let Some(octal) = lower.strip_prefix("0o") {
        (octal, 8)
    } else if let Some(octal) = lower.strip_prefix('0').filter(|rest| !rest.is_empty()) {
        (octal, 8)
    } else {
        (lower.as_str(), 10)
    };
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let size = u64::from_str_radix(digits, radix).ok()?;
    match negative {
        false => Some(size.into()),
        true => i64::try_from(-i128::from(size)).ok().map(Number::from),
    }
}

fn float(text: &str) -> Option<Number> {
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match body.find(['e', 'E']) {
        Some(at) => (&body[..at], Some(&body[at + 1..])),
        None => (body, None),
    };
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count();
    let dots = mantissa.bytes().filter(|b| *b == b'.').count();
    let exponent_fits = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['-', '+']).unwrap_or(e);
        !e.is_empty() && e.bytes().all(|b| b.is_ascii_digit())
    });
    if digits == 0 || dots > 1 || digits + dots != mantissa.len() || !exponent_fits {
        return None;
    }
    Number::from_f64(text.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn scalars_read_as_upstream() {
        let cases = [
            ("yes", json!(true)),
            ("off", json!(false)),
            ("~", json!(null)),
            ("0777", json!(511)),
            ("0x1F", json!(31)),
            ("08", json!(8)),
            ("1_000", json!(1000)),
            ("1.0", json!(1)),
            ("1e3", json!(1000)),
            ("1.5", json!(1.5)),
            ("2001-01-01", json!("2001-01-01")),
            ("1.2.3", json!("1.2.3")),
            ("'1'", json!("1")),
            ("!!str 1", json!("1")),
            ("- x", json!(["x"])),
            (".inf", json!(".inf")),
            ("100m", json!("100m")),
            ("-7", json!(-7)),
            ("10.0.0.1", json!("10.0.0.1")),
            ("", json!(null)),
            ("1: x", json!({"1": "x"})),
            ("true: x", json!({"true": "x"})),
            ("+", json!("+")),
            ("-", json!([null])),
            ("12e", json!("12e")),
            ("0o14", json!(12)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text.as_bytes()).unwrap().value, expected, "{text}");
        }
    }

    #[test]
    fn anchors_merges_and_repeats() {
        let text = "base: &b {a: 1, c: 2}\nuse:\n  <<: *b\n  a: 3\nlist: [*b]\n";
        let expected = json!({"base": {"a": 1, "c": 2}, "use": {"a": 3, "c": 2}, "list": [{"a": 1, "c": 2}]});
        assert_eq!(parse(text.as_bytes()).unwrap().value, expected);
        let repeated = parse(b"a: 1\nb: 2\na: 3\n").unwrap();
        assert_eq!(repeated.value, json!({"a": 3, "b": 2}));
        assert_eq!(repeated.duplicates, ["yaml: unmarshal errors:\n  line 3: key \"a\" already set in map"]);
    }

    #[test]
    fn bombs_are_refused() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..10 {
            let below = vec![format!("*a{}", level - 1); 10].join(",");
            text.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        assert!(parse(text.as_bytes()).is_err());
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[-a-z0-9:&*<>{}\\[\\]|'\"!#\\n ]{0,80}") {
            let _ = parse(text.as_bytes());
        }
    }
}
