//! One API object as a tree, with accessors for the metadata that every object has.

use serde_json::{Map, Value, json};

use crate::group::GroupVersionKind;

/// An API object. The tree is always a JSON map; readers treat a field of the wrong type as absent, since
/// decoding has refused such objects before they get here.
#[derive(Clone, Debug, PartialEq)]
pub struct Object(Value);

impl Default for Object {
    fn default() -> Self {
        Self(Value::Object(Map::new()))
    }
}

impl From<Value> for Object {
    /// Anything but a map becomes an empty object.
    fn from(value: Value) -> Self {
        if value.is_object() { Self(value) } else { Self::default() }
    }
}

impl Object {
    pub fn as_value(&self) -> &Value {
        &self.0
    }

    pub fn as_value_mut(&mut self) -> &mut Value {
        &mut self.0
    }

    pub fn into_value(self) -> Value {
        self.0
    }

    pub fn as_map(&self) -> &Map<String, Value> {
        self.0.as_object().expect("an object is a map by construction")
    }

    pub fn as_map_mut(&mut self) -> &mut Map<String, Value> {
        if !self.0.is_object() {
            self.0 = Value::Object(Map::new());
        }
        self.0.as_object_mut().expect("made a map above")
    }

    /// The value at a path of map keys.
    pub fn get(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(&self.0, |at, key| at.get(key))
    }

    pub fn get_str(&self, path: &[&str]) -> &str {
        self.get(path).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn get_i64(&self, path: &[&str]) -> Option<i64> {
        self.get(path).and_then(Value::as_i64)
    }

    pub fn get_bool(&self, path: &[&str]) -> bool {
        self.get(path).and_then(Value::as_bool).unwrap_or_default()
    }

    pub fn get_array(&self, path: &[&str]) -> &[Value] {
        self.get(path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    /// Sets the value at a path, making the maps on the way.
    pub fn set(&mut self, path: &[&str], value: impl Into<Value>) {
        let (last, parents) = path.split_last().expect("a path has at least one key");
        let mut at = self.as_map_mut();
        for key in parents {
            let next = at.entry(*key).or_insert_with(|| Value::Object(Map::new()));
            if !next.is_object() {
                *next = Value::Object(Map::new());
            }
            at = next.as_object_mut().expect("made a map above");
        }
        at.insert((*last).to_owned(), value.into());
    }

    /// Takes the value at a path out; maps that become empty stay.
    pub fn remove(&mut self, path: &[&str]) -> Option<Value> {
        let (last, parents) = path.split_last()?;
        let mut at = &mut self.0;
        for key in parents {
            at = at.get_mut(key)?;
        }
        at.as_object_mut()?.remove(*last)
    }

    pub fn kind(&self) -> &str {
        self.get_str(&["kind"])
    }

    pub fn api_version(&self) -> &str {
        self.get_str(&["apiVersion"])
    }

    pub fn set_type(&mut self, gvk: &GroupVersionKind) {
        self.set(&["kind"], gvk.kind.as_str());
        self.set(&["apiVersion"], gvk.api_version());
    }

    fn meta_str(&self, key: &str) -> &str {
        self.get_str(&["metadata", key])
    }

    fn set_meta_str(&mut self, key: &str, value: &str) {
        if value.is_empty() {
            self.remove(&["metadata", key]);
        } else {
            self.set(&["metadata", key], value);
        }
    }

    pub fn name(&self) -> &str {
        self.meta_str("name")
    }

    pub fn set_name(&mut self, name: &str) {
        self.set_meta_str("name", name);
    }

    pub fn generate_name(&self) -> &str {
        self.meta_str("generateName")
    }

    pub fn namespace(&self) -> &str {
        self.meta_str("namespace")
    }

    pub fn set_namespace(&mut self, namespace: &str) {
        self.set_meta_str("namespace", namespace);
    }

    pub fn uid(&self) -> &str {
        self.meta_str("uid")
    }

    pub fn set_uid(&mut self, uid: &str) {
        self.set_meta_str("uid", uid);
    }

    pub fn resource_version(&self) -> &str {
        self.meta_str("resourceVersion")
    }

    pub fn set_resource_version(&mut self, version: &str) {
        self.set_meta_str("resourceVersion", version);
    }

    pub fn generation(&self) -> i64 {
        self.get_i64(&["metadata", "generation"]).unwrap_or_default()
    }

    pub fn set_generation(&mut self, generation: i64) {
        if generation == 0 {
            self.remove(&["metadata", "generation"]);
        } else {
            self.set(&["metadata", "generation"], generation);
        }
    }

    pub fn creation_timestamp(&self) -> &str {
        self.meta_str("creationTimestamp")
    }

    pub fn deletion_timestamp(&self) -> Option<&str> {
        self.get(&["metadata", "deletionTimestamp"]).and_then(Value::as_str)
    }

    pub fn deletion_grace_period_seconds(&self) -> Option<i64> {
        self.get_i64(&["metadata", "deletionGracePeriodSeconds"])
    }

    pub fn finalizers(&self) -> Vec<&str> {
        self.get_array(&["metadata", "finalizers"]).iter().filter_map(Value::as_str).collect()
    }

    pub fn set_finalizers(&mut self, finalizers: &[String]) {
        if finalizers.is_empty() {
            self.remove(&["metadata", "finalizers"]);
        } else {
            self.set(&["metadata", "finalizers"], json!(finalizers));
        }
    }

    pub fn owner_references(&self) -> &[Value] {
        self.get_array(&["metadata", "ownerReferences"])
    }

    pub fn labels(&self) -> Option<&Map<String, Value>> {
        self.get(&["metadata", "labels"]).and_then(Value::as_object)
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels()?.get(key)?.as_str()
    }

    pub fn annotations(&self) -> Option<&Map<String, Value>> {
        self.get(&["metadata", "annotations"]).and_then(Value::as_object)
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations()?.get(key)?.as_str()
    }
}
