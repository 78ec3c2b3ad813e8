//! Encryption at rest: values as they lie in the store, which may be sealed, apart from what they say.
//!
//! [`config`] says which resources are sealed, [`transform`] how. A kind opens what it reads and seals what it writes;
//! the store knows nothing of it, and the cache holds what was opened.

mod config;
mod transform;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::reload;
use config::{EncryptionConfiguration, Named};
use transform::{Chain, Opened};

/// Why a stored value tells nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It was sealed with a key that is not there, or is not what was sealed.
    #[error("{0}")]
    Sealed(String),
    #[error(transparent)]
    Damaged(#[from] apimachinery::codec::DecodeError),
}

/// The file of `--encryption-provider-config`.
#[derive(Clone, Debug)]
pub struct Options {
    pub file: PathBuf,
    /// Whether it is looked at again while the server runs.
    pub automatic_reload: bool,
}

/// What seals and opens the values of each resource.
pub struct Encryption {
    current: ArcSwap<Rules>,
    /// Without a file nothing is sealed, and nothing will be.
    configured: bool,
}

struct Rules {
    by_name: HashMap<Named, Arc<Chain>>,
    otherwise: Arc<Chain>,
}

impl Rules {
    fn none() -> Self {
        Self { by_name: HashMap::new(), otherwise: Arc::new(Chain::identity()) }
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let config = EncryptionConfiguration::parse(bytes)
            .map_err(|error| format!("error while parsing file: {error}"))?;
        let building = |error: String| format!("error while building transformers: {error}");
        let mut providers: HashMap<Named, Vec<_>> = HashMap::new();
        for one in &config.resources {
            for name in &one.resources {
                let named = Named::parse(name);
                let of = |group: &str| Named { group: group.to_owned(), resource: "*".to_owned() };
                for earlier in [of(&named.group), of("*")] {
                    if providers.contains_key(&earlier) {
                        return Err(building(format!(
                            "resource {name:?} is masked by earlier rule \"*.{}\"",
                            earlier.group
                        )));
                    }
                }
                providers.entry(named).or_default().extend(one.providers.iter().cloned());
            }
        }
        let chains = providers
            .into_iter()
            .map(|(named, providers)| Ok((named, Arc::new(Chain::new(&providers).map_err(building)?))));
        Ok(Self { by_name: chains.collect::<Result<_, String>>()?, ..Self::none() })
    }

    fn of(&self, group: &str, resource: &str) -> &Chain {
        if self.by_name.is_empty() {
            return &self.otherwise;
        }
        let named = |group: &str, resource: &str| {
            self.by_name.get(&Named { group: group.to_owned(), resource: resource.to_owned() })
        };
        named(group, resource)
            .or_else(|| named(group, "*"))
            .or_else(|| named("*", "*"))
            .unwrap_or(&self.otherwise)
    }
}

impl Encryption {
    /// Leaves everything as it is.
    pub fn none() -> Arc<Self> {
        Arc::new(Self { current: ArcSwap::from_pointee(Rules::none()), configured: false })
    }

    /// Reads the file, and follows it if that was asked for.
    pub fn start(options: &Options, cancel: &CancellationToken) -> Result<Arc<Self>, String> {
        let path = &options.file;
        let bytes = std::fs::read(path).map_err(|error| {
            format!("error while parsing file: error reading encryption provider configuration file {path:?}: {error}")
        })?;
        let rules = Rules::parse(&bytes)?;
        let started = Arc::new(Self { current: ArcSwap::from_pointee(rules), configured: true });
        if options.automatic_reload {
            let (following, path, cancel) = (started.clone(), path.clone(), cancel.clone());
            let follow =
                reload::follow("--encryption-provider-config", path, bytes, cancel, async move |bytes| {
                    following.current.store(Arc::new(Rules::parse(bytes)?));
                    Ok(())
                });
            tokio::spawn(follow);
        }
        Ok(started)
    }

    /// Whether a value may lie in the store otherwise than it would be written now.
    pub fn is_configured(&self) -> bool {
        self.configured
    }

    /// What a value of a resource says that lies at a key of the store.
    pub fn open(&self, group: &str, resource: &str, at: &str, stored: &Bytes) -> Result<Opened, Unreadable> {
        self.current.load().of(group, resource).open(stored, at).map_err(Unreadable::Sealed)
    }

    pub fn seal(&self, group: &str, resource: &str, at: &str, value: Vec<u8>) -> Result<Vec<u8>, Unreadable> {
        self.current.load().of(group, resource).seal(value, at).map_err(Unreadable::Sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Result<Rules, String> {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n";
        Rules::parse(format!("{head}{text}").as_bytes())
    }

    const SEAL: &str = "[{aesgcm: {keys: [{name: KEY, secret: c2VjcmV0IGlzIHNlY3VyZQ==}]}}]";

    fn rule(resources: &str, key: &str) -> String {
        format!("- {{resources: [{resources}], providers: {}}}\n", SEAL.replace("KEY", key))
    }

    #[test]
    fn the_closest_rule_counts() {
        let plain = "- {resources: [events], providers: [{identity: {}}]}\n";
        let text = [
            plain.to_owned(),
            rule("secrets", "a"),
            rule("'*.apps'", "b"),
            rule("'*.'", "c"),
            rule("'*.*'", "d"),
        ]
        .concat();
        let rules = rules(&text).expect("good");
        for (group, plural, wanted) in [
            ("", "secrets", "k8s:enc:aesgcm:v1:a:"),
            ("", "events", "value"),
            ("", "configmaps", "k8s:enc:aesgcm:v1:c:"),
            ("apps", "deployments", "k8s:enc:aesgcm:v1:b:"),
            ("batch", "jobs", "k8s:enc:aesgcm:v1:d:"),
        ] {
            let sealed = rules.of(group, plural).seal(b"value".to_vec(), "/k").expect("sealed");
            assert!(sealed.starts_with(wanted.as_bytes()), "{plural}");
        }
    }

    #[test]
    fn rules_that_others_mask_are_refused() {
        for (text, why) in [
            (
                [rule("'*.'", "a"), rule("secrets", "b")].concat(),
                "resource \"secrets\" is masked by earlier rule \"*.\"",
            ),
            (
                [rule("'*.*'", "a"), rule("'*.apps'", "b")].concat(),
                "resource \"*.apps\" is masked by earlier rule \"*.*\"",
            ),
        ] {
            assert_eq!(rules(&text).err(), Some(format!("error while building transformers: {why}")));
        }
        let error = rules("").err().expect("refused");
        assert_eq!(
            error,
            "error while parsing file: resources: Required value: at least one resources is required"
        );
        // one resource in two lists has the providers of both
        assert!(rules(&[rule("secrets", "a"), rule("secrets", "b")].concat()).is_ok());
    }
}
