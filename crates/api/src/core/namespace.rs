//! Namespaces.

use apimachinery::Object;
use apimachinery::field::ErrorList;
use serde_json::json;

use crate::catalogue::Column;
use crate::printers::{AGE, NAME, column};
use crate::strategy::{Strategy, keep_spec, keep_status};
use crate::validation;

pub const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "string", "Whether the namespace is in use or on its way out.", |namespace, _| {
        json!(namespace.get_str(&["status", "phase"]))
    }),
    AGE,
];

pub struct Namespaces;

impl Strategy for Namespaces {
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        apimachinery::validation::name_is_dns_label(name, prefix)
    }

    fn default(&self, namespace: &mut Object) {
        self.canonicalize(namespace);
        if namespace.get_str(&["status", "phase"]).is_empty() {
            namespace.set(&["status", "phase"], "Active");
        }
    }

    /// Every namespace carries its name as a label, also one that was given its name by the server.
    fn canonicalize(&self, namespace: &mut Object) {
        let name = namespace.name().to_owned();
        if !name.is_empty() {
            namespace.set(&["metadata", "labels", "kubernetes.io/metadata.name"], name);
        }
    }

    fn prepare_for_create(&self, namespace: &mut Object) {
        namespace.set(&["status"], json!({"phase": "Active"}));
        let mut finalizers = namespace.get_array(&["spec", "finalizers"]).to_vec();
        if !finalizers.contains(&json!("kubernetes")) {
            finalizers.push(json!("kubernetes"));
        }
        namespace.set(&["spec", "finalizers"], finalizers);
    }

    /// Neither status nor the spec's finalizers move through the main resource.
    fn prepare_for_update(&self, namespace: &mut Object, old: &Object) {
        keep_status(namespace, old);
        keep_spec(namespace, old);
    }

    fn validate(&self, namespace: &Object) -> ErrorList {
        validation::namespace(namespace)
    }

    /// Finalizers were checked when they came.
    fn validate_update(&self, _namespace: &Object, _old: &Object) -> ErrorList {
        ErrorList::new()
    }

    fn validate_status_update(&self, namespace: &Object, _old: &Object) -> ErrorList {
        validation::namespace_status_update(namespace)
    }

    fn prepare_for_subresource(&self, _subresource: &str, namespace: &mut Object, old: &Object) {
        keep_status(namespace, old);
    }

    fn validate_subresource(&self, _subresource: &str, namespace: &Object, _old: &Object) -> ErrorList {
        validation::namespace_finalize(namespace)
    }
}
