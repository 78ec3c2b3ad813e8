//! From a request body to an object of the expected kind.

use apimachinery::codec::{self, DecodeError, Decoded};
use apimachinery::schema::Schema;
use apimachinery::{GroupVersion, GroupVersionKind, Object, Status, Value};

use crate::context::{Context, FieldValidation};
use crate::http::negotiate::Format;

/// Decodes a body that should hold `expected`; a body that does not say what it holds is taken at its place's word.
pub fn decode(
    ctx: &Context,
    body: &[u8],
    format: Format,
    schema: &Schema,
    expected: &GroupVersionKind,
    validation: FieldValidation,
) -> Result<Object, Status> {
    let kind = &expected.kind;
    let fail = |why: &dyn std::fmt::Display| {
        Status::bad_request(format!(
            "{kind} in version {:?} cannot be handled as a {kind}: {why}",
            expected.version
        ))
    };
    let decoded = match format {
        Format::Json => codec::decode_json(body, schema),
        Format::Yaml => codec::decode_yaml(body, schema),
        Format::Protobuf => {
            codec::decode_protobuf(body, schema).map(|object| Decoded { object, strict_errors: Vec::new() })
        }
    };
    let Decoded { mut object, strict_errors } = decoded.map_err(|error| match error {
        DecodeError::Syntax(why) if format == Format::Json => {
            unrecognized(kind, body, &format!("couldn't get version/kind; json parse error: {why}"))
        }
        DecodeError::Syntax(why) => unrecognized(kind, body, &why),
        // a wrong type may be right in what the body says it is, and what it says may be of a wrong type itself
        error => match peek_type(body, format) {
            Ok((version, kind)) => {
                check_type(&version, &kind, expected, body).err().unwrap_or_else(|| fail(&error))
            }
            Err(error) => unrecognized(kind, body, &error.to_string()),
        },
    })?;
    check_type(object.api_version(), object.kind(), expected, body)?;
    object.set_type(expected);
    judge(ctx, &strict_errors, validation).map_err(|why| fail(&why))?;
    if let Some(trail) = &ctx.audit {
        trail.request_object(&object);
    }
    Ok(object)
}

/// The body of a delete. The types of its own are registered elsewhere than those of all others.
pub fn delete_options(body: &[u8], format: Format) -> Result<Object, Status> {
    const SCHEME: &str = "pkg/apis/meta/internalversion/scheme/register.go:27";
    let schema = Schema::builtin("k8s.io.apimachinery.pkg.apis.meta.v1", "DeleteOptions")
        .ok_or_else(|| Status::internal("no schema of DeleteOptions"))?;
    let refuse = |error: DecodeError| Status::bad_request(error.to_string());
    let (version, kind) = peek_type(body, format).map_err(refuse)?;
    if !matches!(kind.as_str(), "" | "DeleteOptions") {
        let version = if version.is_empty() { "v1" } else { &version };
        return Err(Status::bad_request(format!(
            "no kind {kind:?} is registered for version {version:?} in scheme {SCHEME:?}"
        )));
    }
    let decoded = match format {
        Format::Json => codec::decode_json(body, &schema).map(|decoded| decoded.object),
        Format::Yaml => codec::decode_yaml(body, &schema).map(|decoded| decoded.object),
        Format::Protobuf => codec::decode_protobuf(body, &schema),
    };
    decoded.map_err(refuse)
}

fn peek_type(body: &[u8], format: Format) -> Result<(String, String), DecodeError> {
    match format {
        Format::Json => codec::peek_type_json(body),
        Format::Yaml => codec::peek_type_yaml(body),
        Format::Protobuf => codec::peek_type_protobuf(body),
    }
}

/// A body of which not even the kind can be told, with how it begins.
fn unrecognized(kind: &str, body: &[u8], why: &str) -> Status {
    const SHOWN: usize = 30;
    let more = if body.len() > SHOWN { " ..." } else { "" };
    let start = &body[..body.len().min(SHOWN)];
    let start = match start {
        [] => "<empty>".to_owned(),
        [b'{', ..] => String::from_utf8_lossy(start).into_owned(),
        _ => start.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {why} ({start}{more})"
    ))
}

/// Refuses, warns of or overlooks fields that the schema does not know.
pub fn judge(ctx: &Context, strict_errors: &[String], validation: FieldValidation) -> Result<(), String> {
    match validation {
        FieldValidation::Strict if !strict_errors.is_empty() => {
            Err(format!("strict decoding error: {}", strict_errors.join(", ")))
        }
        FieldValidation::Warn => {
            strict_errors.iter().for_each(|error| warn_of(ctx, error));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Warns of what is wrong with fields; of what is wrong with YAML line by line.
pub fn warn_of(ctx: &Context, error: &str) {
    match error.strip_prefix("yaml: unmarshal errors:\n") {
        Some(lines) => lines.lines().for_each(|line| ctx.warn(line.trim())),
        None => ctx.warn(error),
    }
}

/// Where upstream's types of all its own groups are registered, as its errors name the place.
const SCHEME: &str = "pkg/api/legacyscheme/scheme.go:30";

/// Whether a body that says its type is of the kind that is expected; what it does not say is as expected.
fn check_type(version: &str, kind: &str, expected: &GroupVersionKind, body: &[u8]) -> Result<(), Status> {
    let wanted = expected.api_version();
    if (version.is_empty() || version == wanted) && (kind.is_empty() || kind == expected.kind) {
        return Ok(());
    }
    let said = said_type(version, kind, expected).map_err(|why| unrecognized(&expected.kind, body, &why))?;
    Err(Status::bad_request(match no_conversion(&said, expected) {
        None => format!(
            "the API version in the data ({}) does not match the expected API version ({wanted})",
            said.api_version()
        ),
        Some(why) => format!(
            "{} in version {:?} cannot be handled as a {}: {why}",
            said.kind, said.version, expected.kind
        ),
    }))
}

fn said_type(version: &str, kind: &str, expected: &GroupVersionKind) -> Result<GroupVersionKind, String> {
    let said = match version {
        "" => expected.group_version(),
        _ => GroupVersion::parse(version)
            .ok_or_else(|| format!("unexpected GroupVersion string: {version}"))?,
    };
    Ok(said.with_kind(if kind.is_empty() { &expected.kind } else { kind }))
}

/// Why an object of one kind cannot be read as one of another; `None` where it is another version of it.
fn no_conversion(said: &GroupVersionKind, expected: &GroupVersionKind) -> Option<String> {
    if Schema::for_kind(said).is_none() {
        let (kind, version) = (&said.kind, said.api_version());
        return Some(format!("no kind {kind:?} is registered for version {version:?} in scheme {SCHEME:?}"));
    }
    if said.kind == expected.kind && said.group == expected.group {
        return None;
    }
    let internal = expected.group.split('.').next().filter(|name| !name.is_empty()).unwrap_or("core");
    let (from, to) = (format!("{}.{}", said.version, said.kind), format!("{internal}.{}", expected.kind));
    Some(format!("converting ({from}) to ({to}): unknown conversion"))
}

/// Why an object that a patch has left is not one of its kind any more.
pub fn other_kind(object: &Value, expected: &GroupVersionKind) -> Option<String> {
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    match said_type(text("apiVersion"), text("kind"), expected) {
        Ok(said) if said == *expected => None,
        Ok(said) => no_conversion(&said, expected),
        Err(why) => Some(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_that_are_nothing_are_shown() {
        let said = |body: &[u8]| unrecognized("Pod", body, "why").message;
        const START: &str = "the object provided is unrecognized (must be of type Pod): why";
        assert_eq!(said(b"{"), format!("{START} ({{)"));
        assert_eq!(said(b""), format!("{START} (<empty>)"));
        assert_eq!(said(b"ab"), format!("{START} (6162)"));
        assert_eq!(said(&[b'{'; 31]), format!("{START} ({} ...)", "{".repeat(30)));
        assert_eq!(said(b"a: b: c"), format!("{START} (613a20623a2063)"));
    }

    #[test]
    fn what_says_it_is_something_else_is_refused() {
        const NOWHERE: &str = "is registered for version";
        let deployment = GroupVersionKind::new("apps", "v1", "Deployment");
        for (version, kind, expected) in [
            ("", "", None),
            ("apps/v1", "", None),
            ("", "Deployment", None),
            ("apps/v1beta1", "Deployment", Some("the API version in the data (apps/v1beta1) does not match the expected API version (apps/v1)".to_owned())),
            ("v1", "Pod", Some("Pod in version \"v1\" cannot be handled as a Deployment: converting (v1.Pod) to (apps.Deployment): unknown conversion".to_owned())),
            ("", "Foo", Some(format!("Foo in version \"v1\" cannot be handled as a Deployment: no kind \"Foo\" {NOWHERE} \"apps/v1\" in scheme {SCHEME:?}"))),
            ("v1", "", Some(format!("Deployment in version \"v1\" cannot be handled as a Deployment: no kind \"Deployment\" {NOWHERE} \"v1\" in scheme {SCHEME:?}"))),
            ("a/b/c", "Deployment", Some("the object provided is unrecognized (must be of type Deployment): unexpected GroupVersion string: a/b/c ({})".to_owned())),
        ] {
            let got = check_type(version, kind, &deployment, b"{}").err().map(|status| status.message);
            assert_eq!(got, expected, "{version} {kind}");
        }
    }
}
