//! Regular expressions as Go's `regexp` reads them. What Go and Rust write differently is translated; what Go refuses
//! is refused in its words.

use regex::Regex;
use regex_syntax::ast::ErrorKind;
use regex_syntax::ast::parse::Parser;

/// The most often that something may be repeated by number.
const MAX_REPEAT: u32 = 1000;

/// An expression to match with, or why there is none.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    let translated = translate(pattern).map_err(refuse)?;
    Regex::new(&translated).map_err(|error| error.to_string())
}

/// Why Go refuses an expression. What only Rust refuses is let pass.
pub fn check(pattern: &str) -> Result<(), String> {
    let translated = translate(pattern).map_err(refuse)?;
    let Err(error) = Parser::new().parse(&translated) else { return Ok(()) };
    let (start, end) = (error.span().start.offset, error.span().end.offset);
    let (found, rest) = (&translated[start..end], &translated[start..]);
    let why = match error.kind() {
        ErrorKind::GroupUnclosed => format!("missing closing ): `{pattern}`"),
        ErrorKind::GroupUnopened => format!("unexpected ): `{pattern}`"),
        ErrorKind::ClassUnclosed => format!("missing closing ]: `{rest}`"),
        ErrorKind::ClassRangeInvalid => format!("invalid character class range: `{found}`"),
        ErrorKind::RepetitionMissing => {
            nothing_repeated(repetition(rest).map_or("", |(operator, _)| operator))
        }
        ErrorKind::RepetitionCountInvalid => format!("invalid repeat count: `{found}`"),
        ErrorKind::EscapeUnexpectedEof => "trailing backslash at end of expression: ``".to_owned(),
        ErrorKind::EscapeUnrecognized
        | ErrorKind::ClassEscapeInvalid
        | ErrorKind::UnsupportedBackreference => {
            format!("invalid escape sequence: `{found}`")
        }
        // what looks behind looks like the beginning of a name
        ErrorKind::UnsupportedLookAround if found.starts_with("(?<") => {
            let name = rest.find('>').map_or(rest, |end| &rest[..=end]);
            format!("invalid named capture: `{name}`")
        }
        ErrorKind::UnsupportedLookAround => format!("invalid or unsupported Perl syntax: `{found}`"),
        ErrorKind::FlagUnrecognized => {
            let group = translated[..start].rfind('(').unwrap_or(start);
            format!("invalid or unsupported Perl syntax: `{}`", &translated[group..end])
        }
        _ => return Ok(()),
    };
    Err(refuse(why))
}

fn nothing_repeated(operator: &str) -> String {
    format!("missing argument to repetition operator: `{operator}`")
}

fn refuse(why: String) -> String {
    format!("error parsing regexp: {why}")
}

/// What a repetition looks like at the beginning of a text, with the `?` that makes it lazy.
fn repetition(text: &str) -> Option<(&str, u32)> {
    let (length, most) = match text.chars().next()? {
        '*' | '+' | '?' => (1, 0),
        '{' => {
            let end = text.find('}')?;
            let (from, to) = text[1..end].split_once(',').unwrap_or((&text[1..end], ""));
            let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
            if from.is_empty() || !is_number(from) || !is_number(to) {
                return None;
            }
            let number = |text: &str| if text.is_empty() { 0 } else { text.parse().unwrap_or(u32::MAX) };
            (end + 1, number(from).max(number(to)))
        }
        _ => return None,
    };
    let lazy = usize::from(text[length..].starts_with('?'));
    Some((&text[..length + lazy], most))
}

fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    let mut repeated = "";
    // whether there is nothing yet to repeat
    let mut opens = true;
    while let Some(first) = rest.chars().next() {
        if let Some((operator, most)) = repetition(rest) {
            if most > MAX_REPEAT {
                return Err(format!("invalid repeat count: `{}`", operator.trim_end_matches('?')));
            }
            if opens {
                return Err(nothing_repeated(operator));
            }
            if !repeated.is_empty() {
                return Err(format!("invalid nested repetition operator: `{repeated}{operator}`"));
            }
            out.push_str(operator);
            (repeated, rest) = (operator, &rest[operator.len()..]);
            continue;
        }
        repeated = "";
        opens = matches!(first, '(' | '|');
        rest = match first {
            '\\' => escape(rest, false, &mut out),
            '[' => class(rest, &mut out),
            // a brace that repeats nothing is one
            '{' => {
                out.push_str("\\{");
                &rest[1..]
            }
            // the `?` of a group is no repetition
            '(' if rest.starts_with("(?") => {
                out.push_str("(?");
                &rest[2..]
            }
            other => {
                out.push(other);
                &rest[other.len_utf8()..]
            }
        };
    }
    Ok(out)
}

/// Translates an escape and returns what is behind it. Classes of characters are those of ASCII.
fn escape<'a>(rest: &'a str, in_class: bool, out: &mut String) -> &'a str {
    let Some(escaped) = rest[1..].chars().next() else {
        out.push('\\');
        return "";
    };
    let behind = &rest[1 + escaped.len_utf8()..];
    let of = match escaped.to_ascii_lowercase() {
        'd' => "0-9",
        'w' => "0-9A-Za-z_",
        's' => r"\t\n\x0C\r ",
        _ => "",
    };
    match escaped {
        'Q' if !in_class => {
            let (literal, behind) = behind.split_once("\\E").unwrap_or((behind, ""));
            out.push_str(&regex_syntax::escape(literal));
            return behind;
        }
        'd' | 'w' | 's' if in_class => out.push_str(of),
        'd' | 'w' | 's' => out.push_str(&format!("[{of}]")),
        'D' | 'W' | 'S' => out.push_str(&format!("[^{of}]")),
        'b' | 'B' if !in_class => out.push_str(&format!("(?-u:\\{escaped})")),
        'C' if !in_class => out.push_str("(?s:.)"),
        '<' | '>' => out.push(escaped),
        other => {
            out.push('\\');
            out.push(other);
        }
    }
    behind
}

/// Translates a class in brackets and returns what is behind it. Classes do not nest, nor are there operations on them.
fn class<'a>(rest: &'a str, out: &mut String) -> &'a str {
    let mut rest = &rest[1..];
    out.push('[');
    if let Some(behind) = rest.strip_prefix('^') {
        out.push('^');
        rest = behind;
    }
    if let Some(behind) = rest.strip_prefix(']') {
        out.push_str("\\]");
        rest = behind;
    }
    while let Some(first) = rest.chars().next() {
        let named = rest.strip_prefix("[:").and_then(|name| name.find(":]")).map(|end| end + 4);
        if let Some(length) = named {
            out.push_str(&rest[..length]);
            rest = &rest[length..];
            continue;
        }
        match first {
            '\\' => {
                rest = escape(rest, true, out);
                continue;
            }
            ']' => {
                out.push(']');
                return &rest[1..];
            }
            '[' | '&' | '~' => {
                out.push('\\');
                out.push(first);
            }
            other => out.push(other),
        }
        rest = &rest[first.len_utf8()..];
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_refuses() {
        let cases = [
            ("a(?=b)", "invalid or unsupported Perl syntax: `(?=`"),
            ("(?!a)b", "invalid or unsupported Perl syntax: `(?!`"),
            ("(?<!a)b", "invalid named capture: `(?<!a)b`"),
            ("(?y)a", "invalid or unsupported Perl syntax: `(?y`"),
            ("(a", "missing closing ): `(a`"),
            ("a)", "unexpected ): `a)`"),
            ("a[b", "missing closing ]: `[b`"),
            ("*a", "missing argument to repetition operator: `*`"),
            ("**/*.go", "missing argument to repetition operator: `*`"),
            ("a|*", "missing argument to repetition operator: `*`"),
            ("(?:+?)", "missing argument to repetition operator: `+?`"),
            ("a**", "invalid nested repetition operator: `**`"),
            ("a{2}{3}", "invalid nested repetition operator: `{2}{3}`"),
            ("a{1001}", "invalid repeat count: `{1001}`"),
            ("a{2,1}", "invalid repeat count: `{2,1}`"),
            ("[z-a]", "invalid character class range: `z-a`"),
            (r"\y", r"invalid escape sequence: `\y`"),
            (r"(a)\1", r"invalid escape sequence: `\1`"),
            ("a\\", "trailing backslash at end of expression: ``"),
        ];
        for (pattern, why) in cases {
            assert_eq!(check(pattern), Err(format!("error parsing regexp: {why}")), "{pattern}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_pattern_is_too_odd(pattern in r"(\PC|[\[\](){}\\^$.|?*+,:&~<>QEdwsb0-9-]){0,20}") {
            let _ = (check(&pattern), compile(&pattern));
        }
    }

    #[test]
    fn what_go_takes() {
        let cases = [
            (r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "a-1", "A"),
            (r"^\d+$", "12", "\u{664}"),
            (r"^[\w.]+$", "a_1.b", "ä"),
            (r"^[^\S ]$", "\t", " "),
            (r"^{.*}$", "{a}", "a"),
            (r"^a{,2}$", "a{,2}", "aa"),
            (r"^\(*\|?(|a)$", "((|", "(b"),
            (r"^\$\{[A-Z]+\}$", "${A}", "A"),
            (r"^[]a]+$", "]a", "b"),
            (r"^[[a]+$", "[a", "]"),
            (r"^[a&&b]+$", "&ab", "c"),
            (r"^[[:alpha:]]+$", "ab", "1"),
            (r"^\Qa.b\E+$", "a.bb", "axb"),
            (r"^a{1000}?b", &format!("{}b", "a".repeat(1000)), "ab"),
            (r"^(?i:a)(?P<n>b)(?:c)*?$", "Abcc", "aB"),
            (r"^\<a\>$", "<a>", "a"),
            (r"\bfoo\b", "a foo", "afoo"),
            (r"^\pL+\x41\z", "aA", "1A"),
        ];
        for (pattern, matches, differs) in cases {
            assert_eq!(check(pattern), Ok(()), "{pattern}");
            let compiled = compile(pattern).unwrap();
            assert!(compiled.is_match(matches) && !compiled.is_match(differs), "{pattern}");
        }
    }
}
