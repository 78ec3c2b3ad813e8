//! Rights that a write takes besides the one to the write itself.

use api::strategy::Right;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Object, Status};

use crate::authorization::{Attributes, Authorizer};
use crate::context::Context;
use crate::kinds::Kind;

/// What is refused of a write since the user lacks a right.
pub async fn missing(
    authorizer: &dyn Authorizer,
    ctx: &Context,
    kind: &Kind,
    namespace: &str,
    rights: &[Right],
) -> ErrorList {
    let mut errors = ErrorList::new();
    for right in rights {
        let namespace = if right.namespaced { namespace } else { "" };
        if let Err(status) = check(authorizer, ctx, kind, namespace, right).await {
            errors.push(Error::forbidden(&right.path, format!("{}: {}", right.deed, status.message)));
        }
    }
    errors
}

/// Whether who updates an object that is not there may create it.
pub async fn to_create(
    authorizer: &dyn Authorizer,
    ctx: &Context,
    kind: &Kind,
    object: &Object,
) -> Result<(), Status> {
    let right = Right {
        subresource: "",
        verbs: vec!["create".to_owned()],
        name: object.name().to_owned(),
        namespaced: true,
        path: Path::root(),
        deed: String::new(),
    };
    check(authorizer, ctx, kind, object.namespace(), &right).await
}

/// One of the verbs will do; what is said of the first one counts.
async fn check(
    authorizer: &dyn Authorizer,
    ctx: &Context,
    kind: &Kind,
    namespace: &str,
    right: &Right,
) -> Result<(), Status> {
    let resource = kind.resource;
    let mut refusal = None;
    for verb in &right.verbs {
        let asked = Attributes {
            namespace,
            api_version: resource.version,
            subresource: right.subresource,
            name: &right.name,
            ..Attributes::resource(&ctx.user, verb, resource.group, resource.plural)
        };
        let verdict = authorizer.authorize(&asked).await;
        if verdict.is_allowed() {
            return Ok(());
        }
        let why = match verdict.error() {
            Some(error) if verdict.reason.is_empty() => error,
            Some(error) => format!("{error}: {}", verdict.reason),
            None => verdict.reason,
        };
        refusal.get_or_insert_with(|| asked.forbidden(&why));
    }
    refusal.map_or(Ok(()), Err)
}
