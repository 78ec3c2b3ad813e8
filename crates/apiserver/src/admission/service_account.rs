//! ServiceAccount: every pod runs as an account of its namespace and gets its token, unless one of them says no.

use std::time::Duration;

use apimachinery::{Object, Status, Value};
use serde_json::json;

use super::{Attributes, Operation};
use crate::registry::Registry;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MIRROR: &str = "kubernetes.io/config.mirror";

/// How long a create waits for the account of a namespace that is being set up.
const PATIENCE: Duration = Duration::from_secs(1);

pub async fn admit(registry: &Registry, attributes: &mut Attributes<'_>) -> Result<(), Status> {
    if !attributes.is("pods", "") || attributes.operation != Operation::Create {
        return Ok(());
    }
    let Some(pod) = &mut attributes.object else { return Ok(()) };
    if pod.annotation(MIRROR).is_some() {
        return Ok(());
    }
    if pod.get_str(&["spec", "serviceAccountName"]).is_empty() {
        pod.set(&["spec", "serviceAccountName"], "default");
        pod.set(&["spec", "serviceAccount"], "default");
    }
    let namespace = attributes.namespace.clone();
    let name = pod.get_str(&["spec", "serviceAccountName"]).to_owned();
    let account = match account(registry, &namespace, &name).await {
        Some(account) => account,
        None => {
            let missing =
                Status::not_found(&registry.core("serviceaccounts").resource.group_resource(), &name);
            return Err(attributes
                .forbidden(format_args!("error looking up service account {namespace}/{name}: {missing}")));
        }
    };
    let Some(pod) = &mut attributes.object else { return Ok(()) };
    let wants = |object: &Object, path: &[&str]| object.get(path).and_then(Value::as_bool);
    let automount = wants(pod, &["spec", "automountServiceAccountToken"])
        .or_else(|| wants(&account, &["automountServiceAccountToken"]))
        .unwrap_or(true);
    if automount {
        mount_token(pod);
    }
    if pod.get_array(&["spec", "imagePullSecrets"]).is_empty()
        && let Some(secrets) = account.get(&["imagePullSecrets"])
    {
        pod.set(&["spec", "imagePullSecrets"], secrets.clone());
    }
    Ok(())
}

/// A pod that exists keeps its account; a mirror pod has none.
pub fn validate(registry: &Registry, attributes: &Attributes<'_>) -> Result<(), Status> {
    let _ = registry;
    if !attributes.is("pods", "") || attributes.operation != Operation::Create {
        return Ok(());
    }
    let Some(pod) = &attributes.object else { return Ok(()) };
    if pod.annotation(MIRROR).is_none() {
        return Ok(());
    }
    if !pod.get_str(&["spec", "serviceAccountName"]).is_empty() {
        return Err(attributes.forbidden("a mirror pod may not reference service accounts"));
    }
    Ok(())
}

async fn account(registry: &Registry, namespace: &str, name: &str) -> Option<Object> {
    let kind = registry.core("serviceaccounts");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(account) = registry.peek(kind, namespace, name) {
            return Some(account);
        }
        // the default account follows its namespace by a moment; a named one is there or not
        if name != "default" || tokio::time::Instant::now() >= deadline {
            registry.cache.wait_for_latest().await.ok()?;
            return registry.peek(kind, namespace, name);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Adds the projected volume with token, CA and namespace, and mounts it where nothing else is mounted.
fn mount_token(pod: &mut Object) {
    let existing = pod.get_array(&["spec", "volumes"]).iter().find_map(|volume| {
        let name = volume.get("name")?.as_str()?;
        (name.starts_with(VOLUME_PREFIX) && volume.get("projected").is_some()).then(|| name.to_owned())
    });
    let volume = existing.clone().unwrap_or_else(|| crate::registry::generate_name(VOLUME_PREFIX));
    let mut mounted = false;
    for key in ["initContainers", "containers"] {
        let containers = pod.as_value_mut().pointer_mut(&format!("/spec/{key}"));
        for container in containers.and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(container) = container.as_object_mut() else { continue };
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if mounts.iter().all(|mount| mount["mountPath"] != MOUNT_PATH) {
                mounts.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
                mounted = true;
            }
        }
    }
    if mounted && existing.is_none() {
        let mut volumes = pod.get_array(&["spec", "volumes"]).to_vec();
        volumes.push(token_volume(&volume));
        pod.set(&["spec", "volumes"], volumes);
    }
}

fn token_volume(name: &str) -> Value {
    const MODE: i64 = 0o644;
    json!({"name": name, "projected": {"defaultMode": MODE, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        ]}},
    ]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_with_its_own_mount_keeps_it() {
        let mut pod = Object::from(json!({"spec": {"containers": [
            {"name": "a"},
            {"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]},
        ]}}));
        mount_token(&mut pod);
        assert_eq!(pod.get_array(&["spec", "volumes"]).len(), 1);
        let containers = pod.get_array(&["spec", "containers"]);
        assert_eq!(containers[0]["volumeMounts"][0]["mountPath"], MOUNT_PATH);
        assert_eq!(containers[1]["volumeMounts"][0]["name"], "own");
    }
}
