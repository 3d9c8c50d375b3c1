//! `Bucket`: a token bucket, exact to the nanosecond, for one connection or shared by many.

#[cfg(test)]
mod tests;

use super::clock::Time;
use super::config::Rate;

/// How much may pass, and when the next may.
///
/// It is the Generic Cell Rate Algorithm (ITU-T I.371; ATM Forum, Traffic Management Specification
/// 4.0), also known as the leaky bucket as a meter: instead of tokens that somebody must fill in,
/// it keeps the one moment at which the bucket is full again, the *theoretical arrival time* of the
/// standard. Nothing runs while nothing passes.
///
/// What passes is measured after the fact: a read takes up to a *quantum* and is told to the bucket
/// when its size is known. Whoever takes only when [`Bucket::ready_at`] has come goes less than a
/// quantum into debt, and so over any time `t` at most `burst + rate × t + quantum` pass.
///
/// ```text
///          burst, in tokens
///   ├───────────────┬────────┤
///   │     used      │  left  │     used = full_at − now;  used > burst is a debt
///   now          full_at
/// ```
///
/// Time is counted in [`TOKEN`]ths of a token: a nanosecond is worth `per_second` of them. These
/// are whole numbers for every rate, so nothing is ever rounded away. They fit: times are below 2⁶⁴
/// and rates at most 2⁴⁰.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    /// When the bucket is full again, in the units of [`Bucket::scaled`].
    full_at: u128,
    /// When something was last taken from a full bucket: what was booked before that is forgotten.
    was_full: Time,
}

/// A token in the units of time: nanoseconds per second.
const TOKEN: u128 = 1_000_000_000;

impl Bucket {
    /// A full bucket. The rate has been checked; one of zero counts as one.
    pub(crate) fn new(rate: Rate, now: Time) -> Self {
        let mut bucket = Bucket { rate, full_at: 0, was_full: now };
        bucket.full_at = bucket.scaled(now);
        bucket
    }

    /// Takes `n`, whether they are there or not: it has happened already.
    pub(crate) fn take(&mut self, n: u64, now: Time) {
        self.refill(now);
        self.full_at = self.full_at.saturating_add(tokens(n));
    }

    /// Takes up to `n` of what is there, and says how much that was.
    pub(crate) fn take_up_to(&mut self, n: u64, now: Time) -> u64 {
        let n = n.min(self.available(now));
        if n > 0 {
            self.take(n, now);
        }
        n
    }

    /// What it was made for, or changed to.
    pub(crate) fn rate(&self) -> Rate {
        self.rate
    }

    /// What is there now; nothing if it is in debt.
    pub(crate) fn available(&self, now: Time) -> u64 {
        let left = self.depth().saturating_sub(self.used(now)) / TOKEN;
        u64::try_from(left).unwrap_or(u64::MAX)
    }

    /// From when on a quantum may pass: when there are as many tokens, or, if the bucket does not
    /// hold as many, when it is full. Not before `now`.
    pub(crate) fn ready_at(&self, quantum: u64, now: Time) -> Time {
        let spare = self.depth().saturating_sub(tokens(quantum));
        let ready = self.full_at.saturating_sub(spare).div_ceil(self.per_nano());
        // What is later than all times is never.
        now.max(u64::try_from(ready).map_or(Time::NEVER, Time::from_nanos))
    }

    /// Books a quantum, and says from when on it may pass: in a shared bucket, the next place in
    /// the queue of all who asked.
    ///
    /// Whoever asks again only after the turn has come gets one quantum a round, as everybody else
    /// does, however greedy; and the next to ask waits one quantum for each who stands before.
    /// What turned out not to be needed goes back with [`Bucket::refund`].
    pub(crate) fn reserve(&mut self, quantum: u64, now: Time) -> Time {
        let slot = self.ready_at(quantum, now);
        self.take(quantum, now);
        slot
    }

    /// Gives back `n` of what was booked, for the moment `slot` that [`Bucket::reserve`] answered.
    ///
    /// If the bucket has been full since, it would have been so without the booking, too: then
    /// there is nothing to give back.
    pub(crate) fn refund(&mut self, n: u64, slot: Time) {
        if slot >= self.was_full {
            self.full_at = self.full_at.saturating_sub(tokens(n));
        }
    }

    /// Changes the rate. What is left or owed stays, down to the new burst.
    pub(crate) fn set_rate(&mut self, rate: Rate, now: Time) {
        self.refill(now);
        let (depth, used) = (self.depth(), self.used(now));
        self.rate = rate;
        let used = if used > depth {
            self.depth() + (used - depth)
        } else {
            self.depth().saturating_sub(depth - used)
        };
        self.full_at = self.scaled(now).saturating_add(used);
        self.refill(now);
    }

    /// Notes it if the bucket is full. A clock that runs back fills nothing.
    fn refill(&mut self, now: Time) {
        let scaled = self.scaled(now);
        if self.full_at <= scaled {
            self.full_at = scaled;
            self.was_full = now;
        }
    }

    fn used(&self, now: Time) -> u128 {
        self.full_at.saturating_sub(self.scaled(now))
    }

    fn depth(&self) -> u128 {
        tokens(self.rate.depth().max(1))
    }

    fn per_nano(&self) -> u128 {
        u128::from(self.rate.refill().max(1))
    }

    fn scaled(&self, now: Time) -> u128 {
        u128::from(now.as_nanos()) * self.per_nano()
    }
}

fn tokens(n: u64) -> u128 {
    u128::from(n) * TOKEN
}
