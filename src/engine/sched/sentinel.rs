//! `Sentinel`: samples the tickets, sends help to reactors that lie too long, tells the heavy ones.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::time::Duration;

use super::Leased;
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
/// sentinel, all being quiet:       deep = true; fence; is a beat even?     -> stay awake
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
    suspicious: bool,
    quiet: bool,
}

const NAP_MIN: Duration = Duration::from_micros(250);
const NAP_MAX: Duration = Duration::from_millis(1);
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
        Sentinel { eyes, sampled_at, quiet_count: 0, nap: NAP_MIN, slow_work_waited: false }
    }

    /// Looks at every reactor once; `now` is the present moment. `call` sends somebody with an
    /// order, and says whether there was somebody to send.
    pub(super) fn sample<R: Leased>(
        &mut self,
        now: Time,
        slots: &[Slot<R>],
        pool: &Pool<R::Job>,
        mut call: impl FnMut(Order) -> bool,
    ) -> Nap {
        pool.watch.rise();
        pool.stats.samples.add();
        let elapsed = now.since(self.sampled_at);
        self.sampled_at = now;
        let (mut suspicious, mut quiet) = (false, true);
        for (index, eye) in self.eyes.iter_mut().enumerate() {
            let word = slots[index].sample();
            let pulse = &pool.pulses[index];
            let send = |ticket| call(Order::PickUp(index, ticket));
            let look = eye.look(word, pulse, elapsed, send);
            suspicious |= look.suspicious;
            quiet &= look.quiet;
        }
        let waits = pool.slow_work_waits();
        // Seen twice, like a ticket: a job that waits was perhaps only just put there.
        if waits && self.slow_work_waited && !pool.idle.is_searching() {
            call(Order::Work);
        }
        self.slow_work_waited = waits;
        self.next_nap(suspicious || waits, quiet && !waits, pool)
    }

    fn next_nap<J>(&mut self, suspicious: bool, quiet: bool, pool: &Pool<J>) -> Nap {
        self.nap = if suspicious { NAP_MIN } else { NAP_MAX.min(self.nap * 2) };
        self.quiet_count = if quiet { self.quiet_count + 1 } else { 0 };
        if self.quiet_count < QUIET_MIN || !pool.watch.sink(&pool.pulses) {
            return Nap::For(self.nap);
        }
        self.quiet_count = 0;
        self.nap = NAP_MIN;
        Nap::Deep
    }
}

impl Eye {
    fn new() -> Self {
        Eye { word: Sample::NONE, beat: 0, ordered: None, heavy_count: 0 }
    }

    fn look(
        &mut self,
        word: Sample,
        pulse: &Pulse,
        elapsed: Duration,
        mut send: impl FnMut(Ticket) -> bool,
    ) -> Look {
        let beat = pulse.beat();
        // A reactor that was never held yet has its thread coming.
        let ticket = word.ticket().filter(|&ticket| ticket != Ticket::FIRST);
        if let Some(ticket) = ticket {
            // Two strikes: a ticket seen once may belong to a job that has just begun.
            if word == self.word && self.ordered != Some(ticket) && send(ticket) {
                self.ordered = Some(ticket);
            }
        }
        let jobs = u32::try_from(word.jobs_since(self.word)).unwrap_or(u32::MAX);
        let awake = !is_asleep(beat) && beat == self.beat;
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
        let look = Look { suspicious: ticket.is_some(), quiet: ticket.is_none() && rests };
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

    /// Un-parks the sentinel if it sleeps deep; a load if it does not.
    fn rouse(&self) {
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
