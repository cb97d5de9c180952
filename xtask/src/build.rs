//! Building the agent and the test programs.

use std::{
    collections::BTreeMap,
    env,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    setup,
    shell::{as_root, cargo, run},
};

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

/// Builds the benchmarks' own kernel programs.
///
/// # Errors
///
/// They do not compile.
pub(crate) fn floors() -> Result<PathBuf> {
    kernel("lb-bench", "lb-bench", &[], &[])
}

/// Builds the agent's kernel programs as they are with the feature `trace`, to say in words what they do.
///
/// # Errors
///
/// They do not compile.
pub(crate) fn words() -> Result<PathBuf> {
    let features = ["--features", "lb-ebpf/trace"];
    kernel("lb-words", "lb-ebpf", &features, &["-Ctarget-cpu=v3"])
}

/// Builds a program of lb-ebpf as `lb-agent/build.rs` builds the agent's, in a folder of its own beside this program's:
/// `RUSTC_BOOTSTRAP` would have everything in a shared one compiled anew.
fn kernel(dir: &str, program: &str, features: &[&str], flags: &[&str]) -> Result<PathBuf> {
    let linker = setup::cache()?.join("bpf-linker");
    let linker = format!("-Clinker={}", linker.display());
    let always = [
        "--cfg=bpf_target_arch=\"x86_64\"",
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        &linker,
    ];
    let me = env::current_exe()?;
    let target = me.ancestors().nth(2);
    let target = target.context("cargo puts programs into a folder")?;
    let mut build = cargo();
    build
        .args(["build", "--package", "lb-ebpf", "--bin", program])
        .args(features)
        .args(["--release", "--target", "bpfel-unknown-none"])
        .args(["-Z", "build-std=core", "--locked", "--target-dir"])
        .arg(target.join(dir))
        .env("RUSTC_BOOTSTRAP", "1")
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            [&always, flags].concat().join("\x1f"),
        );
    programs(&mut build)?
        .remove(program)
        .with_context(|| format!("{program} was not built"))
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
