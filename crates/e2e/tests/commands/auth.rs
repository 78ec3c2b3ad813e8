//! Who may do what: `auth`, `set subject`, `--as`, `certificate`.

use e2e::or_skip;

use crate::walk::Walk;

#[test]
fn who_may_do_what_is_told() {
    or_skip!();
    let walk = Walk::new("allowed");
    for line in ["'*' '*'", "get pods --subresource=log", "get /logs/", "list jobs.batch/bar", "get nodes -A"]
    {
        assert_eq!(walk.ok(&format!("auth can-i {line}")), "yes\n", "{line}");
    }
    walk.says("auth can-i get oddities", "Warning: the server doesn't have a resource type 'oddities'");
    walk.says("auth can-i get nodes", "Warning: resource 'nodes' is not namespace scoped");
    walk.fails(
        "auth can-i get /logs/ --subresource=log",
        "--subresource can not be used with NonResourceURL",
    );
    assert_eq!(walk.ok("auth can-i get pods --quiet"), "");
    let said = walk.fed("auth can-i get pods --as=ann", "");
    assert!(!said.ok && said.stdout == "no\n", "{said:?}");
    walk.ok("create role reader --verb=get,list --resource=pods,pods/log");
    walk.ok("create rolebinding reader --role=reader --group=readers");
    e2e::eventually(crate::walk::SOON, || {
        // rights come through a watch
        let said = walk.fed("auth can-i get pods --subresource=log --as=ann --as-group=readers", "");
        anyhow::ensure!(said.ok && said.stdout == "yes\n", "{said:?}");
        Ok(())
    })
    .unwrap();
    walk.says("auth can-i --list --as=ann --as-group=readers", "pods/log");
    walk.ok("set subject rolebinding reader --user=ann --serviceaccount=other:robot");
    walk.ok("set subject rolebindings --all --group=more");
    walk.is(
        "rolebinding reader",
        "{.subjects[*].kind} {.subjects[*].name}",
        "Group User ServiceAccount Group readers ann robot more",
    );
    walk.says("auth whoami -o json", "\"kind\": \"SelfSubjectReview\"");
    walk.is_who("--as=ann --as-group=readers --as-uid=7", "ann 7 [\"readers\",\"system:authenticated\"]");
    walk.fails("get pods --as-group=readers", "without impersonating a user");
    let review = r#"{"apiVersion":"authorization.k8s.io/v1","kind":"SubjectAccessReview","spec":{"user":"ann","groups":["system:masters"],"resourceAttributes":{"namespace":"allowed","verb":"get","resource":"pods"}}}"#;
    let review = walk.file("review.json", review);
    walk.says(&format!("create -f {review}"), "subjectaccessreview.authorization.k8s.io/<unknown> created");
    walk.says(
        &format!("create --raw /apis/authorization.k8s.io/v1/subjectaccessreviews -f {review}"),
        r#""allowed":true"#,
    );

    let rules = |verb: &str| {
        let rule = format!("rules: [{{apiGroups: [''], resources: [configmaps], verbs: [{verb}]}}]");
        walk.file("rules.yaml", &format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: kept, namespace: allowed, labels: {{a: b}}}}\n{rule}\n---\n\
             apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: no-role}}\n"
        ))
    };
    walk.says(&format!("auth reconcile --dry-run=client -f {}", rules("get")), "reconciled (dry run)");
    walk.names("roles -l a=b", "");
    walk.ok(&format!("auth reconcile -f {}", rules("get")));
    walk.ok(&format!("auth reconcile -f {}", rules("list")));
    walk.is("role kept", "{.rules[*].verbs}", r#"["get"] ["list"]"#);
    walk.ok(&format!("auth reconcile --remove-extra-permissions -f {}", rules("list")));
    walk.is("role kept", "{.rules[*].verbs}", r#"["list"]"#);
    walk.names("cm --field-selector=metadata.name=no-role", "");
}

impl Walk {
    /// Who the server takes one for with these flags.
    fn is_who(&self, flags: &str, wanted: &str) {
        let form = "{.status.userInfo.username} {.status.userInfo.uid} {.status.userInfo.groups}";
        assert_eq!(self.ok(&format!("auth whoami {flags} -o 'jsonpath={form}'")), wanted);
    }
}

#[test]
fn requests_for_certificates_say_who_asked() {
    or_skip!();
    let walk = Walk::new("signed");
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "ann");
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    let encoded = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, pem);
    let file = walk.file("csr.yaml", &format!(
        "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: r}}\n\
         spec: {{request: {encoded}, signerName: kubernetes.io/kube-apiserver-client, usages: [client auth]}}\n"
    ));
    walk.ok("create clusterrolebinding asks --clusterrole=cluster-admin --group=askers");
    let groups = "--as=ann --as-uid=7 --as-group=askers --as-group=,,,odd";
    e2e::eventually(crate::walk::SOON, || {
        let said = walk.fed(&format!("create -f {file} {groups}"), "");
        anyhow::ensure!(said.ok, "{said:?}");
        Ok(())
    })
    .unwrap();
    walk.is(
        "csr r",
        "{.spec.username} {.spec.uid} {.spec.groups}",
        "ann 7 [\"askers\",\",,,odd\",\"system:authenticated\"]",
    );
    walk.ok("delete csr r");
    for (verb, condition) in [("approve", "Approved"), ("deny", "Denied")] {
        for what in ["r", &format!("-f {file}")] {
            walk.ok(&format!("create -f {file}"));
            walk.is("csr r", "{.status.conditions}", "");
            walk.ok(&format!("certificate {verb} {what}"));
            walk.is("csr r", "{.status.conditions[*].type}", condition);
            walk.ok("delete csr r");
        }
    }
}
