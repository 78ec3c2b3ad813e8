//! Parameters of admission policies: who writes a policy may read all objects of the kind that it takes parameters
//! of, and who writes a binding may read the ones that it names.

use apimachinery::Object;
use apimachinery::field::{Error, Path};

use crate::authentication::{SYSTEM_PRIVILEGED_GROUP, UserInfo};
use crate::authorization::{Attributes as Asked, Authorizer};
use crate::context::Context;
use crate::kinds::Kind;
use crate::registry::Registry;

const GROUP: &str = "admissionregistration.k8s.io";

/// What has to be readable; `*` is everything.
struct Kinds<'a> {
    group: &'a str,
    version: &'a str,
    plural: &'a str,
}

const ALL: Kinds<'static> = Kinds { group: "*", version: "*", plural: "*" };

/// What a field of a policy or a binding may not say to this user; nothing where it said so before.
pub async fn unreadable(
    authorizer: &dyn Authorizer,
    registry: &Registry,
    ctx: &Context,
    kind: &Kind,
    new: &Object,
    old: Option<&Object>,
) -> Option<Error> {
    if kind.resource.group != GROUP || ctx.user.is_in(SYSTEM_PRIVILEGED_GROUP) {
        return None;
    }
    let is_same = |keys: &[&str]| {
        old.is_some_and(|old| keys.iter().all(|key| old.get(&["spec", key]) == new.get(&["spec", key])))
    };
    let (field, why) = match kind.resource.plural {
        "validatingadmissionpolicies" | "mutatingadmissionpolicies" => {
            new.get(&["spec", "paramKind"]).filter(|_| !is_same(&["paramKind"]))?;
            ("paramKind", of_policy(authorizer, registry, ctx, new).await?)
        }
        "validatingadmissionpolicybindings" | "mutatingadmissionpolicybindings" => {
            new.get(&["spec", "paramRef"]).filter(|_| !is_same(&["paramRef", "policyName"]))?;
            ("paramRef", of_binding(authorizer, registry, ctx, kind, new).await?)
        }
        _ => return None,
    };
    Some(Error::forbidden(&Path::new("spec").child(field), why))
}

async fn of_policy(
    authorizer: &dyn Authorizer,
    registry: &Registry,
    ctx: &Context,
    policy: &Object,
) -> Option<String> {
    let text = |key: &str| policy.get_str(&["spec", "paramKind", key]);
    let kinds = kinds(registry, text("apiVersion"), text("kind"));
    let asked = Asked { namespace: "*", name: "*", ..asked(&ctx.user, "get", &kinds) };
    if authorizer.authorize(&asked).await.is_allowed() {
        return None;
    }
    Some(format!(
        "user {} must have \"get\" permission on all objects of the referenced paramKind (kind={}, apiVersion={})",
        shown(&ctx.user),
        text("kind"),
        text("apiVersion")
    ))
}

async fn of_binding(
    authorizer: &dyn Authorizer,
    registry: &Registry,
    ctx: &Context,
    kind: &Kind,
    binding: &Object,
) -> Option<String> {
    let validates = kind.resource.plural.starts_with("validating");
    let policies = if validates { "validatingadmissionpolicies" } else { "mutatingadmissionpolicies" };
    let name = binding.get_str(&["spec", "policyName"]);
    let policy =
        registry.kind(GROUP, kind.resource.version, policies).and_then(|kind| registry.peek(kind, "", name));
    let reference = |key: &str| binding.get_str(&["spec", "paramRef", key]);
    let verb = if reference("name").is_empty() { "list" } else { "get" };
    let of = |policy: &'_ Object, key: &str| policy.get_str(&["spec", "paramKind", key]).to_owned();
    let (version, param) =
        policy.as_ref().map(|policy| (of(policy, "apiVersion"), of(policy, "kind"))).unwrap_or_default();
    let kinds = if param.is_empty() { ALL } else { kinds(registry, &version, &param) };
    let asked = Asked {
        namespace: reference("namespace"),
        name: reference("name"),
        ..asked(&ctx.user, verb, &kinds)
    };
    if authorizer.authorize(&asked).await.is_allowed() {
        return None;
    }
    let user = shown(&ctx.user);
    let of_all = format!(
        "to determine minimum required permissions and user {user} does not have \"{verb}\" permission for all \
         groups, versions and resources"
    );
    Some(if policy.is_none() {
        format!("unable to get policy {name} {of_all}")
    } else if !param.is_empty() && kinds.plural == "*" {
        format!("unable to resolve paramKind &{{{version} {param}}} {of_all}")
    } else if validates {
        format!("user {user} does not have \"{verb}\" permission on the object referenced by paramRef")
    } else {
        // upstream says the one for the other
        format!("user {verb} does not have \"{user}\" permission on the object referenced by paramRef")
    })
}

fn asked<'a>(user: &'a UserInfo, verb: &'a str, kinds: &Kinds<'a>) -> Asked<'a> {
    Asked { api_version: kinds.version, ..Asked::resource(user, verb, kinds.group, kinds.plural) }
}

/// The resource of a kind, or all resources of its group and version when there is none.
fn kinds<'a>(registry: &Registry, api_version: &'a str, kind: &str) -> Kinds<'a> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let mut served = registry.kinds.all().map(|served| served.resource);
    let found = served.find(|one| one.group == group && one.version == version && one.kind == kind);
    Kinds { group, version, plural: found.map_or("*", |resource| resource.plural) }
}

/// A user as Go prints one.
fn shown(user: &UserInfo) -> String {
    let extra: Vec<String> =
        user.extra.iter().map(|(key, values)| format!("{key}:[{}]", values.join(" "))).collect();
    format!("&{{{} {} [{}] map[{}]}}", user.name, user.uid, user.groups.join(" "), extra.join(" "))
}
