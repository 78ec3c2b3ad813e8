//! Tables of the rules of pods as a whole.

use apimachinery::Value;
use serde_json::json;

use super::valid;
use crate::validation::pod::pod;
use crate::validation::testing::table;

#[test]
fn resources_of_containers_and_pods() {
    let of = |resources: Value| json!({"/spec/containers/0/resources": resources});
    table(
        &valid(),
        pod,
        &[
            (
                of(json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}})),
                &[
                    "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
                ],
            ),
            (
                of(json!({"requests": {"cpu": "-1"}})),
                &[
                    "spec.containers[0].resources.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
                ],
            ),
            (
                of(json!({"requests": {"whoops": "1"}})),
                &[
                    "spec.containers[0].resources.requests[whoops]: Invalid value: \"whoops\": must be a standard resource type or fully qualified",
                    "spec.containers[0].resources.requests[whoops]: Invalid value: \"whoops\": must be a standard resource for containers",
                ],
            ),
            (
                of(json!({"requests": {"example.com/a": "1"}})),
                &[
                    "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
                ],
            ),
            (
                of(json!({"requests": {"example.com/a": "1"}, "limits": {"example.com/a": "2"}})),
                &[
                    "spec.containers[0].resources.requests: Invalid value: \"1\": must be equal to example.com/a limit of 2",
                ],
            ),
            (
                of(json!({"limits": {"example.com/a": "500m"}})),
                &[
                    "spec.containers[0].resources.limits[example.com/a]: Invalid value: \"500m\": must be an integer",
                ],
            ),
            (
                of(json!({"limits": {"hugepages-2Mi": "2Mi"}})),
                &["spec.containers[0].resources: Forbidden: HugePages require cpu or memory"],
            ),
            (
                of(json!({"limits": {"hugepages-2Mi": "3Mi", "cpu": "1"}})),
                &[
                    "spec.containers[0].resources.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi",
                ],
            ),
            (
                of(json!({"claims": [{"name": "a"}]})),
                &[
                    "spec.containers[0].resources.claims[0]: Not found: \"a\": must be one of the names in pod.spec.resourceClaims which is empty",
                ],
            ),
            (
                json!({"/spec/resources": {"requests": {"cpu": "1"}}, "/spec/containers/0/resources": {"requests": {"cpu": "2"}}}),
                &[
                    "spec.resources.requests[cpu]: Invalid value: \"1\": must be greater than or equal to aggregate container requests of 2",
                ],
            ),
            (
                json!({"/spec/resources": {"requests": {"ephemeral-storage": "1"}}}),
                &[
                    "spec.resources.requests[ephemeral-storage]: Unsupported value: \"ephemeral-storage\": supported values: \"cpu\", \"hugepages-\", \"memory\"",
                ],
            ),
            (
                json!({"/spec/containers/0/resizePolicy": [{"resourceName": "x", "restartPolicy": "NotRequired"}]}),
                &[
                    "spec.containers[0].resizePolicy: Unsupported value: \"x\": supported values: \"cpu\", \"memory\"",
                ],
            ),
            (
                json!({"/spec/resourceClaims": [{"name": "a"}, {"name": "b", "resourceClaimName": "x"}, {"name": "b", "resourceClaimName": "x"}]}),
                &[
                    "spec.resourceClaims[0]: Invalid value: {\"Name\":\"a\",\"ResourceClaimName\":null,\"ResourceClaimTemplateName\":null}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
                    "spec.resourceClaims[2].name: Duplicate value: \"b\"",
                ],
            ),
        ],
    );
}

#[test]
fn security_contexts() {
    table(
        &valid(),
        pod,
        &[
            (
                json!({"/spec/securityContext/runAsUser": -1}),
                &[
                    "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                ],
            ),
            (
                json!({"/spec/securityContext/sysctls": [{"name": "A", "value": ""}]}),
                &[
                    "spec.securityContext.sysctls[0].name: Invalid value: \"A\": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
                ],
            ),
            (
                json!({"/spec/hostNetwork": true, "/spec/securityContext/sysctls": [{"name": "net.core.somaxconn", "value": "1"}]}),
                &[
                    "spec.securityContext.sysctls[0].name: Invalid value: \"net.core.somaxconn\": may not be specified when 'hostNetwork' is true",
                ],
            ),
            (
                json!({"/spec/securityContext/seccompProfile": {"type": "Localhost"}}),
                &[
                    "spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
                ],
            ),
            (
                json!({"/spec/securityContext/appArmorProfile": {"type": "X"}}),
                &[
                    "spec.securityContext.appArmorProfile.type: Unsupported value: \"X\": supported values: \"Localhost\", \"RuntimeDefault\", \"Unconfined\"",
                ],
            ),
            (
                json!({"/spec/securityContext/fsGroupChangePolicy": "X"}),
                &[
                    "spec.securityContext.fsGroupChangePolicy: Unsupported value: \"X\": supported values: \"Always\", \"OnRootMismatch\"",
                ],
            ),
            (
                json!({"/spec/securityContext/supplementalGroups": [0, -5]}),
                &[
                    "spec.securityContext.supplementalGroups[1]: Invalid value: -5: must be between 0 and 2147483647, inclusive",
                ],
            ),
            (
                json!({"/spec/shareProcessNamespace": true, "/spec/hostPID": true, "/spec/securityContext": {}}),
                &[
                    "spec.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled",
                ],
            ),
            (
                json!({"/spec/containers/0/securityContext": {"privileged": true, "allowPrivilegeEscalation": false}}),
                &[
                    "spec.containers[0].securityContext: Invalid value: {\"allowPrivilegeEscalation\":false,\"privileged\":true}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
                ],
            ),
            (
                json!({"/spec/containers/0/securityContext/procMount": "Unmasked"}),
                &[
                    "spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`",
                ],
            ),
            (
                json!({"/spec/hostUsers": false, "/spec/hostNetwork": true}),
                &["spec.hostNetwork: Forbidden: when `hostUsers` is false"],
            ),
            (
                json!({"/spec/hostUsers": false, "/spec/containers/0/volumeDevices": [{"name": "v", "devicePath": "/dev/v"}],
                    "/spec/volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}),
                &["spec.containers[0].volumeDevices: Forbidden: when `hostUsers` is false"],
            ),
            (json!({"/spec/securityContext/seLinuxChangePolicy": "Recursive"}), &[]),
            (
                json!({"/spec/securityContext/seLinuxChangePolicy": "MountOption"}),
                &[
                    "spec.securityContext.seLinuxChangePolicy: Unsupported value: \"MountOption\": supported values: \"Recursive\"",
                ],
            ),
            (json!({"/spec/os": {"name": ""}}), &["spec.os.name: Required value"]),
            (
                json!({"/spec/os": {"name": "beos"}}),
                &["spec.os: Unsupported value: \"beos\": supported values: \"linux\", \"windows\""],
            ),
            (
                json!({"/spec/os": {"name": "windows"}, "/spec/securityContext": {"runAsUser": 1}, "/spec/containers/0/securityContext": {"privileged": false}}),
                &[
                    "spec.securityContext.runAsUser: Forbidden: cannot be set for a windows pod",
                    "spec.containers[0].securityContext.privileged: Forbidden: cannot be set for a windows pod",
                ],
            ),
            (
                json!({"/spec/os": {"name": "linux"}, "/spec/securityContext": {"windowsOptions": {}}}),
                &[
                    "spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod",
                ],
            ),
            (
                json!({"/spec/securityContext/windowsOptions": {"hostProcess": true}, "/spec/hostNetwork": false}),
                &[
                    "spec.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers",
                ],
            ),
            (
                json!({"/spec/securityContext/windowsOptions": {"runAsUserName": "a\\b\\c"}}),
                &[
                    "spec.securityContext.windowsOptions.runAsUserName: Invalid value: \"a\\\\b\\\\c\": runAsUserName cannot contain more than one backslash",
                ],
            ),
        ],
    );
}

#[test]
fn scheduling_and_names() {
    table(
        &valid(),
        pod,
        &[
            (
                json!({"/spec/tolerations": [{"operator": "Exists", "value": "x"}]}),
                &[
                    "spec.tolerations[0].operator: Invalid value: \"x\": value must be empty when `operator` is 'Exists'",
                ],
            ),
            (
                json!({"/spec/tolerations": [{"operator": "Equal", "value": "x"}]}),
                &[
                    "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
                ],
            ),
            (
                json!({"/spec/tolerations": [{"key": "a", "operator": "X"}]}),
                &[
                    "spec.tolerations[0].operator: Unsupported value: \"X\": supported values: \"Equal\", \"Exists\"",
                ],
            ),
            (
                json!({"/spec/tolerations": [{"key": "a", "operator": "Gt", "value": "1"}]}),
                &[
                    "spec.tolerations[0].operator: Unsupported value: \"Gt\": supported values: \"Equal\", \"Exists\", \"Lt\", \"Gt\"",
                ],
            ),
            (
                json!({"/spec/tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 1}]}),
                &[
                    "spec.tolerations[0].effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` is set",
                ],
            ),
            (
                json!({"/spec/topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "", "whenUnsatisfiable": ""}]}),
                &[
                    "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
                    "spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty",
                    "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
                ],
            ),
            (
                json!({"/spec/schedulingGates": [{"name": "a"}], "/spec/nodeName": "n"}),
                &["spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"],
            ),
            (
                json!({"/spec/schedulingGates": [{"name": "a"}, {"name": "a"}]}),
                &["spec.schedulingGates[1]: Duplicate value: \"a\""],
            ),
            (
                json!({"/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms": []}),
                &[
                    "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
                ],
            ),
            (
                json!({"/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms": [
            {"matchExpressions": [{"key": "a", "operator": "In"}]}]}),
                &[
                    "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                ],
            ),
            (
                json!({"/spec/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": ""}]}),
                &[
                    "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not be empty",
                    "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Invalid value: \"\": name part …",
                    "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Invalid value: \"\": name part …",
                ],
            ),
            (
                json!({"/spec/affinity/podAffinity/preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 0, "podAffinityTerm": {"topologyKey": "a"}}]}),
                &[
                    "spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100",
                ],
            ),
            (
                json!({"/spec/dnsPolicy": "None"}),
                &["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
            ),
            (
                json!({"/spec/dnsConfig": {"nameservers": ["1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"]}}),
                &[
                    "spec.dnsConfig.nameservers: Invalid value: [\"1.1.1.1\",\"2.2.2.2\",\"3.3.3.3\",\"4.4.4.4\"]: must not have more than 3 nameservers",
                ],
            ),
            (
                json!({"/spec/hostAliases": [{"ip": "x"}]}),
                &[
                    "spec.hostAliases[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                ],
            ),
            (
                json!({"/spec/activeDeadlineSeconds": 0}),
                &[
                    "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
                ],
            ),
            (json!({"/spec/hostname": "A.b"}), &["spec.hostname: Invalid value: \"A.b\": …"]),
            (json!({"/spec/hostnameOverride": "a.b"}), &[]),
            (
                json!({"/spec/hostnameOverride": "a".repeat(65), "/spec/setHostnameAsFQDN": true, "/spec/hostNetwork": true}),
                &[
                    "spec.hostnameOverride: Forbidden: may not be specified when setHostnameAsFQDN is true",
                    "spec.hostnameOverride: Forbidden: may not be specified when hostNetwork is true",
                    "spec.hostnameOverride: Too long: may not be more than 64 bytes",
                ],
            ),
            (
                json!({"/metadata/annotations": {"kubernetes.io/config.mirror": "x"}, "/spec/nodeName": "n",
                    "/spec/resourceClaims": [{"name": "a", "resourceClaimName": "b"}]}),
                &["[]: Forbidden: static pods do not support resource claims"],
            ),
            (
                json!({"/spec/restartPolicy": "Never", "/spec/containers/0/resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]}),
                &[
                    "spec.containers[0].resizePolicy: Invalid value: \"RestartContainer\": must be 'NotRequired' when pod `restartPolicy` is 'Never'",
                ],
            ),
            (
                json!({"/spec/initContainers/0": {"name": "i", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File",
                    "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]}}),
                &[
                    "spec.initContainers[0].resizePolicy[0].restartPolicy: Invalid value: \"RestartContainer\": must not be set to 'RestartContainer' for non-sidecar initContainers",
                ],
            ),
            (
                json!({"/spec/preemptionPolicy": "X"}),
                &[
                    "spec.preemptionPolicy: Unsupported value: \"X\": supported values: \"PreemptLowerPriority\", \"Never\"",
                ],
            ),
            (
                json!({"/spec/terminationGracePeriodSeconds": null}),
                &["spec.terminationGracePeriodSeconds: Required value"],
            ),
            (
                json!({"/spec/nodeSelector": {"a": "not ok"}}),
                &["spec.nodeSelector: Invalid value: \"not ok\": …"],
            ),
            (
                json!({"/spec/readinessGates": [{"conditionType": "a b"}]}),
                &["spec.readinessGates[0].conditionType: Invalid value: \"a b\": …"],
            ),
            (
                json!({"/spec/overhead": {"x": "1"}}),
                &[
                    "spec.overhead.limits[x]: Invalid value: \"x\": must be a standard resource type or fully qualified",
                    "spec.overhead.limits[x]: Invalid value: \"x\": must be a standard resource for containers",
                ],
            ),
            (
                json!({"/metadata/annotations": {"controller.kubernetes.io/pod-deletion-cost": "+1"}}),
                &[
                    "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"+1\": must be a 32bit integer",
                ],
            ),
            (
                json!({"/metadata/annotations": {"kubernetes.io/config.mirror": "x"}}),
                &[
                    "metadata.annotations[kubernetes.io/config.mirror]: Invalid value: \"x\": must set spec.nodeName if mirror pod annotation is set",
                ],
            ),
            (
                json!({"/metadata/annotations": {"container.apparmor.security.beta.kubernetes.io/zz": "runtime/default"}}),
                &[
                    "metadata.annotations[container.apparmor.security.beta.kubernetes.io/zz]: Invalid value: \"zz\": container not found",
                ],
            ),
        ],
    );
}
