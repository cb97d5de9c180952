//! The link address: where containers of this node ask for names.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};

use super::{Netlink, netlink::is_gone, route::LOOPBACK};
use crate::purged::Purged;

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
        let mut request = self.handle()?.address().add(LOOPBACK, addr.into(), 32);
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

    /// Removes every address that the agent ever added, and says which; goes on where one cannot be removed.
    pub async fn purge_addresses(&self, purged: &mut Purged) {
        let Some(messages) = purged.expect(self.address_messages().await) else {
            return;
        };
        for message in messages {
            if let Some(addr) = ours(&message) {
                purged.note(format!("address {addr} on lo"), self.delete(message).await);
            }
        }
    }

    /// False if it is gone already.
    async fn delete(&self, message: AddressMessage) -> Result<bool> {
        match self.handle()?.address().del(message).execute().await {
            Ok(()) => Ok(true),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
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
