//! In which formats and shapes answers come, and what is said where they do not.

mod common;

use std::sync::Arc;

use apiserver::RequestOptions;
use apiserver::http::serve;
use apiserver::pki::Profile;
use bytes::Bytes;
use common::{Answer, Cluster};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const TABLE: &str = "as=Table;v=v1;g=meta.k8s.io";

async fn get(cluster: &Cluster, uri: &str, accept: &str) -> Answer {
    cluster.ask("admin", &["system:masters"], "GET", uri, Value::Null, &[("accept", accept)]).await
}

fn media_type(answer: &Answer) -> &str {
    answer.headers["content-type"].to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn shapes_that_do_not_fit_are_refused() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    cluster.admin("POST", MAPS, json!({"metadata": {"name": "a"}})).await;
    let one = format!("{MAPS}/a");
    let shaped = |shape: &str| format!("application/json;as={shape};v=v1;g=meta.k8s.io");
    let cases = [
        (
            MAPS,
            shaped("PartialObjectMetadata"),
            406,
            "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)",
        ),
        (
            &one,
            shaped("PartialObjectMetadataList"),
            406,
            "you requested PartialObjectMetadataList, but the requested object is not a list (*core.ConfigMap)",
        ),
        (
            &one,
            "text/html".to_owned(),
            406,
            "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
        ),
        (
            "/apis/apps/v1",
            "text/html".to_owned(),
            406,
            "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
        ),
    ];
    for (uri, accept, code, why) in cases {
        let answer = get(&cluster, uri, &accept).await;
        assert_eq!((answer.code.as_u16(), answer.message()), (code, why), "{uri} {accept}");
    }
    for uri in [one.as_str(), MAPS, &format!("{MAPS}?watch=1")] {
        let more = if uri.contains('?') { "&" } else { "?" };
        let answer = get(&cluster, &format!("{uri}{more}includeObject=Foo"), &shaped("Table")).await;
        assert_eq!(answer.code, 400, "{uri}");
        assert_eq!(
            answer.message(),
            "Unable to convert to Table as requested: includeObject: Invalid value: \"Foo\": must be 'Metadata', \
             'Object', 'None', or empty"
        );
    }
    let table = get(&cluster, MAPS, &format!("application/yaml;{TABLE}")).await;
    assert_eq!(media_type(&table), "application/yaml");
    assert!(table.body.as_str().unwrap().starts_with("apiVersion: meta.k8s.io/v1\ncolumnDefinitions:\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_comes_in_every_format() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
    for (uri, kind) in [
        ("/api", "APIVersions"),
        ("/apis", "APIGroupList"),
        ("/apis/apps", "APIGroup"),
        ("/apis/apps/v1", "APIResourceList"),
        ("/api/v1", "APIResourceList"),
    ] {
        let json = get(&cluster, uri, "application/json").await;
        assert_eq!(json.body["kind"], kind, "{uri}");
        assert_eq!(
            json.body.get("apiVersion"),
            (!uri.starts_with("/api/") && uri != "/api").then_some(&json!("v1")),
            "{uri}"
        );
        let yaml = get(&cluster, uri, "application/yaml").await;
        assert!(yaml.body.as_str().unwrap().contains(&format!("kind: {kind}\n")), "{uri}");
        let protobuf = get(&cluster, uri, &format!("{PROTOBUF},application/json")).await;
        assert_eq!(media_type(&protobuf), PROTOBUF, "{uri}");
        let text = protobuf.body.as_str().unwrap();
        assert!(text.starts_with("k8s\0") && text.contains(kind), "{uri}");
    }
    let all = "g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    for uri in ["/api", "/apis"] {
        let json = get(&cluster, uri, &format!("application/json;{all},application/json")).await;
        assert_eq!(json.body["items"][0]["metadata"].get("creationTimestamp"), None);
        let protobuf = get(&cluster, uri, &format!("application/json;q=0.5,{PROTOBUF};{all}")).await;
        assert_eq!(media_type(&protobuf), format!("{PROTOBUF};{all}"));
        assert!(protobuf.body.as_str().unwrap().starts_with("k8s\0"));
        let tag = protobuf.headers["etag"].to_str().unwrap();
        let headers = [("accept", format!("{PROTOBUF};{all}")), ("if-none-match", tag.to_owned())];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        let again = cluster.ask("admin", &["system:masters"], "GET", uri, Value::Null, &headers).await;
        assert_eq!((again.code.as_u16(), &again.body), (304, &json!("")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn open_api_documents_vary() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    for uri in ["/openapi/v2", "/openapi/v3/apis/apps/v1"] {
        let answer = get(&cluster, uri, "application/json").await;
        assert_eq!(
            (answer.code.as_u16(), &answer.headers["vary"]),
            (200, &"Accept".parse().unwrap()),
            "{uri}"
        );
        assert_eq!(get(&cluster, uri, "text/html").await.code, 406, "{uri}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn open_api_comes_as_protobuf() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    for (uri, version) in [("/openapi/v2", "v2"), ("/openapi/v3/apis/apps/v1", "v3")] {
        let json = get(&cluster, uri, "application/json").await;
        for name in ["@", "."] {
            let accept = format!("application/com.github.proto-openapi.spec.{version}{name}v1.0+protobuf");
            let answer = get(&cluster, uri, &accept).await;
            assert_eq!(
                (answer.code.as_u16(), media_type(&answer)),
                (200, format!("application/com.github.proto-openapi.spec.{version}.v1.0+protobuf").as_str()),
            );
            assert_eq!(answer.headers["etag"], json.headers["etag"], "{uri}");
            assert_eq!(answer.headers["vary"], "Accept");
            let text = answer.body.as_str().unwrap();
            assert!(text.contains("io.k8s.api.apps.v1.Deployment") && !text.starts_with('{'), "{uri}");
        }
    }
    let index = get(&cluster, "/openapi/v3", "application/json").await;
    let paths: Value = match index.body.as_str() {
        Some(text) => serde_json::from_str(text).unwrap(),
        None => index.body.clone(),
    };
    let url = paths["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let accept = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";
    let kept = get(&cluster, url, accept).await;
    assert_eq!(
        (kept.code.as_u16(), kept.headers["cache-control"].to_str().unwrap()),
        (200, "public, immutable")
    );
    let old = get(&cluster, "/openapi/v3/apis/apps/v1?hash=OLD", accept).await;
    assert_eq!((old.code.as_u16(), old.headers["location"].to_str().unwrap()), (301, url));
    assert_eq!(get(&cluster, "/openapi/v3/apis/apps/v1?hash=OLD", "text/html").await.code, 406);
    assert_eq!(get(&cluster, "/openapi/v3/apis/none/v1", accept).await.code, 404);
}

/// Over HTTP/2 a body would break the stream.
#[tokio::test(flavor = "multi_thread")]
async fn answers_to_head_have_no_body() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    let listener = serve::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let tls = Arc::new(cluster.pki.serving_tls().unwrap());
    tokio::spawn(serve::serve(cluster.server.clone(), listener, tls, stop.clone()));

    let mut roots = rustls::RootCertStore::empty();
    cluster.pki.ca_certificates().unwrap().into_iter().for_each(|root| roots.add(root).unwrap());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let own = cluster.pki.issue(&Profile::client("admin", &["system:masters"])).unwrap();
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(own.certificates().unwrap(), own.key().unwrap())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect("127.0.0.1".try_into().unwrap(), stream).await.unwrap();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for (uri, code) in [("/version", 405), (MAPS, 405), ("/apis", 200), ("/healthz", 200)] {
        let mut lengths = Vec::new();
        for method in ["GET", "HEAD"] {
            let request = http::Request::builder().method(method).uri(format!("https://127.0.0.1{uri}"));
            let request = request.body(Empty::<Bytes>::new()).unwrap();
            let response = sender.send_request(request).await.unwrap();
            let said: u64 = response.headers()["content-length"].to_str().unwrap().parse().unwrap();
            lengths.push(said);
            let (parts, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            match method {
                "GET" => assert_eq!((parts.status.as_u16(), body.len() as u64), (200, said), "{uri}"),
                _ => assert_eq!((parts.status.as_u16(), body.len()), (code, 0), "{uri}"),
            }
        }
        assert_eq!(lengths[0] == lengths[1], code == 200, "{uri}");
    }
    stop.cancel();
}
