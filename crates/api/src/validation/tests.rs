//! Tables of the rules of the core kinds other than pods and Services, and of disruption budgets.

use serde_json::json;

use super::testing::{table, updates};
use super::*;

#[test]
fn claims() {
    let base = json!({"metadata": {"name": "c", "namespace": "n"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "volumeMode": "Filesystem", "resources": {"requests": {"storage": "1Gi"}}}, "status": {"phase": "Pending"}});
    table(
        &base,
        claim,
        &[
            (
                json!({"/spec/accessModes": []}),
                &["spec.accessModes: Required value: at least 1 access mode is required"],
            ),
            (
                json!({"/spec/accessModes": ["X"]}),
                &[
                    "spec.accessModes: Unsupported value: \"X\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
                ],
            ),
            (
                json!({"/spec/accessModes": ["ReadWriteOnce", "ReadWriteOncePod"]}),
                &["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"],
            ),
            (json!({"/spec/resources/requests": {}}), &["spec.resources[storage]: Required value"]),
            (
                json!({"/spec/resources/requests/storage": "0"}),
                &["spec.resources[storage]: Invalid value: \"0\": must be greater than zero"],
            ),
            (
                json!({"/spec/volumeMode": "X"}),
                &["spec.volumeMode: Unsupported value: \"X\": supported values: \"Block\", \"Filesystem\""],
            ),
            (json!({"/spec/storageClassName": "A"}), &["spec.storageClassName: Invalid value: \"A\": …"]),
            (
                json!({"/spec/dataSource": {"kind": "", "name": ""}}),
                &[
                    "spec.dataSource.name: Required value",
                    "spec.dataSource.kind: Required value",
                    "spec.dataSource: Invalid value: \"\": must be 'PersistentVolumeClaim' when referencing the default apiGroup",
                ],
            ),
            (
                json!({"/spec/dataSource": {"kind": "PersistentVolumeClaim", "name": "a"}, "/spec/dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "b"}}),
                &["spec: Invalid value: {}: must match dataSourceRef"],
            ),
        ],
    );
    let bound =
        json!({"/spec/volumeName": "v", "/status/phase": "Bound", "/status/capacity": {"storage": "1Gi"}});
    updates(
        &base,
        claim_update,
        &[
            (json!({}), json!({"/spec/volumeName": "v"}), &[]),
            (bound.clone(), json!({"/spec/resources/requests/storage": "2Gi"}), &[]),
            (
                bound.clone(),
                json!({"/spec/accessModes": ["ReadOnlyMany"]}),
                &[
                    "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims…",
                ],
            ),
            (
                bound,
                json!({"/spec/volumeMode": "Block"}),
                &[
                    "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims…",
                    "volumeMode: Invalid value: \"Block\": field is immutable",
                ],
            ),
        ],
    );
}

#[test]
fn volumes() {
    let base = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem", "hostPath": {"path": "/data", "type": ""}}});
    table(
        &base,
        volume,
        &[
            (json!({"/spec/accessModes": []}), &["spec.accessModes: Required value"]),
            (
                json!({"/spec/capacity": {}}),
                &[
                    "spec.capacity: Required value",
                    "spec.capacity: Unsupported value: {}: supported values: \"storage\"",
                ],
            ),
            (json!({"/spec/capacity": {"cpu": "1"}}), &["spec.capacity: Unsupported value: …"]),
            (
                json!({"/spec/capacity/storage": "0"}),
                &["spec.capacity[storage]: Invalid value: \"0\": must be greater than zero"],
            ),
            (
                json!({"/spec/persistentVolumeReclaimPolicy": "X"}),
                &[
                    "spec.persistentVolumeReclaimPolicy: Unsupported value: \"X\": supported values: \"Delete\", \"Recycle\", \"Retain\"",
                ],
            ),
            (
                json!({"/spec/hostPath/path": "/", "/spec/persistentVolumeReclaimPolicy": "Recycle"}),
                &[
                    "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'",
                ],
            ),
            (json!({"/spec/hostPath": null}), &["spec: Required value: must specify a volume type"]),
            (
                json!({"/spec/nfs": {"server": "s", "path": "/"}}),
                &["spec.nfs: Forbidden: may not specify more than 1 volume type"],
            ),
            (
                json!({"/spec/hostPath": null, "/spec/local": {"path": "/x"}}),
                &["spec.nodeAffinity: Required value: Local volume requires node affinity"],
            ),
            (
                json!({"/spec/nodeAffinity": {}}),
                &["spec.nodeAffinity.required: Required value: must specify required node constraints"],
            ),
            (
                json!({"/spec/hostPath": null, "/spec/csi": {"driver": "d.e", "volumeHandle": ""}}),
                &["spec.csi.volumeHandle: Required value"],
            ),
        ],
    );
    updates(
        &base,
        volume_update,
        &[
            (json!({}), json!({"/spec/capacity/storage": "2Gi"}), &[]),
            (
                json!({}),
                json!({"/spec/hostPath/path": "/other"}),
                &[
                    "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation…",
                ],
            ),
            (
                json!({}),
                json!({"/spec/volumeMode": "Block"}),
                &["volumeMode: Invalid value: \"Block\": field is immutable"],
            ),
        ],
    );
}

#[test]
fn quotas_and_ranges() {
    let base = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "4"}}});
    table(
        &base,
        resource_quota,
        &[
            (
                json!({"/spec/hard/pods": "-1"}),
                &["spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0"],
            ),
            (
                json!({"/spec/hard/pods": "1500m"}),
                &["spec.hard[pods]: Invalid value: \"1500m\": must be an integer"],
            ),
            (
                json!({"/spec/hard/whoops": "1"}),
                &[
                    "spec.hard[whoops]: Invalid value: \"whoops\": must be a standard resource type or fully qualified",
                    "spec.hard[whoops]: Invalid value: \"whoops\": must be a standard resource for quota",
                ],
            ),
            (
                json!({"/spec/scopes": ["BestEffort", "NotBestEffort"]}),
                &["spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes"],
            ),
        ],
    );
    updates(
        &base,
        resource_quota_update,
        &[(
            json!({}),
            json!({"/spec/scopes": ["BestEffort"]}),
            &["spec.scopes: Invalid value: [\"BestEffort\"]: field is immutable"],
        )],
    );
    let base = json!({"metadata": {"name": "l"}, "spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1"}}]}});
    table(
        &base,
        limit_range,
        &[
            (
                json!({"/spec/limits/0/min/cpu": "3"}),
                &["spec.limits[0].min[cpu]: Invalid value: \"3\": min value 3 is greater than max value 2"],
            ),
            (
                json!({"/spec/limits/0/default": {"cpu": "3"}}),
                &[
                    "spec.limits[0].default[cpu]: Invalid value: \"2\": default value 3 is greater than max value 2",
                ],
            ),
            (
                json!({"/spec/limits/0/type": "X"}),
                &[
                    "spec.limits[0].type: Invalid value: \"X\": must be a standard limit type or fully qualified",
                ],
            ),
            (
                json!({"/spec/limits/1": {"type": "Container"}}),
                &["spec.limits[1].type: Duplicate value: \"Container\""],
            ),
            (
                json!({"/spec/limits/0/type": "Pod", "/spec/limits/0/default": {"cpu": "1"}}),
                &["spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"],
            ),
            (
                json!({"/spec/limits/0/maxLimitRequestRatio": {"cpu": "500m"}}),
                &[
                    "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1",
                ],
            ),
        ],
    );
}

#[test]
fn controllers_and_templates() {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
        "terminationGracePeriodSeconds": 30, "containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always",
        "terminationMessagePolicy": "File"}]}});
    let base = json!({"metadata": {"name": "r"}, "spec": {"replicas": 1, "selector": {"a": "b"}, "template": template}});
    table(
        &base,
        replication_controller,
        &[
            (json!({"/spec/selector": {}}), &["spec.selector: Required value"]),
            (
                json!({"/spec/replicas": -1}),
                &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (json!({"/spec/template": null}), &["spec.template: Required value"]),
            (
                json!({"/spec/selector": {"a": "c"}}),
                &[
                    "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
                ],
            ),
            (
                json!({"/spec/template/spec/restartPolicy": "Never"}),
                &[
                    "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                ],
            ),
            (
                json!({"/spec/template/spec/activeDeadlineSeconds": 5}),
                &[
                    "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicationController is not Supported",
                ],
            ),
            (json!({"/status": {"replicas": 1, "readyReplicas": 2}}), &[]),
        ],
    );
    let base = json!({"metadata": {"name": "t"}, "template": template});
    table(
        &base,
        pod_template,
        &[
            (
                json!({"/template/spec/containers/0/name": ""}),
                &["template.spec.containers[0].name: Required value"],
            ),
            (
                json!({"/template/spec/ephemeralContainers": [{"name": "e", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"}]}),
                &[
                    "template.spec.ephemeralContainers: Forbidden: ephemeral containers not allowed in pod template",
                ],
            ),
        ],
    );
}

#[test]
fn nodes() {
    let base = json!({"metadata": {"name": "n"}, "spec": {}, "status": {}});
    table(
        &base,
        node,
        &[
            (
                json!({"/spec/taints": [{"key": "a", "effect": "X"}]}),
                &[
                    "metadata.taints[0].effect: Unsupported value: \"X\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
                ],
            ),
            (
                json!({"/spec/taints": [{"key": "a", "effect": "NoExecute"}, {"key": "a", "effect": "NoExecute", "value": "x"}]}),
                &["metadata.taints[1]: Duplicate value: …"],
            ),
            (
                json!({"/spec/podCIDRs": ["10.0.0.0/24", "10.0.1.0/24"]}),
                &[
                    "spec.podCIDRs: Invalid value: [\"10.0.0.0/24\",\"10.0.1.0/24\"]: may specify no more than one CIDR for each IP family",
                ],
            ),
            (
                json!({"/status/declaredFeatures": ["B", "A", "A", "x"]}),
                &[
                    "status.declaredFeatures[1]: Invalid value: \"A\": list must be sorted alphabetically",
                    "status.declaredFeatures[2]: Duplicate value: \"A\"",
                    "status.declaredFeatures[3]: Invalid value: \"x\": invalid feature name \"x\": must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes",
                ],
            ),
            (
                json!({"/status/nodeInfo": {"swap": {"capacity": 0}}}),
                &["metadata.nodeSwapStatus.capacity: Invalid value: 0: must be greater than zero"],
            ),
            (
                json!({"/status/capacity": {"cpu": "-1"}}),
                &["status.capacity.cpu: Invalid value: \"-1\": must be greater than or equal to 0"],
            ),
        ],
    );
    updates(
        &base,
        node_update,
        &[
            (
                json!({"/spec/providerID": "a"}),
                json!({"/spec/providerID": "b"}),
                &[
                    "spec.providerID: Forbidden: node updates may not change providerID except from \"\" to valid",
                ],
            ),
            (
                json!({"/spec/podCIDRs": ["10.0.0.0/24"]}),
                json!({"/spec/podCIDRs": ["10.0.1.0/24"]}),
                &["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"],
            ),
            (json!({}), json!({"/spec/unschedulable": true, "/metadata/labels/a": "b"}), &[]),
        ],
    );
}

#[test]
fn namespaces_endpoints_and_events() {
    table(
        &json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}}),
        namespace,
        &[(
            json!({"/spec/finalizers": ["whoops"]}),
            &[
                "spec.finalizers: Invalid value: \"whoops\": name is neither a standard finalizer name nor is it fully qualified",
            ],
        )],
    );
    table(
        &json!({"metadata": {"name": "n"}, "status": {"phase": "Active"}}),
        namespace_status_update,
        &[(
            json!({"/status/phase": "Terminating"}),
            &[
                "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty",
            ],
        )],
    );
    table(
        &json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 1, "protocol": "TCP"}]}]}),
        endpoints,
        &[
            (
                json!({"/subsets/0/addresses": []}),
                &["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"],
            ),
            (
                json!({"/subsets/0/addresses/0/ip": "127.0.0.1"}),
                &[
                    "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                ],
            ),
            (
                json!({"/subsets/0/addresses/0/ip": "x"}),
                &[
                    "subsets[0].addresses[0].ip: Invalid value: \"x\": must be a valid IP address",
                    "subsets[0].addresses[0].ip: Invalid value: \"x\": must be a valid IP address…",
                ],
            ),
            (
                json!({"/subsets/0/ports/1": {"port": 2, "protocol": "TCP"}}),
                &["subsets[0].ports[0].name: Required value", "subsets[0].ports[1].name: Required value"],
            ),
        ],
    );
    table(
        &json!({"metadata": {"name": "e", "namespace": "n"}, "involvedObject": {"namespace": "n", "kind": "Pod"}}),
        event,
        &[
            (
                json!({"/involvedObject/namespace": "m"}),
                &["involvedObject.namespace: Invalid value: \"m\": does not match event.namespace"],
            ),
            (
                json!({"/eventTime": "2024-01-01T00:00:00.000000Z"}),
                &[
                    "reportingComponent: Required value",
                    "reportingComponent: Invalid value: \"\": …",
                    "reportingComponent: Invalid value: \"\": …",
                    "reportingInstance: Required value",
                    "action: Required value",
                    "reason: Required value",
                ],
            ),
        ],
    );
}

#[test]
fn budgets() {
    table(
        &json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}}),
        pod_disruption_budget,
        &[
            (json!({"/spec/maxUnavailable": 1}), &["spec: Invalid value: …"]),
            (
                json!({"/spec/minAvailable": "101%"}),
                &["spec.minAvailable: Invalid value: \"101%\": must not be greater than 100%"],
            ),
            (
                json!({"/spec/minAvailable": -1}),
                &["spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                json!({"/spec/unhealthyPodEvictionPolicy": "X"}),
                &[
                    "spec.unhealthyPodEvictionPolicy: Unsupported value: \"X\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\"",
                ],
            ),
            (
                json!({"/spec/selector/matchLabels": {"a": "not ok"}}),
                &["spec.selector.matchLabels: Invalid value: \"not ok\": …"],
            ),
        ],
    );
}
