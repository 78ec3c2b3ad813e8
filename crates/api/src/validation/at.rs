//! A value and the path at which it stands, so that rules read as upstream's: `spec.child("replicas").non_negative()`.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::quantity::Quantity;
use apimachinery::{Object, Value};

use super::value;

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

    /// What stands at a path of an object.
    pub fn of(object: &'a Object, keys: &[&str]) -> Self {
        keys.iter().fold(Self::root(object), |at, key| at.child(key))
    }

    pub fn child(&self, key: &str) -> Self {
        Self::new(self.value.get(key).unwrap_or(&Value::Null), self.path.child(key))
    }

    /// The child at a key, unless that is nothing.
    pub fn field(&self, key: &str) -> Option<Self> {
        let value = self.value.get(key).filter(|value| !value.is_null())?;
        Some(Self::new(value, self.path.child(key)))
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

    /// The number here, zero where there is none.
    pub fn int_or_zero(&self) -> i64 {
        self.int().unwrap_or_default()
    }

    pub fn quantity(&self) -> Option<Quantity> {
        value::quantity(self.value)
    }

    pub fn flag(&self) -> bool {
        self.value.as_bool().unwrap_or_default()
    }

    pub fn text(&self, key: &str) -> &'a str {
        value::text(self.value, key)
    }

    /// The text at a key that is there, which may be empty.
    pub fn optional(&self, key: &str) -> Option<&'a str> {
        value::optional(self.value, key)
    }

    pub fn number(&self, key: &str) -> Option<i64> {
        value::int(self.value, key)
    }

    pub fn number_or_zero(&self, key: &str) -> i64 {
        value::number(self.value, key)
    }

    pub fn is_true(&self, key: &str) -> bool {
        value::flag(self.value, key)
    }

    /// The strings of the list at a key.
    pub fn strings(&self, key: &str) -> Vec<&'a str> {
        value::strings(self.value, key)
    }

    /// Whether something stands at a key.
    pub fn has(&self, key: &str) -> bool {
        value::has(self.value, key)
    }

    /// Whether something other than a zero value stands at a key.
    pub fn says(&self, key: &str) -> bool {
        value::is_set(self.value, key)
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

    /// As [`At::invalid`] for texts, which are empty where there are none.
    pub fn invalid_text(&self, detail: impl Into<String>) -> Error {
        Error::invalid(&self.path, self.str(), detail)
    }

    /// As [`At::invalid`] for numbers, which are zero where there are none.
    pub fn invalid_number(&self, detail: impl Into<String>) -> Error {
        Error::invalid(&self.path, self.int_or_zero(), detail)
    }

    /// As [`At::invalid`], showing a quantity as it is written.
    pub fn invalid_quantity(&self, detail: impl Into<String>) -> Error {
        Error::invalid(&self.path, value::shown(self.value), detail)
    }

    /// As [`At::invalid`] without showing the value.
    pub fn invalid_unseen(&self, detail: impl Into<String>) -> Error {
        Error::invalid_unseen(&self.path, detail)
    }

    pub fn duplicate(&self) -> Error {
        Error::duplicate(&self.path, self.value.clone())
    }

    pub fn not_found(&self) -> Error {
        Error::not_found(&self.path, self.str())
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
