//! What shows that a way was really taken: whom the server saw, and the counters of what did the work.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Map, MapData, PerCpuArray};
use lb_common::{BackendStats, Reason};

use super::{Effort, Load, Site, Way};
use crate::lab::{Host, exec::tool_in};

/// Ids of backends that the counters are summed over; the lab's services have 16.
const IDS: u32 = 64;

/// A short look.
const GLANCE: Effort = Effort {
    rounds: 1,
    offload_rounds: 1,
    latency_rounds: 1,
    warm_up: Duration::ZERO,
    measure: Duration::from_millis(30),
};

/// What a datapath counted so far.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    /// Flows given to backends.
    flows: u64,
    /// Packets on the packet path, both ways.
    packets: u64,
    /// Packets that XDP left to the tc program.
    slow: u64,
}

// === impl Site ===

impl Site {
    /// Takes a way for a moment and demands that what should move has moved, and nothing else.
    ///
    /// # Errors
    ///
    /// What did not.
    pub fn prove(&self, way: Way) -> Result<()> {
        let before = self.counters()?;
        let mut connections = 0;
        for load in [Load::Single, Load::Short, Load::Bulk] {
            let outcome = self.measure(way, load, &GLANCE)?;
            connections += outcome.connections;
        }
        ensure!(connections > 0, "no connection was counted");
        let after = self.counters()?;
        for (other, now, then) in [
            (Way::Socket, after.socket.flows, before.socket.flows),
            (Way::Xdp, after.xdp.flows, before.xdp.flows),
            (Way::Nftables, after.nft, before.nft),
            (Way::Haproxy, after.haproxy, before.haproxy),
            (Way::Routed, after.routed, before.routed),
        ] {
            let moved = now - then;
            if other == way {
                ensure!(
                    moved >= connections,
                    "{connections} connections, but only {moved} counted by {}",
                    other.name()
                );
            } else {
                ensure!(moved == 0, "{} carried {moved} of them", other.name());
            }
        }
        if way == Way::Xdp {
            let packets = after.xdp.packets - before.xdp.packets;
            let slow = after.xdp.slow - before.xdp.slow;
            ensure!(
                packets >= 4 * connections && slow * 100 <= packets,
                "of {packets} packets {slow} were left to the tc program"
            );
        }
        if way == Way::Socket {
            ensure!(
                after.socket.packets == before.socket.packets,
                "the socket path touched packets"
            );
        }
        Ok(())
    }

    fn counters(&self) -> Result<Counters> {
        Ok(Counters {
            socket: counted(&self.client)?,
            xdp: counted(&self.xdp)?,
            nft: nft_counter(&self.nft)?,
            haproxy: haproxy_connections(&self.haproxy_socket())?,
            routed: forwarded(&self.router)?,
        })
    }
}

/// Everything that counts connections.
struct Counters {
    socket: Counted,
    xdp: Counted,
    nft: u64,
    haproxy: u64,
    routed: u64,
}

/// Reads an agent's pinned maps.
fn counted(host: &Host) -> Result<Counted> {
    let stats: PerCpuArray<_, BackendStats> = pinned(host, "LB_STATS")?;
    let reasons: PerCpuArray<_, u64> = pinned(host, "LB_COUNTERS")?;
    let mut counted = Counted::default();
    for id in 0..IDS {
        for cpu in stats.get(&id, 0)?.iter() {
            counted.flows += cpu.flows;
            counted.packets += cpu.packets_to + cpu.packets_from;
        }
    }
    let slow = reasons.get(&(Reason::ToSlowPath as u32), 0)?;
    counted.slow = slow.iter().sum();
    Ok(counted)
}

/// A map of the one schema that is pinned for a host's agent.
fn pinned<V: aya::Pod>(host: &Host, name: &str) -> Result<PerCpuArray<MapData, V>> {
    let schema = std::fs::read_dir(host.pins())?
        .next()
        .context("nothing is pinned")??;
    let data = MapData::from_pin(schema.path().join(name))?;
    Ok(PerCpuArray::try_from(Map::PerCpuArray(data))?)
}

/// Connections that the DNAT rule has seen: its chain is asked once for each.
fn nft_counter(host: &Host) -> Result<u64> {
    let netns = host.netns().name();
    let shown = tool_in(
        netns,
        &["nft", "list", "chain", "ip", "bench", "prerouting"],
    )?;
    let (_, rest) = shown
        .split_once("counter packets ")
        .context("nft shows no counter")?;
    let number = rest.split(' ').next().unwrap_or_default();
    number.parse().context("nft's counter")
}

fn haproxy_connections(socket: &Path) -> Result<u64> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(b"show stat\n")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    // CSV: pxname,svname,qcur,qmax,scur,smax,slim,stot,...
    let line = said
        .lines()
        .find(|line| line.starts_with("bench,FRONTEND,"));
    let total = line.and_then(|line| line.split(',').nth(7));
    total
        .context("HAProxy says nothing about its frontend")?
        .parse()
        .context("HAProxy's count")
}

/// Packets that a host forwarded: `ForwDatagrams` of `/proc/net/snmp`, whose first `Ip:` line names the fields of
/// the second.
fn forwarded(host: &Host) -> Result<u64> {
    let shown = host.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
    let mut lines = shown.lines().filter_map(|line| line.strip_prefix("Ip: "));
    let (names, values) = (lines.next(), lines.next());
    let mut fields = names
        .zip(values)
        .into_iter()
        .flat_map(|(names, values)| names.split(' ').zip(values.split(' ')));
    let (_, value) = fields
        .find(|(name, _)| *name == "ForwDatagrams")
        .context("no ForwDatagrams")?;
    value.parse().context("ForwDatagrams")
}
