//! A value and the path at which it stands, so that rules read as upstream's: `spec.child("replicas").non_negative()`.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Object, Value};

/// A value in an object and where it is; null where there is none.
#[derive(Clone, Debug)]
pub(crate) struct At<'a> {
    pub value: &'a Value,
    pub path: Path,
}

impl<'a> At<'a> {
    pub fn new(value: &'a Value, path: Path) -> Self {
        Self { value, path }
    }

    /// The root of an object.
    pub fn root(object: &'a Object) -> Self {
        Self::new(object.as_value(), Path::root())
    }

    pub fn child(&self, key: &str) -> Self {
        Self::new(self.value.get(key).unwrap_or(&Value::Null), self.path.child(key))
    }

    pub fn len(&self) -> usize {
        match self.value {
            Value::Array(items) => items.len(),
            Value::Object(map) => map.len(),
            Value::String(text) => text.len(),
            _ => 0,
        }
    }

    pub fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// Absent, or empty as Go sees it.
    pub fn is_empty(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::Bool(flag) => !flag,
            Value::Number(number) => number.as_i64() == Some(0),
            _ => self.len() == 0,
        }
    }

    pub fn str(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    pub fn int(&self) -> Option<i64> {
        self.value.as_i64()
    }

    pub fn flag(&self) -> bool {
        self.value.as_bool().unwrap_or_default()
    }

    pub fn text(&self, key: &str) -> &'a str {
        self.value.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn number(&self, key: &str) -> Option<i64> {
        self.value.get(key).and_then(Value::as_i64)
    }

    pub fn has(&self, key: &str) -> bool {
        self.value.get(key).is_some_and(|value| !value.is_null())
    }

    pub fn list(&self) -> &'a [Value] {
        self.value.as_array().map(Vec::as_slice).unwrap_or_default()
    }

    /// The items of a list with their places.
    pub fn items(&self) -> impl Iterator<Item = At<'a>> + use<'a> {
        let path = self.path.clone();
        self.list().iter().enumerate().map(move |(index, value)| At::new(value, path.index(index)))
    }

    /// The items of the list in a field.
    pub fn each(&self, key: &str) -> impl Iterator<Item = At<'a>> + use<'a> {
        self.child(key).items()
    }

    /// The entries of a map with their keys and places.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, At<'a>)> + use<'a> {
        let path = self.path.clone();
        let map = self.value.as_object().into_iter().flatten();
        map.map(move |(key, value)| (key.as_str(), At::new(value, path.key(key))))
    }

    pub fn required(&self, detail: impl Into<String>) -> Error {
        Error::required(&self.path, detail)
    }

    pub fn forbidden(&self, detail: impl Into<String>) -> Error {
        Error::forbidden(&self.path, detail)
    }

    pub fn invalid(&self, detail: impl Into<String>) -> Error {
        Error::invalid(&self.path, self.value.clone(), detail)
    }

    /// As [`At::invalid`] without showing the value.
    pub fn invalid_unseen(&self, detail: impl Into<String>) -> Error {
        Error::invalid_unseen(&self.path, detail)
    }

    pub fn duplicate(&self) -> Error {
        Error::duplicate(&self.path, self.value.clone())
    }

    pub fn not_supported(&self, valid: &[&str]) -> Error {
        Error::not_supported(&self.path, self.value.clone(), valid)
    }

    pub fn too_long(&self, max: usize) -> Error {
        Error::too_long(&self.path, max)
    }

    pub fn too_many(&self, max: usize) -> Error {
        Error::too_many(&self.path, self.len(), max)
    }

    /// One error per message, about this value.
    pub fn wrong(&self, messages: Vec<String>) -> ErrorList {
        messages.into_iter().map(|message| self.invalid(message)).collect()
    }
}
