//! Nobody grants what they do not hold: roles and bindings are checked against their writer's own rights.

use apimachinery::{Object, Status, Value};
use serde_json::json;

use super::Call;
use crate::authentication::SYSTEM_PRIVILEGED_GROUP;
use crate::authorization::Attributes;
use crate::authorization::rules::Rule;

const GROUP: &str = "rbac.authorization.k8s.io";

impl Call<'_> {
    /// Refuses a role or binding that would grant more than its writer has, unless a rule lets the writer
    /// `escalate` or `bind`.
    pub fn confirm_no_escalation(&self, new: &Object, old: Option<&Object>) -> Result<(), Status> {
        if self.kind.resource.group != GROUP || self.ctx.user.is_in(SYSTEM_PRIVILEGED_GROUP) {
            return Ok(());
        }
        let unchanged =
            |keys: &[&str]| old.is_some_and(|old| keys.iter().all(|key| old.get(&[key]) == new.get(&[key])));
        let namespace = self.ctx.info.namespace.as_str();
        let rbac = &self.server.access.rbac;
        let wanted = if self.kind.resource.plural.ends_with("bindings") {
            let role = |key: &str| new.get_str(&["roleRef", key]);
            let plural = if role("kind") == "Role" { "roles" } else { "clusterroles" };
            if unchanged(&["roleRef", "subjects"]) || self.may("bind", plural, role("name")) {
                return Ok(());
            }
            rbac.role_rules(namespace, role("kind"), role("name"))
                .map_err(|why| Status::not_found(&apimachinery::GroupResource::new(GROUP, plural), &why))?
        } else {
            if unchanged(&["rules", "aggregationRule"])
                || self.may("escalate", self.kind.resource.plural, new.name())
            {
                return Ok(());
            }
            match new.get(&["aggregationRule"]) {
                // whoever decides what is added up decides over everything
                Some(Value::Object(_)) => everything(),
                _ => Rule::list(new.get(&["rules"])),
            }
        };
        rbac.confirm_no_escalation(&self.ctx.user, namespace, &wanted)
            .map_err(|why| Status::forbidden(&self.kind.resource.group_resource(), new.name(), why))
    }

    fn may(&self, verb: &str, plural: &str, name: &str) -> bool {
        let attributes = Attributes {
            namespace: &self.ctx.info.namespace,
            api_version: "v1",
            name,
            ..Attributes::resource(&self.ctx.user, verb, GROUP, plural)
        };
        self.server.access.rbac.decide(&attributes).is_allowed()
    }
}

fn everything() -> Vec<Rule> {
    let all = json!([
        {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
        {"verbs": ["*"], "nonResourceURLs": ["*"]},
    ]);
    Rule::list(Some(&all))
}
