//! Repository chores, one subcommand each: `cargo run -p xtask -- <chore> [arguments]`.

mod conformance;
mod facts;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "usage: xtask tidy\n       xtask conformance\n       xtask facts <folder with fields.tsv, types.tsv, enums.tsv> <table file to write>";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["facts", folder, table] => facts::write_table(folder.as_ref(), table.as_ref()),
        ["tidy"] => tidy::check(),
        ["conformance"] => conformance::print(concat!(env!("CARGO_MANIFEST_DIR"), "/../..").as_ref()),
        _ => Err(anyhow::anyhow!(USAGE)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
