//! Which requests a flow schema is about.

use apimachinery::{Object, Value};

use crate::authentication::UserInfo;
use crate::http::request_info::RequestInfo;

/// What stands for everything in every list of a rule.
const ALL: &str = "*";

/// What tells the flows of a schema apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distinguisher {
    /// All requests are one flow.
    None,
    ByUser,
    ByNamespace,
}

impl Distinguisher {
    pub fn of<'a>(self, user: &'a UserInfo, info: &'a RequestInfo) -> &'a str {
        match self {
            Self::None => "",
            Self::ByUser => &user.name,
            Self::ByNamespace => &info.namespace,
        }
    }
}

/// A flow schema's spec, ready to be matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub level: String,
    pub precedence: i64,
    pub distinguisher: Distinguisher,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    User(String),
    Group(String),
    /// Namespace and name.
    ServiceAccount(String, String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ResourceRule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    cluster_scope: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct PathRule {
    verbs: Vec<String>,
    paths: Vec<String>,
}

impl Spec {
    /// Reads a flow schema that validation has let through.
    pub fn parse(schema: &Object) -> Self {
        Self {
            level: schema.get_str(&["spec", "priorityLevelConfiguration", "name"]).to_owned(),
            precedence: schema.get_i64(&["spec", "matchingPrecedence"]).unwrap_or_default(),
            distinguisher: match schema.get_str(&["spec", "distinguisherMethod", "type"]) {
                "ByUser" => Distinguisher::ByUser,
                "ByNamespace" => Distinguisher::ByNamespace,
                _ => Distinguisher::None,
            },
            rules: schema.get_array(&["spec", "rules"]).iter().map(Rule::parse).collect(),
        }
    }

    pub fn matches(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        self.rules.iter().any(|rule| rule.matches(user, info))
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    items(value).iter().map(text).collect()
}

impl Rule {
    fn parse(rule: &Value) -> Self {
        let subject = |subject: &Value| match subject["kind"].as_str()? {
            "User" => Some(Subject::User(text(&subject["user"]["name"]))),
            "Group" => Some(Subject::Group(text(&subject["group"]["name"]))),
            "ServiceAccount" => {
                let account = &subject["serviceAccount"];
                Some(Subject::ServiceAccount(text(&account["namespace"]), text(&account["name"])))
            }
            _ => None,
        };
        let resource = |rule: &Value| ResourceRule {
            verbs: texts(&rule["verbs"]),
            groups: texts(&rule["apiGroups"]),
            resources: texts(&rule["resources"]),
            namespaces: texts(&rule["namespaces"]),
            cluster_scope: rule["clusterScope"].as_bool().unwrap_or_default(),
        };
        let path =
            |rule: &Value| PathRule { verbs: texts(&rule["verbs"]), paths: texts(&rule["nonResourceURLs"]) };
        Self {
            subjects: items(&rule["subjects"]).iter().filter_map(subject).collect(),
            resources: items(&rule["resourceRules"]).iter().map(resource).collect(),
            paths: items(&rule["nonResourceRules"]).iter().map(path).collect(),
        }
    }

    fn matches(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        self.subjects.iter().any(|subject| subject.matches(user))
            && match info.is_resource {
                true => self.resources.iter().any(|rule| rule.matches(info)),
                false => self.paths.iter().any(|rule| rule.matches(info)),
            }
    }
}

impl Subject {
    fn matches(&self, user: &UserInfo) -> bool {
        match self {
            Self::User(name) => name == ALL || *name == user.name,
            Self::Group(name) => name == ALL || user.is_in(name),
            Self::ServiceAccount(namespace, name) => {
                let account = user.name.strip_prefix("system:serviceaccount:");
                let Some((in_namespace, account)) = account.and_then(|rest| rest.split_once(':')) else {
                    return false;
                };
                in_namespace == namespace && (name == ALL || account == name)
            }
        }
    }
}

/// Whether a list has a value, or is the one item that stands for all.
fn has(list: &[String], value: &str) -> bool {
    matches!(list, [only] if only == ALL) || list.iter().any(|item| item == value)
}

impl ResourceRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let named = |item: &String| match info.subresource.as_str() {
            "" => *item == info.resource,
            subresource => item.split_once('/') == Some((&info.resource, subresource)),
        };
        has(&self.verbs, info.verb)
            && (matches!(self.resources.as_slice(), [only] if only == ALL)
                || self.resources.iter().any(named))
            && has(&self.groups, &info.group)
            && match info.namespace.as_str() {
                "" => self.cluster_scope,
                namespace => has(&self.namespaces, namespace),
            }
    }
}

impl PathRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let under = |rule: &String| {
            let prefix = rule.strip_suffix('*').unwrap_or(rule);
            let rest = info.path.strip_prefix(prefix);
            rest.is_some_and(|rest| prefix.ends_with('/') || rest.starts_with('/'))
        };
        let named = |rule: &String| rule == ALL || *rule == info.path || under(rule);
        has(&self.verbs, info.verb) && self.paths.iter().any(named)
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use super::*;
    use crate::http::request_info::Query;

    fn info(request: &str) -> RequestInfo {
        let (method, uri) = request.split_once(' ').unwrap();
        let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
        RequestInfo::parse(&method.parse::<Method>().unwrap(), path, &Query::parse(query))
    }

    fn spec(rule: Value) -> Spec {
        Spec::parse(&Object::from(json!({"spec": {"rules": [rule]}})))
    }

    #[test]
    fn subjects() {
        let anything = json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]);
        let user = |name: &str| json!({"kind": "User", "user": {"name": name}});
        let group = |name: &str| json!({"kind": "Group", "group": {"name": name}});
        let account = |namespace: &str, name: &str| json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": name}});
        let builder = "system:serviceaccount:ci:builder";
        for (subject, name, matches) in [
            (user("jane"), "jane", true),
            (user("jane"), "joe", false),
            (user("*"), "joe", true),
            (group("dev"), "jane", true),
            (group("ops"), "jane", false),
            (group("*"), "jane", true),
            (account("ci", "builder"), builder, true),
            (account("ci", "*"), builder, true),
            (account("ci", "other"), builder, false),
            (account("c", "*"), builder, false),
            (account("ci", "*"), "jane", false),
        ] {
            let spec = spec(json!({"subjects": [subject], "nonResourceRules": anything}));
            let user = UserInfo::new(name, &["dev"]);
            assert_eq!(spec.matches(&user, &info("GET /version")), matches, "{subject} {name}");
        }
    }

    #[test]
    fn requests() {
        let resource =
            |verbs: &[&str], groups: &[&str], resources: &[&str], namespaces: &[&str], cluster: bool| {
                json!({"resourceRules": [{
                    "verbs": verbs, "apiGroups": groups, "resources": resources, "namespaces": namespaces,
                    "clusterScope": cluster,
                }]})
            };
        let path = |verbs: &[&str], paths: &[&str]| json!({"nonResourceRules": [{"verbs": verbs, "nonResourceURLs": paths}]});
        let all = resource(&["*"], &["*"], &["*"], &["*"], true);
        for (rule, request, matches) in [
            (all.clone(), "GET /api/v1/namespaces/a/pods/p", true),
            (all.clone(), "GET /api/v1/nodes/n", true),
            (all.clone(), "GET /version", false),
            (resource(&["*"], &["*"], &["*"], &["*"], false), "GET /api/v1/nodes/n", false),
            (resource(&["*"], &["*"], &["*"], &[], true), "GET /api/v1/namespaces/a/pods/p", false),
            (resource(&["*"], &["*"], &["*"], &["a"], false), "GET /api/v1/namespaces/a/pods/p", true),
            (resource(&["*"], &["*"], &["*"], &["b"], false), "GET /api/v1/namespaces/a/pods/p", false),
            (
                resource(&["get"], &["apps"], &["deployments"], &["*"], true),
                "GET /apis/apps/v1/deployments",
                false,
            ),
            (
                resource(&["list"], &["apps"], &["deployments"], &["*"], true),
                "GET /apis/apps/v1/deployments",
                true,
            ),
            (
                resource(&["list"], &[""], &["deployments"], &["*"], true),
                "GET /apis/apps/v1/deployments",
                false,
            ),
            (
                resource(&["get"], &[""], &["pods"], &["*"], true),
                "GET /api/v1/namespaces/a/pods/p/log",
                false,
            ),
            (
                resource(&["get"], &[""], &["pods/log"], &["*"], true),
                "GET /api/v1/namespaces/a/pods/p/log",
                true,
            ),
            (path(&["get"], &["/healthz"]), "GET /healthz", true),
            (path(&["get"], &["/healthz"]), "POST /healthz", false),
            (path(&["get"], &["/healthz"]), "GET /healthz/ping", true),
            (path(&["get"], &["/healthz"]), "GET /healthzz", false),
            (path(&["*"], &["/healthz/*"]), "GET /healthz/ping", true),
            (path(&["*"], &["/openapi/*"]), "GET /openapi", false),
            (path(&["*"], &["*"]), "GET /metrics", true),
            (path(&["*"], &["*"]), "GET /api/v1/nodes", false),
        ] {
            let mut whole = rule.clone();
            whole["subjects"] = json!([{"kind": "User", "user": {"name": "*"}}]);
            let user = UserInfo::new("jane", &[]);
            assert_eq!(spec(whole).matches(&user, &info(request)), matches, "{rule} {request}");
        }
    }

    #[test]
    fn flows_are_told_apart() {
        let request = info("GET /api/v1/namespaces/a/pods/p");
        let jane = UserInfo::new("jane", &[]);
        for (method, flow) in [(json!("ByUser"), "jane"), (json!("ByNamespace"), "a"), (Value::Null, "")] {
            let spec = Spec::parse(&Object::from(json!({"spec": {"distinguisherMethod": {"type": method}}})));
            assert_eq!(spec.distinguisher.of(&jane, &request), flow);
        }
    }
}
