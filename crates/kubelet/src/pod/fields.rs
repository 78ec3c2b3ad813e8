//! The downward API: fields of a pod and resources of its containers as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use component_helpers::amount::Amount;
use component_helpers::resource::{
    CPU, EPHEMERAL_STORAGE, MEMORY, ResourceList, container_limits, container_requests,
};
use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};

use crate::pod::spec;

/// What the downward API shows besides the pod.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    pub host_ip: String,
    pub pod_ips: Vec<String>,
    /// A container without a limit may use what the node has to give.
    pub allocatable: ResourceList,
}

/// A map as the downward API writes it: sorted lines of `key="value"`.
pub fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> =
        map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quote(value))).collect();
    lines.join("\n")
}

/// Quotes as Go's `%q`.
fn quote(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\x0b' => out.push_str("\\v"),
            c if c.is_control() && u32::from(c) < 0x80 => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The key in `metadata.labels['key']`.
fn subscript<'a>(path: &'a str, map: &str) -> Option<&'a str> {
    path.strip_prefix(map)?.strip_prefix("['")?.strip_suffix("']")
}

pub fn field_value(
    selector: &ObjectFieldSelector,
    pod: &Pod,
    around: &Surroundings,
) -> Result<String, String> {
    let metadata = &pod.metadata;
    let pod_spec = spec::spec(pod);
    let path = selector.field_path.as_str();
    if let Some(key) = subscript(path, "metadata.labels") {
        return Ok(metadata.labels.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    if let Some(key) = subscript(path, "metadata.annotations") {
        return Ok(metadata.annotations.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => spec::name(pod).to_owned(),
        "metadata.namespace" => spec::namespace(pod).to_owned(),
        "metadata.uid" => spec::uid(pod).to_owned(),
        "metadata.labels" => format_map(metadata.labels.as_ref()),
        "metadata.annotations" => format_map(metadata.annotations.as_ref()),
        "spec.nodeName" => pod_spec.node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => pod_spec.service_account_name.clone().unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => around.host_ip.clone(),
        "status.podIP" => around.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => around.pod_ips.join(","),
        other => return Err(format!("unsupported fieldPath: {other}")),
    })
}

/// `limits.cpu` and its like, in units of the divisor, rounded up.
pub fn resource_value(
    selector: &ResourceFieldSelector,
    pod: &Pod,
    own: Option<&Container>,
    around: &Surroundings,
) -> Result<String, String> {
    let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
    let container = match named {
        Some(name) => component_helpers::pod::all_containers(spec::spec(pod))
            .find(|c| c.name == name)
            .ok_or_else(|| format!("container {name} not found"))?,
        None => own.ok_or("container name is required")?,
    };
    let unsupported = || format!("unsupported container resource : {}", selector.resource);
    let (kind, name) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let amount = match kind {
        "requests" => container_requests(container).get(name).unwrap_or_default(),
        "limits" => {
            let limit = container_limits(container).get(name).filter(|amount| !amount.is_zero());
            limit.or_else(|| around.allocatable.get(name)).unwrap_or_default()
        }
        _ => return Err(unsupported()),
    };
    let divisor = selector.divisor.as_ref().map(Amount::of).filter(|d| !d.is_zero());
    let divisor = divisor.unwrap_or(Amount::from_units(1));
    let (value, by) = match name {
        CPU => (amount.milli_value(), divisor.milli_value()),
        MEMORY | EPHEMERAL_STORAGE => (amount.value(), divisor.value()),
        name if name.starts_with("hugepages-") => (amount.value(), divisor.value()),
        _ => return Err(unsupported()),
    };
    Ok(((value + by - 1) / by.max(1)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u",
                "labels": {"b": "2", "a/b": "x\"y\n"}, "annotations": {"k": "v"}},
            "spec": {"nodeName": "n", "serviceAccountName": "sa", "containers": [
                {"name": "c", "resources": {"requests": {"cpu": "1500m"}, "limits": {"memory": "100Mi"}}}]},
        }))
        .expect("a pod")
    }

    fn around() -> Surroundings {
        Surroundings {
            host_ip: "10.0.0.1".into(),
            pod_ips: vec!["10.1.0.2".into(), "fd00::2".into()],
            allocatable: [(CPU, Amount::from_units(2)), (MEMORY, Amount::from_units(1 << 30))]
                .into_iter()
                .collect(),
        }
    }

    #[test]
    fn fields_are_shown() {
        let cases = [
            ("metadata.name", "p"),
            ("metadata.labels", "a/b=\"x\\\"y\\n\"\nb=\"2\""),
            ("metadata.labels['b']", "2"),
            ("metadata.labels['none']", ""),
            ("metadata.annotations['k']", "v"),
            ("spec.nodeName", "n"),
            ("spec.serviceAccountName", "sa"),
            ("status.hostIP", "10.0.0.1"),
            ("status.podIP", "10.1.0.2"),
            ("status.podIPs", "10.1.0.2,fd00::2"),
        ];
        for (path, want) in cases {
            let selector = ObjectFieldSelector { field_path: path.into(), api_version: None };
            assert_eq!(field_value(&selector, &pod(), &around()), Ok(want.to_owned()), "{path}");
        }
        let bad = ObjectFieldSelector { field_path: "spec.x".into(), api_version: None };
        assert!(field_value(&bad, &pod(), &around()).is_err());
    }

    #[test]
    fn resources_are_counted_in_units_of_the_divisor() {
        let cases = [
            (json!({"resource": "requests.cpu"}), "2"),
            (json!({"resource": "requests.cpu", "divisor": "1m"}), "1500"),
            (json!({"resource": "limits.memory", "divisor": "1Mi"}), "100"),
            (json!({"resource": "limits.cpu"}), "2"),
            (json!({"resource": "requests.memory"}), "0"),
            (json!({"resource": "limits.cpu", "containerName": "c", "divisor": "0"}), "2"),
        ];
        let pod = pod();
        let own = &pod.spec.as_ref().expect("a spec").containers[0];
        for (selector, want) in cases {
            let parsed = serde_json::from_value(selector.clone()).expect("a selector");
            assert_eq!(
                resource_value(&parsed, &pod, Some(own), &around()),
                Ok(want.to_owned()),
                "{selector}"
            );
        }
        let missing =
            serde_json::from_value(json!({"resource": "limits.cpu", "containerName": "x"})).expect("ok");
        assert_eq!(resource_value(&missing, &pod, None, &around()), Err("container x not found".into()));
    }
}
