//! Containers: namespaces behind a Linux bridge on a host, as a container engine makes them.

use std::sync::Arc;

use anyhow::Result;

use super::{
    Host, HostSpec,
    exec::{fed_tool, ip_batch},
    host::{UPLINK, offloads},
};

/// A bridge for containers on a host.
#[derive(Clone, Debug)]
pub struct BridgeSpec {
    /// The device: `docker0`.
    pub device: String,
    /// The host's addresses on it, which are the containers' gateways: `172.31.1.1/24`, `fd78:1::1/64`.
    pub addresses: Vec<String>,
    /// FORWARD policy DROP with a container engine's exceptions: out of the bridge, and back in only what
    /// conntrack knows.
    pub forward_drop: bool,
    /// Source NAT for what containers send out by [`UPLINK`].
    pub masquerade: bool,
}

/// A bridge on a host; it ends with the host.
#[derive(Debug)]
pub struct Bridge<'a> {
    host: &'a Host,
    device: String,
    gateways: Vec<String>,
}

// === impl Bridge ===

impl Host {
    /// Makes a bridge for containers. The host must forward.
    ///
    /// # Errors
    ///
    /// What `ip` or `nft` refuse.
    pub fn bridge(&self, spec: &BridgeSpec) -> Result<Bridge<'_>> {
        let BridgeSpec {
            device,
            addresses,
            forward_drop,
            masquerade,
        } = spec;
        let mut commands = format!(
            "link add name {device} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
             link set dev {device} up\n"
        );
        for address in addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            commands += &format!("addr add {address} dev {device}{nodad}\n");
        }
        ip_batch(self.netns().name(), &commands)?;
        let rules = rules(device, *forward_drop, *masquerade);
        let net = format!("--net={}", self.netns().path().display());
        fed_tool(&["nsenter", &net, "nft", "-f", "-"], &rules)?;
        let gateways = addresses
            .iter()
            .map(|address| address.split('/').next().unwrap_or_default().to_owned())
            .collect();
        Ok(Bridge {
            host: self,
            device: device.clone(),
            gateways,
        })
    }
}

impl Host {
    /// Has nothing answer at a port of this host any more, not even its kernel.
    ///
    /// # Errors
    ///
    /// What `nft` refuses.
    pub fn hush(&self, protocol: &str, port: u16) -> Result<()> {
        let rules = format!(
            "table inet hush {{\n\
             chain input {{ type filter hook input priority 0;\n\
             {protocol} dport {port} drop\n\
             }}\n\
             }}\n"
        );
        let net = format!("--net={}", self.netns().path().display());
        fed_tool(&["nsenter", &net, "nft", "-f", "-"], &rules).map(drop)
    }
}

impl Bridge<'_> {
    /// Makes a container whose default route is the bridge; its cgroup is a child of the host's, its host
    /// end of the cable is named `vNAME`.
    ///
    /// # Errors
    ///
    /// What `ip` refuses.
    pub fn container(&self, spec: &HostSpec) -> Result<Host> {
        let Self {
            host,
            device,
            gateways,
        } = self;
        let mut spec = spec.clone();
        spec.routes.extend(
            gateways
                .iter()
                .map(|gateway| format!("default via {gateway}")),
        );
        let cgroup = host.cgroup().path().join(&spec.name);
        let inside = Host::unplugged(Arc::clone(host.site()), &spec, cgroup)?;
        let (outer, port) = (host.netns().name(), format!("v{}", spec.name));
        ip_batch(
            outer,
            &format!(
                "link add name {port} type veth peer name {UPLINK} netns {}\n\
                 link set dev {port} master {device} up\n",
                inside.netns().name()
            ),
        )?;
        offloads(outer, &port, spec.tx_checksum)?;
        inside.plug(&spec)?;
        Ok(inside)
    }

    /// The device on the host.
    pub fn device(&self) -> &str {
        &self.device
    }
}

/// What a container engine asks of netfilter; one table per bridge.
fn rules(device: &str, forward_drop: bool, masquerade: bool) -> String {
    let mut chains = String::new();
    if forward_drop {
        chains += &format!(
            "chain forward {{\n\
               type filter hook forward priority filter; policy drop;\n\
               iifname \"{device}\" accept\n\
               oifname \"{device}\" ct state established,related accept\n\
             }}\n"
        );
    }
    if masquerade {
        chains += &format!(
            "chain postrouting {{\n\
               type nat hook postrouting priority srcnat;\n\
               oifname \"{UPLINK}\" iifname \"{device}\" masquerade\n\
             }}\n"
        );
    }
    format!("table inet {device} {{\n{chains}}}\n")
}
