//! One object as the cache holds it: in protobuf, what selectors ask about, and its encodings, each made
//! once and shared by all who read it.

use std::sync::{Arc, OnceLock};

use apimachinery::codec::{self, DecodeError, EncodedJson, EncodedProtobuf};
use apimachinery::schema::Schema;
use apimachinery::{Object, Value};
use bytes::Bytes;
use serde_json::Map;
use storage::Revision;

use crate::encryption::Unreadable;
use crate::http::respond;
use crate::kinds::Kind;

pub struct Entry {
    kind: Arc<Kind>,
    key: Arc<str>,
    revision: Revision,
    held: Arc<Held>,
}

/// What is the same at the revision at which the object is deleted.
struct Held {
    protobuf: EncodedProtobuf,
    name: String,
    namespace: String,
    uid: String,
    deleting: bool,
    labels: Map<String, Value>,
    fields: Vec<(&'static str, String)>,
    json: OnceLock<Arc<EncodedJson>>,
}

/// A stored object as who writes it has it.
pub struct Known {
    pub object: Arc<Object>,
    /// Made before the write, for its answer and for all who watch.
    pub json: Option<Arc<EncodedJson>>,
}

impl Entry {
    /// `stored` is as the store holds it; `known` is what it decodes to, where somebody has it at hand.
    pub fn from_store(
        kind: &Arc<Kind>,
        key: &Arc<str>,
        stored: Bytes,
        revision: Revision,
        known: Option<Known>,
    ) -> Result<Arc<Self>, Unreadable> {
        let stored = kind.protobuf(kind.open(key, &stored)?, known.as_ref().map(|known| &*known.object))?;
        let decoded;
        let object = match &known {
            Some(known) => known.object.as_ref(),
            None => {
                decoded = kind.decode_head(&stored)?;
                &decoded
            }
        };
        if let Some(json) = known.as_ref().and_then(|known| known.json.as_ref()) {
            debug_assert_eq!(**json, EncodedJson::new(&kind.decode_stored(&stored)?, &kind.stored_schema));
        }
        let held = Held {
            name: object.name().to_owned(),
            namespace: object.namespace().to_owned(),
            uid: object.uid().to_owned(),
            deleting: object.deletion_timestamp().is_some(),
            labels: object.labels().cloned().unwrap_or_default(),
            fields: kind.resource.selectable_fields(object),
            protobuf: EncodedProtobuf::from_stored(stored)?,
            json: known.and_then(|known| known.json).map(OnceLock::from).unwrap_or_default(),
        };
        Ok(Arc::new(Self { kind: kind.clone(), key: key.clone(), revision, held: Arc::new(held) }))
    }

    /// The same object at the revision at which it was deleted.
    pub fn deleted_at(&self, revision: Revision) -> Arc<Self> {
        Arc::new(Self { kind: self.kind.clone(), key: self.key.clone(), revision, held: self.held.clone() })
    }

    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The object in protobuf, but for its resourceVersion.
    pub fn protobuf(&self) -> &EncodedProtobuf {
        &self.held.protobuf
    }

    /// Its bytes in protobuf.
    pub fn size(&self) -> u64 {
        self.held.protobuf.stored().len() as u64
    }

    pub fn name(&self) -> &str {
        &self.held.name
    }

    pub fn namespace(&self) -> &str {
        &self.held.namespace
    }

    pub fn uid(&self) -> &str {
        &self.held.uid
    }

    pub fn is_deleting(&self) -> bool {
        self.held.deleting
    }

    pub fn labels(&self) -> &Map<String, Value> {
        &self.held.labels
    }

    /// What a field that may be selected by is.
    pub fn field(&self, name: &str) -> Option<&str> {
        match name {
            "metadata.name" => Some(self.name()),
            "metadata.namespace" if self.kind.resource.namespaced => Some(self.namespace()),
            _ => self.held.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value.as_str()),
        }
    }

    /// The object, decoded anew, with its resourceVersion.
    pub fn object(&self) -> Result<Object, DecodeError> {
        let mut object = self.kind.decode_stored(self.held.protobuf.stored())?;
        object.set_resource_version(&self.revision.to_string());
        Ok(object)
    }

    /// The object's metadata as an object of its own (`PartialObjectMetadata`), with its resourceVersion.
    pub fn metadata(&self) -> Result<Object, DecodeError> {
        // the metadata of every built-in kind is its first field, as it is there
        let schema = Schema::builtin("k8s.io.apimachinery.pkg.apis.meta.v1", "PartialObjectMetadata");
        let Some(schema) = schema else {
            return self.object().map(respond::into_metadata);
        };
        let mut object = codec::decode_protobuf(self.held.protobuf.stored(), &schema)?;
        self.kind.stored_as.strategy.default(&mut object);
        object = respond::into_metadata(object);
        object.set_resource_version(&self.revision.to_string());
        Ok(object)
    }

    /// The object in JSON, if it was made already.
    pub fn made_json(&self) -> Option<&EncodedJson> {
        self.held.json.get().map(Arc::as_ref)
    }

    /// The object in JSON, but for its resourceVersion.
    pub fn json(&self) -> Result<&EncodedJson, DecodeError> {
        if let Some(json) = self.held.json.get() {
            return Ok(json);
        }
        let object = self.kind.decode_stored(self.held.protobuf.stored())?;
        let json = Arc::new(EncodedJson::new(&object, &self.kind.stored_schema));
        Ok(self.held.json.get_or_init(|| json))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::Kinds;

    #[test]
    fn metadata_of_every_kind_is_found_in_its_bytes() {
        for kind in Kinds::builtin().stored() {
            let mut object = Object::from(json!({"metadata": {
                "name": "a", "uid": "u", "labels": {"l": "v"}, "finalizers": ["f/g"],
                "managedFields": [{"manager": "m", "operation": "Update", "fieldsV1": {"f:x": {}}}],
            }}));
            object.set_type(&kind.resource.gvk());
            codec::normalize(&mut object, &kind.stored_schema).unwrap();
            let stored = Bytes::from(kind.encode_stored(&object));
            let entry = Entry::from_store(kind, &"/registry/a".into(), stored, 7, None).unwrap();
            let whole = entry.object().unwrap();
            assert_eq!(entry.metadata().unwrap(), respond::metadata_of(&whole), "{}", kind.resource.kind);
            assert_eq!(whole.resource_version(), "7");
        }
    }
}
