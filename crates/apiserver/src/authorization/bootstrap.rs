//! The RBAC objects that every cluster starts with, made from the table in `bootstrap_policy.txt`.

use std::sync::LazyLock;

use apimachinery::Object;
use serde_json::{Map, Value, json};

use super::rbac::Kind;
use super::reconcile;
use super::rules::Rule;

const TABLE: &str = include_str!("bootstrap_policy.txt");

const API_VERSION: &str = "rbac.authorization.k8s.io/v1";
const GROUP: &str = "rbac.authorization.k8s.io";
const CONTROLLER_PREFIX: &str = "system:controller:";
const NODE_ROLE: &str = "system:node";

/// The group of administrators in kubeadm's clusters, and so in ours.
pub const CLUSTER_ADMINS_GROUP: &str = "kubeadm:cluster-admins";

/// All objects in the order in which they are to be made: cluster roles and bindings, then roles and bindings.
/// Aggregated roles already hold the rules that aggregation will give them.
pub fn objects() -> Vec<(Kind, Object)> {
    let mut table = read_table(TABLE).expect("a test reads the table");
    // Aggregation is transitive: admin holds edit, which holds view.
    for _ in 0..3 {
        let roles = table.cluster_roles.clone();
        for role in &mut table.cluster_roles {
            if let Some(rules) = reconcile::aggregated_rules(role, roles.iter()) {
                role.set(&["rules"], rules.iter().map(Rule::to_value).collect::<Vec<_>>());
            }
        }
    }
    let of = |kind: Kind, objects: Vec<Object>| objects.into_iter().map(move |object| (kind, object));
    of(Kind::ClusterRole, table.cluster_roles)
        .chain(of(Kind::ClusterRoleBinding, table.cluster_role_bindings))
        .chain(of(Kind::Role, table.roles))
        .chain(of(Kind::RoleBinding, table.role_bindings))
        .collect()
}

/// What makes the holder of `admin.kubeconfig` an administrator. kubeadm makes it; here the server does.
pub fn cluster_admins_binding() -> Object {
    Object::from(json!({
        "apiVersion": API_VERSION,
        "kind": "ClusterRoleBinding",
        "metadata": {"name": CLUSTER_ADMINS_GROUP},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": GROUP, "kind": "Group", "name": CLUSTER_ADMINS_GROUP}],
    }))
}

/// What every node may do, but for what the node authorizer restricts.
pub fn node_rules() -> &'static [Rule] {
    static RULES: LazyLock<Vec<Rule>> =
        LazyLock::new(|| read_table(TABLE).expect("a test reads the table").node_rules);
    &RULES
}

#[derive(Default)]
struct Table {
    cluster_roles: Vec<Object>,
    cluster_role_bindings: Vec<Object>,
    roles: Vec<Object>,
    role_bindings: Vec<Object>,
    node_rules: Vec<Rule>,
}

/// The role whose rules are being read.
enum Open {
    Nothing,
    Role(Object),
    Namespaced(Object),
    NodeRules,
}

fn read_table(text: &str) -> Result<Table, String> {
    let mut table = Table::default();
    let mut open = Open::Nothing;
    let mut rules: Vec<Rule> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if line.starts_with(' ') {
            rules.push(rule(&words).ok_or_else(|| format!("not a rule: {line}"))?);
            continue;
        }
        table.close(std::mem::replace(&mut open, Open::Nothing), std::mem::take(&mut rules));
        match words.as_slice() {
            ["role", name, marks @ ..] => open = Open::Role(role(name, marks)?),
            ["controller", name] => {
                let full = format!("{CONTROLLER_PREFIX}{name}");
                open = Open::Role(role(&full, &[])?);
                let subject = format!("sa:kube-system/{name}");
                let binding = binding("ClusterRoleBinding", "", &full, ("ClusterRole", &full), &[&subject])?;
                table.cluster_role_bindings.push(binding);
            }
            ["nsrole", namespace, name] => open = Open::Namespaced(object("Role", namespace, name)),
            ["node-rules"] => open = Open::NodeRules,
            ["binding", name, subjects @ ..] => {
                let binding = binding("ClusterRoleBinding", "", name, ("ClusterRole", name), subjects)?;
                table.cluster_role_bindings.push(binding);
            }
            ["nsbinding", namespace, name, role, subjects @ ..] => {
                let binding = binding("RoleBinding", namespace, name, ("Role", role), subjects)?;
                table.role_bindings.push(binding);
            }
            _ => return Err(format!("not an entry: {line}")),
        }
    }
    table.close(open, rules);
    Ok(table)
}

impl Table {
    fn close(&mut self, open: Open, rules: Vec<Rule>) {
        let with = |mut role: Object, rules: &[Rule]| {
            if role.get(&["aggregationRule"]).is_none() {
                role.set(&["rules"], rules.iter().map(Rule::to_value).collect::<Vec<_>>());
            }
            role
        };
        match open {
            Open::Nothing => {}
            Open::Role(role) => self.cluster_roles.push(with(role, &rules)),
            Open::Namespaced(role) => self.roles.push(with(role, &rules)),
            Open::NodeRules => {
                self.cluster_roles.push(with(object("ClusterRole", "", NODE_ROLE), &rules));
                self.node_rules = rules;
            }
        }
    }
}

fn object(kind: &str, namespace: &str, name: &str) -> Object {
    let mut object = Object::from(json!({
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        },
    }));
    object.set_namespace(namespace);
    object
}

fn role(name: &str, marks: &[&str]) -> Result<Object, String> {
    let mut role = object("ClusterRole", "", name);
    for mark in marks {
        match mark.split_once('=') {
            Some(("label", key)) => {
                role.set(&["metadata", "labels", &format!("{GROUP}/{key}")], "true");
            }
            Some(("aggregate", key)) => {
                let labels = Map::from_iter([(format!("{GROUP}/{key}"), Value::from("true"))]);
                role.set(&["aggregationRule"], json!({"clusterRoleSelectors": [{"matchLabels": labels}]}));
            }
            _ => return Err(format!("not a mark of a role: {mark}")),
        }
    }
    Ok(role)
}

fn binding(
    kind: &str,
    namespace: &str,
    name: &str,
    role: (&str, &str),
    subjects: &[&str],
) -> Result<Object, String> {
    let mut binding = object(kind, namespace, name);
    binding.set(&["roleRef"], json!({"apiGroup": GROUP, "kind": role.0, "name": role.1}));
    let mut list = Vec::new();
    for subject in subjects {
        list.push(match subject.split_once(':') {
            Some(("user", name)) => json!({"apiGroup": GROUP, "kind": "User", "name": name}),
            Some(("group", name)) => json!({"apiGroup": GROUP, "kind": "Group", "name": name}),
            Some(("sa", account)) => match account.split_once('/') {
                Some((namespace, name)) => {
                    json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
                }
                None => return Err(format!("not a service account: {account}")),
            },
            _ => return Err(format!("not a subject: {subject}")),
        });
    }
    if !list.is_empty() {
        binding.set(&["subjects"], list);
    }
    Ok(binding)
}

fn rule(words: &[&str]) -> Option<Rule> {
    // Upstream's builder sorts every list.
    let list = |text: &str| -> Vec<String> {
        let mut list: Vec<String> =
            text.split(',').map(|one| if one == "core" { "" } else { one }.to_owned()).collect();
        list.sort();
        list
    };
    let verbs = |text: &str| match text {
        "read" => list("get,list,watch"),
        "write" => list("create,delete,deletecollection,patch,update"),
        "readwrite" => list("create,delete,deletecollection,get,list,patch,update,watch"),
        "readupdate" => list("get,list,patch,update,watch"),
        other => list(other),
    };
    match words {
        ["events"] => rule(&["create,update,patch", "core,events.k8s.io", "events"]),
        ["urls", of, urls] => {
            Some(Rule { verbs: verbs(of), non_resource_urls: list(urls), ..Rule::default() })
        }
        [of, groups, resources, names @ ..] if names.len() <= 1 => Some(Rule {
            verbs: verbs(of),
            api_groups: list(groups),
            resources: list(resources),
            resource_names: names.first().map(|names| list(names)).unwrap_or_default(),
            ..Rule::default()
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Attributes;
    use super::super::rbac::Rbac;
    use super::*;
    use crate::authentication::UserInfo;

    fn index() -> Rbac {
        let rbac = Rbac::default();
        for (kind, object) in objects() {
            rbac.upsert(kind, &object);
        }
        rbac.upsert(Kind::ClusterRoleBinding, &cluster_admins_binding());
        rbac
    }

    fn find(kind: Kind, name: &str) -> Object {
        let found = objects().into_iter().find(|(of, object)| *of == kind && object.name() == name);
        found.unwrap_or_else(|| panic!("no {kind:?} {name}")).1
    }

    #[test]
    fn the_table_is_sound() {
        let all = objects();
        let count = |kind: Kind| all.iter().filter(|(of, _)| *of == kind).count();
        let counts = [Kind::ClusterRole, Kind::ClusterRoleBinding, Kind::Role, Kind::RoleBinding].map(count);
        assert_eq!(counts, [70, 51, 8, 8]);
        let mut names: Vec<String> =
            all.iter().map(|(kind, o)| format!("{kind:?} {} {}", o.namespace(), o.name())).collect();
        names.sort();
        let total = names.len();
        names.dedup();
        assert_eq!(names.len(), total, "a name twice");
        let rbac = index();
        for (kind, object) in &all {
            if matches!(kind, Kind::ClusterRoleBinding | Kind::RoleBinding) {
                let role = (object.get_str(&["roleRef", "kind"]), object.get_str(&["roleRef", "name"]));
                rbac.role_rules(object.namespace(), role.0, role.1).expect("the role is there");
            }
        }
    }

    #[test]
    fn objects_look_as_upstream() {
        for (kind, name) in [
            (Kind::ClusterRole, "system:aggregate-to-admin"),
            (Kind::ClusterRole, "system:node"),
            (Kind::ClusterRole, "system:kube-scheduler"),
            (Kind::ClusterRoleBinding, "system:controller:job-controller"),
            (Kind::ClusterRoleBinding, "system:node"),
            (Kind::RoleBinding, "system::extension-apiserver-authentication-reader"),
        ] {
            let file = format!("{kind:?}_{}", name.replace(':', "_"));
            insta::assert_json_snapshot!(file, find(kind, name).as_value());
        }
    }

    #[test]
    fn aggregated_roles_hold_what_they_aggregate() {
        let rules = |name: &str| Rule::list(find(Kind::ClusterRole, name).get(&["rules"]));
        let view = rules("view");
        let edit = rules("edit");
        let admin = rules("admin");
        assert!(!view.is_empty());
        assert!(super::super::rules::covers(&edit, &view) && !super::super::rules::covers(&view, &edit));
        assert!(super::super::rules::covers(&admin, &edit) && !super::super::rules::covers(&edit, &admin));
    }

    #[test]
    fn everyone_can_do_their_part() {
        let rbac = index();
        let masters = UserInfo::new("root", &["system:masters"]);
        let admin = UserInfo::new("kubernetes-admin", &[CLUSTER_ADMINS_GROUP]);
        let scheduler = UserInfo::new("system:kube-scheduler", &[]);
        let manager = UserInfo::new("system:kube-controller-manager", &[]);
        let proxy = UserInfo::new("system:kube-proxy", &[]);
        let jobs = UserInfo::service_account("kube-system", "job-controller", "");
        let account = UserInfo::service_account("default", "default", "").authenticated();
        let nobody = UserInfo::anonymous();
        let cases = [
            (&masters, "delete", "x", "anything", true),
            (&admin, "delete", "x", "anything", true),
            (&scheduler, "watch", "", "pods", true),
            (&scheduler, "delete", "", "nodes", false),
            (&manager, "list", "any.group", "things", true),
            (&manager, "create", "apps", "deployments", false),
            (&proxy, "watch", "discovery.k8s.io", "endpointslices", true),
            (&proxy, "watch", "", "secrets", false),
            (&jobs, "create", "", "pods", true),
            (&jobs, "create", "", "secrets", false),
            (&account, "create", "authorization.k8s.io", "selfsubjectaccessreviews", true),
            (&account, "get", "", "pods", false),
            (&nobody, "create", "authorization.k8s.io", "selfsubjectaccessreviews", false),
        ];
        for (user, verb, group, resource, allowed) in cases {
            let verdict = rbac.decide(&Attributes::resource(user, verb, group, resource));
            assert_eq!(verdict.is_allowed(), allowed, "{} {verb} {group}/{resource}", user.name);
        }
        for (user, path, allowed) in [
            (&nobody, "/readyz", true),
            (&nobody, "/version", true),
            (&nobody, "/api", false),
            (&nobody, "/metrics", false),
            (&account, "/api/v1", true),
            (&account, "/openid/v1/jwks", true),
            (&account, "/metrics", false),
            (&masters, "/metrics", true),
        ] {
            let verdict = rbac.decide(&Attributes::path(user, "get", path));
            assert_eq!(verdict.is_allowed(), allowed, "{} {path}", user.name);
        }
    }

    #[test]
    fn nonsense_in_the_table_is_refused() {
        for text in ["rule x", " get core", "role a mark", "binding a b", "binding a sa:b"] {
            assert!(read_table(text).is_err(), "{text}");
        }
    }
}
