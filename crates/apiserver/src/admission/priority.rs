//! Priority: pods get the number and the preemption policy of their class; one class at most is the default.

use apimachinery::{Object, Status};

use super::{Attributes, Operation};
use crate::kinds::Kind;
use crate::registry::Registry;

const GROUP: &str = "scheduling.k8s.io";

fn classes(registry: &Registry) -> Option<&std::sync::Arc<Kind>> {
    registry.kind(GROUP, "v1", "priorityclasses")
}

pub fn admit(registry: &Registry, attributes: &mut Attributes<'_>) -> Result<(), Status> {
    if !attributes.is("pods", "") {
        return Ok(());
    }
    match attributes.operation {
        Operation::Create => admit_pod(registry, attributes),
        Operation::Update => {
            if let (Some(pod), Some(old)) = (&mut attributes.object, &attributes.old) {
                for key in ["priority", "preemptionPolicy"] {
                    if pod.get(&["spec", key]).is_none()
                        && let Some(value) = old.get(&["spec", key])
                    {
                        pod.set(&["spec", key], value.clone());
                    }
                }
            }
            Ok(())
        }
        Operation::Delete | Operation::Connect => Ok(()),
    }
}

fn admit_pod(registry: &Registry, attributes: &mut Attributes<'_>) -> Result<(), Status> {
    let Some(pod) = &attributes.object else { return Ok(()) };
    let name = pod.get_str(&["spec", "priorityClassName"]).to_owned();
    let class = match name.as_str() {
        "" => default_class(registry),
        name => {
            let found = classes(registry).and_then(|kind| registry.peek(kind, "", name));
            if found.is_none() {
                return Err(attributes.forbidden(format_args!("no PriorityClass with name {name} was found")));
            }
            found
        }
    };
    let value = class.as_ref().and_then(|class| class.get_i64(&["value"])).unwrap_or_default();
    let policy = match class.as_ref().map(|class| class.get_str(&["preemptionPolicy"])) {
        Some(policy) if !policy.is_empty() => policy.to_owned(),
        _ => "PreemptLowerPriority".to_owned(),
    };
    if pod.get_i64(&["spec", "priority"]).is_some_and(|asked| asked != value) {
        return Err(attributes.forbidden(format_args!(
            "the integer value of priority ({}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name",
            pod.get_i64(&["spec", "priority"]).unwrap_or_default()
        )));
    }
    let asked = pod.get_str(&["spec", "preemptionPolicy"]);
    if !asked.is_empty() && asked != policy {
        return Err(attributes.forbidden(format_args!(
            "the string value of PreemptionPolicy ({asked}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        )));
    }
    let Some(pod) = &mut attributes.object else { return Ok(()) };
    if let (true, Some(class)) = (name.is_empty(), &class) {
        pod.set(&["spec", "priorityClassName"], class.name());
    }
    pod.set(&["spec", "priority"], value);
    pod.set(&["spec", "preemptionPolicy"], policy);
    Ok(())
}

/// The class that claims to be the default; of several, the lowest.
fn default_class(registry: &Registry) -> Option<Object> {
    let kind = classes(registry)?;
    let cache = registry.cache.resource(kind)?;
    cache
        .snapshot()
        .iter()
        .filter_map(|entry| entry.object().ok())
        .filter(|class| class.get_bool(&["globalDefault"]))
        .min_by_key(|class| class.get_i64(&["value"]))
}

pub fn validate(registry: &Registry, attributes: &Attributes<'_>) -> Result<(), Status> {
    if !attributes.is_in(GROUP, "priorityclasses", "") || attributes.operation == Operation::Delete {
        return Ok(());
    }
    let Some(class) = attributes.object.as_ref().filter(|class| class.get_bool(&["globalDefault"])) else {
        return Ok(());
    };
    match default_class(registry) {
        Some(other) if other.name() != class.name() => Err(attributes.forbidden(format_args!(
            "PriorityClass {} is already marked as default. Only one default can exist",
            other.name()
        ))),
        _ => Ok(()),
    }
}
