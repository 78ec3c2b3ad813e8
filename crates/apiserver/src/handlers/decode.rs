//! From a request body to an object of the expected kind.

use apimachinery::codec::{self, DecodeError, Decoded};
use apimachinery::schema::Schema;
use apimachinery::{GroupVersionKind, Object, Status};

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
        DecodeError::Syntax(why) => unrecognized(kind, body, format, &why),
        error => fail(&error),
    })?;
    check_type(&object, expected)?;
    object.set_type(expected);
    judge(ctx, &strict_errors, validation).map_err(|why| fail(&why))?;
    if let Some(trail) = &ctx.audit {
        trail.request_object(&object);
    }
    Ok(object)
}

/// A body of which not even the kind can be told, with how it begins.
fn unrecognized(kind: &str, body: &[u8], format: Format, why: &str) -> Status {
    const SHOWN: usize = 30;
    let what = if format == Format::Json { "couldn't get version/kind; json parse error: " } else { "" };
    let more = if body.len() > SHOWN { " ..." } else { "" };
    let start = &body[..body.len().min(SHOWN)];
    let start = match start {
        [] => "<empty>".to_owned(),
        [b'{', ..] => String::from_utf8_lossy(start).into_owned(),
        _ => start.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {what}{why} ({start}{more})"
    ))
}

/// Refuses, warns of or overlooks fields that the schema does not know.
pub fn judge(ctx: &Context, strict_errors: &[String], validation: FieldValidation) -> Result<(), String> {
    match validation {
        FieldValidation::Strict if !strict_errors.is_empty() => {
            Err(format!("strict decoding error: {}", strict_errors.join(", ")))
        }
        FieldValidation::Warn => {
            for error in strict_errors {
                ctx.warn(error.as_str());
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn check_type(object: &Object, expected: &GroupVersionKind) -> Result<(), Status> {
    let (version, kind) = (object.api_version(), object.kind());
    let wanted = expected.api_version();
    if !version.is_empty() && version != wanted {
        return Err(Status::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({wanted})"
        )));
    }
    if !kind.is_empty() && kind != expected.kind {
        return Err(Status::bad_request(format!(
            "the kind in the data ({kind}) does not match the expected kind ({})",
            expected.kind
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_that_are_nothing_are_shown() {
        let said = |body: &[u8], format| unrecognized("Pod", body, format, "why").message;
        const START: &str = "the object provided is unrecognized (must be of type Pod): ";
        const JSON: &str = "couldn't get version/kind; json parse error: why";
        assert_eq!(said(b"{", Format::Json), format!("{START}{JSON} ({{)"));
        assert_eq!(said(b"", Format::Json), format!("{START}{JSON} (<empty>)"));
        assert_eq!(said(b"ab", Format::Json), format!("{START}{JSON} (6162)"));
        assert_eq!(said(&[b'{'; 31], Format::Json), format!("{START}{JSON} ({} ...)", "{".repeat(30)));
        assert_eq!(said(b"a: b: c", Format::Yaml), format!("{START}why (613a20623a2063)"));
    }
}
