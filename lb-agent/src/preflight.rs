//! What the machine must offer, checked before anything is touched: each lack is its own sentence with the
//! remedy.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{
    datapath::{Interface, TcMode},
    net::{Topology, forwards},
};

/// `include/uapi/linux/magic.h`.
const CGROUP2_MAGIC: u64 = 0x6367_7270;
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// The oldest whose verifier is known to take the programs. What they call is there since 5.18 (`bpf_set_retval`, by which
/// a refused connect() gets its errno).
const OLDEST_KERNEL: (u32, u32) = (6, 1);
/// The first with tcx links (`BPF_TCX_INGRESS`).
const TCX_KERNEL: (u32, u32) = (6, 6);

/// Root, or at least its capabilities, and a kernel that is new enough. Says how it can attach tc
/// programs.
///
/// # Errors
///
/// If something is missing.
pub fn machine() -> Result<TcMode> {
    root()?;
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
                "kernel {release} is too old: {major}.{minor} or later is needed, whose verifier takes the programs"
            )
        }
        Some(version) if version < TCX_KERNEL => Ok(TcMode::Clsact),
        _ => Ok(TcMode::Tcx),
    }
}

/// Root, or at least its user id.
///
/// # Errors
///
/// If the process is somebody else's.
pub fn root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("lb-agent must run as root: it loads kernel programs and sets routes; try sudo");
    }
    Ok(())
}

/// A folder of the agent's own on a bpf file system; it need not exist yet.
///
/// # Errors
///
/// If it lies on another file system, or is the root of one, where others pin too: `purge` empties it.
pub fn pin_dir(path: &Path) -> Result<()> {
    let there = path.ancestors().find(|path| path.exists());
    let kind = there.map(file_system).transpose()?;
    if kind != Some(BPF_FS_MAGIC) {
        bail!(
            "--pin-dir {} is not on a bpf file system; mount one with `mount -t bpf bpf /sys/fs/bpf`, or name a \
             folder on one that is mounted",
            path.display()
        );
    }
    if there == Some(path) && is_mount_point(path)? {
        bail!(
            "--pin-dir {} is the root of a bpf file system, where other programs pin as well; name a folder in it, \
             such as {}",
            path.display(),
            path.join("lb-agent").display()
        );
    }
    Ok(())
}

/// A directory of the cgroup v2 tree, as given by the operator.
///
/// # Errors
///
/// If it does not exist or is something else.
pub fn cgroup(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Err(error) => bail!(
            "cannot use --cgroup {}: {error}; make it with mkdir, or leave --cgroup out to serve the whole node",
            path.display()
        ),
        Ok(found) if !found.is_dir() => bail!("--cgroup {} is not a directory", path.display()),
        Ok(_) if file_system(path)? != CGROUP2_MAGIC => bail!(
            "--cgroup {} is not in a cgroup v2 tree; `findmnt -t cgroup2` shows where one is mounted",
            path.display()
        ),
        Ok(_) => Ok(()),
    }
}

fn file_system(path: &Path) -> Result<u64> {
    let found = rustix::fs::statfs(path)
        .with_context(|| format!("cannot tell the file system of {}", path.display()))?;
    // Its type differs between architectures.
    Ok(found.f_type as u64)
}

fn is_mount_point(path: &Path) -> Result<bool> {
    let device = |path: &Path| Ok::<_, anyhow::Error>(fs::metadata(path)?.dev());
    path.parent()
        .map_or(Ok(true), |parent| Ok(device(path)? != device(parent)?))
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

/// Says which interfaces do not forward: `bpf_fib_lookup` then refuses to tell the way to a client, so that
/// full NAT's replies take the longer way by tc. Whether a node forwards is the operator's to decide.
pub fn warn_of_slow_replies(topology: &Topology, ifaces: &[String]) {
    for iface in ifaces {
        let (v4, v6) = topology.snat(iface);
        for (ipv6, translates) in [(false, v4.is_some()), (true, v6.is_some())] {
            if translates && forwards(iface, ipv6) == Some(false) {
                let family = if ipv6 { "ipv6" } else { "ipv4" };
                tracing::warn!(
                    "net.{family}.conf.{iface}.forwarding is 0: replies of backends elsewhere take a slower \
                     path (tc instead of XDP); set it to 1 if this node may forward"
                );
            }
        }
    }
}

/// Asks the process's own network namespace; /sys may show another one's.
pub(crate) fn interface_index(name: &str) -> Option<u32> {
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
    fn pins_go_only_into_a_folder_on_a_bpf_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let said = pin_dir(&dir.path().join("not/yet"))
            .unwrap_err()
            .to_string();
        assert!(
            said.contains("is not on a bpf file system; mount one"),
            "{said}"
        );
        let said = pin_dir(Path::new("/")).unwrap_err().to_string();
        assert!(said.contains("--pin-dir / is not on"), "{said}");
        // Where one is mounted: its root belongs to others too.
        let root = Path::new("/sys/fs/bpf");
        if file_system(root).is_ok_and(|kind| kind == BPF_FS_MAGIC) {
            let said = pin_dir(root).unwrap_err().to_string();
            assert!(said.contains("such as /sys/fs/bpf/lb-agent"), "{said}");
            pin_dir(&root.join("lb-agent-test-not-there")).unwrap();
        }
    }

    #[test]
    fn a_cgroup_that_is_none_is_refused_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let said = |path: &Path| cgroup(path).unwrap_err().to_string();
        assert!(said(dir.path()).contains("`findmnt -t cgroup2`"));
        assert!(said(&dir.path().join("nope")).contains("make it with mkdir"));
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(said(&file).contains("is not a directory"));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        if let Some(root) = find_cgroup2(&mounts) {
            cgroup(&root).unwrap();
        }
    }

    #[test]
    fn kernel_releases_are_compared_as_numbers() {
        assert_eq!(kernel_version("6.18.44-fc-v595"), Some((6, 18)));
        assert_eq!(kernel_version("5.15.0"), Some((5, 15)));
    }

    #[test]
    fn kernels_before_tcx_use_clsact_and_those_that_refuse_the_programs_are_refused() {
        let error = tc_mode("5.15.0-91-generic").unwrap_err().to_string();
        assert!(error.contains("6.1 or later"), "{error}");
        assert_eq!(tc_mode("6.1.0-18-amd64").unwrap(), TcMode::Clsact);
        assert_eq!(tc_mode("6.6.1").unwrap(), TcMode::Tcx);
        assert_eq!(tc_mode("6.18.44-fc-v595").unwrap(), TcMode::Tcx);
    }
}
