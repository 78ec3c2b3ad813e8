//! A proxy in front of the API server: it shows a certificate of an authority of its own, and tells in headers
//! for whom it speaks.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderMap;
use http::header::HeaderName;

use super::{ClientCa, PeerCertificates, UserInfo, unescape_extra_key};

/// The headers that name a user, as `--requestheader-*` flags give them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeaders {
    /// The common names that a proxy's certificate may have; any if there are none.
    pub allowed_names: Vec<String>,
    /// Of the headers that name the user, the first with a value counts.
    pub username: Vec<String>,
    pub uid: Vec<String>,
    /// All values of all these are groups.
    pub group: Vec<String>,
    pub extra_prefixes: Vec<String>,
}

impl Default for RequestHeaders {
    /// As the usual front proxy sends them.
    fn default() -> Self {
        let one = |name: &str| vec![name.to_owned()];
        Self {
            allowed_names: one("front-proxy-client"),
            username: one("X-Remote-User"),
            uid: one("X-Remote-Uid"),
            group: one("X-Remote-Group"),
            extra_prefixes: one("X-Remote-Extra-"),
        }
    }
}

impl RequestHeaders {
    fn user(&self, headers: &HeaderMap) -> Option<UserInfo> {
        let values = |name: &str| {
            let found =
                headers.get_all(name).into_iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
            found.map(|value| value.into_owned()).collect::<Vec<_>>()
        };
        // The first value of a header decides, as Go reads headers.
        let first = |names: &[String]| {
            names.iter().find_map(|name| values(name).into_iter().next().filter(|value| !value.is_empty()))
        };
        let name = first(&self.username)?;
        let groups = self.group.iter().flat_map(|name| values(name)).filter(|value| !value.is_empty());
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for prefix in &self.extra_prefixes {
            for header in headers.keys() {
                if let Some(key) = header.as_str().strip_prefix(&prefix.to_ascii_lowercase()) {
                    extra.entry(unescape_extra_key(key)).or_default().extend(values(header.as_str()));
                }
            }
        }
        let uid = first(&self.uid).unwrap_or_default();
        Some(UserInfo { name, uid, groups: groups.collect(), extra })
    }

    /// Takes the headers out, so that nothing behind can pass them on.
    pub(super) fn clear(&self, headers: &mut HeaderMap) {
        for name in [&self.username, &self.uid, &self.group].into_iter().flatten() {
            headers.remove(name.as_str());
        }
        let prefixed = |name: &HeaderName| {
            self.extra_prefixes.iter().any(|prefix| name.as_str().starts_with(&prefix.to_ascii_lowercase()))
        };
        let extra: Vec<HeaderName> = headers.keys().filter(|name| prefixed(name)).cloned().collect();
        for name in extra {
            headers.remove(name);
        }
    }
}

/// What lets a proxy speak for others.
#[derive(Clone, Debug)]
pub struct FrontProxy {
    authority: ClientCa,
    pub(super) headers: RequestHeaders,
}

impl FrontProxy {
    pub fn new(authority: ClientCa, headers: RequestHeaders) -> Self {
        Self { authority, headers }
    }

    /// For whom a proxy speaks; `None` if it names nobody, an error for who is not a proxy.
    pub(super) fn authenticate(
        &self,
        peer: &PeerCertificates,
        headers: &HeaderMap,
    ) -> Result<Option<Arc<UserInfo>>, String> {
        let name = self.authority.proxy_name(peer)?;
        let allowed = &self.headers.allowed_names;
        if !allowed.is_empty() && !allowed.contains(&name) {
            return Err(format!("x509: subject with cn={name} is not in the allowed list"));
        }
        Ok(self.headers.user(headers).map(|user| Arc::new(user.authenticated())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn headers_name_a_user() {
        let of = |list: &[(&'static str, &str)]| RequestHeaders::default().user(&headers(list));
        let extra = |key: &str, values: &[&str]| {
            BTreeMap::from([(key.to_owned(), values.iter().map(|value| (*value).to_owned()).collect())])
        };
        let jane = UserInfo { name: "jane".into(), ..UserInfo::default() };
        let user = ("x-remote-user", "jane");
        let cases: Vec<(Vec<(&'static str, &str)>, Option<UserInfo>)> = vec![
            (vec![], None),
            (vec![("x-remote-user", "")], None),
            (vec![("x-remote-group", "a")], None),
            (vec![user], Some(jane.clone())),
            (vec![user, ("x-remote-user", "joe")], Some(jane.clone())),
            (vec![user, ("x-remote-uid", "7")], Some(UserInfo { uid: "7".into(), ..jane.clone() })),
            (
                vec![user, ("x-remote-group", "a"), ("x-remote-group", ""), ("x-remote-group", "b")],
                Some(UserInfo { groups: vec!["a".into(), "b".into()], ..jane.clone() }),
            ),
            (
                vec![user, ("x-remote-extra-example.com%2fa", "1"), ("x-remote-extra-example.com%2fa", "2")],
                Some(UserInfo { extra: extra("example.com/a", &["1", "2"]), ..jane.clone() }),
            ),
            (
                vec![user, ("x-remote-extra-bad%zz", "1")],
                Some(UserInfo { extra: extra("bad%zz", &["1"]), ..jane }),
            ),
        ];
        for (list, wanted) in cases {
            assert_eq!(of(&list), wanted, "{list:?}");
        }
    }

    #[test]
    fn what_was_read_is_taken_out() {
        let mut map = headers(&[
            ("x-remote-user", "jane"),
            ("x-remote-group", "a"),
            ("x-remote-uid", "7"),
            ("x-remote-extra-k", "v"),
            ("accept", "*/*"),
        ]);
        RequestHeaders::default().clear(&mut map);
        assert_eq!(map.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }

    #[test]
    fn names_may_be_ones_own() {
        let own = RequestHeaders {
            username: vec!["X-A".into(), "X-B".into()],
            extra_prefixes: vec!["X-E-".into()],
            ..RequestHeaders::default()
        };
        let user = own.user(&headers(&[("x-b", "joe"), ("x-a", ""), ("x-e-k", "v")])).expect("a user");
        assert_eq!((user.name.as_str(), &user.extra["k"]), ("joe", &vec!["v".to_owned()]));
        assert_eq!(own.user(&headers(&[("x-remote-user", "jane")])), None);
    }
}
