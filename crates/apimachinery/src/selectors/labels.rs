//! Label selectors: `app=web,tier in (a,b),!old`, and the `LabelSelector` of the API.

use std::fmt;

use serde_json::{Map, Value};

use crate::field::{self, Path, quote};
use crate::object::Object;
use crate::status::Status;
use crate::validation::{is_qualified_name, is_valid_label_value};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    Equals,
    DoubleEquals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One condition on one label. Values are sorted and unique.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

/// All requirements must hold; no requirement is everything, unless the selector is [`LabelSelector::nothing`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl Requirement {
    /// Checks key and values. The error is the text of upstream's aggregated field errors.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, String> {
        let mut errors = Vec::new();
        if let Some(error) = key_error(key, &Path::new("key")) {
            errors.push(error);
        }
        let path = Path::new("values");
        let shown = || Value::from(values.clone());
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                let detail = "for 'in', 'notin' operators, values set can't be empty";
                errors.push(field::Error::invalid(&path, shown(), detail));
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
                let detail = "exact-match compatibility requires one single value";
                errors.push(field::Error::invalid(&path, shown(), detail));
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                let detail = "values set must be empty for exists and does not exist";
                errors.push(field::Error::invalid(&path, shown(), detail));
            }
            Operator::GreaterThan | Operator::LessThan => {
                if values.len() != 1 {
                    let detail = "for 'Gt', 'Lt' operators, exactly one value is required";
                    errors.push(field::Error::invalid(&path, shown(), detail));
                }
                for (at, value) in values.iter().enumerate() {
                    if value.parse::<i64>().is_err() {
                        let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                        errors.push(field::Error::invalid(&path.index(at), value.as_str(), detail));
                    }
                }
            }
            _ => {}
        }
        for (at, value) in values.iter().enumerate() {
            let messages = is_valid_label_value(value);
            if !messages.is_empty() {
                let path = path.index(at).key(key);
                errors.push(field::Error::invalid(&path, value.as_str(), messages.join("; ")));
            }
        }
        if !errors.is_empty() {
            return Err(field::aggregate(&errors));
        }
        values.sort_unstable();
        values.dedup();
        Ok(Self { key: key.to_owned(), operator, values })
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    pub fn operator(&self) -> Operator {
        self.operator
    }

    pub fn values(&self) -> &[String] {
        &self.values
    }

    fn matches(&self, value: Option<&str>) -> bool {
        let among = |value: &str| self.values.iter().any(|v| v == value);
        match self.operator {
            Operator::Equals | Operator::DoubleEquals | Operator::In => value.is_some_and(among),
            Operator::NotEquals | Operator::NotIn => !value.is_some_and(among),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let wanted = self.values.first().and_then(|v| v.parse::<i64>().ok());
                match (value.and_then(|v| v.parse::<i64>().ok()), wanted) {
                    (Some(value), Some(wanted)) if self.operator == Operator::GreaterThan => value > wanted,
                    (Some(value), Some(wanted)) => value < wanted,
                    _ => false,
                }
            }
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

fn key_error(key: &str, path: &Path) -> Option<field::Error> {
    let messages = is_qualified_name(key);
    (!messages.is_empty()).then(|| field::Error::invalid(path, key, messages.join("; ")))
}

impl LabelSelector {
    pub fn everything() -> Self {
        Self::default()
    }

    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    pub fn new(requirements: Vec<Requirement>) -> Self {
        Self { requirements, nothing: false }
    }

    /// Reads the text form, as in `?labelSelector=`.
    pub fn parse(selector: &str) -> Result<Self, Status> {
        let mut requirements = Parser::new(selector).parse().map_err(Status::bad_request)?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// Reads a `LabelSelector` of the API: `null` is nothing, `{}` is everything.
    pub fn from_label_selector(selector: &Value) -> Result<Self, Status> {
        let Value::Object(selector) = selector else { return Ok(Self::nothing()) };
        let mut requirements = Vec::new();
        let labels = selector.get("matchLabels").and_then(Value::as_object);
        for (key, value) in labels.into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            let requirement = Requirement::new(key, Operator::Equals, vec![value]);
            requirements.push(requirement.map_err(Status::bad_request)?);
        }
        let expressions = selector.get("matchExpressions").and_then(Value::as_array);
        for expression in expressions.into_iter().flatten() {
            let text = |name: &str| expression.get(name).and_then(Value::as_str).unwrap_or_default();
            let operator = match text("operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    let message = format!("{} is not a valid label selector operator", quote(other));
                    return Err(Status::bad_request(message));
                }
            };
            let values = expression.get("values").and_then(Value::as_array);
            let values = values.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
            let requirement = Requirement::new(text("key"), operator, values);
            requirements.push(requirement.map_err(Status::bad_request)?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// The selector of exactly these labels, without checking them.
    pub fn from_set(labels: &Map<String, Value>) -> Self {
        let requirements = labels.iter().map(|(key, value)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: vec![value.as_str().unwrap_or_default().to_owned()],
        });
        Self::new(requirements.collect())
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether the selector takes everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    pub fn matches(&self, labels: &Map<String, Value>) -> bool {
        self.matches_by(|key| labels.get(key).and_then(Value::as_str))
    }

    pub fn matches_object(&self, object: &Object) -> bool {
        self.matches_by(|key| object.label(key))
    }

    /// Whether the selector matches labels that are kept in some other way.
    pub fn matches_by<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(get(&r.key)))
    }

    /// The one value a label must have, if the selector says so.
    pub fn requires_exact_match(&self, key: &str) -> Option<&str> {
        let requirement = self.requirements.iter().find(|r| r.key == key)?;
        match (requirement.operator, requirement.values.as_slice()) {
            (Operator::Equals | Operator::DoubleEquals | Operator::In, [value]) => Some(value),
            _ => None,
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, requirement) in self.requirements.iter().enumerate() {
            write!(f, "{}{requirement}", if at > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Error,
    End,
    Close,
    Open,
    Comma,
    Not,
    Identifier,
    In,
    NotIn,
    Binary(Operator),
}

struct Parser {
    tokens: Vec<(Token, String)>,
    at: usize,
}

fn symbol(text: &str) -> Option<Token> {
    Some(match text {
        ")" => Token::Close,
        "(" => Token::Open,
        "," => Token::Comma,
        "!" => Token::Not,
        "==" => Token::Binary(Operator::DoubleEquals),
        "=" => Token::Binary(Operator::Equals),
        "!=" => Token::Binary(Operator::NotEquals),
        ">" => Token::Binary(Operator::GreaterThan),
        "<" => Token::Binary(Operator::LessThan),
        _ => return None,
    })
}

fn lex(text: &str) -> Vec<(Token, String)> {
    let special = |c: char| matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<');
    let space = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
    let mut tokens = Vec::new();
    // Upstream's lexer takes a NUL for the end of the text.
    let mut rest = text.split('\0').next().unwrap_or_default().trim_start_matches(space);
    while let Some(first) = rest.chars().next() {
        if special(first) {
            let run: usize = rest.chars().take_while(|c| special(*c)).count();
            // The longest symbol that the run begins with; all of them are one or two bytes.
            let found = [2, 1].into_iter().filter(|n| *n <= run).find_map(|n| Some((symbol(&rest[..n])?, n)));
            let (token, literal, length) = match found {
                Some((token, length)) => (token, rest[..length].to_owned(), length),
                None => (Token::Error, format!("error expected: keyword found '{}'", &rest[..run]), run),
            };
            tokens.push((token, literal));
            rest = &rest[length..];
        } else {
            let end = rest.find(|c| special(c) || space(c)).unwrap_or(rest.len());
            let token = match &rest[..end] {
                "in" => Token::In,
                "notin" => Token::NotIn,
                _ => Token::Identifier,
            };
            tokens.push((token, rest[..end].to_owned()));
            rest = &rest[end..];
        }
        rest = rest.trim_start_matches(space);
    }
    tokens.push((Token::End, String::new()));
    tokens
}

impl Parser {
    fn new(text: &str) -> Self {
        Self { tokens: lex(text), at: 0 }
    }

    /// The next token, with `in` and `notin` taken as what they are.
    fn peek_operator(&self) -> (Token, String) {
        self.tokens.get(self.at).cloned().unwrap_or((Token::End, String::new()))
    }

    /// The next token where `in` and `notin` are words like any other.
    fn peek(&self) -> (Token, String) {
        match self.peek_operator() {
            (Token::In | Token::NotIn, word) => (Token::Identifier, word),
            other => other,
        }
    }

    fn next(&mut self) -> (Token, String) {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn parse(mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                (Token::Identifier | Token::Not, _) => {
                    let requirement = self.requirement();
                    requirements.push(requirement.map_err(|e| format!("unable to parse requirement: {e}"))?);
                    match self.next() {
                        (Token::End, _) => return Ok(requirements),
                        (Token::Comma, _) => {
                            let (token, word) = self.peek();
                            if !matches!(token, Token::Identifier | Token::Not) {
                                return Err(format!("found '{word}', expected: identifier after ','"));
                            }
                        }
                        (_, word) => return Err(format!("found '{word}', expected: ',' or 'end of string'")),
                    }
                }
                (Token::End, _) => return Ok(requirements),
                (_, word) => {
                    return Err(format!("found '{word}', expected: !, identifier, or 'end of string'"));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let (mut token, mut key) = self.next();
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.next();
        }
        if token != Token::Identifier {
            return Err(format!("found '{key}', expected: identifier"));
        }
        if let Some(error) = key_error(&key, &Path::root()) {
            return Err(error.to_string());
        }
        if negated {
            return Requirement::new(&key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Requirement::new(&key, Operator::Exists, Vec::new());
        }
        let (token, word) = self.peek_operator();
        self.at += 1;
        let (operator, values) = match token {
            Token::In => (Operator::In, self.values()?),
            Token::NotIn => (Operator::NotIn, self.values()?),
            Token::Binary(operator) => (operator, vec![self.exact_value()?]),
            _ => return Err(format!("found '{word}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        Requirement::new(&key, operator, values)
    }

    fn exact_value(&mut self) -> Result<String, String> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.next() {
            (Token::Identifier, word) => Ok(word),
            (_, word) => Err(format!("found '{word}', expected: identifier")),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        let (token, word) = self.next();
        if token != Token::Open {
            return Err(format!("found '{word}' expected: '('"));
        }
        match self.peek() {
            (Token::Identifier | Token::Comma, word) => {
                let mut values = self.identifiers()?;
                if self.next().0 != Token::Close {
                    return Err(format!("found '{word}', expected: ')'"));
                }
                values.sort_unstable();
                values.dedup();
                Ok(values)
            }
            (Token::Close, _) => {
                self.at += 1;
                Ok(vec![String::new()])
            }
            (_, word) => Err(format!("found '{word}', expected: ',', ')' or identifier")),
        }
    }

    fn identifiers(&mut self) -> Result<Vec<String>, String> {
        let mut values = Vec::new();
        loop {
            match self.next() {
                (Token::Identifier, word) => {
                    values.push(word);
                    match self.peek() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => return Ok(values),
                        (_, word) => return Err(format!("found '{word}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    if values.is_empty() {
                        values.push(String::new());
                    }
                    match self.peek().0 {
                        Token::Close => {
                            values.push(String::new());
                            return Ok(values);
                        }
                        Token::Comma => values.push(String::new()),
                        _ => {}
                    }
                }
                (_, word) => return Err(format!("found '{word}', expected: ',', or identifier")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn parsing() {
        let cases = [
            ("", Ok("")),
            ("x=a,y=b,z=c", Ok("x=a,y=b,z=c")),
            ("z, a == b", Ok("a==b,z")),
            ("x in (c,a,b),!y", Ok("x in (a,b,c),!y")),
            ("x notin ()", Ok("x notin ()")),
            ("x in (,a)", Ok("x in (,a)")),
            ("x>1,y<2", Ok("x>1,y<2")),
            ("x=", Ok("x=")),
            ("in in (in,notin)", Ok("in in (in,notin)")),
            ("!x", Ok("!x")),
            ("x,", Err("found '', expected: identifier after ','")),
            ("x in a", Err("unable to parse requirement: found 'a' expected: '('")),
            ("x==a==b", Err("found '==', expected: ',' or 'end of string'")),
            ("=x", Err("found '=', expected: !, identifier, or 'end of string'")),
            ("x a", Err("unable to parse requirement: found 'a', expected: in, notin, =, ==, !=, gt, lt")),
            (
                "x>a",
                Err(concat!(
                    "unable to parse requirement: values[0]: Invalid value: \"a\": ",
                    "for 'Gt', 'Lt' operators, the value must be an integer"
                )),
            ),
        ];
        for (text, expected) in cases {
            let got = LabelSelector::parse(text).map(|s| s.to_string()).map_err(|e| e.message);
            match (got, expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{text}"),
                (Err(got), Err(expected)) => assert_eq!(got, expected, "{text}"),
                (got, expected) => panic!("{text}: {got:?}, not {expected:?}"),
            }
        }
        let error = LabelSelector::parse("a b/c/d=x").unwrap_err().message;
        assert!(error.starts_with("unable to parse requirement: found 'b/c/d'"), "{error}");
        let error = LabelSelector::parse("-a").unwrap_err().message;
        assert!(
            error.starts_with("unable to parse requirement: <nil>: Invalid value: \"-a\": name part"),
            "{error}"
        );
    }

    #[test]
    fn matching() {
        let labels = json!({"app": "web", "n": "5"});
        let labels = labels.as_object().unwrap();
        let cases = [
            ("", true),
            ("app", true),
            ("!app", false),
            ("app=web", true),
            ("app!=web", false),
            ("x!=web", true),
            ("app in (a,web)", true),
            ("app notin (a,web)", false),
            ("x notin (a)", true),
            ("n>4", true),
            ("n<5", false),
            ("app>1", false),
            ("app=web,x", false),
        ];
        for (text, expected) in cases {
            assert_eq!(LabelSelector::parse(text).unwrap().matches(labels), expected, "{text}");
        }
    }

    #[test]
    fn api_selectors() {
        let labels = json!({"app": "web"});
        let labels = labels.as_object().unwrap();
        let cases = [
            (json!(null), false),
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}), false),
            (json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]}), true),
        ];
        for (selector, expected) in cases {
            let parsed = LabelSelector::from_label_selector(&selector).unwrap();
            assert_eq!(parsed.matches(labels), expected, "{selector}");
        }
        let wrong = json!({"matchExpressions": [{"key": "a", "operator": "Like"}]});
        let error = LabelSelector::from_label_selector(&wrong).unwrap_err().message;
        assert_eq!(error, "\"Like\" is not a valid label selector operator");
    }

    proptest! {
        #[test]
        fn what_is_parsed_prints_to_itself(text in "[a-c=!,()<>1 in]{0,24}") {
            if let Ok(selector) = LabelSelector::parse(&text) {
                prop_assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap(), selector);
            }
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,40}") {
            let _ = LabelSelector::parse(&text);
        }
    }
}
