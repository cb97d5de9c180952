//! Our programs with full maps, and the packets that they are measured with.
//!
//! What the datapath needs to translate a packet is set up here and nowhere else.
// What measures may panic, as what tests: a wrong set-up must not give a figure.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use aya::programs::{ProgramFd, xdp::XdpLink};
use lb_common::{
    Addr4, Addr6, Backend, IDLE_TCP, IDLE_UDP, IDLE_UDP_TWO_WAY, NextHop, NodeConfig, Reason,
    SLOTS_SMALL, Service, backend_kind, geneve::source_port, headers::join, port_flag,
    service_flag, service_mode,
};

use crate::{
    bench::floors::{Floors, Setup},
    packet::{
        Entry, FIRST_MAC, Frame, GATEWAY_MAC, Hook, Net, Rig, SECOND_MAC, Segment, Shim, Sizes,
        Way, XDP_PASS, XDP_REDIRECT, XDP_TX, backend, neighbour_mac, repeated,
    },
};

/// Backends of the first VIP: a million flows need that many source ports.
const BACKENDS: u32 = 72;
/// Backend ids of each way: those, one elsewhere and one here.
const IDS: u32 = 100;
/// Backends that the network of the rig has neighbours for.
const HOSTS: u32 = 9;
const PORTS: (u16, u16) = (20_000, 45_000);
/// Index of the next hop to the second network's first host; those to the first network's have the host's
/// number.
const FAR_HOP: u16 = 20;
/// Index of the next hop to the clients.
const GATEWAY_HOP: u16 = 21;
/// Number of the host that sends to this node as its peer.
const PEER: u8 = 9;
/// IP packets of this length leave by any interface, bytes.
const MTU: u32 = 1_500;
/// A port of the node's own address that is a service's, and the service.
const EXTERNAL: u16 = 10_000;
const EXTERNAL_SERVICE: u32 = 99;
/// Flows that are half-open at a time while many are opened.
const AT_A_TIME: u32 = 4_096;
/// Makes every packet longer than what the wrapper restores.
const PAYLOAD: usize = 112;

/// Our programs and their maps.
pub struct Ours {
    rig: Rig,
    net: Net,
}

/// A packet, and what must become of it.
pub struct Job {
    /// As it arrives.
    pub packet: Frame,
    /// What the program says.
    pub verdict: u32,
    /// As it must leave, byte by byte.
    pub wanted: Vec<u8>,
    /// What stands before it.
    pub shim: Option<Shim>,
    /// Bytes that it grows by, at its head; see [`Setup::grows`].
    pub grows: u32,
}

/// How a service's backends are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Other hosts, by the interface that the packet came in by.
    SameInterface,
    /// Another host, by another interface.
    OtherInterface,
    /// This node.
    Here,
    /// Another host that answers the client itself, by IP in IP.
    Ipip,
    /// As well, by a frame to it.
    L2,
    /// As well, by the agent there.
    Geneve,
}

// === impl Reach ===

impl Reach {
    fn mode(self) -> u8 {
        match self {
            Self::Ipip => service_mode::DSR_IPIP,
            Self::L2 => service_mode::DSR_L2,
            Self::Geneve => service_mode::DSR_GENEVE,
            _ => service_mode::NAT,
        }
    }

    /// Number of its VIP.
    fn vip(self) -> u8 {
        match self {
            Self::SameInterface => 1,
            Self::OtherInterface => 2,
            Self::Here => 3,
            Self::Ipip => 4,
            Self::L2 => 5,
            Self::Geneve => 6,
        }
    }
}

// === impl Job ===

impl Job {
    /// The packet's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let bytes = self.packet.bytes();
        match &self.shim {
            Some(shim) => shim.around(&bytes),
            None => bytes,
        }
    }
}

// === impl Ours ===

impl Ours {
    /// One service of each way and reach.
    pub fn new(net: Net, sizes: &Sizes) -> Self {
        let mut rig = Rig::here(sizes);
        next_hops(&mut rig, net);
        for (n, way) in (0..).zip([Way::V4_TCP, Way::V6_TCP, Way::V4_UDP, Way::V6_UDP]) {
            let first = 1 + n * IDS;
            let ids: Vec<u32> = (first..first + BACKENDS).collect();
            for (i, id) in (0..).zip(&ids) {
                let host = 1 + (i % HOSTS) as u8;
                let mut at = way.backend(host);
                at.set_port(8_080 + (i / HOSTS) as u16);
                let value = backend(way, at, backend_kind::NET);
                let next_hop = u16::from(host);
                rig.backend(*id, Backend { next_hop, ..value });
            }
            let (far, here) = (first + BACKENDS, first + BACKENDS + 1);
            let value = backend(way, way.far_backend(1), backend_kind::NET);
            let next_hop = FAR_HOP;
            rig.backend(far, Backend { next_hop, ..value });
            rig.backend(here, backend(way, way.host(), backend_kind::HOST));
            rig.peer(first, way.backend(1).ip(), net.first, 1);
            let here_id = 1 + n * 10 + u32::from(Reach::Here.vip());
            rig.local(here_id, way.host(), here);
            for (reach, ids) in [
                (Reach::SameInterface, &ids[..]),
                (Reach::OtherInterface, &[far]),
                (Reach::Here, &[here]),
                (Reach::Ipip, &[first]),
                (Reach::L2, &[first]),
                (Reach::Geneve, &[first]),
            ] {
                let (id, vip) = (1 + n * 10 + u32::from(reach.vip()), way.vip(reach.vip()));
                let table = repeated(ids, SLOTS_SMALL);
                rig.service(way, vip, id, 0, &table);
                let mode = reach.mode();
                rig.service_value(
                    way,
                    vip,
                    Service {
                        mode,
                        ..service(id)
                    },
                );
            }
            rig.allow(way.client(0).ip(), if way.v6 { 64 } else { 16 });
            rig.node(way, PORTS.0, PORTS.1);
        }
        let mut node = NodeConfig {
            snat_port_min: PORTS.0,
            snat_ports: PORTS.1,
            ..NodeConfig::default()
        };
        for way in [Way::V4_TCP, Way::V6_TCP] {
            match way.node() {
                IpAddr::V4(addr) => node.snat4 = addr.into(),
                IpAddr::V6(addr) => node.snat6 = addr.into(),
            }
        }
        rig.node_value(node);
        for (index, way) in [(1, Way::V4_TCP), (2, Way::V6_TCP)] {
            rig.sender(way.backend(PEER).ip(), index);
        }
        external(&mut rig, Way::V4_TCP);
        rig.port(net.second);
        Self { rig, net }
    }

    /// The XDP program.
    pub fn program(&self) -> ProgramFd {
        self.rig.program(Hook::Xdp)
    }

    /// Attaches the XDP program to an interface, until the link is dropped.
    pub fn attach(&mut self, ifindex: u32) -> XdpLink {
        self.rig.attach_xdp(ifindex)
    }

    /// Forgets all TCP flows.
    pub fn forget_flows(&mut self) {
        self.rig.forget_flows(Way::V4_TCP);
        self.rig.forget_flows(Way::V6_TCP);
    }

    /// The first packet of the first client.
    pub fn opening(&self, way: Way, reach: Reach) -> Frame {
        long(way.opening(way.client(1), way.vip(reach.vip())))
    }

    /// Opens the first client's flow, and gives a later packet of it.
    pub fn established(&self, way: Way, reach: Reach) -> Job {
        let packet = long(way.later(way.client(1), way.vip(reach.vip())));
        let (source, backend) = self.open(way, reach);
        let sent = packet.clone().from(source).to(backend);
        let by = |frame: Frame, dst| frame.between(FIRST_MAC, dst);
        let (verdict, wanted) = match reach {
            Reach::SameInterface => {
                let to = neighbour_mac(last_byte(backend));
                (XDP_TX, by(sent.forwarded(), to).bytes())
            }
            Reach::OtherInterface => {
                let sent = sent.forwarded().between(SECOND_MAC, neighbour_mac(1));
                (XDP_REDIRECT, sent.bytes())
            }
            Reach::Here => (XDP_PASS, sent.bytes()),
            Reach::Ipip => {
                let sent = by(packet.clone(), neighbour_mac(1));
                (XDP_TX, sent.inside(way.node(), way.backend(1).ip()))
            }
            Reach::L2 => (XDP_TX, by(packet.clone(), neighbour_mac(1)).bytes()),
            Reach::Geneve => {
                let sent = by(packet.clone().forwarded(), neighbour_mac(1)).bytes();
                let shim = Shim {
                    sport: sport(&packet),
                    ..Shim::new(way.node(), way.backend(1).ip(), way.backend(1))
                };
                (XDP_TX, shim.around(&sent))
            }
        };
        let grows = wanted.len() - packet.bytes().len();
        Job {
            packet,
            shim: None,
            verdict,
            wanted,
            grows: grows as u32,
        }
    }

    /// Opens the first client's flow, and gives a packet of the answer to it.
    pub fn answered(&self, way: Way, reach: Reach) -> Job {
        let (source, backend) = self.open(way, reach);
        let packet = long(way.later(backend, source));
        Job {
            wanted: packet
                .clone()
                .from(way.vip(reach.vip()))
                .to(way.client(1))
                .forwarded()
                .between(FIRST_MAC, GATEWAY_MAC)
                .bytes(),
            packet,
            shim: None,
            verdict: XDP_TX,
            grows: 0,
        }
    }

    /// Opens the first client's flow as a peer sends it, and gives a later packet of it from the peer.
    pub fn received(&self, way: Way) -> Job {
        let (client, vip) = (way.client(1), way.vip(Reach::Here.vip()));
        let shim = Shim::new(way.backend(PEER).ip(), way.node(), way.host());
        let send = |hook, bytes: Vec<u8>| {
            self.rig.run_from(hook, &bytes, self.net.first);
        };
        send(Hook::Xdp, shim.around(&way.opening(client, vip).bytes()));
        let accepted = way.segment(way.host(), client, Segment::SynAck);
        send(Hook::Egress, accepted.bytes());
        send(Hook::Xdp, shim.around(&way.later(client, vip).bytes()));
        self.is_established(way, client, vip);
        let packet = long(way.later(client, vip));
        Job {
            wanted: packet.clone().to(way.host()).bytes(),
            packet,
            verdict: XDP_PASS,
            grows: (shim.len() as u32).wrapping_neg(),
            shim: Some(shim),
        }
    }

    /// A packet that is none of ours.
    pub fn foreign(&self, way: Way, to: SocketAddr) -> Job {
        let packet = long(way.later(way.client(1), to));
        Job {
            wanted: packet.bytes(),
            packet,
            shim: None,
            verdict: XDP_PASS,
            grows: 0,
        }
    }

    /// A packet for the node itself, not for us; another port of its address is ours, which is proven.
    pub fn own(&self, way: Way) -> Job {
        let ours = way.opening(way.client(2), SocketAddr::new(way.node(), EXTERNAL));
        let out = self.rig.run_from(Hook::Xdp, &ours.bytes(), self.net.first);
        assert_eq!(out.verdict, XDP_TX, "the external port is served");
        self.foreign(way, SocketAddr::new(way.node(), 22))
    }

    /// A flow's first two packets from the client; what its later ones are given as source and destination.
    fn open(&self, way: Way, reach: Reach) -> (SocketAddr, SocketAddr) {
        let (client, vip) = (way.client(1), way.vip(reach.vip()));
        let send = |hook, frame: Frame| {
            self.rig.run_from(hook, &frame.bytes(), self.net.first);
        };
        send(Hook::Xdp, way.opening(client, vip));
        let flow = self.rig.flow(way, client, vip);
        let Entry { kind, leaves, .. } = flow.expect("the flow is open");
        let accepted = way.segment(leaves.1, leaves.0, Segment::SynAck);
        match kind {
            backend_kind::NET if way.tcp => send(Hook::Xdp, accepted),
            backend_kind::HOST if way.tcp => send(Hook::Egress, accepted),
            // The server answers the client itself, or there is nothing to accept.
            _ => {}
        }
        send(Hook::Xdp, way.later(client, vip));
        self.is_established(way, client, vip);
        leaves
    }

    /// Demands that a flow is where its packets find it first.
    fn is_established(&self, way: Way, client: SocketAddr, vip: SocketAddr) {
        let flows = self.rig.established(way);
        assert!(flows.iter().any(|flow| flow.arrives == (client, vip)));
    }

    /// Opens so many flows, and demands that each of their packets is translated.
    pub fn open_flows(&mut self, floors: &mut Floors, flows: u32) -> Result<()> {
        let way = Way::V4_TCP;
        let program = self.program();
        let frames = [
            self.opening(way, Reach::SameInterface),
            long(way.later(way.client(1), way.vip(1))),
        ];
        let before = self.given();
        for first in (0..flows).step_by(AT_A_TIME as usize) {
            for frame in &frames {
                let packet = frame.bytes();
                let setup = Setup::of(&packet).over(flows).in_order(first);
                floors.run(&program, &setup, &packet, flows.min(AT_A_TIME))?;
                // There are no servers.
                self.rig.accept_all(way);
            }
        }
        let after = self.given();
        let flows = u64::from(flows);
        let made = (after.0 - before.0, after.1 - before.1);
        assert_eq!(made, (flows, 2 * flows), "flows and packets");
        Ok(())
    }

    /// Where one new flow a second is allowed: sends first packets until one opens a flow, so that for a
    /// second none does.
    pub fn spend_new_flow(
        &self,
        floors: &mut Floors,
        program: &ProgramFd,
        setup: &Setup,
        packet: &[u8],
    ) -> Result<()> {
        let opened = self.given().0;
        let end = Instant::now() + Duration::from_secs(5);
        while self.given().0 == opened {
            ensure!(Instant::now() < end, "no new flow is opened");
            floors.run(program, &setup.over(AT_A_TIME), packet, AT_A_TIME)?;
        }
        Ok(())
    }

    /// How often a reason was counted so far.
    pub fn counter(&self, reason: Reason) -> u64 {
        self.rig.counter(reason)
    }

    /// Bytes of key and value in the tables of flows, IPv4 and IPv6.
    pub fn entry_bytes(&self) -> [(u32, u32); 2] {
        ["LB_FLOWS_TCP4", "LB_FLOWS_TCP6"].map(|map| self.rig.entry_bytes(map))
    }

    /// Flows and packets that backends were given so far.
    pub fn given(&self) -> (u64, u64) {
        let stats = (1..4 * IDS).map(|id| self.rig.stats(id));
        stats.fold((0, 0), |sum, stats| (sum.0 + stats[0], sum.1 + stats[1]))
    }
}

/// The source port of a packet to a peer.
fn sport(packet: &Frame) -> u16 {
    let [sport, dport] = [packet.src, packet.dst].map(|end| end.port().to_be());
    let ports = join(sport, dport);
    let port = match packet.src.ip() {
        IpAddr::V4(addr) => source_port(&Addr4::from(addr), ports),
        IpAddr::V6(addr) => source_port(&Addr6::from(addr), ports),
    };
    port.get()
}

/// What the agent would have learnt of routes and neighbours.
fn next_hops(rig: &mut Rig, net: Net) {
    let hop = |to, from, ifindex| NextHop {
        to: halves(to),
        from: halves(from),
        ifindex,
        mtu: MTU,
    };
    for host in 1..=HOSTS as u8 {
        let value = hop(neighbour_mac(host), FIRST_MAC, net.first);
        rig.next_hop(u16::from(host), value);
    }
    rig.next_hop(FAR_HOP, hop(neighbour_mac(1), SECOND_MAC, net.second));
    rig.next_hop(GATEWAY_HOP, hop(GATEWAY_MAC, FIRST_MAC, net.first));
    for way in [Way::V4_TCP, Way::V6_TCP] {
        rig.neighbour(net.first, way.gateway(), GATEWAY_HOP);
    }
}

/// A service at a port of the node's own address.
fn external(rig: &mut Rig, way: Way) {
    rig.table(EXTERNAL_SERVICE, &repeated(&[1], SLOTS_SMALL));
    let at = SocketAddr::new(way.node(), EXTERNAL);
    let flags = service_flag::EXTERNAL;
    rig.service_value(
        way,
        at,
        Service {
            flags,
            ..service(EXTERNAL_SERVICE)
        },
    );
    rig.node_port(EXTERNAL, port_flag::TCP);
}

fn service(id: u32) -> Service {
    Service {
        id,
        slots: SLOTS_SMALL as u32,
        idle_tcp: IDLE_TCP,
        idle_udp: IDLE_UDP,
        idle_udp_two_way: IDLE_UDP_TWO_WAY,
        ..Service::default()
    }
}

fn halves(mac: [u8; 6]) -> [u16; 3] {
    [0, 2, 4].map(|at| u16::from_ne_bytes([mac[at], mac[at + 1]]))
}

/// The same with a payload.
fn long(frame: Frame) -> Frame {
    Frame {
        payload: vec![7; PAYLOAD],
        ..frame
    }
}

/// Number of a backend of the rig's network.
fn last_byte(at: SocketAddr) -> u8 {
    match at.ip() {
        IpAddr::V4(addr) => addr.octets()[3],
        IpAddr::V6(addr) => addr.octets()[15],
    }
}
