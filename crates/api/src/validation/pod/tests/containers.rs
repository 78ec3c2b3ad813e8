//! Tables of the rules of containers and volumes.

use apimachinery::Value;
use serde_json::json;

use super::{another, valid};
use crate::validation::pod::pod;
use crate::validation::testing::table;

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
