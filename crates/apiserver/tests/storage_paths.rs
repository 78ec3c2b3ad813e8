//! Objects of every kind lie in the store under upstream's keys and as upstream's versions.

mod common;

use apimachinery::codec;
use common::{Cluster, stubs};
use serde_json::{Value, json};

/// What is made, the key below `/registry/`, and what lies there where it is not what was made.
const TABLE: &str = include_str!("data/storage_paths.txt");

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_every_kind_lie_where_upstream_has_them() {
    let cluster = Cluster::start(Default::default()).await;
    let account = json!({"metadata": {"name": "default"}});
    let made = cluster.admin("POST", "/api/v1/namespaces/default/serviceaccounts", account).await;
    assert_eq!(made.code, 201, "{made:?}");
    let mut table = TABLE.lines().filter(|line| !line.starts_with('#'));
    let mut all = stubs::all();
    all.sort_by_key(|stub| (stub.row.group_version().to_string(), stub.row.kind));
    for stub in all {
        let line = table.next().expect("a line for each kind");
        let mut words = line.split_whitespace();
        let mut next = || words.next();
        let (api_version, kind, key) = (next().unwrap(), next().unwrap(), next().unwrap());
        let (stored_version, stored_kind) = (next().unwrap_or(api_version), next().unwrap_or(kind));
        assert_eq!((&stub.object["apiVersion"], &stub.object["kind"]), (&json!(api_version), &json!(kind)));

        let all = stubs::collection(stub.row, "default");
        let made = cluster.admin("POST", &all, stub.object).await;
        assert_eq!(made.code, 201, "{line}: {}", made.body);
        let (kv, _) = cluster.storage.get(&format!("/registry/{key}")).await.unwrap();
        let stored = kv.unwrap_or_else(|| panic!("{line}: nothing there")).value;
        let protobuf = stored.starts_with(b"k8s\0");
        let peek = if protobuf { codec::peek_type_protobuf } else { codec::peek_type_json };
        assert_eq!(peek(&stored).unwrap(), (stored_version.to_owned(), stored_kind.to_owned()), "{line}");
        let in_json = ["apiextensions.k8s.io", "apiregistration.k8s.io"].contains(&stub.row.group);
        assert_eq!(protobuf, !in_json, "{line}");

        // so that a kind that shares its folder has room
        let name = made.body["metadata"]["name"].as_str().unwrap();
        let gone = cluster.admin("DELETE", &format!("{all}/{name}"), json!({"gracePeriodSeconds": 0})).await;
        assert!([200, 202].contains(&gone.code.as_u16()), "{line}: {}", gone.body);
    }
    assert_eq!(table.next(), None, "kinds that are not there");
}

/// What the release before this one would have written, or an earlier version of this server, is read as well, and the
/// next write puts it right.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_lies_there_as_v1_is_read_and_put_right() {
    const ALL: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings";
    const KEY: &str = "/registry/mutatingadmissionpolicybindings/one";
    let cluster = Cluster::start(Default::default()).await;
    let binding = json!({"metadata": {"name": "one"}, "spec": {"policyName": "p"}});
    let made = cluster.admin("POST", ALL, binding).await;
    assert_eq!(made.code, 201, "{made:?}");
    assert_eq!(made.body["apiVersion"], "admissionregistration.k8s.io/v1");
    let stored = cluster.storage.get(KEY).await.unwrap().0.unwrap();
    let older = String::from("admissionregistration.k8s.io/v1beta1");
    assert_eq!(codec::peek_type_protobuf(&stored.value).unwrap().0, older);

    let mut object = apimachinery::Object::from(made.body.clone());
    object.set_resource_version("");
    let package = "k8s.io.api.admissionregistration.v1";
    let schema = apimachinery::schema::Schema::builtin(package, object.kind()).unwrap();
    let mut bytes = Vec::new();
    codec::encode_protobuf(&object, &schema, &mut bytes);
    let expected = storage::Expect::ModRevision(stored.mod_revision);
    cluster.storage.put_if(KEY, expected, bytes.into(), None).await.unwrap();

    let one = format!("{ALL}/one");
    let read = cluster.admin("GET", &format!("{one}?resourceVersion="), Value::Null).await.body;
    assert_eq!(read["spec"], made.body["spec"]);
    assert_eq!(read["apiVersion"], made.body["apiVersion"]);
    let put = cluster.admin("PUT", &one, read.clone()).await;
    assert_eq!(put.code, 200, "{put:?}");
    let stored = cluster.storage.get(KEY).await.unwrap().0.unwrap();
    assert_eq!(codec::peek_type_protobuf(&stored.value).unwrap().0, older);

    // clients never see the older version
    let accept = [("accept", "application/vnd.kubernetes.protobuf")];
    let answer = cluster.ask("admin", &["system:masters"], "GET", &one, Value::Null, &accept).await;
    let text = answer.body.as_str().unwrap();
    assert!(text.contains("admissionregistration.k8s.io/v1\u{12}"), "{text:?}");
    let again = cluster.admin("PUT", &one, put.body.clone()).await.body;
    assert_eq!(again, put.body);
}
