//! Who makes a request.

mod user;

pub use user::*;
