//! What shows that a way was really taken: whom the server saw, and the counters of what did the work.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{HashMap, Map, MapData, PerCpuArray};
use lb_common::{Addr4, BackendStats, Flow, FlowKey, Reason};

use super::{Effort, Load, Site, Way};
use crate::lab::{Host, UPLINK, exec::tool_in};

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
    /// Packets to backends and from them; of local connections segments.
    packets: [u64; 2],
    /// Halves of TCP flows in the tables of the packet path.
    tracked: usize,
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
        let (mut connections, mut bytes) = (0, 0);
        for load in [Load::Single, Load::Short, Load::Bulk] {
            let outcome = self.measure(way, load, &GLANCE)?;
            connections += outcome.connections;
            bytes += outcome.bytes;
        }
        ensure!(connections > 0, "no connection was counted");
        let after = self.counters()?;
        for (other, now, then) in [
            (Way::Socket, after.socket.flows, before.socket.flows),
            (Way::Xdp, after.xdp.flows, before.xdp.flows),
            (Way::Dsr, after.dsr.flows, before.dsr.flows),
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
        match way {
            Way::Xdp => {
                ensure!(after.xdp.tracked > 0, "the packet path has no flows");
                let carried = after.xdp.since(&before.xdp);
                carried.stayed_in_xdp(4 * connections)?;
            }
            Way::Dsr => {
                let carried = after.dsr.since(&before.dsr);
                carried.stayed_in_xdp(3 * connections)?;
                ensure!(carried.packets[1] == 0, "answers were translated");
                let came = after.dsr_bytes - before.dsr_bytes;
                ensure!(
                    came < bytes / 2,
                    "{bytes} bytes for the client, and {came} came by the node"
                );
            }
            Way::Socket => ensure!(
                after.socket.tracked == 0,
                "the packet path has flows of the socket path"
            ),
            Way::Direct | Way::Nftables | Way::Haproxy | Way::Routed => {}
        }
        Ok(())
    }

    fn counters(&self) -> Result<Counters> {
        Ok(Counters {
            socket: counted(&self.client)?,
            xdp: counted(&self.xdp)?,
            dsr: counted(&self.dsr)?,
            dsr_bytes: received(&self.dsr)?,
            nft: nft_counter(&self.nft)?,
            haproxy: haproxy_connections(&self.haproxy_socket())?,
            routed: forwarded(&self.router)?,
        })
    }
}

// === impl Counted ===

impl Counted {
    fn since(&self, before: &Self) -> Self {
        let [to, from] = self.packets;
        Self {
            flows: self.flows - before.flows,
            packets: [to - before.packets[0], from - before.packets[1]],
            tracked: self.tracked,
            slow: self.slow - before.slow,
        }
    }

    /// At least so many packets, and next to none of them left to the tc program.
    fn stayed_in_xdp(&self, least: u64) -> Result<()> {
        let (packets, slow) = (self.packets.iter().sum::<u64>(), self.slow);
        ensure!(
            packets >= least && slow * 100 <= packets,
            "of {packets} packets {slow} were left to the tc program"
        );
        Ok(())
    }
}

/// Everything that counts connections.
struct Counters {
    socket: Counted,
    xdp: Counted,
    dsr: Counted,
    /// That came in by the network card of the node of direct server return.
    dsr_bytes: u64,
    nft: u64,
    haproxy: u64,
    routed: u64,
}

/// Reads an agent's pinned maps.
fn counted(host: &Host) -> Result<Counted> {
    let stats: PerCpuArray<_, BackendStats> =
        Map::PerCpuArray(pinned(host, "LB_STATS")?).try_into()?;
    let reasons: PerCpuArray<_, u64> = Map::PerCpuArray(pinned(host, "LB_COUNTERS")?).try_into()?;
    let mut counted = Counted::default();
    for id in 0..IDS {
        for cpu in stats.get(&id, 0)?.iter() {
            counted.flows += cpu.flows;
            counted.packets[0] += cpu.packets_to;
            counted.packets[1] += cpu.packets_from;
        }
    }
    for name in ["LB_FLOWS_TCP4", "LB_FLOWS_HALF4"] {
        let flows: HashMap<_, FlowKey<Addr4>, Flow<Addr4>> =
            Map::LruHashMap(pinned(host, name)?).try_into()?;
        for key in flows.keys() {
            key?;
            counted.tracked += 1;
        }
    }
    let slow = reasons.get(&(Reason::ToSlowPath as u32), 0)?;
    counted.slow = slow.iter().sum();
    Ok(counted)
}

/// A map of the one schema that is pinned for a host's agent.
fn pinned(host: &Host, name: &str) -> Result<MapData> {
    let schema = std::fs::read_dir(host.pins())?
        .next()
        .context("nothing is pinned")??;
    Ok(MapData::from_pin(schema.path().join(name))?)
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

/// Bytes that came in by a host's network card: the first number of its line in `/proc/net/dev`.
fn received(host: &Host) -> Result<u64> {
    let shown = host.enter(|| std::fs::read_to_string("/proc/thread-self/net/dev"))??;
    let mut lines = shown.lines().map(str::trim_start);
    let line = lines.find_map(|line| line.strip_prefix(UPLINK)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next());
    let number = number.with_context(|| format!("no line of {UPLINK} in /proc/net/dev"))?;
    number.parse().context("bytes received")
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
