//! OwnerReferencesPermissionEnforcement: who names owners of an object may delete it, and who keeps an owner from
//! being deleted may write that owner's finalizers.

use apimachinery::{Object, Status, Value};

use super::{Attributes, Operation};
use crate::authorization::{Attributes as Asked, Authorizer, Verdict};
use crate::context::Context;
use crate::registry::Registry;

pub async fn validate(
    authorizer: &dyn Authorizer,
    registry: &Registry,
    ctx: &Context,
    attributes: &Attributes<'_>,
) -> Result<(), Status> {
    // the status of a pod cannot change its owners
    if attributes.operation == Operation::Delete || attributes.is("pods", "status") {
        return Ok(());
    }
    let new = owners(attributes.object.as_ref());
    let old = owners(attributes.old.as_ref());
    if new == old {
        return Ok(());
    }
    let resource = attributes.kind.resource;
    let asked = Asked {
        namespace: &attributes.namespace,
        name: &attributes.name,
        api_version: resource.version,
        subresource: attributes.subresource,
        ..Asked::resource(&ctx.user, "delete", resource.group, resource.plural)
    };
    let verdict = authorizer.authorize(&asked).await;
    if !verdict.is_allowed() {
        let why = shown("cannot set an ownerRef on a resource you can't delete", &verdict);
        return Err(attributes.forbidden(why));
    }
    for reference in newly_blocking(new, old) {
        let text = |key: &str| reference.get(key).and_then(Value::as_str).unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let mapped = mapped(registry, group, version, kind);
        if mapped.is_empty() {
            return Err(attributes.forbidden(format_args!(
                "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion \
                 {api_version} Kind {kind}: no matches for kind {kind:?} in version {api_version:?}"
            )));
        }
        for resource in mapped {
            let asked = Asked {
                namespace: if resource.namespaced { &attributes.namespace } else { "" },
                name: text("name"),
                api_version: resource.version,
                subresource: "finalizers",
                ..Asked::resource(&ctx.user, "update", resource.group, resource.plural)
            };
            let verdict = authorizer.authorize(&asked).await;
            if !verdict.is_allowed() {
                let what = "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on";
                return Err(attributes.forbidden(shown(what, &verdict)));
            }
        }
    }
    Ok(())
}

/// The resources of a kind.
fn mapped(registry: &Registry, group: &str, version: &str, kind: &str) -> Vec<&'static api::Resource> {
    let all = registry.kinds.all().map(|served| served.resource);
    all.filter(|one| one.group == group && one.version == version && one.kind == kind).collect()
}

/// Upstream says the authorizer's reason and its error, of which there is none.
fn shown(what: &str, verdict: &Verdict) -> String {
    format!("{what}: {}, <nil>", verdict.reason)
}

fn owners(object: Option<&Object>) -> &[Value] {
    object.map(Object::owner_references).unwrap_or_default()
}

/// References that block and are new, or did not block before.
fn newly_blocking<'a>(new: &'a [Value], old: &[Value]) -> Vec<&'a Value> {
    let blocks = |reference: &Value| reference["blockOwnerDeletion"] == true;
    let begins = |reference: &&Value| {
        let before = old.iter().find(|old| old["uid"] == reference["uid"]);
        blocks(reference) && !before.is_some_and(blocks)
    };
    new.iter().filter(begins).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_that_begin_to_block() {
        let reference = |uid: &str, blocks: Option<bool>| json!({"uid": uid, "blockOwnerDeletion": blocks});
        let (yes, no, unset) =
            (reference("a", Some(true)), reference("a", Some(false)), reference("a", None));
        for (old, new, count) in [
            (vec![], vec![&yes], 1),
            (vec![], vec![&no, &unset], 0),
            (vec![&yes], vec![&yes], 0),
            (vec![&no], vec![&yes], 1),
            (vec![&unset], vec![&yes], 1),
            (vec![&yes], vec![], 0),
        ] {
            let owned = |list: Vec<&Value>| list.into_iter().cloned().collect::<Vec<_>>();
            let (old, new) = (owned(old), owned(new));
            assert_eq!(newly_blocking(&new, &old).len(), count, "{old:?} {new:?}");
        }
    }
}
