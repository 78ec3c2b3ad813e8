//! Tables of the rules of Services.

use serde_json::json;

use super::testing::{table, updates};
use super::{service, service_update};

#[test]
fn services() {
    let base = json!({"metadata": {"name": "s"}, "spec": {"type": "ClusterIP", "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster", "selector": {"a": "b"},
        "ports": [{"name": "p", "port": 80, "protocol": "TCP", "targetPort": 80}]}});
    table(
        &base,
        service,
        &[
            (json!({"/spec/ports": []}), &["spec.ports: Required value"]),
            (json!({"/spec/ports": [], "/spec/clusterIP": "None", "/spec/clusterIPs": ["None"]}), &[]),
            (
                json!({"/spec/type": "X"}),
                &[
                    "spec.type: Unsupported value: \"X\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
                ],
            ),
            (
                json!({"/spec/ports/0/port": 0}),
                &["spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"],
            ),
            (
                json!({"/spec/ports/0/protocol": "X"}),
                &[
                    "spec.ports[0].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                ],
            ),
            (
                json!({"/spec/ports/0/nodePort": 30000}),
                &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
            ),
            (
                json!({"/spec/ports/1": {"port": 81, "protocol": "TCP", "targetPort": 80}}),
                &["spec.ports[1].name: Required value"],
            ),
            (
                json!({"/spec/ports/1": {"name": "p", "port": 81, "protocol": "TCP", "targetPort": 80}}),
                &["spec.ports[1].name: Duplicate value: \"p\""],
            ),
            (
                json!({"/spec/ports/1": {"name": "q", "port": 80, "protocol": "TCP", "targetPort": 80}}),
                &[
                    "spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":80,\"TargetPort\":0,\"NodePort\":0}",
                ],
            ),
            (
                json!({"/spec/sessionAffinity": "X"}),
                &["spec.sessionAffinity: Unsupported value: \"X\": supported values: \"ClientIP\", \"None\""],
            ),
            (
                json!({"/spec/sessionAffinity": "ClientIP"}),
                &["spec.sessionAffinityConfig: Required value: when session affinity type is ClientIP"],
            ),
            (
                json!({"/spec/sessionAffinity": "ClientIP", "/spec/sessionAffinityConfig/clientIP/timeoutSeconds": 86401}),
                &[
                    "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less than 86400",
                ],
            ),
            (
                json!({"/spec/clusterIP": "None", "/spec/clusterIPs": ["None", "10.0.0.1"]}),
                &[
                    "spec.clusterIPs: Invalid value: [\"None\",\"10.0.0.1\"]: 'None' must be the first and only value",
                ],
            ),
            (
                json!({"/spec/clusterIP": "10.0.0.1", "/spec/clusterIPs": ["10.0.0.2"]}),
                &["spec.clusterIPs: Invalid value: [\"10.0.0.2\"]: first value must match `clusterIP`"],
            ),
            (
                json!({"/spec/clusterIP": "10.0.0.1", "/spec/clusterIPs": ["10.0.0.1", "10.0.0.2"]}),
                &[
                    "spec.clusterIPs: Invalid value: [\"10.0.0.1\",\"10.0.0.2\"]: may specify no more than one IP for each IP family",
                ],
            ),
            (
                json!({"/spec/clusterIP": "x", "/spec/clusterIPs": ["x"]}),
                &[
                    "spec.clusterIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                ],
            ),
            (
                json!({"/spec/ipFamilies": ["IPv4", "IPv4"]}),
                &["spec.ipFamilies[1]: Duplicate value: \"IPv4\""],
            ),
            (
                json!({"/spec/ipFamilyPolicy": "X"}),
                &[
                    "spec.ipFamilyPolicy: Unsupported value: \"X\": supported values: \"PreferDualStack\", \"RequireDualStack\", \"SingleStack\"",
                ],
            ),
            (
                json!({"/spec/clusterIP": "10.0.0.1", "/spec/clusterIPs": ["10.0.0.1"], "/spec/ipFamilies": ["IPv6"]}),
                &[
                    "spec.clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by `ipFamilies[0]`",
                ],
            ),
            (
                json!({"/spec/externalTrafficPolicy": "Cluster", "/spec/externalIPs": ["127.0.0.1"]}),
                &[
                    "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                ],
            ),
            (
                json!({"/spec/type": "LoadBalancer", "/spec/externalTrafficPolicy": "X", "/spec/allocateLoadBalancerNodePorts": true}),
                &[
                    "spec.externalTrafficPolicy: Unsupported value: \"X\": supported values: \"Cluster\", \"Local\"",
                ],
            ),
            (
                json!({"/spec/externalTrafficPolicy": "Local"}),
                &[
                    "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
                ],
            ),
            (
                json!({"/spec/healthCheckNodePort": 30000}),
                &[
                    "spec.healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
                ],
            ),
            (
                json!({"/spec/allocateLoadBalancerNodePorts": true}),
                &[
                    "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
                ],
            ),
            (
                json!({"/spec/loadBalancerClass": "a/b"}),
                &["spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'"],
            ),
            (
                json!({"/spec/internalTrafficPolicy": "X"}),
                &[
                    "spec.internalTrafficPolicy: Unsupported value: \"X\": supported values: \"Cluster\", \"Local\"",
                ],
            ),
            (
                json!({"/spec/trafficDistribution": "X"}),
                &[
                    "spec.trafficDistribution: Unsupported value: \"X\": supported values: \"PreferClose\", \"PreferSameZone\", \"PreferSameNode\"",
                ],
            ),
            (json!({"/spec/type": "ExternalName"}), &["spec.externalName: Required value"]),
            (
                json!({"/spec/type": "NodePort", "/spec/externalTrafficPolicy": "Cluster", "/spec/clusterIP": "None", "/spec/clusterIPs": ["None"]}),
                &[
                    "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
                ],
            ),
        ],
    );
    let given = json!({"/spec/clusterIP": "10.0.0.1", "/spec/clusterIPs": ["10.0.0.1"], "/spec/ipFamilies": ["IPv4"],
        "/spec/ipFamilyPolicy": "SingleStack"});
    updates(
        &base,
        service_update,
        &[
            (given.clone(), json!({"/spec/selector/a": "c"}), &[]),
            (
                given.clone(),
                json!({"/spec/clusterIP": "10.0.0.2", "/spec/clusterIPs": ["10.0.0.2"]}),
                &["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"],
            ),
            (
                given.clone(),
                json!({"/spec/ipFamilies": ["IPv6"], "/spec/clusterIP": "10.0.0.1"}),
                &[
                    "spec.clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by `ipFamilies[0]`",
                    "spec.ipFamilies[0]: Invalid value: [\"IPv6\"]: may not change once set",
                ],
            ),
            (
                given,
                json!({"/spec/type": "ExternalName", "/spec/externalName": "a.b", "/spec/clusterIP": null,
            "/spec/clusterIPs": null, "/spec/ipFamilies": null, "/spec/ipFamilyPolicy": null}),
                &[],
            ),
        ],
    );
}
