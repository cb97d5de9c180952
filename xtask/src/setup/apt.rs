//! The system's tools that the lab runs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::shell::{find, is_root, run};

/// (program, Debian package), for the lab.
pub(super) const LAB: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("ethtool", "ethtool"),
    ("dig", "dnsutils"),
    ("ping", "iputils-ping"),
    ("curl", "curl"),
    ("nsenter", "util-linux"),
    ("bpftool", "bpftool"),
    ("tcpdump", "tcpdump"),
];

/// What the lab's benchmark compares with.
pub(super) const BENCH: &[(&str, &str)] = &[("haproxy", HAPROXY)];

/// What the tests with a Docker Engine run, and what its image is made of.
pub(super) const DOCKER: &[(&str, &str)] = &[("dockerd", ENGINE), ("busybox", "busybox-static")];

/// What the tests with an etcd run, and what makes their certificates.
pub(super) const ETCD: &[(&str, &str)] = &[
    ("etcd", ETCD_SERVER),
    ("etcdctl", "etcd-client"),
    ("openssl", "openssl"),
];

/// What is made for HAProxy and must work with the agent.
pub(super) const HAPROXY_TOOLS: &[(&str, &str)] = &[
    ("prometheus-haproxy-exporter", EXPORTER),
    ("hatop", "hatop"),
    (
        "/usr/lib/nagios/plugins/check_haproxy",
        "monitoring-plugins-contrib",
    ),
    (
        "/usr/share/perl5/Monitoring/Plugin.pm",
        "libmonitoring-plugin-perl",
    ),
    ("/usr/share/perl5/LWP/UserAgent.pm", "libwww-perl"),
    (
        "/usr/share/doc/liblocale-gettext-perl/copyright",
        "liblocale-gettext-perl",
    ),
    ("python3", "python3"),
];

const EXPORTER: &str = "prometheus-haproxy-exporter";
/// What shows pages to the tests.
pub(super) const BROWSER: &[(&str, &str)] = &[("chromium", "chromium")];

/// What emulates a machine, and what its files are made with.
pub(super) const EMULATOR: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("strip", "binutils"),
];

const HAPROXY: &str = "haproxy";
const ENGINE: &str = "docker.io";
const ETCD_SERVER: &str = "etcd-server";
/// (package, units): it starts services that nobody asked for.
const SERVICES: [(&str, &[&str]); 4] = [
    (EXPORTER, &[EXPORTER]),
    (HAPROXY, &["haproxy"]),
    (ENGINE, &["docker.socket", "docker", "containerd"]),
    (ETCD_SERVER, &["etcd"]),
];

/// Installs what is missing.
///
/// # Errors
///
/// The command to run by hand, if this one may not or cannot.
pub(super) fn bring(tools: &[(&str, &str)]) -> Result<()> {
    let mut packages: Vec<&str> = tools
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    install(&packages)
}

/// Installs packages, whatever is there.
///
/// # Errors
///
/// As [`bring`].
pub(super) fn install(packages: &[&str]) -> Result<()> {
    let by_hand = format!("apt-get update && apt-get install {}", packages.join(" "));
    if find("apt-get").is_none() {
        bail!(
            "these are missing: {}; install them with your system's package manager",
            packages.join(" ")
        );
    }
    eprintln!("setup: installing {}", packages.join(" "));
    let update = update();
    let install = [
        &["install", "-y", "-q", "--no-install-recommends"],
        packages,
    ]
    .concat();
    // A stale list of packages may be good enough, so only the second failure counts.
    run(&mut apt(&install)?)
        .or_else(|failed| update.and(Err(failed)))
        .with_context(|| {
            format!(
                "cannot install {}; run as root: {by_hand}",
                packages.join(" ")
            )
        })?;
    let Some(systemctl) = find("systemctl") else {
        return Ok(());
    };
    for (_, units) in SERVICES
        .iter()
        .filter(|(package, _)| packages.contains(package))
    {
        // Without systemd as init there is nothing to stop.
        let _ = Command::new(&systemctl)
            .args(["--quiet", "disable", "--now"])
            .args(*units)
            .stderr(Stdio::null())
            .status();
    }
    Ok(())
}

/// Downloads a package without installing it; where it is, in `dir`.
///
/// # Errors
///
/// It cannot be had.
pub(super) fn download(package: &str, dir: &Path) -> Result<PathBuf> {
    let download = || {
        // Whoever may write there may do this.
        let mut apt = Command::new("apt-get");
        // The user of its sandbox may not.
        apt.args(["download", "-q", "-o", "APT::Sandbox::User=root", package]);
        run(apt.current_dir(dir))
    };
    // The list of packages is missing, or stale.
    download().or_else(|_| update().and_then(|()| download()))?;
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    let file = paths.find(|path| path.extension().is_some_and(|end| end == "deb"));
    file.with_context(|| format!("apt-get left no package in {}", dir.display()))
}

/// Brings the lists of packages up to date.
///
/// # Errors
///
/// This one may not, or cannot.
pub(super) fn update() -> Result<()> {
    run(&mut apt(&["update", "-q"])?)
}

fn apt(arguments: &[&str]) -> Result<Command> {
    let mut apt = if is_root() {
        Command::new("apt-get")
    } else {
        let sudo = find("sudo")
            .with_context(|| format!("not root; run as root: apt-get {}", arguments.join(" ")))?;
        let mut apt = Command::new(sudo);
        apt.arg("apt-get");
        apt
    };
    apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    Ok(apt)
}
