//! The benchmarks: `cargo xtask bench [packet|live|lab|control] [--json FILE]`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, ValueEnum as _};
use lb_tests::bench::{
    Suite,
    report::{Report, machine},
};

/// Measures, and holds the figures against their bounds.
#[derive(Parser)]
struct Flags {
    /// The suite; all of them if absent
    suite: Option<Suite>,
    /// Write the results here as well, for machines
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let flags = Flags::parse();
    let suites = match flags.suite {
        Some(suite) => vec![suite],
        None => Suite::value_variants().to_vec(),
    };
    println!("{}", machine());
    let mut report = Report::default();
    let mut broken = false;
    for suite in suites {
        // A suite that breaks off does not take the others' figures with it.
        if let Err(error) = suite.run(&mut report) {
            eprintln!("error: {error:#}");
            broken = true;
        }
    }
    println!("{}", report.table());
    if let Some(path) = &flags.json {
        report.write(path)?;
    }
    let kept = report.cases().iter().all(|case| case.met() != Some(false));
    Ok(if kept && !broken {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
