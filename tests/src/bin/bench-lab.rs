//! The lab and control benchmarks.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use lb_tests::bench::{control, lab, report::Report};

/// Measures the ways of the lab, and the control plane.
#[derive(Parser)]
struct Flags {
    /// `lab`, `control`; both if absent
    suite: Option<String>,
    /// Only to see that it runs
    #[arg(long)]
    smoke: bool,
    /// Write the results to a file, too
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> Result<()> {
    let Flags { suite, smoke, json } = Flags::parse();
    let mut report = Report::default();
    let chosen = |name: &str| suite.as_deref().is_none_or(|suite| suite == name);
    if chosen("lab") {
        let effort = if smoke {
            lab::Effort::SMOKE
        } else {
            lab::Effort::FULL
        };
        lab::run(&mut report, &effort)?;
    }
    if chosen("control") {
        let effort = if smoke {
            control::Effort::SMOKE
        } else {
            control::Effort::FULL
        };
        control::run(&mut report, &effort)?;
    }
    println!("{}", report.table());
    json.map_or(Ok(()), |path| report.write(&path))
}
