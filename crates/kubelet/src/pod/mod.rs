//! A pod on this node: what should be done for it, and what is said about it. Decisions are pure; the worker
//! carries them out.

pub mod conditions;
pub mod config;
pub mod dns;
pub mod env;
pub mod expansion;
pub mod fields;
pub mod hooks;
pub mod hosts;
pub mod kill;
pub mod phase;
pub mod plan;
pub mod restart;
pub mod security;
pub mod spec;
pub mod start;
pub mod status;
pub mod worker;
