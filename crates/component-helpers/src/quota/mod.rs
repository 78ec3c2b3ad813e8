//! What objects use of a ResourceQuota, and which objects a quota is about. Admission charges by these rules and
//! the quota controller recounts by them, so that both come to the same numbers.

mod scopes;
mod usage;

use k8s_openapi::api::core::v1::ResourceQuota;

pub use scopes::{Scopes, matches_scopes, scope_requirements};
pub use usage::{
    claim_usage, object_usage, pod_usage, resource_claim_usage, service_usage, unmet_constraints,
};

use crate::resource::ResourceList;

const STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
/// What limits the devices of a class: the class, then this.
const DEVICES_OF_CLASS: &str = ".deviceclass.resource.k8s.io/devices";
const CLAIM_RESOURCES: [&str; 2] = ["persistentvolumeclaims", "requests.storage"];
const COMPUTE: [&str; 10] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
];

/// Resources that no quota counts: reviews and the like, which are not kept, and events.
const IGNORED: [(&str, &str); 10] = [
    ("", "bindings"),
    ("", "componentstatuses"),
    ("", "events"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    ("events.k8s.io", "events"),
];

/// A resource as a quota names it: its group and its plural.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Counted<'a> {
    pub group: &'a str,
    pub plural: &'a str,
}

impl Counted<'_> {
    pub fn is_ignored(self) -> bool {
        IGNORED.contains(&(self.group, self.plural))
    }

    fn is(self, plural: &str) -> bool {
        self.group.is_empty() && self.plural == plural
    }

    /// The name that counts the objects: `count/<plural>.<group>`.
    pub fn count_name(self) -> String {
        match self.group {
            "" => format!("count/{}", self.plural),
            group => format!("count/{}.{group}", self.plural),
        }
    }

    /// The older name that some kinds are also counted under.
    pub fn legacy_name(self) -> Option<&'static str> {
        const LEGACY: [&str; 4] = ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];
        LEGACY.into_iter().find(|name| self.is(name))
    }

    /// Whether a name of a quota is about these objects.
    pub fn answers_to(self, name: &str) -> bool {
        if name == self.count_name() {
            return true;
        }
        match self {
            _ if self.is("pods") => {
                COMPUTE.contains(&name)
                    || name.starts_with("hugepages-")
                    || name.starts_with("requests.hugepages-")
                    || (name.starts_with("requests.") && !usage::is_native(name))
            }
            _ if self.is("services") => {
                matches!(name, "services" | "services.nodeports" | "services.loadbalancers")
            }
            _ if self.is("persistentvolumeclaims") => {
                let of_class = name.split_once(STORAGE_CLASS).map(|(_, resource)| resource);
                CLAIM_RESOURCES.contains(&of_class.unwrap_or(name))
            }
            Counted { group: "resource.k8s.io", plural: "resourceclaims" } => {
                name.ends_with(DEVICES_OF_CLASS)
            }
            _ => self.legacy_name() == Some(name),
        }
    }
}

/// Reads `count/<plural>.<group>`: what a name of a quota counts, if it is of that form.
pub fn counted_by(name: &str) -> Option<Counted<'_>> {
    let rest = name.strip_prefix("count/")?;
    let (plural, group) = rest.split_once('.').unwrap_or((rest, ""));
    Some(Counted { group, plural })
}

/// The limits that the quota's status shows, which are the ones in force.
pub fn status_hard(quota: &ResourceQuota) -> ResourceList {
    ResourceList::from_quantities(quota.status.as_ref().and_then(|status| status.hard.as_ref()))
}

pub fn status_used(quota: &ResourceQuota) -> ResourceList {
    ResourceList::from_quantities(quota.status.as_ref().and_then(|status| status.used.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_quotas_find_their_objects() {
        let cases = [
            ("", "pods", "count/pods", true),
            ("", "pods", "pods", true),
            ("", "pods", "limits.cpu", true),
            ("", "pods", "requests.example.com/gpu", true),
            ("", "pods", "requests.storage", false),
            ("", "pods", "hugepages-2Mi", true),
            ("", "services", "services.nodeports", true),
            ("", "services", "pods", false),
            ("", "persistentvolumeclaims", "requests.storage", true),
            ("", "persistentvolumeclaims", "gold.storageclass.storage.k8s.io/requests.storage", true),
            ("", "persistentvolumeclaims", "gold.storageclass.storage.k8s.io/other", false),
            ("", "secrets", "secrets", true),
            ("", "secrets", "count/secrets", true),
            ("apps", "deployments", "count/deployments.apps", true),
            ("apps", "deployments", "deployments", false),
            ("resource.k8s.io", "resourceclaims", "gpu.deviceclass.resource.k8s.io/devices", true),
            ("resource.k8s.io", "resourceclaims", "count/resourceclaims.resource.k8s.io", true),
            ("resource.k8s.io", "resourceclaims", "pods", false),
        ];
        for (group, plural, name, wanted) in cases {
            assert_eq!(Counted { group, plural }.answers_to(name), wanted, "{plural} {name}");
        }
        let deployments = Counted { group: "apps", plural: "deployments" };
        assert_eq!(counted_by("count/deployments.apps"), Some(deployments));
        assert_eq!(counted_by("count/pods"), Some(Counted { group: "", plural: "pods" }));
        assert_eq!(counted_by("pods"), None);
        assert!(Counted { group: "events.k8s.io", plural: "events" }.is_ignored());
    }
}
