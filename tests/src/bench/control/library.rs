//! A plan and its system calls, on real maps in a folder of pins of their own.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, HashOfMaps, Map, MapData};
use lb_agent::{
    catalog::Weight,
    datapath::{Datapath, DatapathConfig, Sizes, TcMode, XdpMode},
    plan::{BackendState, Kernel, KernelState, Limits, Op, Planner, Report, Wanted, reconcile},
};
use lb_common::{Backend, SLOTS_MEDIUM, backend_state};

use super::{
    BACKENDS, Effort,
    services::{change, wanted},
};
use crate::lab::{HostSpec, Lab};

/// Times, ms.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// All services into empty maps.
    pub(super) full: Vec<f64>,
    /// All maps read again and compared, nothing to do.
    pub(super) read_back: Vec<f64>,
    /// A plan of which nothing comes.
    pub(super) nothing: Vec<f64>,
    /// One map made, filled and put in another's place.
    pub(super) bare: Vec<f64>,
    /// A backend goes down, or comes up again.
    pub(super) down: Vec<f64>,
    /// A backend's weight becomes 0: until the kernel gives it no new flow. The table is swapped after that.
    pub(super) drain: Vec<f64>,
    /// A backend leaves: until its id is free.
    pub(super) remove: Vec<f64>,
    /// A backend joins: until it gets flows.
    pub(super) add: Vec<f64>,
}

/// Room in the maps.
const SIZES: Sizes = Sizes {
    tcp_flows: 1_024,
    half_open_flows: 1_024,
    udp_flows: 1_024,
    backends: 131_072,
    services: 16_384,
    addresses: 32_768,
    sockets: 1_024,
};

/// The key under which the bare swap is done; no service has this id.
const NOBODY: u32 = u32::MAX;

/// Measures with so many services.
pub(super) fn measure(services: usize, effort: &Effort) -> Result<Taken> {
    let lab = Lab::new()?;
    let host = lab.host(&HostSpec::new("control"))?;
    let (pins, cgroup) = (host.pins().to_owned(), host.cgroup().path().to_owned());
    host.enter(|| Bench::new(pins, cgroup, services)?.measure(effort))?
}

/// Maps, and what is wanted in them.
struct Bench {
    datapath: Datapath,
    planner: Planner,
    limits: Limits,
    want: Wanted,
    services: usize,
    bare: Bare,
    backends: Array<MapData, Backend>,
    taken: Taken,
}

// === impl Bench ===

impl Bench {
    fn new(pin_dir: PathBuf, cgroup: PathBuf, services: usize) -> Result<Self> {
        let datapath = Datapath::load(DatapathConfig {
            pin_dir: pin_dir.clone(),
            cgroup,
            interfaces: Vec::new(),
            xdp_mode: XdpMode::Off,
            tc_mode: TcMode::Tcx,
            tx_by_redirect: false,
            new_flows: 0,
            sizes: SIZES,
        })?;
        let pins = std::fs::read_dir(&pin_dir)?
            .next()
            .context("no pins")??
            .path();
        let backends = MapData::from_pin(pins.join("LB_BACKENDS"))?;
        Ok(Self {
            limits: datapath.limits(),
            datapath,
            planner: Planner::default(),
            want: wanted(services),
            services,
            bare: Bare::new(&pins)?,
            backends: Array::try_from(Map::Array(backends))?,
            taken: Taken::default(),
        })
    }

    fn measure(mut self, effort: &Effort) -> Result<Taken> {
        let (full, report) = self.reconcile()?;
        ensure!(report.whole && report.problems.is_empty(), "{report:?}");
        self.taken.full.push(full);
        for _ in 0..effort.rounds.min(3) {
            self.planner.distrust();
            let (took, report) = self.reconcile()?;
            ensure!(report.applied == 0, "{report:?}");
            self.taken.read_back.push(took);
        }
        for round in 0..effort.rounds {
            self.round(round)?;
        }
        Ok(self.taken)
    }

    /// Every kind of change, each to another service than in the round before, and undone.
    fn round(&mut self, round: usize) -> Result<()> {
        let service = (round * 7919) % self.services;
        let backend = round % BACKENDS;
        let id = (service * BACKENDS + backend + 1) as u32;

        let (took, report) = self.reconcile()?;
        ensure!(report.applied == 0 && !report.whole, "{report:?}");
        self.taken.nothing.push(took);

        for (state, in_kernel) in [
            (BackendState::Down, backend_state::DOWN),
            (BackendState::Up, backend_state::ACTIVE),
        ] {
            change(&mut self.want, service, |backends| {
                backends[backend].state = state
            })?;
            let (took, report) = self.reconcile()?;
            ensure!(report.applied == 1, "{report:?}");
            self.expect(id, in_kernel)?;
            self.taken.down.push(took);
        }

        change(&mut self.want, service, |backends| {
            backends[backend].weight = Weight::DRAIN
        })?;
        let took = self.first_write()?;
        self.expect(id, backend_state::DRAINING)?;
        self.taken.drain.push(took);
        change(&mut self.want, service, |backends| {
            backends[backend].weight = Weight::ONE
        })?;
        self.reconcile()?;

        let took = self.bare.swap_in_step()?;
        self.taken.bare.push(took);
        let mut gone = None;
        change(&mut self.want, service, |backends| {
            gone = Some(backends.remove(backend))
        })?;
        self.bare.swap()?;
        let (took, report) = self.reconcile()?;
        ensure!(report.applied == 2, "a swap and a removal: {report:?}");
        self.expect(id, backend_state::FREE)?;
        self.taken.remove.push(took);

        let took = self.bare.swap_in_step()?;
        self.taken.bare.push(took);
        let gone = gone.context("it was there")?;
        change(&mut self.want, service, |backends| {
            backends.insert(backend, gone)
        })?;
        self.bare.swap()?;
        let (took, report) = self.reconcile()?;
        ensure!(report.applied == 2, "a backend and a swap: {report:?}");
        self.taken.add.push(took);
        Ok(())
    }

    /// Milliseconds of the whole call.
    fn reconcile(&mut self) -> Result<(f64, Report)> {
        let began = Instant::now();
        let report = reconcile(
            self.datapath.kernel(),
            &self.want,
            &self.limits,
            &mut self.planner,
        )?;
        let took = millis(began.elapsed());
        ensure!(report.failed.is_empty(), "{report:?}");
        Ok((took, report))
    }

    /// Milliseconds until the first operation was done.
    fn first_write(&mut self) -> Result<f64> {
        let began = Instant::now();
        let mut watched = Watched {
            kernel: self.datapath.kernel(),
            first: None,
        };
        let report = reconcile(&mut watched, &self.want, &self.limits, &mut self.planner)?;
        ensure!(report.applied == 2, "a state and a swap: {report:?}");
        let first = watched.first.context("nothing was written")?;
        Ok(millis(first - began))
    }

    /// What the kernel makes of a backend now.
    fn expect(&self, id: u32, state: u8) -> Result<()> {
        let found = self.backends.get(&id, 0)?.state;
        ensure!(
            found == state,
            "backend {id} is in state {found}, not {state}"
        );
        Ok(())
    }
}

/// Notes when the first batch of operations was done.
struct Watched<'a> {
    kernel: &'a mut dyn Kernel,
    first: Option<Instant>,
}

impl Kernel for Watched<'_> {
    fn state(&mut self) -> Result<KernelState> {
        self.kernel.state()
    }

    fn apply(&mut self, op: &Op) -> Result<()> {
        self.kernel.apply(op)
    }

    fn apply_all(&mut self, ops: &[Op]) -> Vec<Result<()>> {
        let results = self.kernel.apply_all(ops);
        self.first.get_or_insert_with(Instant::now);
        results
    }
}

type Inner = Array<MapData, [u32; SLOTS_MEDIUM]>;

/// A swap with nothing around it, in the map that the services' tables are in.
struct Bare {
    tables: HashOfMaps<MapData, u32, Inner>,
    slots: Box<[u32; SLOTS_MEDIUM]>,
}

impl Bare {
    fn new(pins: &Path) -> Result<Self> {
        let tables = MapData::from_pin(pins.join("LB_TABLES_M"))?;
        let slots = vec![1; SLOTS_MEDIUM].into_boxed_slice();
        let mut bare = Self {
            tables: HashOfMaps::try_from(Map::HashOfMaps(tables))?,
            slots: slots
                .try_into()
                .map_err(|_| anyhow::anyhow!("another length"))?,
        };
        bare.swap()?;
        Ok(bare)
    }

    /// As [`Bare::swap`] right after another one. A swap waits for a grace period, which takes one or two of
    /// the kernel's ticks depending on when it is asked for; so everything that is compared to a bare swap begins
    /// right after one.
    fn swap_in_step(&mut self) -> Result<f64> {
        self.swap()?;
        self.swap()
    }

    /// Milliseconds to make a map, fill it and put it in the place of the one before.
    fn swap(&mut self) -> Result<f64> {
        let began = Instant::now();
        let mut inner = Inner::create(1, 0)?;
        inner.set(0, *self.slots, 0)?;
        self.tables.insert(NOBODY, &inner, 0)?;
        Ok(millis(began.elapsed()))
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
