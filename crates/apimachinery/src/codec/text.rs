//! Text that is none, as Go's JSON decoder takes it: U+FFFD stands for each byte that is not UTF-8, and for each half of
//! a surrogate pair that is alone.

use std::borrow::Cow;

use super::{DecodeError, depth};

/// Reads JSON that nests no deeper than Go reads it; where serde_json finds text that is none, once more with what Go
/// would read.
pub(super) fn read<T>(body: &[u8], read: impl Fn(&[u8]) -> Result<T, DecodeError>) -> Result<T, DecodeError> {
    depth::check_json(body)?;
    let error = match read(body) {
        Err(error @ DecodeError::Syntax(_)) => error,
        other => return other,
    };
    let text = whole(body);
    match (paired(&text), text) {
        (Some(text), _) | (None, Cow::Owned(text)) => read(text.as_bytes()),
        (None, Cow::Borrowed(_)) => Err(error),
    }
}

fn whole(body: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(body) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(body.len());
    for chunk in body.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(out)
}

/// The text with `\ufffd` for each escaped surrogate that is alone; `None` when there is none.
fn paired(text: &str) -> Option<String> {
    const ESCAPE: usize = 6;
    let unit = |at: usize| {
        let escape = text.as_bytes().get(at..at + ESCAPE)?;
        let digits = std::str::from_utf8(escape.strip_prefix(b"\\u")?).ok()?;
        u32::from_str_radix(digits, 16).ok()
    };
    let (mut out, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(found) = text[at..].find('\\') {
        at += found;
        match unit(at) {
            Some(0xd800..=0xdbff) if matches!(unit(at + ESCAPE), Some(0xdc00..=0xdfff)) => at += 2 * ESCAPE,
            Some(0xd800..=0xdfff) => {
                out.push_str(&text[copied..at]);
                out.push_str("\\ufffd");
                at += ESCAPE;
                copied = at;
            }
            Some(_) => at += ESCAPE,
            // some other escape, and whatever is escaped
            None => at += 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
        }
    }
    (copied > 0).then(|| out + &text[copied..])
}

#[cfg(test)]
mod tests {

    #[test]
    fn what_is_no_text_is_replaced_as_in_go() {
        let cases: &[(&[u8], &str)] = &[
            (b"\"a\xff\xfeb\"", "a\u{fffd}\u{fffd}b"),
            (b"\"\xed\xa0\x80\"", "\u{fffd}\u{fffd}\u{fffd}"),
            (br#""\ud800""#, "\u{fffd}"),
            (br#""\ud800\ud83d\ude00\udc00x""#, "\u{fffd}\u{1f600}\u{fffd}x"),
            (b"\"\\\\ud800\xff\"", "\\ud800\u{fffd}"),
            (b"\"\\ud83d\xc3\"", "\u{fffd}\u{fffd}"),
        ];
        for (json, expected) in cases {
            let value = super::super::parse_json(json).unwrap();
            assert_eq!(value, *expected, "{}", json.escape_ascii());
        }
        for broken in [&b"\xff"[..], b"\"\\u12\"", b"\"\\ud8\"", b"{\"a\":\xff}", b"\"\\"] {
            assert!(super::super::parse_json(broken).is_err(), "{}", broken.escape_ascii());
        }
    }
}
