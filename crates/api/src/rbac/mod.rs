//! `rbac.authorization.k8s.io/v1`: roles and their bindings. Who may grant what is checked by the API server.

mod rules;

use apimachinery::field::ErrorList;
use apimachinery::{Object, Value};
use serde_json::json;

use crate::catalogue::{Column, Resource};
use crate::core::defaults::{child, each, set};
use crate::printers::{AGE, NAME, column, wide};
use crate::strategy::Strategy;

const GROUP: Resource = Resource::in_group("rbac.authorization.k8s.io", "v1", "k8s.io.api.rbac.v1");

pub const RESOURCES: &[Resource] = &[
    Resource {
        kind: "ClusterRoleBinding",
        plural: "clusterrolebindings",
        singular: "clusterrolebinding",
        namespaced: false,
        prefix: "clusterrolebindings",
        columns: BINDING_COLUMNS,
        strategy: &Bindings,
        ..GROUP
    },
    Resource {
        kind: "ClusterRole",
        plural: "clusterroles",
        singular: "clusterrole",
        namespaced: false,
        prefix: "clusterroles",
        columns: ROLE_COLUMNS,
        strategy: &ClusterRoles,
        ..GROUP
    },
    Resource {
        kind: "RoleBinding",
        plural: "rolebindings",
        singular: "rolebinding",
        prefix: "rolebindings",
        columns: BINDING_COLUMNS,
        strategy: &Bindings,
        ..GROUP
    },
    Resource {
        kind: "Role",
        plural: "roles",
        singular: "role",
        prefix: "roles",
        columns: ROLE_COLUMNS,
        strategy: &Roles,
        ..GROUP
    },
];

const ROLE_COLUMNS: &[Column] = &[
    NAME,
    column("Created At", "date", "When the role was created.", |role, _| json!(role.creation_timestamp())),
];

const BINDING_COLUMNS: &[Column] = &[
    NAME,
    column("Role", "string", "The role that is granted.", |binding, _| {
        let role = |key: &str| binding.get_str(&["roleRef", key]).to_owned();
        json!(format!("{}/{}", role("kind"), role("name")))
    }),
    AGE,
    wide("Users", "string", "Users that get the role.", |binding, _| json!(subjects(binding, "User"))),
    wide("Groups", "string", "Groups that get the role.", |binding, _| json!(subjects(binding, "Group"))),
    wide("ServiceAccounts", "string", "Service accounts that get the role.", |binding, _| {
        json!(subjects(binding, "ServiceAccount"))
    }),
];

fn subjects(binding: &Object, kind: &str) -> String {
    let names: Vec<String> = binding
        .get_array(&["subjects"])
        .iter()
        .filter(|subject| subject["kind"] == kind)
        .map(|subject| {
            let text = |key: &str| subject.get(key).and_then(Value::as_str).unwrap_or_default();
            match kind {
                "ServiceAccount" => format!("{}/{}", text("namespace"), text("name")),
                _ => text("name").to_owned(),
            }
        })
        .collect();
    names.join(", ")
}

/// Names of roles and bindings may be any path segment.
fn path_segment(name: &str, _prefix: bool) -> Vec<String> {
    rules::path_segment_name(name)
}

struct Roles;

impl Strategy for Roles {
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        path_segment(name, prefix)
    }

    fn validate(&self, role: &Object) -> ErrorList {
        rules::role(role)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}

struct ClusterRoles;

impl Strategy for ClusterRoles {
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        path_segment(name, prefix)
    }

    fn validate(&self, role: &Object) -> ErrorList {
        rules::cluster_role(role)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}

struct Bindings;

impl Strategy for Bindings {
    fn default(&self, binding: &mut Object) {
        let map = binding.as_map_mut();
        if let Some(role) = child(map, "roleRef")
            && role.get("apiGroup").and_then(Value::as_str).unwrap_or_default().is_empty()
        {
            role.insert("apiGroup".into(), json!("rbac.authorization.k8s.io"));
        }
        for subject in each(map, "subjects") {
            if matches!(subject.get("kind").and_then(Value::as_str), Some("User" | "Group")) {
                set(subject, "apiGroup", "rbac.authorization.k8s.io");
            }
        }
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        path_segment(name, prefix)
    }

    fn validate(&self, binding: &Object) -> ErrorList {
        rules::role_binding(binding)
    }

    fn validate_update(&self, binding: &Object, old: &Object) -> ErrorList {
        rules::role_binding_update(binding, old)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}
