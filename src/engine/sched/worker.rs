//! What every thread does: turn what it holds until it loses it, then serve the pool until called.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::idle::{Order, Seat};
use super::lease::{Held, Slot, Ticket};
use super::pool::{Pool, Rest, Work};
use super::{Leased, Mode, Step};
#[cfg(loom)]
use crate::words::sync::wait;
use crate::words::sync::{Arc, Condvar, Mutex, lock};

/// All that the threads of one scheduler share.
pub(crate) struct Shared<R: Leased> {
    pub(super) slots: Vec<Slot<R>>,
    pub(super) desks: Vec<Arc<R::Desk>>,
    pub(super) pool: Arc<Pool<R::Job>>,
    running: Mutex<usize>,
    all_stopped: Condvar,
}

/// What a reactor wants after it has gone on with its turn.
pub(crate) enum Advance<'s, R: Leased> {
    /// That `job` is run; until then it lies in its slot under `ticket`.
    Job {
        /// For [`Shared::resume`].
        ticket: Ticket,
        /// For [`Leased::run`].
        job: R::Job,
    },
    /// It is about to poll, and is still held. For how long it may wait, only players ask.
    Pause(
        Held<'s, R>,
        #[cfg_attr(
            not(any(test, feature = "sim")),
            expect(dead_code, reason = "a real poll waits by itself")
        )]
        Option<Duration>,
    ),
    /// Nothing any more: it is put away.
    Stopped,
}

/// Turns a reactor until it needs user code to be run, and lays it down for that time.
pub(crate) fn advance<R: Leased>(mut held: Held<'_, R>) -> Advance<'_, R> {
    match held.step() {
        Step::Run(job) => Advance::Job { ticket: held.lay_down(), job },
        Step::Pause(patience) => Advance::Pause(held, patience),
        Step::Stopped => {
            held.retire();
            Advance::Stopped
        }
    }
}

impl<R: Leased> Shared<R> {
    /// What threads share that turn `reactors`, all of which still lie in their slots.
    pub(super) fn new(
        reactors: Vec<Box<R>>,
        desks: Vec<Arc<R::Desk>>,
        pool: Arc<Pool<R::Job>>,
    ) -> Self {
        let running = Mutex::new(reactors.len());
        let slots = reactors.into_iter().map(Slot::new).collect();
        Shared { slots, desks, pool, running, all_stopped: Condvar::new() }
    }

    /// Picks up a reactor on the sentinel's order.
    pub(super) fn take_over(&self, index: usize, ticket: Ticket) -> Option<Held<'_, R>> {
        let held = self.slots[index].pick_up(ticket)?;
        if ticket != Ticket::FIRST {
            self.pool.stats.take_overs.add();
        }
        Some(held)
    }

    /// After user code: gives a reactor what its job has left, and goes on holding it; or mails it
    /// if somebody else has picked the reactor up meanwhile.
    pub(crate) fn resume(
        &self,
        index: usize,
        ticket: Ticket,
        done: R::Done,
    ) -> Option<Held<'_, R>> {
        let Some(mut held) = self.slots[index].pick_up(ticket) else {
            self.pool.stats.lost_races.add();
            if !cfg!(switchboard_sim_mutant = "overtaken_dropped") {
                R::post(&self.desks[index], done, true);
            }
            return None;
        };
        held.apply(done);
        Some(held)
    }

    /// Runs a job that was found in a queue.
    pub(crate) fn run(&self, work: Work<'_, R::Job>) {
        let Work { home, job, permit } = work;
        let desk = &self.desks[home];
        let done = R::run(job, desk);
        R::post(desk, done, false);
        drop(permit);
    }

    /// Notes that one more reactor was put away.
    pub(super) fn note_stopped(&self, index: usize) {
        // Nothing will wake it up: the sentinel need not look any more.
        self.pool.pulses[index].fall_asleep();
        let mut running = lock(&self.running);
        *running -= 1;
        let none_left = *running == 0;
        drop(running);
        if none_left {
            self.all_stopped.notify_all();
        }
    }

    /// Waits until every reactor was put away.
    #[cfg(loom)]
    pub(super) fn wait_stopped(&self) {
        let mut running = lock(&self.running);
        while *running > 0 {
            running = wait(&self.all_stopped, running);
        }
    }

    /// The same, for `patience` at the longest. False if some reactor still turns.
    #[cfg(not(loom))]
    pub(super) fn wait_stopped_within(&self, patience: Duration) -> bool {
        let waited =
            self.all_stopped
                .wait_timeout_while(lock(&self.running), patience, |running| *running > 0);
        let (running, _) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        *running == 0
    }

    /// The life of one thread, which is called by way of `seat`.
    pub(super) fn live(&self, seat: &Arc<Seat<Order>>, begun: impl FnOnce()) {
        let mut order = seat.wait();
        begun();
        loop {
            // A panic of our own code costs a turn, not a reactor: what was held was laid down.
            let obeyed = catch_unwind(AssertUnwindSafe(|| self.obey(order)));
            if obeyed.is_err() {
                self.pool.stats.panics.add();
            }
            match catch_unwind(AssertUnwindSafe(|| self.serve(seat))) {
                Ok(Some(next)) => order = next,
                Ok(None) => return,
                Err(_) => {
                    self.pool.stats.panics.add();
                    order = Order::Work;
                }
            }
        }
    }

    pub(super) fn obey(&self, order: Order) {
        match order {
            Order::PickUp(index, ticket) if self.pool.bounds.mode == Mode::TakeOver => {
                if let Some(held) = self.take_over(index, ticket) {
                    self.turn(index, held);
                }
            }
            Order::PickUp(index, ticket) => self.turn_inline(index, ticket),
            Order::Work => self.pool.idle.begin_search(),
            Order::Quit => {}
        }
    }

    /// Turns a reactor until it stops, or somebody else has it.
    pub(super) fn turn<'s>(&'s self, index: usize, mut held: Held<'s, R>) {
        loop {
            match advance(held) {
                Advance::Job { ticket, job } => {
                    let done = R::run(job, &self.desks[index]);
                    match self.resume(index, ticket, done) {
                        Some(again) => held = again,
                        None => return,
                    }
                }
                Advance::Pause(again, _) => held = again,
                Advance::Stopped => return self.note_stopped(index),
            }
        }
    }

    /// Turns a reactor that nobody else ever picks up, so that it need not be laid down.
    fn turn_inline(&self, index: usize, ticket: Ticket) {
        let mut next = Some(ticket);
        while let Some(held) = next.and_then(|ticket| self.slots[index].pick_up(ticket)) {
            let ended = catch_unwind(AssertUnwindSafe(move || {
                let mut held = held;
                loop {
                    match held.step() {
                        Step::Run(job) => held.apply(R::run(job, &self.desks[index])),
                        Step::Pause(_) => {}
                        Step::Stopped => return held.retire(),
                    }
                }
            }));
            if ended.is_ok() {
                return self.note_stopped(index);
            }
            // The panic has laid it down; there is nobody but us to pick it up.
            self.pool.stats.panics.add();
            next = self.slots[index].sample().ticket();
        }
    }

    /// Serves the pool until called. `None`: the thread is to end.
    pub(super) fn serve(&self, seat: &Arc<Seat<Order>>) -> Option<Order> {
        let mut first = 0;
        while !self.pool.quits() {
            if let Some(work) = self.pool.find_work(first) {
                // Who was rich is rich: begin there the next time.
                first = work.home;
                self.run(work);
                continue;
            }
            match self.pool.rest(seat) {
                Rest::Called(Order::Quit) | Rest::Leave => return None,
                Rest::Called(Order::Work) => self.pool.idle.begin_search(),
                Rest::Called(order @ Order::PickUp(..)) => return Some(order),
                Rest::Again => {}
            }
        }
        None
    }
}
