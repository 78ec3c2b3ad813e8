//! ClusterRole aggregation: a role with an aggregation rule has the rules of all roles that the rule selects.

use std::sync::Arc;

use client::runner::{self, Again};
use client::{ObjectKey, Queue};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{Shared, owners};

/// The rules of an aggregated role; `None` for a role that has its own.
fn aggregate(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.clone().unwrap_or_default();
    let mut out: Vec<PolicyRule> = Vec::new();
    for selector in &selectors {
        let selector = owners::selector(selector);
        for other in all.iter().filter(|other| other.metadata.name != role.metadata.name) {
            if owners::matches(&selector, other.as_ref()) {
                for rule in other.rules.iter().flatten() {
                    if !out.contains(rule) {
                        out.push(rule.clone());
                    }
                }
            }
        }
    }
    Some(out)
}

pub async fn run(shared: Shared, client: Client, cancel: CancellationToken) {
    let roles = shared.informers.all::<ClusterRole>();
    let queue: Arc<Queue<ObjectKey>> = Arc::default();
    roles.wait_for_sync().await;
    roles.on_change({
        let (queue, roles) = (queue.clone(), roles.clone());
        // any role may be part of any aggregated one
        move |_| {
            for role in roles.store().list().iter().filter(|role| role.aggregation_rule.is_some()) {
                queue.add(ObjectKey::of(role.as_ref()));
            }
        }
    });
    runner::run("clusterrole-aggregation", queue, 1, cancel, |key| {
        let (roles, client) = (roles.clone(), client.clone());
        async move {
            let Some(role) = roles.store().get_key(&key) else { return Ok(Again::OnChange) };
            let Some(rules) = aggregate(&role, &roles.store().list()) else { return Ok(Again::OnChange) };
            if role.rules.clone().unwrap_or_default() == rules {
                return Ok(Again::OnChange);
            }
            let api: Api<ClusterRole> = Api::all(client);
            let body = json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": {"name": key.name}, "rules": rules,
            });
            let params = PatchParams::apply("clusterrole-aggregation-controller").force();
            match api.patch(&key.name, &params, &Patch::Apply(body)).await {
                Err(error) if !client::is_not_found(&error) => Err(error.into()),
                _ => Ok(Again::OnChange),
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::rbac::v1::AggregationRule;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

    use super::*;

    #[test]
    fn rules_are_added_up_once() {
        let role = |name: &str, labels: &[(&str, &str)], verb: Option<&str>| {
            let mut role = ClusterRole::default();
            role.metadata.name = Some(name.into());
            role.metadata.labels =
                Some(labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
            role.rules = verb.map(|verb| vec![PolicyRule { verbs: vec![verb.into()], ..Default::default() }]);
            role
        };
        let mut sum = role("sum", &[("to", "sum")], None);
        let selector =
            LabelSelector { match_labels: Some([("to".into(), "sum".into())].into()), ..Default::default() };
        sum.aggregation_rule = Some(AggregationRule { cluster_role_selectors: Some(vec![selector]) });
        let all: Vec<Arc<ClusterRole>> = vec![
            Arc::new(sum.clone()),
            Arc::new(role("a", &[("to", "sum")], Some("get"))),
            Arc::new(role("b", &[("to", "sum")], Some("get"))),
            Arc::new(role("c", &[], Some("list"))),
        ];
        let rules = aggregate(&sum, &all).unwrap();
        assert_eq!(rules.iter().flat_map(|rule| rule.verbs.clone()).collect::<Vec<_>>(), ["get"]);
        assert!(aggregate(&all[1], &all).is_none());
    }
}
