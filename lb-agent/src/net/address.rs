//! The link address: where containers of this node ask for names.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};

use super::{Netlink, route::LOOPBACK};

/// The label by which an address is known as ours; shown by `ip address`. A label, because the attribute
/// made for this (`IFA_PROTO`) came with Linux 5.18 only, and a label survives the agent's own files.
pub const LABEL: &str = "lo:lb-agent";

// === impl Netlink ===

impl Netlink {
    /// Puts `addr` on `lo` if the node does not have it yet; tells whether it was added.
    ///
    /// An address that somebody else put anywhere on the node is used as it is and left alone by
    /// [`Netlink::purge_addresses`]. Scope *host*, so that it is never chosen as the source of a packet that
    /// leaves the node.
    ///
    /// # Errors
    ///
    /// If addresses cannot be read or this one cannot be added.
    pub async fn ensure_address(&self, addr: Ipv4Addr) -> Result<bool> {
        let known = self.addresses().await?;
        if known
            .iter()
            .any(|known| known.net.addr() == IpAddr::V4(addr))
        {
            return Ok(false);
        }
        let mut request = self.handle.address().add(LOOPBACK, addr.into(), 32);
        let message = request.message_mut();
        message.header.scope = AddressScope::Host;
        message
            .attributes
            .push(AddressAttribute::Label(LABEL.to_owned()));
        request
            .execute()
            .await
            .with_context(|| format!("cannot add address {addr} to lo"))?;
        Ok(true)
    }

    /// Removes every address that the agent ever added, and says which.
    ///
    /// # Errors
    ///
    /// If addresses cannot be read or one of ours cannot be removed.
    pub async fn purge_addresses(&self) -> Result<Vec<String>> {
        let mut removed = Vec::new();
        for message in self.address_messages().await? {
            let Some(addr) = ours(&message) else {
                continue;
            };
            self.handle
                .address()
                .del(message)
                .execute()
                .await
                .with_context(|| format!("cannot remove address {addr} from lo"))?;
            removed.push(format!("address {addr} on lo"));
        }
        Ok(removed)
    }
}

/// The address, if it is labelled as ours.
fn ours(message: &AddressMessage) -> Option<IpAddr> {
    let label = AddressAttribute::Label(LABEL.to_owned());
    if !message.attributes.contains(&label) {
        return None;
    }
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Local(addr) => Some(*addr),
            _ => None,
        })
}
