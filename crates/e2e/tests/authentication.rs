//! Who one is and what one may do, by the flags of a real server and a kubectl that nobody here wrote: token files,
//! bootstrap tokens, front proxies, other issuers, webhooks, tokens in secrets, and what lies encrypted.

#[allow(dead_code)]
#[path = "../../apiserver/tests/common/https.rs"]
mod https;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use e2e::{Cluster, or_skip, xebec};
use https::{Asked, Https, Says};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);

/// A certificate for the node's address that vouches for itself, with its key.
struct Serving {
    pem: String,
    certificate: rustls::pki_types::CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

fn serving(address: &str) -> Serving {
    let made = rcgen::generate_simple_self_signed(vec![address.to_owned()]).unwrap();
    Serving {
        pem: made.cert.pem(),
        certificate: made.cert.der().clone(),
        key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der())),
    }
}

/// A port inside a cluster's network, where nobody listens yet.
fn port(cluster: &Cluster) -> anyhow::Result<u16> {
    let address: SocketAddr = format!("{}:0", cluster.network.node_ip).parse()?;
    cluster.network.inside(|| Ok(std::net::TcpListener::bind(address)?.local_addr()?.port()))
}

/// Listens inside a cluster's network; the answers are given outside.
fn listen(cluster: &Cluster, port: u16) -> anyhow::Result<tokio::net::TcpListener> {
    let address: SocketAddr = format!("{}:{port}", cluster.network.node_ip).parse()?;
    let listener = cluster.network.inside(|| Ok(std::net::TcpListener::bind(address)?))?;
    listener.set_nonblocking(true)?;
    Ok(tokio::net::TcpListener::from_std(listener)?)
}

/// kubectl as somebody who has a token and nothing else.
fn kubectl(cluster: &Cluster, token: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let config = cluster.scratch("nobody");
    let authority = cluster.data_dir().join("pki/ca.crt");
    let server = format!("https://{}:6443", cluster.network.node_ip);
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority": authority}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {"token": token}}],
    });
    std::fs::write(&config, text.to_string())?;
    let mut command = cluster.network.command("kubectl");
    command.arg("--kubeconfig").arg(&config).args(arguments).env("HOME", cluster.scratch(""));
    let output = command.output()?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?),
        false => bail!("{}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// Name and groups of whoever has a token.
fn who(cluster: &Cluster, token: &str) -> anyhow::Result<String> {
    const FORM: &str = "jsonpath={.status.userInfo.username} {.status.userInfo.groups}";
    kubectl(cluster, token, &["auth", "whoami", "-o", FORM])
}

fn file(cluster: &Cluster, name: &str, text: &str) -> anyhow::Result<String> {
    let path = cluster.scratch(name);
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}

fn eventually<T>(attempt: impl FnMut() -> anyhow::Result<T>) -> T {
    e2e::eventually(SOON, attempt).unwrap()
}

#[test]
fn tokens_proxies_and_secrets_say_who_one_is() {
    or_skip!();
    let cluster = Cluster::control_plane_with(|cluster| {
        let tokens = file(cluster, "tokens", "file-token,joe,7,\"devs,ops\"\n")?;
        Ok(vec![format!("--token-auth-file={tokens}"), "--enable-bootstrap-token-auth".into()])
    })
    .unwrap();
    assert_eq!(who(&cluster, "file-token").unwrap(), r#"joe ["devs","ops","system:authenticated"]"#);
    let refused = who(&cluster, "other-token").unwrap_err().to_string();
    assert!(refused.contains("Unauthorized"), "{refused}");

    let bootstrap = r#"
apiVersion: v1
kind: Secret
metadata: {name: bootstrap-token-abcdef, namespace: kube-system}
type: bootstrap.kubernetes.io/token
stringData: {token-id: abcdef, token-secret: 0123456789abcdef, usage-bootstrap-authentication: "true"}
"#;
    cluster.apply(bootstrap).unwrap();
    let whoami = who(&cluster, "abcdef.0123456789abcdef").unwrap();
    assert_eq!(whoami, r#"system:bootstrap:abcdef ["system:bootstrappers","system:authenticated"]"#);

    // the headers of a front proxy, believed of its certificate alone
    let pki = cluster.data_dir().join("pki");
    let review = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;
    let proxied = |certificate: Option<&str>| {
        let mut command = cluster.network.command("curl");
        command.args(["-s", "-H", "X-Remote-User: jane", "-H", "X-Remote-Group: devs", "-d", review]);
        command.args(["-H", "Content-Type: application/json", "--cacert"]).arg(pki.join("ca.crt"));
        if let Some(name) = certificate {
            command.arg("--cert").arg(pki.join(format!("{name}.crt")));
            command.arg("--key").arg(pki.join(format!("{name}.key")));
        }
        let server = cluster.network.node_ip;
        command.arg(format!("https://{server}:6443/apis/authentication.k8s.io/v1/selfsubjectreviews"));
        serde_json::from_slice::<Value>(&command.output().unwrap().stdout).unwrap()
    };
    let jane = proxied(Some("front-proxy-client"));
    assert_eq!(jane["status"]["userInfo"]["username"], "jane", "{jane}");
    assert_eq!(jane["status"]["userInfo"]["groups"], json!(["devs", "system:authenticated"]));
    let other = proxied(Some("apiserver-kubelet-client"));
    assert_eq!(other["status"]["userInfo"]["username"], "kube-apiserver-kubelet-client");
    assert_eq!(proxied(None)["code"], 403, "anonymous may not ask");

    // tokens of service accounts: asked for, and in a secret that the controller fills
    cluster.run(&["create", "serviceaccount", "robot"]).unwrap();
    let robot = "system:serviceaccount:default:robot";
    let asked = cluster.run(&["create", "token", "robot"]).unwrap();
    assert!(who(&cluster, asked.trim()).unwrap().starts_with(robot));
    let secret = r#"
apiVersion: v1
kind: Secret
metadata: {name: robot-token, annotations: {kubernetes.io/service-account.name: robot}}
type: kubernetes.io/service-account-token
"#;
    cluster.apply(secret).unwrap();
    let data = |key: &str| format!("jsonpath={{.data['{key}']}}");
    let token = cluster
        .until(SOON, &["get", "secret", "robot-token", "-o", &data("token")], |out| !out.is_empty())
        .unwrap();
    let token = String::from_utf8(BASE64_STANDARD.decode(token).unwrap()).unwrap();
    assert!(who(&cluster, &token).unwrap().starts_with(robot));
    let authority = cluster.run(&["get", "secret", "robot-token", "-o", &data("ca\\.crt")]).unwrap();
    assert_eq!(BASE64_STANDARD.decode(authority).unwrap(), std::fs::read(pki.join("ca.crt")).unwrap());
    let label = r"jsonpath={.metadata.labels.kubernetes\.io/legacy-token-last-used}";
    cluster
        .until(SOON, &["get", "secret", "robot-token", "-o", label], |day| day.len() == "2026-01-01".len())
        .unwrap();
    cluster.run(&["delete", "serviceaccount", "robot"]).unwrap();
    assert!(who(&cluster, &token).is_err());
    cluster.until(SOON, &["get", "secrets", "-o", "name"], |out| !out.contains("robot-token")).unwrap();
}

#[test]
fn kubectl_auth_tells_and_sets_what_one_may_do() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    let rules = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: default}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: readers, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: jane}]
"#;
    let feed = |text: &str| {
        let said = cluster.feed(&["auth", "reconcile", "-f", "-"], text).unwrap();
        assert!(said.ok, "{said:?}");
        said.stdout
    };
    let said = feed(rules);
    assert!(said.contains("role.rbac.authorization.k8s.io/reader reconciled"), "{said}");
    // what is there besides stays, and what is missing is added
    feed(&rules.replace("verbs: [get]", "verbs: [list]"));
    let verbs = "jsonpath={.rules[*].verbs}";
    assert_eq!(cluster.run(&["get", "role", "reader", "-o", verbs]).unwrap(), r#"["get"] ["list"]"#);
    let may = |arguments: &[&str]| {
        let said = cluster.kubectl(&[&["auth", "can-i"], arguments, &["--as=jane"]].concat()).unwrap();
        said.stdout.trim().to_owned()
    };
    assert_eq!(may(&["get", "configmaps"]), "yes");
    assert_eq!(may(&["list", "configmaps"]), "yes");
    assert_eq!(may(&["delete", "configmaps"]), "no");
    assert_eq!(may(&["get", "configmaps", "-n", "kube-system"]), "no");
    assert_eq!(may(&["get", "/livez"]), "yes");
    let list = may(&["--list"]);
    let line =
        |resource: &str| list.lines().find(|line| line.starts_with(resource)).unwrap_or_default().to_owned();
    assert!(line("configmaps").contains("[get list]") || line("configmaps").contains("[list get]"), "{list}");
    assert!(line("selfsubjectreviews.authentication.k8s.io").contains("[create]"), "{list}");
    assert!(list.contains("[/livez]"), "{list}");
    let whoami = cluster.run(&["auth", "whoami"]).unwrap();
    assert!(whoami.contains("kubernetes-admin") && whoami.contains("kubeadm:cluster-admins"), "{whoami}");
}

/// An issuer whose key changes when it is told to.
struct Issuer {
    keys: Arc<Mutex<Vec<(String, EncodingKey)>>>,
    url: String,
}

impl Issuer {
    fn new(url: String) -> Self {
        let issuer = Self { keys: Arc::default(), url };
        issuer.rotate("k1");
        issuer
    }

    fn rotate(&self, id: &str) {
        let pair = rcgen::KeyPair::generate().unwrap();
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        *self.keys.lock().unwrap() = vec![(id.to_owned(), key)];
    }

    fn token(&self, name: &str, seconds: i64) -> String {
        let (id, key) = self.keys.lock().unwrap()[0].clone();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let expiry = i64::try_from(now.as_secs()).unwrap() + seconds;
        let claims =
            json!({"iss": self.url, "aud": "cluster", "sub": name, "exp": expiry, "groups": ["devs"]});
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(id);
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    }

    fn answers(&self) -> impl Fn(&Asked) -> Says + Send + Sync + 'static {
        let (keys, url) = (self.keys.clone(), self.url.clone());
        move |asked| match asked.path.as_str() {
            "/.well-known/openid-configuration" => {
                Says::Json(json!({"issuer": url, "jwks_uri": format!("{url}/keys")}))
            }
            "/keys" => {
                let jwk = |(id, key): &(String, EncodingKey)| {
                    let mut jwk =
                        serde_json::to_value(Jwk::from_encoding_key(key, Algorithm::ES256).unwrap()).unwrap();
                    jwk["kid"] = json!(id);
                    jwk
                };
                Says::Json(json!({"keys": keys.lock().unwrap().iter().map(jwk).collect::<Vec<_>>()}))
            }
            _ => Says::Text(404, String::new()),
        }
    }
}

fn authentication(issuer: &str, authority: &str, prefix: &str) -> String {
    let config = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
        "jwt": [{
            "issuer": {"url": issuer, "audiences": ["cluster"], "certificateAuthority": authority},
            "claimMappings": {
                "username": {"claim": "sub", "prefix": prefix}, "groups": {"claim": "groups", "prefix": "sso:"},
            },
        }],
        "anonymous": {"enabled": true, "conditions": [{"path": "/livez"}, {"path": "/readyz"}]},
    });
    config.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_issuer_is_believed_once_it_is_there() {
    or_skip!();
    let mut prepared = None;
    let cluster = Cluster::control_plane_with(|cluster| {
        let serving = serving(cluster.network.node_ip);
        let port = port(cluster)?;
        let issuer = Issuer::new(format!("https://{}:{port}", cluster.network.node_ip));
        let config = file(cluster, "authentication", &authentication(&issuer.url, &serving.pem, "sso:"))?;
        prepared = Some((serving, port, issuer));
        Ok(vec![format!("--authentication-config={config}")])
    })
    .unwrap();
    // the server is ready although nobody listens there
    let (serving, port, issuer) = prepared.unwrap();
    assert!(who(&cluster, &issuer.token("jane", 600)).is_err());
    let listener = listen(&cluster, port).unwrap();
    let answers = issuer.answers();
    let _server = Https::start_on(listener, vec![serving.certificate], serving.key, None, answers);
    let first = issuer.token("jane", 600);
    let whoami = eventually(|| who(&cluster, &first));
    assert_eq!(whoami, r#"sso:jane ["sso:devs","system:authenticated"]"#);
    assert!(who(&cluster, &issuer.token("jane", -60)).is_err(), "expired");
    issuer.rotate("k2");
    assert!(who(&cluster, &issuer.token("joe", 600)).unwrap().starts_with("sso:joe "));
    assert!(who(&cluster, &first).is_err(), "the key is gone");
    let binding = ["create", "clusterrolebinding", "devs", "--clusterrole=view", "--group=sso:devs"];
    cluster.run(&binding).unwrap();
    kubectl(&cluster, &issuer.token("joe", 600), &["get", "pods", "-A"]).unwrap();

    // the file changes while the server runs; one that will not do changes nothing
    let token = issuer.token("jane", 600);
    file(&cluster, "authentication", &authentication(&issuer.url, &serving.pem, "other:")).unwrap();
    eventually(|| match who(&cluster, &token)?.as_str() {
        new if new.starts_with("other:jane ") => Ok(()),
        old => bail!("{old}"),
    });
    file(&cluster, "authentication", "kind: nonsense").unwrap();
    eventually(|| match cluster.log().contains("the one before is in use") {
        true => Ok(()),
        false => bail!("nothing in the log"),
    });
    assert!(who(&cluster, &token).unwrap().starts_with("other:jane "));

    // who comes without anything passes where the file says so
    let anonymous = |path: &str| {
        let mut command = cluster.network.command("curl");
        command.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert"]);
        command.arg(cluster.data_dir().join("pki/ca.crt"));
        command.arg(format!("https://{}:6443{path}", cluster.network.node_ip));
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert_eq!((anonymous("/livez").as_str(), anonymous("/version").as_str()), ("200", "401"));
}

fn webhook_kubeconfig(cluster: &Cluster, port: u16, path: &str, authority: &str) -> String {
    let server = format!("https://{}:{port}/{path}", cluster.network.node_ip);
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {
            "server": server, "certificate-authority-data": BASE64_STANDARD.encode(authority),
        }}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {"token": "of-the-api-server"}}],
    })
    .to_string()
}

/// Knows the token of anna, and lets her do everything but delete.
fn webhooks(asked: &Asked) -> Says {
    if asked.headers.get("authorization").is_none_or(|value| value != "Bearer of-the-api-server") {
        return Says::Text(401, String::new());
    }
    let spec = &asked.body["spec"];
    let status = match asked.path.as_str() {
        "/authenticate" => match spec["token"].as_str() {
            Some("token-of-anna") => {
                json!({"authenticated": true, "user": {"username": "anna", "groups": ["hooked"]}})
            }
            _ => json!({"authenticated": false}),
        },
        _ if spec["user"] != "anna" => json!({"allowed": false}),
        _ if spec["resourceAttributes"]["verb"] == "delete" => {
            json!({"allowed": false, "denied": true, "reason": "anna deletes nothing"})
        }
        _ => json!({"allowed": true, "reason": "anna may"}),
    };
    Says::Json(json!({"apiVersion": asked.body["apiVersion"], "kind": asked.body["kind"], "status": status}))
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_say_who_one_is_and_what_one_may_do() {
    or_skip!();
    let mut server = None;
    let cluster = Cluster::control_plane_with(|cluster| {
        let serving = serving(cluster.network.node_ip);
        let port = port(cluster)?;
        let listener = listen(cluster, port)?;
        let pem = serving.pem.clone();
        server = Some(Https::start_on(listener, vec![serving.certificate], serving.key, None, webhooks));
        let tokens = file(cluster, "tokens", &webhook_kubeconfig(cluster, port, "authenticate", &pem))?;
        let requests = file(cluster, "requests", &webhook_kubeconfig(cluster, port, "authorize", &pem))?;
        Ok(vec![
            format!("--authentication-token-webhook-config-file={tokens}"),
            "--authentication-token-webhook-version=v1".into(),
            "--authorization-mode=Node,Webhook,RBAC".into(),
            format!("--authorization-webhook-config-file={requests}"),
            "--authorization-webhook-version=v1".into(),
            "--authorization-webhook-cache-unauthorized-ttl=1s".into(),
        ])
    })
    .unwrap();
    const ANNA: &str = "token-of-anna";
    assert_eq!(who(&cluster, ANNA).unwrap(), r#"anna ["hooked","system:authenticated"]"#);
    assert!(who(&cluster, "token-of-nobody").unwrap_err().to_string().contains("Unauthorized"));
    kubectl(&cluster, ANNA, &["create", "configmap", "hers", "--from-literal=a=b"]).unwrap();
    let denied = kubectl(&cluster, ANNA, &["delete", "configmap", "hers"]).unwrap_err().to_string();
    assert!(denied.contains("anna deletes nothing"), "{denied}");
    // RBAC has no say after it, and a say for all others
    cluster
        .run(&["create", "clusterrolebinding", "anna", "--clusterrole=cluster-admin", "--user=anna"])
        .unwrap();
    assert!(kubectl(&cluster, ANNA, &["delete", "configmap", "hers"]).is_err());
    cluster.run(&["get", "configmap", "hers"]).unwrap();
    let list = kubectl(&cluster, ANNA, &["auth", "can-i", "--list"]).unwrap();
    assert!(list.contains("selfsubjectreviews"), "{list}");

    // a webhook that is gone: those who need no other word go on, and for others it is a failure
    drop(server);
    cluster.run(&["get", "configmap", "hers"]).unwrap();
    let gone = who(&cluster, "token-that-was-never-asked-about").unwrap_err().to_string();
    assert!(gone.contains("Unauthorized"), "{gone}");
    let failed = cluster.kubectl(&["get", "nodes", "--as=somebody-new"]).unwrap();
    assert!(!failed.ok && failed.stderr.contains("Internal Server Error"), "{failed:?}");
}

fn refused(arguments: &[&str], folder: &Path) -> String {
    let output = Command::new(xebec())
        .args(["apiserver", "--node-ip=192.0.2.1", "--secure-port=0", "--data-dir"])
        .arg(folder)
        .args(arguments)
        .output()
        .unwrap();
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_would_let_everybody_in_is_no_way_to_start() {
    or_skip!();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: ";
    let always =
        format!("{head}AuthorizationConfiguration\nauthorizers: [{{type: AlwaysAllow, name: all}}]\n");
    std::fs::write(&config, always).unwrap();
    let (authorization, authentication, encryption) = (
        format!("--authorization-config={}", config.display()),
        format!("--authentication-config={}", config.display()),
        format!("--encryption-provider-config={}", config.display()),
    );
    for (arguments, why) in [
        (["--authorization-mode=AlwaysAllow"], "authorization is always on"),
        ([authorization.as_str()], "authorization is always on"),
        ([authentication.as_str()], "no kind \"AuthorizationConfiguration\" is registered"),
        ([encryption.as_str()], "no kind \"AuthorizationConfiguration\" is registered"),
        (["--oidc-client-id=x"], "must be specified together"),
    ] {
        let said = refused(&arguments, &folder.path().join("data"));
        assert!(said.contains(why), "{arguments:?}: {said}");
    }
}

/// Whether a text lies anywhere in the files of the store.
fn lies_in_store(cluster: &Cluster, text: &str) -> anyhow::Result<bool> {
    for entry in std::fs::read_dir(cluster.data_dir())? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("state.db")) {
            let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
            if bytes.windows(text.len()).any(|part| part == text.as_bytes()) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

#[test]
fn secrets_lie_encrypted_where_that_is_asked_for() {
    or_skip!();
    let mut cluster = Cluster::control_plane_with(|cluster| {
        let key = BASE64_STANDARD.encode([7; 32]);
        let config = json!({
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
            "resources": [{"resources": ["secrets"], "providers": [
                {"aesgcm": {"keys": [{"name": "key1", "secret": key}]}}, {"identity": {}},
            ]}],
        });
        Ok(vec![format!(
            "--encryption-provider-config={}",
            file(cluster, "encryption", &config.to_string())?
        )])
    })
    .unwrap();
    cluster.run(&["create", "secret", "generic", "s", "--from-literal=k=needle-in-a-secret"]).unwrap();
    cluster.run(&["create", "configmap", "m", "--from-literal=k=needle-in-a-map"]).unwrap();
    assert!(cluster.stop().unwrap());
    assert!(lies_in_store(&cluster, "needle-in-a-map").unwrap());
    assert!(lies_in_store(&cluster, "k8s:enc:aesgcm:v1:key1:").unwrap());
    assert!(!lies_in_store(&cluster, "needle-in-a-secret").unwrap());
    cluster.start_server().unwrap();
    let value = cluster.run(&["get", "secret", "s", "-o", "jsonpath={.data.k}"]).unwrap();
    assert_eq!(BASE64_STANDARD.decode(value).unwrap(), b"needle-in-a-secret");
}
