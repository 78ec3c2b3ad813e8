//! RBAC: an index of roles and bindings, fed object by object, that answers by subject.
//!
//! A decision looks up the bindings of the user and of each of the user's groups, for the cluster and for the
//! request's namespace, and nothing else. It knows roles and bindings only as trees and never fetches any.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use apimachinery::Object;
use async_trait::async_trait;
use parking_lot::RwLock;
use serde_json::Value;

use super::rules::{self, NonResourceRule, ResourceRule, Rule};
use super::{Attributes, Authorizer, UserRules, Verdict};
use crate::authentication::{UserInfo, service_account_username};

/// The kinds that make up the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    ClusterRole,
    ClusterRoleBinding,
    Role,
    RoleBinding,
}

impl Kind {
    pub fn parse(kind: &str) -> Option<Self> {
        match kind {
            "ClusterRole" => Some(Self::ClusterRole),
            "ClusterRoleBinding" => Some(Self::ClusterRoleBinding),
            "Role" => Some(Self::Role),
            "RoleBinding" => Some(Self::RoleBinding),
            _ => None,
        }
    }
}

#[derive(Debug)]
struct RoleRef {
    kind: String,
    name: String,
}

/// A binding as the index keeps it: what to call it in a reason, and the role.
#[derive(Debug)]
struct Binding {
    name: String,
    namespace: String,
    role: RoleRef,
    subjects: Vec<Subject>,
}

#[derive(Debug, PartialEq, Eq)]
struct Subject {
    kind: String,
    name: String,
    namespace: String,
}

/// Whom a subject stands for.
#[derive(Debug, PartialEq, Eq)]
enum Holder<'s> {
    User(Cow<'s, str>),
    Group(&'s str),
}

impl Subject {
    fn holder(&self, binding_namespace: &str) -> Option<Holder<'_>> {
        match self.kind.as_str() {
            "User" => Some(Holder::User(Cow::Borrowed(&self.name))),
            "Group" => Some(Holder::Group(&self.name)),
            "ServiceAccount" => match self.namespace_or(binding_namespace) {
                "" => None,
                namespace => Some(Holder::User(service_account_username(namespace, &self.name).into())),
            },
            _ => None,
        }
    }

    fn namespace_or<'a>(&'a self, binding_namespace: &'a str) -> &'a str {
        if self.namespace.is_empty() { binding_namespace } else { &self.namespace }
    }
}

impl Binding {
    fn new(object: &Object) -> Self {
        let text = |value: &Value, field: &str| {
            value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let subjects = object.get_array(&["subjects"]).iter().map(|subject| Subject {
            kind: text(subject, "kind"),
            name: text(subject, "name"),
            namespace: text(subject, "namespace"),
        });
        Self {
            name: object.name().to_owned(),
            namespace: object.namespace().to_owned(),
            role: RoleRef {
                kind: object.get_str(&["roleRef", "kind"]).to_owned(),
                name: object.get_str(&["roleRef", "name"]).to_owned(),
            },
            subjects: subjects.collect(),
        }
    }

    /// `ClusterRoleBinding "a" of ClusterRole "b" to Group "c"`.
    fn describe(&self, subject: usize) -> String {
        let RoleRef { kind, name } = &self.role;
        let subject = &self.subjects[subject];
        let holder = match subject.kind.as_str() {
            "ServiceAccount" => {
                format!("{}/{}", subject.name, subject.namespace_or(&self.namespace))
            }
            _ => subject.name.clone(),
        };
        let holder = format!("{} {holder:?}", subject.kind);
        match self.namespace.as_str() {
            "" => format!("ClusterRoleBinding {:?} of {kind} {name:?} to {holder}", self.name),
            namespace => {
                let binding = format!("{}/{namespace}", self.name);
                format!("RoleBinding {binding:?} of {kind} {name:?} to {holder}")
            }
        }
    }
}

/// A binding, and which of its subjects led to it.
type Held = (Arc<Binding>, usize);

/// The bindings of the cluster, or of one namespace.
#[derive(Default)]
struct Scope {
    roles: HashMap<String, Arc<[Rule]>>,
    bindings: HashMap<String, Arc<Binding>>,
    users: HashMap<String, Vec<Held>>,
    groups: HashMap<String, Vec<Held>>,
}

impl Scope {
    fn bind(&mut self, binding: Binding) {
        self.unbind(&binding.name);
        let binding = Arc::new(binding);
        for (index, subject) in binding.subjects.iter().enumerate() {
            let held = (binding.clone(), index);
            match subject.holder(&binding.namespace) {
                Some(Holder::User(name)) => self.users.entry(name.into_owned()).or_default().push(held),
                Some(Holder::Group(name)) => self.groups.entry(name.to_owned()).or_default().push(held),
                None => {}
            }
        }
        self.bindings.insert(binding.name.clone(), binding);
    }

    fn unbind(&mut self, name: &str) {
        let Some(binding) = self.bindings.remove(name) else { return };
        for subject in &binding.subjects {
            match subject.holder(&binding.namespace) {
                Some(Holder::User(name)) => release(&mut self.users, &name, &binding),
                Some(Holder::Group(name)) => release(&mut self.groups, name, &binding),
                None => {}
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.roles.is_empty() && self.bindings.is_empty()
    }

    /// The bindings that apply to a user.
    fn held_by<'s>(&'s self, user: &'s UserInfo) -> impl Iterator<Item = &'s Held> {
        let own = self.users.get(&user.name).into_iter();
        let by_group = user.groups.iter().filter_map(|group| self.groups.get(group));
        own.chain(by_group).flatten()
    }
}

fn release(holders: &mut HashMap<String, Vec<Held>>, name: &str, binding: &Arc<Binding>) {
    if let Some(held) = holders.get_mut(name) {
        held.retain(|(other, _)| !Arc::ptr_eq(other, binding));
        if held.is_empty() {
            holders.remove(name);
        }
    }
}

#[derive(Default)]
struct Policy {
    cluster: Scope,
    namespaces: HashMap<String, Scope>,
}

impl Policy {
    /// The rules of a binding's role, or why there are none.
    fn rules(&self, binding: &Binding) -> Result<&Arc<[Rule]>, String> {
        let name = &binding.role.name;
        let missing = |kind: &str| format!("{kind}.rbac.authorization.k8s.io {name:?} not found");
        match binding.role.kind.as_str() {
            "ClusterRole" => self.cluster.roles.get(name).ok_or_else(|| missing("clusterrole")),
            "Role" => {
                let scope = self.namespaces.get(&binding.namespace);
                scope.and_then(|scope| scope.roles.get(name)).ok_or_else(|| missing("role"))
            }
            kind => Err(format!("unsupported role reference kind: {kind:?}")),
        }
    }

    fn held_by<'s>(&'s self, user: &'s UserInfo, namespace: &str) -> impl Iterator<Item = &'s Held> {
        let namespaced = if namespace.is_empty() { None } else { self.namespaces.get(namespace) };
        self.cluster.held_by(user).chain(namespaced.into_iter().flat_map(|scope| scope.held_by(user)))
    }
}

/// The RBAC authorizer. Many requests read, and changes of policy are rare and short: one lock.
#[derive(Default)]
pub struct Rbac(RwLock<Policy>);

impl Rbac {
    pub fn upsert(&self, kind: Kind, object: &Object) {
        let policy = &mut *self.0.write();
        let scope = match kind {
            Kind::ClusterRole | Kind::ClusterRoleBinding => &mut policy.cluster,
            Kind::Role | Kind::RoleBinding => {
                policy.namespaces.entry(object.namespace().to_owned()).or_default()
            }
        };
        match kind {
            Kind::ClusterRole | Kind::Role => {
                let rules = Rule::list(object.get(&["rules"])).into();
                scope.roles.insert(object.name().to_owned(), rules);
            }
            Kind::ClusterRoleBinding | Kind::RoleBinding => scope.bind(Binding::new(object)),
        }
    }

    pub fn remove(&self, kind: Kind, namespace: &str, name: &str) {
        let policy = &mut *self.0.write();
        match kind {
            Kind::ClusterRole => drop(policy.cluster.roles.remove(name)),
            Kind::ClusterRoleBinding => policy.cluster.unbind(name),
            Kind::Role | Kind::RoleBinding => {
                let Some(scope) = policy.namespaces.get_mut(namespace) else { return };
                match kind {
                    Kind::Role => drop(scope.roles.remove(name)),
                    _ => scope.unbind(name),
                }
                if scope.is_empty() {
                    policy.namespaces.remove(namespace);
                }
            }
        }
    }

    pub fn decide(&self, request: &Attributes<'_>) -> Verdict {
        let policy = self.0.read();
        let mut errors = Vec::new();
        let namespace = if request.is_resource { request.namespace } else { "" };
        for (binding, subject) in policy.held_by(request.user, namespace) {
            match policy.rules(binding) {
                Ok(rules) => {
                    if rules.iter().any(|rule| rule.allows(request)) {
                        return Verdict::allow(format!("RBAC: allowed by {}", binding.describe(*subject)));
                    }
                }
                Err(error) => errors.push(error),
            }
        }
        match aggregate(&errors) {
            None => Verdict::no_opinion(""),
            Some(errors) => Verdict::no_opinion(format!("RBAC: {errors}")),
        }
    }

    /// All rules that apply to a user in a namespace (empty: of the cluster only), and what could not be found.
    pub fn effective_rules(&self, user: &UserInfo, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let policy = self.0.read();
        let (mut found, mut errors) = (Vec::new(), Vec::new());
        for (binding, _) in policy.held_by(user, namespace) {
            match policy.rules(binding) {
                Ok(rules) => found.extend(rules.iter().cloned()),
                Err(error) => errors.push(error),
            }
        }
        (found, errors)
    }

    /// The rules of the role that a binding in `namespace` (empty: of the cluster) refers to.
    pub fn role_rules(&self, namespace: &str, kind: &str, name: &str) -> Result<Vec<Rule>, String> {
        let binding = Binding {
            name: String::new(),
            namespace: namespace.to_owned(),
            role: RoleRef { kind: kind.to_owned(), name: name.to_owned() },
            subjects: Vec::new(),
        };
        self.0.read().rules(&binding).map(|rules| rules.to_vec())
    }

    /// Fails, in upstream's words, when the user does not hold all that the rules would grant.
    pub fn confirm_no_escalation(
        &self,
        user: &UserInfo,
        namespace: &str,
        wanted: &[Rule],
    ) -> Result<(), String> {
        let (own, errors) = self.effective_rules(user, namespace);
        let missing = rules::uncovered(&own, wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let missing: BTreeSet<String> = rules::compact(missing).iter().map(Rule::compact_string).collect();
        let missing: Vec<String> = missing.into_iter().collect();
        let groups: Vec<String> = user.groups.iter().map(|group| format!("{group:?}")).collect();
        let mut message = format!(
            "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            groups.join(" "),
            missing.join("\n")
        );
        if let Some(errors) = aggregate(&errors) {
            message.push_str(&format!("; resolution errors: [{errors}]"));
        }
        Err(message)
    }
}

/// Several errors in one line, each once, as Go's aggregate shows them.
fn aggregate(errors: &[String]) -> Option<String> {
    let mut seen: Vec<&str> = Vec::new();
    for error in errors {
        if !seen.contains(&error.as_str()) {
            seen.push(error);
        }
    }
    match seen.as_slice() {
        [] => None,
        [one] => Some((*one).to_owned()),
        many => Some(format!("[{}]", many.join(", "))),
    }
}

#[async_trait]
impl Authorizer for Rbac {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Verdict {
        self.decide(attributes)
    }

    async fn rules_for(&self, user: &UserInfo, namespace: &str) -> UserRules {
        let (rules, errors) = self.effective_rules(user, namespace);
        let mut out = UserRules { errors: aggregate(&errors).into_iter().collect(), ..UserRules::default() };
        for rule in rules {
            if !rule.resources.is_empty() {
                out.resource.push(ResourceRule {
                    verbs: rule.verbs.clone(),
                    api_groups: rule.api_groups,
                    resources: rule.resources,
                    resource_names: rule.resource_names,
                });
            }
            if !rule.non_resource_urls.is_empty() {
                out.non_resource
                    .push(NonResourceRule { verbs: rule.verbs, non_resource_urls: rule.non_resource_urls });
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn role(namespace: &str, name: &str, verbs: &[&str], resources: &[&str]) -> Object {
        Object::from(json!({
            "metadata": {"namespace": namespace, "name": name},
            "rules": [{"apiGroups": [""], "resources": resources, "verbs": verbs}],
        }))
    }

    fn binding(namespace: &str, name: &str, role: (&str, &str), subjects: Value) -> Object {
        Object::from(json!({
            "metadata": {"namespace": namespace, "name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role.0, "name": role.1},
            "subjects": subjects,
        }))
    }

    fn policy() -> Rbac {
        let rbac = Rbac::default();
        rbac.upsert(Kind::ClusterRole, &role("", "reader", &["get", "list"], &["pods"]));
        rbac.upsert(Kind::Role, &role("a", "writer", &["create"], &["pods"]));
        rbac.upsert(
            Kind::ClusterRoleBinding,
            &binding("", "readers", ("ClusterRole", "reader"), json!([{"kind": "Group", "name": "devs"}])),
        );
        rbac.upsert(
            Kind::RoleBinding,
            &binding(
                "a",
                "writers",
                ("Role", "writer"),
                json!([{"kind": "User", "name": "jane"}, {"kind": "ServiceAccount", "name": "bot"}]),
            ),
        );
        rbac.upsert(
            Kind::RoleBinding,
            &binding("b", "local", ("ClusterRole", "reader"), json!([{"kind": "User", "name": "joe"}])),
        );
        rbac
    }

    fn ask(rbac: &Rbac, user: &UserInfo, verb: &str, namespace: &str) -> String {
        let verdict = rbac.decide(&Attributes { namespace, ..Attributes::resource(user, verb, "", "pods") });
        format!("{:?} {}", verdict.decision, verdict.reason).trim_end().to_owned()
    }

    #[test]
    fn decisions_name_the_binding() {
        let rbac = policy();
        let dev = UserInfo::new("ann", &["devs"]);
        let jane = UserInfo::new("jane", &[]);
        let joe = UserInfo::new("joe", &[]);
        let bot = UserInfo::service_account("a", "bot", "");
        let cases = [
            (
                &dev,
                "list",
                "",
                r#"Allow RBAC: allowed by ClusterRoleBinding "readers" of ClusterRole "reader" to Group "devs""#,
            ),
            (
                &dev,
                "list",
                "b",
                r#"Allow RBAC: allowed by ClusterRoleBinding "readers" of ClusterRole "reader" to Group "devs""#,
            ),
            (&dev, "create", "a", "NoOpinion"),
            (
                &jane,
                "create",
                "a",
                r#"Allow RBAC: allowed by RoleBinding "writers/a" of Role "writer" to User "jane""#,
            ),
            (&jane, "create", "b", "NoOpinion"),
            (&jane, "create", "", "NoOpinion"),
            (
                &bot,
                "create",
                "a",
                r#"Allow RBAC: allowed by RoleBinding "writers/a" of Role "writer" to ServiceAccount "bot/a""#,
            ),
            (
                &joe,
                "get",
                "b",
                r#"Allow RBAC: allowed by RoleBinding "local/b" of ClusterRole "reader" to User "joe""#,
            ),
            (&joe, "get", "", "NoOpinion"),
        ];
        for (user, verb, namespace, verdict) in cases {
            assert_eq!(ask(&rbac, user, verb, namespace), verdict, "{} {verb} {namespace}", user.name);
        }
    }

    #[test]
    fn the_index_follows_changes() {
        let rbac = policy();
        let jane = UserInfo::new("jane", &[]);
        let allowed = |rbac: &Rbac| ask(rbac, &jane, "create", "a").starts_with("Allow");
        assert!(allowed(&rbac));
        rbac.upsert(
            Kind::RoleBinding,
            &binding("a", "writers", ("Role", "writer"), json!([{"kind": "User", "name": "other"}])),
        );
        assert!(!allowed(&rbac), "no longer a subject");
        rbac.upsert(
            Kind::RoleBinding,
            &binding("a", "writers", ("Role", "writer"), json!([{"kind": "User", "name": "jane"}])),
        );
        assert!(allowed(&rbac));
        rbac.upsert(Kind::Role, &role("a", "writer", &["get"], &["pods"]));
        assert!(!allowed(&rbac), "the role grants something else");
        rbac.remove(Kind::Role, "a", "writer");
        assert_eq!(
            ask(&rbac, &jane, "create", "a"),
            r#"NoOpinion RBAC: role.rbac.authorization.k8s.io "writer" not found"#
        );
        rbac.remove(Kind::RoleBinding, "a", "writers");
        assert_eq!(ask(&rbac, &jane, "create", "a"), "NoOpinion");
        assert!(!rbac.0.read().namespaces.contains_key("a"), "nothing is left of an empty namespace");
        rbac.remove(Kind::RoleBinding, "gone", "writers");
    }

    #[test]
    fn nobody_grants_more_than_they_hold() {
        let rbac = policy();
        let dev = UserInfo::new("ann", &["devs"]);
        let rules = |value: Value| Rule::list(Some(&value));
        let own = rules(json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]));
        assert_eq!(rbac.confirm_no_escalation(&dev, "", &own), Ok(()));
        let more =
            rules(json!([{"apiGroups": [""], "resources": ["pods", "secrets"], "verbs": ["get", "watch"]}]));
        assert_eq!(
            rbac.confirm_no_escalation(&dev, "", &more).unwrap_err(),
            "user \"ann\" (groups=[\"devs\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n\
             {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"watch\"]}\n\
             {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"watch\"]}"
        );
        assert_eq!(rbac.role_rules("a", "Role", "writer").map(|rules| rules.len()), Ok(1));
        assert!(rbac.role_rules("b", "Role", "writer").is_err());
    }

    #[tokio::test]
    async fn a_user_can_list_own_rules() {
        let rbac = policy();
        let jane = UserInfo::new("jane", &["devs"]);
        let rules = rbac.rules_for(&jane, "a").await;
        assert_eq!(rules.resource.len(), 2);
        assert!(!rules.incomplete);
        assert_eq!(rbac.rules_for(&jane, "b").await.resource.len(), 1);
    }
}
