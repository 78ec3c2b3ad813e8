//! What a run says: a JSON line for each measurement on standard output at once, a table for people on standard error
//! at the end, and a plot when asked for.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::plot::{self, Curve};
use crate::record::Record;

pub struct Report {
    workload: &'static str,
    plot: Option<PathBuf>,
    lines: Mutex<Vec<Map<String, Value>>>,
    curves: Mutex<Vec<Curve>>,
}

impl Report {
    pub fn new(workload: &'static str, plot: Option<&Path>) -> Self {
        Self { workload, plot: plot.map(Path::to_owned), lines: Mutex::default(), curves: Mutex::default() }
    }

    /// Tells one measurement.
    pub fn line(&self, what: &str, members: Map<String, Value>) {
        let mut line =
            Map::from_iter([("workload".to_owned(), json!(self.workload)), ("what".to_owned(), json!(what))]);
        line.extend(members);
        println!("{}", Value::Object(line.clone()));
        let _ = std::io::stdout().flush();
        self.lines.lock().push(line);
    }

    /// Keeps how a measurement went over time, for the plot.
    pub fn curve(&self, what: &str, record: &Record) {
        self.curves.lock().push(Curve { name: what.to_owned(), seconds: record.seconds() });
    }

    /// The table, and the plot where one was asked for.
    pub fn finish(&self) -> anyhow::Result<()> {
        eprint!("{}", table(&self.lines.lock()));
        let Some(path) = &self.plot else { return Ok(()) };
        let svg = plot::svg(&format!("xebec-bench {}", self.workload), &self.curves.lock());
        std::fs::write(path, svg)
            .with_context(|| format!("the plot {} cannot be written", path.display()))?;
        eprintln!("plot: {}", path.display());
        Ok(())
    }
}

/// Columns that every line has something for, in this order, when any has.
const COLUMNS: [&str; 12] = [
    "what",
    "count",
    "per_second",
    "mb_per_second",
    "p50_ms",
    "p90_ms",
    "p99_ms",
    "p99.9_ms",
    "max_ms",
    "value",
    "throttled",
    "failures",
];

fn table(lines: &[Map<String, Value>]) -> String {
    let columns: Vec<&str> =
        COLUMNS.into_iter().filter(|column| lines.iter().any(|line| line.contains_key(*column))).collect();
    let text = |value: Option<&Value>| match value {
        None => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let mut rows: Vec<Vec<String>> = vec![columns.iter().map(|column| (*column).to_owned()).collect()];
    rows.extend(lines.iter().map(|line| columns.iter().map(|column| text(line.get(*column))).collect()));
    let widths: Vec<usize> = (0..columns.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default())
        .collect();
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(index, (cell, width))| match index {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_the_columns_that_are_there() {
        let line = |what: &str, count: u64| {
            Map::from_iter([("what".to_owned(), json!(what)), ("count".to_owned(), json!(count))])
        };
        let text = table(&[line("create", 7), line("get", 1200)]);
        assert_eq!(text, "what    count\ncreate      7\nget      1200\n");
    }
}
