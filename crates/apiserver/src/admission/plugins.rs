//! The plugins by name, in upstream's order, and which of them run: `--enable-admission-plugins` and
//! `--disable-admission-plugins`.

use std::collections::BTreeSet;

macro_rules! plugins {
    ($($name:ident),* $(,)?) => {
        /// Every plugin of upstream, in the order in which they run.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Plugin {
            $($name),*
        }

        impl Plugin {
            const ALL: &[Self] = &[$(Self::$name),*];

            pub const COUNT: usize = Self::ALL.len();

            /// As flags and configurations name it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name)),*
                }
            }
        }
    };
}

plugins! {
    AlwaysAdmit,
    NamespaceAutoProvision,
    NamespaceLifecycle,
    NamespaceExists,
    LimitPodHardAntiAffinityTopology,
    LimitRanger,
    ServiceAccount,
    NodeRestriction,
    TaintNodesByCondition,
    AlwaysPullImages,
    ImagePolicyWebhook,
    PodSecurity,
    PodNodeSelector,
    Priority,
    DefaultTolerationSeconds,
    PodTolerationRestriction,
    EventRateLimit,
    ExtendedResourceToleration,
    DefaultStorageClass,
    StorageObjectInUseProtection,
    PodGroupProtection,
    OwnerReferencesPermissionEnforcement,
    PersistentVolumeClaimResize,
    RuntimeClass,
    CertificateApproval,
    CertificateSigning,
    ClusterTrustBundleAttest,
    CertificateSubjectRestriction,
    DefaultIngressClass,
    DenyServiceExternalIPs,
    PodTopologyLabels,
    PodGroupWorkloadExists,
    NodeDeclaredFeatureValidator,
    JobValidation,
    PodResizeValidator,
    MutatingAdmissionPolicy,
    MutatingAdmissionWebhook,
    ValidatingAdmissionPolicy,
    ValidatingAdmissionWebhook,
    ResourceQuota,
    AlwaysDeny,
}

impl Plugin {
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|plugin| plugin.name() == name)
    }

    const fn bit(self) -> u64 {
        1 << self as u64
    }
}

/// What runs unless it is disabled. Kubelets need NodeRestriction, so it is among them here.
const DEFAULT: [Plugin; 21] = [
    Plugin::NamespaceLifecycle,
    Plugin::LimitRanger,
    Plugin::ServiceAccount,
    Plugin::NodeRestriction,
    Plugin::TaintNodesByCondition,
    Plugin::PodSecurity,
    Plugin::Priority,
    Plugin::DefaultTolerationSeconds,
    Plugin::DefaultStorageClass,
    Plugin::StorageObjectInUseProtection,
    Plugin::PersistentVolumeClaimResize,
    Plugin::RuntimeClass,
    Plugin::CertificateApproval,
    Plugin::CertificateSigning,
    Plugin::ClusterTrustBundleAttest,
    Plugin::CertificateSubjectRestriction,
    Plugin::DefaultIngressClass,
    Plugin::PodTopologyLabels,
    Plugin::MutatingAdmissionWebhook,
    Plugin::ValidatingAdmissionWebhook,
    Plugin::ResourceQuota,
];

/// What runs when it is enabled.
const OPTIONAL: [Plugin; 9] = [
    Plugin::AlwaysAdmit,
    Plugin::AlwaysPullImages,
    Plugin::DenyServiceExternalIPs,
    Plugin::EventRateLimit,
    Plugin::ExtendedResourceToleration,
    Plugin::LimitPodHardAntiAffinityTopology,
    Plugin::OwnerReferencesPermissionEnforcement,
    Plugin::PodNodeSelector,
    Plugin::PodTolerationRestriction,
];

/// The plugins that run: a bit for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plugins(u64);

impl Default for Plugins {
    fn default() -> Self {
        Self(DEFAULT.iter().fold(0, |bits, plugin| bits | plugin.bit()))
    }
}

impl Plugins {
    /// The default plugins with what the user enables and disables; the errors in upstream's words.
    pub fn new(enable: &[String], disable: &[String]) -> Result<Self, String> {
        let known = |name: &String| Plugin::parse(name);
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
        for plugin in enable.iter().filter_map(known) {
            if DEFAULT.contains(&plugin) || OPTIONAL.contains(&plugin) || is_elsewhere(plugin) {
                on.0 |= plugin.bit();
            } else {
                let name = plugin.name();
                errors.push(format!("enable-admission-plugins plugin {name:?} is not part of this server"));
            }
        }
        for plugin in disable.iter().filter_map(known) {
            on.0 &= !plugin.bit();
        }
        match errors.len() {
            0 => Ok(on),
            1 => Err(errors.remove(0)),
            _ => Err(format!("[{}]", errors.join(", "))),
        }
    }

    pub fn has(&self, plugin: Plugin) -> bool {
        self.0 & plugin.bit() != 0
    }
}

/// Rules that hold in other places of this server whether they are named or not.
fn is_elsewhere(plugin: Plugin) -> bool {
    plugin == Plugin::PodResizeValidator
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_enabled_and_disabled_by_name() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let new = |on: &[&str], off: &[&str]| Plugins::new(&names(on), &names(off));
        let plugins = new(&["AlwaysPullImages"], &["LimitRanger"]).expect("known names");
        for (plugin, runs) in [
            (Plugin::AlwaysPullImages, true),
            (Plugin::LimitRanger, false),
            (Plugin::ResourceQuota, true),
            (Plugin::AlwaysAdmit, false),
        ] {
            assert_eq!(plugins.has(plugin), runs, "{plugin:?}");
        }
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
    fn a_plugin_runs_by_default_or_when_asked_for() {
        assert!(OPTIONAL.iter().all(|plugin| !DEFAULT.contains(plugin)));
        for plugin in Plugin::ALL.iter().copied() {
            assert_eq!(Plugin::parse(plugin.name()), Some(plugin));
            assert_eq!(Plugins::default().has(plugin), DEFAULT.contains(&plugin), "{plugin:?}");
        }
    }
}
