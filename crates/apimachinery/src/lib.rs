//! The object engine: what an API object is, how it is read, written, patched, merged and refused.
//!
//! No IO, no tokio, no HTTP here, and no knowledge of any single resource: everything is driven by the
//! descriptor table ([`schema`]) and works on one tree ([`object::Object`]).

pub mod apply;
pub mod codec;
pub mod diff;
pub mod field;
pub mod group;
pub mod object;
pub mod patch;
pub mod quantity;
pub mod schema;
pub mod selectors;
pub mod status;
pub mod table;
pub mod time;
pub mod validation;

pub use group::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource};
pub use object::Object;
pub use serde_json::Value;
pub use status::{Reason, Status};
