//! epoll, edge-triggered, with what is watched known by number.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
};

/// Events taken at once.
const EVENTS: usize = 256;

/// An epoll instance; what is closed leaves it by itself.
pub(super) struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

// === impl Poll ===

impl Poll {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS),
        })
    }

    /// Watches for everything, each change told once.
    pub(super) fn watch(&self, source: impl AsFd, number: usize) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(
            &self.epoll,
            source,
            EventData::new_u64(number as u64),
            flags,
        )?)
    }

    /// Watches a listener; told again and again while somebody waits to be accepted.
    pub(super) fn listen(&self, source: impl AsFd, number: usize) -> io::Result<()> {
        let data = EventData::new_u64(number as u64);
        Ok(epoll::add(&self.epoll, source, data, EventFlags::IN)?)
    }

    /// The numbers of those where something happened; none when the time is up.
    pub(super) fn wait(&mut self, within: Duration) -> io::Result<impl Iterator<Item = usize>> {
        let Self { epoll, events } = self;
        let within = Timespec {
            tv_sec: i64::try_from(within.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: within.subsec_nanos().into(),
        };
        events.clear();
        match epoll::wait(&*epoll, spare_capacity(events), Some(&within)) {
            Err(error) if error != rustix::io::Errno::INTR => return Err(error.into()),
            _ => {}
        }
        Ok(events.drain(..).map(|event| event.data.u64() as usize))
    }
}
