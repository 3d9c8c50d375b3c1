//! Where jobs wait: one deque per reactor to steal from, and one injector for the slow lane.

use std::iter;

#[cfg(not(loom))]
use crossbeam_deque as deque;
#[cfg(loom)]
use stand_in as deque;

/// Jobs that a reactor has read ahead; the end that is its own.
pub(super) struct Local<J>(deque::Worker<J>);

/// What all threads see of the queues.
pub(super) struct Queues<J> {
    ahead: Vec<deque::Stealer<J>>,
    slow: deque::Injector<(usize, J)>,
}

impl<J> Queues<J> {
    /// Queues for `reactors` reactors, and their own ends.
    pub(super) fn new(reactors: usize) -> (Self, Vec<Local<J>>) {
        let locals: Vec<_> =
            iter::repeat_with(|| Local(deque::Worker::new_fifo())).take(reactors).collect();
        let ahead = locals.iter().map(|local| local.0.stealer()).collect();
        (Queues { ahead, slow: deque::Injector::new() }, locals)
    }

    /// Takes the oldest job of some reactor, with its home; looks at reactor `first` first.
    pub(super) fn steal(&self, first: usize) -> Option<(usize, J)> {
        let homes = first..first + self.ahead.len();
        homes
            .map(|home| home % self.ahead.len())
            .find_map(|home| insist(|| self.ahead[home].steal()).map(|job| (home, job)))
    }

    /// Puts a job into the slow lane.
    pub(super) fn push_slow(&self, home: usize, job: J) {
        self.slow.push((home, job));
    }

    /// Takes the oldest job of the slow lane, with its home.
    pub(super) fn steal_slow(&self) -> Option<(usize, J)> {
        insist(|| self.slow.steal())
    }

    /// Whether the slow lane is empty. Ordered against `push_slow` by the fences of the callers.
    pub(super) fn slow_is_empty(&self) -> bool {
        self.slow.is_empty()
    }
}

impl<J> Local<J> {
    /// Adds a job behind the others.
    pub(super) fn push(&self, job: J) {
        self.0.push(job);
    }

    /// Takes the oldest job that nobody has stolen.
    pub(super) fn pop(&self) -> Option<J> {
        self.0.pop()
    }

    /// How many jobs wait.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Steals until it is clear whether there was something: `Retry` means that another took one.
fn insist<T>(mut steal: impl FnMut() -> deque::Steal<T>) -> Option<T> {
    loop {
        match steal() {
            deque::Steal::Success(job) => return Some(job),
            deque::Steal::Empty => return None,
            deque::Steal::Retry => std::hint::spin_loop(),
        }
    }
}

/// The same queues for loom's models: a lock, and a length that is read without it, so that the
/// models cannot rely on more ordering than crossbeam gives.
#[cfg(loom)]
mod stand_in {
    use std::collections::VecDeque;
    use std::sync::atomic::Ordering::Relaxed;

    use crate::words::sync::atomic::AtomicUsize;
    use crate::words::sync::{Arc, Mutex, lock};

    pub(super) enum Steal<T> {
        Success(T),
        Empty,
        #[expect(dead_code, reason = "a lock needs no second try; crossbeam does")]
        Retry,
    }

    pub(super) struct Injector<T> {
        jobs: Mutex<VecDeque<T>>,
        len: AtomicUsize,
    }

    pub(super) struct Worker<T>(Arc<Injector<T>>);
    pub(super) struct Stealer<T>(Arc<Injector<T>>);

    impl<T> Injector<T> {
        pub(super) fn new() -> Self {
            Injector { jobs: Mutex::new(VecDeque::new()), len: AtomicUsize::new(0) }
        }

        pub(super) fn push(&self, job: T) {
            let mut jobs = lock(&self.jobs);
            jobs.push_back(job);
            self.len.store(jobs.len(), Relaxed);
        }

        pub(super) fn steal(&self) -> Steal<T> {
            let mut jobs = lock(&self.jobs);
            let job = jobs.pop_front();
            self.len.store(jobs.len(), Relaxed);
            job.map_or(Steal::Empty, Steal::Success)
        }

        pub(super) fn is_empty(&self) -> bool {
            self.len.load(Relaxed) == 0
        }
    }

    impl<T> Worker<T> {
        pub(super) fn new_fifo() -> Self {
            Worker(Arc::new(Injector::new()))
        }

        pub(super) fn stealer(&self) -> Stealer<T> {
            Stealer(Arc::clone(&self.0))
        }

        pub(super) fn push(&self, job: T) {
            self.0.push(job);
        }

        pub(super) fn pop(&self) -> Option<T> {
            match self.0.steal() {
                Steal::Success(job) => Some(job),
                Steal::Empty | Steal::Retry => None,
            }
        }

        pub(super) fn len(&self) -> usize {
            self.0.len.load(Relaxed)
        }
    }

    impl<T> Stealer<T> {
        pub(super) fn steal(&self) -> Steal<T> {
            self.0.steal()
        }
    }
}
