//! `Prior`: what the first gaps of a listener's connections say about those that come next.

use std::time::Duration;

use super::KeepAlive;
use crate::words::config::Adaptive;

/// What one listener knows of newcomers: how long a silence may be after which somebody spoke.
///
/// Of a connection that said one thing and is silent since, its own past says nothing. But if on
/// this listener nearly everybody who spoke a second time did so within six minutes, then whoever
/// is silent for longer than that is gone. That is the hazard of the survival of connections,
/// and two things make it hard to measure, which are common to all censored data:
///
/// - *A server that has just started* has seen short gaps only, since the long ones are not over.
///   So nothing is said until enough newcomers have been silent for all the time there is.
/// - *Who is cut cannot be seen to come back.* So one newcomer in [`SCOUT_EVERY`] is a scout, who
///   gets all the time there is. One long gap that a scout shows is enough to be reckoned with.
///
/// The gaps are counted in a histogram with four buckets per power of two.
#[derive(Clone, Debug)]
pub(crate) struct Prior {
    counts: [u16; BUCKETS],
    total: u16,
    /// Newcomers that were silent for all the time there is, saturating.
    gone: u16,
    /// Connections opened, modulo [`SCOUT_EVERY`].
    turn: u16,
    /// What [`Prior::limit`] says once there were enough of the gone.
    limit: Duration,
}

/// There is one for each listener of each reactor.
const _: () = assert!(size_of::<Prior>() <= 288);

const BUCKETS: usize = 4 * u32::BITS as usize;

/// So many newcomers have to have gone before the gaps of the others are taken for all there are.
const GONE_MIN: u16 = 16;

/// One newcomer of so many is given all the time there is.
const SCOUT_EVERY: u16 = 32;

/// One gap of so many may be longer than the limit: the odd one does not hold up all the others.
/// With fewer gaps than this the longest one counts.
const ODD_ONE_OF: u16 = 1024;

/// At so many gaps all counts are halved, so that what is long ago is forgotten.
const TOTAL_MAX: u16 = 1 << 15;

impl Prior {
    pub(crate) fn new() -> Self {
        let (counts, limit) = ([0; BUCKETS], Duration::ZERO);
        Prior { counts, total: 0, gone: 0, turn: 0, limit }
    }

    /// A connection is opened: what is known of it.
    pub(crate) fn open(&mut self) -> KeepAlive {
        self.turn = (self.turn + 1) % SCOUT_EVERY;
        KeepAlive::new(self.turn == 0)
    }

    /// A newcomer spoke after so many milliseconds. Each connection is heard until it has a habit.
    pub(super) fn note_first_gap(&mut self, millis: u32) {
        if self.total >= TOTAL_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
            self.gone /= 2;
        }
        self.counts[bucket(millis)] += 1;
        self.total += 1;
        self.limit = self.longest_usual();
    }

    /// A connection was closed after so much silence. Counts if it was a newcomer that had all the
    /// time there is.
    pub(crate) fn note_cut(&mut self, cut: &KeepAlive, silent: Duration, idle: &Adaptive) {
        if !cut.has_habit() && silent >= idle.max {
            self.gone = self.gone.saturating_add(1);
        }
    }

    /// The silence of a newcomer after which nearly nobody has ever spoken again, with a margin;
    /// `None` until that is known.
    pub(crate) fn limit(&self) -> Option<Duration> {
        (self.gone >= GONE_MIN).then_some(self.limit)
    }

    /// The end of the bucket above the one of the longest gap, the odd ones left out: a margin of
    /// an eighth at least.
    fn longest_usual(&self) -> Duration {
        let mut odd = self.total / ODD_ONE_OF;
        for (number, count) in self.counts.iter().enumerate().rev() {
            if *count > odd {
                return end_of(number + 1);
            }
            odd -= count;
        }
        Duration::ZERO
    }
}

/// The power of two, and the quarter of the way to the next.
fn bucket(millis: u32) -> usize {
    let millis = millis.max(1);
    let octave = millis.ilog2();
    let quarter = (u64::from(millis) << 2 >> octave) & 3;
    usize::try_from(u64::from(octave) * 4 + quarter).unwrap_or(BUCKETS - 1)
}

/// Where a bucket ends.
fn end_of(number: usize) -> Duration {
    let (octave, quarter) = (number / 4, number as u64 % 4);
    Duration::from_micros(((5 + quarter) << octave) * 250)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::Rearm;
    use super::*;

    const IDLE: Adaptive =
        Adaptive { min: Duration::from_secs(60), factor: 3, max: Duration::from_secs(900) };

    fn with_gaps(gaps: &[(u32, usize)], gone: usize) -> Prior {
        let mut prior = Prior::new();
        for &(millis, times) in gaps {
            (0..times).for_each(|_| prior.note_first_gap(millis));
        }
        (0..gone).for_each(|_| prior.note_cut(&KeepAlive::default(), IDLE.max, &IDLE));
        prior
    }

    #[test]
    fn every_number_lies_in_its_bucket_and_the_buckets_are_in_order() {
        for millis in (1..100_000).chain([u32::MAX / 8, u32::MAX - 1, u32::MAX]) {
            let (number, gap) = (bucket(millis), Duration::from_millis(millis.into()));
            assert!(number < BUCKETS && end_of(number) > gap, "{millis}");
            assert!(number == 0 || end_of(number - 1) <= gap, "{millis}");
            assert!(end_of(number + 1) > gap * 9 / 8, "{millis}");
        }
    }

    #[test]
    fn nothing_is_said_before_enough_newcomers_have_gone() {
        let prior = with_gaps(&[(1_000, 500)], usize::from(GONE_MIN) - 1);
        assert_eq!(prior.limit(), None);
        let prior = with_gaps(&[(1_000, 500)], usize::from(GONE_MIN));
        assert!(prior.limit().is_some());
    }

    #[test]
    fn one_long_gap_counts_until_it_is_one_of_very_many() {
        let long = Duration::from_secs(360);
        let prior = with_gaps(&[(1_000, 1_000), (360_000, 1)], 16);
        let limit = prior.limit().expect("it is known");
        assert!(limit > long * 9 / 8 && limit < long * 3 / 2, "{limit:?}");
        let prior = with_gaps(&[(1_000, 1_000), (360_000, 1), (1_000, 1_100)], 16);
        assert!(prior.limit().expect("it is known") < Duration::from_secs(2));
        let prior = with_gaps(&[(1_000, 30_000), (360_000, 40)], 16);
        assert!(prior.limit().expect("it is known") > long);
    }

    #[test]
    fn what_is_long_ago_is_forgotten() {
        let mut prior = with_gaps(&[(360_000, 30_000), (1_000, 50_000)], 0);
        (0..16).for_each(|_| prior.note_cut(&KeepAlive::default(), IDLE.max, &IDLE));
        assert!(prior.limit().expect("it is known") > Duration::from_secs(360));
        (0..400_000).for_each(|_| prior.note_first_gap(1_000));
        (0..16).for_each(|_| prior.note_cut(&KeepAlive::default(), IDLE.max, &IDLE));
        assert!(prior.limit().expect("it is known") < Duration::from_secs(2));
    }

    #[test]
    fn only_newcomers_that_had_all_the_time_count_as_gone() {
        let mut prior = with_gaps(&[(1_000, 10)], 0);
        let mut known = KeepAlive::default();
        for rearm in [Rearm::No, Rearm::Yes] {
            assert_eq!(known.note_gap(Duration::from_secs(1), &mut Prior::new()), rearm);
        }
        for _ in 0..100 {
            prior.note_cut(&KeepAlive::default(), IDLE.max - Duration::from_millis(1), &IDLE);
            prior.note_cut(&known, IDLE.max, &IDLE);
        }
        assert_eq!(prior.limit(), None);
    }

    #[test]
    fn one_newcomer_of_so_many_is_a_scout() {
        let mut prior = Prior::new();
        let opened = 10 * usize::from(SCOUT_EVERY);
        assert_eq!((0..opened).filter(|_| prior.open().is_scout()).count(), 10);
    }
}
