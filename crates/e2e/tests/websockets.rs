//! WebSocket clients that are no kubectl: of the API server and of the kubelet, as browsers and dashboards come.

use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::websocket::{Ask, Socket, listen, say};
use e2e::{Cluster, or_skip};
use futures::{SinkExt, StreamExt};
use serde_json::Value;
use streams::websocket::Message;
use streams::websocket::channels::Codec;

const API: u16 = 6443;
const KUBELET: u16 = 10250;

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: c
      image: xebec.local/demo:1
      command: [sh, -c, "mkdir /www; echo page > /www/index.html; httpd -p 8080 -h /www; for i in 1 2 3; do echo line $i; done; sleep 100000"]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: admin}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: admin}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: admin, namespace: default}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [pods, pods/exec, pods/attach, pods/portforward, pods/log], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: default}]
"#;

const POD: &str = "/api/v1/namespaces/default/pods/web";
const SCRIPT: &str = "command=sh&command=-c&command=cat%3Becho+err+%3E%262%3Bexit+3";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a test for each row of a table, with the row in its error.
macro_rules! check {
    ($cluster:expr, $row:expr, $body:expr) => {
        $cluster.client(|| $body).with_context(|| format!("{:?}", $row)).unwrap()
    };
}

#[test]
fn websocket_clients_of_the_api_server_and_the_kubelet() {
    or_skip!();
    let cluster = Cluster::with_node().unwrap();
    cluster.apply(PODS).unwrap();
    cluster.run(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"]).unwrap();
    let token = |name: &str| cluster.run(&["create", "token", name]).unwrap().trim().to_owned();
    let (admin, reader) = (token("admin"), token("reader"));
    let api = Ask { port: API, token: &admin, ..Ask::default() };
    let kubelet = Ask { port: KUBELET, ..api };
    commands(&cluster, api, kubelet);
    input_without_an_end(&cluster, api);
    attach(&cluster, api);
    logs(&cluster, api, kubelet);
    port_forward(&cluster, api, kubelet);
    watches(&cluster, api);
    refusals(&cluster, api, kubelet, &reader);
}

fn commands(cluster: &Cluster, api: Ask<'_>, kubelet: Ask<'_>) {
    let by_api = format!("{POD}/exec?stdin=true&stdout=true&stderr=true&{SCRIPT}");
    let by_kubelet = format!("/exec/default/web/c?input=1&output=1&error=1&{SCRIPT}");
    let by_proxy = format!("/api/v1/nodes/node-1/proxy{by_kubelet}");
    for (ask, path) in [(api, &by_api), (kubelet, &by_kubelet), (api, &by_proxy)] {
        let ask = Ask { path, protocols: "v5.channel.k8s.io, v4.channel.k8s.io", ..ask };
        check!(cluster, path, async move {
            let mut socket = cluster.open(ask).await?;
            let first = socket.next().await.context("an empty message on standard output")??;
            ensure!(first == Message::binary(vec![1]), "{first:?}");
            let mut sent = Vec::new();
            for piece in 0..64u8 {
                let data = vec![b'a' + piece % 26; 16 * 1024];
                say(&mut socket, Codec::Raw, 0, &data).await?;
                sent.extend_from_slice(&data);
            }
            socket.send(Message::binary(vec![255, 0])).await?;
            let [_, stdout, stderr, error] = listen(&mut socket, Codec::Raw).await?;
            ensure!(stdout == sent, "{} of {} bytes came back", stdout.len(), sent.len());
            ensure!(stderr == b"err\n", "{}", text(&stderr));
            let status: Value = serde_json::from_slice(&error)?;
            ensure!(status["reason"] == "NonZeroExitCode", "{status}");
            ensure!(status["details"]["causes"][0]["message"] == "3", "{status}");
            Ok(())
        });
    }
}

/// Before version 5, standard input cannot end before the command does.
fn input_without_an_end(cluster: &Cluster, api: Ask<'_>) {
    let script = "command=sh&command=-c&command=read+x%3Becho+got+$x%3Bexit+4";
    let path = format!("{POD}/exec?stdin=true&stdout=true&stderr=true&{script}");
    let message = "command terminated with";
    let cases = [
        ("v4.channel.k8s.io", Codec::Raw, true),
        ("v4.base64.channel.k8s.io", Codec::Base64, true),
        ("channel.k8s.io", Codec::Raw, false),
        ("base64.channel.k8s.io", Codec::Base64, false),
        ("", Codec::Raw, false),
    ];
    for (protocols, codec, has_status) in cases {
        let ask = Ask { path: &path, protocols, ..api };
        check!(cluster, protocols, async move {
            let mut socket = cluster.open(ask).await?;
            say(&mut socket, codec, 0, b"it\n").await?;
            let [_, stdout, stderr, error] = listen(&mut socket, codec).await?;
            ensure!(
                (stdout.as_slice(), stderr.as_slice()) == (&b"got it\n"[..], &b""[..]),
                "{}",
                text(&stdout)
            );
            let said = text(&error);
            if has_status {
                let status: Value = serde_json::from_slice(&error)?;
                ensure!(status["details"]["causes"][0]["message"] == "4", "{status}");
            } else {
                ensure!(said.starts_with(message), "{said}");
            }
            Ok(())
        });
    }
}

fn attach(cluster: &Cluster, api: Ask<'_>) {
    cluster.run(&["run", "parrot", "--image=xebec.local/demo:1", "--restart=Never", "-i=false", "--overrides", r#"{"spec":{"terminationGracePeriodSeconds":0,"containers":[{"name":"parrot","image":"xebec.local/demo:1","stdin":true,"command":["sh","-c","while read x; do echo heard $x; done"]}]}}"#]).unwrap();
    cluster.run(&["wait", "--for=condition=Ready", "pod/parrot", "--timeout=60s"]).unwrap();
    let path = "/api/v1/namespaces/default/pods/parrot/attach?stdin=true&stdout=true&stderr=true";
    let ask = Ask { path, protocols: "v5.channel.k8s.io", ..api };
    check!(cluster, path, async move {
        let mut socket = cluster.open(ask).await?;
        for word in ["one", "two"] {
            say(&mut socket, Codec::Raw, 0, format!("{word}\n").as_bytes()).await?;
            let mut heard = Vec::new();
            while !text(&heard).contains(&format!("heard {word}\n")) {
                let message = socket.next().await.context("an answer")??;
                heard.extend_from_slice(&message.into_data());
            }
        }
        Ok(socket.close(None).await?)
    });
}

/// Everything until the server closes, each message's bytes.
async fn messages(socket: &mut Socket) -> anyhow::Result<Vec<Message>> {
    let mut messages = Vec::new();
    loop {
        match socket.next().await.context("the server hung up without a word")?? {
            Message::Close(frame) => {
                ensure!(frame.is_some_and(|frame| u16::from(frame.code) == 1000), "an odd end");
                return Ok(messages);
            }
            message => messages.push(message),
        }
    }
}

fn logs(cluster: &Cluster, api: Ask<'_>, kubelet: Ask<'_>) {
    let (by_api, by_kubelet) = (format!("{POD}/log?tailLines=1"), "/containerLogs/default/web/c?tailLines=1");
    for (ask, path) in [(api, by_api.as_str()), (kubelet, by_kubelet)] {
        let cases = [
            ("binary.k8s.io", Message::binary(""), Message::binary("line 3\n")),
            ("", Message::binary(""), Message::binary("line 3\n")),
            ("base64.binary.k8s.io", Message::text(""), Message::text("bGluZSAzCg==")),
        ];
        for (protocols, begin, rest) in cases {
            let ask = Ask { path, protocols, ..ask };
            let said =
                check!(
                    cluster,
                    (path, protocols),
                    async move { messages(&mut cluster.open(ask).await?).await }
                );
            assert_eq!(said, [begin, rest], "{path} {protocols}");
        }
    }
    let path = format!("{POD}/log?follow=true");
    let ask = Ask { path: &path, ..api };
    check!(cluster, path, async move {
        let mut socket = cluster.open(ask).await?;
        let mut said = Vec::new();
        while text(&said) != "line 1\nline 2\nline 3\n" {
            said.extend_from_slice(&socket.next().await.context("a line")??.into_data());
        }
        // it goes on until the client leaves
        let more = tokio::time::timeout(Duration::from_millis(300), socket.next()).await;
        ensure!(more.is_err(), "{more:?}");
        socket.close(None).await?;
        while let Some(Ok(_)) = socket.next().await {}
        Ok(())
    });
}

fn port_forward(cluster: &Cluster, api: Ask<'_>, kubelet: Ask<'_>) {
    let by_api = format!("{POD}/portforward?ports=8080&ports=9");
    let by_kubelet = "/portForward/default/web?port=8080,9";
    for (ask, path) in [(api, by_api.as_str()), (kubelet, by_kubelet)] {
        for (protocols, codec) in
            [("v4.channel.k8s.io", Codec::Raw), ("v4.base64.channel.k8s.io", Codec::Base64), ("", Codec::Raw)]
        {
            let ask = Ask { path, protocols, ..ask };
            let [data, error, nothing, refused] = check!(cluster, (path, protocols), async move {
                let mut socket = cluster.open(ask).await?;
                say(&mut socket, codec, 0, b"GET / HTTP/1.0\r\n\r\n").await?;
                listen(&mut socket, codec).await
            });
            let (port, page) = data.split_at(2);
            assert_eq!(port, 8080u16.to_le_bytes(), "{path} {protocols}");
            let page = text(page);
            assert!(page.starts_with("HTTP/1.") && page.ends_with("page\n"), "{path} {protocols}: {page}");
            assert_eq!(error, 8080u16.to_le_bytes());
            assert_eq!(nothing, 9u16.to_le_bytes());
            let refused = text(&refused[2..]);
            assert!(refused.contains("error forwarding port 9 to pod"), "{path} {protocols}: {refused}");
        }
    }
    // SPDY within WebSocket, as newer kubectls have it, of the kubelet itself, too
    let path = format!("{POD}/portforward");
    for (ask, path) in [(api, path.as_str()), (kubelet, "/portForward/default/web")] {
        let ask = Ask { path, protocols: "SPDY/3.1+portforward.k8s.io", ..ask };
        let page = check!(cluster, path, async move {
            let socket = cluster.open(ask).await?;
            let (a, b) = tokio::io::duplex(64 * 1024);
            let tunnel = tokio::spawn(streams::websocket::tunnel(socket, a));
            let config = streams::spdy::Config::new(streams::spdy::Role::Client);
            let (connection, _accept) = streams::spdy::Connection::new(b, config);
            let mut pair = streams::portforward::open(&connection, 8080, 1).await?;
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            pair.data.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
            let mut page = String::new();
            pair.data.read_to_string(&mut page).await?;
            drop((pair, connection));
            tunnel.await?;
            Ok(page)
        });
        assert!(page.ends_with("page\n"), "{path}: {page}");
    }
}

fn watches(cluster: &Cluster, api: Ask<'_>) {
    cluster.run(&["create", "configmap", "seen", "--from-literal=a=b\nc"]).unwrap();
    let path = "/api/v1/namespaces/default/configmaps?watch=true&fieldSelector=metadata.name%3Dseen&timeoutSeconds=2";
    let ask = Ask { path, origin: "https://dashboard.example", ..api };
    let events = check!(cluster, path, async move {
        let mut socket = cluster.open(ask).await?;
        let first = socket.next().await.context("an event")??;
        cluster.run(&["delete", "configmap", "seen"])?;
        let mut events = vec![first];
        events.append(&mut messages(&mut socket).await?);
        Ok(events)
    });
    let mut types = Vec::new();
    for event in &events {
        let Message::Text(event) = event else { panic!("{event:?}") };
        let event: Value = serde_json::from_str(event).expect("one event a message");
        assert_eq!(event["object"]["data"]["a"], "b\nc", "{event}");
        types.push(event["type"].as_str().unwrap_or_default().to_owned());
    }
    assert_eq!(types, ["ADDED", "DELETED"]);

    let ask = Ask {
        accept: "application/vnd.kubernetes.protobuf",
        path: "/api/v1/nodes?watch=1&timeoutSeconds=1",
        ..ask
    };
    let events = check!(cluster, ask, async move { messages(&mut cluster.open(ask).await?).await });
    let Some(Message::Binary(event)) = events.first() else { panic!("{events:?}") };
    // the event's type is its first field, its object a protobuf envelope of its own
    assert!(event.starts_with(b"\x0a\x05ADDED\x12"), "{event:?}");
    assert!(event.windows(4).any(|window| window == b"k8s\0"), "{event:?}");

    let refused = Ask { origin: "", path: "/api/v1/nodes?watch=1", ..api };
    assert_eq!(check!(cluster, refused, async move { cluster.refusal(refused).await }), (403, String::new()));
}

fn refusals(cluster: &Cluster, api: Ask<'_>, kubelet: Ask<'_>, reader: &str) {
    let exec = format!("{POD}/exec?stdout=true&command=true");
    let forward = format!("{POD}/portforward");
    let v5 = "v5.channel.k8s.io";
    let tunnel = "SPDY/3.1+portforward.k8s.io";
    let forbidden = "pods \"web\" is forbidden: ";
    let cases = [
        // who may only read runs nothing
        (Ask { token: reader, path: &exec, protocols: v5, ..api }, 403, forbidden),
        (Ask { token: reader, path: &exec, protocols: "v4.channel.k8s.io", ..api }, 403, forbidden),
        (Ask { token: reader, path: &forward, protocols: tunnel, ..api }, 403, forbidden),
        (Ask { token: "nobody", path: &exec, protocols: v5, ..api }, 401, "Unauthorized"),
        (
            Ask {
                path: "/api/v1/namespaces/default/pods/none/exec?stdout=1&command=x",
                protocols: v5,
                ..api
            },
            404,
            "pods \"none\" not found",
        ),
        (
            Ask { path: &format!("{exec}&container=x"), protocols: v5, ..api },
            400,
            "container x is not valid for pod web",
        ),
        (
            Ask { path: &format!("{POD}/exec?command=true"), protocols: v5, ..api },
            400,
            "you must specify at least 1 of stdin, stdout, stderr",
        ),
    ];
    for (ask, code, message) in cases {
        let (got, body) = check!(cluster, ask, async move { cluster.refusal(ask).await });
        let status: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{ask:?}: {body}"));
        assert_eq!((got, status["message"].as_str()), (code, Some(message)), "{ask:?}");
        assert_eq!(status["kind"], "Status");
    }
    let texts = [
        (Ask { path: &exec, protocols: "v9.channel.k8s.io", ..api }, 403, ""),
        (
            Ask { path: &forward, protocols: "v4.channel.k8s.io", ..api },
            400,
            "query parameter \"port\" is required\n",
        ),
        (
            Ask { path: "/exec/default/none/c?output=1&command=x", protocols: v5, ..kubelet },
            404,
            "pod does not exist\n",
        ),
        (Ask { path: &format!("{POD}/log"), protocols: v5, ..api }, 403, ""),
    ];
    for (ask, code, want) in texts {
        let (got, body) = check!(cluster, ask, async move { cluster.refusal(ask).await });
        assert_eq!((got, body.as_str()), (code, want), "{ask:?}");
    }
    // what goes wrong behind the API server is told on the error channel
    cluster.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: waiting}\nspec:\n  containers: [{name: c, image: \"xebec.local/none:1\", imagePullPolicy: Never}]").unwrap();
    cluster
        .until(Duration::from_secs(30), &["get", "pod", "waiting"], |out| out.contains("ErrImageNeverPull"))
        .unwrap();
    let path = "/api/v1/namespaces/default/pods/waiting/exec?stdout=true&command=true";
    let ask = Ask { path, protocols: v5, ..api };
    let [.., error] =
        check!(cluster, path, async move { listen(&mut cluster.open(ask).await?, Codec::Raw).await });
    let status: Value = serde_json::from_slice(&error).expect("a Status");
    let message = "Internal error occurred: unable to upgrade connection: container not found (\"c\")";
    assert_eq!((&status["message"], &status["code"]), (&Value::from(message), &Value::from(500)), "{status}");
}
