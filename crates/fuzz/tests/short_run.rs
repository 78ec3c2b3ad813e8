//! A short run of every fuzz target: so many inputs, not so much time. `XEBEC_FUZZ_SEED` and `XEBEC_FUZZ_CASES` make it
//! another or a longer one; inputs in `regressions/<target>/` are always shown first.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fuzz::mutate::{Random, mutated};
use fuzz::{TARGETS, Target};

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Inputs that once found something.
fn regressions(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions").join(target.name);
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut inputs: Vec<_> = files.map(|path| (path.clone(), std::fs::read(path).expect("a file"))).collect();
    inputs.sort();
    inputs
}

/// What a target makes of an input: nothing, or the panic's words.
fn show(target: &Target, input: &[u8]) -> Option<String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let panic = outcome.err()?;
    let words = panic.downcast_ref::<String>().cloned();
    Some(words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned())).unwrap_or_default())
}

fn run(target: &Target) {
    for (path, input) in regressions(target) {
        if let Some(words) = show(target, &input) {
            panic!("{} has come back: {words}", path.display());
        }
    }
    let seeds = (target.seeds)();
    for (index, seed) in seeds.iter().enumerate() {
        if let Some(words) = show(target, seed) {
            panic!("seed {index} of {}: {words}", target.name);
        }
    }
    let cases = number("XEBEC_FUZZ_CASES").map_or(target.cases, |cases| cases as usize);
    let mut random = Random::new(number("XEBEC_FUZZ_SEED").unwrap_or(1));
    for case in 0..cases {
        let input = mutated(&mut random, &seeds);
        if let Some(words) = show(target, &input) {
            let kept = std::env::temp_dir().join(format!("xebec-fuzz-{}-{case}", target.name));
            std::fs::write(&kept, &input).expect("a place for the input");
            panic!(
                "case {case} of {} found something: {words}\nthe input is in {}; once it is understood, it belongs into {}/regressions/{}/",
                target.name,
                kept.display(),
                env!("CARGO_MANIFEST_DIR"),
                target.name,
            );
        }
    }
}

macro_rules! short_runs {
    ($($name:ident)*) => {
        const RUN: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                run(fuzz::target(stringify!($name)).expect("a target of this name"));
            }
        )*
    };
}

short_runs!(json yaml protobuf apply strategic_merge merge_patch json_patch selectors tokens certificates requests kubeconfigs);

#[test]
fn every_target_has_its_run() {
    assert_eq!(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), RUN);
    let manifest = include_str!("../../../fuzz/Cargo.toml");
    let binaries = manifest.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    assert_eq!(binaries.skip(1).collect::<Vec<_>>(), RUN, "under libFuzzer too");
}

#[test]
fn a_fault_is_found() {
    fn faulty(input: &[u8]) {
        let text = String::from_utf8_lossy(input);
        assert!(!text.contains("$patch") || !text.contains("null"), "two tokens met");
    }
    let target =
        Target { name: "faulty", run: faulty, seeds: || vec![b"{\"a\": 1}".to_vec()], cases: 200_000 };
    let seeds = (target.seeds)();
    let mut random = Random::new(1);
    let found = (0..target.cases).any(|_| show(&target, &mutated(&mut random, &seeds)).is_some());
    assert!(found, "the mutator is too weak");
}
