//! Attaching programs by pinned links (tc programs by filters where there is no tcx), and taking over the links of an agent that ran before.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use aya::Ebpf;

use super::{
    clsact::{self, Filter, Filters},
    layout::schema_dir,
    sys::{self, Target},
};

/// `enum bpf_attach_type`, `include/uapi/linux/bpf.h`.
mod attach_type {
    pub(super) const CGROUP_SOCK_OPS: u32 = 3;
    pub(super) const INET4_CONNECT: u32 = 10;
    pub(super) const INET6_CONNECT: u32 = 11;
    pub(super) const INET4_POST_BIND: u32 = 12;
    pub(super) const INET6_POST_BIND: u32 = 13;
    pub(super) const UDP4_SENDMSG: u32 = 14;
    pub(super) const UDP6_SENDMSG: u32 = 15;
    pub(super) const UDP4_RECVMSG: u32 = 19;
    pub(super) const UDP6_RECVMSG: u32 = 20;
    pub(super) const INET4_GETPEERNAME: u32 = 29;
    pub(super) const INET6_GETPEERNAME: u32 = 30;
    pub(super) const INET_SOCK_RELEASE: u32 = 34;
    pub(super) const SK_LOOKUP: u32 = 36;
    pub(super) const XDP: u32 = 37;
    pub(super) const TCX_INGRESS: u32 = 46;
    pub(super) const TCX_EGRESS: u32 = 47;
}

/// The cgroup hooks. Receiving and naming come before sending: a socket whose address was swapped must
/// never find the way back missing.
const CGROUP_HOOKS: [(&str, u32); 12] = [
    ("lb_recvmsg4", attach_type::UDP4_RECVMSG),
    ("lb_recvmsg6", attach_type::UDP6_RECVMSG),
    ("lb_getpeername4", attach_type::INET4_GETPEERNAME),
    ("lb_getpeername6", attach_type::INET6_GETPEERNAME),
    ("lb_sock_release", attach_type::INET_SOCK_RELEASE),
    ("lb_sock_ops", attach_type::CGROUP_SOCK_OPS),
    ("lb_post_bind4", attach_type::INET4_POST_BIND),
    ("lb_post_bind6", attach_type::INET6_POST_BIND),
    ("lb_connect4", attach_type::INET4_CONNECT),
    ("lb_connect6", attach_type::INET6_CONNECT),
    ("lb_sendmsg4", attach_type::UDP4_SENDMSG),
    ("lb_sendmsg6", attach_type::UDP6_SENDMSG),
];

/// What the pins of XDP links begin with.
const XDP_PINS: [(XdpMode, &str); 2] = [(XdpMode::Native, "xdp-"), (XdpMode::Generic, "generic-")];

/// How XDP is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the stack, after a socket buffer was made: on request only.
    Generic,
    /// Not at all: the tc programs do everything.
    Off,
}

/// How the tc programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcMode {
    /// By tcx links: kernel 6.6 and later.
    Tcx,
    /// By filters of a clsact qdisc.
    Clsact,
}

/// An interface that clients' packets come in by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
}

/// The links of one pin folder.
#[derive(Debug)]
pub(super) struct Links {
    dir: PathBuf,
    tc: TcMode,
    filters: Filters,
    held: BTreeMap<String, OwnedFd>,
    /// Pins that this process made, not those that it took over.
    made: Vec<String>,
}

// === impl XdpMode ===

impl XdpMode {
    /// `XDP_FLAGS_*`, `include/uapi/linux/if_link.h`.
    fn flags(self) -> u32 {
        match self {
            Self::Native => 1 << 2,
            Self::Generic => 1 << 1,
            Self::Off => 0,
        }
    }
}

// === impl Links ===

impl Links {
    pub(super) fn new(pin_dir: &Path, tc: TcMode) -> Self {
        let dir = schema_dir(pin_dir).join("links");
        Self {
            filters: Filters::new(dir.clone()),
            dir,
            tc,
            held: BTreeMap::new(),
            made: Vec::new(),
        }
    }

    /// The hooks of a cgroup and everything below it.
    ///
    /// # Errors
    ///
    /// If one cannot be attached; those before it stay.
    pub(super) fn cgroup(&mut self, object: &Ebpf, cgroup: BorrowedFd<'_>) -> Result<()> {
        for (program, attach_type) in CGROUP_HOOKS {
            self.attach(object, program, program, Target::Fd(cgroup), attach_type, 0)
                .with_context(|| format!("cannot attach {program} to the cgroup"))?;
        }
        Ok(())
    }

    /// Keeps sockets of the network namespace from being found for a VIP.
    pub(super) fn namespace(&mut self, object: &Ebpf, netns: BorrowedFd<'_>) -> Result<()> {
        let program = "lb_sk_lookup";
        self.attach(
            object,
            program,
            program,
            Target::Fd(netns),
            attach_type::SK_LOOKUP,
            0,
        )
        .with_context(|| format!("cannot attach {program} to the network namespace"))
    }

    /// An interface given by the operator: replies first, then what makes flows.
    pub(super) fn interface(
        &mut self,
        object: &mut Ebpf,
        iface: &Interface,
        mode: XdpMode,
    ) -> Result<()> {
        let Interface { name, index } = iface;
        self.tc(object, iface, clsact::EGRESS, "egress")?;
        self.tc(object, iface, clsact::INGRESS, "ingress")?;
        // An interface has XDP in one mode alone, and an update leaves a link in its own. Meanwhile the tc program has
        // the packets.
        for (other, prefix) in XDP_PINS {
            if other != mode {
                self.end(&format!("{prefix}{index}"))?;
            }
        }
        let Some((_, prefix)) = XDP_PINS.iter().find(|(of, _)| *of == mode) else {
            return Ok(());
        };
        self.attach(
            object,
            "lb_xdp",
            &format!("{prefix}{index}"),
            Target::Interface(*index),
            attach_type::XDP,
            mode.flags(),
        )
        .map_err(|error| xdp_error(name, mode, &error))
    }

    /// An interface behind which backends of this node live.
    pub(super) fn link_interface(&mut self, object: &mut Ebpf, iface: &Interface) -> Result<()> {
        self.tc(object, iface, clsact::LINK, "link")
    }

    /// Detaches from link interfaces other than these.
    pub(super) fn keep_link_interfaces(&mut self, keep: &[u32]) -> Result<()> {
        if self.tc == TcMode::Clsact {
            self.filters.keep(clsact::LINK, keep)?;
        }
        for pin in self.pins_with_prefix("link-")? {
            let index = pin
                .strip_prefix("link-")
                .and_then(|index| index.parse().ok());
            if index.is_none_or(|index| !keep.contains(&index)) {
                self.detach(&pin)?;
            }
        }
        Ok(())
    }

    /// Detaches from interfaces other than these, where an earlier agent was told of more.
    pub(super) fn keep_interfaces(&mut self, keep: &[u32]) -> Result<()> {
        if self.tc == TcMode::Clsact {
            self.filters.keep(clsact::INGRESS, keep)?;
            self.filters.keep(clsact::EGRESS, keep)?;
        }
        let xdp = XDP_PINS.iter().map(|(_, prefix)| *prefix);
        for prefix in xdp.chain(["ingress-", "egress-"]) {
            for pin in self.pins_with_prefix(prefix)? {
                let index = pin
                    .strip_prefix(prefix)
                    .and_then(|index| index.parse().ok());
                if index.is_none_or(|index| !keep.contains(&index)) {
                    self.detach(&pin)?;
                }
            }
        }
        Ok(())
    }

    fn tc(
        &mut self,
        object: &mut Ebpf,
        iface: &Interface,
        filter: Filter,
        prefix: &str,
    ) -> Result<()> {
        let Interface { name, index } = iface;
        if self.tc == TcMode::Clsact {
            return self.filters.attach(object, iface, filter);
        }
        let attach_type = match filter {
            clsact::EGRESS => attach_type::TCX_EGRESS,
            _ => attach_type::TCX_INGRESS,
        };
        let (program, pin) = (filter.program, format!("{prefix}-{index}"));
        self.attach(
            object,
            program,
            &pin,
            Target::Interface(*index),
            attach_type,
            0,
        )
        .with_context(|| format!("cannot attach {program} to {name} by tcx (kernel 6.6)"))
    }

    /// Makes a link and pins it, or gives a pinned one the new program in place.
    fn attach(
        &mut self,
        object: &Ebpf,
        program: &str,
        pin: &str,
        target: Target<'_>,
        attach_type: u32,
        flags: u32,
    ) -> Result<()> {
        let fd = object
            .program(program)
            .ok_or_else(|| anyhow!("the object holds no program {program}"))?
            .fd()?;
        let path = self.dir.join(pin);
        if let Some(link) = adopt(&path, target, fd.as_fd())? {
            self.held.insert(pin.to_owned(), link);
            return Ok(());
        }
        let link = sys::link_create(fd.as_fd(), target, attach_type, flags)?;
        sys::pin(link.as_fd(), &path)
            .with_context(|| format!("cannot pin the link at {}", path.display()))?;
        self.held.insert(pin.to_owned(), link);
        self.made.push(pin.to_owned());
        Ok(())
    }

    /// Takes off again what this process attached; links of an agent that ran before stay.
    pub(super) fn undo(&mut self) {
        self.filters.undo();
        for pin in std::mem::take(&mut self.made) {
            if let Err(error) = self.detach(&pin) {
                tracing::warn!("{error:#}");
            }
        }
    }

    /// Detaches before it returns: a link that is merely unpinned goes after an RCU grace period.
    fn end(&mut self, pin: &str) -> Result<()> {
        let path = self.dir.join(pin);
        if path.exists() {
            sys::open_pin(&path)
                .and_then(|link| sys::link_detach(link.as_fd()))
                .with_context(|| format!("cannot detach the pinned link {}", path.display()))?;
        }
        self.detach(pin)
    }

    fn detach(&mut self, pin: &str) -> Result<()> {
        self.held.remove(pin);
        remove_pin(&self.dir.join(pin))
    }

    fn pins_with_prefix(&self, prefix: &str) -> Result<Vec<String>> {
        let entries = fs::read_dir(&self.dir)
            .with_context(|| format!("cannot list the pins in {}", self.dir.display()))?;
        Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with(prefix))
            .collect())
    }
}

/// Takes over a pinned link. One whose interface is gone is unpinned: it holds nothing any more.
fn adopt(path: &Path, target: Target<'_>, program: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
    if !path.exists() {
        return Ok(None);
    }
    let link = sys::open_pin(path)
        .with_context(|| format!("cannot open the pinned link {}", path.display()))?;
    if let Target::Interface(index) = target
        && sys::link_ifindex(link.as_fd())? != index
    {
        remove_pin(path)?;
        return Ok(None);
    }
    match sys::link_update(link.as_fd(), program) {
        Ok(()) => Ok(Some(link)),
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {
            remove_pin(path)?;
            Ok(None)
        }
        Err(error) => Err(error)
            .with_context(|| format!("cannot put the new program on the link {}", path.display())),
    }
}

fn remove_pin(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove the pin {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// What went wrong, by errno, and what the operator can do.
fn xdp_error(name: &str, mode: XdpMode, error: &anyhow::Error) -> anyhow::Error {
    let errno = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::raw_os_error);
    let remedy = match (errno, mode) {
        (Some(libc::EOPNOTSUPP), XdpMode::Native) => {
            "the driver has no native XDP; give --xdp-mode generic, or --xdp-mode off for the tc programs alone"
        }
        (Some(libc::EBUSY | libc::EEXIST), _) => {
            "another XDP program is attached; `ip link set dev NAME xdp off` removes it"
        }
        (Some(libc::EINVAL | libc::ERANGE), XdpMode::Native) => {
            "the interface's MTU, rings or offloads do not allow XDP (see dmesg); give --xdp-mode generic"
        }
        (Some(libc::EPERM | libc::EACCES), _) => "run as root",
        _ => "see dmesg",
    };
    anyhow!("cannot attach XDP to {name}: {error:#}; {remedy}")
}
