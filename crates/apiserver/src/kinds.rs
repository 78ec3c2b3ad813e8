//! Kinds as the server handles them: a catalogue row joined with its schema and the form it is stored in.

use std::collections::HashMap;
use std::sync::Arc;

use api::catalogue::{Encoding, OtherVersion};
use api::{Resource, StoredAs};
use apimachinery::codec::{self, DecodeError};
use apimachinery::schema::Schema;
use apimachinery::{GroupVersionKind, Object};
use bytes::Bytes;

use crate::encryption::{Encryption, Unreadable};

/// How protobuf begins in the store.
const PROTOBUF: &[u8] = b"k8s\0";

/// One served kind.
pub struct Kind {
    pub resource: &'static Resource,
    pub schema: Schema,
    /// The row of the version that the store holds; the same as `resource` but for kinds that share a store.
    pub stored_as: &'static Resource,
    pub stored_schema: Schema,
    convert: Option<StoredAs>,
    /// The version that lies in the store in JSON, where it is another than `stored_as`.
    other: Option<(OtherVersion, Schema)>,
    encryption: Arc<Encryption>,
}

/// Gives a converted object the normal form of its new version: which fields are always there differs.
fn shape(object: &mut Object, schema: &Schema) {
    let mut shaped = object.clone();
    match codec::normalize(&mut shaped, schema) {
        Ok(()) => *object = shaped,
        Err(error) => tracing::warn!(%error, kind = object.kind(), "a converted object has an odd form"),
    }
}

impl Kind {
    fn new(resource: &'static Resource, encryption: &Arc<Encryption>) -> Option<Self> {
        let schema = Schema::builtin(resource.package, resource.kind)?;
        let stored_as = match &resource.stored_as {
            None => resource,
            Some(stored) => {
                let gvk = GroupVersionKind::new(stored.group, stored.version, stored.kind);
                api::catalogue().by_kind(&gvk)?
            }
        };
        let stored_schema = Schema::builtin(stored_as.package, stored_as.kind)?;
        let other = match stored_as.encoding {
            Encoding::JsonOf(other) => Some((other, Schema::builtin(other.package, stored_as.kind)?)),
            Encoding::Protobuf | Encoding::ProtobufAs(_) | Encoding::Json => None,
        };
        let (convert, encryption) = (resource.stored_as, encryption.clone());
        Some(Self { resource, schema, stored_as, stored_schema, convert, other, encryption })
    }

    /// Whether stored objects need a conversion before this kind can show them.
    pub fn converts(&self) -> bool {
        self.convert.is_some()
    }

    pub fn convert_to_stored(&self, object: &mut Object) {
        if let Some(convert) = self.convert {
            (convert.to_stored)(object);
            shape(object, &self.stored_schema);
        }
    }

    pub fn convert_from_stored(&self, object: &mut Object) {
        if let Some(convert) = self.convert {
            (convert.from_stored)(object);
            shape(object, &self.schema);
        }
    }

    /// What a value of the store says, which may lie there sealed.
    pub fn open(&self, key: &str, stored: &Bytes) -> Result<Bytes, Unreadable> {
        self.encryption
            .open(self.stored_as.group, self.stored_as.plural, key, stored)
            .map(|opened| opened.value)
    }

    /// For what lies in the store beside the objects of any kind.
    pub fn encryption(&self) -> &Encryption {
        &self.encryption
    }

    /// Whether a value of the store would lie there otherwise if it were written now.
    pub fn is_stale(&self, key: &str, stored: &Bytes) -> Result<bool, Unreadable> {
        let opened = self.encryption.open(self.stored_as.group, self.stored_as.plural, key, stored)?;
        let rewritten = || -> Result<bool, DecodeError> {
            Ok(self.encode_stored(&self.decode_stored(&opened.value)?) != *opened.value)
        };
        Ok(opened.stale || (!self.is_stored_as_held() && rewritten()?))
    }

    /// Whether values may be stale at all.
    pub fn may_be_stale(&self) -> bool {
        self.encryption.is_configured() || !self.is_stored_as_held()
    }

    /// Whether the store holds the same bytes as the cache.
    fn is_stored_as_held(&self) -> bool {
        matches!(self.stored_as.encoding, Encoding::Protobuf)
    }

    /// Whether the store holds objects under the name of another version.
    fn is_renamed(&self) -> bool {
        matches!(self.stored_as.encoding, Encoding::ProtobufAs(_))
    }

    fn is_stored_as_json(&self) -> bool {
        matches!(self.stored_as.encoding, Encoding::Json | Encoding::JsonOf(_))
    }

    /// A value as the store is to hold it.
    pub fn seal(&self, key: &str, value: Vec<u8>) -> Result<Bytes, Unreadable> {
        self.encryption.seal(self.stored_as.group, self.stored_as.plural, key, value).map(Bytes::from)
    }

    /// Decodes what was opened, in the stored version, with defaults.
    pub fn decode_stored(&self, bytes: &[u8]) -> Result<Object, DecodeError> {
        let mut object = match bytes.starts_with(PROTOBUF) {
            true => codec::decode_protobuf(bytes, &self.stored_schema)?,
            false => self.decode_stored_json(bytes)?,
        };
        object.set_type(&self.stored_as.gvk());
        self.default_stored(&mut object);
        Ok(object)
    }

    /// Gives an object in its stored version the defaults that every read of it finds: those, too, that the strategy made
    /// room for after the object was decoded. What is stored has them, since it is shown as it is to who reads protobuf.
    pub fn default_stored(&self, object: &mut Object) {
        self.stored_as.strategy.default(object);
    }

    /// The object as it would be read, were it stored.
    pub fn as_read_back(&self, mut object: Object) -> Object {
        self.convert_to_stored(&mut object);
        self.default_stored(&mut object);
        self.convert_from_stored(&mut object);
        object
    }

    fn decode_stored_json(&self, bytes: &[u8]) -> Result<Object, DecodeError> {
        if let Some((other, schema)) = &self.other
            && codec::peek_type_json(bytes)?.0 == format!("{}/{}", self.stored_as.group, other.version)
        {
            let mut object = codec::decode_json(bytes, schema)?.object;
            (other.from_stored)(&mut object);
            shape(&mut object, &self.stored_schema);
            return Ok(object);
        }
        Ok(codec::decode_json(bytes, &self.stored_schema)?.object)
    }

    /// What was opened in protobuf of the stored version, which is what most objects lie in the store as.
    pub fn protobuf(&self, opened: Bytes, object: Option<&Object>) -> Result<Bytes, DecodeError> {
        if opened.starts_with(PROTOBUF) && !self.is_renamed() {
            return Ok(opened);
        }
        let mut out = Vec::with_capacity(512);
        match object {
            Some(object) => codec::encode_protobuf(object, &self.stored_schema, &mut out),
            None => codec::encode_protobuf(&self.decode_stored(&opened)?, &self.stored_schema, &mut out),
        }
        Ok(out.into())
    }

    /// Decodes what an opened object is found by: its metadata, and the rest where a selectable field reads it.
    pub fn decode_head(&self, bytes: &[u8]) -> Result<Object, DecodeError> {
        if !bytes.starts_with(PROTOBUF) {
            return self.decode_stored(bytes);
        }
        codec::decode_protobuf_head(bytes, &self.stored_schema, !self.resource.selectable.is_empty())
    }

    /// The bytes to store: without a resourceVersion, which is the revision of the write.
    pub fn encode_stored(&self, object: &Object) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        match &self.other {
            Some((other, schema)) => {
                let mut object = object.clone();
                (other.to_stored)(&mut object);
                shape(&mut object, schema);
                codec::encode_json(&object, schema, &mut out);
            }
            None if self.is_stored_as_json() => codec::encode_json(object, &self.stored_schema, &mut out),
            None if self.is_renamed() => {
                let mut object = object.clone();
                object.set_type(&self.stored_as.stored_gvk());
                codec::encode_protobuf(&object, &self.stored_schema, &mut out);
            }
            None => codec::encode_protobuf(object, &self.stored_schema, &mut out),
        }
        if self.is_stored_as_json() {
            out.push(b'\n');
        }
        // kept for as long as the object
        out.shrink_to_fit();
        out
    }

    /// The key of an object; of a namespace or of all objects where the name, or both, are empty.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        let prefix = self.resource.prefix;
        match (self.resource.namespaced, namespace) {
            (true, "") => format!("/registry/{prefix}/"),
            (true, namespace) => format!("/registry/{prefix}/{namespace}/{name}"),
            (false, _) => format!("/registry/{prefix}/{name}"),
        }
    }
}

/// All served kinds.
pub struct Kinds {
    /// By plural name; few share one.
    by_plural: HashMap<&'static str, Vec<Arc<Kind>>>,
    order: Vec<Arc<Kind>>,
}

impl Kinds {
    /// The built-in kinds of the catalogue, which lie in the store as they are.
    pub fn builtin() -> Self {
        Self::encrypted(&Encryption::none())
    }

    /// The built-in kinds of the catalogue.
    pub fn encrypted(encryption: &Arc<Encryption>) -> Self {
        let order: Vec<Arc<Kind>> = api::catalogue()
            .all()
            .map(|resource| {
                let kind =
                    Kind::new(resource, encryption).expect("the descriptor table has every catalogued kind");
                Arc::new(kind)
            })
            .collect();
        let mut by_plural: HashMap<&'static str, Vec<Arc<Kind>>> = HashMap::new();
        for kind in &order {
            by_plural.entry(kind.resource.plural).or_default().push(kind.clone());
        }
        Self { by_plural, order }
    }

    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        let named = self.by_plural.get(plural)?;
        named.iter().find(|kind| kind.resource.group == group && kind.resource.version == version)
    }

    /// Whether anything of a group is served.
    pub fn has_group(&self, group: &str) -> bool {
        self.order.iter().any(|kind| kind.resource.group == group)
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.order.iter()
    }

    /// The kinds that own a place in the store, each place once.
    pub fn stored(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.order.iter().filter(|kind| kind.resource.access == api::Access::Stored && kind.convert.is_none())
    }
}
