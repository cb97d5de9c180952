//! Bringing what builds and tests need. Each part looks first, acts only if something is missing, and says
//! what it does.

mod apt;
mod kernel;
mod linker;
mod promtool;
mod python;
mod toolchain;

pub(crate) use self::{
    kernel::place as oldest_kernel,
    promtool::promtool,
    python::{axe, ecs, haproxy},
};

use std::{env, path::PathBuf};

use anyhow::{Context, Result};

/// What the caller is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Build.
    Build,
    /// Build, and run in the lab.
    Lab,
    /// Build, and compare with others in the lab.
    Bench,
    /// Build, and run a Docker Engine in the lab.
    Docker,
    /// Build, and run an etcd in the lab.
    Etcd,
    /// Build, and run an AWS stand-in in the lab.
    Ecs,
    /// All three.
    Orchestrators,
    /// Build, and run tools for HAProxy and for Prometheus in the lab.
    Haproxy,
    /// Build, and run a browser in the lab.
    Browser,
    /// Build, and run the lab on another kernel.
    Kernel,
}

/// Makes the machine ready.
///
/// # Errors
///
/// What is missing and the command that brings it.
pub(crate) fn bring(need: Need) -> Result<()> {
    let toolchain = toolchain::Toolchain::active()?;
    toolchain.bring_rust_src()?;
    linker::bring(&toolchain, &cache()?)?;
    match need {
        Need::Build => {}
        Need::Lab => apt::bring(apt::LAB)?,
        Need::Bench => apt::bring(&[apt::LAB, apt::BENCH].concat())?,
        Need::Docker => apt::bring(&[apt::LAB, apt::DOCKER].concat())?,
        Need::Etcd => apt::bring(&[apt::LAB, apt::ETCD].concat())?,
        Need::Ecs => {
            apt::bring(apt::LAB)?;
            python::bring(python::Venv::Ecs)?;
        }
        Need::Haproxy => {
            apt::bring(&[apt::LAB, apt::HAPROXY_TOOLS].concat())?;
            python::bring(python::Venv::Haproxy)?;
            promtool::bring()?;
        }
        Need::Orchestrators => {
            apt::bring(&[apt::LAB, apt::DOCKER, apt::ETCD].concat())?;
            python::bring(python::Venv::Ecs)?;
        }
        Need::Browser => {
            apt::bring(&[apt::LAB, apt::BROWSER].concat())?;
            python::bring(python::Venv::Axe)?;
        }
        Need::Kernel => {
            apt::bring(&[apt::LAB, apt::EMULATOR].concat())?;
            kernel::bring()?;
        }
    }
    Ok(())
}

/// `LB_AGENT_CACHE`, else `lb-agent` in the user's cache folder.
///
/// # Errors
///
/// There is no such folder.
pub(crate) fn cache() -> Result<PathBuf> {
    let set = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("LB_AGENT_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("lb-agent")))
        .or_else(|| Some(set("HOME")?.join(".cache/lb-agent")))
        .context("no cache folder: none of LB_AGENT_CACHE, XDG_CACHE_HOME and HOME is set")
}
