//! shim
use crate::{Object, Status, schema::Schema};
pub type Reset = &'static [&'static [&'static str]];
pub struct Update<'a> {
    pub live: Option<&'a Object>,
    pub new: Object,
    pub schema: &'a Schema,
    pub manager: &'a str,
    pub now: &'a str,
    pub subresource: &'a str,
    pub reset_fields: Reset,
}
pub fn update(u: Update<'_>) -> Result<Object, Status> {
    Ok(u.new)
}
pub struct Apply<'a> {
    pub live: Option<&'a Object>,
    pub applied: &'a Object,
    pub schema: &'a Schema,
    pub manager: &'a str,
    pub force: bool,
    pub now: &'a str,
    pub subresource: &'a str,
    pub reset_fields: Reset,
}
pub fn apply(a: Apply<'_>) -> Result<Object, Status> {
    Ok(a.applied.clone())
}
