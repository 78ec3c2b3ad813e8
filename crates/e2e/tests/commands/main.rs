//! What people type: kubectl's commands over a control plane without nodes, one walk after the other. A walk stays in a
//! namespace of its own; what it needs of the controllers is what they do within a moment.

mod apply;
mod auth;
mod change;
mod create;
mod delete;
mod get;
mod nodes;
mod rollout;
mod walk;
