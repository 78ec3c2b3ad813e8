//! Definitions of custom resources and APIServices lie in the store as upstream has them there, in JSON, and are read
//! in whatever form they lie there.

mod common;

use apimachinery::Object;
use apimachinery::codec;
use apimachinery::schema::Schema;
use bytes::Bytes;
use common::Cluster;
use serde_json::{Value, json};
use storage::Expect;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const DEFINITION: &str = "/registry/apiextensions.k8s.io/customresourcedefinitions/wheels.cars.example";
const SERVICE: &str = "/registry/apiregistration.k8s.io/apiservices/v1.cars.example";

fn definition() -> Value {
    let version = |name: &str, storage: bool| {
        json!({
            "name": name, "served": true, "storage": storage,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "default": {"b": 1, "a": "<"},
                    "properties": {"b": {"type": "integer"}, "a": {"type": "string"}}},
            }}},
            "subresources": {"status": {}},
            "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.b"}],
        })
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "wheels.cars.example"},
        "spec": {
            "group": "cars.example", "scope": "Namespaced", "names": {"plural": "wheels", "kind": "Wheel"},
            "versions": [version("v1", true), version("v2", false)],
            "conversion": {"strategy": "Webhook", "webhook": {
                "conversionReviewVersions": ["v1"], "clientConfig": {"url": "https://hook.example/convert"},
            }},
        },
    })
}

/// The one above in the store, but for what only the server knows.
const STORED_SPEC: &str = concat!(
    r#""spec":{"group":"cars.example","version":"v1","#,
    r#""names":{"plural":"wheels","singular":"wheel","kind":"Wheel","listKind":"WheelList"},"scope":"Namespaced","#,
    r#""validation":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object","#,
    r#""default":{"a":"\u003c","b":1},"properties":{"a":{"type":"string"},"b":{"type":"integer"}}}}}},"#,
    r#""subresources":{"status":{}},"#,
    r#""versions":[{"name":"v1","served":true,"storage":true},{"name":"v2","served":true,"storage":false}],"#,
    r#""additionalPrinterColumns":[{"name":"Size","type":"integer","JSONPath":".spec.b"}],"#,
    r#""conversion":{"strategy":"Webhook","webhookClientConfig":{"url":"https://hook.example/convert"},"#,
    r#""conversionReviewVersions":["v1"]},"preserveUnknownFields":false},"#,
);

fn api_service() -> Value {
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.cars.example"},
        "spec": {
            "group": "cars.example", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10,
            "insecureSkipTLSVerify": true, "service": {"namespace": "default", "name": "cars"},
        },
    })
}

async fn stored(cluster: &Cluster, key: &str) -> String {
    let (kv, _) = cluster.storage.get(key).await.unwrap();
    String::from_utf8(kv.expect("a value").value.to_vec()).expect("text")
}

async fn put(cluster: &Cluster, key: &str, value: impl Into<Bytes>) {
    let expected = match cluster.storage.get(key).await.unwrap().0 {
        Some(kv) => Expect::ModRevision(kv.mod_revision),
        None => Expect::Absent,
    };
    cluster.storage.put_if(key, expected, value.into(), None).await.unwrap();
}

/// Protobuf of the served version, as earlier versions of this server wrote it.
fn protobuf(object: &Value, package: &str) -> Vec<u8> {
    let mut object = Object::from(object.clone());
    object.set_resource_version("");
    let schema = Schema::builtin(package, object.kind()).expect("a schema");
    let mut out = Vec::new();
    codec::encode_protobuf(&object, &schema, &mut out);
    out
}

fn but_for_version(mut object: Value) -> Value {
    object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    object
}

#[tokio::test]
async fn definitions_lie_in_the_store_as_v1beta1() {
    let cluster = Cluster::start(Default::default()).await;
    let made = cluster.admin("POST", DEFINITIONS, definition()).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let text = stored(&cluster, DEFINITION).await;
    let head = concat!(
        r#"{"kind":"CustomResourceDefinition","apiVersion":"apiextensions.k8s.io/v1beta1","#,
        r#""metadata":{"name":"wheels.cars.example","uid":""#,
    );
    assert!(text.starts_with(head), "{text}");
    assert!(text.contains(STORED_SPEC), "{text}");
    assert!(text.contains(r#""managedFields":[{"manager":"test","operation":"Update","apiVersion":"apiextensions.k8s.io/v1","#), "{text}");
    assert!(text.ends_with("}}\n"), "{text}");
    assert!(!text.contains("resourceVersion"), "{text}");

    let one = format!("{DEFINITIONS}/wheels.cars.example");
    let expected = cluster.admin("GET", &one, Value::Null).await.body;
    assert_eq!(expected["spec"]["versions"][1], {
        let mut version = definition()["spec"]["versions"][1].clone();
        version["additionalPrinterColumns"][0]["jsonPath"] = json!(".spec.b");
        version
    });
    assert_eq!(expected["spec"]["conversion"], definition()["spec"]["conversion"]);

    // what lies there in protobuf is the same object, and the next write, even of no change, puts it right
    put(
        &cluster,
        DEFINITION,
        protobuf(&expected, "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1"),
    )
    .await;
    let read = cluster.admin("GET", &format!("{one}?resourceVersion="), Value::Null).await.body;
    assert_eq!(but_for_version(read.clone()), but_for_version(expected.clone()));
    let written = cluster.admin("PUT", &one, read.clone()).await.body;
    assert_ne!(written["metadata"]["resourceVersion"], read["metadata"]["resourceVersion"]);
    assert!(stored(&cluster, DEFINITION).await.contains(STORED_SPEC));
    let again = cluster.admin("PUT", &one, written.clone()).await.body;
    assert_eq!(again, written);
}

#[tokio::test]
async fn definitions_of_old_are_read_with_the_defaults_of_their_day() {
    let cluster = Cluster::start(Default::default()).await;
    let old = concat!(
        r#"{"kind":"CustomResourceDefinition","apiVersion":"apiextensions.k8s.io/v1beta1","#,
        r#""metadata":{"name":"wheels.cars.example","uid":"u","creationTimestamp":"2019-01-01T00:00:00Z"},"#,
        r#""spec":{"group":"cars.example","version":"v1","names":{"plural":"wheels","kind":"Wheel"},"scope":"","#,
        r#""additionalPrinterColumns":[{"name":"Size","type":"integer","JSONPath":".spec.b"}],"#,
        r#""conversion":{"strategy":"Webhook","webhookClientConfig":{"service":{"namespace":"a","name":"b"}}}},"#,
        r#""status":{"conditions":null,"acceptedNames":{"plural":"","kind":""},"storedVersions":null}}"#,
    );
    put(&cluster, DEFINITION, old).await;
    let read = cluster.admin("GET", &format!("{DEFINITIONS}/wheels.cars.example"), Value::Null).await;
    assert_eq!(read.code, 200, "{}", read.body);
    assert_eq!(read.body["apiVersion"], "apiextensions.k8s.io/v1");
    assert_eq!(
        read.body["spec"],
        json!({
            "group": "cars.example", "scope": "Namespaced", "preserveUnknownFields": true,
            "names": {"plural": "wheels", "singular": "wheel", "kind": "Wheel", "listKind": "WheelList"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.b"}],
            }],
            "conversion": {"strategy": "Webhook", "webhook": {
                "clientConfig": {"service": {"namespace": "a", "name": "b", "port": 443}},
                "conversionReviewVersions": ["v1beta1"],
            }},
        })
    );
    assert_eq!(read.body["status"]["storedVersions"], json!(["v1"]));
}

#[tokio::test]
async fn api_services_lie_in_the_store_in_json() {
    let cluster = Cluster::start(Default::default()).await;
    let local = stored(&cluster, "/registry/apiregistration.k8s.io/apiservices/v1.apps").await;
    assert!(
        local.starts_with(r#"{"kind":"APIService","apiVersion":"apiregistration.k8s.io/v1","metadata":"#),
        "{local}"
    );

    let made = cluster.admin("POST", SERVICES, api_service()).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let text = stored(&cluster, SERVICE).await;
    let spec = concat!(
        r#""spec":{"service":{"namespace":"default","name":"cars","port":443},"group":"cars.example","version":"v1","#,
        r#""insecureSkipTLSVerify":true,"groupPriorityMinimum":100,"versionPriority":10},"status":"#,
    );
    assert!(text.contains(spec), "{text}");
    assert!(text.ends_with("}\n"), "{text}");

    let one = format!("{SERVICES}/v1.cars.example");
    put(&cluster, SERVICE, protobuf(&made.body, "k8s.io.kube_aggregator.pkg.apis.apiregistration.v1")).await;
    let read = cluster.admin("GET", &one, Value::Null).await.body;
    assert_eq!(but_for_version(read), but_for_version(made.body));
}

/// The cache, lists, watches and metadata do not care in which form an object lies in the store.
#[tokio::test]
async fn both_forms_are_read_after_a_restart_and_in_protobuf() {
    let cluster = Cluster::start(Default::default()).await;
    let made = cluster.admin("POST", DEFINITIONS, definition()).await.body;
    let mut second = made.clone();
    second["metadata"]["name"] = json!("doors.cars.example");
    second["spec"]["names"] =
        json!({"plural": "doors", "kind": "Door", "singular": "door", "listKind": "DoorList"});
    let key = DEFINITION.replace("wheels", "doors");
    put(&cluster, &key, protobuf(&second, "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1")).await;
    let folder = cluster.stop().await;
    let cluster = Cluster::start_in(folder, |_| ()).await;
    let list = cluster.admin("GET", DEFINITIONS, Value::Null).await.body;
    let names: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["doors.cars.example", "wheels.cars.example"]);
    for (item, wanted) in list["items"].as_array().unwrap().iter().zip([&second, &made]) {
        assert_eq!(item["spec"], wanted["spec"]);
    }
    let accept = "application/vnd.kubernetes.protobuf";
    let answer = cluster
        .ask("admin", &["system:masters"], "GET", DEFINITIONS, Value::Null, &[("accept", accept)])
        .await;
    assert!(answer.body.as_str().unwrap().starts_with("k8s\0"), "{answer:?}");
    let accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let answer = cluster
        .ask("admin", &["system:masters"], "GET", DEFINITIONS, Value::Null, &[("accept", accept)])
        .await;
    assert_eq!(answer.body["items"][1]["metadata"]["uid"], made["metadata"]["uid"]);
}
