//! One lab: the switch, and the places on the machine that its hosts share.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Once,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context, Result};

use super::{
    Host, HostSpec, Netns,
    cgroup::{self, Cgroup},
    exec::ip_batch,
    leftovers,
    require::{self, BPFFS},
    run_id::RunId,
};

/// The switch's bridge.
pub(super) const BRIDGE: &str = "br0";

/// A network of hosts, apart from the machine's. Hosts keep it alive.
#[derive(Clone, Debug)]
pub struct Lab {
    site: Arc<Site>,
}

/// What the hosts of a lab share; removed when the last of them is gone.
#[derive(Debug)]
pub(super) struct Site {
    name: String,
    // In drop order: processes first, then what they hold.
    cgroup: Cgroup,
    switch: Netns,
    pins: Dir,
    files: Dir,
}

/// A directory that is removed with all in it.
#[derive(Debug)]
struct Dir(PathBuf);

// === impl Lab ===

impl Lab {
    /// Checks the machine, removes what dead runs left, and makes an empty lab.
    ///
    /// # Errors
    ///
    /// What is missing on this machine, each with its remedy.
    pub fn new() -> Result<Self> {
        static LEFTOVERS: Once = Once::new();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        require::check()?;
        LEFTOVERS.call_once(|| match leftovers::remove() {
            Ok(removed) if removed.is_empty() => {}
            Ok(removed) => eprintln!("lab: removed what a dead run left: {}", removed.join(", ")),
            Err(error) => eprintln!("lab: cannot remove what a dead run left: {error:#}"),
        });
        let name = format!(
            "{}-{}",
            RunId::this(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let site = Site {
            cgroup: Cgroup::create(cgroup::root()?.join(&name))?,
            switch: Netns::create(format!("{name}-switch"))?,
            pins: Dir::create(Path::new(BPFFS).join(&name))?,
            files: Dir::create(std::env::temp_dir().join(&name))?,
            name,
        };
        site.switch.sysctl(&[
            ("net/ipv6/conf/all/disable_ipv6", "1"),
            ("net/ipv6/conf/default/disable_ipv6", "1"),
        ])?;
        ip_batch(
            site.switch.name(),
            &format!(
                "link add name {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
                 link set dev {BRIDGE} up\n"
            ),
        )?;
        Ok(Self {
            site: Arc::new(site),
        })
    }

    /// Makes a host and plugs it into the switch.
    ///
    /// # Errors
    ///
    /// What the kernel refuses: mostly a malformed address or route.
    pub fn host(&self, spec: &HostSpec) -> Result<Host> {
        Host::on_switch(Arc::clone(&self.site), spec)
    }

    /// The namespace of the switch; the port of host H is named `H`.
    pub fn switch(&self) -> &Netns {
        &self.site.switch
    }

    /// What every name of this lab starts with.
    pub fn name(&self) -> &str {
        &self.site.name
    }
}

// === impl Site ===

impl Site {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn cgroup(&self) -> &Path {
        self.cgroup.path()
    }

    pub(super) fn switch(&self) -> &Netns {
        &self.switch
    }

    pub(super) fn files(&self) -> &Path {
        &self.files.0
    }

    pub(super) fn pins(&self) -> &Path {
        &self.pins.0
    }
}

// === impl Dir ===

impl Dir {
    fn create(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("lab: cannot remove {}: {error}", self.0.display());
        }
    }
}
