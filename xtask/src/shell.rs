//! Running other programs.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// The cargo that runs this, in the root of the workspace.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    cargo.current_dir(root());
    // What `cargo run` says of this program is none of a build script's business: ring's watches some of it, and
    // everything above ring would be compiled anew whenever cargo is called directly, and by us the next time.
    let ours = env::vars_os().map(|(name, _)| name);
    for name in ours.filter(|name| name.to_string_lossy().starts_with("CARGO_PKG_")) {
        cargo.env_remove(name);
    }
    cargo.env_remove("CARGO_MANIFEST_DIR");
    cargo
}

/// Runs to the end with the terminal as it is.
///
/// # Errors
///
/// The program cannot be run, or its exit code is not 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = command
        .status()
        .with_context(|| format!("cannot run `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

/// Runs to the end and returns what it printed, without the blanks around it.
///
/// # Errors
///
/// As [`run`]; or what it printed is not UTF-8.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}` failed ({})", output.status);
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Where a program is: in `PATH`, or where Debian keeps what root needs.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}

/// Whether this process may do everything. Its user id is the owner of its directory in `/proc`.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

/// `program` as root: as it is for root, else through sudo, with the named variables kept.
///
/// # Errors
///
/// Neither root nor sudo.
pub(crate) fn as_root(program: &Path, kept: &[(&str, &Path)]) -> Result<Command> {
    let mut command = if is_root() {
        Command::new("env")
    } else if let Some(sudo) = find("sudo") {
        let mut command = Command::new(sudo);
        command.arg("env");
        command
    } else {
        bail!(
            "{} needs root, and sudo is not installed; run this command as root",
            program.display()
        );
    };
    for (name, value) in kept {
        let mut pair = OsString::from(name);
        pair.push("=");
        pair.push(value);
        command.arg(pair);
    }
    command.arg(program).current_dir(root());
    Ok(command)
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(|word| word.to_string_lossy()));
    words.join(" ")
}
