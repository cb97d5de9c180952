//! What the agent changed on the node besides what the kernel marks as ours, kept in a file so that `purge` can undo it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

const FILE: &str = "node-changes.json";

/// Changes to undo.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Made {
    /// `net.ipv4.ip_local_reserved_ports` as it was before ranges of ours were added.
    pub(super) reserved_ports_before: Option<String>,
}

// === impl Made ===

impl Made {
    /// What was noted; nothing if there is no file.
    pub(super) fn load(state_dir: &Path) -> Result<Self> {
        let path = path(state_dir);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is damaged; remove it by hand", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    pub(super) fn save(&self, state_dir: &Path) -> Result<()> {
        let path = path(state_dir);
        let save = || -> io::Result<()> {
            fs::create_dir_all(state_dir)?;
            fs::write(&path, serde_json::to_vec(self)?)
        };
        save().with_context(|| format!("cannot write {}", path.display()))
    }

    pub(super) fn forget(state_dir: &Path) -> Result<()> {
        match fs::remove_file(path(state_dir)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}
