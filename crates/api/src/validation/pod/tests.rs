//! Tables of the rules of pods.

use apimachinery::Value;
use serde_json::json;

use super::*;
use crate::validation::testing::{table, updates};

fn valid() -> Value {
    json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {
        "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30,
        "containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"}],
    }})
}

fn another(name: &str) -> Value {
    json!({"name": name, "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"})
}

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

#[test]
fn containers() {
    let label = format!("spec.containers[0].name: Invalid value: \"A\": {LABEL}");
    table(
        &valid(),
        pod,
        &[
            (json!({"/spec/containers": []}), &["spec.containers: Required value"]),
            (json!({"/spec/containers/0/name": "A"}), &[&label]),
            (json!({"/spec/containers/0/name": ""}), &["spec.containers[0].name: Required value"]),
            (json!({"/spec/containers/0/image": ""}), &["spec.containers[0].image: Required value"]),
            (
                json!({"/spec/containers/0/image": " i"}),
                &[
                    "spec.containers[0].image: Invalid value: \" i\": must not have leading or trailing whitespace",
                ],
            ),
            (
                json!({"/spec/containers/0/imagePullPolicy": ""}),
                &["spec.containers[0].imagePullPolicy: Required value"],
            ),
            (
                json!({"/spec/containers/0/imagePullPolicy": "X"}),
                &[
                    "spec.containers[0].imagePullPolicy: Unsupported value: \"X\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
                ],
            ),
            (
                json!({"/spec/containers/0/terminationMessagePolicy": "X"}),
                &[
                    "spec.containers[0].terminationMessagePolicy: Unsupported value: \"X\": supported values: \"File\", \"FallbackToLogsOnError\"",
                ],
            ),
            (
                json!({"/spec/containers/1": another("c")}),
                &["spec.containers[1].name: Duplicate value: \"c\""],
            ),
            (
                json!({"/spec/initContainers/0": another("c")}),
                &["spec.initContainers[0].name: Duplicate value: \"c\""],
            ),
            (
                json!({"/spec/initContainers/0": another("b"), "/spec/initContainers/0/readinessProbe": {"exec": {"command": ["a"]}}}),
                &[
                    "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
                ],
            ),
            (
                json!({"/spec/ephemeralContainers/0": another("e")}),
                &["spec.ephemeralContainers: Forbidden: cannot be set on create"],
            ),
            (
                json!({"/spec/restartPolicy": "X"}),
                &[
                    "spec.restartPolicy: Unsupported value: \"X\": supported values: \"Always\", \"OnFailure\", \"Never\"",
                ],
            ),
            (json!({"/spec/restartPolicy": null}), &["spec.restartPolicy: Required value"]),
            (
                json!({"/spec/dnsPolicy": "X"}),
                &[
                    "spec.dnsPolicy: Unsupported value: \"X\": supported values: \"ClusterFirstWithHostNet\", \"ClusterFirst\", \"Default\", \"None\"",
                ],
            ),
            (
                json!({"/spec/containers/0/restartPolicy": "X"}),
                &[
                    "spec.containers[0].restartPolicy: Unsupported value: \"X\": supported values: \"Always\", \"Never\", \"OnFailure\"",
                ],
            ),
            (
                json!({"/spec/containers/0/restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}]}),
                &[
                    "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used",
                ],
            ),
            (
                json!({"/spec/containers/0/restartPolicy": "Never", "/spec/containers/0/restartPolicyRules": [{"action": "Restart"}]}),
                &["spec.containers[0].restartPolicyRules[0].exitCodes: Required value: must be specified"],
            ),
        ],
    );
}

#[test]
fn ports_and_environment() {
    table(
        &valid(),
        pod,
        &[
            (
                json!({"/spec/containers/0/ports": [{"containerPort": 0, "protocol": "TCP"}]}),
                &["spec.containers[0].ports[0].containerPort: Required value"],
            ),
            (
                json!({"/spec/containers/0/ports": [{"containerPort": 65536, "protocol": "TCP"}]}),
                &[
                    "spec.containers[0].ports[0].containerPort: Invalid value: 65536: must be between 1 and 65535, inclusive",
                ],
            ),
            (
                json!({"/spec/containers/0/ports": [{"containerPort": 1, "protocol": "X"}]}),
                &[
                    "spec.containers[0].ports[0].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                ],
            ),
            (
                json!({"/spec/containers/0/ports": [
            {"name": "a", "containerPort": 1, "protocol": "TCP"}, {"name": "a", "containerPort": 2, "protocol": "TCP"}]}),
                &["spec.containers[0].ports[1].name: Duplicate value: \"a\""],
            ),
            (
                json!({"/spec/containers/0/ports": [{"name": "this-name-is-too-long", "containerPort": 1, "protocol": "TCP"}]}),
                &[
                    "spec.containers[0].ports[0].name: Invalid value: \"this-name-is-too-long\": must be no more than 15 characters",
                ],
            ),
            (
                json!({"/spec/containers/0/ports": [
            {"containerPort": 1, "hostPort": 5, "protocol": "TCP"}, {"containerPort": 2, "hostPort": 5, "protocol": "TCP"}]}),
                &["spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//5\""],
            ),
            (
                json!({"/spec/hostNetwork": true, "/spec/containers/0/ports": [{"containerPort": 1, "hostPort": 5, "protocol": "TCP"}]}),
                &[
                    "spec.containers[0].ports[0].hostPort: Invalid value: 5: must match `containerPort` when `hostNetwork` is true",
                ],
            ),
            (
                json!({"/spec/containers/0/env": [{"name": ""}]}),
                &["spec.containers[0].env[0].name: Required value"],
            ),
            (
                json!({"/spec/containers/0/env": [{"name": "a=b"}]}),
                &["spec.containers[0].env[0].name: Invalid value: \"a=b\": …"],
            ),
            (
                json!({"/spec/containers/0/env": [{"name": "a", "valueFrom": {}}]}),
                &[
                    "spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
                ],
            ),
            (
                json!({"/spec/containers/0/env": [{"name": "a", "value": "x", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}]}),
                &[
                    "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
                ],
            ),
            (
                json!({"/spec/containers/0/env": [{"name": "a", "valueFrom": {
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}, "configMapKeyRef": {"name": "m", "key": "k"}}}]}),
                &[
                    "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not have more than one field specified at a time",
                ],
            ),
            (
                json!({"/spec/containers/0/env": [{"name": "a", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.phase"}}}]}),
                &[
                    "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"status.phase\": supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
                ],
            ),
            (
                json!({"/spec/containers/0/env": [{"name": "a", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.whoops"}}}]}),
                &[
                    "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"metadata.whoops\": error converting fieldPath: field label not supported: metadata.whoops",
                ],
            ),
            (
                json!({"/spec/containers/0/env": [{"name": "a", "valueFrom": {"resourceFieldRef": {"resource": "limits.x"}}}]}),
                &[
                    "spec.containers[0].env[0].valueFrom.resourceFieldRef.resource: Unsupported value: \"limits.x\": supported values: \"limits.cpu\", \"limits.ephemeral-storage\", \"limits.memory\", \"requests.cpu\", \"requests.ephemeral-storage\", \"requests.memory\"",
                ],
            ),
            (
                json!({"/spec/containers/0/env": [{"name": "a", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2m"}}}]}),
                &[
                    "spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu resource",
                ],
            ),
            (
                json!({"/spec/containers/0/envFrom": [{}]}),
                &[
                    "spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
                ],
            ),
            (
                json!({"/spec/containers/0/envFrom": [{"configMapRef": {"name": "Bad_"}}]}),
                &["spec.containers[0].envFrom[0].configMapRef.name: Invalid value: \"Bad_\": …"],
            ),
            (
                json!({"/spec/containers/0/env": [{"name": "a", "valueFrom": {"secretKeyRef": {"name": "", "key": ""}}}]}),
                &[
                    "spec.containers[0].env[0].valueFrom.secretKeyRef.name: Invalid value: \"\": …",
                    "spec.containers[0].env[0].valueFrom.secretKeyRef.key: Required value",
                ],
            ),
        ],
    );
}

#[test]
fn probes_and_lifecycle() {
    let probe = |mut probe: Value| {
        if probe.get("successThreshold").is_none() {
            probe["successThreshold"] = json!(1);
        }
        json!({"/spec/containers/0/livenessProbe": probe})
    };
    table(
        &valid(),
        pod,
        &[
            (
                probe(json!({"periodSeconds": 1})),
                &["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
            ),
            (
                probe(json!({"exec": {"command": []}})),
                &["spec.containers[0].livenessProbe.exec.command: Required value"],
            ),
            (
                probe(
                    json!({"exec": {"command": ["a"]}, "httpGet": {"path": "/", "port": 1, "scheme": "HTTP"}}),
                ),
                &[
                    "spec.containers[0].livenessProbe.httpGet: Forbidden: may not specify more than 1 handler type",
                ],
            ),
            (
                probe(json!({"httpGet": {"path": "", "port": 0, "scheme": "X"}})),
                &[
                    "spec.containers[0].livenessProbe.httpGet.path: Required value",
                    "spec.containers[0].livenessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
                    "spec.containers[0].livenessProbe.httpGet.scheme: Unsupported value: \"X\": supported values: \"HTTP\", \"HTTPS\"",
                ],
            ),
            (
                probe(json!({"tcpSocket": {"port": "NOT_OK"}})),
                &[
                    "spec.containers[0].livenessProbe.tcpSocket.port: Invalid value: \"NOT_OK\": …",
                    "spec.containers[0].livenessProbe.tcpSocket.port: Invalid value: \"NOT_OK\": …",
                ],
            ),
            (
                probe(
                    json!({"exec": {"command": ["a"]}, "timeoutSeconds": -1, "periodSeconds": -1, "initialDelaySeconds": -1, "failureThreshold": -1}),
                ),
                &[
                    "spec.containers[0].livenessProbe.initialDelaySeconds: Invalid value: -1: must be greater than or equal to 0",
                    "spec.containers[0].livenessProbe.timeoutSeconds: Invalid value: -1: must be greater than or equal to 0",
                    "spec.containers[0].livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
                    "spec.containers[0].livenessProbe.failureThreshold: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
            (
                probe(json!({"exec": {"command": ["a"]}, "successThreshold": 2})),
                &["spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"],
            ),
            (
                probe(
                    json!({"exec": {"command": ["a"]}, "successThreshold": 1, "terminationGracePeriodSeconds": 0}),
                ),
                &[
                    "spec.containers[0].livenessProbe.terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0",
                ],
            ),
            (
                json!({"/spec/containers/0/readinessProbe": {"exec": {"command": ["a"]}, "terminationGracePeriodSeconds": 5}}),
                &[
                    "spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes",
                ],
            ),
            (
                json!({"/spec/containers/0/lifecycle": {"preStop": {"sleep": {"seconds": 31}}}}),
                &[
                    "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
                ],
            ),
            (
                json!({"/spec/containers/0/lifecycle": {"postStart": {}}}),
                &["spec.containers[0].lifecycle.postStart: Required value: must specify a handler type"],
            ),
        ],
    );
}

#[test]
fn volumes_and_mounts() {
    let volume = |volume: Value| json!({"/spec/volumes": [volume]});
    table(
        &valid(),
        pod,
        &[
            (volume(json!({"name": "v"})), &["spec.volumes[0]: Required value: must specify a volume type"]),
            (volume(json!({"emptyDir": {}})), &["spec.volumes[0].name: Required value"]),
            (
                volume(json!({"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}})),
                &["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
            ),
            (
                json!({"/spec/volumes": [{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}]}),
                &["spec.volumes[1].name: Duplicate value: \"v\""],
            ),
            (
                volume(json!({"name": "v", "emptyDir": {"sizeLimit": "-1"}})),
                &[
                    "spec.volumes[0].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity",
                ],
            ),
            (
                volume(json!({"name": "v", "hostPath": {"path": "/a/.."}})),
                &["spec.volumes[0].hostPath.path: Invalid value: \"/a/..\": must not contain '..'"],
            ),
            (
                volume(json!({"name": "v", "hostPath": {"path": "/", "type": "X"}})),
                &[
                    "spec.volumes[0].hostPath.type: Unsupported value: \"X\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
                ],
            ),
            (
                volume(json!({"name": "v", "secret": {}})),
                &["spec.volumes[0].secret.secretName: Required value"],
            ),
            (
                volume(json!({"name": "v", "secret": {"secretName": "s", "defaultMode": 512}})),
                &[
                    "spec.volumes[0].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
                ],
            ),
            (
                volume(
                    json!({"name": "v", "configMap": {"name": "s", "items": [{"key": "k", "path": "../x"}]}}),
                ),
                &["spec.volumes[0].configMap.items[0].path: Invalid value: \"../x\": must not contain '..'"],
            ),
            (
                volume(json!({"name": "v", "nfs": {"server": "", "path": "a"}})),
                &[
                    "spec.volumes[0].nfs.server: Required value",
                    "spec.volumes[0].nfs.path: Invalid value: \"a\": must be an absolute path",
                ],
            ),
            (
                volume(json!({"name": "v", "persistentVolumeClaim": {"claimName": ""}})),
                &["spec.volumes[0].persistentVolumeClaim.claimName: Required value"],
            ),
            (
                volume(json!({"name": "v", "csi": {"driver": ""}})),
                &[
                    "spec.volumes[0].csi.driver: Required value",
                    "spec.volumes[0].csi.driver: Invalid value: \"\": …",
                ],
            ),
            (
                volume(json!({"name": "v", "image": {"reference": "", "pullPolicy": "X"}})),
                &[
                    "spec.volumes[0].image.reference: Required value",
                    "spec.volumes[0].image.pullPolicy: Unsupported value: \"X\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
                ],
            ),
            (
                volume(
                    json!({"name": "v", "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 1}}]}}),
                ),
                &[
                    "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
                    "spec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set",
                ],
            ),
            (
                volume(json!({"name": "v", "projected": {"sources": [
            {"secret": {"name": "a", "items": [{"key": "k", "path": "p"}]}}, {"configMap": {"name": "b", "items": [{"key": "k", "path": "p"}]}}]}})),
                &["spec.volumes[0].projected: Invalid value: \"b\": conflicting duplicate paths"],
            ),
            (
                volume(json!({"name": "v", "ephemeral": {}})),
                &["spec.volumes[0].ephemeral.volumeClaimTemplate: Required value"],
            ),
            (
                json!({"/spec/volumes": [{"name": "v", "emptyDir": {}}], "/spec/containers/0/volumeMounts": [{"name": "w", "mountPath": "/a"}]}),
                &["spec.containers[0].volumeMounts[0].name: Not found: \"w\""],
            ),
            (
                json!({"/spec/volumes": [{"name": "v", "emptyDir": {}}], "/spec/containers/0/volumeMounts": [
            {"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/a"}]}),
                &["spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique"],
            ),
            (
                json!({"/spec/volumes": [{"name": "v", "emptyDir": {}}], "/spec/containers/0/volumeMounts": [
            {"name": "v", "mountPath": "/a", "subPath": "a", "subPathExpr": "b"}]}),
                &[
                    "spec.containers[0].volumeMounts[0].subPathExpr: Invalid value: \"b\": subPathExpr and subPath are mutually exclusive",
                ],
            ),
            (
                json!({"/spec/volumes": [{"name": "v", "emptyDir": {}}], "/spec/containers/0/volumeMounts": [
            {"name": "v", "mountPath": "/a", "mountPropagation": "Bidirectional"}]}),
                &[
                    "spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
                ],
            ),
            (
                json!({"/spec/volumes": [{"name": "v", "emptyDir": {}}], "/spec/containers/0/volumeDevices": [
            {"name": "v", "devicePath": "/a"}]}),
                &[
                    "spec.containers[0].volumeDevices[0].name: Invalid value: \"v\": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
                ],
            ),
        ],
    );
}

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
                &["spec.hostNetwork: Forbidden: when `pod.Spec.HostUsers` is false"],
            ),
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
                    "spec.tolerations[0].operator: Invalid value: {\"Key\":\"\",\"Operator\":\"Exists\",\"Value\":\"x\",\"Effect\":\"\",\"TolerationSeconds\":null}: value must be empty when `operator` is 'Exists'",
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

#[test]
fn updates_of_a_pod() {
    const REST: &str = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    let gated = json!({"/spec/schedulingGates": [{"name": "a"}], "/spec/nodeSelector": {"x": "y"}});
    updates(
        &valid(),
        pod_update,
        &[
            (json!({}), json!({"/spec/containers/0/image": "other"}), &[]),
            (json!({}), json!({"/spec/hostNetwork": true}), &[REST]),
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
            (json!({}), json!({"/spec/terminationGracePeriodSeconds": 1}), &[REST]),
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
                &["metadata.conditions[0].Type: Invalid value: \"a b\": …"],
            ),
        ],
    );
}
