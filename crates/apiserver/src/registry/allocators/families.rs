//! Families of a Service's addresses: what is left open is filled in, what the cluster cannot do is refused. No IO.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Object, Value};
use serde_json::json;

/// `IPv4` or `IPv6`.
pub type Family = &'static str;

pub const V4: Family = "IPv4";
pub const V6: Family = "IPv6";

pub fn family_of(ip: std::net::IpAddr) -> Family {
    if ip.is_ipv4() { V4 } else { V6 }
}

fn other(family: &str) -> Family {
    if family == V4 { V6 } else { V4 }
}

fn list<'a>(service: &'a Object, key: &str) -> Vec<&'a str> {
    service.get_array(&["spec", key]).iter().map(|value| value.as_str().unwrap_or_default()).collect()
}

fn text<'a>(service: &'a Object, key: &str) -> &'a str {
    service.get_str(&["spec", key])
}

fn same(new: &Object, old: &Object, key: &str) -> bool {
    list(new, key) == list(old, key)
}

/// Whether an update leaves a Service that prefers two families as it is. Such a one does not follow the cluster
/// when that gains or loses a family.
pub fn stays_as_it_is(new: &Object, old: Option<&Object>) -> bool {
    const PREFERS: &str = "PreferDualStack";
    let Some(old) = old else { return false };
    text(new, "ipFamilyPolicy") == PREFERS
        && text(old, "ipFamilyPolicy") == PREFERS
        && text(new, "type") == text(old, "type")
        && text(new, "type") != "ExternalName"
        && same(new, old, "clusterIPs")
        && same(new, old, "ipFamilies")
}

/// Whether a list became shorter, rather than being left out.
fn reduced(new: &Object, old: &Object, key: &str) -> bool {
    let (after, before) = (list(new, key).len(), list(old, key).len());
    after != 0 && after < before
}

fn cut(service: &mut Object, key: &str) {
    let first: Vec<Value> = service.get_array(&["spec", key]).iter().take(1).cloned().collect();
    service.set(&["spec", key], first);
}

/// Fills in policy and families; `configured` are the families of the cluster, its own first.
pub fn fill_in(new: &mut Object, old: Option<&Object>, configured: &[Family]) -> Result<(), ErrorList> {
    if text(new, "type") == "ExternalName" || stays_as_it_is(new, old) {
        return Ok(());
    }
    let open_headless = text(new, "clusterIP") == "None"
        && new.get(&["spec", "selector"]).and_then(Value::as_object).is_none_or(|s| s.is_empty());
    if new.get(&["spec", "ipFamilyPolicy"]).is_none() {
        let before = old.map(|old| text(old, "ipFamilyPolicy")).filter(|policy| !policy.is_empty());
        let policy = match before {
            Some(policy) => policy.to_owned(),
            None if open_headless => "RequireDualStack".to_owned(),
            None => "SingleStack".to_owned(),
        };
        new.set(&["spec", "ipFamilyPolicy"], policy);
    }
    let errors = api::validation::cluster_ips(new, old);
    if !errors.is_empty() {
        return Err(errors);
    }
    let policy = text(new, "ipFamilyPolicy").to_owned();
    let path = Path::new("spec");
    let mut errors = ErrorList::new();
    let refuse = |errors: &mut ErrorList, why: &str| {
        errors.push(Error::invalid(&path.child("ipFamilyPolicy"), policy.as_str(), why));
    };
    let single = policy == "SingleStack";
    if let Some(old) = old {
        for (key, what) in [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")] {
            if single && same(new, old, key) && list(new, key).len() > 1 {
                // the first one never changes: the policy alone says which one goes
                cut(new, key);
            } else if !single && reduced(new, old, key) {
                refuse(&mut errors, &format!("must be 'SingleStack' to release the secondary {what}"));
            }
        }
    }
    for (key, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
        if single && list(new, key).len() == 2 {
            let why =
                format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            refuse(&mut errors, &why);
        }
    }
    let mut families: Vec<String> = list(new, "ipFamilies").into_iter().map(str::to_owned).collect();
    let ips = list(new, "clusterIPs");
    for (index, ip) in ips.iter().enumerate().take_while(|(_, ip)| **ip != "None") {
        let Some(family) = apimachinery::validation::parse_ip_sloppy(ip).map(family_of) else { continue };
        if index < families.len() {
            continue;
        }
        if configured.contains(&family) {
            families.push(family.to_owned());
        } else {
            let at = path.child("clusterIPs").index(index);
            let why = format!("{family} is not configured on this cluster");
            errors.push(Error::invalid(&at, new.get_array(&["spec", "clusterIPs"]).to_vec(), why));
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    if !open_headless {
        if policy == "RequireDualStack" && configured.len() < 2 {
            refuse(&mut errors, "this cluster is not configured for dual-stack services");
        }
        for (index, family) in families.iter().enumerate() {
            if !configured.iter().any(|one| one == family) {
                let at = path.child("ipFamilies").index(index);
                errors.push(Error::invalid(&at, family.as_str(), "not configured on this cluster"));
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
    }
    if families.is_empty() {
        families.push(configured.first().copied().unwrap_or(V4).to_owned());
    }
    // what has neither address nor selector may name families that the cluster does not have
    if families.len() == 1 && !single && (open_headless || configured.len() == 2) {
        families.push(other(&families[0]).to_owned());
    }
    new.set(&["spec", "ipFamilies"], json!(families));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value) -> Object {
        Object::from(json!({"spec": spec}))
    }

    const BOTH: &[Family] = &[V4, V6];

    #[test]
    fn new_services_get_what_they_leave_open() {
        let web = json!({"app": "web"});
        let cases: [(Value, &[Family], Value, &str); 7] = [
            (json!({"type": "ClusterIP", "selector": web}), &[V4], json!(["IPv4"]), "SingleStack"),
            (json!({"type": "ClusterIP", "selector": web}), BOTH, json!(["IPv4"]), "SingleStack"),
            (
                json!({"type": "ClusterIP", "selector": web, "ipFamilyPolicy": "PreferDualStack"}),
                BOTH,
                json!(["IPv4", "IPv6"]),
                "PreferDualStack",
            ),
            (
                json!({"type": "ClusterIP", "selector": web, "ipFamilyPolicy": "PreferDualStack"}),
                &[V6],
                json!(["IPv6"]),
                "PreferDualStack",
            ),
            (
                json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"]}),
                &[V4],
                json!(["IPv4", "IPv6"]),
                "RequireDualStack",
            ),
            (
                json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"], "selector": web}),
                BOTH,
                json!(["IPv4"]),
                "SingleStack",
            ),
            (
                json!({"type": "ClusterIP", "clusterIP": "fd00::5", "clusterIPs": ["fd00::5"], "selector": web}),
                BOTH,
                json!(["IPv6"]),
                "SingleStack",
            ),
        ];
        for (spec, configured, families, policy) in cases {
            let mut new = service(spec.clone());
            fill_in(&mut new, None, configured).unwrap();
            assert_eq!(new.get(&["spec", "ipFamilies"]), Some(&families), "{spec}");
            assert_eq!(text(&new, "ipFamilyPolicy"), policy, "{spec}");
        }
    }

    #[test]
    fn what_the_cluster_cannot_do_is_refused() {
        let web = json!({"app": "web"});
        let cases: [(Value, &[Family], &str); 5] = [
            (
                json!({"type": "ClusterIP", "selector": web, "ipFamilyPolicy": "RequireDualStack"}),
                &[V4],
                "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
            ),
            (
                json!({"type": "ClusterIP", "selector": web, "ipFamilies": ["IPv6"]}),
                &[V4],
                "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
            ),
            (
                json!({"type": "ClusterIP", "selector": web, "clusterIP": "fd00::1", "clusterIPs": ["fd00::1"]}),
                &[V4],
                "spec.clusterIPs[0]: Invalid value: [\"fd00::1\"]: IPv6 is not configured on this cluster",
            ),
            (
                json!({"type": "ClusterIP", "selector": web, "ipFamilies": ["IPv4", "IPv6"]}),
                BOTH,
                "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified",
            ),
            (
                json!({"type": "ClusterIP", "selector": web, "ipFamilyPolicy": "SingleStack",
                    "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"]}),
                BOTH,
                "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified",
            ),
        ];
        for (spec, configured, message) in cases {
            let errors = fill_in(&mut service(spec.clone()), None, configured).unwrap_err();
            assert_eq!(errors[0].to_string(), message, "{spec}");
        }
    }

    #[test]
    fn the_second_family_goes_with_the_policy() {
        let dual = json!({"type": "ClusterIP", "selector": {"a": "b"}, "ipFamilyPolicy": "RequireDualStack",
            "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv6"]});
        let old = service(dual.clone());
        let mut new = service(dual.clone());
        new.set(&["spec", "ipFamilyPolicy"], "SingleStack");
        fill_in(&mut new, Some(&old), BOTH).unwrap();
        assert_eq!((list(&new, "clusterIPs"), list(&new, "ipFamilies")), (vec!["10.0.0.1"], vec!["IPv4"]));
        let mut less = service(dual);
        less.set(&["spec", "ipFamilies"], json!(["IPv4"]));
        assert_eq!(
            fill_in(&mut less, Some(&old), BOTH).unwrap_err()[0].to_string(),
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": must be 'SingleStack' to release the secondary IP family"
        );
    }

    #[test]
    fn a_preference_does_not_follow_the_cluster() {
        let one =
            service(json!({"type": "ClusterIP", "selector": {"a": "b"}, "ipFamilyPolicy": "PreferDualStack",
            "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"]}));
        let mut new = one.clone();
        fill_in(&mut new, Some(&one), BOTH).unwrap();
        assert_eq!(list(&new, "ipFamilies"), ["IPv4"]);
    }
}
