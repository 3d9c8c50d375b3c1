//! `Cycle`: where a connection that is made again and again stands; without sockets or clocks.

use std::time::Duration;

use crate::edge::backoff::{Backoff, Dice};
use crate::words::clock::Time;

/// The state of one [`Reconnect`](super::Reconnect).
///
/// ```text
///  Waiting ──begin──▶ Connecting ──opened──▶ Open
///     ▲                   │                   │
///     └──── ended ────────┴────── ended ──────┘      stop: from everywhere, for good
/// ```
///
/// News carry the number of their attempt: the end of a connection may be told before its
/// beginning, and both long after another attempt has begun.
#[derive(Debug)]
pub(super) struct Cycle {
    phase: Phase,
    /// The number of the present attempt, from 1.
    attempt: u64,
    /// In a row.
    failures: u32,
    backoff: Backoff,
    dice: Dice,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Waiting,
    Connecting,
    /// Since then.
    Open(Time),
    Stopped,
}

impl Cycle {
    /// One that has yet to begin.
    pub(super) fn new(backoff: Backoff, dice: Dice) -> Self {
        Cycle { phase: Phase::Waiting, attempt: 0, failures: 0, backoff, dice }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// The wait is over: the number of the attempt that begins, unless it was stopped.
    pub(super) fn begin(&mut self) -> Option<u64> {
        if self.phase != Phase::Waiting {
            return None;
        }
        self.phase = Phase::Connecting;
        self.attempt += 1;
        Some(self.attempt)
    }

    /// An attempt has become a connection. False if nobody wants that any more.
    pub(super) fn handle_opened(&mut self, attempt: u64, now: Time) -> bool {
        let is_next = self.phase == Phase::Connecting && self.attempt == attempt;
        if is_next {
            self.phase = Phase::Open(now);
        }
        is_next
    }

    /// An attempt has failed, or its connection has ended: how long to wait, unless that is old
    /// news or it was stopped.
    pub(super) fn handle_ended(&mut self, attempt: u64, now: Time) -> Option<Duration> {
        if self.attempt != attempt {
            return None;
        }
        let lived = match self.phase {
            Phase::Waiting | Phase::Stopped => return None,
            Phase::Connecting => Duration::ZERO,
            Phase::Open(since) => now.since(since),
        };
        if matches!(self.phase, Phase::Open(_)) && self.backoff.is_reset_by(lived) {
            self.failures = 0;
        }
        self.phase = Phase::Waiting;
        let delay = self.backoff.delay(self.failures, self.dice.roll());
        self.failures = self.failures.saturating_add(1);
        Some(delay)
    }

    /// Nothing happens any more. False if that was so before.
    pub(super) fn stop(&mut self) -> bool {
        std::mem::replace(&mut self.phase, Phase::Stopped) != Phase::Stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LONG: Duration = Duration::from_secs(30);

    fn cycle() -> Cycle {
        Cycle::new(Backoff::new(), Dice::new(1))
    }

    #[test]
    fn a_long_life_makes_failures_forgotten() {
        let (mut cycle, mut now) = (cycle(), Time::ZERO);
        for _ in 0..9 {
            let attempt = cycle.begin().unwrap();
            assert!(cycle.handle_ended(attempt, now).is_some());
        }
        assert_eq!(cycle.failures, 9);
        let attempt = cycle.begin().unwrap();
        assert!(cycle.handle_opened(attempt, now));
        now = now + LONG;
        assert!(cycle.handle_ended(attempt, now).unwrap() <= Duration::from_millis(100));
        assert_eq!(cycle.failures, 1);
    }

    #[test]
    fn the_end_may_be_told_before_the_beginning() {
        let (mut cycle, now) = (cycle(), Time::ZERO);
        let attempt = cycle.begin().unwrap();
        assert!(cycle.handle_ended(attempt, now).is_some());
        assert!(!cycle.handle_opened(attempt, now) && cycle.handle_ended(attempt, now).is_none());
        let next = cycle.begin().unwrap();
        assert!(!cycle.handle_opened(attempt, now) && cycle.handle_opened(next, now));
    }

    proptest! {
        /// One attempt at a time, a wait after each, and nothing after the stop.
        #[test]
        fn news_in_any_order(
            news in proptest::collection::vec((0..5u8, 0..3u64, 0..40u64), 0..200),
        ) {
            let (mut cycle, mut now) = (cycle(), Time::ZERO);
            let (mut under_way, mut stopped, mut last) = (false, false, 0u64);
            for (what, back, seconds) in news {
                now = now + Duration::from_secs(seconds);
                let attempt = last.saturating_sub(back);
                match what {
                    0 => {
                        let begun = cycle.begin();
                        prop_assert_eq!(begun.is_some(), !under_way && !stopped);
                        if let Some(number) = begun {
                            prop_assert_eq!(number, last + 1);
                            (last, under_way) = (number, true);
                        }
                    }
                    1 => {
                        let opened = cycle.handle_opened(attempt, now);
                        prop_assert!(!opened || (under_way && attempt == last && !stopped));
                    }
                    2 | 3 => {
                        let wait = cycle.handle_ended(attempt, now);
                        let due = under_way && attempt == last && !stopped;
                        prop_assert_eq!(wait.is_some(), due);
                        prop_assert!(wait.is_none_or(|wait| wait <= LONG));
                        under_way &= !due;
                    }
                    _ if back == 0 => {
                        prop_assert_eq!(cycle.stop(), !stopped);
                        stopped = true;
                    }
                    _ => {}
                }
            }
        }
    }
}
