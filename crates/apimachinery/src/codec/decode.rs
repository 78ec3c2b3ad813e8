//! The one decoder: any serde source (JSON text, a tree) to a normalised tree, driven by the descriptors.
//!
//! Like Go's decoder it goes on after a value of the wrong type, so that a syntax error further on is what gets
//! reported, and names the first wrong type at the end.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::number::{self, number_text};
use super::path::{Path, Segment};
use super::{DecodeError, Decoded, MAX_DEPTH, scalar};
use crate::object::Object;
use crate::schema::{Field, GoKind, Kind, Omit, Schema, Unknown, View};

/// Upstream stops counting strict errors here.
const MAX_STRICT_ERRORS: usize = 100;
const TOO_DEEP: &str = "exceeded max depth";

pub(super) struct Decoder {
    strict: Option<Vec<String>>,
    wrong: Option<String>,
    depth: usize,
}

pub(super) fn error_of(error: serde_json::Error) -> DecodeError {
    let text = error.to_string();
    if text.contains(TOO_DEEP) { DecodeError::TooDeep } else { DecodeError::Value(text) }
}

impl Decoder {
    pub(super) fn strict() -> Self {
        Self { strict: Some(Vec::new()), wrong: None, depth: 0 }
    }

    pub(super) fn lenient() -> Self {
        Self { strict: None, wrong: None, depth: 0 }
    }

    pub(super) fn root<'a, 'd>(&'d mut self, schema: &'a Schema) -> Root<'a, 'd> {
        Root { schema, decoder: self }
    }

    pub(super) fn finish(self, value: Value, schema: &Schema) -> Result<Decoded, DecodeError> {
        if let Some(wrong) = self.wrong {
            return Err(DecodeError::Value(wrong));
        }
        let object = match value {
            Value::Object(_) => Object::from(value),
            _ => Object::from(schema.view().zero_object()),
        };
        Ok(Decoded { object, strict_errors: self.strict.unwrap_or_default() })
    }

    fn strict_error(&mut self, error: impl FnOnce() -> String) {
        if let Some(errors) = &mut self.strict
            && errors.len() < MAX_STRICT_ERRORS
        {
            let error = error();
            if !errors.contains(&error) {
                errors.push(error);
            }
        }
    }

    fn wrong(&mut self, error: impl FnOnce() -> String) {
        self.wrong.get_or_insert_with(error);
    }
}

pub(super) struct Root<'a, 'd> {
    schema: &'a Schema,
    decoder: &'d mut Decoder,
}

impl<'de> DeserializeSeed<'de> for Root<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        let kind = Kind::Foreign(self.schema.clone());
        let path = Path::ROOT;
        let seed =
            Seed { view: self.schema.view(), kind: &kind, go_type: "", path: &path, decoder: self.decoder };
        seed.deserialize(source)
    }
}

/// Decodes one value of one kind.
struct Seed<'a, 'p, 'd> {
    view: View<'a>,
    kind: &'a Kind,
    /// The name of a named string type.
    go_type: &'a str,
    path: &'p Path<'p>,
    decoder: &'d mut Decoder,
}

impl<'a> Seed<'a, '_, '_> {
    fn keeps_anything(&self) -> bool {
        matches!(self.kind, Kind::Any | Kind::Json | Kind::RawExtension | Kind::FieldsV1)
            || self.view.unstructured()
    }

    /// Notes that the value is of the wrong type.
    fn mismatch(self, got: &str) -> Value {
        let (path, kind, go_type, view) = (self.path, self.kind, self.go_type, self.view);
        self.decoder.wrong(|| match kind {
            // These decode themselves, from text.
            Kind::Time | Kind::MicroTime | Kind::Duration => {
                format!("json: cannot unmarshal {got} into Go value of type string")
            }
            Kind::IntOrString => format!("json: cannot unmarshal {got} into Go value of type int32"),
            Kind::Quantity => crate::quantity::ParseError::FormatWrong.to_string(),
            _ => format!(
                "json: cannot unmarshal {got} into {} of type {}",
                path.go(),
                go_name(view, kind, go_type)
            ),
        });
        Value::Null
    }

    fn number(self, number: Number) -> Value {
        // an integer to Go, a float to serde_json
        let is_minus_zero =
            number.is_f64() && number.as_f64().is_some_and(|n| n == 0.0 && n.is_sign_negative());
        let number = if is_minus_zero { Number::from(0) } else { number };
        let in_range = match self.kind {
            Kind::Int32 => number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            Kind::Uint32 => number.as_u64().is_some_and(|n| u32::try_from(n).is_ok()),
            Kind::Int64 => number.as_i64().is_some(),
            Kind::IntOrString => number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            Kind::Float64 => true,
            Kind::Quantity => {
                let text = number_text(&number);
                let value = scalar::from_string(self.kind, text);
                return self.text(value);
            }
            _ if self.keeps_anything() => true,
            _ => return self.mismatch("number"),
        };
        if in_range || self.view.unstructured() {
            return Value::Number(number::canonical(number));
        }
        let got = format!("number {}", number_text(&number));
        self.mismatch(&got)
    }

    fn text(self, value: Option<Result<Value, String>>) -> Value {
        match value {
            Some(Ok(value)) => value,
            Some(Err(error)) => {
                self.decoder.wrong(|| error);
                Value::Null
            }
            None => self.mismatch("string"),
        }
    }

    fn string(self, text: String) -> Value {
        if self.keeps_anything() {
            return Value::String(text);
        }
        let value = scalar::from_string(self.kind, text);
        self.text(value)
    }

    /// Runs one level of nesting.
    fn nested<E: serde::de::Error>(
        self,
        read: impl FnOnce(Seed<'a, '_, '_>) -> Result<Value, E>,
    ) -> Result<Value, E> {
        let Self { view, kind, go_type, path, decoder } = self;
        decoder.depth += 1;
        if decoder.depth > MAX_DEPTH {
            return Err(E::custom(TOO_DEEP));
        }
        let value = read(Seed { view, kind, go_type, path, decoder: &mut *decoder });
        decoder.depth -= 1;
        value
    }

    fn items<'de, A: SeqAccess<'de>>(self, mut source: A) -> Result<Value, A::Error> {
        match self.kind {
            Kind::List(list) => self.list(&list.element, source),
            Kind::Strings | Kind::SchemaOrStrings(_) => self.list(&Kind::String, source),
            Kind::SchemaOrArray(schema) => self.list(schema, source),
            _ if self.keeps_anything() => self.list(&Kind::Any, source),
            _ => {
                while source.next_element::<IgnoredAny>()?.is_some() {}
                Ok(self.mismatch("array"))
            }
        }
    }

    fn entries<'de, A: MapAccess<'de>>(self, mut source: A) -> Result<Value, A::Error> {
        if let Some(view) = self.view.of(self.kind) {
            return self.object(view, source);
        }
        match self.kind {
            Kind::Map(map) => self.map(&map.value, source),
            _ if self.keeps_anything() => self.map(&Kind::Any, source),
            _ => {
                while source.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(self.mismatch("object"))
            }
        }
    }

    fn object<'de, A: MapAccess<'de>>(self, view: View<'a>, mut source: A) -> Result<Value, A::Error> {
        let Self { path, decoder, .. } = self;
        let message = view.message();
        let mut out = Map::new();
        let mut seen = 0u128;
        while let Some(key) = source.next_key_seed(KeySeed { view })? {
            match key {
                Key::Known(index) => {
                    let field = &message.fields[index];
                    if decoder.strict.is_some() && index < 128 {
                        if seen & (1 << index) != 0 {
                            decoder
                                .strict_error(|| format!("duplicate field {:?}", path.strict(&field.name)));
                        }
                        seen |= 1 << index;
                    }
                    let here = path.child(Segment::Field { owner: &message.name, name: &field.name });
                    let value = source.next_value_seed(Seed {
                        view,
                        kind: &field.kind,
                        go_type: &field.go_type,
                        path: &here,
                        decoder: &mut *decoder,
                    })?;
                    let value = match &value {
                        Value::Array(list) if list.is_empty() && is_managers(path, field) => no_managers(),
                        _ => value,
                    };
                    match settle(view, field, value) {
                        Some(value) => out.insert(field.name.to_string(), value),
                        None => out.remove(&*field.name),
                    };
                }
                Key::Unknown(key) => {
                    let kind = match &message.unknown {
                        Unknown::Prune => {
                            decoder.strict_error(|| format!("unknown field {:?}", path.strict(&key)));
                            source.next_value::<IgnoredAny>()?;
                            continue;
                        }
                        Unknown::Keep => &Kind::Any,
                        Unknown::Typed(kind) => kind,
                    };
                    if out.contains_key(&key) {
                        decoder.strict_error(|| format!("duplicate field {:?}", path.strict(&key)));
                    }
                    let here = path.child(Segment::Key(&key));
                    let value = source.next_value_seed(Seed {
                        view,
                        kind,
                        go_type: "",
                        path: &here,
                        decoder: &mut *decoder,
                    })?;
                    out.insert(key, value);
                }
            }
        }
        for (index, zero) in view.zeros() {
            let name = &message.fields[usize::from(*index)].name;
            if !out.contains_key(&**name) {
                out.insert(name.to_string(), zero.clone());
            }
        }
        Ok(Value::Object(out))
    }

    fn map<'de, A: MapAccess<'de>>(self, value_kind: &'a Kind, mut source: A) -> Result<Value, A::Error> {
        let reports_duplicates = !matches!(self.kind, Kind::RawExtension | Kind::FieldsV1 | Kind::Json);
        let Self { view, go_type, path, decoder, .. } = self;
        let mut out = Map::new();
        while let Some(key) = source.next_key::<String>()? {
            if reports_duplicates && out.contains_key(&key) {
                decoder.strict_error(|| format!("duplicate field {:?}", path.strict(&key)));
            }
            let here = path.child(Segment::Key(&key));
            let value = source.next_value_seed(Seed {
                view,
                kind: value_kind,
                go_type,
                path: &here,
                decoder: &mut *decoder,
            })?;
            out.insert(key, or_zero(view, value_kind, value));
        }
        Ok(Value::Object(out))
    }

    fn list<'de, A: SeqAccess<'de>>(self, element: &'a Kind, mut source: A) -> Result<Value, A::Error> {
        let Self { view, go_type, path, decoder, .. } = self;
        let mut out = Vec::new();
        loop {
            let here = path.child(Segment::Index(out.len()));
            let seed = Seed { view, kind: element, go_type, path: &here, decoder: &mut *decoder };
            let Some(value) = source.next_element_seed(seed)? else { break };
            out.push(or_zero(view, element, value));
        }
        Ok(Value::Array(out))
    }
}

/// Whether a field is the document's `metadata.managedFields`.
fn is_managers(path: &Path<'_>, field: &Field) -> bool {
    &*field.name == "managedFields" && path.is_metadata()
}

/// What asks for all managers to be forgotten. So does an empty list, which would be left out like any other; in Go it
/// is another than none.
fn no_managers() -> Value {
    Value::Array(vec![Value::Object(Map::new())])
}

/// A null in a list or a map of Go values is their zero.
pub(super) fn or_zero(view: View<'_>, kind: &Kind, value: Value) -> Value {
    if is_zero_of_other_form(view, kind, &value) { view.zero(kind) } else { value }
}

/// Whether [`or_zero`] would change a value.
pub(super) fn is_zero_of_other_form(view: View<'_>, kind: &Kind, value: &Value) -> bool {
    value.is_null() && !view.unstructured() && !view.zero(kind).is_null()
}

/// What becomes of a field's value: Go's rules for leaving it out.
pub(super) fn settle(view: View<'_>, field: &Field, value: Value) -> Option<Value> {
    if is_settled(view, field, &value) {
        return Some(value);
    }
    match field.omit {
        _ if value.is_null() => view.zero_of_field(field),
        // Protobuf, in which built-in objects are stored, does not tell empty from nil.
        Omit::Never => Some(Value::Null),
        _ => None,
    }
}

/// Whether [`settle`] would leave a field's value alone.
pub(super) fn is_settled(view: View<'_>, field: &Field, value: &Value) -> bool {
    if field.omit == Omit::Absent {
        return true;
    }
    let empty = match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Null => return view.zero_of_field(field) == Some(Value::Null),
    };
    let goes = match (field.omit, field.go_kind) {
        (Omit::Never, GoKind::Slice | GoKind::Map) => {
            !field.tags.is_empty() && !matches!(field.kind, Kind::Bytes)
        }
        (Omit::Empty | Omit::Zero, GoKind::Slice | GoKind::Map) => true,
        (Omit::Empty, GoKind::Value) => !crate::schema::is_struct(&field.kind),
        _ => false,
    };
    !(empty && goes)
}

enum Key {
    Known(usize),
    Unknown(String),
}

/// Finds the field a key names without making a string of it.
struct KeySeed<'a> {
    view: View<'a>,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Key, D::Error> {
        source.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, key: &str) -> Result<Key, E> {
        Ok(self.view.position(key).map_or_else(|| Key::Unknown(key.to_owned()), Key::Known))
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, set: bool) -> Result<Value, E> {
        Ok(match self.kind {
            Kind::Bool | Kind::SchemaOrBool(_) => Value::Bool(set),
            _ if self.keeps_anything() => Value::Bool(set),
            _ => self.mismatch("bool"),
        })
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(self.number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(self.number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        // JSON has no NaN and no infinity, so neither has a tree.
        Ok(Number::from_f64(number).map_or(Value::Null, |number| self.number(number)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(self.string(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(self.string(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, source: A) -> Result<Value, A::Error> {
        self.nested(|seed| seed.items(source))
    }

    fn visit_map<A: MapAccess<'de>>(self, source: A) -> Result<Value, A::Error> {
        self.nested(|seed| seed.entries(source))
    }
}

/// The type as Go's error messages name it.
fn go_name(view: View<'_>, kind: &Kind, go_type: &str) -> String {
    let plain = match kind {
        Kind::String if !go_type.is_empty() => go_type,
        Kind::String => "string",
        Kind::Bool => "bool",
        Kind::Int32 => "int32",
        Kind::Int64 => "int64",
        Kind::Uint32 => "uint32",
        Kind::Float64 => "float64",
        Kind::Bytes => "[]uint8",
        Kind::Strings => "[]string",
        Kind::List(list) => return format!("[]{}", go_name(view, &list.element, go_type)),
        Kind::Map(map) => return format!("map[string]{}", go_name(view, &map.value, go_type)),
        Kind::Quantity => "resource.Quantity",
        Kind::Time => "v1.Time",
        _ => {
            let Some(message) = view.of(kind).map(View::message) else { return "interface {}".to_owned() };
            let version = message.package.rsplit('.').next().unwrap_or_default();
            return format!("{version}.{}", message.name);
        }
    };
    plain.to_owned()
}
