//! What kubectl is told when a write does not pass: pod security, quotas, limits, and webhooks behind a Service.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use e2e::{Cluster, Output, or_skip};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);

fn pod(name: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: i{more}}}]}}\n"
    )
}

/// A namespace whose service account is there.
fn namespace(cluster: &Cluster, name: &str) {
    cluster.run(&["create", "ns", name]).unwrap();
    let account = ["-n", name, "get", "sa", "default", "--ignore-not-found", "-o", "name"];
    cluster.until(SOON, &account, |out| out.contains("default")).unwrap();
}

fn create(cluster: &Cluster, namespace: &str, manifest: &str) -> Output {
    cluster.feed(&["-n", namespace, "create", "-f", "-"], manifest).unwrap()
}

#[track_caller]
fn refused(output: &Output, why: &str) {
    assert!(!output.ok && output.stderr.contains(why), "{output:?} does not say {why}");
}

#[test]
fn pods_that_are_not_secure_are_warned_about_and_refused() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    namespace(&cluster, "a");
    assert!(create(&cluster, "a", &pod("before", "")).ok);
    let label = "pod-security.kubernetes.io/enforce=restricted";
    let labelled = cluster.kubectl(&["label", "ns", "a", label]).unwrap();
    assert!(labelled.ok, "{labelled:?}");
    let warning = "Warning: existing pods in namespace \"a\" violate the new PodSecurity enforce level \"restricted:latest\"";
    assert!(labelled.stderr.contains(warning), "{labelled:?}");
    let why = "violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false)";
    let kubectl = "Error from server (Forbidden): error when creating \"STDIN\": pods \"p\" is forbidden: ";
    refused(&create(&cluster, "a", &pod("p", "")), &format!("{kubectl}{why}"));
    let dry = cluster.feed(&["-n", "a", "create", "--dry-run=server", "-f", "-"], &pod("p", "")).unwrap();
    refused(&dry, why);
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  selector: {matchLabels: {a: b}}\n  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}\n";
    let made = create(&cluster, "a", deployment);
    assert!(
        made.ok && made.stderr.contains("Warning: would violate PodSecurity \"restricted:latest\""),
        "{made:?}"
    );
    // its pods are refused, and what makes them says so
    let path = "jsonpath={.items[*].status.conditions[?(@.type=='ReplicaFailure')].message}";
    for what in [["rs", "-l", "a=b"], ["deploy", "-n", "a"]] {
        let reason = [["-n", "a", "get"].as_slice(), &what, &["-o", path]].concat();
        let told = cluster.until(SOON, &reason, |out| out.contains("violates PodSecurity")).unwrap();
        assert!(told.starts_with("pods \"d-"), "the API's message alone: {told}");
    }
    let secure = ", securityContext: {allowPrivilegeEscalation: false, runAsNonRoot: true, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}";
    let made = create(&cluster, "a", &pod("p", secure));
    assert!(made.ok && made.stderr.is_empty(), "{made:?}");
}

#[test]
fn a_quota_is_full_until_something_goes() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    namespace(&cluster, "a");
    cluster
        .run(&["-n", "a", "create", "quota", "q", "--hard=pods=1,requests.cpu=1,count/secrets=1"])
        .unwrap();
    let used = ["-n", "a", "get", "quota", "q", "-o", "jsonpath={.status.used}"];
    cluster.until(SOON, &used, |out| out.contains("\"pods\":\"0\"")).unwrap();
    refused(
        &create(&cluster, "a", &pod("p", "")),
        "pods \"p\" is forbidden: failed quota: q: must specify requests.cpu for: c",
    );
    let asking = |cpu: &str| format!(", resources: {{requests: {{cpu: {cpu}}}}}");
    refused(
        &create(&cluster, "a", &pod("p", &asking("2"))),
        "pods \"p\" is forbidden: exceeded quota: q, requested: requests.cpu=2, used: requests.cpu=0, limited: requests.cpu=1",
    );
    assert!(create(&cluster, "a", &pod("p", &asking("400m"))).ok);
    refused(
        &create(&cluster, "a", &pod("o", &asking("100m"))),
        "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1",
    );
    assert!(cluster.run(&used).unwrap().contains("\"requests.cpu\":\"400m\""));
    cluster.run(&["-n", "a", "create", "secret", "generic", "s"]).unwrap();
    let second = cluster.kubectl(&["-n", "a", "create", "secret", "generic", "t"]).unwrap();
    refused(
        &second,
        "exceeded quota: q, requested: count/secrets=1, used: count/secrets=1, limited: count/secrets=1",
    );
    cluster.run(&["-n", "a", "delete", "pod", "p", "--force", "--grace-period=0"]).unwrap();
    cluster.until(SOON, &used, |out| out.contains("\"pods\":\"0\"")).unwrap();
    assert!(create(&cluster, "a", &pod("o", &asking("1"))).ok);
    let described = cluster.run(&["-n", "a", "describe", "quota", "q"]).unwrap();
    assert!(described.contains("requests.cpu   1     1"), "{described}");
}

#[test]
fn limits_are_given_and_kept() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    namespace(&cluster, "a");
    let range = "apiVersion: v1\nkind: LimitRange\nmetadata: {name: r}\nspec: {limits: [{type: Container, max: {cpu: '1'}, min: {cpu: 100m}, default: {cpu: 500m}, defaultRequest: {cpu: 200m}}]}\n";
    assert!(create(&cluster, "a", range).ok);
    assert!(create(&cluster, "a", &pod("p", "")).ok);
    let resources = ["-n", "a", "get", "pod", "p", "-o", "jsonpath={.spec.containers[0].resources}"];
    let resources: Value = serde_json::from_str(&cluster.run(&resources).unwrap()).unwrap();
    assert_eq!(resources, json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "200m"}}));
    refused(
        &create(&cluster, "a", &pod("o", ", resources: {limits: {cpu: 2}, requests: {cpu: 50m}}")),
        "pods \"o\" is forbidden: [minimum cpu usage per Container is 100m, but request is 50m, maximum cpu usage per Container is 1, but limit is 2]",
    );
}

/// A webhook server in the cluster's network. It denies objects that are named `bad`, and labels the others.
struct Hook {
    port: u16,
    ca: String,
    stop: Arc<AtomicBool>,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Hook {
    fn start(cluster: &Cluster, name: &str) -> Self {
        let certified = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let ip = cluster.network.node_ip;
        let listener = cluster.network.inside(|| Ok(TcpListener::bind((ip, 0))?)).unwrap();
        let (port, stop) = (listener.local_addr().unwrap().port(), Arc::new(AtomicBool::new(false)));
        let (tls, stopped) = (Arc::new(tls), stop.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { return };
                let (tls, stopped) = (tls.clone(), stopped.clone());
                std::thread::spawn(move || {
                    let Ok(connection) = rustls::ServerConnection::new(tls) else { return };
                    let mut stream = rustls::StreamOwned::new(connection, stream);
                    while !stopped.load(Ordering::Relaxed) && answer(&mut stream).is_some() {}
                });
            }
        });
        Self { port, ca: certified.cert.pem(), stop }
    }
}

/// Answers one review; nothing when the other side has gone.
fn answer(stream: &mut (impl Read + Write)) -> Option<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?.trim().parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    let review: Value = serde_json::from_slice(&body).ok()?;
    let request = &review["request"];
    let mut response = json!({"uid": request["uid"], "allowed": request["name"] != "bad"});
    if head.starts_with("post /mutate") {
        // [{"op": "add", "path": "/metadata/labels", "value": {"seen": "yes"}}]
        let patch =
            "W3sib3AiOiAiYWRkIiwgInBhdGgiOiAiL21ldGFkYXRhL2xhYmVscyIsICJ2YWx1ZSI6IHsic2VlbiI6ICJ5ZXMifX1d";
        response = json!({"uid": request["uid"], "allowed": true, "patchType": "JSONPatch", "patch": patch,
            "warnings": ["it has been labelled"]});
    } else if request["name"] == "bad" {
        response["status"] = json!({"message": "its name is bad", "code": 403});
    }
    let review =
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    let body = review.to_string();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).ok()?;
    stream.flush().ok()
}

#[test]
fn webhooks_are_found_by_their_service() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    namespace(&cluster, "a");
    let hook = Hook::start(&cluster, "hook.a.svc");
    let (ip, port) = (cluster.network.node_ip, hook.port);
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: hook}}\nspec: {{ports: [{{port: 443, targetPort: {port}}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: hook-1, labels: {{kubernetes.io/service-name: hook}}}}\n\
         addressType: IPv4\nendpoints: [{{addresses: ['{ip}'], conditions: {{ready: true}}}}]\nports: [{{name: '', port: {port}, protocol: TCP}}]\n"
    );
    assert!(create(&cluster, "a", &service).ok);
    // a secret shows its data in base64, as a configuration wants it
    let file = cluster.scratch("ca.crt");
    std::fs::write(&file, &hook.ca).unwrap();
    cluster
        .run(&["create", "secret", "generic", "ca", &format!("--from-file=ca={}", file.display())])
        .unwrap();
    let encoded = cluster.run(&["get", "secret", "ca", "-o", "jsonpath={.data.ca}"]).unwrap();
    let configuration = |sort: &str, service: &str, path: &str| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{sort}WebhookConfiguration"),
            "metadata": {"name": "hook"}, "webhooks": [{
                "name": "hook.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "timeoutSeconds": 5, "failurePolicy": "Fail",
                "clientConfig": {"caBundle": encoded, "service": {"namespace": "a", "name": service, "path": path}},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "a"}},
                "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
                    "resources": ["configmaps"]}],
            }],
        })
        .to_string()
    };
    cluster.apply(&configuration("Mutating", "hook", "/mutate")).unwrap();
    cluster.apply(&configuration("Validating", "hook", "/validate")).unwrap();
    let bad = cluster.kubectl(&["-n", "a", "create", "cm", "bad"]).unwrap();
    refused(
        &bad,
        "error: failed to create configmap: admission webhook \"hook.example.com\" denied the request: its name is bad",
    );
    let good = cluster.kubectl(&["-n", "a", "create", "cm", "good"]).unwrap();
    assert!(good.ok && good.stderr.contains("Warning: it has been labelled"), "{good:?}");
    assert_eq!(
        cluster.run(&["-n", "a", "get", "cm", "good", "-o", "jsonpath={.metadata.labels.seen}"]).unwrap(),
        "yes"
    );
    cluster.run(&["create", "cm", "bad"]).unwrap();
    // a service without endpoints lets nothing through
    cluster.run(&["-n", "a", "create", "svc", "clusterip", "empty", "--tcp=443"]).unwrap();
    cluster.apply(&configuration("Validating", "empty", "/validate")).unwrap();
    let lost = cluster.kubectl(&["-n", "a", "create", "cm", "other"]).unwrap();
    refused(&lost, "failed calling webhook \"hook.example.com\"");
    refused(&lost, "no endpoints available for service \"empty\"");
}
