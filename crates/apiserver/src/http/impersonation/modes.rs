//! The ways in which one may act as somebody else (KEP-5284): as the node one runs on, as any node, as a service
//! account, as another user; each for certain requests only. And the old way, which is for all requests.

use std::collections::BTreeMap;

use api::validation::domain_prefixed_path;
use apimachinery::field::Path;
use apimachinery::{Status, validation};

use crate::authentication::{
    ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, ANONYMOUS, NODE_NAME_KEY, NODES_GROUP, SYSTEM_PRIVILEGED_GROUP,
    UserInfo,
};
use crate::authorization::{Attributes, Authorizer};

const AUTHENTICATION: &str = "authentication.k8s.io";

/// From so many groups or values on, a right to all of them is looked for first.
const MANY: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    UserInfo,
    Legacy,
}

impl Mode {
    /// In the order in which they are tried: those that allow least come first.
    pub const ALL: [Self; 5] =
        [Self::AssociatedNode, Self::ArbitraryNode, Self::ServiceAccount, Self::UserInfo, Self::Legacy];

    pub fn name(self) -> &'static str {
        match self {
            Self::AssociatedNode => "associated-node",
            Self::ArbitraryNode => "arbitrary-node",
            Self::ServiceAccount => "serviceaccount",
            Self::UserInfo => "user-info",
            Self::Legacy => "legacy",
        }
    }

    /// The verb that lets one act as somebody.
    pub fn verb(self) -> &'static str {
        match self {
            Self::AssociatedNode => "impersonate:associated-node",
            Self::ArbitraryNode => "impersonate:arbitrary-node",
            Self::ServiceAccount => "impersonate:serviceaccount",
            Self::UserInfo => "impersonate:user-info",
            Self::Legacy => "impersonate",
        }
    }

    /// The verb that audit shows; the old way has none.
    pub fn constraint(self) -> &'static str {
        if self == Self::Legacy { "" } else { self.verb() }
    }

    /// Whether it is about such users at all.
    fn is_for(self, wanted: &UserInfo, caller: &UserInfo) -> bool {
        let name_only = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let node = node_name(&wanted.name);
        let account = service_account(&wanted.name);
        match self {
            Self::AssociatedNode => {
                let own = caller.extra.get(NODE_NAME_KEY).map(Vec::as_slice);
                let runs_there = node.is_some_and(|node| matches!(own, Some([own]) if own == node));
                name_only && runs_there && service_account(&caller.name).is_some()
            }
            Self::ArbitraryNode => name_only && node.is_some(),
            Self::ServiceAccount => name_only && account.is_some(),
            Self::UserInfo => node.is_none() && account.is_none(),
            Self::Legacy => true,
        }
    }
}

/// Asks for one mode. `request` is what the caller asks for. `None`: the mode is not about such users.
pub async fn check(
    mode: Mode,
    authorizer: &dyn Authorizer,
    wanted: &UserInfo,
    request: &Attributes<'_>,
) -> Option<Result<UserInfo, Status>> {
    if !mode.is_for(wanted, request.user) {
        return None;
    }
    // the node is known to be the caller's own, so a right is for whichever it is; the caller is asked about without
    // what names it
    let bare;
    let mut caller = request.user;
    if mode == Mode::AssociatedNode {
        bare = without_extra(caller);
        caller = &bare;
    }
    Some(Asking { mode, authorizer, caller }.check(wanted, request).await)
}

fn without_extra(user: &UserInfo) -> UserInfo {
    let keys = user.extra.keys().cloned().collect();
    let extra = [("authentication.kubernetes.io/associated-node-keys".to_owned(), keys)];
    UserInfo { extra: extra.into(), ..user.clone() }
}

struct Asking<'a> {
    mode: Mode,
    authorizer: &'a dyn Authorizer,
    caller: &'a UserInfo,
}

impl Asking<'_> {
    fn is_constrained(&self) -> bool {
        self.mode != Mode::Legacy
    }

    async fn check(&self, wanted: &UserInfo, request: &Attributes<'_>) -> Result<UserInfo, Status> {
        if self.is_constrained() {
            let verb = format!("impersonate-on:{}:{}", self.mode.name(), request.verb);
            self.confirm(Attributes { user: self.caller, verb: &verb, ..*request }).await?;
        }
        let mut user = wanted.clone();
        self.username(wanted, &mut user).await?;
        if !wanted.uid.is_empty() {
            self.confirm(Attributes { name: &wanted.uid, ..self.about(AUTHENTICATION, "uids") }).await?;
        }
        self.groups(&wanted.groups).await?;
        self.extra(&wanted.extra).await?;
        if user.name == ANONYMOUS {
            add_group(&mut user, ALL_UNAUTHENTICATED);
        } else if !user.is_in(ALL_UNAUTHENTICATED) {
            add_group(&mut user, ALL_AUTHENTICATED);
        }
        Ok(user)
    }

    fn about<'b>(&'b self, group: &'b str, resource: &'b str) -> Attributes<'b> {
        let verb = self.mode.verb();
        Attributes { api_version: "v1", ..Attributes::resource(self.caller, verb, group, resource) }
    }

    /// The group of users and groups; they were core resources once.
    fn group(&self) -> &'static str {
        if self.is_constrained() { AUTHENTICATION } else { "" }
    }

    async fn confirm(&self, attributes: Attributes<'_>) -> Result<(), Status> {
        let verdict = self.authorizer.authorize(&attributes).await;
        if verdict.is_allowed() { Ok(()) } else { Err(attributes.forbidden(&verdict.reason)) }
    }

    async fn username(&self, wanted: &UserInfo, user: &mut UserInfo) -> Result<(), Status> {
        let mut asked = Attributes { name: &wanted.name, ..self.about(self.group(), "users") };
        if let Some(node) = node_name(&wanted.name).filter(|_| self.is_constrained()) {
            asked.resource = "nodes";
            asked.name = if self.mode == Mode::AssociatedNode { "*" } else { node };
            user.groups = vec![NODES_GROUP.into()];
        }
        if let Some((namespace, name)) = service_account(&wanted.name) {
            (asked.resource, asked.namespace, asked.name) = ("serviceaccounts", namespace, name);
            if wanted.groups.is_empty() {
                user.groups = UserInfo::service_account(namespace, name, "").groups;
            }
        }
        self.confirm(asked).await
    }

    async fn groups(&self, groups: &[String]) -> Result<(), Status> {
        if groups.is_empty() {
            return Ok(());
        }
        let about = self.about(self.group(), "groups");
        if self.is_constrained() {
            if groups.iter().any(String::is_empty) {
                return Err(about.forbidden("impersonating the empty string group is not allowed"));
            }
            if groups.iter().any(|group| group == SYSTEM_PRIVILEGED_GROUP) {
                let about = Attributes { name: SYSTEM_PRIVILEGED_GROUP, ..about };
                return Err(about.forbidden("impersonating the system:masters group is not allowed"));
            }
            if groups.len() >= MANY && self.confirm(Attributes { name: "*", ..about }).await.is_ok() {
                return Ok(());
            }
        }
        for group in groups {
            self.confirm(Attributes { name: group, ..about }).await?;
        }
        Ok(())
    }

    async fn extra(&self, extra: &BTreeMap<String, Vec<String>>) -> Result<(), Status> {
        if extra.is_empty() {
            return Ok(());
        }
        let about = self.about(AUTHENTICATION, "userextras");
        if self.is_constrained() {
            if let Err(why) = validate_extra(extra) {
                return Err(about.forbidden(&why));
            }
            let count: usize = extra.values().map(Vec::len).sum();
            let all = Attributes { subresource: "*", name: "*", ..about };
            if extra.len().max(count) >= MANY && self.confirm(all).await.is_ok() {
                return Ok(());
            }
        }
        for (key, values) in extra {
            for value in values {
                self.confirm(Attributes { subresource: key, name: value, ..about }).await?;
            }
        }
        Ok(())
    }
}

fn add_group(user: &mut UserInfo, group: &str) {
    if !user.is_in(group) {
        user.groups.push(group.to_owned());
    }
}

/// What the old way lets pass that the new ones do not.
fn validate_extra(extra: &BTreeMap<String, Vec<String>>) -> Result<(), String> {
    for (key, values) in extra {
        if key.is_empty() {
            return Err("impersonating the empty string key in extra is not allowed".into());
        }
        let wrong = domain_prefixed_path(key, Path::new("extra").child("key"));
        if let Some(error) = wrong.first() {
            return Err(format!("impersonating an invalid key in extra is not allowed: {error}"));
        }
        if key.chars().any(char::is_uppercase) {
            return Err(format!("impersonating a non-lowercase key in extra is not allowed: {key:?}"));
        }
        if values.is_empty() {
            return Err("impersonating empty values in extra is not allowed".into());
        }
        if values.iter().any(String::is_empty) {
            return Err("impersonating the empty string value in extra is not allowed".into());
        }
    }
    Ok(())
}

fn node_name(username: &str) -> Option<&str> {
    let name = username.strip_prefix("system:node:")?;
    validation::is_dns1123_subdomain(name).is_empty().then_some(name)
}

/// Namespace and name, of a username that is a service account's.
fn service_account(username: &str) -> Option<(&str, &str)> {
    let (namespace, name) = username.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let good = validation::is_dns1123_label(namespace).is_empty()
        && validation::is_dns1123_subdomain(name).is_empty();
    good.then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::authorization::{UserRules, Verdict};

    /// Allows what is listed: verb, group, resource, name.
    struct Allows(Vec<&'static str>);

    #[async_trait]
    impl Authorizer for Allows {
        async fn authorize(&self, asked: &Attributes<'_>) -> Verdict {
            let resource = match asked.subresource {
                "" => asked.resource.to_owned(),
                subresource => format!("{}/{subresource}", asked.resource),
            };
            let shown = format!("{} {} {resource} {}", asked.verb, asked.api_group, asked.name);
            match self.0.contains(&shown.as_str()) {
                true => Verdict::allow(""),
                false => Verdict::no_opinion(shown),
            }
        }

        async fn rules_for(&self, _: &UserInfo, _: &str) -> UserRules {
            UserRules::default()
        }
    }

    fn agent(node: &str) -> UserInfo {
        let mut agent = UserInfo::service_account("ns", "agent", "");
        agent.extra.insert(NODE_NAME_KEY.into(), vec![node.into()]);
        agent
    }

    fn wanted(name: &str) -> UserInfo {
        UserInfo { name: name.into(), ..UserInfo::default() }
    }

    /// A try to list pods as somebody: the groups that come out, or the reason that it is refused for.
    async fn attempt(
        mode: Mode,
        caller: &UserInfo,
        wanted: &UserInfo,
        allowed: &[&'static str],
    ) -> Option<Result<Vec<String>, String>> {
        let authorizer = Allows(allowed.to_vec());
        let request = Attributes { name: "p", ..Attributes::resource(caller, "list", "", "pods") };
        let outcome = check(mode, &authorizer, wanted, &request).await?;
        Some(outcome.map(|user| user.groups).map_err(|status| status.message))
    }

    #[tokio::test]
    async fn modes_are_about_some_users() {
        let jane = UserInfo::new("jane", &[]);
        let grouped = UserInfo { groups: vec!["g".into()], ..wanted("system:node:n") };
        for (mode, caller, user, applies) in [
            (Mode::AssociatedNode, &agent("n"), wanted("system:node:n"), true),
            (Mode::AssociatedNode, &agent("m"), wanted("system:node:n"), false),
            (Mode::AssociatedNode, &jane, wanted("system:node:n"), false),
            (Mode::AssociatedNode, &agent("n"), grouped.clone(), false),
            (Mode::ArbitraryNode, &jane, wanted("system:node:n"), true),
            (Mode::ArbitraryNode, &jane, wanted("system:node:N!"), false),
            (Mode::ArbitraryNode, &jane, grouped.clone(), false),
            (Mode::ServiceAccount, &jane, wanted("system:serviceaccount:a:b"), true),
            (Mode::ServiceAccount, &jane, wanted("system:serviceaccount:a"), false),
            (Mode::UserInfo, &jane, wanted("joe"), true),
            (Mode::UserInfo, &jane, wanted("system:node:n"), false),
            (Mode::UserInfo, &jane, wanted("system:serviceaccount:a:b"), false),
            (Mode::Legacy, &jane, grouped, true),
        ] {
            let outcome = attempt(mode, caller, &user, &[]).await;
            assert_eq!(outcome.is_some(), applies, "{mode:?} {user:?}");
        }
    }

    #[tokio::test]
    async fn each_mode_takes_its_own_rights() {
        let jane = UserInfo::new("jane", &[]);
        let full = UserInfo {
            uid: "u".into(),
            groups: vec!["dev".into()],
            extra: [("example.com/k".to_owned(), vec!["v".to_owned()])].into(),
            ..wanted("joe")
        };
        let cases: [(Mode, &UserInfo, UserInfo, &[&str], &[&str]); 6] = [
            (
                Mode::AssociatedNode,
                &agent("n"),
                wanted("system:node:n"),
                &[
                    "impersonate-on:associated-node:list  pods p",
                    "impersonate:associated-node authentication.k8s.io nodes *",
                ],
                &["system:nodes", "system:authenticated"],
            ),
            (
                Mode::ArbitraryNode,
                &jane,
                wanted("system:node:n"),
                &[
                    "impersonate-on:arbitrary-node:list  pods p",
                    "impersonate:arbitrary-node authentication.k8s.io nodes n",
                ],
                &["system:nodes", "system:authenticated"],
            ),
            (
                Mode::ServiceAccount,
                &jane,
                wanted("system:serviceaccount:a:b"),
                &[
                    "impersonate-on:serviceaccount:list  pods p",
                    "impersonate:serviceaccount authentication.k8s.io serviceaccounts b",
                ],
                &["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"],
            ),
            (
                Mode::UserInfo,
                &jane,
                full.clone(),
                &[
                    "impersonate-on:user-info:list  pods p",
                    "impersonate:user-info authentication.k8s.io users joe",
                    "impersonate:user-info authentication.k8s.io uids u",
                    "impersonate:user-info authentication.k8s.io groups dev",
                    "impersonate:user-info authentication.k8s.io userextras/example.com/k v",
                ],
                &["dev", "system:authenticated"],
            ),
            (
                Mode::Legacy,
                &jane,
                full,
                &[
                    "impersonate  users joe",
                    "impersonate authentication.k8s.io uids u",
                    "impersonate  groups dev",
                    "impersonate authentication.k8s.io userextras/example.com/k v",
                ],
                &["dev", "system:authenticated"],
            ),
            (
                Mode::Legacy,
                &jane,
                wanted(ANONYMOUS),
                &["impersonate  users system:anonymous"],
                &[ALL_UNAUTHENTICATED],
            ),
        ];
        for (mode, caller, user, rights, groups) in cases {
            let outcome = attempt(mode, caller, &user, rights).await;
            let groups = groups.iter().map(|group| (*group).to_owned()).collect();
            assert_eq!(outcome, Some(Ok(groups)), "{mode:?}");
            // each of them is needed, and its lack is said
            for missing in rights {
                let others: Vec<&str> = rights.iter().copied().filter(|right| right != missing).collect();
                let refused = attempt(mode, caller, &user, &others).await.unwrap().unwrap_err();
                assert!(refused.ends_with(missing), "{refused} does not say {missing}");
            }
        }
    }

    #[tokio::test]
    async fn the_new_ways_refuse_what_the_old_one_lets_pass() {
        let jane = UserInfo::new("jane", &[]);
        let rights = [
            "impersonate-on:user-info:list  pods p",
            "impersonate:user-info authentication.k8s.io users joe",
        ];
        let groups = |groups: &[&str]| {
            let groups = groups.iter().map(|group| (*group).to_owned()).collect();
            UserInfo { groups, ..wanted("joe") }
        };
        let extra = |key: &str, values: &[&str]| {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            UserInfo { extra: [(key.to_owned(), values)].into(), ..wanted("joe") }
        };
        for (user, why) in [
            (groups(&["a", ""]), "impersonating the empty string group is not allowed"),
            (groups(&["system:masters"]), "impersonating the system:masters group is not allowed"),
            (extra("", &["v"]), "impersonating the empty string key in extra is not allowed"),
            (extra("scopes", &["v"]), "must be a domain-prefixed path (such as \"acme.io/foo\")"),
            (
                extra("a.io/K", &["v"]),
                "impersonating a non-lowercase key in extra is not allowed: \"a.io/K\"",
            ),
            (extra("a.io/k", &[]), "impersonating empty values in extra is not allowed"),
            (extra("a.io/k", &[""]), "impersonating the empty string value in extra is not allowed"),
        ] {
            let refused = attempt(Mode::UserInfo, &jane, &user, &rights).await.unwrap().unwrap_err();
            assert!(refused.ends_with(why), "{refused}");
        }
    }

    #[tokio::test]
    async fn many_groups_take_one_right() {
        let jane = UserInfo::new("jane", &[]);
        let groups = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        let user = UserInfo { groups, ..wanted("joe") };
        let rights = [
            "impersonate-on:user-info:list  pods p",
            "impersonate:user-info authentication.k8s.io users joe",
            "impersonate:user-info authentication.k8s.io groups *",
        ];
        assert!(attempt(Mode::UserInfo, &jane, &user, &rights).await.unwrap().is_ok());
        let fewer = UserInfo { groups: user.groups[..3].to_vec(), ..user };
        assert!(attempt(Mode::UserInfo, &jane, &fewer, &rights).await.unwrap().is_err());
    }
}
