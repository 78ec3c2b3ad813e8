//! Odd input: whatever is left out of an object, or has another type, no rule panics, and defaults stay what they are
//! when they are set again.

use std::path::Path;

use apimachinery::{Object, Value};
use proptest::prelude::*;
use serde_json::json;

use crate::Resource;

/// Objects of every core kind with much in them, always there.
fn own() -> Vec<(&'static str, Value)> {
    let pod = json!({
        "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30, "hostNetwork": true,
        "securityContext": {"sysctls": [{"name": "a.b", "value": "1"}], "seccompProfile": {"type": "Localhost", "localhostProfile": "x"},
            "windowsOptions": {"hostProcess": true}, "appArmorProfile": {"type": "Localhost"}},
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}]}},
            "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "a", "labelSelector": {}, "matchLabelKeys": ["a"]}]}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}],
        "tolerations": [{"key": "a", "operator": "Exists"}], "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a"]}],
        "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["a.b"], "options": [{"name": "ndots"}]},
        "resources": {"limits": {"cpu": "2"}}, "overhead": {"cpu": "1m"}, "resourceClaims": [{"name": "r", "resourceClaimName": "x"}],
        "readinessGates": [{"conditionType": "a"}], "schedulingGates": [{"name": "g"}], "os": {"name": "linux"},
        "volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "s", "items": [{"key": "k", "path": "p"}]}}]}},
            {"name": "w", "ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}}],
        "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}],
            "env": [{"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels['a']"}}}],
            "envFrom": [{"prefix": "x", "configMapRef": {"name": "m"}}],
            "resources": {"limits": {"cpu": "1", "hugepages-2Mi": "2Mi"}, "requests": {"cpu": "1", "example.com/x": 1}, "claims": [{"name": "r"}]},
            "volumeMounts": [{"name": "v", "mountPath": "/a", "mountPropagation": "Bidirectional"}],
            "livenessProbe": {"httpGet": {"port": "http", "path": "/"}}, "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
            "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}],
            "securityContext": {"capabilities": {"add": ["CAP_SYS_ADMIN"]}, "allowPrivilegeEscalation": false, "procMount": "Default"},
            "restartPolicy": "Never", "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}]}],
        "initContainers": [{"name": "i", "image": "i", "restartPolicy": "Always"}],
        "ephemeralContainers": [{"name": "e", "image": "i", "targetContainerName": "c"}],
    });
    let status = json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 1}}, "user": {"linux": {"uid": 1}},
            "allocatedResourcesStatus": [{"name": "claim:r", "resources": [{"resourceID": "a"}]}]}]});
    let meta = json!({"name": "a", "namespace": "n", "labels": {"a": "b"}, "annotations": {"a": "b"}, "finalizers": ["x/y"]});
    vec![
        ("pods", json!({"metadata": meta, "spec": pod, "status": status})),
        ("podtemplates", json!({"metadata": meta, "template": {"metadata": meta, "spec": pod}})),
        (
            "replicationcontrollers",
            json!({"metadata": meta, "spec": {"replicas": 1, "selector": {"a": "b"},
            "template": {"metadata": meta, "spec": pod}}, "status": {"replicas": 1, "readyReplicas": 2}}),
        ),
        (
            "services",
            json!({"metadata": meta, "spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"],
            "ipFamilies": ["IPv4"], "externalIPs": ["1.2.3.4"], "loadBalancerSourceRanges": ["10.0.0.1/8"], "sessionAffinity": "ClientIP",
            "ports": [{"name": "a", "port": 1, "nodePort": 30000, "targetPort": "x"}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4", "ports": [{"port": 1, "protocol": "TCP", "error": "x"}]}]}}}),
        ),
        (
            "nodes",
            json!({"metadata": meta, "spec": {"taints": [{"key": "a", "effect": "NoExecute"}], "podCIDRs": ["10.0.0.0/24"],
            "configSource": {"configMap": {"name": "x"}}}, "status": {"capacity": {"cpu": "1"}, "addresses": [{"type": "a", "address": "b"}]}}),
        ),
        (
            "namespaces",
            json!({"metadata": meta, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}),
        ),
        (
            "endpoints",
            json!({"metadata": meta, "subsets": [{"addresses": [{"ip": "10.0.0.1", "hostname": "h"}], "ports": [{"port": 1}]}]}),
        ),
        (
            "events",
            json!({"metadata": meta, "involvedObject": {"kind": "Pod", "namespace": "n"}, "eventTime": "x", "series": {"count": 1}}),
        ),
        (
            "persistentvolumes",
            json!({"metadata": meta, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "csi": {"driver": "a", "volumeHandle": "b"}, "claimRef": {"name": "a"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [{}]}}}}),
        ),
        (
            "persistentvolumeclaims",
            json!({"metadata": meta, "spec": {"accessModes": ["ReadWriteOnce"], "selector": {"matchLabels": {"a": "b"}},
            "dataSource": {"kind": "PersistentVolumeClaim", "name": "x"}, "resources": {"requests": {"storage": "1Gi"}}},
            "status": {"capacity": {"storage": "1Gi"}, "allocatedResourceStatuses": {"storage": "x"}}}),
        ),
        (
            "resourcequotas",
            json!({"metadata": meta, "spec": {"hard": {"pods": "1"}, "scopes": ["BestEffort"],
            "scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["a"]}]}},
            "status": {"hard": {"pods": "1"}, "used": {"pods": "1"}}}),
        ),
        (
            "limitranges",
            json!({"metadata": meta, "spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "1"},
            "maxLimitRequestRatio": {"cpu": "2"}}]}}),
        ),
        (
            "secrets",
            json!({"metadata": meta, "type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "e30="}, "stringData": {"a": "b"}}),
        ),
        (
            "configmaps",
            json!({"metadata": meta, "data": {"a": "b"}, "binaryData": {"b": "YQ=="}, "immutable": true}),
        ),
        ("serviceaccounts", json!({"metadata": meta, "secrets": [{"name": "a"}]})),
        (
            "poddisruptionbudgets",
            json!({"metadata": meta, "spec": {"minAvailable": "50%", "selector": {"matchLabels": {"a": "b"}}},
            "status": {"disruptionsAllowed": 1, "conditions": [{"type": "a", "status": "True"}]}}),
        ),
    ]
}

fn resource(plural: &str) -> &'static Resource {
    let all = crate::core::RESOURCES.iter().chain(crate::policy::RESOURCES);
    all.into_iter().find(|resource| resource.plural == plural).expect("a core kind")
}

/// Upstream's full objects, where somebody has put them.
fn given() -> Vec<(&'static Resource, Value)> {
    let Some(folder) = std::env::var_os("XEBEC_API_TESTDATA") else { return Vec::new() };
    let all = crate::core::RESOURCES.iter().chain(crate::policy::RESOURCES);
    all.filter_map(|resource| {
        let group = if resource.group.is_empty() { "core" } else { resource.group };
        let file = Path::new(&folder).join(format!("{group}.{}.{}.json", resource.version, resource.kind));
        let text = std::fs::read_to_string(file).ok()?;
        Some((resource, serde_json::from_str(&text).expect("JSON")))
    })
    .collect()
}

/// Every place in a tree, as a pointer.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let at = format!("{at}/{}", escaped(key));
                places(value, &at, out);
                out.push(at);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                let at = format!("{at}/{index}");
                places(value, &at, out);
                out.push(at);
            }
        }
        _ => {}
    }
}

fn odd() -> Vec<Value> {
    vec![
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(i64::MAX),
        json!(1.5),
        json!(""),
        json!("ä\u{0}/..'[\"]"),
        json!("99999999999999999999999999E"),
        json!([]),
        json!([null]),
        json!([{}]),
        json!({}),
        json!({"a": null}),
    ]
}

/// Sends an object through every hook, as itself and against another one.
fn exercise(resource: &Resource, object: &Value, old: &Value) {
    let strategy = resource.strategy;
    let old = Object::from(old.clone());
    let mut new = Object::from(object.clone());
    strategy.default(&mut new);
    let once = new.clone();
    strategy.default(&mut new);
    assert_eq!(once, new, "defaults of {} are not stable", resource.plural);
    for column in resource.columns {
        (column.cell)(&new, &crate::catalogue::Now(0));
    }
    resource.selectable_fields(&new);
    strategy.warnings_before_create(&new);
    let mut created = new.clone();
    strategy.prepare_for_create(&mut created);
    strategy.validate(&created);
    strategy.validate(&new);
    strategy.warnings_on_create(&created);
    for (after, before) in [(&new, &old), (&old, &new)] {
        let mut updated = after.clone();
        strategy.prepare_for_update(&mut updated, before);
        strategy.validate_update(&updated, before);
        strategy.validate_update(after, before);
        strategy.warnings_on_update(&updated, before);
        let mut updated = after.clone();
        strategy.prepare_for_status_update(&mut updated, before);
        strategy.validate_status_update(&updated, before);
        strategy.warnings_on_status_update(&updated, before);
        for sub in resource.subresources {
            let mut updated = after.clone();
            strategy.prepare_for_subresource(sub.name, &mut updated, before);
            strategy.validate_subresource(sub.name, &updated, before);
            strategy.validate_subresource(sub.name, after, before);
        }
    }
    strategy.grace(&new, Some(-1));
}

#[test]
fn no_place_of_an_object_can_upset_a_rule() {
    let odd = odd();
    for (plural, object) in own() {
        let resource = resource(plural);
        let mut all = Vec::new();
        places(&object, "", &mut all);
        for (index, place) in all.iter().enumerate() {
            // each place gets some odd values, and each value comes up many times
            for step in 0..2 {
                let mut changed = object.clone();
                *changed.pointer_mut(place).expect("a place") = odd[(index + step * 5) % odd.len()].clone();
                exercise(resource, &changed, &object);
            }
        }
        for value in &odd {
            exercise(resource, &json!({"metadata": value, "spec": value, "status": value}), &object);
        }
        exercise(resource, &json!({}), &json!({}));
    }
}

#[test]
fn every_core_kind_is_tried() {
    let tried: Vec<&str> = own().iter().map(|(plural, _)| *plural).collect();
    let all = crate::core::RESOURCES.iter().chain(crate::policy::RESOURCES);
    let missing: Vec<&str> = all
        .filter(|resource| resource.access == crate::Access::Stored)
        .map(|resource| resource.plural)
        .filter(|plural| !tried.contains(plural))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn several_odd_values_at_once_upset_no_rule(
        seeds in proptest::collection::vec((any::<usize>(), any::<usize>()), 1..6),
        which in any::<usize>(),
    ) {
        let mut objects: Vec<(&'static Resource, Value)> =
            own().into_iter().map(|(plural, object)| (resource(plural), object)).collect();
        objects.extend(given());
        let (resource, object) = objects.swap_remove(which % objects.len());
        let mut changed = object.clone();
        let odd = odd();
        for (place, value) in seeds {
            let mut all = Vec::new();
            places(&changed, "", &mut all);
            if all.is_empty() {
                break;
            }
            *changed.pointer_mut(&all[place % all.len()]).expect("a place") = odd[value % odd.len()].clone();
        }
        exercise(resource, &changed, &object);
    }
}
