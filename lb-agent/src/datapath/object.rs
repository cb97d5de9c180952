//! Loads the kernel programs, with maps made and pinned or taken from their pins.

use std::{fs, io, path::Path};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::ProgramArray,
    programs::{Program, ProgramError},
};

use super::layout::{Sizes, check, schema_dir, specs};

/// The object that the build script made, aligned for the ELF reader.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("LB_EBPF_OBJECT"));

/// The kernel programs as an ELF file, for tests that run them one packet at a time.
pub fn object_bytes() -> &'static [u8] {
    OBJECT
}

/// The program that tells which backend a flow would get.
pub(super) const EXPLAIN: &str = "lb_explain";

/// The least that a ring buffer can hold, bytes; rounded up where pages are larger.
const PAGE: u32 = 4_096;

/// Settings that are constants to the programs, so that the verifier removes what is not in use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Globals {
    /// See [`super::DatapathConfig::tx_by_redirect`].
    pub(super) tx_by_redirect: bool,
    /// See [`super::DatapathConfig::new_flows`].
    pub(super) new_flows: u32,
    /// Cookie of this network namespace.
    pub(super) netns: u64,
}

/// Loads every program. Maps found in `pin_dir` are checked and used; others are made there.
///
/// # Errors
///
/// If a pinned map does not fit, or the kernel refuses a map or a program.
pub(super) fn load(pin_dir: &Path, sizes: &Sizes, globals: Globals) -> Result<Ebpf> {
    make_pin_dir(&schema_dir(pin_dir))?;
    let mut object = open(pin_dir, sizes, globals, false)?;
    for (name, program) in object.programs_mut().filter(|(name, _)| *name != EXPLAIN) {
        load_program(program).with_context(|| {
            format!("the kernel refused program {name}; kernel 6.1 or later with BTF is needed")
        })?;
    }
    join_stages(&mut object)?;
    Ok(object)
}

/// A second instance of the programs over the maps of the first, which leaves all in them as it is. Only [`EXPLAIN`]
/// is loaded.
///
/// # Errors
///
/// As [`load`].
pub(super) fn dry_run(pin_dir: &Path, sizes: &Sizes, globals: Globals) -> Result<Ebpf> {
    let mut object = open(pin_dir, sizes, globals, true)?;
    let program = object
        .program_mut(EXPLAIN)
        .with_context(|| format!("there is no program {EXPLAIN}"))?;
    load_program(program).with_context(|| format!("the kernel refused program {EXPLAIN}"))?;
    Ok(object)
}

/// The maps, and programs that are not loaded yet.
fn open(pin_dir: &Path, sizes: &Sizes, globals: Globals, dry_run: bool) -> Result<Ebpf> {
    let dir = schema_dir(pin_dir);
    let specs = specs(sizes);
    let dry_run = u32::from(dry_run);
    let tx_by_redirect = u8::from(globals.tx_by_redirect);
    let mut loader = EbpfLoader::new();
    loader.override_global("TX_BY_REDIRECT", &tx_by_redirect, true);
    loader.override_global("NEW_FLOWS", &globals.new_flows, true);
    loader.override_global("NETNS", &globals.netns, true);
    loader.override_global("DRY_RUN", &dry_run, true);
    if dry_run != 0 {
        // A dry run tells nobody.
        loader.map_max_entries("LB_TRACE_EVENTS", PAGE);
    }
    for spec in &specs {
        let path = dir.join(spec.name);
        if path.exists() {
            check(spec, &path)?;
        }
        loader.map_max_entries(spec.name, spec.entries);
        loader.map_pin_path(spec.name, path);
    }
    loader
        .load(OBJECT)
        .context("cannot load the kernel programs: the kernel refused a map")
}

/// Lets `lb_xdp` leave what is rare to another program.
///
/// # Errors
///
/// If that is missing from the object, or the kernel refuses to join them.
pub fn join_stages(object: &mut Ebpf) -> Result<()> {
    let program = object
        .program(GENERAL)
        .with_context(|| format!("there is no program {GENERAL}"))?
        .fd()?
        .try_clone()?;
    let stages = object
        .map_mut("LB_STAGES")
        .context("there is no map LB_STAGES")?;
    ProgramArray::try_from(stages)?
        .set(0, &program, 0)
        .with_context(|| format!("the kernel refused to let lb_xdp call {GENERAL}"))
}

/// What `lb_xdp` leaves things to.
const GENERAL: &str = "lb_xdp_general";

/// How often a program is given to the verifier again when a signal broke in.
const LOAD_TRIES: u32 = 10;

/// Loads one program. A signal to the process, such as that of a child's end, breaks the verifier off
/// with `EAGAIN` (`do_check` in `kernel/bpf/verifier.c`); then it is tried again, as libbpf does.
///
/// # Errors
///
/// If the kernel refuses it.
pub fn load_program(program: &mut Program) -> Result<()> {
    for _ in 1..LOAD_TRIES {
        match try_load_program(program) {
            Err(error) if broken_off(&error) => {}
            done => return done,
        }
    }
    try_load_program(program)
}

fn broken_off(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(ProgramError::LoadError { io_error, .. })
            if io_error.kind() == io::ErrorKind::WouldBlock
    )
}

fn try_load_program(program: &mut Program) -> Result<()> {
    match program {
        Program::Xdp(p) => p.load()?,
        Program::SchedClassifier(p) => p.load()?,
        Program::CgroupSockAddr(p) => p.load()?,
        Program::CgroupSock(p) => p.load()?,
        Program::SockOps(p) => p.load()?,
        Program::SkLookup(p) => p.load()?,
        other => anyhow::bail!("no rule for programs of type {:?}", other.prog_type()),
    }
    Ok(())
}

fn make_pin_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir.join("links")).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::PermissionDenied => "run as root",
            _ => "is a bpffs mounted there? `mount -t bpf bpf /sys/fs/bpf`",
        };
        anyhow::anyhow!(
            "cannot make the pin folder {}: {error}; {remedy}",
            dir.display()
        )
    })
}

#[cfg(test)]
mod tests;
