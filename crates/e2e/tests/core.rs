//! Kinds of the core group and evictions, through a kubectl that nobody here wrote.

use std::time::Duration;

use e2e::{Cluster, or_skip};

const SOON: Duration = Duration::from_secs(20);

const KINDS: &str = r#"
apiVersion: v1
kind: PersistentVolume
metadata: {name: disk}
spec: {capacity: {storage: 5Gi}, accessModes: [ReadWriteOnce, ReadOnlyMany], hostPath: {path: /data}, storageClassName: slow}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: claim}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}, storageClassName: slow}
---
apiVersion: v1
kind: LimitRange
metadata: {name: range}
spec: {limits: [{type: Container, max: {cpu: "2"}, min: {cpu: 100m}}]}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: quota}
spec: {hard: {secrets: "100"}}
---
apiVersion: v1
kind: PodTemplate
metadata: {name: template}
template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: "i:1"}]}}
---
apiVersion: v1
kind: ReplicationController
metadata: {name: rc}
spec: {replicas: 0, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: "i:1"}]}}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: budget}
spec: {minAvailable: 1, selector: {matchLabels: {app: web}}}
"#;

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - name: web
    image: "i:1"
    ports: [{containerPort: 80}]
    resources: {requests: {cpu: 100m}, limits: {cpu: 200m}}
"#;

#[test]
fn every_kind_is_kept_shown_and_deleted() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    cluster.apply(KINDS).unwrap();
    cluster.apply(KINDS).unwrap();
    let shown = [
        ("pv", "disk", "5Gi        RWO,ROX        Retain"),
        ("pvc", "claim", "slow"),
        ("limits", "range", "range"),
        ("quota", "quota", "quota"),
        ("podtemplates", "template", "c            i:1      a=b"),
        ("rc", "rc", "rc"),
        ("pdb", "budget", "1               N/A               0"),
        ("cs", "scheduler", "Healthy"),
        ("cs", "controller-manager", "Healthy"),
    ];
    for (kind, name, row) in shown {
        let out = cluster.run(&["get", kind, name]).unwrap();
        assert!(out.contains(row), "{out}");
    }
    let default = "jsonpath={.spec.limits[0].default.cpu}/{.spec.limits[0].defaultRequest.cpu}";
    assert_eq!(cluster.run(&["get", "limits", "range", "-o", default]).unwrap(), "2/2");
    cluster.run(&["scale", "rc/rc", "--replicas=3"]).unwrap();
    assert_eq!(cluster.run(&["get", "rc", "rc", "-o", "jsonpath={.spec.replicas}"]).unwrap(), "3");
    let said = cluster.kubectl(&["get", "componentstatuses"]).unwrap();
    assert!(said.stderr.contains("Warning: v1 ComponentStatus is deprecated in v1.19+"), "{said:?}");
    let refused =
        cluster.feed(&["create", "-f", "-"], &KINDS.replace("{cpu: 100m}", "{cpu: \"3\"}")).unwrap();
    let why = "spec.limits[0].min[cpu]: Invalid value: \"3\": min value 3 is greater than max value 2";
    assert!(refused.stderr.contains(why), "{refused:?}");
    cluster.run(&["delete", "pv,pvc,limits,quota,podtemplates,rc,pdb", "--all", "--wait=false"]).unwrap();
}

#[test]
fn a_pod_is_resized_debugged_and_evicted_within_its_budget() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    cluster.until(SOON, &["get", "sa", "default", "-o", "name"], |out| !out.is_empty()).unwrap();
    cluster.apply(KINDS).unwrap();
    cluster.run(&["delete", "limits,rc", "--all"]).unwrap();
    cluster.apply(POD).unwrap();
    let patch = r#"{"spec":{"containers":[{"name":"web","resources":{"requests":{"cpu":"150m"}}}]}}"#;
    cluster.run(&["patch", "pod", "web", "--subresource=resize", "-p", patch]).unwrap();
    let path = "jsonpath={.spec.containers[0].resources.requests.cpu}/{.metadata.generation}";
    assert_eq!(cluster.run(&["get", "pod", "web", "-o", path]).unwrap(), "150m/2");
    let refused =
        cluster.kubectl(&["patch", "pod", "web", "-p", patch.replace("150m", "160m").as_str()]).unwrap();
    assert!(
        refused.stderr.contains("spec: Forbidden: pod updates may not change fields other than"),
        "{refused:?}"
    );
    cluster
        .run(&["debug", "web", "--image=i:1", "--profile=general", "-c", "look", "--attach=false"])
        .unwrap();
    let names = "jsonpath={.spec.ephemeralContainers[*].name}";
    assert_eq!(cluster.run(&["get", "pod", "web", "-o", names]).unwrap(), "look");

    let status = r#"{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}"#;
    cluster.run(&["patch", "pod", "web", "--subresource=status", "-p", status]).unwrap();
    let eviction =
        r#"{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"web","namespace":"default"}}"#;
    let evict = || {
        let path = "/api/v1/namespaces/default/pods/web/eviction";
        cluster.feed(&["create", "--raw", path, "-f", "-"], eviction).unwrap()
    };
    let refused = evict();
    let why = "Cannot evict pod as it would violate the pod's disruption budget";
    assert!(!refused.ok && refused.stderr.contains(why), "{refused:?}");
    let allow = r#"{"status":{"observedGeneration":1,"disruptionsAllowed":1,"currentHealthy":2,"desiredHealthy":1,"expectedPods":2}}"#;
    cluster.run(&["patch", "pdb", "budget", "--subresource=status", "--type=merge", "-p", allow]).unwrap();
    let done = evict();
    assert!(done.ok && done.stdout.contains("Success"), "{done:?}");
    let left = "jsonpath={.status.disruptionsAllowed}/{.status.conditions[0].reason}/{.status.disruptedPods}";
    let books = cluster.run(&["get", "pdb", "budget", "-o", left]).unwrap();
    assert!(books.starts_with("0/InsufficientPods/{\"web\":"), "{books}");
    cluster.until(SOON, &["get", "pods", "-o", "name"], |out| out.is_empty()).unwrap();
}

#[test]
fn services_keep_what_they_are_given() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    cluster.run(&["create", "service", "nodeport", "web", "--tcp=80"]).unwrap();
    let read = |path: &str| cluster.run(&["get", "svc", "web", "-o", &format!("jsonpath={path}")]).unwrap();
    let (ip, port) = (read("{.spec.clusterIP}"), read("{.spec.ports[0].nodePort}"));
    assert_eq!(read("{.spec.ipFamilies}{.spec.ipFamilyPolicy}"), "[\"IPv4\"]SingleStack");
    let refused = cluster
        .kubectl(&["patch", "svc", "web", "-p", r#"{"spec":{"ipFamilyPolicy":"RequireDualStack"}}"#])
        .unwrap();
    assert!(refused.stderr.contains("this cluster is not configured for dual-stack services"), "{refused:?}");
    let local = r#"{"spec":{"type":"LoadBalancer","externalTrafficPolicy":"Local"}}"#;
    cluster.run(&["patch", "svc", "web", "-p", local]).unwrap();
    assert_eq!((read("{.spec.clusterIP}"), read("{.spec.ports[0].nodePort}")), (ip.clone(), port.clone()));
    assert!(!read("{.spec.healthCheckNodePort}").is_empty());
    cluster.run(&["patch", "svc", "web", "-p", r#"{"spec":{"type":"ClusterIP"}}"#]).unwrap();
    assert_eq!(read("{.spec.healthCheckNodePort}{.spec.ports[0].nodePort}{.spec.externalTrafficPolicy}"), "");
    let name = r#"{"spec":{"type":"ExternalName","externalName":"example.com"}}"#;
    cluster.run(&["patch", "svc", "web", "-p", name]).unwrap();
    assert_eq!(read("{.spec.clusterIP}{.spec.ipFamilies}"), "");
    let freed = cluster.kubectl(&["get", "ipaddress", &ip]).unwrap();
    assert!(freed.stderr.contains("not found"), "{freed:?}");
    cluster
        .run(&["create", "service", "nodeport", "other", "--tcp=80", &format!("--node-port={port}")])
        .unwrap();
}

const SERVED: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: web
    image: xebec.local/demo:1
    command: [sh, -c, "mkdir -p /www; echo hello > /www/index.html; exec httpd -f -p 8080 -h /www"]
    ports: [{containerPort: 8080}]
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
"#;

#[test]
fn pods_and_services_are_reached_through_the_server() {
    or_skip!();
    let cluster = Cluster::with_node().unwrap();
    cluster.apply(SERVED).unwrap();
    cluster.run(&["wait", "--for=condition=Ready", "pod/web", "--timeout=30s"]).unwrap();
    let of = |what: &str| format!("/api/v1/namespaces/default/{what}/proxy/");
    for what in ["pods/web", "pods/web:8080", "pods/http:web:8080", "services/web:http", "services/web:80"] {
        cluster.until(SOON, &["get", "--raw", &of(what)], |out| out.trim() == "hello").unwrap();
    }
    let refused = cluster.kubectl(&["get", "--raw", &of("services/web:81")]).unwrap();
    assert!(refused.stderr.contains("no service port 81 found for service \"web\""), "{refused:?}");
    let refused = cluster.kubectl(&["get", "--raw", &of("pods/web:9")]).unwrap();
    assert!(refused.stderr.contains("error trying to reach service"), "{refused:?}");
    assert_eq!(cluster.run(&["get", "--raw", "/api/v1/nodes/node-1/proxy/healthz"]).unwrap(), "ok");
}
