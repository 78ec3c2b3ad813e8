//! Facts about pods that several controllers judge by, and pods made from templates.

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;

/// The pod's condition of a type, when it is true.
fn condition_since(pod: &Pod, kind: &str) -> Option<Option<Timestamp>> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True")?;
    Some(found.last_transition_time.as_ref().map(|time| time.0))
}

pub fn is_ready(pod: &Pod) -> bool {
    condition_since(pod, "Ready").is_some()
}

/// Whether a pod has been ready for so many seconds. The error says in how many it will have been.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Result<bool, i64> {
    let Some(since) = condition_since(pod, "Ready") else { return Ok(false) };
    if min_ready_seconds <= 0 {
        return Ok(true);
    }
    let Some(since) = since else { return Ok(false) };
    let left = i64::from(min_ready_seconds) - (now.as_second() - since.as_second());
    if left <= 0 { Ok(true) } else { Err(left) }
}

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

pub fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Neither ended nor on its way out.
pub fn is_active(pod: &Pod) -> bool {
    !has_ended(pod) && pod.metadata.deletion_timestamp.is_none()
}

pub fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// A pod of a template, named after its owner.
pub fn from_template(template: &PodTemplateSpec, namespace: &str, owner: &OwnerReference) -> Pod {
    let of_template = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            namespace: Some(namespace.to_owned()),
            generate_name: Some(format!("{}-", owner.name)),
            labels: of_template.labels,
            annotations: of_template.annotations,
            finalizers: of_template.finalizers,
            owner_references: Some(vec![owner.clone()]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}
