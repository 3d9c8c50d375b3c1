//! Time in the life of a connection: what is awaited until when, and what it means if it does not
//! come.
//!
//! A connection has one entry in the wheel. Input and output do not touch it: they only move what
//! is awaited to a later moment, and an entry that fires early is moved on. What is awaited earlier
//! than before says so ([`Connection::wants_arming`]).

use std::time::Duration;

use super::halves::{RecvHalf, SendHalf};
use super::{Connection, Rules};
use crate::core::hand::Hand;
use crate::core::keepalive::{self, Overdue, Prior, Rearm};
use crate::words::clock::Time;
use crate::words::config::{Adaptive, Idle, Timeouts};
use crate::words::reason::Cause;

/// What became of a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lapse {
    /// It had not come yet, or was put off.
    Nothing,
    /// Something else is next now.
    News,
    /// ... since the peer was silent for too long.
    Silence,
}

impl Connection {
    /// Whether its entry in the wheel may be later than what it awaits.
    #[inline]
    pub(crate) fn wants_arming(&self) -> bool {
        let forgets = cfg!(switchboard_sim_mutant = "sooner_unsaid");
        (self.flags.sooner && !forgets) || self.timer.is_none()
    }

    /// When it wants to be looked at although nothing has happened.
    pub(crate) fn deadline(&self, rules: Rules<'_>) -> Time {
        if self.flags.dead {
            return Time::NEVER;
        }
        let timer = if self.serves_timers() { self.next_timer() } else { Time::NEVER };
        let owed = self.owed(rules).map_or(Time::NEVER, |(by, _)| by);
        let output = self.output_by().min(self.half_stall(rules));
        output.min(timer).min(owed).min(self.held_until())
    }

    /// When half of a write stall is over. The system tells of room only once there is plenty; that
    /// there was some is seen when it is asked, and not since when. So it is asked then too: a peer
    /// has the time that it is granted, and at most half of that again.
    fn half_stall(&self, rules: Rules<'_>) -> Time {
        if self.outbox.is_none() || self.flags.half_stalled || !self.awaits_output() {
            return Time::NEVER;
        }
        let stall = self.timeouts(rules).write_stall;
        stall.map_or(Time::NEVER, |stall| self.output_by().before(stall / 2))
    }

    /// Its deadline is entered in the wheel. While its session is out that is not yet what the peer
    /// owes: so it is said again when that is back.
    pub(crate) fn handle_armed(&mut self) {
        self.flags.sooner = self.flags.out && !self.flags.dead;
    }

    /// A deadline may have come: whether it has, and news of the peer would put it off.
    pub(crate) fn seems_late(&self, now: Time, rules: Rules<'_>) -> bool {
        if self.flags.dead {
            return false;
        }
        let output = self.is_stalled(now) || self.half_stall(rules) <= now;
        output || self.owed(rules).is_some_and(|(by, _)| by <= now)
    }

    /// Before the peer counts as late, the system is asked once more. It tells of room only once
    /// there is plenty, while a peer that takes a little now and then has made some; and input may
    /// have come while the process was stopped.
    pub(crate) fn look_again(&mut self) {
        if self.outbox.is_some() && self.awaits_output() {
            self.flags.write_blocked = false;
        }
        let forgets = cfg!(switchboard_sim_mutant = "input_unlooked");
        if self.recv == RecvHalf::Open && !forgets {
            self.flags.readable = true;
        }
    }

    /// A deadline may have come, and the system has been asked.
    pub(crate) fn handle_timeout(&mut self, now: Time, rules: Rules<'_>) -> Lapse {
        let now = if cfg!(switchboard_sim_mutant = "timer_early") { Time::NEVER } else { now };
        if self.flags.dead {
            return Lapse::Nothing;
        }
        if self.output_by() <= now {
            self.expect_output(None);
            if self.outbox.is_some() {
                self.abort(Cause::WriteStalled);
            } else {
                self.die(Cause::Closed);
            }
            return Lapse::News;
        }
        self.flags.half_stalled |= self.half_stall(rules) <= now;
        // Input that is there and not read yet may be what is owed.
        let unread = self.flags.readable
            && self.recv == RecvHalf::Open
            && !cfg!(switchboard_sim_mutant = "input_unlooked");
        if let Some((_, cause)) = self.owed(rules).filter(|&(by, _)| by <= now && !unread) {
            if matches!(cause, Cause::IdleTimeout) {
                self.close(cause, now, rules);
                return Lapse::Silence;
            }
            self.abort(cause);
            return Lapse::News;
        }
        if self.serves_timers() && self.next_timer() <= now {
            self.flags.timer_due = true;
            return Lapse::News;
        }
        Lapse::Nothing
    }

    /// What the peer owes us now, by when, and what it is called if it does not come.
    fn owed(&self, rules: Rules<'_>) -> Option<(Time, Cause)> {
        let flags = &self.flags;
        // A peer that is not listened to owes nothing.
        let reads = !flags.choked && !flags.paused && !flags.ration.is_none();
        let listening = self.session.is_some() && reads;
        // Nor one whose input is here already and waits for its turn.
        let ours = flags.unserved || self.holds_input();
        if !listening || ours || flags.discarding {
            return None;
        }
        let timeouts = self.timeouts(rules);
        let silence =
            keepalive::timeout(&self.keepalive, &timeouts.idle, rules.pressure, rules.prior);
        let idle = (self.last_seen.after(silence), Cause::IdleTimeout);
        let frame = match self.recv {
            RecvHalf::Open => self.frame_by(timeouts),
            RecvHalf::Finished => Time::NEVER,
        };
        if frame >= idle.0 {
            return Some(idle);
        }
        let cause = if flags.greeted { Cause::FrameTimeout } else { Cause::FirstFrameTimeout };
        Some((frame, cause))
    }

    /// When the frame that is awaited or has begun must be whole.
    fn frame_by(&self, timeouts: &Timeouts) -> Time {
        if self.frame_since == Time::NEVER {
            return Time::NEVER;
        }
        if !self.flags.greeted {
            return self.frame_since.after(timeouts.first_frame);
        }
        let Some(frame) = timeouts.frame else { return Time::NEVER };
        let arrived = self.partial.as_ref().map_or(0, |partial| partial.len()) as u64;
        let rate = u64::from(timeouts.frame_rate_min);
        let granted =
            (arrived * 1_000).checked_div(rate).map_or(Duration::ZERO, Duration::from_millis);
        self.frame_since + frame + granted
    }

    /// Its own timeouts, or those of its listener.
    pub(super) fn timeouts<'a>(&'a self, rules: Rules<'a>) -> &'a Timeouts {
        self.rare().own_timeouts.as_deref().unwrap_or(rules.timeouts)
    }

    /// Whether timers fire: not while the session is out, which takes them along, nor once the
    /// protocol has closed.
    fn serves_timers(&self) -> bool {
        self.session.is_some() && !self.flags.discarding
    }

    /// Whether its protocol is to hear of timers, for a simulation that asks whether it will.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn hears_timers(&self) -> bool {
        self.session.is_some() && !self.flags.discarding && !self.flags.dead
    }

    fn next_timer(&self) -> Time {
        let timers = self.rare().timers.as_ref();
        let forgets = cfg!(switchboard_sim_mutant = "timer_lost");
        let timers = timers.filter(|timers| !forgets || timers.due_count(Time::NEVER) < 2);
        timers.map_or(Time::NEVER, |timers| timers.next_due())
    }

    fn is_stalled(&self, now: Time) -> bool {
        self.output_by() <= now && self.outbox.is_some() && !self.flags.dead
    }

    /// Input has come. What the peer says before its first frame is whole is no habit.
    #[inline]
    pub(super) fn note_input(&mut self, now: Time, prior: &mut Prior) {
        if self.flags.greeted {
            let rearm = self.keepalive.note_gap(now.since(self.last_seen), prior);
            self.flags.sooner |= rearm == Rearm::Yes;
        }
        self.note_seen(now);
    }

    /// The peer was heard of.
    #[inline]
    pub(super) fn note_seen(&mut self, now: Time) {
        if !cfg!(switchboard_sim_mutant = "seen_unnoted") {
            self.last_seen = now;
        }
    }

    /// Output has gone. That is a sign of life where the settings say so, and from a peer that has
    /// finished: there is no other.
    #[inline]
    pub(crate) fn note_sent(&mut self, now: Time, rules: Rules<'_>) {
        if self.recv == RecvHalf::Finished || self.timeouts(rules).idle_counts_sent {
            self.last_seen = now;
        }
    }

    /// We listen again: what the peer owed in the meantime is forgiven.
    pub(super) fn listen_again(&mut self, now: Time) {
        self.last_seen = now;
        if self.frame_since != Time::NEVER {
            self.frame_since = now;
        }
        self.flags.sooner = true;
    }

    /// For so long it was not read, because a call that was not for a frame took its time, or
    /// waited for a thread. A frame that has begun gets no more for that, or a peer that sends a
    /// byte now and then would live for ever on the time that each waits. But who waits for
    /// `on_open` may wait for a greeting.
    fn stand_still(&mut self, time: Duration) {
        self.last_seen = self.last_seen + time;
        if self.flags.opening {
            self.frame_since = self.frame_since + time;
        }
    }

    /// Frames were handled.
    #[inline]
    pub(super) fn note_frames(&mut self, now: Time) {
        self.flags.greeted = true;
        self.frame_since = Time::NEVER;
        self.last_seen = now;
    }

    /// How far it is silent beyond what is its habit, if it may be given up to make room: it is at
    /// rest, and nothing of it waits. The greatest goes first.
    pub(crate) fn overdue(&self, now: Time, rules: Rules<'_>) -> Option<Overdue> {
        let flags = &self.flags;
        let idle = self.session.is_some()
            && !(flags.dead || flags.discarding || flags.paused || flags.eof || flags.unserved)
            && !self.holds_input()
            && self.partial.is_none()
            && self.outbox.is_none()
            && self.inbox.is_none();
        if !idle {
            return None;
        }
        let adaptive = match self.timeouts(rules).idle {
            // Who may be silent for ever is not given up for being silent.
            Idle::Never => return None,
            Idle::After(after) => Adaptive { min: after, factor: 1, max: after },
            Idle::Adaptive { min, factor, max } => Adaptive { min, factor, max },
        };
        Some(self.keepalive.overdue(now.since(self.last_seen), &adaptive, rules.prior))
    }

    /// It was closed for its silence, which says something about newcomers to its listener.
    pub(crate) fn teach(&self, now: Time, listener: &Timeouts, prior: &mut Prior) {
        let timeouts = self.rare().own_timeouts.as_deref().unwrap_or(listener);
        if let Idle::Adaptive { min, factor, max } = timeouts.idle {
            let silent = now.since(self.last_seen);
            prior.note_cut(&self.keepalive, silent, &Adaptive { min, factor, max });
        }
    }

    /// A part of a frame waits for the rest.
    pub(super) fn note_partial(&mut self, now: Time) {
        if self.frame_since == Time::NEVER {
            self.frame_since = now;
            self.flags.sooner = true;
        }
    }

    /// What a job did about time: timers, timeouts, frames, whether it wants to read.
    #[inline]
    pub(super) fn take_times_back(&mut self, hand: &mut Hand, now: Time) {
        if hand.frames_count > 0 {
            self.note_frames(now);
        } else {
            self.stand_still(now.since(hand.now));
        }
        if let Some(timers) = hand.timers.take().filter(|timers| !timers.is_empty()) {
            self.rare.get_or_insert_default().timers = Some(timers);
            self.flags.sooner = true;
        }
        if let Some(timeouts) = hand.timeouts.take() {
            self.flags.sooner |= hand.timeouts_changed;
            self.rare.get_or_insert_default().own_timeouts = Some(timeouts);
        }
        self.forget_rare(|_| {});
        self.flags.unserved = hand.unserved && !cfg!(switchboard_sim_mutant = "unserved_forgotten");
        let listens = !self.flags.dead && !self.flags.discarding;
        self.flags.eof |= hand.eof_left && listens;
        self.flags.drain_due |= hand.drain_left && listens;
        if std::mem::replace(&mut self.flags.paused, hand.paused) && !hand.paused {
            self.listen_again(now);
        }
    }

    /// The next wait for output or for the peer's end is over by then.
    pub(super) fn await_until(&mut self, by: Time) {
        self.expect_output(Some(by));
        self.flags.sooner = true;
    }

    /// When a write stall or the linger is over.
    pub(super) fn output_by(&self) -> Time {
        let trouble = self.rare().trouble.as_ref();
        trouble.and_then(|trouble| trouble.output_by).unwrap_or(Time::NEVER)
    }

    /// Sets when it is over, or that neither is on.
    pub(super) fn expect_output(&mut self, by: Option<Time>) {
        self.flags.half_stalled = false;
        if by.is_some() {
            self.trouble_mut().output_by = by;
            return;
        }
        self.forget_rare(|rare| {
            if let Some(trouble) = &mut rare.trouble {
                trouble.output_by = None;
                if trouble.cause.is_none() && trouble.discarded_bytes == 0 {
                    rare.trouble = None;
                }
            }
        });
    }

    /// When our side was closed, in which the peer's end is awaited.
    pub(super) fn linger(&mut self, now: Time, rules: Rules<'_>) {
        debug_assert_eq!(self.send, SendHalf::Closed);
        self.flags.lingers_anew = true;
        self.await_until(now.after(self.timeouts(rules).linger));
    }
}
