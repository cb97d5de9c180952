//! Installing the agent on this machine.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{
    build::programs,
    shell::{as_root, cargo, find, root, run},
};

/// Where the unit file expects the agent.
const DEFAULT: &str = "/usr/local/bin/lb-agent";
/// In `lb-agent/dist`.
const UNITS: [&str; 2] = ["lb-agent.service", "lb-agent-dns.socket"];

/// Shells, and where below `share` they look.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "bash-completion/completions/lb-agent"),
    ("zsh", "zsh/site-functions/_lb-agent"),
    ("fish", "fish/vendor_completions.d/lb-agent.fish"),
];

/// Builds for release, copies program, manual, completions and units, and has systemd verify these; starts nothing.
///
/// # Errors
///
/// It does not compile, the places cannot be written, or systemd finds fault with a unit.
pub(crate) fn install(prefix: &Path) -> Result<()> {
    let mut build = cargo();
    let built = programs(build.args(["build", "--release", "--bin", "lb-agent"]))?
        .remove("lb-agent")
        .context("lb-agent was not built")?;
    let (program, units) = (
        prefix.join("bin/lb-agent"),
        prefix.join("lib/systemd/system"),
    );
    put(&built, &program, "755")?;
    put_manual(&built, prefix)?;
    for unit in UNITS {
        let text = fs::read_to_string(root().join("lb-agent/dist").join(unit))?;
        let adapted = built.with_file_name(unit);
        fs::write(
            &adapted,
            text.replace(DEFAULT, &program.display().to_string()),
        )?;
        put(&adapted, &units.join(unit), "644")?;
    }
    match find("systemd-analyze") {
        Some(analyze) => {
            let installed = UNITS.map(|unit| units.join(unit));
            run(Command::new(analyze).arg("verify").args(installed))?;
            println!("systemd-analyze verify: nothing to say about the units");
        }
        None => println!("systemd-analyze is missing here; the units are not verified"),
    }

    if let Some(systemctl) = find("systemctl").filter(|_| Path::new("/run/systemd/system").is_dir())
    {
        run(as_root(&systemctl, &[])?.arg("daemon-reload"))?;
    }
    println!(
        "next: write /etc/lb-agent/config.toml, then `systemctl enable --now lb-agent`; with lb-agent-dns.socket \
         enabled too, DNS queries wait while the agent restarts"
    );
    Ok(())
}

/// The manual pages and what makes shells complete, which the program itself prints.
fn put_manual(built: &Path, prefix: &Path) -> Result<()> {
    let made = built.with_file_name("man1");
    run(Command::new(built).args(["man", "--dir"]).arg(&made))?;
    for page in fs::read_dir(&made)? {
        let page = page?;
        let at = prefix.join("share/man/man1").join(page.file_name());
        put(&page.path(), &at, "644")?;
    }
    for (shell, at) in COMPLETIONS {
        let script = Command::new(built).args(["completions", shell]).output()?;
        ensure!(
            script.status.success(),
            "there are no completions for {shell}"
        );
        let made = built.with_file_name(format!("completions.{shell}"));
        fs::write(&made, script.stdout)?;
        put(&made, &prefix.join("share").join(at), "644")?;
    }
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
