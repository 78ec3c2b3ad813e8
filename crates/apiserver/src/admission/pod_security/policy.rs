//! Which level holds in a namespace: its labels over the server's defaults.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use apimachinery::field::{Error, Path};
use apimachinery::validation::{is_dns1123_label, is_dns1123_subdomain};
use apimachinery::{Object, field};
use serde::Deserialize;

const PREFIX: &str = "pod-security.kubernetes.io/";
const WRONG_LEVEL: &str = "must be one of privileged, baseline, restricted";
const WRONG_VERSION: &str = "must be \"latest\" or \"v1.x\"";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Self::Privileged),
            "baseline" => Some(Self::Baseline),
            "restricted" => Some(Self::Restricted),
            _ => None,
        }
    }
}

/// A minor version of Kubernetes 1, or the newest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version(Option<u32>);

impl Version {
    pub fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Self(None));
        }
        let digits = text.strip_prefix("v1.")?;
        let canonical =
            digits == "0" || (!digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()));
        digits.parse().ok().filter(|_| canonical).map(|minor| Self(Some(minor)))
    }

    pub fn minor(self) -> Option<u32> {
        self.0
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelVersion {
    pub level: Level,
    pub version: Version,
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.level {
            Level::Privileged => "privileged:",
            Level::Baseline => "baseline:",
            Level::Restricted => "restricted:",
        })?;
        match self.version.0 {
            None => f.write_str("latest"),
            Some(minor) => write!(f, "v1.{minor}"),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub enforce: LevelVersion,
    pub audit: LevelVersion,
    pub warn: LevelVersion,
}

impl Policy {
    pub fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|one| one.level == Level::Privileged)
    }

    fn is_equivalent(&self, other: &Self) -> bool {
        let same = |a: LevelVersion, b: LevelVersion| {
            a == b || (a.level == Level::Privileged && b.level == Level::Privileged)
        };
        same(self.enforce, other.enforce) && same(self.audit, other.audit) && same(self.warn, other.warn)
    }

    /// The policy of a namespace, and what is wrong with its labels: then the strictest holds for what is enforced.
    pub fn of(namespace: &Object, defaults: &Self) -> (Self, Vec<Error>) {
        let (mut policy, mut errors) = (*defaults, Vec::new());
        let mut level_was_set = [None; 3];
        let modes = [
            ("enforce", &mut policy.enforce, Level::Restricted),
            ("audit", &mut policy.audit, Level::Privileged),
            ("warn", &mut policy.warn, Level::Privileged),
        ];
        let mut warn_version_set = false;
        for (index, (mode, one, fallback)) in modes.into_iter().enumerate() {
            let mut label = |suffix: &str, why: &str, good: &mut dyn FnMut(&str) -> bool| {
                let key = format!("{PREFIX}{mode}{suffix}");
                let value = namespace.label(&key)?;
                let good = good(value);
                if !good {
                    let path = Path::new("metadata").child("labels").key(&key);
                    errors.push(field::Error::invalid(&path, value, why));
                }
                Some(good)
            };
            level_was_set[index] = label("", WRONG_LEVEL, &mut |value| {
                let parsed = Level::parse(value);
                one.level = parsed.unwrap_or(fallback);
                parsed.is_some()
            });
            let version_set = label("-version", WRONG_VERSION, &mut |value| {
                let parsed = Version::parse(value);
                one.version = parsed.unwrap_or_default();
                parsed.is_some()
            });
            warn_version_set = version_set.is_some();
        }
        // whoever enforces a level is also warned by it
        if level_was_set[2].is_none()
            && level_was_set[0] == Some(true)
            && policy.enforce.level > policy.warn.level
        {
            policy.warn.level = policy.enforce.level;
            if !warn_version_set {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, errors)
    }

    /// What to say when labels are put on a namespace that they do not hold in.
    pub fn exempt_warning(&self, namespace: &Object, defaults: &Self) -> Option<String> {
        if self.is_privileged() || self.is_equivalent(defaults) {
            return None;
        }
        let modes = [("enforce", self.enforce), ("audit", self.audit), ("warn", self.warn)];
        let shown: Vec<String> = modes
            .into_iter()
            .filter(|(mode, one)| {
                let set = |suffix: &str| namespace.label(&format!("{PREFIX}{mode}{suffix}")).is_some();
                one.level != Level::Privileged && (set("") || set("-version"))
            })
            .map(|(mode, one)| format!("{mode}={one}"))
            .collect();
        Some(format!(
            "namespace {:?} is exempt from Pod Security, and the policy ({}) will be ignored",
            namespace.name(),
            shown.join(", ")
        ))
    }
}

/// What a configuration file says: the levels where labels say nothing, and who is not asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    #[serde(default)]
    defaults: BTreeMap<String, String>,
    #[serde(default)]
    exemptions: Exemptions,
}

impl Configuration {
    pub fn resolve(self) -> Result<(Policy, Exemptions), String> {
        let mut policy = Policy::default();
        let mut errors = Vec::new();
        for (key, value) in &self.defaults {
            let (mode, is_version) = match key.strip_suffix("-version") {
                Some(mode) => (mode, true),
                None => (key.as_str(), false),
            };
            let one = match mode {
                "enforce" => &mut policy.enforce,
                "audit" => &mut policy.audit,
                "warn" => &mut policy.warn,
                _ => return Err(format!("strict decoding error: unknown field \"defaults.{key}\"")),
            };
            let path = Path::new("defaults").child(key);
            let mut wrong = |why| errors.push(field::Error::invalid(&path, value.as_str(), why));
            // what is given as nothing is not given
            match (is_version, value.as_str()) {
                (_, "") => {}
                (true, value) => match Version::parse(value) {
                    Some(version) => one.version = version,
                    None => wrong(WRONG_VERSION),
                },
                (false, value) => match Level::parse(value) {
                    Some(level) => one.level = level,
                    None => wrong(WRONG_LEVEL),
                },
            }
        }
        errors.extend(self.exemptions.validate());
        if errors.is_empty() { Ok((policy, self.exemptions)) } else { Err(field::aggregate(&errors)) }
    }
}

/// Who is not asked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Exemptions {
    pub usernames: Vec<String>,
    pub namespaces: Vec<String>,
    pub runtime_classes: Vec<String>,
}

impl Exemptions {
    fn validate(&self) -> Vec<Error> {
        let invalid = |check: fn(&str) -> Vec<String>| {
            move |path: &Path, name: &str| {
                let why = check(name);
                (!why.is_empty()).then(|| field::Error::invalid(path, name, why.join(", ")))
            }
        };
        let mut errors = each(&self.namespaces, "namespaces", invalid(is_dns1123_label));
        errors.extend(each(&self.runtime_classes, "runtimeClasses", invalid(is_dns1123_subdomain)));
        errors.extend(each(&self.usernames, "usernames", |path, name| {
            name.is_empty().then(|| field::Error::required(path, ""))
        }));
        errors
    }
}

/// What is wrong with names, or is there before.
fn each(names: &[String], list: &str, check: impl Fn(&Path, &str) -> Option<Error>) -> Vec<Error> {
    let at = Path::new("exemptions").child(list);
    let mut seen = BTreeSet::new();
    let judged = names.iter().enumerate().filter_map(|(index, name)| {
        let path = at.index(index);
        let wrong = check(&path, name);
        wrong.or_else(|| (!seen.insert(name)).then(|| field::Error::duplicate(&path, name.as_str())))
    });
    judged.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn configurations_are_checked() {
        let resolve = |value: serde_json::Value| {
            let read: Configuration = serde_json::from_value(value).expect("a configuration");
            read.resolve().map(|(policy, exemptions)| (policy.enforce.to_string(), exemptions.namespaces))
        };
        let label = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
        let cases = [
            (json!({}), Ok(("privileged:latest".to_owned(), vec![]))),
            (json!({"defaults": {"enforce": "", "audit": ""}}), Ok(("privileged:latest".into(), vec![]))),
            (
                json!({"defaults": {"enforce": "baseline"}, "exemptions": {"namespaces": ["a", "b"],
                    "runtimeClasses": ["vm.example"], "usernames": ["jane"]}}),
                Ok(("baseline:latest".into(), vec!["a".to_owned(), "b".into()])),
            ),
            (
                json!({"defaults": {"enforce": "strict", "warn-version": "1.2"}}),
                Err(format!(
                    "[defaults.enforce: Invalid value: \"strict\": {WRONG_LEVEL}, defaults.warn-version: Invalid value: \"1.2\": {WRONG_VERSION}]"
                )),
            ),
            (
                json!({"exemptions": {"namespaces": ["a", "B", "a"]}}),
                Err(format!(
                    "[exemptions.namespaces[1]: Invalid value: \"B\": {label}, exemptions.namespaces[2]: Duplicate value: \"a\"]"
                )),
            ),
            (
                json!({"exemptions": {"runtimeClasses": ["vm", "vm"]}}),
                Err("exemptions.runtimeClasses[1]: Duplicate value: \"vm\"".into()),
            ),
            (
                json!({"exemptions": {"usernames": ["", "jane", "jane"]}}),
                Err("[exemptions.usernames[0]: Required value, exemptions.usernames[2]: Duplicate value: \"jane\"]".into()),
            ),
        ];
        for (value, wanted) in cases {
            assert_eq!(resolve(value.clone()), wanted, "{value}");
        }
    }

    #[test]
    fn labels_make_the_policy() {
        let cases = [
            (json!({}), "privileged:latest privileged:latest privileged:latest", 0),
            (json!({"enforce": "baseline"}), "baseline:latest privileged:latest baseline:latest", 0),
            (
                json!({"enforce": "restricted", "enforce-version": "v1.20"}),
                "restricted:v1.20 privileged:latest restricted:v1.20",
                0,
            ),
            (
                json!({"enforce": "restricted", "enforce-version": "v1.20", "warn": "baseline"}),
                "restricted:v1.20 privileged:latest baseline:latest",
                0,
            ),
            (
                json!({"enforce": "restricted", "enforce-version": "v1.20", "warn-version": "v1.3"}),
                "restricted:v1.20 privileged:latest restricted:v1.3",
                0,
            ),
            (json!({"enforce": "bad"}), "restricted:latest privileged:latest privileged:latest", 1),
            (
                json!({"audit": "bad", "warn": "bad", "audit-version": "1.2", "warn-version": "v1.02"}),
                "privileged:latest privileged:latest privileged:latest",
                4,
            ),
        ];
        for (labels, wanted, wrong) in cases {
            let labels: serde_json::Map<String, serde_json::Value> = labels
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, value)| (format!("{PREFIX}{key}"), value.clone()))
                .collect();
            let namespace = Object::from(json!({"metadata": {"labels": labels}}));
            let (policy, errors) = Policy::of(&namespace, &Policy::default());
            assert_eq!(format!("{} {} {}", policy.enforce, policy.audit, policy.warn), wanted, "{labels:?}");
            assert_eq!(errors.len(), wrong, "{labels:?}");
        }
    }
}
