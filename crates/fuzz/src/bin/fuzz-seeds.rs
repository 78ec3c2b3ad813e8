//! Writes what every target begins with into folders, as libFuzzer takes it: `fuzz-seeds fuzz/corpus`.

use std::path::PathBuf;
use std::process::ExitCode;

fn write(folder: PathBuf) -> std::io::Result<()> {
    for target in fuzz::TARGETS {
        let folder = folder.join(target.name);
        std::fs::create_dir_all(&folder)?;
        for (index, seed) in (target.seeds)().iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{index}")), seed)?;
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("fuzz-seeds FOLDER");
        return ExitCode::from(2);
    };
    match write(folder.into()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fuzz-seeds: {error}");
            ExitCode::FAILURE
        }
    }
}
