//! `EncryptionConfiguration`: which resources are encrypted, by whom, with which keys. Pure.

use apimachinery::field::{Error, ErrorList, Path, aggregate};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use crate::configuration::FileKind;

const FILE: FileKind = FileKind {
    kind: "EncryptionConfiguration",
    versions: &["v1"],
    messages: &[
        "EncryptionConfiguration: resources [ResourceConfiguration]",
        "ResourceConfiguration: resources [string], providers [ProviderConfiguration]",
        "ProviderConfiguration: aesgcm KeyList, aescbc KeyList, secretbox KeyList, identity Identity, kms KMS",
        "KeyList: keys [Key]",
        "Key: name string, secret string",
        "Identity: ",
        "KMS: apiVersion string, name string, cachesize int, endpoint string, timeout duration",
    ],
};

const AES_KEY_SIZES: &[usize] = &[16, 24, 32];
const SECRETBOX_KEY_SIZES: &[usize] = &[32];

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct EncryptionConfiguration {
    pub resources: Vec<ResourceConfiguration>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ResourceConfiguration {
    pub resources: Vec<String>,
    pub providers: Vec<ProviderConfiguration>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ProviderConfiguration {
    pub aesgcm: Option<KeyList>,
    pub aescbc: Option<KeyList>,
    pub secretbox: Option<KeyList>,
    pub identity: Option<Value>,
    pub kms: Option<Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct KeyList {
    pub keys: Vec<Key>,
}

#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Key {
    pub name: String,
    pub secret: String,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Name: {}, Secret: [REDACTED]", self.name)
    }
}

impl Key {
    /// The bytes of a key that was checked.
    pub fn bytes(&self) -> Vec<u8> {
        STANDARD.decode(&self.secret).unwrap_or_default()
    }
}

/// A resource and its group as the file names them: either may be `*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Named {
    pub group: String,
    pub resource: String,
}

impl Named {
    pub fn parse(text: &str) -> Self {
        let (resource, group) = text.split_once('.').unwrap_or((text, ""));
        Self { group: group.to_owned(), resource: resource.to_owned() }
    }

    fn is_everything(&self) -> bool {
        self.group == "*" && self.resource == "*"
    }
}

impl EncryptionConfiguration {
    /// Reads and checks a file.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let config: Self = FILE.decode(bytes)?;
        let errors = config.validate();
        if errors.is_empty() { Ok(config) } else { Err(aggregate(&errors)) }
    }

    fn validate(&self) -> ErrorList {
        let root = Path::new("resources");
        if self.resources.is_empty() {
            return vec![Error::required(&root, format!("at least one {root} is required"))];
        }
        let mut errors = ErrorList::new();
        for (index, one) in self.resources.iter().enumerate() {
            let at = root.index(index);
            let (resources, providers) = (at.child("resources"), at.child("providers"));
            for (path, is_empty) in
                [(&resources, one.resources.is_empty()), (&providers, one.providers.is_empty())]
            {
                if is_empty {
                    errors.push(Error::required(path, format!("at least one {path} is required")));
                }
            }
            validate_overlap(&one.resources, &resources, &mut errors);
            validate_names(&one.resources, &resources, &mut errors);
            for (index, provider) in one.providers.iter().enumerate() {
                provider.validate(&providers.index(index), &mut errors);
            }
        }
        errors
    }
}

fn validate_overlap(names: &[String], at: &Path, errors: &mut ErrorList) {
    let parsed: Vec<Named> = names.iter().map(|name| Named::parse(name)).collect();
    let pairs = parsed.iter().enumerate().flat_map(|(i, one)| {
        parsed.iter().enumerate().filter(move |(j, _)| i != *j).map(move |(_, other)| (one, other))
    });
    let (mut duplicate, mut overlap) = (false, false);
    for (one, other) in pairs {
        if one == other {
            duplicate = true;
        } else {
            let wild = one.resource == "*" || other.resource == "*";
            overlap |= one.is_everything() || one.group == other.group && wild;
        }
    }
    let shown = format!("{names:?}");
    if duplicate {
        let why = "the same resource cannot be specified multiple times";
        errors.push(Error::invalid_unseen(at, why).showing(shown.as_str()));
    }
    if overlap {
        let why = "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked";
        errors.push(Error::invalid_unseen(at, why).showing(shown));
    }
}

fn validate_names(names: &[String], at: &Path, errors: &mut ErrorList) {
    for (index, name) in names.iter().enumerate() {
        let named = Named::parse(name);
        let why = if name.to_lowercase() != *name {
            "resource name should not contain capital letters"
        } else if name == "*" {
            "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources"
        } else if ["apiserveripinfo", "serviceipallocations", "servicenodeportallocations"]
            .contains(&name.as_str())
        {
            "resources which do not have REST API/s cannot be encrypted"
        } else if named.group == "events.k8s.io" {
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file"
        } else if named.group == "extensions" {
            "'extensions' group has been removed and cannot be used for encryption"
        } else if named.group == "*" && named.resource != "*" {
            "encrypting the same resource across groups is not supported"
        } else {
            continue;
        };
        errors.push(Error::invalid(&at.index(index), name.as_str(), why));
    }
}

impl ProviderConfiguration {
    fn validate(&self, at: &Path, errors: &mut ErrorList) {
        let Self { aesgcm, aescbc, secretbox, identity, kms } = self;
        let there =
            [aesgcm.is_some(), aescbc.is_some(), secretbox.is_some(), identity.is_some(), kms.is_some()];
        let why = match there.into_iter().filter(|is| *is).count() {
            0 => {
                "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity"
            }
            1 => "",
            _ => {
                "more than one provider specified in a single element, should split into different list elements"
            }
        };
        if !why.is_empty() {
            errors.push(Error::invalid_unseen(at, why));
            return;
        }
        if kms.is_some() {
            errors.push(Error::forbidden(&at.child("kms"), "KMS providers are not supported"));
        }
        for (name, list, sizes) in [
            ("aesgcm", aesgcm, AES_KEY_SIZES),
            ("aescbc", aescbc, AES_KEY_SIZES),
            ("secretbox", secretbox, SECRETBOX_KEY_SIZES),
        ] {
            if let Some(list) = list {
                validate_keys(&list.keys, &at.child(name).child("keys"), sizes, errors);
            }
        }
    }
}

fn validate_keys(keys: &[Key], at: &Path, sizes: &[usize], errors: &mut ErrorList) {
    if keys.is_empty() {
        errors.push(Error::required(at, "at least one keys is required"));
    }
    for (index, key) in keys.iter().enumerate() {
        let at = at.index(index);
        if key.name.is_empty() {
            errors.push(Error::required(&at.child("name"), "name is a mandatory field for a key"));
        }
        let secret = at.child("secret");
        if key.secret.is_empty() {
            errors.push(Error::required(&secret, "secret is a mandatory field for a key"));
            continue;
        }
        match STANDARD.decode(&key.secret) {
            Err(_) => errors.push(Error::invalid(&secret, "REDACTED", "secrets must be base64 encoded")),
            Ok(bytes) if !sizes.contains(&bytes.len()) => {
                let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
                let why = format!(
                    "secret is not of the expected length, got {}, expected one of [{}]",
                    bytes.len(),
                    sizes.join(" ")
                );
                errors.push(Error::invalid(&secret, "REDACTED", why));
            }
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "c2VjcmV0IGlzIHNlY3VyZQ==";

    fn parse(resources: &str, providers: &str) -> Result<EncryptionConfiguration, String> {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n\
             resources: [{{resources: [{resources}], providers: [{providers}]}}]\n"
        );
        EncryptionConfiguration::parse(text.as_bytes())
    }

    #[test]
    fn what_is_wrong_is_said_in_upstreams_words() {
        let good = format!("{{aesgcm: {{keys: [{{name: a, secret: {KEY}}}]}}}}, {{identity: {{}}}}");
        assert!(parse("secrets, '*.apps'", &good).is_ok());
        let none = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n";
        assert_eq!(
            EncryptionConfiguration::parse(none.as_bytes()),
            Err("resources: Required value: at least one resources is required".into())
        );
        let names =
            |name: &str, why: &str| format!("resources[0].resources[0]: Invalid value: {name:?}: {why}");
        for (resources, why) in [
            (
                "",
                "resources[0].resources: Required value: at least one resources[0].resources is required".to_owned(),
            ),
            ("Secrets", names("Secrets", "resource name should not contain capital letters")),
            (
                "'*'",
                names("*", "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources"),
            ),
            (
                "serviceipallocations",
                names("serviceipallocations", "resources which do not have REST API/s cannot be encrypted"),
            ),
            (
                "'*.events.k8s.io'",
                names("*.events.k8s.io", "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file"),
            ),
            (
                "deployments.extensions",
                names("deployments.extensions", "'extensions' group has been removed and cannot be used for encryption"),
            ),
            ("'pods.*'", names("pods.*", "encrypting the same resource across groups is not supported")),
            (
                "secrets, secrets",
                "resources[0].resources: Invalid value: [\"secrets\", \"secrets\"]: the same resource cannot be specified multiple times".into(),
            ),
            (
                "secrets, '*.'",
                "resources[0].resources: Invalid value: [\"secrets\", \"*.\"]: using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked".into(),
            ),
            (
                "'*.*', secrets",
                "resources[0].resources: Invalid value: [\"*.*\", \"secrets\"]: using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked".into(),
            ),
        ] {
            assert_eq!(parse(resources, &good), Err(why), "{resources}");
        }
        let at = "resources[0].providers[0]";
        let keys = |sort: &str, keys: &str| format!("{{{sort}: {{keys: [{keys}]}}}}");
        for (providers, why) in [
            (
                String::new(),
                "resources[0].providers: Required value: at least one resources[0].providers is required"
                    .to_owned(),
            ),
            (
                "{}".into(),
                format!(
                    "{at}: Invalid value: provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity"
                ),
            ),
            (
                format!("{{identity: {{}}, aesgcm: {{keys: [{{name: a, secret: {KEY}}}]}}}}"),
                format!(
                    "{at}: Invalid value: more than one provider specified in a single element, should split into different list elements"
                ),
            ),
            ("{kms: {name: k}}".into(), format!("{at}.kms: Forbidden: KMS providers are not supported")),
            (keys("aesgcm", ""), format!("{at}.aesgcm.keys: Required value: at least one keys is required")),
            (
                keys("aescbc", "{}"),
                format!(
                    "[{at}.aescbc.keys[0].name: Required value: name is a mandatory field for a key, {at}.aescbc.keys[0].secret: Required value: secret is a mandatory field for a key]"
                ),
            ),
            (
                keys("aesgcm", "{name: a, secret: '!'}"),
                format!(
                    "{at}.aesgcm.keys[0].secret: Invalid value: \"REDACTED\": secrets must be base64 encoded"
                ),
            ),
            (
                keys("secretbox", &format!("{{name: a, secret: {KEY}}}")),
                format!(
                    "{at}.secretbox.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 16, expected one of [32]"
                ),
            ),
            (
                keys("aesgcm", "{name: a, secret: AAAA}"),
                format!(
                    "{at}.aesgcm.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 3, expected one of [16 24 32]"
                ),
            ),
            (
                "{identity: {on: 1}}".replace("on", "keys"),
                "strict decoding error: unknown field \"resources[0].providers[0].identity.keys\"".into(),
            ),
        ] {
            assert_eq!(parse("secrets", &providers), Err(why), "{providers}");
        }
    }

    #[test]
    fn keys_are_not_shown() {
        let key = Key { name: "a".into(), secret: KEY.into() };
        assert_eq!(format!("{key:?}"), "Name: a, Secret: [REDACTED]");
    }
}
