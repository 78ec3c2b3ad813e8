//! Field selectors: `spec.nodeName=a,status.phase!=Running`, with backslashes before `,`, `=` and `\` in values.

use std::fmt;

use crate::status::Status;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldRequirement {
    pub field: String,
    /// `false`: the field must be something else.
    pub equals: bool,
    pub value: String,
}

/// All requirements must hold; none is everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    pub fn everything() -> Self {
        Self::default()
    }

    pub fn equals(field: impl Into<String>, value: impl Into<String>) -> Self {
        let requirement = FieldRequirement { field: field.into(), equals: true, value: value.into() };
        Self { requirements: vec![requirement] }
    }

    pub fn parse(selector: &str) -> Result<Self, Status> {
        let mut terms = split_terms(selector);
        terms.sort_unstable();
        let mut requirements = Vec::new();
        for term in terms.into_iter().filter(|term| !term.is_empty()) {
            let Some((field, equals, value)) = split_term(term) else {
                let message = format!("invalid selector: '{selector}'; can't understand '{term}'");
                return Err(Status::bad_request(message));
            };
            let value = unescape_value(value)?;
            requirements.push(FieldRequirement { field: field.to_owned(), equals, value });
        }
        Ok(Self { requirements })
    }

    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether the selector matches, given what the fields hold; a field that is not there is empty.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| (get(&r.field).unwrap_or_default() == r.value) == r.equals)
    }

    /// The one value a field must have, if the selector says so.
    pub fn requires_exact_match(&self, field: &str) -> Option<&str> {
        self.requirements.iter().find(|r| r.equals && r.field == field).map(|r| r.value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, r) in self.requirements.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let operator = if r.equals { "=" } else { "!=" };
            write!(f, "{comma}{}{operator}{}", r.field, escape_value(&r.value))?;
        }
        Ok(())
    }
}

/// Makes any text fit for the right side of a field selector.
pub fn escape_value(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '\\' | ',' | '=') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn unescape_value(value: &str) -> Result<String, Status> {
    let invalid = |sequence: String| {
        Status::bad_request(format!("invalid field selector: invalid escape sequence: {sequence}"))
    };
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(c) => return Err(invalid(format!("\\{c}"))),
                None => return Err(invalid("\\".to_owned())),
            },
            ',' | '=' => {
                let code = u32::from(c);
                let message = format!("invalid field selector: unescaped character in value: {code}");
                return Err(Status::bad_request(message));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

fn split_terms(selector: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in selector.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&selector[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&selector[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    for (at, _) in term.char_indices() {
        let (left, rest) = term.split_at(at);
        for (operator, equals) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(right) = rest.strip_prefix(operator) {
                return Some((left, equals, right));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parsing() {
        let cases = [
            ("", Ok("")),
            ("a=b", Ok("a=b")),
            ("b!=c,a==b,", Ok("a=b,b!=c")),
            (r"a=b\,c\=d\\", Ok(r"a=b\,c\=d\\")),
            ("a", Err("invalid selector: 'a'; can't understand 'a'")),
            (r"a=\x", Err(r"invalid field selector: invalid escape sequence: \x")),
            ("a=b=c", Err("invalid field selector: unescaped character in value: 61")),
        ];
        for (text, expected) in cases {
            let got = FieldSelector::parse(text).map(|s| s.to_string()).map_err(|e| e.message);
            assert_eq!(got.as_deref().map_err(String::as_str), expected, "{text}");
        }
    }

    #[test]
    fn matching() {
        let get = |field: &str| (field == "a").then_some("1");
        for (text, expected) in
            [("a=1", true), ("a!=1", false), ("b=", true), ("b!=x", true), ("a=1,b=2", false), ("", true)]
        {
            assert_eq!(FieldSelector::parse(text).unwrap().matches(get), expected, "{text}");
        }
        let selector = FieldSelector::parse("a=1,b!=2").unwrap();
        assert_eq!(
            (selector.requires_exact_match("a"), selector.requires_exact_match("b")),
            (Some("1"), None)
        );
    }

    proptest! {
        #[test]
        fn values_survive(value in "\\PC{0,20}") {
            let selector = FieldSelector::equals("f", value);
            prop_assert_eq!(FieldSelector::parse(&selector.to_string()).unwrap(), selector);
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,30}") {
            let _ = FieldSelector::parse(&text);
        }
    }
}
