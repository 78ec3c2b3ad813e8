//! Fuzz targets: functions of bytes that must not panic, and that check what must hold of whatever they let in.
//!
//! [`TARGETS`] is all of them with what they start from. `tests/short_run.rs` gives each a bounded number of mutated
//! inputs ([`mutate`]) in every `make test`; the folder `fuzz/` at the root runs the same functions under libFuzzer.

mod credentials;
mod documents;
pub mod mutate;
mod patches;
mod sample;

/// A function of bytes, and inputs to begin with.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How many inputs the short run gives it.
    pub cases: usize,
}

pub const TARGETS: &[Target] = &[
    Target { name: "json", run: documents::json, seeds: documents::json_seeds, cases: 6000 },
    Target { name: "yaml", run: documents::yaml, seeds: documents::yaml_seeds, cases: 3000 },
    Target { name: "protobuf", run: documents::protobuf, seeds: documents::protobuf_seeds, cases: 6000 },
    Target { name: "apply", run: patches::apply, seeds: patches::apply_seeds, cases: 3000 },
    Target { name: "strategic_merge", run: patches::strategic, seeds: patches::merge_seeds, cases: 3000 },
    Target { name: "merge_patch", run: patches::merge, seeds: patches::merge_seeds, cases: 3000 },
    Target { name: "json_patch", run: patches::json_patch, seeds: patches::json_patch_seeds, cases: 6000 },
    Target { name: "selectors", run: patches::selectors, seeds: patches::selector_seeds, cases: 10000 },
    Target { name: "tokens", run: credentials::tokens, seeds: credentials::token_seeds, cases: 3000 },
    Target {
        name: "certificates",
        run: credentials::certificates,
        seeds: credentials::certificate_seeds,
        cases: 3000,
    },
    Target { name: "requests", run: credentials::requests, seeds: credentials::request_seeds, cases: 3000 },
    Target {
        name: "kubeconfigs",
        run: credentials::kubeconfigs,
        seeds: credentials::kubeconfig_seeds,
        cases: 2000,
    },
];

/// The target of a name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
