//! `lb-agent purge`: removes whatever an agent ever made on this node.

use anyhow::{Context as _, Result};

use super::made::Made;
use crate::{
    config::Paths,
    datapath,
    net::{Netlink, Routes, restore_reserved_ports},
};

/// Detaches, unpins, removes routes and addresses, restores sysctls; one item for each.
///
/// # Errors
///
/// If something cannot be removed. What came before it is.
pub fn purge(paths: &Paths) -> Result<Vec<String>> {
    let mut removed = datapath::purge(&paths.pin_dir)?;
    let made = Made::load(&paths.state_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let netlink = Netlink::open()?;
        removed.extend(Routes::new(netlink.clone()).purge().await?);
        removed.extend(netlink.purge_addresses().await?);
        anyhow::Ok(())
    })?;
    if let Some(before) = &made.reserved_ports_before {
        restore_reserved_ports(before).context("cannot restore ip_local_reserved_ports")?;
        removed.push(format!(
            "SNAT range from ip_local_reserved_ports (now '{before}')"
        ));
    }
    Made::forget(&paths.state_dir)?;
    Ok(removed)
}
