//! Objects as upstream holds them within, which is what its messages show where they show more than a text or a number:
//! the names of Go's fields, in Go's order, and zero values where nothing is set.

use std::collections::BTreeMap;

use apimachinery::schema::{Field, GoKind, Kind, Schema};
use apimachinery::{Value, diff};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::json;
use serde_json::ser::PrettyFormatter;

pub(crate) const CORE: &str = "k8s.io.api.core.v1";
/// Types of these packages are within as they are without.
const APIMACHINERY: &str = "k8s.io.apimachinery.";

/// JSON whose fields have an order.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    Plain(Value),
    List(Vec<Form>),
    Struct(Vec<(String, Form)>),
}

impl Serialize for Form {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain(value) => value.serialize(serializer),
            Self::List(items) => items.serialize(serializer),
            Self::Struct(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (name, value) in fields {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

impl Form {
    /// On one line.
    pub fn line(&self) -> String {
        html_safe(&serde_json::to_string(self).unwrap_or_default())
    }

    /// With a line for each field, each level a blank further in.
    pub fn lines(&self) -> String {
        let mut out = Vec::new();
        let mut writer = serde_json::Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(b" "));
        // nothing is refused by a list of bytes
        let _ = self.serialize(&mut writer);
        html_safe(&String::from_utf8(out).unwrap_or_default())
    }
}

/// What a message says of two values of a type, the old one and the new one.
pub(crate) fn difference(package: &str, name: &str, old: &Value, new: &Value) -> String {
    diff::unified(&of(package, name, old).lines(), &of(package, name, new).lines())
}

/// Go writes JSON that may stand in a page.
fn html_safe(json: &str) -> String {
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// A value of a type.
pub(crate) fn of(package: &str, name: &str, value: &Value) -> Form {
    match Schema::builtin(package, name) {
        Some(schema) => message(&schema, value),
        None => Form::Plain(value.clone()),
    }
}

/// The order of fields that have another one within; the rest follows as it is.
const ORDERS: [(&str, &[&str]); 4] = [
    (
        "PodSpec",
        &[
            "volumes",
            "initContainers",
            "containers",
            "ephemeralContainers",
            "restartPolicy",
            "terminationGracePeriodSeconds",
            "activeDeadlineSeconds",
            "dnsPolicy",
            "nodeSelector",
            "serviceAccountName",
            "automountServiceAccountToken",
            "nodeName",
            "securityContext",
            "imagePullSecrets",
            "hostname",
            "subdomain",
            "setHostnameAsFQDN",
            "affinity",
            "schedulerName",
            "tolerations",
            "hostAliases",
            "priorityClassName",
            "priority",
            "preemptionPolicy",
            "dnsConfig",
            "readinessGates",
            "runtimeClassName",
            "overhead",
            "enableServiceLinks",
        ],
    ),
    (
        "PodSecurityContext",
        &[
            "seLinuxOptions",
            "windowsOptions",
            "runAsUser",
            "runAsGroup",
            "runAsNonRoot",
            "supplementalGroups",
            "supplementalGroupsPolicy",
            "fsGroup",
            "fsGroupChangePolicy",
        ],
    ),
    (
        "PersistentVolumeSource",
        &[
            "gcePersistentDisk",
            "awsElasticBlockStore",
            "hostPath",
            "glusterfs",
            "nfs",
            "rbd",
            "quobyte",
            "iscsi",
            "flexVolume",
            "cinder",
            "cephfs",
            "fc",
            "flocker",
            "azureFile",
            "vsphereVolume",
            "azureDisk",
            "photonPersistentDisk",
            "portworxVolume",
            "scaleIO",
            "local",
        ],
    ),
    (
        "Volume",
        &[
            "name",
            "hostPath",
            "emptyDir",
            "gcePersistentDisk",
            "awsElasticBlockStore",
            "gitRepo",
            "secret",
            "nfs",
            "iscsi",
            "glusterfs",
            "persistentVolumeClaim",
            "rbd",
            "quobyte",
        ],
    ),
];

/// What a pod's spec says of namespaces, which is part of its security context within.
const OF_NAMESPACES: [&str; 5] = ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers"];
/// What is not held within.
const ALIAS: &str = "serviceAccount";

fn message(schema: &Schema, value: &Value) -> Form {
    if schema.message().package.starts_with(APIMACHINERY) {
        return without(schema, value);
    }
    let name = schema.name();
    let mut fields: Vec<&Field> = schema.fields().iter().collect();
    if name == "PodSpec" {
        fields.retain(|field| &*field.name != ALIAS && !OF_NAMESPACES.contains(&&*field.name));
    }
    if let Some((_, order)) = ORDERS.iter().find(|(of, _)| *of == name) {
        let place = |field: &&Field| order.iter().position(|one| *one == &*field.name).unwrap_or(order.len());
        fields.sort_by_key(place);
    }
    let mut out = Vec::new();
    for field in fields {
        let inner = value.get(&*field.name).unwrap_or(&Value::Null);
        match schema.of(&field.kind) {
            // embedded, and so part of what it is in
            Some(metadata) if &*field.name == "metadata" => {
                if let Form::Struct(fields) = without(&metadata, inner) {
                    out.extend(fields);
                }
            }
            Some(context) if context.name() == "PodSecurityContext" => {
                let mut of_namespaces: Vec<(String, Form)> = OF_NAMESPACES
                    .iter()
                    .filter_map(|name| schema.field(name))
                    .map(|field| (go_name(&field.name), self::field(schema, field, value)))
                    .collect();
                if let Form::Struct(fields) = message(&context, inner) {
                    of_namespaces.extend(fields);
                }
                out.push((go_name(&field.name), Form::Struct(of_namespaces)));
            }
            _ => out.push((go_name(&field.name), self::field(schema, field, value))),
        }
    }
    Form::Struct(out)
}

/// A field of an object, or what it is when it is not set.
fn field(schema: &Schema, field: &Field, object: &Value) -> Form {
    match object.get(&*field.name).filter(|value| !value.is_null()) {
        Some(value) => set(schema, &field.kind, value),
        None if field.go_kind == GoKind::Value => zero(schema, &field.kind),
        None => Form::Plain(Value::Null),
    }
}

fn set(schema: &Schema, kind: &Kind, value: &Value) -> Form {
    match (kind, value) {
        (Kind::List(list), Value::Array(items)) => {
            Form::List(items.iter().map(|item| set(schema, &list.element, item)).collect())
        }
        (Kind::Map(_), Value::Object(_)) => sorted(value),
        _ => match schema.of(kind) {
            Some(inner) => message(&inner, value),
            None => Form::Plain(value.clone()),
        },
    }
}

fn zero(schema: &Schema, kind: &Kind) -> Form {
    Form::Plain(match kind {
        Kind::String => json!(""),
        Kind::Bool => json!(false),
        Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Float64 | Kind::IntOrString => json!(0),
        Kind::Quantity => json!("0"),
        Kind::Message(_) => {
            return schema.of(kind).map_or(Form::Plain(Value::Null), |inner| message(&inner, &Value::Null));
        }
        _ => Value::Null,
    })
}

/// A value of a type that has names of JSON within, too: what is set, in the order of the fields.
fn without(schema: &Schema, value: &Value) -> Form {
    let fields = schema.fields().iter().filter_map(|field| {
        let inner = value.get(&*field.name).filter(|inner| !inner.is_null())?;
        let inner = match (&field.kind, inner) {
            (Kind::List(list), Value::Array(items)) => Form::List(
                items
                    .iter()
                    .map(|item| match schema.of(&list.element) {
                        Some(element) => without(&element, item),
                        None => Form::Plain(item.clone()),
                    })
                    .collect(),
            ),
            (Kind::Map(_), Value::Object(_)) => sorted(inner),
            _ => match schema.of(&field.kind) {
                Some(schema) => without(&schema, inner),
                None => Form::Plain(inner.clone()),
            },
        };
        Some((field.name.to_string(), inner))
    });
    Form::Struct(fields.collect())
}

/// A map of texts or amounts, by its keys.
fn sorted(map: &Value) -> Form {
    let entries: BTreeMap<_, _> = map.as_object().into_iter().flatten().collect();
    Form::Struct(entries.into_iter().map(|(key, value)| (key.clone(), Form::Plain(value.clone()))).collect())
}

/// Words that Go writes in capitals, where they begin a name.
const CAPITALS: [&str; 19] = [
    "api", "aws", "csi", "dns", "fc", "fs", "gce", "gmsa", "grpc", "http", "ip", "iqn", "iscsi", "nfs", "os",
    "pd", "rbd", "tcp", "tty",
];

/// Names that have a form of their own.
const NAMES: [(&str, &str); 13] = [
    ("cephfs", "CephFS"),
    ("chapAuthDiscovery", "DiscoveryCHAPAuth"),
    ("chapAuthSession", "SessionCHAPAuth"),
    ("diskURI", "DataDiskURI"),
    ("httpHeaders", "HTTPHeaders"),
    ("iscsiInterface", "ISCSIInterface"),
    ("pdID", "PdID"),
    ("seLinuxChangePolicy", "SELinuxChangePolicy"),
    ("seLinuxOptions", "SELinuxOptions"),
    ("sslEnabled", "SSLEnabled"),
    ("storageos", "StorageOS"),
    ("uid", "UID"),
    ("wwids", "WWIDs"),
];

/// Go's name of a field.
fn go_name(json_name: &str) -> String {
    if let Some((_, name)) = NAMES.iter().find(|(json, _)| *json == json_name) {
        return (*name).to_owned();
    }
    let word = json_name.find(|c: char| c.is_ascii_uppercase()).unwrap_or(json_name.len());
    let (first, rest) = json_name.split_at(word);
    if CAPITALS.contains(&first) {
        return first.to_uppercase() + rest;
    }
    let mut letters = json_name.chars();
    letters.next().map(|letter| letter.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_within() {
        let spec = json!({
            "containers": [{"name": "c", "image": "a&b", "resources": {"limits": {"cpu": "1"}}, "livenessProbe": {
                "httpGet": {"port": 80}, "periodSeconds": 10,
            }}],
            "hostNetwork": true, "serviceAccount": "a", "serviceAccountName": "a", "dnsPolicy": "ClusterFirst",
            "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "k", "labelSelector": {"matchExpressions": [{"operator": "Exists", "key": "a"}]}},
            ]}},
            "volumes": [{"name": "v", "emptyDir": {}}],
        });
        insta::assert_snapshot!(of(CORE, "PodSpec", &spec).lines());
    }

    #[test]
    fn a_template_within() {
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}});
        let line = of(CORE, "PodTemplateSpec", &template).line();
        assert!(line.starts_with("{\"labels\":{\"a\":\"b\"},\"Spec\":{\"Volumes\":null,\"InitContainers\":null,\"Containers\":[],"), "{line}");
    }
}
