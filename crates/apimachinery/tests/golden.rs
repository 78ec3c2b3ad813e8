//! Every kind with all fields set, as upstream's own round-trip data has it: each form must give each other.

use std::path::PathBuf;

use apimachinery::codec::{self, decode_json, decode_yaml};
use apimachinery::schema::Schema;
use apimachinery::{GroupVersion, GroupVersionKind, Object};

/// The vectors live beside the repository; without them there is nothing to check.
fn vectors() -> Vec<(GroupVersionKind, PathBuf)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/testdata/api");
    let folders = [folder, PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../../shared/testdata/api")];
    let Some(entries) = folders.iter().find_map(|folder| std::fs::read_dir(folder).ok()) else {
        return Vec::new();
    };
    let paths = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"));
    let mut vectors: Vec<_> = paths
        .map(|path| {
            let stem = path.file_stem().unwrap().to_str().unwrap();
            let (rest, kind) = stem.rsplit_once('.').unwrap();
            let (group, version) = rest.rsplit_once('.').unwrap();
            let group = if group == "core" { "" } else { group };
            (GroupVersion::new(group, version).with_kind(kind), path)
        })
        .collect();
    vectors.sort();
    vectors
}

fn compact(pretty: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut quoted, mut escaped) = (false, false);
    for &byte in pretty {
        if !quoted && byte.is_ascii_whitespace() {
            continue;
        }
        quoted ^= byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        out.push(byte);
    }
    out
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn schema(gvk: &GroupVersionKind) -> Schema {
    Schema::for_kind(gvk).unwrap_or_else(|| panic!("{gvk} has no schema"))
}

#[test]
fn json_and_yaml() {
    let mut wrong = Vec::new();
    for (gvk, path) in vectors() {
        let schema = schema(&gvk);
        let json = std::fs::read(&path).unwrap();
        let yaml = std::fs::read(path.with_extension("yaml")).unwrap();
        let decoded = decode_json(&json, &schema).unwrap();
        assert_eq!(decoded.strict_errors, Vec::<String>::new(), "{gvk}");
        let mut written = Vec::new();
        codec::encode_json(&decoded.object, &schema, &mut written);
        if text(&written) != text(&compact(&json)) {
            wrong.push(format!("{gvk}\n  {}\n  {}", text(&written), text(&compact(&json))));
        }
        let mut written = Vec::new();
        codec::encode_yaml(&decoded.object, &mut written);
        if written != yaml {
            wrong.push(format!("{gvk}\n  {}\n  {}", text(&written), text(&yaml)));
        }
        let from_yaml = decode_yaml(&yaml, &schema).unwrap();
        assert_eq!(from_yaml, decoded, "{gvk}");
        let mut again: Object = decoded.object.clone();
        codec::normalize(&mut again, &schema).unwrap();
        assert_eq!(again, decoded.object, "{gvk}");
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn protobuf() {
    let mut wrong = Vec::new();
    for (gvk, path) in vectors() {
        let schema = schema(&gvk);
        let protobuf = std::fs::read(path.with_extension("pb")).unwrap();
        let from_json = decode_json(&std::fs::read(&path).unwrap(), &schema).unwrap().object;
        let from_protobuf = codec::decode_protobuf(&protobuf, &schema).unwrap();
        if from_protobuf != from_json {
            wrong.push(format!(
                "{gvk} decoded\n  {:?}\n  {:?}",
                from_protobuf.as_value(),
                from_json.as_value()
            ));
        }
        let mut written = Vec::new();
        codec::encode_protobuf(&from_json, &schema, &mut written);
        if written != protobuf {
            wrong.push(format!("{gvk} encoded\n  {}\n  {}", written.escape_ascii(), protobuf.escape_ascii()));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_head_of_an_object_is_the_object_but_for_its_managed_fields() {
    let mut checked = 0;
    let own = {
        let gvk = GroupVersion::new("", "v1").with_kind("ConfigMap");
        let map =
            br#"{"metadata":{"name":"a","namespace":"b","labels":{"c":"d"},"managedFields":[{"manager":"m",
            "fieldsV1":{"f:data":{}}}]},"data":{"k":"v"}}"#;
        (gvk, map.to_vec())
    };
    let from_vectors = vectors().into_iter().map(|(gvk, path)| (gvk, std::fs::read(path).unwrap()));
    for (gvk, json) in from_vectors.chain([own]) {
        let schema = schema(&gvk);
        let object = decode_json(&json, &schema).unwrap().object;
        let mut protobuf = Vec::new();
        codec::encode_protobuf(&object, &schema, &mut protobuf);
        let Some(metadata) = object.as_value().get("metadata") else { continue };
        checked += u32::from(metadata.get("managedFields").is_some());
        let whole = codec::decode_protobuf_head(&protobuf, &schema, true).unwrap();
        let head = codec::decode_protobuf_head(&protobuf, &schema, false).unwrap();
        let expected = codec::decode_protobuf(&protobuf, &schema).unwrap();
        let mut expected = expected.into_value();
        for name in ["kind", "apiVersion"] {
            expected.as_object_mut().unwrap().remove(name);
        }
        if let Some(metadata) = expected["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
        assert_eq!(whole.as_value(), &expected, "{gvk}");
        assert_eq!(head.as_value()["metadata"], expected["metadata"], "{gvk}");
    }
    assert!(checked > 0);
}
