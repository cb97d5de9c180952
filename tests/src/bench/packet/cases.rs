//! The cases: what is run on which packet, and the proof that it does what it should.

use anyhow::Result;
use aya::programs::ProgramFd;
use etherparse::Ipv4Header;
use lb_common::{Reason, headers::ETH_LEN};

use super::{
    Scale,
    cell::{Before, Cell, Stage},
    name,
};
use crate::{
    bench::{
        floors::{Floors, Setup},
        ours::{Job, Ours, Reach},
    },
    packet::{Frame, Net, Sizes, Way, XDP_DROP, XDP_PASS, XDP_TX},
};

/// Runs before a packet is looked at: an odd number, and more than one, so that what the wrapper restores
/// is seen as well.
const PROOF: u32 = 7;
/// New flows a second that no case comes near.
const PLENTY: u32 = 1_000_000_000;
/// Geneve over IPv4 with one option takes this much.
const GROWS: u32 = 50;

/// All stages, every case of them proven.
pub(super) fn stages(net: Net, scale: &Scale) -> Result<Vec<Stage>> {
    Ok(vec![
        one_flow(net, scale)?,
        first_packets(net, scale)?,
        above_guard(net, scale)?,
        many_flows(net, scale, scale.few, name::FLOW4_FEW, name::TCP4_FEW)?,
        many_flows(net, scale, scale.many, name::FLOW4_MANY, name::TCP4_MANY)?,
    ])
}

/// An IPv4 frame with another time to live.
fn with_hops(frame: &[u8], ttl: u8) -> Result<Vec<u8>> {
    let (mut header, _) = Ipv4Header::from_slice(&frame[ETH_LEN..])?;
    header.time_to_live = ttl;
    header.header_checksum = header.calc_header_checksum();
    let header = header.to_bytes();
    let (ethernet, packet) = frame.split_at(ETH_LEN);
    Ok([ethernet, &header, &packet[header.len()..]].concat())
}

fn one_flow(net: Net, scale: &Scale) -> Result<Stage> {
    let mut stage = Stage::new(net, scale, scale.room, PLENTY)?;
    let way = Way::V4_TCP;
    let nat = stage.ours.established(way, Reach::SameInterface);
    let packet4 = nat.packet.bytes();
    // The floor leaves the time to live as it is.
    let into = with_hops(&nat.wanted, nat.packet.ttl)?;
    let packet6 = stage
        .ours
        .established(Way::V6_TCP, Reach::SameInterface)
        .packet
        .bytes();
    let foreign = stage.ours.foreign(way, way.stranger());
    stage.floors.translate(&packet4, &into);
    stage.floors.know(&packet4);
    for (insert, packet) in [("bench_insert4", &packet4), ("bench_insert6", &packet6)] {
        let program = stage.floors.program(insert);
        let out = stage.floors.run(&program, &Setup::of(packet), packet, 1)?;
        out.must_be_bytes(XDP_TX, packet);
    }

    stage.no_op(name::DROP, Setup::of(&packet4), &packet4)?;
    for (name, program, packet, verdict) in [
        (name::PASS, "bench_pass", &packet4, XDP_PASS),
        (name::PARSE4, "bench_parse4", &packet4, XDP_TX),
        (name::PARSE6, "bench_parse6", &packet6, XDP_TX),
        (name::FILTER_HIT, "bench_filter4", &packet4, XDP_TX),
        (
            name::FILTER_MISS,
            "bench_filter4",
            &foreign.packet.bytes(),
            XDP_PASS,
        ),
        (name::SERVICE, "bench_service4", &packet4, XDP_TX),
        (name::SOURCE, "bench_source4", &packet4, XDP_TX),
        (name::TABLE, "bench_table", &packet4, XDP_TX),
        (name::ARRAY, "bench_backend", &packet4, XDP_TX),
        (name::COUNT, "bench_count", &packet4, XDP_TX),
        (name::FLOW4, "bench_flow4", &packet4, XDP_TX),
        (name::FLOW6, "bench_flow6", &packet6, XDP_TX),
    ] {
        stage.floor(name, program, packet, verdict, packet)?;
    }
    let mirrored = mirrored(&nat.packet);
    stage.floor(name::TX, "bench_tx", &packet4, XDP_TX, &mirrored)?;
    stage.floor(name::NAT4, "bench_nat4", &packet4, XDP_TX, &into)?;
    stage.growing(&packet4)?;

    for (name, way, reach) in [
        (name::TCP4, way, Reach::SameInterface),
        (name::TCP6, Way::V6_TCP, Reach::SameInterface),
        (name::UDP4, Way::V4_UDP, Reach::SameInterface),
        (name::UDP6, Way::V6_UDP, Reach::SameInterface),
        (name::OTHER4, way, Reach::OtherInterface),
        (name::HERE4, way, Reach::Here),
        (name::IPIP4, way, Reach::Ipip),
        (name::IPIP6, Way::V6_TCP, Reach::Ipip),
        (name::L2, way, Reach::L2),
        (name::GENEVE4, way, Reach::Geneve),
        (name::GENEVE6, Way::V6_TCP, Reach::Geneve),
    ] {
        let job = stage.ours.established(way, reach);
        stage.job(name, &job)?;
    }
    for (name, way) in [(name::PEER4, way), (name::PEER6, Way::V6_TCP)] {
        let job = stage.ours.received(way);
        stage.job(name, &job)?;
    }
    let answer = stage.ours.answered(way, Reach::SameInterface);
    stage.job(name::ANSWER4, &answer)?;
    stage.job(name::FOREIGN, &foreign)?;
    let own = stage.ours.own(way);
    stage.job(name::OWN, &own)?;
    Ok(stage)
}

/// Tables are as large as the agent makes them: half-open connections have one of their own.
fn first_packets(net: Net, scale: &Scale) -> Result<Stage> {
    let mut stage = Stage::new(net, scale, scale.half, PLENTY)?;
    let way = Way::V4_TCP;
    let flows = scale.new_flows;
    let packet = stage.ours.opening(way, Reach::SameInterface).bytes();
    let packet6 = stage
        .ours
        .opening(Way::V6_TCP, Reach::SameInterface)
        .bytes();
    let over = Setup::of(&packet).over(flows).in_order(0);
    let over6 = Setup::of(&packet6).over(flows).in_order(0);
    stage.no_op(name::DROP_FLOWS, over, &packet)?;
    for (name, program, setup, packet, verdict) in [
        // In its table there is no flow in this stage.
        (name::MAIN4_MISS, "bench_nat4", over, &packet, XDP_PASS),
        (name::HALF4_MISS, "bench_flow4", over, &packet, XDP_PASS),
        (name::INSERT4, "bench_insert4", over, &packet, XDP_TX),
        (name::INSERT6, "bench_insert6", over6, &packet6, XDP_TX),
        (name::PAIR4, "bench_pair4", over, &packet, XDP_TX),
    ] {
        let program = stage.floors.program(program);
        stage.first(name, program, setup, packet, verdict);
    }
    let program = stage.ours.program();
    for (name, setup, packet) in [(name::SYN4, over, &packet), (name::SYN6, over6, &packet6)] {
        stage.first(name, program.try_clone()?, setup, packet, XDP_TX);
        let before = stage.ours.given();
        stage.floors.run(&program, &setup, packet, flows)?;
        let after = stage.ours.given();
        let made = (after.0 - before.0, after.1 - before.1);
        assert_eq!(made, (u64::from(flows), u64::from(flows)), "flows, packets");
    }
    Ok(stage)
}

/// A node that has opened as many flows as it may: one client's packet again and again, as in all cases
/// that are compared to the floor of full NAT, and a flood of many.
fn above_guard(net: Net, scale: &Scale) -> Result<Stage> {
    let mut stage = Stage::new(net, scale, scale.half, 1)?;
    let flows = scale.new_flows;
    let opening = stage.ours.opening(Way::V4_TCP, Reach::SameInterface);
    let packet = opening.bytes();
    let over = Setup::of(&packet).over(flows);
    stage.no_op(name::DROP_FLOWS, over, &packet)?;
    stage.no_op(name::DROP, Setup::of(&packet), &packet)?;
    let program = stage.ours.program();
    stage.floors.run(&program, &over, &packet, flows)?;
    let opened = stage.ours.given().0;
    let refused = stage.ours.counter(Reason::NewFlowGuard);
    // One a second.
    assert!((1..=2).contains(&opened), "{opened} flows");
    assert_eq!(opened + refused, u64::from(flows), "flows and refusals");
    for (name, setup, no_op) in [
        (name::SYN4_GUARD, Setup::of(&packet), name::DROP),
        (name::SYN4_FLOOD, over, name::DROP_FLOWS),
    ] {
        let program = program.try_clone()?;
        stage.push(name, program, setup, &packet, XDP_DROP, Some(no_op));
        if let Some(cell) = stage.cells.last_mut() {
            cell.before = Before::Spend;
        }
    }
    Ok(stage)
}

fn many_flows(
    net: Net,
    scale: &Scale,
    (flows, room): (u32, u32),
    bare: &str,
    ours: &str,
) -> Result<Stage> {
    let mut stage = Stage::new(net, scale, room, PLENTY)?;
    let packet = stage
        .ours
        .established(Way::V4_TCP, Reach::SameInterface)
        .packet
        .bytes();
    stage.ours.forget_flows();
    let setup = Setup::of(&packet).over(flows);
    let pair = stage.floors.program("bench_pair4");
    stage
        .floors
        .run(&pair, &setup.in_order(0), &packet, flows)?;
    let Stage {
        floors, ours: o, ..
    } = &mut stage;
    o.open_flows(floors, flows)?;

    stage.no_op(name::DROP_FLOWS, setup, &packet)?;
    let lookup = stage.floors.program("bench_flow4");
    let program = stage.ours.program();
    for (name, program) in [(bare, lookup), (ours, program)] {
        stage.cells.push(Cell {
            name: name.to_owned(),
            program,
            setup,
            packet: packet.clone(),
            runs: flows * scale.runs.div_ceil(flows),
            before: Before::Visit,
            verdict: XDP_TX,
            no_op: Some(name::DROP_FLOWS),
        });
    }
    Ok(stage)
}

/// Sent back by the station that it was sent to.
fn mirrored(frame: &Frame) -> Vec<u8> {
    let (src, dst) = frame.macs;
    frame.clone().between(dst, src).bytes()
}

// === impl Stage ===

impl Stage {
    /// With room for so many entries of flows among the floors.
    fn new(net: Net, scale: &Scale, flows: u32, new_flows: u32) -> Result<Self> {
        let sizes = Sizes {
            tcp4: flows.max(scale.room),
            half: scale.half,
            new_flows,
            ..Sizes::default()
        };
        let (floors, ours) = (
            Floors::load(net.first, flows, scale.room)?,
            Ours::new(net, &sizes),
        );
        let bytes = ["BENCH_FLOWS4", "BENCH_FLOWS6"].map(|map| floors.entry_bytes(map));
        assert_eq!(bytes, ours.entry_bytes(), "bytes of keys and values");
        Ok(Self {
            floors,
            ours,
            cells: Vec::new(),
            runs: scale.runs,
            new_flows: scale.new_flows,
        })
    }

    /// What the wrapper alone costs with this set-up.
    fn no_op(&mut self, name: &str, setup: Setup, packet: &[u8]) -> Result<()> {
        let program = self.floors.program("bench_drop");
        let out = self.floors.run(&program, &setup, packet, PROOF)?;
        assert_eq!(out.verdict, XDP_DROP, "{name}");
        self.push(name, program, setup, packet, XDP_DROP, None);
        Ok(())
    }

    /// A floor that makes this of the packet.
    fn floor(
        &mut self,
        name: &str,
        program: &str,
        packet: &[u8],
        verdict: u32,
        wanted: &[u8],
    ) -> Result<()> {
        let program = self.floors.program(program);
        self.proven(name, program, Setup::of(packet), packet, verdict, wanted)
    }

    /// Our XDP program on this packet.
    fn job(&mut self, name: &str, job: &Job) -> Result<()> {
        let program = self.ours.program();
        let packet = job.bytes();
        let setup = Setup {
            grows: job.grows,
            ..Setup::of(&packet)
        };
        self.proven(name, program, setup, &packet, job.verdict, &job.wanted)
    }

    /// Demands that the packet becomes what is wanted, in the first run and in a later one.
    fn proven(
        &mut self,
        name: &str,
        program: ProgramFd,
        setup: Setup,
        packet: &[u8],
        verdict: u32,
        wanted: &[u8],
    ) -> Result<()> {
        for runs in [1, PROOF] {
            let out = self.floors.run(&program, &setup, packet, runs)?;
            out.must_be_bytes(verdict, wanted);
        }
        let no_op = if setup.grows == 0 {
            name::DROP
        } else {
            name::DROP_SWING
        };
        self.push(name, program, setup, packet, verdict, Some(no_op));
        Ok(())
    }

    /// The floor for encapsulation, and a no-op whose wrapper moves the packet's head as often.
    fn growing(&mut self, packet: &[u8]) -> Result<()> {
        let setup = Setup {
            grows: GROWS,
            ..Setup::of(packet)
        };
        let swing = Setup { swing: 1, ..setup };
        self.no_op(name::DROP_SWING, swing, packet)?;
        let program = self.floors.program("bench_grow");
        // What comes before the packet is whatever is there.
        let out = self.floors.run(&program, &setup, packet, PROOF)?;
        assert_eq!(out.verdict, XDP_TX, "{}", name::GROW);
        assert_eq!(out.bytes[GROWS as usize..], *packet, "{}", name::GROW);
        let no_op = Some(name::DROP_SWING);
        self.push(name::GROW, program, setup, packet, XDP_TX, no_op);
        Ok(())
    }

    fn push(
        &mut self,
        name: &str,
        program: ProgramFd,
        setup: Setup,
        packet: &[u8],
        verdict: u32,
        no_op: Option<&'static str>,
    ) {
        self.cells.push(Cell {
            name: name.to_owned(),
            program,
            setup,
            packet: packet.to_vec(),
            runs: self.runs,
            before: Before::Nothing,
            verdict,
            no_op,
        });
    }

    /// A case whose every packet is the first one of its flow.
    fn first(&mut self, name: &str, program: ProgramFd, setup: Setup, packet: &[u8], verdict: u32) {
        self.cells.push(Cell {
            name: name.to_owned(),
            program,
            setup,
            packet: packet.to_vec(),
            runs: self.new_flows,
            before: Before::Forget,
            verdict,
            no_op: Some(name::DROP_FLOWS),
        });
    }
}
