//! The one system-call module of the lab: what a child does between fork and exec.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    fs::File,
    io,
    os::{fd::AsFd, unix::process::CommandExt},
    process::Command,
};

use rustix::{
    mount::{MountPropagationFlags, mount_bind, mount_change},
    process::{Signal, set_parent_process_death_signal},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};

/// Where a new process goes before it becomes its program.
#[derive(Debug)]
pub(super) struct Entry {
    /// The network namespace; no other namespace is entered, so bpffs and cgroup2 stay visible.
    pub(super) netns: File,
    /// An open `cgroup.procs`.
    pub(super) cgroup_procs: File,
    /// (file, where it is to be seen) in a mount namespace of the process's own.
    pub(super) binds: Vec<(CString, CString)>,
}

/// Makes `command` go there, and get SIGKILL when the thread that spawns it ends.
pub(super) fn go_there(command: &mut Command, entry: Entry) {
    // SAFETY: between fork and exec only async-signal-safe acts are allowed. `enter` makes plain system
    // calls on memory that was allocated before the fork, and neither allocates nor takes a lock.
    unsafe { command.pre_exec(move || enter(&entry)) };
}

fn enter(entry: &Entry) -> io::Result<()> {
    let Entry {
        netns,
        cgroup_procs,
        binds,
    } = entry;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::io::write(cgroup_procs, b"0")?;
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
    if binds.is_empty() {
        return Ok(());
    }
    // SAFETY: a new mount namespace has no effect on file descriptors or memory.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    // Mounts made later by the host still arrive here; ours do not leave.
    mount_change(
        c"/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )?;
    for (file, at) in binds {
        mount_bind(file.as_c_str(), at.as_c_str())?;
    }
    Ok(())
}
