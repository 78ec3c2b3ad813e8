//! Loads the table of built-in types from its text, once, at first use.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use serde_json::Value;
use smallvec::SmallVec;

use super::{
    Field, GoKind, Kind, List, ListType, MapOf, Message, Omit, PatchStrategy, Slot, Str, Table, Unknown,
};

/// Written by `cargo run -p xtask -- facts`, which documents the format.
const TEXT: &str = include_str!("builtin.txt");

pub(super) struct Builtin {
    pub table: Arc<Table>,
    pub by_package: HashMap<&'static str, Package>,
    pub by_group_version: HashMap<(&'static str, &'static str), Vec<&'static str>>,
}

#[derive(Default)]
pub(super) struct Package {
    pub messages: HashMap<&'static str, u32>,
    /// Named strings, with their values as listed.
    named: HashMap<&'static str, &'static str>,
}

pub(super) fn table() -> &'static Builtin {
    static TABLE: OnceLock<Builtin> = OnceLock::new();
    TABLE.get_or_init(|| Builtin::load(TEXT))
}

/// Where the text of a message is.
pub(super) struct MessageText {
    package: &'static str,
    name: &'static str,
    atomic: bool,
    fields: &'static str,
}

impl MessageText {
    pub(super) fn parse(&self) -> Message {
        let builtin = table();
        Message {
            package: self.package.into(),
            name: self.name.into(),
            fields: self.fields.lines().map(|line| builtin.field(self.package, line)).collect(),
            unknown: Unknown::Prune,
            atomic: self.atomic,
        }
    }
}

impl Builtin {
    /// Finds out which messages and named strings there are, and where.
    ///
    /// The text is part of the program: a line that does not parse is a mistake in the generator, so this panics;
    /// the tests read all of it.
    fn load(text: &'static str) -> Self {
        let mut by_package: HashMap<&'static str, Package> = HashMap::new();
        let mut by_group_version: HashMap<_, Vec<_>> = HashMap::new();
        let mut aliases = Vec::new();
        let mut messages: Vec<MessageText> = Vec::new();
        let mut package = "";
        let mut rest = text;
        while let Some((line, after)) = rest.split_once('\n') {
            let (first, second) =
                line.get(2..).unwrap_or_default().split_once(' ').unwrap_or((&line[2..], ""));
            let entry = by_package.entry(package);
            rest = after;
            match &line[..2] {
                "p " => {
                    package = first;
                    let (group, version) =
                        second.split_once(' ').expect("a package has a group and a version");
                    let group = if group == "-" { "" } else { group };
                    by_group_version.entry((group, version)).or_default().push(package);
                }
                "n " => {
                    entry.or_default().named.insert(first, second);
                }
                "a " => aliases.push((package, first, second)),
                "m " => {
                    // The fields go up to the next line that begins with a letter and a space.
                    let is_field = |line: &&str| line.as_bytes().get(1) != Some(&b' ');
                    let length: usize = after.split_inclusive('\n').take_while(is_field).map(str::len).sum();
                    let (fields, after) = after.split_at(length);
                    rest = after;
                    let index = u32::try_from(messages.len()).expect("there are fewer messages than that");
                    entry.or_default().messages.insert(first, index);
                    messages.push(MessageText { package, name: first, atomic: second == "atomic", fields });
                }
                _ => {}
            }
        }
        for (package, alias, target) in aliases {
            let (home, name) = target.rsplit_once('.').expect("an alias names a package");
            let index = by_package[home].messages[name];
            by_package.get_mut(package).expect("seen above").messages.insert(alias, index);
        }
        let slot = |text| Slot::Text(text, OnceLock::new());
        let messages = messages.into_iter().map(slot).collect();
        Self { table: Arc::new(Table { messages, unstructured: false }), by_package, by_group_version }
    }

    fn field(&self, package: &'static str, line: &'static str) -> Field {
        let mut columns = line.split('\t');
        let mut next = || columns.next().unwrap_or_default();
        let (name, tags, kind, presence) = (next(), next(), next(), next());
        let (list_type, keys, strategy, merge_key) = (next(), next(), next(), next());
        let (default, required, feature_gate) = (next(), next(), next());
        let semantics = Semantics { list_type, keys };
        let mut named = None;
        let kind = self.kind(package, kind, &semantics, &mut named);
        let (go_type, enum_values) = named.unwrap_or_default();
        let (go_kind, omit) = presence.split_once(' ').expect("a field says how Go holds it");
        let parse_default = || serde_json::from_str::<Value>(default).expect("a default is JSON");
        Field {
            name: name.into(),
            tags: tags.split('.').filter_map(|tag| tag.parse().ok()).collect::<SmallVec<_>>(),
            atomic: match (&kind, list_type) {
                (Kind::Message(_), "atomic") => Some(true),
                (Kind::Message(_), "granular") => Some(false),
                _ => None,
            },
            kind,
            go_kind: match go_kind {
                "value" => GoKind::Value,
                "pointer" => GoKind::Pointer,
                "slice" => GoKind::Slice,
                "map" => GoKind::Map,
                other => panic!("{package} {name}: {other}"),
            },
            omit: match omit {
                "always" => Omit::Never,
                "omitempty" => Omit::Empty,
                "omitzero" => Omit::Zero,
                other => panic!("{package} {name}: {other}"),
            },
            patch_strategy: PatchStrategy {
                merge: strategy.contains("merge"),
                replace: strategy.contains("replace"),
                retain_keys: strategy.contains("retainKeys"),
            },
            merge_key: merge_key.into(),
            default: (!default.is_empty()).then(parse_default),
            required: required == "required",
            feature_gate: feature_gate.into(),
            go_type,
            enum_values,
        }
    }

    fn kind(
        &self,
        package: &'static str,
        text: &'static str,
        semantics: &Semantics,
        named: &mut Option<(Str, Arc<[Str]>)>,
    ) -> Kind {
        if let Some(element) = text.strip_prefix("list ") {
            return Kind::List(Arc::new(List {
                element: self.kind(package, element, semantics, named),
                list_type: match semantics.list_type {
                    "set" => ListType::Set,
                    "map" => ListType::Map,
                    _ => ListType::Atomic,
                },
                keys: semantics.keys.split(',').filter(|k| !k.is_empty()).map(Str::Borrowed).collect(),
            }));
        }
        if let Some(value) = text.strip_prefix("map ") {
            let value = self.kind(package, value, semantics, named);
            return Kind::Map(Arc::new(MapOf { value, atomic: semantics.list_type == "atomic" }));
        }
        if let Some(name) = text.strip_prefix("string(").and_then(|t| t.strip_suffix(')')) {
            let (home, name) = name.rsplit_once('.').unwrap_or((package, name));
            let version = home.rsplit('.').next().unwrap_or(home);
            let values = self.by_package[home].named[name].split(',').filter(|v| !v.is_empty());
            *named = Some((format!("{version}.{name}").into(), values.map(Str::Borrowed).collect()));
            return Kind::String;
        }
        match text {
            "any" => Kind::Any,
            "string" => Kind::String,
            "bool" => Kind::Bool,
            "int32" => Kind::Int32,
            "int64" => Kind::Int64,
            "uint32" => Kind::Uint32,
            "float64" => Kind::Float64,
            "bytes" => Kind::Bytes,
            "quantity" => Kind::Quantity,
            "time" => Kind::Time,
            "microtime" => Kind::MicroTime,
            "duration" => Kind::Duration,
            "intorstring" => Kind::IntOrString,
            "rawextension" => Kind::RawExtension,
            "fieldsv1" => Kind::FieldsV1,
            "json" => Kind::Json,
            "wrappedstrings" => Kind::Strings,
            _ => {
                let (form, name) = text.split_once(' ').unwrap_or(("", text));
                let (home, name) = name.rsplit_once('.').unwrap_or((package, name));
                let message = Kind::Message(self.by_package[home].messages[name]);
                match form {
                    "schemaorbool" => Kind::SchemaOrBool(Box::new(message)),
                    "schemaorarray" => Kind::SchemaOrArray(Box::new(message)),
                    "schemaorstrings" => Kind::SchemaOrStrings(Box::new(message)),
                    _ => message,
                }
            }
        }
    }
}

struct Semantics {
    list_type: &'static str,
    keys: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Schema;

    #[test]
    fn every_line_of_the_table_parses() {
        let builtin = table();
        let mut fields = 0;
        for (package, names) in &builtin.by_package {
            for name in names.messages.keys() {
                let schema = Schema::builtin(package, name).unwrap();
                let _ = schema.view().zero_object();
                fields += schema.fields().len();
                assert!(
                    schema.fields().iter().all(|field| schema.field(&field.name).is_some()),
                    "{schema:?}"
                );
            }
        }
        assert!(fields > 4000, "{fields}");
    }
}
