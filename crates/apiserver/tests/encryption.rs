//! Secrets that lie encrypted in the store: what is there, keys that come and go, and values that somebody touched.

mod common;

use std::path::Path;

use apiserver::{Config, encryption};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use common::{Answer, Cluster};
use serde_json::{Value, json};
use storage::{Expect, PutOutcome};
use tempfile::TempDir;

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const AT: &str = "/registry/secrets/default";
const NEEDLE: &[u8] = b"in the haystack";

/// The list of providers for secrets: sort, name of the key, and the byte that the key is made of.
fn configure(folder: &Path, providers: &[(&str, &str, u8)]) {
    let provider = |(sort, name, byte): &(&str, &str, u8)| match *sort {
        "identity" => json!({"identity": {}}),
        sort => {
            let secret = BASE64_STANDARD.encode([*byte; 32]);
            json!({ sort: {"keys": [{"name": name, "secret": secret}]} })
        }
    };
    let providers: Vec<Value> = providers.iter().map(provider).collect();
    let config = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": providers}],
    });
    std::fs::write(folder.join("encryption"), config.to_string()).unwrap();
}

async fn start(folder: TempDir, providers: &[(&str, &str, u8)]) -> Cluster {
    configure(folder.path(), providers);
    let options = encryption::Options { file: folder.path().join("encryption"), automatic_reload: true };
    Cluster::start_in(folder, |config: &mut Config| config.encryption = Some(options)).await
}

async fn create(cluster: &Cluster, name: &str) -> Answer {
    let value = BASE64_STANDARD.encode(NEEDLE);
    cluster.admin("POST", SECRETS, json!({"metadata": {"name": name}, "data": {"k": value}})).await
}

async fn get(cluster: &Cluster, name: &str) -> Answer {
    cluster.admin("GET", &format!("{SECRETS}/{name}"), Value::Null).await
}

async fn stored(cluster: &Cluster, name: &str) -> Bytes {
    cluster.storage.get(&format!("{AT}/{name}")).await.unwrap().0.unwrap().value
}

async fn put(cluster: &Cluster, name: &str, value: Bytes) {
    let key = format!("{AT}/{name}");
    let now = cluster.storage.get(&key).await.unwrap().0;
    let expected = now.map_or(Expect::Absent, |kv| Expect::ModRevision(kv.mod_revision));
    let outcome = cluster.storage.put_if(&key, expected, value, None).await.unwrap();
    assert!(matches!(outcome, PutOutcome::Stored(_)));
}

fn is_plain(bytes: &[u8]) -> bool {
    bytes.windows(NEEDLE.len()).any(|part| part == NEEDLE)
}

#[track_caller]
fn fails(answer: &Answer, why: &str) {
    assert_eq!(answer.code, 500, "{answer:?}");
    assert_eq!(answer.body["reason"], "InternalError");
    assert!(answer.message().contains(why), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_until_the_old_one_is_of_no_use() {
    let (one, two) = (("aesgcm", "one", 1), ("secretbox", "two", 2));
    let plain = ("identity", "", 0);
    // a cluster that has lived without
    let cluster = Cluster::start_in(tempfile::tempdir().unwrap(), |_| {}).await;
    assert_eq!(create(&cluster, "a").await.code, 201);
    assert!(is_plain(&stored(&cluster, "a").await));

    let cluster = start(cluster.stop().await, &[one, plain]).await;
    assert_eq!(create(&cluster, "b").await.code, 201);
    assert!(stored(&cluster, "b").await.starts_with(b"k8s:enc:aesgcm:v1:one:"));
    assert!(!is_plain(&stored(&cluster, "b").await));
    let map = json!({"metadata": {"name": "m"}, "data": {"k": String::from_utf8_lossy(NEEDLE)}});
    assert_eq!(cluster.admin("POST", "/api/v1/namespaces/default/configmaps", map).await.code, 201);
    let map = cluster.storage.get("/registry/configmaps/default/m").await.unwrap().0.unwrap();
    assert!(is_plain(&map.value), "config maps are not named");
    let list = cluster.admin("GET", SECRETS, Value::Null).await;
    assert_eq!(list.body["items"].as_array().map(Vec::len), Some(2), "both forms are read");

    // what lies there as it should no longer is written anew by an update that changes nothing
    let before = get(&cluster, "a").await.body;
    let same = cluster.admin("PUT", &format!("{SECRETS}/a"), before.clone()).await;
    assert_eq!(same.code, 200, "{same:?}");
    assert_ne!(same.body["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
    assert!(stored(&cluster, "a").await.starts_with(b"k8s:enc:aesgcm:v1:one:"));
    let again = cluster.admin("PUT", &format!("{SECRETS}/a"), same.body.clone()).await;
    assert_eq!(again.body["metadata"]["resourceVersion"], same.body["metadata"]["resourceVersion"], "once");
    let dry = cluster.admin("PUT", &format!("{SECRETS}/a?dryRun=All"), same.body.clone()).await;
    assert_eq!(dry.code, 200);

    let cluster = start(cluster.stop().await, &[two, one]).await;
    let first = get(&cluster, "a").await;
    assert_eq!(first.code, 200, "{first:?}");
    let empty = cluster.admin("PATCH", &format!("{SECRETS}/a"), json!({})).await;
    assert_eq!(empty.code, 200);
    assert!(stored(&cluster, "a").await.starts_with(b"k8s:enc:secretbox:v1:two:"));

    // one was not written anew in time
    let cluster = start(cluster.stop().await, &[two]).await;
    assert_eq!(get(&cluster, "a").await.code, 200);
    fails(&get(&cluster, "b").await, "Internal error occurred: no matching prefix found");
    fails(
        &cluster.admin("GET", SECRETS, Value::Null).await,
        "Internal error occurred: unable to transform key \"/registry/secrets/default/b\": no matching prefix found",
    );
    fails(
        &cluster.admin("GET", "/api/v1/secrets?resourceVersion=0", Value::Null).await,
        "unable to transform key",
    );
    assert_eq!(cluster.admin("GET", "/api/v1/namespaces/kube-system/secrets", Value::Null).await.code, 200);
    fails(&create(&cluster, "b").await, "no matching prefix found");
    fails(&cluster.admin("PATCH", &format!("{SECRETS}/b"), json!({})).await, "no matching prefix found");
    fails(&cluster.admin("DELETE", &format!("{SECRETS}/b"), Value::Null).await, "no matching prefix found");

    // and all the way back
    let cluster = start(cluster.stop().await, &[plain, two, one]).await;
    for name in ["a", "b"] {
        assert_eq!(cluster.admin("PATCH", &format!("{SECRETS}/{name}"), json!({})).await.code, 200);
        assert!(is_plain(&stored(&cluster, name).await), "{name}");
    }
    let cluster = Cluster::start_in(cluster.stop().await, |_| {}).await;
    assert_eq!(get(&cluster, "b").await.body["data"]["k"], BASE64_STANDARD.encode(NEEDLE));
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_somebody_touched_are_not_believed() {
    let cluster = start(tempfile::tempdir().unwrap(), &[("aesgcm", "one", 1)]).await;
    for name in ["a", "b"] {
        assert_eq!(create(&cluster, name).await.code, 201);
    }
    let good = stored(&cluster, "a").await;
    let until = async |name: &str, code: u16| {
        let wanted = async {
            while get(&cluster, name).await.code.as_u16() != code {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), wanted).await.expect("in time");
        get(&cluster, name).await
    };
    const FAILED: &str = "cipher: message authentication failed";
    // a value moved to the place of another
    put(&cluster, "b", good.clone()).await;
    fails(&until("b", 500).await, FAILED);
    fails(&cluster.admin("GET", SECRETS, Value::Null).await, "\"/registry/secrets/default/b\"");
    // one that was changed
    let mut changed = good.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    put(&cluster, "a", changed.into()).await;
    fails(&until("a", 500).await, FAILED);
    // one that was never sealed, put there by whoever can write to the store
    put(&cluster, "c", Bytes::from_static(b"k8s\0anything")).await;
    fails(&until("c", 500).await, "no matching prefix found");
    // what is put right is right again
    put(&cluster, "a", good).await;
    assert_eq!(until("a", 200).await.body["data"]["k"], BASE64_STANDARD.encode(NEEDLE));
    for name in ["b", "c"] {
        let key = format!("{AT}/{name}");
        let kv = cluster.storage.get(&key).await.unwrap().0.unwrap();
        cluster.storage.delete_if(&key, kv.mod_revision).await.unwrap();
        until(name, 404).await;
    }
    assert_eq!(cluster.admin("GET", SECRETS, Value::Null).await.code, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_or_a_bad_file_is_found_out() {
    let cluster = start(tempfile::tempdir().unwrap(), &[("aesgcm", "one", 1)]).await;
    assert_eq!(create(&cluster, "a").await.code, 201);
    let cluster = start(cluster.stop().await, &[("aesgcm", "one", 9)]).await;
    fails(&get(&cluster, "a").await, "cipher: message authentication failed");
    let cluster = start(cluster.stop().await, &[("aesgcm", "other", 1)]).await;
    fails(&get(&cluster, "a").await, "no matching key was found for the provided AES transformer");
    // without the file everything that is sealed is out of reach, and nothing else
    let cluster = Cluster::start_in(cluster.stop().await, |_| {}).await;
    fails(&get(&cluster, "a").await, "identity transformer tried to read encrypted data");
    assert_eq!(create(&cluster, "plain").await.code, 201);
    assert_eq!(get(&cluster, "plain").await.code, 200);

    let folder = cluster.stop().await;
    std::fs::write(folder.path().join("encryption"), "kind: EncryptionConfiguration").unwrap();
    let options = encryption::Options { file: folder.path().join("encryption"), automatic_reload: false };
    let error = encryption::Encryption::start(&options, &Default::default()).err().unwrap();
    assert!(error.contains("Object 'apiVersion' is missing"), "{error}");
    let options = encryption::Options { file: folder.path().join("nothing"), automatic_reload: false };
    let error = encryption::Encryption::start(&options, &Default::default()).err().unwrap();
    assert!(error.contains("error reading encryption provider configuration file"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_is_followed() {
    let cluster = start(tempfile::tempdir().unwrap(), &[("aesgcm", "one", 1)]).await;
    assert_eq!(create(&cluster, "first").await.code, 201);
    configure(cluster.path(), &[("aesgcm", "two", 2), ("aesgcm", "one", 1)]);
    let mut number = 0;
    let followed = async {
        loop {
            number += 1;
            let name = format!("s{number}");
            assert_eq!(create(&cluster, &name).await.code, 201);
            if stored(&cluster, &name).await.starts_with(b"k8s:enc:aesgcm:v1:two:") {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), followed).await.expect("in time");
    assert_eq!(get(&cluster, "first").await.code, 200, "the old key is still there");
    let health = cluster.admin("GET", "/livez/kms-providers", Value::Null).await;
    assert_eq!((health.code.as_u16(), health.body.as_str()), (200, Some("ok")));
}
