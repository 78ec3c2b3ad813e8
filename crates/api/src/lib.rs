//! The catalogue: every built-in resource as data plus the strategy that holds its rules. No IO.
//!
//! A resource is a row of a group's table ([`catalogue`]); where it has rules of its own, a [`Strategy`] holds them.

pub mod admissionregistration;
pub mod apiextensions;
pub mod apiregistration;
pub mod apps;
pub mod authentication;
pub mod authorization;
pub mod autoscaling;
pub mod batch;
pub mod catalogue;
pub mod certificates;
pub mod coordination;
pub mod core;
pub mod discovery;
pub mod events;
pub mod flowcontrol;
pub mod networking;
pub mod node;
pub mod policy;
pub mod printers;
pub mod rbac;
pub mod resource;
pub mod scheduling;
pub mod storage;
pub mod strategy;
pub mod validation;

pub use catalogue::{Access, Column, Resource, StoredAs, Subresource, catalogue};
pub use strategy::{Dependents, Grace, Requester, Strategy};
