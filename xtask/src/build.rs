//! Building the agent and the test programs.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::shell::{as_root, cargo, run};

/// Builds the agent, with its kernel programs inside.
///
/// # Errors
///
/// It does not compile.
pub(crate) fn agent(release: bool) -> Result<()> {
    let mut build = cargo();
    // All default members are selected, here and in every other command: a crate that is built for one
    // package alone can get other features, and is compiled once more.
    build.args(["build", "--bin", "lb-agent"]);
    if release {
        build.arg("--release");
    }
    run(&mut build)
}

/// Builds everything that the demo runs, and runs it.
///
/// # Errors
///
/// It does not compile, or cannot be run as root.
pub(crate) fn demo() -> Result<ExitCode> {
    let programs = programs(cargo().args(["build", "--bins"]))?;
    let get = |name: &str| {
        programs
            .get(name)
            .with_context(|| format!("{name} was not built"))
    };
    let status = as_root(get("demo")?, &[("LB_AGENT_BIN", get("lb-agent")?)])?.status()?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs a cargo command that builds, and returns the programs it made or found fresh, by target name.
///
/// # Errors
///
/// It does not compile; cargo has said why.
pub(crate) fn programs(build: &mut Command) -> Result<BTreeMap<String, PathBuf>> {
    let output = build
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the build failed");
    }
    Ok(String::from_utf8(output.stdout)?
        .lines()
        .filter_map(program)
        .collect())
}

/// One line of cargo's messages, if it is about a program.
fn program(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = message["executable"].as_str()?;
    Some((message["target"]["name"].as_str()?.to_owned(), path.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_cargos_messages() {
        let made = r#"{"reason":"compiler-artifact","target":{"name":"demo"},"executable":"/t/debug/demo"}"#;
        assert_eq!(program(made), Some(("demo".into(), "/t/debug/demo".into())));
        let library = r#"{"reason":"compiler-artifact","target":{"name":"lib"},"executable":null}"#;
        assert_eq!(program(library), None);
        assert_eq!(program("Compiling"), None);
    }
}
