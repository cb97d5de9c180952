//! What a flood of SYNs does to established flows: on one CPU their packets are timed, while another one runs the same
//! program on first packets of 16 thousand sources, as fast as it can.
//!
//! The other CPU's load itself (two threads of one core, a shared cache) is in both figures: next to the flood, the
//! same packets come to a program that only drops them.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::{programs::ProgramFd, util::online_cpus};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::{Scale, cell::cpu_time, name};
use crate::{
    bench::{
        floors::{Floors, Setup},
        ours::{Ours, Reach},
        rounds::Figures,
    },
    packet::{Net, Sizes, Way, XDP_DROP, XDP_TX},
};

/// New flows a second on each CPU: the agent's default.
const GUARD: u32 = 100_000;
/// Established flows: fewer than the guard lets through at once.
const FLOWS: u32 = 1 << 12;
/// Runs of the flood between two looks at whether it shall end.
const BREATH: u32 = 20_000;

/// Adds a figure a round of both cases; none where there is one CPU only.
pub(super) fn measure(net: Net, scale: &Scale, rounds: usize, figures: &mut Figures) -> Result<()> {
    let Some(other) = another_cpu()? else {
        eprintln!("one CPU only: established flows beside a flood are left out");
        return Ok(());
    };
    let sizes = Sizes {
        tcp4: scale.room,
        half: scale.half,
        new_flows: GUARD,
        ..Sizes::default()
    };
    let flows = FLOWS.min(scale.few.0);
    let mut ours = Ours::new(net, &sizes);
    let mut floors = Floors::load(net.first, scale.few.1, scale.room)?;
    let job = ours.established(Way::V4_TCP, Reach::SameInterface);
    let packet = job.packet.bytes();
    ours.forget_flows();
    ours.open_flows(&mut floors, flows)?;
    let setup = Setup::of(&packet).over(flows);
    let (program, nothing) = (ours.program(), floors.program("bench_drop"));
    let runs = flows * scale.runs.div_ceil(flows);

    let mut flood = Floors::load(net.first, scale.few.1, scale.room)?;
    let syn = ours.opening(Way::V4_TCP, Reach::OtherInterface).bytes();
    let sources = Setup::of(&syn).over(scale.few.0);
    for _ in 0..rounds {
        for (case, target) in [
            (name::BESIDE_DROP, flood.program("bench_drop")),
            (name::BESIDE_FLOOD, ours.program()),
        ] {
            flood.aim(&target, &sources)?;
            let mut time = |program: &ProgramFd, verdict| {
                floors.aim(program, &setup)?;
                // Each table as it is in use, and no time stamp due.
                floors.go(&packet, flows, None)?;
                let start = cpu_time();
                let (said, _) = floors.go(&packet, runs, None)?;
                ensure!(said == verdict, "{case}: verdict {said}");
                Ok((cpu_time() - start).as_nanos() as f64 / f64::from(runs))
            };
            let (gross, away) = beside(&flood, &syn, other, || {
                Ok((time(&program, XDP_TX)?, time(&nothing, XDP_DROP)?))
            })?;
            figures.push(case, gross, away);
        }
    }
    let before = ours.given().1;
    floors.aim(&program, &setup)?;
    floors.go(&packet, flows, None)?;
    ensure!(
        ours.given().1 - before == u64::from(flows),
        "a flood has pushed established flows out"
    );
    Ok(())
}

/// Does something while another CPU is kept busy by what `flood` aims at.
fn beside<T>(
    flood: &Floors,
    packet: &[u8],
    cpu: usize,
    act: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let (stop, runs) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let busy = scope.spawn(|| -> Result<()> {
            let mut one = CpuSet::new();
            one.set(cpu);
            sched_setaffinity(None, &one).context("cannot go to another CPU")?;
            while !stop.load(Ordering::Relaxed) {
                flood.go(packet, BREATH, None)?;
                runs.fetch_add(BREATH.into(), Ordering::Relaxed);
            }
            Ok(())
        });
        while runs.load(Ordering::Relaxed) == 0 && !busy.is_finished() {
            thread::yield_now();
        }
        let done = act();
        stop.store(true, Ordering::Relaxed);
        busy.join().map_err(|_| anyhow!("the flood broke off"))??;
        done
    })
}

/// One on which this thread does not run.
fn another_cpu() -> Result<Option<usize>> {
    let mine = sched_getaffinity(None)?;
    let online = online_cpus().map_err(|(file, error)| anyhow!("cannot read {file}: {error}"))?;
    let mut online = online.into_iter().map(|cpu| cpu as usize);
    Ok(online.find(|cpu| !mine.is_set(*cpu)))
}
