//! A cgroup v2 directory that ends with its owner, and everything in it too.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

use super::wait::wait_until;

/// A cgroup; on drop its processes are killed and it is removed with all below it.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

// === impl Cgroup ===

impl Cgroup {
    /// Makes a cgroup at an absolute path below the cgroup v2 mount.
    ///
    /// # Errors
    ///
    /// It exists already, or the rights are missing.
    pub fn create(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path)
            .with_context(|| format!("cannot make the cgroup {}", path.display()))?;
        Ok(Self { path })
    }

    /// Absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As engines name it: absolute, from the root of the hierarchy.
    ///
    /// # Errors
    ///
    /// The hierarchy is not mounted any more.
    pub fn name(&self) -> Result<String> {
        let inside = self.path.strip_prefix(root()?)?;
        Ok(format!("/{}", inside.display()))
    }

    /// Pids of the processes in this cgroup and below.
    pub fn pids(&self) -> Vec<u32> {
        pids(&self.path)
    }

    /// Kills every process in it and below, all at once where the kernel can.
    ///
    /// # Errors
    ///
    /// The kernel refuses, or one outlives it for 5 s.
    pub fn kill(&self) -> Result<()> {
        end_all(&self.path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            eprintln!("lab: {error:#}");
        }
    }
}

/// The root of the cgroup v2 hierarchy, wherever it is mounted.
///
/// # Errors
///
/// It is not mounted.
pub fn root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    root_in(&mounts).context(
        "cgroup v2 is not mounted; remedy: `mkdir -p /sys/fs/cgroup/unified && \
         mount -t cgroup2 none /sys/fs/cgroup/unified`",
    )
}

fn root_in(mountinfo: &str) -> Option<PathBuf> {
    mounted(mountinfo, "cgroup2").next()
}

/// Where whole file systems of this type are. As `proc_pid_mountinfo(5)`: field 4 is the root inside the file system,
/// 5 the mount point, and the type follows a lone hyphen.
fn mounted(mountinfo: &str, kind: &str) -> impl Iterator<Item = PathBuf> {
    mountinfo.lines().filter_map(move |line| {
        let (mount, fs) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (inner, point) = (fields.next()?, fields.next()?);
        (fs.split(' ').next() == Some(kind) && inner == "/").then(|| PathBuf::from(point))
    })
}

/// Kills every process in the cgroup at `path` and removes it with all below.
///
/// # Errors
///
/// A process outlives SIGKILL for 5 s, or the directory cannot be removed.
pub fn remove(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    end_all(path)?;
    for child in children(path) {
        remove(&child)?;
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove the cgroup {}", path.display()))
        }
        _ => remove_namesakes(path),
    }
}

/// On a hybrid host a container engine makes the same cgroup in the hierarchies of version 1, too, and leaves it there.
fn remove_namesakes(path: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let Some(inside) = root_in(&mounts).and_then(|root| path.strip_prefix(root).ok()) else {
        return Ok(());
    };
    for root in mounted(&mounts, "cgroup") {
        // Most often it is not there.
        let _ = fs::remove_dir(root.join(inside));
    }
    Ok(())
}

fn end_all(path: &Path) -> Result<()> {
    kill_all(path)?;
    wait_until("the cgroup's processes end", Duration::from_secs(5), || {
        pids(path).is_empty()
    })
    .with_context(|| path.display().to_string())
}

/// `cgroup.kill` is there since Linux 5.14 and takes the whole subtree; below that, one by one.
fn kill_all(path: &Path) -> Result<()> {
    let switch = path.join("cgroup.kill");
    if switch.exists() {
        return fs::write(&switch, "1")
            .with_context(|| format!("cannot write {}", switch.display()));
    }
    for pid in pids(path) {
        if let Some(pid) = i32::try_from(pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    Ok(())
}

fn pids(path: &Path) -> Vec<u32> {
    let own = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    let mut all: Vec<u32> = own.lines().filter_map(|pid| pid.parse().ok()).collect();
    for child in children(path) {
        all.extend(pids(&child));
    }
    all
}

fn children(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_found_on_hybrid_hosts() {
        let mounts = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
                      38 31 0:31 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(
            root_in(mounts),
            Some(PathBuf::from("/sys/fs/cgroup/unified"))
        );
    }

    #[test]
    fn hierarchies_of_version_1_are_found_apart() {
        let mounts = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
                      38 31 0:31 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n\
                      40 31 0:33 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
        let found: Vec<_> = mounted(mounts, "cgroup").collect();
        let expected = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/pids"].map(PathBuf::from);
        assert_eq!(found, expected);
    }

    #[test]
    fn a_bind_mount_of_a_subtree_is_not_the_root() {
        let mounts = "38 31 0:31 /docker/a /mnt rw - cgroup2 cgroup2 rw\n";
        assert_eq!(root_in(mounts), None);
    }
}
