//! What the agent may do once it has started: a few capabilities, whoever started it.

use anyhow::{Context as _, Result};
use rustix::{
    io::Errno,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
        clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
        set_no_new_privs,
    },
};

/// What is kept, and nothing else; the systemd unit says the same.
///
/// BPF and PERFMON load and attach, NET_ADMIN sets routes and XDP, SYS_ADMIN covers kernels whose cgroup hooks
/// and bpffs ask for it, NET_BIND_SERVICE is for port 53. Not among them is DAC_OVERRIDE: files of the agent
/// must be root's, or readable by all.
pub const KEPT: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::NET_BIND_SERVICE);

/// Gives up every capability but [`KEPT`], for good: neither this thread nor one that it starts, nor a program
/// that they execute, gets it back. To be called before there is another thread, since capabilities are each
/// thread's own (capabilities(7)).
///
/// # Errors
///
/// If the kernel refuses.
pub fn give_up() -> Result<()> {
    limit_bounding_set().context("cannot limit the capability bounding set")?;
    match clear_ambient_capability_set() {
        // The kernel has no ambient set.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(error) => return Err(error).context("cannot clear the ambient capabilities"),
    }
    let permitted = capabilities(None)
        .context("cannot read the capabilities")?
        .permitted
        .intersection(KEPT);
    let sets = CapabilitySets {
        effective: permitted,
        permitted,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).context("cannot give up capabilities")?;
    set_no_new_privs(true).context("cannot set no_new_privs")
}

/// Without CAP_SETPCAP, as under a systemd unit that limits it itself, it stays as it is: with no_new_privs
/// nothing in it can be had.
fn limit_bounding_set() -> rustix::io::Result<()> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match capability_is_in_bounding_set(capability) {
            Ok(true) if !KEPT.contains(capability) => {
                match remove_capability_from_bounding_set(capability) {
                    Err(Errno::PERM) => return Ok(()),
                    removed => removed?,
                }
            }
            Ok(_) => {}
            // Beyond the kernel's last capability.
            Err(Errno::INVAL) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, thread};

    use super::*;

    #[test]
    fn the_unit_leaves_the_agent_what_it_keeps_by_itself() {
        let unit = include_str!("../dist/lb-agent.service");
        let line = unit
            .lines()
            .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
            .unwrap();
        let named: BTreeSet<String> = line
            .split_whitespace()
            .map(|name| name.strip_prefix("CAP_").unwrap().to_owned())
            .collect();
        let kept = KEPT.iter_names().map(|(name, _)| name.to_owned());
        assert_eq!(named, kept.collect());
        assert!(unit.contains("\nNoNewPrivileges=yes\n"));
    }

    #[test]
    fn files_of_root_stay_readable_and_private_files_of_others_do_not() {
        use std::{fs::Permissions, io::ErrorKind, os::unix::fs::PermissionsExt as _};
        let files = [0, 65_534].map(|owner| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::set_permissions(file.path(), Permissions::from_mode(0o600)).unwrap();
            std::os::unix::fs::chown(file.path(), Some(owner), None).unwrap();
            file
        });
        let paths = files.each_ref().map(|file| file.path().to_owned());
        let read = move || {
            give_up().unwrap();
            paths.map(|path| std::fs::read(path).map_err(|error| error.kind()))
        };
        let outcome = thread::spawn(read).join().unwrap();
        assert_eq!(outcome, [Ok(vec![]), Err(ErrorKind::PermissionDenied)]);
    }

    #[test]
    fn what_was_given_up_is_gone_from_every_set_and_for_new_threads() {
        // A thread of its own: there is no way back.
        let give_up_and_look = || {
            give_up().unwrap();
            thread::spawn(|| std::fs::read_to_string("/proc/thread-self/status").unwrap())
                .join()
                .unwrap()
        };
        let status = thread::spawn(give_up_and_look).join().unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim_start_matches(':').trim().to_owned()
        };
        let set = |name: &str| u64::from_str_radix(&field(name), 16).unwrap();
        for name in ["CapEff", "CapPrm", "CapBnd"] {
            assert_eq!(set(name) & !KEPT.bits(), 0, "{name}: {status}");
        }
        assert_eq!((set("CapInh"), set("CapAmb")), (0, 0));
        assert_eq!(field("NoNewPrivs"), "1");
    }
}
