//! tc programs as filters of the clsact qdisc, for kernels without tcx: they persist by themselves and are
//! replaced in place.

use std::{
    fs, io, mem,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Ebpf,
    programs::{
        ProgramError, SchedClassifier, TcAttachType,
        tc::{
            NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
        },
    },
};

use super::{
    links::Interface,
    rtnl::{self, Found, Side},
};
use crate::purged::Purged;

/// A tc program and its place among an interface's filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) program: &'static str,
    side: Side,
    /// Lower runs first. All our programs end the chain, so what others add at a lower number comes first.
    priority: u16,
}

/// What makes flows.
pub(super) const INGRESS: Filter = Filter {
    program: "lb_tc_ingress",
    side: Side::Ingress,
    priority: 10,
};
/// Replies of backends behind the interface; after [`INGRESS`] where both are on one.
pub(super) const LINK: Filter = Filter {
    program: "lb_tc_link",
    side: Side::Ingress,
    priority: 11,
};
/// Replies of this host's own sockets.
pub(super) const EGRESS: Filter = Filter {
    program: "lb_tc_egress",
    side: Side::Egress,
    priority: 10,
};

/// Of every filter, whatever its priority: "lb" in ASCII.
const HANDLE: u16 = 0x6c62;

/// The filters of this network namespace.
///
/// A folder `clsact-INDEX` among the pinned links says that an agent made that interface's qdisc.
#[derive(Debug)]
pub(super) struct Filters {
    dir: PathBuf,
    /// Those that this process put where there was none.
    made: Vec<(u32, Filter)>,
}

// === impl Filter ===

impl Filter {
    fn is_at(self, found: &Found) -> bool {
        found.priority == self.priority && found.handle == u32::from(HANDLE)
    }

    fn attach_type(self) -> TcAttachType {
        match self.side {
            Side::Ingress => TcAttachType::Ingress,
            Side::Egress => TcAttachType::Egress,
        }
    }

    /// Puts the program at its place, or into the place of the one that `found` there.
    fn put(
        self,
        program: &mut SchedClassifier,
        name: &str,
        replace: bool,
    ) -> Result<(), ProgramError> {
        let handle = TcHandle::new(0, HANDLE);
        let id = if replace {
            let link = SchedClassifierLink::attached(
                name,
                self.attach_type(),
                self.priority,
                handle,
                None,
            )
            .map_err(TcError::IoError)?;
            program.attach_to_link(link)?
        } else {
            let options = NlOptions {
                priority: self.priority,
                handle,
                classid: None,
            };
            program.attach_with_options(
                name,
                self.attach_type(),
                TcAttachOptions::Netlink(options),
            )?
        };
        // aya would remove the filter when its link is dropped.
        mem::forget(program.take_link(id)?);
        Ok(())
    }
}

// === impl Filters ===

impl Filters {
    /// `dir` is the folder of the pinned links.
    pub(super) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            made: Vec::new(),
        }
    }

    /// Attaches the program, or replaces that of an agent that ran before. Does nothing where this very
    /// program is already.
    ///
    /// # Errors
    ///
    /// If the kernel refuses, or somebody else's filter is at the place.
    pub(super) fn attach(
        &mut self,
        object: &mut Ebpf,
        iface: &Interface,
        filter: Filter,
    ) -> Result<()> {
        self.attach_filter(object, iface, filter).with_context(|| {
            format!(
                "cannot attach {} to {} by clsact",
                filter.program, iface.name
            )
        })
    }

    fn attach_filter(
        &mut self,
        object: &mut Ebpf,
        iface: &Interface,
        filter: Filter,
    ) -> Result<()> {
        let Interface { name, index } = iface;
        let program: &mut SchedClassifier = object
            .program_mut(filter.program)
            .ok_or_else(|| anyhow!("the object holds no program {}", filter.program))?
            .try_into()?;
        let id = program.info()?.id();
        self.ensure_qdisc(iface)?;
        let found = rtnl::filters(*index, filter.side).context("cannot list the filters")?;
        match found.iter().find(|found| filter.is_at(found)) {
            Some(found) if found.name.as_deref() != Some(filter.program) => bail!(
                "another filter has priority {} and handle {HANDLE:#x} there; `tc filter show dev {name} {}` shows it",
                filter.priority,
                filter.side,
            ),
            Some(found) if found.program == Some(id) => {}
            Some(_) => filter.put(program, name, true)?,
            None => {
                // Before the attempt, so that undoing also takes the qdisc back.
                self.made.push((*index, filter));
                filter.put(program, name, false)?;
            }
        }
        for stray in found.iter().filter(|found| !filter.is_at(found)) {
            if stray.name.as_deref() == Some(filter.program) {
                rtnl::remove_filter(*index, filter.side, stray)?;
            }
        }
        Ok(())
    }

    fn ensure_qdisc(&self, iface: &Interface) -> Result<()> {
        match qdisc_add_clsact(&iface.name) {
            Ok(()) => {
                let marker = marker(&self.dir, iface.index);
                match fs::create_dir(&marker) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        Err(error).with_context(|| format!("cannot make {}", marker.display()))
                    }
                    _ => Ok(()),
                }
            }
            Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {
                Ok(())
            }
            Err(error) => {
                Err(error).context("cannot add the clsact qdisc (CONFIG_NET_SCH_INGRESS)")
            }
        }
    }

    /// Removes the program from interfaces other than these.
    pub(super) fn keep(&mut self, filter: Filter, keep: &[u32]) -> Result<()> {
        let all = rtnl::clsact_interfaces().context("cannot list the clsact qdiscs")?;
        for index in all.into_iter().filter(|index| !keep.contains(index)) {
            if remove(index, filter)? {
                self.made.retain(|made| *made != (index, filter));
                release(&self.dir, index)?;
            }
        }
        Ok(())
    }

    /// Takes off again what this process attached where there was none.
    pub(super) fn undo(&mut self) {
        for (index, filter) in mem::take(&mut self.made).into_iter().rev() {
            let undone = remove(index, filter).and_then(|_| release(&self.dir, index));
            if let Err(error) = undone {
                tracing::warn!("{error:#}");
            }
        }
    }
}

/// Removes our filters from every interface of this network namespace; `links` are the folders of pinned
/// links, whose markers say which qdiscs an agent made. Says what was removed, and goes on where something
/// cannot be. A qdisc that was there before, or that holds others' filters, stays.
pub(super) fn purge(links: &[PathBuf], purged: &mut Purged) {
    let found = rtnl::clsact_interfaces().context("cannot list the clsact qdiscs");
    for index in purged.expect(found).unwrap_or_default() {
        let name = rtnl::name(index);
        for filter in [INGRESS, LINK, EGRESS] {
            let what = format!("{} from {} of {name}", filter.program, filter.side);
            purged.note(what, remove(index, filter));
        }
        for dir in links {
            purged.note(format!("clsact qdisc of {name}"), release(dir, index));
        }
    }
    for dir in links {
        purged.expect(remove_markers(dir));
    }
}

fn remove(index: u32, filter: Filter) -> Result<bool> {
    let mut removed = false;
    for found in rtnl::filters(index, filter.side)? {
        if found.name.as_deref() == Some(filter.program) {
            rtnl::remove_filter(index, filter.side, &found).with_context(|| {
                format!(
                    "cannot remove {} from {}",
                    filter.program,
                    rtnl::name(index)
                )
            })?;
            removed = true;
        }
    }
    Ok(removed)
}

/// Removes the qdisc if an agent made it and nothing is left in it.
fn release(dir: &Path, index: u32) -> Result<bool> {
    let marker = marker(dir, index);
    if !marker.exists() {
        return Ok(false);
    }
    for side in [Side::Ingress, Side::Egress] {
        if !rtnl::filters(index, side)?.is_empty() {
            return Ok(false);
        }
    }
    rtnl::remove_clsact(index)
        .with_context(|| format!("cannot remove the clsact qdisc of {}", rtnl::name(index)))?;
    fs::remove_dir(&marker).with_context(|| format!("cannot remove {}", marker.display()))?;
    Ok(true)
}

fn marker(dir: &Path, index: u32) -> PathBuf {
    dir.join(format!("clsact-{index}"))
}

fn remove_markers(dir: &Path) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("cannot list {}", dir.display()))?,
    };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() {
            fs::remove_dir(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}
