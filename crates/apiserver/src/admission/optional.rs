//! Plugins that run only where they are asked for, and that look at nothing but the object: AlwaysPullImages,
//! DenyServiceExternalIPs, ExtendedResourceToleration, LimitPodHardAntiAffinityTopology.

use std::collections::BTreeSet;

use apimachinery::field::{Error, Path};
use apimachinery::{Status, Value};
use serde_json::json;

use super::{Attributes, Operation, tolerations};

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Credentials are checked each time, as nobody uses an image that another one pulled.
pub fn always_pull_images(attributes: &mut Attributes<'_>) {
    if !pulls(attributes) {
        return;
    }
    let Some(pod) = &mut attributes.object else { return };
    for list in LISTS {
        let containers = pod.as_value_mut().pointer_mut(&format!("/spec/{list}"));
        for container in containers.and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(container) = container.as_object_mut() {
                container.insert("imagePullPolicy".into(), json!("Always"));
            }
        }
    }
    for volume in
        pod.as_value_mut().pointer_mut("/spec/volumes").and_then(Value::as_array_mut).into_iter().flatten()
    {
        if let Some(image) = volume.get_mut("image").and_then(Value::as_object_mut) {
            image.insert("pullPolicy".into(), json!("Always"));
        }
    }
}

/// An update of a pod concerns the plugin when it brings images.
fn pulls(attributes: &Attributes<'_>) -> bool {
    let pods = attributes.is("pods", "") || attributes.is("pods", "ephemeralcontainers");
    let images = |object: Option<&apimachinery::Object>| -> BTreeSet<String> {
        let all =
            LISTS.iter().flat_map(|list| object.into_iter().flat_map(|pod| pod.get_array(&["spec", list])));
        all.filter_map(|container| Some(container.get("image")?.as_str()?.to_owned())).collect()
    };
    match attributes.operation {
        Operation::Create => pods,
        Operation::Update => {
            pods && !images(attributes.object.as_ref()).is_subset(&images(attributes.old.as_ref()))
        }
        Operation::Delete | Operation::Connect => false,
    }
}

pub fn validate_pull_images(attributes: &Attributes<'_>) -> Result<(), Status> {
    if !pulls(attributes) {
        return Ok(());
    }
    let Some(pod) = &attributes.object else { return Ok(()) };
    let wrong = |policy: Option<&Value>| policy.and_then(Value::as_str) != Some("Always");
    for list in LISTS {
        for (index, container) in pod.get_array(&["spec", list]).iter().enumerate() {
            let policy = container.get("imagePullPolicy");
            if wrong(policy) {
                let path = Path::new("spec").child(list).index(index).child("imagePullPolicy");
                let policy = policy.and_then(Value::as_str).unwrap_or_default();
                return Err(attributes.forbidden(Error::not_supported(&path, policy, &["Always"])));
            }
        }
    }
    Ok(())
}

pub fn deny_external_ips(attributes: &Attributes<'_>) -> Result<(), Status> {
    if !attributes.is("services", "") || attributes.operation == Operation::Delete {
        return Ok(());
    }
    let path = ["spec", "externalIPs"];
    let new = attributes.object.as_ref().map(|service| service.get_array(&path)).unwrap_or_default();
    let old = attributes.old.as_ref().map(|service| service.get_array(&path)).unwrap_or_default();
    if new.iter().all(|address| old.contains(address)) {
        return Ok(());
    }
    Err(attributes.forbidden("Use of external IPs is denied by admission control"))
}

/// Nodes with special hardware are tainted by its name; who asks for it tolerates that.
pub fn extended_resource_toleration(attributes: &mut Attributes<'_>) {
    if !attributes.is("pods", "") || attributes.operation == Operation::Delete {
        return;
    }
    let Some(pod) = &mut attributes.object else { return };
    let native = |name: &str| !name.contains('/') || name.contains("kubernetes.io/");
    let mut names = BTreeSet::new();
    for list in ["initContainers", "containers"] {
        for container in pod.get_array(&["spec", list]) {
            let requests = container.pointer("/resources/requests").and_then(Value::as_object);
            names.extend(
                requests.into_iter().flatten().map(|(name, _)| name.clone()).filter(|name| !native(name)),
            );
        }
    }
    if names.is_empty() {
        return;
    }
    let more: Vec<Value> = names.into_iter().map(|name| json!({"key": name, "operator": "Exists"})).collect();
    let merged = tolerations::merge(pod.get_array(&["spec", "tolerations"]), &more);
    pod.set(&["spec", "tolerations"], merged);
}

pub fn limit_anti_affinity(attributes: &Attributes<'_>) -> Result<(), Status> {
    const HOST: &str = "kubernetes.io/hostname";
    if !attributes.is("pods", "") || attributes.operation == Operation::Delete {
        return Ok(());
    }
    let path = ["spec", "affinity", "podAntiAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
    let terms = attributes.object.as_ref().map(|pod| pod.get_array(&path)).unwrap_or_default();
    let other = terms.iter().filter_map(|term| term.get("topologyKey")?.as_str()).find(|key| *key != HOST);
    match other {
        Some(key) => Err(attributes.forbidden(format_args!(
            "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {HOST} is allowed"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::Object;

    use super::*;
    use crate::kinds::Kinds;

    fn write(kinds: &Kinds, plural: &str, object: Value, old: Option<Value>) -> Attributes<'static> {
        let kind = kinds.get("", "v1", plural).expect("a kind").clone();
        Attributes {
            operation: if old.is_some() { Operation::Update } else { Operation::Create },
            // a test may leak what lives as long as the server elsewhere
            kind: Box::leak(Box::new(kind)),
            subresource: "",
            namespace: "ns".into(),
            name: "x".into(),
            object: Some(Object::from(object)),
            old: old.map(Object::from),
            dry_run: false,
        }
    }

    #[test]
    fn images_are_always_pulled() {
        let kinds = Kinds::builtin();
        let pod = json!({"spec": {"containers": [{"name": "a", "image": "i", "imagePullPolicy": "Never"}],
            "volumes": [{"name": "v", "image": {"reference": "r"}}]}});
        let mut attributes = write(&kinds, "pods", pod.clone(), None);
        assert!(validate_pull_images(&attributes).is_err());
        always_pull_images(&mut attributes);
        assert!(validate_pull_images(&attributes).is_ok());
        let after = attributes.object.as_ref().expect("a pod").as_value();
        assert_eq!(after["spec"]["containers"][0]["imagePullPolicy"], "Always");
        assert_eq!(after["spec"]["volumes"][0]["image"]["pullPolicy"], "Always");
        let same = write(&kinds, "pods", pod.clone(), Some(pod));
        assert!(validate_pull_images(&same).is_ok(), "an update without new images");
    }

    #[test]
    fn new_external_addresses_are_denied() {
        let kinds = Kinds::builtin();
        let service = |addresses: &[&str]| json!({"spec": {"externalIPs": addresses}});
        let cases = [
            (service(&[]), None, true),
            (service(&["1.2.3.4"]), None, false),
            (service(&["1.2.3.4"]), Some(service(&["1.2.3.4", "5.6.7.8"])), true),
            (service(&["1.2.3.4"]), Some(service(&[])), false),
        ];
        for (new, old, fine) in cases {
            assert_eq!(
                deny_external_ips(&write(&kinds, "services", new.clone(), old)).is_ok(),
                fine,
                "{new}"
            );
        }
    }

    #[test]
    fn special_hardware_is_tolerated() {
        let kinds = Kinds::builtin();
        let pod = json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {
            "cpu": "1", "example.com/gpu": "1", "kubernetes.io/x": "1"}}}]}});
        let mut attributes = write(&kinds, "pods", pod, None);
        extended_resource_toleration(&mut attributes);
        let pod = attributes.object.expect("a pod");
        let wanted = json!([{"key": "example.com/gpu", "operator": "Exists"}]);
        assert_eq!(pod.get(&["spec", "tolerations"]), Some(&wanted));
    }

    #[test]
    fn pods_keep_apart_by_host_only() {
        let kinds = Kinds::builtin();
        let pod = |key: &str| {
            json!({"spec": {"affinity": {"podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": key}]}}}})
        };
        assert!(limit_anti_affinity(&write(&kinds, "pods", pod("kubernetes.io/hostname"), None)).is_ok());
        let status = limit_anti_affinity(&write(&kinds, "pods", pod("zone"), None)).expect_err("refused");
        assert!(status.message.ends_with(
            "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey zone but only key kubernetes.io/hostname is allowed"
        ));
    }
}
