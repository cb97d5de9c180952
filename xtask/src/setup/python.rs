//! What tests run from PyPI, in a virtual environment of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use super::{apt, cache};
use crate::shell::{find, root, run};

/// (program, Debian package).
const PYTHON: &[(&str, &str)] = &[("python3", "python3")];
/// Debian has this part of Python in a package of its own.
const VENV: &str = "python3-venv";

/// An environment, by what it is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Venv {
    /// With what `tests/ecs/requirements.txt` names.
    Ecs,
    /// With what `tests/admin/requirements.txt` names.
    Haproxy,
    /// With what `tests/browser/requirements.txt` names: a package that carries axe-core's script, which is all that is
    /// taken of it.
    Axe,
}

/// The environment with an AWS stand-in.
///
/// # Errors
///
/// There is no cache folder.
pub(crate) fn ecs() -> Result<PathBuf> {
    Venv::Ecs.place()
}

/// The environment with tools for HAProxy.
///
/// # Errors
///
/// There is no cache folder.
pub(crate) fn haproxy() -> Result<PathBuf> {
    Venv::Haproxy.place()
}

/// The script of axe-core, which finds what keeps people from reading a page.
///
/// # Errors
///
/// There is no cache folder.
pub(crate) fn axe() -> Result<PathBuf> {
    let lib = Venv::Axe.place()?.join("lib");
    // The folder between is named by Python's version; before it is there any name does.
    let versions = fs::read_dir(&lib).into_iter().flatten().flatten();
    let mut scripts = versions.map(|version| {
        let packages = version.path().join("site-packages");
        packages.join("axe_playwright_python/axe.min.js")
    });
    Ok(scripts
        .find(|script| script.is_file())
        .unwrap_or_else(|| lib.join("axe.min.js")))
}

// === impl Venv ===

impl Venv {
    fn place(self) -> Result<PathBuf> {
        Ok(cache()?.join(match self {
            Self::Ecs => "python-ecs",
            Self::Haproxy => "python-haproxy",
            Self::Axe => "python-axe",
        }))
    }

    fn wanted(self) -> PathBuf {
        root().join(match self {
            Self::Ecs => "tests/ecs/requirements.txt",
            Self::Haproxy => "tests/admin/requirements.txt",
            Self::Axe => "tests/browser/requirements.txt",
        })
    }
}

/// Makes it, unless it is there with the same requirements.
///
/// # Errors
///
/// What is missing, and the command that brings it.
pub(super) fn bring(venv: Venv) -> Result<()> {
    let wanted = venv.wanted();
    let requirements =
        fs::read_to_string(&wanted).with_context(|| format!("no {}", wanted.display()))?;
    let place = venv.place()?;
    let installed = place.join("requirements.txt");
    if fs::read_to_string(&installed).is_ok_and(|there| there == requirements) {
        return Ok(());
    }
    apt::bring(PYTHON)?;
    if !has_venv() {
        apt::install(&[VENV])?;
    }
    eprintln!(
        "setup: installing into {}:\n{requirements}",
        place.display()
    );
    let python = find("python3").context("python3 is not installed")?;
    run(Command::new(python)
        .args(["-m", "venv", "--clear"])
        .arg(&place))?;
    install(venv, &place, &wanted)?;
    fs::write(&installed, requirements)
        .with_context(|| format!("cannot write {}", installed.display()))
}

fn install(venv: Venv, place: &Path, wanted: &Path) -> Result<()> {
    let mut pip = Command::new(place.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet"]);
    if matches!(venv, Venv::Axe) {
        // A whole browser comes with it otherwise.
        pip.arg("--no-deps");
    }
    run(pip.arg("--requirement").arg(wanted)).with_context(|| {
        format!(
            "cannot install {} from PyPI; by hand: {}/bin/pip install -r {0}",
            wanted.display(),
            place.display()
        )
    })
}

/// Without this module an environment has no pip.
fn has_venv() -> bool {
    let mut probe = Command::new("python3");
    probe.args(["-c", "import ensurepip, venv"]);
    probe
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
