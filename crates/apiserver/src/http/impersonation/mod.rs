//! Impersonation: acting as somebody else, as far as one is allowed to. The headers say as whom, [`modes`] say whether.

mod modes;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use apimachinery::Status;
use http::HeaderMap;
use parking_lot::Mutex;

use self::modes::Mode;
use crate::authentication::{UserInfo, unescape_extra_key};
use crate::authorization::{Attributes, Authorizer};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// Of so many users the mode is remembered.
const REMEMBERED: usize = 10_000;

/// Remembers in which mode who acted last, to try that one first.
#[derive(Default)]
pub struct Impersonation {
    last: Mutex<HashMap<String, Mode>>,
}

/// As whom a request acts.
pub struct Impersonated {
    pub user: Arc<UserInfo>,
    /// How that was allowed, for metrics.
    pub mode: &'static str,
    /// The verb by which that was allowed, for audit; empty for the old way.
    pub constraint: &'static str,
}

impl Impersonation {
    /// The user that the headers ask for, if they do and `request` allows it; then the headers are taken out.
    pub async fn impersonate(
        &self,
        authorizer: &dyn Authorizer,
        request: &Attributes<'_>,
        headers: &mut HeaderMap,
    ) -> Result<Option<Impersonated>, Status> {
        let Some(wanted) = wanted(headers)? else { return Ok(None) };
        let remembered = self.last.lock().get(&request.user.name).copied();
        let others = Mode::ALL.into_iter().filter(|mode| Some(*mode) != remembered);
        let mut first_refusal = None;
        for mode in remembered.into_iter().chain(others) {
            match modes::check(mode, authorizer, &wanted, request).await {
                None => {}
                Some(Err(status)) => {
                    first_refusal.get_or_insert(status);
                }
                Some(Ok(user)) => {
                    self.remember(&request.user.name, mode);
                    let (mode, constraint) = (mode.name(), mode.constraint());
                    return Ok(Some(Impersonated { user: Arc::new(user), mode, constraint }));
                }
            }
        }
        Err(first_refusal.unwrap_or_else(|| Status::internal("all impersonation modes failed")))
    }

    fn remember(&self, caller: &str, mode: Mode) {
        let mut last = self.last.lock();
        if last.len() >= REMEMBERED && !last.contains_key(caller) {
            last.clear();
        }
        last.insert(caller.to_owned(), mode);
    }
}

/// The user that the headers name, as they name it. Takes the headers out.
fn wanted(headers: &mut HeaderMap) -> Result<Option<UserInfo>, Status> {
    let values = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).iter();
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    };
    let first = |name: &str| values(name).into_iter().next().unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for header in headers.keys() {
        if let Some(key) = header.as_str().strip_prefix(EXTRA) {
            extra.entry(unescape_extra_key(key)).or_default().extend(values(header.as_str()));
        }
    }
    let user = UserInfo { name: first(USER), uid: first(UID), groups: values(GROUP), extra };
    if user.name.is_empty() {
        return match user == UserInfo::default() {
            true => Ok(None),
            false => {
                let shown = go_syntax(&user);
                Err(Status::bad_request(format!("requested {shown} without impersonating a user name")))
            }
        };
    }
    let is_ours = |name: &str| [USER, GROUP, UID].contains(&name) || name.starts_with(EXTRA);
    let names: Vec<_> = headers.keys().filter(|key| is_ours(key.as_str())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
    Ok(Some(user))
}

/// A user as Go's `%#v` shows it.
fn go_syntax(user: &UserInfo) -> String {
    let quoted = |list: &[String]| list.iter().map(|item| format!("{item:?}")).collect::<Vec<_>>().join(", ");
    let groups = match user.groups.as_slice() {
        [] => "[]string(nil)".to_owned(),
        groups => format!("[]string{{{}}}", quoted(groups)),
    };
    let extra: Vec<String> =
        user.extra.iter().map(|(key, values)| format!("{key:?}:[]string{{{}}}", quoted(values))).collect();
    let extra = match extra.as_slice() {
        [] => "map[string][]string(nil)".to_owned(),
        extra => format!("map[string][]string{{{}}}", extra.join(", ")),
    };
    format!("&user.DefaultInfo{{Name:{:?}, UID:{:?}, Groups:{groups}, Extra:{extra}}}", user.name, user.uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let mut out = HeaderMap::new();
        for (name, value) in list {
            out.append(*name, value.parse().unwrap());
        }
        out
    }

    #[test]
    fn headers_name_a_user_and_are_taken_out() {
        let mut all = headers(&[
            ("impersonate-user", "joe"),
            ("impersonate-group", "a"),
            ("impersonate-group", "b"),
            ("impersonate-uid", "u"),
            ("impersonate-extra-example.com%2fscopes", "x"),
            ("impersonate-extra-example.com%2fscopes", "y"),
            ("impersonate-extra-bad%2", "z"),
            ("accept", "*/*"),
        ]);
        let user = wanted(&mut all).unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("joe", "u"));
        assert_eq!(user.groups, ["a", "b"]);
        assert_eq!(user.extra["example.com/scopes"], ["x", "y"]);
        assert_eq!(user.extra["bad%2"], ["z"], "what is encoded badly stays as it is");
        assert_eq!(all.keys().map(|key| key.as_str()).collect::<Vec<_>>(), ["accept"]);
        assert_eq!(wanted(&mut all).unwrap(), None);
    }

    #[test]
    fn groups_without_a_user_are_refused() {
        let mut all = headers(&[("impersonate-group", "a"), ("impersonate-extra-k", "v")]);
        assert_eq!(
            wanted(&mut all).unwrap_err().message,
            "requested &user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string{\"a\"}, \
             Extra:map[string][]string{\"k\":[]string{\"v\"}}} without impersonating a user name"
        );
    }
}
