//! The `xebec` binary: arguments and wiring, nothing else.

fn main() {}
