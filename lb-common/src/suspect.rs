//! Backends that do not answer: when one is suspect, and how it comes back.
//!
//! A suspect gets no new flows while another backend of the service can take them. It is out for 1 s at first and
//! twice as long each further time, up to [`OUT_MOST`]; then one flow tries it. What it answers, to whatever flow,
//! clears it.

/// How long a backend is out the first time, ns.
const OUT_FIRST: u64 = 1_000_000_000;
/// The longest that it is out, as so many doublings of [`OUT_FIRST`]: 64 s.
const OUT_MOST: u32 = 6;
/// How long the flow that tries it has, ns: longer than the first retransmission of a SYN takes (1 s, RFC 6298
/// section 2.1).
const TRIAL: u64 = 1_500_000_000;
/// Silence says nothing of a backend that accepted another connection within this time, ns. Shorter than the
/// first retransmission of a SYN takes: a backend that died with the SYN is suspect when it comes again.
const ANSWERS: u64 = 900_000_000;
/// The time of an answer is noted at most so often, ns: all CPUs share it.
const NOTED: u64 = 50_000_000;

/// What is known of a backend that does not answer, by backend id. All zeros: it is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Suspect {
    /// Coarse time up to which it is out, ns.
    pub until: u64,
    /// Coarse time of its last answer to a new flow, ns.
    pub answered: u64,
    /// The backend's generation that this is about.
    pub generation: u32,
    /// How many times it was out without an answer in between; 0: it is no suspect.
    pub times: u16,
    /// Not 0: a flow tries it until then.
    pub trial: u8,
    /// One of [`suspicion`].
    pub why: u8,
}

/// Why a backend is suspect.
pub mod suspicion {
    /// It answered a SYN with a reset.
    pub const REFUSED: u8 = 1;
    /// It did not answer a SYN.
    pub const SILENT: u8 = 2;
    /// Its host or a router said that it cannot be reached, by ICMP.
    pub const UNREACHABLE: u8 = 3;
}

const _: () = assert!(size_of::<Suspect>() == 8 + 8 + 4 + 2 + 1 + 1);

// === impl Suspect ===

impl Suspect {
    /// Whether it gets no new flows now.
    #[inline(always)]
    pub fn is_out(&self, generation: u32, now: u64) -> bool {
        self.times != 0 && self.until > now && self.generation == generation
    }

    /// A new flow goes to it although it was suspect; nothing happens to others.
    #[inline(always)]
    pub fn try_out(&mut self, generation: u32, now: u64) {
        if self.times == 0 || self.until > now || self.generation != generation {
            return;
        }
        if self.trial != 0 {
            // The flow that tried it had no complaint, or was none that can be answered.
            self.times = 0;
            self.trial = 0;
        } else {
            self.trial = 1;
            self.until = now + TRIAL;
        }
    }

    /// Takes note of a new flow's failure; whether it makes a suspect of the backend, or keeps it one.
    #[inline(always)]
    pub fn blame(&mut self, generation: u32, why: u8, now: u64) -> bool {
        if self.generation != generation {
            *self = Self {
                generation,
                ..Self::zero()
            };
        }
        if why == suspicion::SILENT && now.saturating_sub(self.answered) < ANSWERS {
            return false;
        }
        if self.times != 0 && self.until > now && self.trial == 0 {
            // The failure of one more flow that was under way.
            return false;
        }
        let doublings = u32::from(self.times);
        let doublings = if doublings > OUT_MOST {
            OUT_MOST
        } else {
            doublings
        };
        self.until = now + (OUT_FIRST << doublings);
        self.times = (doublings + 1) as u16;
        self.trial = 0;
        self.why = why;
        true
    }

    /// It accepted a new flow.
    #[inline(always)]
    pub fn answer(&mut self, generation: u32, now: u64) {
        if self.times != 0 || self.generation != generation {
            self.times = 0;
            self.trial = 0;
            self.generation = generation;
        } else if now.saturating_sub(self.answered) < NOTED {
            return;
        }
        self.answered = now;
    }

    #[inline(always)]
    const fn zero() -> Self {
        Self {
            until: 0,
            answered: 0,
            generation: 0,
            times: 0,
            trial: 0,
            why: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const START: u64 = 1_000_000 * MS;

    fn blamed(at: u64) -> Suspect {
        let mut suspect = Suspect::default();
        assert!(suspect.blame(1, suspicion::REFUSED, at));
        suspect
    }

    #[test]
    fn each_time_is_twice_as_long_up_to_a_minute() {
        let mut suspect = Suspect::default();
        let mut now = START;
        for seconds in [1, 2, 4, 8, 16, 32, 64, 64, 64] {
            assert!(!suspect.is_out(1, now));
            suspect.try_out(1, now);
            assert!(suspect.blame(1, suspicion::REFUSED, now));
            assert!(suspect.is_out(1, now + seconds * 1_000 * MS - 1));
            now += seconds * 1_000 * MS;
        }
    }

    #[test]
    fn flows_under_way_that_fail_too_make_it_no_worse() {
        let mut suspect = blamed(START);
        let before = suspect;
        assert!(!suspect.blame(1, suspicion::SILENT, START + 500 * MS));
        assert_eq!(suspect, before);
    }

    #[test]
    fn one_flow_tries_it_and_its_answer_clears_it() {
        let mut suspect = blamed(START);
        let later = START + 1_001 * MS;
        assert!(!suspect.is_out(1, later));
        suspect.try_out(1, later);
        assert!(suspect.is_out(1, later), "others stay away meanwhile");
        suspect.answer(1, later + MS);
        assert!(!suspect.is_out(1, later + MS));
        assert_eq!(suspect.times, 0);
    }

    #[test]
    fn a_trial_that_nobody_complains_of_clears_it() {
        let mut suspect = blamed(START);
        suspect.try_out(1, START + 1_001 * MS);
        suspect.try_out(1, START + 1_001 * MS + TRIAL);
        assert_eq!(suspect.times, 0);
    }

    #[test]
    fn silence_counts_only_where_nothing_was_answered_lately() {
        let mut suspect = Suspect::default();
        suspect.answer(1, START);
        assert!(!suspect.blame(1, suspicion::SILENT, START + 800 * MS));
        assert!(suspect.blame(1, suspicion::SILENT, START + 1_000 * MS));
        suspect.answer(1, START + 1_100 * MS);
        assert!(suspect.blame(1, suspicion::REFUSED, START + 1_101 * MS));
    }

    #[test]
    fn who_gets_the_id_next_is_no_suspect() {
        let mut suspect = blamed(START);
        assert!(suspect.is_out(1, START));
        assert!(!suspect.is_out(2, START));
        assert!(suspect.blame(2, suspicion::REFUSED, START));
        assert_eq!(suspect.times, 1);
    }
}
