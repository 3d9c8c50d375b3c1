//! `Sentinel`: samples the tickets, sends help to reactors that lie too long, tells the heavy ones.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::time::Duration;

use super::idle::{Order, Seat};
use super::lease::{Sample, Slot, Ticket};
use super::pool::Pool;
use crate::words::clock::Time;
use crate::words::sync::atomic::{AtomicBool, AtomicU64, fence};

/// What a reactor tells the sentinel, and the other way round.
#[repr(align(128))] // Two cache lines: neighbours turn on other cores.
pub(super) struct Pulse {
    /// Counts the beginnings and the ends of blocking polls: odd means asleep in one.
    beat: AtomicU64,
    /// The reactor has more to do than one thread can, in jobs that are worth sharing.
    heavy: AtomicBool,
}

/// Where the sentinel sleeps when there is nothing to watch.
///
/// It meets the reactors in a Dekker pair; at least one side sees what the other has written:
///
/// ```text
/// reactor, after a blocking poll:  beat = even; fence; is it deep?         -> un-park it
/// anybody, with a free job:        job put;     fence; is it deep?         -> un-park it
/// sentinel, all being quiet:       deep = true; fence; is a beat even?     -> stay awake
///                                               or does a job wait?        -> stay awake
/// ```
pub(super) struct Watch {
    deep: AtomicBool,
    quit: AtomicBool,
    bell: Seat<()>,
}

/// The watcher: reads tickets and hands them out, never holds a reactor. What it sees may be old
/// news, and an order may come late or twice: `Slot::pick_up` decides.
#[derive(Debug)]
pub(super) struct Sentinel {
    eyes: Vec<Eye>,
    sampled_at: Time,
    /// Samples in a row that saw nothing move.
    quiet_count: u32,
    nap: Duration,
    /// Samples until it stops to expect more of what it had to step in for.
    alert: u32,
    slow_work_waited: bool,
}

/// What to do until the next sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nap {
    /// Sleep so long.
    For(Duration),
    /// Sleep until a reactor wakes up: all of them are asleep.
    Deep,
}

/// What the sentinel remembers of one reactor.
#[derive(Debug)]
struct Eye {
    word: Sample,
    beat: u64,
    /// The last ticket that somebody was sent to pick up.
    ordered: Option<Ticket>,
    heavy_count: u32,
}

/// What one look at a reactor has shown.
struct Look {
    /// It lies under the same ticket as the last time.
    overdue: bool,
    suspicious: bool,
    quiet: bool,
}

const NAP_MIN: Duration = Duration::from_micros(250);
const NAP_MAX: Duration = Duration::from_millis(1);
/// The same while no handler has been slow for [`ALERT`] samples. Each sample takes a core from
/// somebody: with naps of 1 ms, ping-pong between 64 connections on two busy cores lost 12 %
/// against no sentinel at all, with these 5 %.
const NAP_CALM: Duration = Duration::from_millis(4);
/// How many samples it stays alert after a reactor was overdue: 50 ms at least.
const ALERT: u32 = 200;
/// Quiet samples before the sentinel sleeps deep.
const QUIET_MIN: u32 = 16;
/// By how many the looks that met a reactor in user code exceed the others before it counts as
/// heavy.
const HEAVY_MIN: u32 = 2;
/// ... and at which no more are counted, so that it is soon over.
const HEAVY_MAX: u32 = 4;
/// A job that takes longer than this on the average is worth sharing.
const HEAVY_JOB: Duration = Duration::from_micros(25);

impl Sentinel {
    /// A sentinel for `reactors` reactors that has seen nothing yet.
    pub(super) fn new(reactors: usize) -> Self {
        let eyes = (0..reactors).map(|_| Eye::new()).collect();
        let sampled_at = Time::ZERO;
        let (nap, alert) = (NAP_MIN, ALERT);
        Sentinel { eyes, sampled_at, quiet_count: 0, nap, alert, slow_work_waited: false }
    }

    /// Looks at every reactor once; `now` is the present moment. `call` sends somebody with an
    /// order, and says whether there was somebody to send.
    pub(super) fn sample<R, J>(
        &mut self,
        now: Time,
        slots: &[Slot<R>],
        pool: &Pool<J>,
        mut call: impl FnMut(Order) -> bool,
    ) -> Nap {
        pool.watch.rise();
        pool.stats.samples.add();
        let elapsed = now.since(self.sampled_at);
        self.sampled_at = now;
        let (mut overdue, mut suspicious, mut quiet) = (false, false, true);
        for (index, eye) in self.eyes.iter_mut().enumerate() {
            let word = slots[index].sample();
            let pulse = &pool.pulses[index];
            let send = |ticket| call(Order::PickUp(index, ticket));
            let look = eye.look(word, pulse, elapsed, send);
            overdue |= look.overdue;
            suspicious |= look.suspicious;
            quiet &= look.quiet;
        }
        let waits = pool.slow_work_waits();
        // Seen twice, like a ticket: a job that waits was perhaps only just put there.
        if waits && self.slow_work_waited && !pool.idle.is_searching() {
            call(Order::Work);
        }
        self.slow_work_waited = waits;
        self.alert = if overdue || waits { ALERT } else { self.alert.saturating_sub(1) };
        self.next_nap(suspicious || waits, quiet && !waits, pool)
    }

    /// A reactor that lies under a new ticket is nothing special: every look meets one now and
    /// then. Only an alert sentinel comes back early for it.
    fn next_nap<J>(&mut self, suspicious: bool, quiet: bool, pool: &Pool<J>) -> Nap {
        self.nap = match (self.alert > 0, suspicious) {
            (true, true) => NAP_MIN,
            (true, false) => NAP_MAX.min(self.nap * 2),
            (false, _) => NAP_CALM.min(self.nap * 2),
        };
        self.quiet_count = if quiet { self.quiet_count + 1 } else { 0 };
        if self.quiet_count < QUIET_MIN || !pool.sink_sentinel() {
            return Nap::For(self.nap);
        }
        self.quiet_count = 0;
        self.nap = NAP_MIN;
        Nap::Deep
    }
}

impl Eye {
    fn new() -> Self {
        // As if asleep: the first look compares with nothing, and must not count as heavy.
        let (word, beat) = (Sample::NONE, 1);
        Eye { word, beat, ordered: None, heavy_count: 0 }
    }

    fn look(
        &mut self,
        word: Sample,
        pulse: &Pulse,
        elapsed: Duration,
        mut send: impl FnMut(Ticket) -> bool,
    ) -> Look {
        let beat = pulse.beat();
        let mut overdue = false;
        // A reactor that was never held yet has its thread coming.
        let ticket = word.ticket().filter(|&ticket| ticket != Ticket::FIRST);
        if let Some(ticket) = ticket {
            // Two strikes: a ticket seen once may belong to a job that has just begun.
            overdue = word == self.word && !cfg!(switchboard_sim_mutant = "sentinel_blind");
            if overdue && self.ordered != Some(ticket) && send(ticket) {
                self.ordered = Some(ticket);
            }
        }
        let jobs = u32::try_from(word.jobs_since(self.word)).unwrap_or(u32::MAX);
        // Not whether it ever polled in between: a poll that returns at once is no sleep.
        let awake = !is_asleep(beat) && !is_asleep(self.beat);
        let slow = HEAVY_JOB.saturating_mul(jobs) < elapsed;
        // Few jobs alone prove nothing: reading and writing much takes its time too, and that is
        // not to be shared. Where the time goes shows in where the looks meet the reactor.
        self.heavy_count = match (awake && slow, ticket.is_some()) {
            (false, _) => 0,
            (true, true) => HEAVY_MAX.min(self.heavy_count + 1),
            (true, false) => self.heavy_count.saturating_sub(1),
        };
        pulse.mark(self.heavy_count >= HEAVY_MIN);
        let rests = is_asleep(beat) && beat == self.beat;
        let look = Look { overdue, suspicious: ticket.is_some(), quiet: ticket.is_none() && rests };
        self.word = word;
        self.beat = beat;
        look
    }
}

impl Pulse {
    /// The pulse of a reactor that is awake.
    pub(super) fn new() -> Self {
        Pulse { beat: AtomicU64::new(0), heavy: AtomicBool::new(false) }
    }

    /// Whether jobs should be shared.
    pub(super) fn is_heavy(&self) -> bool {
        // Relaxed: a hint.
        self.heavy.load(Relaxed)
    }

    /// The holder is about to block in its poll.
    pub(super) fn fall_asleep(&self) {
        // Release: pairs with the load in `beat`; who sees us asleep sees what we did before.
        // Only the holder writes, so that no read-modify-write is needed.
        self.beat.store(self.beat.load(Relaxed) | 1, Release);
    }

    /// The holder's blocking poll is over.
    pub(super) fn wake_up(&self, watch: &Watch) {
        let beat = self.beat.load(Relaxed);
        // Relaxed: the fence orders it before the look at `deep`, and pairs with `Watch::sink`.
        self.beat.store(beat + (beat & 1), Relaxed);
        if !cfg!(switchboard_mutant = "sentinel_fence") {
            fence(SeqCst);
        }
        watch.rouse();
    }

    fn beat(&self) -> u64 {
        // Acquire: pairs with the store in `fall_asleep`.
        self.beat.load(Acquire)
    }

    fn mark(&self, heavy: bool) {
        // The load spares the holder's line a write for each sample.
        if self.is_heavy() != heavy {
            self.heavy.store(heavy, Relaxed);
        }
    }
}

impl Watch {
    /// A sentinel that is awake.
    pub(super) fn new() -> Self {
        Watch { deep: AtomicBool::new(false), quit: AtomicBool::new(false), bell: Seat::new() }
    }

    /// Sleeps until `nap` is over, or somebody rings. `false`: the sentinel is to end.
    pub(super) fn sleep(&self, nap: Nap) -> bool {
        match nap {
            Nap::For(nap) => {
                self.bell.wait_for(nap);
            }
            Nap::Deep => self.bell.wait(),
        }
        // Acquire: pairs with `dismiss`.
        !self.quit.load(Acquire)
    }

    /// Whether somebody has rung since the last time; for a sentinel that does not sleep here.
    #[cfg(all(any(test, feature = "sim"), not(loom)))]
    pub(super) fn was_rung(&self) -> bool {
        self.bell.take().is_some()
    }

    /// Makes the sentinel end.
    pub(super) fn dismiss(&self) {
        // Release: pairs with `sleep`.
        self.quit.store(true, Release);
        self.bell.put(());
    }

    /// Un-parks the sentinel if it sleeps deep; a load if it does not. The caller owes a fence.
    pub(super) fn rouse(&self) {
        // Relaxed, both: ordered by the caller's fence; the swap elects the one who rings.
        if self.deep.load(Relaxed) && self.deep.swap(false, Relaxed) {
            self.bell.put(());
        }
    }

    /// Ends a deep sleep from the sentinel's side.
    pub(super) fn rise(&self) {
        self.deep.store(false, Relaxed);
    }

    /// Announces a deep sleep. `false`: a reactor is awake after all.
    pub(super) fn sink(&self, pulses: &[Pulse]) -> bool {
        // Relaxed: the fence orders it before the look at the beats, and pairs with `wake_up`.
        self.deep.store(true, Relaxed);
        if !cfg!(switchboard_mutant = "sentinel_fence") {
            fence(SeqCst);
        }
        let all_asleep = pulses.iter().all(|pulse| is_asleep(pulse.beat()));
        if !all_asleep {
            self.rise();
        }
        all_asleep
    }
}

fn is_asleep(beat: u64) -> bool {
    beat % 2 == 1
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::{Mode, SchedConfig};
    use super::*;
    use crate::words::sync::Arc;

    /// One reactor, held by a thread, and a sentinel that looks at it.
    struct Scene {
        slots: Arc<[Slot<()>]>,
        pool: Arc<Pool<()>>,
        sentinel: Sentinel,
        now: Time,
        standbys: usize,
        orders: Vec<Order>,
    }

    impl Scene {
        fn new() -> Scene {
            let (name, mode) = (String::new(), Mode::TakeOver);
            let config = SchedConfig { reactors: 1, workers: 1, workers_max: 1, mode, name };
            Scene {
                slots: Arc::new([Slot::new(Box::new(()))]),
                pool: Arc::new(Pool::new(&config).0),
                sentinel: Sentinel::new(1),
                now: Time::ZERO,
                standbys: 1,
                orders: Vec::new(),
            }
        }

        fn sample_after(&mut self, nap: Duration) -> Nap {
            self.now = self.now + nap;
            let (standbys, orders) = (self.standbys, &mut self.orders);
            self.sentinel.sample(self.now, &self.slots, &self.pool, |order| {
                if standbys > 0 {
                    orders.push(order);
                }
                standbys > 0
            })
        }

        fn sample(&mut self) -> Nap {
            self.sample_after(NAP_MIN)
        }

        /// Runs `count` jobs, and leaves the reactor lying as if in the next one.
        fn jobs(&mut self, count: usize) -> Ticket {
            let mut ticket = self.slots[0].sample().ticket().expect("it lies there");
            for _ in 0..count {
                ticket = self.slots[0].pick_up(ticket).expect("it lies there").lay_down();
            }
            ticket
        }
    }

    #[test]
    fn two_strikes_and_one_order() {
        let mut scene = Scene::new();
        let ticket = scene.jobs(1);
        assert_eq!(scene.sample(), Nap::For(NAP_MIN));
        assert_eq!(scene.orders, [], "seen once");
        (0..5).for_each(|_| assert_eq!(scene.sample(), Nap::For(NAP_MIN)));
        assert_eq!(scene.orders, [Order::PickUp(0, ticket)]);
        let next = scene.jobs(1);
        scene.sample();
        scene.sample();
        assert_eq!(scene.orders.len(), 2);
        assert_eq!(scene.orders[1], Order::PickUp(0, next));
    }

    #[test]
    fn an_order_that_nobody_took_is_repeated() {
        let mut scene = Scene::new();
        scene.standbys = 0;
        scene.jobs(1);
        (0..3).for_each(|_| _ = scene.sample());
        scene.standbys = 1;
        scene.sample();
        assert_eq!(scene.orders.len(), 1);
    }

    #[test]
    fn a_reactor_that_was_never_held_is_left_alone() {
        let mut scene = Scene::new();
        (0..9).for_each(|_| _ = scene.sample());
        assert_eq!(scene.orders, []);
    }

    #[test]
    fn naps_grow_longer_still_until_the_first_slow_handler() {
        let mut scene = Scene::new();
        let slots = Arc::clone(&scene.slots);
        let ticket = scene.jobs(1);
        scene.sample();
        let held = slots[0].pick_up(ticket).unwrap();
        (0..=ALERT).for_each(|_| assert_ne!(scene.sample(), Nap::For(NAP_MIN)));
        assert_eq!(scene.sample(), Nap::For(NAP_CALM));
        let ticket = held.lay_down();
        assert_eq!(scene.sample(), Nap::For(NAP_CALM), "seen once");
        assert_eq!(scene.sample(), Nap::For(NAP_MIN));
        assert_eq!(scene.orders, [Order::PickUp(0, ticket)]);
    }

    #[test]
    fn calm_naps_grow_and_quiet_ones_end_deep() {
        let mut scene = Scene::new();
        let (slots, pool) = (Arc::clone(&scene.slots), Arc::clone(&scene.pool));
        let ticket = scene.jobs(1);
        scene.sample();
        let held = slots[0].pick_up(ticket).unwrap();
        assert_eq!(scene.sample(), Nap::For(NAP_MIN * 2));
        assert_eq!(scene.sample(), Nap::For(NAP_MAX));
        assert_eq!(scene.sample(), Nap::For(NAP_MAX), "awake, so never deep");
        pool.pulses[0].fall_asleep();
        let naps: Vec<_> = (0..=QUIET_MIN).map(|_| scene.sample()).collect();
        let (last, others) = naps.split_last().unwrap();
        assert!(others.iter().all(|&nap| nap == Nap::For(NAP_MAX)));
        assert_eq!(*last, Nap::Deep);
        pool.pulses[0].wake_up(&pool.watch);
        assert!(pool.watch.sleep(Nap::Deep), "somebody has rung");
        for _ in 0..=2 * QUIET_MIN {
            pool.pulses[0].fall_asleep();
            assert_ne!(scene.sample(), Nap::Deep, "it slept, but not all the time");
            pool.pulses[0].wake_up(&pool.watch);
        }
        drop(held);
        assert_eq!(scene.orders, []);
    }

    #[test]
    fn heavy_is_slow_and_never_asleep() {
        let mut scene = Scene::new();
        let heavy = |scene: &Scene| scene.pool.pulses[0].is_heavy();
        scene.sample();
        scene.jobs(3);
        scene.sample();
        assert!(!heavy(&scene), "once is not enough");
        scene.jobs(3);
        scene.sample();
        assert!(heavy(&scene), "3 jobs in 250 µs, twice");
        scene.jobs(30);
        scene.sample();
        assert!(!heavy(&scene), "it is quick again");
        for _ in 0..3 {
            scene.jobs(3);
            scene.sample();
        }
        assert!(heavy(&scene));
        scene.pool.pulses[0].fall_asleep();
        scene.sample();
        assert!(!heavy(&scene), "it sleeps");
    }

    #[test]
    fn a_job_from_outside_wakes_a_sentinel_that_sleeps_deep() {
        let mut scene = Scene::new();
        let (slots, pool) = (Arc::clone(&scene.slots), Arc::clone(&scene.pool));
        let _held = slots[0].pick_up(Ticket::FIRST).unwrap();
        pool.pulses[0].fall_asleep();
        while scene.sample() != Nap::Deep {}
        assert!(pool.offload_from_outside(0, ()).is_ok());
        assert!(pool.watch.sleep(Nap::Deep), "somebody has rung");
        (0..2).for_each(|_| assert_ne!(scene.sample(), Nap::Deep));
        assert_eq!(scene.orders, [Order::Work]);
        assert!(pool.find_work(0).is_some());
    }

    #[test]
    fn slow_work_that_waits_calls_somebody() {
        let mut scene = Scene::new();
        assert!(scene.pool.offload(0, ()).is_ok());
        scene.sample();
        assert_eq!(scene.orders, [], "it was perhaps only just put there");
        assert_eq!(scene.sample(), Nap::For(NAP_MIN));
        assert_eq!(scene.orders, [Order::Work]);
        let pool = Arc::clone(&scene.pool);
        let work = pool.find_work(0).unwrap();
        assert!(work.permit.is_some() && scene.pool.offload(0, ()).is_ok());
        (0..3).for_each(|_| _ = scene.sample());
        assert_eq!(scene.orders.len(), 1, "there is no second permit");
        drop(work);
        (0..2).for_each(|_| _ = scene.sample());
        assert_eq!(scene.orders.len(), 2);
    }
}
