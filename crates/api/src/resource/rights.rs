//! Who may change which part of a claim's status (`DRAResourceClaimGranularStatusAuthorization`): what is allocated and
//! reserved takes a right to `resourceclaims/binding`, the status of a device one to its driver's `resourceclaims/driver`.

use std::collections::BTreeSet;

use apimachinery::field::Path;
use apimachinery::validation as names;
use apimachinery::{Object, Value};

use crate::strategy::{Requester, Right};
use crate::validation::value::{list, text};

const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const ACCOUNT: &str = "system:serviceaccount:";

/// The rights that a change of the status takes besides the one to `status`. `verb` is the request's.
pub fn needed(claim: &Object, old: &Object, verb: &str, requester: &Requester) -> Vec<Right> {
    let mut rights = Vec::new();
    let moved = |key: &str| claim.get(&["status", key]) != old.get(&["status", key]);
    if moved("allocation") || moved("reservedFor") {
        rights.push(Right {
            subresource: "binding",
            verbs: vec![verb.to_owned()],
            name: String::new(),
            namespaced: false,
            path: Path::new("status"),
            deed: format!(
                "changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", verb=\"{verb}\" permission"
            ),
        });
    }
    let drivers = moved_drivers(claim, old);
    if drivers.is_empty() {
        return rights;
    }
    let mut verbs = vec![format!("arbitrary-node:{verb}")];
    if is_on_node(requester, node_of(claim)) {
        verbs.insert(0, format!("associated-node:{verb}"));
    }
    let deed = format!(
        "changing status.devices requires resource=\"resourceclaims/driver\", verb=\"[{}]\" permission",
        verbs.join(" ")
    );
    rights.extend(drivers.into_iter().map(|driver| Right {
        subresource: "driver",
        verbs: verbs.clone(),
        name: driver.to_owned(),
        namespaced: true,
        path: Path::new("status").child("devices"),
        deed: deed.clone(),
    }));
    rights
}

/// The drivers of devices whose status comes, goes or changes, in order.
fn moved_drivers<'a>(claim: &'a Object, old: &'a Object) -> BTreeSet<&'a str> {
    fn key(device: &Value) -> [&str; 4] {
        ["driver", "pool", "device", "shareID"].map(|key| text(device, key))
    }
    let (now, before) = (claim.get_array(&["status", "devices"]), old.get_array(&["status", "devices"]));
    let new = now.iter().filter(|device| !before.contains(device));
    let gone = before.iter().filter(|device| !now.iter().any(|other| key(other) == key(device)));
    new.chain(gone).map(|device| text(device, "driver")).collect()
}

/// The one node that a claim is allocated on; empty where it is not one.
fn node_of(claim: &Object) -> &str {
    let [term] = claim.get_array(&["status", "allocation", "nodeSelector", "nodeSelectorTerms"]) else {
        return "";
    };
    let [field] = list(term, "matchFields") else { return "" };
    let [node] = list(field, "values") else { return "" };
    let by_name = text(field, "key") == "metadata.name" && text(field, "operator") == "In";
    if list(term, "matchExpressions").is_empty() && by_name { node.as_str().unwrap_or_default() } else { "" }
}

/// Whether it is a service account of a pod on a node that asks.
fn is_on_node(requester: &Requester, node: &str) -> bool {
    let account = requester.name.strip_prefix(ACCOUNT).and_then(|account| account.split_once(':'));
    let is_account = account.is_some_and(|(namespace, name)| {
        names::is_dns1123_label(namespace).is_empty() && names::is_dns1123_subdomain(name).is_empty()
    });
    let of_node =
        requester.extra.iter().find(|(key, _)| key == NODE_NAME).map(|(_, values)| values.as_slice());
    is_account
        && !node.is_empty()
        && names::is_dns1123_subdomain(node).is_empty()
        && matches!(of_node, Some([one]) if one == node)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claim(status: Value) -> Object {
        Object::from(json!({"status": status}))
    }

    fn on(node: &str) -> Value {
        json!({"nodeSelector": {"nodeSelectorTerms": [{"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": [node]},
        ]}]}})
    }

    fn device(driver: &str, device: &str) -> Value {
        json!({"driver": driver, "pool": "p", "device": device})
    }

    #[test]
    fn rights_go_with_what_moves() {
        let account = Requester {
            name: "system:serviceaccount:kube-system:dra".into(),
            extra: vec![(NODE_NAME.into(), vec!["n".into()])],
            ..Requester::default()
        };
        let kubelet = Requester { name: "system:node:n".into(), ..account.clone() };
        let moved = {
            let mut moved = device("a", "1");
            moved["conditions"] = json!([{"type": "Ready"}]);
            moved
        };
        let cases: Vec<(&Requester, Value, Value, Vec<&str>)> = vec![
            (&account, json!({}), json!({}), vec![]),
            (&account, json!({}), json!({"allocation": on("n")}), vec!["binding  [update]"]),
            (&account, json!({"reservedFor": [{"name": "p"}]}), json!({}), vec!["binding  [update]"]),
            (
                &account,
                json!({"allocation": on("n"), "devices": [device("a", "1"), device("b", "1")]}),
                json!({"allocation": on("n"), "devices": [moved, device("b", "1")]}),
                vec!["driver a [associated-node:update arbitrary-node:update]"],
            ),
            (
                &account,
                json!({"devices": [device("b", "1")]}),
                json!({"devices": [device("a", "1")]}),
                vec!["driver a [arbitrary-node:update]", "driver b [arbitrary-node:update]"],
            ),
            (
                &account,
                json!({"allocation": on("other")}),
                json!({"allocation": on("other"), "devices": [device("a", "1")]}),
                vec!["driver a [arbitrary-node:update]"],
            ),
            (
                &kubelet,
                json!({"allocation": on("n")}),
                json!({"allocation": on("n"), "devices": [device("a", "1")]}),
                vec!["driver a [arbitrary-node:update]"],
            ),
        ];
        for (requester, old, new, expected) in cases {
            let rights = needed(&claim(new.clone()), &claim(old.clone()), "update", requester);
            let found: Vec<String> = rights
                .iter()
                .map(|right| format!("{} {} [{}]", right.subresource, right.name, right.verbs.join(" ")))
                .collect();
            assert_eq!(found, expected, "{old} then {new}");
        }
    }
}
