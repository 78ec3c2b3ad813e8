//! What a plugin says when it does not say yes.

use std::borrow::Cow;

use smallvec::SmallVec;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Something broke; the pod is tried again after its back-off.
    Error,
    /// The pod does not fit now; removing other pods might help.
    Unschedulable,
    /// The pod does not fit, whichever pods were removed.
    UnschedulableAndUnresolvable,
}

/// A refusal or a failure, with the reasons users read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub code: Code,
    /// The plugin that said so; the framework fills it in.
    pub plugin: &'static str,
    pub reasons: SmallVec<[Cow<'static, str>; 1]>,
}

impl Status {
    pub fn new(code: Code, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code, plugin: "", reasons: SmallVec::from([reason.into()]) }
    }

    pub fn error(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Error, reason)
    }

    pub fn unschedulable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Unschedulable, reason)
    }

    pub fn unresolvable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::UnschedulableAndUnresolvable, reason)
    }

    pub fn with_plugin(mut self, plugin: &'static str) -> Self {
        self.plugin = plugin;
        self
    }

    /// Whether the pod was turned away, as opposed to something having gone wrong.
    pub fn is_rejected(&self) -> bool {
        self.code != Code::Error
    }

    pub fn message(&self) -> String {
        self.reasons.join(", ")
    }
}
