//! Numbers as Go writes them, and syntax errors as Go's JSON decoder words them.

use std::fmt::Write as _;

use serde_json::error::Category;
use serde_json::{Error, Number};

use super::DecodeError;

/// One form per number: whole floats are integers, as they would be after a trip through Go's encoder.
pub(super) fn canonical(number: Number) -> Number {
    /// Up to here Go writes floats without an exponent and they hold every integer.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < EXACT => {
            Number::from(float as i64)
        }
        _ => number,
    }
}

/// Appends a number as `encoding/json` writes it.
pub(crate) fn write_number(number: &Number, out: &mut Vec<u8>) {
    out.extend_from_slice(number_text(number).as_bytes());
}

pub(super) fn number_text(number: &Number) -> String {
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else { return number.to_string() };
    let size = float.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        // Rust writes `1e21` and `1e-7`; Go has a sign: `1e+21`.
        return format!("{float:e}").replacen('e', if size < 1.0 { "e" } else { "e+" }, 1);
    }
    let mut text = String::new();
    let _ = write!(text, "{float}");
    text
}

/// What Go's decoder says about a body that serde_json refused.
pub(super) fn syntax_error(body: &[u8], error: &Error) -> DecodeError {
    let text = error.to_string();
    match error.classify() {
        Category::Eof => DecodeError::Syntax("unexpected end of JSON input".to_owned()),
        Category::Syntax if text.starts_with("recursion limit") => DecodeError::TooDeep,
        Category::Syntax => {
            let place = match text.split(" at line").next().unwrap_or(&text) {
                "expected value" | "expected ident" => "looking for beginning of value",
                "expected `,` or `}`" => "after object key:value pair",
                "expected `,` or `]`" => "after array element",
                "expected `:`" => "after object key",
                "key must be a string" | "trailing comma" => "looking for beginning of object key string",
                "trailing characters" => "after top-level value",
                "invalid number" => "in numeric literal",
                "invalid escape" => "in string escape code",
                _ if text.starts_with("control character") => "in string literal",
                _ => return DecodeError::Syntax(text),
            };
            match character(body, error.line(), error.column()) {
                Some(c) => DecodeError::Syntax(format!("invalid character {c:?} {place}")),
                None => DecodeError::Syntax(text),
            }
        }
        Category::Data | Category::Io if text.contains("exceeded max depth") => DecodeError::TooDeep,
        Category::Data | Category::Io => DecodeError::Value(text),
    }
}

/// Numbers in an error as they were written: `1.0` rather than `1`.
pub(super) fn as_written(error: DecodeError, body: &[u8]) -> DecodeError {
    const START: &str = "json: cannot unmarshal number ";
    let DecodeError::Value(text) = &error else { return error };
    let Some((shown, rest)) = text.strip_prefix(START).and_then(|rest| rest.split_once(' ')) else {
        return error;
    };
    let is_shown =
        |literal: &&str| serde_json::from_str(literal).is_ok_and(|number| number_text(&number) == shown);
    match literals(body).into_iter().find(is_shown) {
        Some(literal) => DecodeError::Value(format!("{START}{literal} {rest}")),
        None => error,
    }
}

/// Numbers in JSON that are not plain integers.
fn literals(body: &[u8]) -> Vec<&str> {
    let (mut out, mut at, mut quoted) = (Vec::new(), 0, false);
    while let Some(byte) = body.get(at) {
        match byte {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'-' | b'0'..=b'9' if !quoted => {
                let rest = &body[at..];
                let is_end = |b: &u8| !matches!(b, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
                let literal = &rest[..rest.iter().position(is_end).unwrap_or(rest.len())];
                at += literal.len() - 1;
                let is_plain = literal.len() < 19 && literal.iter().all(u8::is_ascii_digit);
                out.extend(std::str::from_utf8(literal).ok().filter(|_| !is_plain));
            }
            _ => {}
        }
        at += 1;
    }
    out
}

fn character(body: &[u8], line: usize, column: usize) -> Option<char> {
    let line = body.split(|b| *b == b'\n').nth(line.checked_sub(1)?)?;
    let at = line.get(column.checked_sub(1)?..)?;
    let text = String::from_utf8_lossy(&at[..at.len().min(4)]);
    text.chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_in_go() {
        let cases = [
            (0.5, "0.5"),
            (1e21, "1e+21"),
            (1.5e-7, "1.5e-7"),
            (123456789.125, "123456789.125"),
            (1e20, "100000000000000000000"),
            (-2.5e30, "-2.5e+30"),
        ];
        for (float, expected) in cases {
            assert_eq!(number_text(&Number::from_f64(float).unwrap()), expected);
        }
        assert_eq!(canonical(Number::from_f64(3.0).unwrap()), Number::from(3));
    }

    #[test]
    fn numbers_are_shown_as_they_were_written() {
        let error = |shown: &str| DecodeError::Value(format!("json: cannot unmarshal number {shown} into x"));
        for (body, shown, written) in [
            (r#"{"a":1,"b":1.0}"#, "1", "1.0"),
            (r#"{"a":"1e2","b":1e2}"#, "100", "1e2"),
            (r#"["\"",99999999999999999999]"#, "100000000000000000000", "99999999999999999999"),
            ("[1.5]", "1.5", "1.5"),
            ("[2147483648]", "2147483648", "2147483648"),
        ] {
            assert_eq!(as_written(error(shown), body.as_bytes()), error(written), "{body}");
        }
    }

    #[test]
    fn syntax_errors_read_as_in_go() {
        let cases = [
            ("{", "unexpected end of JSON input"),
            ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("[1 2]", "invalid character '2' after array element"),
            ("x", "invalid character 'x' looking for beginning of value"),
            ("{} x", "invalid character 'x' after top-level value"),
        ];
        for (text, expected) in cases {
            assert_eq!(
                super::super::parse_json(text.as_bytes()).unwrap_err().to_string(),
                expected,
                "{text}"
            );
        }
    }
}
