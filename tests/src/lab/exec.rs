//! Running system tools to completion.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// Runs a tool and returns what it printed.
///
/// # Errors
///
/// The tool is missing, or its exit code is not 0; then the error holds what it wrote to stderr.
pub fn tool(argv: &[&str]) -> Result<String> {
    fed_tool(argv, "")
}

/// As [`tool`], in a network namespace given by its name under `/run/netns`; nothing else is entered.
///
/// # Errors
///
/// As [`tool`].
pub fn tool_in(netns: &str, argv: &[&str]) -> Result<String> {
    let net = format!("--net=/run/netns/{netns}");
    let mut whole = vec!["nsenter", net.as_str()];
    whole.extend(argv);
    tool(&whole)
}

/// `ip -batch` in a network namespace, one command a line, without the leading `ip`.
///
/// # Errors
///
/// As [`tool`]; the commands before the failing one remain done.
pub fn ip_batch(netns: &str, commands: &str) -> Result<()> {
    fed_tool(&["ip", "-n", netns, "-batch", "-"], commands)
        .map(drop)
        .with_context(|| format!("in {netns}:\n{commands}"))
}

/// Runs a tool with `input` as its stdin and returns what it printed.
///
/// # Errors
///
/// As [`tool`].
pub fn fed_tool(argv: &[&str], input: &str) -> Result<String> {
    let (program, args) = argv.split_first().context("no program given")?;
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}; `cargo xtask setup` installs it"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that fails early closes its stdin; its stderr says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{}` failed ({}): {}",
            argv.join(" "),
            output.status,
            stderr.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
