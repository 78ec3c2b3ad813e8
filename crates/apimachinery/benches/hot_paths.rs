//! What every request costs in the object engine: codecs, server-side apply, selectors.

use std::hint::black_box;

use apimachinery::apply::{self, Filter};
use apimachinery::codec::{self, EncodedJson, EncodedProtobuf};
use apimachinery::schema::Schema;
use apimachinery::selectors::LabelSelector;
use apimachinery::{Object, time};
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::json;

/// A pod as a Deployment makes them, with a status as a kubelet writes it.
fn pod() -> Object {
    let container = |name: &str| {
        json!({
            "name": name, "image": "registry.example.com/app:1.2.3", "imagePullPolicy": "IfNotPresent",
            "ports": [{"containerPort": 8080, "protocol": "TCP"}],
            "env": [{"name": "A", "value": "1"}, {"name": "POD", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
            "resources": {"limits": {"cpu": "500m", "memory": "128Mi"}, "requests": {"cpu": "100m", "memory": "64Mi"}},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            "livenessProbe": {"httpGet": {"path": "/", "port": 8080, "scheme": "HTTP"}, "periodSeconds": 10,
                "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3},
        })
    };
    let condition = |name: &str| json!({"type": name, "status": "True", "lastProbeTime": null, "lastTransitionTime": "2026-01-01T00:00:00Z"});
    Object::from(json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": "web-6d4b75cb6d-abcde", "namespace": "default", "uid": "b8f1d1c5-3f0a-4d8c-9d7e-1a2b3c4d5e6f",
            "resourceVersion": "123456", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "web", "pod-template-hash": "6d4b75cb6d", "tier": "front"}},
        "spec": {"containers": [container("app"), container("side")], "restartPolicy": "Always", "nodeName": "node-1",
            "volumes": [{"name": "data", "emptyDir": {}}], "dnsPolicy": "ClusterFirst", "serviceAccountName": "default",
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]},
        "status": {"phase": "Running", "conditions": [condition("Ready"), condition("Initialized"), condition("PodScheduled")],
            "podIP": "10.244.0.7", "podIPs": [{"ip": "10.244.0.7"}]},
    }))
}

fn hot_paths(criterion: &mut Criterion) {
    let schema = Schema::builtin("k8s.io.api.core.v1", "Pod").expect("a pod has a schema");
    let mut json = Vec::new();
    codec::encode_json(&pod(), &schema, &mut json);
    let object = codec::decode_json(&json, &schema).expect("a pod").object;
    let mut protobuf = Vec::new();
    codec::encode_protobuf(&object, &schema, &mut protobuf);

    criterion.bench_function("decode a pod from JSON", |b| {
        b.iter(|| codec::decode_json(black_box(&json), &schema));
    });
    criterion.bench_function("decode a pod from protobuf", |b| {
        b.iter(|| codec::decode_protobuf(black_box(&protobuf), &schema));
    });
    criterion
        .bench_function("encode a pod as JSON", |b| b.iter(|| EncodedJson::new(black_box(&object), &schema)));
    criterion.bench_function("encode a pod as protobuf", |b| {
        b.iter(|| EncodedProtobuf::new(black_box(&object), &schema));
    });
    let encoded = EncodedJson::new(&object, &schema);
    criterion.bench_function("write an encoded pod with its version", |b| {
        let mut out = Vec::with_capacity(8192);
        b.iter(|| {
            out.clear();
            encoded.append(black_box(123_456), &mut out);
        });
    });

    let now = time::from_unix(1_767_225_600, 0).expect("a time");
    let reset = Filter::all_but(&[&["status"]]);
    let live = apply::update(None, object.clone(), &schema, "kubectl", now, "", Some(&reset));
    let mut changed = live.clone();
    changed.set(&["metadata", "labels", "tier"], "back");
    criterion.bench_function("note who changed a label of a pod", |b| {
        b.iter(|| {
            apply::update(Some(&live), black_box(changed.clone()), &schema, "editor", now, "", Some(&reset))
        });
    });

    let selector = LabelSelector::parse("app=web,tier in (front,back),!canary").expect("a selector");
    let labels = object.labels().expect("labels").clone();
    criterion.bench_function("match a label selector", |b| b.iter(|| selector.matches(black_box(&labels))));
}

criterion_group!(benches, hot_paths);
criterion_main!(benches);
