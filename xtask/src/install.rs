//! Installing the agent on this machine.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use crate::{
    build::programs,
    shell::{as_root, cargo, find, root, run},
};

/// Where the unit file expects the agent.
const DEFAULT: &str = "/usr/local/bin/lb-agent";

/// Builds for release and copies program and unit; starts nothing.
///
/// # Errors
///
/// It does not compile, or the places cannot be written.
pub(crate) fn install(prefix: &Path) -> Result<()> {
    let mut build = cargo();
    let built = programs(build.args(["build", "--release", "--bin", "lb-agent"]))?
        .remove("lb-agent")
        .context("lb-agent was not built")?;
    let program = prefix.join("bin/lb-agent");
    let unit = prefix.join("lib/systemd/system/lb-agent.service");
    put(&built, &program, "755")?;

    let text = fs::read_to_string(root().join("lb-agent/dist/lb-agent.service"))?;
    let adapted = built.with_file_name("lb-agent.service");
    fs::write(
        &adapted,
        text.replace(DEFAULT, &program.display().to_string()),
    )?;
    put(&adapted, &unit, "644")?;

    if let Some(systemctl) = find("systemctl").filter(|_| Path::new("/run/systemd/system").is_dir())
    {
        run(as_root(&systemctl, &[])?.arg("daemon-reload"))?;
    }
    println!("next: write /etc/lb-agent/config.toml, then `systemctl enable --now lb-agent`");
    Ok(())
}

/// `install` writes beside and renames, so that a running program can be replaced.
fn put(file: &Path, at: &Path, mode: &str) -> Result<()> {
    let install = find("install").context("`install` is missing; it is part of coreutils")?;
    run(as_root(&install, &[])?
        .args(["-D", "-m", mode])
        .arg(file)
        .arg(at))?;
    println!("installed {}", at.display());
    Ok(())
}
