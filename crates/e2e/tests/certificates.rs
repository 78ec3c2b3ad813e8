//! Certificates by request: who may have them, what they say, and nodes that live by them.

use std::path::Path;
use std::time::Duration;

use e2e::{Cluster, or_skip};

const SOON: Duration = Duration::from_secs(60);
/// Until certificates that live a minute have been renewed and the first of them has ended.
const LATER: Duration = Duration::from_secs(240);

const BASE64: &str = "base64 -w0";

/// What a shell command says, in a folder.
fn shell(folder: &Path, command: &str) -> String {
    let out = std::process::Command::new("sh").args(["-ec", command]).current_dir(folder).output().unwrap();
    assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Makes a key and asks for a certificate of a subject.
fn ask(cluster: &Cluster, name: &str, subject: &str, signer: &str, usages: &str) -> e2e::Output {
    ask_as(cluster, &[], name, subject, signer, usages)
}

/// The same as somebody else.
fn ask_as(
    cluster: &Cluster,
    who: &[&str],
    name: &str,
    subject: &str,
    signer: &str,
    usages: &str,
) -> e2e::Output {
    let folder = cluster.scratch("requests");
    std::fs::create_dir_all(&folder).unwrap();
    let key = format!("openssl ecparam -name prime256v1 -genkey -noout -out {name}.key");
    shell(&folder, &format!("{key}; openssl req -new -key {name}.key -subj '{subject}' -out {name}.csr"));
    let request = shell(&folder, &format!("{BASE64} {name}.csr"));
    let manifest = format!(
        r#"{{"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {{"name": "{name}"}},
            "spec": {{"request": "{request}", "signerName": "{signer}", "usages": {usages}, "expirationSeconds": 3600}}}}"#
    );
    cluster.feed(&[who, &["create", "-f", "-"]].concat(), &manifest).unwrap()
}

fn condition(cluster: &Cluster, name: &str, wanted: &str) {
    let row = ["get", "csr", name, "--no-headers"];
    cluster.until(SOON, &row, |out| out.split_whitespace().last() == Some(wanted)).unwrap();
}

#[test]
fn people_get_certificates_once_somebody_approves() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    let signer = "kubernetes.io/kube-apiserver-client";
    assert!(ask(&cluster, "ann", "/O=a-team/O=b-team/CN=ann", signer, r#"["client auth"]"#).ok);
    condition(&cluster, "ann", "Pending");
    let header = cluster.run(&["get", "csr"]).unwrap();
    let header: Vec<&str> = header.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["NAME", "AGE", "SIGNERNAME", "REQUESTOR", "REQUESTEDDURATION", "CONDITION"]);
    let said = cluster.run(&["certificate", "approve", "ann"]).unwrap();
    assert_eq!(said, "certificatesigningrequest.certificates.k8s.io/ann approved\n");
    condition(&cluster, "ann", "Approved,Issued");

    // the certificate is good for the API server, with each of its groups
    let folder = cluster.scratch("requests");
    let certificate = cluster.run(&["get", "csr", "ann", "-o", "jsonpath={.status.certificate}"]).unwrap();
    std::fs::write(folder.join("ann.b64"), certificate).unwrap();
    shell(&folder, "base64 -d ann.b64 > ann.crt");
    let mut whoami = cluster.network.command("kubectl");
    whoami.args([
        "--kubeconfig=/dev/null",
        "--server=https://127.0.0.1:6443",
        "auth",
        "whoami",
        "-o",
        "json",
    ]);
    whoami.arg("--certificate-authority").arg(cluster.data_dir().join("pki/ca.crt"));
    whoami.arg("--client-certificate").arg(folder.join("ann.crt"));
    whoami.arg("--client-key").arg(folder.join("ann.key"));
    let said = whoami.output().unwrap();
    let said: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    let user = &said["status"]["userInfo"];
    assert_eq!(user["username"], "ann");
    assert_eq!(user["groups"], serde_json::json!(["a-team", "b-team", "system:authenticated"]));

    // a signer says why it will not sign
    assert!(ask(&cluster, "bob", "/CN=bob", signer, r#"["server auth"]"#).ok);
    cluster.run(&["certificate", "approve", "bob"]).unwrap();
    condition(&cluster, "bob", "Approved,Failed");
    let why = cluster.run(&["get", "csr", "bob", "-o", "jsonpath={.status.conditions[1]}"]).unwrap();
    let why: serde_json::Value = serde_json::from_str(&why).unwrap();
    assert_eq!(why["reason"], "SignerValidationFailure");
    assert_eq!(why["message"], "invalid usage for client certificate: server auth");
    assert!(why["lastUpdateTime"].is_string() && why["lastTransitionTime"].is_string(), "{why}");

    assert!(ask(&cluster, "carl", "/CN=carl", signer, r#"["client auth"]"#).ok);
    let said = cluster.run(&["certificate", "deny", "carl"]).unwrap();
    assert_eq!(said, "certificatesigningrequest.certificates.k8s.io/carl denied\n");
    condition(&cluster, "carl", "Denied");
    let said = cluster.kubectl(&["certificate", "approve", "carl"]).unwrap();
    assert!(!said.ok && said.stderr.contains("is already Denied"), "{said:?}");

    // a node's request waits until who asks may have it, and is then looked at again without anybody's doing
    let join = || {
        let who = ["--as=joiner", "--as-group=system:joiners"];
        let signer = "kubernetes.io/kube-apiserver-client-kubelet";
        let usages = r#"["digital signature", "client auth"]"#;
        ask_as(&cluster, &who, "n2", "/O=system:nodes/CN=system:node:n2", signer, usages)
    };
    let node = join();
    assert!(!node.ok && node.stderr.contains("cannot create resource"), "{node:?}");
    let group = "--group=system:joiners";
    cluster
        .run(&["create", "clusterrolebinding", "join", "--clusterrole=system:node-bootstrapper", group])
        .unwrap();
    let node = join();
    assert!(node.ok, "{node:?}");
    condition(&cluster, "n2", "Pending");
    let role = "--clusterrole=system:certificates.k8s.io:certificatesigningrequests:nodeclient";
    cluster.run(&["create", "clusterrolebinding", "approve", role, group]).unwrap();
    condition(&cluster, "n2", "Approved,Issued");
    let why = cluster.run(&["get", "csr", "n2", "-o", "jsonpath={.status.conditions[0].message}"]).unwrap();
    assert_eq!(why, "Auto approving kubelet client certificate after SubjectAccessReview.");

    // nobody may ask for administrators
    let said = ask(&cluster, "root", "/O=system:masters/CN=root", signer, r#"["client auth"]"#);
    let words =
        r#"use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"#;
    assert!(!said.ok && said.stderr.contains(words), "{said:?}");
    // who may not approve for a signer does not
    cluster
        .run(&[
            "create",
            "clusterrole",
            "half",
            "--verb=get,list,update,patch",
            "--resource=csr,csr/approval",
        ])
        .unwrap();
    cluster.run(&["create", "clusterrolebinding", "half", "--clusterrole=half", "--user=half"]).unwrap();
    assert!(ask(&cluster, "dora", "/CN=dora", signer, r#"["client auth"]"#).ok);
    let said = cluster.kubectl(&["--as=half", "certificate", "approve", "dora"]).unwrap();
    let words =
        r#"user not permitted to approve requests with signerName "kubernetes.io/kube-apiserver-client""#;
    assert!(!said.ok && said.stderr.contains(words), "{said:?}");
}

#[test]
fn bad_requests_are_refused_in_upstreams_words() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    let good = r#"["client auth"]"#;
    let said = ask(&cluster, "a", "/CN=a", "signer", good);
    let words = "spec.signerName: Invalid value: \"signer\": must be a fully qualified domain and path of the form 'example.com/signer-name'";
    assert!(said.stderr.contains(words), "{said:?}");
    let said = ask(&cluster, "a", "/CN=a", "kubernetes.io/legacy-unknown", good);
    let words = "spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not allowed via this API version";
    assert!(said.stderr.contains(words), "{said:?}");
    let said = ask(&cluster, "a", "/CN=a", "example.com/signer", "[]");
    assert!(said.stderr.contains("spec.usages: Required value"), "{said:?}");
    let said = ask(&cluster, "a", "/CN=a", "example.com/signer", r#"["client auth", "fly"]"#);
    assert!(
        said.stderr.contains("spec.usages[1]: Unsupported value: \"fly\": supported values: \"any\""),
        "{said:?}"
    );
    let said = ask(&cluster, "a", "/CN=a", "example.com/signer", r#"["any", "any"]"#);
    assert!(said.stderr.contains("spec.usages[1]: Duplicate value: \"any\""), "{said:?}");
    for (request, seconds, words) in [
        ("YQ==", 3600, "spec.request: Invalid value: "),
        ("YQ==", 3600, "PEM block type must be CERTIFICATE REQUEST"),
        (
            "YQ==",
            599,
            "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 minutes)",
        ),
    ] {
        let manifest = format!(
            r#"{{"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {{"name": "a"}},
                "spec": {{"request": "{request}", "signerName": "example.com/s", "usages": {good}, "expirationSeconds": {seconds}}}}}"#
        );
        let said = cluster.feed(&["create", "-f", "-"], &manifest).unwrap();
        assert!(!said.ok && said.stderr.contains(words), "{said:?}");
    }
}

/// The roles that kubeadm binds for nodes that join.
const BINDINGS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: kubeadm:kubelet-bootstrap}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:node-bootstrapper}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: system:bootstrappers:kubeadm:default-node-token}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: kubeadm:node-autoapprove-bootstrap}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:certificates.k8s.io:certificatesigningrequests:nodeclient}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: system:bootstrappers:kubeadm:default-node-token}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: kubeadm:node-autoapprove-certificate-rotation}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:certificates.k8s.io:certificatesigningrequests:selfnodeclient}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: system:nodes}]
"#;

const TOKEN: &str = r#"
apiVersion: v1
kind: Secret
metadata: {name: bootstrap-token-abcdef, namespace: kube-system}
type: bootstrap.kubernetes.io/token
stringData:
  token-id: abcdef
  token-secret: 0123456789abcdef
  usage-bootstrap-authentication: "true"
  auth-extra-groups: system:bootstrappers:kubeadm:default-node-token
"#;

#[test]
fn a_node_joins_by_a_token_and_renews_its_certificates() {
    or_skip!();
    let mut cluster = Cluster::api_server(&["--enable-bootstrap-token-auth"]).unwrap();
    cluster.apply(BINDINGS).unwrap();
    cluster.apply(TOKEN).unwrap();
    let data = cluster.data_dir();
    let pki = |flag: &str, name: &str| format!("--{flag}={}/pki/{name}", data.display());
    let manager = [
        format!("--kubeconfig={}/controller-manager.kubeconfig", data.display()),
        pki("root-ca-file", "ca.crt"),
        pki("cluster-signing-cert-file", "ca.crt"),
        pki("cluster-signing-key-file", "ca.key"),
        "--cluster-signing-duration=1m".to_owned(),
    ];
    cluster.start_component("controller-manager", &manager.each_ref().map(String::as_str)).unwrap();

    let node = cluster.scratch("node");
    std::fs::create_dir_all(&node).unwrap();
    let bootstrap = format!(
        r#"{{"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{{"name": "c", "cluster": {{"server": "https://127.0.0.1:6443", "certificate-authority": "{}"}}}}],
            "users": [{{"name": "u", "user": {{"token": "abcdef.0123456789abcdef"}}}}],
            "contexts": [{{"name": "c", "context": {{"cluster": "c", "user": "u"}}}}]}}"#,
        data.join("pki/ca.crt").display()
    );
    std::fs::write(node.join("bootstrap"), bootstrap).unwrap();
    let at = |flag: &str, name: &str| format!("--{flag}={}", node.join(name).display());
    let kubelet = [
        at("bootstrap-kubeconfig", "bootstrap"),
        at("kubeconfig", "kubeconfig"),
        at("cert-dir", "pki"),
        pki("client-ca-file", "ca.crt"),
        format!("--data-dir={}", data.display()),
        format!("--node-ip={}", cluster.network.node_ip),
        "--node-name=node-1".to_owned(),
        "--rotate-certificates".to_owned(),
        "--rotate-server-certificates".to_owned(),
    ];
    cluster.start_component("kubelet", &kubelet.each_ref().map(String::as_str)).unwrap();
    let ready =
        ["get", "node", "node-1", "-o", r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#];
    cluster.until(SOON, &ready, |out| out == "True").unwrap();

    // the first certificate was asked for with the token, which is not needed again
    let requests = cluster.run(&["get", "csr", "--no-headers"]).unwrap();
    let first = requests.lines().find(|line| line.starts_with("node-csr-")).expect("a request");
    assert!(first.contains("system:bootstrap:abcdef") && first.ends_with("Approved,Issued"), "{requests}");
    cluster.run(&["delete", "secret", "-n", "kube-system", "bootstrap-token-abcdef"]).unwrap();
    let current = node.join("pki/kubelet-client-current.pem");
    let kubeconfig = std::fs::read_to_string(node.join("kubeconfig")).unwrap();
    assert!(kubeconfig.contains(&current.display().to_string()), "{kubeconfig}");
    let first = node.join("pki/first.pem");
    let oldest = shell(&node, "ls pki/kubelet-client-2*.pem | head -1");
    std::fs::copy(node.join(oldest.trim()), &first).unwrap();
    let subject = shell(&node, "openssl x509 -noout -subject -in pki/first.pem");
    assert!(subject.contains("system:nodes") && subject.contains("system:node:node-1"), "{subject}");

    // serving certificates wait for somebody who approves them
    let pending =
        ["get", "csr", "--field-selector", "spec.signerName=kubernetes.io/kubelet-serving", "--no-headers"];
    cluster.until(SOON, &pending, |out| out.contains("Pending")).unwrap();
    let health = ["get", "--raw", "/api/v1/nodes/node-1/proxy/healthz"];
    let said = cluster.kubectl(&health).unwrap();
    assert!(!said.ok, "without a certificate nobody is served: {said:?}");
    let approve = || {
        let requests = cluster.run(&pending).unwrap();
        for line in requests.lines().filter(|line| line.ends_with("Pending")) {
            cluster.run(&["certificate", "approve", line.split_whitespace().next().unwrap()]).unwrap();
        }
        requests.lines().filter(|line| line.ends_with("Issued")).count()
    };
    let served = |out: &str| {
        approve();
        out == "ok"
    };
    cluster.until(SOON, &health, served).unwrap();

    // both are renewed, and the first is over while the node goes on
    let renewed = ["get", "csr", "--no-headers"];
    let by_itself = |line: &&str| line.contains("system:node:node-1") && line.contains("client-kubelet");
    cluster
        .until(LATER, &renewed, |out| {
            let client =
                out.lines().filter(by_itself).filter(|line| line.ends_with("Approved,Issued")).count();
            let over = || {
                let check = "openssl x509 -noout -checkend 0 -in pki/first.pem >/dev/null || echo over";
                shell(&node, check).trim() == "over"
            };
            approve() >= 2 && client >= 1 && over()
        })
        .unwrap();
    // some seconds later, so that it cannot have been just before
    let end = shell(
        &node,
        "date -u -d \"$(openssl x509 -noout -enddate -in pki/first.pem | cut -d= -f2) + 5 seconds\" +%Y-%m-%dT%H:%M:%S",
    );
    let lease = ["get", "lease", "-n", "kube-node-lease", "node-1", "-o", "jsonpath={.spec.renewTime}"];
    cluster.until(SOON, &lease, |renewed| renewed > end.trim()).unwrap();
    cluster.until(SOON, &ready, |out| out == "True").unwrap();
    // what is shown is one that the cluster's authority signed lately
    cluster.until(SOON, &health, served).unwrap();
}
