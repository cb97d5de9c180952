//! What the programs tell of packets.

use aya::maps::{Array, PerCpuArray, RingBuf};
use lb_common::{TraceConfig, TraceEvent, TraceGuard, TraceMatch};

use super::Rig;

// === impl Rig ===

impl Rig {
    /// Lets the programs tell, for as long as a test takes.
    pub fn trace(&mut self, rate: u32, sample: u32, snap: u32) {
        self.trace_only(rate, sample, snap, &[]);
    }

    /// The same, of what one of these wants.
    pub fn trace_only(&mut self, rate: u32, sample: u32, snap: u32, wanted: &[TraceMatch]) {
        let mut matches: Array<_, TraceMatch> = self.map("LB_TRACE_MATCHES");
        for (index, one) in (0..).zip(wanted) {
            matches.set(index, one, 0).unwrap();
        }
        let config = TraceConfig {
            until: u64::MAX,
            rate,
            sample,
            snap,
            matches: wanted.len() as u32,
        };
        let mut map: Array<_, TraceConfig> = self.map("LB_TRACE");
        map.set(0, config, 0).unwrap();
    }

    /// What they have told since this was asked last, with the bytes of packets.
    pub fn told(&mut self) -> Vec<(TraceEvent, Vec<u8>)> {
        let mut events: RingBuf<_> = self.map("LB_TRACE_EVENTS");
        let mut told = Vec::new();
        while let Some(item) = events.next() {
            let (head, bytes) = item.split_at(size_of::<TraceEvent>());
            let mut event = TraceEvent::default();
            // SAFETY: as many bytes as the event has, of which any are a value.
            #[allow(unsafe_code)]
            unsafe {
                std::ptr::copy_nonoverlapping(
                    head.as_ptr(),
                    (&raw mut event).cast(),
                    size_of::<TraceEvent>(),
                );
            }
            told.push((event, bytes[..event.captured as usize].to_vec()));
        }
        told
    }

    /// What those of [`Rig::talking`] said in words since this was asked last: records of aya-log, with the words as they
    /// are between numbers.
    pub fn said(&mut self) -> Vec<String> {
        let mut words: RingBuf<_> = self.map("AYA_LOGS");
        let mut said = Vec::new();
        while let Some(record) = words.next() {
            said.push(String::from_utf8_lossy(&record).into_owned());
        }
        said
    }

    /// What they could not tell.
    pub fn untold(&mut self) -> u64 {
        let map: PerCpuArray<_, TraceGuard> = self.map("LB_TRACE_GUARD");
        map.get(&0, 0).unwrap().iter().map(|cpu| cpu.lost).sum()
    }
}
