//! Field paths and the errors that validation reports, worded as upstream's `field.Error`.

use std::fmt;

use serde_json::Value;

/// A path into an object, such as `spec.containers[0].image` or `metadata.labels[app]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(String);

impl Path {
    pub fn root() -> Self {
        Self::default()
    }

    /// Starts a path; `name` may hold dots.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { Self(format!("{}.{name}", self.0)) }
    }

    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

/// What is wrong with a field; the names are those of the causes in a `Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorType {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    TypeInvalid,
    InternalError,
}

impl ErrorType {
    /// The `reason` of the cause in a `Status`.
    pub fn cause(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::InternalError => "InternalError",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::InternalError => "Internal error",
        }
    }
}

/// One thing wrong with one field.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    pub kind: ErrorType,
    pub field: String,
    /// The offending value as upstream prints it, ready for the message (strings are quoted).
    pub value: String,
    pub detail: String,
}

pub type ErrorList = Vec<Error>;

/// Quotes text as Go's `%q`.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0b' => out.push_str("\\v"),
            '\x0c' => out.push_str("\\f"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            // Rust and Go agree on what is printable but for a few code points.
            c if c != '\'' && c.escape_debug().len() > 1 => match u32::from(c) {
                code @ ..=0xffff => out.push_str(&format!("\\u{code:04x}")),
                code => out.push_str(&format!("\\U{code:08x}")),
            },
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// How Go's `%v`/`%q` in `field.Error.ErrorBody` shows a value.
pub fn show(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::String(s) => quote(s),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        other => other.to_string(),
    }
}

impl Error {
    fn with(kind: ErrorType, path: &Path, value: String, detail: impl Into<String>) -> Self {
        Self { kind, field: path.to_string(), value, detail: detail.into() }
    }

    pub fn required(path: &Path, detail: impl Into<String>) -> Self {
        Self::with(ErrorType::Required, path, String::new(), detail)
    }

    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Self {
        Self::with(ErrorType::Forbidden, path, String::new(), detail)
    }

    pub fn invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::with(ErrorType::Invalid, path, show(&value.into()), detail)
    }

    /// As [`Error::invalid`], for values that are not shown.
    pub fn invalid_unseen(path: &Path, detail: impl Into<String>) -> Self {
        Self::with(ErrorType::Invalid, path, String::new(), detail)
    }

    /// The same error with the value as upstream shows it where that is no JSON form of ours.
    pub fn showing(mut self, value: impl Into<String>) -> Self {
        self.value = value.into();
        self
    }

    pub fn type_invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::with(ErrorType::TypeInvalid, path, show(&value.into()), detail)
    }

    pub fn duplicate(path: &Path, value: impl Into<Value>) -> Self {
        Self::with(ErrorType::Duplicate, path, show(&value.into()), "")
    }

    pub fn not_found(path: &Path, value: impl Into<Value>) -> Self {
        Self::with(ErrorType::NotFound, path, show(&value.into()), "")
    }

    pub fn not_supported<S: AsRef<str>>(path: &Path, value: impl Into<Value>, valid: &[S]) -> Self {
        let detail = if valid.is_empty() {
            String::new()
        } else {
            let quoted: Vec<String> = valid.iter().map(|v| quote(v.as_ref())).collect();
            format!("supported values: {}", quoted.join(", "))
        };
        Self::with(ErrorType::NotSupported, path, show(&value.into()), detail)
    }

    pub fn too_long(path: &Path, max: usize) -> Self {
        let unit = if max == 1 { "byte" } else { "bytes" };
        Self::with(ErrorType::TooLong, path, String::new(), format!("may not be more than {max} {unit}"))
    }

    pub fn too_many(path: &Path, actual: usize, max: usize) -> Self {
        let unit = if max == 1 { "item" } else { "items" };
        Self::with(ErrorType::TooMany, path, actual.to_string(), format!("must have at most {max} {unit}"))
    }

    pub fn internal(path: &Path, detail: impl Into<String>) -> Self {
        Self::with(ErrorType::InternalError, path, String::new(), detail)
    }

    /// The message without the field, as the `message` of a cause.
    pub fn body(&self) -> String {
        let mut out = String::from(self.kind.words());
        let shows_value = !self.value.is_empty()
            && !matches!(
                self.kind,
                ErrorType::Required | ErrorType::Forbidden | ErrorType::TooLong | ErrorType::InternalError
            );
        if shows_value {
            out.push_str(": ");
            out.push_str(&self.value);
        }
        if !self.detail.is_empty() {
            out.push_str(": ");
            out.push_str(&self.detail);
        }
        out
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// All errors in one line, as Go's `utilerrors.Aggregate` prints them: one bare, several in brackets, each once.
pub fn aggregate(errors: &[Error]) -> String {
    let mut seen: Vec<String> = Vec::new();
    for error in errors {
        let text = error.to_string();
        if !seen.contains(&text) {
            seen.push(text);
        }
    }
    if seen.len() == 1 { seen.swap_remove(0) } else { format!("[{}]", seen.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go() {
        for (text, expected) in
            [("it's \"é\"", r#""it's \"é\"""#), ("a\0\n\u{200b}\\", r#""a\x00\n\u200b\\""#)]
        {
            assert_eq!(quote(text), expected);
        }
    }

    #[test]
    fn errors_read_as_upstream() {
        let path = Path::new("spec").child("containers").index(0).child("name");
        let cases = [
            (Error::required(&path, ""), "spec.containers[0].name: Required value"),
            (Error::invalid(&path, "A", "bad"), "spec.containers[0].name: Invalid value: \"A\": bad"),
            (Error::duplicate(&path, 3), "spec.containers[0].name: Duplicate value: 3"),
            (
                Error::not_supported(&path, "x", &["a", "b"]),
                "spec.containers[0].name: Unsupported value: \"x\": supported values: \"a\", \"b\"",
            ),
            (Error::too_long(&path, 5), "spec.containers[0].name: Too long: may not be more than 5 bytes"),
            (Error::too_many(&path, 7, 5), "spec.containers[0].name: Too many: 7: must have at most 5 items"),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
    }
}
