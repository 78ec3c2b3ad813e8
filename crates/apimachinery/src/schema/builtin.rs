//! Loads the table of built-in types from its text, once, at first use.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use serde_json::Value;
use smallvec::SmallVec;

use super::{Field, GoKind, Kind, List, ListType, MapOf, Message, Omit, PatchStrategy, Str, Table, Unknown};

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
    named: HashMap<&'static str, Arc<[Str]>>,
}

pub(super) fn table() -> &'static Builtin {
    static TABLE: OnceLock<Builtin> = OnceLock::new();
    TABLE.get_or_init(|| Builtin::load(TEXT))
}

impl Builtin {
    /// The text is part of the program: a line that does not parse is a mistake in the generator, so this panics.
    fn load(text: &'static str) -> Self {
        let (mut loaded, aliases) = Self::names(text);
        for (package, alias, target) in aliases {
            let (home, name) = target.rsplit_once('.').expect("an alias names a package");
            let index = loaded.by_package[home].messages[name];
            loaded.by_package.get_mut(package).expect("seen above").messages.insert(alias, index);
        }
        let messages = loaded.messages(text);
        Self { table: Arc::new(Table::new(messages, false)), ..loaded }
    }

    /// First pass: which messages and named strings there are, so that the second can refer to them.
    fn names(text: &'static str) -> (Self, Vec<(&'static str, &'static str, &'static str)>) {
        let mut by_package: HashMap<&'static str, Package> = HashMap::new();
        let mut by_group_version: HashMap<_, Vec<_>> = HashMap::new();
        let mut aliases = Vec::new();
        let mut package = "";
        let mut count = 0;
        for line in text.lines() {
            let Some((letter, rest)) = line.split_at_checked(2) else { continue };
            let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
            let at = by_package.entry(package);
            match letter {
                "p " => {
                    package = first;
                    let (group, version) =
                        second.split_once(' ').expect("a package has a group and a version");
                    let group = if group == "-" { "" } else { group };
                    by_group_version.entry((group, version)).or_default().push(package);
                }
                "n " => {
                    let values = second.split(',').filter(|v| !v.is_empty()).map(Str::Borrowed).collect();
                    at.or_default().named.insert(first, values);
                }
                "a " => aliases.push((package, first, second)),
                "m " => {
                    at.or_default().messages.insert(first, count);
                    count += 1;
                }
                _ => {}
            }
        }
        let table = Arc::new(Table::new(Vec::new(), false));
        (Self { table, by_package, by_group_version }, aliases)
    }

    fn messages(&self, text: &'static str) -> Vec<Message> {
        let mut messages: Vec<Message> = Vec::new();
        let mut package = "";
        for line in text.lines() {
            match line.split_at_checked(2) {
                Some(("p ", rest)) => package = rest.split(' ').next().expect("a package has a name"),
                Some(("m ", rest)) => {
                    let (name, atomic) = rest.split_once(' ').unwrap_or((rest, ""));
                    messages.push(Message {
                        package: package.into(),
                        name: name.into(),
                        fields: Vec::new(),
                        unknown: Unknown::Prune,
                        atomic: atomic == "atomic",
                    });
                }
                Some(("a " | "n " | "# ", _)) => {}
                _ => {
                    let message = messages.last_mut().expect("a field belongs to a message");
                    message.fields.push(self.field(package, line));
                }
            }
        }
        messages
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
            *named = Some((format!("{version}.{name}").into(), self.by_package[home].named[name].clone()));
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
