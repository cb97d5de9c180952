//! Prometheus' `promtool`, out of Debian's package: installed, that would start a server, too.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{self, Command},
};

use anyhow::{Context, Result, bail};

use super::{apt, cache};
use crate::shell::{find, run};

const PACKAGE: &str = "prometheus";
/// Where the package has it.
const PLACE: &str = "usr/bin/promtool";

/// Where it is, or will be.
///
/// # Errors
///
/// There is no cache folder.
pub(crate) fn promtool() -> Result<PathBuf> {
    match find("promtool") {
        Some(program) => Ok(program),
        None => Ok(cache()?.join("promtool")),
    }
}

/// Takes it out of its package, unless there is one.
///
/// # Errors
///
/// What is missing, and what brings it.
pub(super) fn bring() -> Result<()> {
    let program = promtool()?;
    if program.is_file() {
        return Ok(());
    }
    eprintln!("setup: {PLACE} of {PACKAGE} -> {}", program.display());
    let partial = program.with_extension(format!("partial-{}", process::id()));
    fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    let taken = take(&partial, &program)
        .context("no promtool; by hand: put the one of prometheus.io into a folder of PATH");
    let _ = fs::remove_dir_all(&partial);
    taken
}

fn take(partial: &Path, program: &Path) -> Result<()> {
    let package = apt::download(PACKAGE, partial)?;
    run(Command::new("dpkg-deb")
        .arg("--extract")
        .args([&package, partial]))?;
    let found = partial.join(PLACE);
    if !found.is_file() {
        bail!("{} has no {PLACE}", package.display());
    }
    fs::rename(&found, program).with_context(|| format!("cannot move to {}", program.display()))
}
