//! Volume attachments.

use apimachinery::field::{Error, ErrorList};
use apimachinery::validation as names;
use apimachinery::{Object, Value};
use serde_json::json;

use crate::catalogue::Column;
use crate::printers::{AGE, NAME, column};
use crate::strategy::{Strategy, keep_metadata, keep_spec, keep_status, reset_metadata_too};
use crate::validation::at::At;
use crate::validation::inline_volume_spec;

pub const COLUMNS: &[Column] = &[
    NAME,
    Column {
        format: "name",
        ..column("Attacher", "string", "The driver that attaches.", |a, _| {
            json!(a.get_str(&["spec", "attacher"]))
        })
    },
    column("PV", "string", "The volume.", |a, _| {
        json!(a.get_str(&["spec", "source", "persistentVolumeName"]))
    }),
    column("Node", "string", "The node it is attached to.", |a, _| json!(a.get_str(&["spec", "nodeName"]))),
    column("Attached", "boolean", "Whether it is attached.", |a, _| {
        json!(a.get_bool(&["status", "attached"]))
    }),
    AGE,
];

const MAX_METADATA: usize = 256 * 1024;
const MAX_ERROR_MESSAGE: usize = 1024;

pub struct VolumeAttachments;

impl Strategy for VolumeAttachments {
    fn prepare_for_create(&self, attachment: &mut Object) {
        attachment.set(&["status"], json!({"attached": false}));
    }

    fn prepare_for_update(&self, attachment: &mut Object, old: &Object) {
        keep_status(attachment, old);
    }

    fn validate(&self, attachment: &Object) -> ErrorList {
        let spec = At::root(attachment).child("spec");
        let mut errors = validate(attachment);
        errors.extend(spec.child("attacher").driver_name());
        let volume = spec.child("source").child("persistentVolumeName");
        if volume.is_set() {
            errors.extend(volume.subdomain());
        }
        errors
    }

    /// What is wrong is said twice, as upstream says it.
    fn validate_update(&self, attachment: &Object, old: &Object) -> ErrorList {
        let mut errors = validate(attachment);
        errors.extend(errors.clone());
        if attachment.get(&["spec"]) != old.get(&["spec"]) {
            let spec = At::root(attachment).child("spec");
            errors.push(spec.invalid("field is immutable").showing(shown(&spec)));
        }
        errors
    }

    fn prepare_for_status_update(&self, attachment: &mut Object, old: &Object) {
        keep_spec(attachment, old);
        keep_metadata(attachment, old);
    }

    fn validate_status_update(&self, attachment: &Object, old: &Object) -> ErrorList {
        self.validate_update(attachment, old)
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        reset_metadata_too(subresource)
    }
}

/// A spec as upstream shows it.
fn shown(spec: &At<'_>) -> String {
    let source = spec.child("source");
    let of = |key: &str| source.child(key).value;
    let (volume, inline) = (of("persistentVolumeName"), of("inlineVolumeSpec"));
    let (attacher, node): (Value, Value) = (spec.text("attacher").into(), spec.text("nodeName").into());
    let source = format!("{{\"PersistentVolumeName\":{volume},\"InlineVolumeSpec\":{inline}}}");
    format!("{{\"Attacher\":{attacher},\"Source\":{source},\"NodeName\":{node}}}")
}

fn validate(attachment: &Object) -> ErrorList {
    let spec = At::root(attachment).child("spec");
    let mut errors = ErrorList::new();
    let attacher = spec.child("attacher");
    if attacher.is_empty() {
        errors.push(attacher.required(""));
    }
    let source = spec.child("source");
    let (inline, volume) = (source.child("inlineVolumeSpec"), source.child("persistentVolumeName"));
    let exactly_one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (inline.is_set(), volume.is_set()) {
        (false, false) => errors.push(source.required(exactly_one)),
        (true, true) => errors.push(source.forbidden(exactly_one)),
        (false, true) if volume.is_empty() => {
            errors.push(volume.required("must specify non empty persistentVolumeName"));
        }
        (true, false) => errors.extend(inline_volume_spec(&inline)),
        _ => {}
    }
    errors.extend(spec.child("nodeName").subdomain());
    let status = At::root(attachment).child("status");
    let metadata = status.child("attachmentMetadata");
    let size: usize = metadata.entries().map(|(key, value)| key.len() + value.len()).sum();
    if size > MAX_METADATA {
        errors.push(metadata.too_long(MAX_METADATA));
    }
    for key in ["attachError", "detachError"] {
        errors.extend(volume_error(&status.child(key)));
    }
    errors
}

fn volume_error(error: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let message = error.child("message");
    if message.len() > MAX_ERROR_MESSAGE {
        errors.push(Error::too_long(&message.path, MAX_METADATA));
    }
    let code = error.child("errorCode");
    if code.int().is_some_and(|code| code < 0) {
        errors.push(code.invalid(names::inclusive_range_error(0, i64::from(i32::MAX))));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::forms::check;

    #[test]
    fn attachments() {
        let fine = Object::from(json!({"spec": {
            "attacher": "a.b", "nodeName": "n", "source": {"persistentVolumeName": "v"},
        }}));
        check(VolumeAttachments.validate(&fine), &[]);
        let odd =
            Object::from(json!({"spec": {"nodeName": "n"}, "status": {"attachError": {"errorCode": -1}}}));
        check(
            VolumeAttachments.validate(&odd),
            &[
                "spec.attacher: Required value",
                "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
                "status.attachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                "spec.attacher: Required value",
            ],
        );
        let mut inline = fine.clone();
        inline.set(
            &["spec", "source"],
            json!({"inlineVolumeSpec": {"capacity": {"storage": "1Gi"}, "accessModes": [],
            "csi": {"driver": "a.b", "volumeHandle": "h"}}}),
        );
        check(
            VolumeAttachments.validate(&inline),
            &[
                "spec.source.inlineVolumeSpec.capacity: Forbidden: may not be specified in the context of inline volumes",
                "spec.source.inlineVolumeSpec.accessModes: Required value",
            ],
        );
        let mut moved = fine.clone();
        moved.set(&["spec", "nodeName"], "m");
        moved.set(&["status", "detachError"], json!({"errorCode": -2}));
        const CODE: &str =
            "status.detachError.errorCode: Invalid value: -2: must be between 0 and 2147483647, inclusive";
        check(
            VolumeAttachments.validate_update(&moved, &fine),
            &[
                CODE,
                CODE,
                "spec: Invalid value: {\"Attacher\":\"a.b\",\"Source\":{\"PersistentVolumeName\":\"v\",\"InlineVolumeSpec\":null},\"NodeName\":\"m\"}: field is immutable",
            ],
        );
        moved.set(
            &["metadata"],
            json!({"labels": {"a": "b"}, "annotations": {"a": "b"}, "managedFields": [{}]}),
        );
        VolumeAttachments.prepare_for_status_update(&mut moved, &fine);
        assert_eq!(moved.get(&["metadata"]), Some(&json!({"managedFields": [{}]})));
        assert_eq!(moved.get(&["spec"]), fine.get(&["spec"]));
        assert!(moved.get(&["status", "detachError"]).is_some());
    }
}
