//! What must be true of a simulated world after every step, and of its clients in the end.

use std::collections::BTreeMap;

use super::crowd::NOBODY;
use super::judge::judge;
use super::world::World;
use crate::engine::desk::Letter;
use crate::words::config::Evict;
use crate::words::sync::lock;

/// A run has at most so many steps, or it does not come to rest.
const STEPS_MAX: u64 = 600_000;

/// More than the largest frame of a client.
const FRAME_MAX: usize = 4_000;
/// More than a record, its entry in the wheel and its timers take, doubled.
const TABLES_PER_CLIENT: usize = 2_000;

impl<const DRAINS: bool> World<'_, DRAINS> {
    /// What must be true at every moment.
    pub(super) fn check(&mut self) -> Result<(), String> {
        if let Some(failure) = &lock(self.net).failure {
            return Err(failure.clone());
        }
        if self.steps > STEPS_MAX {
            return Err(format!("no rest after {STEPS_MAX} steps; {:?}", self.driver));
        }
        self.check_kept()?;
        self.check_pools()?;
        self.check_attended()?;
        let mut there = Vec::new();
        self.driver.look(|reactor| there.extend(reactor.permits()));
        let (mut audit, mut used, mut short) = (Ok(()), 0, false);
        self.driver.look(|reactor| {
            let (known, out) = reactor.jobs_out();
            if known != out {
                audit = Err(format!("{out} jobs are out, and the reactor knows of {known}"));
            }
            audit = std::mem::replace(&mut audit, Ok(())).and(reactor.audit());
            used += reactor.memory_used();
            short |= reactor.counters().grades[4] > 0;
        });
        audit?;
        lock(self.net).memory_short |= short;
        self.check_memory(used)?;
        for desk in self.common.desks() {
            desk.mailbox.peek(|letter| {
                if let Letter::Adopt(newcomer) = letter {
                    there.push(newcomer.permit());
                }
            });
            let outbound = self.common.admission.outbound();
            there.extend((0..desk.asked_count()).map(|_| (outbound, NOBODY)));
        }
        self.crowd.check(&self.common.admission, &there)?;
        self.check_jobs()
    }

    /// At most one job of a connection is out.
    fn check_jobs(&self) -> Result<(), String> {
        let jobs = (0..self.driver.thread_count()).filter_map(|thread| {
            let job = self.driver.job(thread).filter(|job| job.has_connection());
            let done = self.driver.done(thread).filter(|done| done.kind.has_connection());
            job.map(|job| job.hand.id).or_else(|| done.map(|done| done.job.hand.id))
        });
        let mut jobs: Vec<_> = jobs.collect();
        jobs.sort_unstable();
        match jobs.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("two jobs of connection {} at once", pair[0])),
            None => Ok(()),
        }
    }

    /// The messages of other threads are counted to the byte, and memory stays below its bound.
    fn check_memory(&mut self, used: usize) -> Result<(), String> {
        let limits = &self.plan.limits;
        let desks = self.common.desks();
        let posted: usize = desks.iter().map(|desk| desk.posted()).sum();
        let more = (limits.memory_max / 16).saturating_add(self.overshoot());
        let bound = limits.memory_max.saturating_add(more);
        if used > bound && limits.evict == Evict::Heaviest {
            return Err(format!(
                "{used} bytes of memory, {posted} of messages; the bound is {bound}"
            ));
        }
        Ok(())
    }

    /// By how much memory may exceed its maximum and a sixteenth: one growth for each reactor.
    fn overshoot(&self) -> usize {
        let limits = &self.plan.limits;
        // Copies and lists stand in memory that is up to twice as large as what is in them.
        let job = 2 * (limits.send_max_bytes + FRAME_MAX);
        let each = job + limits.memory_max / 1024;
        self.plan.clients * TABLES_PER_CLIENT + self.plan.sched.reactors * each
    }

    pub(super) fn check_clients(&self) -> Result<(), String> {
        if self.app.visit_count() > 0 {
            return Err(format!("{} closures are still there", self.app.visit_count()));
        }
        let (mut book, net) = (lock(&self.app.book), lock(self.net));
        let mut misses = BTreeMap::new();
        for client in &self.clients {
            let life = client.socket.map(|id| book.life(id).clone()).unwrap_or_default();
            judge(self.plan, &net, &life, client, &mut misses).map_err(|what| {
                format!("the client of socket {:?}: {what}", client.socket.unwrap_or_default())
            })?;
        }
        book.judge_circles(&misses)
    }

    pub(super) fn describe_standstill(&self) -> String {
        let waiting: Vec<_> = self
            .clients
            .iter()
            .filter(|client| client.end.is_none())
            .map(|client| client.socket)
            .collect();
        let guests = self.guests.iter().filter(|guest| !guest.has_left());
        let waiting: Vec<_> = waiting.into_iter().chain(guests.map(|guest| guest.socket)).collect();
        let phase = self.phase;
        format!("{phase:?}: nothing moves, but clients {waiting:?} wait; {:?}", self.driver)
    }
}
