//! `Driver`: plays all threads of a scheduler, one step at a time and in any order, so that a
//! simulation can choose who goes on next. Every step is made by what the real threads call.

use std::fmt;
use std::time::Duration;

use super::idle::{Order, Seat};
use super::lease::{Held, Ticket};
use super::pool::{IDLE_MAX, SlowPermit};
use super::running::Scheduler;
use super::sentinel::{Nap, Sentinel};
use super::worker::{Advance, Shared, advance};
use super::{Leased, Mode, Step};
use crate::words::clock::Time;
use crate::words::sync::Arc;

/// What the threads of a scheduler share, without threads.
pub(crate) struct Stage<R: Leased> {
    shared: Shared<R>,
}

/// The threads, played.
pub(crate) struct Driver<'s, R: Leased> {
    shared: &'s Shared<R>,
    threads: Vec<Thread<'s, R>>,
    sentinel: Sentinel,
}

/// One thread that is played; never taken off the list, so that its index is its name.
struct Thread<'s, R: Leased> {
    seat: Arc<Seat<Order>>,
    /// It has received its first order.
    begun: bool,
    state: State<'s, R>,
}

/// What a thread has in its hands, and what it is about to do with it.
enum State<'s, R: Leased> {
    /// Wait to be called; from `since` on for [`IDLE_MAX`] only if it may leave then.
    Wait { leaves: bool, since: Time },
    /// Follow an order.
    Obey(Order),
    /// Look for work; at reactor `first` first.
    Serve { first: usize },
    /// Go on with the turn.
    Turn(usize, Held<'s, R>),
    /// Poll.
    Poll(usize, Held<'s, R>, Option<Duration>),
    /// Run a job while the reactor lies under its ticket, or in the hand of an inline thread.
    Run(usize, Grip<'s, R>, R::Job),
    /// Give back what the job left.
    Return(usize, Grip<'s, R>, R::Done),
    /// Run a job that was found in a queue.
    RunFound(usize, R::Job, Option<SlowPermit<'s>>),
    /// Post what it left.
    Post(usize, R::Done, Option<SlowPermit<'s>>),
    /// Nothing: it has ended.
    Gone,
}

/// How a thread that runs a job has its reactor.
enum Grip<'s, R> {
    Ticket(Ticket),
    Held(Held<'s, R>),
}

/// Where a thread stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Where {
    /// It can go on, and touches nothing of the user's.
    Busy,
    /// It waits to be called, and was not.
    Waiting,
    /// It is in the poll of this reactor, for so long at most.
    Polling(usize, Option<Duration>),
    /// It is about to run user code of a connection of this reactor.
    BeforeJob(usize),
    /// It has run user code.
    AfterJob(usize),
    /// It has ended.
    Gone,
}

impl<R: Leased> Stage<R> {
    /// Takes the place of [`Scheduler::start`].
    pub(crate) fn new(scheduler: Scheduler<R>, reactors: Vec<R>) -> Self {
        Stage { shared: scheduler.into_shared(reactors) }
    }

    /// The threads that a real scheduler would begin with, each with its first order on the way.
    pub(crate) fn driver(&self) -> Driver<'_, R> {
        let shared = &self.shared;
        let sentinel = Sentinel::new(shared.slots.len());
        let mut driver = Driver { shared, threads: Vec::new(), sentinel };
        for index in 0..shared.slots.len() {
            driver.start_thread(Order::PickUp(index, Ticket::FIRST));
        }
        for _ in 0..shared.pool.bounds.standbys {
            driver.start_thread(Order::Work);
        }
        driver
    }

    /// The reactors that have stopped.
    pub(crate) fn take_retired(&self) -> Vec<R> {
        self.shared.slots.iter().filter_map(|slot| slot.take_retired()).map(|r| *r).collect()
    }

    /// Jobs of the slow lane that nobody has run.
    pub(crate) fn unserved_count(&self) -> usize {
        std::iter::from_fn(|| self.shared.pool.queues.steal_slow()).count()
    }
}

impl<'s, R: Leased> Driver<'s, R> {
    /// How many threads there are or were.
    pub(crate) fn thread_count(&self) -> usize {
        self.threads.len()
    }

    /// Whether a sentinel watches these threads.
    pub(crate) fn has_sentinel(&self) -> bool {
        self.shared.pool.bounds.mode == Mode::TakeOver
    }

    /// Where a thread stands now.
    pub(crate) fn at(&self, thread: usize, now: Time) -> Where {
        let Thread { seat, state, .. } = &self.threads[thread];
        match state {
            State::Wait { leaves, since } => {
                let leaves = *leaves && now >= *since + IDLE_MAX;
                if leaves || seat.is_taken() { Where::Busy } else { Where::Waiting }
            }
            State::Obey(_) | State::Serve { .. } | State::Turn(..) => Where::Busy,
            State::Poll(index, _, patience) => Where::Polling(*index, *patience),
            State::Run(index, ..) | State::RunFound(index, ..) => Where::BeforeJob(*index),
            State::Return(index, ..) | State::Post(index, ..) => Where::AfterJob(*index),
            State::Gone => Where::Gone,
        }
    }

    /// The job that a thread is about to run.
    pub(crate) fn job(&self, thread: usize) -> Option<&R::Job> {
        match &self.threads[thread].state {
            State::Run(_, _, job) | State::RunFound(_, job, _) => Some(job),
            State::Wait { .. }
            | State::Obey(_)
            | State::Serve { .. }
            | State::Turn(..)
            | State::Poll(..)
            | State::Return(..)
            | State::Post(..)
            | State::Gone => None,
        }
    }

    /// What a job has left that a thread has run and not given back.
    pub(crate) fn done(&self, thread: usize) -> Option<&R::Done> {
        match &self.threads[thread].state {
            State::Return(_, _, done) | State::Post(_, done, _) => Some(done),
            State::Wait { .. }
            | State::Obey(_)
            | State::Serve { .. }
            | State::Turn(..)
            | State::Poll(..)
            | State::Run(..)
            | State::RunFound(..)
            | State::Gone => None,
        }
    }

    /// Shows every reactor that has not stopped.
    pub(crate) fn look(&self, mut look: impl FnMut(&R)) {
        self.shared.slots.iter().for_each(|slot| slot.peek(&mut look));
        for thread in &self.threads {
            match &thread.state {
                State::Turn(_, held)
                | State::Poll(_, held, _)
                | State::Run(_, Grip::Held(held), _)
                | State::Return(_, Grip::Held(held), _) => look(held),
                State::Wait { .. }
                | State::Obey(_)
                | State::Serve { .. }
                | State::Run(..)
                | State::Return(..)
                | State::RunFound(..)
                | State::Post(..)
                | State::Gone => {}
            }
        }
    }

    /// The ticket under which a reactor lies, if it does and was held before.
    pub(crate) fn lies_under(&self, reactor: usize) -> Option<Ticket> {
        let ticket = self.shared.slots[reactor].sample().ticket();
        ticket.filter(|&ticket| ticket != Ticket::FIRST)
    }

    /// Whether there is a thread to be called, or the system would start one.
    pub(crate) fn has_help(&self, now: Time) -> bool {
        let waits = |thread| self.at(thread, now) == Where::Waiting;
        let alive = self.threads.iter().filter(|t| !matches!(t.state, State::Gone)).count();
        (0..self.threads.len()).any(waits) || alive < self.shared.pool.bounds.threads_max
    }

    /// How many reactors have stopped.
    pub(crate) fn stopped_count(&self) -> usize {
        self.shared.slots.iter().filter(|slot| slot.sample().is_retired()).count()
    }

    /// Lets a thread go on to where something else may come between. Where it waits to be called
    /// without having been, nothing happens.
    pub(crate) fn step(&mut self, thread: usize, now: Time) {
        let Thread { seat, begun, state } = &mut self.threads[thread];
        let now_in = std::mem::replace(state, State::Gone);
        *begun |= seat.is_taken();
        let next = self.shared.go_on(now_in, seat, now);
        self.threads[thread].state = next;
    }

    /// Whether the sentinel is called although it sleeps.
    pub(crate) fn sentinel_was_called(&self) -> bool {
        self.shared.pool.watch.was_rung()
    }

    /// Lets the sentinel look at everything, and says after how long it wants to look again;
    /// `None`: not before it is called. `refused`: the system starts no further thread.
    pub(crate) fn sample(&mut self, now: Time, refused: bool) -> Option<Duration> {
        let Driver { shared, threads, sentinel } = self;
        let mut send = |order| {
            let pool = &shared.pool;
            let called = match order {
                Order::Work => pool.idle.call_searcher(),
                Order::PickUp(..) | Order::Quit => pool.idle.call(order),
            };
            if called {
                return true;
            }
            let starting = threads.iter().any(|thread| !thread.begun);
            let alive = threads.iter().filter(|t| !matches!(t.state, State::Gone)).count();
            if starting || alive >= pool.bounds.threads_max || refused {
                return false;
            }
            threads.push(Thread::new(order));
            true
        };
        match sentinel.sample(now, &shared.slots, &shared.pool, &mut send) {
            Nap::For(nap) => Some(nap),
            Nap::Deep => None,
        }
    }

    /// Makes every thread end that has nothing to do any more.
    pub(crate) fn tell_to_quit(&self) {
        self.shared.pool.tell_to_quit();
    }

    fn start_thread(&mut self, order: Order) {
        self.threads.push(Thread::new(order));
    }
}

impl<R: Leased> Thread<'_, R> {
    fn new(order: Order) -> Self {
        let seat = Arc::new(Seat::new());
        seat.put(order);
        Thread { seat, begun: false, state: State::Wait { leaves: false, since: Time::ZERO } }
    }
}

/// The life of one thread, as `Shared::live` has it, cut into steps.
impl<R: Leased> Shared<R> {
    fn go_on<'s>(
        &'s self,
        state: State<'s, R>,
        seat: &Arc<Seat<Order>>,
        now: Time,
    ) -> State<'s, R> {
        match state {
            State::Obey(Order::PickUp(index, ticket)) => match self.take_over(index, ticket) {
                Some(held) => State::Turn(index, held),
                None => State::Serve { first: 0 },
            },
            State::Obey(Order::Work) => {
                self.pool.idle.begin_search();
                State::Serve { first: 0 }
            }
            State::Obey(Order::Quit) => State::Gone,
            State::Serve { first } => self.look_for_work(seat, first, now),
            State::Turn(index, held) | State::Poll(index, held, _) => self.turn_on(index, held),
            State::Run(index, grip, job) => {
                State::Return(index, grip, R::run(job, &self.desks[index]))
            }
            State::Return(index, Grip::Ticket(ticket), done) => {
                match self.resume(index, ticket, done) {
                    Some(held) => State::Turn(index, held),
                    None => State::Serve { first: 0 },
                }
            }
            State::Return(index, Grip::Held(mut held), done) => {
                held.apply(done);
                State::Turn(index, held)
            }
            State::RunFound(home, job, permit) => {
                State::Post(home, R::run(job, &self.desks[home]), permit)
            }
            State::Post(home, done, permit) => {
                R::post(&self.desks[home], done, false);
                drop(permit);
                State::Serve { first: home }
            }
            State::Wait { leaves, since } => match seat.take() {
                Some(order) => State::Obey(order),
                None => self.give_up_waiting(seat, leaves, since, now),
            },
            State::Gone => State::Gone,
        }
    }

    fn turn_on<'s>(&'s self, index: usize, mut held: Held<'s, R>) -> State<'s, R> {
        if self.pool.bounds.mode == Mode::TakeOver {
            return match advance(held) {
                Advance::Job { ticket, job } => State::Run(index, Grip::Ticket(ticket), job),
                Advance::Pause(held, patience) => State::Poll(index, held, patience),
                Advance::Stopped => self.stopped(index),
            };
        }
        match held.step() {
            Step::Run(job) => State::Run(index, Grip::Held(held), job),
            Step::Pause(patience) => State::Poll(index, held, patience),
            Step::Stopped => {
                held.retire();
                self.stopped(index)
            }
        }
    }

    fn stopped<'s>(&'s self, index: usize) -> State<'s, R> {
        self.note_stopped(index);
        State::Serve { first: 0 }
    }

    fn look_for_work<'s>(
        &'s self,
        seat: &Arc<Seat<Order>>,
        first: usize,
        now: Time,
    ) -> State<'s, R> {
        if self.pool.quits() {
            return State::Gone;
        }
        if let Some(work) = self.pool.find_work(first) {
            return State::RunFound(work.home, work.job, work.permit);
        }
        match self.pool.sit_down(seat) {
            Some(rank) => State::Wait { leaves: rank >= self.pool.bounds.standbys, since: now },
            None => State::Serve { first },
        }
    }

    /// As `Pool::rest` ends for a thread that nobody has called for a long time.
    fn give_up_waiting<'s>(
        &'s self,
        seat: &Arc<Seat<Order>>,
        leaves: bool,
        since: Time,
        now: Time,
    ) -> State<'s, R> {
        if !leaves || now < since + IDLE_MAX {
            return State::Wait { leaves, since };
        }
        if self.pool.idle.withdraw_beyond(seat, self.pool.bounds.standbys) {
            return State::Gone;
        }
        State::Wait { leaves: false, since }
    }
}

impl<R: Leased> fmt::Debug for Driver<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = (0..self.threads.len()).map(|thread| self.at(thread, Time::ZERO));
        f.debug_list().entries(places).finish()
    }
}
