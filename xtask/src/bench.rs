//! The benchmarks.

use std::{
    path::{Path, PathBuf, absolute},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::{
    build::{floors, programs},
    setup::{self, Need},
    shell::{as_root, cargo},
};

/// A set of benchmarks; their meaning is `lb_tests::bench`'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// The kernel programs, packet by packet
    Packet,
    /// Frames on veth pairs
    Live,
    /// Connections between network namespaces
    Lab,
    /// The agent's own work
    Control,
}

/// What the suites run; each is linked with its whole program optimised, which takes its time.
const PROGRAMS: [&str; 3] = ["bench", "bench-load", "lb-agent"];

/// Builds for release and runs one suite, or all of them; the exit code says whether every bound was kept.
///
/// # Errors
///
/// It does not compile, or cannot be run as root.
pub(crate) fn run(suite: Option<Suite>, json: Option<&Path>) -> Result<ExitCode> {
    setup::bring(if matches!(suite, None | Some(Suite::Lab)) {
        Need::Bench
    } else {
        Need::Lab
    })?;
    let floors = floors()?;
    let mut build = cargo();
    build.args(["build", "--release"]);
    for program in PROGRAMS {
        build.args(["--bin", program]);
    }
    let built = programs(&mut build)?;
    let get = |name: &str| {
        let program = built.get(name).map(PathBuf::as_path);
        program.with_context(|| format!("{name} was not built"))
    };
    let mut bench = as_root(
        get("bench")?,
        &[
            ("LB_AGENT_BIN", get("lb-agent")?),
            ("LB_BENCH_OBJECT", &floors),
        ],
    )?;
    if let Some(suite) = suite.and_then(|suite| suite.to_possible_value()) {
        bench.arg(suite.get_name());
    }
    if let Some(json) = json {
        // It runs in the root of the workspace.
        bench.arg("--json").arg(absolute(json)?);
    }
    Ok(if bench.status()?.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
