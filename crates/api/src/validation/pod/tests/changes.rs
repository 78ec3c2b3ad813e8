//! Tables of what updates may change.

use serde_json::json;

use super::{another, valid};
use crate::validation::pod::{pod_ephemeral_containers_update, pod_resize, pod_status_update, pod_update};
use crate::validation::testing::updates;

#[test]
fn updates_of_a_pod() {
    const WHY: &str = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    let namespaces = format!(
        "{WHY}\n@@ -44,7 +44,7 @@\n  \"AutomountServiceAccountToken\": null,\n  \"NodeName\": \"\",\n  \"SecurityContext\": {{\n-  \"HostNetwork\": false,\n+  \"HostNetwork\": true,\n   \"HostPID\": false,\n   \"HostIPC\": false,\n   \"ShareProcessNamespace\": null,\n"
    );
    let grace = format!(
        "{WHY}\n@@ -36,7 +36,7 @@\n  ],\n  \"EphemeralContainers\": null,\n  \"RestartPolicy\": \"Always\",\n- \"TerminationGracePeriodSeconds\": 30,\n+ \"TerminationGracePeriodSeconds\": 1,\n  \"ActiveDeadlineSeconds\": null,\n  \"DNSPolicy\": \"ClusterFirst\",\n  \"NodeSelector\": null,\n"
    );
    let gated = json!({"/spec/schedulingGates": [{"name": "a"}], "/spec/nodeSelector": {"x": "y"}});
    updates(
        &valid(),
        pod_update,
        &[
            (json!({}), json!({"/spec/containers/0/image": "other"}), &[]),
            (json!({}), json!({"/spec/hostNetwork": true}), &[&namespaces]),
            (
                json!({}),
                json!({"/spec/containers/1": another("d")}),
                &["spec.containers: Forbidden: pod updates may not add or remove containers"],
            ),
            (json!({"/spec/activeDeadlineSeconds": 5}), json!({"/spec/activeDeadlineSeconds": 4}), &[]),
            (
                json!({"/spec/activeDeadlineSeconds": 5}),
                json!({"/spec/activeDeadlineSeconds": 6}),
                &[
                    "spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value",
                ],
            ),
            (
                json!({"/spec/activeDeadlineSeconds": 5}),
                json!({"/spec/activeDeadlineSeconds": null}),
                &[
                    "spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value",
                ],
            ),
            (json!({}), json!({"/spec/tolerations": [{"key": "a", "operator": "Exists"}]}), &[]),
            (
                json!({"/spec/tolerations": [{"key": "a", "operator": "Exists"}]}),
                json!({"/spec/tolerations": []}),
                &[
                    "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",
                ],
            ),
            (gated.clone(), json!({"/spec/schedulingGates": null}), &[]),
            (
                json!({}),
                json!({"/spec/schedulingGates": [{"name": "a"}]}),
                &[
                    "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'a'",
                ],
            ),
            (gated.clone(), json!({"/spec/nodeSelector/z": "z"}), &[]),
            (
                gated,
                json!({"/spec/nodeSelector": {"x": "z"}}),
                &[
                    "spec.nodeSelector: Invalid value: {\"x\":\"z\"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)",
                ],
            ),
            (
                json!({"/spec/terminationGracePeriodSeconds": -1}),
                json!({"/spec/terminationGracePeriodSeconds": 1}),
                &[],
            ),
            (json!({}), json!({"/spec/terminationGracePeriodSeconds": 1}), &[&grace]),
        ],
    );
}

#[test]
fn updates_through_subresources() {
    updates(
        &valid(),
        pod_ephemeral_containers_update,
        &[
            (json!({}), json!({"/spec/ephemeralContainers/0": another("e")}), &[]),
            (
                json!({}),
                json!({"/spec/ephemeralContainers/0": another("c")}),
                &["spec.ephemeralContainers[0].name: Duplicate value: \"c\""],
            ),
            (
                json!({"/spec/ephemeralContainers/0": another("e")}),
                json!({"/spec/ephemeralContainers": []}),
                &[
                    "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be removed\n",
                ],
            ),
            (
                json!({"/spec/ephemeralContainers/0": another("e")}),
                json!({"/spec/ephemeralContainers/0/image": "j"}),
                &[
                    "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be changed\n",
                ],
            ),
            (
                json!({}),
                json!({"/spec/ephemeralContainers/0": another("e"), "/spec/ephemeralContainers/0/ports": [{"containerPort": 1, "protocol": "TCP"}]}),
                &["spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container"],
            ),
            (
                json!({}),
                json!({"/spec/ephemeralContainers/0": another("e"), "/spec/ephemeralContainers/0/targetContainerName": "zz"}),
                &["spec.ephemeralContainers[0].targetContainerName: Not found: \"zz\""],
            ),
        ],
    );
    let running =
        json!({"/spec/containers/0/resources": {"requests": {"cpu": "1"}}, "/status/qosClass": "Burstable"});
    updates(
        &valid(),
        pod_resize,
        &[
            (running.clone(), json!({"/spec/containers/0/resources/requests/cpu": "2"}), &[]),
            (
                running.clone(),
                json!({"/spec/containers/0/resources": {"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}}}),
                &["spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing"],
            ),
            (
                running.clone(),
                json!({"/spec/containers/1": another("d")}),
                &["spec.containers: Forbidden: containers may not be added or removed on resize"],
            ),
            (
                running.clone(),
                json!({"/spec/containers/0/name": "d"}),
                &["spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize"],
            ),
            (
                running.clone(),
                json!({"/spec/containers/0/resources": {}}),
                &[
                    "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
                    "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing",
                ],
            ),
            (
                json!({"/spec/resources": {"requests": {"cpu": "2"}}, "/status/qosClass": "Burstable"}),
                json!({"/spec/resources": {"requests": {"cpu": "3"}}}),
                &[],
            ),
            (
                json!({"/spec/resources": {"requests": {"cpu": "2", "hugepages-2Mi": "2Mi"}, "limits": {"hugepages-2Mi": "2Mi"}}, "/status/qosClass": "Burstable"}),
                json!({"/spec/resources": {"requests": {"cpu": "2", "hugepages-2Mi": "4Mi"}, "limits": {"hugepages-2Mi": "4Mi"}}}),
                &["spec: Forbidden: only cpu and memory resources are mutable at pod-level"],
            ),
            (
                json!({"/spec/resources": {"requests": {"cpu": "2"}}, "/status/qosClass": "Burstable"}),
                json!({"/spec/resources": null}),
                &[
                    "spec.resources: Forbidden: pod-level resources cannot be removed",
                    "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing",
                ],
            ),
            (
                running,
                json!({"/spec/containers/0/resources/requests/ephemeral-storage": "1"}),
                &["spec: Forbidden: only cpu and memory resources are mutable"],
            ),
        ],
    );
    updates(
        &valid(),
        pod_status_update,
        &[
            (json!({}), json!({"/status/podIPs": [{"ip": "10.0.0.1"}]}), &[]),
            (
                json!({}),
                json!({"/status/podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]}),
                &["status.podIPs: Invalid value: …"],
            ),
            (
                json!({"/status/podIPs": [{"ip": "010.0.0.1"}]}),
                json!({"/status/podIPs": [{"ip": "010.0.0.1"}], "/status/phase": "Running"}),
                &[],
            ),
            (
                json!({"/spec/resourceClaims": [{"name": "a", "resourceClaimTemplateName": "t"}]}),
                json!({"/status/resourceClaimStatuses": [{"name": "a", "resourceClaimName": "A"}]}),
                &["status.resourceClaimStatuses[0].resourceClaimName: Invalid value: \"A\": …"],
            ),
            (
                json!({"/spec/containers/0/resources": {"requests": {"example.com/a": "1"}, "limits": {"example.com/a": "1"}}}),
                json!({"/status/extendedResourceClaimStatus": {"resourceClaimName": "c", "requestMappings": [
                    {"containerName": "c", "resourceName": "example.com/a", "requestName": "r"}]}}),
                &[],
            ),
            (
                json!({}),
                json!({"/status/extendedResourceClaimStatus": {"requestMappings": [
                    {"containerName": "c", "resourceName": "example.com/a", "requestName": "r"},
                    {"containerName": "d", "resourceName": "example.com/a", "requestName": "R"}]}}),
                &[
                    "status.extendedResourceClaimStatus.requestMappings[0].resourceName: Invalid value: \"example.com/a\": must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests",
                    "status.extendedResourceClaimStatus.requestMappings[1].containerName: Invalid value: \"d\": must match the name of an entry in spec.initContainers.name or spec.containers.name",
                    "status.extendedResourceClaimStatus.requestName: Invalid value: \"R\": …",
                    "status.extendedResourceClaimStatus.resourceClaimName: Required value",
                ],
            ),
            (
                json!({}),
                json!({"/status/nodeAllocatableResourceClaimStatuses": [{"resourceClaimName": "x", "containers": ["c"], "resources": {"cpu": "-1", "example.com/a": "1"}}]}),
                &[
                    "status.nodeAllocatableResourceClaimStatuses[0].resourceClaimName: Invalid value: \"x\": no mapping found in pod reference",
                    "status.nodeAllocatableResourceClaimStatuses[0].resources[cpu]: Invalid value: \"-1\": must be non-negative",
                    "status.nodeAllocatableResourceClaimStatuses[0].resources[example.com/a]: Invalid value: \"example.com/a\": must be a node allocatable resource name",
                ],
            ),
            (
                json!({}),
                json!({"/status/nominatedNodeName": "A"}),
                &["status.nominatedNodeName: Invalid value: \"A\": …"],
            ),
            (
                json!({"/status/qosClass": "Burstable"}),
                json!({"/status/qosClass": "Guaranteed"}),
                &["status.qosClass: Invalid value: \"Guaranteed\": field is immutable"],
            ),
            (
                json!({}),
                json!({"/status/conditions": [{"type": "a b"}]}),
                &["status.conditions[0].Type: Invalid value: \"a b\": …"],
            ),
        ],
    );
}
