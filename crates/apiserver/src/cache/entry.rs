//! One object as the cache holds it: its stored bytes, what selectors ask about, and its encodings, each made
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
    stored: Arc<EncodedProtobuf>,
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
        key: &str,
        stored: Bytes,
        revision: Revision,
        known: Option<Known>,
    ) -> Result<Arc<Self>, Unreadable> {
        let stored = kind.open(key, &stored)?;
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
        Ok(Arc::new(Self {
            key: key.into(),
            revision,
            name: object.name().to_owned(),
            namespace: object.namespace().to_owned(),
            uid: object.uid().to_owned(),
            deleting: object.deletion_timestamp().is_some(),
            labels: object.labels().cloned().unwrap_or_default(),
            fields: kind.resource.selectable_fields(object),
            kind: kind.clone(),
            stored: Arc::new(EncodedProtobuf::from_stored(stored)?),
            json: known.and_then(|known| known.json).map(OnceLock::from).unwrap_or_default(),
        }))
    }

    /// The same object at the revision at which it was deleted.
    pub fn deleted_at(&self, revision: Revision) -> Arc<Self> {
        Arc::new(Self {
            kind: self.kind.clone(),
            key: self.key.clone(),
            revision,
            stored: self.stored.clone(),
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            uid: self.uid.clone(),
            deleting: self.deleting,
            labels: self.labels.clone(),
            fields: self.fields.clone(),
            json: self.json.clone(),
        })
    }

    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The object in protobuf, but for its resourceVersion.
    pub fn protobuf(&self) -> &EncodedProtobuf {
        &self.stored
    }

    /// Its bytes as they are stored.
    pub fn size(&self) -> u64 {
        self.stored.stored().len() as u64
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn uid(&self) -> &str {
        &self.uid
    }

    pub fn is_deleting(&self) -> bool {
        self.deleting
    }

    pub fn labels(&self) -> &Map<String, Value> {
        &self.labels
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value.as_str())
    }

    pub fn fields(&self) -> &[(&'static str, String)] {
        &self.fields
    }

    /// The object, decoded anew, with its resourceVersion.
    pub fn object(&self) -> Result<Object, DecodeError> {
        let mut object = self.kind.decode_stored(self.stored.stored())?;
        object.set_resource_version(&self.revision.to_string());
        Ok(object)
    }

    /// The object's metadata as an object of its own (`PartialObjectMetadata`), with its resourceVersion.
    pub fn metadata(&self) -> Result<Object, DecodeError> {
        // the metadata of every built-in kind is its first field, as it is there
        let schema = Schema::builtin("k8s.io.apimachinery.pkg.apis.meta.v1", "PartialObjectMetadata");
        let Some(schema) = schema.filter(|_| self.stored.stored().starts_with(b"k8s\0")) else {
            return self.object().map(respond::into_metadata);
        };
        let mut object = codec::decode_protobuf(self.stored.stored(), &schema)?;
        self.kind.stored_as.strategy.default(&mut object);
        object = respond::into_metadata(object);
        object.set_resource_version(&self.revision.to_string());
        Ok(object)
    }

    /// The object in JSON, if it was made already.
    pub fn made_json(&self) -> Option<&EncodedJson> {
        self.json.get().map(Arc::as_ref)
    }

    /// The object in JSON, but for its resourceVersion.
    pub fn json(&self) -> Result<&EncodedJson, DecodeError> {
        if let Some(json) = self.json.get() {
            return Ok(json);
        }
        let object = self.kind.decode_stored(self.stored.stored())?;
        let json = Arc::new(EncodedJson::new(&object, &self.kind.stored_schema));
        Ok(self.json.get_or_init(|| json))
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
            let entry = Entry::from_store(kind, "/registry/a", stored, 7, None).unwrap();
            let whole = entry.object().unwrap();
            assert_eq!(entry.metadata().unwrap(), respond::metadata_of(&whole), "{}", kind.resource.kind);
            assert_eq!(whole.resource_version(), "7");
        }
    }
}
