//! Pods and pod templates.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::quantity::Quantity;
use apimachinery::validation as names;
use apimachinery::{Object, Value};

use super::{invalid, list, non_negative, text};

/// What is wrong with a pod.
pub fn pod(pod: &Object) -> ErrorList {
    spec(pod.get(&["spec"]).unwrap_or(&Value::Null), &Path::new("spec"))
}

/// What is wrong with a template.
pub fn template(template: &Object, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let metadata = path.child("metadata");
    if let Some(labels) = template.labels() {
        errors.extend(names::validate_labels(labels, &metadata.child("labels")));
    }
    if let Some(annotations) = template.annotations() {
        errors.extend(names::validate_annotations(annotations, &metadata.child("annotations")));
    }
    errors.extend(spec(template.get(&["spec"]).unwrap_or(&Value::Null), &path.child("spec")));
    errors
}

fn one_of(value: &str, valid: &[&str], path: &Path) -> ErrorList {
    match value {
        "" => vec![Error::required(path, "")],
        value if valid.contains(&value) => ErrorList::new(),
        value => vec![Error::not_supported(path, value, valid)],
    }
}

fn spec(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let volumes = volumes(list(spec, "volumes"), &path.child("volumes"), &mut errors);
    let mut seen: Vec<&str> = Vec::new();
    let containers = list(spec, "containers");
    if containers.is_empty() {
        errors.push(Error::required(&path.child("containers"), ""));
    }
    for (index, each) in containers.iter().enumerate() {
        let at = path.child("containers").index(index);
        errors.extend(container(each, &volumes, &mut seen, false, &at));
    }
    for (index, each) in list(spec, "initContainers").iter().enumerate() {
        let at = path.child("initContainers").index(index);
        errors.extend(container(each, &volumes, &mut seen, true, &at));
    }
    host_ports(containers, &path.child("containers"), &mut errors);
    let restart = ["Always", "OnFailure", "Never"];
    errors.extend(one_of(text(spec, "restartPolicy"), &restart, &path.child("restartPolicy")));
    let dns = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    errors.extend(one_of(text(spec, "dnsPolicy"), &dns, &path.child("dnsPolicy")));
    if text(spec, "dnsPolicy") == "None" && list(&spec["dnsConfig"], "nameservers").is_empty() {
        let at = path.child("dnsConfig").child("nameservers");
        let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(Error::required(&at, why));
    }
    let number = |key: &str| spec.get(key).and_then(Value::as_i64);
    let grace = path.child("terminationGracePeriodSeconds");
    errors.extend(non_negative(&grace, number("terminationGracePeriodSeconds")));
    if let Some(seconds) = number("activeDeadlineSeconds").filter(|s| !(1..=i64::from(i32::MAX)).contains(s))
    {
        let messages = names::is_in_range(seconds, 1, i64::from(i32::MAX));
        errors.extend(invalid(&path.child("activeDeadlineSeconds"), seconds, messages));
    }
    for key in ["serviceAccountName", "nodeName"] {
        let value = text(spec, key);
        if !value.is_empty() {
            errors.extend(invalid(&path.child(key), value, names::name_is_dns_subdomain(value, false)));
        }
    }
    for key in ["hostname", "subdomain"] {
        let value = text(spec, key);
        if !value.is_empty() {
            errors.extend(invalid(&path.child(key), value, names::is_dns1123_label(value)));
        }
    }
    if let Some(Value::Object(selector)) = spec.get("nodeSelector") {
        errors.extend(names::validate_labels(selector, &path.child("nodeSelector")));
    }
    errors.extend(tolerations(list(spec, "tolerations"), &path.child("tolerations")));
    errors
}

const VOLUME_SOURCES: [&str; 30] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "glusterfs",
    "hostPath",
    "image",
    "iscsi",
    "nfs",
    "persistentVolumeClaim",
    "photonPersistentDisk",
    "portworxVolume",
    "projected",
    "quobyte",
    "rbd",
    "scaleIO",
    "secret",
    "storageos",
    "vsphereVolume",
];

/// Checks volumes and gives back their names.
fn volumes<'a>(volumes: &'a [Value], path: &Path, errors: &mut ErrorList) -> Vec<&'a str> {
    let mut seen: Vec<&str> = Vec::new();
    for (index, volume) in volumes.iter().enumerate() {
        let at = path.index(index);
        let name = text(volume, "name");
        if name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        } else {
            errors.extend(invalid(&at.child("name"), name, names::is_dns1123_label(name)));
        }
        if seen.contains(&name) {
            errors.push(Error::duplicate(&at.child("name"), name));
        }
        seen.push(name);
        let mut sources = VOLUME_SOURCES.iter().filter(|source| volume.get(source).is_some());
        if sources.next().is_none() {
            errors.push(Error::required(&at, "must specify a volume type"));
        }
        for more in sources {
            errors.push(Error::forbidden(&at.child(more), "may not specify more than 1 volume type"));
        }
        errors.extend(volume_source(volume, &at));
    }
    seen
}

fn volume_source(volume: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut require = |source: &str, key: &str| {
        if let Some(value) = volume.get(source)
            && text(value, key).is_empty()
        {
            errors.push(Error::required(&path.child(source).child(key), ""));
        }
    };
    require("hostPath", "path");
    require("secret", "secretName");
    require("configMap", "name");
    require("persistentVolumeClaim", "claimName");
    let host_path = volume.get("hostPath").map(|source| text(source, "path")).unwrap_or_default();
    if host_path.split('/').any(|part| part == "..") {
        let at = path.child("hostPath").child("path");
        errors.push(Error::invalid(&at, host_path, "must not contain '..'"));
    }
    for key in ["secret", "configMap", "downwardAPI", "projected"] {
        let mode = volume.get(key).and_then(|source| source.get("defaultMode")?.as_i64());
        if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
            let why = "must be a number between 0 and 0777 (octal), both inclusive";
            errors.push(Error::invalid(&path.child(key).child("defaultMode"), mode, why));
        }
    }
    errors
}

fn container<'a>(
    container: &'a Value,
    volumes: &[&str],
    seen: &mut Vec<&'a str>,
    init: bool,
    path: &Path,
) -> ErrorList {
    let mut errors = ErrorList::new();
    let name = text(container, "name");
    if name.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    } else {
        errors.extend(invalid(&path.child("name"), name, names::is_dns1123_label(name)));
        if seen.contains(&name) {
            errors.push(Error::duplicate(&path.child("name"), name));
        }
        seen.push(name);
    }
    let image = text(container, "image");
    if image.trim().is_empty() {
        errors.push(Error::required(&path.child("image"), ""));
    } else if image != image.trim() {
        let why = "must not have leading or trailing whitespace";
        errors.push(Error::invalid(&path.child("image"), image, why));
    }
    let policies = ["Always", "IfNotPresent", "Never"];
    errors.extend(one_of(text(container, "imagePullPolicy"), &policies, &path.child("imagePullPolicy")));
    let message_policies = ["FallbackToLogsOnError", "File"];
    let policy = text(container, "terminationMessagePolicy");
    errors.extend(one_of(policy, &message_policies, &path.child("terminationMessagePolicy")));
    errors.extend(ports(list(container, "ports"), &path.child("ports")));
    errors.extend(env(list(container, "env"), &path.child("env")));
    errors.extend(mounts(list(container, "volumeMounts"), volumes, &path.child("volumeMounts")));
    errors.extend(resources(&container["resources"], &path.child("resources")));
    let restarts = text(container, "restartPolicy");
    let sidecar = restarts == "Always";
    if !restarts.is_empty() && init && !["Always", "OnFailure", "Never"].contains(&restarts) {
        let valid = ["Always", "Never", "OnFailure"];
        errors.push(Error::not_supported(&path.child("restartPolicy"), restarts, &valid));
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
        let Some(value) = container.get(key) else { continue };
        if init && !sidecar {
            let why = "may not be set for init containers without restartPolicy=Always";
            errors.push(Error::forbidden(&path.child(key), why));
        } else if key != "lifecycle" {
            errors.extend(probe(value, key, &path.child(key)));
        }
    }
    errors
}

fn ports(ports: &[Value], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let at = path.index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            errors.extend(invalid(&at.child("name"), name, names::is_valid_port_name(name)));
            if seen.contains(&name) {
                errors.push(Error::duplicate(&at.child("name"), name));
            }
            seen.push(name);
        }
        match port.get("containerPort").and_then(Value::as_i64) {
            None | Some(0) => errors.push(Error::required(&at.child("containerPort"), "")),
            Some(number) => {
                errors.extend(invalid(&at.child("containerPort"), number, names::is_valid_port_num(number)));
            }
        }
        if let Some(number) = port.get("hostPort").and_then(Value::as_i64).filter(|number| *number != 0) {
            errors.extend(invalid(&at.child("hostPort"), number, names::is_valid_port_num(number)));
        }
        errors.extend(one_of(text(port, "protocol"), &["SCTP", "TCP", "UDP"], &at.child("protocol")));
    }
    errors
}

/// No two containers may ask for one port of the host.
fn host_ports(containers: &[Value], path: &Path, errors: &mut ErrorList) {
    let mut seen: Vec<(&str, &str, i64)> = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        for (port_index, port) in list(container, "ports").iter().enumerate() {
            let Some(number) = port.get("hostPort").and_then(Value::as_i64).filter(|n| *n != 0) else {
                continue;
            };
            let key = (text(port, "protocol"), text(port, "hostIP"), number);
            if seen.contains(&key) {
                let at = path.index(index).child("ports").index(port_index).child("hostPort");
                errors.push(Error::duplicate(&at, format!("{}/{}/{}", key.0, key.1, key.2)));
            }
            seen.push(key);
        }
    }
}

fn env(env: &[Value], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, variable) in env.iter().enumerate() {
        let at = path.index(index);
        let name = text(variable, "name");
        if name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        } else {
            errors.extend(invalid(&at.child("name"), name, names::is_relaxed_env_var_name(name)));
        }
        let Some(source) = variable.get("valueFrom") else { continue };
        let at = at.child("valueFrom");
        let sources = source.as_object().map_or(0, serde_json::Map::len);
        if !text(variable, "value").is_empty() && sources > 0 {
            errors.push(Error::invalid(&at, "", "may not be specified when `value` is not empty"));
        }
        match sources {
            0 => {
                let why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`";
                errors.push(Error::invalid(&at, "", why));
            }
            1 => {}
            _ => errors.push(Error::invalid(&at, "", "may not have more than one field specified at a time")),
        }
        for key in ["configMapKeyRef", "secretKeyRef"] {
            let Some(reference) = source.get(key) else { continue };
            for part in ["name", "key"] {
                if text(reference, part).is_empty() {
                    errors.push(Error::required(&at.child(key).child(part), ""));
                }
            }
        }
    }
    errors
}

fn mounts(mounts: &[Value], volumes: &[&str], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for (index, mount) in mounts.iter().enumerate() {
        let at = path.index(index);
        let (name, to) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        } else if !volumes.contains(&name) {
            errors.push(Error::not_found(&at.child("name"), name));
        }
        if to.is_empty() {
            errors.push(Error::required(&at.child("mountPath"), ""));
        }
        if seen.contains(&to) {
            errors.push(Error::invalid(&at.child("mountPath"), to, "must be unique"));
        }
        seen.push(to);
        let sub = text(mount, "subPath");
        if sub.starts_with('/') {
            errors.push(Error::invalid(&at.child("subPath"), sub, "must be a relative path"));
        } else if sub.split('/').any(|part| part == "..") {
            errors.push(Error::invalid(&at.child("subPath"), sub, "must not contain '..'"));
        }
    }
    errors
}

fn resources(resources: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let parse = |value: &Value| value.as_str().and_then(|text| Quantity::parse(text).ok());
    let limits = resources.get("limits").and_then(Value::as_object);
    for part in ["limits", "requests"] {
        for (name, value) in resources.get(part).and_then(Value::as_object).into_iter().flatten() {
            let at = path.child(part).key(name);
            errors.extend(invalid(&at, name.as_str(), names::is_qualified_name(name)));
            let Some(amount) = parse(value) else { continue };
            if amount.signum() < 0 {
                let why = "must be greater than or equal to 0";
                errors.push(Error::invalid(&at, value.clone(), why));
            }
            let limit = limits.and_then(|limits| limits.get(name)).filter(|_| part == "requests");
            if let Some((shown, limit)) = limit.and_then(|limit| Some((limit, parse(limit)?)))
                && amount > limit
            {
                let shown = shown.as_str().unwrap_or_default();
                let why = format!("must be less than or equal to {name} limit of {shown}");
                errors.push(Error::invalid(&path.child("requests"), value.clone(), why));
            }
        }
    }
    errors
}

fn probe(probe: &Value, kind: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let handlers: Vec<&str> = ["exec", "httpGet", "tcpSocket", "grpc"]
        .into_iter()
        .filter(|handler| probe.get(handler).is_some())
        .collect();
    if handlers.is_empty() {
        errors.push(Error::required(path, "must specify a handler type"));
    }
    for more in handlers.iter().skip(1) {
        errors.push(Error::forbidden(&path.child(more), "may not specify more than 1 handler type"));
    }
    if let Some(exec) = probe.get("exec")
        && list(exec, "command").is_empty()
    {
        errors.push(Error::required(&path.child("exec").child("command"), ""));
    }
    for handler in ["httpGet", "tcpSocket"] {
        let Some(value) = probe.get(handler) else { continue };
        let at = path.child(handler).child("port");
        match value.get("port") {
            Some(Value::String(name)) => {
                errors.extend(invalid(&at, name.as_str(), names::is_valid_port_name(name)));
            }
            port => {
                let number = port.and_then(Value::as_i64).unwrap_or_default();
                errors.extend(invalid(&at, number, names::is_valid_port_num(number)));
            }
        }
    }
    let keys =
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"];
    for key in keys {
        errors.extend(non_negative(&path.child(key), probe.get(key).and_then(Value::as_i64)));
    }
    let successes = probe.get("successThreshold").and_then(Value::as_i64).unwrap_or(1);
    if kind != "readinessProbe" && successes != 1 {
        errors.push(Error::invalid(&path.child("successThreshold"), successes, "must be 1"));
    }
    errors
}

pub fn tolerations(tolerations: &[Value], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, toleration) in tolerations.iter().enumerate() {
        let at = path.index(index);
        let (key, operator) = (text(toleration, "key"), text(toleration, "operator"));
        let (value, effect) = (text(toleration, "value"), text(toleration, "effect"));
        if !key.is_empty() {
            errors.extend(invalid(&at.child("key"), key, names::is_qualified_name(key)));
        }
        if key.is_empty() && operator != "Exists" {
            let why =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(Error::invalid(&at.child("operator"), operator, why));
        }
        if toleration.get("tolerationSeconds").is_some() && effect != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(Error::invalid(&at.child("effect"), effect, why));
        }
        match operator {
            "" | "Equal" => {
                errors.extend(invalid(&at.child("operator"), value, names::is_valid_label_value(value)))
            }
            "Exists" if !value.is_empty() => {
                let why = "value must be empty when `operator` is 'Exists'";
                errors.push(Error::invalid(&at.child("operator"), value, why));
            }
            "Exists" => {}
            other => errors.push(Error::not_supported(&at.child("operator"), other, &["Equal", "Exists"])),
        }
        if !effect.is_empty() {
            let valid = ["NoExecute", "NoSchedule", "PreferNoSchedule"];
            errors.extend(one_of(effect, &valid, &at.child("effect")));
        }
    }
    errors
}

/// What may change of a pod's spec: images, the deadline if it gets nearer, and tolerations that are added.
pub fn pod_update(new: &Object, old: &Object) -> ErrorList {
    let mut errors = pod(new);
    let path = Path::new("spec");
    let mut munged = new.clone();
    for key in ["containers", "initContainers"] {
        let images: Vec<Value> =
            old.get_array(&["spec", key]).iter().map(|container| container["image"].clone()).collect();
        let Some(containers) = munged.as_value_mut().pointer_mut(&format!("/spec/{key}")) else { continue };
        for (container, image) in containers.as_array_mut().into_iter().flatten().zip(images) {
            container["image"] = image;
        }
    }
    let deadline = &["spec", "activeDeadlineSeconds"];
    if new.get(deadline) != old.get(deadline) {
        match (new.get_i64(deadline), old.get_i64(deadline)) {
            (Some(seconds), before) if before.is_none_or(|before| seconds <= before) => {}
            (seconds, _) => {
                let at = path.child("activeDeadlineSeconds");
                let why = "must be less than or equal to previous value";
                errors.push(Error::invalid(&at, seconds.map_or(Value::Null, Value::from), why));
            }
        }
        match old.get(deadline) {
            Some(value) => munged.set(deadline, value.clone()),
            None => {
                munged.remove(deadline);
            }
        }
    }
    let before = old.get_array(&["spec", "tolerations"]);
    let after = new.get_array(&["spec", "tolerations"]);
    if before.iter().all(|toleration| after.contains(toleration)) {
        match old.get(&["spec", "tolerations"]) {
            Some(value) => munged.set(&["spec", "tolerations"], value.clone()),
            None => {
                munged.remove(&["spec", "tolerations"]);
            }
        }
    }
    // gates may be lifted, one by one or all
    let gates = &["spec", "schedulingGates"];
    let lifted = new.get_array(gates).iter().all(|gate| old.get_array(gates).contains(gate));
    if lifted {
        match old.get(gates) {
            Some(value) => munged.set(gates, value.clone()),
            None => {
                munged.remove(gates);
            }
        }
    }
    if munged.get(&["spec"]) != old.get(&["spec"]) {
        const WHY: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
        errors.push(Error::forbidden(&path, WHY));
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn valid() -> Object {
        Object::from(json!({"spec": {
            "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30,
            "containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"}],
        }}))
    }

    #[test]
    fn each_rule_names_its_field() {
        let cases: [(&str, Value, &str); 6] = [
            ("/spec/containers/0/name", json!("A"), "spec.containers[0].name: Invalid value: \"A\""),
            ("/spec/containers/0/image", json!(""), "spec.containers[0].image: Required value"),
            ("/spec/restartPolicy", json!("X"), "spec.restartPolicy: Unsupported value: \"X\""),
            ("/spec/containers", json!([]), "spec.containers: Required value"),
            (
                "/spec/terminationGracePeriodSeconds",
                json!(-1),
                "spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                "/spec/containers/0/imagePullPolicy",
                json!(""),
                "spec.containers[0].imagePullPolicy: Required value",
            ),
        ];
        assert!(pod(&valid()).is_empty());
        for (pointer, value, start) in cases {
            let mut object = valid();
            *object.as_value_mut().pointer_mut(pointer).unwrap() = value;
            let errors: Vec<String> = pod(&object).iter().map(ToString::to_string).collect();
            assert!(errors.len() == 1 && errors[0].starts_with(start), "{pointer}: {errors:?}");
        }
    }

    #[test]
    fn only_the_image_of_a_running_pod_moves() {
        let old = valid();
        let mut new = valid();
        *new.as_value_mut().pointer_mut("/spec/containers/0/image").unwrap() = json!("other");
        assert!(pod_update(&new, &old).is_empty());
        new.set(&["spec", "hostNetwork"], true);
        assert!(
            pod_update(&new, &old)[0].to_string().starts_with("spec: Forbidden: pod updates may not change")
        );
    }
}
