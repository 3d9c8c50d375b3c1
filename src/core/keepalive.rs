//! Keep-alive: learns how long each peer is used to be silent, and says when silence is too long.
//!
//! The estimate is that of TCP's retransmission timer (RFC 6298, after Jacobson, "Congestion
//! Avoidance and Control", 1988): moving averages of the gaps between messages and of how far they
//! are off. What differs is that a gap which is predicted too short costs a connection here, and
//! not a packet. Hence three additions.
//!
//! *Bursts.* A device that sends three messages at once every five minutes has gaps of 50 ms, 50 ms
//! and 5 min, of which only the last says anything. So messages within `BURST_MICROS` of each other
//! are one. It is not enough to ignore short gaps: a peer that speaks ten times a second would then
//! never be known. Instead they are added up until they are a gap of that length.
//!
//! *The longest gap.* A device that talks for a minute every five minutes has many short gaps and a
//! long one. The averages forget the long one before the talk is over. So the longest gap is kept
//! beside them and shrinks with time: a silence counts less and less for about eight times its own
//! length, after which it was an exception.
//!
//! *Newcomers.* Before a connection has shown a habit the first gaps of others speak for it: see
//! [`Prior`].

mod prior;
#[cfg(all(test, not(loom)))]
mod tests;
// A million virtual events: too many for an interpreter.
#[cfg(all(test, not(miri)))]
mod sim;

use std::time::Duration;

pub(crate) use self::prior::Prior;
use crate::words::config::{Adaptive, Idle, SILENCE_MAX};
use crate::words::pressure::Pressure;

/// What is known of the habits of one peer. When it spoke last, the caller remembers.
///
/// ```text
///   mean8      8 × the mean gap, in ms          ┐ scaled as in Jacobson's paper, so that
///   dev4       4 × its mean deviation, in ms    ┘ shifts lose nothing over time
///   longest    the longest gap that is not forgotten, in ms
///   packed      31      30 ··· 20          19 ··· 0
///              scout │ gaps learned │ µs since the burst began
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KeepAlive {
    mean8: u32,
    dev4: u32,
    longest: u32,
    packed: u32,
}

/// Every connection has one, so it is small.
const _: () = assert!(size_of::<KeepAlive>() <= 16);

/// Messages within this time of the first are one message. Long enough for a handshake and for
/// what is sent in parts; far shorter than any silence that is worth a timeout.
const BURST_MICROS: u64 = 1_000_000;
#[cfg(test)]
const BURST: Duration = Duration::from_micros(BURST_MICROS);

/// From so many gaps on there is a habit. The first one alone may be the end of a handshake.
const HABIT_GAPS: u32 = 2;

/// What a gap is taken for at most, in ms: that it fits eight times. A device that is silent for
/// so long is predicted beyond the longest timeout there is, so nothing is lost by it.
const GAP_MAX: u32 = u32::MAX / 8;
const _: () = assert!(GAP_MAX as u128 * 3 / 2 > SILENCE_MAX.as_millis());

const SCOUT: u32 = 1 << 31;
const GAPS_SHIFT: u32 = 20;
const GAPS_MAX: u32 = (1 << 11) - 1;
const BURST_MASK: u32 = (1 << GAPS_SHIFT) - 1;
const _: () = assert!(BURST_MICROS <= BURST_MASK as u64);

impl KeepAlive {
    /// A connection of which nothing is known. A scout is given all the time there is until it has
    /// a habit, so that the [`Prior`] goes on learning what is beyond its own limit.
    const fn new(is_scout: bool) -> Self {
        let packed = if is_scout { SCOUT } else { 0 };
        KeepAlive { mean8: 0, dev4: 0, longest: 0, packed }
    }

    /// A message came, `gap` after the one before it; of the first message of a connection nothing
    /// is noted. Several messages of one read have a gap of zero, which changes nothing.
    ///
    /// A timer that is set for the connection is moved on when it fires too early. Only now and
    /// then the time becomes much shorter; then the answer says so.
    pub(crate) fn note_gap(&mut self, gap: Duration, prior: &mut Prior) -> Rearm {
        let micros = u64::try_from(gap.as_micros()).unwrap_or(u64::MAX);
        let since_start = micros.saturating_add(u64::from(self.packed & BURST_MASK));
        self.packed &= !BURST_MASK;
        if since_start < BURST_MICROS {
            // It fits: the mask holds all that is shorter than a burst may be.
            self.packed |= u32::try_from(since_start).unwrap_or(0);
            return Rearm::No;
        }
        // Rounded up, as every rounding here: rather a little late than a connection too many.
        let millis = u32::try_from(since_start.div_ceil(1000)).unwrap_or(u32::MAX).min(GAP_MAX);
        if !self.has_habit() {
            prior.note_first_gap(millis);
        }
        self.learn(millis);
        if self.gaps() == HABIT_GAPS { Rearm::Yes } else { Rearm::No }
    }

    /// RFC 6298, section 2, with a mean of 1/8 and a deviation of 1/4.
    fn learn(&mut self, gap: u32) {
        let gaps = self.gaps();
        if gaps == 0 {
            // "SRTT <- R, RTTVAR <- R/2".
            (self.mean8, self.dev4, self.longest) = (gap * 8, gap * 2, gap);
        } else {
            // Neither can overflow: a mean that is no more than GAP_MAX stays so, and no gap is
            // further from it than GAP_MAX.
            let off = gap.abs_diff(self.mean8 / 8);
            self.dev4 = self.dev4 - self.dev4 / 4 + off;
            self.mean8 = self.mean8 - self.mean8 / 8 + gap;
            self.longest = self.longest.saturating_sub(gap / 8).max(gap);
        }
        if gaps < GAPS_MAX {
            self.packed += 1 << GAPS_SHIFT;
        }
    }

    /// How many gaps were learned, at most [`GAPS_MAX`].
    const fn gaps(&self) -> u32 {
        (self.packed & !SCOUT) >> GAPS_SHIFT
    }

    const fn has_habit(&self) -> bool {
        self.gaps() >= HABIT_GAPS
    }

    /// The longest gap to reckon with: the mean and four deviations, or half a mean if that is
    /// more, or one and a half times the longest gap. `None` before there is a habit.
    ///
    /// Half a mean is the floor that RFC 6298 has in `max(G, K*RTTVAR)`. A device that keeps its
    /// period to within a fifth may, by chance, be punctual for long, and then late: the deviation
    /// has become nothing by then. But the mean is at least 0.8 periods, and 0.8 × 1.5 = 1.2. So
    /// such a device is never silent for longer than this, whatever the order of its gaps.
    pub(crate) fn predicted(&self) -> Option<Duration> {
        if !self.has_habit() {
            return None;
        }
        let mean8 = u64::from(self.mean8);
        // `dev4` is four deviations as it stands.
        let usual = mean8.div_ceil(8) + u64::from(self.dev4).max(mean8.div_ceil(16));
        let longest = u64::from(self.longest);
        // One more, since the last message may have come at the end of its millisecond.
        Some(Duration::from_millis(usual.max(longest + longest.div_ceil(2)) + 1))
    }

    /// How much silence closes this connection; from `min` to `max`, and the less the higher the
    /// pressure.
    ///
    /// Each level halves what is given beyond the need, but what is predicted stays, so that no
    /// peer is cut that does as it always did; and what a newcomer needs is what the [`Prior`]
    /// says, or `max` while that is silent. At the top level nothing but `min` is given.
    pub(crate) fn timeout(&self, idle: &Adaptive, pressure: Pressure, prior: &Prior) -> Duration {
        let spare = 1 << pressure.level();
        let wanted = if pressure == Pressure::Critical {
            idle.min
        } else if let Some(predicted) = self.predicted() {
            (predicted.saturating_mul(idle.factor) / spare).max(predicted)
        } else if self.is_scout() {
            idle.max
        } else {
            prior.limit().unwrap_or(idle.max)
        };
        wanted.max(idle.min).min(idle.max)
    }

    /// How far a connection is silent beyond what is predicted, for the choice of whom to give up
    /// when the server is full: the greatest goes first.
    ///
    /// It is silence divided by prediction, so that a minute weighs more for one that speaks every
    /// second than for one that speaks every hour. A prediction counts as at least `min`, else a
    /// moment's pause of the chattiest would weigh most. A newcomer is measured by what the
    /// [`Prior`] says, or else by `max`: it stands behind all that are overdue by their own habit
    /// until it has been silent for as long as anybody may be.
    pub(crate) fn overdue(&self, silent: Duration, idle: &Adaptive, prior: &Prior) -> Overdue {
        let expected = self.predicted().or(prior.limit()).unwrap_or(idle.max);
        let expected = expected.max(idle.min).min(idle.max).as_nanos().max(1);
        let ratio = silent.as_nanos().saturating_mul(Overdue::ONE) / expected;
        Overdue(u64::try_from(ratio).unwrap_or(u64::MAX))
    }

    const fn is_scout(&self) -> bool {
        self.packed & SCOUT != 0
    }
}

/// Whether the timer of a connection has to be set anew, to what [`KeepAlive::timeout`] says now.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rearm {
    /// It may stay: at worst it fires early and is moved on.
    No,
    /// The connection was a newcomer up to now, and may have had far more time than it needs.
    /// Answered once in its life.
    Yes,
}

/// Silence as a multiple of what was predicted. The greater, the sooner it may be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Overdue(u64);

impl Overdue {
    /// Silent for exactly as long as predicted.
    const ONE: u128 = 1024;

    /// Whether the connection is silent for longer than predicted.
    #[cfg(test)]
    pub(crate) fn is_late(self) -> bool {
        u128::from(self.0) > Self::ONE
    }
}

/// How much silence closes a connection under this setting; `None` if none does.
pub(crate) fn timeout(
    keepalive: &KeepAlive,
    idle: &Idle,
    pressure: Pressure,
    prior: &Prior,
) -> Option<Duration> {
    match *idle {
        Idle::Never => None,
        Idle::After(after) => Some(after),
        Idle::Adaptive { min, factor, max } => {
            Some(keepalive.timeout(&Adaptive { min, factor, max }, pressure, prior))
        }
    }
}
