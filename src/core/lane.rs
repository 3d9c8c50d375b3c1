//! Lanes: how a connection learns that its handler is slow, and earns trust again.

/// How often a thread must lose its reactor to a connection before that one counts as slow. One
/// loss proves little: a thread that the system preempted looks the same.
const STRIKES_MAX: u8 = 2;
/// Quick jobs in a row that bring a connection back from its first stay in the slow lane; each
/// further stay doubles them, up to `QUICK_RUN << SENTENCE_MAX`.
const QUICK_RUN: u16 = 64;
const SENTENCE_MAX: u8 = 8;

/// The lane of one connection.
///
/// ```text
///            overtaken twice
///   fast ───────────────────────▶ slow
///    ▲                              │ a run of quick jobs, longer each time
///    └──────────────────────────────┘
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lane {
    quick_run: u16,
    strikes: u8,
    /// How many times it was slow; zero while it never was.
    stays: u8,
    slow: bool,
}

impl Lane {
    /// Whether its jobs go to the pool.
    pub(crate) fn is_slow(self) -> bool {
        self.slow
    }

    /// A thread lost its reactor while it ran a job of this connection. True if that makes it slow.
    pub(crate) fn overtaken(&mut self) -> bool {
        self.strikes = self.strikes.saturating_add(1);
        if self.slow || self.strikes < STRIKES_MAX {
            return false;
        }
        self.slow = true;
        self.quick_run = 0;
        self.stays = self.stays.saturating_add(1).min(SENTENCE_MAX);
        true
    }

    /// A job in the slow lane is over. True if that ends its stay; one more loss brings it back.
    pub(crate) fn served(&mut self, quick: bool) -> bool {
        if !self.slow {
            return false;
        }
        self.quick_run = if quick { self.quick_run.saturating_add(1) } else { 0 };
        if self.quick_run < QUICK_RUN << (self.stays - 1) {
            return false;
        }
        self.slow = false;
        self.strikes = STRIKES_MAX - 1;
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn two_losses_make_it_slow_and_each_stay_is_twice_as_long() {
        let mut lane = Lane::default();
        assert!(!lane.overtaken());
        assert!(lane.overtaken() && lane.is_slow());
        let mut stay = |expected: u16| {
            for _ in 1..expected {
                assert!(!lane.served(true));
            }
            assert!(lane.served(true) && !lane.is_slow());
            assert!(lane.overtaken() && lane.is_slow());
        };
        stay(QUICK_RUN);
        stay(2 * QUICK_RUN);
        for _ in 0..10 {
            let longest = QUICK_RUN << (SENTENCE_MAX - 1);
            while !lane.served(true) {
                assert!(lane.quick_run < longest);
            }
            assert!(lane.overtaken());
        }
    }

    #[test]
    fn a_slow_job_starts_the_run_again() {
        let mut lane = Lane::default();
        lane.overtaken();
        lane.overtaken();
        for _ in 0..QUICK_RUN - 1 {
            assert!(!lane.served(true));
        }
        assert!(!lane.served(false));
        assert!(!lane.served(true) && lane.is_slow());
    }
}
