//! Attention: whether input, a timer or a reactor lies there that everybody has forgotten. A look
//! before an idle deadline would mend that minutes later, so that no end would tell of it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::app::Life;
use super::plan::Plan;
use super::world::{Pace, Phase, World};
use crate::engine::sched::{Ticket, Where};
use crate::words::clock::Time;
use crate::words::sync::lock;

/// When nobody does anything for longer than that, then not because events are withheld or handlers
/// take their time.
const IDLE_MAX: Duration = Duration::from_millis(500);
/// By how much anything may be late while nobody does anything: a tick of the wheel.
pub(super) const OVERSLEPT: Duration = Duration::from_millis(2);

/// How long a reactor may lie while there is somebody who could pick it up: two looks of a sentinel
/// that may be late by the others' steps.
const PATIENCE: Duration = Duration::from_millis(60);

/// Since when each reactor has lain under the same ticket while somebody could have picked it up.
#[derive(Debug, Default)]
pub(super) struct Watchman {
    lying: Vec<Option<(Ticket, Time)>>,
}

impl<const DRAINS: bool> World<'_, DRAINS> {
    /// No reactor lies unattended beyond the patience. While the system stops threads, starts none
    /// or keeps the sentinel from looking, that is nobody's fault; nor is it while all threads that
    /// there may be are in handlers that take their time.
    pub(super) fn check_attended(&mut self) -> Result<(), String> {
        if !self.driver.has_sentinel() {
            return Ok(());
        }
        let now = lock(self.net).now;
        let faults = &self.plan.faults;
        let sound = [faults.late_sample, faults.spawn, faults.pause].iter().all(|o| o.is_off());
        let excused = (self.phase == Phase::Storm && !sound) || !self.has_help(now);
        self.watchman.lying.resize(self.plan.sched.reactors, None);
        for (reactor, lying) in self.watchman.lying.iter_mut().enumerate() {
            let ticket = self.driver.lies_under(reactor);
            let same = |&(before, _): &(Ticket, Time)| Some(before) == ticket && !excused;
            *lying = lying.filter(same).or_else(|| ticket.map(|ticket| (ticket, now)));
            let since = lying.map_or(now, |(_, since)| since);
            if now.since(since) > PATIENCE {
                let threads = &self.driver;
                return Err(format!("reactor {reactor} lies since {since:?}: {threads:?}"));
            }
        }
        Ok(())
    }

    /// Whether a thread waits or could be started, and none is stopped outside of user code.
    fn has_help(&self, now: Time) -> bool {
        let mut places = self.threads.iter().enumerate().map(|(thread, pace)| {
            let Pace { paused_until, .. } = pace;
            (self.driver.at(thread, now), *paused_until > now)
        });
        let stopped = |(at, paused)| paused && !matches!(at, Where::AfterJob(_));
        !places.any(stopped) && self.driver.has_help(now)
    }

    /// Nobody has anything to do until `next`: then no timer of an open connection may be due.
    pub(super) fn check_timers(&self, next: Time) -> Result<(), String> {
        if !self.is_settled() {
            return Ok(());
        }
        let book = lock(&self.app.book);
        // Who closes hears of no timer any more, though its output may still be on its way.
        let mut hearing = BTreeSet::new();
        self.driver.look(|reactor| hearing.extend(reactor.hearing()));
        let hears = |life: &Life| life.name.is_some_and(|name| hearing.contains(&name));
        for (id, life) in book.lives.iter().enumerate().filter(|(_, life)| hears(life)) {
            let overdue = life.timers.values().find(|&&at| next > at + OVERSLEPT);
            if let Some(at) = overdue {
                return Err(format!(
                    "a timer of socket {id} that was due at {at:?} is lost: {life:?}"
                ));
            }
        }
        Ok(())
    }

    /// Whether what went wrong is over, and so are the stalls that came of it.
    pub(super) fn is_settled(&self) -> bool {
        let now = lock(self.net).now;
        self.phase != Phase::Storm && now > self.calm_at + self.plan.faults.stall_max * 8
    }

    /// Nobody has anything to do until `next`. When nothing goes wrong any more, and unless rates
    /// or memory bound what is read, then no input may lie there that nobody keeps back.
    pub(super) fn check_attention(&self, next: Time) -> Result<(), String> {
        let Plan { limits, group, .. } = self.plan;
        let shaped = limits.read_rate.or(limits.server_read_rate).or(group.read).is_some();
        if self.phase == Phase::Storm || shaped || self.plan.holds_output() || self.plan.is_scarce()
        {
            return Ok(());
        }
        let (book, net) = (lock(&self.app.book), lock(self.net));
        let forgotten = net.forgotten_input().find(|&id| !book.keeps_back(id));
        match forgotten.filter(|_| next.since(net.now) > IDLE_MAX) {
            Some(id) => Err(format!("nobody reads what lies in socket {id}; {:?}", self.driver)),
            None => Ok(()),
        }
    }
}
