//! `Pool`: all that the threads of one scheduler share, save the reactors themselves.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::time::Duration;

use super::idle::{Idle, Order, Seat};
use super::queue::{Local, Queues};
use super::sentinel::{Pulse, Watch};
use super::stats::Stats;
use super::{Mode, SchedConfig};
use crate::words::sync::Arc;
use crate::words::sync::atomic::{AtomicBool, AtomicUsize, fence};

/// What the threads share; it knows jobs, not reactors.
pub(super) struct Pool<J> {
    pub(super) bounds: Bounds,
    pub(super) queues: Queues<J>,
    pub(super) idle: Idle,
    /// One per reactor.
    pub(super) pulses: Vec<Pulse>,
    pub(super) watch: Watch,
    pub(super) stats: Arc<Stats>,
    /// Threads that run a job of the slow lane; never more than `bounds.slow_max`.
    slow_running: AtomicUsize,
    quit: AtomicBool,
}

/// How many threads there may be, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) mode: Mode,
    /// Threads that stay although they are idle.
    pub(super) standbys: usize,
    /// One per reactor, plus the workers.
    pub(super) threads_max: usize,
    /// Threads that may run jobs of the slow lane at once.
    pub(super) slow_max: usize,
}

/// A job that a pool thread has found, to be run and posted home.
pub(crate) struct Work<'p, J> {
    /// The reactor whose connection it belongs to.
    pub(crate) home: usize,
    /// The job itself.
    pub(crate) job: J,
    /// To be kept until the job is done, if it came from the slow lane.
    pub(crate) permit: Option<SlowPermit<'p>>,
}

/// One of the threads that may be in the slow lane at once.
pub(crate) struct SlowPermit<'p>(&'p AtomicUsize);

/// Why a thread no longer rests.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// It was called.
    Called(Order),
    /// Something came up before it sat down.
    Again,
    /// Nobody has needed it for [`IDLE_MAX`], and there are others.
    Leave,
}

/// How long a thread beyond the standbys stays without being called.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(10);

impl Bounds {
    /// What `config` amounts to. Nobody but the reactors' threads is there if it has no workers,
    /// or if nothing is ever to leave these threads.
    pub(super) fn new(config: &SchedConfig) -> Self {
        let (standbys, workers_max) = match (config.mode, config.workers) {
            (Mode::Inline, _) | (_, 0) => (0, 0),
            // Without the sentinel nobody makes threads grow: the pool keeps its size.
            (Mode::HandOff, workers) => (workers, workers),
            (Mode::TakeOver, workers) => (workers, workers.max(config.workers_max)),
        };
        let slow_max = match config.mode {
            Mode::HandOff => workers_max,
            // As many as there are reactors keep out of the slow lane, to pick one up.
            Mode::TakeOver | Mode::Inline => {
                workers_max.saturating_sub(config.reactors).max(workers_max.min(1))
            }
        };
        // Without anybody to take over, laying down would only cost.
        let mode = if workers_max == 0 { Mode::Inline } else { config.mode };
        Bounds { mode, standbys, threads_max: config.reactors + workers_max, slow_max }
    }
}

impl<J> Pool<J> {
    /// A pool without threads, and the reactors' own ends of its deques.
    pub(super) fn new(config: &SchedConfig) -> (Self, Vec<Local<J>>) {
        let (queues, locals) = Queues::new(config.reactors);
        let pool = Pool {
            bounds: Bounds::new(config),
            queues,
            idle: Idle::new(),
            pulses: (0..config.reactors).map(|_| Pulse::new()).collect(),
            watch: Watch::new(),
            stats: Arc::default(),
            slow_running: AtomicUsize::new(0),
            quit: AtomicBool::new(false),
        };
        (pool, locals)
    }

    /// Puts a job into the slow lane, or gives it back if nobody serves that. `true`: somebody was
    /// called to run it.
    pub(super) fn offload(&self, home: usize, job: J) -> Result<bool, J> {
        if self.bounds.slow_max == 0 {
            return Err(job);
        }
        self.queues.push_slow(home, job);
        self.stats.offloads.add();
        // Pairs with the fences in `rest` and `Idle::begin_search`: either we see that the thread
        // is idle, or it sees the job.
        if !cfg!(switchboard_mutant = "pool_fence") {
            fence(SeqCst);
        }
        Ok(self.idle.call_searcher())
    }

    /// The same for somebody who turns no reactor. If no thread is free, the sentinel has to start
    /// one, and it may sleep, since all reactors may.
    pub(super) fn offload_from_outside(&self, home: usize, job: J) -> Result<(), J> {
        if !self.offload(home, job)? {
            // Behind the fence in `offload`.
            self.watch.rouse();
        }
        Ok(())
    }

    /// Announces a deep sleep of the sentinel. `false`: somebody needs it after all.
    pub(super) fn sink_sentinel(&self) -> bool {
        if !self.watch.sink(&self.pulses) {
            return false;
        }
        // Behind the fence in `sink`, which pairs with that in `offload`: either we see the job, or
        // whoever brings it sees that the sentinel is deep.
        let waits = self.slow_work_waits() && !cfg!(switchboard_mutant = "sink_unchecked");
        if waits {
            self.watch.rise();
        }
        !waits
    }

    /// Finds a job for a thread that holds no reactor: the slow lane first, for nobody else serves
    /// it; then what heavy reactors have read ahead, beginning with reactor `first`.
    pub(crate) fn find_work(&self, first: usize) -> Option<Work<'_, J>> {
        if let Some(work) = self.find_slow_work() {
            // Whoever finds one job calls the next thread if there is more to find.
            if self.slow_work_waits() {
                self.idle.call_searcher();
            }
            return Some(work);
        }
        let (home, job) = self.queues.steal(first)?;
        self.stats.steals.add();
        Some(Work { home, job, permit: None })
    }

    /// Whether the slow lane has a job that one more thread might run.
    pub(super) fn slow_work_waits(&self) -> bool {
        if self.queues.slow_is_empty() {
            return false;
        }
        // Relaxed: if we see all permits taken, their holders look once more before they rest, with
        // a fence between: they see the job, or its `offload` sees them.
        self.slow_running.load(Relaxed) < self.bounds.slow_max
    }

    /// Waits in `seat` until called; standbys for ever, others for [`IDLE_MAX`].
    pub(super) fn rest(&self, seat: &Arc<Seat<Order>>) -> Rest {
        let Some(rank) = self.sit_down(seat) else { return Rest::Again };
        if rank >= self.bounds.standbys {
            if let Some(order) = seat.wait_for(IDLE_MAX) {
                return Rest::Called(order);
            }
            if self.idle.withdraw_beyond(seat, self.bounds.standbys) {
                return Rest::Leave;
            }
            // The others have left, or an order is on the way.
        }
        Rest::Called(seat.wait())
    }

    /// Joins the idle threads, as the one of this rank; `None` if something has come up.
    pub(super) fn sit_down(&self, seat: &Arc<Seat<Order>>) -> Option<usize> {
        let rank = self.idle.announce(seat);
        // Pairs with the fences in `offload` and `tell_to_quit`: either they see us in the list,
        // or we see what they have done.
        if !cfg!(switchboard_mutant = "pool_fence") {
            fence(SeqCst);
        }
        let wanted = self.slow_work_waits() || self.quits();
        if wanted && !cfg!(switchboard_mutant = "idle_unchecked") && self.idle.withdraw(seat) {
            return None;
        }
        Some(rank)
    }

    /// Makes every thread end that comes to rest, or rests already.
    pub(super) fn tell_to_quit(&self) {
        // Release: pairs with the load in `quits`; the fence pairs with that in `rest`.
        self.quit.store(true, Release);
        fence(SeqCst);
        while self.idle.call(Order::Quit) {}
    }

    /// Whether threads are to end.
    pub(super) fn quits(&self) -> bool {
        // Acquire: pairs with the store in `tell_to_quit`.
        self.quit.load(Acquire)
    }

    fn find_slow_work(&self) -> Option<Work<'_, J>> {
        while self.slow_work_waits() {
            let permit = self.takepermit()?;
            if let Some((home, job)) = self.queues.steal_slow() {
                return Some(Work { home, job, permit: Some(permit) });
            }
            // Somebody may have seen a job but no permit, because we had it: so look again.
            drop(permit);
        }
        None
    }

    fn takepermit(&self) -> Option<SlowPermit<'_>> {
        let more = |running| (running < self.bounds.slow_max).then_some(running + 1);
        // Relaxed: a count; see `slow_work_waits`.
        let taken = self.slow_running.fetch_update(Relaxed, Relaxed, more);
        taken.ok().map(|_| SlowPermit(&self.slow_running))
    }
}

impl Drop for SlowPermit<'_> {
    fn drop(&mut self) {
        // Relaxed: the fence orders it before the look at the slow lane that follows, sooner than
        // the one in `rest` would: a thread may steal something long before it rests.
        self.0.fetch_sub(1, Relaxed);
        fence(SeqCst);
    }
}
