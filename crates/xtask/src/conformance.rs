//! How many of upstream's conformance tests a test of ours covers, by `crates/e2e/conformance.tsv`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};

const TABLE: &str = "crates/e2e/conformance.tsv";

/// Counts by the group that a test belongs to: all, and those that are covered.
#[derive(Debug, Default, PartialEq)]
pub struct Counts(BTreeMap<String, [usize; 2]>);

/// Reads the table; an error where a row is none, or names a test that is not there.
pub fn count(root: &Path) -> anyhow::Result<Counts> {
    let text = std::fs::read_to_string(root.join(TABLE)).with_context(|| TABLE.to_owned())?;
    count_of(&text, |file, test| {
        let source = std::fs::read_to_string(root.join("crates").join(file)).unwrap_or_default();
        [format!("fn {test}("), format!("def {test}(")].iter().any(|start| source.contains(start))
    })
}

fn count_of(text: &str, there: impl Fn(&str, &str) -> bool) -> anyhow::Result<Counts> {
    let mut counts = Counts::default();
    let rows = text.lines().filter(|line| !line.starts_with('#')).skip(1);
    for row in rows {
        let [name, since, covered] = row.split('\t').collect::<Vec<_>>()[..] else {
            bail!("{TABLE}: not three columns: {row}");
        };
        if !since.trim_start_matches('v').starts_with("1.") {
            bail!("{TABLE}: no version: {row}");
        }
        for cover in covered.split(' ').filter(|cover| !cover.is_empty()) {
            let (file, test) = cover.split_once("::").unwrap_or_default();
            if !there(file, test) {
                bail!("{TABLE}: there is no test {cover}, which {name:?} names");
            }
        }
        let group = name.split_once(']').map_or(name, |(group, _)| group).trim_start_matches('[');
        let entry = counts.0.entry(group.to_owned()).or_default();
        entry[0] += 1;
        entry[1] += usize::from(!covered.is_empty());
    }
    Ok(counts)
}

/// Prints the counts.
pub fn print(root: &Path) -> anyhow::Result<()> {
    let counts = count(root)?;
    let mut sum = [0, 0];
    for (group, [all, covered]) in &counts.0 {
        println!("{group:<24} {covered:>3} of {all:>3}");
        sum = [sum[0] + all, sum[1] + covered];
    }
    println!("{:<24} {:>3} of {:>3}", "conformance coverage", sum[1], sum[0]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_and_tests_must_be_there() {
        let there = |file: &str, test: &str| (file, test) == ("a.rs", "yes");
        let table = |row: &str| format!("# about\ntest\tsince\tcovered by\n{row}\n[sig-b] other\tv1.9\t\n");
        let counts = count_of(&table("[sig-a] one\tv1.9, v1.18\ta.rs::yes"), there).expect("a table");
        assert_eq!(counts.0, BTreeMap::from([("sig-a".to_owned(), [1, 1]), ("sig-b".to_owned(), [1, 0])]));
        for row in ["[sig-a] one\tv1.9\ta.rs::no", "[sig-a] one\tv1.9", "[sig-a] one\tsoon\t"] {
            assert!(count_of(&table(row), there).is_err(), "{row}");
        }
    }
}
