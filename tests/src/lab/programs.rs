//! Where this workspace's programs are: next to the one that runs.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::Host;

/// The path of a program of this crate, built by the same cargo call.
///
/// # Errors
///
/// It is not there.
pub fn program(name: &str) -> Result<String> {
    let mut dir = env::current_exe()?
        .parent()
        .context("this program has no directory")?
        .to_path_buf();
    // Test programs live one level below the others.
    if dir.ends_with("deps") {
        dir.pop();
    }
    found(dir.join(name), "`cargo build --package lb-tests --bins`")
}

/// The agent under test: `LB_AGENT_BIN`, or the one in this target folder.
///
/// # Errors
///
/// It is not there.
pub fn agent() -> Result<String> {
    match env::var_os("LB_AGENT_BIN") {
        Some(path) => found(path.into(), "set LB_AGENT_BIN to an lb-agent"),
        None => program("lb-agent").context("`cargo build --package lb-agent` makes it"),
    }
}

/// The flags that give an agent places of its own on this host, in this cgroup.
pub fn places(host: &Host, cgroup: &Path) -> Vec<String> {
    let text = |path: &Path| path.display().to_string();
    [
        ("--cgroup", text(cgroup)),
        ("--pin-dir", text(host.pins())),
        ("--state-dir", text(&host.dir().join("state"))),
        ("--run-dir", text(&host.dir().join("run"))),
    ]
    .map(|(flag, place)| [flag.to_owned(), place])
    .concat()
}

fn found(path: PathBuf, remedy: &str) -> Result<String> {
    if !path.is_file() {
        bail!("{} is not there; remedy: {remedy}", path.display());
    }
    path.into_os_string()
        .into_string()
        .ok()
        .context("a path that is not UTF-8")
}
