//! The files of config map, secret, downward API and projected volumes.

use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Secret,
    ServiceAccountTokenProjection, Volume,
};

use crate::pod::fields::{Surroundings, field_value, resource_value};
use crate::volumes::atomic_writer::{File, Payload};

/// The objects that a volume's files come from, fetched beforehand.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    pub config_maps: std::collections::HashMap<String, Option<Arc<ConfigMap>>>,
    pub secrets: std::collections::HashMap<String, Option<Arc<Secret>>>,
    /// Tokens by [`token_key`].
    pub tokens: std::collections::HashMap<TokenKey, String>,
}

/// What a projected token is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenKey {
    pub audience: String,
    pub expiration_seconds: i64,
}

pub fn token_key(projection: &ServiceAccountTokenProjection) -> TokenKey {
    TokenKey {
        audience: projection.audience.clone().unwrap_or_default(),
        expiration_seconds: projection.expiration_seconds.unwrap_or(3600),
    }
}

/// Names of config maps and secrets, and tokens, that a volume needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub config_maps: Vec<String>,
    pub secrets: Vec<String>,
    pub tokens: Vec<TokenKey>,
}

pub fn needs(volume: &Volume) -> Needs {
    let mut needs = Needs::default();
    needs.config_maps.extend(volume.config_map.as_ref().map(|source| source.name.clone()));
    needs.secrets.extend(volume.secret.as_ref().and_then(|source| source.secret_name.clone()));
    for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
        needs.config_maps.extend(source.config_map.as_ref().map(|s| s.name.clone()));
        needs.secrets.extend(source.secret.as_ref().map(|s| s.name.clone()));
        needs.tokens.extend(source.service_account_token.as_ref().map(token_key));
    }
    needs
}

/// Bytes by key, of whatever object they come from.
type Entries = Vec<(String, Vec<u8>)>;

fn entries_of_map(map: &ConfigMap) -> Entries {
    let text = map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let bytes = map.binary_data.iter().flatten().map(|(key, ByteString(value))| (key.clone(), value.clone()));
    text.chain(bytes).collect()
}

fn entries_of_secret(secret: &Secret) -> Entries {
    secret.data.iter().flatten().map(|(key, ByteString(value))| (key.clone(), value.clone())).collect()
}

fn file(data: Vec<u8>, mode: i32) -> File {
    File { data, mode: u32::try_from(mode).unwrap_or(0o644), uid: None }
}

/// All entries, or those that `items` choose under the paths they give.
fn choose(
    entries: Entries,
    items: Option<&Vec<KeyToPath>>,
    mode: i32,
    optional: bool,
    missing: &str,
) -> Result<Payload, String> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(entries.into_iter().map(|(key, data)| (key, file(data, mode))).collect());
    };
    let mut payload = Payload::new();
    for item in items {
        match entries.iter().find(|(key, _)| *key == item.key) {
            Some((_, data)) => {
                payload.insert(item.path.clone(), file(data.clone(), item.mode.unwrap_or(mode)));
            }
            None if optional => {}
            None => return Err(format!("{missing}: {}", item.key)),
        }
    }
    Ok(payload)
}

fn from_config_map(
    objects: &Objects,
    name: &str,
    items: Option<&Vec<KeyToPath>>,
    mode: i32,
    optional: Option<bool>,
) -> Result<Payload, String> {
    let optional = optional.unwrap_or_default();
    match objects.config_maps.get(name).cloned().flatten() {
        Some(map) => {
            let missing = "configmap references non-existent config key";
            choose(entries_of_map(&map), items, mode, optional, missing)
        }
        None if optional => Ok(Payload::new()),
        None => Err(format!("configmap {name:?} not found")),
    }
}

fn from_secret(
    objects: &Objects,
    name: &str,
    items: Option<&Vec<KeyToPath>>,
    mode: i32,
    optional: Option<bool>,
) -> Result<Payload, String> {
    let optional = optional.unwrap_or_default();
    match objects.secrets.get(name).cloned().flatten() {
        Some(secret) => {
            let missing = "references non-existent secret key";
            choose(entries_of_secret(&secret), items, mode, optional, missing)
        }
        None if optional => Ok(Payload::new()),
        None => Err(format!("secret {name:?} not found")),
    }
}

fn from_downward(
    items: Option<&Vec<DownwardAPIVolumeFile>>,
    mode: i32,
    pod: &Pod,
    around: &Surroundings,
) -> Result<Payload, String> {
    let mut payload = Payload::new();
    for item in items.into_iter().flatten() {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(selector), _) => field_value(selector, pod, around)?,
            (None, Some(selector)) => resource_value(selector, pod, None, around)?,
            (None, None) => continue,
        };
        payload.insert(item.path.clone(), file(text.into_bytes(), item.mode.unwrap_or(mode)));
    }
    Ok(payload)
}

/// Who the processes of a pod run as, when all run as the same user.
fn common_user(pod: &Pod) -> Option<i64> {
    let pod_spec = crate::pod::spec::spec(pod);
    let mut users = component_helpers::pod::all_containers(pod_spec)
        .map(|container| crate::pod::security::run_as_user(pod, container));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then_some(first)
}

fn from_projected(
    source: &ProjectedVolumeSource,
    pod: &Pod,
    objects: &Objects,
    around: &Surroundings,
) -> Result<Payload, String> {
    let mode = source.default_mode.unwrap_or(0o644);
    let fs_group = crate::pod::spec::spec(pod).security_context.as_ref().and_then(|c| c.fs_group);
    let mut all = Payload::new();
    let mut errors = Vec::new();
    for source in source.sources.iter().flatten() {
        let mut add = |result: Result<Payload, String>| match result {
            Ok(payload) => all.extend(payload),
            Err(error) => errors.push(error),
        };
        if let Some(s) = &source.config_map {
            add(from_config_map(objects, &s.name, s.items.as_ref(), mode, s.optional));
        }
        if let Some(s) = &source.secret {
            add(from_secret(objects, &s.name, s.items.as_ref(), mode, s.optional));
        }
        if let Some(s) = &source.downward_api {
            add(from_downward(s.items.as_ref(), mode, pod, around));
        }
        if let Some(s) = &source.service_account_token {
            let user = common_user(pod);
            // a token is for the one user, or for the group, that has to read it
            let mode = if user.is_some() || fs_group.is_some() { 0o600 } else { mode };
            add(match objects.tokens.get(&token_key(s)) {
                Some(token) => {
                    let uid = user.and_then(|uid| u32::try_from(uid).ok());
                    let token = File { uid, ..file(token.clone().into_bytes(), mode) };
                    Ok(Payload::from([(s.path.clone(), token)]))
                }
                None => Err("failed to fetch token".to_owned()),
            });
        }
        if source.cluster_trust_bundle.is_some() || source.pod_certificate.is_some() {
            errors.push("the projected source is not supported by this kubelet".to_owned());
        }
    }
    match errors.len() {
        0 => Ok(all),
        1 => Err(errors.swap_remove(0)),
        _ => Err(format!("[{}]", errors.join(", "))),
    }
}

/// The files of a volume; `None` when it is not made of files of ours.
pub fn payload(
    volume: &Volume,
    pod: &Pod,
    objects: &Objects,
    around: &Surroundings,
) -> Option<Result<Payload, String>> {
    if let Some(s) = &volume.config_map {
        let mode = s.default_mode.unwrap_or(0o644);
        return Some(from_config_map(objects, &s.name, s.items.as_ref(), mode, s.optional));
    }
    if let Some(s) = &volume.secret {
        let name = s.secret_name.as_deref().unwrap_or_default();
        let mode = s.default_mode.unwrap_or(0o644);
        return Some(from_secret(objects, name, s.items.as_ref(), mode, s.optional));
    }
    if let Some(s) = &volume.downward_api {
        return Some(from_downward(s.items.as_ref(), s.default_mode.unwrap_or(0o644), pod, around));
    }
    volume.projected.as_ref().map(|source| from_projected(source, pod, objects, around))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn objects() -> Objects {
        let map = serde_json::from_value(json!({"data": {"k": "v", "l": "w"}, "binaryData": {"b": "AAE="}}));
        let secret = serde_json::from_value(json!({"data": {"s": "c2VjcmV0"}}));
        let mut objects = Objects::default();
        objects.config_maps.insert("m".into(), Some(Arc::new(map.expect("a map"))));
        objects.secrets.insert("s".into(), Some(Arc::new(secret.expect("a secret"))));
        let key = TokenKey { audience: String::new(), expiration_seconds: 3607 };
        objects.tokens.insert(key, "token".into());
        objects
    }

    fn check(context: Value, volume: Value, want: Result<&str, &str>) {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "labels": {"a": "b"}},
            "spec": {"securityContext": context, "containers": [{"name": "c"}]},
        }))
        .expect("a pod");
        let parsed: Volume = serde_json::from_value(volume.clone()).expect("a volume");
        let made = payload(&parsed, &pod, &objects(), &Surroundings::default()).expect("files");
        let shown = made.map(|files| {
            let lines = files.into_iter().map(|(path, f)| {
                let owner = f.uid.map(|uid| format!("@{uid}")).unwrap_or_default();
                format!("{path}={}({:o}{owner})", String::from_utf8_lossy(&f.data).escape_debug(), f.mode)
            });
            lines.collect::<Vec<_>>().join(" ")
        });
        assert_eq!(shown, want.map(str::to_owned).map_err(str::to_owned), "{volume}");
    }

    #[test]
    fn volumes_become_files() {
        let none = || json!({});
        let map = |more: Value| {
            let mut source = json!({"name": "m"});
            source.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
            json!({"name": "v", "configMap": source})
        };
        check(none(), map(json!({})), Ok("b=\\0\\u{1}(644) k=v(644) l=w(644)"));
        check(
            none(),
            map(
                json!({"defaultMode": 256, "items": [{"key": "k", "path": "x/y"}, {"key": "l", "path": "z", "mode": 511}]}),
            ),
            Ok("x/y=v(400) z=w(777)"),
        );
        let bad = json!({"items": [{"key": "q", "path": "q"}]});
        check(none(), map(bad), Err("configmap references non-existent config key: q"));
        check(none(), map(json!({"name": "none"})), Err("configmap \"none\" not found"));
        check(none(), map(json!({"name": "none", "optional": true})), Ok(""));
        check(none(), json!({"name": "v", "secret": {"secretName": "s"}}), Ok("s=secret(644)"));
        check(
            none(),
            json!({"name": "v", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}),
            Ok("l=a=\\\"b\\\"(644)"),
        );
    }

    #[test]
    fn projections_are_joined() {
        let volume = json!({"name": "v", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "m", "items": [{"key": "k", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}});
        check(json!({}), volume.clone(), Ok("ca.crt=v(644) namespace=p(644) token=token(644)"));
        check(
            json!({"runAsUser": 5}),
            volume.clone(),
            Ok("ca.crt=v(644) namespace=p(644) token=token(600@5)"),
        );
        check(json!({"fsGroup": 7}), volume, Ok("ca.crt=v(644) namespace=p(644) token=token(600)"));
        let bad = json!({"name": "v", "projected": {"sources": [
            {"secret": {"name": "x"}}, {"configMap": {"name": "y"}}]}});
        check(json!({}), bad, Err("[secret \"x\" not found, configmap \"y\" not found]"));
    }
}
