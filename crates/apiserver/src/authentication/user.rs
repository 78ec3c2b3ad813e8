//! Who makes a request, with the names and groups that have a meaning to the system.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// An authenticated user, as upstream's `user.Info`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

pub const ANONYMOUS: &str = "system:anonymous";
pub const API_SERVER: &str = "system:apiserver";
pub const KUBE_CONTROLLER_MANAGER: &str = "system:kube-controller-manager";
/// The cluster's DNS on a node.
pub const COREDNS: &str = "system:coredns";
pub const KUBE_PROXY: &str = "system:kube-proxy";
pub const KUBE_SCHEDULER: &str = "system:kube-scheduler";

/// The group that every request of is allowed.
pub const SYSTEM_PRIVILEGED_GROUP: &str = "system:masters";
pub const NODES_GROUP: &str = "system:nodes";
pub const ALL_AUTHENTICATED: &str = "system:authenticated";
pub const ALL_UNAUTHENTICATED: &str = "system:unauthenticated";
pub const ALL_SERVICE_ACCOUNTS: &str = "system:serviceaccounts";

const NODE_USER_PREFIX: &str = "system:node:";
const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// The keys in a user's `extra` that authentication sets.
pub const CREDENTIAL_ID_KEY: &str = "authentication.kubernetes.io/credential-id";
pub const POD_NAME_KEY: &str = "authentication.kubernetes.io/pod-name";
pub const POD_UID_KEY: &str = "authentication.kubernetes.io/pod-uid";
pub const NODE_NAME_KEY: &str = "authentication.kubernetes.io/node-name";
pub const NODE_UID_KEY: &str = "authentication.kubernetes.io/node-uid";

impl UserInfo {
    /// A user of these groups and of `system:authenticated`, as in-process callers are.
    pub fn new(name: impl Into<String>, groups: &[&str]) -> Self {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Self { name: name.into(), groups, ..Self::default() }.authenticated()
    }

    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.into(), groups: vec![ALL_UNAUTHENTICATED.into()], ..Self::default() }
    }

    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        Self {
            name: service_account_username(namespace, name),
            uid: uid.to_owned(),
            groups: vec![ALL_SERVICE_ACCOUNTS.into(), format!("{ALL_SERVICE_ACCOUNTS}:{namespace}")],
            extra: BTreeMap::new(),
        }
    }

    /// Adds `system:authenticated`, except to who is anonymous or said to be unauthenticated.
    pub fn authenticated(mut self) -> Self {
        let has = |group: &str| self.groups.iter().any(|own| own == group);
        if self.name != ANONYMOUS && !has(ALL_AUTHENTICATED) && !has(ALL_UNAUTHENTICATED) {
            self.groups.push(ALL_AUTHENTICATED.to_owned());
        }
        self
    }

    /// The user as `authentication.k8s.io/v1` `UserInfo`.
    pub fn to_value(&self) -> Value {
        let mut out = json!({});
        if !self.name.is_empty() {
            out["username"] = json!(self.name);
        }
        if !self.uid.is_empty() {
            out["uid"] = json!(self.uid);
        }
        if !self.groups.is_empty() {
            out["groups"] = json!(self.groups);
        }
        if !self.extra.is_empty() {
            out["extra"] = json!(self.extra);
        }
        out
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// The node that this user is, if it is one.
    pub fn node_name(&self) -> Option<&str> {
        let name = self.name.strip_prefix(NODE_USER_PREFIX)?;
        self.is_in(NODES_GROUP).then_some(name)
    }

    /// Namespace and name of the service account that this user is, if it is one.
    pub fn service_account_name(&self) -> Option<(&str, &str)> {
        let (namespace, name) = self.name.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
        (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
    }
}

pub fn service_account_username(namespace: &str, name: &str) -> String {
    format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}")
}

pub fn node_username(name: &str) -> String {
    format!("{NODE_USER_PREFIX}{name}")
}

/// Keys of extra may hold what headers may not, percent-encoded; one that is encoded badly is kept as it is.
pub fn unescape_extra_key(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    while let [first, more @ ..] = rest {
        rest = more;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, more @ ..] = more else { return key.to_owned() };
        let (Some(high), Some(low)) = (digit(*high), digit(*low)) else { return key.to_owned() };
        bytes.push(high * 16 + low);
        rest = more;
    }
    String::from_utf8(bytes).unwrap_or_else(|_| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_told_apart() {
        let node = UserInfo::new(node_username("n1"), &[NODES_GROUP]);
        assert_eq!(node.node_name(), Some("n1"));
        assert_eq!(UserInfo::new(node_username("n1"), &[]).node_name(), None, "by its group only");
        assert_eq!(UserInfo::service_account("ns", "sa", "").service_account_name(), Some(("ns", "sa")));
        for name in ["system:serviceaccount:ns", "system:serviceaccount::sa", "system:serviceaccount:a:b:c"] {
            assert_eq!(UserInfo::new(name, &[]).service_account_name(), None, "{name}");
        }
        assert!(!UserInfo::anonymous().authenticated().is_in(ALL_AUTHENTICATED));
        assert_eq!(UserInfo::new("a", &["b"]).authenticated().groups, ["b", ALL_AUTHENTICATED]);
    }
}
