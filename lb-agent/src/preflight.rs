//! What the machine must offer, checked before anything is touched: each lack is its own sentence with the
//! remedy.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::datapath::{Interface, TcMode};

/// `bpf_set_retval`, by which a refused connect() gets its errno, is the newest thing that the programs
/// cannot do without.
const OLDEST_KERNEL: (u32, u32) = (5, 18);
/// The first with tcx links (`BPF_TCX_INGRESS`).
const TCX_KERNEL: (u32, u32) = (6, 6);

/// Root, or at least its capabilities, and a kernel that is new enough. Says how it can attach tc
/// programs.
///
/// # Errors
///
/// If something is missing.
pub fn machine() -> Result<TcMode> {
    if !rustix::process::geteuid().is_root() {
        bail!("lb-agent must run as root: it loads kernel programs and sets routes; try sudo");
    }
    let tc_mode = tc_mode(&rustix::system::uname().release().to_string_lossy())?;
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        bail!(
            "the kernel has no BTF (/sys/kernel/btf/vmlinux is missing); use one with CONFIG_DEBUG_INFO_BTF=y"
        );
    }
    Ok(tc_mode)
}

/// By the kernel's release; one that is no number counts as new.
fn tc_mode(release: &str) -> Result<TcMode> {
    match kernel_version(release) {
        Some(version) if version < OLDEST_KERNEL => {
            let (major, minor) = OLDEST_KERNEL;
            bail!(
                "kernel {release} is too old: {major}.{minor} or later is needed (bpf_set_retval, by which refused connections get their errno)"
            )
        }
        Some(version) if version < TCX_KERNEL => Ok(TcMode::Clsact),
        _ => Ok(TcMode::Tcx),
    }
}

/// The interfaces by name.
///
/// # Errors
///
/// If one does not exist; the message names those that do.
pub fn interfaces(names: &[String]) -> Result<Vec<Interface>> {
    names
        .iter()
        .map(|name| match interface_index(name) {
            Some(index) => Ok(Interface {
                name: name.clone(),
                index,
            }),
            None => Err(anyhow!(
                "there is no interface {name} here; `ip link` shows those that are"
            )),
        })
        .collect()
}

/// Asks the process's own network namespace; /sys may show another one's.
fn interface_index(name: &str) -> Option<u32> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )
    .ok()?;
    rustix::net::netdevice::name_to_index(&socket, name).ok()
}

/// The root of the cgroup v2 tree, wherever it is mounted; mounts one below `run_dir` if there is none.
///
/// # Errors
///
/// If there is none and it cannot be mounted.
pub fn cgroup_root(run_dir: &Path) -> Result<PathBuf> {
    let mounts =
        fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    if let Some(root) = find_cgroup2(&mounts) {
        return Ok(root);
    }
    let own = run_dir.join("cgroup2");
    fs::create_dir_all(&own).with_context(|| format!("cannot make {}", own.display()))?;
    rustix::mount::mount("none", &own, "cgroup2", rustix::mount::MountFlags::empty(), None)
        .with_context(|| {
            format!("no cgroup v2 is mounted and none can be mounted at {}; boot with systemd.unified_cgroup_hierarchy=1, or mount one and name it with --cgroup", own.display())
        })?;
    Ok(own)
}

/// The first cgroup2 mount of the tree's root (proc_pid_mountinfo(5)): field 4 is the root within the
/// file system, field 5 the mount point, the type follows the separator.
fn find_cgroup2(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (kind.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(unescape(point)))
    })
}

/// Blanks and the like are octal escapes in mountinfo.
fn unescape(path: &str) -> String {
    path.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\134", "\\")
}

fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup2_root_is_found_on_hybrid_and_unified_hosts() {
        let hybrid = "30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      42 25 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(find_cgroup2(hybrid), Some("/sys/fs/cgroup/unified".into()));
        let subtree = "42 25 0:38 /docker/ab /mnt/cg rw - cgroup2 cgroup2 rw\n\
                       43 25 0:38 / /mnt/my\\040cg rw - cgroup2 cgroup2 rw\n";
        assert_eq!(find_cgroup2(subtree), Some("/mnt/my cg".into()));
        assert_eq!(find_cgroup2("1 2 0:3 / /proc rw - proc proc rw\n"), None);
    }

    #[test]
    fn kernel_releases_are_compared_as_numbers() {
        assert_eq!(kernel_version("6.18.44-fc-v595"), Some((6, 18)));
        assert_eq!(kernel_version("5.15.0"), Some((5, 15)));
    }

    #[test]
    fn kernels_before_tcx_use_clsact_and_those_before_set_retval_are_refused() {
        let error = tc_mode("5.15.0-91-generic").unwrap_err().to_string();
        assert!(
            error.contains("5.18") && error.contains("bpf_set_retval"),
            "{error}"
        );
        assert_eq!(tc_mode("5.18.0").unwrap(), TcMode::Clsact);
        assert_eq!(tc_mode("6.1.0-18-amd64").unwrap(), TcMode::Clsact);
        assert_eq!(tc_mode("6.6.1").unwrap(), TcMode::Tcx);
        assert_eq!(tc_mode("6.18.44-fc-v595").unwrap(), TcMode::Tcx);
    }
}
