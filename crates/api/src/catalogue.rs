//! What a catalogue row holds, and the catalogue itself.

use std::collections::HashMap;
use std::sync::LazyLock;

use apimachinery::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, Object, Value};

use crate::strategy::Strategy;

/// One built-in resource.
#[derive(Clone, Copy)]
pub struct Resource {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub namespaced: bool,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub access: Access,
    /// The protobuf package of the kind's message.
    pub package: &'static str,
    /// Where objects live below `/registry/`: upstream's key prefix.
    pub prefix: &'static str,
    /// The version that is stored, for kinds that are another view of it.
    pub stored_as: Option<StoredAs>,
    /// How objects are written to the store.
    pub encoding: Encoding,
    pub subresources: &'static [Subresource],
    /// Whether a delete answers with the object that went instead of a `Status`.
    pub returns_deleted: bool,
    /// Fields a field selector may name besides `metadata.name` and `metadata.namespace`.
    pub selectable: &'static [Selectable],
    pub columns: &'static [Column],
    pub strategy: &'static dyn Strategy,
}

/// The stored version behind a kind, and the way there and back.
#[derive(Clone, Copy)]
pub struct StoredAs {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub to_stored: fn(&mut Object),
    pub from_stored: fn(&mut Object),
}

/// How the objects of a row are written to the store. Whatever it says, each form is read.
#[derive(Clone, Copy)]
pub enum Encoding {
    Protobuf,
    /// Protobuf under the name of an older version of the kind, whose fields are the same: what the release before
    /// this one can read.
    ProtobufAs(&'static str),
    Json,
    /// JSON of another version of the kind, which is not served.
    JsonOf(OtherVersion),
}

/// A version of a kind that lives in the store alone, and the way there and back.
#[derive(Clone, Copy)]
pub struct OtherVersion {
    pub version: &'static str,
    /// The protobuf package of its message.
    pub package: &'static str,
    pub to_stored: fn(&mut Object),
    pub from_stored: fn(&mut Object),
}

/// What may be done with a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// All eight verbs over stored objects.
    Stored,
    /// Only `create`, nothing is stored: reviews, `bindings`.
    CreateOnly,
    /// Only `get` and `list`, over objects that are made up when somebody asks: `componentstatuses`.
    ReadOnly,
}

impl Access {
    /// The verbs that discovery shows, sorted as upstream sorts them.
    pub fn verbs(self) -> &'static [&'static str] {
        match self {
            Self::Stored => {
                &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
            }
            Self::CreateOnly => &["create"],
            Self::ReadOnly => &["get", "list"],
        }
    }
}

/// A subresource as discovery shows it; behaviour belongs to the API server.
#[derive(Clone, Copy, Debug)]
pub struct Subresource {
    pub name: &'static str,
    pub kind: &'static str,
    /// Group and version of `kind` where they differ from the parent's.
    pub group_version: Option<(&'static str, &'static str)>,
    pub verbs: &'static [&'static str],
}

impl Subresource {
    /// `status` of a kind: read, replaced and patched like the object itself.
    pub const fn status(kind: &'static str) -> Self {
        Self { name: "status", kind, group_version: None, verbs: &["get", "patch", "update"] }
    }

    pub const fn scale() -> Self {
        Self {
            name: "scale",
            kind: "Scale",
            group_version: Some(("autoscaling", "v1")),
            verbs: &["get", "patch", "update"],
        }
    }
}

/// A field that field selectors may name, and how to read it.
#[derive(Clone, Copy)]
pub struct Selectable {
    pub name: &'static str,
    pub read: fn(&Object) -> String,
}

/// One column of `kubectl get`.
#[derive(Clone, Copy)]
pub struct Column {
    pub name: &'static str,
    pub r#type: &'static str,
    pub format: &'static str,
    pub description: &'static str,
    /// 0 is always shown, 1 only with `-o wide`.
    pub priority: i32,
    pub cell: fn(&Object, &Now) -> Value,
}

/// The moment at which ages are computed, in seconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub struct Now(pub i64);

impl Resource {
    /// A namespaced, stored resource without a name, rules or columns of its own: what the rows of a group start from.
    pub const fn in_group(group: &'static str, version: &'static str, package: &'static str) -> Self {
        Self {
            group,
            version,
            kind: "",
            plural: "",
            singular: "",
            namespaced: true,
            short_names: &[],
            categories: &[],
            access: Access::Stored,
            package,
            prefix: "",
            stored_as: None,
            encoding: Encoding::Protobuf,
            subresources: &[],
            returns_deleted: false,
            selectable: &[],
            columns: crate::printers::DEFAULT,
            strategy: &crate::strategy::Plain,
        }
    }

    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::new(self.group, self.version, self.kind)
    }

    pub fn group_version(&self) -> GroupVersion {
        GroupVersion::new(self.group, self.version)
    }

    /// As what the objects of this row are written to the store.
    pub fn stored_gvk(&self) -> GroupVersionKind {
        let version = match self.encoding {
            Encoding::Protobuf | Encoding::Json => self.version,
            Encoding::ProtobufAs(version) => version,
            Encoding::JsonOf(other) => other.version,
        };
        GroupVersionKind::new(self.group, version, self.kind)
    }

    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.group, self.plural)
    }

    pub fn group_kind(&self) -> GroupKind {
        GroupKind::new(self.group, self.kind)
    }

    /// The verbs that discovery shows. Namespaces go one by one.
    pub fn verbs(&self) -> Vec<&'static str> {
        let of_collections = (self.group, self.plural) != ("", "namespaces");
        let verbs = self.access.verbs().iter().copied();
        verbs.filter(|verb| of_collections || *verb != "deletecollection").collect()
    }

    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    /// The values of an object's selectable fields but for its name and namespace, by which all can be selected.
    pub fn selectable_fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        self.selectable.iter().map(|field| (field.name, (field.read)(object))).collect()
    }

    /// What is said of a field that a selector may not name.
    pub fn unknown_field(&self, field: &str) -> String {
        match (self.group, self.kind) {
            ("batch", "Job") => format!("field label {field:?} not supported for batchv1.Job"),
            ("resource.k8s.io", "ResourceSlice") => {
                format!(
                    "field label not supported for {}/{}, Kind={}: {field}",
                    self.group, self.version, self.kind
                )
            }
            ("", "PersistentVolume" | "PersistentVolumeClaim") | ("apps" | "networking.k8s.io", _) => {
                only_names(field)
            }
            _ if self.selectable.is_empty() => only_names(field),
            _ => format!("field label not supported: {field}"),
        }
    }

    pub fn may_select(&self, field: &str) -> bool {
        field == "metadata.name"
            || (self.namespaced && field == "metadata.namespace")
            || self.selectable.iter().any(|one| one.name == field)
    }
}

fn only_names(field: &str) -> String {
    format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
}

/// All resources, in discovery order, with look-ups by name.
pub struct Catalogue {
    resources: Vec<&'static Resource>,
    by_path: HashMap<(&'static str, &'static str, &'static str), &'static Resource>,
}

impl Catalogue {
    fn new(groups: &[&'static [Resource]]) -> Self {
        let resources: Vec<&'static Resource> = groups.iter().flat_map(|group| group.iter()).collect();
        let by_path = resources.iter().map(|r| ((r.group, r.version, r.plural), *r)).collect();
        Self { resources, by_path }
    }

    pub fn all(&self) -> impl Iterator<Item = &'static Resource> + '_ {
        self.resources.iter().copied()
    }

    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
        self.by_path.get(&(group, version, plural)).copied()
    }

    pub fn by_kind(&self, gvk: &GroupVersionKind) -> Option<&'static Resource> {
        self.all().find(|r| r.group == gvk.group && r.version == gvk.version && r.kind == gvk.kind)
    }

    /// Group and versions in the order in which discovery lists them: the preferred version first.
    pub fn group_versions(&self) -> Vec<GroupVersion> {
        let mut out: Vec<GroupVersion> = Vec::new();
        for resource in self.all() {
            let gv = resource.group_version();
            if !out.contains(&gv) {
                out.push(gv);
            }
        }
        out
    }
}

/// Groups by how much clients should prefer their names, as the priorities of upstream's APIServices say.
const GROUP_PRIORITIES: &[(&str, i64)] = &[
    ("", 18000),
    ("apps", 17800),
    ("events.k8s.io", 17750),
    ("authentication.k8s.io", 17700),
    ("authorization.k8s.io", 17600),
    ("autoscaling", 17500),
    ("batch", 17400),
    ("certificates.k8s.io", 17300),
    ("networking.k8s.io", 17200),
    ("policy", 17100),
    ("rbac.authorization.k8s.io", 17000),
    ("storage.k8s.io", 16800),
    ("admissionregistration.k8s.io", 16700),
    ("apiextensions.k8s.io", 16700),
    ("scheduling.k8s.io", 16600),
    ("coordination.k8s.io", 16500),
    ("node.k8s.io", 16300),
    ("discovery.k8s.io", 16200),
    ("resource.k8s.io", 16200),
    ("flowcontrol.apiserver.k8s.io", 16100),
];

/// The priority of a built-in group; groups that nothing aggregates have none.
pub fn group_priority(group: &str) -> Option<i64> {
    GROUP_PRIORITIES.iter().find(|(name, _)| *name == group).map(|(_, priority)| *priority)
}

/// The priority of a version in its group.
pub fn version_priority(group: &str, version: &str) -> i64 {
    match (group, version) {
        ("", _) => 1,
        ("autoscaling", "v2") => 30,
        ("flowcontrol.apiserver.k8s.io", _) => 21,
        _ => 15,
    }
}

/// The built-in resources.
pub fn catalogue() -> &'static Catalogue {
    static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
        Catalogue::new(&[
            crate::core::RESOURCES,
            crate::admissionregistration::RESOURCES,
            crate::apiextensions::RESOURCES,
            crate::apiregistration::RESOURCES,
            crate::apps::RESOURCES,
            crate::authentication::RESOURCES,
            crate::authorization::RESOURCES,
            crate::autoscaling::RESOURCES,
            crate::batch::RESOURCES,
            crate::certificates::RESOURCES,
            crate::coordination::RESOURCES,
            crate::discovery::RESOURCES,
            crate::events::RESOURCES,
            crate::flowcontrol::RESOURCES,
            crate::networking::RESOURCES,
            crate::policy::RESOURCES,
            crate::node::RESOURCES,
            crate::rbac::RESOURCES,
            crate::resource::RESOURCES,
            crate::scheduling::RESOURCES,
            crate::storage::RESOURCES,
        ])
    });
    &CATALOGUE
}
