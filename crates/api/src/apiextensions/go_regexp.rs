//! Regular expressions as Go's `regexp` reads them. What Go and Rust write differently is translated; what Go refuses
//! is refused in its words.

use std::cmp::max;

use regex::Regex;

/// The most often that something may be repeated by number.
const MAX_REPEAT: u32 = 1000;

const CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "word", "xdigit",
];

/// An expression to match with, or why there is none.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    check(pattern)?;
    Regex::new(&translate(pattern)).map_err(|error| error.to_string())
}

/// Why Go refuses an expression. What only Rust refuses is let pass.
pub fn check(pattern: &str) -> Result<(), String> {
    judge(pattern).map_err(|why| format!("error parsing regexp: {why}"))
}

/// What stands in a group so far. What is repeated by number counts as often as it may be there.
#[derive(Default)]
struct Group {
    before: u32,
    /// what a repetition would repeat
    last: Option<u32>,
}

impl Group {
    fn push(&mut self, times: u32) {
        self.before = max(self.before, self.last.unwrap_or(1));
        self.last = Some(times);
    }

    fn alternate(&mut self) {
        self.push(1);
        self.last = None;
    }

    fn most(&self) -> u32 {
        max(self.before, self.last.unwrap_or(1))
    }
}

fn judge(pattern: &str) -> Result<(), String> {
    let mut outer: Vec<Group> = Vec::new();
    let mut group = Group::default();
    let mut repeated = "";
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        if let Some(repetition) = Repetition::read(rest) {
            rest = repeat(&mut group, repeated, &repetition)?;
            repeated = repetition.operator;
            continue;
        }
        repeated = "";
        rest = match first {
            '(' => {
                let (opens, behind) =
                    if rest.starts_with("(?") { perl_group(rest)? } else { (true, &rest[1..]) };
                if opens {
                    outer.push(std::mem::take(&mut group));
                }
                behind
            }
            ')' => {
                let most = group.most();
                group = outer.pop().ok_or_else(|| format!("unexpected ): `{pattern}`"))?;
                group.push(most);
                &rest[1..]
            }
            '|' => {
                group.alternate();
                &rest[1..]
            }
            '\\' if rest.starts_with("\\Q") => {
                let (literal, behind) = rest[2..].split_once("\\E").unwrap_or((&rest[2..], ""));
                if !literal.is_empty() {
                    group.push(1);
                }
                behind
            }
            '[' => {
                group.push(1);
                bracketed(rest)?
            }
            '\\' => {
                group.push(1);
                let is_place = rest[1..].starts_with(['A', 'b', 'B', 'z']);
                if is_place {
                    &rest[2..]
                } else {
                    set(rest)?.map_or_else(|| escaped(rest).map(|(_, behind)| behind), Ok)?
                }
            }
            other => {
                group.push(1);
                &rest[other.len_utf8()..]
            }
        };
    }
    if outer.is_empty() { Ok(()) } else { Err(format!("missing closing ): `{pattern}`")) }
}

/// What stands at the beginning of a text, less what is behind it.
fn until<'a>(text: &'a str, behind: &str) -> &'a str {
    &text[..text.len() - behind.len()]
}

struct Repetition<'a> {
    /// with the `?` that makes it lazy
    operator: &'a str,
    behind: &'a str,
    /// how often at least and at most, if by number
    counts: Option<(u32, Option<u32>)>,
}

impl<'a> Repetition<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (length, counts) = match text.chars().next()? {
            '*' | '+' | '?' => (1, None),
            '{' => {
                let end = text.find('}')?;
                let (least, most) = match text[1..end].split_once(',') {
                    Some((least, "")) => (number(least)?, None),
                    Some((least, most)) => (number(least)?, Some(number(most)?)),
                    None => (number(&text[1..end])?, Some(number(&text[1..end])?)),
                };
                (end + 1, Some((least, most)))
            }
            _ => return None,
        };
        let lazy = usize::from(text[length..].starts_with('?'));
        let (operator, behind) = text.split_at(length + lazy);
        Some(Repetition { operator, behind, counts })
    }
}

/// A count, which has no zero before others.
fn number(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (is_number && (text == "0" || !text.starts_with('0'))).then(|| text.parse().unwrap_or(u32::MAX))
}

fn repeat<'a>(group: &mut Group, repeated: &str, repetition: &Repetition<'a>) -> Result<&'a str, String> {
    let Repetition { operator, behind, counts } = repetition;
    let count = |operator: &str| Err(format!("invalid repeat count: `{operator}`"));
    if let Some((least, most)) = *counts
        && (max(least, most.unwrap_or(0)) > MAX_REPEAT || most.is_some_and(|most| least > most))
    {
        return count(operator.trim_end_matches('?'));
    }
    if !repeated.is_empty() {
        return Err(format!("invalid nested repetition operator: `{repeated}{operator}`"));
    }
    let Some(last) = &mut group.last else {
        return Err(format!("missing argument to repetition operator: `{operator}`"));
    };
    if let Some((least, most)) = *counts {
        *last = match most.unwrap_or(least) {
            0 if most.is_some() => 1,
            times => last.saturating_mul(max(times, 1)),
        };
        if *last > MAX_REPEAT {
            return count(operator);
        }
    }
    Ok(behind)
}

/// What begins with `(?`: whether it opens a group, and what is behind it.
fn perl_group(text: &str) -> Result<(bool, &str), String> {
    let name = text.strip_prefix("(?P<").or_else(|| text.strip_prefix("(?<")).filter(|name| !name.is_empty());
    if let Some(name) = name {
        let end = name.find('>').ok_or_else(|| format!("invalid named capture: `{text}`"))?;
        let (name, behind) = (&name[..end], &name[end + 1..]);
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(format!("invalid named capture: `{}`", until(text, behind)));
        }
        return Ok((true, behind));
    }
    let (mut negates, mut has_flag) = (false, false);
    let mut rest = text[2..].chars();
    while let Some(c) = rest.next() {
        match c {
            'i' | 'm' | 's' | 'U' => has_flag = true,
            '-' if !negates => (negates, has_flag) = (true, false),
            ':' | ')' if !negates || has_flag => return Ok((c == ':', rest.as_str())),
            _ => break,
        }
    }
    Err(format!("invalid or unsupported Perl syntax: `{}`", until(text, rest.as_str())))
}

/// What is behind a class in brackets.
fn bracketed(whole: &str) -> Result<&str, String> {
    let rest = &whole[1..];
    let mut rest = rest.strip_prefix('^').unwrap_or(rest);
    let mut is_first = true;
    while is_first || !rest.starts_with(']') {
        is_first = false;
        if let Some(end) = rest.strip_prefix("[:").and_then(|name| name.find(":]")) {
            let name = &rest[2..end + 2];
            if !CLASSES.contains(&name.strip_prefix('^').unwrap_or(name)) {
                return Err(invalid_range(&rest[..end + 4]));
            }
            rest = &rest[end + 4..];
            continue;
        }
        if let Some(behind) = set(rest)? {
            rest = behind;
            continue;
        }
        let (low, mut behind) = character(rest, whole)?;
        if let Some(to) = behind.strip_prefix('-').filter(|to| !to.is_empty() && !to.starts_with(']')) {
            let high;
            (high, behind) = character(to, whole)?;
            if high < low {
                return Err(invalid_range(until(rest, behind)));
            }
        }
        rest = behind;
    }
    Ok(&rest[1..])
}

fn invalid_range(found: &str) -> String {
    format!("invalid character class range: `{found}`")
}

fn character<'a>(text: &'a str, whole: &str) -> Result<(u32, &'a str), String> {
    match text.chars().next() {
        None => Err(format!("missing closing ]: `{whole}`")),
        Some('\\') => escaped(text),
        Some(c) => Ok((c.into(), &text[c.len_utf8()..])),
    }
}

/// What is behind an escape that stands for a set of characters, if it is one.
fn set(text: &str) -> Result<Option<&str>, String> {
    let Some(escape) = text.strip_prefix('\\') else { return Ok(None) };
    let Some(kind) = escape.chars().next() else { return Ok(None) };
    match kind {
        'd' | 's' | 'w' | 'D' | 'S' | 'W' => return Ok(Some(&escape[1..])),
        'p' | 'P' => {}
        _ => return Ok(None),
    }
    let named = &escape[1..];
    let length = match named.chars().next() {
        Some('{') => named.find('}').map_or(0, |end| end + 1),
        first => first.map_or(0, char::len_utf8),
    };
    if length == 0 {
        return Err(invalid_range(text));
    }
    let (name, behind) = named.split_at(length);
    let known =
        !name.contains(['=', ':']) && Regex::new(&format!(r"\p{}", name.replacen("{^", "{", 1))).is_ok();
    if known { Ok(Some(behind)) } else { Err(invalid_range(until(text, behind))) }
}

/// The character that an escape stands for, and what is behind it.
fn escaped(text: &str) -> Result<(u32, &str), String> {
    let mut rest = text[1..].chars();
    let Some(c) = rest.next() else {
        return Err("trailing backslash at end of expression: ``".to_owned());
    };
    let octal = |text: &str| text.chars().next().and_then(|c| c.to_digit(8));
    let found = match c {
        '0' | '1'..='7' if c == '0' || octal(rest.as_str()).is_some() => {
            let mut value = u32::from(c) - u32::from('0');
            for _ in 0..2 {
                let Some(digit) = octal(rest.as_str()) else { break };
                value = value * 8 + digit;
                rest.next();
            }
            Some(value)
        }
        'x' => hexadecimal(&mut rest),
        'a' => Some(7),
        'f' => Some(12),
        'n' => Some(10),
        'r' => Some(13),
        't' => Some(9),
        'v' => Some(11),
        _ => (c.is_ascii() && !c.is_ascii_alphanumeric()).then_some(c.into()),
    };
    match found {
        Some(value) => Ok((value, rest.as_str())),
        None => Err(format!("invalid escape sequence: `{}`", until(text, rest.as_str()))),
    }
}

fn hexadecimal(rest: &mut std::str::Chars<'_>) -> Option<u32> {
    let first = rest.next()?;
    if first != '{' {
        // both are read before either is judged
        let second = rest.next();
        return Some(first.to_digit(16)? * 16 + second?.to_digit(16)?);
    }
    let mut value = None;
    loop {
        match rest.next()? {
            '}' => return value,
            c => {
                let next = value.unwrap_or(0) * 16 + c.to_digit(16)?;
                value = Some(next).filter(|next| *next <= u32::from(char::MAX));
                value?;
            }
        }
    }
}

/// Writes an expression that Go takes as Rust takes it.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        if let Some(Repetition { operator, behind, .. }) = Repetition::read(rest) {
            out.push_str(operator);
            rest = behind;
            continue;
        }
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
    out
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
            out.push_str(&regex::escape(literal));
            return behind;
        }
        'd' | 'w' | 's' if in_class => out.push_str(of),
        'd' | 'w' | 's' => out.push_str(&format!("[{of}]")),
        'D' | 'W' | 'S' => out.push_str(&format!("[^{of}]")),
        'b' | 'B' if !in_class => out.push_str(&format!("(?-u:\\{escaped})")),
        'p' | 'P' if behind.starts_with("{^") => {
            out.push_str(if escaped == 'p' { "\\P{" } else { "\\p{" });
            return &behind[2..];
        }
        'p' | 'P' if behind.starts_with('{') => {
            let (name, behind) = behind.split_at(behind.find('}').map_or(behind.len(), |end| end + 1));
            out.push_str(&format!("\\{escaped}{name}"));
            return behind;
        }
        'x' | '0'..='7' => {
            let Ok((value, behind)) = self::escaped(rest) else { return behind };
            out.push_str(&format!("\\x{{{value:x}}}"));
            return behind;
        }
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
    let mut ranges = false;
    while let Some(first) = rest.chars().next() {
        let named = rest.strip_prefix("[:").and_then(|name| name.find(":]")).map(|end| end + 4);
        if let Some(length) = named {
            out.push_str(&rest[..length]);
            rest = &rest[length..];
            continue;
        }
        match first {
            '\\' => {
                ranges = false;
                rest = escape(rest, true, out);
                continue;
            }
            ']' => {
                out.push(']');
                return &rest[1..];
            }
            // two of `-` would be an operation
            '-' if !ranges => {
                ranges = true;
                out.push('-');
                rest = &rest[1..];
                continue;
            }
            '[' | '&' | '~' | '-' => {
                out.push('\\');
                out.push(first);
            }
            other => out.push(other),
        }
        ranges = false;
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
            (r"[\p{L}\b]", r"invalid escape sequence: `\b`"),
            (r"\p{L}(", r"missing closing ): `\p{L}(`"),
            (r"\p{Foo}", r"invalid character class range: `\p{Foo}`"),
            ("[[:foo:]]", "invalid character class range: `[:foo:]`"),
            (r"\x{110000}", r"invalid escape sequence: `\x{110000`"),
            (r"[\d[", r"missing closing ]: `[\d[`"),
            ("(?x)a b", "invalid or unsupported Perl syntax: `(?x`"),
            ("(?i-)a", "invalid or unsupported Perl syntax: `(?i-)`"),
            ("(?:a{100}){100}", "invalid repeat count: `{100}`"),
            ("(?P<n", "invalid named capture: `(?P<n`"),
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
            (r"^[+--]+$", "+,-", "*"),
            (r"^[\--0]+$", "-./0", "1"),
            (r"^\p{^L}\060$", "10", "a0"),
            (r"^\p{L}+\x{41}[\p{Lu}\x{31}]$", "aA1", "aa1"),
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
