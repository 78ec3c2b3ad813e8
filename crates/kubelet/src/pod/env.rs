//! The environment of a container: config maps, secrets, fields, and the Services of its namespace.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, Pod, Secret, Service};

use crate::pod::expansion::expand;
use crate::pod::fields::{Surroundings, field_value, resource_value};
use crate::pod::spec;

/// Objects that variables come from; `None` is one that does not exist.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub config_maps: HashMap<String, Option<Arc<ConfigMap>>>,
    pub secrets: HashMap<String, Option<Arc<Secret>>>,
    pub services: Vec<(String, String)>,
    pub around: Surroundings,
}

/// The names of the objects that a container's environment needs.
pub fn needs(container: &Container) -> (Vec<String>, Vec<String>) {
    let (mut config_maps, mut secrets) = (Vec::new(), Vec::new());
    for from in container.env_from.iter().flatten() {
        config_maps.extend(from.config_map_ref.as_ref().map(|r| r.name.clone()));
        secrets.extend(from.secret_ref.as_ref().map(|r| r.name.clone()));
    }
    for from in container.env.iter().flatten().filter_map(|var| var.value_from.as_ref()) {
        config_maps.extend(from.config_map_key_ref.as_ref().map(|r| r.name.clone()));
        secrets.extend(from.secret_key_ref.as_ref().map(|r| r.name.clone()));
    }
    (config_maps, secrets)
}

/// Variables in the order in which they were first set.
#[derive(Default)]
struct Variables {
    order: Vec<String>,
    values: HashMap<String, String>,
}

impl Variables {
    fn set(&mut self, name: &str, value: String) {
        if self.values.insert(name.to_owned(), value).is_none() {
            self.order.push(name.to_owned());
        }
    }
}

fn not_found(kind: &str, name: &str) -> String {
    format!("{kind} {name:?} not found")
}

pub fn environment(
    pod: &Pod,
    container: &Container,
    from: &Sources,
) -> Result<Vec<(String, String)>, String> {
    let mut variables = Variables::default();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            match from.config_maps.get(&reference.name).cloned().flatten() {
                Some(map) => {
                    for (key, value) in map.data.iter().flatten() {
                        variables.set(&format!("{prefix}{key}"), value.clone());
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(not_found("configmap", &reference.name)),
            }
        }
        if let Some(reference) = &source.secret_ref {
            match from.secrets.get(&reference.name).cloned().flatten() {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        let value = String::from_utf8_lossy(&value.0).into_owned();
                        variables.set(&format!("{prefix}{key}"), value);
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(not_found("secret", &reference.name)),
            }
        }
    }
    let services: HashMap<&str, &str> = from.services.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    for variable in container.env.iter().flatten() {
        let value = match variable.value.as_deref().filter(|value| !value.is_empty()) {
            Some(text) => expand(text, |name| {
                let own = variables.values.get(name).map(String::as_str);
                own.or_else(|| services.get(name).copied()).map(str::to_owned)
            }),
            None => match resolve(variable, pod, container, from)? {
                Some(value) => value,
                None => continue,
            },
        };
        variables.set(&variable.name, value);
    }
    let Variables { order, mut values } = variables;
    let mut all: Vec<(String, String)> =
        order.into_iter().filter_map(|name| values.remove_entry(&name)).collect();
    for (name, value) in &from.services {
        if !all.iter().any(|(own, _)| own == name) {
            all.push((name.clone(), value.clone()));
        }
    }
    Ok(all)
}

/// The value from a variable's source; `None` when it is optional and not there.
fn resolve(
    variable: &EnvVar,
    pod: &Pod,
    container: &Container,
    from: &Sources,
) -> Result<Option<String>, String> {
    let Some(source) = &variable.value_from else { return Ok(Some(String::new())) };
    let namespace = spec::namespace(pod);
    if let Some(selector) = &source.field_ref {
        return field_value(selector, pod, &from.around).map(Some);
    }
    if let Some(selector) = &source.resource_field_ref {
        return resource_value(selector, pod, Some(container), &from.around).map(Some);
    }
    if let Some(reference) = &source.config_map_key_ref {
        let optional = reference.optional == Some(true);
        let (name, key) = (&reference.name, &reference.key);
        return match from.config_maps.get(name).cloned().flatten() {
            Some(map) => match map.data.as_ref().and_then(|data| data.get(key)) {
                Some(value) => Ok(Some(value.clone())),
                None if optional => Ok(None),
                None => Err(format!("couldn't find key {key} in ConfigMap {namespace}/{name}")),
            },
            None if optional => Ok(None),
            None => Err(not_found("configmap", name)),
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        let optional = reference.optional == Some(true);
        let (name, key) = (&reference.name, &reference.key);
        return match from.secrets.get(name).cloned().flatten() {
            Some(secret) => match secret.data.as_ref().and_then(|data| data.get(key)) {
                Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
                None if optional => Ok(None),
                None => Err(format!("couldn't find key {key} in Secret {namespace}/{name}")),
            },
            None if optional => Ok(None),
            None => Err(not_found("secret", name)),
        };
    }
    Ok(Some(String::new()))
}

/// The Services that a pod of `namespace` is told of: those of its namespace when it wants links, and always
/// `default/kubernetes`.
pub fn service_variables<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    namespace: &str,
    links: bool,
) -> Vec<(String, String)> {
    let mut chosen: Vec<&Service> = Vec::new();
    for service in services {
        let own = service.metadata.namespace.as_deref().unwrap_or_default();
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let ip = cluster_ip(service);
        if ip.is_empty() {
            continue;
        }
        let master = own == "default" && name == "kubernetes";
        if master || (own == namespace && links) {
            // the pod's own namespace wins over default/kubernetes
            let taken = chosen.iter().position(|c| c.metadata.name.as_deref() == Some(name));
            match taken {
                None => chosen.push(service),
                Some(at) if !master => chosen[at] = service,
                Some(_) => {}
            }
        }
    }
    chosen.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    chosen.into_iter().flat_map(variables_of).collect()
}

fn cluster_ip(service: &Service) -> &str {
    let ip = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()).unwrap_or_default();
    if ip == "None" { "" } else { ip }
}

fn variables_of(service: &Service) -> Vec<(String, String)> {
    let upper = |text: &str| text.to_uppercase().replace('-', "_");
    let name = upper(service.metadata.name.as_deref().unwrap_or_default());
    let ip = cluster_ip(service);
    let ports = service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default();
    let mut out = vec![(format!("{name}_SERVICE_HOST"), ip.to_owned())];
    out.extend(ports.first().map(|port| (format!("{name}_SERVICE_PORT"), port.port.to_string())));
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            out.push((format!("{name}_SERVICE_PORT_{}", upper(port_name)), port.port.to_string()));
        }
    }
    let host = match ip.parse::<IpAddr>() {
        Ok(IpAddr::V6(_)) => format!("[{ip}]"),
        _ => ip.to_owned(),
    };
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        if index == 0 {
            out.push((format!("{name}_PORT"), url.clone()));
        }
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        out.push((prefix.clone(), url));
        out.push((format!("{prefix}_PROTO"), protocol.to_lowercase()));
        out.push((format!("{prefix}_PORT"), port.port.to_string()));
        out.push((format!("{prefix}_ADDR"), ip.to_owned()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn sources() -> Sources {
        let map = serde_json::from_value(json!({"data": {"k": "v", "l": "w"}})).expect("a map");
        let secret = serde_json::from_value(json!({"data": {"s": "c2VjcmV0"}})).expect("a secret");
        Sources {
            config_maps: HashMap::from([("m".into(), Some(Arc::new(map))), ("gone".into(), None)]),
            secrets: HashMap::from([("s".into(), Some(Arc::new(secret)))]),
            services: vec![("DB_SERVICE_HOST".into(), "10.0.0.9".into()), ("OWN".into(), "service".into())],
            around: Surroundings::default(),
        }
    }

    fn check(container: Value, want: Result<&str, &str>) {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}})).expect("a pod");
        let parsed: Container = serde_json::from_value(container.clone()).expect("a container");
        let shown = environment(&pod, &parsed, &sources()).map(|all| {
            let own = all.into_iter().filter(|(name, _)| name != "DB_SERVICE_HOST");
            own.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        });
        assert_eq!(shown, want.map(str::to_owned).map_err(str::to_owned), "{container}");
    }

    #[test]
    fn variables_come_from_everywhere() {
        check(json!({"name": "c"}), Ok("OWN=service"));
        check(json!({"name": "c", "env": [{"name": "OWN", "value": "mine"}]}), Ok("OWN=mine"));
        check(
            json!({"name": "c", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-$(DB_SERVICE_HOST)-$(C)"}]}),
            Ok("A=1 B=1-10.0.0.9-$(C) OWN=service"),
        );
        check(
            json!({"name": "c", "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}}, {"secretRef": {"name": "s"}}],
                   "env": [{"name": "P_k", "value": "over"}]}),
            Ok("P_k=over P_l=w s=secret OWN=service"),
        );
        let of = |source: Value| json!({"name": "c", "env": [{"name": "A", "valueFrom": source}]});
        check(of(json!({"fieldRef": {"fieldPath": "metadata.name"}})), Ok("A=p OWN=service"));
        check(of(json!({"configMapKeyRef": {"name": "m", "key": "k"}})), Ok("A=v OWN=service"));
        check(
            of(json!({"configMapKeyRef": {"name": "m", "key": "x"}})),
            Err("couldn't find key x in ConfigMap ns/m"),
        );
        check(of(json!({"configMapKeyRef": {"name": "m", "key": "x", "optional": true}})), Ok("OWN=service"));
        check(
            of(json!({"configMapKeyRef": {"name": "gone", "key": "k"}})),
            Err("configmap \"gone\" not found"),
        );
        check(of(json!({"secretKeyRef": {"name": "s", "key": "s"}})), Ok("A=secret OWN=service"));
        check(of(json!({"secretKeyRef": {"name": "t", "key": "s"}})), Err("secret \"t\" not found"));
        check(
            json!({"name": "c", "envFrom": [{"secretRef": {"name": "t", "optional": true}}]}),
            Ok("OWN=service"),
        );
    }

    #[test]
    fn services_become_variables() {
        let services: Vec<Service> = serde_json::from_value(json!([
            {"metadata": {"name": "kubernetes", "namespace": "default"},
             "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443, "protocol": "TCP"}]}},
            {"metadata": {"name": "my-db", "namespace": "ns"}, "spec": {"clusterIP": "fd00::1", "ports": [
                {"port": 53, "protocol": "UDP"}, {"name": "web-ui", "port": 80}]}},
            {"metadata": {"name": "headless", "namespace": "ns"}, "spec": {"clusterIP": "None"}},
            {"metadata": {"name": "other", "namespace": "elsewhere"}, "spec": {"clusterIP": "10.96.0.3"}},
        ]))
        .expect("services");
        let shown: Vec<String> =
            service_variables(&services, "ns", true).into_iter().map(|(k, v)| format!("{k}={v}")).collect();
        insta::assert_snapshot!(shown.join("\n"));
        let without: Vec<_> = service_variables(&services, "ns", false);
        assert!(without.iter().all(|(name, _)| name.starts_with("KUBERNETES_")));
    }
}
