//! Impersonation: acting as somebody else, as far as one is allowed to.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::Status;
use http::HeaderMap;

use crate::authentication::{ALL_UNAUTHENTICATED, ANONYMOUS, UserInfo};
use crate::authorization::Attributes;
use crate::server::Server;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// The user that the headers ask for; the caller's own when they ask for none. The headers are taken out.
pub async fn impersonate(
    server: &Server,
    caller: Arc<UserInfo>,
    headers: &mut HeaderMap,
) -> Result<Arc<UserInfo>, Status> {
    let values = |headers: &HeaderMap, name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
    };
    let name = values(headers, USER).into_iter().next().unwrap_or_default();
    let groups = values(headers, GROUP);
    let uid = values(headers, UID).into_iter().next().unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (header, value) in headers.iter() {
        if let (Some(key), Ok(value)) = (header.as_str().strip_prefix(EXTRA), value.to_str()) {
            extra.entry(unescape(key)).or_default().push(value.to_owned());
        }
    }
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(caller);
        }
        return Err(Status::internal(
            "invalid impersonation: requested groups, uid or extra without impersonating a user",
        ));
    }
    let may = |group: &'static str,
               resource: &'static str,
               subresource: String,
               namespace: String,
               name: String| {
        let caller = caller.clone();
        async move {
            let attributes = Attributes {
                api_version: "v1",
                namespace: &namespace,
                subresource: &subresource,
                name: &name,
                ..Attributes::resource(&caller, "impersonate", group, resource)
            };
            let verdict = server.access.authorizer.authorize(&attributes).await;
            if verdict.is_allowed() { Ok(()) } else { Err(attributes.forbidden(&verdict.reason)) }
        }
    };
    let none = String::new;
    let account = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    match account {
        Some((namespace, account)) => {
            may("", "serviceaccounts", none(), namespace.to_owned(), account.to_owned()).await?;
        }
        None => may("", "users", none(), none(), name.clone()).await?,
    }
    for group in &groups {
        may("", "groups", none(), none(), group.clone()).await?;
    }
    if !uid.is_empty() {
        may(AUTHENTICATION, "uids", none(), none(), uid.clone()).await?;
    }
    for (key, values) in &extra {
        for value in values {
            may(AUTHENTICATION, "userextras", key.clone(), none(), value.clone()).await?;
        }
    }
    let mut user = UserInfo { name: name.clone(), uid, groups, extra };
    if let (Some((namespace, account)), true) = (account, user.groups.is_empty()) {
        user.groups = UserInfo::service_account(namespace, account, "").groups;
    }
    if user.name == ANONYMOUS {
        if !user.is_in(ALL_UNAUTHENTICATED) {
            user.groups.push(ALL_UNAUTHENTICATED.into());
        }
    } else {
        user = user.authenticated();
    }
    let names: Vec<_> =
        headers.keys().filter(|key| key.as_str().starts_with("impersonate-")).cloned().collect();
    for name in names {
        headers.remove(name);
    }
    Ok(Arc::new(user))
}

/// Keys of extra may hold what headers may not, percent-encoded.
fn unescape(key: &str) -> String {
    form_urlencoded::parse(key.replace('+', "%2B").as_bytes())
        .next()
        .map_or_else(|| key.to_owned(), |(key, _)| key.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_unescaped() {
        for (key, text) in [("scopes", "scopes"), ("example.com%2fa", "example.com/a"), ("a+b", "a+b")] {
            assert_eq!(unescape(key), text);
        }
    }
}
