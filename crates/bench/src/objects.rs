//! The objects that runs are made of, as bytes in either format.

use apimachinery::Object;
use apimachinery::codec;
use apimachinery::schema::Schema;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::target::Format;

/// Writes an object of a core kind.
pub fn encode(format: Format, kind: &str, object: Value) -> anyhow::Result<Bytes> {
    match format {
        Format::Json => Ok(object.to_string().into()),
        Format::Protobuf => {
            let schema = Schema::builtin("k8s.io.api.core.v1", kind)
                .ok_or_else(|| anyhow::anyhow!("{kind} has no protobuf form"))?;
            let mut out = Vec::new();
            codec::encode_protobuf(&Object::from(object), &schema, &mut out);
            Ok(out.into())
        }
    }
}

/// How many groups the objects of a run are divided into, for lists by label.
pub const GROUPS: u64 = 10;

/// A ConfigMap with so many bytes in it. `sequence` tells one version from another.
pub fn config_map(name: &str, number: u64, sequence: u64, size: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"group": format!("g{}", number % GROUPS)}},
        "data": {"sequence": format!("<{sequence}>"), "padding": "x".repeat(size)},
    })
}

/// A pod as small as they come. `spec` is merged into its own.
pub fn pod(name: &str, number: u64, spec: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": format!("app-{}", number % 100)}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "registry.k8s.io/pause:3.10",
                "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}}}],
        },
    });
    if let (Some(own), Value::Object(more)) = (pod["spec"].as_object_mut(), spec) {
        own.extend(more);
    }
    pod
}

/// The sequence number in the encoded form of a [`config_map`], without decoding it.
pub fn sequence(encoded: &[u8]) -> Option<u64> {
    let at = encoded.iter().position(|byte| *byte == b'<').map(|at| at + 1);
    let open = at.or_else(|| {
        // JSON encoders may escape it
        let escaped = b"\\u003c";
        encoded.windows(escaped.len()).position(|window| window == escaped).map(|at| at + escaped.len())
    })?;
    let digits = encoded[open..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&encoded[open..open + digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_found_in_either_format() {
        for format in [Format::Json, Format::Protobuf] {
            let bytes = encode(format, "ConfigMap", config_map("a", 1, 4711, 10)).unwrap();
            assert_eq!(sequence(&bytes), Some(4711), "{format:?}");
        }
        assert_eq!(sequence(br#"{"data":{"sequence":"\u003c12\u003e"}}"#), Some(12));
        assert_eq!(sequence(b"{}"), None);
    }
}
