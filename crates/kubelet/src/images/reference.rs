//! Names of images: `[registry/]repository[:tag][@digest]`, as the distribution project reads them.

const DEFAULT_DOMAIN: &str = "docker.io";
const MAX_NAME: usize = 255;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("invalid reference format")]
    Format,
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    #[error("repository name must not be more than {MAX_NAME} characters")]
    TooLong,
    #[error("cannot specify 64-byte hexadecimal strings")]
    LooksLikeId,
}

/// A name in its parts, with the registry and path that short names stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub domain: String,
    pub path: String,
    pub tag: Option<String>,
    pub digest: Option<String>,
}

impl Reference {
    pub fn parse(name: &str) -> Result<Self, ReferenceError> {
        if name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::LooksLikeId);
        }
        let (domain, remainder) = split_domain(name);
        let (rest, digest) = match remainder.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (remainder.as_str(), None),
        };
        // a colon after the last slash starts the tag
        let (path, tag) = match rest.rfind(':').filter(|at| !rest[*at..].contains('/')) {
            Some(at) => (&rest[..at], Some(&rest[at + 1..])),
            None => (rest, None),
        };
        if path.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(ReferenceError::Uppercase(path.to_owned()));
        }
        let valid = is_domain(&domain)
            && path.split('/').all(is_path_component)
            && tag.is_none_or(is_tag)
            && digest.is_none_or(is_digest);
        if !valid {
            return Err(ReferenceError::Format);
        }
        if path.len() > MAX_NAME {
            return Err(ReferenceError::TooLong);
        }
        Ok(Self {
            domain,
            path: path.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// `registry/path`, which credentials are looked up by.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The full name as the runtime stores it; `:latest` when neither tag nor digest is given.
    pub fn canonical(&self) -> String {
        let mut name = self.repository();
        match (&self.tag, &self.digest) {
            (None, None) => name.push_str(":latest"),
            (tag, digest) => {
                if let Some(tag) = tag {
                    name.push(':');
                    name.push_str(tag);
                }
                if let Some(digest) = digest {
                    name.push('@');
                    name.push_str(digest);
                }
            }
        }
        name
    }
}

/// The name as written, with `:latest` put where no tag and no digest is.
pub fn with_default_tag(name: &str) -> Result<String, ReferenceError> {
    let reference = Reference::parse(name)?;
    if reference.tag.is_none() && reference.digest.is_none() {
        Ok(format!("{name}:latest"))
    } else {
        Ok(name.to_owned())
    }
}

fn split_domain(name: &str) -> (String, String) {
    let (domain, remainder) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.chars().any(|c| c.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, name),
    };
    let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
    if domain == DEFAULT_DOMAIN && !remainder.contains('/') {
        (domain.to_owned(), format!("library/{remainder}"))
    } else {
        (domain.to_owned(), remainder.to_owned())
    }
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => (host, true),
        _ => (domain, false),
    };
    if host.starts_with('[') && host.ends_with(']') {
        return host[1..host.len() - 1].bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
    }
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(label) && (port || !domain.contains(':'))
}

/// Letters and digits, joined by one dot, one or two underscores, or any number of hyphens.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut rest = component;
    loop {
        let word = rest.find(|c| !alphanumeric(c)).unwrap_or(rest.len());
        if word == 0 {
            return false;
        }
        rest = &rest[word..];
        if rest.is_empty() {
            return true;
        }
        let separator = rest.find(alphanumeric).unwrap_or(rest.len());
        let joined = &rest[..separator];
        if !(joined == "." || joined == "_" || joined == "__" || joined.bytes().all(|b| b == b'-')) {
            return false;
        }
        rest = &rest[separator..];
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty()
            && algorithm.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'+' | b'.'))
            && hex.len() >= 32
            && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn short_names_are_completed() {
        let cases = [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("me/app", "docker.io/me/app:latest"),
            ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app:v1", "localhost:5000/app:v1"),
            ("registry.example.com/a/b__c.d-e:x_Y", "registry.example.com/a/b__c.d-e:x_Y"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ];
        for (name, want) in cases {
            assert_eq!(Reference::parse(name).map(|r| r.canonical()), Ok(want.to_owned()), "{name}");
        }
        let digest = format!("busybox@{DIGEST}");
        assert_eq!(
            Reference::parse(&digest).map(|r| r.canonical()),
            Ok(format!("docker.io/library/{digest}"))
        );
    }

    #[test]
    fn bad_names_are_refused() {
        let cases = [
            ("", ReferenceError::Format),
            ("Busybox", ReferenceError::Uppercase("library/Busybox".into())),
            ("a//b", ReferenceError::Format),
            ("a:", ReferenceError::Format),
            ("a:-x", ReferenceError::Format),
            ("a_-b", ReferenceError::Format),
            ("-a", ReferenceError::Format),
            ("a@sha256:12", ReferenceError::Format),
            ("reg:x/app", ReferenceError::Format),
            (&DIGEST[7..], ReferenceError::LooksLikeId),
        ];
        for (name, want) in cases {
            assert_eq!(Reference::parse(name), Err(want), "{name}");
        }
    }

    #[test]
    fn the_default_tag_leaves_the_rest_as_written() {
        assert_eq!(with_default_tag("busybox"), Ok("busybox:latest".into()));
        assert_eq!(with_default_tag("a.b:5/c:v1"), Ok("a.b:5/c:v1".into()));
        assert_eq!(with_default_tag("a.b:5/c"), Ok("a.b:5/c:latest".into()));
    }

    proptest! {
        #[test]
        fn a_canonical_name_stays_itself(name in "[a-z0-9./:@-]{0,30}") {
            if let Ok(reference) = Reference::parse(&name) {
                let canonical = reference.canonical();
                prop_assert_eq!(Reference::parse(&canonical).map(|r| r.canonical()), Ok(canonical));
            }
        }
    }
}
