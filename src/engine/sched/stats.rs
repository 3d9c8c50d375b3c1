//! `Stats`: what the scheduler counts about itself.

// Not loom's: nothing depends on these numbers, so its models need not explore them.
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// A number that many threads change and nobody relies on.
#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    // Relaxed, all three: figures for people, paired with nothing.

    /// One more.
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// One less.
    pub(super) fn sub(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    fn load(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The counters of one scheduler.
#[derive(Default)]
pub(crate) struct Stats {
    pub(super) take_overs: Counter,
    pub(super) lost_races: Counter,
    pub(super) steals: Counter,
    pub(super) offloads: Counter,
    pub(super) samples: Counter,
    pub(super) helper_calls: Counter,
    pub(super) spawned: Counter,
    pub(super) spawn_failures: Counter,
    pub(super) panics: Counter,
    pub(super) threads: Counter,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StatsSnapshot {
    /// Reactors picked up by a thread that the sentinel has sent.
    pub(crate) take_overs: u64,
    /// Threads that came back from user code and found their reactor gone.
    pub(crate) lost_races: u64,
    /// Jobs that another thread took from a reactor's deque.
    pub(crate) steals: u64,
    /// Jobs put into the slow lane.
    pub(crate) offloads: u64,
    /// Looks that the sentinel took at all reactors.
    pub(crate) samples: u64,
    /// Idle threads that a heavy reactor has called.
    pub(crate) helper_calls: u64,
    /// Threads started since the beginning.
    pub(crate) spawned: u64,
    /// Threads that the system refused.
    pub(crate) spawn_failures: u64,
    /// Panics of our own code, each of which cost one turn.
    pub(crate) panics: u64,
    /// Threads that live now, without the sentinel.
    pub(crate) threads: u64,
    /// Threads that are in user code now and have lost their reactor meanwhile.
    pub(crate) stuck: u64,
}

impl Stats {
    /// The counters now; each is exact, but they are not read at the same moment.
    pub(crate) fn snapshot(&self) -> StatsSnapshot {
        let take_overs = self.take_overs.load();
        let lost_races = self.lost_races.load();
        let panics = self.panics.load();
        StatsSnapshot {
            take_overs,
            lost_races,
            steals: self.steals.load(),
            offloads: self.offloads.load(),
            samples: self.samples.load(),
            helper_calls: self.helper_calls.load(),
            spawned: self.spawned.load(),
            spawn_failures: self.spawn_failures.load(),
            panics,
            threads: self.threads.load(),
            // Each take-over has a victim, who comes back and loses, or has panicked.
            stuck: take_overs.saturating_sub(lost_races).saturating_sub(panics),
        }
    }
}
