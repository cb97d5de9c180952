//! Shows single flows out of the tables. Nothing is changed.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::Result;
use aya::{Pod, maps::MapError};
use lb_common::{
    Addr4, Addr6, Address, Backend, Be16, Flow, FlowKey, backend_kind, backend_state, direction,
    flow_flag, headers::TCP, tcp_state,
};

use super::flows::{FlowTables, Table, now};
use crate::{
    catalog::Protocol,
    look::{Filter, FlowReport, FlowState, FlowsReport, Way},
    plan::Endpoint,
};

/// What a walk for flows needs and gathers.
struct Search<'a> {
    filter: &'a Filter,
    limit: usize,
    backends: BTreeMap<u32, Backend>,
    now: u64,
    found: FlowsReport,
}

/// An address of a family's tables as people know it.
pub(super) trait Known: Address {
    fn ip(self) -> IpAddr;
}

impl Known for Addr4 {
    fn ip(self) -> IpAddr {
        Ipv4Addr::from(self).into()
    }
}

impl Known for Addr6 {
    fn ip(self) -> IpAddr {
        Ipv6Addr::from(self).into()
    }
}

// === impl FlowTables ===

impl FlowTables {
    /// The flows that match, up to `limit` of them, and how many more there are; names are left out. It holds no
    /// more than `limit` flows in memory. Takes up to a second for a million entries; blocks.
    ///
    /// # Errors
    ///
    /// If a table cannot be read.
    pub fn list(&self, filter: &Filter, limit: usize) -> Result<FlowsReport> {
        let mut search = Search {
            filter,
            limit,
            backends: self.loads.backends()?,
            now: now(),
            found: FlowsReport::default(),
        };
        for table in &self.v4 {
            table.list(&mut search)?;
        }
        for table in &self.v6 {
            table.list(&mut search)?;
        }
        search.found.flows.sort_by(FlowReport::order);
        Ok(search.found)
    }
}

impl FlowTables {
    /// The flow of a client's packets, and why it does not go on with a packet that opens a connection, if so;
    /// `fails_open`: its service counts down as active.
    ///
    /// # Errors
    ///
    /// If a table cannot be read.
    pub(super) fn find<A: Known + Default>(
        &self,
        key: &FlowKey<A>,
        fails_open: bool,
    ) -> Result<Option<(FlowReport, Option<String>)>>
    where
        FlowKey<A>: Pod,
        Flow<A>: Pod,
        Self: HasTables<A>,
    {
        let backends = self.loads.backends()?;
        let now = now();
        let tcp = key.proto == u32::from(TCP);
        // As the programs do: connections first, then those half open.
        for table in self.tables().iter().filter(|table| table.tcp == tcp) {
            let flow = match table.map.get(key, 0) {
                Ok(flow) => flow,
                Err(MapError::KeyNotFound) => continue,
                Err(error) => return Err(error.into()),
            };
            let lost = end(
                &flow,
                backends.get(&flow.backend),
                table.half_open,
                fails_open,
                now,
            );
            let shown = shown(key, &flow, table.half_open, &backends, now);
            return Ok(shown.map(|shown| (shown, lost)));
        }
        Ok(None)
    }
}

/// The tables of a family.
pub(super) trait HasTables<A: 'static>
where
    FlowKey<A>: Pod,
    Flow<A>: Pod,
{
    fn tables(&self) -> &[Table<A>];
}

impl HasTables<Addr4> for FlowTables {
    fn tables(&self) -> &[Table<Addr4>] {
        &self.v4
    }
}

impl HasTables<Addr6> for FlowTables {
    fn tables(&self) -> &[Table<Addr6>] {
        &self.v6
    }
}

/// Why a flow does not go on with a packet that opens a connection.
fn end<A: Address>(
    flow: &Flow<A>,
    backend: Option<&Backend>,
    half_open: bool,
    fails_open: bool,
    now: u64,
) -> Option<String> {
    let closed = tcp_state::FIN | tcp_state::RST | tcp_state::PEER_CLOSED;
    if flow.tcp & closed != 0 {
        return Some("it is closed, so a new connection is chosen afresh".to_owned());
    }
    let backend = backend.filter(|backend| backend.generation == flow.generation);
    match backend.map_or(backend_state::FREE, |backend| backend.state) {
        backend_state::ACTIVE | backend_state::DRAINING => {}
        backend_state::DOWN if fails_open => {}
        backend_state::DOWN => return Some("its backend is down".to_owned()),
        _ => return Some("its backend is gone".to_owned()),
    }
    let silent = now.saturating_sub(flow.last_seen) > u64::from(flow.idle) * 1_000_000_000;
    (silent || flow.is_expired(half_open, now))
        .then(|| "it was silent for longer than its idle time".to_owned())
}

// === impl Table ===

impl<A: Known + Default> Table<A>
where
    FlowKey<A>: Pod,
    Flow<A>: Pod,
{
    fn list(&self, search: &mut Search<'_>) -> Result<()> {
        let mut failed = None;
        self.walk(|key, flow| {
            if flow.is_expired(self.half_open, search.now) {
                return;
            }
            // The client's half tells all; where it was evicted, the other one does.
            let (key, flow, orphan) = match flow.direction {
                direction::FORWARD => (key, flow, false),
                _ => (flow.pair_key(key.proto), flow.pair(&key), true),
            };
            let Some(shown) = shown(&key, &flow, self.half_open, &search.backends, search.now)
            else {
                return;
            };
            if !search.filter.matches(&shown) {
                return;
            }
            if orphan {
                match self.map.get(&key, 0) {
                    Err(MapError::KeyNotFound) => {}
                    Ok(_) => return,
                    Err(error) => {
                        failed.get_or_insert(error);
                        return;
                    }
                }
            }
            if search.found.flows.len() < search.limit {
                search.found.flows.push(shown);
            } else {
                search.found.more += 1;
            }
        })?;
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// A flow's half from the client on; `None` for a protocol that is none of ours.
fn shown<A: Known>(
    key: &FlowKey<A>,
    flow: &Flow<A>,
    half_open: bool,
    backends: &BTreeMap<u32, Backend>,
    now: u64,
) -> Option<FlowReport> {
    let protocol = [Protocol::Tcp, Protocol::Udp]
        .into_iter()
        .find(|known| u32::from(known.number()) == key.proto)?;
    let at = |addr: A, port: Be16| SocketAddr::new(addr.ip(), port.get());
    let backend = if backend_kind::is_dsr(flow.kind) {
        backends
            .get(&flow.backend)
            .filter(|backend| backend.generation == flow.generation)
            .and_then(Endpoint::of)
            .map(|backend| SocketAddr::new(backend.addr, backend.port))
    } else {
        Some(at(flow.new_dst, flow.new_dport))
    };
    let two_way = flow.flags & flow_flag::TWO_WAY != 0;
    Some(FlowReport {
        protocol,
        client: at(key.src, key.sport),
        vip: at(key.dst, key.dport),
        name: None,
        backend,
        how: Way::of(flow.kind),
        state: FlowState::of(protocol, half_open, flow.tcp, two_way),
        idle_s: now.saturating_sub(flow.last_seen) / 1_000_000_000,
        // The lower 32 bits of each.
        age_s: u64::from(((now / 1_000_000) as u32).wrapping_sub(flow.opened) / 1_000),
    })
}

#[cfg(test)]
mod tests;
