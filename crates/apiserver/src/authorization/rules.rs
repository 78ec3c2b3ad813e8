//! RBAC rules: what one matches, what one covers, and how they are shown.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::Attributes;

const ALL: &str = "*";

/// A `PolicyRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    pub verbs: Vec<String>,
    pub api_groups: Vec<String>,
    pub resources: Vec<String>,
    pub resource_names: Vec<String>,
    pub non_resource_urls: Vec<String>,
}

/// A rule for resources as `SelfSubjectRulesReview` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceRule {
    pub verbs: Vec<String>,
    pub api_groups: Vec<String>,
    pub resources: Vec<String>,
    pub resource_names: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NonResourceRule {
    pub verbs: Vec<String>,
    pub non_resource_urls: Vec<String>,
}

fn has(set: &[String], one: &str) -> bool {
    set.iter().any(|own| own == one)
}

fn has_or_all(set: &[String], one: &str) -> bool {
    set.iter().any(|own| own == ALL || own == one)
}

fn covers_all(set: &[String], wanted: &[String]) -> bool {
    has(set, ALL) || wanted.iter().all(|one| has(set, one))
}

/// Whether a URL of a rule stands for a path: itself, or what starts with it up to its final star.
fn url_covers(rule: &str, path: &str) -> bool {
    rule == path || (rule.ends_with('*') && path.starts_with(rule.trim_end_matches('*')))
}

impl Rule {
    /// Reads the `rules` of a role. What is not of the right type is left out: validation has refused it.
    pub fn list(rules: Option<&Value>) -> Vec<Self> {
        let list = rules.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        list.iter().map(Self::from_value).collect()
    }

    pub fn from_value(value: &Value) -> Self {
        let strings = |field: &str| -> Vec<String> {
            let list = value.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            verbs: strings("verbs"),
            api_groups: strings("apiGroups"),
            resources: strings("resources"),
            resource_names: strings("resourceNames"),
            non_resource_urls: strings("nonResourceURLs"),
        }
    }

    pub fn to_value(&self) -> Value {
        let mut out = Map::new();
        for (field, list) in self.fields() {
            if !list.is_empty() {
                out.insert(field.to_owned(), json!(list));
            }
        }
        out.entry("verbs").or_insert_with(|| json!([]));
        Value::Object(out)
    }

    fn fields(&self) -> [(&'static str, &[String]); 5] {
        [
            ("apiGroups", &self.api_groups),
            ("resources", &self.resources),
            ("nonResourceURLs", &self.non_resource_urls),
            ("resourceNames", &self.resource_names),
            ("verbs", &self.verbs),
        ]
    }

    /// Whether the rule allows the request.
    pub fn allows(&self, request: &Attributes<'_>) -> bool {
        if !has_or_all(&self.verbs, request.verb) {
            return false;
        }
        if !request.is_resource {
            return self.non_resource_urls.iter().any(|url| url_covers(url, request.path));
        }
        has_or_all(&self.api_groups, request.api_group)
            && self.resources.iter().any(|resource| resource_matches(resource, request))
            && (self.resource_names.is_empty() || has(&self.resource_names, request.name))
    }

    /// Whether the rule allows all that `other` does. That several rules together may do so is for [`covers`].
    fn covers(&self, other: &Self) -> bool {
        let resource = |wanted: &String| {
            let any_with_subresource =
                || wanted.split_once('/').is_some_and(|(_, sub)| has(&self.resources, &format!("*/{sub}")));
            has_or_all(&self.resources, wanted) || any_with_subresource()
        };
        let url = |wanted: &String| self.non_resource_urls.iter().any(|own| url_covers(own, wanted));
        let names = match other.resource_names.as_slice() {
            [] => self.resource_names.is_empty(),
            wanted => {
                self.resource_names.is_empty() || wanted.iter().all(|one| has(&self.resource_names, one))
            }
        };
        names
            && covers_all(&self.verbs, &other.verbs)
            && covers_all(&self.api_groups, &other.api_groups)
            && other.resources.iter().all(resource)
            && other.non_resource_urls.iter().all(url)
    }

    /// The rule taken apart: one verb, one resource of one group, one name or one URL each.
    fn atoms(&self) -> Vec<Self> {
        let one = |text: &String| vec![text.clone()];
        let mut atoms = Vec::new();
        for verb in &self.verbs {
            for api_group in &self.api_groups {
                for resource in &self.resources {
                    let atom = Self {
                        verbs: one(verb),
                        api_groups: one(api_group),
                        resources: one(resource),
                        ..Self::default()
                    };
                    match self.resource_names.as_slice() {
                        [] => atoms.push(atom),
                        names => atoms.extend(
                            names.iter().map(|name| Self { resource_names: one(name), ..atom.clone() }),
                        ),
                    }
                }
            }
            atoms.extend(self.non_resource_urls.iter().map(|url| Self {
                verbs: one(verb),
                non_resource_urls: one(url),
                ..Self::default()
            }));
        }
        atoms
    }

    /// The rule as error messages show it.
    pub fn compact_string(&self) -> String {
        let show = |list: &[String]| {
            let quoted: Vec<String> = list.iter().map(|text| format!("{text:?}")).collect();
            format!("[{}]", quoted.join(" "))
        };
        let names = ["APIGroups", "Resources", "NonResourceURLs", "ResourceNames", "Verbs"];
        let parts: Vec<String> = names
            .into_iter()
            .zip(self.fields())
            .filter(|(_, (_, list))| !list.is_empty())
            .map(|(name, (_, list))| format!("{name}:{}", show(list)))
            .collect();
        format!("{{{}}}", parts.join(", "))
    }
}

fn resource_matches(rule: &str, request: &Attributes<'_>) -> bool {
    if rule == ALL {
        return true;
    }
    if request.subresource.is_empty() {
        return rule == request.resource;
    }
    rule.split_once('/').is_some_and(|(resource, subresource)| {
        subresource == request.subresource && (resource == ALL || resource == request.resource)
    })
}

/// Which parts of `wanted` the rules of `owner` do not cover.
pub fn uncovered(owner: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let atoms = wanted.iter().flat_map(Rule::atoms);
    atoms.filter(|atom| !owner.iter().any(|rule| rule.covers(atom))).collect()
}

/// Whether the rules of `owner` together allow all that `wanted` do.
pub fn covers(owner: &[Rule], wanted: &[Rule]) -> bool {
    uncovered(owner, wanted).is_empty()
}

/// Joins rules that differ in their verb only.
pub fn compact(rules: Vec<Rule>) -> Vec<Rule> {
    let mut simple: BTreeMap<(Vec<String>, Vec<String>, Vec<String>), BTreeSet<String>> = BTreeMap::new();
    let mut compacted = Vec::new();
    for rule in rules {
        let joins = rule.resource_names.len() <= 1
            && rule.non_resource_urls.is_empty()
            && rule.api_groups.len() == 1
            && rule.resources.len() == 1;
        if joins {
            let key = (rule.api_groups, rule.resources, rule.resource_names);
            simple.entry(key).or_default().extend(rule.verbs);
        } else {
            compacted.push(rule);
        }
    }
    compacted.extend(simple.into_iter().map(|((api_groups, resources, resource_names), verbs)| Rule {
        verbs: verbs.into_iter().collect(),
        api_groups,
        resources,
        resource_names,
        ..Rule::default()
    }));
    compacted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authentication::UserInfo;

    fn rule(verbs: &str, groups: &str, resources: &str, names: &str) -> Rule {
        let list = |text: &str| -> Vec<String> { text.split(',').map(str::to_owned).collect() };
        let resource_names = if names.is_empty() { Vec::new() } else { list(names) };
        Rule {
            verbs: list(verbs),
            api_groups: list(groups),
            resources: list(resources),
            resource_names,
            ..Rule::default()
        }
    }

    fn urls(verbs: &str, urls: &[&str]) -> Rule {
        Rule {
            verbs: vec![verbs.into()],
            non_resource_urls: urls.iter().map(|url| (*url).into()).collect(),
            ..Rule::default()
        }
    }

    #[test]
    fn rules_allow_what_they_name() {
        let user = UserInfo::default();
        let base = Attributes::resource(&user, "get", "apps", "deployments");
        let scale = Attributes { subresource: "scale", ..base };
        let named = Attributes { name: "web", ..base };
        let path = Attributes::path(&user, "get", "/api/v1");
        let cases = [
            (rule("get,list", "apps", "deployments", ""), base, true),
            (rule("list", "apps", "deployments", ""), base, false),
            (rule("get", "", "deployments", ""), base, false),
            (rule("get", "apps", "pods", ""), base, false),
            (rule("*", "*", "*", ""), base, true),
            (rule("*", "*", "*", ""), scale, true),
            (rule("get", "apps", "deployments", ""), scale, false),
            (rule("get", "apps", "deployments/scale", ""), scale, true),
            (rule("get", "apps", "*/scale", ""), scale, true),
            (rule("get", "apps", "*/status", ""), scale, false),
            (rule("get", "apps", "deployments/scale", ""), base, false),
            (rule("get", "apps", "deployments/*", ""), scale, false),
            (rule("get", "apps", "deployments", "web"), named, true),
            (rule("get", "apps", "deployments", "api"), named, false),
            (rule("get", "apps", "deployments", "web"), base, false),
            (rule("*", "*", "*", ""), path, false),
            (urls("get", &["*"]), path, true),
            (urls("get", &["/api"]), path, false),
            (urls("get", &["/api/*"]), path, true),
            (urls("get", &["/api/v1"]), path, true),
            (urls("post", &["*"]), path, false),
            (urls("get", &["*"]), base, false),
        ];
        for (rule, request, allowed) in cases {
            assert_eq!(rule.allows(&request), allowed, "{} {request:?}", rule.compact_string());
        }
    }

    #[test]
    fn rules_cover_rules() {
        let cases = [
            (vec![rule("*", "*", "*", "")], vec![rule("get", "apps", "deployments/scale", "a")], true),
            (vec![rule("*", "*", "*", "")], vec![urls("get", &["/x"])], false),
            (
                vec![rule("get", "", "pods", ""), rule("list", "", "pods", "")],
                vec![rule("get,list", "", "pods", "")],
                true,
            ),
            (vec![rule("get", "", "pods", "a")], vec![rule("get", "", "pods", "")], false),
            (vec![rule("get", "", "pods", "a")], vec![rule("get", "", "pods", "a,b")], false),
            (vec![rule("get", "", "pods", "a,b")], vec![rule("get", "", "pods", "b")], true),
            (vec![rule("get", "", "*/scale", "")], vec![rule("get", "", "pods/scale", "")], true),
            (vec![rule("get", "", "*/scale", "")], vec![rule("get", "", "pods", "")], false),
            (vec![rule("get", "", "pods", "")], vec![rule("*", "", "pods", "")], false),
            (vec![urls("get", &["/api/*"])], vec![urls("get", &["/api/v1", "/api/*"])], true),
            (vec![urls("get", &["/api/v1"])], vec![urls("get", &["/api/*"])], false),
            (vec![], vec![], true),
        ];
        for (owner, wanted, covered) in cases {
            assert_eq!(covers(&owner, &wanted), covered, "{owner:?} {wanted:?}");
        }
    }

    #[test]
    fn rules_are_shown_compactly() {
        let rules = vec![
            rule("list", "", "pods", ""),
            rule("get", "", "pods", ""),
            rule("get", "", "pods", "a"),
            urls("get", &["/x"]),
        ];
        let shown: Vec<String> = compact(rules).iter().map(Rule::compact_string).collect();
        assert_eq!(
            shown,
            [
                r#"{NonResourceURLs:["/x"], Verbs:["get"]}"#,
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}"#,
                r#"{APIGroups:[""], Resources:["pods"], ResourceNames:["a"], Verbs:["get"]}"#,
            ]
        );
    }

    #[test]
    fn rules_survive_their_json_form() {
        for rule in [rule("get", "apps", "deployments", "a"), urls("get", &["/x"]), Rule::default()] {
            assert_eq!(Rule::from_value(&rule.to_value()), rule);
        }
    }
}
