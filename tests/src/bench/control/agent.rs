//! A running agent that watches a services file.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, Map, MapData};
use lb_agent::plan::Endpoint;
use lb_common::{Backend, backend_state};

use super::{
    BACKENDS, Effort,
    services::{VIP_PREFIX, backend_addr, file},
};
use crate::{
    bench::load::cpu::USER_HZ,
    lab::{
        Host, HostSpec, Lab, Process,
        programs::{agent, places},
        wait_for,
    },
};

/// Figures of one agent.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// From its start to the last service's last backend in the maps, ms.
    pub(super) start: Vec<f64>,
    /// From the change of the file to the backend's state in the map, ms.
    pub(super) drain: Vec<f64>,
    /// The same, to the backend's place being free; the table was swapped before.
    pub(super) remove: Vec<f64>,
    /// MB.
    pub(super) resident: Vec<f64>,
    /// Percent of one CPU.
    pub(super) idle: Vec<f64>,
}

/// Ids that the backend map has room for.
const IDS: u32 = 131_072;

/// A change must arrive within this time.
pub(super) const WITHIN: Duration = Duration::from_secs(60);

/// How often the map is looked at.
const LOOK: Duration = Duration::from_micros(200);

/// Measures with so many services, and `idle` seconds without any change.
pub(super) fn measure(services: usize, effort: &Effort, idle: u64) -> Result<Taken> {
    let lab = Lab::new()?;
    let host = lab.host(&HostSpec::new("control").address("10.77.0.1/24"))?;
    let mut taken = Taken::default();
    let path = host.dir().join("services.yaml");
    fs::write(&path, file(services, None, None))?;
    let began = Instant::now();
    let mut agent = start(&host, &["--services", &path.display().to_string()])?;
    let backends = pinned(&host, &mut agent)?;
    let last = backend_addr(services - 1, BACKENDS - 1);
    let last = Endpoint::new(last, 6);
    // Ids are given in the order of addresses.
    let all = (services * BACKENDS) as u32;
    let is_last = |value: &Backend| Endpoint::of(value) == Some(last);
    wait(&mut agent, &backends, all, is_last)?;
    // The tables come after the backends; a first change waits for them.
    change(&path, &file(services, Some((0, 0)), None))?;
    wait(&mut agent, &backends, 1, draining)?;
    taken.start.push(millis(began));
    change(&path, &file(services, None, None))?;
    wait(&mut agent, &backends, 1, active)?;
    for round in 0..effort.agent_rounds {
        let which = ((round * 7919) % services, (round + 1) % BACKENDS);
        let id = (which.0 * BACKENDS + which.1 + 1) as u32;
        let text = file(services, Some(which), None);
        let began = change(&path, &text)?;
        wait(&mut agent, &backends, id, draining)?;
        taken.drain.push(millis(began));
        let text = file(services, None, Some(which));
        let began = change(&path, &text)?;
        wait(&mut agent, &backends, id, |value| {
            value.state == backend_state::FREE
        })?;
        taken.remove.push(millis(began));
    }
    taken.resident.push(resident(agent.pid())?);
    taken.idle.push(at_rest(&mut agent, idle)?);
    Ok(taken)
}

/// Percent of one CPU that it needs for `idle` seconds without a change, after as many in which it could end what the last
/// change left to do.
pub(super) fn at_rest(agent: &mut Process, idle: u64) -> Result<f64> {
    let idle = Duration::from_secs(idle);
    thread::sleep(idle);
    let (began, used) = (Instant::now(), cpu_time(agent.pid())?);
    thread::sleep(idle);
    let used = cpu_time(agent.pid())? - used;
    ensure!(!agent.has_ended(), "the agent ended: {}", agent.stderr());
    Ok(100.0 * used / began.elapsed().as_secs_f64())
}

/// Starts one that reads its services from `source`: flags.
pub(super) fn start(host: &Host, source: &[&str]) -> Result<Process> {
    let (program, ids) = (agent()?, IDS.to_string());
    let places = places(host, host.cgroup().path());
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    let argv = [
        &[program.as_str()][..],
        source,
        &[
            "--ip-vips",
            VIP_PREFIX,
            "--dns-listen",
            "none",
            "--log",
            "warn",
            "--max-backends",
            &ids,
            "--flows",
            "1024",
            "--udp-flows",
            "1024",
        ],
        &places,
    ];
    host.start("lb-agent", &argv.concat())
}

/// The map of backends, once it is pinned.
pub(super) fn pinned(host: &Host, agent: &mut Process) -> Result<Array<MapData, Backend>> {
    let find = || -> Option<PathBuf> {
        let schema = fs::read_dir(host.pins()).ok()?.next()?.ok()?.path();
        Some(schema.join("LB_BACKENDS")).filter(|path| path.exists())
    };
    let path = wait_for("the maps are pinned", WITHIN, || {
        agent.has_ended().then(PathBuf::new).or_else(find)
    })?;
    ensure!(!agent.has_ended(), "the agent ended: {}", agent.stderr());
    let data = MapData::from_pin(path)?;
    Ok(Array::try_from(Map::Array(data))?)
}

/// Puts another file in the place of the services file; returns when that was done.
fn change(path: &Path, text: &str) -> Result<Instant> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    let began = Instant::now();
    fs::rename(&new, path)?;
    Ok(began)
}

pub(super) fn wait(
    agent: &mut Process,
    backends: &Array<MapData, Backend>,
    id: u32,
    holds: impl Fn(&Backend) -> bool,
) -> Result<()> {
    let end = Instant::now() + WITHIN;
    while !holds(&backends.get(&id, 0)?) {
        if Instant::now() > end || agent.has_ended() {
            bail!(
                "backend {id} does not change; the agent wrote: {}{}",
                agent.stdout(),
                agent.stderr()
            );
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

fn draining(value: &Backend) -> bool {
    value.state == backend_state::DRAINING
}

fn active(value: &Backend) -> bool {
    value.state == backend_state::ACTIVE
}

/// `VmRSS` of `/proc/PID/status`, MB.
fn resident(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    let kilobytes: f64 = kilobytes.context("no VmRSS")?.parse()?;
    Ok(kilobytes * 1024.0 / 1e6)
}

/// Seconds that a process ran, its threads that have ended included: `utime` and `stime` of `/proc/PID/stat`. Together
/// they are what the scheduler counted (`cputime_adjust` in `kernel/sched/cputime.c`), each cut to ticks of 10 ms.
fn cpu_time(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name, in brackets, and may hold anything.
    let (_, fields) = stat.rsplit_once(')').context("no name in /proc/PID/stat")?;
    let ticks = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<u64>)
        .sum::<Result<u64, _>>()?;
    Ok(ticks as f64 / USER_HZ)
}

pub(super) fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
