//! Defaults of pod specs, wherever one stands: in a pod or in a template.

use apimachinery::Value;
use serde_json::{Map, json};

use super::pod_resources;

type Tree = Map<String, Value>;

/// Sets a field that is absent.
pub fn set(tree: &mut Tree, key: &str, value: impl Into<Value>) {
    if !tree.contains_key(key) {
        tree.insert(key.to_owned(), value.into());
    }
}

/// The maps in a list field.
pub fn each<'a>(tree: &'a mut Tree, key: &str) -> impl Iterator<Item = &'a mut Tree> {
    tree.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

/// The map in a field.
pub fn child<'a>(tree: &'a mut Tree, key: &str) -> Option<&'a mut Tree> {
    tree.get_mut(key).and_then(Value::as_object_mut)
}

/// Defaults of a `PodSpec`.
pub fn pod_spec(spec: &mut Tree) {
    set(spec, "restartPolicy", "Always");
    set(spec, "dnsPolicy", "ClusterFirst");
    set(spec, "terminationGracePeriodSeconds", 30);
    set(spec, "schedulerName", "default-scheduler");
    set(spec, "securityContext", json!({}));
    mirror_service_account(spec);
    for key in ["initContainers", "containers", "ephemeralContainers"] {
        for each in each(spec, key) {
            container(each);
        }
    }
    for each in each(spec, "volumes") {
        volume(each);
    }
    pod_resources::round_amounts(spec);
}

/// Defaults of a pod itself, on top of those of its spec.
pub fn pod(spec: &mut Tree) {
    set(spec, "enableServiceLinks", true);
    for key in ["initContainers", "containers"] {
        for each in each(spec, key) {
            requests_from_limits(each);
        }
    }
    pod_resources::default_pod_level(spec);
    if spec.get("hostNetwork").and_then(Value::as_bool) == Some(true) {
        host_ports(spec);
    }
    pod_spec(spec);
}

/// The deprecated `serviceAccount` always says what `serviceAccountName` says.
fn mirror_service_account(spec: &mut Tree) {
    let text = |key: &str| spec.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let name = text("serviceAccountName").or_else(|| text("serviceAccount")).map(str::to_owned);
    if let Some(name) = name {
        spec.insert("serviceAccountName".into(), json!(name));
        spec.insert("serviceAccount".into(), json!(name));
    }
}

fn requests_from_limits(container: &mut Tree) {
    let Some(resources) = child(container, "resources") else { return };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    let requests = resources.entry("requests").or_insert_with(|| json!({}));
    if let Some(requests) = requests.as_object_mut() {
        for (name, amount) in limits {
            requests.entry(name).or_insert(amount);
        }
    }
}

/// On the host's network a container's port is the host's, too.
fn host_ports(spec: &mut Tree) {
    for key in ["initContainers", "containers"] {
        for container in each(spec, key) {
            for port in each(container, "ports") {
                let number = port.get("containerPort").cloned().unwrap_or(json!(0));
                if port.get("hostPort").and_then(Value::as_i64).unwrap_or_default() == 0 {
                    port.insert("hostPort".into(), number);
                }
            }
        }
    }
}

fn container(container: &mut Tree) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let policy = if tag_is_latest(image) { "Always" } else { "IfNotPresent" };
    set(container, "imagePullPolicy", policy);
    set(container, "terminationMessagePath", "/dev/termination-log");
    set(container, "terminationMessagePolicy", "File");
    set(container, "resources", json!({}));
    for port in each(container, "ports") {
        set(port, "protocol", "TCP");
    }
    for variable in each(container, "env") {
        if let Some(source) = child(variable, "valueFrom") {
            if let Some(field) = child(source, "fieldRef") {
                set(field, "apiVersion", "v1");
            }
            if let Some(file) = child(source, "fileKeyRef") {
                set(file, "optional", false);
            }
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(each) = child(container, key) {
            probe(each);
        }
    }
    if let Some(lifecycle) = child(container, "lifecycle") {
        for key in ["postStart", "preStop"] {
            if let Some(get) = child(lifecycle, key).and_then(|hook| child(hook, "httpGet")) {
                http_get(get);
            }
        }
    }
}

fn probe(probe: &mut Tree) {
    for (key, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        // zero means "not set" here, as it does upstream
        if probe.get(key).and_then(Value::as_i64).unwrap_or_default() == 0 {
            probe.insert(key.to_owned(), json!(value));
        }
    }
    if let Some(get) = child(probe, "httpGet") {
        http_get(get);
    }
    if let Some(grpc) = child(probe, "grpc") {
        set(grpc, "service", "");
    }
}

fn http_get(get: &mut Tree) {
    set(get, "path", "/");
    set(get, "scheme", "HTTP");
}

fn volume(volume: &mut Tree) {
    if volume.keys().all(|key| key == "name") {
        volume.insert("emptyDir".into(), json!({}));
    }
    volume_source(volume);
    const MODE: i64 = 0o644;
    for key in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = child(volume, key) {
            set(source, "defaultMode", MODE);
        }
    }
    if let Some(source) = child(volume, "downwardAPI") {
        field_refs(source);
    }
    if let Some(projected) = child(volume, "projected") {
        for source in each(projected, "sources") {
            if let Some(token) = child(source, "serviceAccountToken") {
                set(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = child(source, "downwardAPI") {
                field_refs(downward);
            }
        }
    }
    if let Some(claim) = child(volume, "ephemeral")
        .and_then(|ephemeral| child(ephemeral, "volumeClaimTemplate"))
        .and_then(|template| child(template, "spec"))
    {
        set(claim, "volumeMode", "Filesystem");
    }
    if let Some(image) = child(volume, "image") {
        let reference = image.get("reference").and_then(Value::as_str).unwrap_or_default();
        let policy = if tag_is_latest(reference) { "Always" } else { "IfNotPresent" };
        set(image, "pullPolicy", policy);
    }
}

/// Defaults of a volume's source, which pods and persistent volumes have alike.
pub fn volume_source(volume: &mut Tree) {
    const DEFAULTS: [(&str, &[(&str, &str)]); 5] = [
        ("hostPath", &[("type", "")]),
        ("iscsi", &[("iscsiInterface", "default")]),
        ("rbd", &[("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")]),
        ("scaleIO", &[("storageMode", "ThinProvisioned"), ("fsType", "xfs")]),
        ("azureDisk", &[("cachingMode", "ReadWrite"), ("fsType", "ext4"), ("kind", "Shared")]),
    ];
    for (key, fields) in DEFAULTS {
        if let Some(source) = child(volume, key) {
            for (field, value) in fields {
                set(source, field, *value);
            }
        }
    }
    if let Some(disk) = child(volume, "azureDisk") {
        set(disk, "readOnly", false);
    }
}

fn field_refs(source: &mut Tree) {
    for item in each(source, "items") {
        if let Some(field) = child(item, "fieldRef") {
            set(field, "apiVersion", "v1");
        }
    }
}

/// Whether an image reference names the tag `latest`, in so many words or by naming neither tag nor digest.
pub fn tag_is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latest_is_what_names_nothing_else() {
        let cases = [
            ("busybox", true),
            ("busybox:latest", true),
            ("busybox:1.36", false),
            ("host:5000/busybox", true),
            ("host:5000/busybox:1", false),
            ("busybox@sha256:0123", false),
        ];
        for (image, latest) in cases {
            assert_eq!(tag_is_latest(image), latest, "{image}");
        }
    }

    #[test]
    fn a_pod_gets_its_requests_from_its_limits() {
        let mut spec = json!({"containers": [{"name": "a", "image": "b:1",
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}}]});
        pod(spec.as_object_mut().unwrap());
        assert_eq!(spec["containers"][0]["resources"]["requests"], json!({"cpu": "500m", "memory": "1Gi"}));
        assert_eq!(spec["containers"][0]["imagePullPolicy"], "IfNotPresent");
        let once = spec.clone();
        pod(spec.as_object_mut().unwrap());
        assert_eq!(once, spec, "defaulting twice changes nothing");
    }
}
