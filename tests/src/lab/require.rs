//! What the lab needs from the machine, said clearly when it is not there.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::{cgroup, exec::tool};

/// Where pins live; the agent's default too.
pub(super) const BPFFS: &str = "/sys/fs/bpf";

/// (program, Debian package).
pub(crate) const TOOLS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("ethtool", "ethtool"),
    ("nsenter", "util-linux"),
    ("ping", "iputils-ping"),
    ("curl", "curl"),
    ("dig", "dnsutils"),
    ("bpftool", "bpftool"),
    ("tcpdump", "tcpdump"),
];

/// Checks all of it and mounts bpffs if that is all that is missing.
///
/// # Errors
///
/// One sentence for each thing that is missing, with its remedy.
pub fn check() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "the lab needs root: it makes network namespaces; run it by `cargo xtask test lab` or sudo"
        );
    }
    let mut missing: Vec<String> = TOOLS
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(program, package)| {
            format!("`{program}` is not installed; remedy: `cargo xtask setup`, or `apt-get install {package}`")
        })
        .collect();
    for problem in [cgroup::root().map(drop), bpffs()] {
        missing.extend(problem.err().map(|error| format!("{error:#}")));
    }
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "this machine cannot run the lab:\n  {}",
        missing.join("\n  ")
    )
}

/// Where a program is: in `PATH`, or where Debian keeps what only root needs.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}

/// Mounts bpffs at its usual place unless it is there.
fn bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let is_bpffs = |line: &str| line.contains(&format!(" {BPFFS} ")) && line.contains(" - bpf ");
    if mounts.lines().any(is_bpffs) {
        return Ok(());
    }
    if !Path::new(BPFFS).is_dir() {
        bail!("{BPFFS} does not exist: the kernel has no BPF file system (CONFIG_BPF_SYSCALL)");
    }
    tool(&["mount", "-t", "bpf", "bpf", BPFFS])
        .map(drop)
        .with_context(|| format!("cannot mount the BPF file system at {BPFFS}"))
}
