//! `lb-agent purge`: removes whatever an agent ever made on this node.

use anyhow::{Context as _, Result};

use super::made::Made;
use crate::{
    config::Paths,
    datapath,
    net::{Netlink, Routes, restore_reserved_ports},
    preflight,
    purged::Purged,
};

/// Detaches, unpins, removes routes and addresses, restores sysctls. Goes on where something cannot be removed,
/// and says so.
///
/// # Errors
///
/// If nothing may be touched: not root, or the folder for pins is somebody else's.
pub fn purge(paths: &Paths) -> Result<Purged> {
    preflight::root()?;
    // Whatever is in the folder goes; a slip must not cost anybody's files.
    if paths.pin_dir.exists() {
        preflight::pin_dir(&paths.pin_dir)?;
    }
    let mut purged = Purged::default();
    datapath::purge(&paths.pin_dir, &mut purged);
    let network = purge_network(&mut purged);
    purged.expect(network);
    let restored = restore(paths, &mut purged);
    purged.expect(restored);
    Ok(purged)
}

fn purge_network(purged: &mut Purged) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let netlink = Netlink::open()?;
        Routes::new(netlink.clone()).purge(purged).await;
        netlink.purge_addresses(purged).await;
        Ok(())
    })
}

/// What was noted in the state directory.
fn restore(paths: &Paths, purged: &mut Purged) -> Result<()> {
    let made = Made::load(&paths.state_dir)?;
    if let Some(before) = &made.reserved_ports_before {
        restore_reserved_ports(before).context("cannot restore ip_local_reserved_ports")?;
        purged.removed.push(format!(
            "ranges of ours from ip_local_reserved_ports (now '{before}')"
        ));
    }
    Made::forget(&paths.state_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_pin_dir_costs_nobody_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("home/thesis");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "years of work").unwrap();
        let said = purge(&Paths {
            pin_dir: dir.path().to_owned(),
            state_dir: dir.path().join("state"),
            run_dir: dir.path().join("run"),
            cgroup: None,
        })
        .unwrap_err()
        .to_string();
        assert!(
            said.contains("is not on a bpf file system") || said.contains("must run as root"),
            "{said}"
        );
        assert!(file.exists());
    }
}
