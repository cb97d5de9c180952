//! A topology whose services come from a file: servers at known places, for tests of one path each.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};

use crate::{
    lab::{Host, Process, programs::program, wait_until},
    task::READY,
    topology::{Topology, WORKER3, Wishes},
};

/// The node whose own sockets answer [`HOST`].
pub const WORKER1: usize = 1;

/// A service on a host socket of worker1, as a name and its port; TCP and UDP, IPv4 and IPv6.
pub const HOST: (&str, u16) = ("hostsvc", 7001);

/// A service in a container of worker3.
pub const BOX: (&str, u16) = ("boxsvc", 7002);

/// A service whose only backend takes no new flows.
pub const IDLE: (&str, u16) = ("idlesvc", 7003);

/// Where the backends listen.
const BACKEND_PORT: u16 = 8001;

/// A [`Topology`] with the two servers behind [`HOST`] and [`BOX`]. Fields end in this order.
#[derive(Debug)]
pub struct Fixed {
    /// The servers.
    pub servers: Vec<Process>,
    /// All else.
    pub topology: Topology,
}

// === impl Fixed ===

impl Fixed {
    /// Brings it up and waits until every node knows the names.
    ///
    /// # Errors
    ///
    /// As [`Topology::up`].
    pub fn up(wishes: Wishes) -> Result<Self> {
        let topology = Topology::up(Wishes {
            services: services(&[HOST, BOX, IDLE]),
            ..wishes
        })?;
        let servers = vec![
            serve(&topology.nodes[WORKER1], "worker1")?,
            serve(&topology.slots[0], "container")?,
        ];
        for (name, ipv6) in [
            (HOST.0, false),
            (HOST.0, true),
            (BOX.0, false),
            (BOX.0, true),
        ] {
            topology.agreed_vip(name, ipv6)?;
        }
        Ok(Self { servers, topology })
    }

    /// The VIP of one of the services above.
    ///
    /// # Errors
    ///
    /// The master's DNS does not know it.
    pub fn vip(&self, (name, port): (&str, u16), ipv6: bool) -> Result<SocketAddr> {
        Ok(SocketAddr::new(self.topology.vip(0, name, ipv6)?, port))
    }
}

/// An address of a host on the switch, by the last number of it.
pub fn on_switch(number: u8, ipv6: bool) -> IpAddr {
    if ipv6 {
        // The numbers are written in decimal in both families: 10.77.0.11 and fd77::11.
        let group = u16::from_str_radix(&number.to_string(), 16).unwrap_or_default();
        [0xfd77, 0, 0, 0, 0, 0, 0, group].into()
    } else {
        [10, 77, 0, number].into()
    }
}

fn serve(host: &Host, node: &str) -> Result<Process> {
    let (program, port) = (program("task-server")?, BACKEND_PORT.to_string());
    let mut server = host.start("server", &[&program, "--node", node, "--port", &port])?;
    wait_until(
        "a server is ready",
        std::time::Duration::from_secs(10),
        || server.stdout().contains(READY) || server.has_ended(),
    )?;
    (!server.has_ended())
        .then_some(server)
        .with_context(|| format!("the server on {node} ended"))
}

/// A services file with those of the services above.
pub fn services(which: &[(&str, u16)]) -> String {
    let container = format!("172.31.{WORKER3}.10");
    let backends = [
        (HOST, "10.77.0.11", "fd77::11", 1),
        (BOX, &container, "fd78:3::10", 1),
        (IDLE, "10.77.0.12", "fd77::12", 0),
    ];
    let mut yaml = "services:\n".to_owned();
    for ((name, port), v4, v6, weight) in backends {
        if !which.contains(&(name, port)) {
            continue;
        }
        for protocol in ["tcp", "udp"] {
            yaml += &format!(
                "  - name: /{name}\n    framework: marathon\n    port: {port}\n    protocol: {protocol}\n    \
                 backends:\n      - {{address: \"{v4}:{BACKEND_PORT}\", weight: {weight}}}\n      \
                 - {{address: \"[{v6}]:{BACKEND_PORT}\", weight: {weight}}}\n"
            );
        }
    }
    yaml
}
