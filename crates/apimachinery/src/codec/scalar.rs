//! Scalars with a form of their own: text in, canonical text out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::schema::Kind;
use crate::{quantity, time};

/// The canonical value of a string read for a scalar kind, Go's complaint, or `None` when the kind takes no
/// strings.
pub(super) fn from_string(kind: &Kind, text: String) -> Option<Result<Value, String>> {
    Some(match kind {
        Kind::String | Kind::IntOrString => Ok(Value::String(text)),
        Kind::Bytes => base64(text),
        Kind::Quantity => match quantity::canonical(text.trim()) {
            Ok(canonical) if canonical == text => Ok(Value::String(text)),
            Ok(canonical) => Ok(Value::String(canonical.into_owned())),
            Err(error) => Err(error.to_string()),
        },
        Kind::Time => time::parse(&text).map(|t| stamp(t, time::format)).map_err(|e| e.to_string()),
        Kind::MicroTime => {
            time::parse_micro(&text).map(|t| stamp(t, time::format_micro)).map_err(|e| e.to_string())
        }
        Kind::Duration => match time::parse_duration(&text) {
            Ok(nanos) => Ok(Value::String(time::format_duration(nanos))),
            Err(error) => Err(error.to_string()),
        },
        _ => return None,
    })
}

/// Go's zero time is written as `null`.
pub(super) fn stamp(time: time::Time, format: impl Fn(time::Time) -> String) -> Value {
    if time::is_zero(time) { Value::Null } else { Value::String(format(time)) }
}

fn base64(text: String) -> Result<Value, String> {
    if STANDARD.decode(&text).is_ok() {
        return Ok(Value::String(text));
    }
    let joined: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match STANDARD.decode(&joined) {
        Ok(bytes) => Ok(Value::String(STANDARD.encode(bytes))),
        Err(error) => Err(format!("illegal base64 data at input byte {}", offset(&joined, &error))),
    }
}

fn offset(text: &str, error: &base64::DecodeError) -> usize {
    match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => *at,
        base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => text.len() / 4 * 4,
    }
}
