//! What a crashed run left behind: found by its mark and removed.

use std::{fs, path::Path};

use anyhow::Result;

use super::{cgroup, exec::tool, netns, require::BPFFS, run_id::RunId};

/// Removes everything of runs whose process is gone, and returns what that was.
///
/// # Errors
///
/// Something cannot be removed.
pub fn remove() -> Result<Vec<String>> {
    let mut removed = Vec::new();
    // First the processes, which hold namespaces; then the pins, which hold programs.
    let root = cgroup::root()?;
    for name in dead(&root) {
        cgroup::remove(&root.join(&name))?;
        removed.push(format!("cgroup {name}"));
    }
    for name in dead(Path::new(BPFFS)) {
        fs::remove_dir_all(Path::new(BPFFS).join(&name))?;
        removed.push(format!("pins {name}"));
    }
    for name in dead(Path::new(netns::DIR)) {
        tool(&["ip", "netns", "del", &name])?;
        removed.push(format!("network namespace {name}"));
    }
    let temp = std::env::temp_dir();
    for name in dead(&temp) {
        fs::remove_dir_all(temp.join(&name))?;
        removed.push(format!("directory {name}"));
    }
    Ok(removed)
}

/// Names in `dir` that a dead run made.
fn dead(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| RunId::of(name).is_some_and(|run| !run.is_alive()))
        .collect()
}
