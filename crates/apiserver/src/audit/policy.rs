//! Audit policy: which requests are recorded, how much of them, and at which stages. Pure.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::{Value, codec, validation};

use crate::authorization::Attributes;

/// How much of a request is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    const NAMES: [(&'static str, Self); 4] = [
        ("None", Self::None),
        ("Metadata", Self::Metadata),
        ("Request", Self::Request),
        ("RequestResponse", Self::RequestResponse),
    ];

    fn parse(text: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, level)| *level)
    }

    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, level)| *level == self).map_or("", |(name, _)| name)
    }
}

/// A moment in the life of a request at which it may be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    const ALL: [Self; 4] =
        [Self::RequestReceived, Self::ResponseStarted, Self::ResponseComplete, Self::Panic];

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == text)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// What the policy says of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
}

#[derive(Debug)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    names: Vec<String>,
}

#[derive(Debug)]
struct Rule {
    decision: Decision,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    paths: Vec<String>,
}

/// The rules, in order; the first that fits a request decides.
#[derive(Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    otherwise: Decision,
}

impl Policy {
    /// Reads a policy file. The error is one line without the file's name.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let value = codec::parse_yaml(bytes).map_err(|error| format!("failed decoding: {error}"))?;
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
        let (version, kind) = (text("apiVersion"), text("kind"));
        if (version, kind) != ("audit.k8s.io/v1", "Policy") {
            return Err(format!("unknown group version field {version}, Kind={kind} in policy"));
        }
        let mut errors = ErrorList::default();
        let omit_stages = stages(&value, &Path::new("omitStages"), &mut errors)?;
        let omit_managed_fields = boolean(&value, "omitManagedFields")?.unwrap_or_default();
        let mut rules = Vec::new();
        for (index, rule) in items(&value, "rules")?.iter().enumerate() {
            let path = Path::new("rules").index(index);
            rules.push(parse_rule(rule, &path, &omit_stages, omit_managed_fields, &mut errors)?);
        }
        if !errors.is_empty() {
            return Err(field::aggregate(&errors).to_string());
        }
        if rules.is_empty() {
            return Err("loaded illegal policy with 0 rules".into());
        }
        Ok(Self { rules, otherwise: Decision { level: Level::None, omit_stages, omit_managed_fields } })
    }

    pub fn evaluate(&self, attributes: &Attributes<'_>) -> &Decision {
        let rule = self.rules.iter().find(|rule| rule.matches(attributes));
        rule.map_or(&self.otherwise, |rule| &rule.decision)
    }
}

impl Rule {
    fn matches(&self, attributes: &Attributes<'_>) -> bool {
        let has = |list: &[String], value: &str| list.iter().any(|item| item == value);
        let user = attributes.user;
        if !self.users.is_empty() && !has(&self.users, &user.name)
            || !self.groups.is_empty() && !user.groups.iter().any(|group| has(&self.groups, group))
            || !self.verbs.is_empty() && !has(&self.verbs, attributes.verb)
        {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return attributes.is_resource
                && (self.namespaces.is_empty() || has(&self.namespaces, attributes.namespace))
                && (self.resources.is_empty()
                    || self.resources.iter().any(|entry| entry.matches(attributes)));
        }
        if !self.paths.is_empty() {
            return !attributes.is_resource
                && self.paths.iter().any(|spec| path_matches(attributes.path, spec));
        }
        true
    }
}

impl GroupResources {
    fn matches(&self, attributes: &Attributes<'_>) -> bool {
        if self.group != "*" && self.group != attributes.api_group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.names.is_empty() && !self.names.iter().any(|name| name == attributes.name) {
            return false;
        }
        let (resource, subresource) = (attributes.resource, attributes.subresource);
        self.resources.iter().any(|wanted| {
            let (head, tail) = wanted.split_once('/').unwrap_or((wanted, ""));
            wanted == "*"
                || head == resource && tail == subresource
                || head == resource && tail == "*"
                || head == "*" && !subresource.is_empty() && tail == subresource
        })
    }
}

fn path_matches(path: &str, spec: &str) -> bool {
    spec == "*" || spec == path || spec.ends_with('*') && path.starts_with(spec.trim_end_matches('*'))
}

fn parse_rule(
    rule: &Value,
    path: &Path,
    omit_everywhere: &[Stage],
    omit_managed_fields: bool,
    errors: &mut ErrorList,
) -> Result<Rule, String> {
    let level = match rule.get("level").and_then(Value::as_str).unwrap_or_default() {
        "" => {
            errors.push(field::Error::required(&path.child("level"), ""));
            Level::None
        }
        text => Level::parse(text).unwrap_or_else(|| {
            let names: Vec<&str> = Level::NAMES.iter().map(|(name, _)| *name).collect();
            errors.push(field::Error::not_supported(&path.child("level"), text, &names));
            Level::None
        }),
    };
    let paths = texts(rule, "nonResourceURLs")?;
    for (index, url) in paths.iter().enumerate().filter(|(_, url)| *url != "*") {
        let at = path.child("nonResourceURLs").index(index);
        if !url.starts_with('/') {
            let why = "non-resource URL rules must begin with a '/' character";
            errors.push(field::Error::invalid(&at, url.as_str(), why));
        }
        if url.chars().rev().skip(1).any(|c| c == '*') {
            let why = "non-resource URL wildcards '*' must be the final character of the rule";
            errors.push(field::Error::invalid(&at, url.as_str(), why));
        }
    }
    let resources = group_resources(rule, &path.child("resources"), errors)?;
    let mut omit_stages = stages(rule, &path.child("omitStages"), errors)?;
    omit_stages.extend(omit_everywhere);
    let namespaces = texts(rule, "namespaces")?;
    if !(paths.is_empty() || resources.is_empty() && namespaces.is_empty()) {
        let why = "rules cannot apply to both regular resources and non-resource URLs";
        errors.push(field::Error::invalid(&path.child("nonResourceURLs"), paths.clone(), why));
    }
    let omit_managed_fields = boolean(rule, "omitManagedFields")?.unwrap_or(omit_managed_fields);
    Ok(Rule {
        decision: Decision { level, omit_stages, omit_managed_fields },
        users: texts(rule, "users")?,
        groups: texts(rule, "userGroups")?,
        verbs: texts(rule, "verbs")?,
        resources,
        namespaces,
        paths,
    })
}

fn group_resources(rule: &Value, path: &Path, errors: &mut ErrorList) -> Result<Vec<GroupResources>, String> {
    let mut out = Vec::new();
    for entry in items(rule, "resources")? {
        let group = entry.get("group").and_then(Value::as_str).unwrap_or_default().to_owned();
        let wrong = validation::is_dns1123_subdomain(&group);
        if !group.is_empty() && group != "*" && !wrong.is_empty() {
            errors.push(field::Error::invalid(&path.child("group"), group.as_str(), wrong.join(",")));
        }
        let (resources, names) = (texts(entry, "resources")?, texts(entry, "resourceNames")?);
        if !names.is_empty() && resources.is_empty() {
            let why = "using resourceNames requires at least one resource";
            errors.push(field::Error::invalid(&path.child("resourceNames"), names.clone(), why));
        }
        out.push(GroupResources { group, resources, names });
    }
    Ok(out)
}

fn stages(of: &Value, path: &Path, errors: &mut ErrorList) -> Result<Vec<Stage>, String> {
    let mut out = Vec::new();
    for (index, text) in texts(of, "omitStages")?.iter().enumerate() {
        match Stage::parse(text) {
            Some(stage) => out.push(stage),
            None => {
                let why = "allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic";
                errors.push(field::Error::invalid(&path.index(index), text.as_str(), why));
            }
        }
    }
    Ok(out)
}

fn items<'a>(of: &'a Value, key: &str) -> Result<&'a [Value], String> {
    match of.get(key) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(format!("failed decoding: {key} is not a list")),
    }
}

fn texts(of: &Value, key: &str) -> Result<Vec<String>, String> {
    let each = items(of, key)?.iter().map(|item| item.as_str().map(str::to_owned));
    each.collect::<Option<_>>()
        .ok_or_else(|| format!("failed decoding: {key} holds something that is no text"))
}

fn boolean(of: &Value, key: &str) -> Result<Option<bool>, String> {
    match of.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(_) => Err(format!("failed decoding: {key} is neither true nor false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authentication::UserInfo;

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: ["system:kube-proxy"], verbs: [watch]}
- {level: Metadata, resources: [{group: "", resources: ["pods/log", "*/status"]}], omitStages: [Panic]}
- {level: Request, resources: [{group: "", resources: [configmaps], resourceNames: [one]}], namespaces: [kube-system]}
- {level: RequestResponse, resources: [{group: apps, resources: ["deployments/*"]}, {group: batch}], omitManagedFields: true}
- {level: None, nonResourceURLs: ["/healthz*", "/version"]}
- {level: Metadata, userGroups: [ops]}
"#;

    #[test]
    fn the_first_rule_that_fits_decides() {
        let policy = Policy::parse(POLICY.as_bytes()).unwrap();
        let proxy = UserInfo::new("system:kube-proxy", &[]);
        let jane = UserInfo::new("jane", &["dev"]);
        let ops = UserInfo::new("joe", &["ops"]);
        let on = |user, verb, group, resource| Attributes::resource(user, verb, group, resource);
        let cases = [
            (on(&proxy, "watch", "", "services"), Level::None),
            (Attributes { subresource: "log", ..on(&jane, "get", "", "pods") }, Level::Metadata),
            (on(&jane, "get", "", "pods"), Level::None),
            (Attributes { subresource: "status", ..on(&jane, "update", "", "nodes") }, Level::Metadata),
            (
                Attributes { name: "one", namespace: "kube-system", ..on(&jane, "get", "", "configmaps") },
                Level::Request,
            ),
            (Attributes { name: "one", ..on(&jane, "get", "", "configmaps") }, Level::None),
            (
                Attributes { name: "two", namespace: "kube-system", ..on(&jane, "get", "", "configmaps") },
                Level::None,
            ),
            (on(&jane, "get", "apps", "deployments"), Level::RequestResponse),
            (
                Attributes { subresource: "scale", ..on(&jane, "get", "apps", "deployments") },
                Level::RequestResponse,
            ),
            (on(&jane, "create", "batch", "jobs"), Level::RequestResponse),
            (Attributes::path(&ops, "get", "/healthz/etcd"), Level::None),
            (Attributes::path(&ops, "get", "/versions"), Level::Metadata),
            (Attributes::path(&jane, "get", "/api"), Level::None),
        ];
        for (attributes, level) in cases {
            assert_eq!(policy.evaluate(&attributes).level, level, "{attributes:?}");
        }
        let log = Attributes { subresource: "log", ..on(&jane, "get", "", "pods") };
        assert_eq!(policy.evaluate(&log).omit_stages, [Stage::Panic, Stage::RequestReceived]);
        assert!(policy.evaluate(&on(&jane, "create", "batch", "jobs")).omit_managed_fields);
    }

    #[test]
    fn bad_policies_are_refused_in_one_line() {
        let of = |rules: &str| format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: {rules}");
        let cases = [
            ("{".to_owned(), "failed decoding"),
            ("kind: Policy".to_owned(), "unknown group version field"),
            (of("[]"), "loaded illegal policy with 0 rules"),
            (of("[{}]"), "rules[0].level: Required value"),
            (of("[{level: All}]"), "rules[0].level: Unsupported value: \"All\""),
            (of("[{level: None, nonResourceURLs: [healthz]}]"), "must begin with a '/' character"),
            (of("[{level: None, nonResourceURLs: [/a*b]}]"), "must be the final character"),
            (of("[{level: None, resources: [{resourceNames: [a]}]}]"), "requires at least one resource"),
            (of("[{level: None, omitStages: [Never]}]"), "allowed stages are"),
            (of("[{level: None, namespaces: [a], nonResourceURLs: [/a]}]"), "cannot apply to both"),
            (of("[{level: None, users: 3}]"), "users is not a list"),
        ];
        for (text, part) in cases {
            let error = Policy::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(part) && !error.contains('\n'), "{text}: {error}");
        }
    }
}
