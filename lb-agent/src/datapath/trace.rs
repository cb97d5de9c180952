//! Hears what the programs tell of single packets and calls.
//!
//! The maps are not pinned: they are those of the programs that this process loaded, and a next agent brings its own.
//! While this one is away nothing is told.

use std::{
    os::fd::AsFd as _,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Array, MapData, PerCpuArray, RingBuf},
};
use lb_common::{SNAP_MAX, TRACE_MATCHES, TraceConfig, TraceEvent, TraceGuard, TraceMatch};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    time::{ClockId, clock_gettime},
};

use super::{filter::Filter, flows::now, kernel::take};
use crate::look::Seen;

/// Packets a second of which each CPU tells: some 40 MB a second with 256 bytes of each, in and out, which one
/// reader keeps up with.
const RATE: u32 = 50_000;
/// For so long the programs tell without being asked again. A reader that is killed so costs nothing for longer.
const LEASE: Duration = Duration::from_secs(2);

/// Switches telling on and off, and hears it.
pub struct Tracer {
    config: Array<MapData, TraceConfig>,
    matches: Array<MapData, TraceMatch>,
    /// What stands in the map.
    wanted: Vec<TraceMatch>,
    events: RingBuf<MapData>,
    guard: PerCpuArray<MapData, TraceGuard>,
    filter: Arc<Mutex<Filter>>,
    on: bool,
    /// From the kernel's clock to that of the wall, ns.
    wall: u64,
}

// === impl Tracer ===

impl Tracer {
    pub(super) fn take(object: &mut Ebpf, filter: Arc<Mutex<Filter>>) -> Result<Self> {
        Ok(Self {
            config: take(object, "LB_TRACE")?,
            matches: take(object, "LB_TRACE_MATCHES")?,
            wanted: Vec::new(),
            events: take(object, "LB_TRACE_EVENTS")?,
            guard: take(object, "LB_TRACE_GUARD")?,
            filter,
            on: false,
            wall: 0,
        })
    }

    /// Lets the programs tell for the next two seconds; at first it also keeps packets off the shortcut. `snap`:
    /// bytes of each packet; `sample`: of packets that go on as those before, one in so many; `wanted`: of what they tell,
    /// of everything if that is empty or too long for them.
    ///
    /// # Errors
    ///
    /// If a map cannot be written.
    pub fn switch_on(&mut self, snap: u32, sample: u32, wanted: &[TraceMatch]) -> Result<()> {
        let mut config = TraceConfig {
            until: now() + LEASE.as_nanos() as u64,
            rate: RATE,
            sample,
            snap: snap.min(SNAP_MAX as u32),
            matches: 0,
        };
        let wanted = if wanted.len() > TRACE_MATCHES {
            &[]
        } else {
            wanted
        };
        if self.wanted != wanted {
            // Meanwhile they tell of everything.
            self.config
                .set(0, config, 0)
                .context("cannot switch tracing on")?;
            for (index, one) in (0..).zip(wanted) {
                self.matches
                    .set(index, one, 0)
                    .context("cannot say what is to be told")?;
            }
            self.wanted = wanted.to_vec();
        }
        config.matches = wanted.len() as u32;
        self.config
            .set(0, config, 0)
            .context("cannot switch tracing on")?;
        if !self.on {
            // What an earlier one left unread is nobody's.
            while self.events.next().is_some() {}
            self.wall = wall();
            self.keep_off_shortcut(true)?;
            self.on = true;
        }
        Ok(())
    }

    /// Lets them tell no more.
    ///
    /// # Errors
    ///
    /// If a map cannot be written.
    pub fn switch_off(&mut self) -> Result<()> {
        self.on = false;
        self.config
            .set(0, TraceConfig::default(), 0)
            .context("cannot switch tracing off")?;
        self.keep_off_shortcut(false)
    }

    fn keep_off_shortcut(&self, off: bool) -> Result<()> {
        let mut filter = self.filter.lock().unwrap_or_else(PoisonError::into_inner);
        filter.set_traced(off)
    }

    /// Waits until something was told, or for so long.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to wait.
    pub fn wait(&self, patience: Duration) -> Result<()> {
        let fd = self.events.as_fd();
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        let patience = Timespec::try_from(patience)?;
        match poll(&mut fds, Some(&patience)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error).context("cannot wait for the programs"),
        }
    }

    /// The next packet or call that was told of.
    pub fn hear(&mut self) -> Option<Seen> {
        const EVENT: usize = size_of::<TraceEvent>();
        let wall = self.wall;
        let item = self.events.next()?;
        let mut event = TraceEvent::default();
        let (head, bytes) = item.split_at_checked(EVENT)?;
        // SAFETY: as many bytes as the event has, of which any are a value.
        unsafe { std::ptr::copy_nonoverlapping(head.as_ptr(), (&raw mut event).cast(), EVENT) };
        let captured = bytes.len().min(event.captured as usize);
        Some(Seen {
            time_ns: event.at.wrapping_add(wall),
            bytes: bytes[..captured].to_vec(),
            event,
        })
    }

    /// What the programs could not tell since they were loaded, packets and calls.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn lost(&self) -> Result<u64> {
        let guards = self.guard.get(&0, 0)?;
        Ok(guards.iter().map(|guard| guard.lost).sum())
    }
}

fn wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let wall = since.unwrap_or_default().as_nanos() as u64;
    let kernel = clock_gettime(ClockId::Monotonic);
    wall.wrapping_sub(kernel.tv_sec as u64 * 1_000_000_000 + kernel.tv_nsec as u64)
}
