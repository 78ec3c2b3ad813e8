//! Label and field selectors: parsing, with upstream's grammar and errors, and matching.

mod fields;
mod labels;

pub use fields::{FieldRequirement, FieldSelector, escape_value};
pub use labels::{LabelSelector, Operator, Requirement};
