//! Encoded objects that lack only their resourceVersion, which is not known (or not the same) when they are
//! encoded: made once, they serve storage, every read, every list and every watcher by copying bytes.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::json::{write_any, write_string, write_value};
use super::proto_encode::{ENVELOPE_TAIL, encode_protobuf, put_envelope_head};
use super::wire::{BYTES, Raw, Reader, put_bytes, put_int, put_key, put_varint, varint_len};
use super::{DecodeError, proto_decode};
use crate::object::Object;
use crate::schema::{Schema, View};

const RESOURCE_VERSION: &str = "resourceVersion";
/// `ObjectMeta`'s number in an object, and `resourceVersion`'s in `ObjectMeta`.
const METADATA_TAG: u32 = 1;
const RESOURCE_VERSION_TAG: u32 = 6;

/// JSON, with a place for the resourceVersion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedJson {
    bytes: Bytes,
    /// Where the fields after `kind` and `apiVersion` begin; 0 for custom resources, whose list items keep both.
    body: usize,
    /// Where the resourceVersion goes; `None` for objects without metadata.
    at: Option<usize>,
    /// The metadata, braces included.
    metadata: (usize, usize),
    comma_before: bool,
    comma_after: bool,
}

impl EncodedJson {
    /// Encodes an object, leaving out its resourceVersion.
    pub fn new(object: &Object, schema: &Schema) -> Self {
        let mut writer = Writer { out: Vec::with_capacity(1024), ..Writer::default() };
        writer.object(object.as_map(), schema.view());
        let Writer { mut out, body, at, metadata, commas } = writer;
        // it is kept for as long as the object
        out.shrink_to_fit();
        Self { bytes: out.into(), body, at, metadata, comma_before: commas.0, comma_after: commas.1 }
    }

    /// The bytes without a resourceVersion: what is stored for custom resources.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Bytes of the finished object, about.
    pub fn size_hint(&self) -> usize {
        self.bytes.len() + 48
    }

    /// Appends the whole object.
    pub fn append(&self, resource_version: u64, out: &mut Vec<u8>) {
        self.append_between(0, self.bytes.len(), resource_version, out);
    }

    /// Appends the object's metadata as a `PartialObjectMetadata`.
    pub fn append_metadata(&self, resource_version: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(
            br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#,
        );
        match self.metadata {
            (0, 0) => out.extend_from_slice(b"{}"),
            (start, end) => self.append_between(start, end, resource_version, out),
        }
        out.push(b'}');
    }

    /// Appends the object as an item of a list.
    pub fn append_item(&self, resource_version: u64, out: &mut Vec<u8>) {
        if self.body > 0 {
            out.push(b'{');
        }
        self.append_between(self.body, self.bytes.len(), resource_version, out);
    }

    fn append_between(&self, start: usize, end: usize, resource_version: u64, out: &mut Vec<u8>) {
        let Some(at) = self.at else { return out.extend_from_slice(&self.bytes[start..end]) };
        out.extend_from_slice(&self.bytes[start..at]);
        if self.comma_before {
            out.push(b',');
        }
        out.extend_from_slice(b"\"resourceVersion\":\"");
        out.extend_from_slice(resource_version.to_string().as_bytes());
        out.push(b'"');
        if self.comma_after {
            out.push(b',');
        }
        out.extend_from_slice(&self.bytes[at..end]);
    }
}

/// Writes the outer two levels of an object by hand, to know where things are.
#[derive(Default)]
struct Writer {
    out: Vec<u8>,
    body: usize,
    at: Option<usize>,
    metadata: (usize, usize),
    commas: (bool, bool),
}

/// The entries of a map in the order they are written, with the fields' positions in the schema.
fn ordered<'m>(map: &'m Map<String, Value>, view: Option<View<'_>>) -> Vec<(&'m String, &'m Value, usize)> {
    let mut entries: Vec<_> = map
        .iter()
        .map(|(key, value)| (key, value, view.and_then(|view| view.position(key)).unwrap_or(usize::MAX)))
        .collect();
    entries.sort_by(|a, b| a.2.cmp(&b.2).then_with(|| a.0.cmp(b.0)));
    entries
}

impl Writer {
    fn object(&mut self, map: &Map<String, Value>, view: View<'_>) {
        let typed = (!view.unstructured()).then_some(view);
        self.out.push(b'{');
        for (count, (key, value, position)) in ordered(map, typed).into_iter().enumerate() {
            if count > 0 {
                self.out.push(b',');
            }
            let is_type = matches!(key.as_str(), "kind" | "apiVersion");
            if self.body == 0 && typed.is_some() && count > 0 && !is_type {
                self.body = self.out.len();
            }
            write_string(key, &mut self.out);
            self.out.push(b':');
            let field = view.fields().get(position).or_else(|| view.field(key));
            match (value, field) {
                (Value::Object(meta), Some(field)) if key == "metadata" => {
                    let start = self.out.len();
                    self.metadata(meta, view.of(&field.kind).filter(|_| typed.is_some()));
                    self.metadata = (start, self.out.len());
                }
                (value, Some(field)) if typed.is_some() => {
                    write_value(value, &field.kind, view, &mut self.out);
                }
                (value, _) => write_any(value, &mut self.out),
            }
        }
        self.out.push(b'}');
    }

    fn metadata(&mut self, map: &Map<String, Value>, view: Option<View<'_>>) {
        let rank = |key: &str| view.and_then(|view| view.position(key)).unwrap_or(usize::MAX);
        let own = (rank(RESOURCE_VERSION), RESOURCE_VERSION);
        self.out.push(b'{');
        let mut first = true;
        let entries = ordered(map, view).into_iter().filter(|(key, ..)| *key != RESOURCE_VERSION);
        for (key, value, position) in entries {
            if self.at.is_none() && (position, key.as_str()) > own {
                self.commas = (!first, first);
                self.at = Some(self.out.len());
            }
            if !first {
                self.out.push(b',');
            }
            first = false;
            write_string(key, &mut self.out);
            self.out.push(b':');
            match view.zip(view.and_then(|view| view.field(key))) {
                Some((view, field)) => write_value(value, &field.kind, view, &mut self.out),
                None => write_any(value, &mut self.out),
            }
        }
        if self.at.is_none() {
            self.commas = (!first, false);
            self.at = Some(self.out.len());
        }
        self.out.push(b'}');
    }
}

/// Protobuf as it is stored, without a resourceVersion, and where things are in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedProtobuf {
    stored: Bytes,
    /// Magic and type.
    head: usize,
    /// The bare message.
    raw: (usize, usize),
    /// The content of `metadata`, if it is the first field, as it is in every stored object.
    meta: Option<Meta>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Meta {
    start: usize,
    end: usize,
    /// The resourceVersion within it: a whole field, or an empty range where it belongs.
    version: (usize, usize),
}

impl EncodedProtobuf {
    /// Encodes an object, leaving out its resourceVersion.
    pub fn new(object: &Object, schema: &Schema) -> Self {
        let mut out = Vec::with_capacity(1024);
        encode_protobuf(object, schema, &mut out);
        let encoded = Self::from_stored(out.into()).expect("what was just encoded is well formed");
        if object.resource_version().is_empty() {
            return encoded;
        }
        let mut stripped = Vec::with_capacity(encoded.stored.len());
        encoded.write_envelope(b"", &mut stripped);
        Self::from_stored(stripped.into()).expect("what was just encoded is well formed")
    }

    /// Takes bytes as they are stored; finds the places without decoding.
    pub fn from_stored(stored: Bytes) -> Result<Self, DecodeError> {
        let raw = proto_decode::open(&stored)?.raw;
        let base = stored.as_ptr() as usize;
        let offset = |part: &[u8]| if part.is_empty() { 0 } else { part.as_ptr() as usize - base };
        let raw_range = (offset(raw), offset(raw) + raw.len());
        let head = envelope_head(&stored)?;
        let meta = match Reader::new(raw).field()? {
            Some((METADATA_TAG, Raw::Bytes(bytes))) => {
                let start = if bytes.is_empty() { None } else { Some(offset(bytes)) };
                start.map(|start| Meta::find(&stored, start, start + bytes.len())).transpose()?
            }
            _ => None,
        };
        Ok(Self { head, raw: raw_range, meta, stored })
    }

    /// The bytes to store.
    pub fn stored(&self) -> &Bytes {
        &self.stored
    }

    /// Length of the bare message once it has its resourceVersion.
    fn message_len(&self, version: &[u8]) -> usize {
        let raw = self.raw.1 - self.raw.0;
        let Some(meta) = self.meta else { return raw };
        let old = meta.end - meta.start;
        let new = meta.len(version);
        raw - old - varint_len(old as u64) + new + varint_len(new as u64)
    }

    fn write_message(&self, version: &[u8], out: &mut Vec<u8>) {
        let Some(meta) = self.meta else {
            return out.extend_from_slice(&self.stored[self.raw.0..self.raw.1]);
        };
        put_key(METADATA_TAG, BYTES, out);
        put_varint(meta.len(version) as u64, out);
        out.extend_from_slice(&self.stored[meta.start..meta.version.0]);
        put_bytes(RESOURCE_VERSION_TAG, version, out);
        out.extend_from_slice(&self.stored[meta.version.1..self.raw.1]);
    }

    fn envelope_len(&self, version: &[u8]) -> usize {
        let message = self.message_len(version);
        self.head + 1 + varint_len(message as u64) + message + ENVELOPE_TAIL.len()
    }

    fn write_envelope(&self, version: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.stored[..self.head]);
        put_key(2, BYTES, out);
        put_varint(self.message_len(version) as u64, out);
        self.write_message(version, out);
        out.extend_from_slice(&ENVELOPE_TAIL);
    }

    /// Appends the whole object in its envelope.
    pub fn append(&self, resource_version: u64, out: &mut Vec<u8>) {
        self.write_envelope(resource_version.to_string().as_bytes(), out);
    }

    /// Appends a `WatchEvent` that carries the object: one frame of a watch, without its length.
    pub fn append_watch_event(&self, event: &str, resource_version: u64, out: &mut Vec<u8>) {
        let version = resource_version.to_string();
        let object = self.envelope_len(version.as_bytes());
        watch_event_head(event, object, out);
        self.write_envelope(version.as_bytes(), out);
    }
}

/// Type and object of a `WatchEvent` up to where the object's own bytes begin.
fn watch_event_head(event: &str, object: usize, out: &mut Vec<u8>) {
    put_bytes(1, event.as_bytes(), out);
    put_key(2, BYTES, out);
    put_varint((1 + varint_len(object as u64) + object) as u64, out);
    put_key(1, BYTES, out);
    put_varint(object as u64, out);
}

/// Appends a `WatchEvent` around any encoded object (a bookmark, a `Status`), without its length.
pub fn encode_protobuf_watch_event(event: &str, object: &[u8], out: &mut Vec<u8>) {
    watch_event_head(event, object.len(), out);
    out.extend_from_slice(object);
}

impl Meta {
    fn find(stored: &[u8], start: usize, end: usize) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&stored[start..end]);
        let mut at = start;
        let mut version = None;
        while let Some((tag, _)) = reader.field()? {
            let next = end - reader.remaining();
            match tag {
                RESOURCE_VERSION_TAG => version = Some((at, next)),
                _ if tag > RESOURCE_VERSION_TAG && version.is_none() => version = Some((at, at)),
                _ => {}
            }
            at = next;
        }
        Ok(Self { start, end, version: version.unwrap_or((end, end)) })
    }

    /// Its length with a resourceVersion.
    fn len(&self, version: &[u8]) -> usize {
        let without = self.end - self.start - (self.version.1 - self.version.0);
        without + 1 + varint_len(version.len() as u64) + version.len()
    }
}

/// The length of magic and type.
fn envelope_head(stored: &[u8]) -> Result<usize, DecodeError> {
    const MAGIC_LEN: usize = 4;
    let mut reader = Reader::new(&stored[MAGIC_LEN..]);
    match reader.field()? {
        Some((1, Raw::Bytes(_))) => Ok(stored.len() - reader.remaining()),
        _ => Err(DecodeError::Syntax("proto: an envelope begins with the type".to_owned())),
    }
}

/// What a list says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListHeader {
    pub api_version: String,
    /// Such as `PodList`.
    pub kind: String,
    pub resource_version: String,
    pub continue_token: String,
    pub remaining_item_count: Option<i64>,
}

impl ListHeader {
    fn metadata(&self, unstructured: bool, out: &mut Vec<u8>) {
        let mut entries: Vec<(&str, String)> = Vec::new();
        let quoted = |text: &str| {
            let mut out = Vec::new();
            write_string(text, &mut out);
            String::from_utf8(out).unwrap_or_default()
        };
        let version = (RESOURCE_VERSION, quoted(&self.resource_version));
        let token = ("continue", quoted(&self.continue_token));
        // Lists of custom resources are maps: keys are sorted and `continue` is always there.
        if unstructured {
            entries.extend([token, version]);
        } else {
            entries.extend([version, token].into_iter().filter(|(_, text)| text != "\"\""));
        }
        if let Some(count) = self.remaining_item_count {
            let at = entries.iter().position(|(key, _)| unstructured && *key > "remainingItemCount");
            entries.insert(at.unwrap_or(entries.len()), ("remainingItemCount", count.to_string()));
        }
        out.push(b'{');
        for (at, (key, value)) in entries.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.push(b'"');
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(b"\":");
            out.extend_from_slice(value.as_bytes());
        }
        out.push(b'}');
    }

    /// Appends a list up to its first item; items follow with commas between them.
    pub fn begin_json(&self, unstructured: bool, out: &mut Vec<u8>) {
        if unstructured {
            out.extend_from_slice(b"{\"apiVersion\":");
            write_string(&self.api_version, out);
            out.extend_from_slice(b",\"items\":[");
        } else {
            out.extend_from_slice(b"{\"kind\":");
            write_string(&self.kind, out);
            out.extend_from_slice(b",\"apiVersion\":");
            write_string(&self.api_version, out);
            out.extend_from_slice(b",\"metadata\":");
            self.metadata(false, out);
            out.extend_from_slice(b",\"items\":[");
        }
    }

    /// Appends what follows the last item.
    pub fn end_json(&self, unstructured: bool, out: &mut Vec<u8>) {
        out.push(b']');
        if unstructured {
            out.extend_from_slice(b",\"kind\":");
            write_string(&self.kind, out);
            out.extend_from_slice(b",\"metadata\":");
            self.metadata(true, out);
        }
        out.push(b'}');
    }
}

/// Appends a list of encoded items, each with its resourceVersion.
pub fn encode_json_list<'a>(
    header: &ListHeader,
    unstructured: bool,
    items: impl IntoIterator<Item = (&'a EncodedJson, u64)>,
    out: &mut Vec<u8>,
) {
    header.begin_json(unstructured, out);
    for (at, (item, version)) in items.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        item.append_item(version, out);
    }
    header.end_json(unstructured, out);
}

/// The items' number in every list.
const ITEMS_TAG: u32 = 2;

/// Appends a list of encoded items, each with its resourceVersion, in an envelope.
pub fn encode_protobuf_list<'a>(
    header: &ListHeader,
    items: impl IntoIterator<Item = (&'a EncodedProtobuf, u64)> + Clone,
    out: &mut Vec<u8>,
) {
    let size = items.clone().into_iter().map(|(item, version)| item.list_item_len(version)).sum();
    out.reserve(size + 256);
    header.begin_protobuf(size, out);
    for (item, version) in items {
        item.append_item(version, out);
    }
    ListHeader::end_protobuf(out);
}

impl EncodedProtobuf {
    /// How long the object is as an item of a list.
    pub fn list_item_len(&self, resource_version: u64) -> usize {
        let message = self.message_len(resource_version.to_string().as_bytes());
        1 + varint_len(message as u64) + message
    }

    /// Appends the object as an item of a list.
    pub fn append_item(&self, resource_version: u64, out: &mut Vec<u8>) {
        let version = resource_version.to_string();
        put_key(ITEMS_TAG, BYTES, out);
        put_varint(self.message_len(version.as_bytes()) as u64, out);
        self.write_message(version.as_bytes(), out);
    }
}

impl ListHeader {
    /// Appends a list's envelope up to its first item. `items` is how long all items are together.
    pub fn begin_protobuf(&self, items: usize, out: &mut Vec<u8>) {
        let mut meta = Vec::new();
        put_bytes(1, b"", &mut meta);
        put_bytes(2, self.resource_version.as_bytes(), &mut meta);
        put_bytes(3, self.continue_token.as_bytes(), &mut meta);
        if let Some(count) = self.remaining_item_count {
            put_int(4, count as u64, &mut meta);
        }
        put_envelope_head(&self.api_version, &self.kind, out);
        put_key(2, BYTES, out);
        put_varint((1 + varint_len(meta.len() as u64) + meta.len() + items) as u64, out);
        put_bytes(1, &meta, out);
    }

    /// Appends what follows the last item.
    pub fn end_protobuf(out: &mut Vec<u8>) {
        out.extend_from_slice(&ENVELOPE_TAIL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{decode_json, decode_protobuf, encode_json};
    use crate::schema::{Field, Kind, Message, Unknown};
    use serde_json::json;

    fn config_map(meta: Value) -> (Object, Schema) {
        let schema = Schema::builtin("k8s.io.api.core.v1", "ConfigMap").unwrap();
        let body = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": meta, "data": {"a": "b"}});
        (decode_json(body.to_string().as_bytes(), &schema).unwrap().object, schema)
    }

    #[test]
    fn the_version_is_put_where_it_belongs() {
        let metas = [
            json!({}),
            json!({"name": "a"}),
            json!({"labels": {"x": "y"}}),
            json!({"name": "a", "uid": "u", "generation": 7, "labels": {"x": "y".repeat(200)}}),
            json!({"name": "a", "resourceVersion": "12"}),
        ];
        for meta in metas {
            let (object, schema) = config_map(meta);
            let mut with = object.clone();
            with.set_resource_version("123456");
            let (mut expected, mut got) = (Vec::new(), Vec::new());
            encode_json(&with, &schema, &mut expected);
            EncodedJson::new(&object, &schema).append(123_456, &mut got);
            assert_eq!(String::from_utf8(got).unwrap(), String::from_utf8(expected).unwrap());

            let partial =
                Schema::builtin("k8s.io.apimachinery.pkg.apis.meta.v1", "PartialObjectMetadata").unwrap();
            let metadata = Object::from(json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                "metadata": with.get(&["metadata"]),
            }));
            let (mut expected, mut got) = (Vec::new(), Vec::new());
            encode_json(&metadata, &partial, &mut expected);
            EncodedJson::new(&object, &schema).append_metadata(123_456, &mut got);
            assert_eq!(String::from_utf8(got).unwrap(), String::from_utf8(expected).unwrap());

            let (mut expected, mut got) = (Vec::new(), Vec::new());
            encode_protobuf(&with, &schema, &mut expected);
            let encoded = EncodedProtobuf::new(&object, &schema);
            encoded.append(123_456, &mut got);
            assert_eq!(got, expected);
            let mut without = object.clone();
            without.set_resource_version("");
            assert_eq!(decode_protobuf(encoded.stored(), &schema).unwrap(), without);
        }
    }

    #[test]
    fn lists_are_what_the_codec_would_write() {
        let items: Vec<_> = ["a", "b"].iter().map(|name| config_map(json!({ "name": name })).0).collect();
        let schema = Schema::builtin("k8s.io.api.core.v1", "ConfigMap").unwrap();
        let list = Schema::builtin("k8s.io.api.core.v1", "ConfigMapList").unwrap();
        let header = ListHeader {
            api_version: "v1".into(),
            kind: "ConfigMapList".into(),
            resource_version: "9".into(),
            continue_token: "next".into(),
            remaining_item_count: Some(3),
        };
        let whole = Object::from(json!({
            "kind": "ConfigMapList", "apiVersion": "v1",
            "metadata": {"resourceVersion": "9", "continue": "next", "remainingItemCount": 3},
            "items": items.iter().map(|item| {
                let mut item = item.clone();
                item.set_resource_version("5");
                item.remove(&["kind"]);
                item.remove(&["apiVersion"]);
                item.into_value()
            }).collect::<Vec<_>>(),
        }));
        let json: Vec<_> = items.iter().map(|item| EncodedJson::new(item, &schema)).collect();
        let (mut got, mut expected) = (Vec::new(), Vec::new());
        encode_json_list(&header, false, json.iter().map(|item| (item, 5)), &mut got);
        encode_json(&whole, &list, &mut expected);
        assert_eq!(String::from_utf8(got).unwrap(), String::from_utf8(expected).unwrap());

        let protobuf: Vec<_> = items.iter().map(|item| EncodedProtobuf::new(item, &schema)).collect();
        let (mut got, mut expected) = (Vec::new(), Vec::new());
        encode_protobuf_list(&header, protobuf.iter().map(|item| (item, 5)), &mut got);
        encode_protobuf(&whole, &list, &mut expected);
        assert_eq!(got, expected);
    }

    #[test]
    fn custom_resources_are_sorted_and_keep_their_type() {
        let meta = Schema::builtin("k8s.io.apimachinery.pkg.apis.meta.v1", "ObjectMeta").unwrap();
        let fields = vec![
            Field::unstructured("apiVersion", Kind::String),
            Field::unstructured("kind", Kind::String),
            Field::unstructured("metadata", Kind::Foreign(meta)),
        ];
        let message =
            Message { package: "".into(), name: "Foo".into(), fields, unknown: Unknown::Keep, atomic: false };
        let schema = Schema::unstructured(vec![message]);
        let body = r#"{"spec":{"b":1.0,"a":null,"c":[]},"metadata":{"uid":"u","name":"n","labels":{},"resourceVersion":"3"},
            "kind":"Foo","apiVersion":"e.com/v1"}"#;
        let object = decode_json(body.as_bytes(), &schema).unwrap().object;
        let encoded = EncodedJson::new(&object, &schema);
        let stored = std::str::from_utf8(encoded.bytes()).unwrap();
        let expected = r#"{"apiVersion":"e.com/v1","kind":"Foo","metadata":{"name":"n","uid":"u"},"spec":{"a":null,"b":1,"c":[]}}"#;
        assert_eq!(stored, expected);
        let header = ListHeader {
            api_version: "e.com/v1".into(),
            kind: "FooList".into(),
            resource_version: "9".into(),
            ..ListHeader::default()
        };
        let mut out = Vec::new();
        encode_json_list(&header, true, [(&encoded, 5)], &mut out);
        let item = expected.replace(r#""name":"n","#, r#""name":"n","resourceVersion":"5","#);
        let list = format!(
            r#"{{"apiVersion":"e.com/v1","items":[{item}],"kind":"FooList","metadata":{{"continue":"","resourceVersion":"9"}}}}"#
        );
        assert_eq!(String::from_utf8(out).unwrap(), list);
    }

    #[test]
    fn watch_events_carry_whole_objects() {
        let (mut object, schema) = config_map(json!({"name": "a"}));
        let encoded = EncodedProtobuf::new(&object, &schema);
        let mut got = Vec::new();
        encoded.append_watch_event("ADDED", 7, &mut got);
        object.set_resource_version("7");
        let (mut inner, mut expected) = (Vec::new(), Vec::new());
        encode_protobuf(&object, &schema, &mut inner);
        encode_protobuf_watch_event("ADDED", &inner, &mut expected);
        assert_eq!(got, expected);
        let event = Schema::builtin("k8s.io.apimachinery.pkg.apis.meta.v1", "WatchEvent").unwrap();
        let decoded = crate::codec::decode_protobuf_raw(&got, &event).unwrap();
        assert_eq!(decoded.get(&["object"]).unwrap(), object.as_value());
    }
}
