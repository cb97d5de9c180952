//! Frames on veth pairs: packets per second through a program in the driver, next to `XDP_DROP`, `XDP_TX`
//! and a redirect.
//!
//! One CPU sends live frames (`BPF_F_TEST_XDP_LIVE_FRAMES`) out of one end of a veth pair, runs the
//! program under test on them at the other end, and ends them where they arrive: in a sink at the far end
//! of the pair that the program sent them to. So a packet's time is that of sender, program, and veth; what
//! did not arrive is not counted.
// What measures may panic, as what tests: a wrong set-up must not give a figure.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Instant;

use anyhow::{Result, ensure};
use aya::programs::xdp::XdpLink;

use super::{
    alone,
    floors::{Floors, Setup},
    ours::{Ours, Reach},
    report::{Bound, Case, Ratio, Report},
    rounds::Figures,
};
use crate::packet::{Net, Sizes, Way};

const DROP: &str = "floor: XDP_DROP";
const TX: &str = "floor: XDP_TX";
const REDIRECT: &str = "floor: redirect";
const NAT4: &str = "NAT, TCP v4, back by XDP_TX";
const NAT6: &str = "NAT, TCP v6, back by XDP_TX";
const NAT4_ONWARD: &str = "NAT, TCP v4, by another interface";

/// Entries of the flow table; there are few flows.
const ROOM: u32 = 1 << 16;
/// Part of the frames that may be lost before a figure means nothing.
const LOST: f64 = 0.001;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Samples of each case.
    pub rounds: usize,
    /// Frames in a sample.
    pub frames: u32,
}

/// What a frame meets on its way.
struct Line {
    name: &'static str,
    program: Program,
    packet: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Program {
    Floor(&'static str),
    Ours,
}

// === impl Scale ===

impl Scale {
    /// As figures are published: about half a minute.
    pub const WHOLE: Self = Self {
        rounds: 25,
        frames: 400_000,
    };

    /// Shows that every case works.
    pub const SMALL: Self = Self {
        rounds: 2,
        frames: 1_000,
    };
}

/// Measures every case and adds it to the report.
///
/// # Errors
///
/// The kernel's refusals, and frames that are lost.
///
/// # Panics
///
/// A flow that cannot be opened.
pub fn run(scale: &Scale, report: &mut Report) -> Result<()> {
    alone(|| {
        let figures = measure(scale)?;
        fill(&figures, report);
        Ok(())
    })
}

fn measure(scale: &Scale) -> Result<Figures> {
    let net = Net::new();
    let mut floors = Floors::load(net.first, ROOM, ROOM)?;
    let mut ours = Ours::new(net, &Sizes::default());
    let packet = |way, reach| ours.established(way, reach).packet.bytes();
    let (same4, other4, same6) = (
        packet(Way::V4_TCP, Reach::SameInterface),
        packet(Way::V4_TCP, Reach::OtherInterface),
        packet(Way::V6_TCP, Reach::SameInterface),
    );
    let line = |name, program, packet: &[u8]| Line {
        name,
        program,
        packet: packet.to_vec(),
    };
    let lines = [
        line(DROP, Program::Floor("bench_sink"), &same4),
        line(TX, Program::Floor("bench_tx"), &same4),
        line(REDIRECT, Program::Floor("bench_redirect"), &same4),
        line(NAT4, Program::Ours, &same4),
        line(NAT6, Program::Ours, &same6),
        line(NAT4_ONWARD, Program::Ours, &other4),
    ];
    let _sinks = [
        floors.attach("bench_sink", net.ends.0),
        floors.attach("bench_sink", net.ends.1),
    ];
    let mut figures = Figures::default();
    for round in 0..scale.rounds {
        for i in 0..lines.len() {
            let line = &lines[(round + i) % lines.len()];
            let figure = line.sample(net, &mut floors, &mut ours, scale.frames)?;
            figures.push(line.name, figure, 0.0);
        }
    }
    Ok(figures)
}

fn fill(figures: &Figures, report: &mut Report) {
    for (name, to, bound) in [
        (DROP, None, None),
        (TX, None, None),
        (REDIRECT, None, None),
        (NAT4, Some(TX), Some(Bound::AtLeast(0.65))),
        (NAT6, Some(TX), None),
        (NAT4_ONWARD, Some(REDIRECT), None),
    ] {
        let series = figures.of(name);
        report.push(Case {
            suite: "live",
            case: name.to_owned(),
            best: series.largest(),
            median: series.median(),
            unit: "packets/s",
            ratio: to.map(|to| Ratio {
                value: series.median() / figures.of(to).median(),
                to: to.to_owned(),
            }),
            bound,
        });
    }
}

// === impl Line ===

impl Line {
    /// Packets per second that arrive.
    fn sample(&self, net: Net, floors: &mut Floors, ours: &mut Ours, frames: u32) -> Result<f64> {
        let _link: XdpLink = match self.program {
            Program::Floor(program) => floors.attach(program, net.first),
            Program::Ours => ours.attach(net.first),
        };
        let setup = Setup {
            ifindex: net.ends.0,
            onward: net.second,
            ..Setup::of(&self.packet)
        };
        let translated = ours.given().1;
        let arrived = floors.arrived();
        let start = Instant::now();
        floors.send(&setup, &self.packet, frames)?;
        let took = start.elapsed();
        // The stack's own few frames, such as multicast listener reports, arrive as well.
        let arrived = (floors.arrived() - arrived).min(u64::from(frames));
        let translated = ours.given().1 - translated;
        let enough = f64::from(frames) * (1.0 - LOST);
        ensure!(
            arrived as f64 >= enough,
            "{}: {arrived} of {frames} frames arrived",
            self.name
        );
        ensure!(
            self.program != Program::Ours || translated as f64 >= enough,
            "{}: {translated} of {frames} frames were translated",
            self.name
        );
        Ok(arrived as f64 / took.as_secs_f64())
    }
}
