//! Descriptors: what fields a type has, how Go holds them, how they are written, merged and patched.
//!
//! One table holds all built-in types ([`Schema::builtin`]); a custom resource's structural schema compiles to
//! a table of its own. Codecs, patches and server-side apply know types only through this module.

mod builtin;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};
use smallvec::SmallVec;

use crate::group::GroupVersionKind;

/// Names in the built-in table borrow its text; those of custom resources are owned.
pub type Str = Cow<'static, str>;

/// A message within a table. Cheap to clone.
#[derive(Clone)]
pub struct Schema {
    table: Arc<Table>,
    index: u32,
}

/// What a value is. Messages are meant within the table of the [`Schema`] that owns the field; use
/// [`Schema::of`] to get from a kind to its message.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Any JSON, kept as it is.
    Any,
    String,
    Bool,
    Int32,
    Int64,
    Uint32,
    Float64,
    /// Base64 in JSON and in the tree.
    Bytes,
    Quantity,
    Time,
    MicroTime,
    Duration,
    IntOrString,
    RawExtension,
    FieldsV1,
    /// `apiextensions` `JSON`: any value.
    Json,
    /// A list of strings that protobuf wraps in a message (`Verbs`, `ExtraValue`).
    Strings,
    /// A message, or `true` or `false`.
    SchemaOrBool(Box<Kind>),
    /// A message, or a list of them.
    SchemaOrArray(Box<Kind>),
    /// A message, or a list of strings.
    SchemaOrStrings(Box<Kind>),
    Message(u32),
    /// A message of another table, such as the `ObjectMeta` of a custom resource.
    Foreign(Schema),
    List(Arc<List>),
    Map(Arc<MapOf>),
}

#[derive(Clone, Debug)]
pub struct List {
    pub element: Kind,
    pub list_type: ListType,
    /// The keys of a [`ListType::Map`].
    pub keys: Vec<Str>,
}

#[derive(Clone, Debug)]
pub struct MapOf {
    pub value: Kind,
    /// Server-side apply owns the map as a whole.
    pub atomic: bool,
}

/// How server-side apply sees a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    Atomic,
    Set,
    Map,
}

/// How Go holds a field, which decides what "not set" means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoKind {
    Value,
    Pointer,
    Slice,
    Map,
}

/// When a field is left out of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Omit {
    /// Never; a nil pointer, slice or map is written as `null`.
    Never,
    /// When empty in Go's sense: zero scalars, nil pointers, empty slices and maps; never structs.
    Empty,
    /// When zero, structs included.
    Zero,
    /// When absent from the tree: fields of custom resources, which are not held in Go structs.
    Absent,
}

/// Strategic-merge directives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    pub merge: bool,
    pub replace: bool,
    pub retain_keys: bool,
}

#[derive(Clone, Debug)]
pub struct Field {
    /// The JSON name.
    pub name: Str,
    /// Protobuf field numbers: the last is the field's own, those before lead through inlined structs.
    /// Empty: not in protobuf.
    pub tags: SmallVec<[u32; 3]>,
    pub kind: Kind,
    pub go_kind: GoKind,
    pub omit: Omit,
    /// Whether server-side apply owns the struct as a whole; `None`: as the message says.
    pub atomic: Option<bool>,
    pub patch_strategy: PatchStrategy,
    /// The strategic-merge key of a list; empty when it has none.
    pub merge_key: Str,
    /// The default declared on the Go type.
    pub default: Option<Value>,
    pub required: bool,
    /// Feature gates that guard the field, separated by commas; empty when it has none.
    pub feature_gate: Str,
    /// The name of the Go type of a named string (`v1.PullPolicy`), else empty.
    pub go_type: Str,
    /// The constants declared for a named string.
    pub enum_values: Arc<[Str]>,
}

/// What happens to fields that a message does not list.
#[derive(Clone, Debug)]
pub enum Unknown {
    /// Dropped, and an error under strict validation.
    Prune,
    /// Kept as they are.
    Keep,
    /// Kept: all values are of one kind (`additionalProperties`).
    Typed(Kind),
}

#[derive(Clone, Debug)]
pub struct Message {
    /// The protobuf package, such as `k8s.io.api.core.v1`; empty for custom resources.
    pub package: Str,
    pub name: Str,
    /// In the order of the Go struct, inlined structs flattened.
    pub fields: Vec<Field>,
    pub unknown: Unknown,
    /// Server-side apply owns the struct as a whole.
    pub atomic: bool,
}

/// A set of messages that refer to each other by index.
pub(crate) struct Table {
    messages: Vec<Slot>,
    /// The objects were never Go structs (custom resources): wrong types are kept for validation to refuse,
    /// and JSON is written with sorted keys.
    unstructured: bool,
}

enum Slot {
    Ready(Box<Prepared>),
    /// Made from its text when somebody first asks for it: few of the built-in ones are ever used.
    Text(builtin::MessageText, OnceLock<Box<Prepared>>),
}

struct Prepared {
    message: Message,
    /// Indices of fields after the heads of their names, sorted.
    by_name: Vec<(u64, u16)>,
    /// The wire order of protobuf.
    wire: Vec<Wire>,
    /// Fields that appear even when nobody set them, with the value they then have.
    zeros: OnceLock<Vec<(u16, Value)>>,
}

/// The first eight bytes of a name as a number: what tells most fields of a message apart at one glance.
fn head(name: &str) -> u64 {
    let mut bytes = [0; 8];
    let count = name.len().min(8);
    bytes[..count].copy_from_slice(&name.as_bytes()[..count]);
    u64::from_be_bytes(bytes)
}

/// One protobuf field of a message, ascending by tag.
#[derive(Debug)]
pub(crate) enum Wire {
    Field {
        tag: u32,
        field: u16,
    },
    /// An inlined struct is a message of its own on the wire.
    Inline {
        tag: u32,
        fields: Vec<Wire>,
    },
}

impl Wire {
    pub(crate) fn tag(&self) -> u32 {
        match self {
            Self::Field { tag, .. } | Self::Inline { tag, .. } => *tag,
        }
    }
}

/// A borrowed [`Schema`]: what the codecs walk with.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    table: &'a Table,
    index: u32,
}

impl<'a> View<'a> {
    fn prepared(self) -> &'a Prepared {
        self.table.messages[self.index as usize].prepared()
    }

    pub(crate) fn message(self) -> &'a Message {
        &self.prepared().message
    }

    pub(crate) fn fields(self) -> &'a [Field] {
        &self.prepared().message.fields
    }

    pub(crate) fn unstructured(self) -> bool {
        self.table.unstructured
    }

    pub(crate) fn position(self, name: &str) -> Option<usize> {
        let prepared = self.prepared();
        let fields = &prepared.message.fields;
        let head = head(name);
        let first = prepared.by_name.partition_point(|&(other, _)| other < head);
        let alike = prepared.by_name[first..].iter().take_while(|&&(other, _)| other == head);
        alike.map(|&(_, i)| usize::from(i)).find(|&i| *fields[i].name == *name)
    }

    pub(crate) fn field(self, name: &str) -> Option<&'a Field> {
        self.position(name).map(|i| &self.fields()[i])
    }

    pub(crate) fn wire(self) -> &'a [Wire] {
        &self.prepared().wire
    }

    pub(crate) fn of(self, kind: &'a Kind) -> Option<View<'a>> {
        match kind {
            Kind::Message(index) => Some(View { table: self.table, index: *index }),
            Kind::SchemaOrBool(schema) | Kind::SchemaOrArray(schema) | Kind::SchemaOrStrings(schema) => {
                self.of(schema)
            }
            Kind::Foreign(schema) => Some(schema.view()),
            _ => None,
        }
    }

    /// Fields that appear even when nobody set them, with their zero.
    pub(crate) fn zeros(self) -> &'a [(u16, Value)] {
        self.prepared().zeros.get_or_init(|| {
            let fields = self.fields().iter().enumerate();
            fields
                .filter_map(|(i, field)| Some((u16::try_from(i).ok()?, self.zero_of_field(field)?)))
                .collect()
        })
    }

    pub(crate) fn zero_of_field(self, field: &'a Field) -> Option<Value> {
        match (field.omit, field.go_kind) {
            (Omit::Absent | Omit::Zero, _) => None,
            (Omit::Empty, GoKind::Value) if is_struct(&field.kind) => Some(self.zero(&field.kind)),
            (Omit::Empty, _) => None,
            (Omit::Never, GoKind::Value) => Some(self.zero(&field.kind)),
            (Omit::Never, _) => Some(Value::Null),
        }
    }

    /// The zero value of a kind as JSON shows it.
    pub(crate) fn zero(self, kind: &'a Kind) -> Value {
        match kind {
            Kind::String => Value::String(String::new()),
            Kind::Bool => Value::Bool(false),
            Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Float64 | Kind::IntOrString => Value::from(0),
            Kind::Quantity => Value::from("0"),
            Kind::Duration => Value::from("0s"),
            Kind::Bytes => Value::from(""),
            Kind::SchemaOrBool(_) => Value::Bool(false),
            Kind::Message(_) | Kind::Foreign(_) => match self.of(kind) {
                Some(view) if !self.unstructured() => view.zero_object(),
                _ => Value::Object(Map::new()),
            },
            Kind::Any
            | Kind::Time
            | Kind::MicroTime
            | Kind::RawExtension
            | Kind::FieldsV1
            | Kind::Json
            | Kind::Strings
            | Kind::SchemaOrArray(_)
            | Kind::SchemaOrStrings(_)
            | Kind::List(_)
            | Kind::Map(_) => Value::Null,
        }
    }

    pub(crate) fn zero_object(self) -> Value {
        let fields = self.fields();
        let zeros = self.zeros().iter();
        zeros.map(|(i, zero)| (fields[usize::from(*i)].name.to_string(), zero.clone())).collect()
    }
}

/// Whether Go holds the kind as a struct, which `omitempty` never leaves out.
pub(crate) fn is_struct(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Message(_)
            | Kind::Foreign(_)
            | Kind::Quantity
            | Kind::Time
            | Kind::MicroTime
            | Kind::Duration
            | Kind::IntOrString
            | Kind::RawExtension
            | Kind::FieldsV1
            | Kind::Json
            | Kind::SchemaOrBool(_)
            | Kind::SchemaOrArray(_)
            | Kind::SchemaOrStrings(_)
    )
}

impl Schema {
    /// A built-in message, by protobuf package and name: `("k8s.io.api.core.v1", "Pod")`.
    pub fn builtin(package: &str, message: &str) -> Option<Self> {
        let builtin = builtin::table();
        let index = *builtin.by_package.get(package)?.messages.get(message)?;
        Some(Self { table: builtin.table.clone(), index })
    }

    /// The message of a built-in kind. Kinds that every group serves (`DeleteOptions`, `Status`, `Table`, …)
    /// are found in any group.
    pub fn for_kind(gvk: &GroupVersionKind) -> Option<Self> {
        let builtin = builtin::table();
        let served = builtin.by_group_version.get(&(gvk.group.as_str(), gvk.version.as_str()));
        let meta = match (gvk.group.as_str(), gvk.version.as_str()) {
            ("meta.k8s.io", "v1beta1") => "k8s.io.apimachinery.pkg.apis.meta.v1beta1",
            _ => "k8s.io.apimachinery.pkg.apis.meta.v1",
        };
        served.into_iter().flatten().copied().chain([meta]).find_map(|package| {
            let schema = Self::builtin(package, &gvk.kind)?;
            // Only objects say their kind, and the frame that watches send them in.
            (schema.field("kind").is_some() || gvk.kind == "WatchEvent").then_some(schema)
        })
    }

    /// Makes a table of the messages of a custom resource; the first is the object itself.
    pub fn unstructured(messages: Vec<Message>) -> Self {
        Self { table: Arc::new(Table::new(messages, true)), index: 0 }
    }

    pub(crate) fn view(&self) -> View<'_> {
        View { table: &self.table, index: self.index }
    }

    pub fn message(&self) -> &Message {
        self.view().message()
    }

    /// The message's name, such as `PodSpec`.
    pub fn name(&self) -> &str {
        &self.message().name
    }

    pub fn fields(&self) -> &[Field] {
        self.view().fields()
    }

    pub fn field(&self, json_name: &str) -> Option<&Field> {
        self.view().field(json_name)
    }

    /// The message that a kind found in this schema stands for.
    pub fn of(&self, kind: &Kind) -> Option<Self> {
        match kind {
            Kind::Message(index) => Some(Self { table: self.table.clone(), index: *index }),
            Kind::SchemaOrBool(schema) | Kind::SchemaOrArray(schema) | Kind::SchemaOrStrings(schema) => {
                self.of(schema)
            }
            Kind::Foreign(schema) => Some(schema.clone()),
            _ => None,
        }
    }

    /// The message of a field, looking through lists and maps.
    pub fn child(&self, json_name: &str) -> Option<Self> {
        let mut kind = &self.field(json_name)?.kind;
        loop {
            kind = match kind {
                Kind::List(list) => &list.element,
                Kind::Map(map) => &map.value,
                other => return self.of(other),
            };
        }
    }

    /// Whether this is a custom resource's schema: JSON storage, no protobuf.
    pub fn is_unstructured(&self) -> bool {
        self.table.unstructured
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = self.message();
        write!(f, "{}.{}", message.package, message.name)
    }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.table, &other.table) && self.index == other.index
    }
}

impl Field {
    /// A field of a custom resource: written when there, whatever it holds.
    pub fn unstructured(name: impl Into<Str>, kind: Kind) -> Self {
        Self {
            name: name.into(),
            tags: SmallVec::new(),
            kind,
            go_kind: GoKind::Value,
            omit: Omit::Absent,
            atomic: None,
            patch_strategy: PatchStrategy::default(),
            merge_key: Str::default(),
            default: None,
            required: false,
            feature_gate: Str::default(),
            go_type: Str::default(),
            enum_values: Arc::default(),
        }
    }

    /// The list behind the field, if it is one.
    pub fn list(&self) -> Option<&List> {
        match &self.kind {
            Kind::List(list) => Some(list),
            _ => None,
        }
    }

    /// The map behind the field, if it is one.
    pub fn map(&self) -> Option<&MapOf> {
        match &self.kind {
            Kind::Map(map) => Some(map),
            _ => None,
        }
    }
}

impl Table {
    fn new(messages: Vec<Message>, unstructured: bool) -> Self {
        let ready = |message| Slot::Ready(Box::new(Prepared::new(message)));
        Self { messages: messages.into_iter().map(ready).collect(), unstructured }
    }
}

impl Slot {
    fn prepared(&self) -> &Prepared {
        match self {
            Self::Ready(prepared) => prepared,
            Self::Text(text, prepared) => prepared.get_or_init(|| Box::new(Prepared::new(text.parse()))),
        }
    }
}

impl Prepared {
    fn new(message: Message) -> Self {
        let count = u16::try_from(message.fields.len()).unwrap_or(u16::MAX);
        let heads = (0..count).map(|i| (head(&message.fields[usize::from(i)].name), i));
        let mut by_name: Vec<(u64, u16)> = heads.collect();
        by_name.sort_unstable();
        let tagged = (0..count).map(|i| (message.fields[usize::from(i)].tags.as_slice(), i));
        let wire = wire_order(tagged.filter(|(tags, _)| !tags.is_empty()).collect());
        Self { message, by_name, wire, zeros: OnceLock::new() }
    }
}

fn wire_order(fields: Vec<(&[u32], u16)>) -> Vec<Wire> {
    let mut inlined: HashMap<u32, Vec<(&[u32], u16)>> = HashMap::new();
    let mut wire = Vec::with_capacity(fields.len());
    for (tags, field) in fields {
        match tags {
            [tag] => wire.push(Wire::Field { tag: *tag, field }),
            [tag, rest @ ..] => inlined.entry(*tag).or_default().push((rest, field)),
            [] => {}
        }
    }
    wire.extend(inlined.into_iter().map(|(tag, fields)| Wire::Inline { tag, fields: wire_order(fields) }));
    wire.sort_by_key(Wire::tag);
    wire
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_reads_as_in_go() {
        let pod = Schema::for_kind(&GroupVersionKind::new("", "v1", "Pod")).unwrap();
        assert_eq!(format!("{pod:?}"), "k8s.io.api.core.v1.Pod");
        let names: Vec<&str> = pod.fields().iter().map(|f| f.name.as_ref()).collect();
        assert_eq!(names, ["kind", "apiVersion", "metadata", "spec", "status"]);
        let spec = pod.child("spec").unwrap();
        let containers = spec.field("containers").unwrap();
        assert_eq!(containers.list().unwrap().list_type, ListType::Map);
        assert_eq!(containers.list().unwrap().keys, ["name"]);
        assert_eq!(containers.merge_key, "name");
        let volume = spec.child("volumes").unwrap();
        assert_eq!(volume.field("emptyDir").unwrap().tags.as_slice(), [2, 2]);
        let container = spec.child("containers").unwrap();
        let policy = container.field("imagePullPolicy").unwrap();
        assert_eq!(policy.go_type, "v1.PullPolicy");
        assert_eq!(&*policy.enum_values, ["Always", "Never", "IfNotPresent"]);
        assert_eq!(container.field("restartPolicy").unwrap().go_kind, GoKind::Pointer);
    }

    #[test]
    fn zero_structs_show_what_go_shows() {
        let pod = Schema::builtin("k8s.io.api.core.v1", "Service").unwrap();
        let expected = serde_json::json!({"metadata": {}, "spec": {}, "status": {"loadBalancer": {}}});
        assert_eq!(pod.view().zero_object(), expected);
    }

    #[test]
    fn shared_kinds_are_in_every_group() {
        for (group, version, kind) in
            [("apps", "v1", "DeleteOptions"), ("meta.k8s.io", "v1", "Table"), ("", "v1", "Status")]
        {
            let gvk = GroupVersionKind::new(group, version, kind);
            assert!(Schema::for_kind(&gvk).is_some(), "{gvk}");
        }
        assert!(Schema::for_kind(&GroupVersionKind::new("", "v1", "PodSpec")).is_none());
    }
}
