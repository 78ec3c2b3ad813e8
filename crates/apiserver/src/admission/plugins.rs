//! The plugins by name, in upstream's order, and which of them run: `--enable-admission-plugins` and
//! `--disable-admission-plugins`.

use std::collections::BTreeSet;

/// Every plugin of upstream, in the order in which they run.
const ALL: [&str; 41] = [
    "AlwaysAdmit",
    "NamespaceAutoProvision",
    "NamespaceLifecycle",
    "NamespaceExists",
    "LimitPodHardAntiAffinityTopology",
    "LimitRanger",
    "ServiceAccount",
    "NodeRestriction",
    "TaintNodesByCondition",
    "AlwaysPullImages",
    "ImagePolicyWebhook",
    "PodSecurity",
    "PodNodeSelector",
    "Priority",
    "DefaultTolerationSeconds",
    "PodTolerationRestriction",
    "EventRateLimit",
    "ExtendedResourceToleration",
    "DefaultStorageClass",
    "StorageObjectInUseProtection",
    "PodGroupProtection",
    "OwnerReferencesPermissionEnforcement",
    "PersistentVolumeClaimResize",
    "RuntimeClass",
    "CertificateApproval",
    "CertificateSigning",
    "ClusterTrustBundleAttest",
    "CertificateSubjectRestriction",
    "DefaultIngressClass",
    "DenyServiceExternalIPs",
    "PodTopologyLabels",
    "PodGroupWorkloadExists",
    "NodeDeclaredFeatureValidator",
    "JobValidation",
    "PodResizeValidator",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
    "ResourceQuota",
    "AlwaysDeny",
];

/// What runs unless it is disabled. Kubelets need NodeRestriction, so it is among them here.
const DEFAULT: [&str; 21] = [
    "NamespaceLifecycle",
    "LimitRanger",
    "ServiceAccount",
    "NodeRestriction",
    "TaintNodesByCondition",
    "PodSecurity",
    "Priority",
    "DefaultTolerationSeconds",
    "DefaultStorageClass",
    "PersistentVolumeClaimResize",
    "RuntimeClass",
    "CertificateApproval",
    "CertificateSigning",
    "ClusterTrustBundleAttest",
    "CertificateSubjectRestriction",
    "DefaultIngressClass",
    "PodTopologyLabels",
    "MutatingAdmissionWebhook",
    "ValidatingAdmissionWebhook",
    "ResourceQuota",
    "AlwaysAdmit",
];

/// What runs when it is enabled. StorageObjectInUseProtection is among them, unlike upstream, until controllers take
/// its finalizers away again: without them no claim could be deleted.
const OPTIONAL: [&str; 6] = [
    "AlwaysPullImages",
    "DenyServiceExternalIPs",
    "ExtendedResourceToleration",
    "LimitPodHardAntiAffinityTopology",
    "PodNodeSelector",
    "StorageObjectInUseProtection",
];

/// The plugins that run.
#[derive(Clone, Debug)]
pub struct Plugins(BTreeSet<&'static str>);

impl Default for Plugins {
    fn default() -> Self {
        Self(DEFAULT.into())
    }
}

impl Plugins {
    /// The default plugins with what the user enables and disables; the errors in upstream's words.
    pub fn new(enable: &[String], disable: &[String]) -> Result<Self, String> {
        let known = |name: &String| ALL.into_iter().find(|known| known == name);
        let mut errors = Vec::new();
        for (flag, names) in [("enable", enable), ("disable", disable)] {
            for name in names.iter().filter(|name| known(name).is_none()) {
                errors.push(format!("{flag}-admission-plugins plugin {name:?} is unknown"));
            }
        }
        let both: BTreeSet<&str> =
            enable.iter().filter(|name| disable.contains(name)).map(String::as_str).collect();
        if !both.is_empty() {
            let both: Vec<&str> = both.into_iter().collect();
            errors.push(format!(
                "[{}] in enable-admission-plugins and disable-admission-plugins overlapped",
                both.join(" ")
            ));
        }
        let mut on = Self::default();
        for name in enable.iter().filter_map(known) {
            if DEFAULT.contains(&name) || OPTIONAL.contains(&name) || is_elsewhere(name) {
                on.0.insert(name);
            } else {
                errors.push(format!("enable-admission-plugins plugin {name:?} is not part of this server"));
            }
        }
        for name in disable.iter().filter_map(known) {
            on.0.remove(name);
        }
        match errors.len() {
            0 => Ok(on),
            1 => Err(errors.remove(0)),
            _ => Err(format!("[{}]", errors.join(", "))),
        }
    }

    pub fn has(&self, name: &str) -> bool {
        debug_assert!(ALL.contains(&name), "{name}");
        self.0.contains(name)
    }
}

/// Rules that hold in other places of this server whether they are named or not.
fn is_elsewhere(name: &str) -> bool {
    name == "PodResizeValidator"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_enabled_and_disabled_by_name() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let new = |on: &[&str], off: &[&str]| Plugins::new(&names(on), &names(off));
        let plugins = new(&["AlwaysPullImages"], &["LimitRanger"]).expect("known names");
        assert!(
            plugins.has("AlwaysPullImages") && !plugins.has("LimitRanger") && plugins.has("ResourceQuota")
        );
        let cases: [(&[&str], &[&str], &str); 4] = [
            (&["Nope"], &[], "enable-admission-plugins plugin \"Nope\" is unknown"),
            (&[], &["Nope"], "disable-admission-plugins plugin \"Nope\" is unknown"),
            (
                &["Priority", "LimitRanger"],
                &["LimitRanger", "Priority"],
                "[LimitRanger Priority] in enable-admission-plugins and disable-admission-plugins overlapped",
            ),
            (
                &["ImagePolicyWebhook"],
                &["x"],
                "[disable-admission-plugins plugin \"x\" is unknown, enable-admission-plugins plugin \
                 \"ImagePolicyWebhook\" is not part of this server]",
            ),
        ];
        for (on, off, wanted) in cases {
            assert_eq!(new(on, off).err().as_deref(), Some(wanted));
        }
    }

    #[test]
    fn every_plugin_that_runs_is_one_of_upstreams() {
        assert!(DEFAULT.iter().chain(&OPTIONAL).all(|name| ALL.contains(name)));
        assert!(OPTIONAL.iter().all(|name| !DEFAULT.contains(name)));
    }
}
