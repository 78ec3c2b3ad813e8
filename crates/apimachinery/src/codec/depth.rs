//! What Go's readers say of bodies that nest deeper than they go. They go deeper than trees here ([`super::MAX_DEPTH`]),
//! which shows where nothing is made of what they read: in fields that no type knows.

use granit_parser::{ErrorKind, Parser, options};
use serde::de::IgnoredAny;

use super::{DecodeError, number};

/// The limit of Go's JSON and of its YAML alike.
const LIMIT: usize = 10_000;

/// Fails for JSON that nests too deep, unless something is wrong with it before that.
pub(super) fn check_json(body: &[u8]) -> Result<(), DecodeError> {
    // few bodies begin so many lists and maps that it pays to look which of them are within each other
    let begun = body.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
    let Some(at) = (begun > LIMIT).then(|| beyond(body)).flatten() else { return Ok(()) };
    match serde_json::from_slice::<IgnoredAny>(&body[..at]) {
        Err(error) if !error.is_eof() => Err(number::syntax_error(body, &error)),
        _ => {
            let opening = char::from(body[at]);
            Err(DecodeError::Syntax(format!("invalid character {opening:?} exceeded max depth")))
        }
    }
}

/// Where the first list or map begins that is too deep.
fn beyond(body: &[u8]) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    body.iter().position(|byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => depth += 1,
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > LIMIT
    })
}

/// The error of YAML that nests too deep.
pub(super) fn check_yaml(text: &str) -> Result<(), DecodeError> {
    let options = options! {
        emit_comments: false,
        flow_nesting_limit: LIMIT,
        block_nesting_limit: LIMIT,
    };
    let error = Parser::new_from_str_with_options(text, options).find_map(Result::err);
    match error.filter(|error| *error.kind() == ErrorKind::RecursionLimitExceeded) {
        None => Ok(()),
        Some(error) => {
            let line = error.marker().line();
            let place = if line > 1 { format!("line {line}: ") } else { String::new() };
            Err(DecodeError::Syntax(format!("yaml: {place}exceeded max depth of {LIMIT}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(open: &str, levels: usize) -> String {
        format!("{{\"a\":{}", open.repeat(levels - 1))
    }

    #[test]
    fn json_may_nest_ten_thousand_times() {
        let error = |body: &str| check_json(body.as_bytes()).err().map(|error| error.to_string());
        assert_eq!(error(&nested("[", LIMIT)), None);
        let list = Some("invalid character '[' exceeded max depth".to_owned());
        assert_eq!(error(&nested("[", LIMIT + 1)), list);
        assert_eq!(error(&nested("[", 200_000)), list);
        let map = Some("invalid character '{' exceeded max depth".to_owned());
        assert_eq!(error(&nested("{\"b\":", LIMIT + 1)), map);
        // what only stands in text does not nest, and what is over does not either
        assert_eq!(error(&format!("{{\"a\":\"\\\"{}\"}}", "[".repeat(LIMIT + 1))), None);
        assert_eq!(error(&format!("[{}[]]", "[],".repeat(LIMIT))), None);
        let wrong = nested("[", LIMIT + 1).replace("\"a\":", "\"a\"");
        assert_eq!(error(&wrong).unwrap(), "invalid character '[' after object key");
    }

    #[test]
    fn yaml_may_nest_ten_thousand_times() {
        let error = |body: &str| check_yaml(body).err().map(|error| error.to_string());
        let flow = |levels: usize| format!("a: {}{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(error(&flow(LIMIT)), None);
        assert_eq!(error(&flow(LIMIT + 1)).unwrap(), "yaml: exceeded max depth of 10000");
        let below = format!("b: 1\n{}", flow(LIMIT + 1));
        assert_eq!(error(&below).unwrap(), "yaml: line 2: exceeded max depth of 10000");
        let block = "- ".repeat(LIMIT + 1);
        assert_eq!(error(&block).unwrap(), "yaml: exceeded max depth of 10000");
        assert_eq!(error("a: [1"), None);
    }
}
