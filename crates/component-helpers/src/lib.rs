//! Facts that several components need about pods and nodes.
