//! A named network namespace that ends with its owner.

use std::{fs::File, path::PathBuf, thread};

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::AsFd;

use super::exec::tool;

/// Where `ip netns` keeps its handles.
pub(super) const DIR: &str = "/run/netns";

/// A network namespace under `/run/netns`; deleted on drop.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

// === impl Netns ===

impl Netns {
    /// Makes the namespace, with `lo` up.
    ///
    /// # Errors
    ///
    /// What `ip netns add` says; mostly missing rights.
    pub fn create(name: String) -> Result<Self> {
        tool(&["ip", "netns", "add", &name])?;
        let netns = Self { name };
        tool(&["ip", "-n", netns.name(), "link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// As known to `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The handle's file.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(DIR).join(&self.name)
    }

    /// Runs `act` on a fresh thread inside the namespace; sockets opened there stay in it.
    ///
    /// The thread stays in the caller's cgroup: hooks on a host's cgroup do not see it.
    ///
    /// # Errors
    ///
    /// The namespace cannot be entered. A panic of `act` is passed on.
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T> {
        enter_path(&self.path(), act)
    }

    /// Writes sysctls of the namespace: `("net/ipv4/ip_forward", "1")`.
    ///
    /// # Errors
    ///
    /// A name that the kernel does not have, or a value that it refuses.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        // `/proc/sys/net` shows the namespace of the thread that opens it.
        self.enter(|| {
            for (name, value) in settings {
                std::fs::write(format!("/proc/sys/{name}"), value)
                    .with_context(|| format!("cannot set sysctl {name} to {value}"))?;
            }
            Ok(())
        })?
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = tool(&["ip", "netns", "del", &self.name]) {
            eprintln!("lab: {error:#}");
        }
    }
}

/// Runs `act` on a fresh thread inside the network namespace whose handle is at `path`.
///
/// # Errors
///
/// The namespace cannot be entered. A panic of `act` is passed on.
pub fn enter_path<T: Send>(path: &std::path::Path, act: impl FnOnce() -> T + Send) -> Result<T> {
    let handle = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    thread::scope(|scope| {
        let inside = scope.spawn(move || {
            move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))
                .context("cannot enter a network namespace")?;
            Ok(act())
        });
        inside
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
