//! The target whose name the binary has, under libFuzzer.

#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<&fuzz::Target> =
    LazyLock::new(|| fuzz::target(env!("CARGO_BIN_NAME")).expect("binaries are named after targets"));

libfuzzer_sys::fuzz_target!(|input: &[u8]| (TARGET.run)(input));
