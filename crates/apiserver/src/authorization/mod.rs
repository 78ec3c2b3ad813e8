//! Whether a user may do what a request asks for.
//!
//! [`Attributes`] is all that an authorizer may look at. The chain is the privileged group, then those that were
//! chosen ([`config`]): the node authorizer ([`node`]), then RBAC ([`rbac`]), and webhooks where they are named; what
//! nobody has an opinion on is forbidden.

pub mod bootstrap;
pub mod config;
pub mod node;
pub(crate) mod node_graph;
pub mod rbac;
pub mod reconcile;
pub mod rules;
mod webhook;

use std::sync::Arc;

use apimachinery::selectors::{FieldRequirement, Requirement};
use apimachinery::{GroupResource, Status};
use async_trait::async_trait;

use crate::authentication::{SYSTEM_PRIVILEGED_GROUP, UserInfo};
use rules::{NonResourceRule, ResourceRule};

/// What a request asks for, from its path, method and query.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    pub user: &'a UserInfo,
    /// `get`, `list`, `create` …; the lower-case method for paths that are no resources.
    pub verb: &'a str,
    pub namespace: &'a str,
    pub api_group: &'a str,
    pub api_version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub name: &'a str,
    pub path: &'a str,
    pub is_resource: bool,
    /// What a list, a watch or a deletion of many is narrowed to.
    pub field_selector: &'a [FieldRequirement],
    pub label_selector: &'a [Requirement],
}

impl<'a> Attributes<'a> {
    /// A request for a resource in all namespaces or of cluster scope; the rest is set by the caller.
    pub fn resource(user: &'a UserInfo, verb: &'a str, api_group: &'a str, resource: &'a str) -> Self {
        Self {
            user,
            verb,
            namespace: "",
            api_group,
            api_version: "",
            resource,
            subresource: "",
            name: "",
            path: "",
            is_resource: true,
            field_selector: &[],
            label_selector: &[],
        }
    }

    /// A request for a path that is no resource.
    pub fn path(user: &'a UserInfo, verb: &'a str, path: &'a str) -> Self {
        Self { path, is_resource: false, ..Self::resource(user, verb, "", "") }
    }

    /// What the user may not do, in upstream's words.
    pub fn forbidden_message(&self) -> String {
        let Self { verb, path, resource, api_group, namespace, .. } = self;
        let user = &self.user.name;
        if !self.is_resource {
            return format!("User {user:?} cannot {verb} path {path:?}");
        }
        let resource = match self.subresource {
            "" => (*resource).to_owned(),
            subresource => format!("{resource}/{subresource}"),
        };
        let what = format!("User {user:?} cannot {verb} resource {resource:?} in API group {api_group:?}");
        match *namespace {
            "" => format!("{what} at the cluster scope"),
            namespace => format!("{what} in the namespace {namespace:?}"),
        }
    }

    /// The answer to a request that is not allowed.
    pub fn forbidden(&self, reason: &str) -> Status {
        // Not to be taken for HTML by a browser.
        let message =
            self.forbidden_message().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let why = if reason.is_empty() { message } else { format!("{message}: {reason}") };
        Status::forbidden(&GroupResource::new(self.api_group, self.resource), self.name, why)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow,
    Deny,
    /// Let the next one decide.
    NoOpinion,
}

/// A decision with its reason, which may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub decision: Decision,
    pub reason: String,
    /// What kept an authorizer from deciding.
    pub errors: Vec<String>,
}

impl Verdict {
    pub fn allow(reason: impl Into<String>) -> Self {
        Self { decision: Decision::Allow, reason: reason.into(), errors: Vec::new() }
    }

    pub fn no_opinion(reason: impl Into<String>) -> Self {
        Self { decision: Decision::NoOpinion, reason: reason.into(), errors: Vec::new() }
    }

    pub fn deny(reason: impl Into<String>) -> Self {
        Self { decision: Decision::Deny, reason: reason.into(), errors: Vec::new() }
    }

    pub fn is_allowed(&self) -> bool {
        self.decision == Decision::Allow
    }

    /// All errors in one line, if there are any.
    pub fn error(&self) -> Option<String> {
        match self.errors.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            more => Some(format!("[{}]", more.join(", "))),
        }
    }
}

/// What a user may do, as far as it can be listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserRules {
    pub resource: Vec<ResourceRule>,
    pub non_resource: Vec<NonResourceRule>,
    /// There may be more than is listed.
    pub incomplete: bool,
    pub errors: Vec<String>,
}

/// Decides requests. Asynchronous for those that ask somebody else.
#[async_trait]
pub trait Authorizer: Send + Sync {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Verdict;

    /// For `SelfSubjectRulesReview`.
    async fn rules_for(&self, user: &UserInfo, namespace: &str) -> UserRules;
}

/// Asks one after the other until one allows or denies.
pub struct Union(Vec<Arc<dyn Authorizer>>);

impl Union {
    pub fn new(authorizers: Vec<Arc<dyn Authorizer>>) -> Self {
        Self(authorizers)
    }
}

#[async_trait]
impl Authorizer for Union {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Verdict {
        let (mut reasons, mut errors): (Vec<String>, Vec<String>) = Default::default();
        for authorizer in &self.0 {
            let verdict = authorizer.authorize(attributes).await;
            if verdict.decision != Decision::NoOpinion {
                return verdict;
            }
            if !verdict.reason.is_empty() {
                reasons.push(verdict.reason);
            }
            errors.extend(verdict.errors);
        }
        Verdict { errors, ..Verdict::no_opinion(reasons.join("\n")) }
    }

    async fn rules_for(&self, user: &UserInfo, namespace: &str) -> UserRules {
        let mut all = UserRules::default();
        for authorizer in &self.0 {
            let rules = authorizer.rules_for(user, namespace).await;
            all.resource.extend(rules.resource);
            all.non_resource.extend(rules.non_resource);
            all.incomplete |= rules.incomplete;
            all.errors.extend(rules.errors);
        }
        all
    }
}

/// Allows everything to `system:masters`.
pub struct PrivilegedGroups;

#[async_trait]
impl Authorizer for PrivilegedGroups {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Verdict {
        if attributes.user.is_in(SYSTEM_PRIVILEGED_GROUP) {
            Verdict::allow("")
        } else {
            Verdict::no_opinion("")
        }
    }

    async fn rules_for(&self, _user: &UserInfo, _namespace: &str) -> UserRules {
        // RBAC lists what the group may do: it is bound to cluster-admin.
        UserRules::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_read_as_upstream() {
        let user = UserInfo::new("jane", &[]);
        let pods = Attributes::resource(&user, "list", "", "pods");
        let nodes = Attributes { name: "n1", ..Attributes::resource(&user, "get", "", "nodes") };
        let scale = Attributes {
            namespace: "y",
            subresource: "scale",
            ..Attributes::resource(&user, "patch", "apps", "deployments")
        };
        let cases = [
            (
                Attributes { namespace: "y", ..pods }.forbidden(""),
                "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"y\"",
            ),
            (
                nodes.forbidden("because"),
                "nodes \"n1\" is forbidden: User \"jane\" cannot get resource \"nodes\" in API group \"\" at the cluster scope: because",
            ),
            (
                scale.forbidden(""),
                "deployments.apps is forbidden: User \"jane\" cannot patch resource \"deployments/scale\" in API group \"apps\" in the namespace \"y\"",
            ),
            (
                Attributes::path(&user, "get", "/metrics?<b>").forbidden(""),
                "forbidden: User \"jane\" cannot get path \"/metrics?&lt;b&gt;\"",
            ),
        ];
        for (status, message) in cases {
            assert_eq!(status.message, message);
            assert_eq!(status.code, 403);
        }
    }

    struct Fixed(Verdict);

    #[async_trait]
    impl Authorizer for Fixed {
        async fn authorize(&self, _attributes: &Attributes<'_>) -> Verdict {
            self.0.clone()
        }

        async fn rules_for(&self, _user: &UserInfo, _namespace: &str) -> UserRules {
            UserRules { incomplete: true, errors: vec![self.0.reason.clone()], ..UserRules::default() }
        }
    }

    #[tokio::test]
    async fn the_first_opinion_counts() {
        let user = UserInfo::new("jane", &[]);
        let attributes = Attributes::resource(&user, "list", "", "pods");
        let fixed = |decision, reason: &str| -> Arc<dyn Authorizer> {
            Arc::new(Fixed(Verdict { decision, ..Verdict::allow(reason) }))
        };
        let none = || fixed(Decision::NoOpinion, "n");
        let cases = [
            (vec![], Verdict::no_opinion("")),
            (vec![none(), none()], Verdict::no_opinion("n\nn")),
            (vec![none(), fixed(Decision::Allow, "a"), fixed(Decision::Deny, "d")], Verdict::allow("a")),
            (vec![fixed(Decision::Deny, "d"), fixed(Decision::Allow, "a")], Verdict::deny("d")),
        ];
        for (chain, verdict) in cases {
            assert_eq!(Union::new(chain).authorize(&attributes).await, verdict);
        }
        let failed = |why: &str| Fixed(Verdict { errors: vec![why.to_owned()], ..Verdict::no_opinion("") });
        let broken: Vec<Arc<dyn Authorizer>> = vec![Arc::new(failed("x")), Arc::new(failed("y"))];
        let verdict = Union::new(broken).authorize(&attributes).await;
        assert_eq!((verdict.is_allowed(), verdict.error().as_deref()), (false, Some("[x, y]")));
        let rules = Union::new(vec![none(), none()]).rules_for(&user, "ns").await;
        assert!(rules.incomplete);
        assert_eq!(rules.errors, ["n", "n"]);
        let root = UserInfo::new("root", &[SYSTEM_PRIVILEGED_GROUP]);
        assert!(PrivilegedGroups.authorize(&Attributes { user: &root, ..attributes }).await.is_allowed());
        assert!(!PrivilegedGroups.authorize(&attributes).await.is_allowed());
    }
}
