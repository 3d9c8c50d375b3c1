//! `Scheduler` and `Running`: the threads of a scheduler, from their start to their end.

use std::io;
use std::mem;
use std::time::Duration;

use super::idle::{Order, Seat};
use super::lease::Ticket;
use super::pool::Pool;
use super::sentinel::Sentinel;
use super::stats::{Stats, StatsSnapshot};
use super::worker::Shared;
use super::{Leased, Mode, Port, SchedConfig, SideDoor};
use crate::words::clock::Clock;
use crate::words::sync::thread::{Builder, JoinHandle};
use crate::words::sync::{Arc, Condvar, Mutex, lock, wait_timeout};

/// A scheduler whose reactors are still being made.
pub(crate) struct Scheduler<R: Leased> {
    config: SchedConfig,
    desks: Vec<Arc<R::Desk>>,
    pool: Arc<Pool<R::Job>>,
}

/// A scheduler at work.
pub(crate) struct Running<R: Leased> {
    crew: Arc<Crew<R>>,
    sentinel: Option<JoinHandle<()>>,
}

/// What is left of a scheduler.
pub(crate) struct Joined<R: Leased> {
    /// The reactors that have stopped, in their order.
    pub(crate) reactors: Vec<R>,
    /// Threads that were left behind in user code.
    pub(crate) stuck: usize,
    /// Jobs of the slow lane that nobody has run, with the index of the reactor they belong to.
    pub(crate) unserved: Vec<(usize, R::Job)>,
    /// The last state of the counters.
    pub(crate) stats: StatsSnapshot,
}

/// The threads, and what they share.
struct Crew<R: Leased> {
    shared: Shared<R>,
    roster: Mutex<Roster>,
    somebody_left: Condvar,
    name: String,
}

/// Who is there.
#[derive(Default)]
struct Roster {
    alive: Vec<Member>,
    /// Those who have nothing left to do but to end.
    leaving: Vec<JoinHandle<()>>,
    next_id: u64,
    next_worker: u64,
    /// Threads that were started and have not begun.
    starting: usize,
    /// Refuses to start any further thread.
    #[cfg(test)]
    spawn_max: Option<u64>,
}

struct Member {
    id: u64,
    thread: JoinHandle<()>,
}

impl<R: Leased> Scheduler<R> {
    pub(super) fn new(config: SchedConfig, desks: Vec<Arc<R::Desk>>) -> (Self, Vec<Port<R::Job>>) {
        assert_eq!(config.reactors, desks.len(), "one desk for each reactor");
        let (pool, locals) = Pool::new(&config);
        let pool = Arc::new(pool);
        let port = |(index, local)| Port::new(index, local, Arc::clone(&pool));
        let ports = locals.into_iter().enumerate().map(port).collect();
        (Scheduler { config, desks, pool }, ports)
    }

    /// Starts all threads. `reactors` are in the order of the desks and ports.
    ///
    /// # Errors
    /// The system refuses a thread; those that were started have ended again.
    pub(crate) fn start(self, reactors: Vec<R>) -> io::Result<Running<R>> {
        self.launch(reactors, Roster::default())
    }

    /// Like `start`, on a system that refuses all threads but the first `spawn_max`.
    #[cfg(test)]
    pub(super) fn start_with(self, reactors: Vec<R>, spawn_max: u64) -> io::Result<Running<R>> {
        self.launch(reactors, Roster { spawn_max: Some(spawn_max), ..Roster::default() })
    }

    /// The counters, for as long as anybody wants to read them.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.pool.stats)
    }

    /// The way into the slow lane, for as long as anybody wants to use it.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn side_door(&self) -> SideDoor<R::Job> {
        SideDoor::new(Arc::clone(&self.pool))
    }

    /// What the threads share, for a driver that plays them.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn into_shared(self, reactors: Vec<R>) -> Shared<R> {
        let reactors = reactors.into_iter().map(Box::new).collect();
        Shared::new(reactors, self.desks, self.pool)
    }

    fn launch(self, reactors: Vec<R>, roster: Roster) -> io::Result<Running<R>> {
        assert_eq!(self.config.reactors, reactors.len(), "one reactor for each desk");
        let bounds = self.pool.bounds;
        let reactors = reactors.into_iter().map(Box::new).collect();
        let crew = Arc::new(Crew {
            shared: Shared::new(reactors, self.desks, self.pool),
            roster: Mutex::new(roster),
            somebody_left: Condvar::new(),
            name: self.config.name,
        });
        // Nobody gets an order before all are there, so that this can still be undone.
        let mut seats = Vec::new();
        let started = crew.launch(&mut seats, self.config.reactors, bounds.standbys);
        let sentinel = started.and_then(|()| match bounds.mode {
            Mode::TakeOver => crew.start_sentinel().map(Some),
            Mode::HandOff | Mode::Inline => Ok(None),
        });
        let sentinel = match sentinel {
            Ok(sentinel) => sentinel,
            Err(error) => {
                crew.shared.pool.tell_to_quit();
                seats.iter().for_each(|seat| seat.put(Order::Quit));
                crew.join_all();
                return Err(error);
            }
        };
        for (index, seat) in seats.iter().enumerate() {
            let turn = Order::PickUp(index, Ticket::FIRST);
            seat.put(if index < self.config.reactors { turn } else { Order::Work });
        }
        Ok(Running { crew, sentinel })
    }
}

impl<R: Leased> Running<R> {
    /// The counters, for as long as anybody wants to read them.
    pub(crate) fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.crew.shared.pool.stats)
    }

    /// The way into the slow lane, for as long as anybody wants to use it. After
    /// [`Running::join`] nobody runs what is put there.
    pub(crate) fn side_door(&self) -> SideDoor<R::Job> {
        SideDoor::new(Arc::clone(&self.crew.shared.pool))
    }

    /// Waits until every reactor has stopped, for `patience` at the longest, and then ends all
    /// threads. Those that are still in user code after `grace` are left behind, and a reactor that
    /// one of them holds with it.
    pub(crate) fn join(mut self, patience: Duration, grace: Duration) -> Joined<R> {
        let crew = Arc::clone(&self.crew);
        let (shared, pool) = (&crew.shared, &crew.shared.pool);
        shared.wait_stopped_within(patience);
        self.end_sentinel();
        pool.tell_to_quit();
        let stuck = crew.join_within(grace);
        let unserved = std::iter::from_fn(|| pool.queues.steal_slow()).collect();
        let reactors = shared.slots.iter().filter_map(|slot| slot.take_retired().map(|r| *r));
        Joined { reactors: reactors.collect(), stuck, unserved, stats: pool.stats.snapshot() }
    }

    fn end_sentinel(&mut self) {
        if let Some(sentinel) = self.sentinel.take() {
            self.crew.shared.pool.watch.dismiss();
            reap(sentinel);
        }
    }
}

impl<R: Leased> Crew<R> {
    fn launch(
        self: &Arc<Self>,
        seats: &mut Vec<Arc<Seat<Order>>>,
        reactors: usize,
        workers: usize,
    ) -> io::Result<()> {
        for index in 0..reactors {
            seats.push(self.start_thread(Some(index))?);
        }
        for _ in 0..workers {
            seats.push(self.start_thread(None)?);
        }
        Ok(())
    }

    /// Starts a thread, which waits in its seat for its first order.
    fn start_thread(self: &Arc<Self>, reactor: Option<usize>) -> io::Result<Arc<Seat<Order>>> {
        let mut roster = lock(&self.roster);
        roster.leaving.drain(..).for_each(reap);
        let name = match reactor {
            Some(index) => format!("{}-reactor-{index}", self.name),
            None => format!("{}-worker-{}", self.name, roster.next_worker),
        };
        let id = roster.next_id;
        #[cfg(test)]
        if roster.spawn_max.is_some_and(|max| id >= max) {
            return Err(io::Error::other("planted"));
        }
        let seat = Arc::new(Seat::new());
        let (crew, its_seat) = (Arc::clone(self), Arc::clone(&seat));
        let life = move || {
            crew.shared.live(&its_seat, || lock(&crew.roster).starting -= 1);
            crew.leave(id);
        };
        let thread = Builder::new().name(name).spawn(life)?;
        roster.alive.push(Member { id, thread });
        roster.next_id += 1;
        roster.next_worker += u64::from(reactor.is_none());
        roster.starting += 1;
        self.shared.pool.stats.spawned.add();
        self.shared.pool.stats.threads.add();
        Ok(seat)
    }

    fn start_sentinel(self: &Arc<Self>) -> io::Result<JoinHandle<()>> {
        let crew = Arc::clone(self);
        let watch = move || {
            let (clock, shared) = (Clock::start(), &crew.shared);
            let mut sentinel = Sentinel::new(shared.slots.len());
            loop {
                let call = |order| crew.send(order);
                let nap = sentinel.sample(clock.now(), &shared.slots, &shared.pool, call);
                if !shared.pool.watch.sleep(nap) {
                    return;
                }
            }
        };
        Builder::new().name(format!("{}-sentinel", self.name)).spawn(watch)
    }

    /// Sends an idle thread with an order, or a new one if none is idle and there may be more.
    fn send(self: &Arc<Self>, order: Order) -> bool {
        let pool = &self.shared.pool;
        let called = match order {
            Order::Work => pool.idle.call_searcher(),
            Order::PickUp(..) | Order::Quit => pool.idle.call(order),
        };
        if called {
            return true;
        }
        {
            let roster = lock(&self.roster);
            if roster.starting > 0 || roster.alive.len() >= pool.bounds.threads_max {
                return false;
            }
        }
        match self.start_thread(None) {
            Ok(seat) => {
                seat.put(order);
                true
            }
            Err(_) => {
                // The next sample tries again.
                pool.stats.spawn_failures.add();
                false
            }
        }
    }

    /// The last thing that a thread does.
    fn leave(&self, id: u64) {
        let mut roster = lock(&self.roster);
        self.shared.pool.stats.threads.sub();
        if let Some(at) = roster.alive.iter().position(|member| member.id == id) {
            let member = roster.alive.swap_remove(at);
            roster.leaving.push(member.thread);
        }
        drop(roster);
        self.somebody_left.notify_all();
    }

    /// Waits until all threads have ended, but for `grace` at the longest; then counts the others
    /// and forgets them.
    fn join_within(&self, grace: Duration) -> usize {
        let clock = Clock::start();
        let deadline = clock.now() + grace;
        let mut roster = lock(&self.roster);
        loop {
            let left = deadline.since(clock.now());
            if roster.alive.is_empty() || left.is_zero() {
                break;
            }
            roster = wait_timeout(&self.somebody_left, roster, left);
        }
        let leaving = mem::take(&mut roster.leaving);
        let stuck = mem::take(&mut roster.alive).len();
        drop(roster);
        leaving.into_iter().for_each(reap);
        stuck
    }

    fn join_all(&self) {
        let mut roster = lock(&self.roster);
        let alive = mem::take(&mut roster.alive);
        let leaving = mem::take(&mut roster.leaving);
        drop(roster);
        alive.into_iter().map(|member| member.thread).chain(leaving).for_each(reap);
    }
}

/// Waits for the end of a thread that is about to end.
fn reap(thread: JoinHandle<()>) {
    // A panic was counted and reported where it happened.
    drop(thread.join());
}
