//! Schemas of the types that a document's paths name, and of all types these refer to.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use apimachinery::GroupVersionKind;
use apimachinery::schema::{Field, GoKind, Kind, ListType, Schema};
use serde_json::{Map, Value, json};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    V2,
    V3,
}

const META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1";

pub struct Schemas {
    dialect: Dialect,
    done: BTreeMap<String, Value>,
    waiting: Vec<Schema>,
}

/// `k8s.io.api.core.v1` and `Pod` as `io.k8s.api.core.v1.Pod`.
fn name_of(schema: &Schema) -> String {
    let message = schema.message();
    let package = match message.package.strip_prefix("k8s.io.") {
        // protobuf packages cannot be named with the dashes of Go's
        Some(rest) => format!("io.k8s.{}", rest.replace('_', "-")),
        None => message.package.to_string(),
    };
    format!("{package}.{}", message.name)
}

/// Descriptions by type and field, from the documentation that the typed library carries.
static DESCRIPTIONS: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    let mut generator = schemars::SchemaGenerator::default();
    macro_rules! describe {
        ($($module:ident :: $version:ident :: { $($kind:ident),* $(,)? }),* $(,)?) => {
            $($(generator.subschema_for::<k8s_openapi::api::$module::$version::$kind>();)*)*
        };
    }
    describe! {
        admissionregistration::v1::{
            MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
            MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
        },
        apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
        authentication::v1::{SelfSubjectReview, TokenRequest, TokenReview},
        authorization::v1::{
            LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
        },
        autoscaling::v1::{HorizontalPodAutoscaler, Scale},
        autoscaling::v2::{HorizontalPodAutoscaler},
        batch::v1::{CronJob, Job},
        certificates::v1::{CertificateSigningRequest},
        coordination::v1::{Lease},
        core::v1::{
            Binding, ComponentStatus, ConfigMap, Endpoints, Event, LimitRange, Namespace, Node, PersistentVolume,
            PersistentVolumeClaim, Pod, PodTemplate, ReplicationController, ResourceQuota, Secret, Service,
            ServiceAccount,
        },
        discovery::v1::{EndpointSlice},
        events::v1::{Event},
        flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration},
        networking::v1::{IPAddress, Ingress, IngressClass, NetworkPolicy, ServiceCIDR},
        node::v1::{RuntimeClass},
        policy::v1::{Eviction, PodDisruptionBudget},
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
        resource::v1::{DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice},
        scheduling::v1::{PriorityClass},
        storage::v1::{
            CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass,
        },
    }
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
    generator.subschema_for::<CustomResourceDefinition>();
    generator.subschema_for::<APIService>();
    generator.subschema_for::<k8s_openapi::apimachinery::pkg::apis::meta::v1::Status>();
    generator.subschema_for::<k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions>();
    generator.subschema_for::<k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta>();
    generator.definitions().clone()
});

fn description(of: &Value) -> Option<&str> {
    of.get("description").and_then(Value::as_str)
}

impl Schemas {
    pub fn new(dialect: Dialect) -> Self {
        Self { dialect, done: BTreeMap::new(), waiting: Vec::new() }
    }

    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// A reference to a type, which becomes part of the document.
    pub fn reference(&mut self, schema: &Schema) -> Value {
        let name = name_of(schema);
        if !self.done.contains_key(&name) {
            self.done.insert(name.clone(), Value::Null);
            self.waiting.push(schema.clone());
        }
        self.link(&name)
    }

    pub fn builtin(&mut self, package: &str, message: &str) -> Value {
        match Schema::builtin(package, message) {
            Some(schema) => self.reference(&schema),
            None => json!({"type": "object"}),
        }
    }

    pub fn meta(&mut self, message: &str) -> Value {
        self.builtin(META, message)
    }

    /// A reference to the list of a kind. The table may lack it, since all lists look alike.
    pub fn list(&mut self, schema: &Schema, gvk: &GroupVersionKind, plural: &str) -> Value {
        let name = format!("{}List", name_of(schema));
        if !self.done.contains_key(&name) {
            let items = self.reference(schema);
            let metadata = self.meta("ListMeta");
            let body = json!({
                "description": format!("{0}List is a list of {0}s.", gvk.kind),
                "type": "object",
                "required": ["items"],
                "properties": {
                    "apiVersion": {"type": "string"},
                    "kind": {"type": "string"},
                    "metadata": self.field_of(metadata, None),
                    "items": {
                        "description": format!("List of {plural}"), "type": "array",
                        "items": self.field_of(items, None),
                    },
                },
                "x-kubernetes-group-version-kind": [
                    {"group": gvk.group, "version": gvk.version, "kind": format!("{}List", gvk.kind)},
                ],
            });
            self.done.insert(name.clone(), body);
        }
        self.link(&name)
    }

    fn link(&self, name: &str) -> Value {
        match self.dialect {
            Dialect::V2 => json!({"$ref": format!("#/definitions/{name}")}),
            Dialect::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
        }
    }

    /// A type that has no message of its own.
    fn named(&mut self, name: &str, body: Value) -> Value {
        self.done.entry(name.to_owned()).or_insert(body);
        self.link(name)
    }

    /// All schemas, with everything they refer to.
    pub fn finish(mut self) -> Value {
        while let Some(schema) = self.waiting.pop() {
            let body = self.message(&schema);
            self.done.insert(name_of(&schema), body);
        }
        json!(self.done)
    }

    fn message(&mut self, schema: &Schema) -> Value {
        let name = name_of(schema);
        let described = DESCRIPTIONS.get(&name);
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in schema.fields() {
            let text = described
                .and_then(|d| d.get("properties")?.get(&*field.name))
                .and_then(description)
                .map(str::to_owned);
            if field.required {
                required.push(field.name.to_string());
            }
            properties.insert(field.name.to_string(), self.field(schema, field, text));
        }
        let mut out = json!({"type": "object"});
        if let Some(text) = described.and_then(description) {
            out["description"] = json!(text);
        }
        if !properties.is_empty() {
            out["properties"] = Value::Object(properties);
        }
        if !required.is_empty() {
            required.sort();
            out["required"] = json!(required);
        }
        if schema.message().atomic {
            out["x-kubernetes-map-type"] = json!("atomic");
        }
        let kinds: Vec<Value> = api::catalogue()
            .all()
            .filter(|r| r.package == schema.message().package && r.kind == schema.message().name)
            .map(|r| json!({"group": r.group, "version": r.version, "kind": r.kind}))
            .collect();
        if !kinds.is_empty() {
            out["x-kubernetes-group-version-kind"] = json!(kinds);
        }
        out
    }

    /// A reference with things said beside it, which v3 wants wrapped.
    fn field_of(&self, reference: Value, text: Option<String>) -> Value {
        let wraps = self.dialect == Dialect::V3 && reference.get("$ref").is_some();
        let mut out = if wraps { json!({"allOf": [reference], "default": {}}) } else { reference };
        if let Some(text) = text {
            out["description"] = json!(text);
        }
        out
    }

    fn field(&mut self, schema: &Schema, field: &Field, text: Option<String>) -> Value {
        let kind = self.kind(schema, &field.kind);
        let mut out = self.field_of(kind, text);
        if out.get("allOf").is_some()
            && (field.go_kind == GoKind::Pointer || !matches!(field.kind, Kind::Message(_)))
        {
            out.as_object_mut().map(|out| out.remove("default"));
        }
        if let Some(default) = &field.default {
            out["default"] = default.clone();
        }
        if let Kind::List(list) = &field.kind {
            match list.list_type {
                ListType::Map => {
                    out["x-kubernetes-list-type"] = json!("map");
                    out["x-kubernetes-list-map-keys"] = json!(list.keys);
                }
                ListType::Set => out["x-kubernetes-list-type"] = json!("set"),
                ListType::Atomic => out["x-kubernetes-list-type"] = json!("atomic"),
            }
        }
        let mut strategies = Vec::new();
        for (on, name) in [
            (field.patch_strategy.merge, "merge"),
            (field.patch_strategy.replace, "replace"),
            (field.patch_strategy.retain_keys, "retainKeys"),
        ] {
            if on {
                strategies.push(name);
            }
        }
        if !strategies.is_empty() {
            out["x-kubernetes-patch-strategy"] = json!(strategies.join(","));
        }
        if !field.merge_key.is_empty() {
            out["x-kubernetes-patch-merge-key"] = json!(field.merge_key);
        }
        if !field.enum_values.is_empty() && out.get("type") == Some(&json!("string")) {
            out["enum"] = json!(field.enum_values);
        }
        out
    }

    /// A type of definitions of custom resources that no type of OpenAPI fits. Clients trip over schemas that say
    /// nothing at all.
    fn untyped(&mut self, name: &str, text: &str) -> Value {
        let name = format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.{name}");
        self.named(&name, json!({"description": text}))
    }

    fn kind(&mut self, schema: &Schema, kind: &Kind) -> Value {
        match kind {
            Kind::String => json!({"type": "string"}),
            Kind::Bool => json!({"type": "boolean"}),
            Kind::Int32 | Kind::Uint32 => json!({"type": "integer", "format": "int32"}),
            Kind::Int64 | Kind::Duration => json!({"type": "integer", "format": "int64"}),
            Kind::Float64 => json!({"type": "number", "format": "double"}),
            Kind::Bytes => json!({"type": "string", "format": "byte"}),
            Kind::Quantity => {
                let body = match self.dialect {
                    Dialect::V2 => json!({"type": "string"}),
                    Dialect::V3 => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
                };
                self.named("io.k8s.apimachinery.pkg.api.resource.Quantity", body)
            }
            Kind::Time => {
                let body = json!({"type": "string", "format": "date-time"});
                self.named("io.k8s.apimachinery.pkg.apis.meta.v1.Time", body)
            }
            Kind::MicroTime => {
                let body = json!({"type": "string", "format": "date-time"});
                self.named("io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime", body)
            }
            Kind::IntOrString => {
                let body = match self.dialect {
                    Dialect::V2 => json!({"type": "string", "format": "int-or-string"}),
                    Dialect::V3 => {
                        json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
                    }
                };
                self.named("io.k8s.apimachinery.pkg.util.intstr.IntOrString", body)
            }
            Kind::RawExtension => {
                self.named("io.k8s.apimachinery.pkg.runtime.RawExtension", json!({"type": "object"}))
            }
            Kind::FieldsV1 => {
                self.named("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", json!({"type": "object"}))
            }
            Kind::Strings => json!({"type": "array", "items": {"type": "string"}}),
            Kind::Any => json!({}),
            Kind::Json => self.untyped("JSON", "Any JSON value."),
            Kind::SchemaOrBool(_) => self.untyped("JSONSchemaPropsOrBool", "A schema, or true or false."),
            Kind::SchemaOrArray(_) => {
                self.untyped("JSONSchemaPropsOrArray", "A schema, or a list of schemas.")
            }
            Kind::SchemaOrStrings(_) => {
                self.untyped("JSONSchemaPropsOrStringArray", "A schema, or a list of strings.")
            }
            Kind::Message(_) | Kind::Foreign(_) => match schema.of(kind) {
                Some(message) => self.reference(&message),
                None => json!({"type": "object"}),
            },
            Kind::List(list) => {
                let items = self.kind(schema, &list.element);
                json!({"type": "array", "items": self.field_of(items, None)})
            }
            Kind::Map(map) => {
                let values = self.kind(schema, &map.value);
                json!({"type": "object", "additionalProperties": self.field_of(values, None)})
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_schema_says_nothing() {
        fn empty(value: &Value, at: &str, out: &mut Vec<String>) {
            match value {
                Value::Object(map) if map.is_empty() => out.push(at.to_owned()),
                Value::Object(map) => {
                    map.iter().for_each(|(key, value)| empty(value, &format!("{at}/{key}"), out))
                }
                Value::Array(list) => list.iter().for_each(|value| empty(value, at, out)),
                _ => {}
            }
        }
        for dialect in [Dialect::V2, Dialect::V3] {
            let mut schemas = Schemas::new(dialect);
            for resource in api::catalogue().all() {
                schemas.builtin(resource.package, resource.kind);
            }
            let mut found = Vec::new();
            // defaults may well be empty
            empty(&schemas.finish(), "", &mut found);
            found.retain(|at| !at.ends_with("/default"));
            assert_eq!(found, Vec::<String>::new());
        }
    }

    #[test]
    fn every_kind_is_described() {
        let undescribed: Vec<String> = api::catalogue()
            .all()
            .filter_map(|resource| Schema::builtin(resource.package, resource.kind))
            .map(|schema| name_of(&schema))
            .filter(|name| DESCRIPTIONS.get(name).and_then(description).is_none())
            .collect();
        assert_eq!(undescribed, Vec::<String>::new());
    }
}
